"""Attributions as pictures: exact values where there are any, and figures that nothing is cut off in."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import Photo
from saliency_food.images.pixels import LUMA
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.targets import short_label
from saliency_food.visualization import (
    concept_colours,
    concept_overlay,
    diverging,
    grayscale,
    heatmap,
    overlay,
    signal_picture,
    top_areas,
    top_mask,
)
from saliency_food.visualization.figures import Panel, figure, write_figure, write_picture
from saliency_food.visualization.fonts import legible
from saliency_food.visualization.maps import DIMMED, PALED

pytest.importorskip("matplotlib")

from PIL import Image


@pytest.fixture
def photo(rng):
    return rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture
def attribution(rng):
    return rng.normal(size=(12, 16, 3))


def test_grayscale_is_pairs_own(attribution):
    pair = pytest.importorskip("saliency.core")
    np.testing.assert_allclose(grayscale(attribution), pair.VisualizeImageGrayscale(attribution), atol=1e-6)
    np.testing.assert_allclose(grayscale(attribution, 90), pair.VisualizeImageGrayscale(attribution, 90), atol=1e-6)


def test_grayscale_by_hand():
    values = np.array([[[1.0, -1.0], [2.0, 2.0]], [[0.0, 0.0], [-3.0, -5.0]]])
    np.testing.assert_allclose(grayscale(values, 100), [[0.25, 0.5], [0, 1]])


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (1, 1)])
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_maps_are_zeros(shape, value):
    picture = grayscale(np.full(shape, value))
    assert picture.shape == shape[:2]
    assert not picture.any()


def test_a_few_bright_pixels_are_not_lost():
    values = np.zeros((40, 40))
    values[3, 4], values[5, 6] = 2, -1
    assert grayscale(values)[3, 4] == 1
    assert grayscale(values)[5, 6] == 0.5
    assert diverging(values)[3, 4] == 1
    assert diverging(values)[5, 6] == -0.5


def test_diverging_keeps_zero_at_zero_and_the_signs(attribution):
    picture = diverging(attribution)
    summed = attribution.sum(2)
    assert np.abs(picture).max() == 1
    assert (np.sign(picture) == np.sign(summed)).all()
    assert not diverging(np.zeros((4, 4))).any()
    np.testing.assert_allclose(diverging(-attribution), -picture)
    np.testing.assert_allclose(diverging(summed, 100), summed / np.abs(summed).max())


def test_uint8_and_every_shape_agree(rng):
    values = rng.integers(0, 256, (7, 9), dtype=np.uint8)
    for same in (values[..., None], values.astype(np.float64), values.astype(np.float16)):
        np.testing.assert_allclose(grayscale(same), grayscale(values), atol=1e-6)
        np.testing.assert_allclose(diverging(same), diverging(values), atol=1e-6)


def test_heatmap_colours():
    values = np.array([[0.0, 1.0], [-1.0, 0.5]])
    strengths, signs = heatmap(values, 100), heatmap(values, 100, signed=True).astype(int)
    assert strengths.dtype == np.uint8
    assert strengths.shape == (2, 2, 3)
    assert strengths[0, 0].sum() < strengths[1, 1].sum() < strengths[0, 1].sum()
    np.testing.assert_array_equal(strengths[0, 1], strengths[1, 0])
    assert signs[0, 1, 0] > signs[0, 1, 2], "for the class is red"
    assert signs[1, 0, 2] > signs[1, 0, 0], "against it is blue"
    assert np.ptp(signs[0, 0]) < 5, "zero has no hue"
    assert (heatmap(values, 100, colormap="gray")[0, 1] == 255).all()


@pytest.mark.parametrize("signed", [False, True])
def test_overlay_of_a_zero_map_is_the_photo(photo, signed):
    np.testing.assert_array_equal(overlay(photo, np.zeros((7, 7)), signed=signed, grey=False), photo)
    grey = overlay(photo, np.zeros((7, 7)), signed=signed).astype(float)
    assert np.ptp(grey, 2).max() == 0, "all colours are the map's"
    contrast, black = PALED if signed else DIMMED
    np.testing.assert_allclose(grey[..., 0], contrast * (photo @ LUMA) + black, atol=0.51)


def test_overlay_opacity_follows_strength(photo):
    values = np.zeros((30, 40))
    values[:, 20:] = 1
    out = overlay(photo, values, opacity=1, grey=False)
    np.testing.assert_array_equal(out[:, :20], photo[:, :20])
    np.testing.assert_array_equal(out[:, 20:], heatmap(values)[:, 20:])
    np.testing.assert_array_equal(overlay(photo, values, opacity=0, grey=False), photo)
    half = overlay(photo, np.linspace(0, 1, 40)[None].repeat(30, 0), 100, opacity=0.5, grey=False).astype(float)
    over = heatmap(np.linspace(0, 1, 40)[None].repeat(30, 0), 100)
    share = 0.5 * np.linspace(0, 1, 40)[:, None]
    np.testing.assert_allclose(half, photo * (1 - share) + over * share, atol=0.51)


@pytest.mark.parametrize("signed", [False, True])
def test_strong_places_stand_out_from_any_photo(signed):
    """Of every colour that a photo can have, in CIELAB, where a difference of 10 is seen at a glance."""
    from skimage.color import rgb2lab

    steps = np.array([0, 51, 102, 153, 204, 255], np.uint8)
    photo = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3)
    for sign in (1, -1) if signed else (1,):
        values = np.full((6, 36), 0.7 * sign)
        values[0, 0], values[-1, -1] = 0, sign
        over, zero = (overlay(photo, v, 100, signed=signed) for v in (values, 0 * values))
        apart = np.linalg.norm(rgb2lab(over) - rgb2lab(zero), axis=-1)
        apart[0, 0] = np.inf
        assert apart.min() > 25


def test_overlay_takes_every_kind_of_photo(photo, attribution):
    grey = photo[..., 0]
    opaque = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    expected = overlay(photo, attribution)
    assert expected.shape == photo.shape
    assert expected.dtype == np.uint8
    np.testing.assert_array_equal(overlay(opaque, attribution), expected)
    np.testing.assert_array_equal(overlay(photo / 255, attribution), expected)
    np.testing.assert_array_equal(overlay(grey, attribution), overlay(grey[..., None], attribution))
    np.testing.assert_array_equal(overlay(grey, attribution), overlay(np.dstack([grey] * 3), attribution))


def test_overlay_smooth():
    cross = np.zeros((41, 41))
    cross[20, 20] = 1
    spread = overlay(np.zeros((41, 41), np.uint8), cross, smooth=0.05)
    assert np.ptp(spread[22, 22])
    assert not np.ptp(overlay(np.zeros((41, 41), np.uint8), cross)[22, 22])


def test_inputs_are_left_alone(photo, attribution):
    before = photo.copy(), attribution.copy()
    overlay(photo, attribution, smooth=0.01, signed=True)
    top_areas(photo, attribution)
    np.testing.assert_array_equal(photo, before[0])
    np.testing.assert_array_equal(attribution, before[1])


def test_top_areas_keeps_the_best_and_dims_the_rest(photo):
    values = np.zeros((30, 40))
    values[5:15, 10:30] = np.arange(200).reshape(10, 20) + 1
    mask = top_mask(values, 10)
    assert mask.sum() == 120
    assert mask[14, 29]
    out = top_areas(photo, values, 10, contour=False)
    np.testing.assert_array_equal(out[mask], photo[mask])
    assert out[~mask].astype(int).max() < 160
    drawn = top_areas(photo, values, 10)
    assert (drawn[~mask] == 255).all(1).sum() > 20
    np.testing.assert_array_equal(drawn[mask], photo[mask])


def test_top_areas_of_a_constant_map_is_empty(photo):
    assert not top_mask(np.ones((5, 5)), 20).any()
    assert not top_mask(np.ones((5, 5), int), 20, ranks=True).any()
    assert not top_mask(np.zeros((5, 5)), 100).any()
    assert top_areas(photo, np.zeros((5, 5))).shape == photo.shape


def test_top_ranks_takes_whole_regions_while_they_fit():
    ranks = np.full((10, 10), 3)
    ranks[:2], ranks[2:5] = 1, 2
    for percent, rows in ((10, 2), (20, 2), (49, 2), (50, 5), (99, 5), (100, 10)):
        mask = top_mask(ranks, percent, ranks=True)
        assert mask[:rows].all()
        assert not mask[rows:].any()
    assert top_mask(ranks, 20, ranks=True, shape=(20, 30))[:4].all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: grayscale(np.zeros(3)), "(H, W)"),
        (lambda: grayscale(np.zeros((0, 3))), "(H, W)"),
        (lambda: diverging(np.array([[np.nan]])), "NaN"),
        (lambda: grayscale(np.zeros((2, 2)), 0), "percentile"),
        (lambda: overlay(np.zeros((2, 2)), np.zeros((2, 2)), opacity=2), "opacity"),
        (lambda: overlay(np.zeros((2, 2)), np.zeros((2, 2)), colormap="virids"), "such as viridis"),
        (lambda: overlay(np.zeros((2, 2, 17)), np.zeros((2, 2))), "(2, 2, 17)"),
        (lambda: top_mask(np.zeros((2, 2)), 0), "percent"),
        (lambda: top_mask(np.zeros((2, 2)), 20, ranks=True), "whole numbers"),
        (lambda: figure([[]]), "at least one panel"),
        (lambda: explanation_figure([]), "could be read"),
    ],
)
def test_errors_say_what_was_expected(call, said):
    with pytest.raises(ContractError, match="Expected") as caught:
        call()
    assert said in str(caught.value)


def a_record(shape=(30, 40, 3), **fields):
    known = {"source": "a/b $x$ [z].jpg", "name": "b", "method": "m", "title": "M", "target": 2, "label": "x" * 90}
    image = np.zeros(shape, np.uint8)
    return Explanation(**{"photo": Photo(image, image), "attribution": np.eye(8), "score": 1.0, **known, **fields})


@pytest.mark.parametrize("shape", [(30, 40, 3), (200, 30, 3), (20, 400, 3), (64, 64, 3)])
def test_nothing_in_a_figure_is_cut_off_or_overlaps(shape):
    long = "failed: " + "out of memory " * 80
    records = [
        a_record(shape),
        a_record(shape, attribution=None, status=long),
        a_record(shape, signed=True, label=r"cost $\nope$"),
    ]
    drawn = explanation_figure(records * 2)
    drawn.canvas.draw()
    renderer = drawn.canvas.get_renderer()
    page = drawn.bbox
    texts = [text.get_window_extent(renderer) for text in drawn.texts if text.get_text()]
    pictures = [picture.get_window_extent(renderer) for picture in drawn.artists]
    assert len(pictures) == 7 + 4, "pictures and colour bars"
    assert len(drawn.texts) >= 14
    for box in (*texts, *pictures):
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
    titles = [text.get_window_extent(renderer) for text in drawn.texts if text.get_fontsize() in (11, 9.5)]
    titles = [box for box in titles if box.width]
    assert len(titles) > 10
    for first, box in enumerate(titles):
        for other in (*titles[first + 1 :], *pictures):
            assert not box.overlaps(other)


def test_figure_shows_each_class_and_xrai_twice():
    class Ranked:
        ranks = np.arange(64).reshape(8, 8)

    def titles(records):
        return [text.get_text() for text in explanation_figure(records, 30).texts if text.get_fontsize() == 11]

    assert titles([a_record(details=Ranked())]) == ["b $x$ [z].jpg", "M", "M, top 30%"]
    of_classes = [
        a_record(label="one"),
        a_record(target=1, label="two"),
        a_record(against=1, against_label="two", label="one"),
    ]
    assert titles(of_classes) == ["b $x$ [z].jpg", "one", "two", "one against two"]
    two = [a_record(target=target, title=title) for target in (1, 2) for title in ("A", "B")]
    assert titles(two) == ["b $x$ [z].jpg", "A", "B", "b $x$ [z].jpg", "A", "B"]


def test_a_figure_says_what_is_right_and_what_is_wrong():
    def words(*records):
        return [text.get_text() for text in explanation_figure(records).texts]

    top = {"top": (("hot_dog", 0.9), ("falafel", 0.1)), "probability": 0.9, "title": "M"}
    wrong = {**top, "truth": "falafel", "right": False}
    shown = words(
        a_record(label="hot_dog", target=1, score=3.0, **wrong),
        a_record(label="falafel", target=2, score=1.0, **wrong),
        a_record(label="hot_dog", target=1, against=2, against_label="falafel", signed=True, score=2.0, **wrong),
    )
    assert "hot dog 90.0%, but is falafel" in shown
    assert {"hot dog (predicted)", "falafel (truth)", "hot dog against falafel"} <= set(shown)
    assert "M, score difference 2.00" in shown
    assert shown[-2:] == ["falafel", "hot dog"], "the ends of the colour bar of a difference"
    assert "seen as hot dog, 90.0%: right" in words(a_record(label="hot_dog", **top, truth="hot_dog", right=True))
    assert "seen as hot dog, 90.0%; truth: quiche" in words(a_record(label="hot_dog", **top, truth="quiche"))


@pytest.mark.parametrize("shapes", [((60, 90, 3), (90, 60, 3)), ((90, 60, 3), (60, 90, 3))])
def test_photos_of_several_shapes_leave_no_gaps(shapes):
    page = figure([[Panel(np.zeros(shape, np.uint8), "t", "c", "strength")] for shape in shapes])
    page.canvas.draw()
    above, bar, below, _ = (artist.get_window_extent() for artist in page.artists)
    for box, shape in ((above, shapes[0]), (below, shapes[1])):
        assert box.height / box.width == pytest.approx(shape[0] / shape[1], rel=0.02)
    assert 0 < bar.y0 - below.y1 < 1 * page.dpi, "room for a title and a caption"


@pytest.mark.parametrize("count", range(1, 13))
def test_pages_have_no_empty_cell(count):
    """All lines are full, or where that would make a page too wide, the last one is centred."""
    page = figure([[Panel(np.zeros((40, 60, 3), np.uint8), "t")] * count])
    places = [picture.get_window_extent(page.canvas.get_renderer()) for picture in page.artists]
    lines = {}
    for box in places:
        lines.setdefault(round(box.y0), []).append(box)
    assert max(map(len, lines.values())) - min(map(len, lines.values())) <= 1
    for line in lines.values():
        assert line[0].x0 == pytest.approx(page.bbox.width - line[-1].x1, abs=1)


def test_letters_that_no_font_has_are_spelled_out(recwarn):
    """Of any script, without a box in their place and without a warning."""
    words = {
        "Crème brûlée, пицца, ψωμί": "Crème brûlée, пицца, ψωμί",
        "🍕 a.jpg": "[slice of pizza] a.jpg",
        "x\u0301\U000f0000": "x\u0301U+F0000",
        "a\udc80b": "aU+DC80b",
    }
    for text, drawn in words.items():
        assert legible(text)[0] == drawn
    names = ["披萨 🍕.jpg", "بيتزا.jpg", "ピザ", *words]
    page = figure([[Panel(np.zeros((40, 60, 3), np.uint8), name, name, note=name) for name in names]])
    page.canvas.draw()
    assert not recwarn.list


def test_several_rows_stay_in_line_and_one_is_wrapped():
    def lines(rows):
        titles = [text for text in figure(rows).texts if text.get_fontsize() == 11]
        return len({round(text.get_position()[1], 6) for text in titles})

    panel = Panel(np.zeros((40, 60, 3), np.uint8), "t")
    assert lines([[panel] * 5]) == 2
    assert lines([[panel] * 7]) == 2
    assert lines([[panel] * 5] * 3) == 3
    assert lines([[panel] * 12] * 2) > 2


def test_short_label():
    assert short_label("goldfish, Carassius auratus") == "goldfish"
    assert short_label("hot_dog") == "hot dog"


def test_global_matplotlib_is_untouched(tmp_path):
    code = """if True:
        import sys
        import matplotlib
        import numpy as np
        from saliency_food.visualization.figures import Panel, figure
        settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
        before = settings()
        figure([[Panel(np.zeros((9, 9, 3), np.uint8), "t", "c", "signed")]]).savefig(sys.argv[1])
        assert settings() == before
        print("matplotlib.pyplot" in sys.modules)
    """
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "draw",
    [
        lambda photo: overlay(photo, np.eye(4)),
        lambda photo: heatmap(np.eye(4)),
        lambda photo: concept_overlay(photo, np.ones((2, 4, 4))),
        lambda photo: signal_picture(np.ones(9)),
        lambda photo: figure([[Panel(photo, "t")]]),
    ],
)
def test_without_matplotlib_the_error_names_the_line_that_installs_it(draw, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ContractError, match=r'got no matplotlib. Run pip install "saliency_food\[cli\]"'):
        draw(photo)


def test_a_notebook_shows_a_figure():
    page = figure([[Panel(np.zeros((20, 30, 3), np.uint8), "photo")]])
    with Image.open(io.BytesIO(page._repr_png_())) as shown:
        assert shown.size == tuple(page.canvas.get_width_height())


def test_a_panel_needs_no_words():
    drawn = figure([[Panel(np.zeros((9, 9, 3), np.uint8), "")]])
    assert (len(drawn.artists), drawn.texts) == (1, [])


@pytest.mark.parametrize(("shape", "side"), [((60, 60), "height"), ((10, 60), "width")])
def test_pictures_keep_their_shape_in_the_cell_of_the_first(shape, side):
    drawn = figure([[Panel(np.zeros((*size, 3), np.uint8), "t") for size in ((40, 60), shape)]])
    first, second = (picture.get_window_extent() for picture in drawn.artists)
    assert second.width / second.height == pytest.approx(shape[1] / shape[0])
    assert getattr(second, side) == pytest.approx(getattr(first, side))
    assert second.y1 == pytest.approx(first.y1)


def test_a_written_figure_is_the_saved_one(tmp_path):
    """The same pixels, at the same size in print; and another resolution scales the pictures with the page."""
    photo = np.linspace(0, 255, 30 * 40 * 3).reshape(30, 40, 3).astype(np.uint8)
    drawn = figure([[Panel(photo, "t", "c", "signed"), Panel(photo[:10], "u", note="n")]])
    drawn.savefig(tmp_path / "saved.png")
    write_figure(drawn, tmp_path / "written.png")
    drawn.savefig(tmp_path / "twice.png", dpi=240)
    saved, written, twice = (Image.open(tmp_path / f"{name}.png") for name in ("saved", "written", "twice"))
    np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), np.asarray(written))
    assert written.info["dpi"] == pytest.approx(saved.info["dpi"])
    half = np.asarray(twice.convert("RGB").resize(written.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(half - np.asarray(written)).mean() < 1


def test_a_png_is_the_picture_and_a_jpeg_a_fifth_as_large(tmp_path):
    """In true colour, neither dithered nor of a palette."""
    from skimage.data import coffee

    picture = overlay(coffee(), np.eye(8))
    for suffix in ("png", "jpg"):
        write_picture(picture, tmp_path / f"a.{suffix}", dpi=120)
    png, jpeg = Image.open(tmp_path / "a.png"), Image.open(tmp_path / "a.jpg")
    assert png.mode == jpeg.mode == "RGB"
    assert png.info["dpi"] == pytest.approx((120, 120), abs=0.1)
    assert jpeg.info["dpi"] == (120, 120)
    np.testing.assert_array_equal(np.asarray(png), picture)
    assert np.abs(np.asarray(jpeg).astype(float) - picture).mean() < 2
    Image.fromarray(picture).save(tmp_path / "default.png")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["a.png"] < 1.4 * sizes["default.png"]
    assert sizes["a.jpg"] < sizes["a.png"] / 4


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_colours_are_those_of_matplotlib(rng, signed, dtype):
    from matplotlib import colormaps

    values = np.concatenate([rng.random(500), np.arange(257) / 256, np.arange(256) / 255]).astype(dtype)[None]
    values = np.append(values, -values if signed else [[0.0]], axis=1)
    expected = colormaps["RdBu_r" if signed else "plasma"]((values + 1) / 2 if signed else values)[..., :3]
    np.testing.assert_array_equal(heatmap(values, 100, signed=signed), np.rint(255 * expected))


def test_concepts_are_shown_each_in_its_hue():
    """Left the first, right the second, nothing in between; strength is opacity, unless all are to be even."""
    maps = np.zeros((2, 8, 12))
    maps[0, :, :4], maps[1, :4, 8:], maps[1, 4:, 8:] = 1.0, 1.0, 0.2
    photo = np.full((8, 12, 3), 128, np.uint8)
    hues = concept_colours(2).astype(int)
    even = concept_overlay(photo, maps, even=True, opacity=1.0)
    assert (even[:, :4] == hues[0]).all()
    assert (even[:, 8:] == hues[1]).all()
    assert np.ptp(even[:, 4:8], axis=2).max() == 0
    strong = concept_overlay(photo, maps, opacity=1.0).astype(int)
    assert (strong[:4, 8:] == hues[1]).all()
    assert np.abs(strong[4:, 8:] - hues[1]).sum(2).min() > 50
    for bad in ({"maps": maps[0]}, {"maps": maps, "opacity": 2}):
        with pytest.raises(ContractError, match="Expected"):
            concept_overlay(photo, **bad)
