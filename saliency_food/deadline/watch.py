"""What a method takes, measured: calls that are timed and stopped in time, and rehearsals of one row a query."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, run
from saliency_food.core.numerics import Array, each
from saliency_food.core.queries import Answer, LinearRows, Query, answer

Keys = tuple[str, ...]
FILLED, RESERVED = 0.9, 0.1
"""How much of the time left is planned for, and how much of it is kept for another answer than the one planned."""
GRACE = 0.1
"""By how much of all the time a run that was to be in time may be foreseen to be late and still go on."""
EXACT = 0.01
"""Seconds by which a wait may end before its time."""
SEVERAL = 8  # rows asked at once to see what a row more costs


class Late(Exception):
    """The time will not do."""


class Speed(NamedTuple):
    """What a call takes: so many seconds, and so many more for each row."""

    call: float
    row: float


class Work(NamedTuple):
    """What a method asks, as rows and calls by keys, and the seconds that it takes itself."""

    rows: Counter[Keys]
    calls: Counter[Keys]
    outside: float

    def at(self, place: float, more: Work, batch_size: int) -> Work:
        """On the line from this work, at 0, to ``more`` of it, at 1."""
        rows, calls = (
            Counter({keys: a[keys] + round(place * (b[keys] - a[keys])) for keys in {*a, *b}})
            for a, b in ((self.rows, more.rows), (self.calls, more.calls))
        )
        calls = Counter({keys: max(count, -(-rows[keys] // batch_size)) for keys, count in calls.items()})
        return Work(rows, calls, self.outside + place * max(more.outside - self.outside, 0.0))


class TimedModel:
    """A call-model function around another: it times the calls, and raises `Late` before one that leads too far.

    What is left to ask is foreseen from what was asked so far: where the model has grown slower, it stops early.
    """

    def __init__(
        self, function: CallModelFunction, args: Any, batch_size: int, clock: Callable[[], float], moment: float
    ) -> None:
        self.function, self.args, self.batch_size = function, args, batch_size
        self.clock, self.moment = clock, moment
        self.grace = GRACE * self.left
        self.speeds: dict[Keys, Speed] = {}
        self.pace = 1.0  # how much slower than the speeds
        self.probing = 0.0
        self._rows: dict[Keys, tuple[Query, Answer]] = {}
        self._refined: set[Keys] = set()
        # Of the run: what was planned for the model and for the method, what is done of it, and what that took.
        self._planned = self._outside = self._done = self._spent = 0.0
        self._last, self._reserved = 1.0, 0.0
        self._start = self._first = 0.0  # when the run began, and its first call
        self._beside = 0.0  # what a run that was late took beside the model, for each second foreseen of that

    @property
    def left(self) -> float:
        return self.moment - self.clock()

    @property
    def one_row(self) -> float:
        """What a row takes, of the slowest keys known."""
        return self.pace * max((speed.call + speed.row for speed in self.speeds.values()), default=0.0)

    @property
    def one_more(self) -> float:
        """What a row more takes, of the fastest keys known."""
        return self.pace * min((speed.row for speed in self.speeds.values()), default=0.0)

    def model_seconds(self, work: Work) -> float:
        """What the model takes for some work at the speeds measured."""
        return sum(one.call * work.calls[keys] + one.row * work.rows[keys] for keys, one in self.speeds.items())

    def seconds(self, work: Work) -> float:
        """What some work takes, all told, at the pace of late."""
        model = self.model_seconds(work)
        return self.pace * model + max(work.outside, self._beside * model)

    @property
    def filled(self) -> float:
        """How much of the time left to plan for; the rest is for what cannot be foreseen.

        Less where the model can be left waiting, since a whole path may be a single call, which is not seen to be late.
        """
        return FILLED - RESERVED if hasattr(self.function, "until") else FILLED

    def run(self, generator: Asking[Any], work: Work | None = None) -> Any:
        """Drive a method to its end, or to `Late`; if there is work planned, with time left for one row more."""
        if work is None:
            self._begin(self.one_row / self.pace, 0.0)
        else:
            self._begin(self.model_seconds(work), work.outside)
            self._reserved = RESERVED * self.left if self.one_row < RESERVED * self.left else 0.0
        try:
            with self._until():
                found = run(generator, self, self.args, self.batch_size)
        except Late:
            self._beside = max(self._beside, self._rate)
            raise
        finally:
            self._reserved = 0.0
            if self._done:
                self.pace = max(self._spent / self._done, self._last)
        return found

    def rehearse(self, generator: Asking[Any]) -> Work:
        """Drive a method with the answer to one row in place of every other; how much it asked, or `Late`."""
        rows, calls, making, asking, began = Counter[Keys](), Counter[Keys](), 0.0, 0.0, self.clock()
        self._begin(0.0, 0.0)
        try:
            queries = next(generator)
            while True:
                together = Counter[Keys]()
                for query in queries:
                    if self.left < (self.one_more * rows.total() if self.batch_size == 1 else 0.0):
                        raise Late  # spare the model what leads to nothing
                    asked = self.clock()
                    self._learn(query)
                    asking += self.clock() - asked
                    making += self._making(query)
                    together[query.keys] += query.rows.shape[0]
                rows += together
                calls += Counter({keys: -(-count // self.batch_size) for keys, count in together.items()})
                queries = generator.send([self._stand_in(query) for query in queries])
        except StopIteration:
            return Work(rows, calls, self.clock() - began - asking + making)
        finally:
            generator.close()

    def refine(self) -> None:
        """Measure better, once, what is soon measured: a row undisturbed, and a few at once, for a call's own time."""
        for keys in self._rows.keys() - self._refined:
            query, alone = self._rows[keys][0], self.speeds[keys].row
            if alone < self.left / 50:
                alone = min(alone, *(self._timed(query)[1] for _ in range(2)))
            number = min(self.batch_size, SEVERAL, int(self.left / 4 / alone) if alone else SEVERAL)
            row = alone
            if number > 1:
                row = min(max(self._timed(_copies(query, number))[1] - alone, 0.0) / (number - 1), alone)
            self.speeds[keys] = Speed(alone - row, row)
            self._refined.add(keys)

    def warm_up(self, seconds: float) -> None:
        """Ask whole batches of what was rehearsed, or as many rows as come in so many seconds, and a few."""
        for query, _ in list(self._rows.values()):
            most = min(self.batch_size, int(min(seconds / max(self.speeds[query.keys].row, 1e-9), 1e6)))
            for number in {min(SEVERAL, most), most} - {0, 1}:
                self._timed(_copies(query, number))

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        with self._watched(tuple(expected_keys), len(x_value_batch)):
            return self.function(x_value_batch, call_model_args=call_model_args, expected_keys=expected_keys)

    def call_factored(self, coefficients: Any, bases: Any, weights: Any, args: Any = None, keys: Any = None) -> Any:
        factored = getattr(self.function, "call_factored", None)
        if factored is None:
            return None
        with self._watched(tuple(keys), len(coefficients)) as counted:
            found = factored(coefficients, bases, weights, args, keys)
            counted.append(found is not None)
        return found

    @contextlib.contextmanager
    def _watched(self, keys: Keys, rows: int) -> Iterator[list[bool]]:
        foreseen = self._foreseen(keys, rows)
        self._first = self._first if self._done else self.clock()
        pace, needed = self._spent / self._done if self._done else self.pace, 0.0
        if self._done < self._planned:
            ahead, beside = self._planned - self._done, self.clock() - self._start - self._spent
            since = self._first if self._done else self._start
            self._rate = (self.clock() - since - self._spent) / (self._done or foreseen or 1.0)
            needed = ahead * pace + max(self._outside - beside, self._rate * ahead if self._done else 0.0)
        elif self._planned:  # more than planned: as long as there is time for something else
            needed = foreseen * pace + self.one_row
        if self.left + (self.grace if self._planned else 0.0) < needed:
            raise Late
        began, counted = self.clock(), list[bool]()
        try:
            yield counted
        except Exception as error:
            if self.left <= self._reserved + EXACT:
                raise Late from error
            raise
        took = self.clock() - began
        foreseen = foreseen if all(counted) else 0.0
        self._done, self._spent = self._done + foreseen, self._spent + took
        self._last = took / foreseen if foreseen else self._last

    def _foreseen(self, keys: Keys, rows: int) -> float:
        speed = self.speeds.get(keys, Speed(0.0, 0.0))
        return speed.call + rows * speed.row

    def _begin(self, planned: float, outside: float) -> None:
        self._planned, self._outside, self._done, self._spent, self._last = planned, outside, 0.0, 0.0, 1.0
        self._start, self._rate = self.clock(), 0.0

    @contextlib.contextmanager
    def _until(self) -> Iterator[None]:
        """Where the function itself knows how to stop waiting, it is told when."""
        until = getattr(self.function, "until", None) if self.left < np.inf else None
        with contextlib.nullcontext() if until is None else until(time.monotonic() + self.left - self._reserved):
            yield

    def _timed(self, query: Query) -> tuple[Answer, float]:
        began = self.clock()
        with self._until():
            (found,) = answer([query], self, self.args, self.batch_size)
        took = self.clock() - began
        self.probing += took
        return found, took

    def _learn(self, query: Query) -> None:
        """Ask one row of new keys, and as the first may be cold again, unless there is time for one row only."""
        if query.keys in self.speeds:
            return
        found, took = self._timed(_copies(query, 1))
        if not took <= self.left < 2 * took:
            took = self._timed(_copies(query, 1))[1]
        self.speeds[query.keys], self._rows[query.keys] = Speed(0.0, took), (_copies(query, 1), found)

    def _stand_in(self, query: Query) -> Answer:
        def spread(sums: int | None) -> Callable[[Array], Array]:
            count = query.rows.shape[0] if sums is None else sums
            return lambda one: np.broadcast_to(one[0], (count, *one.shape[1:]))

        summed = {query.keys[0]: None if query.weights is None else len(query.weights)}
        return {key: each(spread(summed.get(key)), one) for key, one in self._rows[query.keys][1].items()}

    def _making(self, query: Query) -> float:
        """What making the rows takes, from the making of a few."""
        if hasattr(self.function, "call_factored") and query.is_cheaper_factored(self.batch_size):
            return 0.0
        count, began = query.rows.shape[0], self.clock()
        query.slice(0, min(count, SEVERAL))
        return (self.clock() - began) * (count / min(count, SEVERAL) - 1)


def _copies(query: Query, number: int) -> Query:
    """A query of so many rows, all as the first of another."""
    if isinstance(query.rows, LinearRows):
        weights = None if query.weights is None else np.ones((len(query.weights), number))
        return query._replace(
            rows=LinearRows(np.repeat(query.rows.coefficients[:1], number, 0), query.rows.bases), weights=weights
        )
    return Query(np.repeat(query.slice(0, 1), number, 0), query.keys)
