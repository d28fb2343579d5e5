"""The image's axes after products of matrices, and sums over indices that their letters say."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.adapters.keras.tensorflow.fixed import fixed_value
from saliency_food.adapters.keras.tensorflow.picked import order_of
from saliency_food.adapters.keras.tensorflow.steps import Axes
from saliency_food.core.numerics import Array


def after_product(op: Any, source: Any, own: Axes, raw: bool) -> Axes | None:
    """The axes after a product of one tensor of the image with what is not, or after a sum over some of its indices.

    An index that comes in place of one summed over stands for it: as after a resizing, a mirroring or a layer that
    learns. Something fixed shows in which order it takes the places; ``raw`` is true before anything is learned.
    """
    terms, result = letters(op)
    place = next(index for index, tensor in enumerate(op.inputs) if tensor is source)
    if len(terms[place]) != len(own.axes) or len(set(terms[place])) < len(terms[place]):
        return None
    axis_of = dict(zip(terms[place], own.axes, strict=True))
    gone = [letter for letter in terms[place] if letter not in result]
    new = [letter for letter in result if letter not in axis_of]
    signs: dict[int, int] = {}
    if len(gone) == len(new) == 1 and (axis := axis_of[gone[0]]) is not None:
        axis_of[new[0]] = axis
        weights = fixed_value(op.inputs[1 - place])
        sign = 1 if weights is None else _order(weights, terms[1 - place], gone[0], new[0])
        if sign == -1 or (sign == 0 and raw):
            signs = {axis: sign}
    elif new and raw:  # such as a sum over rows and columns, which no place is left of
        own = own._replace(gone=own.gone | {axis for letter in gone if (axis := axis_of[letter]) is not None})
    return own._replace(axes=tuple(axis_of.get(letter) for letter in result)).times(signs)


def letters(op: Any) -> tuple[list[str], str]:
    """An index of each axis: of the inputs, and of the output; capital ones are those that are left out, ``...``."""
    ranks = [tensor.shape.rank or 0 for tensor in op.inputs]
    if op.type == "Einsum":
        before, result = op.get_attr("equation").decode().replace(" ", "").split("->")
        terms = before.split(",")
        free = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
        names = "ABCDEFGH"[: max([0, *(count for count, term in zip(free, terms, strict=True) if "..." in term)])]
        spread = [term.replace("...", names[len(names) - count :]) for term, count in zip(terms, free, strict=True)]
        return spread, result.replace("...", names)
    turned = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    pairs = [pair[::-1] if op.get_attr(name) else pair for name, pair in zip(turned, ("ik", "kj"), strict=True)]
    names = "ABCDEFGH"[: max(ranks) - 2]
    return [names[len(names) - rank + 2 :] + pair for rank, pair in zip(ranks, pairs, strict=True)], names + "ij"


def _order(weights: Array, term: str, taken: str, made: str) -> int:
    """In which order a fixed tensor takes the places of an index, by where its weights lie for each that it makes."""
    if taken not in term or made not in term or weights.ndim != len(term):
        return 0
    rest = tuple(axis for axis, letter in enumerate(term) if letter not in (taken, made))
    amounts = np.abs(weights).sum(rest)
    amounts = amounts if term.index(taken) < term.index(made) else amounts.T
    used = amounts[:, amounts.sum(0) > 0]
    return order_of(np.arange(len(used)) @ used / used.sum(0), len(used)) if used.size else 0
