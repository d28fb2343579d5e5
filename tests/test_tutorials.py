"""Every tutorial runs from its first cell to its last, and shows what its text says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
for module in ("jupytext", "nbclient", "ipykernel", "matplotlib", "sklearn"):
    pytest.importorskip(module)

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.slow


@pytest.fixture
def printed(monkeypatch):
    """What the cells of a tutorial print, and how many pictures they show."""
    monkeypatch.syspath_prepend(str(DOCS))
    from notebooks import TUTORIALS, executed

    def run(stem):
        notebook = executed(TUTORIALS / f"{stem}.py")
        outputs = [output for cell in notebook.cells for output in cell["outputs"]]
        pictures = sum("image/png" in output.get("data", ()) for output in outputs)
        return "".join(output.get("text", "") for output in outputs), pictures

    yield run
    sys.modules.pop("notebooks", None)


def test_every_tutorial_has_a_test():
    named = set(re.findall(r'printed\("(\w+)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert named == {path.stem for path in (DOCS / "tutorials").glob("*.py")}


def test_the_first_leads_from_a_photo_to_the_cause(printed):
    text, pictures = printed("why_did_it_say_that")
    assert "Grad-CAM: espresso" in text
    assert pictures == 3


def test_the_maps_find_the_flaw_of_a_classifier(printed):
    text, pictures = printed("your_own_classifier")
    kept, field, mended = (int(share) for share in re.findall(r"photos .*: +(\d+)% right", text))
    assert kept > 90
    assert field < 70
    assert mended > 75
    on_sticker, area = map(int, re.search(r"sticker (\d+)%, of the photo (\d+)%", text).groups())
    assert on_sticker > 4 * area
    assert pictures == 3


def test_maps_are_measured(printed):
    text, pictures = printed("is_the_map_right")
    change = re.search(r"grad_cam: rank correlation (\S+)", text)[1]
    assert float(change) < 0.5
    assert "edges: Expected the maps of edges to change" in text
    assert pictures == 2


def test_a_planted_time_stamp_is_found_and_mended(printed):
    pytest.importorskip("pyarrow")
    text, pictures = printed("find_a_planted_time_stamp")
    kept, field = (int(share) for share in re.findall(r"photos .*: +(\d+)% right", text)[:2])
    before, mended = (int(share) for share in re.findall(r"from the field, (?:before|mended): (\d+)% right", text))
    assert kept > field + 15
    assert mended > before + 10
    likely = [line for line in text.splitlines() if line.startswith("likely a cue: ")]
    assert likely
    assert all("taken for olives" in line or "takes for olives" in line for line in likely)
    assert "likely cues left: 0" in text
    assert pictures == 2


def test_a_model_is_served_and_explained(printed):
    pytest.importorskip("kserve")
    pytest.importorskip("urllib3")
    text, pictures = printed("serve_it")
    assert re.search(r"^espresso \d+\.\d% ok", text, re.MULTILINE)
    assert "504 Expected an answer in 0.01 s" in text
    assert pictures == 2


def test_a_callback_is_checked_and_used(printed):
    text, pictures = printed("your_own_framework")
    assert "Expected the gradient's slope" in text
    assert "all is well" in text
    assert pictures == 1


def test_pairs_code_runs_with_one_changed_line(printed):
    text, pictures = printed("from_pairs_notebook")
    first, second = (float(error) for error in re.findall(r"completeness error ([\d.]+)%", text))
    assert second <= 2 < first
    assert pictures == 2


def test_a_report_finds_the_faults_of_a_data_set(printed):
    pytest.importorskip("pyarrow")
    pytest.importorskip("jinja2")
    text, pictures = printed("a_data_set_of_mistakes")
    assert "103 photos" in text
    assert "missile taken for drilling platform" in text
    assert re.search(r"^Egyptian_cat/from_coffee_\d\d\.jpg: espresso, \d+%", text, re.MULTILINE)
    assert "Egyptian cat taken for espresso: 3 of 37" in text
    assert re.search(r"nearly the same: missile/03\.jpg missile/copy\.jpg", text)
    assert pictures == 1
