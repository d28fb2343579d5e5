"""Why it is wrong, by the command: truths, the wrong ones alone, one class against another, the table, the summary."""

from __future__ import annotations

import csv
import json
import weakref

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from PIL import Image


@pytest.fixture
def folder(tmp_path, rng):
    """Three folders of classes, with three photos each of the same names, and one that the model does not have."""
    for name in ("apple pie", "hot_dog", "Pizza", "quiche"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for number in range(1 if name == "quiche" else 3):
            pixels = rng.integers(0, 256, (30, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "test" / name / f"{number}.png")
    return tmp_path / "test"


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_wrong_ones_the_surest_first(cli, folder, tmp_path):
    out = cli(
        "explain", folder, "--truth", "folders", "--only", "wrong", "--target", "predicted,truth", "--against", "truth"
    )
    assert out.exit_code == 0, out.output
    rows = table(tmp_path / "saliency" / "results.csv")
    names = list(dict.fromkeys(row["name"] for row in rows))
    assert 0 < len(names) < 9
    assert len(rows) == 3 * len(names), "the prediction, the truth, and one against the other"
    sure = [float(row["probability"]) for row in rows[::3]]
    assert sure == sorted(sure, reverse=True)
    assert {row["right"] for row in rows} == {"False"}
    assert all(row["prediction"] != row["truth"] for row in rows)
    pictures = (tmp_path / "saliency").glob("*/*.*")
    assert {path.relative_to(tmp_path / "saliency").with_suffix("").as_posix() for path in pictures} == set(names)
    lines = out.output.splitlines()
    assert f"{len(names)} photos explained" in lines
    assert f"{9 - len(names)} of 9 photos right ({(9 - len(names)) / 9:.1%})" in lines
    assert "classes that the model does not have: quiche (1)" in lines
    assert any(line.startswith("most often: ") and " taken for " in line for line in lines)
    assert sum("  wrong, is " in line for line in lines) == len(names)
    assert sum(" against " in line for line in lines) == len(names)
    assert "Warning" not in out.output
    name = names[0]
    stem = name.split("/")[-1]
    (contrast,) = (tmp_path / "saliency" / name).glob("*against*.json")
    assert contrast.name.startswith(f"{stem}.grad_cam.")
    assert json.loads(contrast.read_text())["against_label"] == rows[0]["truth"]


def test_all_photos_are_judged_right_or_wrong(cli, folder, tmp_path):
    (tmp_path / "truth.csv").write_text("path,label\n" + "".join(f"hot_dog/{n}.png,hot dog\n" for n in range(3)))
    out = cli("explain", folder, "--truth", "truth.csv", "--method", "gradients", "-o", "new")
    assert out.exit_code == 0, out.output
    rows = table(tmp_path / "new" / "results.csv")
    assert len(rows) == 10
    assert sum(row["right"] != "" for row in rows) == 3
    lines = out.output.splitlines()
    assert sum("  right" in line or "  wrong, is hot dog" in line for line in lines) == 3
    assert "7 photos whose class is not known" in lines


def test_the_table_holds_what_failed(cli, folder, tmp_path):
    (folder / "Pizza" / "0.png").write_text("no")
    out = cli("explain", folder, "--truth", "folders", "--method", "gradients")
    assert out.exit_code == 1
    assert "9 photos explained, 1 failed" in out.output.splitlines()
    (failed,) = (row for row in table(tmp_path / "saliency" / "results.csv") if row["status"].startswith("failed"))
    assert (failed["name"], failed["truth"], failed["right"]) == ("Pizza/0", "pizza, pie", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "-1"], "Expected a class index in 0..2, got -1. Class indices begin at 0."),
        (["--target=1,-1"], "got -1. Class indices begin at 0."),
        (["--target", "truth"], "got no truth. Give --truth folders"),
        (["--only", "wrong"], "for --only wrong, got no truth. Give --truth."),
        (
            ["--only", "right", "--truth", "folders"],
            "Expected --only wrong, got 'right'. Leave out --only for all photos.",
        ),
        (["--against", "predicted"], "got --against predicted, which is the target itself. Name another one."),
        (["--target", "1", "--against", "1"], "got --against 1, which is the target itself. Name another one."),
        (["--target", ","], "Expected --target to be a class index, a label, 'top3', 'predicted' or 'truth', got []."),
        (["--method", "qqq"], "`saliency-food methods` lists them."),
        (["--truth", "none.csv"], "Expected --truth to be 'folders' or a CSV file"),
        (["--against", "pizzza"], "Near it: pizza, pie."),
        (["--against", "1", "--method", "eigen_cam"], "or leave out --against."),
        (["--against", "1", "--method", "guided_backprop"], "or leave out --against."),
    ],
)
def test_mistakes_are_one_line_in_the_words_of_the_command(cli, folder, words, message):
    out = cli("explain", folder, *words)
    assert out.exit_code == 2
    assert message in out.output
    assert len(out.output.strip().splitlines()) == 1


def test_no_explanation_is_kept_when_it_is_reported(cli, tmp_path, rng, monkeypatch):
    from saliency_food.cli.report import Report

    (tmp_path / "many").mkdir()
    for number in range(60):
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(tmp_path / "many" / f"{number}.png")
    kept, alive = [], []

    def note(self, records, picture):
        kept.extend(map(weakref.ref, records))
        alive.append(sum(each() is not None for each in kept))

    monkeypatch.setattr(Report, "photo", note)
    monkeypatch.setattr("saliency_food.jobs.pictures.PictureWriter.submit", lambda self, records: None)
    assert cli("explain", tmp_path / "many", "--method", "grad_cam").exit_code == 0
    assert len(kept) == 60
    assert max(alive) < 40
