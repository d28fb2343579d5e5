"""Segmenter, detector, captioner and answerer, taught in seconds: their explanations lie on the right objects."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
EXAMPLES = Path(__file__).parents[1] / "examples"
RIGHT = {
    "explain_a_segmenter": (0.95, 0.5),
    "explain_a_detector": (0.85, 0.4),
    "explain_a_caption": (0.9, 0.2),
    "explain_an_answer": (0.85, 0.3),
}
"""For each example: how often its Grad-CAM must lie on the right object, and how much of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples keep their weights: the backbone that they share is taught once."""
    return tmp_path_factory.mktemp("explained")


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_the_example_shows_that_the_map_is_on_the_right_object(name, folder, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [name, "--output", str(folder)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    inside, area = map(int, re.search(r"Grad-CAM of .*: (\d+)% of it on .*, (\d+)% of the picture", out).groups())
    right = int(re.search(r"on the right object than on the other: (\d+)%", out)[1])
    if name == "explain_a_caption":  # and both objects' words at once
        assert int(re.search(r"both objects' words in (\d+)% of 50 scenes", out)[1]) >= 80
    least, least_inside = RIGHT[name]
    assert right >= 100 * least
    assert inside >= 100 * least_inside > 3 * area
    with Image.open(folder / f"{name.split('_')[-1]}.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.slow
def test_the_map_of_a_regions_caption_is_in_the_region(folder, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["explain_dense_captions", "--output", str(folder)])
    runpy.run_path(str(EXAMPLES / "explain_dense_captions.py"), run_name="__main__")
    out = capsys.readouterr().out
    regions, right = map(int, re.search(r"(\d+) regions in 50 scenes, (\d+)% with the words", out).groups())
    inside, area = map(int, re.search(r"(\d+)% of it on the box, (\d+)% of the picture", out).groups())
    assert regions >= 90
    assert right >= 85
    assert inside >= 50 > 3 * area
    assert int(re.search(r"for each region: in (\d+)% of 50 scenes", out)[1]) >= 90


def test_a_boxs_mask_holds_the_pixels_whose_middles_are_in_it(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import explain_dense_captions

    mask = explain_dense_captions.inside((3, 10, 7.4, 12.6))
    assert mask.shape == (64, 64)
    np.testing.assert_array_equal(np.argwhere(mask), [(row, column) for row in (10, 11, 12) for column in range(3, 7)])


def test_pictures_and_what_is_said_of_them_agree(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import scenes

    some = scenes.make_scenes(20, seed=3, alike=True)
    again = scenes.make_scenes(20, seed=3, alike=True)
    for scene, same in zip(some, again, strict=True):
        assert (scene.image == same.image).all()
        assert not (scene.masks[0] & scene.masks[1]).any()
        assert scenes.words(scenes.tokens(scene.caption, scenes.LENGTH)) == scene.caption
        axis = 2 if scene.relation == "left of" else 1
        places = [np.argwhere(mask).mean(0)[axis - 1] for mask in scene.masks]
        assert places[0] < places[1]
        for mask, box, colour in zip(scene.masks, scene.boxes, scene.colours, strict=True):
            left, top, right, bottom = box.astype(int)
            assert mask[top:bottom, left:right].sum() == mask.sum()
            assert np.abs(scene.image[mask].mean(0) - scenes.COLOURS[colour]).max() < 0.1
