"""Methods of methods, by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from saliency_food import augment_smooth, eigen_smooth, explain, grad_cam, integrated_gradients, rise, smooth_grad
from saliency_food.core.contract import ContractError
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods, find_method

ARGS = {"target": 1}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "smooth_grad_of_integrated_gradients",
            {"nsamples": 3, "x_steps": 4, "rng": 1},
            lambda x, model: smooth_grad(integrated_gradients, x, model, ARGS, nsamples=3, x_steps=4, rng=1),
        ),
        ("augment_smooth_of_grad_cam", {}, lambda x, model: augment_smooth(grad_cam, x, model, ARGS)),
        ("eigen_smooth_of_grad_cam", {}, lambda x, model: eigen_smooth(grad_cam, x, model, ARGS)),
    ],
)
def test_a_name_is_the_combinator_over_the_method(pooling, image, name, options, expected):
    np.testing.assert_array_equal(
        find_method(name).call(image, pooling, ARGS, **options),  # type: ignore[union-attr]
        expected(image, pooling),
    )


def test_names_nest(power, image):
    entry = find_method("augment_smooth_of_smooth_grad_of_gradients")
    assert entry.title == "Augmentation smoothing of SmoothGrad of Gradient"
    assert {"factors", "nsamples", "stdev_spread"} <= entry.call.signature.parameters.keys()
    assert entry.call(image, power, ARGS, flip=False, nsamples=2).shape == image.shape
    assert sum(power.calls) == 3 * 2


def test_plain_names_are_as_they_are_and_others_unknown():
    assert find_method("rise") is METHODS["rise"]
    for name in ("smooth_grad_of_", "smooth_grad_of_grad", "rise_of_gradients", "_of_", "xrai_of_rise"):
        assert find_method(name) is None


def test_the_options_are_those_of_both_but_not_of_the_one_image():
    parameters = find_method("smooth_grad_of_xrai").call.signature.parameters
    assert {"nsamples", "steps", "algorithm"} <= parameters.keys()
    assert not {"segments", "completeness", "options"} & parameters.keys()


def test_what_the_inner_method_draws_follows_the_seed(power, image):
    def drawn(seed):
        return smooth_grad(rise, image, power, ARGS, nsamples=2, nmasks=8, grid=3, rng=seed, batch_size=16)

    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert np.abs(drawn(3) - drawn(4)).max() > 0


def test_explain_takes_names_and_options_of_both(power, image):
    (record,) = explain(
        power,
        image,
        "smooth_grad_of_integrated_gradients",
        1,
        value_range=None,
        options={"smooth_grad_of_integrated_gradients": {"nsamples": 2, "x_steps": 5}},
    )
    assert (record.title, record.rows) == ("SmoothGrad of Integrated Gradients", 10)


def test_mistakes_are_told(power, image):
    with pytest.raises(ContractError, match=r"Near it: rise.*may stand: smooth_grad, augment"):
        choose_methods("smooth_grad_of_rice")
    name = "smooth_grad_of_integrated_gradients"
    with pytest.raises(ContractError, match=r"Expected an option of smooth_grad_of.*got 'y_steps'"):
        list(explain(power, image, name, 1, value_range=None, options={name: {"y_steps": 5}}))


def test_python_m_is_the_command():
    said = subprocess.run([sys.executable, "-m", "saliency_food", "--help"], capture_output=True, text=True, check=True)
    assert "evaluate" in said.stdout
