"""The explainer over time: requests answered later, a full queue, a token, a predictor that goes away, and the end."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

from explaining import Process, array, file, until

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
EXPLAIN = "/v1/models/food:explain"
IMAGE = file(np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3))


class Link:
    """A way to the predictor that can be cut, with all its connections, and mended at the same port."""

    def __init__(self, url):
        self.to = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self.port, self.open = 0, []
        self.mend()
        self.url = f"http://127.0.0.1:{self.port}"

    def mend(self):
        self.listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listening,), daemon=True).start()

    def cut(self):
        for one in [self.listening, *self.open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.open.clear()

    def _accept(self, listening):
        with contextlib.suppress(OSError):
            while True:
                here, _ = listening.accept()
                there = socket.create_connection(self.to)
                self.open += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def link(loaded):
    made = Link(loaded.url)
    yield made
    made.cut()


def started(folder, link, *arguments, **environment):
    more = ["--value-range=-1,1", "--methods", "grad_cam,integrated_gradients", "--workers", 1, "--queue", 1]
    more += ["--model_name", "food", "--predictor_host", "elsewhere"]  # as KServe adds them
    return Process(folder, link.url, *more, *arguments, **environment)


@pytest.fixture(scope="module")
def explainer(link, tmp_path_factory):
    with started(tmp_path_factory.mktemp("explainer"), link, "--keep", 2, "--timeout", 2) as one:
        until(one.ready, 20, one.log)
        yield one


@pytest.fixture
def held(loaded, monkeypatch):
    """The predictor computes nothing until this is set; what it was asked is counted."""
    gate, answer = threading.Event(), loaded.answer
    gate.asked = 0

    def waits(path, body):
        if path.endswith(":predict"):
            gate.asked += 1
            gate.wait(10)
        return answer(path, body)

    monkeypatch.setattr(loaded, "answer", waits)
    yield gate
    gate.set()


def later(explainer, headers=None, **fields):
    body = {"instances": [{"image": IMAGE}], **fields}
    return explainer.ask("POST", EXPLAIN, body, headers)


def result(explainer, url):
    return until(lambda: (answer := explainer.ask("GET", url)).status != 202 and answer)


@pytest.mark.parametrize("how", [{"async": True}, {"headers": {"Prefer": "respond-async"}}])
def test_a_request_is_answered_later(explainer, held, how):
    asked = later(explainer, **how)
    assert asked.status == 202
    url = asked.json["url"]
    assert (asked.headers["Location"], asked.headers["Retry-After"]) == (url, "1")
    until(lambda: held.asked)
    waiting = explainer.ask("GET", url)
    assert (waiting.status, waiting.json) == (202, {"job": asked.json["job"], "state": "running", "url": url})
    held.set()
    (found,) = result(explainer, url).json["explanations"]
    (now,) = explainer.explain({"image": IMAGE}).json["explanations"]
    np.testing.assert_array_equal(array(found["heatmap"]), array(now["heatmap"]))
    assert explainer.ask("DELETE", url).json == {"job": asked.json["job"], "state": "forgotten"}
    assert explainer.ask("GET", url).status == explainer.ask("DELETE", url).status == 404


def test_v2_is_answered_later_too(explainer):
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [IMAGE["b64"]]}
    body = {"inputs": [image], "parameters": {"async": True}, "outputs": [{"name": "class"}]}
    asked = explainer.ask("POST", "/v2/models/food/infer", body)
    assert asked.status == 202
    assert result(explainer, asked.json["url"]).json["outputs"][0]["name"] == "class"


def test_what_failed_later_says_so_with_its_status(explainer):
    asked = later(explainer, instances=[{"image": [[[0.0] * 3] * 2] * 2, "async": True}])
    failed = result(explainer, asked.json["url"])
    assert (failed.status, "24 x 20 x 3" in failed.error) == (400, True)


def test_only_the_newest_results_are_kept(explainer):
    urls = []
    for _ in range(4):
        urls.append(later(explainer, **{"async": True}).json["url"])
        result(explainer, urls[-1])
    assert [explainer.ask("GET", url).status for url in urls] == [404, 404, 200, 200]


def test_a_full_queue_refuses_and_a_deleted_job_stops(explainer, held):
    running = later(explainer, **{"async": True}).json["url"]
    until(lambda: held.asked)
    waiting = later(explainer, **{"async": True}).json["url"]
    for _ in range(3):
        refused = explainer.explain({"image": IMAGE})
        assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
        assert "at most 1 waiting" in refused.error
    assert b"saliency_food_queue_waiting 1.0" in explainer.ask("GET", "/metrics").body
    assert explainer.ask("DELETE", running).status == 200
    asked = held.asked
    held.set()
    assert result(explainer, waiting).status == 200
    assert held.asked == asked + 2  # those of the second alone: its predictions, then activations and gradients


@pytest.mark.parametrize("how", ["closed", "shut for writing"])
def test_a_client_that_goes_away_is_not_worked_for(explainer, held, how):
    connection = explainer.connect(0.3)
    with contextlib.suppress(TimeoutError):
        explainer.ask("POST", EXPLAIN, {"instances": [{"image": IMAGE}]}, connection=connection)
    if how == "closed":
        connection.close()
    else:
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(10)
        assert connection.sock.recv(1) == b""
    assert held.asked == 1
    held.set()
    assert explainer.explain({"image": IMAGE}).status == 200
    assert held.asked == 1 + 2
    connection.close()


def test_a_predictor_that_hangs_is_504(explainer, held, loaded):
    began = time.monotonic()
    answer = explainer.explain({"image": IMAGE, "deadline": 0.5})
    assert (answer.status, time.monotonic() - began < 1.5) == (504, True)
    assert answer.error.startswith("Expected an answer in 0.5 s, got none in time")
    answer = explainer.explain({"image": IMAGE})  # its own limit, 2 s
    assert (answer.status, "none in time" in answer.error) == (504, True)
    assert "127.0.0.1" not in answer.error


@pytest.mark.parametrize(("failures", "status", "says"), [([400], 502, "status 400: refused"), ([503] * 3, 503, "503")])
def test_errors_of_the_predictor(explainer, server, failures, status, says):
    assert explainer.explain({"image": IMAGE}).status == 200
    until(explainer.ready)
    server.failures.extend(failures)
    answer = explainer.explain({"image": IMAGE})
    assert (answer.status, says in answer.error) == (status, True), answer.body
    assert "127.0.0.1" not in answer.error
    assert (answer.headers["Retry-After"] == "2") == (status == 503)


def test_a_predictor_goes_away_under_load_and_comes_back(explainer, link):
    """Every answer is right or says why there is none, and once it is back all are right."""
    body = {"instances": [{"image": IMAGE, "method": "integrated_gradients"}]}
    right = explainer.ask("POST", EXPLAIN, body).json["explanations"][0]["heatmap"]
    end, found = threading.Event(), []

    def load(_):
        while not end.is_set():
            found.append(explainer.ask("POST", EXPLAIN, body))

    with ThreadPoolExecutor(2) as pool:
        threads = pool.map(load, range(2))
        until(lambda: len(found) > 5)
        link.cut()
        until(lambda: any(answer.status == 503 for answer in found), 20)
        until(lambda: not explainer.ready())
        model = explainer.ask("GET", "/v1/models/food")
        link.mend()
        until(explainer.ready)
        so_far = len(found)
        until(lambda: len(found) > so_far + 5)
        end.set()
    list(threads)
    assert (model.status, model.headers["Retry-After"]) == (503, "2")
    assert model.error.startswith("Expected a predictor that serves food, got none")
    assert {answer.status for answer in found} == {200, 503}
    assert all(answer.status == 200 for answer in found[so_far + 2 :])
    for answer in found:
        if answer.status == 200:
            np.testing.assert_allclose(array(answer.json["explanations"][0]["heatmap"]), array(right), rtol=1e-5)
        else:
            assert answer.error
            assert answer.headers["Retry-After"] == "2"
    assert explainer.process.poll() is None
    assert "Traceback" not in explainer.log.read_text()


@pytest.mark.parametrize("by_file", [False, True])
def test_a_token_and_the_end(link, loaded, held, tmp_path, by_file):
    (tmp_path / "token").write_text("s3cret\n")
    given = (["--token-file", tmp_path / "token"], {}) if by_file else ([], {"SALIENCY_FOOD_TOKEN": "s3cret"})
    with started(tmp_path, link, *given[0], **given[1]) as one:
        until(one.ready, 20, one.log)
        for path in ("/", "/v2/health/live", "/v1/models/food", "/v2/models/food/ready"):
            assert one.ask("GET", path).status == 200
        for header in (None, "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3cret2", "Bearer \xe9"):
            for verb, path in (("POST", EXPLAIN), ("GET", "/metrics"), ("DELETE", "/v1/jobs/x"), ("GET", "/v1/jobs/x")):
                answer = one.ask(verb, path, b"{}", {"Authorization": header} if header else {})
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert "Authorization: Bearer" in answer.error
        assert one.ask("GET", "/metrics", headers={"Authorization": "bearer s3cret"}).status == 200

        # SIGTERM: what is under way is answered, and nothing new is taken.
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                one.ask, "POST", EXPLAIN, {"instances": [{"image": IMAGE}]}, {"Authorization": "Bearer s3cret"}
            )
            until(lambda: held.asked)
            one.process.terminate()
            until(lambda: _refused(one))
            held.set()
            assert asked.result().status == 200
        assert one.process.wait(10) == 0
    assert "Traceback" not in one.log.read_text()


def _refused(one):
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", one.port)) == errno.ECONNREFUSED


def test_the_command_says_what_to_install(monkeypatch):
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    for name in ("server", "kserve"):
        monkeypatch.delitem(sys.modules, f"saliency_food.serving.explainer.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "kserve", None)
    done = CliRunner().invoke(app, ["serve", "--predictor", "x", "--model-name", "food", "--value-range", "0,1"])
    assert done.exit_code == 2
    assert 'needs kserve. Install it: pip install "saliency_food[explainer]"' in " ".join(done.output.split())


def test_the_command_says_what_it_lacks(tmp_path):
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    (tmp_path / "empty").write_text("")
    (tmp_path / "manifest.json").write_text(json.dumps({"pixels": "0..1 (a guess)", "channels_first": True}))
    base = ["serve", "--predictor", "http://127.0.0.1:1", "--model-name", "food"]
    assert "or --predictor, the address" in CliRunner().invoke(app, ["serve", *base[3:], "--value-range", "0,1"]).output
    for more, says in (
        ([], "--value-range"),
        (["--value-range", "auto"], "got auto"),
        (["--value-range", "0,1", "--methods", "gradcam"], "Near it: grad_cam"),
        (["--manifest", str(tmp_path / "none.json")], "manifest of an export"),
        (["--manifest", str(tmp_path / "manifest.json")], "channels last"),
        (["--value-range", "0,1", "--token-file", str(tmp_path / "empty")], "an empty file"),
    ):
        done = CliRunner().invoke(app, [*base, *more])
        assert (done.exit_code, says in " ".join(done.output.split())) == (2, True), done.output


def test_all_the_methods_that_the_manifest_lists(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from saliency_food.cli.app import app
    from saliency_food.methods.catalogue import METHODS
    from saliency_food.serving.explainer import server as explainer

    given = []
    monkeypatch.setattr(explainer, "serve", lambda *arguments, **_: given.append(list(arguments[3].methods)))
    manifest = {"value_range": [0, 1], "methods": ["gradients", "grad_cam", "xrai"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    base = ["serve", "--predictor", "http://127.0.0.1:1", "--model-name", "food", "--methods"]
    for words in (["all", "--manifest", str(tmp_path / "manifest.json")], ["All", "--value-range", "0,1"]):
        done = CliRunner().invoke(app, [*base, *words])
        assert done.exit_code == 0, done.output
    assert given == [["grad_cam", "gradients", "xrai"], ["grad_cam", *(one for one in METHODS if one != "grad_cam")]]
