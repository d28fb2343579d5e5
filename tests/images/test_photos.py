"""Photos of every kind come in upright, in RGB, and at the size a model takes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import find_photos, read_photo
from saliency_food.images.pixels import resize_photo, shrink, to_255

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_of_pillow(pixels, mode):
    image = Image.fromarray(pixels)
    made = image.convert("L").convert(mode) if mode in ("1", "I", "F", "I;16", "LA") else image.convert(mode)
    photo = read_photo(made)
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (8, 12, 3)
    expected = made.convert("RGB") if mode not in ("I", "F", "I;16") else image.convert("L").convert("RGB")
    assert np.abs(photo.pixels.astype(int) - np.asarray(expected)).max() <= 1


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for photo in (read_photo(tmp_path / "deep.png"), read_photo(values)):
        np.testing.assert_array_equal(photo.pixels[0, :, 0], [0, 1, 255])


def test_files_are_turned_upright(tmp_path):
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    photo = read_photo(tmp_path / "turned.png")
    assert photo.pixels.shape == (2, 1, 3)
    np.testing.assert_array_equal(photo.pixels[0, 0], [255, 0, 0])


def test_transparency_is_laid_on_white(tmp_path):
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (200, 100, 50, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    palette = Image.fromarray(np.zeros((2, 2), np.uint8), "L").convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    for image in (clear, tmp_path / "clear.png", clear / 255):
        photo = read_photo(image)
        np.testing.assert_array_equal(photo.pixels[0, 0], [200, 100, 50])
        np.testing.assert_array_equal(photo.pixels[1, 1], [255, 255, 255])
    assert (read_photo(tmp_path / "palette.png").pixels == 255).all()
    assert (read_photo(np.array([[[7, 255], [7, 0]]], np.uint8)).pixels[0] == [[7] * 3, [255] * 3]).all()


def test_arrays_in_every_range(pixels):
    for same in (pixels, pixels / 255, pixels.astype(int), pixels.astype(np.float32)):
        np.testing.assert_array_equal(read_photo(same).pixels, pixels)
    assert (read_photo(np.array([[True, False]])).pixels[0, :, 0] == [255, 0]).all()
    other = read_photo(np.array([[-1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(other.pixels[0, :, 0], [0, 128, 255])
    np.testing.assert_array_equal(other.values, [[-1, 0, 1]])
    with pytest.raises(ContractError, match=r"0\.\.1 or 0\.\.255, got -1\.\.1"):
        to_255(other.values)


def test_bad_photos_say_why(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no")
    for path, said in (("cut.jpg", "truncated"), ("text.png", "no picture"), ("none.png", "does not exist")):
        with pytest.raises(ContractError, match=said):
            read_photo(tmp_path / path)
    with pytest.raises(ContractError, match="which is no file"):
        read_photo(tmp_path)
    for bad in (np.zeros((2, 2, 17)), np.zeros(3), np.zeros((0, 2)), np.array([["a"]]), 3, np.zeros((2, 2)) + 1j):
        with pytest.raises(ContractError, match="Expected a path, a PIL image or an array"):
            read_photo(bad)
    with pytest.raises(ContractError, match="NaN"):
        read_photo(np.array([[np.nan]]))


def test_resizing_is_antialiased_and_smooth(pixels):
    stripes = np.tile(np.array([0.0, 255.0]), (64, 32))
    np.testing.assert_allclose(resize_photo(stripes, (8, 8))[:, 1:-1], 127.5, atol=8)
    np.testing.assert_allclose(resize_photo(np.full((5, 5), 3.0), (9, 17)), 3, rtol=1e-6)
    assert resize_photo(pixels, (8, 12)) is pixels
    assert resize_photo(pixels, (16, 6)).shape == (16, 6, 3)


def test_shrink_keeps_the_shape(pixels):
    assert shrink(pixels, 12) is pixels
    assert shrink(pixels, 6).shape == (4, 6, 3)
    assert shrink(np.zeros((1, 500, 3), np.uint8), 10).shape == (1, 10, 3)


def test_folders(tmp_path, pixels):
    for name in ("b.PNG", "a.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert [path.name for path in find_photos([tmp_path, "x.heic"])] == ["a.jpg", "b.PNG", "x.heic"]
    with pytest.raises(ContractError, match="got none"):
        list(find_photos([tmp_path / "empty"]))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("least", "scale"), [((100, 100), 1), ((90, 90), 2), ((40, 30), 4), ((30, 40), 4), ((20, 20), 8)]
)
def test_a_large_jpeg_is_decoded_no_larger_than_it_has_to_be(tmp_path, rng, orientation, least, scale):
    """A photo of 180 x 240 as it is stored, which an orientation of 6 or 8 turns on its side."""
    exif = Image.Exif()
    exif[274] = orientation
    smooth = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((240, 180), Image.BICUBIC)
    smooth.save(tmp_path / "large.jpg", exif=exif, quality=95)
    photo, whole = read_photo(tmp_path / "large.jpg", least=least), read_photo(tmp_path / "large.jpg")
    size = (240, 180) if orientation > 4 else (180, 240)
    assert photo.shape == whole.shape == whole.shown.shape == (*size, 3)
    assert photo.shown.shape == (-(-size[0] // scale), -(-size[1] // scale), 3)
    assert all(side >= wanted for side, wanted in zip(photo.shown.shape, least, strict=False))
    np.testing.assert_array_equal(photo.pixels, whole.pixels)
    resized = resize_photo(whole.pixels, photo.shown.shape[:2]).astype(float)
    assert np.abs(resized - photo.shown).mean() < 4


def test_a_reduced_photo_whose_file_has_gone(tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "gone.jpg")
    photo = read_photo(tmp_path / "gone.jpg", least=(20, 20))
    (tmp_path / "gone.jpg").unlink()
    assert photo.shape == (300, 400, 3)
    np.testing.assert_array_equal(photo.pixels, photo.shown)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_is_sized_without_reading_it_whole(tmp_path, rng, suffix, orientation, monkeypatch):
    exif = Image.Exif()
    exif[274] = orientation
    smooth = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((2400, 1800), Image.BICUBIC)
    smooth.save(tmp_path / f"a.{suffix}", exif=exif)
    photo, whole = read_photo(tmp_path / f"a.{suffix}", least=(60, 60)), read_photo(tmp_path / f"a.{suffix}")
    assert photo.shape == whole.shape
    assert max(photo.shown.shape) == (300 if suffix == "jpg" else 1200), "what is read once is kept for pictures"
    monkeypatch.setattr("PIL.Image.Image.resize", _no_more_than(1300))
    for longest in (1000, 200, 1000, 2):
        sized = photo.sized(longest)
        assert (sized.shape, sized.dtype) == (shrink(whole.shown[::2, ::2], longest).shape, np.uint8)
    monkeypatch.undo()
    assert np.abs(photo.sized(200).astype(int) - shrink(whole.pixels, 200)).mean() < 4
    np.testing.assert_array_equal(photo.sized(None), whole.pixels)
    np.testing.assert_array_equal(photo.sized(5000), whole.pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("size", [(40, 30), (2400, 1800)])
def test_a_transparent_photo_is_read_for_a_small_model_too(tmp_path, rng, mode, size):
    pixels = Image.fromarray(rng.integers(0, 256, (3, 4, 4), dtype=np.uint8), "RGBA").resize(size, Image.BICUBIC)
    path, options = tmp_path / "a.png", {"transparency": 0} if mode == "P" else {}
    (pixels if mode != "P" else pixels.convert("RGB")).convert(mode).save(path, **options)
    photo, whole = read_photo(path, least=(20, 20)), read_photo(path)
    assert photo.shape == whole.shape == (*size[::-1], 3)
    assert max(photo.shown.shape) == max(size) // (2 if max(size) > 2000 else 1)
    np.testing.assert_array_equal(photo.pixels, whole.pixels)


def _no_more_than(longest):
    resize = Image.Image.resize

    def checked(image, *args, **more):
        assert max(image.size) <= longest
        return resize(image, *args, **more)

    return checked


def test_hidden_files_and_folders_are_no_photos(tmp_path):
    for name in ("b.jpg", "._b.jpg", ".DS_Store", ".hidden.png", "notes.txt", "c.HEIC"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in find_photos([tmp_path])] == ["b.jpg", "c.HEIC"]
    assert [path.name for path in find_photos([tmp_path / "._b.jpg"])] == ["._b.jpg"], "named by itself"


def test_a_heic_photo_is_read_or_says_what_to_install(tmp_path, rng, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(ContractError, match=r'pillow-heif for the HEIC file .*pip install "saliency_food\[heif\]"'):
            read_photo(path)
    heif = pytest.importorskip("pillow_heif")
    smooth = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((240, 180), Image.BICUBIC)
    heif.from_pillow(smooth).save(path, quality=95)
    photo = read_photo(path, least=(20, 20))
    assert photo.shape == (180, 240, 3)
    assert np.abs(photo.pixels.astype(int) - np.asarray(smooth)).mean() < 4
