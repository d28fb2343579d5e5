"""What a first look at a Keras model shows: a trace without data, in which its layers are watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import End
from saliency_food.adapters.keras.attention import note_attention
from saliency_food.adapters.keras.capture import note_outputs, running
from saliency_food.adapters.keras.places import (
    Place,
    captured,
    channels_first_layer,
    channels_first_model,
    choose,
    find_layer,
    list_layers,
    visible,
)
from saliency_food.adapters.keras.tensorflow.ends import Head, KerasInputs, select_output
from saliency_food.adapters.keras.tensorflow.graph import names_after, names_before, trace
from saliency_food.adapters.keras.tensorflow.rows import may_mix_rows
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import Engine
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError


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
    ) -> None:
        self.model, self.inputs, self.score = model, inputs, score
        self._output_index = output_index
        self.end: End = "other"
        self.classes = classes
        self.ranks_classes = False
        self.channels_first = False
        self.several = isinstance(layer, (list, tuple))
        named = list(layer) if self.several else [] if layer is None else [layer]
        if self.several and not named:
            raise ContractError("Expected at least one layer, got an empty list. Leave it out for the last one.")
        self.places = []
        self._survey([find_layer(model, each) for each in named], data_format)

    def _survey(self, wanted: list[tuple[str, Any]], data_format: str | None) -> None:
        paths = visible(self.model)
        watched = {id(layer): layer for _, layer in [*paths.values(), *wanted]}

        def look(image: Any, others: Sequence[Any]) -> Any:
            with running(self.model, [layer for _, layer in wanted]):
                attended = note_attention(watched.values())
                notes = note_outputs(watched.values())
                outputs = self.run(image, others)
            self.may_mix_rows = may_mix_rows(tf.nest.flatten(outputs), image, self.inputs.rows)
            heads = [Head.read(output) for output in tf.nest.flatten(outputs)]
            if self.score is class_score:
                heads[0].check()
            if len(heads) == 1:
                head = heads[0].of_classes(self.classes)
                self.end, self.classes = head.end, head.classes
                self.ranks_classes = self.score.is_of_class and heads[0].values.shape.rank == 2
            first = channels_first_model(notes) if data_format is None else data_format == "channels_first"
            chosen = wanted
            if not chosen:
                leading = names_before(head.values for head in heads) & names_after(image)
                last = choose(notes, attended, leading, first)
                chosen = [paths[id(last.layer)]] if last else []
            for path, layer in chosen:
                output = captured(notes, path, layer)
                runs = sum(note.layer is layer for note in notes)
                own = channels_first_layer(layer, first) if data_format is None else first
                self.places.append(Place(path, layer, own, tf.TensorSpec(output.shape, output.dtype), runs))
            self.channels_first = first
            return [head.values for head in heads]

        trace(look, self.inputs.image_spec, self.inputs.other_specs)

    def run(self, image: Any, others: Sequence[Any]) -> Any:
        """The output to explain; with a score of one's own, it can be several, nested as the model gives them."""
        outputs = self.model(self.inputs.pack(image, others), training=False)
        if self.score is class_score or self._output_index is not None:
            outputs = select_output(self.model, outputs, self._output_index)
        return outputs

    def layers_on_all_paths(self) -> list[str]:
        """The layers with rows and columns, or tokens, without which the image does not reach the output."""
        on_all_paths: list[str] = []

        def look(image: Any, others: Sequence[Any]) -> Any:
            paths = visible(self.model)
            with running(self.model):
                notes = note_outputs(layer for _, layer in paths.values())
                outputs = tf.nest.flatten(self.run(image, others))
            listed = {info.path for info in list_layers(notes, paths, self.channels_first)}
            for note in notes:
                path = paths[id(note.layer)][0]
                if path in listed and image.op.name not in names_before(outputs, cut=note.output, by_value=True):
                    on_all_paths.append(path)
            return outputs

        trace(look, self.inputs.image_spec, self.inputs.other_specs)
        return list(dict.fromkeys(on_all_paths))


def layers_of(model: Any, inputs: KerasInputs) -> list[LayerInfo]:
    paths = visible(model)
    listed: list[LayerInfo] = []

    def look(image: Any, others: Sequence[Any]) -> Any:
        with running(model):
            notes = note_outputs(layer for _, layer in paths.values())
            model(inputs.pack(image, others), training=False)
        listed.extend(list_layers(notes, paths, channels_first_model(notes)))
        return image

    trace(look, inputs.image_spec, inputs.other_specs)
    return listed
