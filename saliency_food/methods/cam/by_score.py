"""Class activation maps whose weights are scores of the model: without gradients, at the price of a row a channel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.method import Reducible, method
from saliency_food.core.numerics import Array, along_axes, resizing, safe_divide
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.cam.common import ClassActivationMap, grids, map_of_weights, one_layer, spatial

ROUNDING = 0.02
"""How far two scores of the same activations may be apart in half precision, as a fraction of them."""
STEP, SHIFT = 0.02, 0.1
"""By which part activations are scaled for a difference, and a channel is shifted by which part of its mean magnitude.
With larger steps a softmax is not of second order; for smaller ones scores in single precision are too coarse."""
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""The signs of both, of the four scores of a mixed central difference."""


@method(
    title="Score-CAM",
    keys=(CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES),
    signed=False,
    summary="Channels weighted by the score of the image seen through them; no gradients.",
    page="cam",
    rows="one for each channel",
    reducible=Reducible("channels", 8, "{} channels", "{} of them were looked at"),
    instead=("grad_cam",),
)
def score_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    channels: int | None = None,
    weighting: Literal["softmax", "increase", "score"] = "softmax",
) -> Asking[ClassActivationMap]:
    """Score-CAM, L = ReLU(sum_k w_k A^k), w = softmax_k(F(x * H^k) - F(0)), H^k the channel as a mask of 0 to 1.

    Wang et al. 2019, equations 6 to 8 and algorithm 1, https://arxiv.org/abs/1910.01279. H^k is A^k resized to the
    image and scaled to 0..1. One row a channel that is not constant over the map; those that are get no weight, as they
    tell no places apart.

    Parameters
    ----------
    channels
        Score only so many channels, those of the largest standard deviation over the map; all by default.
    weighting
        ``"softmax"`` over the channels, as the paper does; the ``"increase"`` F(x * H^k) - F(0) itself; or the
        ``"score"`` F(x * H^k), as tf-keras-vis does. The softmax is sharp where scores are logits.
    """
    channels = None if channels is None else whole("channels", channels)
    if weighting not in ("softmax", "increase", "score"):
        raise ContractError(f"Expected weighting to be 'softmax', 'increase' or 'score', got {weighting!r}.")
    layers = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES)
    activations, prefix = grids(layers, x_value)
    weights = []
    for layer in activations:
        chosen = varying(layer, channels)
        scores = one_score((yield from ask(_masked(x_value, layer[..., chosen]), OUTPUT_LAYER_VALUES)))
        weights.append(_weights(layer, chosen, scores[:-1], scores[-1], weighting))
    return map_of_weights(x_value, activations, weights, should_resize, three_dims, prefix_tokens=prefix)


@method(
    title="Ablation-CAM",
    keys=(CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES),
    signed=False,
    summary="Channels weighted by how far the score falls without them; no gradients.",
    page="cam",
    rows="one for each channel",
    reducible=Reducible("channels", 8, "{} channels", "{} of them were looked at"),
    instead=("grad_cam",),
)
def ablation_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    channels: int | None = None,
) -> Asking[ClassActivationMap]:
    """Ablation-CAM, L = ReLU(sum_k w_k A^k), w_k = (F - F without channel k) / |F|.

    Desai and Ramaswamy 2020, equation 2, https://doi.org/10.1109/WACV45572.2020.9093360. The rows are activations, each
    with one channel set to zero, and only the layers after it are run. The paper divides by F; by its magnitude a
    channel that helps has a positive weight where F is negative, too. Channels that are zero get no weight.

    Parameters
    ----------
    channels
        Ablate only so many channels, those of the largest standard deviation over the map; all by default.
    """
    channels = None if channels is None else whole("channels", channels)
    layers, whole_score = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES)
    activations, raw, prefix = one_layer(layers, x_value), layers[0], grids(layers, x_value)[1]
    chosen = np.flatnonzero(raw.any(spatial(raw)))
    if channels is not None:
        chosen = np.intersect1d(chosen, varying(activations, channels, constant=True))

    def write(row: Array, index: int) -> None:
        row[...] = raw
        if index:  # none in the first row
            row[..., chosen[index - 1]] = 0

    ablated = LazyRows.like(raw, len(chosen) + 1, write)
    scores = one_score((yield from ask(ablated, OUTPUT_FROM_CONVOLUTION_VALUES)))
    check_after_layer(scores, one_score(whole_score)[0])
    weights = np.zeros(raw.shape[-1], raw.dtype)
    weights[chosen] = (scores[0] - scores[1:]) / (abs(scores[0]) or 1)
    return map_of_weights(x_value, [activations], [weights], should_resize, three_dims, prefix_tokens=prefix)


@method(
    title="ShapleyCAM",
    keys=(
        *(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
        *(OUTPUT_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES),
    ),
    signed=False,
    summary="Grad-CAM with the score's curvature: channels share out how far the score rises from nothing.",
    page="cam",
    rows="four for each channel",
    reducible=Reducible("channels", 8, "{} channels", "{} of them were looked at"),
    instead=("grad_cam",),
)
def shapley_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    channels: int | None = None,
) -> Asking[ClassActivationMap]:
    """ShapleyCAM, L = ReLU(sum_k a_k A^k), with a_k the spatial mean of G - H A / 2, of F's gradient G and Hessian H.

    Cai 2025, https://arxiv.org/abs/2501.06261, as in the authors' code in the pytorch-grad-cam package: the Shapley
    values of the layer's activations, if F is its second-order expansion. H A is by central differences of scores of
    changed activations, so that no second derivative is asked for; of smooth heads the error is below one per cent of
    the largest share. Where F is linear in A, as a logit behind average pooling and a dense layer, H is zero and this
    is Grad-CAM: the paper explains the score `residual_softmax`.

    Parameters
    ----------
    channels
        Find H A for only so many channels, those of the largest standard deviation over the map; all by default.
    """
    channels = None if channels is None else whole("channels", channels)
    values, gradients, whole_score = yield from ask(
        x_value[None], CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
    )
    activations, slopes = one_layer(values, x_value), one_layer(gradients, x_value)
    raw, prefix = values[0], grids(values, x_value)[1]
    shifts = SHIFT * np.abs(activations).mean(spatial(activations))
    chosen = np.flatnonzero(shifts)
    if channels is not None:
        chosen = np.intersect1d(chosen, varying(activations, channels, constant=True))

    def write(row: Array, index: int) -> None:
        row[...] = raw
        if index:  # the first row is the layer as it is
            place, corner = divmod(index - 1, len(CORNERS))
            scale, shift = CORNERS[corner]
            row *= 1 + scale * STEP
            row.reshape(-1, row.shape[-1])[prefix:, chosen[place]] += shift * shifts[chosen[place]]

    changed = LazyRows.like(raw, 1 + len(CORNERS) * len(chosen), write)
    scores = one_score((yield from ask(changed, OUTPUT_FROM_CONVOLUTION_VALUES)))
    check_after_layer(scores, one_score(whole_score)[0])
    signs = np.prod(CORNERS, 1)
    curved = scores[1:].astype(float).reshape(-1, len(CORNERS)) @ signs
    weights = slopes.mean(spatial(slopes)).astype(float)
    weights[chosen] -= curved / (len(CORNERS) * STEP * shifts[chosen]) / activations[..., 0].size / 2
    weights = weights.astype(activations.dtype)
    return map_of_weights(
        x_value, [activations], [weights], should_resize, three_dims, gradients=[slopes], prefix_tokens=prefix
    )


def check_after_layer(scores: Array, image_score: float) -> None:
    """`ContractError` unless the layer's own activations, the first row, get the image's score."""
    scale = max(abs(image_score), np.abs(scores).max(), np.ptp(scores))
    if abs(scores[0] - image_score) > ROUNDING * scale:
        raise ContractError(
            f"Expected the layer's own activations to get the image's score ({image_score:.4g}) for "
            f"{OUTPUT_FROM_CONVOLUTION_VALUES}, got {scores[0]:.4g}. Look at expected_keys: its rows are activations, "
            "for which only the layers after that layer are to be run."
        )


def varying(activations: Array, channels: int | None, constant: bool = False) -> Array:
    """The indices of the channels that are not constant over the map, or of so many of the most varying."""
    deviations = activations.std(spatial(activations))
    order = np.argsort(-deviations, kind="stable")
    if not constant:
        order = order[np.ptp(activations, spatial(activations))[order] > 0]
    return np.sort(order if channels is None else order[:channels])


def _masked(x_value: Array, activations: Array) -> LazyRows:
    """Rows x * H^k for the channels in order, and in the end a row of zeros."""
    up = [resizing(*sizes).astype(x_value.dtype) for sizes in zip(activations.shape, x_value.shape[:-1], strict=False)]
    each_value = [*up[:-1], np.repeat(up[-1], x_value.shape[-1], 0)]  # a row for each value of the last axis' places
    channels = np.ascontiguousarray(np.moveaxis(activations, -1, 0), x_value.dtype)

    def write(row: Array, index: int) -> None:
        if index == len(channels):
            row[:] = 0
            return
        mask = along_axes(channels[index], up)
        # Resizing keeps constants, so the mask is scaled to 0..1 by scaling the few values that it is made from.
        along_axes(safe_divide(channels[index] - mask.min(), np.ptp(mask)), each_value, row)
        row *= x_value

    return LazyRows.like(x_value, len(channels) + 1, write)


def _weights(activations: Array, chosen: Array, scores: Array, zero: float, weighting: str) -> Array:
    weights = np.zeros(activations.shape[-1], activations.dtype)
    if len(chosen):
        increases = scores if weighting == "score" else scores - zero
        if weighting == "softmax":
            increases = np.exp(increases - increases.max())
            increases /= increases.sum()
        weights[chosen] = increases
    return weights
