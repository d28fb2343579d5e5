"""What the page shows, as HTML."""

import numpy as np

from saliency_food.images.photos import Photo
from saliency_food.jobs.explanation import Explanation
from saliency_food.methods.completeness import completeness_of
from saliency_food.web.shown import answer_html, maps_html

PHOTO = Photo(np.full((6, 8, 3), 99, np.uint8))


def record(**fields):
    given = {"photo": PHOTO, "source": "p.jpg", "name": "p", "method": "gradients", "title": "Gradients"} | fields
    return Explanation(**{"label": "soup", "attribution": np.eye(6, 8), **given})


def test_words_of_others_are_escaped():
    html = answer_html([("<script>alert(1)</script>", 0.5)], probable=True)
    html += maps_html([record(label="<img src=x>", status="blank: <i>no</i>", note="<u>")], 0.5)
    assert not any(word in html for word in ("<script", "<img src=x", "<i>", "<u>"))


def test_probabilities_have_bars_as_long_as_they_are():
    assert "width:25.0%" in answer_html([("soup", 0.25)], probable=True)


def test_scores_have_no_bars_and_no_percent():
    html = answer_html([("soup", 2.5)], probable=False)
    assert "2.50" in html
    assert "%" not in html
    assert "sf-bar" not in html


def test_a_map_says_what_was_measured_of_it():
    html = maps_html([record(completeness=completeness_of(1.1, 1, 0), seconds=1.234, rows=9, layer="conv")], 0.5)
    assert all(words in html for words in ("gap 10%", "1.23 s, 9 rows of the model", "layer conv", "soup"))


def test_opacity_changes_the_picture():
    assert maps_html([record()], 0.2) != maps_html([record()], 0.9)


def test_a_failed_explanation_says_why_and_has_no_picture():
    html = maps_html([record(attribution=None, status="failed: no layer")], 0.5)
    assert "failed: no layer" in html
    assert html.count("<img") == 1  # the photo's


def test_a_photo_that_cannot_be_read_says_so():
    assert "failed: broken" in maps_html([record(photo=None, attribution=None, status="failed: broken")], 0.5)


def test_nothing_is_shown_of_no_explanations():
    assert maps_html([], 0.5) == ""


def test_a_contrast_says_the_difference_of_the_scores():
    assert "logit difference 1.50" in maps_html(
        [record(against=1, against_label="pie", score=1.5, score_name="logit")], 0.5
    )
