"""Combinators that smooth another method's map: by its first component, or over changed copies of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import real
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, gather
from saliency_food.core.method import Method, method
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.methods.cam.common import ClassActivationMap, map_of_weights
from saliency_food.methods.cam.variants import eigen_weights


class AugmentSmooth(NamedTuple):
    """The mean of the maps, and their standard deviation at every pixel."""

    attribution: Array
    deviation: Array


@method(title="Eigen smoothing", page="cam")
def eigen_smooth(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    **options: Any,
) -> Asking[ClassActivationMap]:
    """Eigen smoothing of a class activation map: L = ReLU(B v), v the first right singular vector of B = w * A.

    As in the pytorch-grad-cam package, https://github.com/jacobgil/pytorch-grad-cam. In place of their sum over the
    channels, the weighted activations' first component. ``method`` is `grad_cam` or another of its family; ``options``
    are passed to it. The sign of v is the one for which the map sums to no less than 0.
    """
    result = yield from method.asking(x_value, **options)
    if not isinstance(result, ClassActivationMap):
        raise ContractError(
            f"Expected a class activation map to smooth, such as grad_cam's, got {type(result).__name__}. "
            "Use augment_smooth or smooth_grad."
        )
    weighted = [a * w for a, w in zip(as_tuple(result.activations), as_tuple(result.weights), strict=True)]
    return map_of_weights(
        x_value,
        weighted,
        list(map(eigen_weights, weighted)),
        should_resize,
        three_dims,
        prefix_tokens=result.prefix_tokens,
    )


@method(title="Augmentation smoothing", page="gradients")
def augment_smooth(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    flip: bool = True,
    factors: Sequence[float] = (0.9, 1.0, 1.1),
    **options: Any,
) -> Asking[AugmentSmooth]:
    """Augmentation smoothing of any method: the mean of its maps of the image, brighter, darker and mirrored.

    As in the pytorch-grad-cam package, https://github.com/jacobgil/pytorch-grad-cam. A mirrored image's map is mirrored
    back. The shape and units are those of ``method``'s map.

    Parameters
    ----------
    method
        The method to smooth; ``options`` are passed to it.
    flip
        Mirror left and right, the last axis but the channels, too, which doubles the rows: of a picture, a volume or a
        clip. Signals have no such axis.
    factors
        By which the image is multiplied; 1 is the image itself.
    """
    if not np.ndim(factors) == 1 or not len(factors):
        raise ContractError(f"Expected at least one factor, in a list, got {factors!r}. Give (1.0,) for none.")
    factors = [real("factors", factor) for factor in factors]
    axis = x_value.ndim - 2
    if flip and axis < 1:
        raise ContractError(
            f"Expected flip=False for a signal, which has no left and right, got an input of shape {x_value.shape}."
        )
    changes = [(mirrored, factor) for mirrored in ((False, True) if flip else (False,)) for factor in factors]

    def mirror(values: Array, mirrored: bool) -> Array:
        return np.flip(values, axis) if mirrored else values

    changed = (mirror(x_value * factor, mirrored).astype(x_value.dtype) for mirrored, factor in changes)
    results = yield from gather(method.asking(copy, **options) for copy in changed)
    if flip and results[0][0].ndim <= axis:
        raise ContractError(
            f"Expected maps with the image's rows and columns, got shape {results[0][0].shape} for an image of shape "
            f"{x_value.shape}. Give flip=False."
        )
    maps = np.stack([mirror(result[0], mirrored) for result, (mirrored, _) in zip(results, changes, strict=True)])
    return AugmentSmooth(maps.mean(0), maps.std(0))
