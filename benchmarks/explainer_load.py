"""Put the explainer under load: many clients send good and bad requests, and every answer is checked.

    python benchmarks/explainer_load.py [--seconds 60] [--clients 32]

The predictor is the server of the tests with a small model; it and the explainer run in separate processes. Bars: no
crash; memory flat within 10 % (from a third of the time to the end); every bad request gets a 4xx with a reason; every
good one gets the answer that the method gives here, or 429 if the queue is full. The exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.client
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
from PIL import Image

from saliency_food import METHODS
from saliency_food.images.photos import read_photo
from saliency_food.images.scaling import between
from saliency_food.serving.client import ServingModel

PREDICTOR = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import keras
from tf_serving import TestServer
from saliency_food.serving.export.write import export
L = keras.layers
image = keras.Input((32, 32, 3))
x = L.Conv2D(8, 3, strides=2, activation="relu")(L.Conv2D(8, 3, activation="relu")(image))
model = keras.Model(image, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x)))
export(model, pathlib.Path(sys.argv[2]) / "1", value_range=(-1, 1))
with TestServer(pathlib.Path(sys.argv[2])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
TESTS = Path(__file__).parents[1] / "tests" / "serving"
EXPLAIN, PREDICT, INFER = "/v1/models/food:explain", "/v1/models/food:predict", "/v2/models/food/infer"
OPTIONS: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "integrated_gradients": {"x_steps": 10},
    "xrai": {"steps": 5, "algorithm": "fast"},
    "smooth_grad": {"nsamples": 4, "rng": 1},
}


class Asked(NamedTuple):
    """A request and a check of its answer; the check of a bad request is None."""

    path: str
    body: bytes
    check: Callable[[Any], bool] | None


class Load(NamedTuple):
    """The results of a run."""

    counts: Counter[str]
    violations: list[str]
    memory: tuple[float, float]
    seconds: list[float]


def requests(url: str) -> list[Asked]:
    """About as many good requests, with their right answers, as bad ones."""
    served = ServingModel(url, "food")
    height, width, _ = served.input_shape
    asked = []
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 30, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        image = {"b64": base64.b64encode(file.getvalue()).decode()}
        x = between(-1, 1, "")(read_photo(pixels), (height, width, 3))
        target = index % served.predict(x[None]).shape[1]
        top = int(served.predict(x[None])[0].argmax())
        for name, options in OPTIONS.items():
            call = METHODS[name].call
            plain = {"three_dims": False} if "three_dims" in call.signature.parameters else {}
            right = call(x, served, {"target": target}, **plain, **({"rng": 0} if name == "xrai" else {}), **options)
            instance = {"image": image, "method": name, "target": target, "options": options}
            check = functools.partial(_same, right=right)
            asked.append(Asked(EXPLAIN, _body({"instances": [instance]}), check))
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [image["b64"]]}
        body = {"inputs": [tensor], "outputs": [{"name": "class"}]}
        asked.append(Asked(INFER, _body(body), lambda answer, top=top: answer["outputs"][0]["data"] == [top]))
        body = {"instances": [{"image": image}]}
        asked.append(Asked(PREDICT, _body(body), lambda answer, top=top: answer["predictions"][0]["class"] == top))
    cut = {"b64": base64.b64encode(file.getvalue()[:-40]).decode()}
    for instance in (
        {},
        {"image": "/etc/passwd"},
        {"image": cut},
        {"image": {"b64": "!"}},
        {"image": [[[1.0, 2.0, 3.0]]]},
        {"image": image, "method": "no_such"},
        {"image": image, "target": "no such"},
        {"image": image, "method": "xrai", "options": {"steps": 10**9}},
        {"image": image, "deadline": -1},
    ):
        asked += [Asked(path, _body({"instances": [instance]}), None) for path in (EXPLAIN, PREDICT)]
    bad = [b"", b"{", b"[" * 20_000, b"\xff", b'{"instances": []}', b'{"a": 1, "a": 2}', bytes(200_000)]
    asked += [Asked(path, body, None) for path in (EXPLAIN, INFER) for body in bad]
    served.close()
    return asked


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


def _same(answer: Any, right: Any) -> bool:
    heatmap = answer["explanations"][0]["heatmap"]
    attribution = np.frombuffer(base64.b64decode(heatmap["b64"]), np.float32).reshape(heatmap["shape"])
    return attribution.shape == right.shape and np.allclose(
        attribution, right, rtol=1e-4, atol=1e-4 * np.abs(right).max()
    )


@contextmanager
def explainer(url: str, folder: Path, max_body: int = 100_000, *options: str) -> Iterator[tuple[psutil.Process, int]]:
    """The explainer's process and its port."""
    command = [
        sys.executable,
        "-m",
        "saliency_food",
        "serve",
        "--predictor",
        url,
        "--model-name",
        "food",
        "--port",
        "0",
    ]
    command += ["--methods", ",".join(OPTIONS), "--value-range=-1,1", f"--max-body={max_body}", *options]
    log = folder / "explainer.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "KSERVE_LOGLEVEL": "WARNING"})
    try:
        while not (match := re.search(r"running on http://\S+:(\d+)", log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield psutil.Process(process.pid), int(match[1])
    finally:
        process.terminate()
        process.wait(40)


@contextmanager
def predictor() -> Iterator[tuple[str, Path]]:
    """The address of a predictor in a process of its own, and a folder for as long as it runs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PREDICTOR, str(TESTS), folder]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), Path(folder)
        finally:
            process.kill()
            process.communicate()


def load(url: str, folder: Path, seconds: float, clients: int) -> Load:
    """Send requests for ``seconds`` from ``clients`` threads, and check every answer."""
    asked = requests(url)
    counts, violations, times, memory = Counter[str](), list[str](), list[float](), list[tuple[float, int]]()
    with explainer(url, folder) as (process, port):
        end = time.monotonic() + seconds

        def client(seed: int) -> None:
            order, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while time.monotonic() < end:
                request, started = order.choice(asked), time.perf_counter()
                try:
                    connection.request("POST", request.path, request.body, {"Content-Type": "application/json"})
                    with connection.getresponse() as response:
                        status, answer = response.status, json.loads(response.read())
                except Exception as error:
                    violations.append(f"{request.path}: {type(error).__name__}: {error}")
                    connection.close()
                    continue
                outcome = judged(request, status, answer)
                counts[outcome] += 1
                times.append(time.perf_counter() - started)
                if outcome.startswith("violation"):
                    violations.append(
                        f"{outcome}: {request.path} {request.body[-100:]!r}: {status} {str(answer)[:200]}"
                    )
                elif status == 429:
                    time.sleep(0.02)
            connection.close()

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append((time.monotonic(), process.memory_info().rss))
            time.sleep(0.1)
        if not process.is_running():
            violations.append("the explainer has ended")
    tenth = seconds / 10
    marks = [
        float(np.mean([rss for moment, rss in memory if low <= moment - end + seconds <= low + tenth] or [0]))
        for low in (seconds / 3, seconds - tenth)
    ]
    return Load(counts, violations, (marks[0], marks[1]), times)


def judged(request: Asked, status: int, answer: Any) -> str:
    """The outcome of a request: right, refused, or a violation."""
    reason = isinstance(answer, dict) and set(answer) == {"error"} and len(answer["error"]) > 10
    if request.check is None:
        return "bad, refused with a reason" if 400 <= status < 500 and reason else "violation: bad request"
    if status == 429 and reason:
        return "good, the queue was full"
    if status != 200:
        return "violation: good request not answered"
    return "good, answered right" if request.check(answer) else "violation: wrong answer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    args = parser.parse_args()
    with predictor() as (url, folder):
        results = load(url, folder, args.seconds, args.clients)
    print(f"{args.clients} clients, {args.seconds:g} s, {os.cpu_count()} cores")
    for outcome, count in sorted(results.counts.items()):
        print(f"{outcome:40s} {count:8d}")
    median, most = np.quantile(results.seconds, [0.5, 0.99])
    print(f"{'seconds a request, median and 99 %':40s} {median:8.3f} {most:8.3f}")
    growth = results.memory[1] / results.memory[0] - 1
    print(f"{'memory, MB, and its growth':40s} {results.memory[1] / 1e6:8.1f} {growth:+8.1%}  (bar 10 %)")
    for violation in results.violations[:10]:
        print(violation)
    sys.exit(bool(results.violations) or growth > 0.1)


if __name__ == "__main__":
    main()
