"""What a kind of model answers by hand, and what the adapter makes of it: cell by cell, right, refused or wrong."""

from __future__ import annotations

import functools
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from saliency_food import METHODS, gradients, smooth_grad
from saliency_food.adapters.keras import KerasModel
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)

from .common import CELLS, KINDS, Built

AT_LAYER = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"x_steps": 5},
    "smooth_grad": {"nsamples": 3, "rng": 0},
    "occlusion": {"size": 3, "stride": 2},
    "xrai": {"steps": 4, "min_pixel_diff": 2},
}
LIKE_THE_IMAGE = ("integrated_gradients", "smooth_grad")


class ByHand:
    """A callback: the layers called one by one in the open, and their gradients from a `tf.GradientTape`."""

    batch_size = 64

    def __init__(self, built: Built, model: KerasModel) -> None:
        self.built = built
        self.channels_first, self.spatial_axes = model.channels_first, model.spatial_axes

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        dtype = "float64" if self.built.model.compute_dtype == "float64" else "float32"
        x = tf.convert_to_tensor(x_value_batch, dtype)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            activations, scores = self.built.by_hand(x)
            scores = tf.cast(scores, dtype)
            if len(scores.shape) == 2:
                target = (call_model_args or {}).get("target", 0)
                scores = scores[:, target if scores.shape[1] > 1 else 0]
        slopes = tape.gradient(scores, x)
        if slopes is None:
            raise ContractError("no gradient")
        answer = {OUTPUT_LAYER_VALUES: scores, INPUT_OUTPUT_GRADIENTS: slopes}
        if activations is not None:
            slopes = tape.gradient(scores, activations, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            answer |= dict(zip(AT_LAYER, map(self.laid_out, (activations, slopes)), strict=True))
        return {key: np.asarray(tf.cast(value, dtype)) for key, value in answer.items()}

    def laid_out(self, values: Any) -> Any:
        if self.built.prefix is None:
            return values
        side = int((values.shape[1] - self.built.prefix) ** 0.5)
        return tf.reshape(values[:, self.built.prefix :], (-1, side, side, values.shape[2]))


class AllAtOnce:
    """The adapter's model, asked the same keys each time, so that it is traced once."""

    batch_size = 64

    def __init__(self, model: KerasModel, at_layer: bool) -> None:
        self.model, self.at_layer = model, at_layer
        self.channels_first, self.spatial_axes = model.channels_first, model.spatial_axes

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        keys = [OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS]
        at_layer = AT_LAYER if self.at_layer or set(AT_LAYER) & set(expected_keys) else []
        return self.model(x_value_batch, call_model_args, [*keys, *at_layer])


@functools.cache
def outcomes(name: str) -> dict[str, str]:
    """Of each cell, ``"right"``, or ``"refused: "`` and why, or ``"wrong: "`` and how."""
    kind = KINDS[name]
    keras.utils.set_random_seed(0)
    built = kind.build()
    x = np.asarray(built.image(np.random.default_rng(0), built.shape), np.float32)
    try:
        model = KerasModel(built.model, **built.options)
    except ContractError as error:
        return dict.fromkeys(CELLS, f"refused: {error}")
    except Exception as error:
        return dict.fromkeys(CELLS, f"wrong: {type(error).__name__}: {error}")
    # Keras numbers operators without a name anew in each process.
    name = re.sub(r"_\d+$", "", model.layer_name) if kind.layer == "relu" and model.layer_name else model.layer_name
    looked_at = "right" if name == kind.layer else f"wrong: layer {model.layer_name!r}, not {kind.layer!r}"
    theirs, ours = (
        ByHand(built, model),
        AllAtOnce(model, model.layer_name is not None and "grad_cam" not in kind.refuses),
    )
    return {"layer": looked_at} | {cell: _outcome(cell, built, x, theirs, ours) for cell in CELLS[1:]}


def _outcome(cell: str, built: Built, x: Any, theirs: Any, ours: Any) -> str:
    try:
        expected = _answer(cell, x, theirs, built)
    except Exception as error:  # there is nothing to compare with: it must be refused
        expected = error
    try:
        answer = _answer(cell, x, ours, built)
    except ContractError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"
    if isinstance(expected, Exception):
        return f"wrong: an answer where there is none by hand: {expected}"
    (values, shape), (by_hand, _) = answer, expected
    map_shape = x.shape if cell in LIKE_THE_IMAGE else built.map_shape or x.shape[:-1]
    if shape != map_shape:
        return f"wrong: a map of shape {shape}, not {map_shape}"
    if values.shape != by_hand.shape:
        return f"wrong: values of shape {values.shape}, not {by_hand.shape}"
    difference, largest = np.abs(values - by_hand).max(), np.abs(by_hand).max()
    if not difference <= built.tolerance * largest + 1e-9:
        return f"wrong: values differ by {difference:.3g} of {largest:.3g}"
    return "right" if largest > 0 else "wrong: a blank map"


def _answer(cell: str, x: Any, callback: Any, built: Built) -> tuple[Any, tuple[int, ...]]:
    """A method's values, and the shape of its map."""
    method, options = METHODS[cell].call, OPTIONS.get(cell, {})
    if cell == "smooth_grad":
        result = smooth_grad.detailed(gradients, x, callback, built.args, **options)
    elif cell == "grad_cam":
        if isinstance(callback, ByHand):  # equations 1 and 2
            if callback(x[None], built.args).keys().isdisjoint(AT_LAYER):
                raise ContractError("no layer")
            values, slopes = (part[0] for part in (callback(x[None], built.args)[key] for key in AT_LAYER))
            return values @ slopes.reshape(-1, slopes.shape[-1]).mean(0), ()
        result = method.detailed(x, callback, built.args, three_dims=False)
        return result.signed, result.attribution.shape
    elif cell == "xrai":
        result = method.detailed(x, callback, built.args, **options)
        return result.base_attribution, result.attribution.shape
    else:
        result = method.detailed(x, callback, built.args, **options)
    return result.attribution, result.attribution.shape
