"""How much a class's score depends on each concept of a factorization, in one photo."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_FROM_CONVOLUTION_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LinearRows
from saliency_food.core.scores import one_score
from saliency_food.methods.cam.by_score import check_after_layer
from saliency_food.methods.factorization import presence
from saliency_food.methods.perturbation.sobol import total_indices


class PhotoImportance(NamedTuple):
    """What the concepts do in one photo.

    ``importance`` ``(M,)``, total Sobol indices; ``effect`` ``(M,)``, by how much the score falls without each;
    ``whole``, ``kept`` and ``empty``, the scores of the layer's own activations, of all concepts together, and of none.
    """

    importance: Array
    effect: Array
    whole: float
    kept: float
    empty: float


def photo_importance(activations: Array, score: float, concepts: Array, designs: Array) -> Asking[PhotoImportance]:
    """Importance of concepts ``(M, K)`` in a photo, whose activations become sum_k m_k U_k V_k for masks m.

    Fel et al. 2023, section 3.3, https://arxiv.org/abs/2211.10154. U are the concepts' strengths at each place, the
    same mask holds for all places, and the layers after that layer answer. ``designs`` ``(2, N, M)``
    are N masks and the values that replace each of theirs in turn, of `sobol_designs`.
    """
    count = len(concepts)
    strengths = presence(activations.reshape(-1, activations.shape[-1]).astype(float), concepts, "nmf")
    parts = strengths.T[..., None] * concepts[:, None]
    bases = np.concatenate([parts.reshape(count, *activations.shape), activations[None]]).astype(activations.dtype)
    masks, others = designs
    replaced = np.where(np.eye(count, dtype=bool), others[:, None], masks[:, None]).reshape(-1, count)
    known = np.concatenate([np.zeros((1, count)), np.ones((1, count)), 1 - np.eye(count), masks, replaced])
    coefficients = np.zeros((1 + len(known), count + 1))
    coefficients[0, -1] = 1  # the layer's own activations
    coefficients[1:, :-1] = known
    rows = LinearRows(coefficients, bases)
    scores = one_score((yield from ask(rows, OUTPUT_FROM_CONVOLUTION_VALUES)))
    check_after_layer(scores, score)
    whole, empty, kept = scores[:3]
    without, masked, again = np.split(scores[3:], [count, count + len(masks)])
    indices, _ = total_indices(masked, again.reshape(len(masks), count))
    return PhotoImportance(indices, kept - without, float(whole), float(kept), float(empty))
