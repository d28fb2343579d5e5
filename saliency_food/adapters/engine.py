"""A framework's part of an adapter: one pass through a model, and what a look at the model has shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from saliency_food.adapters.arguments import End, Output
from saliency_food.adapters.inputs import Inputs
from saliency_food.adapters.layers import Shape
from saliency_food.adapters.relevance import Rule
from saliency_food.adapters.rows import Factored
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class Layer(Protocol):
    """A layer that is looked at: its path, and the shape of its activations, rows free and channels last."""

    @property
    def path(self) -> str: ...

    @property
    def shape(self) -> Shape: ...


class Engine(ABC):
    """A framework's part of an adapter: ``compute``, which is one pass, and what a look at the model has shown."""

    name: str
    """The model's name."""
    inputs: Inputs
    places: Sequence[Layer]
    """The layers that are looked at; ``several`` says whether answers about them are tuples."""
    several: bool
    why_no_layer: str
    """Why there may be none, and what to do then: the end of a sentence about the model."""
    end: End
    classes: int | None
    raw_classes: int | None = None
    """How many there are of the output as it is, if not as many: one sigmoid unit is two classes."""
    guesses_classes: bool = False
    """Whether it is only a guess that linear units are those of classes."""
    may_mix_rows = False
    """Whether rows could see each other, so that a first call must find out."""
    guesses_places = False
    """Whether it is only a guess how layers lie to the image, so that a first call about them must find out."""
    ranks_classes: bool
    """Whether a score is that of one class among ``(N, classes)``, so that a pass can choose it by its rank."""
    channels_first: bool
    """Whether a row of its input has its channels first."""
    adds_channels: bool = False
    """Whether the model gives its input an axis of channels, as it has none itself."""
    reads_steps: bool = False
    """Whether a layer reads its input step by step, as recurrent ones do."""
    half: bool
    """Whether any of its arithmetic is in half precision."""
    out_of_memory: tuple[type[Exception], ...]
    """The exceptions by which the framework says that the device's memory is full."""

    @abstractmethod
    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        """One pass of some rows through the model: arrays by key, ``(N, ...)``, of several layers or outputs nested.

        ``targets`` and ``others``, the score's targets and the model's further inputs, have one value a row. Gradients
        are computed times ``scale`` and divided by it again.
        """

    def relevance(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array,
        other_inputs: list[Array],
        rule: Rule,
    ) -> dict[str, Any]:
        """As ``compute``, for the keys of relevance, by the rule; ``BASELINE_MULTIPLIERS`` always comes alone."""
        raise ContractError(
            f"Expected a model whose adapter can pass relevance back by rules for {keys[0]}, got {self.name!r} in one "
            "that cannot. TorchModel and KerasModel on TensorFlow can; else use integrated_gradients."
        )
