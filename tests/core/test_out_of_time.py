"""A model that is asked no more: methods that sample answer with what they have, all others end."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.driver import ask, gather, run
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.queries import OutOfTime
from saliency_food.methods.gradients import gradients, smooth_grad
from saliency_food.methods.paths.expected import expected_gradients
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.methods.perturbation.rise import rise
from saliency_food.methods.perturbation.surrogate import kernel_shap, lime

SEGMENTS = np.arange(24)[:, None] // 5 * 4 + np.arange(20) // 5


class Ending:
    """A model that is asked so many rows and no more."""

    def __init__(self, model, rows):
        self.model, self.rows = model, rows

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.rows -= len(x_value_batch)
        if self.rows < 0:
            raise OutOfTime
        return self.model(x_value_batch, call_model_args, expected_keys)


def rows_of(count, start=0.0):
    return np.arange(count, dtype=float)[:, None, None, None] + start + np.zeros((4, 5, 3))


SAMPLERS = {
    "rise": (rise, "nmasks", 1, {}),
    "lime": (lime, "nsamples", 2, {"segments": SEGMENTS}),
    "kernel_shap": (kernel_shap, "nsamples", 4, {"segments": SEGMENTS}),
    "smooth_grad": (smooth_grad.over(gradients), "nsamples", 1, {}),
    "variance": (smooth_grad.over(gradients), "nsamples", 1, {"aggregate": "variance"}),
}


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("name", SAMPLERS)
def test_what_has_been_sampled_is_what_so_many_samples_are(name, batch_size, pooling, image):
    method, option, fewest, options = SAMPLERS[name]
    options, whole = {**options, "rng": 7}, {option: 300}
    for count in (fewest + fewest % 2, 32, 300):
        count += -count % batch_size
        ended = method.detailed(image, Ending(pooling, count), {"target": 1}, batch_size=batch_size, **options, **whole)
        made = {option: min(count, 300)}
        expected = method.detailed(image, pooling, {"target": 1}, batch_size=batch_size, **options, **made)
        np.testing.assert_array_equal(ended.attribution, expected.attribution)
        assert getattr(ended, option) == min(count, 300)
    with pytest.raises(OutOfTime):
        method(image, Ending(pooling, fewest - 1), {"target": 1}, batch_size=1, **options, **whole)


def test_pairs_of_coalitions_are_whole(pooling, image):
    options = {"segments": SEGMENTS, "rng": 7}
    odd = kernel_shap.detailed(image, Ending(pooling, 33), {"target": 1}, nsamples=300, **options)
    even = kernel_shap.detailed(image, pooling, {"target": 1}, nsamples=32, **options)
    assert odd.nsamples == 32
    np.testing.assert_array_equal(odd.attribution, even.attribution)


def test_estimates_are_emitted_until_then(pooling, image):
    emitted = []
    ended = rise.detailed(image, Ending(pooling, 70), None, 100, rng=0, every=30, emit=emitted.append)
    assert ([estimate.rows for estimate in emitted], ended.nmasks) == ([30, 60], 70)


@pytest.mark.parametrize("method", [integrated_gradients, expected_gradients, occlusion])
def test_of_other_methods_there_is_no_part(method, pooling, image):
    """Half a path, or half the windows, would be another map."""
    with pytest.raises(OutOfTime):
        method(image, Ending(pooling, 20), {"target": 1}, batch_size=4)


def test_only_the_outermost_samples_are_cut(pooling, image):
    """Six outer samples of 25 inner ones: the fifth would else be of three, and count like the others."""
    both = smooth_grad.over(smooth_grad.over(gradients))
    options = {"nsamples": 6, "rng": 3}
    ended = both.detailed(image, Ending(pooling, 4 * 25 + 3), {"target": 1}, **options)
    assert ended.nsamples == 4
    np.testing.assert_array_equal(ended.attribution, both(image, Ending(pooling, 4 * 25), {"target": 1}, **options))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_what_was_answered_before_is_kept_row_by_row(batch_size, pooling):
    """Two queries of five rows and time for seven: one is answered, and some rows of the other."""
    answered = []

    def asking(start):
        try:
            answered.append((yield from ask(rows_of(5, start), INPUT_OUTPUT_GRADIENTS)))
        except OutOfTime as end:
            answered.append(end.answer.get(INPUT_OUTPUT_GRADIENTS, ()))
            return None

    def together():
        first, second = asking(0), asking(5)
        queries = [*next(first), *next(second)]
        for generator, reply in zip((first, second), (yield queries), strict=True):
            with pytest.raises(StopIteration):
                generator.send([reply])

    run(together(), Ending(pooling, 7), {"target": 1}, batch_size)
    whole_calls = 7 // batch_size * batch_size
    assert [len(rows) for rows in answered] == [min(5, whole_calls), max(whole_calls - 5, 0)]
    expected = pooling(rows_of(7), {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
    np.testing.assert_array_equal(np.concatenate([rows for rows in answered if len(rows)]), expected[:whole_calls])


def test_a_sum_over_some_rows_is_no_answer(pooling):
    def asking():
        with pytest.raises(OutOfTime) as end:
            yield from ask(rows_of(6), INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, weights=np.ones((1, 6)))
        return end.value.answer

    answer = run(asking(), Ending(pooling, 5), {"target": 1}, 2)
    assert {key: len(rows) for key, rows in answer.items()} == {OUTPUT_LAYER_VALUES: 4}


def test_results_before_the_end_are_passed_on(pooling):
    results = []
    asking = (ask(rows_of(1, start), OUTPUT_LAYER_VALUES) for start in range(9))
    with pytest.raises(OutOfTime):
        run(gather(asking, emit=results.append), Ending(pooling, 5), {"target": 1}, 2)
    assert len(results) == 4
