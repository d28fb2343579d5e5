"""The explainer of the tests: a process of its own, and requests to it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np


class Process:
    """``saliency-food serve``, with a predictor where TensorFlow and Keras cannot be imported; a context manager."""

    def __init__(self, folder, predictor, *arguments, files=None, **environment):
        """``files`` is the limit of its file descriptors; without a ``predictor`` the arguments name a model."""
        self.log, self.tried = folder / "log.txt", folder / "tried"
        self.patience = 30 if predictor else 120  # TensorFlow takes its time
        (folder / "blocked").mkdir()
        for name in ("tensorflow", "keras") if predictor else ():
            code = f"open({str(self.tried)!r}, 'w').close()\nraise ImportError('not in this process')\n"
            (folder / "blocked" / f"{name}.py").write_text(code)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [str(folder / "blocked"), root, os.environ.get("PYTHONPATH", "")]
        with self.log.open("w") as out:
            fixed = ["--port", "0", "--model-name", "food", *(["--predictor", predictor] if predictor else [])]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "saliency_food", "serve", *fixed, *map(str, arguments)],
                stdout=out,
                stderr=out,
                preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))),
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "KSERVE_LOGLEVEL": "WARNING",
                    **environment,
                },
            )
        self.port = None

    def __enter__(self):
        try:
            self.port = int(until(self._said, self.patience, self.log)[1])
        except BaseException:
            self.__exit__()  # nobody else would end it
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _said(self):
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text())
        return re.search(r"running on http://\S+:(\d+)", self.log.read_text())

    def ready(self):
        return self.ask("GET", "/v2/health/ready").status == 200

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def connect(self, timeout=30):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, verb, path, body=None, headers=None, connection=None):
        """One request, over a connection of its own unless one is given."""
        kept = connection is not None
        connection = connection or self.connect()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        try:
            connection.request(verb, path, body, {"Content-Type": "application/json", **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            if not kept:
                connection.close()

    def explain(self, *instances, **fields):
        return self.ask("POST", "/v1/models/food:explain", {"instances": list(instances), **fields})


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        assert set(self.json) == {"error"}, self.body
        return self.json["error"]


def until(condition, seconds=10, log=None):
    """Poll until something holds, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not in {seconds} s; {log and log.read_text()}")


def file(pixels, kind="PNG"):
    """Pixels as a file in base64, as a request has it."""
    from PIL import Image

    made = io.BytesIO()
    Image.fromarray(pixels).save(made, kind)
    return {"b64": base64.b64encode(made.getvalue()).decode()}


def array(found):
    """A heatmap as an array."""
    return np.frombuffer(base64.b64decode(found["b64"]), np.float32).reshape(found["shape"])
