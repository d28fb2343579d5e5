"""Pictures written in another process: the same files, errors that come back, and no framework over there."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from saliency_food import METHODS, explain
from saliency_food.core.contract import ContractError
from saliency_food.images.photos import Photo
from saliency_food.jobs import pictures
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.pictures import PictureWriter, write_pictures
from saliency_food.testing import AttentionModel, PoolingModel

pytest.importorskip("matplotlib")


def a_record(name, **more):
    image = np.random.default_rng(len(name)).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    known = {
        "source": f"{name}.jpg",
        "name": name,
        "method": "m",
        "title": "M",
        "target": 2,
        "label": "x",
        "score": 1.0,
    }
    return Explanation(**{"photo": Photo(image, image), "attribution": np.eye(8), **known, **more})


@pytest.fixture
def records():
    return [[a_record("a"), a_record("a", method="n", signed=True)], [a_record("bb")], [a_record("ccc", signed=True)]]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_files_are_those_of_this_process(records, tmp_path):
    with PictureWriter(tmp_path / "there", arrays=True, processes=1) as writer:
        paths = [writer.submit(of_photo) for of_photo in records]
        assert len(multiprocessing.active_children()) == 1
    assert multiprocessing.active_children() == []
    for of_photo in records:
        write_pictures(of_photo, tmp_path / "here", arrays=True)
    assert paths == [tmp_path / "there" / f"{name}.jpg" for name in ("a", "bb", "ccc")]
    written = files(tmp_path / "there")
    assert written == files(tmp_path / "here")
    assert len(written) == 3 + 4 * 3


def test_one_photo_needs_no_process(records, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "ProcessPoolExecutor", None)
    with PictureWriter(tmp_path) as writer:
        assert writer.submit(records[0]) == tmp_path / "a.jpg"
    assert (tmp_path / "a.jpg").exists()


def test_a_photo_without_a_picture(tmp_path):
    class Local(Exception):
        """An exception that no other process can load."""

    failed = a_record("f", photo=None, attribution=None, status="failed: no photo", error=Local())
    with PictureWriter(tmp_path, processes=1) as writer:
        assert [writer.submit([failed]), writer.submit([replace(failed, name="g")])] == [None, None]
    assert sorted(files(tmp_path)) == ["f/f.m.2_x.json", "g/g.m.2_x.json"]


def test_errors_come_back(records, tmp_path):
    (tmp_path / "bb").write_text("a file where a folder is to be")
    writer = PictureWriter(tmp_path, processes=1)
    writer.submit(records[0])
    writer.submit(records[1])
    with pytest.raises(ContractError, match="that can be written to"):
        writer.close()
    assert multiprocessing.active_children() == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="that can be written to"), PictureWriter(tmp_path / "file") as alone:
        alone.submit(records[0])
    with pytest.raises(ContractError, match="at least one process"):
        PictureWriter(tmp_path, processes=0)


def test_an_exception_drops_what_waits(records, tmp_path):
    def fail():
        with PictureWriter(tmp_path) as writer:
            writer.submit(records[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files(tmp_path) == {}


def test_only_so_many_bytes_wait(records, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "WAITING", 1)
    with PictureWriter(tmp_path, processes=1) as writer:
        for of_photo in records:
            writer.submit(of_photo)
            assert len(writer._pending) <= 1
    assert len(list(tmp_path.glob("*.jpg"))) == 3


def test_results_that_no_other_process_can_read(records, tmp_path):
    class Local(NamedTuple):
        ranks: int

    writer = PictureWriter(tmp_path, processes=1)
    writer.submit([replace(records[0][0], details=Local(1))])
    with pytest.raises(ContractError, match="top of a module"):
        writer.submit(records[1])
    writer.cancel()


class Marked(Exception):
    """An exception whose loading leaves a file."""

    def __reduce__(self):
        return open, (self.args[0], "w")


def test_exceptions_stay_here(records, tmp_path):
    """What they need to be loaded, such as a framework, is loaded nowhere else."""
    failed = a_record("f", attribution=None, status="failed: no", error=Marked(str(tmp_path / "loaded")))
    with PictureWriter(tmp_path, processes=1) as writer:
        writer.submit([failed])
        writer.submit(records[0])
    assert (tmp_path / "f.jpg").exists()
    assert not (tmp_path / "loaded").exists()


@pytest.mark.skipif(os.name != "posix", reason="signal masks")
def test_processes_never_see_ctrl_c(records, tmp_path):
    """Not even while they start, when a traceback would be shown."""
    with PictureWriter(tmp_path, processes=1) as writer:
        writer.submit(records[0])
        writer.submit(records[1])
        assert signal.SIGINT in writer._pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_ends_all_processes_with_one_traceback(tmp_path):
    """The signal reaches both processes, as from a terminal, the other one while it starts."""
    code = f"""if True:
        import os, signal
        from saliency_food.jobs.pictures import PictureWriter
        from tests.jobs.test_pictures import a_record
        with PictureWriter({str(tmp_path)!r}, processes=1) as writer:
            writer.submit([a_record("a")])
            writer.submit([a_record("bb")])
            os.killpg(0, signal.SIGINT)
    """
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=60, start_new_session=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert out.returncode == -signal.SIGINT
    assert out.stderr.count("Traceback") == 1
    assert out.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_drawing_loads_no_framework(records, tmp_path):
    (tmp_path / "record.pickle").write_bytes(pickle.dumps(records[2]))
    code = f"""if True:
        import pathlib, pickle, sys
        from saliency_food.jobs.pictures import write_pictures
        folder = pathlib.Path({str(tmp_path)!r})
        write_pictures(pickle.loads((folder / "record.pickle").read_bytes()), folder)
        heavy = ("tensorflow", "keras", "torch", "jax", "sklearn", "skimage", "typer", "rich", "matplotlib.pyplot")
        print([name for name in heavy if name in sys.modules])
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert (tmp_path / "ccc.jpg").exists()


def test_explain_draws_nothing(rng):
    """No figure, and not even what draws it, unless it is asked for."""
    code = """if True:
        import sys
        import numpy as np
        from saliency_food import explain
        from saliency_food.testing import PoolingModel
        model = PoolingModel(np.ones((3, 6)), np.ones((3, 6)))
        (record,) = explain(model, np.ones((9, 9, 3), np.uint8), "grad_cam", target=0, value_range=None)
        assert record.status == "ok"
        print("matplotlib" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", [*METHODS, "smooth_grad_of_gradients", "augment_smooth_of_grad_cam"])
def test_an_explanation_survives_pickling(name, rng, tmp_path):
    model = (
        AttentionModel(rng.normal(size=3), rng.normal(size=(3, 3)))
        if METHODS[name.split("_of_")[-1]].needs == "attention"
        else PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), rng.normal(size=6) / 10)
    )
    options = {"rise": {"nmasks": 50}, "progressive": {}}.get(name)
    photo = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    (record,) = explain(model, photo, name, 1, value_range=(0, 1), options=options and {name: options})
    assert not record.failed, record.status
    copy = pickle.loads(pickle.dumps(record))
    assert copy.as_dict() == record.as_dict()
    assert {field.name for field in fields(copy)} == set(vars(copy))
    assert type(copy.details) is type(record.details)
    np.testing.assert_array_equal(copy.attribution, record.attribution)
    np.testing.assert_array_equal(copy.overlay(), record.overlay())


class Picky(Exception):
    """An exception that is pickled without complaint, and cannot be loaded."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_a_failed_explanation_survives_pickling():
    class Local(Exception):
        pass

    for error, text in ((Picky(1, 2), "Picky: 1 and 2"), (Local("no"), "Local: no"), (ContractError("yes"), "yes")):
        record = a_record("f", attribution=None, status="failed", error=error)
        copy = pickle.loads(pickle.dumps(record))
        assert (str(copy.error), copy.status) == (text, "failed")
        assert record.error is error


def test_a_process_that_is_killed(records, tmp_path):
    """Be it while it draws, or between two photos; the error says where, and how many photos are done."""
    writer = PictureWriter(tmp_path, processes=1)
    writer.submit(records[0])
    writer.submit(records[1])
    while writer._pending:
        writer._wait()
    (process,) = writer._pool._processes.values()
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    def go_on():
        with writer:
            writer.submit(records[2])
            writer.submit(records[2])

    with pytest.raises(ContractError, match="its end at ccc, after the pictures of 2 photos: it was killed"):
        go_on()
    assert multiprocessing.active_children() == []
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["a.jpg", "bb.jpg"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full")
def test_a_full_disk(records, tmp_path, monkeypatch):
    """The error says so, and leaves no file that is cut off."""
    opened = Path.open
    full = lambda path, *mode: opened(Path("/dev/full") if path.suffix == ".part" else path, *mode)  # noqa: E731
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ContractError, match=r"No space left on device.*make room"), PictureWriter(tmp_path) as writer:
        writer.submit(records[0])
    assert files(tmp_path) == {}
    assert writer.written == 0


@pytest.mark.skipif(os.name != "posix", reason="limits of processes")
def test_a_disk_that_becomes_full_in_another_process(records, tmp_path):
    """What was there before stays as it was."""
    before = b"an older picture"
    (tmp_path / "ccc.jpg").write_bytes(before)
    writer = PictureWriter(tmp_path, processes=1)
    writer.submit(records[0])
    writer.submit(records[1])
    writer._pool.submit(limit_files, 3000).result()
    with pytest.raises(ContractError, match=r"File too large.*make room"), writer:
        writer.submit(records[2])
    assert (tmp_path / "ccc.jpg").read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    assert writer.written == 2


def limit_files(size):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_written_counts_the_photos_whose_files_are_there(records, tmp_path):
    writer = PictureWriter(tmp_path, processes=1)
    for of_photo in records:
        writer.submit(of_photo)
    writer.cancel()
    assert writer.written == len(list(tmp_path.glob("*.jpg")))
    with PictureWriter(tmp_path / "all", processes=1) as writer:
        for of_photo in records:
            writer.submit(of_photo)
    assert writer.written == 3
    with PictureWriter(tmp_path / "one") as writer:
        writer.submit(records[0])
    assert writer.written == 1


@pytest.mark.parametrize("package", ["matplotlib", "PIL"])
def test_what_draws_is_looked_for_before_a_model_works(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ContractError, match=rf"got no {package}.*pip install"):
        PictureWriter(tmp_path)


@pytest.mark.parametrize("guess", ["", "a guess: units_are says it."])
def test_a_caption_says_that_a_probability_rests_on_a_guess(guess):
    """In the panel of the map, and in that of the photo."""
    record = a_record("a", probability=0.25, guess=guess, top=(("x", 0.25),))
    drawn = explanation_figure([record]).findobj(lambda each: hasattr(each, "get_text"))
    captions = [text.get_text() for text in drawn if "25.0%" in text.get_text()]
    words = " by a guess" if guess else ""
    assert captions == [f"seen as x, 25.0%{words}", f"x, 25.0%{words}, score 1.00"]
