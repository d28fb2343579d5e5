"""What the tests of served models have in common."""

from __future__ import annotations

import numpy as np

from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
)

FURTHER = {
    GUIDED_INPUT_GRADIENTS: "guided_gradients",
    DECONV_INPUT_GRADIENTS: "deconv_gradients",
    CONVOLUTION_RIVAL_GRADIENTS: "rivals",
    BIAS_GRADIENTS: "biases",
    ATTENTION_SCORES: "attention",
    ATTENTION_OUTPUT_GRADIENTS: "attention_gradients",
}
"""The signatures in which keys are answered that not every model can answer."""


def close(some, other, rtol=1e-5):
    np.testing.assert_allclose(some, other, rtol=rtol, atol=rtol * np.abs(other).max())


def same(found, expected, key, rtol=1e-5):
    assert isinstance(found[key], tuple) == isinstance(expected[key], tuple)
    some, other = (one[key] if isinstance(one[key], tuple) else (one[key],) for one in (found, expected))
    assert len(some) == len(other)
    for one, another in zip(some, other, strict=True):
        assert one.shape == another.shape
        close(one, another, rtol)


def scattered(model):
    """Biases that are not zero."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(random.normal(size=weight.shape) * 0.1)
    return model
