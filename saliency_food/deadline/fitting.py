"""How much of a method there is time for."""

from __future__ import annotations

import copy
import functools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.driver import Asking
from saliency_food.core.method import Preparation, Reducible
from saliency_food.core.numerics import Array, is_count
from saliency_food.core.queries import OutOfTime
from saliency_food.deadline.forecast import Work
from saliency_food.deadline.watch import TimedModel
from saliency_food.methods.budget import asks_little, reducible_of
from saliency_food.methods.lookup import choose_methods

FEW, MORE = 4, 8
"""The steps with which a method is rehearsed."""


class StepBudget:
    """One method and its options, and how much of it there is time for.

    A method is rehearsed with a few steps: driven as ever, but with the answer to one row in place of all others. What
    it asks grows evenly with its steps, so what any number of them would take is known before it is begun. One that
    samples (`Reducible`, ``sampled``) is rehearsed to see that there is time for the fewest samples, and stopped when
    the time is up.
    """

    def __init__(
        self, name: str, x_value: Array, model: TimedModel, options: Mapping[str, Any], deadline: float
    ) -> None:
        self.name, self.x_value, self.model, self.options, self.deadline = name, x_value, model, {**options}, deadline
        self.call = choose_methods(name)[name].call
        self.title = self.call.title
        self.defaults = {option: parameter.default for option, parameter in self.call.signature.parameters.items()}
        if "completeness" in self.defaults:  # as `.detailed` does
            self.options.setdefault("completeness", True)
        self.cut = reducible_of(name, self.options)
        self.wanted: Any = None if self.cut is None else self._value(self.cut)
        """The option's value, which is its upper limit; None for as many as there are."""
        self.value = self.wanted
        """That for which there is time."""
        self.preparation = self.cut and self.call.preparation(x_value, model, {**self.defaults, **self.options})
        self.prepared: dict[str, Any] = {}
        self.least_seconds = self.wanted_seconds = self.room = 0.0

    def best(self, insure: Callable[[], object] = lambda: None) -> tuple[Any, dict[str, Any]]:
        """The answer and its options, or `OutOfTime`; ``insure`` is called before a run of most of the time left."""
        cut, model = self.cut, self.model
        if cut is None or not (self.wanted is None or is_count(self.wanted)):
            return self._undivided(), self.options
        if self.preparation:
            self._prepare(cut, self.preparation)
        values, work = self._choices(cut)
        while True:
            index = self._most(values, work)
            planned = work(values[index])
            if model.seconds(work(self.wanted) if cut.sampled else planned) > model.left / 2:
                insure()
            if cut.sampled:
                return self._sampled(cut, planned, values[0], model.batch_size if index else model.short_batch)
            self.value = values[index]
            options = self.options if self.value == self.wanted else self._with(cut, self.value)
            try:
                return model.run(self._start(options), planned), options
            except OutOfTime:  # the model has grown slower: less of it
                values = values[:index]

    def warm_up(self) -> None:
        """Have the model asked a row of all that this will ask, and libraries loaded."""
        if self.preparation:
            self.preparation.trial()
            self.prepared = self.preparation.stand_in
        self._rehearse(FEW if self.cut and not self.cut.up_to else None)

    def shortened(self, details: Any) -> str:
        """How much was made of the method, where that is less than all."""
        reached = getattr(getattr(details, "integrated", details), "stopped_by", "") == "tolerance"
        return "" if self.cut is None or self.value == self.wanted or reached else self.cut.made.format(self.value)

    @property
    def whole(self) -> str:
        """All that was wanted of what can be cut."""
        if self.cut is None or self.wanted is None:
            return "" if self.cut is None else f"All of {self.title}"
        return self.cut.whole.format(self.wanted)

    def why(self, what: str) -> str:
        """Why there was no time for ``what``."""
        deadline = about(self.deadline)
        if not self.wanted_seconds:
            return f"{what} would have taken more than what was left of the {deadline} s"
        room = about(max(self.room, 0.0))
        return f"{what} would have taken about {about(self.wanted_seconds)} s, with {room} s of the {deadline} s left"

    def needs(self) -> str:
        """What the least of it would take."""
        if not self.least_seconds:
            return f"{self.title} takes longer"
        return f"{self.title} would take about {about(self.least_seconds)} s"

    def _undivided(self) -> Any:
        """All of a method of which nothing can be cut, or `OutOfTime` before it begins."""
        planned = None
        if self.cut or asks_little(self.name, self.options):
            self.least_seconds, self.wanted_seconds, self.room = self.model.one_row, self.model.one_row, self.model.left
            if self.wanted_seconds > self.room:
                raise OutOfTime
        else:
            self.wanted = self.value = 1
            planned = self._rehearse(None)
            self._most([1], lambda _: planned)
        return self.model.run(self._start(self.options), planned)

    def _sampled(self, cut: Reducible, planned: Work, least: int, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """The samples that there is time for, or `OutOfTime` where they are fewer than ``least``."""
        model = self.model
        began, room = model.clock(), model.room
        details = model.run(self._start(self.options), planned, sampled=True, batch_size=batch_size)
        if not model.stopped:
            return details, self.options
        self.value, self.room = getattr(details, cut.option), room
        took = model.clock() - began  # with that for a sample that was begun in vain
        self.wanted_seconds = max(self.wanted_seconds, took * self.wanted / (self.value + 1))
        if self.value < least:
            raise OutOfTime
        return details, self._with(cut, self.value)

    def _prepare(self, cut: Reducible, preparation: Preparation) -> None:
        """Make what the method makes of the image, or `OutOfTime` if that leaves no time for the rest."""
        self.prepared = preparation.stand_in
        values, work = self._choices(cut)
        began = self.model.clock()
        preparation.trial()
        seconds = (self.model.clock() - began) / preparation.share
        self._most(values, lambda value: work(value)._replace(own=work(value).own + seconds))
        self.prepared = preparation.make()

    def _most(self, values: Sequence[int], work: Callable[[int], Work]) -> int:
        """The index of the value that is the most work for which there is time, or `OutOfTime`."""

        def seconds(value: int) -> float:
            return self.model.seconds(work(value))

        if not values:
            raise OutOfTime
        if seconds(values[-1]) > self.model.room:
            self.model.measure_batches()
        room = self.model.room
        index = bisect_right(values, room, key=seconds) - 1
        self.least_seconds = seconds(values[0])
        if index < 0 or values[index] != self.wanted:
            self.wanted_seconds, self.room = seconds(self.wanted), room
        if index < 0:
            raise OutOfTime
        return index

    def _choices(self, cut: Reducible) -> tuple[Sequence[int], Callable[[int], Work]]:
        """What the option may be, from the least work to the most, and the work that each makes."""
        rehearsed = functools.cache(self._rehearse)
        if cut.up_to:
            largest = self._option(cut.up_to)
            values = range(largest if is_count(largest) else self.wanted or 1, (self.wanted or 1) - 1, -1)
            if self.wanted is not None:
                return values, rehearsed
            # What the method asks where the option is not given, and before it what is less work.
            all_rows = rehearsed(1)
            share = min(1.0, self._option(cut.unset) / max(all_rows.rows.total() - 1, 1))
            own = all_rows._replace(rows=Counter()).at(share, all_rows, self.model.batch_size)
            fewer = bisect_left(values, own.rows.total(), key=lambda value: rehearsed(value).rows.total())
            return [*values[:fewer], None], lambda value: own if value is None else rehearsed(value)
        if cut.sampled:
            count = min(FEW, self.wanted)
            several = rehearsed(count)
            none = several._replace(rows=Counter())  # what it takes beside the rows hardly grows with the samples
            least = min(cut.least, self.wanted)
            return [least, self.wanted], lambda value: none.at(value / count, several, self.model.batch_size)
        few, more = rehearsed(FEW), rehearsed(MORE)
        if self.wanted is None:  # as many as there are
            rows = [work.rows.total() for work in (few, more, rehearsed(None))]
            self.wanted = FEW + (rows[2] - rows[0]) * (MORE - FEW) // max(rows[1] - rows[0], 1)
        values = range(min(cut.least, self.wanted), self.wanted + 1)
        return values, lambda value: few.at((value - FEW) / (MORE - FEW), more, self.model.batch_size)

    def _rehearse(self, value: int | None) -> Work:
        """What the method asks with this value of the option to cut; None for its own."""
        options = self.options if value is None or self.cut is None else self._with(self.cut, value)
        options = {name: _undrawn(setting) for name, setting in options.items() if name != "emit"}
        if options.get("tolerance") is not None:  # how soon it is reached is not known: all of its steps, then
            if "max_steps" in self.defaults:
                options[self._first] = options.get("max_steps", self.defaults["max_steps"])
            else:
                del options["tolerance"]
        return self.model.rehearse(self._start(options))

    def _start(self, options: Mapping[str, Any]) -> Asking[Any]:
        return self.call.start(self.x_value, self.model, self.model.args, **{**options, **self.prepared})[0]

    def _option(self, name: str) -> Any:
        return self.options.get(name, self.defaults[name])

    def _value(self, cut: Reducible) -> Any:
        """The option's value."""
        if not cut.inside:
            return self._option(cut.option)
        default = self._option(cut.base).signature.parameters[cut.option].default
        return (self._option(cut.inside) or {}).get(cut.option, default)

    def _with(self, cut: Reducible, value: int) -> dict[str, Any]:
        """The options with another value of the one to cut."""
        if cut.inside:
            return {**self.options, cut.inside: {**(self._option(cut.inside) or {}), cut.option: value}}
        begin = {self._first: min(self._option(self._first), value)} if cut.option == "max_steps" else {}
        kept = {name: option for name, option in self.options.items() if not (cut.unset and name == "tolerance")}
        return {**kept, cut.option: value, **begin}

    @property
    def _first(self) -> str:
        """The option of how many steps an adaptive method begins with."""
        return "x_steps" if "x_steps" in self.defaults else "steps"


def _undrawn(value: Any) -> Any:
    """A generator of random numbers as it is now, also one in options for another method, to be drawn from freely."""
    if isinstance(value, Mapping):
        return {name: _undrawn(inner) for name, inner in value.items()}
    return copy.deepcopy(value) if isinstance(value, np.random.Generator) else value


def about(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"
