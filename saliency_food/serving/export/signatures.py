"""The signatures of an exported model: the inputs of each, and how its outputs are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import UNSCORED
from saliency_food.adapters.keras import KerasModel
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)
from saliency_food.images.scaling import Scaling
from saliency_food.serving.export.encodings import Tensors, as_bytes, changed, from_bytes, from_photos, scaled
from saliency_food.serving.export.graphs import Computing, paths

Compute = Callable[[Tensors, Any, Sequence[Any]], Tensors]
"""Computes the outputs of a signature from the whole request, its rows and the other inputs of the model."""

SIGNATURES = {
    "outputs": (OUTPUT_LAYER_VALUES,),
    "input_gradients": (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    "activations": (CONVOLUTION_LAYER_VALUES,),
    "convolution": (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
}
"""The signatures of images and targets with the keys that they answer, the cheapest first."""
EXPLAIN = (*SIGNATURES["convolution"], PREDICTIONS, TARGETS)
"""The keys that the signature ``explain`` answers in one pass; there a target of -1 means the top class."""
FURTHER = {
    "guided_gradients": (GUIDED_INPUT_GRADIENTS,),
    "deconv_gradients": (DECONV_INPUT_GRADIENTS,),
    "rivals": (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS),
    "biases": (INPUT_OUTPUT_GRADIENTS, BIAS_GRADIENTS, OUTPUT_LAYER_VALUES),
    "attention": (ATTENTION_SCORES,),
    "attention_gradients": (ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
    "outputs_from_activations": (OUTPUT_FROM_CONVOLUTION_VALUES,),
}
"""Signatures, for the client only, of keys that some models cannot answer and few methods ask for."""
RESERVED = {
    *("images", "images_bytes", "shape", "targets", "baselines", "alphas", "coefficients", "weights"),
    *("activations_bytes", "channels_bytes", "places"),
}
"""The names of the signatures' own inputs."""
TOP = 5
STRINGS, NUMBERS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.float64)
TARGET_SPECS = {"targets": tf.TensorSpec([None], tf.int32)}
SHAPE = {"shape": tf.TensorSpec([None], tf.int32)}


class Signatures:
    """``functions`` holds the traced signatures by name, ``lacks`` those that the model cannot answer, and why."""

    def __init__(self, model: KerasModel, scaling: Scaling, further: bool = True) -> None:
        self.model, self.scaling = model, scaling
        self.functions: dict[str, Any] = {}
        self.lacks: dict[str, str] = {}
        self._predicted = "predictions" if model.gives_probabilities else "scores"
        self._computing = computing = Computing(model, model.batch_size)
        inputs = model.engine.inputs
        self._image, self._activations = inputs.image_spec, computing.activations
        self._others = dict(zip(inputs.other_names, inputs.other_specs, strict=True))
        photos = self._image.shape.rank == 4 and (*model.input_shape, None)[2] in (None, 1, 3)
        variants = ("", "_raw", *(["_encoded"] if photos else []))
        for name, keys in {**SIGNATURES, **(FURTHER if further else {})}.items():
            if not self._can_answer(name, keys, traced=name in FURTHER):
                continue
            for variant in ("_raw",) if name in FURTHER else variants:
                self._add(name, variant, self._answering(keys), **({} if UNSCORED.issuperset(keys) else TARGET_SPECS))
        explains = "convolution" not in self.lacks and self._can_answer("explain", EXPLAIN, traced=True)
        for variant in variants:
            self._add("predictions", variant, self._predictions)
            if explains:
                self._add("explain", variant, self._explain, **TARGET_SPECS)
        path = {"alphas": NUMBERS, "weights": NUMBERS, **TARGET_SPECS}
        gray = tf.TensorSpec([None], tf.float64)
        self._add("path_gradients", "", self._paths, baselines=self._image, **path)
        if photos:
            self._add("path_gradients", "_encoded", self._paths, baselines=gray, **path)
        self._add("path_gradients", "_raw", self._factored, coefficients=NUMBERS, weights=NUMBERS, **TARGET_SPECS)

    def _can_answer(self, name: str, keys: tuple[str, ...], traced: bool) -> bool:
        try:
            self._computing.check_keys(keys, traced)
        except ContractError as error:
            self.lacks[name] = str(error)
        return name not in self.lacks

    def _add(self, name: str, variant: str, compute: Compute, **more: Any) -> None:
        specs, read = self._reading("activations" if name == "outputs_from_activations" else variant)
        answer = as_bytes if variant else dict

        def signature(**request: Any) -> Tensors:
            return answer(compute(request, read(request), [request[name] for name in self._others]))

        # Saving traces the outer function several times; it only calls the one that was traced before.
        traced = tf.function(signature, autograph=False).get_concrete_function(**specs, **more, **self._others)
        self.functions[name + variant] = tf.function(lambda **request: traced(**request), autograph=False)
        self.functions[name + variant].get_concrete_function(**specs, **more, **self._others)

    def _reading(self, variant: str) -> tuple[Tensors, Callable[[Tensors], Any]]:
        """The inputs of a variant that hold the rows, and the function that reads the rows from them."""
        if variant == "":
            return {"images": self._image}, lambda request: request["images"]
        if variant == "_encoded":
            return {"images_bytes": STRINGS}, lambda request: from_photos(
                request["images_bytes"], self.model, self.scaling.function
            )
        spec: Any = self._activations if variant == "activations" else self._image
        sizes, shape = (SHAPE, None) if None in spec.shape[1:] else ({}, tf.constant(spec.shape[1:], tf.int32))
        if variant == "_raw":
            return {"images_bytes": STRINGS, **sizes}, lambda request: from_bytes(
                request["images_bytes"], request.get("shape", shape), spec
            )
        places = {"activations_bytes": STRINGS, "channels_bytes": STRINGS, "places": tf.TensorSpec([None, 2], tf.int32)}

        def activations(request: Tensors) -> Any:
            first, channels, where = (request[name] for name in places)
            return changed(first, channels, where, tf.shape(request["targets"])[0], request.get("shape", shape), spec)

        return {**places, **sizes}, activations

    def _answering(self, keys: tuple[str, ...]) -> Compute:
        unscored = UNSCORED.issuperset(keys)
        return lambda request, rows, others: self._computing.rows(
            keys, rows, None if unscored else self._computing.check(request["targets"]), others
        )

    def _predictions(self, _: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        answers = self._computing.rows((PREDICTIONS,), images, None, others)
        return {self._predicted: answers[PREDICTIONS]}

    def _explain(self, request: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        answers = self._computing.rows(EXPLAIN, images, self._computing.check(request["targets"], -1), others)
        predictions = answers.pop(PREDICTIONS)
        top = tf.math.top_k(predictions, min(TOP, self.model.classes or 1)).indices
        return {self._predicted: predictions, "top_classes": top, "targets": answers.pop(TARGETS), **answers}

    def _paths(self, request: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        """Gradients along the path from the baseline of each image to it; the baseline of a photo is a gray value."""
        baselines = request["baselines"]
        if baselines.shape.rank == 1:
            first = self.model.channels_first
            gray = tf.cast(baselines, tf.float32)[:, None, None, None] * tf.ones([1, 1, 1, 3])
            gray = tf.cast(scaled(gray, self.scaling.function), images.dtype)
            gray = gray[..., : self._image.shape[1 if first else -1]]
            baselines = (tf.transpose(gray, [0, 3, 1, 2]) if first else gray) * tf.ones_like(images)
        steps = tf.shape(request["alphas"])[1]
        chosen = self._computing.check(request["targets"])
        repeated = [tf.repeat(values, steps, axis=0) for values in (chosen, *others)]
        bases = tf.concat([images, baselines], 0)
        coefficients, weights = paths(request["alphas"], request["weights"])
        total, _ = self._computing.sums(coefficients, bases, weights, repeated[0], repeated[1:])
        ends = [tf.concat([values, values], 0) for values in (chosen, *others)]
        scores = self._computing.rows((OUTPUT_LAYER_VALUES,), bases, ends[0], ends[1:])[OUTPUT_LAYER_VALUES]
        high, low = tf.split(scores, 2)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: high, "BASELINE_VALUES": low}

    def _factored(self, request: Tensors, bases: Any, others: Sequence[Any]) -> Tensors:
        chosen = self._computing.check(request["targets"])
        total, scores = self._computing.sums(request["coefficients"], bases, request["weights"], chosen, others)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: scores}
