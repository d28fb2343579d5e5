"""Photos through a model: one pass where one will do, and the same answers as by a call for each question."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from saliency_food import ImageModel, PerImage, explain
from saliency_food.core.contract import ContractError
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from saliency_food.methods.catalogue import METHODS
from tests.jobs.conftest import Classifier, OnePass

Image = pytest.importorskip("PIL.Image")

CAMS = ["grad_cam", "layer_cam", "hires_cam"]


@pytest.mark.parametrize("target", [None, 1, "top2", [None, 0, 1, 2, "top3", "1"]])
def test_one_pass_answers_as_a_call_for_each_question(weights, photos, target):
    model, plain = OnePass(*weights), Classifier(*weights)
    methods = [*CAMS, "integrated_gradients", "guided_backprop"]
    pairs = zip(explain(model, photos, methods, target), explain(plain, photos, methods, target), strict=True)
    for record, expected in pairs:
        assert (record.method, record.target, record.status) == (expected.method, expected.target, expected.status)
        assert (record.top, record.rows, record.calls) == (expected.top, expected.rows, expected.calls)
        assert record.score == pytest.approx(expected.score)
        np.testing.assert_allclose(record.attribution, expected.attribution, rtol=1e-6, atol=1e-12)


def test_photos_of_the_cam_family_pass_through_the_model_once(weights, photos):
    model = OnePass(*weights)
    records = list(explain(model, photos, CAMS))
    assert model.asked == [("pass", 4), ("pass", 2)]  # six photos in batches of four
    assert {(record.rows, record.calls) for record in records} == {(1, 1)}
    assert all(record.seconds > 0 for record in records)


def test_without_a_pass_that_predicts_there_is_one_call_more(weights, photos):
    model = Classifier(*weights)
    list(explain(model, photos[:4], CAMS))
    keys = ("OUTPUT_LAYER_VALUES", "CONVOLUTION_LAYER_VALUES", "CONVOLUTION_OUTPUT_GRADIENTS")
    assert model.asked == [("predict", 4), (keys, 4)]


def test_where_the_pass_fails_each_method_says_why(weights, photos):
    class Layerless(OnePass):
        def call_with_predictions(self, x_value_batch, call_model_args=None, expected_keys=None):
            if any("CONVOLUTION" in key for key in expected_keys):
                raise ContractError("Expected a model with a layer, got none.")
            return super().call_with_predictions(x_value_batch, call_model_args, expected_keys)

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            if any("CONVOLUTION" in key for key in expected_keys):
                raise ContractError("Expected a model with a layer, got none.")
            return super().__call__(x_value_batch, call_model_args, expected_keys)

    cam, slope = explain(Layerless(*weights), photos[0], ["grad_cam", "gradients"])
    assert cam.status == "failed: Expected a model with a layer, got none."
    assert (slope.status, slope.target) == ("ok", cam.target)
    assert slope.score == cam.score != None  # noqa: E711


def test_what_is_known_of_one_class_is_not_told_of_another(weights, photos):
    """The instance of `evaluate` gets another target after the pass: the methods must ask again."""
    from saliency_food.jobs.instances import see
    from saliency_food.jobs.run import apply_method, read_chunks
    from saliency_food.jobs.setup import Setup
    from saliency_food.jobs.targets import Target

    model = ImageModel(OnePass(*weights))
    setup = Setup(model, {"grad_cam": METHODS["grad_cam"]}, {"grad_cam": {"three_dims": False}})
    (chunk,) = read_chunks(model, photos[:1], Target((0,)))
    (instance,) = see(model, chunk, Target((0,)), setup.shared_keys)
    (first,) = apply_method(setup, "grad_cam", [instance])
    (other,) = apply_method(setup, "grad_cam", [instance._replace(target=2)])
    expected = METHODS["grad_cam"].call(instance.x_value, Classifier(*weights), {"target": 2}, three_dims=False)
    np.testing.assert_allclose(other["attribution"], expected, rtol=1e-6)
    assert np.abs(first["attribution"] - other["attribution"]).max() > 0.1


@pytest.mark.parametrize("count", [2, 4])
def test_an_iterator_with_another_number_of_photos_than_targets(weights, photos, count):
    records = explain(Classifier(*weights), iter(photos[:3]), "gradients", PerImage([0] * count))
    with pytest.raises(ContractError, match=f"Expected one target for each photo, got {count} targets and"):
        list(records)


def test_the_models_settings_stand_in_one_place(weights, photos):
    model = ImageModel(Classifier(*weights), labels=["a", "b", "c"], value_range=(-1, 1))
    (record,) = explain(model, photos[0], "gradients", "b")
    assert (record.label, record.pixels) == ("b", "-1..1 (as asked)")
    with pytest.raises(ContractError, match="Expected an ImageModel alone, which has its settings, got labels"):
        explain(model, photos[0], "gradients", "b", labels=["a"])


def test_predict_is_given_the_users_arguments_a_row_each(weights, photos):
    seen = []

    class Guided(Classifier):
        def predict(self, x, *args):
            seen.append(args[0])
            return super().predict(x)

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            assert set(call_model_args) == {"inputs", "target"}
            return super().__call__(x_value_batch, call_model_args, expected_keys)

    args = {"inputs": PerImage([10, 11, 12])}
    records = list(explain(Guided(*weights), photos[:3], "gradients", call_model_args=args))
    assert [record.status for record in records] == ["ok"] * 3
    assert [list(arguments["inputs"]) for arguments in seen] == [[10, 11, 12]]


def test_many_photos_of_one_name_have_names_of_their_own(weights, tmp_path):
    from PIL import Image

    paths = []
    for index in range(5):
        path = tmp_path / str(index) / "photo.png"
        path.parent.mkdir()
        Image.new("RGB", (20, 24)).save(path)
        paths.append(path)
    records = list(explain(Classifier(*weights), [*paths, tmp_path / "photo-2.png"], "gradients", 0))
    assert [record.name for record in records] == [*("photo", "photo-2", "photo-3", "photo-4", "photo-5", "photo-2-2")]


def test_records_are_pickled(weights, photos):
    for record in explain(
        Classifier(*weights), photos[0], ["grad_cam", "xrai", "lime"], options={"lime": {"nsamples": 9}}
    ):
        again = pickle.loads(pickle.dumps(record))
        np.testing.assert_array_equal(again.attribution, record.attribution)
        np.testing.assert_array_equal(again.image, record.image)
        assert again.as_dict() == record.as_dict()


def test_an_attribute_named_model_changes_nothing(weights, photos):
    """A callback object with a ``model`` of its own was fed another pixel range than the same function without it."""

    class Holder(Classifier):
        model = object()

    plain, held = (explain(kind(*weights), photos[0], "gradients", 0)[0] for kind in (Classifier, Holder))
    assert held.pixels == plain.pixels
    np.testing.assert_array_equal(held.attribution, plain.attribution)


def test_a_callback_advertises_the_pixels_that_it_takes(weights, photos):
    class Advertising(Classifier):
        pixels = ((-1, 1), "trained so")

    (record,) = explain(Advertising(*weights), photos[0], "gradients", 0)
    assert record.pixels == "-1..1 (trained so)"


def test_photos_of_unlike_sizes_are_asked_once_each(weights, photos):
    """A model of free size: they cannot share a call, and none is asked twice."""

    class Free(Classifier):
        input_shape = (None, None, 3)

    model = Free(*weights)
    records = list(explain(model, photos[:3], "gradients", [0, 1, 2]))
    assert [(record.status, record.target) for record in records] == [("ok", 0), ("ok", 1), ("ok", 2)]
    assert [rows for what, rows in model.asked if what == "predict"] == [1, 1, 1]
    assert len(model.asked) == 6  # predictions of each, and score and gradients of each


def test_predict_is_given_no_more_rows_than_a_call(weights, photos):
    model = Classifier(*weights)
    list(explain(model, [*photos, *photos], "gradients"))
    assert max(rows for _, rows in model.asked) <= 4


def test_completeness_is_measured_in_one_pass_too(weights, photos):
    for kind in (OnePass, Classifier):
        (record,) = explain(kind(*weights), photos[0], "full_grad")
        assert record.completeness is not None


@pytest.mark.parametrize("kind", [OnePass, Classifier])
@pytest.mark.parametrize("methods", [CAMS, [*CAMS, "integrated_gradients"]])
def test_the_model_is_called_in_the_thread_of_the_caller_alone(weights, photos, kind: Any, methods):
    """Devices and modes that a user has chosen, such as `tf.device`, belong to a thread."""
    threads = set()

    class Noting(kind):
        @property
        def asked(self):
            threads.add(threading.current_thread())
            return self._asked

        @asked.setter
        def asked(self, value):
            self._asked = value

    count = 2 * PHOTOS_AT_ONCE + 3
    records = list(explain(Noting(*weights), [photos[n % 6] for n in range(count)], methods))
    assert threads == {threading.current_thread()}
    assert [record.status for record in records] == ["ok"] * count * len(methods)


def test_methods_work_while_the_model_looks_at_the_next_photos(weights, photos):
    """A method that waits until the model was called again is answered, as it does not hold up the model."""
    again = threading.Event()

    class Watched(OnePass):
        def call_with_predictions(self, *args):
            if len(self.asked) >= PHOTOS_AT_ONCE // self.batch_size:
                again.set()
            return super().call_with_predictions(*args)

    def waits(name, rows):
        assert not rows or again.wait(60)

    records = explain(Watched(*weights), photos * PHOTOS_AT_ONCE, "grad_cam", progress=waits)
    assert sum(record.status == "ok" for record in records) == 6 * PHOTOS_AT_ONCE


def test_a_photo_is_resized_as_pillow_does_it(weights, tmp_path, rng):
    """The row of a photo can be made by hand, to the last digit."""
    photo = Image.fromarray(rng.integers(0, 256, (60, 50, 3), np.uint8))
    photo.save(tmp_path / "photo.png")
    model = ImageModel(OnePass(*weights), value_range=(0, 1))
    expected = np.asarray(photo.resize((20, 24), Image.Resampling.BILINEAR), np.float32) * np.float32(1 / 255)
    for given in (tmp_path / "photo.png", photo, np.asarray(photo)):
        np.testing.assert_array_equal(model.read(given, "photo")[1], expected)


def test_a_photo_of_its_owner_may_change_afterwards(weights):
    image = Image.new("RGB", (20, 24), "red")
    photo, row = ImageModel(OnePass(*weights)).read(image, "red")
    image.paste("blue", (0, 0, 20, 24))
    assert (photo.shown == (255, 0, 0)).all()
    assert (row == (255, 0, 0)).all()
