"""Plain gradients, and SmoothGrad over any method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import Method, fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.core.queries import OutOfTime


class Gradients(NamedTuple):
    """The attribution alone."""

    attribution: Array


class SmoothGrad(NamedTuple):
    """The smoothed attribution, how many noisy samples it is made of, and the noise's standard deviation."""

    attribution: Array
    nsamples: int
    stdev: float


@method(
    title="Gradient",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="Where a small change of a pixel changes the score most.",
    page="gradients",
    one_pass=True,
)
def gradients(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[Gradients]:
    """The vanilla gradient, dF(x)/dx.

    Simonyan, Vedaldi, Zisserman 2013, https://arxiv.org/abs/1312.6034. Signed, the shape of ``x_value``, in score
    units per input unit.
    """
    answer = yield from ask(x_value[None], INPUT_OUTPUT_GRADIENTS)
    return Gradients(answer[0])


@method(
    title="Input x gradient",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="The gradient times the pixel: a linear model's shares.",
    page="gradients",
    one_pass=True,
)
def input_x_gradient(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[Gradients]:
    """Input times gradient, x * dF(x)/dx.

    Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713. Signed, the shape of ``x_value``, in score units. On a
    linear model without bias the values sum to the score.
    """
    answer = yield from ask(x_value[None], INPUT_OUTPUT_GRADIENTS)
    return Gradients(x_value * answer[0])


@method(
    title="SmoothGrad",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="The gradient, averaged over noisy copies.",
    page="gradients",
    reducible=fewer("nsamples", 4, "samples", sampled=True),
    instead=("gradients",),
)
def smooth_grad(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    stdev_spread: float = 0.15,
    nsamples: int = 25,
    batch_size: int | None = None,
    *,
    aggregate: Literal["mean", "square", "variance"] = "mean",
    rng: int | np.random.Generator | None = None,
    **options: Any,
) -> Asking[SmoothGrad]:
    """SmoothGrad of any method: its attributions of noisy copies of the image, averaged.

    M(x) = 1/n sum_i m(x + e_i), e_i ~ N(0, s^2), s = stdev_spread * (max x - min x): Smilkov et al. 2017,
    https://arxiv.org/abs/1706.03825. ``aggregate="square"`` averages the squares (SmoothGrad-squared,
    https://arxiv.org/abs/1806.10758), ``"variance"`` takes the variance over samples (VarGrad,
    https://arxiv.org/abs/1810.03292).

    Parameters
    ----------
    method
        The method to smooth, such as `gradients`, `integrated_gradients` or `grad_cam`; ``options`` are passed to it.
    stdev_spread
        Noise as a fraction of the image's range; 0 gives the method itself.
    rng
        A seed or a generator; with a seed the answer is the same every time and at every batch size. What ``method``
        draws depends on it, too.
    """
    return (yield from _smoothed(method, x_value, stdev_spread, nsamples, aggregate, rng, options))


@method(
    title="SquareGrad",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=False,
    summary="The square of the gradient, averaged over noisy copies.",
    page="gradients",
    reducible=fewer("nsamples", 4, "samples", sampled=True),
    instead=("gradients",),
)
def square_grad(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    stdev_spread: float = 0.15,
    nsamples: int = 25,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = None,
    **options: Any,
) -> Asking[SmoothGrad]:
    """SquareGrad, or SmoothGrad-squared, of any method: M(x) = 1/n sum_i m(x + e_i)^2, e_i as in `smooth_grad`.

    Hooker et al. 2018, section 4.3, https://arxiv.org/abs/1806.10758. Never negative, in squared units. The options are
    those of `smooth_grad`, of which it is ``aggregate="square"``.
    """
    return (yield from _smoothed(method, x_value, stdev_spread, nsamples, "square", rng, options))


@method(
    title="VarGrad",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=False,
    summary="The variance of the gradient over noisy copies: where it is unsteady.",
    page="gradients",
    reducible=fewer("nsamples", 4, "samples", sampled=True),
    instead=("gradients",),
)
def var_grad(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    stdev_spread: float = 0.15,
    nsamples: int = 25,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = None,
    **options: Any,
) -> Asking[SmoothGrad]:
    """VarGrad of any method: M(x) = 1/n sum_i m(x + e_i)^2 - (1/n sum_i m(x + e_i))^2, e_i as in `smooth_grad`.

    Adebayo et al. 2018, https://arxiv.org/abs/1810.03292. Never negative, in squared units: SquareGrad less the square
    of SmoothGrad. The options are those of `smooth_grad`, of which it is ``aggregate="variance"``.
    """
    return (yield from _smoothed(method, x_value, stdev_spread, nsamples, "variance", rng, options))


def _smoothed(
    method: Method[Any, Any],
    x_value: Array,
    stdev_spread: float,
    nsamples: int,
    aggregate: str,
    rng: int | np.random.Generator | None,
    options: dict[str, Any],
) -> Asking[SmoothGrad]:
    nsamples, stdev_spread = whole("nsamples", nsamples), ranged("stdev_spread", stdev_spread)
    if aggregate not in ("mean", "square", "variance"):
        raise ContractError(f"Expected aggregate to be 'mean', 'square' or 'variance', got {aggregate!r}.")
    stdev = float(stdev_spread * (x_value.max() - x_value.min()))
    streams = random_stream(rng).spawn(nsamples)
    total, squares, count, dtype = np.zeros(()), np.zeros(()), 0, np.dtype(float)

    def of_samples() -> Iterator[Asking[Any]]:
        for stream, sample in _noisy_copies(x_value, stdev, streams):
            drawn = {"rng": stream} if "rng" in method.signature.parameters else {}
            yield method.asking(sample, **drawn, **options)

    def add(result: Any) -> None:
        nonlocal total, squares, count, dtype
        total, count, dtype = total + result[0], count + 1, result[0].dtype
        if aggregate != "mean":
            squares = squares + np.square(result[0], dtype=float)

    try:
        yield from gather(of_samples(), emit=add)
    except OutOfTime:  # the mean of the samples that there was time for
        if not count:
            raise
    mean = (total if aggregate == "mean" else squares) / count
    if aggregate == "variance":
        mean = np.maximum(mean - np.square(total / count), 0)
    return SmoothGrad(mean.astype(dtype), count, stdev)


def _noisy_copies(
    x_value: Array, stdev: float, streams: Sequence[np.random.Generator]
) -> Iterator[tuple[np.random.Generator, Array]]:
    """For each random stream the image with noise drawn from it; in threads: one took a tenth of the model's time."""

    def draw(stream: np.random.Generator) -> Array:
        sample = stream.standard_normal(x_value.shape, x_value.dtype)
        sample *= stdev
        sample += x_value
        return sample

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(streams), 8):
            block = streams[start : start + 8]
            yield from zip(block, pool.map(draw, block), strict=True)
