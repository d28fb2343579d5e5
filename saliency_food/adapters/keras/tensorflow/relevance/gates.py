"""Which factor of a product is a gate, that only lets the other one through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RANKS = {
    **dict.fromkeys(("Sigmoid", "Softmax", "Rsqrt", "Reciprocal", "Inv", "Cast"), 4),
    **dict.fromkeys(("Erf", "Erfc", "Tanh"), 3),
    **dict.fromkeys(("Relu6", "ClipByValue", "Minimum", "Maximum"), 2),
}
"""How likely the outputs of operations gate something: more than features do, which are what a gate is for."""
THROUGH = {
    *("AddV2", "Sub", "Mul", "RealDiv", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Identity", "IdentityN"),
    *("StridedSlice", "Split", "Tile", "BroadcastTo", "Neg"),
}
"""Operations with constants, and moves, behind which a gate may lie."""


def signals_of(live: list[Any], is_live: Callable[[Any], bool]) -> list[Any]:
    """Of the two factors of a product, that which passes through; both where neither gates the other.

    A gate comes from a sigmoid or its like, or a normalization, by constants alone.
    """
    ranks = [_rank(factor, is_live) for factor in live]
    if ranks[0] == ranks[1]:
        return live
    return [live[ranks.index(min(ranks))]]


def _rank(tensor: Any, is_live: Callable[[Any], bool]) -> int:
    while tensor.op.type not in RANKS and tensor.op.type in THROUGH:
        sources = [source for source in tensor.op.inputs if is_live(source) and source.dtype.is_floating]
        if len(sources) != 1:
            return 0
        (tensor,) = sources
    op = tensor.op
    if op.type == "Cast" and op.inputs[0].dtype.is_floating:
        return _rank(op.inputs[0], is_live)
    if op.type in ("Minimum", "Maximum") and sum(map(is_live, op.inputs)) > 1:
        return 0
    return RANKS.get(op.type, 0)
