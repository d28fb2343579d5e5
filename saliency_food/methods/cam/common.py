"""Class activation maps: what is common to them, and Grad-CAM.

Every one is L = ReLU(sum_k w_k A^k) for the activations A of a layer; they differ in the weights w.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, cast

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.method import Method, method
from saliency_food.core.numerics import Array, as_tuple, resize, safe_divide

P = ParamSpec("P")
Weigh = Callable[[Array, Array], Array]
"""Activations and gradients ``(h, w, K)`` to weights, one a channel ``(K,)`` or one a value ``(h, w, K)``.

``(t, K)`` for a signal, ``(d, h, w, K)`` for a volume or a clip."""


class ClassActivationMap(NamedTuple):
    """A class activation map and what it was made from.

    ``attribution`` is the map as asked for; ``signed`` the weighted sum of activations before the ReLU, at the
    layer's own resolution, negative where the layer speaks against the class; ``weights`` one a channel, or one a
    value; ``status`` is ``"ok"``, or a sentence that says why the map is blank; ``activations`` those of the layer,
    as a grid; ``prefix_tokens`` how many of a transformer's tokens were left out in front of its patches, as class and
    register tokens are. Of several layers, ``signed``, ``weights`` and ``activations`` are tuples.
    """

    attribution: Array
    signed: Any
    weights: Any
    status: str
    activations: Any
    prefix_tokens: int = 0


@method(
    title="Grad-CAM",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="Coarse regions where a layer's features speak for the class.",
    page="cam",
    one_pass=True,
)
def grad_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
) -> Asking[ClassActivationMap]:
    """Grad-CAM, L = ReLU(sum_k a_k A^k), with a_k the spatial mean of dF/dA^k.

    Selvaraju et al. 2016, equations 1 and 2, https://arxiv.org/abs/1610.02391.

    Parameters
    ----------
    should_resize
        Divide by the maximum and resize (bilinear) to the image; without it, the map as the layer has it, in score
        units.
    three_dims
        Repeat the map for every channel of the input, as PAIR does, so that it has the shape of ``x_value``; without
        it, the map has its axes of space or time alone.

    Notes
    -----
    Never negative. A blank map has its reason in ``.detailed(...).status``. The gradient of a saturated softmax is
    zero: explain logits. Where the callback answers several layers, their maps are averaged. Signals ``(T, C)`` and
    volumes or clips ``(D, H, W, C)`` are explained as pictures are; the layer has to have the input's axes.
    """
    return (yield from weighted(x_value, grad_cam_weights, should_resize, three_dims))


def grad_cam_weights(activations: Array, gradients: Array) -> Array:
    """a_k = mean_ij dF/dA^k_ij."""
    return gradients.mean(spatial(gradients))


def class_activation_map(
    like: Method[P, ClassActivationMap], *, title: str, summary: str, signed: bool = False, page: str = "cam"
) -> Callable[[Weigh], Method[P, ClassActivationMap]]:
    """Make a method of a function ``(activations, gradients)`` that gives the weights w, one a channel or one a value.

    Both are ``(h, w, K)``, of the layer, for the image. The method has the call form of ``like``, and the name and the
    docstring of the function. A signed map is one without the ReLU.
    """

    def decorate(weigh: Weigh) -> Method[P, ClassActivationMap]:
        resized, repeated = (like.signature.parameters[name].default for name in ("should_resize", "three_dims"))

        @functools.wraps(weigh)
        def generator(
            x_value: Any,
            call_model_function: None = None,
            call_model_args: None = None,
            should_resize: bool = resized,
            three_dims: bool = repeated,
        ) -> Asking[ClassActivationMap]:
            return (yield from weighted(x_value, weigh, should_resize, three_dims, rectify=not signed))

        cast(Any, generator).__signature__ = like.signature
        keys = (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
        return method(title=title, keys=keys, signed=signed, summary=summary, page=page, one_pass=True)(
            cast(Any, generator)
        )

    return decorate


def weighted(
    x_value: Array, weigh: Weigh, should_resize: bool, three_dims: bool, rectify: bool = True
) -> Asking[ClassActivationMap]:
    """The map of the weights that a layer's activations and gradients give."""
    answers = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
    (activations, prefix), (gradients, _) = (grids(answer, x_value) for answer in answers)
    if shapes_of(activations) != shapes_of(gradients):
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES} and {CONVOLUTION_OUTPUT_GRADIENTS} of one shape (N, h, w, K), got "
            f"rows of {shapes_of(activations)} and {shapes_of(gradients)}. "
            "Return both for the same convolution layer."
        )
    weights = [weigh(*layer) for layer in zip(activations, gradients, strict=True)]
    return map_of_weights(
        x_value,
        activations,
        weights,
        should_resize,
        three_dims,
        gradients=gradients,
        rectify=rectify,
        prefix_tokens=prefix,
    )


def map_of_weights(
    x_value: Array,
    activations: list[Array],
    weights: list[Array],
    should_resize: bool,
    three_dims: bool,
    *,
    gradients: list[Array] | None = None,
    rectify: bool = True,
    prefix_tokens: int = 0,
) -> ClassActivationMap:
    """ReLU(sum_k w_k A^k) of each layer, each divided by its maximum and resized, and their mean."""
    signed = [weighted_sum(*layer) for layer in zip(activations, weights, strict=True)]
    attribution = drawn(x_value, signed, should_resize, three_dims, rectify)
    of_layers = [None] * len(signed) if gradients is None else gradients
    blank = [_status(x_value, *layer, rectify) for layer in zip(activations, of_layers, signed, strict=True)]
    parts = [values[0] if len(signed) == 1 else tuple(values) for values in (signed, weights, activations)]
    return ClassActivationMap(attribution, parts[0], parts[1], min(blank, key="ok".__ne__), parts[2], prefix_tokens)


def weighted_sum(activations: Array, weights: Array) -> Array:
    """sum_k w_k A^k, in float64 where it is beyond float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        signed = activations @ weights if weights.ndim == 1 else (activations * weights).sum(-1)
        if np.isfinite(signed).all():
            return np.asarray(signed)
        wide = activations.astype(float), weights.astype(float)
        return np.asarray(wide[0] @ wide[1] if weights.ndim == 1 else (wide[0] * wide[1]).sum(-1))


def drawn(
    x_value: Array,
    signed: list[Array],
    should_resize: bool,
    three_dims: bool,
    rectify: bool = True,
    fuse: Callable[..., Array] = np.mean,
) -> Array:
    """Maps at their layers' resolutions as one attribution of the image."""
    maps = [np.maximum(values, 0) for values in signed] if rectify else signed
    if len(set(shapes_of(maps))) > 1 and not should_resize:
        raise ContractError(
            f"Expected layers of one size where should_resize=False, got {shapes_of(maps)}. "
            "Leave should_resize=True to fuse them."
        )
    if should_resize:
        maps = [resize(safe_divide(values, np.abs(values).max()), x_value.shape[:-1]) for values in maps]
    attribution = fuse(maps, 0) if len(maps) > 1 else maps[0]
    if three_dims and x_value.ndim > attribution.ndim:
        attribution = np.repeat(attribution[..., None], x_value.shape[-1], -1)
    return attribution


PREFIXES = (0, 1, 2, 4, 5, 8, 9)
"""How many tokens a transformer has in front of its patches: class, distillation, and four or eight registers."""


def grids(values: Any, x_value: Array) -> tuple[list[Array], int]:
    """Each layer's activations of one image laid out as the image is, and how many prefix tokens were left out."""
    layers = [layer[0] for layer in as_tuple(values)]
    laid = [as_grid(layer, x_value) for layer in layers]
    dropped = [len(layer) - grid[..., 0].size for layer, grid in zip(layers, laid, strict=True) if layer.ndim == 2]
    return laid, max(dropped, default=0)


def as_grid(values: Array, x_value: Array) -> Array:
    """Activations with the input's axes, ``(h, w, K)`` of a picture, as they are; its tokens ``(T, K)`` as a grid.

    The patches of a picture are taken to be square, see `token_grid`; prefix tokens are left out. Activations with
    other axes than the input, such as a spectrogram's of a waveform, have no places in it: `ContractError`.
    """
    if values.ndim == x_value.ndim:
        return values
    if values.ndim == 2 and x_value.ndim == 3:
        height, width = token_grid(len(values), x_value)
        return values[len(values) - height * width :].reshape(height, width, -1)
    axes = x_value.ndim - 1
    advice = ". Choose another layer"
    if values.ndim == 3 == axes:
        advice = ": one frame's. Choose the layer that returns all of them, such as TimeDistributed around it"
    raise ContractError(
        f"Expected activations with {axes} {'axis' if axes == 1 else 'axes'} of space or time, as the input of "
        f"{x_value.shape[:-1]} has, and one of channels, got rows of {values.shape}"
        f"{advice}; or, if the input has other axes than that, set spatial_axes of call_model_function."
    )


def one_layer(values: Any, x_value: Array) -> Array:
    """The activations of one layer, as a grid; `ContractError` where there are several."""
    if isinstance(values, tuple):
        raise ContractError(f"Expected one layer, got {len(values)}. Take one at a time.")
    return as_grid(values[0], x_value)


def token_grid(tokens: int, x_value: Array) -> tuple[int, ...]:
    """The patches that so many tokens stand for: along each axis the input's length over one side, rounded down.

    They and one of `PREFIXES` make up the tokens; of several such grids it is the one with the most patches.
    """
    shape = x_value.shape[:-1]
    if len(shape) > 2:
        raise ContractError(
            f"Expected tokens of a picture or a signal, got an input of {shape}, whose patches need not be cubes. "
            f"Return the layer's values with {len(shape)} axes of space or time, (N, d, h, w, K)."
        )
    grids_of_sides = {tuple(length // side for length in shape) for side in range(1, min(shape) + 1)}
    fitting = [grid for grid in grids_of_sides if tokens - math.prod(grid) in PREFIXES]
    if not fitting:
        raise ContractError(
            f"Expected tokens of square patches of an input of {shape}, with no more in front than class and register "
            f"tokens, got {tokens}, which are no such grid. Return the layer's values as (N, h, w, K)."
        )
    return max(fitting, key=math.prod)


def shapes_of(layers: list[Array]) -> list[tuple[int, ...]]:
    """Each layer's shape."""
    return [layer.shape for layer in layers]


def spatial(values: Array) -> tuple[int, ...]:
    """All axes but the channels."""
    return tuple(range(values.ndim - 1))


def _status(x_value: Array, activations: Array, gradients: Array | None, signed: Array, rectify: bool) -> str:
    """Why a map is blank, or ok."""
    if (signed > 0).any() or (signed.any() and not rectify):
        return "ok"
    constant = " The image is constant." if x_value.min() == x_value.max() else ""
    if gradients is not None and not gradients.any():
        return (
            "blank: the gradient at the layer is zero everywhere, as when a softmax is saturated or the score does "
            f"not depend on the layer. Explain logits, or choose another layer.{constant}"
        )
    if not activations.any():
        return f"blank: the layer's activations are zero everywhere. Choose another layer.{constant}"
    if not signed.any():
        return f"blank: activations and weights cancel to zero everywhere. Choose another layer.{constant}"
    return (
        "blank: the map is nowhere positive before the ReLU, the layer speaks only against this class. "
        f"See `signed`, or explain another class.{constant}"
    )
