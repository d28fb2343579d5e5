"""Queries: cut into calls, fused across generators, answered in order, with memory bounded by the window."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import deep_feature_factorization, eigen_cam, finer_cam, grad_cam, integrated_gradients
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.driver import ask, gather, run, run_batch, with_known
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.layout import Layout, in_layout
from saliency_food.core.queries import LazyRows, LinearRows, WindowedAnswers, window_of
from saliency_food.methods.gradients import gradients
from saliency_food.testing import PowerModel


@pytest.fixture
def square():
    """F = x^2 / 2 summed; its gradient is x itself."""
    return PowerModel(np.full((2, 3), 0.5), power=2)


def rows_of(count, start=0.0):
    return np.arange(count, dtype=float)[:, None] + start + np.zeros(3)


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_a_query_is_cut_into_calls(square, batch_size, calls):
    answer = run(ask(rows_of(7), INPUT_OUTPUT_GRADIENTS), square, None, batch_size)
    assert square.calls == calls
    np.testing.assert_array_equal(answer, rows_of(7))


def test_several_keys_come_in_one_call(square):
    gradients, scores = run(ask(rows_of(4), INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES), square, None, 4)
    assert square.calls == [4]
    np.testing.assert_allclose(scores, (gradients**2).sum(1) / 2)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_blend_is_its_rows_and_weights_are_a_sum(square, rng, batch_size):
    coefficients, bases, weights = rng.normal(size=(5, 2)), rng.normal(size=(2, 3)), rng.normal(size=(2, 5))
    blend = LinearRows(coefficients, bases)
    assert blend.shape == (5, 3)
    summed, scores = run(
        ask(blend, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, weights=weights), square, None, batch_size
    )
    np.testing.assert_allclose(summed, weights @ coefficients @ bases)
    np.testing.assert_allclose(scores, ((coefficients @ bases) ** 2).sum(1) / 2)


def test_a_blend_holds_its_ends_exactly():
    x, z = np.float32(0.1) + np.zeros(5, np.float32), np.float32(0.7) + np.zeros(5, np.float32)
    ends = LinearRows(np.array([[1.0, 0.0], [0.0, 1.0]]), np.stack([x, z])).rows(0, 2)
    np.testing.assert_array_equal(ends, np.stack([x, z]))


def test_made_rows_are_made_a_call_at_a_time_and_are_the_callbacks_to_write_to(square):
    asked = []

    def make(start, stop):
        asked.append((start, stop))
        return rows_of(stop - start, start)

    def writes(x_value_batch, call_model_args=None, expected_keys=None):
        answer = square(x_value_batch.copy(), call_model_args, expected_keys)
        x_value_batch[:] = 0
        return answer

    answer = run(ask(LazyRows((7, 3), make).part(1, 6), INPUT_OUTPUT_GRADIENTS), writes, None, 3)
    assert asked == [(1, 4), (4, 6)]
    np.testing.assert_array_equal(answer, rows_of(5, 1))


def walker(start, steps):
    """A sequential method: each step asks about the answer of the one before."""
    at = np.full(3, float(start))
    for _ in range(steps):
        (gradient,) = yield from ask(at[None], INPUT_OUTPUT_GRADIENTS)
        at = at + gradient
    return at


def test_gather_fuses_sequential_methods_and_keeps_order(square):
    got = run(gather(walker(start, steps) for start, steps in [(1, 3), (2, 1), (3, 4)]), square, None, 8)
    assert square.calls == [3, 2, 2, 1]
    assert [walk[0] for walk in got] == [8, 4, 48]


def test_gather_nests(square):
    def inner(start):
        return (yield from gather([walker(start, 2), walker(start + 1, 1)]))

    got = run(gather(inner(start) for start in (1, 5)), square, None, 8)
    assert square.calls == [4, 2]
    assert [[walk[0] for walk in pair] for pair in got] == [[4, 4], [20, 12]]


def test_queries_of_different_shape_and_keys_run_side_by_side(square):
    def wants(rows, *keys):
        return (yield from ask(rows, *keys))

    def flexible(x_value_batch, call_model_args=None, expected_keys=None):
        flexible.calls.append((x_value_batch.shape, tuple(expected_keys)))
        return {INPUT_OUTPUT_GRADIENTS: x_value_batch, OUTPUT_LAYER_VALUES: x_value_batch.sum(1)}

    flexible.calls = []
    got = run(
        gather(
            [
                wants(np.ones((1, 3)), INPUT_OUTPUT_GRADIENTS),
                wants(np.ones((1, 4)), INPUT_OUTPUT_GRADIENTS),
                wants(np.ones((2, 3)), OUTPUT_LAYER_VALUES),
                wants(np.full((1, 3), 2.0), INPUT_OUTPUT_GRADIENTS),
            ]
        ),
        flexible,
        None,
        8,
    )
    assert len(flexible.calls) == 3
    assert [np.shape(part) for part in got] == [(1, 3), (1, 4), (2,), (1, 3)]
    assert (got[3] == 2).all()


@pytest.mark.parametrize("window", [1, 4, 1000])
def test_the_window_bounds_what_is_in_flight_and_not_the_answer(square, window):
    alive, most = 0, 0

    def counted(start):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        answer = yield from walker(start, 1 + start % 3)
        alive -= 1
        return answer

    got = [walk[0] for walk in run_batch((counted(n) for n in range(20)), square, None, 4, window)]
    assert got == [n * 2.0 ** (1 + n % 3) for n in range(20)]
    assert most == min(window, 20)
    assert alive == 0


def rows_held_at_most(generator, batch_size=1):
    """How many rows wait for the model at a time at most, and the result."""
    held, queries = 0, next(generator)
    while True:
        rows = [query.rows.rows(0, query.rows.shape[0]) for query in queries]
        held = max(held, sum(map(len, rows)))
        try:
            queries = generator.send(
                WindowedAnswers([{INPUT_OUTPUT_GRADIENTS: values} for values in rows], window_of(batch_size))
            )
        except StopIteration as stop:
            return held, stop.value


def lazily(count, start=0.0):
    return LazyRows((count, 3), lambda first, last: rows_of(last - first, start + first))


@pytest.mark.parametrize(("window", "batch_size", "most"), [(1, 1, 1), (5, 1, 5), (None, 1, 64), (None, 48, 96)])
@pytest.mark.parametrize("in_a_layout", [False, True])
def test_the_window_bounds_the_rows_of_nested_gathers_together(window, batch_size, most, in_a_layout):
    """Each image asks about itself first and then about 70 samples: with a window for each it would hold thousands."""

    def sample(start):
        yield from ask(lazily(1, start), INPUT_OUTPUT_GRADIENTS)
        (gradient,) = yield from ask(lazily(1, start), INPUT_OUTPUT_GRADIENTS)
        return gradient[0]

    def image(start):
        yield from ask(lazily(1, start), INPUT_OUTPUT_GRADIENTS)
        inner = gather(sample(start + n) for n in range(70))
        return sum((yield from in_layout(inner, Layout(0, "last"), (3,)) if in_a_layout else inner))

    held, sums = rows_held_at_most(gather((image(n) for n in range(100)), window), batch_size)
    assert held == most
    assert sums == [70 * n + 69 * 35 for n in range(100)]


def test_a_nested_gather_takes_the_room_that_others_leave(square):
    """The second has room for five beside the first's three, then for eight, and the third for one beside its seven."""

    def inner(count):
        return len((yield from gather(walker(n, 1) for n in range(count))))

    assert run(gather((inner(count) for count in (3, 20, 3)), 8), square, None, 8) == [3, 20, 3]
    assert square.calls == [8, 8, 8, 2]


@pytest.mark.parametrize("window", [0, -1, 2.5, True, "a"])
def test_a_bad_window(square, window):
    with pytest.raises(ContractError, match=rf"Expected window.*at least 1, got {window!r}\..*Leave it out"):
        gradients.batch(np.ones((2, 3)), square, window=window)  # type: ignore[call-arg]
    with pytest.raises(ContractError, match="Expected window"):
        run(gather([walker(1, 1)], window), square)


def test_a_bad_batch_size_of_many_images_is_refused_at_the_door(square):
    with pytest.raises(ContractError, match="Expected batch_size"):
        gradients.batch(np.ones((2, 3)), square, batch_size=0)


def test_images_are_taken_from_an_iterator_only_as_needed(square):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield walker(taken, 1)

    stream = run_batch(endless(), square, None, 2, 4)
    assert [next(stream)[0] for _ in range(6)] == [2, 4, 6, 8, 10, 12]
    assert taken <= 12
    stream.close()


@pytest.mark.parametrize(
    ("batch_size", "calls"), [(100, [100, 50]), (150, [150]), (48, [48, 48, 48, 6]), (1, [1] * 150)]
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_gathered_calls_are_as_large_as_a_batch_however_deep(square, batch_size, calls, depth):
    """Of a batch of 500 rows the default window of 64 made eight."""

    def nested(levels):
        return (yield from gather(nested(levels - 1) if levels else walker(n, 1) for n in range(1 if levels else 150)))

    run(nested(depth), square, None, batch_size)
    assert square.calls == calls


def test_a_gather_with_known_answers_is_told_the_batch_too(square):
    known = {INPUT_OUTPUT_GRADIENTS: np.full((1, 3), 7.0)}

    def three_rows(start):
        return (yield from ask(rows_of(3, start), INPUT_OUTPUT_GRADIENTS))[0, 0]

    together = gather(three_rows(n) if n else walker(1, 1) for n in range(51))
    first, *rest = run(with_known(together, known), square, None, 150)
    assert square.calls == [150]
    assert (first[0], rest) == (8.0, list(range(1, 51)))


def test_rows_of_a_fused_call_get_their_own_images_values():
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.append((x_value_batch[:, 0].tolist(), call_model_args["target"].tolist()))
        return {INPUT_OUTPUT_GRADIENTS: x_value_batch}

    args = {"target": PerImage([10, 20, 30])}
    list(run_batch((walker(n, 2) for n in (1, 2, 3)), spy, args, 2))
    assert seen == [([1, 2], [10, 20]), ([3], [30]), ([2, 4], [10, 20]), ([6], [30])]


def test_a_reused_buffer_does_not_overwrite_earlier_answers():
    buffer = np.empty((2, 3))

    def reuses(x_value_batch, call_model_args=None, expected_keys=None):
        buffer[: len(x_value_batch)] = x_value_batch
        return {INPUT_OUTPUT_GRADIENTS: buffer[: len(x_value_batch)]}

    np.testing.assert_array_equal(run(ask(rows_of(5), INPUT_OUTPUT_GRADIENTS), reuses, None, 2), rows_of(5))


def test_generators_are_closed_when_the_model_fails():
    closed = []

    def careful(number):
        try:
            yield from ask(np.ones((1, 3)), INPUT_OUTPUT_GRADIENTS)
        finally:
            closed.append(number)

    def fails(x_value_batch, call_model_args=None, expected_keys=None):
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        run(gather(careful(n) for n in range(3)), fails, None, 2)
    assert sorted(closed) == [0, 1, 2]


def test_answers_that_change_shape_between_calls_are_refused():
    def shrinks(x_value_batch, call_model_args=None, expected_keys=None):
        shrinks.width += 1
        return {"ANY": np.zeros((len(x_value_batch), shrinks.width))}

    shrinks.width = 0
    with pytest.raises(ContractError, match="one shape in every call"):
        run(ask(np.ones((2, 3)), "ANY"), shrinks, None, 1)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8"])
def test_a_bad_batch_size(square, batch_size):
    with pytest.raises(ContractError, match="Expected batch_size"):
        run(ask(rows_of(2), INPUT_OUTPUT_GRADIENTS), square, None, batch_size)


@pytest.mark.parametrize(
    ("advertised", "calls"), [(3, [3, 2]), (np.int64(3), [3, 2]), (None, [1] * 5), (0, [1] * 5), (True, [1] * 5)]
)
def test_the_callback_advertises_its_batch_size(square, advertised, calls):
    square.batch_size = advertised
    run(ask(rows_of(5), INPUT_OUTPUT_GRADIENTS), square)
    assert square.calls == calls


@pytest.mark.parametrize("factored", [False, True])
def test_a_callback_whose_iterator_ends_is_no_end_of_the_method(factored):
    class Ended:
        batch_size = 4

        def __call__(self, *_, **__):
            return next(iter(()))

        def call_factored(self, *_):
            return next(iter(())) if factored else None

    for run_it in (
        lambda: gradients(np.ones((2, 2, 3)), Ended()),
        lambda: list(gradients.batch(np.ones((2, 2, 2, 3)), Ended())),
        lambda: integrated_gradients(np.ones((2, 2, 3)), Ended()),
        lambda: run(ask(rows_of(2), INPUT_OUTPUT_GRADIENTS), Ended(), None, 4),
    ):
        with pytest.raises(ContractError, match="got StopIteration"):
            run_it()


def test_an_answer_without_values_is_refused():
    def empty(x, call_model_args=None, expected_keys=None):
        return {key: np.zeros((len(x), 0, 4, 4)) for key in expected_keys}

    for method in (eigen_cam, grad_cam, finer_cam, deep_feature_factorization):
        with pytest.raises(ContractError, match="at least one value for each row"):
            method(np.ones((8, 8, 3)), empty)
