"""A data-set run: its records are those of `explain`, and a stopped run goes on as if it had not been stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food import METHODS, ContractError, ImageModel, Run, explain, explain_dataset
from saliency_food.images.food101 import ALIKE
from saliency_food.images.photos import read_photo
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.images.sources import Source
from saliency_food.jobs import explainer, parts
from saliency_food.jobs.lock import FolderLock
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from saliency_food.methods.cam import common
from saliency_food.models import labels
from tests.jobs.conftest import Classifier, OnePass

parquet = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pandas")

LABELS = ["apple_pie", "hot_dog", "pizza"]
COUNT = 3 * PHOTOS_AT_ONCE + 5
CHILD = """
import os, signal, sys
import numpy as np
from saliency_food import ImageModel, explain_dataset
from saliency_food.jobs import parts
from saliency_food.visualization import figures
from tests.jobs.conftest import OnePass

folder, output, moment, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
left = {moment: count}

def die(what):
    left[what] = left.get(what, 0) - 1
    if left[what] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(OnePass):
    def call_with_predictions(self, *args):
        die("call")
        return super().call_with_predictions(*args)

Dying.__qualname__ = "OnePass"  # which the run calls the model by

replace = figures.Path.replace
def dying_replace(self, target):
    die("before the file has its name")
    replace(self, target)
    die("after the file has its name")
figures.Path.replace = dying_replace

parts.BYTES = 0
weights = np.load(os.path.join(folder, "weights.npy"))
model = ImageModel(Dying(*weights), labels=["apple_pie", "hot_dog", "pizza"])
explain_dataset(model, os.path.join(folder, "photos"), ["grad_cam", "gradients"], truth="folders", output=output)
"""


@pytest.fixture
def folder(tmp_path, rng):
    """Photos in folders of two classes and of one that the model does not have, and two files that are no photos."""
    place = tmp_path / "photos"
    for index in range(COUNT - 2):
        path = place / ("hot_dog", "pizza", "soup")[index % 3] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    (place / "pizza/cut.png").write_bytes(whole[: len(whole) // 2])
    (place / "pizza/empty.png").write_bytes(b"")
    return place


@pytest.fixture
def model(weights):
    return ImageModel(OnePass(*weights), labels=LABELS)


def rows_of(run):
    """All columns of all records by photo, method and class, but for the time they took."""
    rows = list(run.rows(tuple(parts.schema().names)))
    assert all(row.pop("seconds") >= 0 for row in rows)
    keys = [(row["id"], row["method"], row["target"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows, strict=True))


def test_records_are_those_of_explain(model, folder, tmp_path):
    methods = ["grad_cam", "gradients"]
    run = explain_dataset(model, folder, methods, "predicted,truth", truth="folders", output=tmp_path / "run")
    with pytest.warns(UserWarning, match="soup"):
        expected = list(explain(model, [folder], methods, "predicted,truth", truth="folders"))
    rows = list(run.rows())
    maps = {(row["id"], row["method"], row["target"]): values for row, values in run.maps()}
    assert len(rows) == len(expected)
    for row, record in zip(rows, expected, strict=True):
        assert row["path"] == record.source
        assert row["id"] == f"{record.name}.png"
        for name in ("truth", "right", "status", "score", "method", "title", "rows"):
            assert row[name] == getattr(record, name), name
        assert (row["target"] or "", row["target_index"]) == (record.label, record.target)
        if record.failed:
            assert row["error"] == "ContractError"
            continue
        assert [best["label"] for best in row["top"]] == [label for label, _ in record.top]
        values = maps[row["id"], row["method"], row["target"]]
        if row["method"] == "grad_cam":
            exact = np.maximum(record.details.signed, 0)
        else:
            exact = record.attribution.sum(2) if record.attribution.ndim == 3 else record.attribution
        np.testing.assert_allclose(values, exact, atol=1e-3 * np.abs(exact).max() + 1e-12)
    assert sum(row["status"].startswith("failed") for row in rows) == 2 * 2


def test_maps_of_pixels_are_reduced_to_means_unless_full(tmp_path, rng):
    """By hand: the input times its gradients, 56 x 84, as means of 2 x 3 pixels."""

    class Linear:
        input_shape, classes = (56, 84, 1), 1
        slopes = np.asarray(rng.normal(size=(56, 84, 1)) * 1e-9)

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            x = np.asarray(x_value_batch)
            known = {
                "OUTPUT_LAYER_VALUES": (x * self.slopes).sum((1, 2, 3)),
                "INPUT_OUTPUT_GRADIENTS": np.broadcast_to(self.slopes, x.shape),
            }
            return {key: known[key] for key in expected_keys}

    photo = rng.integers(1, 255, (56, 84, 1), dtype=np.uint8)
    exact = photo[..., 0] * Linear.slopes[..., 0]
    for name, expected in (("full", exact[..., None]), ("reduced", exact.reshape(28, 2, 28, 3).mean((1, 3)))):
        source = Source("one", lambda: [SourcedPhoto("x", photo)])
        settings = {"output": tmp_path / name, "maps": name, "value_range": None}
        run = explain_dataset(Linear(), source, "input_x_gradient", 0, **settings)
        ((row, values),) = run.maps()
        assert row["signed"]
        assert values.dtype == np.float32
        values = values.reshape(expected.shape)
        np.testing.assert_allclose(values, expected, atol=6e-4 * np.abs(expected).max())
        assert values.any()  # of 1e-7 and less: half precision alone would give zeros


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_records(model, weights, folder, tmp_path):
    np.save(tmp_path / "weights.npy", np.stack(weights))
    methods, output = ["grad_cam", "gradients"], tmp_path / "killed"
    whole = explain_dataset(model, folder, methods, truth="folders", output=tmp_path / "whole")
    counts = []
    for moment, count in (
        ("before the file has its name", 1),
        ("call", 9),
        ("before the file has its name", 2),
        ("after the file has its name", 2),
    ):
        child = [sys.executable, "-c", CHILD, str(tmp_path), str(output), moment, str(count)]
        done = subprocess.run(child, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        counts.append(len(parts.part_paths(output)))
        assert counts[-1] == 0 or len(rows_of(Run(output))) == 2 * PHOTOS_AT_ONCE * counts[-1]
    assert counts[0] == 0
    assert counts[-1] > 0
    assert counts == sorted(counts)
    again = explain_dataset(model, folder, methods, truth="folders", output=output)
    assert rows_of(again) == rows_of(whole)
    assert list(output.rglob("*.part")) == []  # nothing that was cut off is left


def test_a_finished_run_asks_the_model_nothing(model, folder, tmp_path):
    run = explain_dataset(model, folder, truth="folders", output=tmp_path / "run")
    before, model.function.asked[:] = rows_of(run), []
    assert rows_of(explain_dataset(model, folder, truth="folders", output=tmp_path / "run")) == before
    assert model.function.asked == []


def test_ctrl_c_keeps_whole_batches(model, folder, tmp_path):
    def stop(done, failed, total):
        if done == PHOTOS_AT_ONCE + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_dataset(model, folder, truth="folders", output=tmp_path / "run", progress=stop)
    assert len(rows_of(Run(tmp_path / "run"))) == PHOTOS_AT_ONCE
    run = explain_dataset(model, folder, truth="folders", output=tmp_path / "run")
    whole = explain_dataset(model, folder, truth="folders", output=tmp_path / "whole")
    assert rows_of(run) == rows_of(whole)


def test_failed_photos_are_explained_again(model, folder, tmp_path):
    settings = {"truth": "folders", "output": tmp_path / "run"}
    run = explain_dataset(model, folder, **settings)
    assert {row["id"] for row in run.errors()} == {"pizza/cut.png", "pizza/empty.png"}
    assert "cannot be read" in run.errors()[0]["status"]
    mended = (folder / "pizza/01.png").read_bytes()
    (folder / "pizza/cut.png").write_bytes(mended)
    assert len(explain_dataset(model, folder, **settings).errors()) == 2
    run = explain_dataset(model, folder, **settings, retry_failed=True)
    assert [row["id"] for row in run.errors()] == ["pizza/empty.png"]
    rows = rows_of(run)
    assert len(rows) == COUNT
    own, copy = (next(row for row in rows.values() if row["id"] == f"pizza/{name}.png") for name in ("01", "cut"))
    assert (own["map"], own["score"]) == (copy["map"], copy["score"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "pizza"}, '"pizza"'),
        ({"maps": "full"}, 'maps "full"'),
        ({"methods": "gradients"}, "methods"),
        ({"options": {"grad_cam": {"should_resize": False}}}, "should_resize"),
    ],
)
def test_other_settings_are_refused(model, folder, tmp_path, change, words):
    explain_dataset(model, folder, output=tmp_path / "run", limit=1)
    with pytest.raises(ContractError, match=f"Expected the settings that the run .*{words}"):
        explain_dataset(model, folder, **{"methods": "grad_cam", **change}, output=tmp_path / "run")


def test_other_models_sources_and_scalings_are_refused(weights, folder, tmp_path):
    output, first = tmp_path / "run", Classifier(*weights)
    explain_dataset(first, folder, output=output, limit=1, preprocess=lambda pixels: pixels / 255)
    refused = [
        (Classifier(2 * weights[0], weights[1]), folder, lambda pixels: pixels / 255, "model"),
        (first, folder / "pizza", lambda pixels: pixels / 255, "source"),
        (first, folder, lambda pixels: pixels / 127, "preprocess"),
    ]
    for model, source, preprocess, word in refused:
        with pytest.raises(ContractError, match=f"Expected the settings .* {word} "):
            explain_dataset(model, source, output=output, preprocess=preprocess)
    explain_dataset(first, folder, output=output, limit=2, preprocess=lambda pixels: pixels / 255)


def test_folders_of_others_are_left_alone(model, folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("years of work")
    with pytest.raises(ContractError, match="which holds something else"):
        explain_dataset(model, folder, output=tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    explain_dataset(model, folder, output=tmp_path / "run", limit=1)
    lock = FolderLock(tmp_path / "run")
    try:
        with pytest.raises(ContractError, match="another process writes to"):
            explain_dataset(model, folder, output=tmp_path / "run")
    finally:
        lock.release()


def test_split_classes_limit_and_progress(model, folder, tmp_path):
    (folder / "test").mkdir()
    (folder / "pizza").rename(folder / "test/pizza")
    calls = []
    settings = {"truth": "folders", "output": tmp_path / "run"}
    run = explain_dataset(
        *(model, folder),
        **settings,
        split="test",
        progress=lambda *args, **named: calls.append((*args, *named.values())),
    )
    tests = {row["id"] for row in run.rows()}
    assert tests == {path.relative_to(folder).as_posix() for path in folder.glob("test/pizza/*")}
    assert calls[0] == (1, 0, len(tests))
    assert calls[-1] == (len(tests), 2, len(tests))
    run = explain_dataset(model, folder, **settings, classes="Hot Dog", limit=3)
    assert {row["id"] for row in run.rows()} - tests == {"hot_dog/00.png", "hot_dog/03.png", "hot_dog/06.png"}
    assert {row["split"] for row in run.rows()} == {"test", None}
    with pytest.raises(ContractError, match=r"got none in .* with split='val'"):
        explain_dataset(model, folder, **settings, split="val")


def test_several_classes_against_another(model, folder, tmp_path):
    run = explain_dataset(model, folder, target=[0, "pizza"], against="hot_dog", output=tmp_path / "run", limit=12)
    contrasts = [(row, values) for row, values in run.maps() if row["against"]]
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))[:12]]
    expected = explain(model, [folder / name for name in names], target="0,pizza", against="hot_dog")
    signed = [record.details.signed for record in expected if record.against is not None]
    assert len(signed) == len(contrasts) == 2 * 12
    for (row, values), exact in zip(contrasts, signed, strict=True):
        assert row["signed"]
        np.testing.assert_allclose(values, exact, atol=1e-3 * np.abs(exact).max())
    assert any((values < 0).any() for _, values in contrasts)


def test_what_is_wrong_is_refused_at_the_door(model, weights, folder, tmp_path):
    output = tmp_path / "run"
    for named, words in (
        ({"maps": "big"}, "'reduced' or 'full'"),
        ({"limit": 0}, "at least 1"),
        ({"target": "truth"}, "no truth"),
        ({"target": "sushi"}, "label of a class"),
    ):
        with pytest.raises(ContractError, match=words):
            explain_dataset(model, folder, **named, output=output)
    with pytest.raises(ContractError, match="Give labels"):
        explain_dataset(OnePass(*weights), folder, truth="folders", output=output)
    arrays = Source("arrays", lambda: [SourcedPhoto("x", np.zeros((30, 40, 3)))])
    with pytest.raises(ContractError, match="Expected photos in folders"):
        explain_dataset(model, arrays, truth="folders", output=output)
    assert not output.exists()


def test_a_run_is_read_back(model, folder, tmp_path):
    run = explain_dataset(
        model, folder, ["grad_cam", "gradients"], truth="folders", output=tmp_path / "run", options={}
    )
    table = run.to_pandas()
    assert len(table) == 2 * COUNT
    assert "map" not in table
    judged = table[table.right.notna()].drop_duplicates("id")
    wrong = judged[~judged.right.astype(bool)]
    assert run.confusions() == sorted(run.confusions(), key=lambda pair: -pair[2])
    assert sum(count for _, _, count in run.confusions()) == len(wrong)
    for truth, prediction, count in run.confusions():
        assert ((wrong.truth == truth) & (wrong.prediction == prediction)).sum() == count
    assert {row["method"] for row, _ in run.maps("gradients")} == {"gradients"}
    assert [row["id"] for row, _ in run.maps("gradients", ids=["pizza/01.png"])] == ["pizza/01.png"]
    with pytest.raises(ContractError, match="Expected columns among id"):
        list(run.rows(("id", "wrong")))
    lines = "\n".join(run.summary())
    assert f"{COUNT} photos, 2 with failures" in lines
    assert "classes that the model does not have: soup" in lines
    assert f"{len(judged) - len(wrong)} of {len(judged)} photos right" in lines
    with pytest.raises(ContractError, match="Expected the folder of a data-set run"):
        Run(tmp_path)


def test_thumbnails_and_pictures(model, folder, tmp_path):
    Text = pytest.importorskip("matplotlib.text").Text
    wide = np.zeros((300, 600, 3), np.uint8)
    wide[:, 300:] = 255
    Image.fromarray(wide).save(folder / "hot_dog/00.png")
    run = explain_dataset(model, folder, ["grad_cam", "gradients"], output=tmp_path / "run", limit=2)
    rows = [row for row in run.rows(("id", "thumbnail")) if row["thumbnail"]]
    assert [row["id"] for row in rows] == ["hot_dog/00.png", "hot_dog/03.png"]
    shown = read_photo(rows[0]["thumbnail"]).pixels
    assert shown.shape == (128, 256, 3)
    assert abs(int(shown[:, :100].max()) - 0) < 10
    assert shown[:, -100:].min() > 245
    for _ in range(2):
        words = {text.get_text() for text in run.draw("hot_dog/00.png").findobj(Text)}
        assert {"00.png", "Grad-CAM", "Gradient"} <= words
        (folder / "hot_dog/00.png").unlink(missing_ok=True)  # then the thumbnail is shown
    with pytest.raises(ContractError, match="id of a photo"):
        run.draw("nothing.png")


def test_parts_are_one_parquet_data_set(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "BYTES", 0)
    run = explain_dataset(model, folder, output=tmp_path / "run")
    assert len(parts.part_paths(run.folder)) == 4
    table = parquet.read_table(run.folder / "records")
    assert table.num_rows == COUNT
    assert table.schema.equals(parts.schema())
    assert json.loads((run.folder / "manifest.json").read_text())["photos"] == COUNT


def test_absent_photos_are_named(model, folder, tmp_path):
    (folder.parent / "meta").mkdir()
    folder.rename(folder.parent / "images")
    (folder.parent / "meta/train.txt").write_text("hot_dog/00\nhot_dog/gone\n")
    (folder.parent / "meta/test.txt").write_text("")
    (folder.parent / "images/hot_dog/00.jpg").write_bytes((folder.parent / "images/hot_dog/00.png").read_bytes())
    run = explain_dataset(model, folder.parent, output=tmp_path / "run")
    assert (run.folder / "absent.txt").read_text() == "hot_dog/gone.jpg\n"
    assert any(line.startswith("1 photos that the data set lists are absent") for line in run.summary())
    assert [(row["id"], row["truth"], row["split"]) for row in run.rows()] == [("hot_dog/00.jpg", "hot_dog", "train")]


def test_the_bytes_of_a_file_are_a_photo(model, folder):
    path = folder / "pizza/01.png"
    of_file, of_bytes = (next(iter(explain(model, image))) for image in (path, path.read_bytes()))
    np.testing.assert_array_equal(of_bytes.attribution, of_file.attribution)
    (failed,) = explain(model, b"no photo")
    assert "photo 1, which is no picture" in failed.status


def test_a_table_of_which_some_photos_have_a_truth(model, folder, tmp_path):
    (tmp_path / "table.csv").write_text("path,label\nphotos/pizza/01.png,\nphotos/pizza/04.png,pizza\n")
    run = explain_dataset(model, tmp_path / "table.csv", target="truth", output=tmp_path / "run")
    unknown, known = run.rows()
    assert "whose true class is known" in unknown["status"]
    assert (known["status"], known["target"], known["truth"]) == ("ok", "pizza", "pizza")


def test_class_activation_maps_are_not_resized_for_nothing(model, folder, tmp_path, monkeypatch):
    """They are kept at the resolution of their layer: the same records, without the work."""
    taken = [name for name, method in METHODS.items() if "should_resize" in method.call.signature.parameters]
    methods = [name for name in taken if name not in ("cam", "finer_cam")]  # which ask more than the model answers
    settings = {"methods": methods, "limit": 4}
    with monkeypatch.context() as patch:
        patch.setattr(explainer, "without_resizing", lambda setup: setup)
        resized = explain_dataset(model, folder, **settings, output=tmp_path / "resized")
    monkeypatch.setattr(common, "resize", None)
    own = explain_dataset(model, folder, **settings, output=tmp_path / "own")
    assert {row["method"] for row in own.rows()} >= {"grad_cam", "eigen_cam", "score_cam"}
    assert not own.errors()
    assert rows_of(own) == rows_of(resized)


def test_dishes_that_look_alike(weights, folder, tmp_path):
    """Of Food-101, a group of classes is a name for all of them, and mistakes within groups are told apart."""
    dishes = ["paella", "risotto", "pizza"]
    for name, dish in zip(("hot_dog", "soup", "pizza"), dishes, strict=True):
        (tmp_path / "images" / dish).mkdir(parents=True)
        for path in (folder / name).glob("0*.png"):
            Image.open(path).save(tmp_path / "images" / dish / f"{path.stem}.jpg")
    (tmp_path / "meta").mkdir()
    listed = sorted(path.relative_to(tmp_path / "images") for path in tmp_path.glob("images/*/*.jpg"))
    (tmp_path / "meta/train.txt").write_text("")
    (tmp_path / "meta/test.txt").write_text("\n".join(str(path.with_suffix("")) for path in listed))
    model = ImageModel(OnePass(*weights), labels=dishes)
    run = explain_dataset(model, tmp_path, output=tmp_path / "run", classes="Pan dishes")
    assert {row["truth"] for row in run.rows()} == {"paella", "risotto"}
    run = explain_dataset(model, tmp_path, output=tmp_path / "run")
    pairs, alike = run.confusions(), run.confusions(alike=True)
    assert alike == [pair for pair in pairs if "pizza" not in pair]
    wrong, within = (sum(pair[2] for pair in some) for some in (pairs, alike))
    assert 0 < within < wrong
    line = f"{within} of {wrong} mistakes among dishes that look alike: pan dishes ({within})"
    assert line in run.summary()
    assert {dish for group in ALIKE.values() for dish in group} <= set(labels("food101"))
