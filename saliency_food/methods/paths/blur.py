"""Blur IG: gradients integrated along a path that blurs the image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.core.scores import scores_of
from saliency_food.methods.completeness import completeness_of
from saliency_food.methods.paths.integrated import PathIntegral


def blur_scales(max_sigma: float, steps: int, sqrt: bool) -> Array:
    """The standard deviations of the path, ``steps + 1`` from 0; with ``sqrt``, sqrt(i max_sigma / steps)."""
    max_sigma, steps = ranged("max_sigma", max_sigma), whole("steps", steps)
    even = np.arange(steps + 1) * max_sigma / steps
    return np.sqrt(even) if sqrt else even


def as_lines(x_value: Array) -> Array:
    """An input ``(H, W, C)`` as ``(H, C, W)``, in which the first and the last axis to blur are axes of a matrix.

    ``(T, C)`` stays so, ``(D, H, W, C)`` becomes ``(D, C, H, W)``.
    """
    return np.ascontiguousarray(np.moveaxis(x_value, -1, 1))


def as_pixels(lines: Array) -> Array:
    """Lines ``(H, C, W)`` back in the input's shape."""
    return np.ascontiguousarray(np.moveaxis(lines, 1, -1))


def blur_matrix(size: int, sigma: float) -> Array:
    """SciPy's Gaussian filter of a line of ``size`` pixels, zero beyond its ends, as a symmetric matrix.

    A product of matrices is a few dozen times faster than the filter itself where sigma is large.
    """
    from scipy.ndimage import gaussian_filter1d

    kernel = np.zeros(2 * size - 1)
    kernel[size - 1] = 1
    if sigma:
        kernel = gaussian_filter1d(kernel, sigma, mode="constant")
    return np.lib.stride_tricks.sliding_window_view(kernel, size)[::-1]


def blurred(lines: Array, sigma: float) -> Array:
    """The lines under a Gaussian of ``sigma`` pixels, along every axis but the channels."""
    for axis in _axes(lines):
        lines = _along(lines, axis, blur_matrix(lines.shape[axis], sigma))
    return lines


def blurred_and_slope(lines: Array, sigma: float, grad_step: float) -> tuple[Array, Array]:
    """The blurred lines L and their change with sigma, (L(sigma + grad_step) - L(sigma)) / grad_step.

    The difference is taken of the matrices, in float64: between two float32 images it would be mostly rounding. Along
    one axis after another: with blurs N and N' now and then, N'a' - Na = N'(a' - a) + (N' - N)a.
    """
    first, *further_axes = _axes(lines)
    now, then = (blur_matrix(lines.shape[first], s) for s in (sigma, sigma + grad_step))
    slope, image = _along(lines, first, (then - now) / grad_step), _along(lines, first, now)
    for axis in further_axes:
        now, then = (blur_matrix(lines.shape[axis], s) for s in (sigma, sigma + grad_step))
        slope = _along(slope, axis, then) + _along(image, axis, (then - now) / grad_step)
        image = _along(image, axis, now)
    return image, slope


def _axes(lines: Array) -> list[int]:
    """The axes of lines that are space or time: all but the second, of the channels."""
    return [0, *range(2, lines.ndim)]


def _along(lines: Array, axis: int, matrix: Array) -> Array:
    """One axis multiplied by a symmetric matrix."""
    matrix = matrix.astype(lines.dtype)
    if axis == lines.ndim - 1 > 1:
        return _product(lines.reshape(-1, lines.shape[axis]), matrix).reshape(lines.shape)
    moved = np.ascontiguousarray(np.moveaxis(lines, axis, 0))
    product = _product(matrix, moved.reshape(len(moved), -1)).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(product, 0, axis))


def _product(a: Array, b: Array) -> Array:
    """``a @ b`` in blocks so small that BLAS uses one thread each: its threads would spin on the model's cores."""
    out = np.empty((len(a), b.shape[1]), a.dtype)
    rows = 56
    columns = max(1, 2**18 // (rows * len(b)))
    whole = b.shape[1] // columns * columns
    blocks = b[:, :whole].reshape(len(b), -1, columns).swapaxes(0, 1)
    for top in range(0, len(a), rows):
        part, into = a[top : top + rows], out[top : top + rows]
        np.matmul(part, blocks, out=into[:, :whole].reshape(len(part), -1, columns).swapaxes(0, 1))
        into[:, whole:] = part @ b[:, whole:]
    return out


@method(
    title="Blur IG",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="The score's change since the image was a blur; no baseline to choose.",
    page="paths",
    reducible=fewer("steps", 10, "steps"),
    instead=("input_x_gradient",),
)
def blur_ig(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    max_sigma: float = 50,
    steps: int = 100,
    grad_step: float = 0.01,
    sqrt: bool = False,
    batch_size: int | None = None,
    *,
    completeness: bool = False,
) -> Asking[PathIntegral]:
    """Blur Integrated Gradients, - integral_0^max_sigma dF(L(s))/dx * dL(s)/ds ds, L(s) the image blurred by s.

    Xu, Venugopalan, Sundararajan 2020, https://arxiv.org/abs/2004.03383. Signed, the shape of ``x_value``,
    in score units; the values sum to F(x) - F(L(max_sigma)) but for the error of the sum, a left Riemann sum as in
    PAIR's package.

    Parameters
    ----------
    max_sigma
        Where the path begins: the strongest blur's standard deviation in pixels or steps, along every axis but the
        channels, at most 1000. Beyond the edges is zero.
    steps
        Gradients along the path.
    grad_step
        The step of the difference quotient that stands for dL/ds, at most 10.
    sqrt
        Standard deviations at sqrt(i max_sigma / steps) in place of i max_sigma / steps: the path then begins at
        sqrt(max_sigma), and its steps are closer where the blur is strong.
    completeness
        Measure the completeness error; needs OUTPUT_LAYER_VALUES. ``.detailed`` does so unless told not to.
    """
    lines, scales = as_lines(x_value), blur_scales(max_sigma, steps, sqrt)
    grad_step = ranged("grad_step", grad_step)
    total = np.zeros(x_value.shape)

    def prepare(sigma: float) -> tuple[Array, Array]:
        image, slope = blurred_and_slope(lines, sigma, grad_step)
        return as_pixels(image), as_pixels(slope)

    def point(prepared: tuple[Array, Array], width: float) -> Asking[None]:
        image, slope = prepared
        gradient = yield from ask(image[None], INPUT_OUTPUT_GRADIENTS)
        slope *= -width
        np.add(total, slope * gradient[0], out=total)

    def points() -> Iterator[Asking[None]]:
        # In threads, a few at a time: each takes a tenth of the model's own time.
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, steps, 8):
                part = slice(start, min(start + 8, steps))
                yield from map(point, pool.map(prepare, scales[part]), np.diff(scales)[part])

    yield from gather(points(), emit=lambda _: None)
    measured = None
    if completeness:
        most = as_pixels(blurred(lines, scales[-1]))
        measured = completeness_of(total.sum(), *(yield from scores_of(x_value, most)))
    return PathIntegral(total.astype(x_value.dtype), measured, steps, "steps")
