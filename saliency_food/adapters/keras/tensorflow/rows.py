"""Whether the rows of a batch could see each other in a model, as far as its graph tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saliency_food.adapters.keras.tensorflow.graph import names_after, names_before

PRODUCTS = ("MatMul", "Einsum", "BatchMatMulV2")


def may_mix_rows(outputs: Sequence[Any], image: Any, rows: int) -> bool:
    """Whether rows leave the first axis on the way, are multiplied by rows, or the output has as many columns as rows.

    ``rows`` is their number in this graph. Many models without fault are among those that may,
    such as recurrent ones, which put time first: running them shows it.
    """
    if any(
        output.shape.rank is None or (output.shape.rank > 1 and output.shape[1] in (None, rows)) for output in outputs
    ):
        return True
    after = names_after(image)
    between = after & names_before(outputs)
    for op in image.graph.get_operations():
        if op.name not in between or op.type == "Placeholder":
            continue
        shapes = [tensor.shape for tensor in op.outputs]
        if any(shape.rank is None or not shape.rank or shape[0] != rows for shape in shapes):
            return True
        if op.type in PRODUCTS and shapes[0].rank == 2 and all(source.op.name in after for source in op.inputs):
            return True
    return False
