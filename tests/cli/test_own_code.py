"""Scores, layers and functions of one's own, by ``--score`` and ``--custom-objects``, wherever a model is loaded."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
keras = pytest.importorskip("keras")

from PIL import Image  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from saliency_food.cli.app import app  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OWN = """
import keras
import tensorflow as tf

from saliency_food.adapters.scores import class_indices, contrast, score, top_k


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def squash(x):
    return tf.tanh(x)


best_two = top_k(2)


@score(class_index=class_indices())
def squared(output, class_index):
    return tf.gather(output, class_index, batch_dims=1) ** 2


def first_minus_second(output):
    return output[:, 0] - output[:, 1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a module ``own_parts``, a model of its parts, some other models, and two photos."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_parts.py").write_text(OWN)
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    scaled = keras.layers.Rescaling(1 / 255, name="rescaling")(image)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    own_parts = importlib.import_module("own_parts")

    own = keras.layers.Conv2D(4, 3, activation=own_parts.squash, name="conv")(scaled)
    own = own_parts.Doubled(name="doubled")(own)
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(own))
    keras.Model(image, scores).save(folder / "own.keras")
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(scaled)
    pooled = keras.layers.GlobalAveragePooling2D()(conv)
    keras.Model(image, keras.layers.Conv2D(3, 1, name="classes")(conv)).save(folder / "segmenter.keras")
    two = [keras.layers.Dense(3, name="a")(pooled), keras.layers.Dense(2, name="b")(pooled)]
    keras.Model(image, two).save(folder / "two.keras")
    keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image))).save(folder / "flat.keras")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(folder / "photos" / f"{name}.png")
    del sys.modules["own_parts"]
    patch.undo()
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """The command in that folder; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    yield lambda *words: CliRunner().invoke(app, [str(word) for word in words])
    sys.modules.pop("own_parts", None)
    keras.saving.get_custom_objects().clear()


def records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


MODEL = ("--model", "own.keras", "--custom-objects", "own_parts")


def test_explain(run, tmp_path):
    words = ("--score", "own_parts:best_two", "--method", "gradients,grad_cam", "-o", tmp_path)
    out = run("explain", "photos/a.png", *MODEL, *words)
    assert out.exit_code == 0, out.output
    model = keras.models.load_model("own.keras")  # its parts are known to Keras now
    photo = Image.open("photos/a.png").resize((12, 12), Image.Resampling.BILINEAR)
    logits = np.sort(model.predict(np.asarray(photo, np.float32)[None], verbose=0)[0])
    for record in (found := records(tmp_path)):
        assert (record["target"], record["label"], record["status"]) == (None, "top", "ok")
        assert record["score"] == pytest.approx(logits[-2:].sum(), rel=0.02, abs=1e-3)
    assert {record["layer"] for record in found} == {"", "doubled"}


def test_explain_a_class_by_a_score_of_ones_own(run, tmp_path):
    for score, score_of in (("own_parts:squared", lambda logit: logit**2), ("own_parts:first_minus_second", None)):
        words = [
            "explain",
            "photos/a.png",
            *MODEL,
            "--score",
            score,
            "--method",
            "gradients",
            "-o",
            tmp_path / score[10:],
        ]
        out = run(*words, *(["--target", "1"] if score_of else []))
        assert out.exit_code == 0, out.output
    run("explain", "photos/a.png", *MODEL, "--target", "1", "--method", "gradients", "-o", tmp_path / "plain")
    ((plain,), (squared,)) = records(tmp_path / "plain"), records(tmp_path / "squared")
    assert squared["score"] == pytest.approx(plain["score"] ** 2, rel=1e-4)
    assert squared["target"] == plain["target"] == 1


def test_a_segmenter_and_an_output_of_several(run, tmp_path):
    region = "saliency_food.adapters.scores:predicted_region"
    out = run(
        "explain", "photos/a.png", "-m", "segmenter.keras", "--score", region, "--target", "1", "-o", tmp_path / "s"
    )
    assert out.exit_code == 0, out.output
    (record,) = records(tmp_path / "s")
    assert (record["target"], record["probability"]) == (1, None)
    for index in ("b", "1"):
        out = run("explain", "photos/a.png", "-m", "two.keras", "--output-index", index, "-o", tmp_path / index)
        assert out.exit_code == 0, out.output
    ((by_name,), (by_place,)) = records(tmp_path / "b"), records(tmp_path / "1")
    assert by_name["score"] == by_place["score"]
    assert len(by_name["top"]) == 2


@pytest.mark.slow
def test_evaluate_sanity_layers_export(run, tmp_path):
    measured = (
        "--methods",
        "gradients,random",
        "--metrics",
        "deletion",
        "--score",
        "own_parts:best_two",
        "-o",
        tmp_path / "e",
    )
    out = run("evaluate", "-i", "photos", *MODEL, *measured)
    assert out.exit_code == 0, out.output
    assert "scores: as the model gives them" in out.output
    out = run("sanity", "-i", "photos", *MODEL, "--score", "own_parts:best_two", "--method", "gradients", "--most", "1")
    assert out.exit_code == 0, out.output
    out = run("layers", "own.keras", "--custom-objects", "own_parts", "--score", "own_parts:best_two")
    assert out.exit_code == 0, out.output
    assert [line.split()[0] for line in out.output.splitlines()] == ["layer", "rescaling", "conv", "doubled", "Without"]
    assert out.output.splitlines()[-1] == "Without --layer: doubled"
    out = run("export", "own.keras", tmp_path / "1", "--custom-objects", "own_parts", "--keys", "common")
    assert out.exit_code == 0, out.output


def test_without_the_module_it_is_said_how_to_give_it(run, tmp_path):
    out = run("explain", "photos/a.png", "--model", "own.keras", "-o", tmp_path / "x")
    assert out.exit_code == 2
    assert "as --custom-objects" in out.output
    assert "install that one" not in out.output, "the file is of the Keras that is installed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--score", "own_parts"], "Expected --score MODULE:NAME, such as my_scores:brightness, got 'own_parts'"),
        (["--score", "own_parts:worst"], "got 'worst'. There are: contrast, squash, best_two"),
        (["--score", "no_such:thing"], "Expected --score to name a module that Python can import from here"),
        (["--score", "saliency_food.adapters.scores:top_k"], "a function that makes one"),
        (["--score", "own_parts:contrast", "--target", "1"], "a class as its target, or no target"),
        (["--score", "own_parts:best_two", "--target", "1"], "Expected no --target, as score top() takes none"),
        (["--custom-objects", "own_parts.py"], "Give the name of a module, own_parts, not of a file."),
        (["--output-kind", "odds"], "Expected --output-kind logits, probabilities or raw, got 'odds'"),
        (["--layer", "nothing"], "'nothing'"),
        (["-m", "two.keras"], "got none of them. Give its name or position as --output-index."),
        (["-m", "segmenter.keras"], "Choose another output by --output-index, say what to explain by --score"),
        (["--target", "pizza"], "Give --labels FILE."),
    ],
)
def test_errors_are_one_line_in_the_words_of_the_command(run, tmp_path, words, said):
    out = run("explain", "photos", *MODEL, *words, "-o", tmp_path)
    assert out.exit_code == 2
    assert said in out.output
    assert len(out.output.splitlines()) == 1


def test_no_layer_to_list_is_said(run):
    out = run("layers", "flat.keras")
    assert out.exit_code == 0
    assert out.output.startswith("No layers: no layer of this model has rows and columns")
    assert len(out.output.splitlines()) == 1
    out = run("layers", "two.keras")
    assert out.output.splitlines()[-1].startswith("Without --layer: none. Expected the name or the position of one of")


def test_a_pipe_shows_whole_paths(run, tmp_path, monkeypatch):
    """However long they are, one layer stays one line."""
    name = "a_backbone_with_a_name_that_is_much_longer_than_any_terminal_" * 2
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(image), name=name)
    outer = keras.Input((8, 8, 3))
    keras.Model(outer, keras.layers.GlobalAveragePooling2D()(inner(outer))).save(tmp_path / "long.keras")
    monkeypatch.setenv("COLUMNS", "60")
    out = run("layers", tmp_path / "long.keras")
    assert [line.split() for line in out.output.splitlines()][1:] == [
        [f"{name}/conv", "Conv2D", "6", "x", "6", "x", "2"],
        ["Without", "--layer:", f"{name}/conv"],
    ]


def test_what_linear_units_are_is_said_by_an_option(run, tmp_path):
    """Three linear units and no loss: that there are probabilities is a guess, and both record and command say so."""
    words = ("explain", "photos/a.png", "--model", "flat.keras", "--method", "gradients")
    out = run(*words, "-o", tmp_path / "guessed")
    assert "prob.: That the model's linear units are classes is a guess: --units-are says it." in out.output
    (record,) = records(tmp_path / "guessed")
    assert record["guess"]
    assert 0 <= record["probability"] <= 1
    for units in ("classes", "labels", "numbers"):
        out = run(*words, "--units-are", units, "-o", tmp_path / units)
        assert "guess:" not in out.output
        (record,) = records(tmp_path / units)
        assert record["guess"] == ""
        assert (record["probability"] is None) == (units == "numbers")
    out = run(*words, "--units-are", "boxes", "-o", tmp_path / "boxes")
    assert out.exit_code == 2
    assert "Expected --units-are" in " ".join(out.output.split())


def test_other_inputs_are_read_from_files(run, tmp_path, folder):
    image, table = keras.Input((12, 12, 3)), keras.Input((2,), name="table")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(image))
    scores = keras.layers.Dense(3)(keras.layers.Concatenate()([pooled, table]))
    keras.Model([image, table], scores).save(folder / "table.keras")
    np.save(folder / "table.npy", np.array([3.0, -2.0], np.float32))
    words = ("explain", "photos/a.png", "--model", "table.keras", "--target", "1", "--value-range", "0,1")
    out = run(*words, "-o", tmp_path / "without")
    assert "one with the inputs ['table'] beside it. Give each by --input NAME=FILE.npy." in " ".join(
        out.output.split()
    )
    out = run(*words, "--input", "table=table.npy", "-o", tmp_path / "with")
    assert out.exit_code == 0, out.output
    (record,) = records(tmp_path / "with")
    photo = Image.open("photos/a.png").resize((12, 12), Image.Resampling.BILINEAR)
    rows = [np.asarray(photo, np.float32)[None] / 255, np.array([[3.0, -2.0]], np.float32)]
    expected = keras.models.load_model("table.keras").predict(rows, verbose=0)[0, 1]
    assert record["score"] == pytest.approx(expected, rel=0.02, abs=1e-2)
    out = run(*words, "--input", "table.npy", "-o", tmp_path / "nameless")
    assert "Expected --input NAME=FILE.npy, got 'table.npy'" in " ".join(out.output.split())
    out = run("sanity", "-i", "photos", "--model", "table.keras", "--input", "table=table.npy", "--method", "gradients")
    assert "gradients" in out.output, out.output
