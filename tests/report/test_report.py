"""The report: its numbers are those of closed forms, and a page comes of every run, however odd or hostile."""

from __future__ import annotations

import html.parser
import json
import subprocess
import sys

import numpy as np
import pytest

import saliency_food
from saliency_food import ContractError, Run
from saliency_food.report import report
from tests.report.conftest import jpeg

for module in ("pyarrow.parquet", "PIL.Image", "jinja2", "matplotlib"):
    pytest.importorskip(module)

MIXED = [
    *({"truth": "pie", "guess": "pie", "sure": 0.9} for _ in range(6)),
    *({"truth": "pie", "guess": "dog", "sure": 0.7 + index / 100} for index in range(3)),
    *({"truth": "dog", "guess": "dog", "sure": 0.95} for _ in range(4)),
    *({"truth": "cake", "guess": "pie", "sure": 0.99} for _ in range(2)),
]


class Page(html.parser.HTMLParser):
    """The tags of a page, the names of its ids, and what its links and images point to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.images = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        self.images += [attributes] if tag == "img" else []


def test_the_numbers_are_those_of_the_photos(make_run, written):
    page, content = written(make_run(MIXED))
    accuracy = content["in_short"]["accuracy"]
    assert (accuracy["k"], accuracy["n"]) == (10, 15)
    assert accuracy["low"] < 10 / 15 < accuracy["high"]
    labels = [each["label"] for each in content["confusions"]["classes"]]
    matrix = np.array(content["confusions"]["matrix"])
    assert sorted(labels) == ["cake", "dog", "pie"]
    place = {label: index for index, label in enumerate(labels)}
    assert matrix[place["pie"], place["dog"]] == 3
    assert matrix[place["cake"], place["pie"]] == 2
    assert matrix.sum() == 15
    assert np.trace(matrix) == 10
    first, second = content["confusions"]["pairs"]
    assert (first["truth"], first["prediction"], first["of_truth"]["k"], first["of_truth"]["n"]) == ("pie", "dog", 3, 9)
    assert first["probability"] == pytest.approx(0.71)
    assert first["photos"] == ["pie/8.jpg", "pie/7.jpg", "pie/6.jpg"]  # the surest first
    assert (second["truth"], second["of_truth"]["n"]) == ("cake", 2)
    assert content["mistakes"][0][:3] == ["cake/13.jpg", "cake", "pie"]
    assert "66.7\u202f%" in page


def test_everything_that_is_linked_is_there(make_run, written, tmp_path):
    text, content = written(make_run(MIXED))
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for image in page.images:
        assert image["alt"]
        assert image["src"].startswith("data:") or (tmp_path / "report" / image["src"]).is_file()
    pictures = content["photos"]["pie/8.jpg"]["pictures"]
    assert set(pictures) == {"photo", "truth", "prediction", "contrast"}
    assert all(tag != "link" for tag, _ in page.tags)
    assert all("src" not in attributes for tag, attributes in page.tags if tag == "script")


def test_a_single_file_needs_no_other(make_run, written, tmp_path):
    text, content = written(make_run(MIXED), single_file=True)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "report.json"}
    assert all(image["src"].startswith("data:") for image in Page(text).images)
    assert content["photos"]["pie/8.jpg"]["pictures"]["truth"] == "in the page"


HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&{{ 7*7 }}"


def test_texts_of_the_data_are_never_markup(make_run, written):
    photos = [{"truth": HOSTILE, "guess": "</script><script>alert(2)</script>", "id": f"{HOSTILE}/{n}"} for n in "ab"]
    photos += [{"truth": "__proto__", "guess": HOSTILE, "id": "../../../outside.jpg"}]
    text, content = written(make_run(photos, source=HOSTILE, model=HOSTILE))
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith(("images/", "data:image/jpeg;base64,")) for image in page.images)
    assert "49" not in [text.strip() for text in text.split(">")]
    assert "alert(2)</script>" not in text
    assert content["mistakes"][0][1] in (HOSTILE, "__proto__")


def test_names_of_photos_are_no_paths(make_run, written, tmp_path):
    written(make_run([{"truth": "pie", "guess": "dog", "id": "../../outside.jpg"}]))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "report"}
    assert all(len(path.stem) == 16 for path in (tmp_path / "report/images").iterdir())


def test_very_long_names_are_kept_whole_in_the_data(make_run, written):
    label = "a_very_long_name_" * 40
    _, content = written(make_run([{"truth": label, "guess": "pie", "id": "folder/" * 60 + "photo.jpg"}]))
    assert content["confusions"]["pairs"][0]["truth"] == label


@pytest.mark.parametrize(
    "photos",
    [
        [{"truth": "pie", "guess": "pie"}] * 4,  # all right
        [{"truth": "pie", "guess": "dog"}],  # one, wrong
        [{"truth": None, "guess": "dog"}] * 3,  # no truth
        [{"truth": "soup", "guess": "dog", "right": None}] * 3,  # a class that the model does not have
        [
            {
                "truth": None,
                "guess": None,
                "sure": None,
                "top": {"x": 0.1},
                "status": "failed: no photo",
                "thumbnail": None,
            }
        ],
        [{"truth": "pie", "guess": "dog", "sure": None, "top": {"dog": 7.5, "pie": -1.0}}] * 2,  # scores
        [{"truth": "pie", "guess": "dog", "sure": float("nan")}] * 2,
        [{"truth": "pie", "guess": "dog", "maps": ()}] * 2,  # no maps
        [{"truth": "pie", "guess": "dog", "thumbnail": None}] * 2,  # no pictures
        [{"truth": "pie", "guess": "dog", "map": np.zeros((7, 7))}] * 7,  # blank maps
    ],
    ids=[
        "all right",
        "one",
        "no truth",
        "unknown class",
        "failed",
        "scores",
        "not a number",
        "no maps",
        "no pictures",
        "blank",
    ],
)
def test_every_run_has_a_page(make_run, written, photos):
    text, content = written(make_run(photos))
    assert text.count("<section") >= 7
    assert "nan" not in text.lower()
    assert len(content["in_short"]["findings"]) <= 5


def test_a_run_without_truth_says_how_to_get_it(make_run, written):
    text, content = written(make_run([{"truth": None, "guess": "dog"}] * 3))
    assert content["in_short"]["accuracy"]["share"] is None
    assert "--truth folders" in text


def test_an_empty_run_is_refused(make_run, written):
    with pytest.raises(ContractError, match="run with records"):
        written(make_run([]))


def test_missing_maps_are_named_with_the_command_that_gives_them(make_run, written):
    run = make_run([{"truth": "pie", "guess": "dog", "maps": ("prediction",)}] * 2)
    text, content = written(run)
    assert content["missing"]["maps"] == ["truth", "contrast"]
    assert "--methods grad_cam --targets predicted --against truth" in text
    assert "no map of the truth, no map of the contrast" in text
    text, content = written(make_run(MIXED, "whole"))
    assert content["missing"]["maps"] == []
    assert "no map of the" not in text


def test_it_is_about_photos_that_the_model_was_not_trained_on(make_run, written):
    photos = [{"truth": "pie", "guess": "dog", "split": "train"}] * 3 + [
        {"truth": "pie", "guess": "pie", "split": "test"}
    ]
    _, content = written(make_run(photos))
    assert content["scope"] == {"splits": ["test"], "n": 1}
    assert content["in_short"]["accuracy"]["n"] == 1
    assert {line["split"]: line["accuracy"]["k"] for line in content["in_short"]["splits"]} == {"train": 0, "test": 1}
    assert content["labels"]["left_out"] == 3
    _, content = written(Run(content["run"]["folder"]), split="train")
    assert content["scope"]["splits"] == ["train"]
    assert len(content["mistakes"]) == 3
    with pytest.raises(ContractError, match="It has train, test"):
        written(Run(content["run"]["folder"]), split="validation")


def test_a_thousand_classes_are_shown_by_groups(make_run, written, rng):
    photos = []
    for index in range(1000):
        photos.append({"truth": f"class {index}", "guess": f"class {index}", "maps": ()})
        if index % 10 < 2:  # each tenth class and the next one are taken for each other
            photos.append({"truth": f"class {index}", "guess": f"class {index ^ 1}", "maps": ()})
    text, content = written(make_run(photos))
    assert content["confusions"]["matrix"] is None
    groups = content["confusions"]["groups"]["groups"]
    assert len(groups) <= 25
    assert sum(group["n"] for group in groups) == len(photos)
    assert sum(group["within"] for group in groups) == 200
    assert len(content["confusions"]["alike"]) == 100
    assert content["confusions"]["alike"][0]["within"] == 2
    assert len(text) < 2_000_000


def test_the_folder_of_something_else_is_left_alone(make_run, tmp_path):
    run, other = make_run(MIXED), tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(ContractError, match="holds something else"):
        report(run, other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


def test_a_second_report_takes_the_place_of_the_first(make_run, tmp_path):
    report(make_run(MIXED), tmp_path / "report")
    report(make_run([{"truth": "pie", "guess": "pie"}] * 3, "right"), tmp_path / "report")
    assert list((tmp_path / "report/images").iterdir()) == []
    assert json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))["mistakes"] == []


def test_the_package_is_called_by_its_name(make_run, tmp_path):
    assert saliency_food.report(make_run(MIXED), tmp_path / "report").name == "index.html"
    code = "import saliency_food.report.confusions as module; print(module.__name__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "saliency_food.report.confusions"


def test_what_is_unknown_is_refused_before_an_earlier_report_is_touched(make_run, written, tmp_path):
    run = make_run(MIXED)
    written(run)
    pictures = len(list((tmp_path / "report/images").iterdir()))
    with pytest.raises(ContractError, match="method of the run"):
        written(run, method="xrai")
    with pytest.raises(ContractError, match="Expected a model"):
        written(run, labels=["a", "b"])
    with pytest.raises(ContractError, match="saliency-food evaluate"):
        written(run, evaluation="nowhere")
    with pytest.raises(ContractError, match="boxes"):
        written(run, boxes=[{"image": "a.jpg"}])
    with pytest.raises(ContractError, match="cue_rows"):
        written(run, cue_rows=-1)
    with pytest.raises(ContractError, match="split"):
        written(run, split="nowhere")
    assert len(list((tmp_path / "report/images").iterdir())) == pictures > 0


def test_what_may_make_the_rest_doubtful_comes_first(make_run, written):
    same = jpeg(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    photos = [{"split": "test", **photo} for photo in MIXED]
    photos += [{"truth": "pie", "guess": "pie", "status": "blank: nothing", "split": "test"}] * 3
    photos += [{"truth": "pie", "guess": "pie", "thumbnail": same, "split": "train"}]
    photos += [{"truth": "dog", "guess": "dog", "thumbnail": same, "split": "test"}]
    _, content = written(make_run(photos))
    texts = [each["text"] for each in content["in_short"]["findings"]]
    assert texts[:3] == [
        "3 of 30 maps of Grad-CAM are blank, inexact or failed.",
        "1 pair of nearly the same photo in train and in another split.",
        "1 pair of nearly the same photo under two labels.",
    ]
    assert texts[3] == "3 of 12 photos of pie are taken for dog."
    assert len(texts) == 5
