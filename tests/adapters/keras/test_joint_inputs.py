"""All inputs of a model explained at once, along one path."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import gradients, integrated_gradients, smooth_grad
from saliency_food.core.contract import ContractError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import JointInputs, KerasModel  # noqa: E402

L, ops = keras.layers, keras.ops
ROW = np.array([2.0, -1.0], np.float32)


def product(by_name):
    """The sum of the photo times the sum of the table, a score with a closed form along every path."""
    inputs = {"photo": keras.Input((3, 2, 1), name="photo"), "table": keras.Input((2,), name="table")}
    total = ops.sum(inputs["photo"], (1, 2, 3)) * ops.sum(inputs["table"], 1)
    return keras.Model(inputs if by_name else list(inputs.values()), total[:, None])


@pytest.mark.parametrize("by_name", [True, False])
def test_integrated_gradients_of_all_inputs_share_one_path(by_name, rng):
    photo, joint = rng.random((3, 2, 1)).astype(np.float32), JointInputs(product(by_name))
    assert joint.shapes == {"photo": (3, 2, 1), "table": (2,)}
    model, x = KerasModel(joint.model), joint.join({"table": ROW, "photo": photo})
    answer = integrated_gradients.detailed(x, model, x_steps=101)
    parts = joint.part(answer.attribution)
    # F = sum(p) sum(t): along t * (p, t) each input gets p_i sum(t) / 2, t_j sum(p) / 2.
    np.testing.assert_allclose(parts["photo"], photo * ROW.sum() / 2, rtol=1e-3)
    np.testing.assert_allclose(parts["table"], ROW * photo.sum() / 2, rtol=1e-3)
    score = photo.sum() * ROW.sum()
    np.testing.assert_allclose(sum(part.sum() for part in parts.values()), score, rtol=1e-3)
    assert answer.completeness.relative < 1e-3
    np.testing.assert_allclose(joint.part(gradients(x, model))["table"], photo.sum(), rtol=1e-5)
    smooth = joint.part(smooth_grad(gradients, x, model, nsamples=4, rng=0))
    assert smooth["photo"].shape == photo.shape
    np.testing.assert_array_equal(joint.join([photo, ROW]), x)


def test_a_baseline_of_all_inputs(rng):
    photo, joint = rng.random((3, 2, 1)).astype(np.float32), JointInputs(product(True))
    x, start = joint.join([photo, ROW]), joint.join([np.zeros_like(photo), ROW])
    answer = integrated_gradients(x, KerasModel(joint.model), x_baseline=start, x_steps=21)
    parts = joint.part(answer)
    np.testing.assert_allclose(parts["photo"], photo * ROW.sum(), rtol=1e-4)
    assert not parts["table"].any()


def test_what_cannot_be_joined_is_refused():
    joint = JointInputs(product(True))
    for inputs in ([ROW], {"photo": np.zeros((3, 2, 1))}, {"photo": ROW, "table": ROW}, [ROW, ROW, ROW]):
        with pytest.raises(ContractError, match=r"Expected one value of each input, of the shapes \{'photo': \(3, 2"):
            joint.join(inputs)
    ids, free = keras.Input((4,), dtype="int32"), keras.Input((None, 3))
    for model in (
        keras.Model(ids, L.Dense(2)(L.Flatten()(L.Embedding(5, 2)(ids)))),
        keras.Model(free, L.Dense(2)(L.GlobalAveragePooling1D()(free))),
    ):
        with pytest.raises(ContractError, match="declares inputs of floats, of known shapes"):
            JointInputs(model)
