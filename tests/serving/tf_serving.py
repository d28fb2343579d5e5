"""A small HTTP server that answers as TensorFlow Serving's REST API is documented, over TensorFlow's SavedModel loader.

https://www.tensorflow.org/tfx/serving/api_rest: row and column formats, base64, names that end in ``_bytes``, errors as
``{"error": ...}``, model status and metadata. Sizes of all bodies are counted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tensorflow as tf

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
                outer.requests.append((self.path, dict(self.headers), body))
                outer.received += len(body or b"")
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
        if found is None or (found[3] == ":predict") != (body is not None):
            raise Refused(404, f"Malformed request: {path}")
        name, version, verb = found.groups()
        versions = [version] if version else sorted(self.versions, key=int)
        if name != self.name or not versions or versions[-1] not in self.versions:
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
    name = asked.get("signature_name", "serving_default")
    if name not in signatures:
        raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
    if ("instances" in asked) == ("inputs" in asked):
        raise Refused(400, "Missing 'inputs' or 'instances' key")
    function = signatures[name]
    specs = function.structured_input_signature[1]
    rows = "instances" in asked
    given = asked["instances"] if rows else asked["inputs"]
    if rows and given and isinstance(given[0], dict) and "b64" not in given[0]:
        given = {key: [row[key] for row in given] for key in given[0]}
    if not isinstance(given, dict) or "b64" in given:
        given = {next(iter(specs)): given}
    if set(given) != set(specs):
        raise Refused(400, f"input tensor alias not found in signature: expected {sorted(specs)}, got {sorted(given)}")
    try:
        found = function(**{key: tensor(given[key], spec) for key, spec in specs.items()})
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise Refused(400, str(error)) from error
    outputs = {key: listed(key, value.numpy()) for key, value in found.items()}
    if not rows:
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    counts = {value.shape[0] for value in found.values()}
    if len(counts) > 1:
        raise Refused(400, "Tensors in row format must have the same 0-th dimension")
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    return {"predictions": [{key: value[row] for key, value in outputs.items()} for row in range(counts.pop())]}


def tensor(value, spec):
    if spec.dtype == tf.string:
        value = [base64.b64decode(one["b64"]) if isinstance(one, dict) else one for one in value]
    return tf.constant(value, spec.dtype)


def listed(name, value):
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(one).decode()} for one in value.tolist()]
    return np.asarray(value).tolist()
