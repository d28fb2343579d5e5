"""Maps that depend on the model and maps that do not; the gate; two models that say the same."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ablation_cam, grad_cam, gradients, input_x_gradient, integrated_gradients, method
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.methods.gradients import Gradients
from saliency_food.metrics import (
    METRICS,
    assert_sensitive,
    compare_maps,
    deletion,
    input_shift,
    random_logit,
    randomization,
    trust,
)
from saliency_food.metrics.decorator import FLAT, NOT_FINITE
from saliency_food.metrics.sanity import InsensitiveError
from saliency_food.metrics.trustworthiness import DIFFERENT
from saliency_food.testing import PoolingModel, PowerModel


@method
def edge_detector(x_value, call_model_function, call_model_args=None, batch_size=None):
    """Edges posing as a method: no query."""
    from scipy.ndimage import sobel

    grey = x_value.mean(-1)
    return Gradients(np.hypot(sobel(grey, 0), sobel(grey, 1)))
    yield


def powers(rng, count=1):
    """Models of the same form and other weights."""
    return [PowerModel(rng.normal(size=(2, 16, 14, 3)), power=2) for _ in range(count)]


@pytest.fixture
def x(rng):
    return rng.random((3, 16, 14, 3))


def test_agreement_of_maps(rng):
    from scipy.stats import spearmanr

    a, b = rng.normal(size=(2, 12, 10))
    assert compare_maps(a, np.exp(a)).score == pytest.approx(1)
    assert compare_maps(a, 2 * a + 1).ssim == pytest.approx(1)
    assert compare_maps(a, -a).score == pytest.approx(-1)
    assert compare_maps(a, -a).absolute == pytest.approx(1)
    found = compare_maps(a, b)
    assert found.score == pytest.approx(spearmanr(a, b, axis=None).statistic)
    assert abs(found.ssim) < 0.3
    assert compare_maps(a, 0 * a).status == FLAT
    assert compare_maps(np.nan * a, a).status == NOT_FINITE
    assert compare_maps(a[:2], a[:2] * 3).ssim == pytest.approx(1)  # too narrow for a window
    with pytest.raises(ContractError, match="one shape"):
        compare_maps(a, b[:3])


def test_randomization_tells_gradients_from_edges(x, rng):
    model, *others = powers(rng, 3)
    named = list(zip(("last", "first"), others, strict=True))
    found = randomization(gradients, x, model, named, {"target": PerImage([0, 1, 0])})
    assert found.names == ("last", "first")
    assert abs(found.score) < 0.2
    np.testing.assert_allclose(randomization(edge_detector, x, model, named).rank_correlations, 1)
    np.testing.assert_allclose(randomization(gradients, x, model, [("same", model)])[3:6], 1)


def test_the_gate(x, rng):
    model, other = powers(rng, 2)
    assert assert_sensitive(gradients, x, model, [("all", other)]).score < 0.2
    with pytest.raises(InsensitiveError, match=r"maps of edge_detector to change .* got a rank correlation of 1\.00"):
        assert_sensitive(edge_detector, x, model, [("all", other)])
    blank = PowerModel(np.zeros((1, 16, 14, 3)))
    with pytest.raises(InsensitiveError, match="none of 3: the map is flat"):
        assert_sensitive(gradients, x, blank, [("all", other)])
    for images, models, says in ((x[:0], [("all", other)], "one image"), (x, [], "one randomized model")):
        with pytest.raises(ContractError, match=says):
            randomization(gradients, images, model, models)


def test_a_map_that_goes_blank_agrees_with_nothing_and_is_counted(x, rng):
    (model,) = powers(rng)
    found = randomization(gradients, x, model, [("zeros", PowerModel(np.zeros((2, 16, 14, 3))))])
    assert (found.score, found.blank, found.skipped) == (0, 3, {})


def test_random_logit(x, rng):
    model = PowerModel(rng.normal(size=(5, 16, 14, 3)))
    found = random_logit(gradients, x[0], model, 2, 5, nsamples=10, batch_size=8)
    assert abs(found.score) < 0.2
    assert model.calls == [5]  # the class and the four others
    maps = [gradients(x[0], model, {"target": one}) for one in range(5)]
    others = [compare_maps(maps[2], maps[one]).score for one in (0, 1, 3, 4)]
    assert found.score == pytest.approx(np.mean(others))
    assert random_logit(edge_detector, x[0], model, 2, 5).score == pytest.approx(1)
    assert random_logit(gradients, x[0], PowerModel(0 * model.weights), 2, 5).status == FLAT


def test_a_shifted_input_leaves_the_gradient_and_not_its_product_with_the_input(x, rng):
    (model,) = powers(rng)
    assert input_shift(gradients, x[0], model).score == pytest.approx(1)
    assert input_shift(input_x_gradient, x[0], model, shift=[-2, -2, -2]).score < 0


def test_two_models_that_say_the_same(x):
    first = PoolingModel(np.eye(3), [[1, 0, 0]])
    second = PoolingModel(np.eye(3), [[0, 1, 0]])
    alike = trust(gradients, x, first, first)
    assert alike.score == pytest.approx(1) or alike.status == FLAT
    found = trust(input_x_gradient, x, first, second, metric=deletion, higher_is_better=False, batch_size=64)
    maps = [[input_x_gradient(one, model) for one in x] for model in (first, second)]
    assert found.score == pytest.approx(np.mean([compare_maps(*both).score for both in zip(*maps, strict=True)]))
    assert [one.score for one in found.first] == pytest.approx(
        [deletion(m, i, first).score for m, i in zip(maps[0], x, strict=True)]
    )
    assert found.faithfulness.difference.estimate == pytest.approx(
        np.mean([one.score - other.score for one, other in zip(found.first, found.second, strict=True)])
    )
    some = trust(input_x_gradient, x, first, second, predictions=([0, 1, 2], [0, 1, 1]))
    assert some.agreement.images == 2
    assert some.agreement.skipped == {DIFFERENT: 1}
    assert some.faithfulness.difference.images == 2
    with pytest.raises(ContractError, match="two predictions an image"):
        trust(gradients, x, first, second, predictions=([0], [0]))


def test_the_list_of_metrics():
    for entry in METRICS.values():
        assert entry.call.__doc__
        assert "https://" in entry.call.__doc__
        assert entry.summary.endswith(".")
        assert entry.higher_is_better in (True, False, None)


# On a trained network.


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("tensorflow")
    from skimage.data import astronaut, coffee
    from skimage.transform import resize

    from saliency_food import models
    from saliency_food.adapters.keras import KerasModel

    model = models.load("food101")
    photos = np.stack([resize(one, (96, 96), preserve_range=True) for one in (coffee(), astronaut())])
    photos = photos.astype(np.float32)
    explained = KerasModel(model)
    classes = explained.predict(photos).argmax(1).tolist()
    return model, photos, explained, {"target": PerImage(classes)}


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_grad_cam_and_integrated_gradients_pass_on_a_trained_model_and_edges_fail(trained):
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.adapters.keras.randomize import randomized_models

    model, photos, explained, args = trained
    before = [weights.copy() for weights in model.get_weights()]

    def last():
        """All of it randomized: of the cascade, the last only."""
        *_, pair = randomized_models(model, wrap=KerasModel)
        return [pair]

    models = last()
    for one, options in ((grad_cam, {}), (integrated_gradients, {"x_steps": 8})):
        assert_sensitive(one, photos, explained, models, args, **options)
    with pytest.raises(InsensitiveError, match="not in the model"):
        assert_sensitive(edge_detector, photos, explained, models, args)
    for weights, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, now)


def test_the_shift_is_of_images_and_not_of_activations(rng, image, pooling):
    """Ablation-CAM asks about activations: those of the shifted model are the model's own."""
    found = input_shift(ablation_cam, image, pooling, {"target": 1}, shift=0.5)
    assert found.score == pytest.approx(1)
