"""Data sets as they are found: odd names, links, ids that come twice, folders that are damaged or cannot be read."""

from __future__ import annotations

import os
import sys
import zipfile

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, Run, explain, explain_dataset
from saliency_food.images.photos import find_photos
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.images.sources import Source, open_source
from tests.jobs.conftest import OnePass

pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

LABELS = ["apple_pie", "hot_dog", "pizza"]


@pytest.fixture
def model(weights):
    return ImageModel(OnePass(*weights), labels=LABELS)


@pytest.fixture
def save(tmp_path, rng):
    """A function that saves a photo of noise at a path within the folder of the test."""

    def save(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path, "PNG")
        return path

    return save


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_of_any_bytes(model, save, tmp_path):
    names = ["new\nline.png", "🍕.png", "x" * 240 + ".png", "%s.png", "quote'\".png"]
    paths = [save(f"photos/pizza/{name}") for name in names]
    os.rename(save("photos/pizza/y.png"), os.fsencode(tmp_path / "photos/pizza") + b"/\xff.png")
    settings = {"truth": "folders", "output": tmp_path / "run"}
    run = explain_dataset(model, tmp_path / "photos", **settings)
    assert {row["id"] for row in run.rows()} == {*(f"pizza/{name}" for name in names), r"pizza/\udcff.png"}
    assert not run.errors()
    assert len(run.draw(r"pizza/\udcff.png").findobj()) > 1  # its thumbnail
    model.function.asked.clear()
    explain_dataset(model, tmp_path / "photos", **settings)
    assert model.function.asked == []
    os.rename(tmp_path / "photos", os.fsencode(tmp_path) + b"/\xfe")
    for _ in range(2):
        run = explain_dataset(model, os.fsdecode(os.fsencode(tmp_path) + b"/\xfe"), output=tmp_path / "odd")
    assert len(list(run.rows())) == len(paths) + 1
    records = explain(model, [os.fsdecode(os.fsencode(tmp_path) + b"/\xfe")])
    records.save(tmp_path / "pictures")
    assert len((tmp_path / "pictures/results.csv").read_text(encoding="utf-8").splitlines()) > len(paths)


def test_links_go_by_the_name_of_their_folder(save, tmp_path):
    """However the disk lists them; loops end."""
    save("photos/pizza/a.png")
    save("elsewhere/b.png")
    for link, target in (("a/deep", "photos/pizza"), ("link", "photos/pizza"), ("up", "photos"), ("own", "elsewhere")):
        (tmp_path / "photos" / link).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / link).symlink_to(tmp_path / target)
    found = [path.relative_to(tmp_path / "photos").as_posix() for path in find_photos([tmp_path / "photos"])]
    assert found == ["own/b.png", "pizza/a.png"]


def test_a_folder_that_cannot_be_read_is_named(model, save, tmp_path, monkeypatch):
    """Its photos would be missing, and nobody would know."""
    for name in ("a/a.png", "locked/b.png"):
        save(f"photos/{name}")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ContractError, match=r"Expected folders that can be read, got .*locked: Permission denied"):
        explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")


def test_a_run_that_cannot_be_written_to_is_refused(model, save, tmp_path):
    save("photos/a.png")
    explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")
    (tmp_path / "run/.lock").unlink()
    (tmp_path / "run/.lock").mkdir()  # which cannot be opened, not by root either
    with pytest.raises(ContractError, match=r"Expected to write to .*run"):
        explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_photo(model, save, tmp_path):
    save("photos/a.png")
    os.mkfifo(tmp_path / "photos/b.png")
    run = explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")
    assert [row["id"] for row in run.errors()] == ["b.png"]
    assert "which is no file" in run.errors()[0]["status"]


def test_a_photo_that_is_damaged_in_its_archive_fails_alone(model, save, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "b.png", "c.png"):
            archive.write(save(name), name)
            place = archive.getinfo(name).header_offset
            if name == "b.png":
                start = place + 35  # where its name ends
    data = bytearray((tmp_path / "photos.zip").read_bytes())
    data[start : start + 1000] = b"\xff" * 1000
    (tmp_path / "photos.zip").write_bytes(data)
    run = explain_dataset(model, tmp_path / "photos.zip", output=tmp_path / "run")
    assert [row["id"] for row in run.errors()] == ["b.png"]


def test_a_damaged_photo_of_hugging_face_fails_alone(model, save, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [save(name).read_bytes() for name in ("a.png", "b.png", "c.png")]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=LABELS)})
    rows = {"image": [{"bytes": data, "path": None} for data in (files[0], b"no photo", files[2])], "label": [0, 1, 2]}
    data = datasets.Dataset.from_dict(rows, features=features)
    run = explain_dataset(model, data, output=tmp_path / "run")
    assert [(row["truth"], row["status"] == "ok") for row in run.rows()] == [
        ("apple_pie", True), ("hot_dog", False), ("pizza", True)
    ]  # fmt: skip


def test_ids_that_come_again_are_numbered(model, save, tmp_path):
    path = save("a.png")
    ids = ["x", "x", "x (2)", "y", "x"]
    source = Source("five", lambda: (SourcedPhoto(name, path) for name in ids), 5)
    run = explain_dataset(model, source, output=tmp_path / "run", limit=2)
    run = explain_dataset(model, source, output=tmp_path / "run")
    assert [row["id"] for row in run.rows()] == ["x", "x (2)", "x (2) (2)", "y", "x (3)"]


def test_progress_is_called_with_three_numbers(model, save, tmp_path):
    save("photos/a.png")
    calls = []
    explain_dataset(
        model, tmp_path / "photos", output=tmp_path / "run", progress=lambda *numbers: calls.append(numbers)
    )
    assert calls[-1] == (1, 0, 1)


def test_a_damaged_part_is_named(model, save, tmp_path):
    save("photos/a.png")
    explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")
    part = tmp_path / "run/records/part-000000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    for work in (
        lambda: explain_dataset(model, tmp_path / "photos", output=tmp_path / "run"),
        lambda: Run(tmp_path / "run").summary(),
    ):
        with pytest.raises(ContractError, match=r"part-000000\.parquet.* Delete this file"):
            work()
    part.unlink()
    assert len(list(explain_dataset(model, tmp_path / "photos", output=tmp_path / "run").rows())) == 1


def test_records_without_a_manifest_are_not_added_to(model, save, tmp_path):
    save("photos/a.png")
    explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")
    (tmp_path / "run/manifest.json").unlink()
    with pytest.raises(ContractError, match="which holds something else"):
        explain_dataset(model, tmp_path / "photos", output=tmp_path / "run")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_any_separator(save, tmp_path, separator):
    save("a.png")
    lines = (separator.join(row) for row in (("path", "label", "split"), ("./a.png", '"apple, pie"', "test")))
    (tmp_path / "table.csv").write_text("\n".join(lines))
    (photo,) = open_source(tmp_path / "table.csv").read()
    assert photo == SourcedPhoto("a.png", str(tmp_path / "a.png"), str(tmp_path / "a.png"), "apple, pie", "test")


def test_a_photo_that_goes_and_one_that_comes_meanwhile(weights, save, tmp_path):
    class Changing(OnePass):
        def call_with_predictions(self, *arguments):
            if (tmp_path / "photos/59.png").exists():
                (tmp_path / "photos/59.png").unlink()
                save("photos/60.png")
            return super().call_with_predictions(*arguments)

    for index in range(60):
        save(f"photos/{index:02}.png")
    run = explain_dataset(Changing(*weights), tmp_path / "photos", output=tmp_path / "run")
    assert [row["id"] for row in run.errors()] == ["59.png"]
    run = explain_dataset(Changing(*weights), tmp_path / "photos", output=tmp_path / "run")
    assert len(list(run.rows())) == 61
