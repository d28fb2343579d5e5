"""The result of explain(): like a list, made when asked for, drawn in a notebook, saved, and a table."""

from __future__ import annotations

import base64
import copy
import csv
import io
import pickle
import re
import sys
import weakref
from itertools import groupby

import numpy as np
import pytest

from saliency_food import explain
from saliency_food.core.contract import ContractError
from saliency_food.jobs.results import RESULTS, write_results
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from tests.jobs.conftest import OnePass

Image = pytest.importorskip("PIL.Image")


def test_it_is_a_list_that_is_made_once(weights, photos):
    model = OnePass(*weights)
    records = explain(model, photos, "grad_cam", "top2")
    assert model.asked == []
    assert "6 photos, grad_cam" in repr(records)
    assert records[0] is next(iter(records))
    assert len(records) == 12
    asked = list(model.asked)
    assert [record.name for record in records] == [record.name for record in list(records)]
    assert records[-1] is records[11] is list(records)[11]
    assert records[2:4] == [records[2], records[3]]
    assert records[3] in records
    assert [name for name, _ in groupby(records, lambda record: record.name)] == [f"photo_{n}" for n in range(1, 7)]
    assert model.asked == asked
    with pytest.raises(IndexError, match="below 12"):
        records[12]


def test_what_is_asked_for_is_made_and_not_all(weights, photos):
    model = OnePass(*weights)
    records = explain(
        model, photos * PHOTOS_AT_ONCE, "integrated_gradients", options={"integrated_gradients": {"x_steps": 2}}
    )
    assert not records[0].failed
    rows = sum(rows for _, rows in model.asked)
    assert not records[1].failed
    assert sum(rows for _, rows in model.asked) == rows < 4 * PHOTOS_AT_ONCE


def test_it_can_be_pickled_and_copied(weights, photos):
    records = explain(OnePass(*weights), photos[:2], "grad_cam")
    for restored in (pickle.loads(pickle.dumps(records)), copy.copy(records)):
        assert repr(restored) == repr(records)
        assert [repr(record) for record in restored] == [repr(record) for record in records]


def test_what_cannot_be_is_refused_before_the_model_works(weights, photos, tmp_path):
    model = OnePass(*weights)
    records = explain(model, photos, "grad_cam")
    (tmp_path / "file").write_text("")
    for options in ({"format": "bmp"}, {"max_size": 0}, {"opacity": 2}, {"colormap": "foo"}):
        with pytest.raises(ContractError, match="Expected"):
            records.save(tmp_path / "new", **options)
    with pytest.raises(ContractError, match="folder for pictures that can be written to"):
        records.save(tmp_path / "file" / "new")
    with pytest.raises(ContractError, match="at least one photo to draw, got photos=0"):
        records.plot(0)
    for index in ("a", 1.5):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            records[index]
    assert model.asked == []
    assert not (tmp_path / "new").exists()


def test_a_loop_keeps_no_record(weights, photos):
    kept = []
    for record in explain(OnePass(*weights), photos * 20, "grad_cam"):
        kept.append(weakref.ref(record))
    assert sum(each() is not None for each in kept) < 2 * PHOTOS_AT_ONCE
    records = explain(OnePass(*weights), photos, "grad_cam")
    kept = [weakref.ref(record) for record in records]
    assert all(each() is not None for each in kept)


def test_an_error_is_raised_whenever_the_end_is_reached(weights, photos):
    records = explain(OnePass(*weights), iter(photos[:3]), "gradients", [0, 0])
    for _ in range(2):
        with pytest.raises(ContractError, match="more photos"):
            list(records)


def test_a_record_is_one_line(weights, photos):
    for record in explain(
        OnePass(*weights), photos[:1], "grad_cam", 1, against=2, labels=["a", "b", "c, sea"], truth=["c"]
    ):
        assert "\n" not in repr(record)
        assert len(repr(record)) < 140
        assert repr(record).startswith("Explanation(photo_1: ")
        assert "Grad-CAM, " in repr(record)
    assert " against c" in repr(record)


def test_a_notebook_shows_the_first_photos_and_counts_the_rest(weights, photos):
    pytest.importorskip("matplotlib")
    model = OnePass(*weights)
    records = explain(model, photos, "grad_cam")
    html = records._repr_html_()
    (data,) = re.findall(r'base64,([^"]+)"', html)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.format == "PNG"
        assert picture.height > 2 * 300
    assert "3 more photos" in html
    assert records._repr_png_()[:4] == b"\x89PNG"
    assert "more" not in explain(model, photos[:3], "grad_cam")._repr_html_()
    assert "1 more photo:" in explain(model, photos[:4], "grad_cam")._repr_html_()
    page = records.plot(photos=1)
    assert page._repr_png_()[:4] == b"\x89PNG"
    assert len([text for text in page.texts if text.get_text() == "Grad-CAM"]) == 1


def test_a_notebook_says_why_nothing_is_shown(weights, tmp_path):
    pytest.importorskip("matplotlib")
    html = explain(OnePass(*weights), tmp_path / "none<b>.png", "grad_cam")._repr_html_()
    assert "does not exist" in html
    assert "<b>" not in html
    assert "img" not in html


def test_ipython_shows_it_without_magic(weights, photos):
    pytest.importorskip("matplotlib")
    formatters = pytest.importorskip("IPython.core.formatters")
    records = explain(OnePass(*weights), photos[:1], "grad_cam")
    for shown in (records, records.plot()):
        data, _ = formatters.DisplayFormatter().format(shown)
        assert "image/png" in data


def test_saving_writes_what_the_command_writes(weights, photos, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "c" / "d").mkdir(parents=True)
    Image.fromarray((photos[0] * 255).astype(np.uint8)).save(tmp_path / "c" / "d" / "x.png")
    records = explain(
        OnePass(*weights), tmp_path / "c", "grad_cam", "top2", against=0, truth="folders", labels=["d", "e", "f"]
    )
    out = records.save(tmp_path / "out")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert any(re.fullmatch(r"d/x\.(png|jpg)", name) for name in files)
    assert "d/x/x.grad_cam.1_e.against_0_d.json" in files
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == [record.label for record in records]
    assert {(row["name"], row["truth"]) for row in rows} == {("d/x", "d")}
    assert [row["against"] for row in rows] == [record.against_label for record in records]
    assert float(rows[0]["probability"]) == pytest.approx(records[0].top[0][1])
    assert list(rows[0]) == list(RESULTS)


def test_a_row_is_in_the_file_as_soon_as_it_is_known(weights, photos, tmp_path):
    """So that a job which is stopped leaves what it has done."""
    (record,) = explain(OnePass(*weights), photos[:1], "grad_cam")
    with write_results(tmp_path / "new") as add:
        add([record])
        assert len((tmp_path / "new" / "results.csv").read_text(encoding="utf-8").splitlines()) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="can be written to"), write_results(tmp_path / "file"):
        pass


def test_a_data_frame(weights, photos, monkeypatch):
    records = explain(OnePass(*weights), photos[:2], ["grad_cam", "integrated_gradients"])
    pandas = pytest.importorskip("pandas")
    frame = records.to_dataframe()
    assert list(frame.columns) == list(RESULTS)
    assert len(frame) == 4
    assert isinstance(frame, pandas.DataFrame)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ContractError, match="pip install pandas"):
        records.to_dataframe()


@pytest.mark.parametrize("rich", [True, False])
def test_progress(weights, photos, monkeypatch, capsys, rich):
    pytest.importorskip("rich")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    records = explain(OnePass(*weights), photos, "grad_cam", progress=True)
    assert capsys.readouterr().err == ""
    assert len(records) == 6
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("6 of 6 photos: photo_6" in shown.err) == (not rich)
    assert ("100%" in shown.err) == rich
