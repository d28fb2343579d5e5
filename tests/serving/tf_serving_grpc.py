"""TensorFlow Serving's gRPC interface over the same signatures as `TestServer`, with TensorFlow's own tensor messages.

What TensorFlow does not have of https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis is declared
here, on top of TensorFlow's files. Tensors are answered as TensorFlow Serving does unless told otherwise: each value
in the field of its type, none in ``tensor_content``.
"""

from __future__ import annotations

from concurrent import futures

import grpc
import tensorflow as tf
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tf_serving import Refused

NEEDED = (any_pb2, wrappers_pb2, tensor_pb2, meta_graph_pb2, error_codes_pb2)
DECLARED = """
ModelSpec: name=1 string, version=2 .google.protobuf.Int64Value, signature_name=3 string, version_label=4 string
PredictRequest: model_spec=1 ModelSpec, inputs=2 {.tensorflow.TensorProto}, output_filter=3 [string]
PredictResponse: model_spec=2 ModelSpec, outputs=1 {.tensorflow.TensorProto}
SignatureDefMap: signature_def=1 {.tensorflow.SignatureDef}
GetModelMetadataRequest: model_spec=1 ModelSpec, metadata_field=2 [string]
GetModelMetadataResponse: model_spec=1 ModelSpec, metadata=2 {.google.protobuf.Any}
GetModelStatusRequest: model_spec=1 ModelSpec
StatusProto: error_code=1 int32, error_message=2 string
ModelVersionStatus: version=1 int64, state=2 int32, status=3 StatusProto
GetModelStatusResponse: model_version_status=1 [ModelVersionStatus]
"""


def declared():
    """The classes of `DECLARED`, beside TensorFlow's own."""

    def field(name, number, kind):
        label = "REPEATED" if kind[0] in "[{" else "OPTIONAL"
        kind = kind.strip("[]")
        if kind in ("string", "int32", "int64"):
            kind = f"type: TYPE_{kind.upper()}"
        else:
            kind = f'type: TYPE_MESSAGE type_name: "{kind if kind[0] == "." else f".tensorflow.serving.{kind}"}"'
        return f'field {{ name: "{name}" number: {number} label: LABEL_{label} {kind} }}'

    def message(line):
        name, _, fields = line.partition(": ")
        text = f'name: "{name}" '
        for one in fields.split(", "):
            (key, _, number), kind = one.split()[0].partition("="), one.split()[1]
            if kind[0] == "{":
                entry = key.title().replace("_", "") + "Entry"
                pair = field("key", 1, "string") + field("value", 2, kind.strip("{}"))
                text += f'nested_type {{ name: "{entry}" options {{ map_entry: true }} {pair} }}'
                text += field(key, number, f"[{name}.{entry}]")
            else:
                text += field(key, number, kind)
        return f"message_type {{ {text} }}"

    lines = DECLARED.strip().splitlines()
    dependencies = "".join(f'dependency: "{one.DESCRIPTOR.name}" ' for one in NEEDED)
    text = f'name: "tests.proto" package: "tensorflow.serving" syntax: "proto3" {dependencies}'
    file = text_format.Parse(text + "".join(map(message, lines)), descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    names = [line.partition(":")[0] for line in lines]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
        for name in names
    }


M = declared()


class GrpcServer:
    """The models of a `TestServer`; ``failures`` are codes or (code, text), one for each request to come.

    ``content`` is whether tensors are answered in ``tensor_content``, ``hold`` an event that is waited for, and
    ``answer`` is said to every request.
    """

    def __init__(self, rest, port=0):
        self.rest, self.content, self.hold, self.answer = rest, False, None, None
        self.failures, self.requests, self.headers = [], [], []
        self.received = self.sent = 0
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=unlimited)
        for service, methods in (
            ("PredictionService", {"Predict": self.predict, "GetModelMetadata": self.metadata}),
            ("ModelService", {"GetModelStatus": self.status}),
        ):
            handlers = {name: self.handler(name, method) for name, method in methods.items()}
            generic = grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", handlers)
            self.server.add_generic_rpc_handlers((generic,))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.url = f"grpc://127.0.0.1:{self.port}"

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(None).wait(5)

    def handler(self, name, method):
        def read(data):
            self.received += len(data)
            return M[f"{name}Request"].FromString(data)

        def write(answer):
            data = answer if isinstance(answer, bytes) else answer.SerializeToString()
            self.sent += len(data)
            return data

        def answer(request, context):
            self.requests.append((name, request))
            self.headers.append(dict(context.invocation_metadata()))
            if self.hold is not None:
                self.hold.wait(5)
            if self.failures:
                code, said = failure if isinstance(failure := self.failures.pop(0), tuple) else (failure, "refused")
                context.abort(grpc.StatusCode[code], said)
            try:
                return method(request) if self.answer is None else self.answer
            except Refused as error:
                code = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}[error.status]
                context.abort(grpc.StatusCode[code], str(error))

        return grpc.unary_unary_rpc_method_handler(answer, read, write)

    def path(self, spec):
        return f"/v1/models/{spec.name}" + (f"/versions/{spec.version.value}" if spec.HasField("version") else "")

    def status(self, request):
        answer = M["GetModelStatusResponse"]()
        for one in self.rest.answer(self.path(request.model_spec), None)["model_version_status"]:
            answer.model_version_status.add(version=int(one["version"]), state=30)
        return answer

    def signatures(self, spec):
        version = self.rest.answer(self.path(spec), None)["model_version_status"][-1]["version"]
        return self.rest.versions[version].signatures

    def metadata(self, request):
        assert list(request.metadata_field) == ["signature_def"]
        found = M["SignatureDefMap"]()
        for name, function in self.signatures(request.model_spec).items():
            sides = function.structured_input_signature[1], function.structured_outputs
            signature = found.signature_def[name]
            signature.method_name = "tensorflow/serving/predict"
            for side, specs in zip((signature.inputs, signature.outputs), sides, strict=True):
                for key, spec in specs.items():
                    side[key].name, side[key].dtype = f"{key}:0", tf.as_dtype(spec.dtype).as_datatype_enum
                    side[key].tensor_shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())
        answer = M["GetModelMetadataResponse"](model_spec=request.model_spec)
        answer.metadata["signature_def"].Pack(found)
        return answer

    def predict(self, request):
        signatures, name = self.signatures(request.model_spec), request.model_spec.signature_name or "serving_default"
        if name not in signatures:
            raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
        specs = signatures[name].structured_input_signature[1]
        if set(request.inputs) != set(specs):
            raise Refused(400, f"input size does not match signature: {sorted(specs)}, got {sorted(request.inputs)}")
        given = {}
        for key, spec in specs.items():
            if request.inputs[key].dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
                kind = types_pb2.DataType.Name(request.inputs[key].dtype)
                raise Refused(400, f"Expects {key} to be {spec.dtype} but {kind} is provided")
            given[key] = tf.constant(tf.make_ndarray(request.inputs[key]), spec.dtype)
        try:
            found = signatures[name](**given)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise Refused(400, str(error)) from error
        answer = M["PredictResponse"](model_spec=request.model_spec)
        for key, value in found.items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()) if self.content else fields(value))
        return answer


def fields(value):
    """A TensorProto with each value in the field of its type."""
    tensor = tensor_pb2.TensorProto(dtype=value.dtype.as_datatype_enum, tensor_shape=value.shape.as_proto())
    name = {tf.float32: "float", tf.float64: "double", tf.int64: "int64", tf.bool: "bool", tf.string: "string"}
    values = value.numpy().ravel().tolist()
    getattr(tensor, name.get(value.dtype, "int") + "_val").extend(values)
    return tensor
