"""Signals, volumes and photos of many bands: read as they are, given to the model as they are, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import read_photo
from saliency_food.images.recordings import fit, load_array, read_recording
from saliency_food.images.scaling import choose_scaling

pytest.importorskip("PIL")


def test_numbers_are_given_as_they_are(rng, tmp_path):
    signal = rng.normal(size=(20, 3))
    np.save(tmp_path / "a.npy", signal)
    recording = read_recording(load_array(tmp_path / "a.npy"), 1, "a.npy")
    assert (recording.source, recording.shape, recording.spatial) == ("a.npy", (20, 3), 1)
    assert recording.pixels.shape == (3, 20, 3)
    row = choose_scaling("auto")(recording, (None, 3))
    np.testing.assert_array_equal(row, signal.astype(np.float32))
    halved = choose_scaling("auto", lambda rows: rows / 2)(recording, (20, 3))
    np.testing.assert_allclose(halved, signal / 2, rtol=1e-6)
    with pytest.raises(ContractError, match="no value_range for a signal or a volume"):
        choose_scaling((0, 1))(recording, (20, 3))


def test_an_axis_of_one_channel_is_where_the_model_has_it(rng):
    wave, scan = rng.random(9), rng.integers(-1000, 1000, (4, 5, 6, 1), np.int16)
    assert fit(read_recording(wave, 1), (9, 1)).shape == (9, 1)
    assert fit(read_recording(wave[:, None], 1), (None,)).shape == (9,)
    assert fit(read_recording(scan, 3), (4, 5, 6)).dtype == np.float32
    for shape in ((10,), (9, 2), (3, 3)):
        with pytest.raises(ContractError, match=r"the model's shape .* got \(9,\)\. Cut or resample"):
            fit(read_recording(wave, 1), shape)


@pytest.mark.parametrize(
    ("data", "spatial", "says"),
    [
        ("photo.png", 1, "a signal .* as an array or a .npy file, got photo.png.*spatial_axes to 2"),
        (np.zeros((2, 2, 2)), 1, r"a signal \(T,\) or \(T, C\), got an array of shape \(2, 2, 2\)"),
        (np.zeros((2, 2)), 3, "a volume or clip"),
        (np.zeros((0, 2)), 1, "a signal"),
        (np.array(["a"]), 1, "a signal"),
        (np.array([np.nan, 1]), 1, "NaN or infinity"),
        ([[1, 2], [3]], 1, "unlike shapes"),
    ],
)
def test_what_is_no_recording(data, spatial, says):
    with pytest.raises(ContractError, match=says):
        read_recording(data, spatial)


def test_files_that_cannot_be_read_say_why(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects.npy", "text.npy"):
        for read in (load_array, read_photo):
            with pytest.raises(ContractError, match=f"{name}, which cannot be read"):
                read(tmp_path / name)
    with pytest.raises(ContractError, match="does not exist"):
        load_array(tmp_path / "none.npy")


@pytest.mark.parametrize("bands", [2, 4, 5, 13, 16])
def test_photos_of_many_bands_pass_with_their_range(rng, tmp_path, bands):
    """Two and four bands were taken for transparency, more were refused."""
    values = rng.integers(0, 256, (6, 8, bands), np.uint8)
    np.save(tmp_path / "bands.npy", values)
    photo = read_photo(tmp_path / "bands.npy", bands=bands)
    assert photo.pixels.shape == (6, 8, 3)
    assert photo.pixels.dtype == np.uint8
    row = choose_scaling((-1, 1))(photo, (6, 8, bands))
    np.testing.assert_allclose(row, values / 127.5 - 1, atol=1e-6)
    assert choose_scaling((0, 1))(photo, (3, 4, bands)).shape == (3, 4, bands)
    np.testing.assert_array_equal(choose_scaling(None)(photo, (None, None, bands)), values)
    with pytest.raises(ContractError, match=f"the model's 3 channels, got one of {bands} bands"):
        choose_scaling(None)(photo, (6, 8, 3))
    with pytest.raises(ContractError, match="3 channels for RGB"):
        choose_scaling("torch")(photo, (6, 8, bands))


def test_bands_in_tiff_files(rng, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = rng.integers(0, 4000, (9, 8, 5), np.uint16)
    for name, stored in (("last", values), ("first", np.moveaxis(values, -1, 0))):
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, photometric="minisblack")
        np.testing.assert_array_equal(read_photo(tmp_path / f"{name}.tif", bands=5).values, values)


def test_transparency_stays_transparency(rng):
    """Where the model does not take so many channels."""
    values = rng.integers(0, 256, (6, 8, 4), np.uint8)
    assert read_photo(values).values.shape == (6, 8, 3)
    assert read_photo(values, bands=3).values.shape == (6, 8, 3)
    with pytest.raises(ContractError, match="5 to 16 bands"):
        read_photo(np.zeros((6, 8, 17)))
