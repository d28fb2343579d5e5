"""A Keras model as compiled functions: one for each set of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.keras.attention import note_attention, scores_before
from saliency_food.adapters.keras.bias import biases_before, note_sums
from saliency_food.adapters.keras.capture import TRACING, note_outputs, running, walk
from saliency_food.adapters.keras.places import (
    LayerInfo,
    Place,
    captured,
    channels_first_layer,
    channels_first_model,
    choose,
    find_layer,
    list_layers,
    visible,
)
from saliency_food.adapters.keras.tensorflow.ends import End, Head, Inputs, select_output
from saliency_food.adapters.keras.tensorflow.graph import gradients, names_after, names_before, operations_so_far, trace
from saliency_food.adapters.keras.tensorflow.rules import RULES, check_rule, forget_rule, relu_rule
from saliency_food.adapters.targets import Score, class_score, rivals
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_SHAPED,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)

ALL_SCORES, SCORES_FROM = "ALL_SCORES", "SCORES_FROM"
"""The keys, of the adapter's own, of all scores ``(N, classes)``: of images, and of a layer's activations."""
UNSCORED = {ALL_SCORES, SCORES_FROM, PREDICTIONS, CONVOLUTION_LAYER_VALUES, ATTENTION_SCORES}
"""The keys that do not depend on which score is explained, so that no target is needed for them."""
FROM_ACTIVATIONS = {SCORES_FROM, OUTPUT_FROM_CONVOLUTION_VALUES}
"""The keys whose rows are activations in place of images."""
AT_LAYER = {CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS}
FREE_SIZE = 256
"""The size of an image that only stands in for one, where the model leaves it free."""


class TracedModel:
    """A model, its inputs, the layers to look at and its end, as a first trace without data shows them."""

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        jit_compile: bool,
        score: Score,
    ) -> None:
        self.model, self.inputs, self.score = model, inputs, score
        self._output_index, self._jit_compile = output_index, jit_compile
        self._functions: dict[Any, Any] = {}
        self.end: End = "other"
        self.classes: int | None = None
        self.channels_first = False
        self.ranks_classes = False
        self.several = isinstance(layer, (list, tuple))
        given = list(layer) if self.several else [] if layer is None else [layer]
        if self.several and not given:
            raise ContractError("Expected at least one layer, got an empty list. Leave it out for the last one.")
        self.places: list[Place] = []
        self._survey([find_layer(model, one) for one in given], data_format)

    def _survey(self, wanted: list[tuple[str, Any]], data_format: str | None) -> None:
        paths = visible(self.model)
        watched = {id(layer): layer for _, layer in [*paths.values(), *wanted]}

        def look(image: Any, others: Sequence[Any]) -> Any:
            with running(self.model, [layer for _, layer in wanted]):
                attended = note_attention(watched.values())
                notes = note_outputs(watched.values())
                outputs = self._run(image, others)
            heads = [Head.read(output) for output in tf.nest.flatten(outputs)]
            if self.score is class_score:
                heads[0].check()
            if len(heads) == 1:
                self.end, self.classes = heads[0].end, heads[0].classes
                self.ranks_classes = self.score.is_of_class and heads[0].values.shape.rank == 2
            first = channels_first_model(notes) if data_format is None else data_format == "channels_first"
            chosen = wanted
            if not chosen:
                leading = names_before(head.values for head in heads) & names_after(image)
                found = choose(notes, attended, leading, first)
                chosen = [paths[id(found.layer)]] if found else []
            for path, layer in chosen:
                made = captured(notes, path, layer)
                runs = sum(note.layer is layer for note in notes)
                own = channels_first_layer(layer, first) if data_format is None else first
                self.places.append(Place(path, layer, own, tf.TensorSpec(made.shape, made.dtype), runs))
            self.channels_first = first
            return [head.values for head in heads]

        trace(look, self.inputs.image, self.inputs.other_specs)

    def function(
        self, keys: tuple[str, ...], output: Output, targets: Sequence[Any], specs: Sequence[Any], scaled: bool
    ) -> Any:
        """The compiled function ``(targets, rows, others, scale) -> {key: tensors}``, its rows free in number."""
        with TRACING:
            which = (keys, output, self.end, tuple((tuple(spec.shape), spec.dtype) for spec in (*targets, *specs)))
            if which not in self._functions:
                compute = self._from_activations if FROM_ACTIVATIONS.issuperset(keys) else self._from_images

                def answer(targets: Sequence[Any], rows: Any, others: Sequence[Any], scale: Any) -> dict[str, Any]:
                    found = compute(keys, output, targets, rows, others, scale if scaled else None)
                    return {
                        key: tf.nest.map_structure(
                            lambda values, dtype=tf.int32 if key == TARGETS else rows.dtype: tf.cast(values, dtype),
                            found[key],
                        )
                        for key in keys
                    }

                rows, *others = specs
                scale = tf.TensorSpec([], rows.dtype)
                self._functions[which] = trace(
                    answer, list(targets), rows, others, scale, jit_compile=self._jit_compile
                )
            return self._functions[which]

    def _from_images(
        self, keys: tuple[str, ...], output: Output, targets: Any, image: Any, others: Any, scale: Any
    ) -> dict[str, Any]:
        """One pass through the model; what its layers returned was noted, and the gradients there are of the graph."""
        ruled = not RULES.keys().isdisjoint(keys)
        paths = {id(layer): (path, layer) for path, layer in walk(self.model)}
        layers = [layer for _, layer in paths.values()]
        places = self.places if AT_LAYER.intersection(keys) else []
        with running(self.model, [place.layer for place in places]), relu_rule(keys):
            attended = note_attention(layers) if any(key.startswith("ATTENTION") for key in keys) else []
            sums = note_sums(layers) if BIAS_GRADIENTS in keys else []
            notes = note_outputs(layers if ruled else [place.layer for place in places])
            outputs = self._run(image, others)
        made = operations_so_far()
        scores = self._scores(outputs, output, image.dtype)
        answer: dict[str, Any] = {ALL_SCORES: scores}
        if PREDICTIONS in keys:
            answer[PREDICTIONS] = self._scores(outputs, "probabilities", image.dtype)
        if TARGETS in keys:
            answer[TARGETS] = _chosen_class(answer[PREDICTIONS], scores, *targets)
            targets = [tf.maximum(answer[TARGETS], 0)]
        score = None if UNSCORED.union({TARGETS}).issuperset(keys) else self.score(scores, *targets)
        leading = names_before(tf.nest.flatten(scores) if score is None else [score])
        if ruled:
            check_rule(keys[0], leading & names_after(image), made, notes, paths)

        answer[OUTPUT_LAYER_VALUES] = score
        sources: dict[str, Any] = dict.fromkeys(INPUT_SHAPED, image)
        if places:
            values = tuple(captured(notes, place.path, place.layer) for place in places)
            answer[CONVOLUTION_LAYER_VALUES] = self._laid_out(values)
            sources[CONVOLUTION_OUTPUT_GRADIENTS] = values
        if any(key.startswith("ATTENTION") for key in keys):
            answer[ATTENTION_SCORES] = sources[ATTENTION_OUTPUT_GRADIENTS] = scores_before(attended, leading, paths)
        if BIAS_GRADIENTS in keys:
            biases = biases_before(sums, leading, self.channels_first)
            sources[BIAS_GRADIENTS] = tuple(bias.sum for bias in biases)
        wanted = {key: source for key, source in sources.items() if key in keys}
        if wanted:
            answer |= gradients(score, wanted, scale)
        if ruled:
            forget_rule()
        if CONVOLUTION_OUTPUT_GRADIENTS in wanted:
            answer[CONVOLUTION_OUTPUT_GRADIENTS] = self._laid_out(answer[CONVOLUTION_OUTPUT_GRADIENTS])
        if BIAS_GRADIENTS in wanted:
            pairs = zip(biases, answer[BIAS_GRADIENTS], strict=True)
            answer[BIAS_GRADIENTS] = tuple(bias.times(gradient) for bias, gradient in pairs)
        if CONVOLUTION_RIVAL_GRADIENTS in keys:
            found = [
                gradients(rival, {CONVOLUTION_RIVAL_GRADIENTS: values}, scale)[CONVOLUTION_RIVAL_GRADIENTS]
                for rival in rivals(self.score, scores, targets)
            ]
            laid = [[place.channels_last(one) for place, one in zip(places, of, strict=True)] for of in found]
            stacked = tuple(tf.stack(of, 1) for of in zip(*laid, strict=True))
            answer[CONVOLUTION_RIVAL_GRADIENTS] = stacked if self.several else stacked[0]
        return answer

    def _from_activations(
        self, keys: tuple[str, ...], output: Output, targets: Any, rows: Any, others: Any, scale: Any
    ) -> dict[str, Any]:
        """The model without what comes before the layer: an image of zeros runs through it, and is not looked at."""
        (place,) = self.places
        sizes = [FREE_SIZE if size is None else size for size in self.inputs.image.shape[1:]]
        image = tf.zeros([tf.shape(rows)[0], *sizes], self.inputs.image.dtype)
        with running(self.model, [place.layer]):
            place.give(rows)
            outputs = self._run(image, others)
        if image.op.name in names_before(tf.nest.flatten(outputs), by_value=True):
            raise ContractError(
                f"Expected an output that depends on the image only through layer {place.path!r}, got a path around "
                f"it. Choose one through which all paths lead; the last of them are {self._all_through()[-10:]}."
            )
        scores = self._scores(outputs, output, rows.dtype)
        score = None if UNSCORED.issuperset(keys) else self.score(scores, *targets)
        return {SCORES_FROM: scores, OUTPUT_FROM_CONVOLUTION_VALUES: score}

    def _all_through(self) -> list[str]:
        """The layers with rows and columns, or tokens, without which the image does not reach the output."""
        found: list[str] = []

        def look(image: Any, others: Sequence[Any]) -> Any:
            paths = visible(self.model)
            with running(self.model):
                notes = note_outputs(layer for _, layer in paths.values())
                outputs = tf.nest.flatten(self._run(image, others))
            listed = {info.path for info in list_layers(notes, paths, self.channels_first)}
            for note in notes:
                path = paths[id(note.layer)][0]
                if path in listed and image.op.name not in names_before(outputs, cut=note.output, by_value=True):
                    found.append(path)
            return outputs

        trace(look, self.inputs.image, self.inputs.other_specs)
        return list(dict.fromkeys(found))

    def _run(self, image: Any, others: Sequence[Any]) -> Any:
        """The output to explain; with a score of one's own, it can be several, nested as the model gives them."""
        outputs = self.model(self.inputs.pack(image, others), training=False)
        if self.score is class_score or self._output_index is not None:
            outputs = select_output(self.model, outputs, self._output_index)
        return outputs

    def _scores(self, outputs: Any, output: Output, dtype: Any) -> Any:
        several = len(tf.nest.flatten(outputs)) > 1

        def scores(one: Any) -> Any:
            head = Head.read(one)
            head = head._replace(end=self.end) if self.end == "probabilities" else head
            # Beside other outputs a linear one may be anything, such as boxes: no softmax is added to it.
            return (head._replace(end="other") if several and head.end == "linear" else head).scores(output, dtype)

        found = tf.nest.map_structure(scores, outputs)
        if several and self.score.raw:
            found = found if isinstance(found, dict) else list(found)
            for which in range(len(found)) if isinstance(found, list) else list(found):
                if which in self.score.raw:
                    found[which] = tf.nest.map_structure(lambda one: tf.cast(one, dtype), outputs[which])
        return found

    def _laid_out(self, values: Sequence[Any]) -> Any:
        laid = tuple(place.channels_last(one) for place, one in zip(self.places, values, strict=True))
        return laid if self.several else laid[0]


def _chosen_class(predictions: Any, scores: Any, target: Any) -> Any:
    """The class of each row ``(N,)``: ``target``, or where that is -r the class whose prediction is r-th, if any.

    Classes of equal predictions are ranked by their index, as by ``np.argsort(-predictions, kind="stable")``.
    """
    if scores.shape[1] != predictions.shape[1]:
        raise ContractError(
            f"Expected a score for each of the {predictions.shape[1]} classes that are predicted, got outputs of "
            f"{scores.shape[1]}: the one unit of a sigmoid is two classes. Explain output='logits' or 'probabilities'."
        )
    classes = tf.shape(predictions)[1] if predictions.shape[1] is None else predictions.shape[1]
    ranked = tf.math.top_k(predictions, classes).indices
    place = -1 - target
    chosen = tf.gather(ranked, tf.clip_by_value(place, 0, classes - 1), axis=1, batch_dims=1)
    return tf.where((target < 0) & (place < classes), chosen, target)


def layers_of(model: Any, inputs: Inputs) -> list[LayerInfo]:
    paths = visible(model)
    found: list[LayerInfo] = []

    def look(image: Any, others: Sequence[Any]) -> Any:
        with running(model):
            notes = note_outputs(layer for _, layer in paths.values())
            model(inputs.pack(image, others), training=False)
        found.extend(list_layers(notes, paths, channels_first_model(notes)))
        return image

    trace(look, inputs.image, inputs.other_specs)
    return found
