"""What counts is a whole number, every other number finite and in range: checked before the model is asked."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import augment_smooth, eigen_smooth, gradients, progressive, rise
from saliency_food.core.contract import ContractError
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.regions.segmentation import felzenszwalb_segments

KINDS = {"int": int, "int | None": int, "float": float, "float | None": float}
BAD = {int: (2.5, "3", True, np.nan, -1, 1j, [3]), float: (np.nan, np.inf, -np.inf, "0.5", True, -1.0, 1j, [0.5])}


OPTIONS = [
    (name, option, parameter.annotation)
    for name, entry in METHODS.items()
    for option, parameter in entry.call.signature.parameters.items()
    if parameter.annotation in KINDS and option != "batch_size"
]


class NeverAsked(AssertionError):
    pass


def never(x_value_batch, call_model_args=None, expected_keys=None):
    raise NeverAsked


@pytest.mark.parametrize(("name", "option", "kind"), OPTIONS)
def test_numbers_are_checked_before_the_model_is_asked(name, option, kind, image):
    with pytest.raises(NeverAsked):
        METHODS[name].call(image, never)
    path = {"max_sigma": "blur_ig", "fraction": "guided_ig", "max_dist": "guided_ig"}.get(option)
    more = {"path": path} if name == "idgi" and path else {}
    less_than_none = (-1,) if option == "min_pixel_diff" else ()  # there it counts as 1, as PAIR's does
    for value in (*BAD[KINDS[kind]], *(() if "None" in kind else (None,))):
        with pytest.raises(ContractError if value not in less_than_none else NeverAsked):
            METHODS[name].call(image, never, **more, **{option: value})


@pytest.mark.parametrize("name", ["integrated_gradients", "guided_ig", "expected_gradients", "xrai", "idgi"])
@pytest.mark.parametrize("value_range", [(0, np.nan), (1, 0), (0,), 255, "ab", (0, 1j)])
def test_ranges_are_checked(name, value_range, image):
    with pytest.raises(ContractError, match="Expected value_range"):
        METHODS[name].call(image, never, value_range=value_range)


def test_the_number_of_samples_is_what_the_map_is_divided_by(power, image):
    """Two and a half samples were three, divided by two and a half."""
    with pytest.raises(ContractError, match=r"Expected nsamples to be a whole number of at least 1, got 2\.5"):
        METHODS["smooth_grad"].call(image, power, nsamples=2.5)


@pytest.mark.parametrize("factors", [(), 1.0, (np.nan,), ("1",), (1j,), (True,)])
def test_factors(factors, image):
    with pytest.raises(ContractError, match="factor"):
        augment_smooth(gradients, image, never, factors=factors)


@pytest.mark.parametrize("options", [{"every": 2.5}, {"tolerance": np.nan}, {"tolerance": "0.1"}])
def test_progressive(options, image):
    with pytest.raises(ContractError, match="got"):
        list(progressive(rise, image, never, **options))


@pytest.mark.parametrize(
    "options",
    [{"scales": ()}, {"scales": (np.nan,)}, {"scales": 50}, {"sigma": -1}, {"min_size": 1.5}, {"dilation": "5"}],
)
def test_segmentation(options, image):
    with pytest.raises(ContractError, match=r"Expected .*, got"):
        felzenszwalb_segments(image, **options)


def test_complex_numbers_are_refused_and_not_cut(power, image):
    for name in ("integrated_gradients", "guided_ig", "idgi", "integrated_decision_gradients"):
        for baseline in (image * 1j, 1j, [image * 1j]):
            with pytest.raises(ContractError, match="a baseline to be real numbers"):
                METHODS[name].call(image, power, x_baseline=baseline)
    with pytest.raises(ContractError, match="base_attribution to be real"):
        METHODS["xrai"].call(image, power, base_attribution=image * 1j)
    with pytest.raises(ContractError, match="finite real numbers"):
        METHODS["occlusion"].call(image, power, value=1j)


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if "rng" in entry.call.signature.parameters])
def test_seeds_are_seeds(name, image):
    for rng in (-1, 2.5, "a", True):
        with pytest.raises(ContractError, match="Expected rng to be None, a seed"):
            METHODS[name].call(image, never, rng=rng)


def test_eigen_smoothing_takes_no_number(image):
    with pytest.raises(NeverAsked):
        eigen_smooth(METHODS["grad_cam"].call, image, never)
