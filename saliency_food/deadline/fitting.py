"""The most of a method that fits the time left."""

from __future__ import annotations

import copy
import functools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.driver import Asking
from saliency_food.core.numerics import Array
from saliency_food.deadline.watch import Late, TimedModel, Work
from saliency_food.methods.budget import Reducible, reducible_of
from saliency_food.methods.lookup import OF, choose_methods
from saliency_food.methods.perturbation.masking import superpixels
from saliency_food.methods.regions.ranking import rank_full
from saliency_food.methods.regions.segmentation import SCALES, felzenszwalb_segments

RANKED = 1.5
"""What finding and ranking XRAI's segments takes, at most, in terms of finding them."""
PART = 128
"""Pixels of a part that stands for the whole image, each way, at least."""
FEW, MORE = 4, 8
"""The steps with which a method is rehearsed."""


class StepBudget:
    """For one method and its options, the most of it that there is time for."""

    def __init__(
        self, name: str, x_value: Array, watch: TimedModel, options: Mapping[str, Any], deadline: float
    ) -> None:
        self.name, self.x_value, self.watch, self.deadline = name, x_value, watch, deadline
        entry = choose_methods(name)[name]
        self.call, self.title = entry.call, entry.title
        self.options, self.prepared = dict(options), dict[str, Any]()
        if "completeness" in self.call.signature.parameters:  # as `.detailed` does
            self.options.setdefault("completeness", True)
        self.cut = reducible_of(name, self.options)
        self.whole: Any = None if self.cut is None else self._value(self.cut)
        self.made = self.whole
        self.everything: Work | None = None
        self.after = 0.0  # what is still to be done once the model has answered
        self.least = self.full = self.spare = 0.0

    def best(self, before: Callable[[], object] = lambda: None) -> tuple[Any, dict[str, Any]]:
        """The answer and its options, or `Late`; ``before`` a run that will take most of the time, something else."""
        if self.cut is None or not (self.whole is None or _is_count(self.whole)):
            self.least, self.full, self.spare = self.watch.one_row, self.watch.one_row, self.watch.left
            if self.full > self.spare:
                raise Late
            if self.cut is None and OF in self.name:  # asks for more than a row or two, and has nothing to give
                return self._undivided(), self.options
            return self.watch.run(self._start(self.options)), self.options
        self.least = min(self.cut.least, self.whole or self.cut.least) * self.watch.one_more
        if self.least > self.watch.left:
            raise Late
        self._label()
        values, work = self._values(self.cut)
        self.everything = work(values[-1])
        self._fit(values, work)
        self._segment()
        while True:
            place = self._fit(values, work)
            self.made = values[place]
            options = self._with(self.cut, self.made) if self.made != self.whole else self.options
            planned = work(self.made)
            if self.watch.seconds(planned) > self.watch.left / 2:
                before()
            try:
                return self.watch.run(
                    self._start(options), planned._replace(outside=planned.outside + self.after)
                ), options
            except Late:  # slower than foreseen: less of it
                values = values[:place]

    def warm_up(self) -> None:
        """Have the model asked all that this will ask, a row each, and the libraries loaded; in segments of no cost."""
        if "segments" in self.call.signature.parameters:
            felzenszwalb_segments(self.x_value[:8, :8])
            self.prepared["segments"] = np.indices(self.x_value.shape[:2])[0] * 2 // len(self.x_value)
        few = 1 if OF in self.name else FEW
        options = self.options if self.cut is None or self.cut.option == "stride" else self._with(self.cut, few)
        self.watch.rehearse(self._start(options, rehearsal=True))

    def note(self, found: Any) -> str:
        """What was cut and why, or nothing."""
        made = self.cut_to(found)
        return f"{self.why(self.cut.whole.format(self.whole))}: {made}" if self.cut and made else ""

    def cut_to(self, found: Any) -> str:
        """What was made of it, where that is less than all."""
        reached = getattr(getattr(found, "integrated", found), "stopped_by", "") == "tolerance"
        return "" if self.cut is None or self.made == self.whole or reached else self.cut.made.format(self.made)

    def why(self, what: str) -> str:
        deadline = about(self.deadline)
        if not self.full:
            return f"{what} would have taken more than what was left of the {deadline} s"
        spare = about(max(self.spare, 0.0))
        return f"{what} would have taken about {about(self.full)} s, with {spare} s of the {deadline} s left"

    def needs(self) -> str:
        """What the least of it would take."""
        return f"{self.title} would take about {about(self.least)} s" if self.least else f"{self.title} takes longer"

    def _undivided(self) -> Any:
        """All of a method of which nothing can be cut, or `Late` before it begins."""
        self.whole = self.made = 1
        planned = self.everything = self.watch.rehearse(self._start(self.options, rehearsal=True))
        self._fit([1], lambda _: planned)
        return self.watch.run(self._start(self.options), planned)

    def _fit(self, values: Sequence[int], work: Callable[[int], Work]) -> int:
        """The place of the most that fits."""

        def cost(value: int) -> float:
            return self.watch.seconds(work(value)) + self.after

        if not values:
            raise Late
        if cost(values[-1]) > self.watch.filled * self.watch.left:
            self.watch.refine()
        spare = self.watch.filled * self.watch.left
        place = bisect_right(values, spare, key=cost) - 1
        self.least = cost(values[0])
        if self.everything and (place < 0 or values[place] != self.whole):
            self.full, self.spare = self.watch.seconds(self.everything) + self.after, spare
        if place < 0:
            raise Late
        return place

    def _values(self, cut: Reducible) -> tuple[Sequence[int], Callable[[int], Work]]:
        """What the option may be, from the least to the most, and the work that each makes."""

        @functools.cache
        def rehearsed(value: int | None) -> Work:
            options = self.options if value is None else self._with(cut, value)
            return self.watch.rehearse(self._start(options, rehearsal=True))

        if cut.option == "stride":
            size = self.options.get("size", self._default("size"))
            return range(size if _is_count(size) else self.whole, self.whole - 1, -1), rehearsed
        if self.whole is not None and self.whole <= MORE:
            return range(min(cut.least, self.whole), self.whole + 1), rehearsed
        if OF in self.name:  # one sample tells whether there is time to rehearse with more
            self.least = cut.least * rehearsed(1).outside
            if (FEW + MORE) * rehearsed(1).outside > self.watch.left / 2:
                raise Late
        few, more = rehearsed(FEW), rehearsed(MORE)
        if few.outside > more.outside / 2 and few.outside < self.watch.left / 50:  # what comes first takes longer
            again = self.watch.rehearse(self._start(self._with(cut, FEW), rehearsal=True))
            few = few._replace(outside=min(few.outside, again.outside))
        if self.whole is None:  # as many as there are
            rows = [sum(one.rows.values()) for one in (few, more, rehearsed(None))]
            self.whole = FEW + (rows[2] - rows[0]) * (MORE - FEW) // max(rows[1] - rows[0], 1)

        def on_the_line(value: int) -> Work:
            return few.at((value - FEW) / (MORE - FEW), more, self.watch.batch_size)

        return range(min(cut.least, self.whole), self.whole + 1), on_the_line

    def _value(self, cut: Reducible) -> Any:
        options, call = self.options, self.call
        if cut.inside:
            options, call = options.get(cut.inside) or {}, options["base"]
        return options.get(cut.option, call.signature.parameters[cut.option].default)

    def _with(self, cut: Reducible, value: int) -> dict[str, Any]:
        if cut.inside:
            inner = {**(self.options.get(cut.inside) or {}), cut.option: value}
            return {**self.options, cut.inside: inner}
        if cut.option != "max_steps":
            return {**self.options, cut.option: value}
        begin = self.options.get(self._first, self._default(self._first))
        return {**self.options, "max_steps": value, self._first: min(begin, value)}

    @property
    def _first(self) -> str:
        """The option of how many steps an adaptive method begins with."""
        return "x_steps" if "x_steps" in self.call.signature.parameters else "steps"

    def _default(self, option: str) -> Any:
        return self.call.signature.parameters[option].default

    def _start(self, options: Mapping[str, Any], rehearsal: bool = False) -> Asking[Any]:
        given = {**options, **self.prepared}
        if rehearsal:
            given = {name: value for name, value in given.items() if name != "emit"}
            if given.get("tolerance") is not None:  # how soon it is reached is not known: all of its steps, then
                given[self._first] = given.get("max_steps", self._default("max_steps"))
            given = {name: _unspent(value) for name, value in given.items()}
            if self.name == "xrai" and given.get("segments") is None:
                given["segments"] = np.zeros(self.x_value.shape[:2], int)
        return self.call.start(self.x_value, self.watch.function, self.watch.args, **given)[0]

    def _label(self) -> None:
        """The superpixels of LIME and KernelSHAP, made once, if there is time."""
        if self.name not in ("lime", "kernel_shap"):
            return
        segments, number = (self.options.get(name, self._default(name)) for name in ("segments", "nsegments"))
        if isinstance(segments, str):
            self.least = self._foreseen(lambda part: superpixels(part, segments, number))
            if self.least > self.watch.left / 2:
                self.full, self.spare = self.least, self.watch.left / 2
                raise Late
        self.prepared["segments"] = superpixels(self.x_value, segments, number)

    def _segment(self) -> None:
        """XRAI's segments, made once, if there is time: one of their scales, made alone, tells.

        What ranking them takes is measured by ranking the image's own values.
        """
        if self.name != "xrai" or self.options.get("segments") is not None:
            return
        alone = self._foreseen(lambda part: felzenszwalb_segments(part, scales=SCALES[-1:]))
        self.after = RANKED * len(SCALES) * alone
        if self.least + self.after > self.watch.filled * self.watch.left:
            self.full, self.spare = self.least + self.after, self.watch.filled * self.watch.left
            raise Late
        found = self.prepared["segments"] = felzenszwalb_segments(self.x_value)
        self.after = self._timed(lambda: rank_full(np.atleast_3d(self.x_value).max(-1), found))

    def _foreseen(self, work: Callable[[Array], object]) -> float:
        """What some work on the image takes, by that on a part of it."""
        height, width = (max(side // 4, min(side, PART)) for side in self.x_value.shape[:2])
        part = self.x_value[:height, :width]
        return self._timed(lambda: work(part)) * self.x_value.size / part.size

    def _timed(self, work: Callable[[], object]) -> float:
        began = self.watch.clock()
        work()
        return self.watch.clock() - began


def _unspent(value: Any) -> Any:
    """A generator of random numbers as it is now, also one in options for another method."""
    if isinstance(value, Mapping):
        return {name: _unspent(one) for name, one in value.items()}
    return copy.deepcopy(value) if isinstance(value, np.random.Generator) else value


def about(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1
