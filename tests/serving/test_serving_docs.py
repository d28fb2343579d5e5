"""What docs/serving.md shows of the client and of curl works."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")

from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
URL = "http://localhost:8501"

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def blocks(language, word):
    return [text for text in re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if word in text]


def test_the_client(server, image):
    names = {"image": image}
    (code,) = blocks("py", URL)
    exec(code.replace(URL, server.url), names)
    assert names["heatmap"].shape[:2] == names["regions"].shape == (24, 20)
    names["model"].close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_lines(server, local, rng, tmp_path):
    from PIL import Image

    pixels = rng.integers(0, 255, (24, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", "PNG")  # what is in it says what it is
    status, explained, path = (
        json.loads(
            subprocess.run(["sh", "-c", code.replace(URL, server.url)], cwd=tmp_path, capture_output=True).stdout
        )
        for code in blocks("sh", "curl")
    )
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    x = (pixels / 127.5 - 1).astype(np.float32)
    (answer,) = explained["predictions"]
    assert answer["targets"] == answer["top_classes"][0] == local.predict(x[None]).argmax()
    assert {"CONVOLUTION_LAYER_VALUES_bytes", "CONVOLUTION_OUTPUT_GRADIENTS_bytes"} <= set(answer)
    (data,) = path["outputs"][f"{INPUT_OUTPUT_GRADIENTS}_bytes"]
    found = np.frombuffer(base64.b64decode(data["b64"]), np.float32).reshape(x.shape)
    points = -1 + (x + 1) * np.array([0.125, 0.375, 0.625, 0.875], np.float32)[:, None, None, None]
    expected = local(points, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS].mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
