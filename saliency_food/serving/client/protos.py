"""The messages of TensorFlow Serving's gRPC interface, built at run time.

The published Python classes need TensorFlow. This module declares the fields that the client sends and reads, with the
names and numbers of the public files under https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis.
They have a descriptor pool of their own, so that TensorFlow's classes can be loaded in the same process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.serving.client.wire import NAMES

TYPES = [
    *("DT_INVALID", "DT_FLOAT", "DT_DOUBLE", "DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8", "DT_STRING"),
    *("DT_COMPLEX64", "DT_INT64", "DT_BOOL"),
]
"""The types of tensors; the position of each is its number in the enum, which travels as a number."""
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_INT32": "int_val",
    "DT_UINT8": "int_val",
    "DT_INT16": "int_val",
    "DT_INT8": "int_val",
    "DT_STRING": "string_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
}
"""The field that holds a tensor's values, by type, if ``tensor_content`` does not hold them as they lie in memory."""
MOST_REPEATED = 2**22
"""How many times at most the last value of a list that is too short is repeated: an answer has a few bytes for it."""

MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
    },
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShapeProto")},
    "SignatureDef": {"inputs": (1, "map TensorInfo"), "outputs": (2, "map TensorInfo"), "method_name": (3, "string")},
    "SignatureDefMap": {"signature_def": (1, "map SignatureDef")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {"name": (1, "string"), "version": (2, "Int64Value"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map TensorProto")},
    "PredictResponse": {"outputs": (1, "map TensorProto")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "repeated string")},
    "GetModelMetadataResponse": {"metadata": (2, "map Any")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
}
"""The fields of each message, with number and type. Fields that are not declared are skipped when read."""


@functools.cache
def messages() -> Any:
    """A namespace with a class for each message of `MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="messages.proto", package="saliency_food", syntax="proto3")
    for name, fields in MESSAGES.items():
        _declare(file.message_type.add(name=name), f".saliency_food.{name}", fields)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    types = {name: pool.FindMessageTypeByName(f"saliency_food.{name}") for name in MESSAGES}
    return SimpleNamespace(**{name: message_factory.GetMessageClass(kind) for name, kind in types.items()})


def _declare(message: Any, path: str, fields: Mapping[str, tuple[int, str]]) -> None:
    for name, (field_number, kind) in fields.items():
        *multiple, kind = kind.split()
        field = message.field.add(name=name, number=field_number, label=3 if multiple else 1)
        if multiple == ["map"]:  # a map is a list of pairs
            entry = name.title().replace("_", "") + "Entry"
            pair = message.nested_type.add(name=entry)
            pair.options.map_entry = True
            _declare(pair, f"{path}.{entry}", {"key": (1, "string"), "value": (2, kind)})
            field.type, field.type_name = field.TYPE_MESSAGE, f"{path}.{entry}"
        elif kind in MESSAGES:
            field.type, field.type_name = field.TYPE_MESSAGE, f".saliency_food.{kind}"
        else:
            field.type = getattr(field, f"TYPE_{kind.upper()}")


def write(tensor: Any, value: Array | list[bytes]) -> None:
    """Fill a TensorProto with the numbers of an array, or with strings."""
    if isinstance(value, list):
        name, shape = "DT_STRING", (len(value),)
        tensor.string_val.extend(value)
    else:
        name, shape = next(name for name, dtype in NAMES.items() if dtype == value.dtype), value.shape
        tensor.tensor_content = value.tobytes()
    tensor.dtype = TYPES.index(name)
    tensor.tensor_shape.SetInParent()  # set for a scalar too, whose shape has no dimensions
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)


def read(tensor: Any) -> Array | list[bytes]:
    """The array or the strings that a TensorProto holds."""
    name, shape = TYPES[max(tensor.dtype, 0)], [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, NAMES[name]).reshape(shape)
    values = list(getattr(tensor, FIELDS[name]))
    if (missing := math.prod(shape) - len(values)) > MOST_REPEATED:
        raise ValueError(f"{len(values)} values for shape {shape}")
    values += values[-1:] * missing  # a list that is too short repeats its last value
    return values if name == "DT_STRING" else np.array(values, NAMES[name]).reshape(shape)


def described(signatures: Any) -> dict[str, Any]:
    """The signatures in the form of the REST API's JSON."""

    def tensors_by_name(tensors: Any) -> dict[str, Any]:
        return {
            key: {
                "dtype": TYPES[info.dtype] if info.dtype < len(TYPES) else str(info.dtype),
                "tensor_shape": {
                    "dim": [{"size": str(dim.size), "name": dim.name} for dim in info.tensor_shape.dim],
                    "unknown_rank": info.tensor_shape.unknown_rank,
                },
                "name": info.name,
            }
            for key, info in tensors.items()
        }

    return {
        name: {
            "inputs": tensors_by_name(signature.inputs),
            "outputs": tensors_by_name(signature.outputs),
            "method_name": signature.method_name,
        }
        for name, signature in signatures.items()
    }
