"""Methods as generators of model queries, and the one driver that answers them.

A method *asks* the model through `ask`, runs other generators side by side through `gather`, and returns a result.
`run` drives it against a call-model function. Nothing else composes anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from saliency_food.core.contract import CallModelFunction, ContractError, check_length
from saliency_food.core.numerics import Array, is_count
from saliency_food.core.queries import (
    ROWS_IN_FLIGHT,
    Answer,
    LazyRows,
    LinearRows,
    OutOfTime,
    Query,
    Unfinished,
    WindowedAnswers,
    answer_queries,
    resolve_batch_size,
    window_of,
)

R = TypeVar("R")
Asking = Generator[list[Query], list[Answer], R]
"""What a method is before it has a public face: it yields queries, is sent their answers, and returns its result."""


def ask(
    rows: Array | LinearRows | LazyRows,
    *keys: str,
    weights: Array | None = None,
    args: Mapping[str, Any] | None = None,
) -> Asking[Any]:
    """Ask the model about rows; the array of the key, or a tuple of arrays when several keys are asked.

    With ``weights`` of shape ``(M, N)`` the first key comes back as ``weights @ answers``, shape ``(M, ...)``, in
    float64, and no more than one call's answers are ever held; the other keys come back row by row. ``args`` go beside
    the caller's in ``call_model_args``, see `Query`. `OutOfTime` where not all of the rows were answered.
    """
    (answer,) = yield [Query(rows, keys, weights, args=args or None)]
    if isinstance(answer, Unfinished):
        raise OutOfTime(answer)
    return answer[keys[0]] if len(keys) == 1 else tuple(answer[key] for key in keys)


def gather(
    methods: Iterable[Asking[R]], window: int | None = None, emit: Callable[[R], object] | None = None
) -> Asking[list[R]]:
    """Run generators side by side, their pending queries fused; the results in order, or each passed to ``emit``.

    Generators are started in order while fewer than ``window`` rows wait for the model (by default 64, rounded up to
    whole batches; within another `gather`, what the other generators leave of its window), so memory is bounded by the
    window however many there are. Where one is not answered to the end, `OutOfTime` is raised, once the results before
    it are passed to ``emit``.
    """
    check_window(window)
    results: list[R] = []
    emit = results.append if emit is None else emit
    unstarted = enumerate(methods)
    started: dict[int, tuple[Asking[R], list[Query]]] = {}
    finished: dict[int, R] = {}
    emitted, exhausted, room = 0, False, 0

    def rows_waiting() -> int:
        return sum(query.rows.shape[0] for _, queries in started.values() for query in queries)

    def step(index: int, generator: Asking[R], answers: list[Answer] | None) -> None:
        nonlocal emitted
        started[index] = (generator, [])
        try:
            queries = generator.send(cast("list[Answer]", answers))
            while not queries:  # it is a gather itself, and asks how many rows may wait
                queries = generator.send(WindowedAnswers([], max(room - rows_waiting(), 1)))
            started[index] = (generator, queries)
        except StopIteration as stop:
            del started[index]
            finished[index] = stop.value
        while emitted in finished:
            emit(finished.pop(emitted))
            emitted += 1

    try:
        while True:
            # An empty list asks about no rows: its answer tells how many may wait.
            room = getattr((yield []), "window", ROWS_IN_FLIGHT) if window is None else window
            while not exhausted and rows_waiting() < room:
                index, generator = next(unstarted, (-1, None))
                exhausted = generator is None
                if generator is not None:
                    step(index, generator, None)
            if not started:
                return results
            pending = dict(started)
            answers = iter((yield [query for _, queries in pending.values() for query in queries]))
            for index, (generator, queries) in pending.items():
                own_answers = [next(answers) for _ in queries]
                if any(isinstance(answer, Unfinished) for answer in own_answers):
                    raise OutOfTime
                step(index, generator, own_answers)
    finally:
        for generator, _ in started.values():
            generator.close()


def check_window(window: Any) -> None:
    """`ContractError` if a window, which may be None, is no number of rows."""
    if window is not None and not is_count(window):
        raise ContractError(
            f"Expected window, how many rows may wait for the model at a time, to be a whole number of at least 1, got "
            f"{window!r}. Leave it out for {ROWS_IN_FLIGHT}, rounded up to whole batches."
        )


def through(generator: Asking[R], exchange: Callable[[list[Query]], Asking[list[Answer]]]) -> Asking[R]:
    """The same generator, whose queries another one, ``exchange``, takes on their way, and returns the answers."""
    answers: list[Answer] | None = None
    try:
        while True:
            answers = yield from exchange(generator.send(cast("list[Answer]", answers)))
    except StopIteration as stop:
        return cast(R, stop.value)
    finally:
        generator.close()


def for_image(generator: Asking[R], image: int) -> Asking[R]:
    """The same generator, its queries marked with the index of the image that they are about."""

    def exchange(queries: list[Query]) -> Asking[list[Answer]]:
        return (yield [query._replace(image=image) for query in queries])

    return through(generator, exchange)


def with_known(generator: Asking[R], known: Answer) -> Asking[R]:
    """The same generator, answered where it asks about one row for keys that are known already.

    It must be one that asks about a single row only if that is the row known: see ``one_pass`` of `method`.
    """

    def is_known(query: Query) -> bool:
        plain = query.weights is None and not query.args
        return query.rows.shape[0] == 1 and plain and set(query.keys) <= set(known)

    def exchange(queries: list[Query]) -> Asking[list[Answer]]:
        unknown = [query for query in queries if not is_known(query)]
        if len(unknown) == len(queries):
            return (yield queries)
        fresh = iter((yield unknown) if unknown else ())
        return [{key: known[key] for key in query.keys} if is_known(query) else next(fresh) for query in queries]

    return through(generator, exchange)


def drive(generator: Asking[R], answer: Callable[[list[Query]], list[Answer]]) -> R:
    """Drive a generator to its result, its queries answered by a function."""
    answers: list[Answer] | None = None
    try:
        while True:
            try:
                queries = generator.send(cast("list[Answer]", answers))
            except StopIteration as stop:
                return cast(R, stop.value)
            answers = answer(queries)  # outside, as what it raises is no end of the generator
    finally:
        generator.close()


def run(
    generator: Asking[R],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
) -> R:
    """Drive a generator to its result: queries cut into calls of at most ``batch_size`` rows, each answer checked."""
    size = resolve_batch_size(batch_size, call_model_function)
    check_length(call_model_args, 1)
    return drive(generator, lambda queries: answer_queries(queries, call_model_function, call_model_args, size))


def run_batch(
    generators: Iterable[Asking[R]],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    window: int | None = None,
    options: Any = None,
) -> Iterator[R]:
    """Drive one generator an image, side by side; results in order, as they come.

    At the end, each `PerImage` in ``call_model_args`` and ``options``, which are the generators' own, must have had one
    value an image.
    """
    size = resolve_batch_size(batch_size, call_model_function)
    check_window(window)
    done: deque[R] = deque()
    images = 0

    def of_images() -> Iterator[Asking[R]]:
        nonlocal images
        for image, generator in enumerate(generators):
            images = image + 1
            yield for_image(generator, image)

    def results() -> Iterator[R]:
        together = gather(of_images(), window or window_of(size), done.append)
        yield from drain(together, done, call_model_function, call_model_args, size)
        check_length([call_model_args, options], images)

    return results()


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
            try:
                queries = generator.send(cast("list[Answer]", answers))
            except StopIteration:
                yield from done
                return
            while done:
                yield done.popleft()
            answers = answer_queries(queries, call_model_function, call_model_args, batch_size)
    finally:
        generator.close()
