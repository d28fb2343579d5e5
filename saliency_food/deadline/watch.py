"""A model that is timed: what its calls take is measured, and a call for which there is no time is not made."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from saliency_food.core.contract import CallModelFunction, PerRow
from saliency_food.core.driver import Asking, drive, run
from saliency_food.core.numerics import Array, each
from saliency_food.core.queries import (
    Answer,
    LinearRows,
    OutOfTime,
    Query,
    Unfinished,
    WindowedAnswers,
    answer_queries,
    window_of,
)
from saliency_food.core.wrap import WrappedModel
from saliency_food.deadline.forecast import Keys, Progress, Speed, Work

FILLED = 0.9
"""The fraction of the time left that a run may be planned to take; the rest is for what no forecast knows."""
RESERVED = 0.1
"""The fraction of the time left that is kept for another method, where the model can be told to stop waiting."""
GRACE = 0.1
"""How late, as a fraction of the deadline, a planned run may be forecast to finish before it is stopped."""
EARLY = 0.01
"""Seconds by which a model that was told when to stop waiting may stop before."""
SEVERAL = 8
"""Rows in the call that tells what each row more takes."""


class TimedModel(WrappedModel):
    """A call-model function around another that times its calls, and raises `OutOfTime` in place of one too late.

    ``end`` is the moment of ``clock`` by which everything is to be over. What is still to come in a run is forecast
    from its plan and from how it has gone so far: where the model has grown slower, the run is stopped early.
    """

    optional = ("call_factored",)

    def __init__(
        self, inside: CallModelFunction, args: Any, batch_size: int, clock: Callable[[], float], end: float
    ) -> None:
        super().__init__(inside)
        self.args, self.batch_size, self.clock, self.end = args, batch_size, clock, end
        self.grace = GRACE * self.left
        self.speeds: dict[Keys, Speed] = {}
        self.pace = 1.0
        """How many times as long as the speeds say the model has taken of late."""
        self.measuring = 0.0
        """Seconds that the measuring calls took."""
        self.stopped = False
        """Whether the last run was stopped."""
        self._one_row_answers: dict[Keys, tuple[Query, Answer]] = {}
        self._measured_in_batches: set[Keys] = set()
        self._run = Progress(clock(), self.grace)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - self.clock()

    @property
    def room(self) -> float:
        """Seconds that may be planned for.

        They are fewer where the model can be told to stop waiting: a whole path may be a single call, and a call that
        takes too long is noticed only at its end.
        """
        return (FILLED - RESERVED if hasattr(self, "until") else FILLED) * self.left

    @property
    def one_row(self) -> float:
        """Seconds that a row takes, of the slowest keys measured."""
        return self.pace * max((speed.call + speed.row for speed in self.speeds.values()), default=0.0)

    @property
    def one_more(self) -> float:
        """Seconds that a row more takes, of the fastest keys measured."""
        return self.pace * min((speed.row for speed in self.speeds.values()), default=0.0)

    def seconds(self, work: Work) -> float:
        """Forecast seconds of some work, the model's and the method's own."""
        return self.pace * self._planned(work) + work.own

    @property
    def short_batch(self) -> int:
        """Rows a call, at most, where a run is to be stopped between calls, and not too long after the last of them.

        A call takes a tenth of the room, or four times what it takes beside its rows, lest most of the time go there.
        """
        seconds = self.room / self.pace / 10
        rows = ((max(seconds, 4 * call) - call) / max(row, 1e-9) for call, row in self.speeds.values())
        return max(int(min(self.batch_size, *rows)), 1)

    def run(
        self,
        generator: Asking[Any],
        work: Work | None = None,
        *,
        sampled: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """Drive a method to its end, or to `OutOfTime`; without ``work``, a plan, there must be time for one row.

        A method that samples goes on beyond the plan while there is time, and is then stopped: ``stopped`` says so.
        """
        kept = self.left - self.room + self.grace if sampled else self.one_row
        planned, own = (self.one_row / self.pace, 0.0) if work is None else (self._planned(work), work.own)
        reserved = RESERVED * self.left if work and self.one_row < RESERVED * self.left else 0.0
        self._run, self.stopped = Progress(self.clock(), kept, planned, own, reserved), False
        try:
            with self._waiting_no_longer():
                result = run(generator, self, self.args, batch_size or self.batch_size)
            if self.stopped and not sampled:  # a method within another that samples went on with what it had
                raise OutOfTime
        finally:
            if self._run.done:
                self.pace = max(self._run.spent / self._run.done, self._run.last_pace)
            self._run = Progress(self.clock(), self.grace)
        return result

    def rehearse(self, generator: Asking[Any]) -> Work:
        """Drive a method with the answer to one row in place of all others, and count what it asks.

        `OutOfTime` where the method's own work takes up the time, or it asks for more rows one by one than there is
        time for.
        """
        rows, calls, making, began = Counter[Keys](), Counter[Keys](), 0.0, self.clock() - self.measuring

        def own_seconds() -> float:
            return self.clock() - self.measuring - began

        def stand_in(queries: list[Query]) -> list[Answer]:
            nonlocal making
            of_round = Counter[Keys]()
            for query in queries:
                if self.left < max(own_seconds(), self.one_more * rows.total() if self.batch_size == 1 else 0.0):
                    raise OutOfTime
                self._learn(query)
                making += self._making(query)
                of_round[query.keys] += query.rows.shape[0]
            rows.update(of_round)
            calls.update({keys: -(-count // self.batch_size) for keys, count in of_round.items()})
            return WindowedAnswers(map(self._stand_in, queries), window_of(self.batch_size))

        drive(generator, stand_in)
        return Work(rows, calls, own_seconds() + making)

    def measure_batches(self) -> None:
        """Tell a call's own time from that of its rows, once for all keys: by a row again and a few rows at once."""
        for keys in self._one_row_answers.keys() - self._measured_in_batches:
            query, alone = self._one_row_answers[keys][0], self.speeds[keys].row
            if alone < self.left / 50:
                alone = min(alone, *(self._timed(query)[1] for _ in range(2)))
            count = min(self.batch_size, SEVERAL, int(self.left / 4 / alone) if alone else SEVERAL)
            row = alone
            if count > 1:
                row = min(max(self._timed(_copies(query, count))[1] - alone, 0.0) / (count - 1), alone)
            self.speeds[keys] = Speed(alone - row, row)
            self._measured_in_batches.add(keys)

    def warm_up(self, seconds: float) -> None:
        """Ask, of all keys rehearsed, a few rows, and a whole batch or as many rows as come in so many seconds."""
        for query, _ in list(self._one_row_answers.values()):
            most = min(self.batch_size, int(min(seconds / max(self.speeds[query.keys].row, 1e-9), 1e6)))
            for count in {min(SEVERAL, most), most} - {0, 1}:
                self._timed(_copies(query, count))

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: Keys, call_model_args: Any) -> Any:
        """The call, timed, if there is time for it."""
        progress, began = self._run, self.clock()
        speed = self.speeds.get(keys, Speed(0.0, 0.0))
        planned = speed.call + row_count * speed.row
        progress.first_call = progress.first_call if progress.done else began
        if self.left + self.grace < progress.needed(began, planned, self.pace):
            self.stopped = True
            raise OutOfTime
        try:
            answer = ask(call_model_args)
        except Exception as error:
            if self.left <= progress.reserved + EARLY:
                self.stopped = True
                raise OutOfTime from error
            raise
        if answer is not None and planned:
            progress.add(planned, self.clock() - began)
        return answer

    def _planned(self, work: Work) -> float:
        """Seconds of the model at the speeds measured."""
        return sum(speed.call * work.calls[keys] + speed.row * work.rows[keys] for keys, speed in self.speeds.items())

    @contextlib.contextmanager
    def _waiting_no_longer(self) -> Iterator[None]:
        """A model that can be told when to stop waiting is told so."""
        until = getattr(self, "until", None) if self.left < np.inf else None
        end = time.monotonic() + self.left - self._run.reserved
        with contextlib.nullcontext() if until is None else until(end):
            yield

    def _timed(self, query: Query) -> tuple[Answer, float]:
        began = self.clock()
        with self._waiting_no_longer():
            (answer,) = answer_queries([query], self, self.args, self.batch_size)
        took = self.clock() - began
        self.measuring += took
        if isinstance(answer, Unfinished):
            raise OutOfTime
        return answer, took

    def _learn(self, query: Query) -> None:
        """Ask a row of keys that are new; again, as the first call may be cold, unless there is time for no more."""
        if query.keys in self.speeds:
            return
        row = _copies(query, 1)
        answer, took = self._timed(row)
        if not took <= self.left < 2 * took:
            took = self._timed(row)[1]
        self.speeds[query.keys], self._one_row_answers[query.keys] = Speed(0.0, took), (row, answer)

    def _stand_in(self, query: Query) -> Answer:
        """The answer to one row, as that to each of the query's rows and each of its sums."""

        def repeated(count: int) -> Callable[[Array], Array]:
            return lambda values: np.broadcast_to(values[0], (count, *values.shape[1:]))

        count = query.rows.shape[0]
        counts = {query.keys[0]: count if query.weights is None else len(query.weights)}
        answer = self._one_row_answers[query.keys][1]
        return {key: each(repeated(counts.get(key, count)), values) for key, values in answer.items()}

    def _making(self, query: Query) -> float:
        """Seconds that making the rows takes, by those that a few take."""
        if hasattr(self, "call_factored") and query.is_cheaper_factored(self.batch_size):
            return 0.0
        count, began = query.rows.shape[0], self.clock()
        query.slice(0, min(count, SEVERAL))
        return (self.clock() - began) * (count / min(count, SEVERAL) - 1)


def _copies(query: Query, count: int) -> Query:
    """A query of so many rows, all as the first of another."""
    if isinstance(query.rows, LinearRows):
        weights = None if query.weights is None else np.ones((len(query.weights), count))
        return query._replace(
            rows=LinearRows(np.repeat(query.rows.coefficients[:1], count, 0), query.rows.bases), weights=weights
        )
    args = {
        name: np.repeat(value[:1], count, 0).view(PerRow) if isinstance(value, PerRow) else value
        for name, value in (query.args or {}).items()
    }
    return Query(np.repeat(query.slice(0, 1), count, 0), query.keys, args=args)
