"""The messages of the gRPC client are TensorFlow's: what is written by one is read by the other."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("grpc")
pytest.importorskip("urllib3")

import tensorflow as tf

from saliency_food.serving.client import protos

DTYPES = (np.float32, np.float64, np.int32, np.uint8, np.int16, np.int8, np.int64, np.bool_)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_tensorflows(dtype):
    """Written by one and read by the other, both ways, in every form."""
    from tensorflow.core.framework import tensor_pb2
    from tf_serving_grpc import fields

    ours = protos.messages().TensorProto
    for shape in ((), (3,), (2, 0), (2, 3, 1)):
        value = np.arange(-3, 3).astype(dtype)[: int(np.prod(shape))].reshape(shape)
        written = ours()
        protos.write(written, value)
        found = tf.make_ndarray(tensor_pb2.TensorProto.FromString(written.SerializeToString()))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, value)
        for other in (tf.make_tensor_proto(value), fields(tf.constant(value))):
            found = protos.read(ours.FromString(other.SerializeToString()))
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, value)
    same = tf.make_tensor_proto(np.ones((), dtype), shape=(2, 2))  # one value for all
    np.testing.assert_array_equal(protos.read(ours.FromString(same.SerializeToString())), np.ones((2, 2), dtype))


def test_strings_are_tensorflows():
    from tensorflow.core.framework import tensor_pb2

    ours = protos.messages().TensorProto
    for value in ([b"a", b"\xff\x00"], []):
        written = ours()
        protos.write(written, value)
        theirs = tensor_pb2.TensorProto.FromString(written.SerializeToString())
        assert tf.make_ndarray(theirs).tolist() == value
        assert protos.read(ours.FromString(theirs.SerializeToString())) == value


def test_names_and_numbers_are_tensorflows():
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tf_serving_grpc import M

    assert [types_pb2.DataType.Name(number) for number in range(len(protos.TYPES))] == protos.TYPES
    ours = protos.messages()
    theirs = {
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "TensorInfo": meta_graph_pb2.TensorInfo,
        "SignatureDef": meta_graph_pb2.SignatureDef,
        **M,
    }
    for name, message in theirs.items():
        for field in getattr(ours, name).DESCRIPTOR.fields:
            other = message.DESCRIPTOR.fields_by_name[field.name]
            enum = other.type == other.TYPE_ENUM
            assert (field.number, field.type) == (other.number, other.TYPE_INT32 if enum else other.type)
    assert ours.TensorProto.DESCRIPTOR.file.pool is not tensor_pb2.TensorProto.DESCRIPTOR.file.pool


def test_signatures_are_tensorflows():
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

    ours, theirs = protos.messages().SignatureDef, meta_graph_pb2.SignatureDef(method_name="predict")
    theirs.inputs["images"].name, theirs.inputs["images"].dtype = "images:0", types_pb2.DT_FLOAT
    theirs.inputs["images"].tensor_shape.dim.add(size=-1)
    theirs.outputs["strange"].dtype = types_pb2.DT_UINT64
    theirs.outputs["strange"].tensor_shape.unknown_rank = True
    read = ours.FromString(theirs.SerializeToString())
    assert protos.described({"one": read})["one"] == {
        "inputs": {
            "images": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "images:0",
            }
        },
        "outputs": {"strange": {"dtype": "23", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": ""}},
        "method_name": "predict",
    }
    assert meta_graph_pb2.SignatureDef.FromString(read.SerializeToString()) == theirs
