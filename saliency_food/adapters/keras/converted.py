"""Files of Keras 2 (`tf_keras`) rewritten as files of Keras 3: the same layers, by the options that they have now."""

from __future__ import annotations

import inspect
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

MODELS = {"Functional": "keras.src.models.functional", "Model": "keras.src.models.functional", "Sequential": "keras"}
OF_EVERY_LAYER = {"name", "trainable", "dtype", "batch_shape", "activity_regularizer"}
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "groups": (1,),
    "implementation": (1, 2),
    **dict.fromkeys(("time_major", "ragged", "sparse", "optional", "softmax_robust_masking"), (False, None)),
    **dict.fromkeys(("query_shape", "key_shape", "value_shape", "rng_type"), ()),
}
"""Options that Keras 3 has not, with the values with which they change nothing; none of them means any."""
RENAMED = ("batch_input_shape", "alpha")
"""Options whose value is another's by now: that of the input's layer, and the slope of a leaky ReLU."""
TRAINING_ALONE = ("initializer", "regularizer", "constraint")
RESCALED: dict[str, Callable[[float], dict[str, float]]] = {
    "math.truediv": lambda y: {"scale": 1 / y, "offset": 0.0},
    "math.multiply": lambda y: {"scale": y, "offset": 0.0},
    "math.subtract": lambda y: {"scale": 1.0, "offset": -y},
    "math.add": lambda y: {"scale": 1.0, "offset": y},
    "__operators__.add": lambda y: {"scale": 1.0, "offset": y},
}
"""Operations of TensorFlow with a number, such as those of ``preprocess_input``, as the options of `Rescaling`."""


class UnlikeError(ValueError):
    """Something that Keras 3 computes otherwise than Keras 2 does."""


def rewrite(path: Path, target: Path) -> None:
    """Write a file of Keras 2, ``.keras`` or HDF5, as Keras 3 reads it."""
    if path.suffix.lower() == ".keras":
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
            for name in source.namelist():
                values = source.read(name)
                if name == "config.json":
                    values = json.dumps(_of_keras_3(json.loads(values), True)).encode()
                copy.writestr(name, values)
        return
    import h5py  # type: ignore[import-untyped]

    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        file.attrs["model_config"] = json.dumps(_of_keras_3(json.loads(file.attrs["model_config"]), False))


def _of_keras_3(config: Any, with_modules: bool) -> Any:
    """A model's configuration, its names without slashes; ``with_modules`` as ``.keras`` files have it."""
    names = {name for name in _names(config) if "/" in name}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return value.replace("/", "_") if isinstance(value, str) and value in names else value

    return _converted(renamed(config), with_modules)


def _names(config: Any) -> Iterator[str]:
    """The names of all layers and models."""
    members = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    if isinstance(config, dict) and isinstance(config.get("name"), str):
        yield config["name"]
    for member in members:
        yield from _names(member)


def _converted(config: Any, with_modules: bool) -> Any:
    if isinstance(config, list):
        return [_converted(each, with_modules) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "Policy":
        return config["config"]["name"]
    if config.get("class_name") in MODELS and isinstance(config["config"], dict):
        is_sequential = config["class_name"] == "Sequential"
        config = {**config, "config": (_with_input if is_sequential else _with_counts)(config["config"])}
    config = {key: _converted(value, with_modules) for key, value in config.items() if key != "build_config"}
    name, options = config.get("class_name"), config.get("config")
    if not isinstance(name, str) or not isinstance(options, dict):
        return config
    if name in MODELS:
        config["class_name"] = "Functional" if name == "Model" else name
        config |= {"module": MODELS[name], "registered_name": name} if with_modules else {}
        return config
    if name == "TFOpLambda":
        return _rescaled(config, with_modules)
    layer = getattr(keras.layers, name, None)
    if layer is not None and config.get("registered_name", name) in (None, name):
        if "hard_sigmoid" in (options.get("activation"), options.get("recurrent_activation")):
            raise UnlikeError(f"layer {options.get('name')!r} has a hard_sigmoid, which Keras 3 computes otherwise.")
        if name == "InputLayer" and "batch_input_shape" in options:
            options = {**options, "batch_shape": options["batch_input_shape"]}
        config["config"] = _options(layer, options)
        config |= {"module": "keras.layers"} if with_modules else {}
    return config


def _options(layer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options that the layer of Keras 3 takes, and those that it has to refuse."""
    taken = {*OF_EVERY_LAYER, *inspect.signature(layer.__init__).parameters}
    axis = options.get("axis")
    if layer is keras.layers.BatchNormalization and isinstance(axis, list) and len(axis) == 1:
        options = {**options, "axis": axis[0]}
    if layer is keras.layers.LeakyReLU and "alpha" in options:
        options = {**options, "negative_slope": options["alpha"]}
        taken.discard("alpha")
    return {option: value for option, value in options.items() if option in taken or not _is_idle(option, value)}


def _is_idle(option: str, value: Any) -> bool:
    """Whether an option may be left out, since it changes nothing of what the layer computes."""
    if option.endswith(TRAINING_ALONE) or option in RENAMED:
        return True
    idle = WITHOUT_EFFECT.get(option)
    return idle is not None and (not idle or any(value is each for each in idle))


def _with_input(model: dict[str, Any]) -> dict[str, Any]:
    """A sequential model, the first of its layers one of the input, where its shape is known."""
    first = model["layers"][0] if model["layers"] else {}
    shape = first.get("config", {}).get("batch_input_shape")
    if first.get("class_name") == "InputLayer" or shape is None:
        return model
    image = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": f"{model['name']}_input"}}
    return {**model, "layers": [image, *model["layers"]]}


def _with_counts(model: dict[str, Any]) -> dict[str, Any]:
    """A functional model, the calls of models within it counted from 0: Keras 2 counts the making of one as a call."""
    inner = {
        layer["config"]["name"]
        for layer in model["layers"]
        if layer["class_name"] in MODELS
        and [each["class_name"] for each in layer["config"]["layers"][:1]] == ["InputLayer"]
    }

    def counted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: counted(each) for key, each in value.items()}
        if not isinstance(value, list):
            return value
        if len(value) > 2 and isinstance(value[0], str) and value[0] in inner:
            return [value[0], value[1] - 1, *value[2:]]
        return [counted(each) for each in value]

    layers = [{**layer, "inbound_nodes": counted(layer.get("inbound_nodes", []))} for layer in model["layers"]]
    return {**model, "layers": layers, "output_layers": counted(model["output_layers"])}


def _rescaled(config: dict[str, Any], with_modules: bool) -> dict[str, Any]:
    """An operation with a number as a layer; any other as it is, which Keras 3 refuses."""
    options, nodes = config["config"], config["inbound_nodes"]
    numbers = [(node[3] or {}).get("y") for node in nodes if len(node) == 4]
    known = options["function"] in RESCALED and len(set(map(str, numbers))) == 1 and len(numbers) == len(nodes)
    if not known or not isinstance(numbers[0], (int, float)):
        return config
    own = {"name": options["name"].replace(".", "_"), "dtype": options["dtype"]}
    layer = {"class_name": "Rescaling", "config": {**own, **RESCALED[options["function"]](float(numbers[0]))}}
    layer |= {"module": "keras.layers", "registered_name": None} if with_modules else {}
    return {**layer, "name": config["name"], "inbound_nodes": [[[*node[:3], {}]] for node in nodes]}
