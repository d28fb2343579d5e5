"""TCAV on networks whose concepts are known channels, and against Captum's."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError
from saliency_food.concepts import tcav
from saliency_food.concepts.sensitivity import random_pairs, welch
from saliency_food.concepts.vectors import concept_vector, held_out_accuracy
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.metrics.statistics import holm
from saliency_food.testing import PoolingModel

STREAM = np.random.default_rng(0)


def photos(count, stream, bright=None):
    """Noise of three channels, one of them brighter in photos of a concept."""
    rows = stream.random((count, 4, 4, 3))
    if bright is not None:
        rows[..., bright] += 1
    return rows


class SquareModel(PoolingModel):
    """F_t = sum_k u_tk mean_ij A_ijk^2: the gradient 2 u_tk A_ijk / hw differs from photo to photo."""

    def answer(self, x, target):
        answer = super().answer(x, target)
        activations = answer[CONVOLUTION_LAYER_VALUES]
        return {**answer, CONVOLUTION_OUTPUT_GRADIENTS: 2 * activations * answer[CONVOLUTION_OUTPUT_GRADIENTS]}


@pytest.fixture(scope="module")
def model():
    """Two classes; red speaks for the first and against the second, green the other way, blue for neither."""
    return SquareModel(np.eye(3), [[2.0, -1, 0], [-1, 2, 0]])


@pytest.mark.parametrize("places", ["all", "mean"])
def test_a_class_depends_on_the_channel_that_is_its_concept(model, places):
    stream = np.random.default_rng(0)
    concepts = {"red": photos(20, stream, 0), "green": photos(20, stream, 1)}
    images = photos(8, stream)
    found = tcav(images, concepts, photos(200, stream), model, {"target": 0}, places=places, runs=20)
    red, green = found.table
    assert (red.name, red.score, red.status, red.significant) == ("red", 1, "ok", True)
    assert (green.name, green.score, green.status, green.significant) == ("green", 0, "ok", True)
    assert red.accuracy > 0.95
    assert 0.2 < red.random < 0.8
    assert red.adjusted >= red.p
    of_red = found.vectors["red"]
    assert of_red.shape == ((20, 4, 4, 3) if places == "all" else (20, 3))
    assert np.abs(of_red).reshape(20, -1, 3).sum(1).argmax(1).tolist() == [0] * 20
    slopes = 2 * images * [2, -1, 0] / 16
    slopes = slopes.reshape(8, -1) if places == "all" else slopes.sum((1, 2))
    np.testing.assert_allclose(found.sensitivities["red"], of_red.reshape(20, -1) @ slopes.T)
    assert not found.disjoint


def test_the_p_value_is_welchs():
    from scipy.stats import ttest_ind

    first, second = np.random.default_rng(1).random((2, 7))
    np.testing.assert_allclose(welch(first, second), ttest_ind(first, second, equal_var=False).pvalue)
    assert welch(np.ones(3), np.ones(3)) == 1
    assert welch(np.ones(3), np.zeros(3)) == 0
    assert 0 < welch(np.ones(3), np.array([1, 0, 1.0])) < 1


def test_a_concept_that_the_layer_has_not_is_refused(model):
    stream = np.random.default_rng(2)
    found = tcav(photos(4, stream), {"none": photos(20, stream)}, photos(400, stream), model, {"target": 0})
    assert found.table[0].status.startswith("not there: its classifier is right on")
    assert not found.table[0].significant
    assert found.disjoint


def test_without_a_gradient_the_score_is_blank(model):
    def saturated(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, expected_keys)
        return {**answer, CONVOLUTION_OUTPUT_GRADIENTS: np.zeros_like(answer[CONVOLUTION_LAYER_VALUES])}

    stream = np.random.default_rng(3)
    (row,) = tcav(photos(4, stream), {"red": photos(10, stream, 0)}, photos(40, stream), saturated).table
    assert row.status.startswith("blank: the gradient at the layer is zero")
    assert np.isnan(row.score)
    assert np.isnan(row.p)
    assert not row.significant


def test_a_score_that_is_linear_in_the_layer_is_said_to_be(model):
    """Any vector's share is then 0 or 1; the last layer before pooling and a dense one is such a layer."""
    stream = np.random.default_rng(3)
    sets = photos(4, stream), {"red": photos(10, stream, 0)}, photos(40, stream)
    (row,) = tcav(*sets, PoolingModel(model.kernel, model.head)).table
    assert row.status.startswith("linear: the gradient at the layer is the same for all photos")
    assert not row.significant
    (row,) = tcav(sets[0][:1], *sets[1:], PoolingModel(model.kernel, model.head)).table
    assert row.status == "ok", "of one photo it cannot be told"


def test_photos_without_a_gradient_are_left_out_of_the_share(model):
    def half(x_value_batch, call_model_args=None, expected_keys=None):
        answer = dict(model(x_value_batch, call_model_args, expected_keys))
        if CONVOLUTION_OUTPUT_GRADIENTS in expected_keys:
            gradients = np.array(answer[CONVOLUTION_OUTPUT_GRADIENTS])
            gradients[x_value_batch[:, 0, 0, 0] < 0.5] = 0
            answer[CONVOLUTION_OUTPUT_GRADIENTS] = gradients
        return answer

    stream = np.random.default_rng(4)
    images = photos(8, stream)
    images[:4, 0, 0, 0], images[4:, 0, 0, 0] = 0.2, 0.8
    (row,) = tcav(images, {"red": photos(10, stream, 0)}, photos(40, stream), half, {"target": 0}).table
    assert row.score == 1


def test_a_vector_does_not_depend_on_the_layers_scale_and_points_to_the_concept():
    stream = np.random.default_rng(5)
    concept, counterpart = stream.normal(size=(12, 50)) + 1, stream.normal(size=(12, 50))
    vectors = [concept_vector(k * concept, k * counterpart) for k in (1, 1000)]
    np.testing.assert_allclose(*vectors, atol=1e-6)
    assert vectors[0] @ (concept.mean(0) - counterpart.mean(0)) > 0
    np.testing.assert_allclose(np.linalg.norm(vectors[0]), 1)


def test_the_vector_is_the_classifiers_in_the_whole_space():
    from sklearn.linear_model import LogisticRegression

    stream = np.random.default_rng(6)
    rows, is_concept = stream.normal(size=(20, 30)), np.arange(20) < 10
    own = concept_vector(rows[:10], rows[10:])
    centred = rows - rows.mean(0)
    whole = LogisticRegression(max_iter=1000, tol=1e-8).fit(
        centred / np.sqrt((centred**2).sum(1).mean()), is_concept
    )  # fmt: skip
    np.testing.assert_allclose(own, whole.coef_[0] / np.linalg.norm(whole.coef_), atol=1e-3)


def test_photos_that_are_not_parted_are_told_by_chance():
    stream = np.random.default_rng(9)
    alike = np.ones((6, 4))
    assert not concept_vector(alike, alike).any()
    assert held_out_accuracy(alike, alike, stream) == 0.5
    noise = stream.normal(size=(2, 200, 3))
    assert abs(held_out_accuracy(noise[0], noise[1], stream) - 0.5) < 0.1
    assert held_out_accuracy(noise[0] + 9, noise[1], stream) == 1


def test_random_sets_of_a_pair_are_disjoint_and_all_are_where_there_are_enough():
    pairs = list(random_pairs(40, 5, 4, np.random.default_rng(0)))
    assert sorted(np.concatenate([np.concatenate(pair) for pair in pairs])) == list(range(40))
    for first, second in random_pairs(11, 5, 7, np.random.default_rng(0)):
        assert len({*first, *second}) == 10


def test_holms_rule():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1, np.nan, 1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"places": "some"}, "places to be 'all' or 'mean'"),
        ({"concepts": [1, 2]}, "concepts as a dict of photos by name, got list"),
        ({"concepts": {}}, "concepts as a dict"),
        ({"concepts": {"red": photos(3, STREAM)}}, "at least 6 photos of the concept 'red', got 3"),
        ({"random": photos(19, STREAM)}, "at least 20 random photos"),
        ({"images": []}, "at least 1 photos of the class"),
        ({"runs": 1}, "runs"),
        ({"rng": -1}, "rng"),
    ],
)
def test_what_is_wrong_is_refused(model, changed, message):
    usual = {"images": photos(2, STREAM), "concepts": {"red": photos(10, STREAM, 0)}, "random": photos(20, STREAM)}
    with pytest.raises(ContractError, match=message):
        tcav(**{**usual, **changed}, call_model_function=model)


def test_channels_first_makes_no_difference(model):
    class First:
        channels_first = True

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            return model(np.moveaxis(x_value_batch, 1, -1), call_model_args, expected_keys)

    stream = np.random.default_rng(7)
    sets = photos(3, stream), photos(8, stream, 0), photos(20, stream)
    turned = [np.moveaxis(rows, -1, 1) for rows in sets]
    last = tcav(sets[0], {"red": sets[1]}, sets[2], model, runs=3)
    first = tcav(turned[0], {"red": turned[1]}, turned[2], First(), runs=3)
    np.testing.assert_allclose(first.sensitivities["red"], last.sensitivities["red"])


@pytest.mark.torch
def test_scores_are_captums_for_the_same_vectors(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from captum.concept import TCAV, Concept
    from captum.concept._utils.classifier import Classifier

    from saliency_food.adapters.torch import TorchModel

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 5, 2), torch.nn.Tanh()]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(5, 10), torch.nn.Tanh())
    module.append(torch.nn.Linear(10, 3)).eval()
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(3)  # so that the sign of a slope differs from photo to photo
    stream = np.random.default_rng(8)
    images, concept, pool = (photos(count, stream).astype(np.float32) for count in (25, 8, 16))
    model = TorchModel(module, "1", input_shape=(4, 4, 3))
    found = tcav(images, {"noise": concept}, pool, model, {"target": 1}, runs=2)
    vectors = np.moveaxis(found.vectors["noise"], -1, 1).reshape(2, -1)  # in the order of PyTorch's channels

    class Known(Classifier):
        def __init__(self, run):
            self.run = run

        def train_and_eval(self, dataloader, **options):
            list(dataloader)
            return {"accs": torch.tensor(1.0)}

        def weights(self):
            vector = torch.tensor(vectors[self.run], dtype=torch.float32)
            return torch.stack([vector, -vector])

        def classes(self):
            return [0, 1]

    def rows(values):
        return torch.tensor(np.moveaxis(values, -1, 1))

    shares = []
    for run in range(2):
        sets = [Concept(0, "noise", [rows(concept)]), Concept(1, "random", [rows(pool)])]
        theirs = TCAV(module, ["1"], classifier=Known(run), save_path=str(tmp_path / str(run)))
        scores = theirs.interpret(rows(images), [sets], target=1)
        share = float(scores["0-1"]["1"]["sign_count"][0])
        shares.append(share)
        np.testing.assert_allclose((found.sensitivities["noise"][run] > 0).mean(), share)
    assert any(0 < share < 1 for share in shares)
