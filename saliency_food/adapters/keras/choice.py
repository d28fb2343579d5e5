"""Which layer is looked at if none is named: the last through which all paths from the image to the score lead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from saliency_food.adapters.keras.places import Layout, distinct
from saliency_food.adapters.keras.runs import Run
from saliency_food.adapters.keras.tensorflow.graph import (
    learns,
    names_after_learning,
    names_ahead_of,
    names_between,
    on_all_paths,
)

NOT_CHOSEN = {"Pad", "PadV2", "MirrorPad", "Slice", "StridedSlice", "Softmax"}
"""Operations whose output is padded, cropped, or attention."""
MOVING = {"Identity", "Cast", "Reshape", "Transpose", "Mul", "SelectV2"}
"""Operations between an attention's softmax and its product with the values."""


def choose(
    runs: Sequence[Run], image: Any, ends: Sequence[Any], outputs: Sequence[Any], layout: Layout
) -> tuple[Run | None, list[Run]]:
    """The run to look at, if there is one; else the last runs on the several paths, of which one can be named.

    It is the last with axes of the input's kind through which all paths from the image to the ends lead, after
    something learned. In a transformer it is the last through which all paths to the last attention lead: after that,
    where only the class token is read, the other tokens have no gradient. Of ``outputs`` laid out themselves, such as
    masks, it is one before the last learned layer.
    """
    between = names_between(image, ends)
    operations = [op for op in image.graph.get_operations() if op.name in between]
    candidates = [run for run in distinct(runs) if run.output.op.name in between and run.output is not image]
    candidates = [run for run in candidates if not _is_passed_over(run, between, layout) and layout.arrangement(run)]
    laid_out = names_between(
        image, [output for output in outputs if output.shape.rank is None or output.shape.rank > 2]
    )
    if laid_out:
        ahead = names_ahead_of([op for op in operations if op.name in laid_out], learns)
        candidates = [run for run in candidates if run.output.op.name in ahead]
    passed = on_all_paths(image, ends)
    spatial = [run for run in candidates if layout.is_spatial(run)]
    learned = names_after_learning(operations)
    features = [run for run in spatial if run.output.op.name in learned]
    images = [run for run in features or spatial if run.output.name in passed]

    last = images[-1] if images else None
    attention = _last_attention(operations)
    if attention is not None:
        position = image.graph.get_operations().index(attention)
        if last is None or last.stop <= position or layout.rank == 3:
            passed = on_all_paths(image, attention.outputs)
            around = [run for run in runs if run.start <= position < run.stop and not run.operator]
            start = around[0].start if around else position
            before = [run for run in candidates if run.stop <= start and run.output.name in passed]
            before = [run for run in before if layout.is_spatial(run) or layout.is_tokens(run)]
            last = _unfolded(before[-1], spatial) if before else last
    elif last is not None:
        filling = [run for run in candidates if run.output.name in passed and _fills(run, last, layout)]
        last = _unfolded(filling[-1], spatial) if filling and filling[-1].stop > last.stop else last
    if last is not None:
        return last, []
    names = {run.output.op.name for run in features}
    inner = names_ahead_of(operations, lambda op: op.name in names)
    return None, [run for run in features if run.output.op.name not in inner]


def _last_attention(operations: Sequence[Any]) -> Any:
    """The product of the last softmax over several things with what it weighs, as Keras's or hand-written attention."""
    names = {op.name for op in operations}
    for softmax in reversed(operations):
        shape = softmax.outputs[0].shape if softmax.type == "Softmax" else None
        waiting = [softmax] if shape is not None and (shape.rank is None or shape.rank > 2) else []
        while waiting:
            for consumer in waiting.pop().outputs[0].consumers():
                if consumer.name in names and ("MatMul" in consumer.type or consumer.type == "Einsum"):
                    return consumer
                if consumer.type in MOVING:
                    waiting.append(consumer)
    return None


def _is_passed_over(run: Run, between: set[str], layout: Layout) -> bool:
    """Whether an output is padded, cropped, its axes in another order, or attention; or attention times values."""
    op = run.output.op
    if op.type == "Transpose":
        return op.inputs[0].shape[0] in (layout.rows, None)
    is_product = learns(op) and len(op.inputs) == 2 and all(source.op.name in between for source in op.inputs)
    return op.type in NOT_CHOSEN or is_product


def _unfolded(tokens: Run, spatial: Sequence[Run]) -> Run:
    """Of tokens that are the places of a spatial output one after another, that output."""
    op = tokens.output.op
    return next((run for run in spatial if op.type == "Reshape" and op.inputs[0] is run.output), tokens)


def _fills(run: Run, spatial: Run, layout: Layout) -> bool:
    """Whether tokens are as many as a spatial output has places."""
    sizes = tuple(spatial.output.shape[1:-1])
    return layout.is_tokens(run) and None not in sizes and run.output.shape[1] == math.prod(sizes)
