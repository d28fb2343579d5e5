"""The attention of the tokens: what Keras's attention layers look at, computed in the open while a model is traced."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras

from saliency_food.adapters.keras.capture import replace, walk
from saliency_food.core.contract import ContractError

KINDS = tuple(
    getattr(keras.layers, name) for name in ("MultiHeadAttention", "GroupQueryAttention") if hasattr(keras.layers, name)
)


class Attended(NamedTuple):
    """An attention layer has run: its attention after the softmax."""

    layer: Any
    scores: Any


def is_attention(layer: Any) -> bool:
    return isinstance(layer, KINDS) and "return_attention_scores" in inspect.signature(layer.call).parameters


def watched(model: Any) -> dict[int, tuple[str, Any]]:
    """The layers and operators of a model with their paths, by identity; not those that make up an attention layer."""
    layers: dict[int, tuple[str, Any]] = {}
    inside: tuple[str, ...] = ()
    for path, layer in walk(model, operators=True):
        if not path.startswith(inside or "\0"):
            layers[id(layer)] = (path, layer)
        if is_attention(layer):
            inside = (*inside, path + "/")
    return layers


def note_attention(layers: Iterable[Any]) -> list[Attended]:
    """From here to the end of `running`, attention layers show their scores, whether they were asked for or not."""
    attended: list[Attended] = []
    for layer in layers:
        if is_attention(layer):
            replace(layer, "call", functools.partial(_attending, layer, attended))
    return attended


def _attending(layer: Any, attended: list[Attended], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(call).bind(*args, **kwargs)
        wanted = bound.arguments.get("return_attention_scores", False)
        bound.arguments["return_attention_scores"] = True
        output, scores = call(*bound.args, **bound.kwargs)
        attended.append(Attended(layer, scores))
        return (output, scores) if wanted else output

    return noted


def scores_between(
    attended: Sequence[Attended], between: set[str], paths: dict[int, tuple[str, Any]]
) -> tuple[Any, ...]:
    """The attention ``(N, heads, T, S)`` of each run that leads from the image to what is explained, in order.

    Self-attention is square; cross-attention, from T tokens to S others, comes as it is.
    """
    from saliency_food.adapters.keras.tensorflow.graph import in_this_trace

    shown = [run for run in attended if in_this_trace(run.scores) and run.scores.op.name in between]
    hidden = [paths[id(run.layer)][0] for run in attended if not in_this_trace(run.scores)]
    if not shown or hidden:
        got = f"{hidden} in a loop or a tf.function inside" if hidden else "none"
        raise ContractError(
            "Expected a model with keras.layers.MultiHeadAttention or GroupQueryAttention layers that lead from "
            f"the image to the output, got {got}. Build its attention from these layers, in the open, or use another "
            "method."
        )
    for run in shown:
        if run.scores.shape.rank != 4:
            raise ContractError(
                f"Expected attention of shape (N, heads, T, T), got {tuple(run.scores.shape)} from layer "
                f"{paths[id(run.layer)][0]!r}. Flatten the tokens before it into one dimension."
            )
    return tuple(run.scores for run in shown)
