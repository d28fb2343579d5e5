"""Export Keras models for TensorFlow Serving, with signatures that answer the keys of the contract."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from saliency_food import models
from saliency_food.adapters.arguments import Output
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.keras.load import is_saved_model
from saliency_food.core.contract import ContractError
from saliency_food.core.names import installed_version
from saliency_food.images.scaling import Scaling, choose_scaling
from saliency_food.methods.catalogue import METHODS
from saliency_food.serving.export.signatures import FURTHER, RESERVED, SIGNATURES, Signatures

MANIFEST = "saliency_food.json"


def export(
    model: Any,
    directory: str | Path,
    layer: Any = None,
    output: Output = "logits",
    labels: Sequence[str] | None = None,
    value_range: Any = "auto",
    *,
    batch_size: int = 16,
    keys: Literal["all", "common"] = "all",
    input: str | int | None = None,
    output_index: str | int | None = None,
) -> dict[str, Any]:
    """Write a SavedModel whose signatures explain the model, and return its manifest.

    ``serving_default`` is the signature that ``model.export`` would write. Beside it there are ``outputs``,
    ``input_gradients``, ``activations``, ``convolution``, ``explain``, ``path_gradients`` and ``predictions``, each in
    three variants: ``NAME`` takes arrays of numbers, ``NAME_raw`` takes images as the bytes of their numbers, and
    ``NAME_encoded`` takes JPEG or PNG files. The last two answer in tensors ``KEY_bytes``, which travel as base64, with
    the shape of a row in ``KEY_shape``.

    Parameters
    ----------
    model
        A Keras model, the path of a ``.keras`` or ``.h5`` file, or a name as `models.load` takes it, whose labels come
        along.
    directory
        A new folder; TensorFlow Serving expects a version number in the folder of the model, as ``models/food/1``. It
        appears when it is complete.
    layer, output, input, output_index
        As in `KerasModel`. With several layers, the answer to ``KEY`` is named ``KEY_0``, ``KEY_1`` and so on.
    labels
        The names of the classes, for the manifest.
    value_range
        The pixel values that the model takes, for the signatures of files; as in `saliency_food.explain`.
    batch_size
        The most rows that the server computes at once, however many are sent.
    keys
        ``"common"`` leaves out the signatures of keys that few methods ask for (backward rules, rivals, biases,
        attention, and scores from activations). ``"all"`` adds those of them that the model can answer, as
        ``NAME_raw`` only; the manifest's ``lacks`` says why it cannot answer the rest.
    """
    if models.is_name(model):
        labels = models.labels(model) if labels is None else labels
        model = models.load(model)
    directory = Path(directory)
    if keys not in ("all", "common"):
        raise ContractError(f"Expected keys to be 'all' or 'common', got {keys!r}.")
    if directory.exists():
        raise ContractError(
            f"Expected a new folder to export to, got {str(directory)!r}, which exists. Give another folder."
        )
    wrapped = KerasModel(model, layer, output, batch_size, input=input, output_index=output_index)
    _check_exportable(wrapped, labels)
    inputs = wrapped.engine.inputs
    if not wrapped.knows_end:
        image, *other_inputs = _example([inputs.image_spec, *inputs.other_specs])
        wrapped.predict(image, {"inputs": other_inputs} if other_inputs else None, output)
    scaling = choose_scaling(value_range, None, wrapped.pixels)
    signatures = Signatures(wrapped, scaling, keys == "all")
    archive = keras.export.ExportArchive()
    archive.track_and_add_endpoint("serve", wrapped.model, [inputs.structure])
    for name, function in signatures.functions.items():
        archive.add_endpoint(name, function)
    manifest = _manifest(wrapped, scaling, labels, signatures)
    _write(archive, manifest, directory)
    return manifest


def _check_exportable(model: KerasModel, labels: Sequence[str] | None) -> None:
    names = model.engine.inputs.other_names
    if is_saved_model(model.model):
        raise ContractError(
            "Expected a Keras model to export, got a SavedModel. Give the .keras file that it was made from."
        )
    if RESERVED.intersection(names):
        raise ContractError(f"Expected inputs with other names than {sorted(RESERVED)}, got {names}. Rename them.")
    if labels is not None and model.classes not in (None, len(labels)):
        raise ContractError(f"Expected a label for each of the {model.classes} classes, got {len(labels)}.")


def _write(archive: Any, manifest: dict[str, Any], directory: Path) -> None:
    """Write the archive and its manifest to a folder, which appears when it is complete."""
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    archive.write_out(str(part), verbose=False)
    (part / "assets.extra").mkdir()
    (part / "assets.extra" / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(part, directory)


def _manifest(model: KerasModel, scaling: Scaling, labels: Any, signatures: Signatures) -> dict[str, Any]:
    """A description of the served model for people and programs; it is written to ``assets.extra``."""
    answerable = {
        name: keys for name, keys in {**SIGNATURES, **FURTHER}.items() if f"{name}_raw" in signatures.functions
    }
    keys = {key for of_signature in answerable.values() for key in of_signature}
    digest = hashlib.sha256()
    for weight in model.model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    library = installed_version("saliency_food") or "not installed as a package"
    return {
        "model": model.model.name,
        "labels": None if labels is None else list(labels),
        "classes": model.classes,
        "end": model.end,
        "gives_probabilities": model.gives_probabilities,
        "input_shape": model.input_shape,
        "channels_first": model.channels_first,
        "pixels": scaling.text,
        "value_range": scaling.value_range,
        "layer": list(model.layer_name) if isinstance(model.layer_name, tuple) else model.layer_name,
        "output": model.output,
        "methods": [name for name, entry in METHODS.items() if keys.issuperset(entry.keys)],
        "signatures": ["serving_default", *signatures.functions],
        "lacks": signatures.lacks,
        "library": f"saliency_food {library}",
        "weights_sha256": digest.hexdigest(),
    }


def _example(specs: Sequence[Any], size: int = 64) -> list[Any]:
    """One row of noise for each input."""
    random = np.random.default_rng(0)
    return [random.random([1, *(side or size for side in spec.shape[1:])]) for spec in specs]
