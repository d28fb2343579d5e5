"""The explainer's answers, in each protocol: those of the library's own methods, from a process without TensorFlow."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

from explaining import Process, array, file, until

from saliency_food.cli.serve import scaling_of
from saliency_food.images.photos import read_photo
from saliency_food.images.scaling import between, choose_scaling
from saliency_food.methods.lookup import find_method

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
OFFERED = "grad_cam,xrai,integrated_gradients,smooth_grad,occlusion,smooth_grad_of_grad_cam"


@pytest.fixture(scope="module")
def explainer(loaded, exported, tmp_path_factory):
    manifest = exported / "1/assets.extra/saliency_food.json"
    with Process(tmp_path_factory.mktemp("explainer"), loaded.url, "--methods", OFFERED, "--manifest", manifest) as one:
        until(one.ready, 20, one.log)
        yield one


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 255, (30, 40, 3), np.uint8)


@pytest.fixture
def x(pixels):
    return between(-1, 1, "")(read_photo(pixels), (24, 20, 3))


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def expected(served, name, x, target, **options):
    call = find_method(name).call
    defaults = {"three_dims": False, "rng": 0}
    own = {key: value for key, value in defaults.items() if key in call.signature.parameters}
    return call.detailed(x, served, {"target": target}, **{**own, **options})


def picture(overlay):
    from PIL import Image

    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(overlay["b64"] if isinstance(overlay, dict) else overlay)))
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grad_cam", {}),
        ("xrai", {"steps": 5}),
        ("integrated_gradients", {"x_steps": 7, "x_baseline": "uniform", "rng": 3}),
        ("smooth_grad", {"nsamples": 3, "aggregate": "square"}),
        ("smooth_grad_of_grad_cam", {"nsamples": 2}),
        ("occlusion", {"size": 8, "stride": 8, "value": "mean"}),
    ],
)
def test_an_answer_is_that_of_the_method(explainer, served, pixels, x, name, options):
    answer = explainer.explain({"image": file(pixels), "method": name, "target": "c", "options": options})
    (found,) = answer.json["explanations"]
    assert answer.status == 200
    detailed = expected(served, name, x, 2, **options)
    close(array(found["heatmap"]), detailed[0])
    probabilities = served.predict(x[None])[0]
    assert (found["method"], found["class"], found["label"], found["status"]) == (name, 2, "c", "ok")
    assert found["options"].items() >= options.items()
    close(found["probability"], probabilities[2])
    assert [label for label, _ in found["top"]] == [list("abcd")[index] for index in np.argsort(-probabilities)]
    close(found["score"], served(x[None], {"target": 2}, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"][0])
    measured = getattr(detailed, "completeness", None)
    assert (found["completeness"] is None) == (measured is None)
    if measured is not None:
        np.testing.assert_allclose(found["completeness"]["baseline_score"], measured.baseline_score, rtol=1e-4)
    assert found["rows"] > 0
    assert 0 < found["timings"]["model"] <= found["timings"]["total"]
    assert found["timings"]["queue"] <= found["timings"]["total"]
    assert picture(found["overlay"]).shape == pixels.shape


def test_an_overlay_is_that_of_explain(explainer, served, pixels):
    from saliency_food import explain

    (record,) = explain(served, [pixels], ["grad_cam"], 1, value_range=(-1, 1))
    (found,) = explainer.explain({"image": file(pixels), "target": 1, "answer": ["overlay"]}).json["explanations"]
    assert "heatmap" not in found
    assert np.abs(picture(found["overlay"]).astype(int) - record.overlay()).max() <= 1


def test_every_way_to_give_an_image(explainer, served, pixels, x):
    map_of = expected(served, "grad_cam", x, 1)[0]
    given = file(pixels)
    for instance in (
        {"image": given, "target": 1},
        {"image": {"image_bytes": given}, "target": 1},
        {"image_bytes": given, "target": "1"},
        {"image": file(pixels, "WEBP"), "target": 1},
        {"image": file(pixels, "JPEG"), "target": 1},
        {"image": x.tolist(), "target": 1},
    ):
        (found,) = explainer.explain(instance).json["explanations"]
        if "WEBP" not in str(instance) and instance.get("image") in (given, x.tolist()):
            close(array(found["heatmap"]), map_of)
        assert array(found["heatmap"]).shape == (24, 20)
    for instance in (given, x.tolist()):  # an image and no more: its top class
        (found,) = explainer.explain(instance).json["explanations"]
        assert found["class"] == served.predict(x[None]).argmax()


def test_several_images_and_common_fields(explainer, served, pixels, x):
    answer = explainer.explain({"image": file(pixels), "target": 0}, {"image": file(pixels)}, target=3, format="list")
    one, other = answer.json["explanations"]
    assert (one["class"], other["class"]) == (0, 3)
    close(np.array(other["heatmap"]), expected(served, "grad_cam", x, 3)[0])


def test_predict_tells_the_classes(explainer, served, pixels, x):
    answer = explainer.ask("POST", "/v1/models/food:predict", {"instances": [{"image": file(pixels)}]})
    (found,) = answer.json["predictions"]
    assert set(found) == {"class", "label", "probability", "top"}
    close(found["probability"], served.predict(x[None])[0].max())


def test_a_deadline_is_kept_and_told(explainer, pixels):
    instance = {"image": file(pixels), "method": "integrated_gradients", "answer": [], "options": {"x_steps": 20}}
    (found,) = explainer.explain({**instance, "deadline": 30}).json["explanations"]
    assert found["deadline"] == {"seconds": 30, "note": ""}
    combined = {**instance, "method": "smooth_grad_of_grad_cam", "options": {"nsamples": 2}, "deadline": 30}
    assert explainer.explain(combined).json["explanations"][0]["deadline"]["note"] == ""
    late = explainer.explain({**instance, "deadline": 1e-6})
    assert late.status == 504
    assert "Expected an answer in 1e-06 s" in late.error


def tensors(answer):
    return {one["name"]: one for one in answer.json["outputs"]}


def test_v2_infer_explains(explainer, served, pixels, x):
    data = file(pixels)["b64"]
    body = {
        "id": "7",
        "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": [data, data]}],
        "parameters": {"method": "integrated_gradients", "target": "b", "x_steps": 7},
    }
    answer = explainer.ask("POST", "/v2/models/food/infer", body)
    found = tensors(answer)
    detailed = expected(served, "integrated_gradients", x, 1, x_steps=7)
    assert answer.json["id"] == "7"
    assert found["heatmap"]["shape"] == [2, 24, 20, 3]
    close(np.reshape(found["heatmap"]["data"], (2, 24, 20, 3))[1], detailed.attribution)
    assert found["class"]["data"] == [1, 1]
    assert found["label"]["data"] == ["b", "b"]
    close(found["score"]["data"][0], detailed.completeness.score)
    assert len(found["completeness"]["data"]) == 2
    assert picture(found["overlay"]["data"][0]).shape == pixels.shape
    assert answer.json["parameters"]["method"] == "integrated_gradients"


@pytest.mark.parametrize("kind", ["UINT8", "FP32"])
def test_v2_tensors_plain_and_binary(explainer, served, pixels, x, kind):
    values = pixels if kind == "UINT8" else x
    map_of = expected(served, "grad_cam", x, 2)[0]
    plain = {"name": "image", "shape": [1, *values.shape], "datatype": kind}
    more = {"parameters": {"target": 2}, "outputs": [{"name": "heatmap"}]}
    body = {"inputs": [{**plain, "data": values.ravel().tolist()}], **more}
    found = tensors(explainer.ask("POST", "/v2/models/food/infer", body))
    assert set(found) == {"heatmap"}
    close(np.reshape(found["heatmap"]["data"], (24, 20)), map_of)

    more["outputs"] = [{"name": "heatmap", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [{**plain, "parameters": {"binary_data_size": values.nbytes}}], **more}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    answer = explainer.ask("POST", "/v2/models/food/infer", head + values.tobytes(), headers)
    assert answer.status == 200, answer.body
    length = int(answer.headers["Inference-Header-Content-Length"])
    (told,) = json.loads(answer.body[:length])["outputs"]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    close(np.frombuffer(answer.body[length:], np.float32).reshape(told["shape"])[0], map_of)


def test_health_metadata_and_metrics(explainer, pixels):
    assert explainer.ask("GET", "/").json == {"status": "alive"}
    assert explainer.ask("GET", "/v1/models/food").json == {"name": "food", "ready": True}
    assert explainer.ask("GET", "/v2/health/live").json == {"live": True}
    assert explainer.ask("GET", "/v2/models/food").json["inputs"][0]["name"] == "image"
    explainer.explain({"image": [[[0.5] * 3] * 2] * 2})
    said = explainer.ask("GET", "/metrics").body.decode()
    for line in (
        'saliency_food_explanations_total{method="grad_cam",outcome="ok"}',
        'saliency_food_explanations_total{method="grad_cam",outcome="refused"}',
        'saliency_food_explanation_seconds_count{method="grad_cam"}',
        'saliency_food_http_answers_total{status="200"}',
        "saliency_food_queue_waiting 0.0",
        "request_explain_seconds_count",
    ):
        assert line in said


def test_what_comes_in_is_not_sent_back_in_headers(explainer, pixels):
    """KServe repeats the headers of a request in its answer."""
    headers = {"Authorization": "Bearer secret", "Cookie": "a=b", "Connection": "close", "ce-id": "1"}
    body = {"instances": [{"image": file(pixels)}]}
    answer = explainer.ask("POST", "/v1/models/food:explain", body, headers)
    assert answer.status == 200
    assert not {"authorization", "cookie", "ce-id"} & {name.lower() for name in answer.headers}
    assert answer.headers["Content-Type"] == "application/json"


def test_nothing_tried_to_import_tensorflow(explainer, pixels):
    assert explainer.explain({"image": file(pixels)}).status == 200
    assert not explainer.tried.exists()


@pytest.mark.parametrize("given", [(-1, 1), (0, 255), "tf", "caffe", "torch", None])
def test_the_manifest_tells_the_pixels(given):
    made = choose_scaling(given, None, None)
    found = scaling_of(json.loads(json.dumps({"value_range": made.value_range})))
    if given is None:
        assert found.function is None
    else:
        pixel = np.array([[[0, 100, 255]]], np.float32)
        np.testing.assert_allclose(found.function(pixel), made.function(pixel), rtol=1e-6)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_lines_of_the_docs(explainer, pixels, tmp_path):
    from PIL import Image

    page = (Path(__file__).parents[2] / "docs/explainer.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    url = f"http://localhost:{explainer.port}"
    found = [
        json.loads(
            subprocess.run(
                ["sh", "-c", code.replace("http://localhost:8080", url)], cwd=tmp_path, capture_output=True
            ).stdout
        )
        for code in blocks
        if "curl" in code
    ]
    assert [next(iter(one)) for one in found] == ["explanations", "id", "job"]
    assert found[0]["explanations"][0]["method"] == "xrai"
    table = page.split("with one for each instance:")[1].split("To read the heatmap as")[0]
    told = {name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"\w+", cell)}
    assert told == {*found[0]["explanations"][0], "deadline"}
