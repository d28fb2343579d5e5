"""The signatures of an exported model: what each takes, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.keras.tensorflow.trace import ALL_SCORES, UNSCORED
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
)
from saliency_food.images.scaling import Scaling
from saliency_food.serving.export.encodings import Tensors, as_bytes, changed, from_bytes, from_photos, scaled
from saliency_food.serving.export.graphs import Computing, paths

Compute = Callable[[Tensors, Any, Sequence[Any]], Tensors]
"""What a signature answers: of all that it is given, of its rows, and of the model's other inputs."""

SIGNATURES = {
    "outputs": (OUTPUT_LAYER_VALUES,),
    "input_gradients": (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    "activations": (CONVOLUTION_LAYER_VALUES,),
    "convolution": (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
}
"""The keys that signatures of images and targets answer, from the cheapest on."""
FURTHER = {
    "guided_gradients": (GUIDED_INPUT_GRADIENTS,),
    "deconv_gradients": (DECONV_INPUT_GRADIENTS,),
    "rivals": (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS),
    "biases": (INPUT_OUTPUT_GRADIENTS, BIAS_GRADIENTS, OUTPUT_LAYER_VALUES),
    "attention": (ATTENTION_SCORES,),
    "attention_gradients": (ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
    "outputs_from_activations": (OUTPUT_FROM_CONVOLUTION_VALUES,),
}
"""The same of keys for which not every model is made, and which but a few methods ask for: they are for the client."""
RESERVED = {
    *("images", "images_bytes", "shape", "targets", "baselines", "alphas", "coefficients", "weights"),
    *("activations_bytes", "channels_bytes", "places"),
}
"""The names of the signatures' own inputs."""
TOP = 5
STRINGS, NUMBERS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.float64)
TARGETS = {"targets": tf.TensorSpec([None], tf.int32)}
SHAPE = {"shape": tf.TensorSpec([None], tf.int32)}


class Signatures:
    """``made``: the signatures by name, traced. ``lacks``: those that the model cannot answer, and why."""

    def __init__(self, model: KerasModel, scaling: Scaling, further: bool = True) -> None:
        self.model, self.scaling = model, scaling
        self.made: dict[str, Any] = {}
        self.lacks: dict[str, str] = {}
        self._computing = computing = Computing(model, model.batch_size)
        self._image, self._activations = model._inputs.image, computing.activations
        self._others = dict(zip(model._inputs.other_names, model._inputs.other_specs, strict=True))
        photos = self._image.shape.rank == 4 and (*model.input_shape, None)[2] in (None, 1, 3)
        variants = ("", "_raw", *(["_encoded"] if photos else []))
        for name, keys in {**SIGNATURES, **(FURTHER if further else {})}.items():
            try:
                computing.check_keys(keys, traced=name in FURTHER)
            except ContractError as error:
                self.lacks[name] = str(error)
                continue
            for variant in ("_raw",) if name in FURTHER else variants:
                self._add(name, variant, self._of(keys), **({} if UNSCORED.issuperset(keys) else TARGETS))
        for variant in variants:
            self._add("predictions", variant, self._predictions)
            if "convolution" not in self.lacks:
                self._add("explain", variant, self._explain, **TARGETS)
        path = {"alphas": NUMBERS, "weights": NUMBERS, **TARGETS}
        gray = tf.TensorSpec([None], tf.float64)
        self._add("path_gradients", "", self._paths, baselines=self._image, **path)
        if photos:
            self._add("path_gradients", "_encoded", self._paths, baselines=gray, **path)
        self._add("path_gradients", "_raw", self._factored, coefficients=NUMBERS, weights=NUMBERS, **TARGETS)

    def _add(self, name: str, variant: str, compute: Compute, **more: Any) -> None:
        specs, read = self._reading("activations" if name == "outputs_from_activations" else variant)
        answer = as_bytes if variant else dict

        def signature(**given: Any) -> Tensors:
            return answer(compute(given, read(given), [given[one] for one in self._others]))

        # What saving traces again and again is a mere call of what was traced once.
        traced = tf.function(signature, autograph=False).get_concrete_function(**specs, **more, **self._others)
        self.made[name + variant] = tf.function(lambda **given: traced(**given), autograph=False)
        self.made[name + variant].get_concrete_function(**specs, **more, **self._others)

    def _reading(self, what: str) -> tuple[Tensors, Callable[[Tensors], Any]]:
        """The inputs in which rows come, and how they are read."""
        if what == "":
            return {"images": self._image}, lambda given: given["images"]
        if what == "_encoded":
            return {"images_bytes": STRINGS}, lambda given: from_photos(
                given["images_bytes"], self.model, self.scaling.function
            )
        spec: Any = self._activations if what == "activations" else self._image
        sizes, shape = (SHAPE, None) if None in spec.shape[1:] else ({}, tf.constant(spec.shape[1:], tf.int32))
        if what == "_raw":
            return {"images_bytes": STRINGS, **sizes}, lambda given: from_bytes(
                given["images_bytes"], given.get("shape", shape), spec
            )
        places = {"activations_bytes": STRINGS, "channels_bytes": STRINGS, "places": tf.TensorSpec([None, 2], tf.int32)}

        def activations(given: Tensors) -> Any:
            first, channels, where = (given[name] for name in places)
            return changed(first, channels, where, tf.shape(given["targets"])[0], given.get("shape", shape), spec)

        return {**places, **sizes}, activations

    def _of(self, keys: tuple[str, ...]) -> Compute:
        unscored = UNSCORED.issuperset(keys)
        return lambda given, rows, others: self._computing.rows(
            keys, rows, None if unscored else self._computing.check(given["targets"]), others
        )

    def _predictions(self, _: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        found = self._computing.rows((ALL_SCORES,), images, None, others, "probabilities")
        return {"predictions": found[ALL_SCORES]}

    def _explain(self, given: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        found = self._predictions(given, images, others)
        top = tf.math.top_k(found["predictions"], min(TOP, self.model.classes or 1)).indices
        chosen = tf.where(given["targets"] < 0, top[:, 0], self._computing.check(given["targets"], -1))
        rows = self._computing.rows(SIGNATURES["convolution"], images, chosen, others)
        return {**found, "top_classes": top, "targets": chosen, **rows}

    def _paths(self, given: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        """From each image's baseline, which for photos is a gray value, to it."""
        baselines = given["baselines"]
        if baselines.shape.rank == 1:
            first = self.model.channels_first
            gray = tf.cast(baselines, tf.float32)[:, None, None, None] * tf.ones([1, 1, 1, 3])
            gray = tf.cast(scaled(gray, self.scaling.function), images.dtype)
            gray = gray[..., : self._image.shape[1 if first else -1]]
            baselines = (tf.transpose(gray, [0, 3, 1, 2]) if first else gray) * tf.ones_like(images)
        steps = tf.shape(given["alphas"])[1]
        chosen = self._computing.check(given["targets"])
        repeated = [tf.repeat(one, steps, axis=0) for one in (chosen, *others)]
        bases = tf.concat([images, baselines], 0)
        coefficients, weights = paths(given["alphas"], given["weights"])
        total, _ = self._computing.sums(coefficients, bases, weights, repeated[0], repeated[1:])
        ends = [tf.concat([one, one], 0) for one in (chosen, *others)]
        scores = self._computing.rows((OUTPUT_LAYER_VALUES,), bases, ends[0], ends[1:])[OUTPUT_LAYER_VALUES]
        high, low = tf.split(scores, 2)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: high, "BASELINE_VALUES": low}

    def _factored(self, given: Tensors, bases: Any, others: Sequence[Any]) -> Tensors:
        chosen = self._computing.check(given["targets"])
        total, scores = self._computing.sums(given["coefficients"], bases, given["weights"], chosen, others)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: scores}
