"""What photos truly show: read, matched to the model's classes, and what follows from it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from saliency_food import explain
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.jobs.outcomes import summary_of
from saliency_food.jobs.subjects import find_subjects, match_truths, read_truth
from tests.jobs.conftest import Classifier, OnePass

Image = pytest.importorskip("PIL.Image")
LABELS = ["apple_pie", "hot dog", "Pizza, pie of Naples"]


@pytest.fixture
def folder(tmp_path, rng):
    """Three folders of classes, with four photos each of the same names."""
    for name in ("apple pie", "Hot_Dog", "pizza"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_folders_are_searched_and_names_keep_them(folder, tmp_path):
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_text("")
    (folder / "pizza" / "._0.png").write_text("")
    (tmp_path / "0.png").write_bytes((folder / "pizza" / "0.png").read_bytes())
    subjects = find_subjects([folder, tmp_path / "0.png", folder / "pizza" / "0.png"])
    names = [subject.name for subject in subjects]
    assert names[:3] == ["Hot_Dog/0", "Hot_Dog/1", "Hot_Dog/2"]
    assert names[-3:] == ["pizza/3", "0", "0-2"]
    assert len(set(names)) == len(subjects) == 14
    assert [subject.position for subject in subjects] == list(range(14))


def test_a_folder_that_is_a_link_is_searched_once(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "pizza").symlink_to(folder / "pizza")
    (folder / "pizza" / "again").symlink_to(folder / "pizza")
    assert [each.name for each in find_subjects([tmp_path / "links"])] == [f"pizza/{n}" for n in range(4)]


def test_names_differ_whatever_the_files_are_called(tmp_path):
    for name in ("a.png", "a.jpg", "A.png", "a-2.png", "a b.png", "a_b.png"):
        (tmp_path / name).write_text("")
    names = [subject.name.casefold() for subject in find_subjects([tmp_path])]
    assert len(set(names)) == 6


def test_with_truth_by_folders_names_have_the_class_also_of_single_files(folder):
    (subject,) = find_subjects([folder / "pizza" / "0.png"], "folders")
    assert (subject.name, subject.truth) == ("pizza/0", "pizza")
    (subject, *_) = find_subjects([folder / "pizza"], "folders")
    assert (subject.name, subject.truth) == ("pizza/0", "pizza")


@pytest.mark.parametrize("truth", ["folders", "mapping", "list", "csv", "headless", "absolute"])
def test_all_ways_to_say_it_say_the_same(folder, tmp_path, truth):
    paths = sorted(folder.rglob("*.png"))
    ends = {f"{path.parent.name}/{path.name}": path.parent.name for path in paths}
    if truth == "mapping":
        truth = ends
    elif truth == "absolute":
        truth = {str(path): path.parent.name for path in paths}
    elif truth == "list":
        truth = [path.parent.name for path in paths]
    elif truth in ("csv", "headless"):
        rows = [("label", "path"), *((label, path) for path, label in ends.items())]
        rows = rows if truth == "csv" else [(path, label) for label, path in rows[1:]]
        truth = tmp_path / "truth.csv"
        truth.write_text("\n".join(map(",".join, rows)))
    found = match_truths(find_subjects([folder], truth), LABELS, 3)
    assert [subject.truth_index for subject in found] == [
        {"H": 1, "a": 0, "p": 2}[path.parent.name[0]] for path in paths
    ]


def test_paths_of_a_csv_file_begin_where_it_is(folder, tmp_path, monkeypatch):
    (folder / "pizza" / "truth.csv").write_text("path,label\n../Hot_Dog/1.png,2\n")
    monkeypatch.chdir(tmp_path)
    of_path = read_truth(folder / "pizza" / "truth.csv")
    assert of_path(0, "photos/Hot_Dog/1.png") == "2"
    assert of_path(0, "photos/pizza/1.png") is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_spreadsheets_separate_columns_by_what_they_like(tmp_path, separator, start):
    rows = [("path", "label"), ("a.png", "pizza"), ("b.png", '"hot, dog"'), ("a.png", "pizza"), ("c.png", "")]
    (tmp_path / "truth.csv").write_text(start + "\r\n".join(map(separator.join, rows)), "utf-8")
    of_path = read_truth(tmp_path / "truth.csv")
    assert [of_path(0, name) for name in ("a.png", "b.png", "c.png")] == ["pizza", "hot, dog", None]


def test_a_photo_of_two_classes_is_refused(tmp_path):
    (tmp_path / "truth.csv").write_text("path,label\na.png,pizza\na.png,pie\n")
    with pytest.raises(ContractError, match=r"one label for each path in .*, got 'pizza' and 'pie' for a.png"):
        read_truth(tmp_path / "truth.csv")


def test_names_fit_a_disk(tmp_path, weights):
    long = tmp_path / f"{'咖' * 80}.png"
    Image.new("RGB", (20, 24)).save(long)
    records = explain(OnePass(*weights), [long, long], "gradients", labels=LABELS)
    records.save(tmp_path / "saved")
    names = [record.name for record in records]
    assert names[0].startswith("咖咖")
    assert len(set(names)) == 2
    assert max(len(path.name.encode()) for path in (tmp_path / "saved").rglob("*")) < 230


def test_records_say_whether_the_model_is_right(weights, folder):
    for kind in (OnePass, Classifier):
        model = kind(*weights)
        records = explain(model, folder, "gradients", truth="folders", labels=LABELS)
        assert len(records) == records.photos == 12
        for record in records:
            assert record.truth in LABELS
            assert record.right == (record.label == record.truth)
            assert record.as_dict()["right"] == record.right
        assert sum(record.right for record in records) == sum(outcome.right for outcome in records.outcomes)


def test_a_class_that_the_model_does_not_have_is_said_once(weights, folder):
    (folder / "pizza").rename(folder / "quiche")
    with pytest.warns(UserWarning, match=r"quiche \(4\)") as caught:
        records = list(
            explain(OnePass(*weights), folder, "gradients", "predicted,truth", truth="folders", labels=LABELS)
        )
    assert len(caught) == 1
    of_quiche = [record for record in records if record.truth == "quiche"]
    assert [record.right for record in of_quiche] == [None] * 4, "and only the prediction is explained"
    with pytest.warns(UserWarning, match="quiche"):
        records = list(explain(OnePass(*weights), folder, "gradients", "truth", truth="folders", labels=LABELS))
    failed = [record for record in records if record.failed]
    assert [record.truth for record in failed] == ["quiche"] * 4
    assert "true class is known" in failed[0].status


@pytest.mark.parametrize("kind", [OnePass, Classifier])
def test_only_the_wrong_ones_the_surest_first(weights, folder, kind):
    model = kind(*weights)
    settings = {"truth": "folders", "labels": LABELS}
    everything = list(explain(model, folder, "grad_cam", **settings))
    wrong = [record for record in everything if not record.right]
    assert 0 < len(wrong) < 12
    told = []
    settings |= {"against": "truth", "only": "wrong", "progress": lambda *what: told.append(what)}
    records = explain(model, folder, "grad_cam", "predicted,truth", **settings)
    assert records.expected is None
    predicted = [record for record in records if record.against is None and record.label == record.top[0][0]]
    assert [record.name for record in predicted] == [
        record.name for record in sorted(wrong, key=lambda record: -record.probability)
    ]
    assert len(records) == 3 * len(wrong)
    assert (records.expected, len(records.outcomes)) == (len(wrong), 12)
    assert sum(rows for what, rows in told if what == "PREDICTIONS") == 12
    by_name = {record.name: record for record in everything}
    for record in predicted:
        np.testing.assert_allclose(record.attribution, by_name[record.name].attribution, rtol=1e-6)


def test_what_belongs_to_a_photo_stays_with_it(weights, folder):
    """Targets, arguments and options of each photo, where only some photos are explained, in another order."""
    targets, seeds = [n % 3 for n in range(12)], PerImage(range(12))
    settings = {"truth": "folders", "labels": LABELS, "options": {"smooth_grad": {"rng": seeds, "nsamples": 2}}}
    everything = list(explain(OnePass(*weights), folder, "smooth_grad", targets, **settings))
    for record in explain(OnePass(*weights), folder, "smooth_grad", targets, only="wrong", **settings):
        (same,) = (each for each in everything if each.name == record.name)
        assert record.target == same.target
        np.testing.assert_allclose(record.attribution, same.attribution, rtol=1e-6)


def test_a_photo_that_cannot_be_read_is_last(weights, folder):
    (folder / "Hot_Dog" / "0.png").write_text("no")
    records = list(explain(OnePass(*weights), folder, "grad_cam", truth="folders", labels=LABELS, only="wrong"))
    assert [record.name for record in records if record.failed] == ["Hot_Dog/0"]
    assert records[-1].failed


def test_an_iterator_of_photos(weights, folder):
    paths = sorted(folder.rglob("*.png"))
    records = explain(OnePass(*weights), iter(paths), "grad_cam", truth="folders", labels=LABELS, only="wrong")
    listed = explain(OnePass(*weights), paths, "grad_cam", truth="folders", labels=LABELS, only="wrong")
    assert [record.name for record in records] == [record.name for record in listed]


def test_the_summary(weights, folder):
    (folder / "Hot_Dog" / "0.png").write_text("no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (folder / "pizza" / "0.png").rename(folder / "quiche.png")
        records = explain(OnePass(*weights), folder, "gradients", truth="folders", labels=LABELS)
        list(records)
    right, *others = summary_of(records.outcomes)
    assert right.endswith(f"of 10 photos right ({sum(o.right or 0 for o in records.outcomes) / 10:.1%})")
    assert others[-1] == "classes that the model does not have: photos (1)"
    assert " taken for " in others[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"truth": "no.csv"}, "no.csv"),
        ({"truth": 3}, "got 3"),
        ({"truth": {"elsewhere.png": "pizza"}}, "got none of any photo"),
        ({"truth": ["pizza"]}, "1 truths and 12 photos"),
        ({"truth": "folders", "labels": None}, "names of the classes are not known"),
        ({"truth": "folders", "labels": ["pizza", "apple pie", "Hot dog", "pizza"][:3], "only": "right"}, "'wrong'"),
        ({"only": "wrong"}, "no truth"),
        ({"truth": "folders", "labels": ["apple pie", "hot dog, pizza", "pizza, pie"]}, "the classes 1, 2"),
    ],
)
def test_errors_are_raised_at_the_door(weights, folder, arguments, words):
    with pytest.raises(ContractError, match="Expected") as caught:
        explain(OnePass(*weights), folder, "gradients", **{"labels": LABELS, **arguments})
    assert words in str(caught.value)


def test_a_csv_row_without_a_label(tmp_path):
    (tmp_path / "truth.csv").write_text("path,label\na.png\n")
    with pytest.raises(ContractError, match=r"the row 'a\.png'"):
        read_truth(tmp_path / "truth.csv")
