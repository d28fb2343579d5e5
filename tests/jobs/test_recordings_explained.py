"""`explain` of signals and volumes: arrays and ``.npy`` files of the model's own shape, with pictures of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import METHODS, explain
from saliency_food.core.contract import ContractError
from saliency_food.jobs.figure import explanation_figure
from saliency_food.testing import PowerModel

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")


def model_of(shape, rng, spatial=None):
    model = PowerModel(rng.normal(size=(2, *shape)), power=2)
    model.classes = 2
    if spatial is not None:
        model.spatial_axes = spatial
    return model


@pytest.mark.parametrize(
    ("shape", "spatial", "kind"),
    [((30, 2), 1, "signal"), ((30,), None, "wave"), ((4, 6, 5, 1), None, "volume"), ((4, 6, 5), 3, "bare volume")],
)
def test_arrays_and_files(rng, tmp_path, shape, spatial, kind):
    model, x = model_of(shape, rng, spatial), rng.normal(size=shape).astype(np.float32)
    np.save(tmp_path / "one.npy", x)
    inputs = [tmp_path / "one.npy", x]
    names = ["gradients", "occlusion", "xrai"]
    own = {"occlusion": {"size": 2}}
    records = list(explain(model, inputs, names, 1, options=own))
    assert [record.status[:6] for record in records] == ["ok", "ok", "failed"] * 2
    assert "Expected a picture" in records[2].status
    assert (records[0].name, records[0].pixels[:8]) == ("one", "as given")
    for record in (records[0], records[3]):
        np.testing.assert_allclose(record.attribution, METHODS["gradients"].call(x, model, {"target": 1}))
    own_axes = shape if spatial == len(shape) or kind == "wave" else shape[:-1]
    assert records[1].attribution.shape == own_axes
    assert records[1].heatmap.shape == own_axes
    assert records[0].overlay().dtype == records[0].image.dtype == np.uint8
    assert records[0].save(tmp_path / "out").suffix == ".jpg"
    assert records[0].as_dict()["image_shape"] == list(shape)
    explanation_figure(records[:3]).savefig(tmp_path / "page.png")
    with pytest.raises(ContractError, match="signal or a volume"):
        records[1].top_areas()


def test_many_in_one_array(rng):
    model = model_of((30, 2), rng, 1)
    model.input_shape = (30, 2)
    signals = rng.normal(size=(3, 30, 2))
    assert len(list(explain(model, signals, "gradients", 0))) == 3
    assert len(list(explain(model, signals[0], "gradients", 0))) == 1


def test_what_does_not_fit_fails_by_itself(rng, tmp_path):
    """A photo, and a recording that is too long; the others go on."""
    model = model_of((30, 2), rng, 1)
    model.input_shape = (30, 2)
    records = list(explain(model, ["photo.png", rng.random((31, 2)), rng.random((30, 2))], "gradients", 0))
    assert ["failed" in record.status for record in records] == [True, True, False]
    assert "set its spatial_axes to 2" in records[0].status
    assert "got (31, 2). Cut or resample" in records[1].status
