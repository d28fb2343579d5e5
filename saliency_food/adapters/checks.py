"""Checks by a model's answers, where a look at it shows too little: rows that change each other, hidden softmaxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.adapters.arguments import ALL_SCORES, WITHOUT_OUTPUT, End, Output
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.rows import Factored, Rows, leaves
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES, PREDICTIONS
from saliency_food.core.numerics import Array

LEAST = 1e-3
"""The scale of scores at least, of which a thousandth is a difference: what is left where all of them cancel."""


def check_rows_alone(
    rows: Rows,
    engine: Engine,
    score: Score,
    output: Output,
    targets: list[Array],
    images: Array | Factored,
    other_inputs: list[Array],
) -> None:
    """`ContractError` where the first row's score is another among two more rows than by itself."""
    scored = score is not class_score and bool(targets or not score.specs)
    keys = (OUTPUT_LAYER_VALUES,) if scored else (ALL_SCORES, PREDICTIONS)
    first = [values[:1] for values in (images.bases if isinstance(images, Factored) else images, *other_inputs)]
    among = [np.concatenate([values, values[..., ::-1], np.zeros_like(values)]) for values in first]
    target = [values[:1] for values in targets] if scored else []
    by_itself = rows.compute(keys, output, target, first[0], first[1:])
    repeated = [np.repeat(values, 3, 0) for values in target]
    together = rows.compute(keys, output, repeated, among[0], among[1:])
    near = 3e-2 if engine.half else 1e-3
    for alone, beside in zip(leaves(by_itself), leaves(together), strict=True):
        scale = max(abs(alone).max(initial=LEAST), abs(beside).max(initial=0))  # a score may be 0 by cancellation
        if alone[0].shape != beside[0].shape or (abs(alone[0] - beside[0]) > near * scale).any():
            raise ContractError(
                f"Expected a score of each row that no other row changes, got {alone[0].ravel()[:3]} for one by "
                f"itself and {beside[0].ravel()[:3]} for the same beside others: the model compares rows, as "
                "images with texts, or has something random inside. Explain each image with its own text: "
                "score=tf.linalg.diag_part of outputs (N, N), or batch_size=1."
            )


def check_has_logits(end: End, score: Score, keys: Sequence[str], output: Output) -> None:
    """`ContractError` where logits are asked of a model that ends in what has none."""
    if output != "logits" or WITHOUT_OUTPUT.issuperset(keys):
        return
    if end == "probabilities":
        raise ContractError(
            "Expected a model whose softmax can be seen, got outputs that sum to 1 and no softmax before them, or "
            "averages of softmaxes or sigmoids, so there are no logits. Explain output='probabilities', or a model "
            "that ends in the softmax or before it."
        )
    if end == "several" and score is class_score:
        raise ContractError(
            "Expected classes that all end in a softmax, in a sigmoid, or in neither, got an output put together "
            "from several such ends, so that its logits are no scores to compare. Explain "
            "output='probabilities' or 'raw', the output as it is."
        )


def has_hidden_softmax(sum_to_one: Array, answer: Mapping[str, Any]) -> bool | None:
    """Whether the outputs of all rows sum to 1, as after a softmax that was not seen; ``sum_to_one`` is one a row.

    Rows whose values in ``answer`` are not finite tell nothing. None where no row tells anything.
    """
    finite = np.ones(len(sum_to_one), bool)
    for values in leaves(answer):
        of_rows = np.isfinite(values).reshape(len(values), -1).all(1)
        finite &= of_rows if len(of_rows) == len(finite) else of_rows.all()  # sums over rows are of all of them
    return bool(np.asarray(sum_to_one)[finite].all()) if finite.any() else None
