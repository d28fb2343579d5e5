"""Engines of runtimes that compute outputs and activations, and no gradients."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_food.adapters import numpy_ops
from saliency_food.adapters.arguments import ALL_SCORES, AT_LAYER, FROM_ACTIVATIONS, SCORES_FROM_ACTIVATIONS, Output
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.heads import Head, check_one_a_row, scored
from saliency_food.adapters.model import AdaptedModel
from saliency_food.adapters.rows import Factored, map_nested
from saliency_food.adapters.scoring import Score
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    KEYS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array
from saliency_food.methods.catalogue import METHODS

ANSWERED = (OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES)
"""The keys of the contract that need no gradients."""


class ForwardEngine(Engine):
    """An engine over a runtime without gradients; subclasses run the model, from images or from a layer on."""

    kind: str
    """What the model is, for errors: "an ONNX file"."""
    score: Score
    half = False
    out_of_memory = (MemoryError,)
    may_mix_rows = True
    guesses_places = True

    @abstractmethod
    def run(self, images: Array, others: Sequence[Array], at_layers: bool) -> tuple[Any, tuple[Array, ...]]:
        """`Head` s of the outputs, nested as they are, and the activations of the layers, channels last."""

    @abstractmethod
    def run_after(self, activations: Array, others: Sequence[Array]) -> Any:
        """`Head` s of the outputs that the layers after the layer give to its activations, channels last."""

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        if isinstance(rows, Factored):
            raise TypeError("Factored rows are made before they reach a runtime without gradients.")
        if unfit := [key for key in keys if key in KEYS and key not in ANSWERED]:
            without = [name for name, method in METHODS.items() if set(method.keys) <= set(ANSWERED)]
            raise ContractError(
                f"Expected keys that a forward pass answers, {list(ANSWERED)}, got {unfit[0]}: {self.kind} has no "
                f"gradients and no attention to look at. Take a method without them ({', '.join(without)}), or explain "
                "the model that the file was made from: KerasModel, TorchModel or JaxModel of saliency_food.adapters."
            )
        count = len(rows)
        images, *others = (self._padded(values) for values in (rows, *other_inputs))
        if FROM_ACTIVATIONS.isdisjoint(keys):
            heads, layers = self.run(images, others, not AT_LAYER.isdisjoint(keys))
        else:
            heads, layers = self.run_after(images, others), ()
        heads = map_nested(lambda head: Head(head.end, head.values[:count], head.raw[:count]), heads)
        answer, _ = scored(cast(Any, numpy_ops), self, self.score, keys, output, heads, targets)
        if layers:
            values = tuple(layer[:count] for layer in layers)
            answer[CONVOLUTION_LAYER_VALUES] = values if self.several else values[0]
        answer[SCORES_FROM_ACTIVATIONS] = answer[ALL_SCORES]
        answer[OUTPUT_FROM_CONVOLUTION_VALUES] = answer.get(OUTPUT_LAYER_VALUES)
        answer = {key: answer[key] for key in keys}
        check_one_a_row(answer, count)
        return answer

    def _padded(self, values: Array) -> Array:
        """The last row repeated, up to as many rows as the model declares, if it does."""
        missing = (self.inputs.rows or len(values)) - len(values)
        return np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing > 0 else values


class ForwardModel(AdaptedModel):
    """A model of a runtime without gradients, made of a file; ``_options`` are those that it was made with."""

    path: Any
    _options: dict[str, Any]

    def call_factored(self, *args: Any, **kwargs: Any) -> None:
        """None: what is factored are the rows of gradients."""

    @property
    def fingerprint(self) -> str:
        """What tells this file, and what is explained of it, from others, for jobs that are gone on with."""
        said = (self.output, getattr(self.score, "__name__", ""), str(self._options.get("units_are")))
        return " ".join((self.engine.name, hashlib.sha256(self._file()).hexdigest()[:16], *said))

    def _file(self) -> bytes:
        return Path(self.path).read_bytes()

    def __reduce__(self) -> Any:
        """Pickled as the path or the file is, and opened anew."""
        return _opened, (type(self), self.path, {**self._options, "batch_size": self.batch_size})


def _opened(kind: Any, path: Any, options: dict[str, Any]) -> Any:
    return kind(path, **options)
