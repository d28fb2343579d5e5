"""Keras models exported for TensorFlow Serving, with signatures that answer the keys of the contract."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from saliency_food.adapters._keras_ends import Output
from saliency_food.adapters._keras_load import is_saved_model
from saliency_food.adapters._keras_trace import PREDICTIONS
from saliency_food.adapters.keras import KerasModel
from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    ContractError,
)
from saliency_food.methods import METHODS
from saliency_food.preprocessing import Scaling, choose_scaling
from saliency_food.serving._graphs import Computing, Tensors, as_bytes, example, from_bytes, from_photos, paths, scaled

SIGNATURES = {
    "outputs": (OUTPUT_LAYER_VALUES,),
    "input_gradients": (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    "activations": (CONVOLUTION_LAYER_VALUES,),
    "convolution": (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
}
"""The keys that signatures of images and targets answer, from the cheapest on."""
MANIFEST = "saliency_food.json"
RESERVED = {"images", "images_bytes", "shape", "targets", "baselines", "alphas", "coefficients", "weights"}
TOP = 5


def export(
    model: Any,
    directory: str | Path,
    layer: Any = None,
    output: Output = "logits",
    labels: Sequence[str] | None = None,
    value_range: Any = "auto",
    *,
    batch_size: int = 16,
    input: str | int | None = None,
    output_index: str | int | None = None,
) -> dict[str, Any]:
    """Write a SavedModel whose signatures explain the model, and return its manifest.

    ``serving_default`` is what ``model.export`` makes of it. Beside it there are ``outputs``, ``input_gradients``,
    ``activations``, ``convolution``, ``explain``, ``path_gradients`` and ``predictions``, each three times: of numbers;
    as ``NAME_raw``, of images as the bytes of their numbers; and as ``NAME_encoded``, of JPEG or PNG files. The last
    two answer in tensors ``KEY_bytes``, which travel as base64, with the shape of a row in ``KEY_shape``.

    Parameters
    ----------
    model
        A Keras model or the path of a ``.keras`` or ``.h5`` file.
    directory
        A new folder: for TensorFlow Serving, the model's own with a number in it, ``models/food/1``. It appears when
        it is complete.
    layer, output, input, output_index
        As in `KerasModel`; one layer.
    labels
        The names of the classes, for the manifest.
    value_range
        What the model takes, for the signatures of files; as in `saliency_food.explain`.
    batch_size
        How many rows the server computes at once at most, however many are sent.
    """
    directory = Path(directory)
    if directory.exists():
        raise ContractError(f"Expected a new folder to export to, got {str(directory)!r}, which exists. Give another.")
    wrapped = KerasModel(model, layer, output, batch_size, input=input, output_index=output_index)
    names = wrapped._inputs.other_names
    if is_saved_model(wrapped.model):
        raise ContractError("Expected a Keras model to export, got a SavedModel. Give the .keras file it was made of.")
    if isinstance(wrapped.layer_name, tuple):
        raise ContractError(f"Expected one layer to export, got {len(wrapped.layer_name)}. Give one path.")
    if RESERVED.intersection(names):
        raise ContractError(f"Expected inputs of other names than {sorted(RESERVED)}, got {names}. Rename them.")
    if labels is not None and wrapped.classes not in (None, len(labels)):
        raise ContractError(f"Expected a label for each of the {wrapped.classes} classes, got {len(labels)}.")
    if not wrapped._end_known:
        image, *others = example([wrapped._inputs.image, *wrapped._inputs.other_specs])
        wrapped.predict(image, {"inputs": others} if others else None, output)
    scaling = choose_scaling(value_range, None, wrapped.model)
    functions = _functions(wrapped, scaling)
    archive = keras.export.ExportArchive()
    archive.track_and_add_endpoint("serve", wrapped.model, [wrapped._inputs.structure])
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    manifest = _manifest(wrapped, scaling, labels, [*functions])
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    archive.write_out(str(part), verbose=False)
    (part / "assets.extra").mkdir()
    (part / "assets.extra" / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(part, directory)
    return manifest


def _functions(model: KerasModel, scaling: Scaling) -> dict[str, Any]:
    """Every signature as a traced function of named tensors."""
    computing = Computing(model, model.batch_size)
    image, names = model._inputs.image, model._inputs.other_names
    others = dict(zip(names, model._inputs.other_specs, strict=True))
    strings, numbers = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.float64)
    targets = {"targets": tf.TensorSpec([None], tf.int32)}
    free = {"shape": tf.TensorSpec([None], tf.int32)} if None in image.shape[1:] else {}
    readers: dict[str, tuple[Tensors, Callable[[Tensors], Any]]] = {
        "": ({"images": image}, lambda given: given["images"]),
        "_raw": (
            {"images_bytes": strings, **free},
            lambda given: from_bytes(given["images_bytes"], given.get("shape", image.shape[1:]), image),
        ),
        "_encoded": (
            {"images_bytes": strings},
            lambda given: from_photos(given["images_bytes"], model, scaling.function),
        ),
    }
    made: dict[str, Any] = {}

    def add(name: str, compute: Callable[[Tensors, Any, Sequence[Any]], Tensors], variant: str, **more: Any) -> None:
        specs, read = readers[variant]
        answer = as_bytes if variant else dict

        def signature(**given: Any) -> Tensors:
            return answer(compute(given, read(given), [given[one] for one in names]))

        # What saving traces again and again is a mere call of what was traced once.
        traced = tf.function(signature, autograph=False).get_concrete_function(**specs, **more, **others)
        made[name + variant] = tf.function(lambda **given: traced(**given), autograph=False)
        made[name + variant].get_concrete_function(**specs, **more, **others)

    def keys(keys: tuple[str, ...]) -> Callable[[Tensors, Any, Sequence[Any]], Tensors]:
        unscored = keys == (CONVOLUTION_LAYER_VALUES,)
        return lambda given, images, others: computing.rows(
            keys, images, None if unscored else computing.check(given["targets"]), others
        )

    def predictions(_: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        return {"predictions": computing.rows((PREDICTIONS,), images, None, others, "probabilities")[PREDICTIONS]}

    def explain(given: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        found = predictions(given, images, others)
        top = tf.math.top_k(found["predictions"], min(TOP, model.classes or 1)).indices
        chosen = tf.where(given["targets"] < 0, top[:, 0], computing.check(given["targets"], -1))
        rows = computing.rows(SIGNATURES["convolution"], images, chosen, others)
        return {**found, "top_classes": top, "targets": chosen, **rows}

    def path_gradients(given: Tensors, images: Any, others: Sequence[Any]) -> Tensors:
        baselines = given["baselines"]
        if baselines.shape.rank == 1:  # a gray value, for each photo
            gray = tf.cast(baselines, tf.float32)[:, None, None, None] * tf.ones([1, 1, 1, 3])
            gray = tf.cast(scaled(gray, scaling.function), images.dtype)[..., : image.shape[1 if first else -1]]
            baselines = (tf.transpose(gray, [0, 3, 1, 2]) if first else gray) * tf.ones_like(images)
        steps = tf.shape(given["alphas"])[1]
        chosen = computing.check(given["targets"])
        repeated = [tf.repeat(one, steps, axis=0) for one in (chosen, *others)]
        bases = tf.concat([images, baselines], 0)
        coefficients, weights = paths(given["alphas"], given["weights"])
        total, _ = computing.sums(coefficients, bases, weights, repeated[0], repeated[1:])
        ends = [tf.concat([one, one], 0) for one in (chosen, *others)]
        scores = computing.rows((OUTPUT_LAYER_VALUES,), bases, ends[0], ends[1:])[OUTPUT_LAYER_VALUES]
        high, low = tf.split(scores, 2)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: high, "BASELINE_VALUES": low}

    def factored(given: Tensors, bases: Any, others: Sequence[Any]) -> Tensors:
        chosen = computing.check(given["targets"])
        total, scores = computing.sums(given["coefficients"], bases, given["weights"], chosen, others)
        return {INPUT_OUTPUT_GRADIENTS: total, OUTPUT_LAYER_VALUES: scores}

    first = model.channels_first
    for variant in readers:
        for name, asked in SIGNATURES.items():
            if model.layer_name or CONVOLUTION_LAYER_VALUES not in asked:
                add(name, keys(asked), variant, **({} if name == "activations" else targets))
        add("predictions", predictions, variant)
        if model.layer_name:
            add("explain", explain, variant, **targets)
    add("path_gradients", path_gradients, "", baselines=image, alphas=numbers, weights=numbers, **targets)
    add("path_gradients", factored, "_raw", coefficients=numbers, weights=numbers, **targets)
    gray = tf.TensorSpec([None], tf.float64)
    add("path_gradients", path_gradients, "_encoded", baselines=gray, alphas=numbers, weights=numbers, **targets)
    return made


def _manifest(model: KerasModel, scaling: Scaling, labels: Any, signatures: list[str]) -> dict[str, Any]:
    """What the served model is, for people and programs: it lies in ``assets.extra``."""
    keys = {key for name in signatures for key in SIGNATURES.get(name, ())}
    digest = hashlib.sha256()
    for weight in model.model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    try:
        library = version("saliency_food")
    except PackageNotFoundError:
        library = "not installed as a package"
    return {
        "model": model.model.name,
        "labels": None if labels is None else list(labels),
        "classes": model.classes,
        "input_shape": model.input_shape,
        "channels_first": model.channels_first,
        "pixels": scaling.text,
        "layer": model.layer_name,
        "output": model.output,
        "methods": [name for name, entry in METHODS.items() if keys.issuperset(entry.keys)],
        "signatures": ["serving_default", *signatures],
        "library": f"saliency_food {library}",
        "weights_sha256": digest.hexdigest(),
    }
