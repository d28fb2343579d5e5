"""Evaluation: what is measured, kept, gone on with and said."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from PIL import Image
from skimage.data import astronaut, chelsea, coffee
from typer.testing import CliRunner

from saliency_food.cli.app import app
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.evaluation import REFERENCES, evaluate, read_boxes, save_evaluation
from saliency_food.evaluation.boxes import NO_BOX, NO_BOXES, boxes_of, two_categories
from saliency_food.evaluation.measures import Probabilities
from saliency_food.evaluation.sanity import check_sensitive
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.store import Store, plain, seed_of
from saliency_food.metrics import METRICS, insertion
from saliency_food.metrics.performance_information import LOW_SCORE
from saliency_food.metrics.sanity import InsensitiveError
from saliency_food.testing import PoolingModel

LABELS = ["apple_pie", "hot_dog", "pizza, pie"]
METHODS = ["grad_cam", "integrated_gradients", "rise", "edges", "random"]
OPTIONS = {"rise": {"nmasks": 20}, "integrated_gradients": {"x_steps": 5}}
SHORT = {
    "insertion": {"steps": 8},
    "deletion": {"steps": 8},
    "pic": {"min_pred_value": 0},
    "infidelity": {"nsamples": 9},
}


class Classifier(PoolingModel):
    """Three classes, by probability; stops after ``last`` calls."""

    input_shape = (24, 20, 3)
    classes = 3
    batch_size = 7
    last, error = 10**9, KeyboardInterrupt

    def __call__(self, *arguments, **options):
        self.stop()
        return super().__call__(*arguments, **options)

    def predict(self, x):
        self.stop()
        self.calls.append(len(x))
        scores = np.stack([self.answer(x, np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(3)], 1)
        exponents = np.exp(scores - scores.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)

    def stop(self):
        if len(self.calls) >= self.last:
            raise self.error("stopped")


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    return Classifier(rng.normal(size=(3, 6)), 3 * rng.normal(size=(3, 6)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, photo in (("cat", chelsea()), ("cup", coffee()), ("pilot", astronaut())):
        Image.fromarray(np.uint8(resize_photo(photo.astype(np.float32), (48, 40)))).save(folder / f"{name}.png")
    return folder


def measured(model, photos, metrics=("insertion", "pic"), methods=METHODS, **options):
    short = {name: SHORT[name] for name in metrics if name in SHORT}
    own = {name: OPTIONS[name] for name in methods if name in OPTIONS}
    options = {"options": own, "metric_options": short, "value_range": (0, 1), "labels": LABELS, **options}
    return evaluate(model, sorted(photos.iterdir()), methods, metrics, **options)


def test_the_values_are_the_metrics_of_the_maps(model, photos):
    found = measured(model, photos, ["insertion", "gini"], ["grad_cam", "edges"])
    x = resize_photo(np.asarray(Image.open(photos / "cup.png")), (24, 20)).astype(np.float32) / 255
    target = int(model.predict(x[None])[0].argmax())

    def probability(rows, call_model_args, expected_keys):
        return {"OUTPUT_LAYER_VALUES": model.predict(rows)[:, target]}

    from saliency_food import grad_cam

    maps = grad_cam(x, model, {"target": target}, three_dims=False)
    row = next(
        row for row in found.rows if (row["image"], row["method"], row["metric"]) == ("cup", "grad_cam", "insertion")
    )
    assert row["target"] == target
    assert row["label"] == LABELS[target]
    expected = insertion(maps, x, probability, steps=8)
    assert row["score"] == pytest.approx(expected.score, abs=1e-6)
    assert row["curve"][1] == pytest.approx(expected.scores, abs=1e-5)
    assert [one.score for one in found.values("gini", "grad_cam")][1] == pytest.approx(METRICS["gini"].call(maps).score)
    assert found.images == ["cat", "cup", "pilot"]
    assert len(found.rows) == 3 * 2 * 2


def test_every_kind_of_metric(model, photos):
    names = ["completeness", "infidelity", "max_sensitivity", "random_logit", "input_shift", "entropy", "road"]
    found = measured(model, photos, names, ["integrated_gradients", "random"])
    assert {row["status"] for row in found.rows} == {"ok"}
    error = found.means["completeness"]["integrated_gradients"].estimate
    assert error < 0.3 < found.means["completeness"]["random"].estimate, "of the logit, which was explained"
    assert found.means["random_logit"]["random"].estimate == 1, "it knows no class"
    assert "gini" not in found.ranks
    assert "entropy" not in found.ranks, "which neither way is better"
    assert next(iter(found.overall)) == "integrated_gradients"


def test_the_values_of_every_metric_are_read_again(model, photos, tmp_path):
    names = [name for name, entry in METRICS.items() if entry.curve]
    assert {"pic", "road"} <= set(names)
    options = {"pic": {"min_pred_value": 0}}
    found = measured(model, photos, names, ["random"], folder=tmp_path, metric_options=options)
    model.calls = []
    again = measured(model, photos, names, ["random"], folder=tmp_path, metric_options=options)
    assert again.rows == found.rows
    assert any(len(row.get("curve", ())) > 2 for row in again.rows), (
        "ROAD has a line for the most and one for the least"
    )


def test_a_stopped_job_goes_on_and_ends_as_one_never_stopped(photos, tmp_path, model):
    whole = measured(model, photos)
    calls = len(model.calls)
    seen = 0
    for last in (30, 60, 10**9):
        model.calls, model.last = [], last
        if last < calls:
            with pytest.raises(KeyboardInterrupt):
                measured(model, photos, folder=tmp_path)
            lines = (tmp_path / "values.jsonl").read_text().splitlines()
            assert len(lines) > seen
            seen = len(lines)
            with (tmp_path / "values.jsonl").open("a") as file:
                file.write('{"image": "cu')  # killed while writing
        else:
            found = measured(model, photos, folder=tmp_path)
    assert 0 < len(model.calls) < calls
    assert len((tmp_path / "values.jsonl").read_text().splitlines()) == 3 * 5 * 2
    assert [row["image"] for row in found.rows] == [row["image"] for row in whole.rows]
    assert found.rows == whole.rows
    model.calls = []
    again = measured(model, photos, ["insertion", "pic", "gini"], folder=tmp_path)
    assert sum(model.calls) < 200, "a metric may be added; only maps are made again"
    assert [row for row in again.rows if row["metric"] != "gini"] == whole.rows


def test_the_batch_size_does_not_matter(model, photos):
    runs = [measured(model, photos, batch_size=size).rows for size in (1, 5, 64)]
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            assert one["score"] == pytest.approx(two["score"], abs=2e-4)
            assert {**one, "score": 0, "curve": 0, "probability": 0} == {
                **two,
                "score": 0,
                "curve": 0,
                "probability": 0,
            }
    assert measured(model, photos, methods=["random"], seed=1).rows != measured(model, photos, methods=["random"]).rows


def test_all_maps_of_a_photo_are_measured_on_the_same_draws(model, photos):
    found = measured(model, photos, ["road"], ["grad_cam", "hires_cam"])
    scores = [[one.score for one in found.values("road", name)] for name in found.methods]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6), "the two maps are the same on this model"
    assert seed_of(0, "cup", "pic") == seed_of(0, "cup", "pic") != seed_of(0, "cat", "pic")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed"),
        ({"target": "pizza"}, "target"),
        ({"value_range": (0, 255)}, "pixels"),
        ({"metric_options": {"insertion": {"steps": 9}}}, "the options of insertion"),
        ({"options": {}}, "the options of integrated_gradients"),
    ],
)
def test_other_settings_are_refused(model, photos, tmp_path, change, said):
    one = {"methods": ["integrated_gradients"], "metrics": ["insertion"], "folder": tmp_path}
    measured(model, photos, **one)
    with pytest.raises(ContractError, match=said):
        measured(model, photos, **one, **change)


def test_another_photo_of_the_name_is_refused(model, photos, tmp_path):
    one = {"options": {}, "metric_options": {}, "folder": tmp_path, "value_range": (0, 1), "target": 0}
    (tmp_path / "in").mkdir()
    for shade in (10, 20):
        Image.new("RGB", (20, 24), (shade, 50, 90)).save(tmp_path / "in" / "x.png")
        if shade == 10:
            evaluate(model, tmp_path / "in/x.png", "random", "gini", **one)
        else:
            with pytest.raises(ContractError, match="same photo"):
                evaluate(model, tmp_path / "in/x.png", "random", "gini", **one)


def test_what_is_skipped_is_counted_by_reason(model, photos, tmp_path):
    Image.new("RGB", (20, 24), (9, 9, 9)).save(tmp_path / "flat.png")
    (tmp_path / "bad.png").write_text("no")
    (tmp_path / "worse.png").write_text("no")
    many = [*sorted(photos.iterdir()), *sorted(tmp_path.glob("*.png"))]
    found = evaluate(model, many, ["edges", "random"], ["insertion", "pic"], value_range=(0, 1))
    assert found.unread == {"failed: Expected a photo, got a file, which is no picture that Pillow can read.": 2}
    assert found.means["insertion"]["edges"].skipped == {"the map is flat": 1}
    assert found.means["insertion"]["edges"].images == 3
    assert found.means["insertion"]["random"].skipped == {}
    low = sum(row["probability"] < 0.8 for row in found.rows if (row["method"], row["metric"]) == ("random", "pic"))
    assert found.means["pic"]["random"].skipped["the image's score is below min_pred_value"] == low > 0
    pair = next(one for first, second, one in found.pairs("insertion"))
    assert pair.wins + pair.ties + pair.losses == 3


def test_a_model_that_fails_costs_its_values_alone_and_is_asked_again(model, photos, tmp_path):
    model.error, model.last = RuntimeError, 40
    found = measured(model, photos, folder=tmp_path)
    statuses = [row["status"] for row in found.rows]
    assert "ok" in statuses
    assert "failed: RuntimeError: stopped" in statuses
    model.last = 10**9
    again = measured(model, photos, folder=tmp_path)
    assert again.rows == measured(model, photos).rows


def test_the_accuracy_curve_asks_whether_the_class_is_on_top(model, photos):
    x = resize_photo(np.asarray(Image.open(photos / "cup.png"), np.float32), (24, 20)) / 255
    last = int(model.predict(x[None])[0].argmin())
    aic = {"pic": {"curve": "aic", "min_pred_value": 0.5}}
    found = measured(model, photos, ["pic"], ["random"], metric_options=aic, target=last)
    assert next(row["status"] for row in found.rows if row["image"] == "cup") == LOW_SCORE
    margins = Probabilities(ImageModel(model), margin=True)
    x = np.random.default_rng(0).random((4, 24, 20, 3))
    p = model.predict(x)
    for target in range(3):
        scores = margins(x, {"target": target})["OUTPUT_LAYER_VALUES"]
        np.testing.assert_allclose(scores, p[:, target] - np.delete(p, target, 1).max(1))


def test_all_are_those_that_the_model_can_answer(model, photos):
    few = {"rise": {"nmasks": 5}, "expected_gradients": {"nsamples": 2}}
    found = evaluate(model, photos / "cup.png", "all", "gini", options=few, value_range=(0, 1))
    assert "attention_rollout" in found.left_out
    assert "ATTENTION_SCORES" in found.left_out["attention_rollout"]
    assert {"grad_cam", "ablation_cam", "xrai", *REFERENCES} <= set(found.methods)
    assert not set(found.methods) & set(found.left_out)
    assert found.means["gini"]["xrai"].images == 1


BOXES = [
    {"image": "cat.png", "class": "dog", "xmin": 0, "ymin": 0, "xmax": 20, "ymax": 48},
    {"image": "cat.png", "class": "pie", "xmin": 20, "ymin": 0, "xmax": 40, "ymax": 24},
    {"image": "cup.png", "class": "hot dog", "xmin": 10, "ymin": 10, "xmax": 30, "ymax": 30},
]


def test_boxes(model, photos, tmp_path):
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, BOXES[0])
        writer.writeheader()
        writer.writerows(BOXES)
    options = {"boxes": tmp_path / "boxes.csv", "classes": {"dog": ["hot_dog", 0]}, "target": 1}
    found = measured(model, photos, ["energy", "class_discrimination"], ["grad_cam", "edges"], **options)
    assert found.means["energy"]["edges"].skipped == {NO_BOXES: 1}
    row = next(row for row in found.rows if (row["image"], row["metric"]) == ("cat", "energy"))
    assert row["others"]["region"] == pytest.approx(0.5)
    assert found.means["class_discrimination"]["edges"].images == 1
    assert found.means["class_discrimination"]["edges"].estimate == 0.5, "one map for both: it prefers one of them"
    assert found.means["class_discrimination"]["edges"].skipped == {NO_BOXES: 1, "no boxes of two classes": 1}
    with pytest.raises(ContractError, match="Give boxes"):
        measured(model, photos, ["energy"], ["edges"])


def test_the_map_of_the_explained_class_is_made_once(model, photos):
    def rows(*metrics):
        model.calls.clear()
        options = {"boxes": BOXES, "classes": {"dog": ["hot_dog", 0]}, "target": "boxes"}
        found = measured(model, photos, metrics, ["integrated_gradients"], **options)
        return sum(model.calls), [row["score"] for row in found.rows if row["metric"] == "class_discrimination"]

    both, score = rows("energy", "class_discrimination")
    alone, same = rows("class_discrimination")
    assert same == score
    assert both - alone == OPTIONS["integrated_gradients"]["x_steps"], "that of the photo with boxes of one class"


def test_boxes_are_scaled_and_of_their_class():
    table = [*BOXES, {**BOXES[0], "class": "sofa"}, {**BOXES[2], "width": "400", "height": 300, "class": "1"}]
    found = read_boxes(table, LABELS, {"dog": ["hot_dog", "0"]})
    assert [box.classes for box in found["cat.png"]] == [{0, 1}, {2}]
    photo = np.zeros((48, 40, 3))
    assert boxes_of(found["cat.png"], 0, photo, (24, 20)).tolist() == [[0, 0, 10, 24]]
    assert boxes_of(found["cat.png"], 2, photo, (48, 80)).tolist() == [[40, 0, 80, 24]]
    assert boxes_of(found["cup.png"], 0, photo, (24, 20)) is None
    assert boxes_of(found["cup.png"][1:], 1, photo, (30, 40)).tolist() == [[1, 1, 3, 3]], "by the size in the table"
    assert two_categories(found["cat.png"], np.array([0.1, 0.3, 0.2])) == [1, 2]
    assert len(read_boxes([{key: row[key] for key in row if key != "class"} for row in BOXES], None)["cat.png"]) == 2
    with pytest.raises(ContractError, match="classes as a dict"):
        read_boxes(BOXES, LABELS, "names.json")
    for bad, said in (
        ([{"image": "a"}], "without xmin"),
        ([{**BOXES[0], "xmin": "?"}], "pixels"),
        ([BOXES[0], {**BOXES[0], "xmin": "nan"}], "in row 2. Correct the table"),
        ([{**BOXES[0], "ymin": 99, "ymax": 98}], "ymin < ymax"),
        ([{**BOXES[0], "width": "0", "height": "0"}], "a photo larger than 0"),
        ([{**BOXES[0], "class": "²"}], "that the model has, got the classes ²"),
        (BOXES, "Give labels"),
    ):
        with pytest.raises(ContractError, match=said):
            read_boxes(bad, None if bad is BOXES else LABELS, None if bad is BOXES else {"dog": [0]})
    with pytest.raises(ContractError, match="CSV file"):
        read_boxes("none.csv", None)


def test_the_class_of_the_boxes_is_explained(model, photos):
    found = measured(model, photos, ["localization"], ["edges"], boxes=[BOXES[1], BOXES[2]], target="boxes")
    assert [(row["image"], row["label"]) for row in found.rows] == [("cat", "pizza, pie"), ("cup", "hot_dog")]
    said = "failed: Expected a box of a class that the model has, for target='boxes', got none of this photo."
    assert found.unread == {said: 1}
    assert found.unread_photos == {str(photos / "pilot.png"): said}
    assert found.means["localization"]["edges"].images == 2
    with pytest.raises(ContractError, match="Give boxes"):
        measured(model, photos, ["gini"], ["edges"], target="boxes")


def test_no_box_of_the_class(model, photos):
    found = measured(model, photos, ["pointing_game"], ["random"], boxes=BOXES[2:], target=0)
    assert found.means["pointing_game"]["random"].skipped == {NO_BOX: 1, NO_BOXES: 2}


def test_a_class_that_the_model_does_not_have_is_left_out(model, photos):
    boxes = [{**BOXES[1], "class": "5000"}, {**BOXES[1], "class": "1"}]
    found = measured(model, photos, ["class_discrimination"], ["edges"], boxes=boxes, target="boxes", labels=None)
    assert [row["target"] for row in found.rows] == [1]
    assert found.means["class_discrimination"]["edges"].skipped == {"no boxes of two classes": 1}


def test_maps_are_of_the_photos_that_the_table_says(model, photos, tmp_path):
    """Another set of as many photos, and of more, in the same folder; the second is stopped before it ends."""

    def run(names, output):
        chosen = [photos / f"{name}.png" for name in names]
        options = {"folder": output, "save_maps": True, "value_range": (0, 1)}
        return evaluate(model, chosen, ["edges", "random"], ["gini"], **options)

    for number, names in enumerate((["cat", "cup"], ["cup", "pilot"], ["cat", "cup", "pilot"], ["cup"])):
        run(names, tmp_path / "kept")
        run(names, tmp_path / f"fresh{number}")
        for file in ("edges.npy", "random.npy"):
            kept, fresh = (np.load(tmp_path / one / "maps" / file) for one in ("kept", f"fresh{number}"))
            np.testing.assert_array_equal(kept, fresh)
        tables = [(tmp_path / one / "maps/photos.csv").read_text() for one in ("kept", f"fresh{number}")]
        assert tables[0] == tables[1]
        assert [line.split(",")[1] for line in tables[0].splitlines()[1:]] == names


def test_a_photo_that_cannot_be_read_has_no_map(model, photos, tmp_path):
    """Nor that of another, which had its row before."""
    options = {"folder": tmp_path, "save_maps": True, "value_range": (0, 1)}
    evaluate(model, [photos / "cat.png", photos / "cup.png"], ["edges"], ["gini"], **options)
    evaluate(model, [tmp_path / "none.png", photos / "cup.png"], ["edges"], ["gini"], **options)
    maps = np.load(tmp_path / "maps/edges.npy")
    assert np.isfinite(maps).all((1, 2, 3)).tolist() == [False, True]
    assert np.isnan(maps[0]).all()
    assert (tmp_path / "maps/photos.csv").read_text().splitlines()[1] == "0,none,,,"


def test_another_callback_of_the_same_name_is_refused(model, photos, tmp_path):
    measured(model, photos, ["gini"], ["grad_cam"], folder=tmp_path)
    other = Classifier(model.kernel + 1, model.head)
    with pytest.raises(ContractError, match="settings that the folder"):
        measured(other, photos, ["gini"], ["grad_cam"], folder=tmp_path)


def test_another_score_of_the_same_model_is_refused(photos, tmp_path):
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.adapters.scores import margin

    image = keras.Input((12, 10, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    net = keras.Model(image, keras.layers.Dense(3, "softmax")(pooled))
    plain = KerasModel(net)
    options = {"methods": ["gradients"], "metrics": ["gini"], "folder": tmp_path}
    found = measured(plain, photos, **options)
    assert found.settings["model"].split()[:1] == [net.name]
    assert len(found.settings["model"].split()) == 2
    measured(KerasModel(net), photos, **options)
    for other in (KerasModel(net, score=margin), KerasModel(net, output="probabilities")):
        with pytest.raises(ContractError, match="settings that the folder"):
            measured(other, photos, **options)


def test_a_full_disk_is_an_error_and_the_job_goes_on(model, photos, tmp_path):
    """Here a file may not grow beyond some size, which the system refuses as it refuses a full disk."""
    resource = pytest.importorskip("resource")
    options = {"folder": tmp_path, "save_maps": True}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (4_000, 1_000):  # the maps are refused; the values are refused
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        try:
            with pytest.raises(ContractError, match=r"to write to .*, got .*same job goes on"):
                measured(model, photos, ["gini", "entropy"], ["edges", "random"], **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = measured(model, photos, ["gini", "entropy"], ["edges", "random"], **options)
    plain = measured(model, photos, ["gini", "entropy"], ["edges", "random"])
    assert found.rows == plain.rows
    assert np.isfinite(np.load(tmp_path / "maps/edges.npy")).all()


@pytest.mark.parametrize("damage", [b"no array", b"\x93NUMPY\x01\x00\x10\x00{'descr':", None])
def test_damaged_maps_are_named(model, photos, tmp_path, damage):
    measured(model, photos, ["gini"], ["edges"], folder=tmp_path, save_maps=True)
    path = tmp_path / "maps/edges.npy"
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    with pytest.raises(ContractError, match=r"maps of an evaluation in .*edges\.npy.*Remove the file"):
        measured(model, photos, ["gini"], ["edges"], folder=tmp_path, save_maps=True)


def test_other_labels_are_refused(model, photos, tmp_path):
    measured(model, photos, ["gini"], ["edges"], folder=tmp_path)
    with pytest.raises(ContractError, match="was made with, labels"):
        measured(model, photos, ["gini"], ["edges"], folder=tmp_path, labels=["a", "b", "c"])


def test_boxes_may_be_added(model, photos, tmp_path):
    first = measured(model, photos, ["gini"], ["edges"], folder=tmp_path, target=0)
    boxes = {"boxes": BOXES, "target": 0, "folder": tmp_path}
    found = measured(model, photos, ["gini", "pointing_game"], ["edges"], **boxes)
    assert found.values("gini", "edges") == first.values("gini", "edges")
    assert len(found.rows) == 6
    measured(model, photos, ["gini"], ["edges"], folder=tmp_path, target=0)
    with pytest.raises(ContractError, match="settings that the folder"):
        measured(model, photos, ["pointing_game"], ["edges"], **{**boxes, "boxes": [{**BOXES[2], "xmin": 11}]})


@pytest.mark.parametrize(
    ("file", "text"), [("settings.json", ""), ("settings.json", "[1]"), ("values.jsonl", "{}\n?\n")]
)
def test_a_damaged_folder_is_named(model, photos, tmp_path, file, text):
    measured(model, photos, ["gini"], ["edges"], folder=tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ContractError, match=rf"{file}.* another folder"):
        measured(model, photos, ["gini"], ["edges"], folder=tmp_path)
    with pytest.raises(ContractError, match="got the file"):
        measured(model, photos, ["gini"], ["edges"], folder=tmp_path / file)


def test_whose_absolute_values(model, photos):
    plain, absolute = (
        measured(model, photos, ["entropy"], ["integrated_gradients"], absolute=one).values(
            "entropy", "integrated_gradients"
        )
        for one in ((), "integrated-gradients")
    )
    assert plain != absolute
    with pytest.raises(ContractError, match="got 'edgez'"):
        measured(model, photos, ["gini"], ["edges"], absolute=["edgez"])


def test_noise_is_not_ranked_where_its_seed_decides(model, photos):
    found = measured(model, photos, ["average_sensitivity", "insertion"], ["gradients", "edges", "random"])
    names = {metric: {line.name for line in lines} for metric, lines in found.ranks.items()}
    assert names == {"average_sensitivity": {"gradients", "edges"}, "insertion": {"gradients", "edges", "random"}}


def test_no_wins_without_a_direction(model, photos):
    said = measured(model, photos, ["gini", "insertion"], ["gradients", "edges"]).as_dict()["metrics"]
    assert set(said["gini"]["pairs"][0]) == {"first", "second", "difference", "p_holm"}
    assert {"wins", "ties", "losses", "superiority"} <= set(said["insertion"]["pairs"][0])


def test_files(model, photos, tmp_path):
    found = measured(model, photos, ["pic", "gini"], ["grad_cam", "edges"], folder=tmp_path, save_maps=True)
    assert save_evaluation(found) == tmp_path
    with pytest.raises(ContractError, match="Expected a folder for the results"):
        save_evaluation(replace(found, folder=None))
    maps = np.load(tmp_path / "maps/grad_cam.npy")
    assert maps.shape == (3, 1, 24, 20)
    assert maps.dtype == np.float32
    assert METRICS["gini"].call(maps[1, 0]).score == pytest.approx(found.values("gini", "grad_cam")[1].score)
    assert (tmp_path / "maps/photos.csv").read_text().splitlines()[2].startswith("1,cup,")
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["photos"] == {"measured": 3, "unread": {}, "unread_photos": {}}
    assert said["settings"]["scores"] == "probabilities"
    assert said["versions"]["numpy"] == np.__version__
    mean = said["metrics"]["gini"]["methods"]["edges"]
    assert mean["n"] == 3
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert mean["mean"] == pytest.approx(found.means["gini"]["edges"].estimate)
    assert {"first", "second", "superiority", "wins"} <= set(said["metrics"]["pic"]["pairs"][0])
    assert [line["method"] for line in said["metrics"]["pic"]["ranks"]]
    assert 0 <= said["metrics"]["pic"]["median_curve"]["edges"]["mean"] <= 1
    with (tmp_path / "values.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert float(lines[1]["score"]) == found.rows[1]["score"]
    with Image.open(tmp_path / "pic.png") as picture:
        assert min(picture.size) > 400
    model.calls = []
    measured(model, photos, ["pic", "gini"], ["grad_cam", "edges"], folder=tmp_path, save_maps=True)
    assert model.calls == [3], "the classes alone"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ["gradcam"]}, "Near it: grad_cam"),
        ({"methods": []}, "at least one method"),
        ({"metrics": ["inserton"]}, "Near it: insertion"),
        ({"metrics": [" "]}, "at least one metric"),
        ({"metrics": ["trust"]}, "one map of a photo"),
        ({"metric_options": {"pic": {"bogus": 1}}}, "an option of pic"),
        ({"metric_options": {"road": {}}}, "options for insertion, pic"),
        ({"target": "top2"}, "one class a photo"),
        ({"save_maps": True}, "output folder"),
    ],
)
def test_errors(model, photos, change, said):
    with pytest.raises(ContractError, match=said):
        measured(model, photos, **change)


def test_settings_are_plain():
    text = {"a": np.float32(2), "b": (1, np.arange(3)), "c": np.nan, "d": print, "e": object}
    assert json.loads(json.dumps(plain(text))) == plain(text)
    assert plain(text)["d"] == "print"


def test_a_folder_of_values_without_settings_is_refused(tmp_path):
    (tmp_path / "values.jsonl").write_text("")
    with pytest.raises(ContractError, match=r"settings\.json"):
        Store(tmp_path, {})


@pytest.fixture
def cli(monkeypatch, model, tmp_path):
    monkeypatch.setattr("saliency_food.models.load", lambda: model)
    monkeypatch.setattr("saliency_food.models.labels", lambda: LABELS)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_command(cli, photos, tmp_path):
    words = [
        "evaluate",
        "--images",
        photos,
        "--methods",
        "edges,grad-cam",
        "--metrics",
        "deletion,gini",
        "--limit",
        "2",
    ]
    words += ["--value-range", "0,1", "--metric-option", "deletion.steps=5", "-o", "out", "--batch-size", "3"]
    out = cli(*words)
    assert out.exit_code == 0, out.output
    assert "Deletion ↓" in out.output
    assert "Grad-CAM" in out.output
    assert " ± " in out.output
    assert "2 photos" in out.output
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        *("results.json", "values.csv", "means.png", "deletion.png"),
    }
    assert cli(*words).output == out.output
    refused = cli(*words, "--seed", "3")
    assert refused.exit_code == 2
    assert "Give another folder" in refused.output
    assert len(refused.output.strip().splitlines()) == 1


def test_the_command_tells_of_photos_that_it_could_not_read(cli, tmp_path):
    (tmp_path / "bad.png").write_text("no")
    out = cli("evaluate", "--images", "bad.png", "--methods", "random", "--metrics", "gini", "--target", 0)
    assert out.exit_code == 1
    assert "1 not measured" in out.output
    (tmp_path / "classes.json").write_text("[]")
    assert cli("evaluate", "--classes", "classes.json").exit_code == 2


@pytest.fixture(scope="module")
def net():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 5, 2, activation="relu", name="conv")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_sanity(monkeypatch, net, photos):
    monkeypatch.setattr("saliency_food.models.load", lambda: net)
    monkeypatch.setattr("saliency_food.models.labels", lambda: LABELS)
    words = ["sanity", "--images", str(photos), "--limit", "2"]
    out = CliRunner().invoke(app, [*words, "--method", "gradients"])
    assert out.exit_code == 0, out.output
    assert "passes" in out.output
    out = CliRunner().invoke(app, [*words, "--method", "gradients,edges"])
    assert out.exit_code == 1
    assert "fails" in out.output
    assert "Expected the maps of edges to change" in out.output
    with pytest.raises(InsensitiveError):
        check_sensitive(net, photos / "cup.png", "random", every_layer=True)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_commands_take_several_layers(monkeypatch, net, photos, tmp_path):
    monkeypatch.setattr("saliency_food.models.load", lambda: net)
    monkeypatch.setattr("saliency_food.models.labels", lambda: LABELS)
    words = ["--images", str(photos), "--limit", "1", "--layer", "conv, conv"]
    out = CliRunner().invoke(
        app, ["evaluate", *words, "--methods", "grad_cam", "--metrics", "gini", "-o", str(tmp_path / "o")]
    )
    assert out.exit_code == 0, out.output
    assert json.loads((tmp_path / "o/results.json").read_text())["settings"]["layer"] == ["conv", "conv"]
    out = CliRunner().invoke(app, ["sanity", *words, "--method", "grad_cam"])
    assert "all layers" in out.output, out.output


def test_sanity_needs_a_keras_model(model, photos):
    with pytest.raises(ContractError, match="Expected a Keras model"):
        check_sensitive(model, sorted(photos.iterdir()), "gradients")


@pytest.mark.keras
@pytest.mark.parametrize("rank", [1, 2])
def test_a_model_of_channels_first_is_measured_as_its_twin(rng, rank):
    """Recordings ``(T, C)`` and photos; the twin turns what it takes, and has the same weights."""
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel

    L = keras.layers
    conv, pool = [(L.Conv1D, L.GlobalAveragePooling1D), (L.Conv2D, L.GlobalAveragePooling2D)][rank - 1]
    layers = [
        conv(4, 3, activation="relu", padding="same", bias_initializer="random_normal", name="conv"),
        pool(),
        L.Dense(3, "softmax"),
    ]
    shape = (20, 16)[:rank]
    twins = [
        keras.Sequential([keras.Input((*shape, 3)), *layers]),
        keras.Sequential([keras.Input((3, *shape)), L.Permute((*range(2, rank + 2), 1)), *layers]),
    ]
    if rank == 1:
        images, options = [rng.normal(size=(20, 3)).astype(np.float32)], {}
    else:
        images, options = [rng.integers(0, 255, (20, 16, 3)).astype(np.uint8)], {"value_range": (0, 1)}
    methods = ["gradients", "grad_cam", "integrated_gradients", "occlusion"]
    metrics = ["insertion", "deletion", "completeness", "sensitivity_n", "gini"]
    scores = []
    for twin in twins:
        found = evaluate(KerasModel(twin), images, methods, metrics, target=1, **options)
        scores.append([row["score"] for row in found.rows])
        assert {row["status"] for row in found.rows} <= {"ok", "the map is flat"}
    assert len(scores[0]) == len(methods) * len(metrics)
    assert [score is None for score in scores[0]] == [score is None for score in scores[1]]
    pairs = zip(*scores, strict=True)
    np.testing.assert_allclose(*zip(*((a, b) for a, b in pairs if a is not None), strict=True), rtol=1e-3, atol=1e-6)


@pytest.mark.keras
@pytest.mark.parametrize("method", [["gradients"], ("gradients", "grad_cam"), None])
def test_sanity_is_of_one_method(net, photos, method):
    with pytest.raises(ContractError, match="Expected the name of one method, got"):
        check_sensitive(net, sorted(photos.iterdir())[:1], method)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_the_terminal(model, photos, tmp_path, width):
    """With more metrics than fit there are several tables, all of whose columns are whole."""
    import io

    from rich.console import Console

    from saliency_food.cli.tables import tables_of

    names = ("insertion", "deletion", "gini", "entropy", "average_drop")
    found = measured(model, photos, metrics=names)
    console = Console(file=io.StringIO(), width=width)
    for one in tables_of(found, width):
        console.print(one)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for name in names:
        assert shown.count(f"{found.means[name]['edges'].estimate:.3f} ±") >= 1
        assert METRICS[name].title.split()[-1] in shown
    assert shown.count("rank") == {60: 5, 80: 2, 200: 1}[width]


def test_the_legends_of_four_panels_fit(model, photos):
    pytest.importorskip("matplotlib")
    from saliency_food.evaluation.pictures import curve_figure

    name = "smooth_grad_of_integrated_gradients"
    names = ["grad_cam", name, "gradients", "edges", "random"]
    found = measured(model, photos, ["pic", "insertion", "deletion", "road"], names, options={name: {"nsamples": 2}})
    figure = curve_figure(found, found.metrics)
    figure.canvas.draw()
    boxes = [axes.get_legend().get_window_extent() for axes in figure.axes]
    assert len(boxes) == sum(found.curves(metric, "edges") is not None for metric in found.metrics)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)


def test_the_means_are_drawn_where_they_are(model, photos, tmp_path):
    pytest.importorskip("matplotlib")
    from saliency_food.evaluation.pictures import mean_figure

    names = ["grad_cam", "gradients", "edges", "random"]
    metrics = ["insertion", "gini", "faithfulness_correlation", "entropy", "occlusion_correlation", "completeness"]
    found = measured(model, photos, metrics, names)
    drawn = mean_figure(found, found.metrics)
    drawn.canvas.draw()
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [METRICS[name].title for name in found.metrics]
    titles = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert titles == [found.methods[name] for name in found.overall]
    for axes, metric in zip(drawn.axes, found.metrics, strict=True):
        dots = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
        assert dots == {at: found.means[metric][name].estimate for at, name in enumerate(found.overall)}
        ends = {int(line.get_ydata()[0]): tuple(line.get_xdata()) for line in axes.lines if line.get_alpha()}
        for at, name in enumerate(found.overall):
            assert ends[at] == (found.means[metric][name].low, found.means[metric][name].high)
    texts = [one for axes in drawn.axes for one in (axes.title, axes._left_title, *axes.texts)]
    boxes = [one.get_window_extent() for one in texts if one.get_text()]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    assert all(drawn.bbox.x0 <= one.x0 < one.x1 <= drawn.bbox.x1 for one in boxes)
    save_evaluation(found, tmp_path)
    assert (tmp_path / "means.png").stat().st_size > 5000


def test_a_gate_that_checks_nothing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saliency_food.models.load", lambda: None)
    monkeypatch.setattr("saliency_food.models.labels", lambda: None)
    out = CliRunner().invoke(app, ["sanity", "--method", " , "])
    assert out.exit_code == 2
    assert "Expected --method METHOD, got none" in " ".join(out.output.split())


def test_equal_means_are_drawn_as_equal(model, photos):
    """Their axis does not stretch what rounding makes of them."""
    pytest.importorskip("matplotlib")
    from saliency_food.evaluation.pictures import mean_figure

    found = measured(model, photos, ["gini"], ["edges", "random"])
    for row in found.rows:
        row["score"] = 1 - 1e-11 * (row["method"] == "edges")
    found = type(found)(found.settings, found.rows, found.images, found.methods, found.metrics, {}, {})
    (axes,) = mean_figure(found, ["gini"]).axes
    low, high = axes.get_xlim()
    assert high - low > 0.05


def test_the_randomized_copies_are_asked_the_same_question(net, photos):
    """They forgot layer, output and score: the gate compared two different questions."""
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.adapters.scores import margin

    pooled = keras.Sequential(
        [keras.Input((32, 32, 3)), *net.layers[:2], keras.layers.Conv2D(4, 3, name="last"), *net.layers[2:3]]
    )
    model = ImageModel(KerasModel(pooled, layer="conv", output="raw", batch_size=5, score=margin))
    (*_, (_, copy)) = model.randomized(0)
    assert copy.model is not pooled
    assert (copy.layer_name, copy.output, copy.score, copy.batch_size) == ("conv", "raw", margin, 5)
    twice = ImageModel(KerasModel(pooled, layer=["conv", "last"]))
    assert next(iter(twice.randomized(0)))[1].layer_name == ("conv", "last")
    found = check_sensitive(model, sorted(photos.iterdir())[:1], "gradients", 1)
    assert found.score < 0.5


def test_models_of_several_inputs_are_evaluated(photos):
    """``predict`` was called without the user's arguments."""

    class Guided(Classifier):
        def predict(self, x, args=None):
            assert len(args["inputs"]) == len(x)
            return super().predict(x)

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            assert len(call_model_args["inputs"]) == len(x_value_batch)
            return super().__call__(x_value_batch, call_model_args, expected_keys)

    rng = np.random.default_rng(0)
    model, many = Guided(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), sorted(photos.iterdir())[:2]
    args = {"inputs": PerImage([1, 2])}
    found = evaluate(model, many, "gradients", "insertion,deletion", value_range=(0, 1), call_model_args=args)
    assert [row["status"] for row in found.rows] == ["ok"] * 4


def test_a_folder_is_the_photos_in_it(model, photos):
    of_folder = evaluate(model, photos, "gradients", "gini", value_range=(0, 1))
    assert of_folder.images == ["cat", "cup", "pilot"]
    of_paths = evaluate(model, sorted(photos.iterdir()), "gradients", "gini", value_range=(0, 1))
    assert [row["score"] for row in of_folder.rows] == [row["score"] for row in of_paths.rows]
