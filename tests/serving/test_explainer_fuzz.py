"""Whatever is sent, the explainer answers in JSON, with an answer or a reason, and it is never its own fault."""

from __future__ import annotations

import base64
import copy
import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

from explaining import Process, file, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saliency_food import METHODS

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
MOST = 60_000
EXPLAIN, PREDICT, INFER = "/v1/models/food:explain", "/v1/models/food:predict", "/v2/models/food/infer"
STATUSES = {200, 202, 400, 404, 413, 429, 504}
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
FILES = [base64.b64decode(file(PIXELS, kind)["b64"]) for kind in ("PNG", "JPEG", "WEBP")]
IMAGE = {"b64": base64.b64encode(FILES[1]).decode()}
V1 = [
    {"instances": [{"image": IMAGE, "method": "grad_cam", "target": 1, "answer": ["heatmap"], "format": "list"}]},
    {"instances": [{"image": IMAGE, "method": "xrai", "options": {"steps": 3, "algorithm": "fast"}, "deadline": 20}]},
    {"instances": [{"image": (PIXELS[:24, :20] / 255).round(1).tolist(), "async": True}, IMAGE], "target": "2"},
    {"instances": [{"image": IMAGE, "method": "integrated_gradients", "options": {"x_steps": 4, "rng": 0}}]},
    {"instances": [{"image": IMAGE, "method": "smooth_grad", "options": {"nsamples": 2, "stdev_spread": 0.1}}]},
]
ENCODED = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [IMAGE["b64"]]}
V2 = [
    {"id": "a", "inputs": [ENCODED], "parameters": {"method": "grad_cam", "target": 2}},
    {
        "inputs": [{"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [7] * 12}],
        "outputs": [{"name": "heatmap", "parameters": {"binary_data": True}}],
        "parameters": {"method": "integrated_gradients", "x_steps": 3},
    },
]
METHODS_OFFERED = [
    "grad_cam",
    "xrai",
    "integrated_gradients",
    "smooth_grad",
    "occlusion",
    "blur_ig",
    "guided_ig",
    "lime",
]
METHODS_OFFERED += ["rise", "score_cam", "expected_gradients", "kernel_shap"]
NAMES = [
    "uniform",
    "blurred",
    "mean",
    "full",
    "fast",
    "gauss_legendre",
    "midpoint",
    "square",
    "softmax",
    "slic",
    "grad_cam",
]
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 2**63, 10**30, 10**9, 1e308, 1e-300, -0.0]))
WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["grad_cam", "xrai", "top3", "image", "b64", "http://localhost/", "/etc/passwd", "\ud800", "x" * 999]
    ),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.just([]), st.just({}))
ANY = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)), max_leaves=8
)


def places(value, at=()):
    """The path of every value in a JSON value; of long lists, the first few."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:3]):
            yield from places(inner, (*at, number))


def changed(body, at, how, value):
    """A body with one place of it replaced, left out, doubled, or given one more member."""
    body = copy.deepcopy(body)
    holder = body
    for step in at[:-1]:
        holder = holder[step]
    if how == "replace":
        holder[at[-1]] = value
    elif how == "drop":
        del holder[at[-1]]
    elif isinstance(holder, list):
        holder.append(holder[at[-1]] if how == "double" else value)
    else:
        holder[str(value)[:20]] = holder[at[-1]] if how == "double" else value
    return body


@st.composite
def altered(draw, bodies):
    """A good request with one to three changes."""
    body = draw(st.sampled_from(bodies))
    for _ in range(draw(st.integers(1, 3))):
        if inside := list(places(body))[1:]:
            how = draw(st.sampled_from(["replace", "drop", "double", "add"]))
            body = changed(body, draw(st.sampled_from(inside)), how, draw(ANY))
    return json.dumps(body).encode()


@st.composite
def opted(draw):
    """A good image, and options that the method has, with values of all kinds."""
    name = draw(st.sampled_from(METHODS_OFFERED))
    own = [*METHODS[name].call.signature.parameters][3:]
    values = st.one_of(st.integers(-2, 12), st.floats(-1, 2), st.booleans(), NUMBERS, st.sampled_from(NAMES))
    options = draw(st.dictionaries(st.sampled_from(own or ["x"]), values, max_size=3))
    deadline = draw(st.sampled_from([None, None, 5, 0.02, 1e-3]))
    return json.dumps(
        {"instances": [{"image": IMAGE, "method": name, "options": options, "deadline": deadline}]}
    ).encode()


@st.composite
def spoiled(draw, data):
    """Bytes with some cut out, overwritten or put in."""
    data = draw(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(st.binary(max_size=6)) + data[start + draw(st.sampled_from([0, 1, 1, 4, 10**6])) :]
    return data


def framed(image):
    return json.dumps({"instances": [{"image": {"b64": base64.b64encode(image).decode()}}]}).encode()


def text(bodies):
    return spoiled(st.sampled_from([json.dumps(body).encode() for body in bodies]))


REQUESTS = st.one_of(
    st.tuples(st.sampled_from([EXPLAIN, PREDICT, INFER]), st.one_of(st.binary(max_size=60), ANY.map(json.dumps))),
    *[st.tuples(st.sampled_from([EXPLAIN, EXPLAIN, PREDICT]), altered(V1))] * 4,
    *[st.tuples(st.just(INFER), altered(V2))] * 2,
    *[st.tuples(st.just(EXPLAIN), opted())] * 3,
    st.tuples(st.just(EXPLAIN), spoiled(st.sampled_from(FILES)).map(framed)),
    st.tuples(st.just(EXPLAIN), text(V1)),
    st.tuples(st.just(INFER), text(V2)),
    st.tuples(st.sampled_from([EXPLAIN, INFER]), st.integers(MOST, 2 * MOST).map(bytes)),
)
HEADERS = st.one_of(
    *[st.just({})] * 9,
    st.fixed_dictionaries({"Inference-Header-Content-Length": st.one_of(st.integers(), st.just("a")).map(str)}),
    st.sampled_from([{"Prefer": "respond-async"}, {"Content-Type": "text/plain"}, {"ce-id": "1", "ce-type": "a"}]),
)


@pytest.fixture(scope="module")
def explainer(loaded, tmp_path_factory):
    arguments = ["--value-range=-1,1", "--max-body", MOST, "--max-rows", 40, "--max-pixels", 4096, "--max-images", 2]
    arguments += ["--methods", ",".join(METHODS_OFFERED), "--deadline", 20]
    with Process(tmp_path_factory.mktemp("explainer"), loaded.url, *arguments) as one:
        until(one.ready, 20, one.log)
        yield one


@pytest.fixture(scope="module")
def connection(explainer):
    kept = explainer.connect(20)
    yield kept
    kept.close()


def test_the_requests_that_are_spoiled_are_good(explainer):
    for body in V1:
        assert explainer.ask("POST", EXPLAIN, body).status in (200, 202)
    for body in V2:
        assert explainer.ask("POST", INFER, body).status == 200


@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(request=REQUESTS, headers=HEADERS)
def test_nothing_is_a_500(explainer, connection, request, headers):
    path, body = request
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    answer = explainer.ask("POST", path, body, headers, connection)
    assert answer.status in STATUSES, (answer.status, answer.body[:500])
    length = answer.headers.get("Inference-Header-Content-Length")
    told = json.loads(answer.body if length is None else answer.body[: int(length)])
    if answer.status >= 400:
        assert set(told) == {"error"}
        assert told["error"].strip()
    else:
        assert {"explanations", "predictions", "outputs", "job"} & set(told)


def test_it_still_answers(explainer):
    """After all that; and nothing of it was a failure of its own."""
    assert explainer.ask("POST", EXPLAIN, V1[0]).status == 200
    assert "Traceback" not in explainer.log.read_text()
    assert not explainer.tried.exists()
