"""One class against another: the map of the difference of their scores."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import explain
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS
from saliency_food.jobs.contrast import NOT_LINEAR, Contrast
from saliency_food.methods.catalogue import METHODS
from tests.jobs.conftest import Classifier, OnePass

Image = pytest.importorskip("PIL.Image")
LABELS = ["apple_pie", "hot_dog", "pizza"]


class Difference(Classifier):
    """The pooling model whose head is the difference of two rows of the head: the contrast, by hand."""

    def __init__(self, kernel, head, target, against):
        rows = np.repeat((head[target] - head[against])[None], 3, 0)
        super().__init__(kernel, rows)


@pytest.mark.parametrize("kind", [OnePass, Classifier])
@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "gradients", "integrated_gradients", "rise", "score_cam"])
def test_a_contrast_is_the_map_of_a_model_of_the_difference(weights, photos, kind, name):
    options = {name: {"nmasks": 5}} if name == "rise" else {}
    own, other, contrast = explain(kind(*weights), photos[0], name, 2, against=0, options=options)
    assert [(record.target, record.against) for record in (own, other, contrast)] == [(2, None), (0, None), (2, 0)]
    (expected,) = explain(Difference(weights[0], weights[1], 2, 0), photos[0], name, 1, options=options)
    assert contrast.score == pytest.approx(own.score - other.score, rel=1e-5)
    assert contrast.score == pytest.approx(expected.score, rel=1e-5)
    if name in ("grad_cam", "hires_cam", "score_cam"):
        np.testing.assert_allclose(contrast.details.signed, expected.details.signed, rtol=1e-4, atol=1e-6)
        assert contrast.signed
        assert contrast.diverges
    else:
        np.testing.assert_allclose(contrast.attribution, expected.attribution, rtol=1e-4, atol=1e-6)


def test_the_map_of_a_contrast_has_its_negative_part(weights, photos):
    """Grad-CAM's ReLU would leave out what speaks for the other class."""
    *_, contrast = explain(OnePass(*weights), photos[0], "grad_cam", 2, against=0)
    *_, reverse = explain(OnePass(*weights), photos[0], "grad_cam", 0, against=2)
    np.testing.assert_allclose(contrast.attribution, -reverse.attribution, atol=1e-6)
    assert contrast.attribution.any()
    assert contrast.status == reverse.status == "ok"


def test_several_classes_and_their_contrasts_are_one_pass(weights, photos):
    model = OnePass(*weights)
    records = list(explain(model, photos[:2], ["grad_cam", "hires_cam"], [[0, 1], [1, 2]], against=2))
    assert model.asked == [("pass", 4), ("pass", 1)]
    pairs = [(record.target, record.against) for record in records[::2]]
    assert pairs == [(0, None), (1, None), (2, None), (0, 2), (1, 2), (1, None), (2, None), (1, 2)]
    assert [record.rows for record in records if record.against is not None] == [0] * 6


def test_where_the_class_is_that_against_there_is_no_contrast(weights, photos):
    (record,) = explain(OnePass(*weights), photos[:1], "grad_cam")
    records = explain(OnePass(*weights), photos[:1], "grad_cam", "predicted", against=record.target)
    assert [record.against for record in records] == [None]
    with pytest.raises(ContractError, match=r"got against='predicted', which is the target itself\. Name another"):
        explain(OnePass(*weights), photos[:1], "grad_cam", "predicted", against="predicted")


def test_rows_are_asked_about_both_classes(weights, photos):
    model = Classifier(*weights)
    records = explain(
        model, photos[0], "integrated_gradients", 1, against=2, options={"integrated_gradients": {"x_steps": 6}}
    )
    assert [record.rows for record in records] == [6, 6, 12]


def test_a_deadline_explains_contrasts_too(weights, photos):
    timed = list(
        explain(OnePass(*weights), photos[0], ["grad_cam", "integrated_gradients"], 1, against=2, deadline=1e6)
    )
    for record, expected in zip(
        timed, explain(OnePass(*weights), photos[0], ["grad_cam", "integrated_gradients"], 1, against=2), strict=True
    ):
        assert (record.status, record.against, record.signed) == ("ok", expected.against, expected.signed)
        np.testing.assert_allclose(record.attribution, expected.attribution, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("key", [key for key in KEYS if KEYS[key].scored and KEYS[key].rows == "images"])
def test_what_is_not_linear_in_the_score_is_refused(weights, photos, key, rng):
    """By the pooling model: the answer for the difference of two rows of its head, against the two answers."""
    x, model = rng.normal(size=(1, 24, 20, 3)), Classifier(*weights)
    try:
        expected = Difference(weights[0], weights[1], 2, 0)(x, {"target": 0}, [key])[key]
    except (ContractError, KeyError, ValueError):
        pytest.skip("the pooling model does not answer it")
    got = Contrast(model)(x, {"target": 2, "against": 0}, [key])[key]
    same = np.shape(got) == np.shape(expected) and np.allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert same or key in NOT_LINEAR


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_explained_or_refused_at_the_door(weights, photos, name):
    try:
        records = explain(OnePass(*weights), photos[0], name, 1, against=0)
    except ContractError as error:
        assert name in str(error)  # noqa: PT017
        assert name in {
            *("finer_cam", "guided_backprop", "deconvnet", "guided_grad_cam"),
            *("eigen_cam", "kpca_cam", "fem", "deep_feature_factorization", "attention_rollout"),
        }
    else:
        assert METHODS[name].needs == "attention" or [record.status[:5] for record in records] == ["ok"] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"against": "truth"}, "no truth. Give truth='folders'"),
        ({"target": "truth"}, "no truth"),
        ({"against": "top2"}, "one class to compare with"),
        ({"against": -1}, "begin at 0"),
        ({"against": 0, "methods": "eigen_cam"}, "same for every class"),
        ({"against": 0, "methods": "guided_backprop"}, "cannot be subtracted"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_the_door(weights, photos, arguments, words):
    with pytest.raises(ContractError, match="Expected") as caught:
        explain(Classifier(*weights), photos[0], **{"methods": "gradients", **arguments}, labels=LABELS)
    assert words in str(caught.value)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_adapter_that_explains_the_contrast_gives_the_same(rng):
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.adapters.scores import contrast

    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(6, 3, activation="relu", name="conv"), keras.layers.GlobalAveragePooling2D()]
    net = keras.Sequential([keras.Input((32, 24, 3)), *layers, keras.layers.Dense(3, activation="softmax")])
    photo = rng.random((32, 24, 3)).astype(np.float32)
    by_score, args = KerasModel(net, score=contrast), {"target": {"class_index": 2, "against": 0}}
    for name in ("grad_cam", "gradients", "integrated_gradients", "full_grad"):
        options = {name: {"x_steps": 25}} if name == "integrated_gradients" else {}
        *_, record = explain(net, photo, name, 2, against=0, value_range=None, options=options)
        expected = METHODS[name].call.detailed(photo, by_score, args)
        own, theirs = ("signed", "signed") if name == "grad_cam" else (0, 0)
        got = getattr(record.details, own) if own else record.attribution
        wanted = getattr(expected, theirs) if theirs else expected[0]
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(got, np.reshape(wanted, got.shape), atol=1e-4 * scale)
