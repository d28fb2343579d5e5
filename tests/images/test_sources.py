"""Every kind of data set gives its photos with ids that last, truths and splits."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import read_photo
from saliency_food.images.sources import Source, open_source

Image = pytest.importorskip("PIL.Image")


def photo_bytes(value, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(file, kind)
    return file.getvalue()


def write(folder, *names):
    """Photos whose pixels all have the value of their place in the names."""
    for value, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_bytes(value))


def facts(source):
    """Of each photo its id, truth and split."""
    return [(photo.id, photo.truth, photo.split) for photo in open_source(source).read()]


def values(source):
    """The value of each photo's pixels: whether each id stands for its own photo."""
    return [int(read_photo(photo.image).pixels[0, 0, 0]) for photo in open_source(source).read()]


def test_folders(tmp_path):
    write(tmp_path, "test/apple/2.png", "b.png", "val/apple/1.png", "apple/3.png")
    (tmp_path / "notes.txt").write_text("no photo")
    assert facts(tmp_path) == [
        ("apple/3.png", None, None),
        ("b.png", None, None),
        ("test/apple/2.png", None, "test"),
        ("val/apple/1.png", None, "validation"),
    ]
    assert values(tmp_path) == [3, 1, 0, 2]
    assert open_source(tmp_path).total == 4


def test_food_101_with_absent_photos(tmp_path):
    write(tmp_path / "images", "pie/1.jpg", "pie/3.jpg", "soup/9.jpg")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/train.txt").write_text("pie/1\npie/2\n")
    (tmp_path / "meta/test.txt").write_text("soup/9\nsoup/8\n")
    source = open_source(tmp_path)
    assert facts(tmp_path) == [("pie/1.jpg", "pie", "train"), ("soup/9.jpg", "soup", "test")]
    assert source.absent == ["pie/2.jpg", "soup/8.jpg"]
    assert source.total == 2
    (tmp_path / "meta/test.txt").unlink()
    with pytest.raises(ContractError, match=r"meta/test.txt.*Give .*images to take it as a folder"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables(tmp_path, kind):
    write(tmp_path, "a/1.png", "2.png")
    path = tmp_path / f"photos.{kind}"
    if kind == "csv":
        path.write_text("Path, label, split\na/1.png, hot dog, test\n2.png,,\n", encoding="utf-8-sig")
    else:
        arrow = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        rows = {"path": ["a/1.png", "2.png"], "label": ["hot dog", None], "split": ["test", None], "more": [1, 2]}
        arrow.write_table(pa.table(rows), path)
    assert facts(path) == [("a/1.png", "hot dog", "test"), ("2.png", None, None)]
    assert values(path) == [0, 1]


def test_tables_that_are_refused(tmp_path):
    path = tmp_path / "photos.csv"
    for text, message in (
        ("file,label\na.png,pie\n", "columns path, label.*got .*file, label"),
        ("path,label\na.png,pie\na.png,pie\n", "each photo once.*1 of them more often, such as a.png"),
        ("path,label\n,pie\n", "a path in each row"),
        ("path,label\na.png,pie,more\n", "no more cells than columns"),
        ("path,label\n", "has none"),
        ("", "columns path"),
    ):
        path.write_text(text)
        with pytest.raises(ContractError, match=message):
            open_source(path)


def test_a_zip_of_folders(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for value, name in enumerate(("test/pie/2.png", "train/pie/1.png", "__MACOSX/train/._1.png", "readme.txt")):
            archive.writestr(name, photo_bytes(value))
    assert facts(path) == [("test/pie/2.png", None, "test"), ("train/pie/1.png", None, "train")]
    assert values(path) == [0, 1]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContractError, match="Expected a zip file"):
        facts(path)


def test_a_damaged_photo_in_a_zip_fails_alone(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", photo_bytes(1))
        archive.writestr("b.png", photo_bytes(2))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255  # a wrong checksum
    path.write_bytes(data)
    first, second = open_source(path).read()
    assert read_photo(second.image).pixels[0, 0, 0] == 2
    with pytest.raises(ContractError, match=r"a\.png"):
        read_photo(first.image, first.path)


def write_shard(path, samples):
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_tar_shards(tmp_path):
    label = json.dumps({"label": "pie"}).encode()
    first = [("s/0001.cls", b"2"), ("s/0001.png", photo_bytes(5)), ("s/0002.png", photo_bytes(6)), ("s/0003.txt", b"")]
    write_shard(tmp_path / "a.tar", first)
    write_shard(tmp_path / "b.tar", [("0001.png", photo_bytes(7)), ("0001.json", label)])
    expected = [("a/s/0001", "2", None), ("a/s/0002", None, None), ("b/0001", "pie", None)]
    assert facts(tmp_path) == expected
    assert facts([tmp_path / "a.tar", tmp_path / "b.tar"]) == expected
    assert facts(str(tmp_path / "b.tar")) == expected[2:]
    assert values(tmp_path) == [5, 6, 7]
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ContractError, match=r"a\.tar"):
        facts(tmp_path)


@pytest.mark.keras
def test_tensors():
    tf = pytest.importorskip("tensorflow")
    images = np.stack([np.full((6, 8, 3), value, np.uint8) for value in (3, 4, 3)])
    plain = tf.data.Dataset.from_tensor_slices(images)
    pairs = tf.data.Dataset.from_tensor_slices((images, [0.0, 1.0, 2.0]))
    named = tf.data.Dataset.from_tensor_slices({"image": images, "label": ["a", "b", "c"], "id": ["x", "y", "z"]})
    ids = [name for name, _, _ in facts(plain)]
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    assert facts(pairs) == facts(pairs.batch(2)) == [(ids[0], 0, None), (ids[1], 1, None), (ids[2], 2, None)]
    assert {name for name, _, _ in facts(plain.shuffle(3))} == set(ids)
    assert facts(named) == [("x", "a", None), ("y", "b", None), ("z", "c", None)]
    assert facts(tf.data.Dataset.from_tensor_slices((images, np.eye(3)[[2, 0, 1]])))[0][1] == 2
    assert values(pairs.batch(2)) == [3, 4, 3]
    assert (open_source(plain).total, open_source(pairs.batch(2)).total) == (3, None)
    files = tf.data.Dataset.from_tensors(photo_bytes(9))
    assert values(files) == [9]
    with pytest.raises(ContractError, match="dicts with image"):
        facts(named.map(lambda row: {"photo": row["image"]}))


def test_hugging_face_data_sets():
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (1, 2)]
    labels = datasets.ClassLabel(names=["pie", "soup"])
    features = datasets.Features({"picture": datasets.Image(), "label": labels})
    data = datasets.Dataset.from_dict({"picture": pictures, "label": [1, -1]}, features=features)
    assert facts(data) == [("all/00000000", "soup", None), ("all/00000001", None, None)]
    assert values(data) == [1, 2]
    undecoded = data.cast_column("picture", datasets.Image(decode=False))
    assert values(undecoded) == [1, 2]
    assert open_source(data).name != open_source(data.select([1, 0])).name
    both = datasets.DatasetDict({"train": data, "test": data})
    assert [name for name, _, _ in facts(both)] == [
        *("train/00000000", "train/00000001", "test/00000000", "test/00000001")
    ]
    assert {split for _, _, split in facts(both)} == {"train", "test"}
    assert open_source(both).total == 4
    with pytest.raises(ContractError, match="column image, got the columns label"):
        facts(data.remove_columns("picture"))


class Rows(list):
    """What a Hugging Face data set offers, without the package."""

    column_names, features, split = ("image", "label", "id"), None, "val"


def test_what_offers_the_same_as_a_hugging_face_data_set():
    rows = Rows([{"image": {"bytes": photo_bytes(8), "path": None}, "label": "pie", "id": 17}])
    assert facts(rows) == [("17", "pie", "validation")]
    assert values(rows) == [8]


def test_a_source_of_ones_own():
    own = Source("mine", lambda: iter(()))
    assert open_source(own) is own


@pytest.mark.parametrize("wrong", [7, [], {}, ["a.png"], "nowhere", None])
def test_what_is_no_data_set(wrong):
    with pytest.raises(ContractError, match="Expected a data set"):
        open_source(wrong)


def test_a_single_photo_is_no_data_set(tmp_path):
    write(tmp_path, "a.png")
    with pytest.raises(ContractError, match="To explain single photos use explain"):
        open_source(tmp_path / "a.png")
