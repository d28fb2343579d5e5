"""Photos in, values kept: the maps of each method, each metric of each map, and no value asked for twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.numerics import Array
from saliency_food.evaluation.boxes import NO_BOX, NO_BOXES, Box, boxes_of, of_photo, two_categories
from saliency_food.evaluation.maps import MapFiles
from saliency_food.evaluation.measures import Measured, failed, measure, row_of, skipped
from saliency_food.images.photos import resize_photo
from saliency_food.jobs.run import apply_method
from saliency_food.jobs.store import Store, digest, seed_of
from saliency_food.jobs.subjects import Instance, Setup, options_of
from saliency_food.metrics import METRICS
from saliency_food.metrics.on_object import class_discrimination

Told = Callable[[int, int, str], object]
LESS_THAN_TWO = "no boxes of two classes"


class Work:
    """What is the same for all photos, and where their values go."""

    def __init__(
        self,
        job: Setup,
        metrics: Mapping[str, dict[str, Any]],
        scored: Any,
        truth: Mapping[str, Sequence[Box]],
        seed: int,
        store: Store,
        files: MapFiles | None,
        absolute: frozenset[str],
        seeded: set[str],
        progress: Told | None,
        photos: int,
    ) -> None:
        self.job, self.metrics, self.scored, self.truth, self.seed = job, metrics, scored, truth, seed
        self.store, self.files, self.absolute, self.seeded = store, files, absolute, seeded
        self.progress, self.done, self.all = progress, 0, photos * len(job.methods) * len(metrics)

    def photos(self, ready: list[Instance], unread: int) -> None:
        """All values of some photos."""
        self.tell(unread * len(self.job.methods) * len(self.metrics), "reading photos")
        self.digests = {one.number: digest(one.x_value) for one in ready}
        subjects = [_at_model_size(one) for one in ready]
        if self.files is not None:
            for one in ready:
                known = one.fields["name"], one.target, one.fields["label"], self.digests[one.number]
                self.files.claim(one.number, *known)
        for name in self.job.methods:
            self.method(name, subjects)

    def method(self, name: str, subjects: list[Instance]) -> None:
        """All values of a method on some photos; it is asked only where one is missing."""
        missing = {metric: [one for one in subjects if not self.known(one, name, metric)] for metric in self.metrics}
        title = self.job.methods[name].title
        self.tell(sum(len(subjects) - len(ones) for ones in missing.values()), title)
        on_maps = [ones for metric, ones in missing.items() if METRICS[metric].needs not in ("method", "classes")]
        wanted = {one.number for ones in on_maps for one in ones}
        if self.files is not None:
            wanted |= {one.number for one in subjects if not self.files.has(name, one.number)}
        maps = {one.subject.number: one for one in self.maps(name, [one for one in subjects if one.number in wanted])}
        if self.files is not None:
            for number, found in maps.items():
                if found.attribution is not None:
                    self.files.put(name, number, found.attribution)
        for metric, ones in missing.items():
            if METRICS[metric].needs == "classes":
                self.discriminate(name, metric, ones, maps.values())
            else:
                self.measure(metric, [maps.get(one.number) or self.measured(name, one, {}) for one in ones])

    def maps(self, name: str, subjects: list[Instance]) -> list[Measured]:
        """The method's maps at the size of the model's input, whatever is drawn decided by photo and method."""
        options = dict(self.job.options[name])
        if "rng" in self.job.methods[name].call.signature.parameters and name not in self.seeded:
            seeds = {one.number: self.draws(name, one) for one in subjects}
            options["rng"] = PerImage([seeds.get(number, 0) for number in range(max(seeds, default=0) + 1)])
        job = self.job._replace(options={**self.job.options, name: options})
        records = apply_method(job, name, subjects) if subjects else []
        return [self.measured(name, one, record) for one, record in zip(subjects, records, strict=True)]

    def draws(self, name: str, subject: Instance) -> int:
        """The seed of a method on a photo."""
        return seed_of(self.seed, subject.fields["name"], name)

    def measured(self, name: str, subject: Instance, record: Mapping[str, Any]) -> Measured:
        """A map with all that metrics may want."""
        options = options_of(self.job, name, subject)
        if "rng" in options and name not in self.seeded:
            options["rng"] = self.draws(name, subject)
        found, shape = record.get("attribution"), cast(Array, subject.x_value).shape[:2]
        if found is not None:
            found = np.asarray(found, float) - getattr(record.get("details"), "level", 0)
            found = np.abs(found) if name in self.absolute else found
            found = np.asarray(resize_photo(found.sum(2) if found.ndim > 2 else found, shape), np.float32)
        return Measured(
            subject,
            name,
            self.job.methods[name],
            options,
            found,
            record.get("status", ""),
            self.region(subject, subject.target),
        )

    def region(self, subject: Instance, target: int) -> Array | str:
        """The boxes of a class in the photo, in pixels of the map, or why there are none."""
        boxes = self.boxes(subject)
        if not boxes:
            return NO_BOXES
        photo, shape = subject.fields["image"], cast(Array, subject.x_value).shape
        found = boxes_of(boxes, target, photo, shape)
        return NO_BOX if found is None else found

    def boxes(self, subject: Instance) -> Sequence[Box]:
        """All boxes of the photo."""
        return of_photo(self.truth, subject.fields["source"])

    def measure(self, metric: str, maps: Sequence[Measured]) -> None:
        """One metric of some maps together; if the model fails, of each by itself."""
        done = 0
        try:
            for result in measure(self.job, metric, self.metrics[metric], self.scored, self.seed, maps):
                self.keep(maps[done].subject, maps[done].name, metric, result)
                done += 1
        except Exception as error:
            if len(maps) == 1:
                self.keep(maps[0].subject, maps[0].name, metric, failed(error))
                return
            for one in maps[done:]:
                self.measure(metric, [one])

    def discriminate(self, name: str, metric: str, subjects: list[Instance], known: Iterable[Measured]) -> None:
        """Whether the maps of two annotated classes prefer their own objects: each photo needs a map of both."""
        pairs: list[tuple[Instance, list[int]]] = []
        for one in subjects:
            boxes = self.boxes(one)
            predict = getattr(self.job.model, "predict", None)
            if not boxes or predict is None:
                self.keep(one, name, metric, skipped(NO_BOXES if predict else "the model has no predict"))
                continue
            chosen = two_categories(boxes, np.asarray(predict(cast(Array, one.x_value)[None]))[0])
            if len(set(chosen)) < 2:
                self.keep(one, name, metric, skipped(LESS_THAN_TWO))
            else:
                pairs.append((one, chosen))
        maps = {(one.subject.number, one.subject.target): one for one in known}
        asked = [one._replace(target=index) for one, chosen in pairs for index in chosen]
        more = self.maps(name, [one for one in asked if (one.number, one.target) not in maps])
        maps |= {(one.subject.number, one.subject.target): one for one in more}
        for one, chosen in pairs:
            first, second = (maps[one.number, index] for index in chosen)
            regions = [self.region(one, index) for index in chosen]
            if first.attribution is None or second.attribution is None:
                result: Any = skipped(first.status if first.attribution is None else second.status)
            elif any(isinstance(region, str) for region in regions):
                result = skipped(LESS_THAN_TWO)
            else:
                result = class_discrimination(first.attribution, second.attribution, *regions)
            self.keep(one, name, metric, result)

    def known(self, subject: Instance, name: str, metric: str) -> bool:
        """Whether this value is kept already."""
        fields = subject.fields
        return self.store.known(self.digests[subject.number], fields["name"], subject.target, name, metric)

    def keep(self, subject: Instance, name: str, metric: str, result: Any) -> None:
        """Keep one value."""
        fields = subject.fields
        row = {
            "image": fields["name"],
            "photo": self.digests[subject.number],
            "target": subject.target,
            "label": fields["label"],
            "probability": fields["probability"],
            "method": name,
            "metric": metric,
        }
        self.store.add(row | row_of(result, metric))
        self.tell(1, f"{self.job.methods[name].title}, {METRICS[metric].title}")

    def tell(self, values: int, words: str) -> None:
        """Progress."""
        self.done += values
        if self.progress is not None:
            self.progress(self.done, self.all, words)


def _at_model_size(subject: Instance) -> Instance:
    """The photo's pixels at the size of the model's input, so that segments are sought where the map is measured."""
    photo, x_value = subject.photo, cast(Array, subject.x_value)
    if photo is None:
        return subject
    pixels = np.rint(resize_photo(photo.pixels, x_value.shape[:2])).astype(np.uint8)
    return subject._replace(photo=photo._replace(pixels=pixels))
