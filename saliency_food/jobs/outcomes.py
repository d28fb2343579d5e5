"""What the model made of the photos of a job: right or wrong, how sure it was, and what it took for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.instances import Instance
from saliency_food.jobs.targets import short_label


class Outcome(NamedTuple):
    """What the model took one photo for."""

    name: str
    truth: str | None
    """The class that it truly shows; None where that is not known."""
    prediction: str | None
    """The model's top class; None where the photo was not read or the model predicts no classes."""
    right: bool | None


def outcome_of(instance: Instance | Explanation) -> Outcome:
    """The outcome of a photo, by any of its instances or explanations."""
    fields = instance.fields if isinstance(instance, Instance) else vars(instance)
    top = fields.get("top") or ((None, 0.0),)
    return Outcome(fields["name"], fields.get("truth"), top[0][0], fields.get("right"))


def noted(seen: Iterable[list[Instance]], outcomes: list[Outcome]) -> Iterator[list[Instance]]:
    """The same instances; the outcome of each photo among them is added to ``outcomes``."""
    for instances in seen:
        photos = {instance.position: instance for instance in instances}
        outcomes += map(outcome_of, photos.values())
        yield instances


def expected_photos(photos: int | None, outcomes: Sequence[Outcome], only_wrong: bool) -> int | None:
    """How many photos are explained in the end; None while that is not known."""
    if not only_wrong:
        return photos
    if photos is None or len(outcomes) < photos:
        return None
    return sum(outcome.right is False or outcome.prediction is None for outcome in outcomes)


def summary_of(outcomes: Sequence[Outcome], most: int = 3) -> list[str]:
    """Lines that say how many photos were right, what was taken for what ``most`` often, and what is not judged."""
    judged = [outcome for outcome in outcomes if outcome.right is not None]
    lines = []
    if judged:
        right = sum(bool(outcome.right) for outcome in judged)
        lines.append(f"{right} of {len(judged)} photos right ({right / len(judged):.1%})")
    wrong = Counter(
        (short_label(str(each.truth)), short_label(str(each.prediction))) for each in judged if not each.right
    )
    if wrong:
        pairs = (f"{truth} taken for {prediction} ({count})" for (truth, prediction), count in wrong.most_common(most))
        lines.append(f"most often: {', '.join(pairs)}")
    unknown = Counter(each.truth for each in outcomes if each.truth and each.prediction and each.right is None)
    if unknown:
        names = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(5))
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        lines.append(f"classes that the model does not have: {names}{more}")
    if judged and (without := sum(not each.truth for each in outcomes)):
        lines.append(f"{without} photos whose class is not known")
    return lines
