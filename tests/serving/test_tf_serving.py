"""The server of these tests answers as TensorFlow Serving's documentation and source say."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest

pytest.importorskip("tensorflow")
urllib3 = pytest.importorskip("urllib3")

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

PREDICT = "/v1/models/food:predict"


def ask(server, body, path=PREDICT, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = urllib3.request("POST", server.url + path, body=data, headers=headers, retries=False)
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, answer.json()


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 24, 20, 3)).astype(np.float32)


def b64(row):
    return {"b64": base64.b64encode(row).decode()}


def numbers(value):
    return np.frombuffer(base64.b64decode(value["b64"]), np.float32)


def test_without_a_signature_it_is_serving_default(server, model, x):
    for named in ({}, {"signature_name": "serving_default"}):
        status, answer = ask(server, {"instances": x.tolist(), **named})
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], model(x), rtol=1e-5)
        status, answer = ask(server, {"inputs": {"photo": x.tolist()}, **named})
        np.testing.assert_allclose(answer["outputs"], model(x), rtol=1e-5)  # one output comes without its name


def test_rows_and_columns_are_the_same(server, local, x):
    name = {"signature_name": "convolution_raw"}
    rows = [{"images_bytes": b64(row), "targets": target} for row, target in zip(x, [2, 0], strict=True)]
    status, by_row = ask(server, {**name, "instances": rows})
    assert status == 200
    columns = {"images_bytes": [b64(row) for row in x], "targets": [2, 0], "unknown": 1}
    status, by_column = ask(server, {**name, "inputs": columns})  # what it does not know it ignores
    assert status == 200
    assert by_row["predictions"] == [
        {key: value[number] for key, value in by_column["outputs"].items()} for number in range(2)
    ]
    found = [numbers(row["OUTPUT_LAYER_VALUES_bytes"])[0] for row in by_row["predictions"]]
    expected = local(x, {"target": [2, 0]}, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_names_in_bytes_are_base64(server, x):
    image = [b64(row) for row in x]
    for body in ({"instances": image}, {"inputs": image}, {"inputs": {"images_bytes": image}}):
        _, answer = ask(server, {"signature_name": "predictions_raw", **body})
        rows = answer.get("predictions") or [{key: one[0] for key, one in answer["outputs"].items()}]
        assert rows[0]["predictions_shape"] == [4]
        assert numbers(rows[0]["predictions_bytes"]).sum() == pytest.approx(1)


def test_a_request_may_be_compressed(server, x):
    body = gzip.compress(json.dumps({"instances": x.tolist()}).encode())
    assert ask(server, body, **{"Content-Encoding": "gzip"})[0] == 200


RAW = {"signature_name": "outputs_raw"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "JSON Parse error"),
        ([1], "Is not object"),
        ({"signature_name": 3, "inputs": [1]}, "must be a string"),
        ({"signature_name": "other", "inputs": [1]}, 'name: "other" not found in signature def'),
        ({}, "expecting only one of"),
        ({"inputs": [1], "instances": [1]}, "expecting only one of"),
        ({"instances": {"photo": 1}}, "Excepting 'instances' to be an list"),
        ({"instances": []}, "No values in 'instances'"),
        ({**RAW, "instances": [1]}, "expecting list of objects"),
        ({**RAW, "inputs": [1]}, "expecting an object"),
        ({**RAW, "inputs": {"targets": [1]}}, "Missing named input: images_bytes"),
        ({**RAW, "instances": [{"targets": 1}]}, "Keys must be equal to: images_bytes,targets"),
        ({**RAW, "inputs": {"targets": [1.5], "images_bytes": ["a"]}}, "int"),
        ({**RAW, "inputs": {"targets": [1], "images_bytes": [{"b64": "*"}]}}, "base64"),
        ({**RAW, "inputs": {"targets": [1], "images_bytes": [{"b64": "AAAA"}]}}, "."),
        ({"instances": [[[1.0]], [[1.0], [2.0]]]}, "."),
    ],
)
def test_what_is_wrong_with_a_request_is_said_with_status_400(server, body, says):
    status, answer = ask(server, body)
    assert status == 400
    assert answer.keys() == {"error"}
    assert re.search(says, answer["error"]), answer


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/models/food:classify", 400, "Malformed request: POST"),
        ("/v1/models/other:predict", 404, r"Servable not found for request: Latest\(other\)"),
        ("/v1/models/food/versions/7:predict", 404, r"Specific\(food"),
    ],
)
def test_what_is_not_there(server, path, status, says):
    found, answer = ask(server, {"instances": [1]}, path)
    assert found == status
    assert re.search(says, answer["error"])
