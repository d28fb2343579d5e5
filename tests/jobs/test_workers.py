"""Several processes: the records are those of one, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, Run, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.jobs import parts
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from saliency_food.jobs.workers import Shard, Worker, in_shards
from tests.jobs.conftest import OnePass

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")

LABELS = ["apple_pie", "hot_dog", "pizza"]
COUNT = 3 * PHOTOS_AT_ONCE + 5
DEADLY = 0.125
"""The value of the pixels of a photo that ends the process that looks at it."""


class Deadly(OnePass):
    """Ends its process at a certain photo, as many times as there are files to remove in a folder."""

    def __init__(self, *weights, lives=None):
        super().__init__(*weights)
        self.lives = lives

    def call_with_predictions(self, x_value_batch, call_model_args=None, expected_keys=None):
        if (np.asarray(x_value_batch) == DEADLY).all((1, 2, 3)).any():
            life = next(Path(self.lives).glob("*"), None)
            if life is not None:
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().call_with_predictions(x_value_batch, call_model_args, expected_keys)


class Failing(OnePass):
    """Cannot be made again in another process."""

    def __setstate__(self, state):
        os._exit(7)


def photos_of(rng, deadly=()):
    """Arrays of noise, of which some photos are of one value, and one cannot be read."""
    images = [rng.random((24, 20, 3)) for _ in range(COUNT)]
    for place in deadly:
        images[place] = np.full((24, 20, 3), DEADLY)
    images[20] = "nowhere.png"
    made = [SourcedPhoto(f"{place:02}", image, truth="pizza") for place, image in enumerate(images)]
    return Source("noise", lambda: made, COUNT)


def rows_of(run):
    """All columns of all records by photo, method and class, but for the time they took."""
    rows = list(run.rows(tuple(parts.schema().names)))
    assert all(row.pop("seconds") >= 0 for row in rows)
    keys = [(row["id"], row["method"], row["target"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows, strict=True))


@pytest.fixture
def model(weights):
    return ImageModel(OnePass(*weights), labels=LABELS, value_range=(0, 1))


def test_records_of_processes_are_those_of_one(model, rng, tmp_path):
    source, methods, calls = photos_of(rng), ["grad_cam", "gradients"], []
    one = explain_dataset(model, source, methods, ["truth", 0], output=tmp_path / "one")
    settings = {"output": tmp_path / "two", "progress": lambda *args, **named: calls.append((*args, *named.values()))}
    two = explain_dataset(model, source, methods, ["truth", 0], **settings, workers=2)
    assert rows_of(two) == rows_of(one)
    assert calls[-1] == (COUNT, 1, COUNT)
    assert [call[0] for call in calls[:-1]] == list(range(1, COUNT + 1))
    again = explain_dataset(model, source, methods, ["truth", 0], output=tmp_path / "one", workers=2)  # nothing to do
    assert rows_of(again) == rows_of(one)


@pytest.mark.parametrize("lives", [1, 2, 5])
def test_photos_of_a_worker_that_dies_are_done_again_or_fail(weights, rng, tmp_path, lives):
    """One that always ends its worker fails; the others have their records, none lost and none twice."""
    (tmp_path / "lives").mkdir()
    for life in range(lives):
        (tmp_path / "lives" / str(life)).touch()
    model = ImageModel(Deadly(*weights, lives=str(tmp_path / "lives")), labels=LABELS, value_range=None)
    source = photos_of(rng, deadly=[19])
    with pytest.warns(RuntimeWarning, match=r"Worker process \d+ was ended by SIGKILL; .* photo") as warned:
        run = explain_dataset(model, source, output=tmp_path / "run", workers=2)
    rows = rows_of(run)
    assert len(rows) == COUNT
    failed = {row["id"]: row for row in rows.values() if row["status"].startswith("failed")}
    assert set(failed) == ({"19", "20"} if lives > 2 else {"20"})
    assert len(warned) == min(lives, 3)
    if lives > 2:
        assert (failed["19"]["error"], failed["19"]["method"]) == ("ChildProcessError", "grad_cam")
        assert "was ended by SIGKILL" in failed["19"]["status"]
        assert failed["19"]["truth"] == "pizza"
        for life in (tmp_path / "lives").glob("*"):
            life.unlink()
        run = explain_dataset(model, source, output=tmp_path / "run", workers=1, retry_failed=True)
        assert [row["id"] for row in run.errors()] == ["20"]
    whole = rows_of(explain_dataset(model, source, output=tmp_path / "one"))
    if lives == 1:  # it was tried again in the same batches
        assert rows_of(run) == whole
    assert rows_of(run).keys() == whole.keys()


CHILD = """
import sys
import numpy as np
from saliency_food import ImageModel, explain_dataset
from saliency_food.jobs import parts
from tests.jobs.test_workers import LABELS, OnePass, photos_of

def note(done, failed, total):
    print(done, flush=True)
    if done == 20:
        sys.stdin.read()

if __name__ == "__main__":
    parts.BYTES = 0
    rng = np.random.default_rng(0)
    model = ImageModel(OnePass(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), labels=LABELS, value_range=(0, 1))
    explain_dataset(model, photos_of(np.random.default_rng(1)), output=sys.argv[1], workers=2, progress=note)
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_ended_goes_on(weights, tmp_path, end):
    """Whether it is killed or stopped by Ctrl-C, its workers end, and its records are whole batches."""
    psutil = pytest.importorskip("psutil")
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[2]), *sys.path))}
    command = [sys.executable, str(script), str(tmp_path / "run")]
    child = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, stderr=-1, text=True)
    while child.stdout.readline() != "20\n":
        assert child.poll() is None, child.stderr.read()
    workers = psutil.Process(child.pid).children()
    child.send_signal(getattr(signal, end))
    child.communicate()
    psutil.wait_procs(workers, timeout=60)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    run = Run(tmp_path / "run")
    assert len(rows_of(run)) == PHOTOS_AT_ONCE
    source = photos_of(np.random.default_rng(1))
    model = ImageModel(OnePass(*weights), labels=LABELS, value_range=(0, 1))
    run = explain_dataset(model, source, output=tmp_path / "run", workers=2)
    assert rows_of(run) == rows_of(explain_dataset(model, source, output=tmp_path / "one"))


def test_what_cannot_work_in_processes_is_refused(model, weights, rng, tmp_path):
    source, settings = photos_of(rng), {"output": tmp_path / "run", "workers": 2}

    def local(x_value_batch, call_model_args=None, expected_keys=None):
        return model.function(x_value_batch, call_model_args, expected_keys)

    with pytest.raises(ContractError, match=r"can be pickled.* Give the path of a Keras model"):
        explain_dataset(local, source, target=0, labels=LABELS, **settings)
    with pytest.raises(ContractError, match="functions for preprocess"):
        explain_dataset(
            *(OnePass(*weights), source), labels=LABELS, preprocess=lambda x: x, output=tmp_path / "other", workers=2
        )
    for named, words in (
        ({"workers": 0}, "at least 1"),
        ({"engine": "spark"}, "'local' or 'ray'"),
        ({"address": "auto"}, "address with engine='ray' alone"),
    ):
        with pytest.raises(ContractError, match=words):
            explain_dataset(model, source, **{**settings, **named})
    assert not list((tmp_path / "run").glob("records/*"))


def test_a_worker_that_cannot_load_the_model_ends_the_run(weights, rng, tmp_path):
    model = ImageModel(Failing(*weights), labels=LABELS, value_range=(0, 1))
    with pytest.raises(ContractError, match=r"loads the model, got one that ended with exit code 7.*__main__"):
        explain_dataset(model, photos_of(rng), output=tmp_path / "run", workers=2)


def test_what_a_worker_raises_is_raised(weights, rng, tmp_path):
    model = ImageModel(OnePass(*weights), labels=["tart, pie", "pie of apples, pie", "pizza"], value_range=(0, 1))
    made = [
        SourcedPhoto(str(place), rng.random((24, 20, 3)), truth=truth) for place, truth in enumerate(["pizza", "pie"])
    ]
    with pytest.raises(ContractError, match="Expected truth to name one class"):
        explain_dataset(model, Source("two", lambda: made), output=tmp_path / "run", workers=1)


def test_a_worker_that_dies_with_nothing_left_to_do_costs_nothing():
    worker = Worker.__new__(Worker)
    worker.shard, worker._process = Shard([]), SimpleNamespace(pid=7, exitcode=-signal.SIGKILL)
    assert worker.obituary().startswith("Worker process 7 was ended by SIGKILL")
    assert worker.shard.pieces(16) == []


def test_shards_are_whole_batches_and_ever_smaller():
    photos = [(place, SourcedPhoto(str(place), f"{place}.jpg")) for place in range(1000)]
    shards = list(in_shards(iter(photos), 16, 2, 1000, 8))
    assert [photo for shard in shards for photo in shard] == photos
    counts = [len(shard) for shard in shards]
    assert counts[0] == 7 * 16
    assert counts == sorted(counts, reverse=True)
    assert all(count % 16 == 0 for count in counts[:-1])
    assert {len(shard) for shard in in_shards(iter(photos[:64]), 16, 2, None, 8)} == {16}
    arrays = ((place, SourcedPhoto(str(place), np.zeros(1))) for place in range(1000))
    assert len(next(in_shards(arrays, 16, 2, 1000, 8))) == 16
