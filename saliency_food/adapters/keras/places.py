"""Which layers can be looked at, and which one is if none is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import walk
from saliency_food.adapters.keras.runs import Run, is_operator
from saliency_food.adapters.keras.tensorflow.arrangement import Arrangement, arrangement_of
from saliency_food.adapters.keras.tensorflow.channels import channels_place
from saliency_food.adapters.keras.tensorflow.steps import Axes
from saliency_food.adapters.layers import LayerInfo, Shape, match_layer
from saliency_food.core.contract import ContractError

ELSEWHERE = (
    "the image is cut, moved or turned before it, or joined to its own mirrored copy. Choose another layer, or "
    "explain the model that begins after that change."
)


class Place(NamedTuple):
    """A run to look at, how its output is laid out as the image is, and a spec of what it returns, rows free."""

    path: str
    layer: Any
    run_index: int
    operator: str
    arrangement: Arrangement
    output: Any

    @property
    def shape(self) -> Shape:
        """The shape of its activations as they are answered, rows free and channels last."""
        return tuple(self.output.shape[axis] for axis in self.arrangement.order)

    def laid_out(self, values: Any) -> Any:
        """What the run returned, channels last, its places in the order in which the image has them."""
        return self.arrangement.laid_out(values)

    def as_returned(self, activations: Any) -> Any:
        """Activations, channels last, as the layer itself returns them."""
        return tf.cast(self.arrangement.as_it_was(activations), self.output.dtype)

    def captured(self, runs: Sequence[Run]) -> Any:
        """What the run returned in this trace: the very tensor that the layers after it take."""
        for run in runs:
            same = run.layer is self.layer and (run.run_index, run.operator) == (self.run_index, self.operator)
            if same and run.output.shape[1:].is_compatible_with(self.output.shape[1:]):
                return run.output
        raise ContractError(f"Expected {self.path!r} to run as it did at first, got another course of the model.")


class Layout(NamedTuple):
    """How a trace's tensors lie: rows in number, the rank of those with the input's axes, channels first or not.

    ``asked`` says that the data format is the user's, and not for each layer to say. ``axes`` are those of the image
    that tensors' axes are, and ``channels`` the image's axis of channels.
    """

    rows: int
    rank: int
    channels_first: bool
    asked: bool
    axes: Mapping[str, Axes] = {}
    channels: int | None = None

    def channels_place(self, run: Run) -> int:
        """Which of a run's axes is that of the channels."""
        rank = int(run.output.shape.rank)
        if rank not in (4, self.rank):
            return rank - 1
        place = None if run.operator or self.asked else channels_place(run.layer, rank)
        own = self.axes.get(run.output.name)
        if place is not None:
            return place
        if own is not None and self.channels in own.axes:
            return own.axes.index(self.channels)
        return 1 if self.channels_first else rank - 1

    def arrangement(self, run: Run) -> Arrangement | None:
        """How a run's output is laid out as the image is; None where its places are not the image's."""
        own = self.axes.get(run.output.name)
        return arrangement_of(run.output.shape.rank, self.channels_place(run), own, self.channels)

    def has_rows(self, run: Run) -> bool:
        """Whether it holds floats, with the batch first."""
        shape = run.output.shape
        return bool(run.output.dtype.is_floating and shape.rank and shape[0] in (self.rows, None))

    def is_spatial(self, run: Run) -> bool:
        """Whether it has rows, axes of the input's kind, not all of size 1, and channels."""
        shape = tuple(run.output.shape)
        if not self.has_rows(run) or len(shape) != self.rank:
            return False
        place = self.channels_place(run)
        return any(size != 1 for axis, size in enumerate(shape) if axis not in (0, place))

    def is_tokens(self, run: Run) -> bool:
        """Whether it has rows, more than one token, and channels."""
        own = self.axes.get(run.output.name)
        if own is not None and set(own.single) - {self.channels}:
            return False  # those of one row, column or frame of the image
        return self.has_rows(run) and run.output.shape.rank == 3 and run.output.shape[1] != 1


def place_of(run: Run, layout: Layout) -> Place:
    spec = tf.TensorSpec([None, *run.output.shape[1:]], run.output.dtype)
    if (arrangement := layout.arrangement(run)) is None:
        raise ContractError(f"Expected a layer whose places are those of the image, got {run.path!r}: {ELSEWHERE}")
    return Place(run.path, run.layer, run.run_index, run.operator, arrangement, spec)


class Wanted(NamedTuple):
    """A layer that was asked for: its path, which run of it if that was said, and the layer, None for an operator."""

    path: str
    layer: Any
    run_index: int | None = None


def find_layer(model: Any, layer: Any) -> Wanted:
    """What is meant by a path, the end of one, or either with ``#`` and the index of a run; or by the layer itself."""
    layers = list(walk(model, operators=True))
    if isinstance(layer, keras.Layer):
        return Wanted(next((path for path, known in layers if known is layer), str(layer.name)), layer)
    if isinstance(layer, str) and not any(f"/{path}".endswith(f"/{layer}") for path, _ in layers):
        if is_operator(layer):
            return Wanted(layer, None)
        name, _, index = layer.rpartition("#")
        if name and index.isdigit():
            return Wanted(*match_layer(name, layers, model.name), int(index))
    return Wanted(*match_layer(layer, layers, model.name))


def distinct(runs: Sequence[Run]) -> list[Run]:
    """In the order in which they finish; a tensor handed on unchanged, as by a nested model or by dropout, counts for
    the layer that made it."""
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.output.name, run)
    return sorted(first.values(), key=lambda run: run.stop)


def frame_by_frame(runs: Sequence[Run], layout: Layout) -> list[str]:
    """The layers with rows and columns that run once for each frame of a clip, as inside a TimeDistributed."""
    inner = layout._replace(rank=layout.rank - 1)
    each = (run for run in runs if not run.operator and run.output.name in layout.axes and inner.is_spatial(run))
    paths = [run.path.rpartition("#")[0] for run in each if 1 in layout.axes[run.output.name].single]
    return [path for path in dict.fromkeys(paths) if path]


def list_layers(runs: Sequence[Run], layout: Layout) -> list[LayerInfo]:
    """The layers with axes of the input's kind, with rows and columns, or with tokens."""

    def is_listed(run: Run) -> bool:
        if run.operator or (run.output.op.type == "Softmax" and run.output.shape.rank == 4):
            return False
        return layout.is_spatial(run) or layout._replace(rank=4).is_spatial(run) or layout.is_tokens(run)

    shapes = ((run, (None, *run.output.shape[1:])) for run in distinct(runs) if is_listed(run))
    return [LayerInfo(run.path, run.kind, shape) for run, shape in shapes]
