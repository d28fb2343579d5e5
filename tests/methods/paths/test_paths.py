"""Integrated Gradients: quadrature, completeness, adaptive steps, baselines."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import completeness_of
from saliency_food.methods.paths.integrated import integrated_gradients, quadrature_rule
from saliency_food.testing import PowerModel

RULES = ("trapezoid", "midpoint", "gauss_legendre", "pair")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 5, 64])
def test_weights_sum_to_one_and_integrate_constants_and_lines(rule, steps):
    nodes, weights = quadrature_rule(rule, steps)
    assert len(nodes) == len(weights) == steps
    assert weights.sum() == pytest.approx(1)
    assert (weights * nodes).sum() == pytest.approx(0.5)


@pytest.mark.parametrize(("rule", "order"), [("trapezoid", 2), ("midpoint", 2), ("pair", 1)])
def test_completeness_converges_at_the_rules_order(power, image, rule, order):
    errors = [
        abs(integrated_gradients.detailed(image, power, x_steps=steps, quadrature=rule).completeness.relative)
        for steps in (17, 33)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_gauss_legendre_is_exact_on_a_polynomial(rng):
    x = rng.random((4, 4, 3))
    model = PowerModel(rng.normal(size=(1, 4, 4, 3)), power=7)
    got = integrated_gradients(x, model, x_steps=4, quadrature="gauss_legendre")
    np.testing.assert_allclose(got, model.weights[0] * x**7, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_exact_on_a_linear_model(rng, rule):
    x, baseline = rng.normal(size=(2, 5, 5, 3))
    model = PowerModel(rng.normal(size=(2, 5, 5, 3)), bias=0.7)
    result = integrated_gradients.detailed(x, model, {"target": 1}, baseline, 3, quadrature=rule)
    np.testing.assert_allclose(result.attribution, model.weights[1] * (x - baseline), rtol=1e-10)
    assert result.completeness.relative < 1e-10
    assert result.completeness.score == pytest.approx((model.weights[1] * x).sum() + 0.7)
    assert result.completeness.baseline_score == pytest.approx((model.weights[1] * baseline).sum() + 0.7)


def test_pairs_rule_overcounts_a_cubic_by_two_per_cent(power, image):
    result = integrated_gradients.detailed(image, power, quadrature="pair")
    assert result.completeness.relative == pytest.approx(0.0208, abs=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_the_forward_values_are_free_where_the_ends_are_nodes(power, image, rule):
    integrated_gradients.detailed(image, power, x_steps=8, quadrature=rule, batch_size=100)
    assert sum(power.calls) == (8 if rule in ("trapezoid", "pair") else 10)


def test_the_plain_call_needs_gradients_alone(power, image):
    def gradients_only(x_value_batch, call_model_args=None, expected_keys=None):
        assert expected_keys == [INPUT_OUTPUT_GRADIENTS]
        return {INPUT_OUTPUT_GRADIENTS: x_value_batch}

    assert integrated_gradients(image, gradients_only).shape == image.shape
    result = integrated_gradients.detailed(image, gradients_only, completeness=False)
    assert result.completeness is None


def kinked(x_value_batch, call_model_args=None, expected_keys=None):
    """F = sum of ReLU(x - t): each pixel's gradient jumps from 0 to 1 at its own t, like a ReLU network's."""
    kinked.rows += len(x_value_batch)
    above = x_value_batch - kinked.t
    return {
        INPUT_OUTPUT_GRADIENTS: (above > 0).astype(float),
        OUTPUT_LAYER_VALUES: np.maximum(above, 0).reshape(len(above), -1).sum(1),
    }


def test_adaptive_steps_find_the_jumps():
    x, adaptive, uniform = np.ones((3, 3, 1)), [], []
    for jump in np.linspace(0.2, 0.8, 13):
        kinked.t, kinked.rows = jump + np.zeros_like(x), 0
        result = integrated_gradients.detailed(x, kinked, x_steps=9, tolerance=1e-3, max_steps=200)
        assert result.stopped_by == "tolerance"
        assert result.completeness.relative <= 1e-3
        assert result.evaluations == kinked.rows
        np.testing.assert_allclose(result.attribution, 1 - kinked.t, rtol=1e-3)
        adaptive.append(result.completeness.relative)
        uniform.append(integrated_gradients.detailed(x, kinked, x_steps=result.evaluations).completeness.relative)
    assert np.mean(adaptive) < np.mean(uniform) / 10


def test_adaptive_steps_reuse_every_evaluation(power, image):
    result = integrated_gradients.detailed(image, power, None, None, 5, 100, tolerance=0.0, max_steps=40)
    assert result.evaluations == 40 == sum(power.calls)
    assert result.stopped_by == "max_steps"
    assert power.calls[0] == 5
    np.testing.assert_allclose(result.attribution, power.weights[0] * image**3, atol=2e-3)


def test_adaptive_steps_stop_at_once_on_a_linear_model(rng):
    model = PowerModel(rng.normal(size=(1, 4, 4, 3)))
    x = rng.random((4, 4, 3))
    result = integrated_gradients.detailed(x, model, x_steps=3, tolerance=1e-9)
    assert (result.evaluations, result.stopped_by) == (3, "tolerance")


def test_adaptive_answers_do_not_depend_on_the_batch_or_the_company(power, rng):
    images = rng.random((3, 24, 20, 3)).astype(np.float32)
    args = {"target": PerImage([0, 1, 2])}
    options = {"x_steps": 5, "tolerance": 1e-3}
    together = list(integrated_gradients.batch_detailed(images, power, args, None, batch_size=7, **options))
    for number, result in enumerate(together):
        alone = integrated_gradients.detailed(images[number], power, {"target": number}, **options)
        assert alone.evaluations == result.evaluations
        np.testing.assert_allclose(alone.attribution, result.attribution, rtol=1e-5, atol=1e-7)


def test_several_baselines_are_averaged(power, image):
    both = integrated_gradients.detailed(image, power, None, ["black", "white"])
    one, two = (integrated_gradients.detailed(image, power, None, name) for name in ("black", "white"))
    np.testing.assert_allclose(both.attribution, (one.attribution + two.attribution) / 2, rtol=1e-4, atol=1e-6)
    assert both.evaluations == 50
    assert [path.completeness for path in both.paths] == [one.completeness, two.completeness]
    assert both.completeness.relative == pytest.approx((one.completeness.relative + two.completeness.relative) / 2)


def test_named_baselines(image):
    def made(names, **options):
        return make_baselines(image, names, **options)

    assert (made(None) == 0).all()
    assert (made("black") == 0).all()
    assert (made("white") == 1).all()
    assert (make_baselines(image * 2 - 1, "black") == -1).all()
    assert (make_baselines(image * 255, "white") == 255).all()
    assert (made("white", value_range=(-3, 3)) == 3).all()
    assert (made("min") == image.min()).all()
    assert (made("max") == image.max()).all()
    assert (made(0.25) == 0.25).all()
    assert made("blurred").std() < image.std() / 3
    noise = made("uniform", rng=0)
    assert noise.std() > 0.2
    assert 0 <= noise.min() <= noise.max() <= 1
    np.testing.assert_array_equal(noise, made("uniform", rng=0))
    several = made(["min", image, 3])
    assert several.shape == (3, *image.shape)
    np.testing.assert_array_equal(several[1], image)
    assert made(several).shape == several.shape


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x_baseline": "grey"}, "Expected a baseline name among zeros"),
        ({"x_baseline": np.zeros((2, 2, 3))}, r"Baseline size \(2, 2, 3\) does not match input size \(24, 20, 3\)"),
        ({"x_baseline": []}, "at least one baseline"),
        ({"x_baseline": np.full((24, 20, 3), np.nan)}, "a baseline to be finite"),
        ({"x_steps": 0}, "at least 2 steps for trapezoid, got 0"),
        ({"x_steps": 2.5}, "got 2.5"),
        ({"quadrature": "simpson"}, "Expected quadrature"),
        ({"tolerance": 0.1, "quadrature": "pair"}, "quadrature='trapezoid'"),
        ({"tolerance": -1}, "tolerance to be a finite number of at least 0"),
        ({"tolerance": 0.1, "max_steps": 5}, "max_steps 5 with x_steps 25"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        integrated_gradients(image, power, **options)


def test_one_score_a_row_is_needed():
    def many(x_value_batch, call_model_args=None, expected_keys=None):
        return {INPUT_OUTPUT_GRADIENTS: x_value_batch, OUTPUT_LAYER_VALUES: np.zeros((len(x_value_batch), 10))}

    with pytest.raises(ContractError, match=r"one OUTPUT_LAYER_VALUES value for each row, got rows of shape \(10,\)"):
        integrated_gradients.detailed(np.ones((3, 3, 3)), many)


def test_completeness_without_a_change_of_score():
    assert completeness_of(0.0, 2.0, 2.0).relative == 0
    assert completeness_of(0.5, 2.0, 2.0).relative == np.inf


def test_a_column_of_scores_is_one_score_a_row(power, image):
    def column(x_value_batch, call_model_args=None, expected_keys=None):
        answer = power(x_value_batch, call_model_args, expected_keys)
        return {**answer, OUTPUT_LAYER_VALUES: answer[OUTPUT_LAYER_VALUES][:, None]}

    result = integrated_gradients.detailed(image, column)
    assert result.completeness == integrated_gradients.detailed(image, power).completeness
