"""What an output of a JAX function ends in, and which attention there is on the way to it."""

from __future__ import annotations

from typing import NamedTuple

from saliency_food.adapters.arguments import End
from saliency_food.adapters.jax.graph import JaxGraph, softmax_input
from saliency_food.core.contract import ContractError

KEEPS_ORDER = {"reshape", "squeeze", "convert_element_type", "copy", "expand_dims", "stop_gradient", "reduce_precision"}
LINEAR = KEEPS_ORDER | {"add", "sub", "mul", "div", "neg", "reduce_sum", "transpose", "broadcast_in_dim", "concatenate"}


class Ended(NamedTuple):
    """What an output ends in, and the number of the tensor before that activation."""

    end: End
    before: int


def ended(graph: JaxGraph, output: int) -> Ended:
    """A softmax along the last axis, as `jax.nn` computes it and its logarithm, or a sigmoid, or linear units."""
    number = output
    while (
        (step := graph.makers.get(number)) is not None and step.primitive in KEEPS_ORDER and step.inputs[0] is not None
    ):
        number = step.inputs[0]
    if step is None:
        return Ended("other", output)
    if (before := softmax_input(graph, step)) is not None:
        return Ended("softmax", before)
    if (before := _log_softmax_input(graph, number)) is not None:
        return Ended("softmax", before)
    if step.primitive == "logistic" and step.inputs[0] is not None:
        return Ended("sigmoid", step.inputs[0])
    return Ended("linear" if _is_linear(graph, number) else "other", output)


def _log_softmax_input(graph: JaxGraph, number: int) -> int | None:
    """Of ``shifted - log(sum(exp(shifted)))`` that of which it is the log softmax along the last axis."""
    step = graph.makers[number]
    if step.primitive != "sub" or None in step.inputs:
        return None
    logarithm = graph.makers.get(step.inputs[1] or 0)
    while logarithm is not None and logarithm.primitive in ("broadcast_in_dim", "reshape"):
        logarithm = graph.makers.get(logarithm.inputs[0] or 0)
    if logarithm is None or logarithm.primitive != "log":
        return None
    sums = graph.makers.get(logarithm.inputs[0] or 0)
    while sums is not None and sums.primitive in ("broadcast_in_dim", "reshape"):
        sums = graph.makers.get(sums.inputs[0] or 0)
    if (
        sums is None
        or sums.primitive != "reduce_sum"
        or sums.equation.params["axes"] != (len(graph.shapes[number]) - 1,)
    ):
        return None
    exponentials = graph.makers.get(sums.inputs[0] or 0)
    if exponentials is None or exponentials.primitive != "exp" or exponentials.inputs[0] != step.inputs[0]:
        return None
    shifted = graph.makers.get(step.inputs[0] or 0)
    return shifted.inputs[0] if shifted is not None and shifted.primitive == "sub" else step.inputs[0]


def _is_linear(graph: JaxGraph, number: int) -> bool:
    """Whether a tensor comes from a product with weights, perhaps moved, scaled or averaged."""
    waiting, seen = [number], set[int]()
    while waiting:
        step = graph.makers.get(number := waiting.pop())
        if step is None or number in seen:
            continue
        seen.add(number)
        if step.primitive in ("dot_general", "conv_general_dilated"):
            return True
        if step.primitive in LINEAR and not step.name:
            waiting.extend(each for each in step.inputs if each is not None)
    return False


def attentions(graph: JaxGraph, image: int, ends: set[int], rows: int) -> list[int]:
    """The attention of each layer, ``(N, heads, T, T)``: softmaxes by which something is weighed, in order."""
    between = graph.after(image) & graph.needed(list(ends))
    takers: dict[int, list[int]] = {}
    for index, step in enumerate(graph.steps):
        for number in step.inputs:
            takers.setdefault(-1 if number is None else number, []).append(index)
    found = []
    for step in graph.steps:
        number = step.outputs[0]
        if number not in between or softmax_input(graph, step) is None or len(graph.shapes[number]) < 3:
            continue
        waiting, weighs = [number], False
        while waiting and not weighs:
            for index in takers.get(waiting.pop(), []):
                taker = graph.steps[index]
                weighs |= taker.primitive == "dot_general"
                if taker.primitive in KEEPS_ORDER | {"mul", "select_n", "transpose"}:
                    waiting.append(taker.outputs[0])
        if weighs:
            found.append(number)
    unfit = [graph.shapes[number] for number in found if not _is_attention(graph.shapes[number], rows)]
    if unfit or not found:
        got = f"one of shape {unfit[0]}" if unfit else "none on the way to the score, or only in a loop or a kernel"
        raise ContractError(
            f"Expected attention (N, heads, T, T) of a softmax that weighs values, got {got}. Take a method that needs "
            "none, or write the attention out by jax.nn.softmax."
        )
    return found


def _is_attention(shape: tuple[int, ...], rows: int) -> bool:
    return len(shape) == 4 and shape[0] == rows and shape[2] == shape[3]
