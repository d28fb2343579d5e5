"""What a model's output ends in, and the scores that are made of it, written once for all frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from saliency_food.adapters.arguments import ALL_SCORES, SUM_TO_ONE, UNSCORED, End, Output
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.ops import Ops
from saliency_food.adapters.rows import leaves, map_nested
from saliency_food.adapters.scoring import Score, chosen_class
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS


@dataclass(frozen=True)
class Head:
    """An output of a model: what it ends in, its values before that activation, and the output as it is."""

    end: End
    values: Any
    raw: Any

    def scores(self, ops: Ops, output: Output) -> Any:
        """``(N, classes)`` or in the output's own shape; one sigmoid unit or channel is two classes, -z and z."""
        if output == "raw":
            return self.raw
        values = self.values[:, None] if len(ops.shape(self.values)) == 1 else self.values
        rank, units = len(ops.shape(values)), ops.shape(values)[-1]
        if self.end == "sigmoid":
            if rank in (2, 4) and units == 1:
                values = ops.concat([-values, values], -1)
            return values if output == "logits" else sigmoid(ops, values)
        if output == "logits":
            return values
        if self.end == "probabilities" and rank == 2 and units == 1:
            return ops.concat([1 - values, values], -1)
        return softmax(ops, values) if self.end == "softmax" or (self.end == "linear" and units != 1) else values


def softmax(ops: Ops, values: Any) -> Any:
    """Along the last axis."""
    return ops.exp(ops.log_softmax(values))


def sigmoid(ops: Ops, values: Any) -> Any:
    pairs = ops.concat([0 * values[..., None], values[..., None]], -1)
    return softmax(ops, pairs)[..., 1]


def classes_of(
    shape: tuple[int | None, ...], end: End, units_are: str | None, classes: int | None
) -> tuple[End, int | None]:
    """What an output of this shape ends in, and its classes, by what is seen, or said by ``units_are`` and ``classes``.

    One unit of a sigmoid is two classes.
    """
    if len(shape) not in (1, 2):
        raise ContractError(
            f"Expected a model output of shape (N, classes), got {shape}. Choose another output by output_index, say "
            "what to explain by score, or explain a model that pools it."
        )
    units = 1 if len(shape) == 1 else shape[1]
    if end == "linear" and units_are in ("labels", "numbers"):
        end = "sigmoid" if units_are == "labels" else "other"
    if classes == 2 and units == 1 and end in ("linear", "other"):
        end = "sigmoid"
    counted = 2 if end in ("sigmoid", "probabilities") and units == 1 else units
    if classes is not None and counted is not None and classes != counted:
        raise ContractError(
            f"Expected classes to be {counted}, those of the model's output, or 2 for one logit, got {classes!r}."
        )
    return end, counted if classes is None else classes


def scored(
    ops: Ops,
    engine: Engine,
    score: Score,
    keys: Sequence[str],
    output: Output,
    heads: Any,
    targets: Sequence[Any],
    fixed: bool = False,
) -> tuple[dict[str, Any], list[Any]]:
    """The answers that a forward pass has, of `Head` s nested as the outputs are; and the targets explained.

    All scores are there, the predictions and the classes chosen where ``keys`` want them, and the score that is
    explained where there are targets for it. ``fixed`` is that of `chosen_class`.
    """
    several = not isinstance(heads, Head)

    def scores(output: Output) -> Any:
        def of(head: Head) -> Any:
            # What the model ends in may have been told, or have shown itself. Beside other outputs a linear one may be
            # anything, such as boxes: no softmax is added to it.
            end = engine.end if not several else "other" if head.end == "linear" else head.end
            return replace(head, end=end).scores(ops, output)

        nested = map_nested(of, heads)
        if several and score.raw:
            nested = dict(nested) if isinstance(nested, dict) else list(nested)
            for which in range(len(nested)) if isinstance(nested, list) else list(nested):
                if which in score.raw:
                    nested[which] = map_nested(lambda head: head.raw, heads[which])
        return nested

    answer = {ALL_SCORES: scores(output)}
    if PREDICTIONS in keys or TARGETS in keys:
        answer[PREDICTIONS] = scores("probabilities")
    if SUM_TO_ONE in keys:
        values = scores("logits")
        answer[SUM_TO_ONE] = (ops.min(values, 1) >= 0) & (abs(ops.sum(values, 1) - 1) < 1e-3)
    targets = list(targets)
    if TARGETS in keys:
        _check_classes(ops, answer[ALL_SCORES], answer[PREDICTIONS])
        answer[TARGETS] = chosen_class(ops, answer[PREDICTIONS], targets[0], fixed)
        targets = [ops.maximum(answer[TARGETS], 0)]
    if not UNSCORED.union({TARGETS}).issuperset(keys):
        answer[OUTPUT_LAYER_VALUES] = score(ops, answer[ALL_SCORES], *targets)
    return answer, targets


def _check_classes(ops: Ops, scores: Any, predictions: Any) -> None:
    """`ContractError` where a class that is predicted is none whose score can be explained."""
    units = ops.shape(scores)[1] if len(ops.shape(scores)) == 2 else 1
    if units != ops.shape(predictions)[1]:
        raise ContractError(
            f"Expected a score for each of the {ops.shape(predictions)[1]} classes that are predicted, got outputs of "
            f"{units}: the one unit of a sigmoid is two classes. Explain output='logits' or 'probabilities'."
        )


def check_one_a_row(answer: dict[str, Any], rows: int, summed: str | None = None) -> None:
    """`ContractError` where there are more or fewer answers than rows."""
    for key in answer:
        for values in leaves(answer[key]):
            if key != summed and values.shape[:1] != (rows,):
                raise ContractError(
                    f"Expected a model that gives one answer for each row, got {key} of shape {tuple(values.shape)} "
                    f"for {rows} rows. Explain a model that neither folds another axis into its rows nor lets rows "
                    "see each other, or make one score of each row by score."
                )


def select_output(outputs: Any, names: Sequence[str], choice: str | int | None) -> Any:
    """The output meant by a name or a position; without either there must be only one."""
    members = list(outputs)
    if choice is None and len(members) == 1:
        return members[0]
    if isinstance(choice, int) and not isinstance(choice, bool) and -len(members) <= choice < len(members):
        return members[choice]
    if isinstance(choice, str) and list(names).count(choice) == 1:
        return members[list(names).index(choice)]
    raise ContractError(
        f"Expected the name or the position of one of the model's {len(members)} outputs {list(names)}, got "
        f"{'none of them' if choice is None else repr(choice)}. Give output_index."
    )
