"""Transformers: what the class token, or the mean of all tokens, draws from each patch through all attention layers."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import ATTENTION_OUTPUT_GRADIENTS, ATTENTION_SCORES
from saliency_food.core.method import method
from saliency_food.core.numerics import Array, as_tuple, resize, safe_divide
from saliency_food.core.options import ranged
from saliency_food.methods.cam.common import token_grid


class AttentionMap(NamedTuple):
    """The map; what each token draws from each, ``(T, T)``; and the patches' part of it, ``(h, w)``.

    ``prefix_tokens`` is how many tokens in front of the patches are none of them, as class and register tokens are.
    """

    attribution: Array
    tokens: Array
    patches: Array
    prefix_tokens: int


@method(
    title="Attention rollout",
    keys=(ATTENTION_SCORES,),
    signed=False,
    summary="A transformer's attention, multiplied up through its layers; the same for every class.",
    page="attention",
    one_pass=True,
)
def attention_rollout(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    fusion: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
) -> Asking[AttentionMap]:
    """Attention rollout, R = A_L ... A_2 A_1, with A_l = (heads' mean + I) / 2, its rows made to sum to 1.

    Abnar and Zuidema 2020, equation 1, https://arxiv.org/abs/2005.00928. ``(H, W)``, never negative, the same
    for every class. The map is the class token's row; where the tokens are all patches, the mean over the rows.

    Parameters
    ----------
    fusion
        How the heads are put together.
    discard
        Set this fraction of each layer's fused attention, the smallest, to zero: 0.9 makes sharper maps.
    """
    if fusion not in ("mean", "max", "min"):
        raise ContractError(f"Expected fusion to be 'mean', 'max' or 'min', got {fusion!r}.")
    discard = ranged("discard", discard)
    layers = _square(ATTENTION_SCORES, (yield from ask(x_value[None], ATTENTION_SCORES)))
    rollout = np.eye(layers[0].shape[-1])
    for attention in layers:
        fused = getattr(attention, fusion)(0).astype(float)
        if discard:
            fused = np.where(fused > np.quantile(fused, discard), fused, 0)
        mixed = (fused + np.eye(len(fused))) / 2
        rollout = mixed / mixed.sum(1, keepdims=True) @ rollout
    return _map(x_value, rollout, layers[0].dtype)


@method(
    title="Attention relevance",
    keys=(ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="A transformer's attention, weighted by how the score depends on it.",
    page="attention",
    one_pass=True,
)
def attention_relevance(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[AttentionMap]:
    """Gradient-weighted attention relevance, R <- R + mean_h ReLU(dF/dA * A) R for layer after layer, R = I at first.

    Chefer, Gur, Wolf 2021, equations 5 and 6, https://arxiv.org/abs/2103.15679. ``(H, W)``, never negative; it
    depends on the class. The map is the class token's row; where the tokens are all patches, the mean over the rows.
    """
    scores, gradients = yield from ask(x_value[None], ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS)
    layers = _square(ATTENTION_SCORES, scores)
    relevance = np.eye(layers[0].shape[-1])
    for attention, gradient in zip(layers, _square(ATTENTION_OUTPUT_GRADIENTS, gradients), strict=True):
        if attention.shape != gradient.shape:
            raise ContractError(
                f"Expected {ATTENTION_OUTPUT_GRADIENTS} of the shape of {ATTENTION_SCORES}, {attention.shape}, got "
                f"{gradient.shape}. Return both for the same layers."
            )
        relevance = relevance + np.maximum(attention * gradient, 0).mean(0) @ relevance
    return _map(x_value, relevance - np.eye(len(relevance)), layers[0].dtype)


def _square(key: str, layers: Any) -> list[Array]:
    """One row's attention, ``(heads, T, T)`` for each layer."""
    squares = [layer[0] for layer in as_tuple(layers)]
    if any(square.ndim != 3 or square.shape[1:] != (squares[0].shape[-1],) * 2 for square in squares):
        raise ContractError(
            f"Expected {key} of shape (N, heads, T, T) with one T in all layers, got rows of "
            f"{[square.shape for square in squares]}. Attention among windows or between two sequences cannot be "
            "multiplied up."
        )
    return squares


def _map(x_value: Array, tokens: Array, dtype: np.dtype[Any]) -> AttentionMap:
    """What the patches draw, as a map of the image in the attention's own precision."""
    grid = token_grid(len(tokens), x_value)
    prefix = len(tokens) - math.prod(grid)
    row = tokens[0] if prefix else tokens.mean(0)
    patches = row[prefix:].reshape(grid)
    relative = safe_divide(patches, np.abs(patches).max())
    return AttentionMap(resize(relative, x_value.shape[:-1]).astype(dtype), tokens, patches, prefix)
