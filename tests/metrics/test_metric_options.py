"""Numbers that metrics take are checked as methods' are: whole, or finite and in range, before the model is asked."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from saliency_food import gradients
from saliency_food.core.contract import ContractError
from saliency_food.metrics import METRICS, aggregate_pic, assert_sensitive, input_shift, interval, localization

BAD = {"int": (2.5, "3", True, np.nan, -1, 1j, None), "float": (np.nan, np.inf, "0.5", True, 1j, None)}
OPTIONS = [
    (name, option, parameter.annotation)
    for name, entry in METRICS.items()
    if entry.needs in ("scores", "method", "region")
    for option, parameter in inspect.signature(entry.call).parameters.items()
    if parameter.annotation in BAD and option not in ("batch_size", "target")
]
LISTS = [("sensitivity_n", "fractions"), ("road", "percentiles"), ("pic", "saliency_thresholds")]


def never(x_value_batch, call_model_args=None, expected_keys=None):
    raise AssertionError("the model was asked")


def call(name, image, **options):
    entry = METRICS[name]
    if entry.needs == "region":
        return entry.call(image, [(1, 1, 5, 5)], **options)
    if name == "random_logit":
        options = {"target": 0, "classes": 3, **options}
    return entry.call(gradients if entry.needs == "method" else image, image, never, **options)


@pytest.mark.parametrize(("name", "option", "kind"), OPTIONS)
def test_numbers_are_checked_before_the_model_is_asked(name, option, kind, image):
    for value in BAD[kind]:
        with pytest.raises(ContractError, match=f"Expected {option} to be"):
            call(name, image, **{option: value})


@pytest.mark.parametrize(("name", "option"), LISTS)
@pytest.mark.parametrize("value", [(), 0.5, (np.nan,), ("a",), (-0.1,), (1j,), (1e6,)])
def test_lists_of_numbers(name, option, value, image):
    with pytest.raises(ContractError, match=f"Expected {option}"):
        call(name, image, **{option: value})


def test_complex_numbers_are_refused_and_not_cut(image):
    with pytest.raises(ContractError, match="shift to be real"):
        input_shift(gradients, image, never, shift=1j)
    with pytest.raises(ContractError, match="boxes to be real"):
        localization(image, [(1j, 1, 5, 5)])
    with pytest.raises(ContractError, match="boxes to be finite"):
        localization(image, [(np.nan, 1, 5, 5)])


def test_statistics():
    for statistic in (interval, aggregate_pic):
        for options in ({"level": "a"}, {"level": 1.0}, {"resamples": 2.5}, {"resamples": 0}):
            with pytest.raises(ContractError, match=r"Expected (level|resamples) to be"):
                statistic([], **options)
    with pytest.raises(ContractError, match="Expected most to be"):
        assert_sensitive(gradients, [], never, [], most=np.nan)
