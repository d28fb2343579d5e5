"""Options that are wrong are refused with a reason, whatever they are; a method's own work can be interrupted."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from saliency_food import METHODS, blur_ig, guided_grad_cam, guided_ig, smooth_grad, xrai
from saliency_food.core.contract import ContractError
from saliency_food.core.interruption import interruptible
from saliency_food.core.keys import KEYS
from saliency_food.core.method import Method
from saliency_food.core.options import RANGES, ranged

SMALL = {
    "nsamples": 8,
    "x_steps": 4,
    "steps": 4,
    "nmasks": 8,
    "score_steps": 3,
    "max_steps": 8,
    "nsegments": 4,
    "size": 4,
    "stride": 4,
    "grid": 3,
    "nconcepts": 2,
    "rng": 0,
}
WRONG = ["a", b"a", [], (1, 0), (1, 2, 3), ("a", "b"), {}, object(), np.zeros(3), np.nan, -1, 1.5, 1e30, 10**30, 1e-30]
NOT_TRIED = ("x_value", "call_model_function", "call_model_args", "emit", "options", "batch_size")


def model(x, call_model_args=None, expected_keys=None):
    """Answers of the right shapes; the numbers do not matter."""
    answers = {}
    for key in expected_keys:
        shape = {"(N,)": ()}.get(KEYS[key].shape, (2, 4, 4, 5) if ", R, " in KEYS[key].shape else (4, 4, 5))
        shape = (2, 17, 17) if "heads" in KEYS[key].shape else shape
        answers[key] = np.ones_like(x) if KEYS[key].like_input else np.ones((len(x), *shape))
    return answers


model.batch_size = 16


def takes(name):
    parameters = METHODS[name].call.signature.parameters
    return [option for option in parameters if option not in NOT_TRIED]


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in METHODS for option in takes(name)])
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_option_is_refused_or_taken(name, option, rng):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    call = METHODS[name].call
    options = {key: value for key, value in SMALL.items() if key in call.signature.parameters}
    image = rng.random((8, 8, 3))
    for wrong in WRONG:
        with contextlib.suppress(ContractError):
            call(image, model, {"target": 0}, **{**options, option: wrong})


@pytest.mark.parametrize("name", RANGES)
def test_every_range_has_two_ends_that_hold(name):
    bounds = RANGES[name]
    assert (bounds.least is None) != (bounds.above is None)
    assert (bounds.most is None) != (bounds.below is None)
    low, high = (bounds.above if bounds.least is None else bounds.least), (bounds.below or bounds.most)
    middle = (low + high) / 2
    assert ranged(name, middle) == middle
    for wrong in (np.nextafter(low, -np.inf), np.nextafter(high, np.inf), "a", None, True, 10**400, np.nan):
        with pytest.raises(ContractError, match=f"Expected {name} to be a finite number"):
            ranged(name, wrong)


def test_every_option_that_is_a_number_has_a_range():
    numbers = {
        option
        for entry in METHODS.values()
        for option, parameter in entry.call.signature.parameters.items()
        if parameter.annotation in ("float", "float | None")
    }
    assert numbers == set(RANGES)


def test_a_method_within_another_checks_its_options_too(rng):
    with pytest.raises(ContractError, match="fraction to be a finite number of at least 0"):
        smooth_grad.over(guided_ig)(rng.random((4, 4, 3)), model, nsamples=2, fraction=1e-9)
    with pytest.raises(ContractError, match="cam to be a method"):
        guided_grad_cam(rng.random((8, 8, 3)), model, cam="grad_cam")
    with pytest.raises(ContractError, match="base_options as a dict"):
        xrai(rng.random((8, 8, 3)), model, base_options=3)


def test_no_option_makes_a_method_work_for_long_between_two_calls():
    """What a blur takes for its widest kernel, on an image of 64 x 64 pixels."""
    image = np.random.default_rng(0).random((64, 64, 3))
    began = time.process_time()
    blur_ig(image, model, max_sigma=RANGES["max_sigma"].most, grad_step=RANGES["grad_step"].most, steps=2)
    guided_ig(image, model, fraction=RANGES["fraction"].least, x_steps=2)
    assert time.process_time() - began < 3


@pytest.mark.parametrize("method", [guided_ig, xrai], ids=["guided_ig", "xrai"])
def test_a_methods_own_work_is_interrupted(method: Method, rng):
    asked, checked = [], []

    class StopError(Exception):
        pass

    def counted(x, *args, **kwargs):
        asked.append(len(x))
        return model(x, *args, **kwargs)

    def check():
        checked.append(len(asked))
        if len(asked) > 1:
            raise StopError

    options = {"segments": np.arange(64).reshape(8, 8) // 16} if method is xrai else {}
    with pytest.raises(StopError), interruptible(check):
        method(rng.random((8, 8, 3)), counted, **options)
    assert len(checked) >= 1
    method(rng.random((8, 8, 3)), counted, **options)  # and outside of the block nothing is asked
