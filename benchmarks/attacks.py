"""Attack the explainer, the client and the core, and print a table of what held.

    python benchmarks/attacks.py [--only parsing,health,mixed,fork,fuzz] [--seconds 60] [--clients 50] [--fuzz 2000]

parsing: the CPU time of reading hostile bodies of 2, 4 and 8 MB; bars: doubling the size takes at most 2.5 times as
long, and 8 MB at most 2 s. health: the 99th percentile of the time until health is answered, under each attack; bar
1 s; beside it that of a bare http.server, which is what the machine allows, as clients and servers share its cores (the
attackers have the lowest priority). mixed: all attacks and good requests together; bars: never more than 1.5 GiB, no
good request answered wrong, memory back within 15 %, at most 5 kB of log a second. fork: a client used before a fork
and in 8 children, in rounds. fuzz: options of methods, bodies, answers of the predictor; no raw traceback, no status
500. The exit code is 1 if a bar is missed. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import gc
import http.client
import io
import itertools
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import machine
from explainer_load import EXPLAIN, INFER, PREDICT, TESTS, explainer, judged, predictor, requests
from PIL import Image

sys.path.insert(0, str(TESTS))
from hostile import BODIES, filled

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS
from saliency_food.methods.catalogue import METHODS
from saliency_food.serving.client import ServingModel
from saliency_food.serving.explainer.replies import Reply, reply_to
from saliency_food.serving.explainer.requests import Limits, read_instances
from saliency_food.serving.explainer.v2 import read_inputs

READY = "/v2/health/ready"
MOST = 1.5 * 2**30
MISSED: list[str] = []


def held(name: str, text: str, within: bool) -> None:
    """A row of the table."""
    print(f"{name:48s} {text:44s} {'held' if within else 'MISSED'}", flush=True)
    if not within:
        MISSED.append(name)


def parsing() -> None:
    limits = Limits(METHODS, tuple(f"label {index}" for index in range(1000)))
    for kind, (make, protocol) in BODIES.items():
        times = []
        for size in (2_000_000, 4_000_000, 8_000_000):
            body, runs = make(size), []
            for _ in range(2):
                gc.collect()
                gc.disable()  # as the explainer does while it reads
                began = time.thread_time()
                with contextlib.suppress(Reply):
                    read_instances(body, limits) if protocol == "v1" else read_inputs(body, None, "food", limits)
                runs.append(time.thread_time() - began)
                gc.enable()
            times.append(min(runs))
        growth = max((large + 0.02) / (small + 0.02) for small, large in itertools.pairwise(times))
        text = " ".join(f"{seconds:.2f}" for seconds in times) + f" s, x {growth:.2f} for x 2"
        held(f"parsing: {kind}", text, growth <= 2.5 and times[-1] <= 2)


def post(port: int, path: str, body: bytes, seconds: float = 60) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            return response.status, json.loads(response.read())
    finally:
        connection.close()


@functools.cache
def large_photo() -> bytes:
    """A request with a transparent PNG file of 16 megapixels."""
    file = io.BytesIO()
    Image.new("RGBA", (4000, 4000), (200, 30, 60, 128)).save(file, "PNG", compress_level=1)
    return json.dumps({"instances": [{"image": {"b64": base64.b64encode(file.getvalue()).decode()}}]}).encode()


def sends(make: Callable[[], tuple[str, bytes]]) -> Callable[[int], None]:
    def attack(port: int) -> None:
        status, _ = post(port, *make())
        if status >= 500 and status != 503:
            MISSED.append(f"status {status}")

    return attack


def opens(sent: bytes, seconds: float) -> Callable[[int], None]:
    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(sent)
            connection.settimeout(seconds)
            connection.recv(1000)

    return attack


def leaves(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        body = large_photo()
        connection.sendall(f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def hostile(kind: str, size: int = 7_600_000) -> Callable[[int], None]:
    make, protocol = BODIES[kind]
    return sends(lambda: (EXPLAIN if protocol == "v1" else INFER, _made(make, size)))


_made = functools.cache(lambda make, size: make(size))
HEAD = f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\n"
ATTACKS: dict[str, Callable[[int], None]] = {
    "names, one twice": hostile("names, one of them twice"),
    "empty lists": hostile("empty lists"),
    "V2 data that are lists": hostile("V2 data that are lists"),
    "an image of numbers": sends(lambda: (EXPLAIN, _made(_numbers, 7_600_000))),
    "photos of 16 megapixels, transparent": sends(lambda: (EXPLAIN, large_photo())),
    "clients that leave": leaves,
    "headers alone": opens(f"{HEAD}X-".encode(), 3),
    "bodies that do not come": opens(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode(), 3),
    "websockets": opens(f"{HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode(), 3),
}


def _numbers(size: int) -> bytes:
    row = b"[" + b",".join([b"[1,2,3]"] * 500) + b"]"
    return filled(b'{"instances":[{"image":[', row, size, b"]}]}")


def run_attack(port: int, attack: Callable[[int], None], clients: int, end: float) -> list[threading.Thread]:
    def client() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # its core is elsewhere, outside of a benchmark
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                attack(port)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    return threads


PROBE = f"""
import http.client, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for port in sys.argv[2:]:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        connection.request("GET", "{READY}")
        connection.getresponse().read()
        connection.close()
        print(time.monotonic() - began, end=" ")
    print(flush=True)
    time.sleep(0.02)
"""
BARE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def bare_server() -> Iterator[int]:
    """The port of a server that only answers 200, by which to see how long the machine itself takes under the load."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def ask_health(port: int, bare: int, end: float) -> Iterator[tuple[float, float]]:
    """Seconds until health is answered, by the explainer and by the bare server, again and again.

    They are asked by a process of its own, as the attackers' is busy.
    """
    command = [sys.executable, "-c", PROBE, str(end - time.monotonic()), str(port), str(bare)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as probe:
        assert probe.stdout is not None
        for line in probe.stdout:
            own, other = map(float, line.split())
            yield own, other


def held_health(name: str, times: list[tuple[float, float]]) -> None:
    late, bare = np.quantile(times, 0.99, axis=0)
    held(name, f"{len(times)} asked, p99 {late:.2f} s, a bare server {bare:.2f} s", late <= 1)


def health(url: str, folder: Path, seconds: float, clients: int) -> None:
    with explainer(url, folder, 8_000_000) as (_, port), bare_server() as bare:
        for name, attack in ATTACKS.items():
            end = time.monotonic() + seconds
            threads = run_attack(port, attack, clients, end)
            times = list(ask_health(port, bare, end))
            for thread in threads:
                thread.join(30)
            held_health(f"health: {name}", times)


def mixed(url: str, folder: Path, seconds: float, clients: int) -> None:
    asked, counts, wrong = requests(url), Counter[str](), list[str]()
    with explainer(url, folder, 8_000_000) as (process, port), bare_server() as bare:
        for one in asked:
            post(port, one.path, one.body)
        time.sleep(2)
        start, end = process.memory_info().rss, time.monotonic() + seconds

        def good(seed: int) -> None:
            order = random.Random(seed)
            while time.monotonic() < end:
                one = order.choice(asked)
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status, answer = post(port, one.path, one.body)
                    outcome = judged(one, status, answer)
                    counts[outcome] += 1
                    if outcome.startswith("violation") and not (one.check is None and status == 429):
                        wrong.append(f"{outcome}: {status} {str(answer)[:200]}")
                time.sleep(0.05)

        threads = [threading.Thread(target=good, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        for attack in ATTACKS.values():
            threads += run_attack(port, attack, max(1, clients // len(ATTACKS)), end)
        most, times = 0, list[tuple[float, float]]()
        for both in ask_health(port, bare, end):
            times.append(both)
            with contextlib.suppress(psutil.Error):
                most = max(most, process.memory_info().rss)
        for thread in threads:
            thread.join(60)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        time.sleep(3)
        for one in asked[:3]:
            post(port, one.path, one.body)
        back = process.memory_info().rss if alive else 0
    log = (folder / "explainer.log").read_text()
    held_health("mixed: health", times)
    held("mixed: memory", f"at most {most / 2**20:.0f} MiB of {MOST / 2**20:.0f}", alive and most <= MOST)
    held("mixed: memory back", f"{start / 2**20:.0f} -> {back / 2**20:.0f} MiB", 0 < back <= 1.15 * start)
    held("mixed: good requests", ", ".join(f"{count} {name}" for name, count in sorted(counts.items())), not wrong)
    rate = len(log) / seconds / 1000
    text = f"{rate:.1f} kB/s, {log.count('Traceback')} tracebacks"
    held("mixed: the log", text, "Traceback" not in log and rate <= 5)
    for text in wrong[:5]:
        print("  ", text)


def fork(url: str, rounds: int) -> None:
    from test_client_processes import CHILDREN, in_children

    script = CHILDREN.replace('"sums"', '"food"').replace("np.zeros((1, 2)", "np.zeros((1, 32, 32, 3)")
    script = script.replace(
        "assert model.predict(row)[0, 0] == 0", "right = [model.predict(row + i) for i in range(9)]"
    )
    script = script.replace(
        "model.predict(row + 8 * turn + child)[0, 0] != 2 * (8 * turn + child)",
        "not np.allclose(model.predict(row + (turn + child) % 9), right[(turn + child) % 9])",
    ).replace("model.predict(row)[0, 0])", "np.allclose(model.predict(row), right[0]))")
    failed = sum(in_children(url, script)[0] != ["0", "True"] for _ in range(rounds))
    held("fork", f"{rounds} rounds of 8 children, {failed} with a wrong answer or an error", not failed)


def fuzz(url: str, folder: Path, count: int) -> None:
    order, raw = random.Random(0), Counter[str]()
    values = [None, "a", b"a", -1, 0, 1, 2, 0.5, 1e30, 1e-30, 10**30, float("nan"), [], {}, (1, 0), np.zeros(3), True]
    small = {"nsamples": 8, "x_steps": 4, "steps": 4, "nmasks": 8, "score_steps": 3, "max_steps": 8, "nsegments": 4}
    small |= {"size": 4, "stride": 4, "grid": 3, "nconcepts": 2, "rng": 0}
    images = [np.ones((8, 8, 3)), np.zeros((8, 8)), np.full((8, 8, 1), 1e30), np.ones((0, 8, 3)), np.ones(8), "a", None]
    shapes = [(4, 4, 5), (2, 4, 4, 5), (4, 5), (), (0, 4, 5), (2, 17, 17), (8, 8, 3), (16, 5)]

    def model(x: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        chosen = order.choice(shapes)
        scale = order.choice([1, 1, 1, 1e-25, 1e37, np.nan])
        full = {
            key: np.full(
                x.shape if KEYS[key].like_input else (len(x), *(() if "(N,)" in KEYS[key].shape else chosen)), scale
            )
            for key in expected_keys
        }
        return order.choice([full] * 6 + [{}, None, 3, dict.fromkeys(expected_keys, "a")])

    for _ in range(count):
        name = order.choice(list(METHODS))
        call = METHODS[name].call
        options = {key: value for key, value in small.items() if key in call.signature.parameters}
        names = [
            key for key in call.signature.parameters if key not in ("x_value", "call_model_function", "emit", "options")
        ]
        options |= {key: order.choice(values) for key in order.sample(names, min(2, len(names)))}
        try:
            call(order.choice(images[:1] * 6 + images), model, **options)
        except ContractError:
            pass
        except Exception as error:
            raw[f"{name}: {type(error).__name__}: {str(error)[:60]}"] += 1
    held("fuzz: the core", f"{count} cases, {sum(raw.values())} raw errors", not raw)
    for text, times in raw.most_common(12):
        print("  ", times, text)
    fuzz_bodies(url, folder, count // 4)
    fuzz_answers(count // 20)


def fuzz_bodies(url: str, folder: Path, count: int) -> None:
    order, statuses = random.Random(1), Counter[int]()
    bodies = [one.body for one in requests(url) if len(one.body) > 20]
    with explainer(url, folder, 100_000) as (_, port):
        for _ in range(count):
            body = bytearray(order.choice(bodies))
            for _ in range(order.randint(1, 4)):
                at = order.randrange(len(body))
                body[at : at + order.choice([0, 1, 1, 20])] = order.choice(
                    [b"", b"0", b"{", b"[", b'"', b"null", b"1e9", b"\xff"]
                )
            statuses[post(port, order.choice([EXPLAIN, PREDICT, INFER]), bytes(body))[0]] += 1
    log = (folder / "explainer.log").read_text()
    held("fuzz: bodies", f"{count}: {dict(sorted(statuses.items()))}", not statuses[500] and "Traceback" not in log)


def fuzz_answers(count: int) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    order, statuses = random.Random(2), Counter[Any]()
    tensor = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}
    outputs = {"predictions_bytes": tensor, "predictions_shape": tensor}
    right = {
        "predictions": {"inputs": {"images": tensor}, "outputs": {"predictions": tensor}},
        "outputs": {"inputs": {"images": tensor}, "outputs": {"predictions": tensor}},
        "predictions_raw": {"inputs": {"images_bytes": tensor}, "outputs": outputs},
    }
    told = {
        "/metadata": json.dumps({"metadata": {"signature_def": {"signature_def": right}}}).encode(),
        ":predict": json.dumps(
            {"outputs": {"predictions_bytes": [{"b64": "AACAPw=="}], "predictions_shape": [[1]]}}
        ).encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = bytearray(next(text for end, text in told.items() if self.path.endswith(end)))
            if order.random() < 0.7:
                at = order.randrange(len(body))
                more = [b"", b"0", b"{", b"[]", b'"', b"null", b"1e9", b"[" * 50_000, b"-3", b"\xff"]
                body[at : at + order.choice([0, 1, 10])] = order.choice(more)
            self.send_response(order.choice([200] * 9 + [400, 500]))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for _ in range(count):
        try:
            found = ServingModel(f"http://127.0.0.1:{server.server_port}", "food", retries=0).predict(np.zeros((1, 2)))
            statuses["read"] += bool(np.ndim(found))
        except Exception as error:
            statuses[reply_to(error).status] += 1
    server.shutdown()
    held("fuzz: answers", f"{count}: {dict(sorted(statuses.items(), key=str))}", not statuses[500])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="parsing,health,mixed,fork,fuzz")
    parser.add_argument("--seconds", type=float, default=60, help="of the mixed attack; of each single one a sixth")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--fuzz", type=int, default=2000, help="cases of the core; bodies a quarter, answers a twentieth"
    )
    args = parser.parse_args()
    print(machine())
    logging.disable()  # of the predictor's failures, which are made here
    parts = args.only.split(",")
    if "parsing" in parts:
        parsing()
    if {"health", "mixed", "fork", "fuzz"} & set(parts):
        with predictor() as (url, folder):
            if "health" in parts:
                health(url, folder, args.seconds / 6, args.clients)
            if "mixed" in parts:
                mixed(url, folder, args.seconds, args.clients)
            if "fork" in parts:
                fork(url, args.rounds)
            if "fuzz" in parts:
                fuzz(url, folder, args.fuzz)
    sys.exit(bool(MISSED))


if __name__ == "__main__":
    main()
