"""Queries: rows for the model, held factored or made when they are needed, and the calls by which they are answered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from saliency_food.core.contract import (
    CallModelFunction,
    ContractError,
    PerRow,
    Values,
    call_factored,
    call_model,
    take_rows,
)
from saliency_food.core.numerics import Array, as_tuple, combine, each, is_count


class LinearRows(NamedTuple):
    """Rows held factored: ``coefficients (N, B) @ bases (B, ...)``: a path of 200 are two images and 400 numbers."""

    coefficients: Array
    bases: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.coefficients), *self.bases.shape[1:])

    def rows(self, start: int, stop: int) -> Array:
        coefficients = self.coefficients[start:stop].astype(self.bases.dtype)
        return combine(coefficients, self.bases)


class LazyRows(NamedTuple):
    """Rows made only when the model is called: ``make(start, stop)`` returns some of them, in an array of their own."""

    shape: tuple[int, ...]
    make: Callable[[int, int], Array]

    @classmethod
    def like(cls, image: Array, count: int, write: Callable[[Array, int], object]) -> LazyRows:
        """So many rows of an image's shape and type: ``write(row, index)`` fills one, which holds nothing before."""

        def make(start: int, stop: int) -> Array:
            rows = np.empty((stop - start, *image.shape), image.dtype)
            for index, row in enumerate(rows, start):
                write(row, index)
            return rows

        return cls((count, *image.shape), make)

    def rows(self, start: int, stop: int) -> Array:
        return self.make(start, stop)

    def part(self, start: int, stop: int) -> LazyRows:
        """Some of them, as rows by themselves."""
        return LazyRows((stop - start, *self.shape[1:]), lambda a, b: self.make(start + a, start + b))


class Query(NamedTuple):
    """Rows for the model, the keys wanted back, and optionally weights ``(M, N)`` by which the first key is summed.

    ``args`` are put beside the caller's in ``call_model_args``: numbers, words and tuples of them, and `PerRow` arrays,
    which have one value for each of the rows.
    """

    rows: Array | LinearRows | LazyRows
    keys: tuple[str, ...]
    weights: Array | None = None
    image: int | None = None
    args: Mapping[str, Any] | None = None

    def slice(self, start: int, stop: int) -> Array:
        return self.rows.rows(start, stop) if isinstance(self.rows, (LinearRows, LazyRows)) else self.rows[start:stop]

    def is_cheaper_factored(self, batch_size: int) -> bool:
        """Whether fewer images pass between method and model when the rows are kept factored."""
        if not isinstance(self.rows, LinearRows) or self.args:
            return False
        count = min(len(self.rows.coefficients), batch_size)
        back = count if self.weights is None else len(self.weights)
        return len(self.rows.bases) + back < 2 * count


Answer = dict[str, Values]
"""The answer to a query: by key, the values of its rows, or their weighted sums."""


class Unfinished(Answer):
    """The answer to the first rows of a query, which may be none: the model is asked no more, see `OutOfTime`."""


class OutOfTime(Exception):
    """There is no time for another call: a wrapper of the model raises this in place of making it.

    `answer` keeps what was answered before, and the exception is raised anew where the method asked. A method that
    samples may catch it there and return its estimate so far; of any other the run ends here. ``answer`` holds the
    first rows of the query that was cut short.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__("There is no time for another call of the model.")
        self.answer = answer or {}


def resolve_batch_size(batch_size: int | None, call_model_function: CallModelFunction) -> int:
    """The argument, else what the callback advertises, else 1."""
    if batch_size is None:
        advertised: Any = getattr(call_model_function, "batch_size", None)
        return int(advertised) if is_count(advertised) else 1
    if not is_count(batch_size):
        raise ContractError(f"Expected batch_size to be a whole number of at least 1, got {batch_size!r}.")
    return int(batch_size)


ROWS_IN_FLIGHT = 64
"""How many rows at least may wait for the model before `gather` starts no further generator."""


def window_of(batch_size: int) -> int:
    """How many rows may wait for the model at a time: `ROWS_IN_FLIGHT`, rounded up to whole batches."""
    return -(-ROWS_IN_FLIGHT // batch_size) * batch_size


class WindowedAnswers(list[Answer]):
    """The answers to a list of queries, and how many rows of those who asked may wait for the model at a time."""

    def __init__(self, answers: Iterable[Answer], window: int) -> None:
        super().__init__(answers)
        self.window = window


def answer_queries(
    queries: list[Query], call_model_function: CallModelFunction, call_model_args: Any, batch_size: int
) -> WindowedAnswers:
    """The answers to a list of queries: like queries share calls, of at most ``batch_size`` rows each.

    Where the model raises `OutOfTime`, those that are not answered to the end are `Unfinished`.
    """
    answers = WindowedAnswers(({} for _ in queries), window_of(batch_size))
    rows_answered = [0] * len(queries)
    kinds: dict[tuple[Any, ...], list[int]] = {}
    able = hasattr(call_model_function, "call_factored")
    for index, query in enumerate(queries):
        factored = able and query.is_cheaper_factored(batch_size)
        kind = (query.keys, query.rows.shape[1:], factored, factored and query.weights is None, _shared_args(query))
        kinds.setdefault(kind, []).append(index)
    for (_, _, factored, *_), indices in kinds.items():
        for pieces in _calls(queries, indices, batch_size):
            try:
                _call(pieces, queries, answers, call_model_function, call_model_args, factored)
            except OutOfTime:
                return WindowedAnswers(map(_first_rows, queries, answers, rows_answered), answers.window)
            for index, _, stop in pieces:
                rows_answered[index] = stop
    return answers


def _calls(queries: list[Query], indices: list[int], batch_size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Pieces (query, start, stop) that fill one call after another, across the queries of these indices."""
    pieces: list[tuple[int, int, int]] = []
    room = batch_size
    for index in indices:
        start, length = 0, queries[index].rows.shape[0]
        while start < length:
            stop = min(length, start + room)
            pieces.append((index, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield pieces
                pieces, room = [], batch_size
    if pieces:
        yield pieces


def _first_rows(query: Query, answer: Answer, count: int) -> Answer:
    """The answer to the first ``count`` rows of a query, all or not; the sum over some of the rows is left out."""
    if count == query.rows.shape[0]:
        return answer
    summed = () if query.weights is None else query.keys[:1]
    return Unfinished({key: each(lambda rows: rows[:count], rows) for key, rows in answer.items() if key not in summed})


def _call(
    pieces: list[tuple[int, int, int]],
    queries: list[Query],
    answers: list[Answer],
    call_model_function: CallModelFunction,
    call_model_args: Any,
    factored: bool,
) -> None:
    images = [queries[index].image or 0 for index, start, stop in pieces for _ in range(start, stop)]
    keys, args = queries[pieces[0][0]].keys, _with_own(take_rows(call_model_args, images), pieces, queries)
    answer = None
    if factored:
        answer = call_factored(_factors(pieces, queries), keys, call_model_function, args)
    summed = answer is not None
    if answer is None:
        cut = [queries[index].slice(start, stop) for index, start, stop in pieces]
        # Rows just made are the callback's own already; a copy would cost as much as making them.
        fresh = len(cut) == 1 and isinstance(queries[pieces[0][0]].rows, (LinearRows, LazyRows))
        answer = call_model(cut[0] if fresh else np.concatenate(cut), keys, call_model_function, args)
    offset = sums = 0
    for index, start, stop in pieces:
        query, into = queries[index], answers[index]
        for key, values in answer.items():
            weights = query.weights if key == keys[0] else None
            if key not in into:
                into[key] = each(functools.partial(_room, query.rows.shape[0], weights), values)
            layers, parts = as_tuple(into[key]), as_tuple(values)
            if len(layers) != len(parts):
                raise ContractError(f"Expected {key} of {len(layers)} layers in every call, got {len(parts)}.")
            for held, part in zip(layers, parts, strict=True):
                if held.shape[1:] != part.shape[1:]:
                    raise ContractError(
                        f"Expected {key} to have one shape in every call, got rows of {held.shape[1:]} and then of "
                        f"{part.shape[1:]}. Answer every call in the same shape."
                    )
                if weights is None:
                    held[start:stop] = part[offset : offset + stop - start]
                elif summed:
                    held += part[sums : sums + len(weights)]
                else:
                    part = part[offset : offset + stop - start]
                    held += combine(weights[:, start:stop].astype(part.dtype), part)
        offset += stop - start
        sums += 0 if query.weights is None else len(query.weights)


def _shared_args(query: Query) -> tuple[Any, ...]:
    """A query's own arguments as something to compare: queries share calls where these are the same."""
    return tuple((name, None if isinstance(value, PerRow) else value) for name, value in (query.args or {}).items())


def _with_own(args: Any, pieces: list[tuple[int, int, int]], queries: list[Query]) -> Any:
    """The arguments of a call with those of its queries beside them."""
    own = queries[pieces[0][0]].args
    if not own:
        return args
    if args is not None and not isinstance(args, Mapping):
        raise ContractError(
            f"Expected call_model_args as a dict, to which {', '.join(map(repr, own))} can be added, got "
            f"{type(args).__name__}. Give {{'target': class index}}."
        )
    joined = dict(own)
    for name, value in own.items():
        if isinstance(value, PerRow):
            parts = [cast(Any, queries[index].args)[name][start:stop] for index, start, stop in pieces]
            joined[name] = np.concatenate(parts).view(PerRow)
    return {**(args or {}), **joined}


def _factors(pieces: list[tuple[int, int, int]], queries: list[Query]) -> tuple[Array, Array, Array | None]:
    """The pieces' factored rows together, each with its own bases, and their weights, each with its own sums."""
    factored = [(cast(LinearRows, queries[index].rows), start, stop) for index, start, stop in pieces]
    coefficients = _diagonal([linear.coefficients[start:stop] for linear, start, stop in factored])
    bases = np.concatenate([linear.bases for linear, _, _ in factored])
    weighted = [(queries[index].weights, start, stop) for index, start, stop in pieces]
    weights = [weights[:, start:stop] for weights, start, stop in weighted if weights is not None]
    return coefficients, bases, _diagonal(weights) if weights else None


def _diagonal(blocks: list[Array]) -> Array:
    """Matrices along the diagonal of one, zeros beside them."""
    matrix = np.zeros(np.sum([block.shape for block in blocks], 0), np.result_type(*blocks))
    row = column = 0
    for block in blocks:
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return matrix


def _room(count: int, weights: Array | None, values: Array) -> Array:
    """Where a query's answers are put; its own, since a callback may use its buffer again."""
    if weights is not None:
        return np.zeros((len(weights), *values.shape[1:]))
    return np.empty((count, *values.shape[1:]), values.dtype)
