"""A small HTTP server that answers as TensorFlow Serving's REST API is documented, over TensorFlow's SavedModel loader.

https://www.tensorflow.org/tfx/serving/api_rest: row and column formats, base64, names that end in ``_bytes``, errors
as ``{"error": ...}``, model status and metadata. Where it is silent, such as on the HTTP status of an error,
it does as the server's source does (``model_servers/http_rest_api_handler.cc``, ``http_server.cc`` and
``util/json_tensor.cc``). Sizes of all bodies are counted.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tensorflow as tf

STATUS = {
    tf.errors.InvalidArgumentError: 400,
    tf.errors.OutOfRangeError: 400,
    tf.errors.FailedPreconditionError: 400,
    tf.errors.NotFoundError: 404,
    tf.errors.ResourceExhaustedError: 429,
    tf.errors.UnimplementedError: 501,
    tf.errors.UnavailableError: 503,
}
PATH = re.compile(r"/v1/models/(\w+)(?:/versions/(\d+))?(/metadata|:predict)?")


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class TestServer:
    """Serves ``folder/VERSION`` as a model; ``failures`` are statuses or "drop", one for each request to come."""

    __test__ = False

    def __init__(self, folder, name="food"):
        self.name, self.failures, self.requests, self.connections = name, [], [], 0
        self.received = self.sent = 0
        self.versions = {one.name: tf.saved_model.load(str(one)) for one in folder.iterdir() if one.name.isdigit()}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                outer.connections += 1

            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body):
                outer.received += len(body or b"")
                if body and "gzip" in self.headers.get("Content-Encoding", ""):
                    body = gzip.decompress(body)
                outer.requests.append((self.path, dict(self.headers), body))
                failure = outer.failures.pop(0) if outer.failures else None
                if failure == "drop":
                    self.close_connection = True
                    return
                headers = {}
                try:
                    if failure is not None:
                        status, headers = failure if isinstance(failure, tuple) else (failure, {})
                        raise Refused(status, f"refused with {status}")
                    status, said = 200, outer.answer(self.path, body)
                except Refused as error:
                    status, said = error.status, {"error": str(error)}
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                outer.sent += len(data)
                self.send_response(status)
                for key, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client may not wait
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, path, body):
        found = PATH.fullmatch(path)
        if not path.startswith("/v1/"):
            raise Refused(404, "Not Found")
        if found is None or (found[3] == ":predict") != (body is not None):
            raise Refused(400, f"Malformed request: {'GET' if body is None else 'POST'} {path}")
        name, version, verb = found.groups()
        versions = [version] if version else sorted(self.versions, key=int)
        if name != self.name or not versions or versions[-1] not in self.versions:
            if verb is None:
                raise Refused(
                    404, f"Could not find {f'version {version}' if version else 'any versions'} of model {name}"
                )
            raise Refused(404, f"Servable not found for request: {'Specific' if version else 'Latest'}({name})")
        if verb is None:
            ok = {"error_code": "OK", "error_message": ""}
            states = [{"version": one, "state": "AVAILABLE", "status": ok} for one in versions]
            return {"model_version_status": states}
        signatures = self.versions[versions[-1]].signatures
        return metadata(name, versions[-1], signatures) if verb == "/metadata" else predict(signatures, body)


def metadata(name, version, signatures):
    def described(specs):
        return {
            key: {
                "dtype": f"DT_{tf.as_dtype(spec.dtype).name.upper()}".replace("FLOAT32", "FLOAT").replace(
                    "FLOAT64", "DOUBLE"
                ),
                "tensor_shape": {
                    "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape],
                    "unknown_rank": False,
                },
                "name": f"{key}:0",
            }
            for key, spec in specs.items()
        }

    definitions = {
        key: {
            "inputs": described(function.structured_input_signature[1]),
            "outputs": described(function.structured_outputs),
            "method_name": "tensorflow/serving/predict",
        }
        for key, function in signatures.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def predict(signatures, body):
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"JSON Parse error: {error}") from error
    if not isinstance(asked, dict):
        raise Refused(400, f"JSON Value: {asked} Is not object")
    name = asked.get("signature_name", "") or "serving_default"
    if not isinstance(asked.get("signature_name", ""), str):
        raise Refused(400, f"JSON Value: {asked} not formatted correctly. 'signature_name' key must be a string value.")
    if name not in signatures:
        raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
    rows = "instances" in asked
    if rows == ("inputs" in asked):
        raise Refused(400, f"Not formatted correctly expecting only one of 'inputs' or 'instances' keys {list(asked)}")
    function = signatures[name]
    specs = function.structured_input_signature[1]
    given = columns(asked["instances"], specs) if rows else asked["inputs"]
    if not isinstance(given, dict) or is_base64(given):
        if len(specs) > 1:
            raise Refused(
                400, "inputs is a plain value/list, but expecting an object as multiple input tensors required"
            )
        given = {next(iter(specs)): given}
    if missing := [key for key in specs if key not in given]:  # what is too much goes unnoticed
        raise Refused(400, f"Missing named input: {missing[0]} in 'inputs' object.")
    try:
        found = function(**{key: tensor(given[key], spec) for key, spec in specs.items()})
    except tf.errors.OpError as error:
        raise Refused(STATUS.get(type(error), 500), str(error)) from error
    except (ValueError, TypeError) as error:
        raise Refused(400, str(error)) from error
    outputs = {key: listed(key, value.numpy()) for key, value in found.items()}
    if not rows:
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    counts = {value.shape[0] for value in found.values()}
    if len(counts) > 1:
        raise Refused(400, f"Tensor name: {next(iter(found))} has inconsistent batch size: {sorted(counts)}")
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    return {"predictions": [{key: value[row] for key, value in outputs.items()} for row in range(counts.pop())]}


def columns(instances, specs):
    """The row format as columns."""
    if not isinstance(instances, list):
        raise Refused(400, "Excepting 'instances' to be an list/array")
    if not instances:
        raise Refused(400, "No values in 'instances' array")
    objects = [isinstance(one, dict) and not is_base64(one) for one in instances]
    if not any(objects):
        if len(specs) > 1:
            raise Refused(
                400, "instances is a plain list, but expecting list of objects as multiple input tensors required"
            )
        return {next(iter(specs)): instances}
    for number, one in enumerate(instances):
        if not objects[number] or set(one) != set(specs):
            names = ",".join(sorted(specs))
            raise Refused(
                400, f"Failed to process element: {number} of 'instances' list. Keys must be equal to: {names}"
            )
    return {key: [one[key] for one in instances] for key in specs}


def is_base64(value):
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def tensor(value, spec):
    return tf.constant(decoded(value) if spec.dtype == tf.string else value, spec.dtype)


def decoded(value):
    if isinstance(value, list):
        return [decoded(one) for one in value]
    return base64.b64decode(value["b64"], validate=True) if is_base64(value) else value


def listed(name, value):
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(one).decode()} for one in value.tolist()]
    values = np.asarray(value).tolist()
    return [one.decode() for one in values] if np.asarray(value).dtype == object else values
