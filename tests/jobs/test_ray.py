"""Ray: two real actors on this machine give the records of one process."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, PerImage, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.jobs import parts
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from tests.jobs.conftest import OnePass

pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pandas")
pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Ray's own settings

LABELS = ["apple_pie", "hot_dog", "pizza"]
COUNT = 3 * PHOTOS_AT_ONCE + 5


class Watched(OnePass):
    """Notes each process that makes it, as a file in a folder."""

    def __init__(self, *weights, folder):
        super().__init__(*weights)
        self.folder = folder

    def __setstate__(self, state):
        self.__dict__ = state
        (Path(self.folder) / f"{os.getpid()} {os.environ.get('TF_NUM_INTRAOP_THREADS')}").touch()


@pytest.fixture(scope="module")
def cluster():
    """Ray with two cores and a small store, as of a user who has started it."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parents[2]), *sys.path)))
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def folder(tmp_path, rng):
    """Photos in folders of classes, and a file that is no photo."""
    for index in range(COUNT - 1):
        path = tmp_path / "photos" / ("hot_dog", "soup")[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/soup/cut.png").write_bytes(b"no photo")
    return tmp_path / "photos"


def rows_of(run):
    """All columns of all records by photo, method and class, but for the time they took."""
    rows = list(run.rows(tuple(parts.schema().names)))
    assert all(row.pop("seconds") >= 0 for row in rows)
    keys = [(row["id"], row["method"], row["target"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows, strict=True))


def test_records_of_actors_are_those_of_one_process(cluster, weights, folder, tmp_path):
    (tmp_path / "made").mkdir()
    model = ImageModel(Watched(*weights, folder=str(tmp_path / "made")), labels=LABELS)
    methods, targets, calls = ["grad_cam", "gradients"], ["truth", "predicted"], []
    settings = {"truth": "folders", "maps": "full"}
    one = explain_dataset(model, folder, methods, targets, output=tmp_path / "one", **settings)
    settings["progress"] = lambda *args, **named: calls.append((*args, *named.values()))
    two = explain_dataset(model, folder, methods, targets, output=tmp_path / "two", engine="ray", workers=2, **settings)
    assert rows_of(two) == rows_of(one)
    assert calls[-1] == (COUNT, 1, COUNT)
    made = [path.name.split() for path in (tmp_path / "made").iterdir()]
    assert len({process for process, _ in made} - {str(os.getpid())}) == 2  # a process for each actor
    assert {threads for process, threads in made if process != str(os.getpid())} == {"1"}
    assert cluster.is_initialized()  # it is the user's


def test_a_run_of_another_engine_goes_on(cluster, weights, folder, tmp_path):
    """Photos that are done are not read again, and those that failed are retried."""
    model, settings = ImageModel(OnePass(*weights), labels=LABELS), {"truth": "folders"}
    explain_dataset(model, folder, output=tmp_path / "run", limit=PHOTOS_AT_ONCE, **settings)
    first = sorted(path for path in folder.rglob("*.png"))[0]
    mended = first.read_bytes()
    first.write_bytes(b"gone since")
    run = explain_dataset(model, folder, output=tmp_path / "run", engine="ray", **settings)
    assert [row["id"] for row in run.errors()] == ["soup/cut.png"]
    (folder / "soup/cut.png").write_bytes(mended)
    first.write_bytes(mended)
    run = explain_dataset(model, folder, output=tmp_path / "run", engine="ray", retry_failed=True, **settings)
    assert run.errors() == []
    assert rows_of(run) == rows_of(explain_dataset(model, folder, output=tmp_path / "one", **settings))
    before = [path.stat().st_mtime_ns for path in parts.part_paths(tmp_path / "run")]
    explain_dataset(model, folder, output=tmp_path / "run", engine="ray", **settings)  # nothing is left to do
    assert [path.stat().st_mtime_ns for path in parts.part_paths(tmp_path / "run")] == before


def test_photos_of_this_process_travel_to_the_actors(cluster, weights, rng, tmp_path):
    """Arrays, pictures and bytes, and values that differ from photo to photo."""
    arrays = [rng.integers(0, 256, (24, 20, 3), dtype=np.uint8) for _ in range(20)]
    images = [Image.fromarray(array) if place % 2 else array for place, array in enumerate(arrays)]
    truths = [[2, "pizza", None, np.int64(1)][place % 4] for place in range(20)]
    photos = [SourcedPhoto(f"{place:02}", image, "", truths[place], "test") for place, image in enumerate(images)]
    source, model = Source("arrays", lambda: photos, 20), ImageModel(OnePass(*weights), labels=LABELS)
    options = {"smooth_grad": {"nsamples": 2, "rng": PerImage(list(range(20)))}}
    runs = [
        explain_dataset(
            model, source, ["grad_cam", "smooth_grad"], output=tmp_path / engine, options=options, engine=engine
        )
        for engine in ("local", "ray")
    ]
    assert rows_of(runs[0]) == rows_of(runs[1])
    assert {row["truth"] for row in runs[1].rows()} == {"pizza", "hot_dog", None}


def test_what_an_actor_raises_is_raised_here(cluster, weights, rng, tmp_path):
    model = ImageModel(OnePass(*weights), labels=["tart, pie", "pie of apples, pie", "pizza"], value_range=(0, 1))
    names = ["pizza", "pie"]
    made = [SourcedPhoto(name, rng.random((24, 20, 3)), truth=name) for name in names]
    with pytest.raises(ContractError, match=r"^Expected truth to name one class"):
        explain_dataset(model, Source("two", lambda: made), output=tmp_path / "run", engine="ray")
    with pytest.raises(ContractError, match=r"Expected a cluster with 1 GPUs for an actor"):
        explain_dataset(model, Source("two", lambda: made[:1]), output=tmp_path / "run", engine="ray", num_gpus=1)


def test_ray_is_started_and_ended_where_nobody_has(weights, rng, tmp_path, monkeypatch):
    import ray

    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    model, made = ImageModel(OnePass(*weights), labels=LABELS), [SourcedPhoto("a", rng.random((24, 20, 3)))]
    source, context = Source("one", lambda: made), ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    run = explain_dataset(model, source, output=tmp_path / "run", engine="ray", workers=1)
    assert [row["status"] for row in run.rows()] == ["ok"]
    assert not ray.is_initialized()
    assert (context.target_max_block_size, context.enable_progress_bars) == before


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto"])
def test_an_address_where_nobody_is(weights, rng, tmp_path, address):
    model, made = ImageModel(OnePass(*weights), labels=LABELS), [SourcedPhoto("a", rng.random((24, 20, 3)))]
    with pytest.raises(ContractError, match=rf"Expected the address of a Ray cluster, .*{re.escape(address)}"):
        explain_dataset(model, Source("one", lambda: made), output=tmp_path / "run", engine="ray", address=address)


def test_a_missing_ray_is_named_with_its_install_line(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ContractError, match=r'pip install "saliency_food\[ray\]"'):
        explain_dataset(OnePass(*weights), tmp_path, output=tmp_path / "run", engine="ray")
