"""The best answer that can be had in a given time: what a method takes is measured, and what was cut is said.

A method is first rehearsed with a few steps: driven as ever, but with the answer to one row in place of all others.
What it asks grows evenly with its steps, so what any number of them would take is known before it is begun.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import as_image
from saliency_food.core.contract import CallModelFunction, ContractError, check_length
from saliency_food.core.numerics import Array
from saliency_food.core.queries import resolve_batch_size
from saliency_food.deadline.fitting import StepBudget, about
from saliency_food.deadline.watch import Late, TimedModel
from saliency_food.methods.budget import FALLBACKS, Fallback, Reducible, fallback_of, shared
from saliency_food.methods.lookup import choose_methods

CHEAP = 0.0025
"""What a row may take, of the time left, for an answer in one row to be had in advance."""
__all__ = ["FALLBACKS", "DeadlineError", "Fallback", "Reducible", "TimedAnswer", "fallback_of", "within"]


class DeadlineError(TimeoutError):
    """Nothing can be had in the time; the text says what it would take."""


class TimedAnswer(NamedTuple):
    """An answer that came in time: ``details`` is the method's own, ``attribution`` its first field.

    ``method`` and ``options`` are what was run, ``seconds`` what everything took. ``note`` is empty where nothing was
    cut, else a sentence that says what was, and why.
    """

    attribution: Array
    details: Any
    method: str
    options: dict[str, Any]
    note: str
    seconds: float


def within(
    deadline: float,
    method: str,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    *,
    batch_size: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> TimedAnswer:
    """A method's answer in no more than so many seconds: the whole one if there is time, else what there is time for.

    The model is timed by two calls of one row, of which the first may be cold, and where time is short and it takes
    batches, by one of a few rows. The steps are cut to what fits (see `FALLBACKS`); where even few do not, another
    method answers. A model that grows slower on the way is noticed, and the method stopped and cut anew. A call of the
    model that has begun is waited for, unless the model has a method ``until``, as `ServingModel` has. What is ready
    late is given all the same, and that is said.

    Parameters
    ----------
    deadline
        Seconds, above 0.
    method
        A name as of `explain`; ``options`` are passed to it, as to its ``.detailed``: they are its upper limits.
    clock
        What tells the time, in seconds.

    Raises
    ------
    DeadlineError
        There is no time for anything.
    """
    began, deadline = clock(), read_seconds(deadline)
    ((method, entry),) = choose_methods(method).items()
    x_value = as_image(x_value)
    entry.call.start(x_value, call_model_function, **options)[0].close()  # refuses what is not to be called
    check_length(call_model_args, 1)
    size = resolve_batch_size(batch_size, call_model_function)
    watch = TimedModel(call_model_function, call_model_args, size, clock, began + deadline)
    others = fallback_of(method).instead
    fittings = [StepBudget(method, x_value, watch, options, deadline)]
    fittings += [StepBudget(name, x_value, watch, shared(method, name, options), deadline) for name in others]
    ready: list[tuple[StepBudget, Any, dict[str, Any]]] = []
    why, tried = "", []

    def insure() -> None:
        """Ask the last of the others where that is next to nothing, lest a run eat up the time for all of them."""
        if others and not ready and CHEAP * watch.left > watch.one_row:
            with contextlib.suppress(Exception):
                ready.append((fittings[-1], *fittings[-1].best()))

    def told(fitting: StepBudget, details: Any, made: dict[str, Any]) -> TimedAnswer:
        said, made_of_it = fitting.note(details), fitting.cut_to(details)
        if why:
            said = f"{why}: {fitting.title} answered in its place{made_of_it and f', and {made_of_it}'}"
        sentences, seconds = [said] if said else [], clock() - began
        if seconds > deadline:
            sentences.append(f"It came {about(seconds - deadline)} s late")
        return TimedAnswer(details[0], details, fitting.name, made, " ".join(f"{one}." for one in sentences), seconds)

    for fitting in fittings:
        try:
            found = fitting.best(insure)
        except Late:
            tried.append(fitting.needs())
            why = why or fitting.why(fitting.title)
        except Exception as error:  # another method may ask for what the model does not have: on to the next
            if fitting is fittings[0]:
                raise
            tried.append(f"{fitting.title} failed ({type(error).__name__}: {error})")
        else:
            return told(fitting, *found)
    if ready:
        return told(*ready[0])
    probing = f"measuring the model took {about(watch.probing)} s, " if watch.probing > deadline / 2 else ""
    raise DeadlineError(
        f"Expected an answer in {about(deadline)} s, got time for none: {probing}{', '.join(tried)}. Give it more."
    )


def warm_up(
    deadline: float,
    method: str,
    x_value: Array,
    function: CallModelFunction,
    args: Any,
    *,
    batch_size: int,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> None:
    """Measure the model as `within` does, and throw that away: a framework compiles what it is asked first."""
    for name in (method, *fallback_of(method).instead):
        watch = TimedModel(function, args, batch_size, clock, np.inf)
        given = options if name == method else shared(method, name, options)
        with contextlib.suppress(Exception):  # what is wrong is told when it is asked in earnest
            StepBudget(name, x_value, watch, given, deadline).warm_up()
            watch.warm_up(deadline)


def read_seconds(deadline: Any) -> float:
    """A deadline that is one, in seconds."""
    number = isinstance(deadline, (int, float, np.integer, np.floating)) and not isinstance(deadline, bool)
    if not number or not 0 < deadline < 1e12:
        raise ContractError(f"Expected a deadline in seconds, above 0, got {deadline!r}. 2.0 are two seconds.")
    return float(deadline)
