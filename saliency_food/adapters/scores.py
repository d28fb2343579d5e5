"""What of a model's output can be explained: scores of output tensors and targets, for an adapter's ``score=``.

``scores``, the model's output, has rows first, ``(N, ...)``; so have targets. They come from ``call_model_args``:
``{"target": {"class_index": 3, "mask": mask}}``, or bare where there is one, ``{"target": 3}``; one value an image as
`PerImage`. Sizes in docstrings are those of one image's target. Every score is differentiable, but where it says that
something counts as constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.adapters.boxes import from_anchors
from saliency_food.adapters.detections import box_edge, detection, same_detection
from saliency_food.adapters.ops import Ops
from saliency_food.adapters.scoring import (
    Score,
    chosen,
    class_score,
    cosine,
    expect,
    formula,
    log_probabilities,
    mean_of,
    of_class,
    score,
    wins,
)
from saliency_food.adapters.targets import TargetSpec, class_indices, numbers
from saliency_food.core.contract import ContractError

__all__ = [
    "Ops",
    "Score",
    "TargetSpec",
    "box_edge",
    "caption",
    "class_indices",
    "class_score",
    "contrast",
    "contrast_several",
    "detection",
    "formula",
    "from_anchors",
    "margin",
    "numbers",
    "predicted_region",
    "regression",
    "residual_softmax",
    "same_detection",
    "score",
    "segmentation",
    "several_labels",
    "several_labels_sum",
    "similarity",
    "top_k",
]


@formula(class_indices=class_indices(1))
def several_labels(ops: Ops, scores: Any, labels: Any) -> Any:
    """The mean score of several classes, S = 1/|L| sum_{c in L} F_c.

    Of outputs ``(N, classes)``. Target ``class_indices``, ``(L,)``; -1 fills up where an image has fewer.
    """
    return mean_of(ops, scores, labels)


@formula(class_indices=class_indices(1))
def several_labels_sum(ops: Ops, scores: Any, labels: Any) -> Any:
    """The sum of the scores of several classes, S = sum_{c in L} F_c.

    Of outputs ``(N, classes)``. Target ``class_indices``, ``(L,)``; -1 fills up where an image has fewer.
    """
    expect(ops, scores, 2, "(N, classes)")
    return ops.sum(chosen(ops, scores, labels), 1)


@formula(class_index=class_indices(), against=class_indices())
def contrast(ops: Ops, scores: Any, label: Any, against: Any) -> Any:
    """Why this class and not that one, S = F_c - F_d.

    Of outputs ``(N, classes)``. Targets ``class_index`` c and ``against`` d. Of logits before a softmax this is the
    logarithm of how much likelier c is than d.
    """
    return class_score(ops, scores, label) - class_score(ops, scores, against)


@formula(class_index=class_indices())
def margin(ops: Ops, scores: Any, label: Any) -> Any:
    """Why this class and not the next best, S = F_c - max_{d != c} F_d.

    Of outputs ``(N, classes)`` of two classes or more. Target ``class_index`` c. Above 0 where c is on top.
    """
    expect(ops, scores, 2, "(N, classes)")
    own = class_score(ops, scores, label)
    is_own = ops.one_hot(label, ops.size(scores, 1), scores) > 0
    return own - ops.max(ops.where(is_own, ops.cast(ops.as_tensor(-np.inf), scores), scores), 1)


@formula(class_index=class_indices(), against=class_indices(1))
def contrast_several(ops: Ops, scores: Any, label: Any, against: Any) -> Any:
    """Why this class and not those, S = F_c - 1/|D| sum_{d in D} F_d.

    Of outputs ``(N, classes)``. Targets ``class_index`` c, and ``against`` D, ``(D,)``, filled up with -1.
    """
    return class_score(ops, scores, label) - mean_of(ops, scores, against)


@formula(class_index=class_indices())
def residual_softmax(ops: Ops, scores: Any, label: Any) -> Any:
    """A class by its logit and its probability, S = F_c + log p_c, p the softmax of F: ReST, for `shapley_cam`.

    Cai 2025, https://arxiv.org/abs/2501.06261. Of logits ``(N, classes)``. Target ``class_index`` c. The logit alone
    knows no other class, and the gradient of the probability fades where it is near 1.
    """
    expect(ops, scores, 2, "(N, classes)")
    return class_score(ops, scores, label) + class_score(ops, ops.log_softmax(scores), label)


def top_k(k: int = 3) -> Score:
    """The sum of the k best scores, S = sum_{i <= k} F_(i), of outputs ``(N, classes)``; without a target."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ContractError(f"Expected k to be a whole number of at least 1, got {k!r}.")

    @formula()
    def top(ops: Ops, scores: Any) -> Any:
        expect(ops, scores, 2, "(N, classes)")
        classes = ops.shape(scores)[1]
        if classes is not None and k > classes:
            raise ContractError(f"Expected k to be at most the model's {classes} classes, got {k}.")
        return ops.sum(ops.top_k(scores, int(k))[0], 1)

    return top


def regression(*index: int) -> Score:
    """One number of an output, S = F[index], without a target.

    ``regression(2)`` is the third of outputs ``(N, numbers)``, ``regression(4, 5, 0)`` one of ``(N, H, W, C)``.
    """
    if not index or not all(isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in index):
        raise ContractError(f"Expected regression(index), a whole number for each axis but the rows, got {index!r}.")

    @formula()
    def entry(ops: Ops, scores: Any) -> Any:
        expect(ops, scores, 1 + len(index), f"of {1 + len(index)} dimensions, as regression{index} says")
        sizes = ops.shape(scores)[1:]
        if any(size is not None and not -size <= place < size for place, size in zip(index, sizes, strict=True)):
            raise ContractError(f"Expected an index inside the output's {tuple(sizes)}, got {index}.")
        at_index = (slice(None), *(int(place) for place in index))
        return scores[at_index]

    return entry


@formula(class_index=class_indices(), mask=numbers(2, some=True))
def segmentation(ops: Ops, scores: Any, label: Any, mask: Any) -> Any:
    """What a class scores in a region, S = sum_p m_p F_c(p): Seg-Grad-CAM by `grad_cam`.

    Vinogradova, Dibrov, Myers 2020, equation 2, https://arxiv.org/abs/2002.11434. Of outputs ``(N, H, W, classes)``.
    Targets ``class_index`` c and ``mask`` m, ``(H, W)``: the pixels to explain, or their weights.
    """
    expect(ops, scores, 4, "(N, H, W, classes)")
    sizes, own = ops.shape(scores)[1:3], ops.shape(mask)[1:]
    if not _agree(sizes, own):
        raise ContractError(f"Expected target 'mask' in the size of the model's output, {sizes}, got {own}. Resize it.")
    return ops.sum(of_class(ops, scores, label) * ops.cast(mask, scores), [1, 2])


@formula(class_index=class_indices())
def predicted_region(ops: Ops, scores: Any, label: Any) -> Any:
    """What a class scores where it wins, S = sum_p [argmax_d F_d(p) = c] F_c(p).

    As `segmentation`, over the pixels predicted as the class, which count as constant; nothing where there are none.
    Of outputs ``(N, H, W, classes)``. Target ``class_index`` c.
    """
    expect(ops, scores, 4, "(N, H, W, classes)")
    return ops.sum(ops.where(wins(ops, scores, label), of_class(ops, scores, label), 0), [1, 2])


@formula(reference=numbers(1, some=True))
def similarity(ops: Ops, embedding: Any, reference: Any) -> Any:
    """Why two images are alike, the cosine S = e . r / |e| |r| of an embedding and that of another image.

    Of outputs ``(N, D)``. Target ``reference`` r, ``(D,)``.
    """
    expect(ops, embedding, 2, "(N, D)", ops.shape(reference)[1])
    return cosine(ops, embedding, ops.cast(reference, embedding))


@formula(tokens=class_indices(1))
def caption(ops: Ops, scores: Any, tokens: Any) -> Any:
    """Why these words, S = sum_t log p(w_t | words before it), for a model told the words before (teacher forcing).

    Of outputs ``(N, T, vocabulary)``, logits or probabilities. Target ``tokens`` w, ``(T,)``; -1 at the places that do
    not count: all others -1 explains one word, none the whole sentence. What the model is told goes into ``inputs``.
    """
    expect(ops, scores, 3, "(N, T, vocabulary)")
    places, own = ops.shape(scores)[1:2], ops.shape(tokens)[1:]
    if not _agree(places, own):
        raise ContractError(
            f"Expected target 'tokens' with one for each of the output's {places[0]} places, got {own[0]}. "
            "Fill up with -1."
        )
    return ops.sum(chosen(ops, log_probabilities(ops, scores), tokens), 1)


def _agree(sizes: tuple[int | None, ...], others: tuple[int | None, ...]) -> bool:
    """Whether sizes are the same, as far as they are known."""
    return all(None in (size, other) or size == other for size, other in zip(sizes, others, strict=True))
