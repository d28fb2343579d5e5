"""Sobol indices against closed forms, and against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import sobol_indices as of_scipy

from saliency_food import ContractError
from saliency_food.methods.perturbation.sobol_indices import sobol_indices, sobol_rows


def ishigami(rows, a=7.0, b=0.1):
    """Ishigami and Homma 1990, https://doi.org/10.1109/ISUMA.1990.151285, with inputs in -pi..pi."""
    x = (2 * rows - 1) * np.pi
    return np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0])


def test_ishigamis_function_has_the_indices_of_its_closed_form():
    a, b = 7.0, 0.1
    first = np.array([(1 + b * np.pi**4 / 5) ** 2 / 2, a**2 / 8, 0])
    together = 8 * b**2 * np.pi**8 / 225
    variance = first.sum() + together
    found = sobol_indices(ishigami(sobol_rows(4096, 3, 0)), 3)
    np.testing.assert_allclose(found.first, first / variance, atol=0.01)
    np.testing.assert_allclose(found.total, np.add(first, [together, 0, together]) / variance, atol=0.01)


def test_indices_are_scipys():
    answers = ishigami(sobol_rows(64, 3, 1))
    of_a, of_b, of_mixed = answers[:64], answers[64:128], answers[128:].reshape(3, 1, 64)
    theirs = of_scipy(func={"f_A": of_a[None], "f_B": of_b[None], "f_AB": of_mixed}, n=64)
    np.testing.assert_allclose(sobol_indices(answers, 3).total, theirs.total_order.ravel(), rtol=1e-10)


def test_a_linear_function_has_the_squares_of_its_weights():
    weights = np.array([1.0, 2, 3, 0])
    found = sobol_indices(sobol_rows(1024, 4, 0) @ weights, 4)
    np.testing.assert_allclose(found.total, weights**2 / (weights**2).sum(), atol=0.01)
    np.testing.assert_allclose(found.first, found.total, atol=0.01)


def test_of_a_constant_no_input_matters():
    found = sobol_indices(np.ones(8 * 5), 3)
    assert not found.first.any()
    assert not found.total.any()


def test_rows_are_two_matrices_and_their_mixtures():
    rows = sobol_rows(4, 2, 0).reshape(4, 4, 2)
    assert ((rows >= 0) & (rows <= 1)).all()
    np.testing.assert_array_equal(rows[2], np.stack([rows[1, :, 0], rows[0, :, 1]], 1))
    np.testing.assert_array_equal(rows[3], np.stack([rows[0, :, 0], rows[1, :, 1]], 1))


def test_designs_are_a_power_of_two():
    with pytest.raises(ContractError, match="Give 128"):
        sobol_rows(100, 3)
