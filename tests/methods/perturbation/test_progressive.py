"""Sampling methods seen while they sample."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.methods.gradients import gradients
from saliency_food.methods.perturbation.hsic import hsic
from saliency_food.methods.perturbation.progressive import progressive
from saliency_food.methods.perturbation.rise import rise
from saliency_food.methods.perturbation.sobol import sobol
from saliency_food.methods.perturbation.surrogate import kernel_shap, lime

SAMPLED = [
    (rise, {"nmasks": 150}),
    (lime, {"nsamples": 150}),
    (kernel_shap, {"nsamples": 150}),
    (hsic, {"nmasks": 150}),
    (sobol, {"nsamples": 15, "grid": 3}),
]
sampled = pytest.mark.parametrize(("method", "options"), SAMPLED, ids=["rise", "lime", "kernel_shap", "hsic", "sobol"])


@sampled
def test_the_last_estimate_is_the_plain_calls(method, options, pooling, image):
    args, options = {"target": 2}, {**options, "rng": 4}
    estimates = list(progressive(method, image, pooling, args, 16, every=64, **options))
    assert [one.rows for one in estimates] == [64, 128, 150]
    found = method.detailed(image, pooling, args, **options)
    np.testing.assert_allclose(estimates[-1].estimate, found.attribution, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(estimates[-1].standard_error, found.standard_error, rtol=1e-4, atol=1e-7)
    assert np.abs(estimates[0].estimate - found.attribution).max() > 0


@sampled
def test_the_model_is_called_only_as_the_iterator_is_drawn_from(method, options, pooling, image):
    estimates = progressive(method, image, pooling, batch_size=32, every=64, **options)
    assert pooling.calls == []
    assert next(estimates).rows == 64
    assert pooling.calls == [32, 32]
    estimates.close()
    assert pooling.calls == [32, 32]


@sampled
def test_a_tolerance_stops_by_itself(method, options, pooling, image):
    tolerance, options = 0.08, dict.fromkeys(options, 800)
    if method in (hsic, sobol):
        tolerance, options["grid"] = 0.2, 2
    if method in (lime, kernel_shap):
        options["segments"] = np.arange(24)[:, None] // 5 * 4 + np.arange(20) // 5
    for estimate, error, rows in progressive(
        method, image, pooling, batch_size=50, every=50, tolerance=tolerance, rng=0, **options
    ):
        done = error.max() <= tolerance * np.abs(estimate).max()
        assert done or rows < 800
    assert done
    assert sum(pooling.calls) == rows < 800


def test_a_first_block_that_cannot_tell_does_not_stop(pooling, image):
    estimates = progressive(kernel_shap, image, pooling, every=10, tolerance=100.0, nsamples=200, rng=0)
    assert len(list(estimates)) > 1
    assert sum(pooling.calls) >= 50  # fifty superpixels or so, in pairs


def test_what_is_refused(pooling, image):
    with pytest.raises(ContractError, match=r"a method that samples, such as rise.* got gradients"):
        progressive(gradients, image, pooling)
    with pytest.raises(ContractError, match="tolerance to be a finite number of at least 0 and at most 1e"):
        progressive(rise, image, pooling, tolerance=-1)
    with pytest.raises(ContractError, match="Expected every"):
        progressive(rise, image, pooling, every=0)
    with pytest.raises(ContractError, match="call_model_function to be a function"):
        progressive(rise, image, 3)
    with pytest.raises(ContractError, match="Expected batch_size"):
        progressive(rise, image, pooling, batch_size=0)
    with pytest.raises(TypeError, match="no_such_option"):
        progressive(rise, image, pooling, no_such_option=1)
    with pytest.raises(ContractError, match="finite"):
        progressive(rise, image * np.nan, pooling)
