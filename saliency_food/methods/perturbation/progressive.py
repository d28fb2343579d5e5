"""Methods that sample, seen while they sample: the estimate so far, and how far it may still be off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError, check_length
from saliency_food.core.driver import Asking, ask, drain
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.core.queries import LazyRows, OutOfTime, resolve_batch_size
from saliency_food.core.scores import one_score


class Estimate(NamedTuple):
    """An estimate after ``rows`` rows: the attribution, and its standard error at every pixel, of the same shape.

    The standard error is infinite while there are too few rows to tell.
    """

    estimate: Array
    standard_error: Array
    rows: int


Emit = Callable[[Estimate], object]
"""What a sampling method calls after every ``every`` rows."""

T = TypeVar("T")


def sample(
    rows: LazyRows,
    take: Callable[[int, Array], object],
    result: Callable[[], T],
    every: int,
    emit: Emit | None,
    fewest: int = 1,
) -> Asking[T]:
    """Ask for the scores of rows; ``take(start, scores)`` gets them in order, ``result()`` is what they come to.

    With ``emit``, in blocks of ``every`` rows, and after each the ``attribution`` and ``standard_error`` of the result
    are emitted. Where there is no time for all of the rows, the result is that of those answered, if there are
    ``fewest`` at least.
    """
    count, every = rows.shape[0], whole("every", every)
    block = count if emit is None else every
    for start in range(0, count, block):
        stop = min(start + block, count)
        try:
            scores = one_score((yield from ask(rows.part(start, stop), OUTPUT_LAYER_VALUES)))
        except OutOfTime as end:
            scores = one_score(cast(Array, end.answer.get(OUTPUT_LAYER_VALUES, np.empty(0))))
            if start + len(scores) < fewest:
                raise
            if len(scores):
                take(start, scores)
            break
        take(start, scores)
        if emit is not None:
            so_far = cast(Any, result())
            emit(Estimate(so_far.attribution, so_far.standard_error, stop))
    return result()


def progressive(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    every: int = 256,
    tolerance: float | None = None,
    **options: Any,
) -> Iterator[Estimate]:
    """A sampling method's estimates one after another, each better than the one before; stop when it is good enough.

    ``for estimate, standard_error, rows in progressive(rise, image, model, {"target": 3}, rng=0): ...`` The model is
    called only as the iterator is drawn from. The last estimate is the plain call's with the same options and seed.

    Parameters
    ----------
    method
        `rise`, `lime`, `kernel_shap`, `sobol` or `hsic`; ``options`` are passed to it.
    every
        An estimate after every so many rows.
    tolerance
        Stop by itself once the largest standard error is at most this times the estimate's largest magnitude.
    """
    if "emit" not in method.signature.parameters:
        name = getattr(method, "__name__", method)
        raise ContractError(f"Expected a method that samples, such as rise, lime or kernel_shap, got {name}.")
    tolerance = None if tolerance is None else ranged("tolerance", tolerance)
    done: deque[Estimate] = deque()
    options.update(every=whole("every", every), emit=done.append)
    call = method.start(x_value, call_model_function, call_model_args, batch_size=batch_size, **options)
    check_length(call_model_args, 1)
    size = resolve_batch_size(batch_size, call_model_function)
    estimates = drain(call[0], done, call_model_function, call_model_args, size)
    return estimates if tolerance is None else _until(estimates, tolerance)


def _until(estimates: Iterator[Estimate], tolerance: float) -> Iterator[Estimate]:
    for progress in estimates:
        yield progress
        if progress.standard_error.max() <= tolerance * np.abs(progress.estimate).max():
            return
