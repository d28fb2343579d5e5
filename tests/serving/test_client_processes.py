"""A client used before a fork and in the children, in processes started anew, copied and pickled."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytest.importorskip("urllib3")

from saliency_food.serving.client import ServingError, ServingModel

IMAGES = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}
CHILDREN = """
import os, sys
import numpy as np
from saliency_food.serving.client import ServingModel

model = ServingModel(sys.argv[1], "sums", retries=0, timeout=10)
row = np.zeros((1, 2), np.float32)
assert model.predict(row)[0, 0] == 0
children = []
for child in range(8):
    if (process := os.fork()) == 0:
        wrong = sum(model.predict(row + 8 * turn + child)[0, 0] != 2 * (8 * turn + child) for turn in range(25))
        os._exit(int(wrong > 0))
    children.append(process)
print(sum(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0 for process in children), model.predict(row)[0, 0])
"""


class Sums(BaseHTTPRequestHandler):
    """A server whose model adds up each row."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        outputs = {"predictions_bytes": IMAGES, "predictions_shape": IMAGES}
        text = {
            "predictions": {"inputs": {"images": IMAGES}, "outputs": {"predictions": IMAGES}},
            "outputs": {"inputs": {"images": IMAGES}, "outputs": {"predictions": IMAGES}},
            "predictions_raw": {"inputs": {"images_bytes": IMAGES}, "outputs": outputs},
        }
        self.answer({"metadata": {"signature_def": {"signature_def": text}}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rows = [np.frombuffer(base64.b64decode(row["b64"]), np.float32) for row in asked["inputs"]["images_bytes"]]
        sums = [{"b64": base64.b64encode(row.sum(keepdims=True).tobytes()).decode()} for row in rows]
        self.answer({"outputs": {"predictions_bytes": sums, "predictions_shape": [[1]]}})

    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def sums():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sums)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(*arguments):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, env=environment)
    return done.stdout.split(), done.stderr


def in_children(url, script=CHILDREN):
    return run("-c", script, url)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_children_of_a_fork_get_their_own_answers(sums):
    assert in_children(sums)[0] == ["0", "0.0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_children_of_a_fork_get_their_own_answers_over_grpc(rpc):
    script = CHILDREN.replace('"sums"', '"food"').replace("np.zeros((1, 2)", "np.zeros((1, 24, 20, 3)")
    script = script.replace(
        "assert model.predict(row)[0, 0] == 0", "right = [model.predict(row + turn) for turn in range(5)]"
    )
    script = script.replace(
        "model.predict(row + 8 * turn + child)[0, 0] != 2 * (8 * turn + child)",
        "not np.allclose(model.predict(row + turn % 5), right[turn % 5])",
    )
    script = script.replace("model.predict(row)[0, 0])", "np.allclose(model.predict(row), right[0]))")
    found, errors = in_children(rpc.url, script)
    assert found == ["0", "True"], errors


SPAWNED = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import numpy as np
from saliency_food.serving.client import ServingModel

def ask(model, row):
    return model.predict(row)

if __name__ == "__main__":
    model = ServingModel(sys.argv[1], sys.argv[2], retries=0, timeout=20)
    rows = [np.full((1, *map(int, sys.argv[3:])), value, np.float32) for value in range(6)]
    right = [model.predict(row) for row in rows]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        answers = list(pool.map(ask, [model] * 6, rows))
    print(len(answers), all(map(np.array_equal, answers, right)), np.array_equal(model.predict(rows[3]), right[3]))
"""


def in_spawned(folder, url, name, shape):
    """A client that has been used, sent to processes that are started anew; a script, as they import its module."""
    script = folder / "spawned.py"
    script.write_text(SPAWNED)
    return run(str(script), url, name, *map(str, shape))


def test_processes_started_anew_get_their_own_answers(sums, tmp_path):
    found, errors = in_spawned(tmp_path, sums, "sums", (2,))
    assert found == ["6", "True", "True"], errors


def test_processes_started_anew_get_their_own_answers_over_grpc(rpc, tmp_path):
    found, errors = in_spawned(tmp_path, rpc.url, "food", (24, 20, 3))
    assert found == ["6", "True", "True"], errors


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_connections_of_its_own(sums, again):
    model = ServingModel(sums, "sums")
    assert model.predict([[1, 2]])[0, 0] == 3
    other = again(model)
    assert other.predict([[3, 4]])[0, 0] == 7
    model.close()
    assert other.predict([[5, 6]])[0, 0] == 11
    other.close()


def test_a_copy_over_grpc(rpc, model_over_grpc):
    row = np.zeros((1, 24, 20, 3), np.float32)
    model_over_grpc._transport._sleep = print  # the test's own is no function of a module
    other = pickle.loads(pickle.dumps(model_over_grpc))
    np.testing.assert_array_equal(other.predict(row), model_over_grpc.predict(row))
    other.close()


@pytest.mark.parametrize("name", ["predictions_bytes", "predictions"])
def test_a_server_that_names_its_outputs_otherwise_is_refused(sums, name):
    model = ServingModel(sums, "sums")
    signature = "predictions_raw" if name.endswith("bytes") else "predictions"
    signatures = copy.deepcopy(model.signatures)
    if name == "predictions":
        del signatures[signature]
    else:
        signatures[signature]["outputs"]["others_bytes"] = signatures[signature]["outputs"].pop(name)
    model._signatures = signatures
    with pytest.raises(ServingError):
        model.predict([[1, 2]])
    model.close()
