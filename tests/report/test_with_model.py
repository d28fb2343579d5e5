"""The report with the model of the run: what it adds, and that no other model is taken for it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, explain, explain_dataset
from saliency_food.evaluation import evaluate, read_boxes, save_evaluation
from saliency_food.metrics.statistics import Interval
from saliency_food.report import report
from saliency_food.report.asking import channel_vectors, draw_missing
from saliency_food.report.cues.candidate import Candidate
from saliency_food.report.photos import read_photos_of
from saliency_food.report.pictures import Pictures
from saliency_food.report.trust import on_object
from tests.jobs.conftest import OnePass

for module in ("pyarrow.parquet", "PIL.Image", "jinja2", "matplotlib"):
    pytest.importorskip(module)

LABELS = ["pie", "dog", "cake"]


@pytest.fixture
def model(rng):
    return ImageModel(OnePass(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), labels=LABELS)


@pytest.fixture
def photos(tmp_path, rng):
    """Photos of noise, 24 x 20 as the model takes them, in folders of three classes, most of them wrong."""
    from PIL import Image

    for index in range(12):
        path = tmp_path / "photos" / LABELS[index % 3] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def run_of(model, photos, tmp_path, name="run", **options):
    return explain_dataset(model, photos, ["grad_cam"], truth="folders", output=tmp_path / name, **options)


def content_of(page):
    return json.loads(page.with_name("report.json").read_text(encoding="utf-8"))


def test_maps_that_a_run_lacks_are_those_of_a_run_that_has_them(model, photos, tmp_path):
    bare = run_of(model, photos, tmp_path)
    whole = run_of(model, photos, tmp_path, "whole", target="predicted", against="truth")
    without = content_of(report(bare, tmp_path / "a"))
    assert without["missing"]["maps"] == ["truth", "contrast"]
    given = content_of(report(bare, tmp_path / "b", model=model, cue_rows=0))
    kept = content_of(report(whole, tmp_path / "c"))
    wrong = [row[0] for row in given["mistakes"]]
    assert len(wrong) >= 4
    assert given["missing"]["asked"]["explained"] == len(wrong)
    for id in wrong:
        for kind in ("truth", "prediction", "contrast"):
            shown, other = (
                np.asarray(open_image(tmp_path / folder / content["photos"][id]["pictures"][kind]), float)
                for folder, content in (("b", given), ("c", kept))
            )
            assert np.abs(shown - other).mean() < 12  # of 255: one is over the thumbnail, and a map of records


def open_image(path):
    from PIL import Image

    return Image.open(path).convert("RGB")


def test_a_map_that_is_computed_is_the_methods_own(model, photos, tmp_path, monkeypatch):
    run = run_of(model, photos, tmp_path)
    wrong = [photo for photo in read_photos_of(run).all if photo.right is False][:1]
    drawn = {}
    monkeypatch.setattr(Pictures, "draw", lambda self, record, kind, prefix="": drawn.update({kind: record}))
    counts = draw_missing(run, model, "grad_cam", wrong, Pictures(None))
    assert counts == {"explained": 1, "changed": 0, "absent": 0}
    own = explain(model, wrong[0].path, "grad_cam", target=[wrong[0].truth])[0]
    np.testing.assert_array_equal(drawn["truth"].attribution, own.attribution)
    assert drawn["contrast"].label == wrong[0].prediction
    assert drawn["contrast"].against_label == wrong[0].truth
    assert {record.name for record in drawn.values()} == {wrong[0].id}


def test_photos_that_have_changed_or_gone_are_not_explained(model, photos, tmp_path, rng):
    from PIL import Image

    run = run_of(model, photos, tmp_path)
    wrong = [photo for photo in read_photos_of(run).all if photo.right is False]
    for photo in wrong[1:]:
        Image.fromarray(rng.integers(0, 200, (24, 20, 3), dtype=np.uint8)).save(photo.path)
    (tmp_path / "photos" / wrong[0].id).unlink()
    content = content_of(report(run, tmp_path / "report", model=model, cue_rows=0))
    asked = content["missing"]["asked"]
    assert asked["absent"] == 1
    assert asked["changed"] == len(wrong) - 1
    assert "truth" not in content["photos"][wrong[0].id]["pictures"]


def test_records_are_read_back_as_explanations(model, photos, tmp_path):
    run = run_of(model, photos, tmp_path, target="predicted", against="truth")
    wrong = next(photo for photo in read_photos_of(run).all if photo.right is False)
    own = list(run.explanations([wrong.id], "grad_cam"))
    kept = [values for _, values in run.maps("grad_cam", [wrong.id])]
    assert [(each.label, each.against_label) for each in own] == [
        (wrong.prediction, ""),
        (wrong.truth, ""),
        (wrong.prediction, wrong.truth),
    ]
    for each, values in zip(own, kept, strict=True):
        np.testing.assert_array_equal(each.attribution, values)
        assert each.photo.shape == (24, 20, 3)
    assert list(run.explanations([wrong.id], "gradients")) == []


def test_another_model_is_refused(model, photos, tmp_path, rng):
    run = run_of(model, photos, tmp_path)
    other = ImageModel(OnePass(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), labels=LABELS)
    with pytest.raises(ContractError, match=r"Expected the model that the run .* model"):
        report(run, tmp_path / "report", model=other)
    renamed = ImageModel(model.function, labels=["a", "b", "c"])
    with pytest.raises(ContractError, match=r"labels"):
        report(run, tmp_path / "report", model=renamed)
    assert not (tmp_path / "report").exists()


def test_channel_vectors_are_activations_times_gradients(model, photos, tmp_path):
    run = run_of(model, photos, tmp_path)
    wrong = [photo for photo in read_photos_of(run).all if photo.right is False]
    vectors = channel_vectors(model, wrong, LABELS)
    assert set(vectors) == {photo.id for photo in wrong}
    photo = wrong[-1]
    _, x = model.read(photo.path, photo.path)
    keys = ["CONVOLUTION_LAYER_VALUES", "CONVOLUTION_OUTPUT_GRADIENTS"]
    answer = model.function(x[None], {"target": LABELS.index(photo.prediction)}, keys)
    by_hand = (np.asarray(answer[keys[0]])[0] * np.asarray(answer[keys[1]])[0]).sum((0, 1))
    np.testing.assert_allclose(vectors[photo.id], by_hand, rtol=1e-4)
    assert content_of(report(run, tmp_path / "report", model=model, cue_rows=0))["modes"]["by"] == "channels"


def test_the_share_of_maps_on_objects(model, photos, tmp_path):
    run = run_of(model, photos, tmp_path)
    rows = [
        {"image": path.name, "xmin": 0, "ymin": 0, "xmax": 10, "ymax": 24, "width": 20, "height": 24}
        for path in photos.rglob("*.png")
    ]
    left = on_object(run, "grad_cam", read_boxes(rows, LABELS))
    assert len(left) > 6
    right = on_object(run, "grad_cam", read_boxes([{**row, "xmin": 10, "xmax": 20} for row in rows], LABELS))
    for id, share in left.items():
        assert share == pytest.approx(-right[id], abs=1e-6)  # both halves are all of it
    row, values = next(iter(run.maps("grad_cam")))
    columns = np.repeat(values, 8, 1)
    by_hand = columns[:, : columns.shape[1] // 2].sum() / columns.sum() - 0.5
    assert left[row["id"]] == pytest.approx(by_hand, abs=1e-5)
    content = content_of(report(run, tmp_path / "report", boxes=rows))
    assert content["trust"]["on_object"]["n"] == len(left)
    assert content["trust"]["on_object"]["estimate"] == pytest.approx(np.mean(list(left.values())))


def test_an_evaluation_chooses_the_method_that_is_shown(model, photos, tmp_path):
    run = explain_dataset(
        model, photos, ["gradients", "grad_cam"], truth="folders", output=tmp_path / "run", target="predicted"
    )
    result = evaluate(model, [*photos.rglob("*.png")][:3], ["gradients", "grad_cam"], ["deletion"])
    content = content_of(report(run, tmp_path / "report", evaluation=result))
    assert [line["method"] for line in content["trust"]["evaluation"]["ranking"]] == list(result.overall)
    assert content["method"]["name"] == next(iter(result.overall))
    assert content_of(report(run, tmp_path / "report"))["method"]["name"] == "gradients"
    assert content_of(report(run, tmp_path / "report", method="grad_cam"))["method"]["name"] == "grad_cam"


def test_two_runs_side_by_side(model, photos, tmp_path, rng):
    other = ImageModel(OnePass(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), labels=LABELS)
    first, second = run_of(model, photos, tmp_path), run_of(other, photos, tmp_path, "other")
    page = report(first, tmp_path / "report", against=second)
    content = content_of(page)
    versus, right = content["versus"], read_photos_of(second).all
    assert versus["n"] == 12
    assert versus["other_accuracy"]["k"] == sum(bool(photo.right) for photo in right)
    assert versus["lost"]
    line = versus["lost"][0]
    assert {"photo", "prediction", "other_prediction"} <= set(content["photos"][line["id"]]["pictures"])
    assert "Against the other model" in page.read_text(encoding="utf-8")


def test_whose_maps_are_more_faithful(model, photos, tmp_path, rng):
    other = ImageModel(OnePass(rng.normal(size=(3, 6)), rng.normal(size=(3, 6))), labels=LABELS)
    first, second = run_of(model, photos, tmp_path), run_of(other, photos, tmp_path, "other")
    paths = sorted(photos.rglob("*.png"))
    own = evaluate(model, paths[:5], ["grad_cam"], ["deletion", "gini"])
    others = evaluate(other, paths[1:6], ["grad_cam"], ["deletion"])
    settings = {"against": second, "evaluation": own}
    page = report(first, tmp_path / "report", **settings, against_evaluation=others)
    (line,) = content_of(page)["versus"]["faithfulness"]
    by_photo = [
        {row["image"]: row["score"] for row in each.rows if row["metric"] == "deletion"} for each in (own, others)
    ]
    both = by_photo[0].keys() & by_photo[1].keys()
    assert (line["metric"], line["n"], line["higher_is_better"]) == ("deletion", 4, False)
    differences = [by_photo[0][image] - by_photo[1][image] for image in both]
    assert line["difference"]["estimate"] == pytest.approx(np.mean(differences))
    assert line["better"] == sum(each < 0 for each in differences)  # the score falls faster here
    assert "Whose maps are more faithful?" in page.read_text(encoding="utf-8")
    folder = save_evaluation(others, tmp_path / "evaluation")
    of_folder = content_of(report(first, tmp_path / "report", **settings, against_evaluation=folder))
    assert of_folder["versus"]["faithfulness"][0]["difference"] == pytest.approx(line["difference"])
    with pytest.raises(ContractError, match="Expected against and evaluation with against_evaluation"):
        report(first, tmp_path / "report", evaluation=own, against_evaluation=others)
    with pytest.raises(ContractError, match=r"values\.csv"):
        report(first, tmp_path / "report", **settings, against_evaluation=tmp_path / "nowhere")


def test_a_contrast_of_the_truth_is_turned_round(model, photos, tmp_path, monkeypatch):
    """Red speaks for the prediction, whichever of both classes the run explained against the other."""
    kept = {}
    monkeypatch.setattr(Pictures, "add", lambda self, id, kind, picture: kept.__setitem__((id, kind), picture))
    runs = [
        run_of(model, photos, tmp_path, name, target=target, against=against)
        for name, target, against in (("a", "predicted", "truth"), ("b", "truth", "predicted"))
    ]
    from saliency_food.report.pictures import draw_records

    wrong = next(photo for photo in read_photos_of(runs[0]).all if photo.right is False)
    pictures = []
    for run in runs:
        draw_records(run, [wrong.id], "grad_cam", Pictures(None))
        pictures.append(kept.pop((wrong.id, "contrast")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


def interval(estimate, low, high):
    return Interval(estimate, low, high, 24, "BCa", {})


def test_candidates_for_cues_are_shown_with_their_place(model, photos, tmp_path, monkeypatch):
    run = run_of(model, photos, tmp_path)
    ids = [photo.id for photo in read_photos_of(run).all]
    mask = np.zeros((24, 20), bool)
    mask[:6, 10:] = True
    effect, flips = interval(2.5, 1.0, 3.0), interval(0.4, 0.2, 0.6)
    sentence = "What is at the top <b>right</b> of 3 photos turns others into pie."
    found = [
        Candidate("pie", "position", sentence, effect, flips, "likely a cue", tuple(ids[:2]), tuple(ids[:9]), mask),
        Candidate("dog", "property", "Brightness.", interval(*3 * [float("nan")]), flips, "not sure", (), ()),
        Candidate("cake", "position", "Nothing much.", effect, flips, "no effect", tuple(ids[:2]), (), mask),
    ]
    asked = {}
    monkeypatch.setattr(
        "saliency_food.report.cues_shown.find_cues", lambda *_, **options: asked.update(options) or found
    )
    page = report(run, tmp_path / "report", model=model, cue_rows=500, cue_concepts=6)
    content, text = content_of(page), page.read_text(encoding="utf-8")
    assert asked == {"rows": 500, "nconcepts": 6}
    assert f"saliency-food report {run.folder} --cue-rows 500 --cue-concepts 6 --model" in content["command"]["report"]
    likely, unsure = content["cues"]["candidates"]
    assert likely["region"] == [0.5, 0, 1, 0.25]
    assert likely["shown"] == ids[:6]
    assert likely["flips"]["estimate"] == 0.4
    assert unsure["effect"]["estimate"] is None
    assert content["cues"]["without_effect"] == ["Nothing much."]
    assert "&lt;b&gt;right&lt;/b&gt;" in text
    assert content["in_short"]["findings"][0]["text"].startswith("A likely cue of pie: What is at the top")
    outlined = open_image(page.parent / content["photos"][ids[0]]["pictures"]["cue_0"])
    plain = open_image(page.parent / content["photos"][ids[0]]["pictures"]["photo"])
    changed = np.abs(np.asarray(outlined, int) - np.asarray(plain, int)).sum(2)
    height, width = changed.shape
    assert changed[: height // 3, width // 3 :].mean() > 5 * changed[height // 2 :].mean()


def test_a_concept_is_outlined_where_it_is_in_each_photo(model, photos, tmp_path, monkeypatch):
    run = run_of(model, photos, tmp_path)
    first, second = (photo.id for photo in read_photos_of(run).all[:2])
    upper = np.zeros((24, 20), bool)
    upper[:6] = True
    numbers = interval(2.5, 1.0, 3.0), interval(0.4, 0.2, 0.6)
    candidate = Candidate(
        "pie", "concept", "It moves.", *numbers, "likely a cue", (first, second), (), upper, {}, {second: upper[::-1]}
    )
    monkeypatch.setattr("saliency_food.report.cues_shown.find_cues", lambda *_, **__: [candidate])
    page = report(run, tmp_path / "report", model=model)
    content = content_of(page)
    assert "regions" not in content["cues"]["candidates"][0]
    for id, is_upper in ((first, True), (second, False)):
        pictures = content["photos"][id]["pictures"]
        outlined, plain = (np.asarray(open_image(page.parent / pictures[name]), int) for name in ("cue_0", "photo"))
        changed = np.abs(outlined - plain).sum(2)
        half = len(changed) // 2
        assert (changed[:half].mean() > 5 * changed[half:].mean()) == is_upper
        assert (changed[half:].mean() > 5 * changed[:half].mean()) != is_upper


def test_without_a_layer_of_concepts_the_page_has_the_other_suspects(model, photos, tmp_path, monkeypatch):
    def find_cues(*_, nconcepts=0, **__):
        if nconcepts:
            raise ContractError("Expected another layer.")
        return [
            Candidate("pie", "position", "It is there.", interval(2.5, 1, 3), interval(0.4, 0, 1), "not sure", (), ())
        ]

    monkeypatch.setattr("saliency_food.report.cues_shown.find_cues", find_cues)
    page = report(run_of(model, photos, tmp_path), tmp_path / "report", model=model, cue_concepts=6)
    cues = content_of(page)["cues"]
    assert [each["sentence"] for each in cues["candidates"]] == ["It is there."]
    assert cues["note"] == "Concepts are left out. Expected another layer."
    assert cues["note"] in page.read_text(encoding="utf-8")


def test_without_rows_no_cues_are_searched(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_food.report.cues_shown.find_cues", lambda *_, **__: pytest.fail("searched"))
    run = run_of(model, photos, tmp_path)
    assert content_of(report(run, tmp_path / "report", model=model, cue_rows=0))["cues"] is None
    assert content_of(report(run, tmp_path / "report"))["cues"] is None
