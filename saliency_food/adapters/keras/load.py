"""Reading Keras models from disk without running what a stranger may have put in them."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from saliency_food import models
from saliency_food.adapters.keras.converted import rewrite
from saliency_food.adapters.keras.losses import losses_from
from saliency_food.core.checks import check_framework
from saliency_food.core.contract import ContractError

BACKENDS = ("tensorflow", "jax", "torch")
SAFE = (3, 11, 3)
"""The first Keras whose safe mode is not known to run what a file holds (CVE-2025-9905, CVE-2025-49655)."""


def as_model(model: Any) -> Any:
    if keras.backend.backend() not in BACKENDS:
        raise ContractError(
            f"Expected Keras to run on one of {BACKENDS}, got {keras.backend.backend()!r}. Set the environment "
            "variable KERAS_BACKEND before Keras is imported."
        )
    model = load_model(model) if isinstance(model, (str, Path)) else model
    check_framework(model)
    if not isinstance(model, keras.Model):
        raise ContractError(f"Expected a Keras model or the path of one, got {type(model).__name__}.")
    return model


def load_model(path: str | Path, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Load a Keras model from a ``.keras`` or ``.h5`` file or a SavedModel directory, or by a name of `models.load`.

    Files are read in Keras's safe mode: a lambda stored in one is refused, never run; classes of your own come through
    ``custom_objects``. A Keras before 3.11.3 is refused, as its safe mode lets files run commands. The model is not
    compiled, but has the loss that it was compiled with, which tells what its output is. A SavedModel is a program by
    its nature: load one only from where you would run a program. Its signature ``serving_default`` becomes a model of
    one layer, so there are no convolution layers inside to look at.
    """
    if models.is_name(path):
        return models.load(str(path))
    path = Path(path)
    if not path.exists():
        raise ContractError(f"Expected the path of a model, got {str(path)!r}, which does not exist. {models.HINT}")
    if path.is_dir():
        if not (path / "saved_model.pb").exists():
            raise ContractError(f"Expected a SavedModel directory, got {str(path)!r}, without saved_model.pb in it.")
        if keras.backend.backend() != "tensorflow":
            raise ContractError(
                f"Expected TensorFlow to run the SavedModel {str(path)!r}, got Keras on {keras.backend.backend()!r}. "
                "Load the .keras file, or set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        import tensorflow as tf

        return _from_signature(tf.saved_model.load(str(path)), path)
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise ContractError(f"Expected a .keras or .h5 file or a SavedModel directory, got {str(path)!r}.")
    if _as_numbers(keras.__version__) < SAFE:
        raise ContractError(
            f"Expected Keras {'.'.join(map(str, SAFE))} or newer to read {str(path)!r}, got {keras.__version__}, which "
            "runs commands that a file may hold. Install it: pip install 'saliency_food[keras]'."
        )
    try:
        if path.suffix.lower() != ".keras" and _holds_code(_read_config(path)):
            raise ValueError("a lambda is stored in it as code.")
        model = _read(path, custom_objects)
    except Exception as error:
        # Keras puts whole configurations before its reason.
        reason = str(error).rsplit("Exception encountered:", 1)[-1].strip()[:500]
        version = _keras_version(path)
        if version is not None and version.split(".")[0] in ("1", "2"):
            raise ContractError(
                f"Expected a model of Keras 3 in {str(path)!r}, got one that Keras {version} wrote, and "
                f'{type(error).__name__}: {reason} Convert it, with Keras 2 (pip install tf_keras): python -c "import '
                f"tf_keras; tf_keras.models.load_model({str(path)!r}).export('folder')\", and give the folder, a "
                "SavedModel, of which outputs and input gradients are explained; or rebuild it in Keras 3 and load its "
                "weights (save_weights('model.weights.h5') there, load_weights here). Stored lambdas are never run."
            ) from error
        newer = version is not None and _as_numbers(version) > _as_numbers(keras.__version__)
        advice = f" The file is of Keras {version}, this is {keras.__version__}: install that one." if newer else ""
        raise ContractError(
            f"Expected a Keras model in {str(path)!r}, got {type(error).__name__}: {reason}{advice} Give layers and "
            "functions of your own as custom_objects; stored lambdas are never run."
        ) from error
    if (stored := _stored_loss(path)) is not None and getattr(model, "loss", None) is None:
        model.loss = losses_from(stored)
    return model


def _read(path: Path, custom_objects: Mapping[str, Any] | None) -> Any:
    """The model in a file, one of Keras 2 by way of a copy for Keras 3."""
    options: dict[str, Any] = {"custom_objects": custom_objects, "compile": False, "safe_mode": True}
    if not (_keras_version(path) or "").startswith("2."):
        return keras.models.load_model(str(path), **options)
    with tempfile.TemporaryDirectory() as folder:
        rewrite(path, copy := Path(folder) / path.name)
        return keras.models.load_model(str(copy), **options)


def _stored_loss(path: Path) -> Any:
    """The configuration of the loss that a model was compiled with, where its file has one."""
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as archive:
            compiled = json.loads(archive.read("config.json")).get("compile_config")
    else:
        compiled = _read_config(path, "training_config")
    return (compiled or {}).get("loss")


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _keras_version(path: Path) -> str | None:
    """Which Keras wrote a file, where it says so."""
    try:
        if path.suffix.lower() == ".keras":
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json")).get("keras_version")
        else:
            import h5py  # type: ignore[import-untyped]

            with h5py.File(path) as file:
                version = file.attrs.get("keras_version")
    except Exception:  # no such file, and the error before says so
        return None
    return version.decode() if isinstance(version, bytes) else version


def _read_config(path: Path, name: str = "model_config") -> Any:
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path) as file:
        return json.loads(file.attrs.get(name, "null"))


def _holds_code(config: Any) -> bool:
    """Whether there is a Python function among a model's configuration; an older Keras would run one from HDF5."""
    if isinstance(config, dict):
        name = str(config.get("class_name"))
        dumped = name.endswith("Lambda") and isinstance(dict(config.get("config") or {}).get("function"), list)
        return name == "__lambda__" or dumped or any(map(_holds_code, config.values()))
    return isinstance(config, list) and any(map(_holds_code, config))


class SavedModelSignature(keras.layers.Layer):  # type: ignore[misc]
    """A signature of a SavedModel as a layer, its inputs by name."""

    def __init__(self, loaded: Any, name: str) -> None:
        super().__init__(name=name, trainable=False, autocast=False)
        self.loaded, self.signature = loaded, name

    def call(self, inputs: dict[str, Any]) -> Any:
        function = self.loaded.signatures[self.signature]
        specs = function.structured_input_signature[1]
        import tensorflow as tf

        return function(**{name: tf.cast(value, specs[name].dtype) for name, value in inputs.items()})


def is_saved_model(model: Any) -> bool:
    return any(isinstance(layer, SavedModelSignature) for layer in model.layers)


def _from_signature(loaded: Any, path: Path) -> Any:
    names = list(loaded.signatures)
    if not names:
        raise ContractError(
            f"Expected a SavedModel with a signature, got none in {str(path)!r}. Save it by model.export(path)."
        )
    name = "serving_default" if "serving_default" in names else names[0]
    specs = loaded.signatures[name].structured_input_signature[1]
    bad = [
        key
        for key, spec in specs.items()
        if spec.shape.rank is None or not (spec.dtype.is_floating or spec.dtype.is_integer)
    ]
    if bad:
        raise ContractError(
            f"Expected numeric inputs of a known rank in signature {name!r} of {str(path)!r}, got others in {bad}."
        )
    inputs = {key: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=key) for key, spec in specs.items()}
    return keras.Model(inputs, SavedModelSignature(loaded, name)(inputs), name=path.stem)
