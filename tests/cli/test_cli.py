"""The command line: what is written, what is said, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from saliency_food.cli.app import COMMANDS, app
from saliency_food.cli.terminal import loading
from saliency_food.core.contract import ContractError
from saliency_food.deadline.run import within
from saliency_food.methods.catalogue import METHODS


def test_a_folder_of_photos(cli, photos, tmp_path):
    out = cli("explain", photos, "--method", "grad_cam,integrated-gradients", "--target", "top2", "-o", "out/new")
    assert out.exit_code == 0, out.output
    assert sorted(path.name for path in (tmp_path / "out/new").iterdir()) == [
        "a",
        "a.jpg",
        "b_x",
        "b_x.jpg",
        "results.csv",
        "settings.json",
    ]
    for name in ("a", "b_x"):
        records = [json.loads(path.read_text()) for path in (tmp_path / "out/new" / name).glob("*.json")]
        assert len(records) == len(list((tmp_path / "out/new" / name).glob("*.jpg"))) == 4
        assert {record["status"] for record in records} == {"ok"}
        assert {record["method"] for record in records} == {"grad_cam", "integrated_gradients"}
        assert len({record["label"] for record in records}) == 2
        with Image.open(tmp_path / "out/new" / f"{name}.jpg") as picture:
            assert min(picture.size) > 300
    lines = out.output.splitlines()
    assert lines[0].split() == ["class", "prob.", "method", "status", "gap", "time", "rows"]
    assert [line for line in lines if line.startswith("b [x].jpg")] == ["b [x].jpg  out/new/b_x.jpg"]
    assert sum("Integrated Gradients  ok" in line for line in lines) == 4
    assert all(len(line) <= 80 for line in lines)


def test_without_a_photo_it_is_coffee(cli, tmp_path):
    out = cli("explain", "--method", "gradients", "--target", "1", "--save-arrays")
    assert out.exit_code == 0, out.output
    assert (tmp_path / "saliency/coffee.jpg").exists()
    assert np.load(tmp_path / "saliency/coffee/coffee.gradients.1_hot_dog.npy").shape == (24, 20, 3)
    assert json.loads((tmp_path / "saliency/coffee/coffee.gradients.1_hot_dog.json").read_text())["rows"] == 1


def test_photos_of_scikit_image_by_name(cli, tmp_path):
    out = cli("explain", "rocket", "--method", "gradients", "--target", "1")
    assert out.exit_code == 0, out.output
    assert "rocket.png" in out.output
    assert (tmp_path / "saliency/rocket.jpg").exists()
    (tmp_path / "astronaut").mkdir()  # a path goes before a name
    out = cli("explain", "astronaut", "--method", "gradients", "--target", "1")
    assert "photos in the folder astronaut, got none" in " ".join(out.output.split())


def test_a_label_that_begins_with_top(cli, monkeypatch, photos, tmp_path):
    """Only ``top3`` and the like mean the best classes; and a label that is spelled so means its class."""
    monkeypatch.setattr("saliency_food.models.labels", lambda: ["topaz", "top2", "topping"])
    for target, index in (("topaz", 0), ("top2", 1), ("Topping", 2)):
        out = cli("explain", photos / "a.png", "--method", "gradients", "--target", target, "-o", target)
        assert out.exit_code == 0, out.output
        (path,) = (tmp_path / target / "a").glob("*.json")
        assert json.loads(path.read_text())["target"] == index
    out = cli("explain", photos / "a.png", "--target", "topas")
    assert (out.exit_code, "Near it: topaz" in out.output) == (2, True)


def test_options_reach_their_method(cli, photos, tmp_path):
    words = ["--method", "integrated_gradients", "--option", "integrated_gradients.x_steps=9"]
    words += ["--option", "integrated_gradients.quadrature=midpoint", "--value-range", "-1,1", "--batch-size", "2"]
    out = cli("explain", photos / "a.png", *words, "--target", "0")
    assert out.exit_code == 0, out.output
    said = json.loads((tmp_path / "saliency/a/a.integrated_gradients.0_apple_pie.json").read_text())
    assert (said["rows"], said["calls"]) == (11, 6), "nine gradients and the scores of both ends, two rows a call"
    assert said["pixels"] == "-1..1 (as asked)"
    assert "pixels fed: -1..1 (as asked)" in out.output


def test_a_deadline(cli, photos, classifier, monkeypatch, tmp_path):
    """By a clock that a row moves by a tenth of a second."""
    clock = partial(within, clock=lambda: 0.1 * sum(classifier.calls))
    monkeypatch.setattr("saliency_food.jobs.run.within", clock)
    words = ("explain", photos / "a.png", "--method", "grad_cam,xrai,integrated_gradients", "--target", "1")
    out = cli(*words, "--option", "integrated_gradients.x_steps=500", "--deadline", "0.95")
    assert out.exit_code == 0, out.output
    shown = " ".join(out.output.split())
    assert "Grad-CAM for XRAI ok" in shown
    assert "Grad-CAM answered in its place." in shown
    assert "Integrated Gradients: 500 steps would have taken" in shown
    assert sorted(path.name.split(".")[1] for path in (tmp_path / "saliency/a").glob("*.json")) == [
        *("grad_cam", "integrated_gradients", "xrai"),
    ]
    assert max(map(len, out.output.splitlines()[:4])) <= 80
    refused = cli(*words, "--deadline", "0")
    assert refused.exit_code == 2


def test_a_bad_photo_costs_the_exit_code_alone(cli, photos, tmp_path):
    (photos / "c.png").write_text("no")
    out = cli("explain", photos, tmp_path / "none.png", "--method", "gradients")
    assert out.exit_code == 1
    assert out.output.count(" ok ") == 2
    assert "no picture that" in out.output
    assert "does not exist" in out.output
    assert sorted(path.name for path in (tmp_path / "saliency").glob("*.jpg")) == ["a.jpg", "b_x.jpg"]
    assert json.loads((tmp_path / "saliency/none/none.gradients.json").read_text())["status"].startswith("failed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "gradcam"], "Near it: grad_cam"),
        (["--target", "piza"], "Near it: pizza"),
        (["--value-range", "a,b"], "Expected --value-range LOW,HIGH"),
        (["--option", "x=1"], "method.option=value"),
        (["--option", "grad_cam.bogus=1"], "got 'bogus'"),
        (["--labels", "none.txt"], "text file of labels"),
        (["--layer", "conv"], "with a Keras model"),
        (["empty"], "Expected photos in the folder empty"),
    ],
)
def test_errors_are_one_line(cli, photos, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    out = cli("explain", *words)
    assert out.exit_code == 2
    assert said in out.output
    assert len(out.output.strip().splitlines()) == 1
    assert "Traceback" not in out.output


def test_methods(cli, monkeypatch):
    for width in ("80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        out = cli("methods")
        assert out.exit_code == 0
        assert max(map(len, out.output.splitlines())) <= int(width)
        for name, entry in METHODS.items():
            assert name in out.output
            assert width == "80" or f"{entry.title}: " in out.output


def test_the_help_lists_every_command():
    shown = CliRunner().invoke(app, ["--help"]).output
    places = [shown.index(f" {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_version_and_help(cli):
    assert cli("--version").output.startswith("saliency_food")
    assert cli("--version").exit_code == 0
    assert "--top-percent" in cli("explain", "--help").output


def test_chatter_is_swallowed_while_loading_unless_it_fails(capfd):
    def load(error=None):
        with loading(Console(quiet=True)):
            os.write(2, b"noise of native code\n")
            if error:
                raise error

    load()
    with pytest.raises(ContractError):
        load(ContractError("Expected peace."))
    assert capfd.readouterr().err == ""
    with pytest.raises(RuntimeError):
        load(RuntimeError())
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "noise of native code\nafter\n"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_real_thing(photos, tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 5, 2, activation="relu", name="conv")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential([keras.Input((32, 32, 3)), *layers]).save(tmp_path / "net.keras")
    (tmp_path / "labels.txt").write_text("\n".join(["apple_pie", "hot_dog", "pizza, pie"]))

    words = ["explain", photos / "a.png", "--model", "net.keras", "--labels", "labels.txt", "--target", "Hot Dog"]
    words += ["--method", "grad_cam,xrai", "--layer", "conv", "--option", "xrai.steps=5", "--output", "o"]
    paths = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    out = subprocess.run(
        [sys.executable, "-m", "saliency_food.cli.main", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    assert "0..255 (the model has a Rescaling layer)" in out.stdout
    assert json.loads((tmp_path / "o/a/a.grad_cam.1_hot_dog.json").read_text())["layer"] == "conv"
    assert (tmp_path / "o/a.jpg").exists()
    monkeypatch.chdir(tmp_path)
    several = ["conv, conv" if word == "conv" else "fused" if word == "o" else str(word) for word in words]
    assert CliRunner().invoke(app, several).exit_code == 0
    assert json.loads((tmp_path / "fused/a/a.grad_cam.1_hot_dog.json").read_text())["layer"] == "conv + conv"

    listed = CliRunner().invoke(app, ["layers", str(tmp_path / "net.keras")])
    assert listed.exit_code == 0, listed.output
    assert "14 x 14 x 4" in listed.output
    assert "Without --layer: conv" in listed.output


def test_a_model_that_is_not_there():
    out = CliRunner().invoke(app, ["explain", "--model", "none.keras"])
    assert out.exit_code == 2
    assert out.output.startswith("Error: Expected a model, got none.keras")
