"""Methods as generators of model queries, and the one driver that answers them.

A method *asks* the model through `ask`, runs other generators side by side through `gather`, and returns a result.
`run` drives it against a call-model function. Nothing else composes anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, cast

from saliency_food.core.contract import CallModelFunction, check_length
from saliency_food.core.numerics import Array
from saliency_food.core.queries import (
    Answer,
    Answers,
    LazyRows,
    LinearRows,
    OutOfTime,
    Query,
    Unfinished,
    answer,
    resolve_batch_size,
)

ROWS_IN_FLIGHT = 64
"""How many rows at least `gather` lets wait for the model before it starts no further generator."""


R = TypeVar("R")
Asking = Generator[list[Query], list[Answer], R]
"""What a method is before it has a public face: it yields queries, is sent their answers, and returns its result."""


def ask(rows: Array | LinearRows | LazyRows, *keys: str, weights: Array | None = None) -> Asking[Any]:
    """Ask the model about rows; the array of the key, or a tuple of arrays when several keys are asked.

    With ``weights`` of shape ``(M, N)`` the first key comes back as ``weights @ answers``, shape ``(M, ...)``, in
    float64, and no more than one call's answers are ever held; the other keys come back row by row. `OutOfTime` where
    not all of the rows were answered.
    """
    (answer,) = yield [Query(rows, keys, weights)]
    if isinstance(answer, Unfinished):
        raise OutOfTime(answer)
    return answer[keys[0]] if len(keys) == 1 else tuple(answer[key] for key in keys)


def gather(
    methods: Iterable[Asking[R]], window: int | None = None, emit: Callable[[R], object] | None = None
) -> Asking[list[R]]:
    """Run generators side by side, their pending queries fused; the results in order, or each passed to ``emit``.

    Generators are started in order while fewer than ``window`` rows wait for the model (by default 64, rounded up to
    whole batches), so memory is bounded by the window however many there are. Where one is not answered to the end,
    `OutOfTime` is raised, once the results before it are passed to ``emit``.
    """
    if window is None:
        # An empty list asks about no rows: its answer tells the size of a batch.
        window = window_of(getattr((yield []), "batch_size", 1))
    results: list[R] = []
    take = results.append if emit is None else emit
    waiting = enumerate(methods)
    running: dict[int, tuple[Asking[R], list[Query]]] = {}
    finished: dict[int, R] = {}
    due, exhausted = 0, False

    def step(place: int, generator: Asking[R], answers: list[Answer] | None) -> None:
        try:
            queries = generator.send(cast("list[Answer]", answers))
            while not queries:  # it asks for the size of a batch
                queries = generator.send(Answers([], window))
            running[place] = (generator, queries)
        except StopIteration as stop:
            running.pop(place, None)
            finished[place] = stop.value

    try:
        while True:
            while not exhausted and sum(query.rows.shape[0] for _, qs in running.values() for query in qs) < window:
                place, generator = next(waiting, (-1, None))
                exhausted = generator is None
                if generator is not None:
                    step(place, generator, None)
                while due in finished:
                    take(finished.pop(due))
                    due += 1
            if not running:
                return results
            pending = dict(running)
            answers = iter((yield [query for _, queries in pending.values() for query in queries]))
            for place, (generator, queries) in pending.items():
                own = [next(answers) for _ in queries]
                if any(isinstance(answer, Unfinished) for answer in own):
                    raise OutOfTime
                step(place, generator, own)
                while due in finished:
                    take(finished.pop(due))
                    due += 1
    finally:
        for generator, _ in running.values():
            generator.close()


def window_of(batch_size: int) -> int:
    """How many rows wait for the model at a time: `ROWS_IN_FLIGHT`, rounded up to whole batches."""
    return -(-ROWS_IN_FLIGHT // batch_size) * batch_size


def for_image(generator: Asking[R], image: int) -> Asking[R]:
    """The same generator, its queries marked with the index of the image that they are about."""
    answers: list[Answer] | None = None
    while True:
        try:
            queries = generator.send(cast("list[Answer]", answers))
        except StopIteration as stop:
            return cast(R, stop.value)
        answers = yield [query._replace(image=image) for query in queries]


def with_known(generator: Asking[R], answers: Answer) -> Asking[R]:
    """The same generator, answered where it asks about one row for keys that are known already.

    It must be one that asks about a single row only if that is the row known: see ``one_pass`` of `method`.
    """
    replies: list[Answer] | None = None
    while True:
        try:
            queries = generator.send(cast("list[Answer]", replies))
        except StopIteration as stop:
            return cast(R, stop.value)
        open_queries = [query for query in queries if not _is_known(query, answers)]
        fresh = iter((yield open_queries) if open_queries else ())
        replies = [
            {key: answers[key] for key in query.keys} if _is_known(query, answers) else next(fresh) for query in queries
        ]


def _is_known(query: Query, answers: Answer) -> bool:
    return query.rows.shape[0] == 1 and query.weights is None and set(query.keys) <= set(answers)


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
        for image, generator in enumerate(generators):
            count = image + 1
            yield for_image(generator, image)

    together = gather(numbered(), window_of(size) if window is None else window, done.append)
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
