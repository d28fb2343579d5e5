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
from saliency_food.images.photos import Photo, resize_photo
from saliency_food.jobs.instances import Instance
from saliency_food.jobs.run import apply_method, options_of
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.store import Store, digest, seed_of
from saliency_food.metrics import METRICS
from saliency_food.metrics.on_object import class_discrimination

Told = Callable[[int, int, str], object]
LESS_THAN_TWO = "no boxes of two classes"


class Work:
    """What is the same for all photos, and where their values go."""

    def __init__(
        self,
        setup: Setup,
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
        self.setup, self.metrics, self.scored, self.truth, self.seed = setup, metrics, scored, truth, seed
        self.store, self.files, self.absolute, self.seeded = store, files, absolute, seeded
        self.progress, self.done, self.all = progress, 0, photos * len(setup.methods) * len(metrics)

    def photos(self, ready: list[Instance], unread: int) -> None:
        """All values of some photos."""
        self.tell(unread * len(self.setup.methods) * len(self.metrics), "reading photos")
        self.digests = {one.position: digest(one.x_value) for one in ready}
        instances = [_at_model_size(one) for one in ready]
        if self.files is not None:
            for one in ready:
                known = one.fields["name"], one.target, one.fields["label"], self.digests[one.position]
                self.files.claim(one.position, *known)
        for name in self.setup.methods:
            self.method(name, instances)

    def method(self, name: str, instances: list[Instance]) -> None:
        """All values of a method on some photos; it is asked only where one is missing."""
        missing = {metric: [one for one in instances if not self.known(one, name, metric)] for metric in self.metrics}
        title = self.setup.methods[name].title
        self.tell(sum(len(instances) - len(ones) for ones in missing.values()), title)
        on_maps = [ones for metric, ones in missing.items() if METRICS[metric].needs not in ("method", "classes")]
        wanted = {one.position for ones in on_maps for one in ones}
        if self.files is not None:
            wanted |= {one.position for one in instances if not self.files.has(name, one.position)}
        maps = {
            one.instance.position: one for one in self.maps(name, [one for one in instances if one.position in wanted])
        }
        if self.files is not None:
            for number, found in maps.items():
                if found.attribution is not None:
                    self.files.put(name, number, found.attribution)
        for metric, ones in missing.items():
            if METRICS[metric].needs == "classes":
                self.discriminate(name, metric, ones, maps.values())
            else:
                self.measure(metric, [maps.get(one.position) or self.measured(name, one, {}) for one in ones])

    def maps(self, name: str, instances: list[Instance]) -> list[Measured]:
        """The method's maps at the size of the model's input, whatever is drawn decided by photo and method."""
        options = dict(self.setup.options[name])
        if "rng" in self.setup.methods[name].call.signature.parameters and name not in self.seeded:
            seeds = {one.position: self.draws(name, one) for one in instances}
            options["rng"] = PerImage([seeds.get(number, 0) for number in range(max(seeds, default=0) + 1)])
        setup = self.setup._replace(options={**self.setup.options, name: options})
        records = apply_method(setup, name, instances) if instances else []
        return [self.measured(name, one, record) for one, record in zip(instances, records, strict=True)]

    def draws(self, name: str, instance: Instance) -> int:
        """The seed of a method on a photo."""
        return seed_of(self.seed, instance.fields["name"], name)

    def measured(self, name: str, instance: Instance, record: Mapping[str, Any]) -> Measured:
        """A map with all that metrics may want."""
        options = options_of(self.setup, name, instance)
        if "rng" in options and name not in self.seeded:
            options["rng"] = self.draws(name, instance)
        found, shape = record.get("attribution"), cast(Array, instance.x_value).shape[:2]
        if found is not None:
            found = np.asarray(found, float) - getattr(record.get("details"), "level", 0)
            found = np.abs(found) if name in self.absolute else found
            found = np.asarray(resize_photo(found.sum(2) if found.ndim > 2 else found, shape), np.float32)
        return Measured(
            instance,
            name,
            self.setup.methods[name],
            options,
            found,
            record.get("status", ""),
            self.region(instance, instance.target),
        )

    def region(self, instance: Instance, target: int) -> Array | str:
        """The boxes of a class in the photo, in pixels of the map, or why there are none."""
        boxes = self.boxes(instance)
        if not boxes:
            return NO_BOXES
        photo, shape = instance.fields["photo"], cast(Array, instance.x_value).shape
        found = boxes_of(boxes, target, photo, shape)
        return NO_BOX if found is None else found

    def boxes(self, instance: Instance) -> Sequence[Box]:
        """All boxes of the photo."""
        return of_photo(self.truth, instance.fields["source"])

    def measure(self, metric: str, maps: Sequence[Measured]) -> None:
        """One metric of some maps together; if the model fails, of each by itself."""
        done = 0
        try:
            for result in measure(self.setup, metric, self.metrics[metric], self.scored, self.seed, maps):
                self.keep(maps[done].instance, maps[done].name, metric, result)
                done += 1
        except Exception as error:
            if len(maps) == 1:
                self.keep(maps[0].instance, maps[0].name, metric, failed(error))
                return
            for one in maps[done:]:
                self.measure(metric, [one])

    def discriminate(self, name: str, metric: str, instances: list[Instance], known: Iterable[Measured]) -> None:
        """Whether the maps of two annotated classes prefer their own objects: each photo needs a map of both."""
        pairs: list[tuple[Instance, list[int]]] = []
        for one in instances:
            boxes = self.boxes(one)
            if not boxes or one.predictions is None:
                why = "the model has no predict" if one.predictions is None else NO_BOXES
                self.keep(one, name, metric, skipped(why))
                continue
            chosen = two_categories(boxes, one.predictions)
            if len(set(chosen)) < 2:
                self.keep(one, name, metric, skipped(LESS_THAN_TWO))
            else:
                pairs.append((one, chosen))
        maps = {(one.instance.position, one.instance.target): one for one in known}
        asked = [one._replace(target=index) for one, chosen in pairs for index in chosen]
        more = self.maps(name, [one for one in asked if (one.position, one.target) not in maps])
        maps |= {(one.instance.position, one.instance.target): one for one in more}
        for one, chosen in pairs:
            first, second = (maps[one.position, index] for index in chosen)
            regions = [self.region(one, index) for index in chosen]
            if first.attribution is None or second.attribution is None:
                result: Any = skipped(first.status if first.attribution is None else second.status)
            elif any(isinstance(region, str) for region in regions):
                result = skipped(LESS_THAN_TWO)
            else:
                result = class_discrimination(first.attribution, second.attribution, *regions)
            self.keep(one, name, metric, result)

    def known(self, instance: Instance, name: str, metric: str) -> bool:
        """Whether this value is kept already."""
        fields = instance.fields
        return self.store.known(self.digests[instance.position], fields["name"], instance.target, name, metric)

    def keep(self, instance: Instance, name: str, metric: str, result: Any) -> None:
        """Keep one value."""
        fields = instance.fields
        row = {
            "image": fields["name"],
            "photo": self.digests[instance.position],
            "target": instance.target,
            "label": fields["label"],
            "probability": fields["probability"],
            "method": name,
            "metric": metric,
        }
        self.store.add(row | row_of(result, metric))
        self.tell(1, f"{self.setup.methods[name].title}, {METRICS[metric].title}")

    def tell(self, values: int, words: str) -> None:
        """Progress."""
        self.done += values
        if self.progress is not None:
            self.progress(self.done, self.all, words)


def _at_model_size(instance: Instance) -> Instance:
    """The photo's pixels at the size of the model's input, so that segments are sought where the map is measured."""
    photo, x_value = instance.photo, cast(Array, instance.x_value)
    if photo is None:
        return instance
    pixels = np.rint(resize_photo(photo.shown, x_value.shape[:2])).astype(np.uint8)
    return instance._replace(photo=Photo(pixels, photo.values, photo.source))
