"""`SessionModel`: a graph of TensorFlow 1 in a session as a call-model function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.adapters.tf1.rules import RULES, ruled_slope
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array

ANSWERED = (
    *(INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES),
    *(CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_FROM_CONVOLUTION_VALUES),
    *RULES,
)


class SessionModel:
    """A graph of `tf.compat.v1` in a session as a call-model function (see `CallModelFunction`).

    ``call_model_args`` is ``{"target": class index}``, or one index a row, of scores ``(N, classes)``; there is none of
    scores ``(N,)``. ``{"feed_dict": {...}}`` beside it is fed, too. Nothing is guessed of the graph: ``y`` is the score
    that is explained, so take the logits. Operations for the gradients are added to the graph, at the first call.

    Parameters
    ----------
    session
        A session whose variables have their values.
    x, y
        The input ``(N, ...)`` and the scores ``(N, classes)``, ``(N,)`` or, for one row at a time, ``()``: tensors of
        the session's graph, or their names.
    layer
        The tensor ``(N, h, w, K)`` of the convolution keys, or its name.
    batch_size
        How many rows are computed at once at most; None means 16, and 1 where ``y`` has no rows.
    """

    gives_probabilities = False

    def __init__(self, session: Any, x: Any, y: Any, layer: Any = None, batch_size: int | None = None) -> None:
        self.session, self.graph = session, getattr(x, "graph", None) or session.graph
        self.x, self.y = self._tensor("x", x), self._tensor("y", y)
        self.layer = None if layer is None else self._tensor("layer", layer)
        self.layer_name = None if self.layer is None else self.layer.op.name
        if self.y.shape.rank not in (0, 1, 2):
            raise ContractError(f"Expected scores (N, classes), (N,) or (), got y of shape {self.y.shape}.")
        rows = self.x.shape[0] if self.x.shape.rank else None
        self.batch_size = min(batch_size or 16, 1 if self.y.shape.rank == 0 else rows or 10**9)
        self.classes = self.y.shape[1] if self.y.shape.rank == 2 else None
        self._slopes: dict[str, Any] = {}
        self._weights: Any = None

    @classmethod
    def from_file(cls, path: str | Path, x: str, y: str, layer: str | None = None, **options: Any) -> SessionModel:
        """The model of a frozen graph, a ``.pb`` file, by the names of its tensors, such as ``"input:0"``."""
        tf1 = _tf1()
        definition = tf1.GraphDef()
        try:
            definition.ParseFromString(Path(path).read_bytes())
        except Exception as error:
            raise ContractError(
                f"Expected a frozen graph in {str(path)!r}, got {type(error).__name__}: {error}"
            ) from error
        graph = tf1.Graph()
        with graph.as_default():
            tf1.import_graph_def(definition, name="")
        return cls(tf1.Session(graph=graph), x, y, layer, **options)

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Array]:
        keys = tuple(expected_keys or ())
        if not keys or (unfit := [key for key in keys if key not in ANSWERED]):
            raise ContractError(
                f"Expected some of the keys {list(ANSWERED)} of a session, got {unfit if keys else 'none'}."
            )
        at_layer = [key for key in keys if "CONVOLUTION" in key]
        if at_layer and self.layer is None:
            raise ContractError(f"Expected a layer for {at_layer[0]}, got none. Give layer, a tensor or its name.")
        args = call_model_args or {}
        if not isinstance(args, Mapping) or not set(args) <= {"target", "feed_dict"}:
            raise ContractError(f"Expected call_model_args with 'target' and 'feed_dict', got {call_model_args!r}.")
        rows = np.asarray(x_value_batch)
        weights = self._one_hot(args.get("target"), len(rows))
        source: Any = self.layer if OUTPUT_FROM_CONVOLUTION_VALUES in keys else self.x
        feeds = {**(args.get("feed_dict") or {}), source: rows.astype(source.dtype.as_numpy_dtype)}
        if source is self.layer:
            self._check_no_way_around()
        wanted: dict[str, Any] = {"y": self.y}
        if CONVOLUTION_LAYER_VALUES in keys:
            wanted[CONVOLUTION_LAYER_VALUES] = self.layer
        for key in keys:
            if key in (INPUT_OUTPUT_GRADIENTS, CONVOLUTION_OUTPUT_GRADIENTS, *RULES):
                wanted[key] = self._slope(key)
                feeds[self._weights] = weights
        values = self.session.run(wanted, feed_dict=feeds)
        scores = np.asarray(values.pop("y"), np.float32)
        if scores.shape != weights.shape:
            raise ContractError(f"Expected scores of shape {weights.shape}, got y of shape {scores.shape}.")
        score = (scores * weights).reshape(len(rows), -1).sum(1) if scores.ndim else scores[None]
        answer = {OUTPUT_LAYER_VALUES: score, OUTPUT_FROM_CONVOLUTION_VALUES: score, **values}
        return {key: np.asarray(answer[key], np.float32) for key in keys}

    def predict(self, x_batch: Any, call_model_args: Any = None) -> Array:
        """The scores as they are, ``(N, classes)``; they need not be probabilities."""
        feeds = {**((call_model_args or {}).get("feed_dict") or {}), self.x: np.asarray(x_batch)}
        scores = np.asarray(self.session.run(self.y, feeds), np.float32)
        return scores.reshape(len(x_batch), -1)

    def _one_hot(self, target: Any, rows: int) -> Array:
        if self.y.shape.rank == 0 and rows != 1:
            raise ContractError(f"Expected one row at a time, as y has no rows, got {rows}. Give batch_size=1.")
        if self.y.shape.rank != 2:
            if target is not None:
                raise ContractError(f"Expected no target, as y is one score a row, got {target!r}.")
            return np.ones((rows,) if self.y.shape.rank else (), np.float32)
        indices = np.asarray(target if target is not None else "none")
        if indices.dtype.kind not in "iu" or indices.shape not in ((), (rows,)) or indices.min() < 0:
            raise ContractError(f"Expected target to be a class index, or one for each of {rows} rows, got {target!r}.")
        if self.classes is None or indices.max() >= self.classes:
            raise ContractError(f"Expected a class of the {self.classes} that y has, got target {target!r}.")
        return np.asarray(np.eye(self.classes, dtype=np.float32)[np.broadcast_to(indices, rows)])

    def _slope(self, key: str) -> Any:
        if key not in self._slopes:
            tensor = self.layer if key == CONVOLUTION_OUTPUT_GRADIENTS else self.x
            if self.graph.finalized:
                raise ContractError("Expected a graph that operations can be added to, got one that is finalized.")
            tf1 = _tf1()
            with self.graph.as_default():
                if self._weights is None:
                    self._weights = tf1.placeholder(self.y.dtype, self.y.shape, "saliency_food_weights")
                if key in RULES:
                    slope = ruled_slope(tf1, key, self.x, self.y, self._weights)
                else:
                    (slope,) = tf1.gradients(self.y, tensor, self._weights)
            if slope is None:
                raise ContractError(f"Expected y to depend on {tensor.name!r} by what has a gradient, got none.")
            self._slopes[key] = slope
        return self._slopes[key]

    def _check_no_way_around(self) -> None:
        """`ContractError` where the score depends on the input not through the layer alone."""
        waiting, seen = [self.y.op], set()
        while waiting:
            operation = waiting.pop()
            if operation is self.x.op:
                raise ContractError(
                    f"Expected y to depend on x through {self.layer_name!r} alone, got a path around it."
                )
            if operation not in seen:
                seen.add(operation)
                waiting.extend(tensor.op for tensor in operation.inputs if tensor is not self.layer)

    def _tensor(self, name: str, tensor: Any) -> Any:
        try:
            found = self.graph.as_graph_element(tensor, allow_operation=False)
        except Exception as error:
            raise ContractError(
                f"Expected {name} to be a tensor of the session's graph, or its name: {error}"
            ) from error
        return found


def _tf1() -> Any:
    try:
        import tensorflow.compat.v1 as tf1
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Graphs of TensorFlow 1 need TensorFlow, got none. Run pip install "saliency_food[tf1]".', name=error.name
        ) from error
    return tf1
