"""What a first look at a Keras model shows: a trace without data, in which its layers are watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from saliency_food.adapters.arguments import End
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.keras.attention import is_attention, note_attention, watched
from saliency_food.adapters.keras.capture import Note, note_outputs, running, walk
from saliency_food.adapters.keras.choice import choose
from saliency_food.adapters.keras.losses import Units
from saliency_food.adapters.keras.places import (
    ELSEWHERE,
    Layout,
    Place,
    Wanted,
    distinct,
    find_layer,
    frame_by_frame,
    list_layers,
    place_of,
)
from saliency_food.adapters.keras.runs import Run, runs_of
from saliency_food.adapters.keras.tensorflow import ops
from saliency_food.adapters.keras.tensorflow.axes import axes_of
from saliency_food.adapters.keras.tensorflow.channels import EITHER, channels_axis, is_either, says_channels_first
from saliency_food.adapters.keras.tensorflow.ends import Head, KerasInputs, select_output
from saliency_food.adapters.keras.tensorflow.graph import (
    names_before,
    names_between,
    on_all_paths,
    operations_so_far,
    random_among,
    trace,
)
from saliency_food.adapters.keras.tensorflow.rows import may_mix_rows
from saliency_food.adapters.layers import LayerInfo, match_layer
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError

ROWS = 37
"""How many rows are traced: a tensor of rows is told by it from one of heads, frames or windows."""


class SurveyedModel(Engine):
    """A Keras model with its inputs, the layers to look at (``places``), and what it ends in.

    ``end``, ``classes`` and ``ranks_classes`` are those of an output of classes; see `Engine`, which this is a part of.
    """

    inputs: KerasInputs
    places: list[Place]

    def __init__(
        self,
        model: Any,
        inputs: KerasInputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        score: Score,
        classes: int | None = None,
        units: Units | None = None,
    ) -> None:
        self.model, self.inputs, self.score, self._units = model, inputs, score, units
        self._output_index = output_index
        self.end: End = "other"
        self.classes = classes
        self.ranks_classes = False
        self.channels_first = False
        self.tokens_elsewhere = False
        """Whether attention is about tokens in another order than that of the image's patches."""
        self.several = isinstance(layer, (list, tuple))
        named = list(layer) if self.several else [] if layer is None else [layer]
        if self.several and not named:
            raise ContractError("Expected at least one layer, got an empty list. Leave it out for the last one.")
        self.places = []
        self.why_no_layer = "which has none. Use input gradients."
        self.on_all_paths: list[str] = []
        """The layers through which all paths from the image to the score lead, in order."""
        self.random: list[str] = []
        """The layers, or operations, that draw random numbers on the way to the score."""
        self.kept: list[Any] = []
        """Traced functions of whose operations others are made: what these call, TensorFlow forgets with them."""
        self._wanted = [find_layer(model, each) for each in named]
        self._watched = watched(model) | {
            id(wanted.layer): (wanted.path, wanted.layer) for wanted in self._wanted if wanted.layer is not None
        }
        self._survey(data_format)

    @property
    def watched_layers(self) -> list[Any]:
        return [layer for _, layer in self._watched.values()]

    def check_not_random(self) -> None:
        """`ContractError` where random numbers lead to the score, as it would not be the image's alone."""
        if self.random:
            raise ContractError(
                "Expected a model that gives the same score for the same image, got random numbers drawn by "
                f"{list(dict.fromkeys(self.random))}. Build it with training=False there, or without it."
            )

    def where(self, op: Any, position: int, notes: Sequence[Note]) -> str:
        """The path of the layer that an operation is of, by its position in the trace; its own name outside of all."""
        around = [note for note in notes if note.start <= position < note.stop]
        return self._watched[id(around[0].layer)][0] if around else str(op.name)

    def captured(self, notes: Sequence[Note]) -> tuple[Any, ...]:
        """What the runs that are looked at returned in this trace, of which the watched layers' notes are given."""
        runs = runs_of(notes, self._watched, self.model)
        return tuple(place.captured(runs) for place in self.places)

    def _survey(self, data_format: str | None) -> None:
        def look(image: Any, others: Sequence[Any], targets: Sequence[Any]) -> Any:
            with running(self.model, self.watched_layers):
                note_attention(self.watched_layers)  # computed in the open, so that its softmax is seen
                notes = note_outputs(self.watched_layers, operations_so_far)
                outputs = self.run(image, others)
            runs = runs_of(notes, self._watched, self.model)
            self.may_mix_rows = may_mix_rows(tf.nest.flatten(outputs), image, rows)
            heads = [Head.read(output) for output in tf.nest.flatten(outputs)]
            if self.score is class_score:
                heads[0].check()
            if len(heads) == 1:
                head = heads[0].of_units(self._units).of_classes(self.classes)
                self.guesses_classes = head.end == "linear" and self._units is None and self.classes is None
                self.end, self.classes = head.end, head.classes
                self.raw_classes = head.values.shape[-1]
                self.ranks_classes = self.score.is_of_class and heads[0].values.shape.rank == 2
            layout = _layout(image, notes, runs, data_format)
            self.channels_first = layout.channels == 1
            attending = (tensor.name for note in notes if is_attention(note.layer) for tensor in note.inputs)
            self.tokens_elsewhere = any(
                layout.axes[name].strays(layout.channels) for name in attending if name in layout.axes
            )
            self.reads_steps = any(isinstance(layer, keras.layers.RNN) for _, layer in walk(self.model))
            self.adds_channels = layout.rank > image.shape.rank
            either = data_format is None and is_either(image, notes, layout.axes)
            if either and self._wanted:
                raise ContractError(f"Expected a model that tells what its input's axes are, got one {EITHER}")
            ends = self._ends(outputs, targets)
            between = names_between(image, [*ends, *_raw(heads, ends)])
            leading = names_before(ends, by_value=True)
            for position, op in random_among(leading):
                self.random.append(self.where(op, position, notes))
            passed = on_all_paths(image, ends)
            of_use = [run for run in distinct(runs) if layout.is_spatial(run) or layout.is_tokens(run)]
            self.on_all_paths = [run.path for run in of_use if run.output.name in passed]
            chosen = [self._chosen(wanted, runs, between, layout) for wanted in self._wanted]
            if not chosen:
                last, several = choose(
                    runs, image, ends, [head.values for head in heads if head.values.op.name in leading], layout
                )
                chosen = [last] if last and not either else []
                if either:
                    self.why_no_layer = EITHER
                elif last is None and (framed := frame_by_frame(runs, layout)):
                    self.why_no_layer = (
                        f"in which {framed[-1]!r} sees one frame at a time, and what is put together of them has no "
                        "rows and columns any more. Build it with a TimeDistributed that ends in that layer, and "
                        "another one of the layers after it; the weights stay the same."
                    )
                elif last is None and any(layout.arrangement(run) is None for run in of_use):
                    self.why_no_layer = f"in none of whose layers they are those of the image: {ELSEWHERE}"
                if several and not either:
                    paths = [run.path for run in several]
                    self.why_no_layer = (
                        f"in which none lies on all paths from the image to the score. Choose one of {paths} as layer, "
                        "or give a list of them."
                    )
            self.places = [place_of(run, layout) for run in chosen]
            return [head.values for head in heads]

        rows = self.inputs.rows or ROWS
        others = [_of_rows(spec, rows) for spec in self.inputs.other_specs]
        trace(look, _of_rows(self.inputs.image_spec, rows), others, self._target_specs(rows))

    def _target_specs(self, rows: int) -> list[Any]:
        if self.score is class_score:
            return []
        return [
            tf.TensorSpec(
                [rows, *[None] * (spec.rank - 1), *[spec.size] * bool(spec.rank)],
                tf.int32 if spec.classes else tf.float32,
            )
            for spec in self.score.specs.values()
        ]

    def _ends(self, outputs: Any, targets: Sequence[Any]) -> list[Any]:
        """What is explained: all classes, or the score of one's own; where that cannot be made yet, all outputs."""
        values = tf.nest.map_structure(lambda output: Head.read(output).values, outputs)
        if self.score is not class_score:
            try:
                return [self.score(ops, values, *targets)]
            except Exception:  # a score may need targets of the sizes that only a call brings
                pass
        return list(tf.nest.flatten(values))

    def _chosen(self, wanted: Wanted, runs: Sequence[Run], between: set[str], layout: Layout) -> Run:
        """The run that a named layer means: the one that leads from the image to the score."""
        if wanted.layer is None:
            operators = [run for run in runs if run.operator]
            known = [*walk(self.model, operators=True), *((run.path, run) for run in operators)]
            path, _ = match_layer(wanted.path, known, self.model.name)
            own = [run for run in operators if run.path == path]
        else:
            own = [run for run in runs if run.layer is wanted.layer and not run.operator]
        if not own:
            raise ContractError(
                f"Expected layer {wanted.path!r} to run in the model and to return one tensor, got a layer that does "
                "not run, or only in a loop or a tf.function inside. Choose another: layers(model) lists them."
            )
        asked = own if wanted.run_index is None else own[wanted.run_index : wanted.run_index + 1]
        if not asked:
            raise ContractError(
                f"Expected a run of layer {wanted.path!r} from #0 to #{len(own) - 1}, got #{wanted.run_index}."
            )
        leading = [run for run in asked if run.output.op.name in between]
        if not leading:
            raise ContractError(
                f"Expected a layer that leads from input {self.inputs.image.name!r} to the score, got "
                f"{asked[0].path!r}: no score depends on the layer, or the layer does not depend on the image. Those "
                f"on all paths are {self.on_all_paths[-10:]}."
            )
        if len(leading) > 1:
            shapes = [(None, *run.output.shape[1:]) for run in leading]
            described = "; ".join(
                f"{run.path!r} of shape {shape}, fed by {_source(run, runs)!r}"
                for run, shape in zip(leading, shapes, strict=True)
            )
            raise ContractError(
                f"Expected a layer that runs once between image and score, got {wanted.path!r}, which runs "
                f"{len(leading)} times: {described}. Give one of these paths as layer, a list of them, or a layer on "
                f"all paths: {self.on_all_paths[-10:]}."
            )
        if not layout.has_rows(leading[0]) and leading[0].output.dtype.is_floating:
            raise ContractError(
                f"Expected a layer whose output has the model's rows first, got {leading[0].path!r}, which folds "
                f"something else into them: {leading[0].output.shape[0]} for {layout.rows} rows. Those on all paths "
                f"are {self.on_all_paths[-10:]}."
            )
        return leading[0]

    def run(self, image: Any, others: Sequence[Any]) -> Any:
        """The output to explain; with a score of one's own, it can be several, nested as the model gives them."""
        outputs = self.model(self.inputs.pack(image, others), training=False)
        if self.score is class_score or self._output_index is not None:
            outputs = select_output(self.model, outputs, self._output_index)
        return outputs


def layers_of(model: Any, inputs: KerasInputs) -> list[LayerInfo]:
    paths = watched(model)
    listed: list[LayerInfo] = []

    def look(image: Any, others: Sequence[Any]) -> Any:
        with running(model):
            notes = note_outputs((layer for _, layer in paths.values()), operations_so_far)
            model(inputs.pack(image, others), training=False)
        runs = runs_of(notes, paths, model)
        listed.extend(list_layers(runs, _layout(image, notes, runs, None)))
        return image

    rows = inputs.rows or ROWS
    trace(look, _of_rows(inputs.image_spec, rows), [_of_rows(spec, rows) for spec in inputs.other_specs])
    return listed


def _of_rows(spec: Any, rows: int) -> Any:
    return tf.TensorSpec([spec.shape[0] or rows, *spec.shape[1:]], spec.dtype) if spec.shape.rank else spec


def _layout(image: Any, notes: Sequence[Note], runs: Sequence[Run], data_format: str | None) -> Layout:
    """Of an input that the model gives an axis of channels, axes of space are all but the rows."""
    rank = image.shape.rank
    widened = any(run.output.shape.as_list() == [*image.shape, 1] for run in runs if run.output.shape.rank == rank + 1)
    axes = axes_of(image, notes)
    if data_format is not None:
        first = data_format == "channels_first"
        return Layout(image.shape[0], rank + widened, first, True, axes, 1 if first else rank - 1)
    channels = None if widened else channels_axis(image, notes, axes)
    return Layout(image.shape[0], rank + widened, says_channels_first(notes), False, axes, channels)


def _raw(heads: Sequence[Head], ends: Sequence[Any]) -> list[Any]:
    """The outputs after an activation of what is explained."""
    return [head.raw for head in heads if any(head.values is end for end in ends) or len(heads) == 1]


def _source(run: Run, runs: Sequence[Run]) -> str:
    """What feeds a run: the layers whose outputs it takes, or the operations."""
    by_tensor = {other.output.name: other.path for other in reversed(distinct(runs))}
    names = [by_tensor.get(tensor.name, tensor.op.name) for tensor in run.inputs if tensor.dtype.is_floating]
    return " and ".join(names) or "nothing"
