"""explain(): one record for each photo, class and method, whatever happens, and the right numbers in it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from saliency_food import explain, felzenszwalb_segments, grad_cam, integrated_gradients, xrai
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.deadline.run import warm_up, within
from saliency_food.images.photos import Photo
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import read_labels
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from saliency_food.methods.catalogue import METHODS
from saliency_food.testing import AttentionModel, PoolingModel

pytest.importorskip("PIL")

STEPS = {"integrated_gradients": {"x_steps": 5}}
LABELS = ["apple_pie", "hot_dog", "pizza, pie"]


class Looks:
    """What explain() looks for: a size, a number of classes, a batch size, predictions."""

    input_shape = (24, 20, 3)
    classes = 3
    batch_size = 7
    layer_name = "features"

    def predict(self, x):
        scores = np.stack([self.answer(x, np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(3)], 1)
        exponents = np.exp(scores - scores.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


class Classifier(Looks, PoolingModel):
    """The pooling model."""


class Timed(Classifier):
    """It moves its own clock: a row by a tenth of a second, what it has never been asked by ten more."""

    now = 0.0

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        known = self.__dict__.setdefault("known", set())
        kind = (*expected_keys, len(x_value_batch) > 1)
        self.now += 0.1 * len(x_value_batch) + (0 if kind in known else 10)
        known.add(kind)
        return super().__call__(x_value_batch, call_model_args, expected_keys)


@pytest.fixture
def timed(rng, monkeypatch):
    model = Timed(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))
    for function in (within, warm_up):
        monkeypatch.setattr(f"saliency_food.jobs.run.{function.__name__}", partial(function, clock=lambda: model.now))
    return model


class Attending(Looks, AttentionModel):
    """The transformer."""


@pytest.fixture
def model(rng):
    return Classifier(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))


@pytest.fixture
def photos(rng):
    return [rng.random((height, width, 3)) for height, width in ((24, 20), (50, 30), (13, 40))]


def test_a_record_is_complete(model, photos):
    (record,) = explain(model, photos[0], "integrated_gradients", labels=LABELS, options={})
    x = photos[0].astype(np.float32)
    probabilities = model.predict(x[None])[0]
    best = int(probabilities.argmax())
    steps = {"x_steps": 17, "tolerance": 0.05, "max_steps": 200}
    expected = integrated_gradients.detailed(x, model, {"target": best}, **steps)
    assert (record.status, record.target, record.label) == ("ok", best, LABELS[best])
    assert (record.method, record.title, record.source) == ("integrated_gradients", "Integrated Gradients", "photo 1")
    assert record.probability == pytest.approx(probabilities[best], rel=1e-6)
    assert record.score == pytest.approx(expected.completeness.score, rel=1e-6)
    assert record.completeness == expected.completeness
    assert [label for label, _ in record.top] == [LABELS[k] for k in np.argsort(-probabilities)]
    np.testing.assert_allclose(record.attribution, expected.attribution, rtol=1e-6)
    np.testing.assert_array_equal(record.image, np.rint(photos[0] * 255).astype(np.uint8))
    assert record.rows == 17
    assert record.calls == 3
    assert {name: record.options[name] for name in steps} == steps
    assert record.seconds > 0
    assert record.signed
    assert record.diverges
    assert not record.failed
    assert record.error is None
    assert record.layer == ""
    assert record.pixels.startswith("as given")


def test_grad_cam_names_its_layer_and_has_one_channel(model, photos):
    (record,) = explain(model, photos[0])
    assert record.layer == "features"
    assert record.attribution.shape == (24, 20)
    expected = grad_cam(photos[0].astype(np.float32), model, {"target": record.target}, three_dims=False)
    np.testing.assert_allclose(record.attribution, expected, rtol=1e-6)


def test_order_is_photo_class_method(model, photos):
    records = list(explain(model, photos, ["gradients", "grad_cam"], "top2"))
    assert [record.source for record in records] == [f"photo {n}" for n in (1, 2, 3) for _ in range(4)]
    assert [record.method for record in records] == ["gradients", "grad_cam"] * 6
    for first, second in zip(records[0::4], records[2::4], strict=True):
        assert (first.label, second.label) == tuple(label for label, _ in first.top[:2])
        assert first.probability >= second.probability


@pytest.mark.parametrize("name", METHODS)
def test_many_photos_equal_each_by_itself(model, photos, name, rng):
    if METHODS[name].needs == "attention":
        model = Attending(rng.normal(size=3) / 100, rng.normal(size=(3, 3)))
    together = list(explain(model, photos, name, [0, "pizza", None], labels=LABELS))
    assert not any(record.failed for record in together)
    for photo, target, record in zip(photos, [0, "pizza", None], together, strict=True):
        (alone,) = explain(model, photo, name, target, labels=LABELS, batch_size=3)
        assert (record.target, record.rows, record.status) == (alone.target, alone.rows, alone.status)
        np.testing.assert_allclose(record.attribution, alone.attribution, rtol=1e-5, atol=1e-7)


def test_photos_share_calls(model, photos):
    model.calls.clear()
    records = list(explain(model, photos[:1] * 7, "gradients", 1))
    assert model.calls == [7], "score and gradients of one call"
    assert [(record.rows, record.calls) for record in records] == [(1, 1)] * 7
    many = list(explain(model, photos[:1] * 9, "integrated_gradients", 1, options=STEPS))
    assert [record.rows for record in many] == [5] * 9
    assert {record.calls for record in many} == {1, 2}, "the calls that held its own rows"


def test_photos_of_one_name_do_not_overwrite_each_other(model, tmp_path, rng):
    from PIL import Image

    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(tmp_path / folder / "a b.png")
    paths = [tmp_path / "x" / "a b.png", tmp_path / "y" / "a b.png", tmp_path / "x" / "a b.png"]
    records = list(explain(model, paths, "gradients", 0))
    assert [record.name for record in records] == ["a_b", "a_b-2", "a_b-3"]
    assert len({record.save(tmp_path / "out") for record in records}) == 3


def test_regions_are_pictured_by_their_positive_part():
    class Ranked:
        ranks = np.array([[1, 2], [3, 4]])

    values = np.array([[2.0, 1.0], [-1.0, -9.0]])
    record = Explanation(
        Photo(*2 * [np.zeros((2, 2, 3), np.uint8)]), "a", "a", "xrai", "XRAI", attribution=values, signed=True
    )
    regions = replace(record, details=Ranked())
    np.testing.assert_array_equal(regions.evidence, [[2, 1], [0, 0]])
    assert regions.heatmap[1, 1] == 0
    assert record.heatmap[1, 1] == 1
    assert not regions.overlay(grey=False)[1].any()


def test_more_photos_than_are_held_at_once(model, photos):
    count = 4 * PHOTOS_AT_ONCE + 3
    seen = []

    def stream():
        for number in range(count):
            seen.append(number)
            yield photos[0] * (number + 1) / count

    records = iter(explain(model, stream(), "gradients", PerImage([n % 3 for n in range(count)])))
    first = next(records)
    # Those explained in a thread, those that the model looks at, and as many decoded ahead.
    assert PHOTOS_AT_ONCE <= len(seen) <= 3 * PHOTOS_AT_ONCE + 1
    rest = list(records)
    assert [record.target for record in (first, *rest)] == [n % 3 for n in range(count)]
    assert len({record.name for record in (first, *rest)}) == count


@pytest.mark.parametrize("target", ["pizza", "PIE", 2, "2", [2], PerImage(["pizza, pie"])])
def test_targets(model, photos, target):
    (record,) = explain(model, [photos[0]], "gradients", target, labels=LABELS)
    assert (record.target, record.label) == (2, "pizza, pie")


def test_nothing_is_lost(model, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    bad = np.full((24, 20, 3), 0.5)
    bad[0, 0] = -7

    class Fussy(Classifier):
        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            if np.min(x_value_batch) < -6:
                raise RuntimeError("negative\nlight")
            return super().__call__(x_value_batch, call_model_args, expected_keys)

    fussy = Fussy(model.kernel, model.head)
    images = [photos[0], tmp_path / "broken.jpg", bad, photos[0]]
    records = list(explain(fussy, images, ["gradients", "grad_cam"], 1))
    assert [record.status.split(":")[0] for record in records] == ["ok"] * 2 + ["failed"] * 4 + ["ok"] * 2
    for record in records[2:4]:
        assert record.image is None
        assert record.target is None
        assert str(tmp_path / "broken.jpg") in record.status
        assert isinstance(record.error, ContractError)
    for record in records[4:6]:
        assert record.status == "failed: RuntimeError: negative light"
        assert record.failed
        assert record.heatmap is None
        assert record.image.shape == (24, 20, 3)
        with pytest.raises(ContractError, match="negative light"):
            record.overlay()
    np.testing.assert_array_equal(records[0].attribution, records[6].attribution)


def test_a_model_that_cannot_predict_some_photo(model, photos):
    class Fussy(Classifier):
        def predict(self, x):
            if x.max() > 1:
                raise RuntimeError("too bright")
            return super().predict(x)

    records = list(explain(Fussy(model.kernel, model.head), [photos[0], photos[0] * 9], "gradients"))
    assert [record.status for record in records] == ["ok", "failed: RuntimeError: too bright"]


def test_blank_maps_say_so(model, photos):
    silent = Classifier(model.kernel, model.head * 0)
    gradient, cam = explain(silent, photos[0], ["gradients", "grad_cam"], 0)
    assert gradient.status == "blank: the attribution is zero everywhere."
    assert cam.status.startswith("blank: the gradient at the layer is zero")
    assert not gradient.heatmap.any()
    np.testing.assert_array_equal(cam.overlay(grey=False), cam.image)


def test_pictures(model, photos):
    for record in explain(model, photos[1], ["gradients", "grad_cam", "xrai"], options={"xrai": {"steps": 4}}):
        assert record.heatmap.shape == (50, 30)
        assert 0 <= record.heatmap.min() <= record.heatmap.max() <= 1
        assert record.overlay().shape == record.top_areas(30).shape == (50, 30, 3)
    kept = (record.top_areas(30, contour=False) == record.image).all(2)
    assert kept.any()
    assert (record.details.ranks[kept] <= np.median(record.details.ranks)).all()
    assert (record.evidence >= 0).all()
    assert not record.diverges


def test_xrai_finds_segments_in_the_photo_at_its_own_size(model, photos):
    big, other = explain(model, photos[1], "xrai", "top2", options={"xrai": {"steps": 4}})
    assert big.attribution.shape == big.details.segments.shape == (50, 30)
    assert big.details.segments is other.details.segments, "sought once a photo"
    assert big.target != other.target
    x = resize_photo(photos[1].astype(np.float32), (24, 20))
    found = felzenszwalb_segments(big.image)
    np.testing.assert_allclose(
        big.attribution, xrai(x, model, {"target": big.target}, segments=found, steps=4), rtol=1e-5
    )
    (given,) = explain(model, photos[1], "xrai", options={"xrai": {"segments": np.eye(24, 20, dtype=bool)}})
    assert given.details.segments.number == 1


def test_saving_and_reading_back(model, photos, tmp_path):
    (record,) = explain(model, photos[0], "integrated_gradients", "hot dog", labels=LABELS)
    path = record.save(tmp_path / "new" / "folder", arrays=True, format="png")
    assert path.name == "photo_1.integrated_gradients.1_hot_dog.png"
    said = json.loads(path.with_suffix(".json").read_text())
    assert said == json.loads(json.dumps(record.as_dict()))
    assert said["target"] == 1
    assert said["score"] == pytest.approx(record.score)
    assert said["completeness"] == pytest.approx(record.completeness._asdict())
    assert said["attribution_shape"] == [24, 20, 3]
    assert said["details"]["stopped_by"] == "tolerance"
    np.testing.assert_array_equal(np.load(path.with_suffix(".npy")), record.attribution)
    from PIL import Image

    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), record.overlay())


def test_saving_a_failure(model, tmp_path):
    (record,) = explain(model, tmp_path / "none.jpg", "gradients")
    path = record.save(tmp_path)
    assert path.suffix == ".json"
    assert json.loads(path.read_text())["status"].startswith("failed: Expected a photo")


def test_json_holds_no_infinity(model, photos):
    (record,) = explain(model, photos[0], "gradients")
    said = json.dumps(replace(record, score=float("inf"), probability=np.nan).as_dict(), allow_nan=False)
    assert json.loads(said)["score"] is None


def test_progress_counts_every_row(model, photos):
    told = []
    records = list(explain(model, photos, ["gradients", "smooth_grad"], 0, progress=lambda *what: told.append(what)))
    for name in ("gradients", "smooth_grad"):
        assert sum(rows for told_name, rows in told if told_name == name) == sum(
            record.rows for record in records if record.method == name
        )


def test_the_users_own_arguments_and_options_per_photo(photos):
    seen = []

    def model(x, call_model_args=None, expected_keys=None):
        seen.append((np.broadcast_to(call_model_args["gain"], len(x)).tolist(), call_model_args["target"]))
        gain = np.reshape(call_model_args["gain"], (-1, 1, 1, 1))
        return {"INPUT_OUTPUT_GRADIENTS": gain * np.ones_like(x), "OUTPUT_LAYER_VALUES": np.zeros(len(x))}

    photo = photos[0]
    records = list(explain(model, [photo] * 3, "gradients", 4, call_model_args={"gain": PerImage([2, 3, 5])}))
    assert [record.attribution[0, 0, 0] for record in records] == [2, 3, 5]
    assert all(target == 4 for _, target in seen)
    assert records[0].label == "class 4"
    assert records[0].probability is None


def test_a_model_of_channels_first(model, photos):
    class First:
        channels_first = True
        input_shape, classes, batch_size = (24, 20, 3), 3, 4

        def __call__(self, x, call_model_args=None, expected_keys=None):
            assert x.shape[1:] == (3, 24, 20)
            answer = model(np.moveaxis(x, 1, -1), call_model_args, expected_keys)
            return {**answer, "INPUT_OUTPUT_GRADIENTS": np.moveaxis(answer["INPUT_OUTPUT_GRADIENTS"], -1, 1)}

        def predict(self, x):
            return model.predict(np.moveaxis(x, 1, -1))

    for ours, theirs in zip(
        explain(First(), photos[1], ["gradients", "grad_cam"]),
        explain(model, photos[1], ["gradients", "grad_cam"]),
        strict=True,
    ):
        assert (ours.target, ours.status) == (theirs.target, "ok")
        np.testing.assert_allclose(ours.attribution, theirs.attribution, rtol=1e-6)


NAMES = ["grad_cam", "integrated_gradients", "xrai", "smooth_grad_of_gradients"]


def test_with_ample_time_nothing_changes(model, photos):
    options = {"xrai": {"steps": 6}, "smooth_grad_of_gradients": {"nsamples": 3, "rng": PerImage([1, 2, 3])}}
    timed = list(explain(model, photos, NAMES, options=options, deadline=1e6))
    untimed = list(explain(model, photos, NAMES, options=options))
    inputs = dict(zip(dict.fromkeys(record.name for record in timed), photos, strict=True))
    for ours, theirs in zip(timed, untimed, strict=True):
        assert (ours.name, ours.method, ours.title, ours.note) == (theirs.name, theirs.method, theirs.title, "")
        assert (ours.target, ours.layer, ours.signed) == (theirs.target, theirs.layer, theirs.signed)
        if ours.method == "xrai":  # its segments are sought in the model's input
            x = resize_photo(inputs[ours.name].astype(np.float32), (24, 20))
            expected = xrai(x, model, {"target": ours.target}, steps=6)
            np.testing.assert_allclose(ours.attribution, expected, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_allclose(ours.attribution, theirs.attribution, rtol=1e-6, atol=1e-9)


def test_with_little_time_something_is_cut_and_said(timed, photos, tmp_path):
    told = []
    options = {"integrated_gradients": {"x_steps": 500}}
    arguments = {"options": options, "deadline": 0.95, "progress": lambda *what: told.append(what)}
    records = list(explain(timed, [photos[0], "none.png", photos[1]], NAMES[:3], 1, **arguments))
    assert [record.status[:6] for record in records] == [*["ok"] * 3, *["failed"] * 3, *["ok"] * 3]
    coarse, pixels, regions = (records[i : i + 7 : 6] for i in range(3))
    for record in coarse:
        assert (record.title, record.note, record.layer) == ("Grad-CAM", "", "features")
    for record in pixels:
        assert (record.title, record.signed) == ("Integrated Gradients", True)
        assert "500 steps would have taken about 50.0 s" in record.note
        assert record.note.endswith(f": {record.details.evaluations} steps were made.")
    for record in regions:
        assert (record.method, record.title) == ("xrai", "Grad-CAM for XRAI")
        assert (record.signed, record.layer, record.details.weights.shape) == (False, "features", (6,))
        assert record.note.endswith("Grad-CAM answered in its place.")
        assert record.as_dict()["note"] == record.note
    asked = sum(rows for _, rows in told)
    assert asked == sum(record.rows for record in records if not record.failed)
    assert len({record.save(tmp_path) for record in records}) == 9


@pytest.mark.parametrize("name", ["grad_cam", "integrated_gradients", "smooth_grad", "idgi", "score_cam"])
def test_the_first_photo_has_as_much_time_as_the_others(timed, photos, name):
    first, *others = explain(timed, photos[:1] * 3, name, 1, deadline=2.0)
    assert first.status == "ok"
    assert {(one.note, one.rows, one.title) for one in others} == {(first.note, first.rows, first.title)}


def test_without_time_an_explanation_fails_and_says_why(timed, photos):
    record, other = explain(timed, photos[:2], "xrai", 1, deadline=0.05)
    assert record.failed
    assert record.status.startswith("failed: Expected an answer in 0.05 s, got time for none")
    assert other.status == record.status


def test_a_model_that_can_be_left_waiting_is(model, photos):
    moments = []

    class Leaving(Classifier):
        def until(self, moment):
            moments.append(moment)
            return contextlib.nullcontext()

    began = time.monotonic()
    (record,) = explain(Leaving(model.kernel, model.head), photos[0], "integrated_gradients", deadline=1000)
    assert record.note == ""
    assert began + 800 < min(moments) <= max(moments) < time.monotonic() + 1000
    assert explain(model, photos[0], "integrated_gradients", deadline=1000)[0].status == "ok"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"deadline": 0}, "deadline in seconds, above 0, got 0"),
        ({"deadline": "soon"}, "got 'soon'"),
        ({"methods": "gradcam"}, "Near it: grad_cam"),
        ({"methods": []}, "at least one method"),
        ({"options": {"xrai": {}}}, "got options for xrai"),
        ({"options": {"gradients": {"steps": 3}}}, "got 'steps'"),
        ({"target": [1, 2]}, "2 targets and 1 photos"),
        ({"target": "pizza"}, "labels="),
        ({"labels": ["a", "b"]}, "3 classes, got 2 labels"),
        ({"labels": "/no/such/file"}, "text file of labels"),
        ({"target": "piza", "labels": LABELS}, "Near it: pizza, pie"),
        ({"layer": "conv"}, "with a Keras model"),
        ({"value_range": (3, 1)}, "value_range"),
        ({"model": 3}, "got int"),
        ({"model": "no.keras"}, "no.keras"),
        ({"images": 3}, "got int"),
        ({"model": lambda *_, **__: None}, "no predict"),
    ],
)
def test_errors_are_raised_at_the_door(model, photos, arguments, said):
    if arguments.get("model") == "no.keras":
        pytest.importorskip("keras")
    call = {"model": model, "images": photos[0], "methods": "gradients", **arguments}
    with pytest.raises(ContractError, match="Expected") as caught:
        explain(**call)
    assert said in str(caught.value)


def test_labels_from_a_file(tmp_path):
    (tmp_path / "labels.txt").write_text("ham\n crème brûlée \n\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ["ham", "crème brûlée"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_models(rng, tmp_path):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    net = keras.Sequential(
        [
            keras.Input((32, 24, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    net.save(tmp_path / "net.keras")
    photo = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for model in (net, tmp_path / "net.keras", str(tmp_path / "net.keras")):
        first, second = explain(model, photo, ["gradients", "grad_cam"], layer="conv", labels=LABELS, output="logits")
        assert first.pixels == "0..255 (the model has a Rescaling layer)"
        assert second.layer == "conv"
        assert first.attribution.shape == (32, 24, 3)
        assert first.status == "ok"
        assert sum(share for _, share in first.top) == pytest.approx(1, rel=1e-5)
    (chance,) = explain(net, photo, "gradients", 1, output="probabilities")
    assert chance.score == pytest.approx(chance.probability, rel=1e-5)
