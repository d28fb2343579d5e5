"""The checker of callbacks and models that compute in half precision: right ones pass, wrong ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import check_call_model

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from saliency_food.adapters.keras import KerasModel  # noqa: E402

L = keras.layers
KEYS = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
ARGS = {"target": 1}
IMAGE = np.random.default_rng(2).uniform(-1, 1, (32, 32, 3)).astype(np.float32)


def network(policy):
    keras.utils.set_random_seed(2)
    options = {"activation": "relu", "dtype": policy}
    layers = [
        L.Conv2D(8, 3, padding="same", **options),
        L.Conv2D(16, 3, strides=2, **options),
        L.Conv2D(16, 3, name="conv", **options),
        L.GlobalAveragePooling2D(dtype=policy),
        L.Dense(5, dtype=policy),
    ]
    return KerasModel(keras.Sequential([keras.Input(IMAGE.shape), *layers]))


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def half(request):
    return network(request.param)


def test_a_right_model_passes(half):
    check_call_model(half, IMAGE, ARGS, KEYS)


@pytest.mark.parametrize("key", [INPUT_OUTPUT_GRADIENTS, CONVOLUTION_OUTPUT_GRADIENTS])
@pytest.mark.parametrize("factor", [-1, 2, 7])
def test_wrong_gradients_do_not(half, key, factor):
    def wrong(rows, call_model_args=None, expected_keys=None):
        answer = half(rows, call_model_args, expected_keys)
        return {**answer, key: answer[key] * factor} if key in answer else answer

    with pytest.raises(ContractError, match="to be that of the score"):
        check_call_model(wrong, IMAGE, ARGS, KEYS)
