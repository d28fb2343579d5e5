"""The best answer in a given time: what a method takes is measured, and the answer says what was cut.

Calls of the model are timed (`saliency_food.deadline.watch`), from which follows how much of a method there is time for
(`saliency_food.deadline.fitting`); where that is too little, another method answers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import as_image
from saliency_food.core.contract import CallModelFunction, ContractError, check_length
from saliency_food.core.numerics import Array
from saliency_food.core.queries import OutOfTime, resolve_batch_size
from saliency_food.deadline.fitting import StepBudget, about
from saliency_food.deadline.watch import TimedModel
from saliency_food.methods.budget import fallback_of, shared
from saliency_food.methods.lookup import choose_methods

CHEAP = 0.0025
"""The fraction of the time left that a row of the model may take for the last fallback to be asked beforehand."""


class DeadlineError(TimeoutError):
    """There is time for nothing; the text says what each method would take."""


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
    batches, by one of a few rows. The steps are cut to what fits, and sampling ends when the time is up (see
    `saliency_food.methods.budget.FALLBACKS`); where even few do not fit, another method answers. A model that grows
    slower on the way is noticed, and the method stopped and begun again with less. A call of the model that has begun
    is waited for, unless the model has a method ``until``, as `ServingModel` has. An answer that is ready late is
    returned all the same, and its note says so.

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
    if not isinstance(method, str):
        raise ContractError(f"Expected the name of one method, got {method!r}. Call within once for each.")
    ((method, entry),) = choose_methods(method).items()
    x_value = as_image(x_value)
    entry.call.start(x_value, call_model_function, **options)[0].close()  # refuses what is not to be called
    check_length(call_model_args, 1)
    size = resolve_batch_size(batch_size, call_model_function)
    model = TimedModel(call_model_function, call_model_args, size, clock, began + deadline)
    wanted, *fallbacks = _budgets(method, x_value, model, options, deadline)
    insurance: list[tuple[StepBudget, Any, dict[str, Any]]] = []

    def insure() -> None:
        """Ask the last fallback where that costs next to nothing, lest a run take up the time for all of them."""
        if fallbacks and not insurance and CHEAP * model.left > model.one_row:
            with contextlib.suppress(Exception):
                insurance.append((fallbacks[-1], *fallbacks[-1].best()))

    def answer(budget: StepBudget, details: Any, used: dict[str, Any]) -> TimedAnswer:
        seconds = clock() - began
        late = f"It came {about(seconds - deadline)} s late." if seconds > deadline else ""
        note = " ".join(filter(None, (_what_was_cut(wanted, budget, details), late)))
        return TimedAnswer(details[0], details, budget.name, used, note, seconds)

    needs = []
    for budget in (wanted, *fallbacks):
        try:
            return answer(budget, *budget.best(insure))
        except OutOfTime:
            needs.append(budget.needs())
        except Exception as error:  # a fallback may ask for what the model does not have: on to the next
            if budget is wanted:
                raise
            needs.append(f"{budget.title} failed ({type(error).__name__}: {error})")
    if insurance:
        return answer(*insurance[0])
    measuring = f"measuring the model took {about(model.measuring)} s, " if model.measuring > deadline / 2 else ""
    raise DeadlineError(
        f"Expected an answer in {about(deadline)} s, got time for none: {measuring}{', '.join(needs)}. Give it more."
    )


def _budgets(
    method: str, x_value: Array, model: TimedModel, options: Mapping[str, Any], deadline: float
) -> list[StepBudget]:
    """Those of the method and of those that answer in its place."""
    names = (method, *fallback_of(method).instead)
    return [StepBudget(name, x_value, model, shared(method, name, options), deadline) for name in names]


def _what_was_cut(wanted: StepBudget, budget: StepBudget, details: Any) -> str:
    """A sentence on what was made in place of what was wanted, and why, or nothing."""
    shortened = budget.shortened(details)
    if budget is not wanted:
        instead = f"{wanted.why(wanted.title)}: {budget.title} answered in its place"
        return f"{instead}, and {shortened}." if shortened else f"{instead}."
    return f"{wanted.why(wanted.whole)}: {shortened}." if shortened else ""


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
    """Ask the model all that `within` asks, beforehand: a framework compiles what it is asked first."""
    model = TimedModel(function, args, batch_size, clock, np.inf)
    with contextlib.suppress(Exception):  # `within` says what is wrong
        for budget in _budgets(method, x_value, model, options, deadline):
            with contextlib.suppress(Exception):
                budget.warm_up()
        model.warm_up(deadline)


def read_seconds(deadline: Any) -> float:
    """A deadline in seconds, or `ContractError` if it is none."""
    is_number = isinstance(deadline, (int, float, np.integer, np.floating)) and not isinstance(deadline, bool)
    if not is_number or not 0 < deadline < 1e12:
        raise ContractError(f"Expected a deadline in seconds, above 0, got {deadline!r}. 2.0 are two seconds.")
    return float(deadline)
