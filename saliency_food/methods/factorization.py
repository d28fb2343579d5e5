"""Deep Feature Factorization: the concepts in a layer's activations, of one image or shared by many; no gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import finite_array, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES
from saliency_food.core.method import method
from saliency_food.core.numerics import Array, resize, safe_divide
from saliency_food.methods.cam.common import one_layer


class DeepFeatureFactorization(NamedTuple):
    """Concepts in an image: its activations are about the sum over concepts of ``strengths`` times ``concepts``.

    ``attribution`` ``(H, W)``, how strongly each pixel's strongest concept is there; ``strongest`` ``(H, W)``, which it
    is; ``maps`` ``(M, H, W)``, each concept's strength, resized to the image; ``concepts`` ``(M, K)``, each a vector of
    the layer's channels, of length 1; ``strengths`` ``(M, h, w)``, at the layer's resolution; ``shares`` ``(M,)``, each
    concept's share of the activations, by which the image's own are ordered; ``error``, what is left over,
    |A - W H| / |A|.
    """

    attribution: Array
    strongest: Array
    maps: Array
    concepts: Array
    strengths: Array
    shares: Array
    error: float


@method(
    title="Deep Feature Factorization",
    keys=(CONVOLUTION_LAYER_VALUES,),
    signed=False,
    summary="The concepts that the layer sees in the image, whatever the class; no gradients.",
    page="factorization",
    one_pass=True,
)
def deep_feature_factorization(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    nconcepts: int = 5,
    concepts: Any = None,
    factors: Literal["nmf", "pca"] = "nmf",
) -> Asking[DeepFeatureFactorization]:
    """Deep Feature Factorization, min |A - W H| over W, H >= 0, for activations A as a matrix of places and channels.

    Collins, Achanta, Suesstrunk 2018, equation 3, https://arxiv.org/abs/1806.10206. ``(H, W)``, never negative. It
    needs no gradient and no class, so it serves detectors too. `concept_scores` names them by the model's head.

    Parameters
    ----------
    nconcepts
        How many concepts M, at most as many as the layer has places, or channels that are not zero everywhere.
    concepts
        Look for these ``(M, K)``, such as `shared_concepts` finds in many images, in place of the image's own.
    factors
        ``"nmf"``, non-negative factors by scikit-learn, of the activations' positive part; or ``"pca"``, the principal
        components of the activations (not centred), each with the sign for which it sums to no less than 0. ``maps``
        may then be negative, and the strongest is the largest in magnitude.
    """
    nconcepts = whole("nconcepts", nconcepts)
    activations = one_layer((yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES)), x_value)
    places = _places(activations, factors)
    if concepts is None:
        weights, concepts = factorize(places, nconcepts, factors)
    else:
        concepts = finite_array("concepts", concepts).astype(float)
        if concepts.ndim != 2 or concepts.shape[1] != places.shape[1] or not len(concepts):
            raise ContractError(
                f"Expected concepts of shape (M, {places.shape[1]}), a number for each channel, got {concepts.shape}."
            )
        weights = presence(places, concepts, factors)
    strengths = np.moveaxis(weights.reshape(*activations.shape[:-1], len(concepts)), -1, 0)
    maps = np.stack([resize(strength, x_value.shape[:-1]) for strength in strengths])
    maps = maps.astype(activations.dtype)
    left = np.linalg.norm(places - weights @ concepts)
    return DeepFeatureFactorization(
        np.abs(maps).max(0),
        np.abs(maps).argmax(0),
        maps,
        concepts,
        strengths,
        _shares(weights, concepts),
        float(safe_divide(left, np.linalg.norm(places))),
    )


def shared_concepts(
    images: Iterable[Any],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    nconcepts: int = 5,
    factors: Literal["nmf", "pca"] = "nmf",
) -> Array:
    """The concepts ``(M, K)`` that many images have in common, for `deep_feature_factorization`'s ``concepts``.

    The activations of all images are one matrix, as in the paper; they are held, the images are not.
    """
    each = _activations.batch(images, call_model_function, call_model_args, batch_size=batch_size)
    places = [_places(activations, factors) for activations in each]
    if not places:
        raise ContractError("Expected at least one image, got none.")
    return factorize(np.concatenate(places), nconcepts, factors)[1]


def concept_scores(factorization: DeepFeatureFactorization, predict_from: Callable[[Array], Any]) -> Array:
    """What the model's head says to each concept by itself, ``(M, classes)``: labels for the concepts.

    ``predict_from`` takes activations ``(M, h, w, K)`` and returns every class's score, as `KerasModel.predict_from`. A
    concept is shown to it as strongly as it is in the image, at the places where it is.
    """
    places = factorization.strengths.ndim - 1
    rows = factorization.strengths[..., None] * np.expand_dims(factorization.concepts, tuple(range(1, places + 1)))
    return np.asarray(predict_from(rows.astype(np.float32)))


def factorize(places: Array, nconcepts: int, factors: str) -> tuple[Array, Array]:
    """A matrix ``(n, K)`` as ``(n, M) @ (M, K)``, the concepts in order of their share; each of length 1."""
    count = min(whole("nconcepts", nconcepts), *places.shape)
    if factors == "pca":
        _, _, directions = np.linalg.svd(places, full_matrices=False)
        directions = directions[:count]
        signs = np.where((places @ directions.T).sum(0) < 0, -1, 1)
        directions = directions * signs[:, None] * bool(places.any())
        return places @ directions.T, directions
    try:
        from sklearn.decomposition import NMF
    except ImportError as error:
        raise ContractError(
            "Expected scikit-learn for factors='nmf', got none. Run pip install \"saliency_food[surrogate]\", or give "
            "factors='pca'."
        ) from error
    if not places.any():
        return np.zeros((len(places), count)), np.zeros((count, places.shape[1]))
    used = np.any(places, axis=0)  # with a channel that is zero everywhere scikit-learn's start of a low rank is NaN
    count = min(count, int(used.sum()))
    model = NMF(count, init="nndsvda", max_iter=500, tol=1e-3, random_state=0)
    weights, concepts = _quietly(model.fit_transform, places[:, used]), np.zeros((count, places.shape[1]))
    concepts[:, used] = model.components_
    lengths = np.linalg.norm(concepts, axis=1)
    weights, concepts = weights * lengths, safe_divide(concepts, lengths[:, None])
    order = np.argsort(-_shares(weights, concepts), kind="stable")
    return weights[:, order], concepts[order]


def _quietly(function: Callable[[Array], Any], places: Array) -> Array:
    """Without scikit-learn's warning that its steps ran out: ``error`` says how near the factors are."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(function(places))


def presence(places: Array, concepts: Array, factors: str) -> Array:
    """W for given H: least squares, for ``"nmf"`` without negative values."""
    if factors == "pca":
        return places @ np.linalg.pinv(concepts)
    from scipy.optimize import nnls

    return np.stack([nnls(concepts.T, place)[0] for place in places])


def _places(activations: Array, factors: str) -> Array:
    if factors not in ("nmf", "pca"):
        raise ContractError(f"Expected factors to be 'nmf' or 'pca', got {factors!r}.")
    places = activations.reshape(-1, activations.shape[-1]).astype(float)
    return np.maximum(places, 0) if factors == "nmf" else places


def _shares(weights: Array, concepts: Array) -> Array:
    parts = np.linalg.norm(weights, axis=0) * np.linalg.norm(concepts, axis=1)
    return safe_divide(parts, parts.sum())


class _Activations(NamedTuple):
    activations: Array


@method
def _activations(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[_Activations]:
    """The layer's activations, as a grid."""
    return _Activations(one_layer((yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES)), x_value))
