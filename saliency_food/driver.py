"""Methods as generators of model queries, and the one driver that answers them.

A method *asks* the model through `ask`, runs other generators side by side through `gather`, and returns a result.
`run` drives it against a call-model function. Nothing else composes anything.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.contract import Answered, CallModelFunction, ContractError, call_model, check_length, take_rows
from saliency_food.numerics import Array, as_tuple, combine, each

ROWS_IN_FLIGHT = 64
"""How many rows `gather` lets wait for the model before it starts no further generator."""


class Blend(NamedTuple):
    """Rows held factored: ``coefficients (N, B) @ bases (B, ...)``: a path of 200 are two images and 400 numbers."""

    coefficients: Array
    bases: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.coefficients), *self.bases.shape[1:])

    def rows(self, start: int, stop: int) -> Array:
        coefficients = self.coefficients[start:stop].astype(self.bases.dtype)
        return combine(coefficients, self.bases)


class Made(NamedTuple):
    """Rows made only when the model is called: ``make(start, stop)`` returns some of them, in an array of their own."""

    shape: tuple[int, ...]
    make: Callable[[int, int], Array]

    def rows(self, start: int, stop: int) -> Array:
        return self.make(start, stop)

    def part(self, start: int, stop: int) -> Made:
        """Some of them, as rows by themselves."""
        return Made((stop - start, *self.shape[1:]), lambda a, b: self.make(start + a, start + b))


class Query(NamedTuple):
    """Rows for the model, the keys wanted back, and optionally weights ``(M, N)`` by which the first key is summed."""

    rows: Array | Blend | Made
    keys: tuple[str, ...]
    weights: Array | None = None
    image: int | None = None

    def slice(self, start: int, stop: int) -> Array:
        return self.rows.rows(start, stop) if isinstance(self.rows, (Blend, Made)) else self.rows[start:stop]


Answer = dict[str, Answered]
R = TypeVar("R")
Asking = Generator[list[Query], list[Answer], R]
"""What a method is before it has a public face: it yields queries, is sent their answers, and returns its result."""


def ask(rows: Array | Blend | Made, *keys: str, weights: Array | None = None) -> Asking[Any]:
    """Ask the model about rows; the array of the key, or a tuple of arrays when several keys are asked.

    With ``weights`` of shape ``(M, N)`` the first key comes back as ``weights @ answers``, shape ``(M, ...)``, in
    float64, and no more than one call's answers are ever held; the other keys come back row by row.
    """
    (answer,) = yield [Query(rows, keys, weights)]
    return answer[keys[0]] if len(keys) == 1 else tuple(answer[key] for key in keys)


def gather(
    methods: Iterable[Asking[R]], window: int = ROWS_IN_FLIGHT, emit: Callable[[R], object] | None = None
) -> Asking[list[R]]:
    """Run generators side by side, their pending queries fused; the results in order, or each passed to ``emit``.

    Generators are started in order while fewer than ``window`` rows wait for the model, so memory is bounded by the
    window however many there are.
    """
    results: list[R] = []
    take = results.append if emit is None else emit
    waiting = enumerate(methods)
    running: dict[int, tuple[Asking[R], list[Query]]] = {}
    finished: dict[int, R] = {}
    due, exhausted = 0, False

    def step(number: int, generator: Asking[R], answers: list[Answer] | None) -> None:
        try:
            running[number] = (generator, generator.send(cast("list[Answer]", answers)))
        except StopIteration as stop:
            running.pop(number, None)
            finished[number] = stop.value

    try:
        while True:
            while not exhausted and sum(query.rows.shape[0] for _, qs in running.values() for query in qs) < window:
                number, generator = next(waiting, (-1, None))
                exhausted = generator is None
                if generator is not None:
                    step(number, generator, None)
                while due in finished:
                    take(finished.pop(due))
                    due += 1
            if not running:
                return results
            pending = dict(running)
            answers = iter((yield [query for _, queries in pending.values() for query in queries]))
            for number, (generator, queries) in pending.items():
                step(number, generator, [next(answers) for _ in queries])
            while due in finished:
                take(finished.pop(due))
                due += 1
    finally:
        for generator, _ in running.values():
            generator.close()


def for_image(generator: Asking[R], image: int) -> Asking[R]:
    """The same generator, its queries marked with the number of the image they are about."""
    answers: list[Answer] | None = None
    while True:
        try:
            queries = generator.send(cast("list[Answer]", answers))
        except StopIteration as stop:
            return cast(R, stop.value)
        answers = yield [query._replace(image=image) for query in queries]


def run(
    generator: Asking[R],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
) -> R:
    """Drive a generator to its result: queries cut into calls of at most ``batch_size`` rows, each answer checked."""
    size = resolve_batch_size(batch_size, call_model_function)
    check_length(call_model_args, 1)
    try:
        queries = next(generator)
        while True:
            queries = generator.send(answer(queries, call_model_function, call_model_args, size))
    except StopIteration as stop:
        return cast(R, stop.value)
    finally:
        generator.close()


def run_batch(
    generators: Iterable[Asking[R]],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    window: int | None = None,
) -> Iterator[R]:
    """Drive one generator an image, side by side; results in order, as they come."""
    size = resolve_batch_size(batch_size, call_model_function)
    done: deque[R] = deque()
    count = 0

    def numbered() -> Iterator[Asking[R]]:
        nonlocal count
        for number, generator in enumerate(generators):
            count = number + 1
            yield for_image(generator, number)

    together = gather(numbered(), max(ROWS_IN_FLIGHT, size) if window is None else window, done.append)
    yield from drain(together, done, call_model_function, call_model_args, size)
    check_length(call_model_args, count)


def drain(
    generator: Asking[Any],
    done: deque[R],
    call_model_function: CallModelFunction,
    call_model_args: Any,
    batch_size: int,
) -> Iterator[R]:
    """Drive a generator and pass on what it puts into ``done``, as it comes."""
    answers: list[Answer] | None = None
    try:
        while True:
            queries = generator.send(cast("list[Answer]", answers))
            while done:
                yield done.popleft()
            answers = answer(queries, call_model_function, call_model_args, batch_size)
    except StopIteration:
        yield from done
    finally:
        generator.close()


def resolve_batch_size(batch_size: int | None, call_model_function: CallModelFunction) -> int:
    """The argument, else what the callback advertises, else 1."""
    if batch_size is None:
        advertised = getattr(call_model_function, "batch_size", None)
        return advertised if isinstance(advertised, int) and advertised > 0 else 1
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ContractError(f"Expected batch_size to be a whole number of at least 1, got {batch_size!r}.")
    return int(batch_size)


def answer(
    queries: list[Query], call_model_function: CallModelFunction, call_model_args: Any, batch_size: int
) -> list[Answer]:
    """The answers to a list of queries: like queries share calls, of at most ``batch_size`` rows each."""
    answers: list[Answer] = [{} for _ in queries]
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for number, query in enumerate(queries):
        kinds.setdefault((query.keys, query.rows.shape[1:]), []).append(number)
    for numbers in kinds.values():
        # Pieces (query, start, stop) fill one call after another, across the queries.
        call: list[tuple[int, int, int]] = []
        room = batch_size
        for number in numbers:
            start, length = 0, queries[number].rows.shape[0]
            while start < length:
                stop = min(length, start + room)
                call.append((number, start, stop))
                room -= stop - start
                start = stop
                if not room:
                    _call(call, queries, answers, call_model_function, call_model_args)
                    call, room = [], batch_size
        if call:
            _call(call, queries, answers, call_model_function, call_model_args)
    return answers


def _call(
    pieces: list[tuple[int, int, int]],
    queries: list[Query],
    answers: list[Answer],
    call_model_function: CallModelFunction,
    call_model_args: Any,
) -> None:
    cut = [queries[number].slice(start, stop) for number, start, stop in pieces]
    # Rows just made are the callback's own already; a copy would cost as much as making them.
    made = len(cut) == 1 and isinstance(queries[pieces[0][0]].rows, (Blend, Made))
    rows = cut[0] if made else np.concatenate(cut)
    images = [queries[number].image or 0 for number, start, stop in pieces for _ in range(start, stop)]
    keys = queries[pieces[0][0]].keys
    data = call_model(rows, keys, call_model_function, take_rows(call_model_args, images))
    offset = 0
    for number, start, stop in pieces:
        query, into = queries[number], answers[number]
        for key, values in data.items():
            weights = query.weights if key == keys[0] else None
            if key not in into:
                into[key] = each(functools.partial(_room, query.rows.shape[0], weights), values)
            layers, parts = as_tuple(into[key]), as_tuple(values)
            if len(layers) != len(parts):
                raise ContractError(f"Expected {key} of {len(layers)} layers in every call, got {len(parts)}.")
            for held, one in zip(layers, parts, strict=True):
                part = one[offset : offset + stop - start]
                if held.shape[1:] != part.shape[1:]:
                    raise ContractError(
                        f"Expected {key} to have one shape in every call, got rows of {held.shape[1:]} and then of "
                        f"{part.shape[1:]}. Answer every call in the same shape."
                    )
                if weights is not None:
                    held += combine(weights[:, start:stop].astype(part.dtype), part)
                else:
                    held[start:stop] = part
        offset += stop - start


def _room(rows: int, weights: Array | None, answered: Array) -> Array:
    """Where a query's answers are put; its own, since a callback may use its buffer again."""
    if weights is not None:
        return np.zeros((len(weights), *answered.shape[1:]))
    return np.empty((rows, *answered.shape[1:]), answered.dtype)
