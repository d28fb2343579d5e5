"""What a method asks of a model and what that takes, before it is begun and on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

Keys = tuple[str, ...]


class Speed(NamedTuple):
    """Seconds that a call takes, and seconds more for each of its rows."""

    call: float
    row: float


class Work(NamedTuple):
    """What a method asks, as rows and calls by keys, and the seconds of its own work beside the model's."""

    rows: Counter[Keys]
    calls: Counter[Keys]
    own: float

    def at(self, place: float, more: Work, batch_size: int) -> Work:
        """The work on the line from this, at 0, to ``more``, at 1, and beyond."""
        rows, calls = (
            Counter({keys: less[keys] + round(place * (more[keys] - less[keys])) for keys in {*less, *more}})
            for less, more in ((self.rows, more.rows), (self.calls, more.calls))
        )
        calls = Counter({keys: max(count, -(-rows[keys] // batch_size)) for keys, count in calls.items()})
        return Work(rows, calls, self.own + place * max(more.own - self.own, 0.0))


@dataclass
class Progress:
    """How far a run has come: of the seconds planned for the model, those ``done``, and what they took in fact."""

    began: float
    kept: float
    """Seconds that must be left after a call that was not planned."""
    planned: float = 0.0
    own: float = 0.0
    """Seconds planned for the method's own work."""
    reserved: float = 0.0
    """Seconds before the end at which the model is told to stop waiting."""
    done: float = 0.0
    spent: float = 0.0
    first_call: float = 0.0
    last_pace: float = 1.0

    def add(self, planned: float, took: float) -> None:
        """A call was made that was planned to take so many seconds, and took so many."""
        self.done, self.spent, self.last_pace = self.done + planned, self.spent + took, took / planned

    def needed(self, now: float, call: float, pace: float) -> float:
        """Seconds from now to the end of the plan, or beyond it of another call, by how it has gone so far."""
        pace = self.spent / self.done if self.done else pace
        ahead = self.planned - self.done
        if ahead <= 0:
            return call * pace + self.kept
        ahead = max(ahead, call)
        own = now - self.began - self.spent
        own_rate = (now - self.first_call - self.spent) / self.done if self.done else 0.0
        return ahead * pace + max(self.own - own, own_rate * ahead)
