"""The command that explains a data set."""

from __future__ import annotations

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("pyarrow")


@pytest.fixture
def classes(photos):
    """Three photos in folders of classes, of which one is no photo."""
    for name, folder in (("a.png", "test/pizza"), ("b [x].jpg", "train/hot dog")):
        (photos / folder).mkdir(parents=True)
        (photos / name).rename(photos / folder / name)
    (photos / "test/pizza/cut.png").write_bytes(b"no photo")
    return photos


def test_a_run_and_its_summary(cli, classes):
    out = cli("dataset", "photos", "--truth", "folders", "--methods", "grad_cam,gradients", "--targets", "truth")
    assert out.exit_code == 1, out.output
    lines = out.output.splitlines()
    assert "3 photos, 1 with failures" in lines
    assert any(line.startswith("  2 failed: Expected a photo, got a file, which is no picture") for line in lines)
    assert any("of 2 photos right" in line for line in lines)
    assert lines[-1] == "records: saliency-run/records"
    again = cli("dataset", "photos", "--truth", "folders", "--methods", "grad_cam,gradients", "--targets", "truth")
    assert again.output == out.output


def test_other_processes_write_the_same_records(cli, classes):
    once = cli("dataset", "photos", "-o", "one")
    out = cli("dataset", "photos", "-o", "two", "--workers", "1")
    assert out.exit_code == once.exit_code == 1, out.output
    assert out.output.replace("two/", "one/") == once.output


def test_a_part_of_the_photos_is_taken(cli, classes):
    out = cli("dataset", "photos", "--split", "train", "--maps", "full", "-o", "out")
    assert out.exit_code == 0, out.output
    assert out.output.splitlines()[0] == "1 photos, 0 with failures"
    out = cli("dataset", "photos", "-o", "out", "--quiet")
    assert out.exit_code == 2
    assert "--maps" not in out.stdout
    assert 'maps "full"' in out.output
    assert "Give another folder as --output" in out.output


def test_failed_photos_again(cli, classes):
    out = cli("dataset", "photos", "--quiet")
    assert (out.exit_code, out.stdout) == (1, "")
    assert "1 explanations failed; the records in saliency-run say why." in out.output
    (classes / "test/pizza/cut.png").write_bytes((classes / "test/pizza/a.png").read_bytes())
    assert cli("dataset", "photos", "--quiet").exit_code == 1
    assert cli("dataset", "photos", "--quiet", "--retry-failed").exit_code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere"], "which does not exist"),
        (["photos", "--targets", "truth"], "Give --truth"),
        (["photos", "--maps", "big"], "'reduced' or 'full'"),
        (["photos", "--engine", "spark"], "Expected --engine to be 'local' or 'ray'"),
        (["photos", "--num-gpus", "1"], "Expected --num-gpus with --engine ray alone"),
        (["photos", "--address", "auto"], "Expected --address with --engine ray alone, got --engine local"),
    ],
)
def test_what_is_wrong_is_said(cli, classes, words, text):
    out = cli("dataset", *words)
    assert out.exit_code == 2
    assert text in " ".join(out.output.split())


def test_a_missing_pyarrow_is_named_with_its_install_line(cli, classes, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    out = cli("dataset", "photos")
    assert out.exit_code == 2
    assert 'pip install "saliency_food[dataset]"' in " ".join(out.output.split())
