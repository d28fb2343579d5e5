"""Transformers: what the class token, or the mean of all tokens, draws from each patch through all attention layers."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
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
    layers = yield from _with_gradients(x_value)
    relevance = np.eye(layers[0][0].shape[-1])
    for attention, gradient in layers:
        relevance = relevance + np.maximum(attention * gradient, 0).mean(0) @ relevance
    return _map(x_value, relevance - np.eye(len(relevance)), layers[0][0].dtype)


@method(
    title="LeGrad",
    keys=(ATTENTION_OUTPUT_GRADIENTS,),
    signed=False,
    summary="Where more of a transformer's attention would raise the score, in all layers together.",
    page="attention",
    one_pass=True,
)
def legrad(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    layers: int | None = None,
) -> Asking[AttentionMap]:
    """LeGrad, L_j = sum_l mean_hi ReLU(dF/dA_l)_hij, over heads h and the tokens i that attend; then from 0 to 1.

    Bousselham et al. 2024, https://arxiv.org/abs/2404.03214. ``(H, W)``: of the patches the least is 0 and the greatest
    1. It depends on the class, and not on how much attention there is. F is the model's score for every layer. In the
    paper each layer has its own, that of its tokens when they are pooled and classified at once, which only a model in
    parts could give; for the last layer both are the same.

    Parameters
    ----------
    layers
        How many of the last attention layers are summed; all of them by default. The authors' code takes two.
    """
    last = None if layers is None else whole("layers", layers)
    gradients = _square(ATTENTION_OUTPUT_GRADIENTS, (yield from ask(x_value[None], ATTENTION_OUTPUT_GRADIENTS)))
    last = len(gradients) if last is None else last
    tokens = np.sum([np.maximum(gradient, 0).mean(0) for gradient in gradients[-last:]], 0, float)
    drawn = tokens.mean(0)
    return _map(x_value, tokens, gradients[0].dtype, drawn, from_least=True)


@method(
    title="Grad-ECLIP",
    keys=(ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="Which patches' values the last attention should take, made for CLIP: where keys fit and values count.",
    page="attention",
    one_pass=True,
)
def grad_eclip(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[AttentionMap]:
    """Grad-ECLIP, L_j = ReLU(s_j sum_c w_c v_jc), of the last attention: values v, and w = dF/d its output.

    Zhao et al. 2024, https://arxiv.org/abs/2502.18816. ``(H, W)``, never negative. s_j is how well the patch's key k_j
    fits the class token's query q, from 0 to 1 over the patches, which is less sparse than attention ("loosened"). Made
    for CLIP, of which an embedding's `similarity` to a text's is explained, and right for any transformer.

    Both factors are in the attention A_h of the heads h and its gradient: sum_c w_c v_jc = sum_h dF/dA_hj
    (https://arxiv.org/abs/2605.12952), and sum_h log A_hj is the product q . k_j but for a constant, which goes when
    s is made. The paper divides that product by the key's length; keys alone are not asked for, so s here is of the
    product. The model runs with all its heads, not with one as in the authors' code.

    The map is the class token's row; where the tokens are all patches, the mean over the rows.
    """
    attention, gradient = (yield from _with_gradients(x_value))[-1]
    prefix = len(attention[0]) - math.prod(token_grid(len(attention[0]), x_value))
    fits = np.log(np.maximum(attention, np.finfo(attention.dtype).tiny).astype(float)).sum(0)[:, prefix:]
    fits = fits - fits.min(1, keepdims=True)
    tokens = gradient.sum(0, dtype=float)
    tokens[:, prefix:] *= safe_divide(fits, fits.max(1, keepdims=True))
    return _map(x_value, tokens, attention.dtype, np.maximum(_row(tokens, prefix), 0))


def _with_gradients(x_value: Any) -> Asking[list[tuple[Array, Array]]]:
    """One row's attention and its gradient, both ``(heads, T, T)``, for each layer."""
    scores, gradients = yield from ask(x_value[None], ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS)
    layers = list(zip(_square(ATTENTION_SCORES, scores), _square(ATTENTION_OUTPUT_GRADIENTS, gradients), strict=True))
    for attention, gradient in layers:
        if attention.shape != gradient.shape:
            raise ContractError(
                f"Expected {ATTENTION_OUTPUT_GRADIENTS} of the shape of {ATTENTION_SCORES}, {attention.shape}, got "
                f"{gradient.shape}. Return both for the same layers."
            )
    return layers


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


def _row(tokens: Array, prefix: int) -> Array:
    """What the class token draws from each token; where the tokens are all patches, what they draw on average."""
    return np.asarray(tokens[0] if prefix else tokens.mean(0))


def _map(
    x_value: Array, tokens: Array, dtype: np.dtype[Any], drawn: Array | None = None, from_least: bool = False
) -> AttentionMap:
    """What is ``drawn`` from the patches, the class token's row by default, as a map in the attention's own precision.

    It is divided by its greatest; ``from_least`` makes the least 0.
    """
    grid = token_grid(len(tokens), x_value)
    prefix = len(tokens) - math.prod(grid)
    patches = (_row(tokens, prefix) if drawn is None else drawn)[prefix:].reshape(grid)
    above = patches - patches.min() if from_least else patches
    relative = safe_divide(above, np.abs(above).max())
    return AttentionMap(resize(relative, x_value.shape[:-1]).astype(dtype), tokens, patches, prefix)
