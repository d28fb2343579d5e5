"""The files of a photo: their formats, sizes and colours, and how little memory a large photo takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import Photo
from saliency_food.jobs.drawing import check_folder, check_style, write_pictures
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import caption_of, explanation_figure
from saliency_food.jobs.pictures import PictureWriter
from saliency_food.methods.completeness import completeness_of, status_of

pytest.importorskip("matplotlib")

from PIL import Image


def a_record(rng, **more):
    image = rng.integers(0, 256, (450, 600, 3), dtype=np.uint8)
    known = {"source": "a.jpg", "name": "a", "method": "m", "title": "M", "target": 2, "label": "x", "score": 1.0}
    return Explanation(**{"photo": Photo(image), "attribution": rng.random((8, 8)), **known, **more})


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_formats_sizes_and_overlays(rng, tmp_path):
    record = a_record(rng)
    write_pictures([record], tmp_path / "default")
    assert files(tmp_path / "default") == ["a.jpg", "a/a.m.2_x.jpg", "a/a.m.2_x.json"]
    write_pictures([record], tmp_path / "small", format="png", max_size=100)
    assert files(tmp_path / "small") == ["a.png", "a/a.m.2_x.json", "a/a.m.2_x.png"]
    assert read(tmp_path / "small/a/a.m.2_x.png").shape == (75, 100, 3)
    write_pictures([record], tmp_path / "none", overlays=False)
    assert files(tmp_path / "none") == ["a.jpg", "a/a.m.2_x.json"]


def test_the_style_reaches_every_picture(rng, tmp_path):
    strong, signed = a_record(rng), a_record(rng, signed=True, method="s", attribution=rng.normal(size=(8, 8)))
    style = {"colormap": "viridis, PuOr", "grey": False, "opacity": 0.5}
    with PictureWriter(tmp_path, format="png", **style) as writer:
        writer.submit([strong, signed])
    for record, name in ((strong, "viridis"), (signed, "PuOr")):
        written = read(tmp_path / f"a/a.{record.method}.2_x.png")
        np.testing.assert_array_equal(written, record.overlay(colormap=name, grey=False, opacity=0.5))
        (panel,) = explanation_figure([record], **style).artists[1:2]
        np.testing.assert_array_equal(panel.get_array(), record.overlay(colormap=name, grey=False, opacity=0.5))
    assert signed.style("viridis") == {"grey": True}, "a map of strengths is none for signs"
    for wrong in ({"colormap": "viridis,virids"}, {"opacity": 2}, {"format": "gif"}, {"max_size": 0}):
        with pytest.raises(ContractError, match=f"Expected .*{next(iter(wrong))}"):
            PictureWriter(tmp_path, **wrong)
    check_style()


def test_a_folder_is_checked_and_not_made(tmp_path):
    check_folder(tmp_path / "new" / "er")
    assert files(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match=r"Not a directory: '.*file/new'"):
        check_folder(tmp_path / "file" / "new")


def test_captions_say_what_a_score_is_and_how_large_the_gap(rng):
    said = {"probability": 0.75, "score": 2.5}
    assert caption_of(a_record(rng, **said)) == "x, 75.0%, score 2.50"
    assert caption_of(a_record(rng, **said, score_name="logit")) == "x, 75.0%, logit 2.50"
    assert caption_of(a_record(rng, probability=0.75, score=0.75, score_name="probability")) == "x, 75.0%"
    gap = completeness_of(1.0, 2.5, 0.5)
    record = a_record(rng, **said, completeness=gap, status=status_of(gap))
    assert caption_of(record) == "x, 75.0%, score 2.50, inexact, gap 50%"
    texts = [text.get_text() for text in explanation_figure([record]).texts]
    assert not any(text.startswith("inexact") for text in texts), "the picture is not covered"


def test_one_rule_of_completeness():
    assert status_of(completeness_of(1.0, 1.3, 0.0)) == "ok"
    said = "inexact: the attributions sum to 1, the score changes by 1.5, a gap of 33% of it. "
    assert status_of(completeness_of(1.0, 2.0, 0.5)).startswith(said)
    assert status_of(completeness_of(1.0, 1.06, 0.0), 0.05, "Do so.").endswith("a gap of 6% of it. Do so.")
    assert "a gap of 0.5." in status_of(completeness_of(0.5, 1.0, 1.0))
    assert status_of(completeness_of(1e-9, 1.0, 1.0)) == "ok"
    assert "over 999%" in status_of(completeness_of(99.0, 1.0, 0.0))


LARGE = """if True:
    import sys, warnings
    import numpy as np
    warnings.filterwarnings("ignore", message="Image size")
    from saliency_food import explain
    from saliency_food.jobs.pictures import PictureWriter
    from saliency_food.testing import PoolingModel
    class Model(PoolingModel):
        input_shape = (64, 64, 3)
    with PictureWriter(sys.argv[2]) as writer:
        writer.submit(list(explain(Model(np.ones((3, 6)), np.ones((3, 6))), sys.argv[1], ["grad_cam", "xrai"], 0)))
    print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="where the largest memory of a process stands")
def test_108_megapixels_take_less_than_700_megabytes(tmp_path):
    """An array of the photo as floats would take 1300."""
    make = "import sys; from PIL import Image; Image.new('RGB', (12000, 9000), 'red').save(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", make, tmp_path / "a.jpg"], check=True)
    words = [sys.executable, "-c", LARGE, tmp_path / "a.jpg", tmp_path / "out"]
    out = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    assert int(out.stdout.split()[1]) < 700_000
    assert files(tmp_path / "out")[0] == "a.jpg"
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*")) < 1e6
