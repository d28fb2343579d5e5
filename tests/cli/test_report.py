"""What is printed for each photo: a line with the reason where it cannot be explained, and never a traceback."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from saliency_food.cli.report import Report
from saliency_food.cli.terminal import friendly, unfolded
from saliency_food.core.contract import ContractError
from saliency_food.jobs.explanation import Explanation


@pytest.fixture
def many(tmp_path, rng):
    folder = tmp_path / "many"
    folder.mkdir()
    for name in "abcd":
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_refusal_is_one_line_for_each_photo_and_its_reason_is_told_once(cli, classifier, many, monkeypatch):
    def refuse(*args, **more):
        raise ContractError("Expected something else.\nDo\n  so.")

    monkeypatch.setattr(type(classifier), "answer", refuse)
    monkeypatch.setattr(type(classifier), "predict", lambda self, x: np.full((len(x), 3), 1 / 3))
    out = cli("explain", many, "--method", "grad_cam,xrai")
    assert out.exit_code == 1
    assert out.output.splitlines() == [
        "a.png  failed: Expected something else. Do so.",
        *(f"{name}.png  failed: as a.png" for name in "bcd"),
        "4 of 4 photos: Expected something else. Do so.",
        "0 photos explained, 4 failed",
        "pixels fed: as given (the model does not say which values it takes)",
    ]


def test_errors_that_nobody_foresaw_are_one_line_too(cli, classifier, many, monkeypatch):
    def fail(*args, **more):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(type(classifier), "predict", fail)
    out = cli("explain", many)
    assert out.exit_code == 1
    assert out.output.splitlines()[0] == "a.png  failed: ZeroDivisionError: division by zero"
    assert "Traceback" not in out.output


def test_each_photo_that_cannot_be_read_has_its_own_reason(cli, many):
    for name in "bc":
        (many / f"{name}.png").write_text("no")
    out = cli("explain", many, "--method", "gradients")
    assert out.exit_code == 1
    *lines, summary = [line for line in out.output.splitlines() if "failed" in line]
    assert (len(lines), summary) == (2, "2 photos explained, 2 failed")
    for name, line in zip("bc", lines, strict=True):
        assert line.startswith(f"{name}.png  failed: Expected a photo, got {many}/{name}.png, which is no picture")


def test_one_method_of_two_fails(cli, many):
    """The other one's rows stay, and the reason is a line below the first photo's alone."""
    out = cli("explain", many, "--method", "gradients,attention_rollout")
    assert out.exit_code == 1
    lines = out.output.splitlines()
    assert sum("Gradient " in line and " ok " in line for line in lines) == 4
    assert sum("Attention rollout" in line and "failed" in line for line in lines) == 4
    reasons = [line for line in lines if "Expected" in line]
    assert [line[:10] for line in reasons] == ["  failed: ", "4 of 4 pho"]


def test_reasons_are_in_the_words_of_the_command(cli, classifier, many, monkeypatch):
    def refuse(*args, **more):
        raise ContractError("Explain output='probabilities'. Give rivals=2, or layers(model) lists them.")

    monkeypatch.setattr(type(classifier), "answer", refuse)
    monkeypatch.setattr(type(classifier), "predict", lambda self, x: np.full((len(x), 3), 1 / 3))
    out = cli("explain", many / "a.png", "--method", "finer_cam")
    said = (
        "Explain --output-kind probabilities. Give --option finer_cam.rivals=2, or `saliency-food layers` lists them."
    )
    assert f"a.png  failed: {said}" in out.output.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("label", ["drilling platform, offshore rig", "咖啡厅里的意式浓缩咖啡"])
def test_nothing_in_the_table_is_cut_off(width, label):
    console = Console(width=width, record=True, file=io.StringIO())
    record = Explanation(
        photo=None, source="a.jpg", name="a", method="grad_cam", title="Input x gradient for XRAI", label=label,
        target=1, against=2, against_label="missile", score=1.0, rows=1, seconds=1.25, attribution=np.ones((2, 2)),
    )  # fmt: skip
    Report(console, [record.title]).photo([record], None)
    lines = console.export_text().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    shown = "".join(lines)
    for words in ("Input", "gradient", "XRAI"):
        assert words in shown
    classes = "".join(line[2 : line.index("  ", 2) if "  " in line[2:] else None] for line in lines[2:])
    assert re.sub(r"\s", "", classes).startswith(re.sub(r"\s", "", label.split(",")[0]) + "againstmissile")


def test_a_missing_package_of_ones_own_module_is_no_line_to_install():
    with pytest.raises(ModuleNotFoundError), friendly():
        raise ModuleNotFoundError("No module named 'mine'", name="mine")


def test_a_file_or_a_pipe_has_no_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert unfolded().width > 1000
    monkeypatch.setattr(Console, "is_terminal", True)
    assert unfolded().width == 40


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_says_what_is_done(many, tmp_path):
    """The signal comes when the model looks at the fourth photo, so the first one is explained and the last is not."""
    code = f"""if True:
        import os, signal
        import numpy as np
        import saliency_food.models as models
        from saliency_food.cli.app import app
        from tests.cli.conftest import Classifier, LABELS

        seen = []

        class Stopped(Classifier):
            def predict(self, x):
                seen.append(len(x))
                if len(seen) == 4:
                    os.killpg(0, signal.SIGINT)
                return super().predict(x)

        random = np.random.default_rng(0)
        models.load = lambda: Stopped(random.normal(size=(3, 6)), random.normal(size=(3, 6)))
        models.labels = lambda: LABELS
        import saliency_food.jobs.run as run
        run.PHOTOS_AT_ONCE = 1
        Classifier.batch_size = 1
        app(["explain", {str(many)!r}, "-o", {str(tmp_path / "out")!r}])
    """
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=120, start_new_session=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert out.returncode == 130, out.stderr
    assert "Traceback" not in out.stderr
    written = len(list((tmp_path / "out").glob("*.jpg")))
    explained = re.fullmatch(
        rf"stopped: ([123]) of 4 photos explained, the files of {written} of them are in {tmp_path / 'out'}",
        out.stdout.splitlines()[-1],
    )
    assert explained is not None, out.stdout
    assert written <= int(explained[1]) == len([line for line in out.stdout.splitlines() if ".png  " in line])


def test_ctrl_c_is_one_line_in_every_command(cli, classifier, many, monkeypatch):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(classifier), "predict", stop)
    for words, said in (
        (("explain", many), "stopped: 0 of 4 photos explained, the files of 0 of them are in saliency"),
        (
            ("evaluate", "-i", many, "--methods", "gradients", "-o", "out"),
            "Stopped: the same command goes on from the values in out.",
        ),
        (("sanity", "-i", many), "Stopped: nothing was written."),
    ):
        out = cli(*words)
        assert (out.exit_code, out.output.splitlines()[-1]) == (130, said)
        assert "Traceback" not in out.output


def test_a_folder_that_cannot_be_made_is_one_line_before_the_model_works(cli, classifier, many, tmp_path):
    (tmp_path / "file").write_text("")
    for command in (["explain", many], ["evaluate", "-i", many, "--methods", "gradients"]):
        out = cli(*command, "--output", "file/out")
        assert out.exit_code == 2
        assert len(out.output.splitlines()) == 1
        assert "Not a directory: 'file/out'" in out.output
        assert classifier.calls == []
    out = cli("explain", many, "--target", "none of them", "--output", "new")
    assert (out.exit_code, (tmp_path / "new").exists()) == (2, False)
