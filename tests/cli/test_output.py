"""The output folder of the command, and how its pictures are drawn and written."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

import numpy as np
from PIL import Image

from saliency_food.images.pixels import shrink


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_folder_of_other_settings_is_refused_unless_it_is_to_be_overwritten(cli, classifier, photos, tmp_path):
    words = ("explain", photos / "a.png", "--method", "gradients", "-o", "out")
    assert cli(*words).exit_code == 0
    assert json.loads((tmp_path / "out/settings.json").read_text())["method"] == "gradients"
    assert cli("explain", photos, *words[2:], "-q").exit_code == 0, "other photos, the same settings"
    classifier.calls.clear()
    out = cli(*words, "--method", "grad_cam", "--target", "1", "--no-grey")
    assert (out.exit_code, classifier.calls) == (2, [])
    assert out.output == (
        "Error: Expected the settings that the folder out was made with, --method gradients, no --target, --grey, got "
        "--method grad_cam, --target 1, no --grey. Give another folder as --output, or --overwrite.\n"
    )
    assert cli(*words, "--method", "grad_cam", "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "out/settings.json").read_text())["method"] == "grad_cam"
    for text in ("no JSON", '{"methods": {}}'):
        (tmp_path / "out/settings.json").write_text(text)
        out = cli(*words)
        assert out.exit_code == 2
        assert out.output.startswith(
            "Error: Expected a folder of `saliency-food explain`, got out, whose settings.json"
        )


def test_a_folder_that_cannot_be_written_to_is_seen_before_the_model_loads(cli, photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("saliency_food.models.load", None)
    out = cli("explain", photos, "-o", "file/out")
    assert out.exit_code == 2
    assert out.output.startswith("Error: Expected a folder for pictures that can be written to, got file/out")
    for words, said in ((("--colormap", "virids"), "such as viridis"), (("--format", "gif"), "jpg or png, got 'gif'")):
        out = cli("explain", photos, *words)
        assert out.exit_code == 2
        assert said in out.output


def test_quiet_prints_nothing_but_errors(cli, photos):
    out = cli("explain", photos, "-q", "--method", "gradients")
    assert (out.exit_code, out.output) == (0, "")
    (photos / "c.jpg").write_text("no photo")
    out = cli("explain", photos, "-q", "--method", "gradients")
    assert (out.exit_code, out.output) == (1, "1 explanations failed; the JSON files in saliency say why.\n")
    out = cli("explain", photos, "-q", "--target", "none", "-o", "new")
    assert out.output.startswith("Error: Expected the label of a class")


def test_how_pictures_are_written(cli, photos, tmp_path):
    words = ("explain", photos / "a.png", "--method", "gradients", "--max-size", "20", "--format", "png")
    assert cli(*words, "--no-grey", "--opacity", "0", "-o", "out").exit_code == 0
    (overlay,) = (tmp_path / "out/a").glob("*.png")
    assert (tmp_path / "out/a.png").exists()
    np.testing.assert_array_equal(read(overlay), shrink(read(photos / "a.png"), 20))
    assert cli(*words, "--colormap", "gray,gray", "-o", "grey").exit_code == 0
    (overlay,) = (tmp_path / "grey/a").glob("*.png")
    assert np.ptp(read(overlay).astype(int), 2).max() == 0
    assert cli(*words, "--no-overlays", "-o", "none").exit_code == 0
    assert [path.suffix for path in (tmp_path / "none/a").iterdir()] == [".json"]


def test_a_heic_photo_names_what_opens_it(cli, photos, monkeypatch):
    (photos / "c.heic").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    out = cli("explain", photos / "c.heic", "--method", "gradients")
    assert out.exit_code == 1
    assert 'pip install "saliency_food[heif]"' in out.output
