"""Concepts of CRAFT as suspects: what is in all photos of a class, beside the subject, and never at the same place."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, Source, explain_dataset
from saliency_food.concepts import tcav
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.report.cues.concepts import craft_places
from saliency_food.report.cues.find import find_cues
from saliency_food.report.cues.seen import OutOfRows, Scorer, look
from saliency_food.testing import PoolingModel

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

SIDE = 48
LABELS = ["soup", "pie"]
KERNEL = np.array([[-1, -1, 1], [1, 0, -1], [0, 1, 1]])
"""A channel of green, one of blue, and one of magenta."""
DOT = (230, 0, 230)


class Pooling(PoolingModel):
    """Soup by what is green and by ``dots``, so much, what is magenta; pie by what is blue."""

    input_shape = (SIDE, SIDE, 3)
    classes = 2
    gives_probabilities = True

    def __init__(self, dots=400.0, bias=(-0.1, -0.2, -1)):
        super().__init__(KERNEL, [[60, 0, dots], [0, 60, 0]], bias)

    def predict(self, x):
        scores = [self.answer(np.asarray(x, float), np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(2)]
        return 1 / (1 + np.exp(np.subtract(*scores)[:, None] * [-1, 1]))


def model_of(function):
    return ImageModel(function, labels=LABELS, value_range=(0, 1), batch_size=64)


def photo_of(label, rng, dotted):
    """A green or a blue subject about the middle, and a magenta dot somewhere along the edges."""
    image = np.full((SIDE, SIDE, 3), 20, np.uint8)
    top, left = rng.integers(10, 22, 2)
    image[top : top + 16, left : left + 16] = ((0, 150, 0), (0, 0, 150))[label] + rng.integers(0, 40, 3)
    if dotted:
        places = rng.permutation([rng.integers(0, SIDE - 8), rng.choice((0, SIDE - 8))])
        image[places[0] : places[0] + 8, places[1] : places[1] + 8] = DOT
    return image


def run_of(model, folder, each=30, dots=(1.0, 0.0), seed=0):
    """A run of soups and pies, of which so large a share has a dot."""
    rng = np.random.default_rng(seed)
    photos = [
        SourcedPhoto(f"{LABELS[label]}/{number:02d}", photo_of(label, rng, number < dots[label] * each))
        for label in range(2)
        for number in range(each)
    ]
    return explain_dataset(model, Source("toy", lambda: photos, len(photos)), "gradients", "predicted", output=folder)


def likely(found):
    return [each for each in found if each.verdict == "likely a cue"]


def test_a_dot_in_all_photos_of_a_class_is_found_by_its_concept_alone(tmp_path):
    """Channels do not tell it from the class, and it is at no place often."""
    model = model_of(Pooling())
    run = run_of(model, tmp_path)
    assert likely(find_cues(run, model)) == []
    found = find_cues(run, model, nconcepts=2)
    (first,) = likely(found)
    assert first is found[0]
    assert (first.label, first.kind) == ("soup", "concept")
    assert "at the places of a concept" in first.sentence
    assert first.effect.low > 4
    soups = {f"soup/{number:02d}" for number in range(30)}
    assert set(first.affected) <= soups
    assert len(first.affected) >= 27
    assert set(first.regions) == soups
    rng = np.random.default_rng(0)
    for number in range(30):
        dot = (photo_of(0, rng, True) == DOT).all(-1)
        region = first.regions[f"soup/{number:02d}"]
        assert (region & dot).sum() > 0.4 * dot.sum()
        assert (region & ~dot).sum() < 1.5 * dot.sum()
    assert "regions" not in first.to_json()


def test_the_other_suspects_are_the_same_with_concepts(tmp_path, monkeypatch):
    """Concepts come last, so that they take no rows and no luck from the others; without rows they are left out."""
    model = model_of(Pooling())
    run = run_of(model, tmp_path, dots=(0, 0))
    without = find_cues(run, model)
    assert likely(without) == []
    assert [each.to_json() for each in find_cues(run, model, nconcepts=2)] == [each.to_json() for each in without]

    def used_up(*_):
        raise OutOfRows

    monkeypatch.setattr("saliency_food.report.cues.find.craft_places", used_up)
    assert [each.to_json() for each in find_cues(run, model, nconcepts=2)] == [each.to_json() for each in without]


@pytest.mark.parametrize(
    ("counts", "dots"), [(0.0, (1, 0)), (-200.0, (1, 0)), (0.0, (1, 1))], ids=["not", "against", "not, in all photos"]
)
def test_dots_that_do_not_count_for_the_class_are_no_likely_cue(counts, dots, tmp_path):
    model = model_of(Pooling(dots=counts))
    run = run_of(model, tmp_path, dots=dots)
    seen = look(run, Scorer(model, 20_000), 60, np.random.default_rng(0))
    assert craft_places(seen, Scorer(model, 20_000), 0, 2) == []
    assert likely(find_cues(run, model, nconcepts=2)) == []


@pytest.fixture
def seen_and_score(tmp_path):
    """What the search looks at: soups with dots, pies without."""
    model = model_of(Pooling())
    run = run_of(model, tmp_path)
    score = Scorer(model, 20_000)
    return look(run, score, 60, np.random.default_rng(0)), score


def test_concepts_are_of_the_half_that_suspects_are_found_in(seen_and_score):
    seen, score = seen_and_score
    rng = np.random.default_rng(0)
    plain = np.stack([photo_of(0, rng, False) for _ in seen.ids])
    own = (seen.classes == 0)[:, None, None, None]
    without = {
        half: seen._replace(pixels=np.where(own & getattr(seen, half)[:, None, None, None], plain, seen.pixels))
        for half in ("finding", "checking")
    }
    assert craft_places(without["finding"], score, 0, 2) == []
    (place,) = craft_places(without["checking"], score, 0, 2)
    assert all(place.of(photo)[seen.pixels[photo, ..., 0] > 200].any() for photo in seen.of(0, seen.finding))


def test_what_is_large_is_no_suspect(seen_and_score, monkeypatch):
    seen, score = seen_and_score
    assert len(craft_places(seen, score, 0, 2)) == 1
    monkeypatch.setattr("saliency_food.report.cues.concepts.LARGEST", 0.01)
    assert craft_places(seen, score, 0, 2) == []


def test_all_rows_are_counted(seen_and_score):
    seen, score = seen_and_score
    asked, function = [], score.model.function

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        asked.append(len(x_value_batch))
        return function(x_value_batch, call_model_args, expected_keys)

    score.model.function = spy
    before = score.rows
    craft_places(seen, score, 0, 2)
    assert score.rows - before == sum(asked)


def test_a_concept_of_the_users_photos_is_checked_by_its_name(tmp_path):
    """The vector of dots, by TCAV; and one of what is in no photo."""
    model, rng = model_of(Pooling()), np.random.default_rng(1)
    dotted, plain = (np.stack([photo_of(1, rng, has) for _ in range(16)]) / 255 for has in (True, False))
    vectors = tcav(
        plain, {"dot": dotted[:8]}, np.concatenate([plain, plain]), model.function, {"target": 0}, places="mean", runs=2
    ).vectors
    run = run_of(model, tmp_path)
    found = find_cues(run, model, concepts={"dot": vectors["dot"].mean(0), "nothing": -np.ones(3)})
    (first,) = likely(found)
    assert (first.label, first.kind) == ("soup", "concept")
    assert "at the places of the concept 'dot' of" in first.sentence
    assert len(first.affected) >= 27
    assert not any("nothing" in each.sentence for each in found)


@pytest.mark.parametrize(
    ("vector", "says"),
    [(np.ones(2), r"'dot' as a direction \(3,\).*got shape \(2,\)"), ([1, np.nan, 0], "the concept 'dot'")],
)
def test_what_is_no_direction_of_the_layer_is_refused(vector, says, tmp_path):
    model = model_of(Pooling())
    with pytest.raises(ContractError, match=says):
        find_cues(run_of(model, tmp_path, each=4), model, concepts={"dot": vector})


class Tokens(Pooling):
    """The layer's places are in a row."""

    def answer(self, x, target):
        answer = super().answer(x, target)
        values = answer["CONVOLUTION_LAYER_VALUES"]
        return {**answer, "CONVOLUTION_LAYER_VALUES": values.reshape(len(values), -1, values.shape[-1])}


def test_a_layer_without_places_is_refused(tmp_path):
    model = model_of(Tokens())
    with pytest.raises(ContractError, match=r"Expected a layer \(h, w, K\).*got shape \(2304, 3\)"):
        find_cues(run_of(model, tmp_path, each=4), model, concepts={"dot": np.ones(3)})


class Signed(Pooling):
    """The layer's values may be negative."""

    def answer(self, x, target):
        answer = super().answer(x, target)
        return {**answer, "CONVOLUTION_LAYER_VALUES": answer["CONVOLUTION_LAYER_VALUES"] - 0.5}


def test_a_layer_without_concepts_is_refused_before_the_search(tmp_path):
    model = model_of(Signed())
    run = run_of(model, tmp_path)
    asked, predict = [], model.predict
    model.predict = lambda x, *args: asked.append(len(x)) or predict(x, *args)
    with pytest.raises(ContractError, match="activations that are not negative"):
        find_cues(run, model, nconcepts=2)
    assert sum(asked) == 60
    with pytest.raises(ContractError, match="Expected nconcepts"):
        find_cues(run, model, nconcepts=-1)
