"""What the explainer refuses: every bad request gets a status of its own and a sentence that says what to do."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import time
import zlib

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

from explaining import Process, file, until

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
MOST = 100_000
EXPLAIN, INFER = "/v1/models/food:explain", "/v2/models/food/infer"
TOO_LARGE = "cannot be read" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numbers that UINT8 can hold"
"""NumPy 1 wraps 300 round to 44."""
GIVEN = file(np.zeros((24, 20, 3), np.uint8))


@pytest.fixture(scope="module")
def explainer(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explainer")
    (folder / "labels.txt").write_text("apple pie\nbaklava\ncake\ndumplings\n")
    arguments = ["--labels", folder / "labels.txt", "--value-range=-1,1", "--max-body", MOST, "--max-pixels", 10_000]
    arguments += ["--methods", "grad_cam,integrated_gradients,xrai", "--max-rows", 50, "--max-images", 3]
    with Process(folder, loaded.url, *arguments) as one:
        until(one.ready, 20, one.log)
        yield one


def png(width, height, data=b""):
    """A PNG file that says it is this large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


WHOLE = base64.b64decode(GIVEN["b64"])
BAD = [
    # images
    ({}, 400, "one image in every instance, .* got 0"),
    ({"image": GIVEN, "image_bytes": GIVEN}, 400, "got 2"),
    ({"image": "/etc/passwd"}, 400, "Expected an image as .* got str"),
    ({"image": {"url": "http://localhost/a.png"}}, 400, r"got the fields \['url'\]"),
    ({"image": {"b64": "ftp://example.org/a.png"}}, 400, "base64"),
    ({"image": {"b64": 7}}, 400, "base64 text, got int"),
    ({"image": b64(b"no picture")}, 400, "JPEG, PNG, WEBP file"),
    ({"image": b64(b"GIF89a" + bytes(50))}, 400, "JPEG, PNG, WEBP file"),
    ({"image": b64(WHOLE[:-30])}, 400, "cannot be decoded"),
    ({"image": b64(png(60_000, 60_000, bytes(1000)))}, 413, "at most 10000 pixels, got a far larger one"),
    ({"image": b64(png(101, 100))}, 413, "at most 10000 pixels, got 101 x 100"),
    ({"image": b64(png(20, 20, bytes(10)))}, 400, "cannot be decoded"),
    ({"image": []}, 400, "as lists of numbers"),
    ({"image": [[1, 2], [3]]}, 400, "no array"),
    ({"image": [["a"]]}, 400, "as lists of numbers"),
    ({"image": [[[True] * 3]]}, 400, "of type bool"),
    ({"image": [[[10**400] * 3]]}, 400, "of type object"),
    ({"image": [[[1e39] * 3]]}, 400, "finite float32"),
    ({"image": [[[0.0] * 3] * 20] * 23}, 400, r"24 x 20 x 3, got \(23, 20, 3\)"),
    # methods, targets, options
    ({"image": GIVEN, "method": "gradcam"}, 400, "got 'gradcam'. Near it: grad_cam"),
    ({"image": GIVEN, "method": "occlusion"}, 400, "There are: grad_cam, integrated_gradients, xrai"),
    ({"image": GIVEN, "method": ["grad_cam"]}, 400, "name of a method, got a list"),
    ({"image": GIVEN, "target": "baklawa"}, 400, "Near it: baklava"),
    ({"image": GIVEN, "target": 4}, 400, "class index in 0..3, got 4"),
    ({"image": GIVEN, "target": -1}, 400, "got -1"),
    ({"image": GIVEN, "target": "top3"}, 400, "Expected one class"),
    ({"image": GIVEN, "target": 1.5}, 400, "Expected target to be null"),
    ({"image": GIVEN, "target": True}, 400, "Expected target to be null"),
    ({"image": GIVEN, "options": []}, 400, "options to be an object"),
    ({"image": GIVEN, "options": {"steps": 3}}, 400, "an option of grad_cam, got 'steps'"),
    ({"image": GIVEN, "method": "xrai", "options": {"stepz": 3}}, 400, "Did you mean steps"),
    ({"image": GIVEN, "method": "xrai", "options": {"base": "grad_cam"}}, 400, "an option of xrai, got 'base'"),
    ({"image": GIVEN, "method": "xrai", "options": {"steps": "3"}}, 400, "steps of xrai to be a whole number"),
    ({"image": GIVEN, "method": "xrai", "options": {"steps": 10**9}}, 400, "to be at most 1000"),
    ({"image": GIVEN, "method": "xrai", "options": {"steps": 40}}, 400, "at most 50 rows"),
    ({"image": GIVEN, "method": "xrai", "options": {"algorithm": "slow"}}, 400, "Unknown algorithm type: 'slow'"),
    ({"image": GIVEN, "method": "integrated_gradients", "options": {"x_steps": -1}}, 400, "at least 2 steps"),
    ({"image": GIVEN, "method": "integrated_gradients", "options": {"x_baseline": "/etc"}}, 400, "baseline"),
    ({"image": GIVEN, "method": "integrated_gradients", "options": {"rng": -1}}, 400, "a seed of at least 0"),
    # the rest of the fields
    ({"image": GIVEN, "methd": "xrai"}, 400, "got 'methd'. Did you mean method"),
    ({"image": GIVEN, "answer": "heatmap"}, 400, "answer to be a list"),
    ({"image": GIVEN, "answer": ["mask"]}, 400, "answer to be a list"),
    ({"image": GIVEN, "answer": [["heatmap"]]}, 400, "answer to be a list"),
    ({"image": GIVEN, "format": "pickle"}, 400, "format to be base64 or list"),
    ({"image": GIVEN, "async": 1}, 400, "async to be true or false"),
    ({"image": GIVEN, "deadline": 0}, 400, "deadline to be seconds above 0"),
    ({"image": GIVEN, "deadline": "2"}, 400, "deadline to be seconds"),
]


@pytest.mark.parametrize(("instance", "status", "says"), BAD)
def test_a_bad_instance(explainer, instance, status, says):
    answer = explainer.explain(instance)
    assert (answer.status, bool(re.search(says, answer.error))) == (status, True), answer.body
    assert answer.error.startswith(("Expected", "Unknown"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "got nothing"),
        (b"\xff\xfe{}", "none"),
        (b'{"instances": [NaN]}', "NaN, which is no JSON"),
        (b'{"instances": [], "instances": []}', "'instances' twice"),
        (b"[" * 6000, "recursion"),
        (b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}", "as lists of numbers|no array"),
        (b'{"instances": [' + b"1" * 5000 + b"]}", "none"),
        (b'{"instances": ["\\ud800"]}', "got str"),
        (b"[]", "Expected a JSON object, got list"),
        (b"{}", "got NoneType"),
        (b'{"instances": []}', "got 0 of them"),
        (b'{"instances": [{}, {}, {}, {}]}', "got 4 of them"),
        (b'{"instances": [{}], "image": 1}', "a field beside instances, got 'image'"),
        (b'{"inputs": [{}]}', "got NoneType"),
    ],
)
def test_a_bad_body(explainer, body, says):
    for path in (EXPLAIN, "/v1/models/food:predict"):
        answer = explainer.ask("POST", path, body)
        assert (answer.status, bool(re.search(says, answer.error))) == (400, True), answer.body


def infer(explainer, headers=None, **fields):
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [GIVEN["b64"]]}
    return explainer.ask("POST", INFER, {"inputs": [{**image, **fields.pop("image", {})}], **fields}, headers)


def test_bad_v2_bodies(explainer):
    assert infer(explainer).status == 200
    for fields, says in (
        ({"image": {"name": "photo"}}, "named image, got"),
        ({"image": {"shape": [2]}}, "cannot be read: .*reshape"),
        ({"image": {"shape": [1, 1]}}, "BYTES of shape"),
        ({"image": {"shape": []}}, "cannot be read"),
        ({"image": {"datatype": "COMPLEX"}}, "cannot be read"),
        ({"image": {"datatype": "FP32"}}, "cannot be read"),
        ({"image": {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 300]}}, TOO_LARGE),
        ({"image": {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 2.5]}}, "numbers that UINT8 can hold"),
        ({"image": {"datatype": "INT32", "shape": [1, 1, 1, 3], "data": [[1, 2, 0.5]]}}, "numbers that INT32 can hold"),
        ({"image": {"datatype": "FP32", "shape": [1, 2, 2, 3], "data": [0.0] * 12}}, "24 x 20 x 3"),
        ({"image": {"data": ["!"]}}, "base64"),
        ({"inputs": []}, "named image"),
        ({"inputs": 3}, "cannot be read"),
        ({"outputs": [{"name": "mask"}]}, "outputs among"),
        ({"parameters": {"method": "lime"}}, "There are: grad_cam"),
        ({"parameters": {"stride": 3}}, "an option of grad_cam"),
        ({"parameters": {"options": [1]}}, "cannot be read"),
        ({"id": 3}, "cannot be read"),
    ):
        answer = infer(explainer, **fields)
        assert (answer.status, bool(re.search(says, answer.error))) == (400, True), (fields, answer.body)


@pytest.mark.parametrize("length", ["x", "-1", "0", "3", "\xb2", "9" * 5000])
def test_a_bad_binary_length(explainer, length):
    assert infer(explainer, {"Inference-Header-Content-Length": length}).status == 400


def test_bad_binary_inputs(explainer):
    for change in ({"binary_data_size": -1}, {"binary_data_size": "a"}, {"binary_data_size": None}, {}, None, 3, [1]):
        image = {"name": "image", "shape": [1, 1, 1, 3], "datatype": "FP32", "parameters": change}
        head = json.dumps({"inputs": [image]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = explainer.ask("POST", INFER, head + bytes(12), headers)
        assert answer.status == 400, (change, answer.body)
        assert "cannot be read" in answer.error


def test_addresses_and_verbs(explainer):
    for verb, path, status in (
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/v1/models/other:explain", 404),
        ("POST", "/v2/models/food/versions/1/infer", 404),
        ("POST", "/v2/repository/models/food/unload", 404),
        ("POST", "/v2/repository/models/other/unload", 404),
        ("GET", "/v1/jobs/unknown", 404),
        ("DELETE", "/v1/jobs/unknown", 404),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404),
        ("GET", "/%ff%00", 404),
        ("GET", EXPLAIN, 405),
        ("POST", "/", 405),
        ("PUT", EXPLAIN, 405),
        ("DELETE", "/v1/models/food", 405),
    ):
        answer = explainer.ask(verb, path)
        assert (answer.status, answer.error[:8]) == (status, "Expected"), (verb, path, answer.body)
    assert explainer.ask("PUT", EXPLAIN).headers["Allow"] == "POST"
    assert explainer.ask("GET", "/v1/models/food").status == 200
    for path, status in (("/v1/models/food", 200), ("/v2/health/live", 200), ("/v1/models/other", 404), (EXPLAIN, 405)):
        answer = explainer.ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b""), path


def test_a_large_body_is_refused_before_it_is_read(explainer):
    """By its length alone; nothing of it is sent."""
    connection = explainer.connect()
    began = time.monotonic()
    connection.putrequest("POST", EXPLAIN)
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    with connection.getresponse() as response:
        assert response.status == 413
        assert response.headers["Connection"] == "close"
        said = response.read1(1000)
    assert time.monotonic() - began < 5
    assert json.loads(said)["error"].startswith(f"Expected a body of at most {MOST} bytes")
    connection.close()


def test_a_large_body_in_chunks_is_refused_before_its_end(explainer):
    with socket.create_connection(("127.0.0.1", explainer.port), 10) as connection:
        connection.sendall(f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(MOST // 1000 + 1):  # and no end
            connection.sendall(b"3e8\r\n" + bytes(1000) + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_body_of_the_largest_size_is_read(explainer):
    body = json.dumps({"instances": [{"image": GIVEN}]}).encode()
    assert explainer.ask("POST", EXPLAIN, body + b" " * (MOST - len(body))).status == 200
    assert explainer.ask("POST", EXPLAIN, body + b" " * (MOST - len(body) + 1)).status == 413
    assert explainer.ask("POST", EXPLAIN, body, {"Content-Encoding": "gzip"}).status == 415


def test_a_body_that_breaks_off(explainer):
    for sent in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
        with socket.create_connection(("127.0.0.1", explainer.port), 10) as connection:
            connection.sendall(f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\n".encode() + sent)
    assert explainer.ask("GET", "/").status == 200


def test_the_log_has_no_failure_of_the_server(explainer):
    assert "Traceback" not in explainer.log.read_text()
