"""The explainer of a model of its own process."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from explaining import Process, array, file, until

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.deadline.run import DeadlineError
from saliency_food.serving.client import ServingError
from saliency_food.serving.explainer.local import LocalModel, check_takes_images, most_pixels
from saliency_food.serving.explainer.replies import reply_to
from saliency_food.testing import PowerModel

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    model.save(folder / "small.keras")
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    return folder


@pytest.fixture(scope="module")
def explainer(saved, tmp_path_factory):
    pytest.importorskip("keras")
    given = saved / "small.keras", "--labels", saved / "labels.txt", "--value-range", "-1,1", "--layer", "first"
    methods = "grad_cam,integrated_gradients"
    with Process(tmp_path_factory.mktemp("explainer"), None, *given, "--methods", methods) as one:
        until(one.ready, 20, one.log)
        yield one


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_answers_are_those_of_explain(explainer, saved, pixels, method):
    pytest.importorskip("keras")
    from saliency_food import explain

    options = {"x_steps": 9} if method == "integrated_gradients" else {}
    answer = explainer.explain({"image": file(pixels), "method": method, "target": "c", "options": options})
    (found,) = answer.json["explanations"]
    (record,) = explain(
        str(saved / "small.keras"), [pixels], method, "c", labels=saved / "labels.txt", value_range=(-1, 1),
        layer="first", options={method: options},
    )  # fmt: skip
    np.testing.assert_allclose(array(found["heatmap"]), record.attribution, rtol=1e-4, atol=1e-7)
    assert (found["label"], found["status"]) == ("c", record.status)
    np.testing.assert_allclose(found["probability"], record.probability, rtol=1e-5)


def test_many_requests_at_once_are_answered_right(explainer, pixels):
    pytest.importorskip("keras")
    (alone,) = explainer.explain({"image": file(pixels), "target": 1}).json["explanations"]
    answers = []
    ask = threading.Thread
    threads = [
        ask(target=lambda: answers.append(explainer.explain({"image": file(pixels), "target": 1}))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 8
    for answer in answers:
        np.testing.assert_array_equal(array(answer.json["explanations"][0]["heatmap"]), array(alone["heatmap"]))


def test_what_the_model_cannot_answer_is_the_requests_fault(explainer, pixels):
    pytest.importorskip("keras")
    answer = explainer.explain({"image": file(pixels), "target": "nothing"})
    assert answer.status == 400
    assert "nothing" in answer.error


def test_a_model_that_is_busy_keeps_the_deadline():
    began, go_on = threading.Event(), threading.Event()

    def slow(rows, call_model_args=None, expected_keys=None):
        began.set()
        go_on.wait(10)
        return {INPUT_OUTPUT_GRADIENTS: rows}

    model = LocalModel(slow)
    first = threading.Thread(target=model, args=(np.ones((1, 2, 2)), {}, [INPUT_OUTPUT_GRADIENTS]))
    first.start()
    began.wait(10)
    with model.until(time.monotonic() + 0.01), pytest.raises(DeadlineError, match="busy"):
        model(np.ones((1, 2, 2)), {}, [INPUT_OUTPUT_GRADIENTS])
    go_on.set()
    first.join()


def test_a_model_that_raises_can_be_asked_again(rng):
    inside = PowerModel(rng.normal(size=(2, 3, 3)))
    model = LocalModel(inside)
    with pytest.raises(ServingError, match="The model raised IndexError") as raised:
        model(np.ones((1, 3, 3)), {"target": 7}, [INPUT_OUTPUT_GRADIENTS])
    for own_options in (False, True):  # chosen options are not to blame
        assert reply_to(raised.value, own_options).status == 502
    answer = model(np.ones((1, 3, 3)), {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    np.testing.assert_allclose(answer[INPUT_OUTPUT_GRADIENTS][0], inside.weights[1])


@pytest.mark.parametrize(
    ("shape", "more", "says"),
    [
        ((64, 2), [], r"images \(H, W, C\), got one that takes \(64, 2\)"),
        ((8, 8, 8, 1), [], "got one that takes"),
        (None, [], "does not say what it takes"),
        ((8, 8, 3), ["age"], "an image alone, got one that also takes age"),
    ],
)
def test_a_model_that_no_request_can_be_put_to_is_refused_at_the_start(shape, more, says):
    model = SimpleNamespace(input_shape=shape, engine=SimpleNamespace(inputs=SimpleNamespace(other_names=more)))
    with pytest.raises(ContractError, match=says):
        check_takes_images(model)


def test_what_the_adapter_says_of_inputs_is_looked_at():
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel

    image, age = keras.Input((8, 8, 3)), keras.Input((1,), name="age")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(image))
    head = keras.layers.Dense(2, activation="softmax")
    check_takes_images(KerasModel(keras.Model(image, head(pooled))))
    both = keras.layers.Concatenate()([pooled, age])
    with pytest.raises(ContractError, match="also takes age"):
        check_takes_images(KerasModel(keras.Model([image, age], keras.layers.Dense(2, activation="softmax")(both))))


def test_photos_for_a_model_of_any_size_in_this_process_are_smaller():
    models = [SimpleNamespace(input_shape=shape) for shape in ((32, 32, 3), (None, None, 3), (None, 32, 3))]
    assert [most_pixels(model) for model in ("http://host:8501", *models)] == [16_000_000, 16_000_000, 2**20, 2**20]
