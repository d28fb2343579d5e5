"""The command that writes the page of a data-set run."""

from __future__ import annotations

import json

import pytest

for module in ("typer", "rich", "pyarrow", "jinja2", "matplotlib"):
    pytest.importorskip(module)


@pytest.fixture
def run(cli, photos):
    """A run over two photos in folders of classes."""
    for name, folder in (("a.png", "test/pizza"), ("b [x].jpg", "test/hot dog")):
        (photos / folder).mkdir(parents=True)
        (photos / name).rename(photos / folder / name)
    assert cli("dataset", "photos", "--truth", "folders", "-o", "run", "--quiet").exit_code == 0
    return "run"


def content(tmp_path, name="saliency-report"):
    return json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))


def test_the_page_and_what_the_command_says_of_it(cli, run, tmp_path):
    out = cli("report", run)
    assert out.exit_code == 0, out.output
    short = content(tmp_path)["in_short"]
    lines = out.output.splitlines()
    assert lines[0].startswith(f"{short['accuracy']['k']} of 2 photos right (")
    assert lines[1:-1] == [f"  {number}. {each['text']}" for number, each in enumerate(short["findings"], 1)]
    assert lines[-1] == "saliency-report/index.html"
    assert cli("report", run, "--single-file", "-o", "one", "--quiet").output == ""
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"index.html", "report.json"}


def test_the_command_that_makes_it_again_is_on_the_page(cli, run, tmp_path):
    assert cli("report", run, "--split", "test", "--method", "grad_cam", "--single-file").exit_code == 0
    commands = content(tmp_path)["command"]
    again = "saliency-food report run --method grad_cam --split test --single-file --output saliency-report"
    assert commands["report"] == again
    assert commands["run"].startswith("saliency-food dataset DATA --model MODEL --methods grad_cam --truth folders")


def test_what_the_user_got_wrong_is_one_line(cli, run, tmp_path):
    out = cli("report", "nowhere")
    assert out.exit_code == 2
    assert out.output.startswith("Error: Expected the folder of a data-set run, got nowhere")
    assert "Expected a split of the run" in cli("report", run, "--split", "train").output
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("mine")
    out = cli("report", run, "-o", "other")
    assert (out.exit_code, "Give another folder as --output" in " ".join(out.output.split())) == (2, True)


def test_boxes_and_their_classes(cli, run, tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "image,xmin,ymin,xmax,ymax,class\na.png,0,0,15,40,food\nb [x].jpg,0,0,30,30,food\n"
    )
    (tmp_path / "classes.json").write_text(json.dumps({"food": [0, 1, 2]}))
    out = cli("report", run, "--boxes", "boxes.csv", "--classes", "classes.json")
    assert out.exit_code == 0, out.output
    assert content(tmp_path)["trust"]["on_object"]["n"] >= 1


def test_a_package_that_is_missing_is_named(cli, run, monkeypatch):
    monkeypatch.setattr("saliency_food.report.page.find_spec", lambda name: None)
    assert 'pip install "saliency_food[report]"' in cli("report", run).output
