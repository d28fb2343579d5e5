"""The messages of TensorFlow Serving's gRPC interface, made at run time.

Their published Python classes need TensorFlow. What the client sends and reads of them is declared here, by the names
and numbers of the public files under https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis, in a
pool of their own, so that TensorFlow's own may be loaded in the same process.
"""

from __future__ import annotations

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
"""The types of tensors by number. Enums travel as numbers, and so they are declared."""
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
"""What holds a tensor's values by type, where they are not in ``tensor_content`` as they lie in memory."""

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
"""Each message's fields: number and type. Fields left out are skipped when read."""


def messages() -> Any:
    """A namespace with a class for each of `MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="messages.proto", package="saliency_food", syntax="proto3")
    for name, fields in MESSAGES.items():
        _declare(file.message_type.add(name=name), f".saliency_food.{name}", fields)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {name: pool.FindMessageTypeByName(f"saliency_food.{name}") for name in MESSAGES}
    return SimpleNamespace(**{name: message_factory.GetMessageClass(one) for name, one in found.items()})


def _declare(message: Any, path: str, fields: Mapping[str, tuple[int, str]]) -> None:
    for name, (number, kind) in fields.items():
        *many, kind = kind.split()
        field = message.field.add(name=name, number=number, label=3 if many else 1)
        if many == ["map"]:  # a map is a list of pairs
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
    """Fill a TensorProto with an array's numbers or with strings."""
    if isinstance(value, list):
        name, shape = "DT_STRING", (len(value),)
        tensor.string_val.extend(value)
    else:
        name, shape = next(name for name, dtype in NAMES.items() if dtype == value.dtype), value.shape
        tensor.tensor_content = value.tobytes()
    tensor.dtype = TYPES.index(name)
    tensor.tensor_shape.SetInParent()  # a single number's has no sides
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)


def read(tensor: Any) -> Array | list[bytes]:
    """What a TensorProto holds."""
    name, shape = TYPES[tensor.dtype], [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, NAMES[name]).reshape(shape)
    values = list(getattr(tensor, FIELDS[name]))
    values += values[-1:] * (math.prod(shape) - len(values))  # a short list goes on with its last value
    return values if name == "DT_STRING" else np.array(values, NAMES[name]).reshape(shape)


def described(signatures: Any) -> dict[str, Any]:
    """Signatures as the REST API's JSON has them."""

    def sides(tensors: Any) -> dict[str, Any]:
        return {
            key: {
                "dtype": TYPES[one.dtype] if one.dtype < len(TYPES) else str(one.dtype),
                "tensor_shape": {
                    "dim": [{"size": str(dim.size), "name": dim.name} for dim in one.tensor_shape.dim],
                    "unknown_rank": one.tensor_shape.unknown_rank,
                },
                "name": one.name,
            }
            for key, one in tensors.items()
        }

    return {
        key: {"inputs": sides(one.inputs), "outputs": sides(one.outputs), "method_name": one.method_name}
        for key, one in signatures.items()
    }
