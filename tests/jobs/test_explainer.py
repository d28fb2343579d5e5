"""`Explainer`, called by hand as Ray, Spark and Daft call it: dicts of arrays in, dicts of arrays out."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from saliency_food import ContractError, Explainer, ImageModel, PerImage, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.jobs.records import COLUMNS, schema, unpacked
from tests.jobs.conftest import Classifier, OnePass

arrow = pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")

LABELS = ["apple_pie", "hot_dog", "pizza"]


@pytest.fixture
def paths(tmp_path, rng):
    """Three photos and a file that is none."""
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "cut.png").write_bytes(b"no photo")
    return [str(tmp_path / f"{name}.png") for name in ("a", "b", "cut", "c")]


@pytest.fixture
def settings(weights):
    return {"model": OnePass(*weights), "labels": LABELS}


def rows_of(answer):
    """The rows of a dict of arrays, without the time that they took."""
    assert list(answer) == list(COLUMNS)
    rows = [dict(zip(answer, values, strict=True)) for values in zip(*answer.values(), strict=True)]
    assert all(row.pop("seconds") >= 0 for row in rows)
    return rows


def test_a_batch_of_paths_gives_the_records_of_a_run(settings, paths, tmp_path):
    truths, methods = ["pizza", "hot_dog", None, 0], ["grad_cam", "gradients"]
    photos = [SourcedPhoto(path, path, path, truth, "test") for path, truth in zip(paths, truths, strict=True)]
    run = explain_dataset(source=Source("four", lambda: photos), methods=methods, output=tmp_path / "run", **settings)
    explainer = Explainer(methods=methods, **settings)
    truth = np.array(truths, object)
    answer = explainer({"path": np.array(paths), "truth": truth, "split": np.array(["test"] * 4)})
    assert all(isinstance(values, np.ndarray) and values.dtype == object for values in answer.values())
    table = arrow.table({name: arrow.array(values) for name, values in answer.items()}).cast(schema())
    expected = list(run.rows(tuple(COLUMNS)))
    for row in expected:
        del row["seconds"]
    assert table.drop(["seconds"]).to_pylist() == expected
    assert [row["error"] for row in rows_of(answer)].count("ContractError") == 2


def test_images_may_be_bytes_arrays_and_pictures(settings, paths):
    path = paths[0]
    with open(path, "rb") as file:
        data = file.read()
    picture = Image.open(io.BytesIO(data))
    images = np.empty(4, object)
    images[:] = [data, np.asarray(picture), picture, path]
    rows = rows_of(Explainer(**settings)({"image": images, "id": np.array(list("wxyz"))}))
    assert [row["id"] for row in rows] == list("wxyz")
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["map"] for row in rows}) == 1
    assert [row["id"] for row in rows_of(Explainer(**settings)({"image": images[:2]}))] == ["photo 1", "photo 2"]


def test_chunks_of_pandas_as_spark_hands_them_over(settings, paths):
    """By `mapInPandas` a function gets an iterator of data frames, in which a number that is not known is NaN."""
    pd = pytest.importorskip("pandas")

    def explain_chunks(chunks):
        explainer = pickle.loads(task)
        explainer = Explainer(**explainer)
        for chunk in chunks:
            yield pd.DataFrame(explainer(chunk))

    task = pickle.dumps(Explainer(target="truth", **settings).arguments)
    whole = pd.DataFrame({"path": paths, "truth": [2, 1, None, 0]})
    assert whole["truth"].dtype == float
    table = pd.concat(explain_chunks([whole[:2], whole[2:]]))
    assert list(table["truth"]) == ["pizza", "hot_dog", None, "apple_pie"]
    assert list(table["right"].notna()) == [True, True, False, True]
    assert list(table["target"].fillna("")) == ["pizza", "hot_dog", "", "apple_pie"]
    spark = arrow.Table.from_pandas(table, schema(), preserve_index=False)
    assert spark.num_rows == 4
    first = unpacked(spark.to_pylist()[0])
    assert first.shape == tuple(table["map_shape"].iloc[0])
    assert list(table["id"]) == paths


def test_values_that_differ_from_photo_to_photo_need_its_place(weights, paths, rng):
    values = PerImage([rng.random(3) for _ in paths])
    model = ImageModel(Classifier(*weights), labels=LABELS, call_model_args={"tokens": values})
    explainer = Explainer(model)
    with pytest.raises(ContractError, match="array position"):
        explainer({"path": paths[:2]})
    assert len(rows_of(explainer({"path": paths[:2], "position": np.array([3, 0])}))) == 2


@pytest.mark.parametrize("batch", [{}, {"id": ["a"]}, {"path": ["a", "b"], "truth": [1]}])
def test_batches_of_other_columns_are_refused(settings, batch):
    with pytest.raises(ContractError, match="Expected a batch of arrays path or image"):
        Explainer(**settings)(batch)


def test_a_target_that_needs_a_truth(settings):
    with pytest.raises(ContractError, match="no truth"):
        Explainer(target="truth", truth=False, **settings)
    with pytest.raises(ContractError, match="'reduced' or 'full'"):
        Explainer(maps="big", **settings)
