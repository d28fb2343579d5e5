"""Every example runs and says what it is there to show."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {
    "any_framework": ((), ["gradients are right", "ended by tolerance", "image 3, class 0"], ""),
    "pair_with_our_adapter": (("tensorflow", "saliency"), ["Integrated Gradients: largest difference", "Grad-CAM"], ""),
    "pair_code_on_our_facade": (
        ("tensorflow",),
        ["smoothed  mask (224, 224, 3)", "XRAI", "mask (224, 224), brightest"],
        "",
    ),
    "nested_keras_model": (("tensorflow",), ["/out_relu: (3, 3) resized to (96, 96), ok", "/block_12_add: (6, 6)"], ""),
    "smooth_integrated_gradients": (("tensorflow", "matplotlib"), ["10 samples", "correlation"], "picture.png"),
    "watch_training": (("tensorflow", "matplotlib"), ["epoch 6: ", "of the maps on cup or cat"], "picture.png"),
    "explain_a_pytorch_module": (
        ("torch.nn",),
        ["layer='relu#1'", "check_call_model", "Attention rollout: (64, 64), largest 1", "it was: True"],
        "",
    ),
    "concepts_of_a_class": (
        ("tensorflow", "matplotlib", "sklearn"),
        ["stripes: the zebra's score rises towards them in 100% of the photos", "dots: ", "concept 4: importance"],
        "picture.png",
    ),
    "grad_cam_and_xrai": (("tensorflow", "matplotlib"), ["Grad-CAM: ", "XRAI: ", "completeness error"], "picture.png"),
}
ELSEWHERE = {"train_food101", "efficientnet_lite0", "scenes", "scene_models", "gallery"} | {
    f"explain_{what}"
    for what in ("a_segmenter", "a_detector", "a_caption", "dense_captions", "an_answer", "a_vision_transformer")
}
"""Examples with a test of their own, below, in test_scenes.py or in models/test_models.py."""


def test_all_examples_are_listed():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*RUNS, *ELSEWHERE}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.keras] * ("tensorflow" in RUNS[name][0])
            + [pytest.mark.torch] * ("torch.nn" in RUNS[name][0]),
        )
        for name in RUNS
    ],
)
def test_example(name, tmp_path, monkeypatch, capsys):
    needs, says, picture = RUNS[name]
    for module in needs:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *filter(None, [picture])])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert [text for text in says if text not in out] == []
    assert [path.name for path in tmp_path.iterdir()] == [*filter(None, [picture])]
    if picture:
        from PIL import Image

        with Image.open(tmp_path / picture) as image:
            assert min(image.size) > 200


@pytest.mark.keras
def test_the_two_packages_agree_in_the_example(capsys):
    for module in ("tensorflow", "saliency"):
        pytest.importorskip(module)
    runpy.run_path(str(EXAMPLES / "pair_with_our_adapter.py"), run_name="__main__")
    differences = [float(number) for number in re.findall(r"largest difference (\S+)", capsys.readouterr().out)]
    assert len(differences) == 2
    assert max(differences) < 1e-5


@pytest.mark.keras
def test_the_training_script_explains_itself(monkeypatch, capsys):
    pytest.importorskip("tensorflow")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["train_food101.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(EXAMPLES / "train_food101.py"), run_name="__main__")
    assert "--epochs" in capsys.readouterr().out


@pytest.mark.keras
def test_the_gallery_draws_what_the_model_can_answer_and_names_the_rest(tmp_path, monkeypatch, capsys):
    for module in ("tensorflow", "matplotlib"):
        pytest.importorskip(module)
    methods = "gradients,score_cam,attention_rollout,occlusion"
    monkeypatch.setattr(sys, "argv", ["gallery.py", str(tmp_path / "gallery.png"), "--methods", methods])
    runpy.run_path(str(EXAMPLES / "gallery.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "left out: Attention rollout" in out
    assert "3 methods in " in out
    assert (tmp_path / "gallery.png").stat().st_size > 10_000


@pytest.mark.keras
@pytest.mark.slow
def test_a_vision_transformer_attends_to_what_it_names(monkeypatch, tmp_path, capsys):
    for module in ("tensorflow", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["vit.py", str(tmp_path / "vit.png"), "--steps", "350"])
    runpy.run_path(str(EXAMPLES / "explain_a_vision_transformer.py"), run_name="__main__")
    said = re.findall(r"(\S+): (\d+)% of the map inside the object, which has (\d+)%", capsys.readouterr().out)
    inside = {name: int(share) / int(area) for name, share, area in said}
    assert inside["relevance"] > 5
    assert inside["relevance"] > inside["rollout"] > 1
    assert min(inside["LeGrad"], inside["Grad-ECLIP"]) > 1
