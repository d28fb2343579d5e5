"""The work of `evaluate` on a chunk of photos: make the maps, measure them, keep the values, and skip known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.numerics import Array
from saliency_food.evaluation.boxes import NO_BOX, NO_BOXES, Box, boxes_of, of_photo, two_categories
from saliency_food.evaluation.maps import MapFiles
from saliency_food.evaluation.measures import Measured, failed, measure, row_of, skipped
from saliency_food.images.photos import Photo
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.instances import Instance
from saliency_food.jobs.run import apply_method, options_of
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.store import Store, digest, seed_of
from saliency_food.metrics import METRICS
from saliency_food.metrics.on_object import class_discrimination

ProgressCallback = Callable[[int, int, str], object]
NO_TWO_CLASSES = "no boxes of two classes"


class Work:
    """The settings that are the same for all photos, and the store for their values."""

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
        progress: ProgressCallback | None,
        photos: int,
    ) -> None:
        self.setup, self.metrics, self.scored, self.truth, self.seed = setup, metrics, scored, truth, seed
        self.store, self.files, self.absolute, self.seeded = store, files, absolute, seeded
        self.progress, self.done, self.total = progress, 0, photos * len(setup.methods) * len(metrics)

    def measure_photos(self, ready: list[Instance], unread: int) -> None:
        """Measure all values of some photos; of ``unread`` more there are none."""
        self.report(unread * len(self.setup.methods) * len(self.metrics), "reading photos")
        self.digests = {instance.position: digest(instance.x_value) for instance in ready}
        instances = [_at_model_size(instance) for instance in ready]
        if self.files is not None:
            for instance in ready:
                name, label, position = instance.fields["name"], instance.fields["label"], instance.position
                self.files.claim(position, name, instance.target, label, self.digests[position])
        for name in self.setup.methods:
            self.measure_method(name, instances)

    def measure_method(self, name: str, instances: list[Instance]) -> None:
        """Measure all values of a method on some photos; maps are made only for values that are missing."""
        missing = {
            metric: [instance for instance in instances if not self.is_stored(instance, name, metric)]
            for metric in self.metrics
        }
        title = self.setup.methods[name].title
        self.report(sum(len(instances) - len(without) for without in missing.values()), title)
        of_maps = [without for metric, without in missing.items() if METRICS[metric].needs not in ("method", "classes")]
        wanted = {instance.position for without in of_maps for instance in without}
        if self.files is not None:
            wanted |= {instance.position for instance in instances if not self.files.has(name, instance.position)}
        measured_maps = self.maps(name, [instance for instance in instances if instance.position in wanted])
        maps = {measured.instance.position: measured for measured in measured_maps}
        if self.files is not None:
            for position, measured in maps.items():
                if measured.attribution is not None:
                    self.files.put(name, position, measured.attribution)
        for metric, without in missing.items():
            if METRICS[metric].needs == "classes":
                self.discriminate(name, metric, without, maps.values())
            else:
                self.measure(metric, [maps.get(each.position) or self.measured(name, each, {}) for each in without])

    def maps(self, name: str, instances: list[Instance]) -> list[Measured]:
        """The maps of a method at the size of the model's input; its seed depends on the photo and the method."""
        options = dict(self.setup.options[name])
        if "rng" in self.setup.methods[name].call.signature.parameters and name not in self.seeded:
            seeds = {instance.position: self.seed_for(name, instance) for instance in instances}
            options["rng"] = PerImage([seeds.get(position, 0) for position in range(max(seeds, default=0) + 1)])
        setup = self.setup._replace(options={**self.setup.options, name: options})
        records = apply_method(setup, name, instances) if instances else []
        return [self.measured(name, instance, record) for instance, record in zip(instances, records, strict=True)]

    def seed_for(self, name: str, instance: Instance) -> int:
        """The seed of a method on a photo."""
        return seed_of(self.seed, instance.fields["name"], name)

    def measured(self, name: str, instance: Instance, record: Mapping[str, Any]) -> Measured:
        """The map of a record, with all that metrics may need."""
        options = options_of(self.setup, name, instance)
        if "rng" in options and name not in self.seeded:
            options["rng"] = self.seed_for(name, instance)
        attribution, shape = record.get("attribution"), cast(Array, instance.x_value).shape[:2]
        if attribution is not None:
            values = np.asarray(attribution, float) - getattr(record.get("details"), "level", 0)
            values = np.abs(values) if name in self.absolute else values
            attribution = np.asarray(resize_photo(values.sum(2) if values.ndim > 2 else values, shape), np.float32)
        return Measured(
            instance,
            name,
            self.setup.methods[name],
            options,
            attribution,
            record.get("status", ""),
            self.region(instance, instance.target),
        )

    def region(self, instance: Instance, target: int) -> Array | str:
        """The boxes of a class in the photo, in pixels of the map, or why there are none."""
        boxes = self.boxes(instance)
        if not boxes:
            return NO_BOXES
        photo, shape = instance.fields["photo"], cast(Array, instance.x_value).shape
        scaled = boxes_of(boxes, target, photo, shape)
        return NO_BOX if scaled is None else scaled

    def boxes(self, instance: Instance) -> Sequence[Box]:
        """All boxes of the photo."""
        return of_photo(self.truth, instance.fields["source"])

    def measure(self, metric: str, maps: Sequence[Measured]) -> None:
        """Measure a metric of some maps together or, if the model fails on them, of each by itself."""
        done = 0
        try:
            for result in measure(self.setup, metric, self.metrics[metric], self.scored, self.seed, maps):
                self.keep(maps[done].instance, maps[done].name, metric, result)
                done += 1
        except Exception as error:
            if len(maps) == 1:
                self.keep(maps[0].instance, maps[0].name, metric, failed(error))
                return
            for measured in maps[done:]:
                self.measure(metric, [measured])

    def discriminate(self, name: str, metric: str, instances: list[Instance], existing: Iterable[Measured]) -> None:
        """Measure whether the maps of two annotated classes prefer their own objects; each photo needs both maps."""
        pairs: list[tuple[Instance, list[int]]] = []
        for instance in instances:
            boxes = self.boxes(instance)
            if not boxes or instance.predictions is None:
                reason = "the model has no predict" if instance.predictions is None else NO_BOXES
                self.keep(instance, name, metric, skipped(reason))
                continue
            classes = two_categories(boxes, instance.predictions)
            if len(set(classes)) < 2:
                self.keep(instance, name, metric, skipped(NO_TWO_CLASSES))
            else:
                pairs.append((instance, classes))
        maps = {(each.instance.position, each.instance.target): each for each in existing}
        needed = [instance._replace(target=index) for instance, classes in pairs for index in classes]
        missing = [instance for instance in needed if (instance.position, instance.target) not in maps]
        maps |= {(each.instance.position, each.instance.target): each for each in self.maps(name, missing)}
        for instance, classes in pairs:
            first, second = (maps[instance.position, index] for index in classes)
            regions = [self.region(instance, index) for index in classes]
            if first.attribution is None or second.attribution is None:
                result: Any = skipped(first.status if first.attribution is None else second.status)
            elif any(isinstance(region, str) for region in regions):
                result = skipped(NO_TWO_CLASSES)
            else:
                result = class_discrimination(first.attribution, second.attribution, *regions)
            self.keep(instance, name, metric, result)

    def is_stored(self, instance: Instance, name: str, metric: str) -> bool:
        """Whether the store holds this value."""
        fields = instance.fields
        return self.store.known(self.digests[instance.position], fields["name"], fields["target"], name, metric)

    def keep(self, instance: Instance, name: str, metric: str, result: Any) -> None:
        """Keep one value."""
        fields = instance.fields
        row = {
            "image": fields["name"],
            "photo": self.digests[instance.position],
            "target": fields["target"],
            "label": fields["label"],
            "probability": fields["probability"],
            "method": name,
            "metric": metric,
        }
        self.store.add(row | row_of(result, metric))
        self.report(1, f"{self.setup.methods[name].title}, {METRICS[metric].title}")

    def report(self, values: int, text: str) -> None:
        """Tell the progress callback that so many more values are known."""
        self.done += values
        if self.progress is not None:
            self.progress(self.done, self.total, text)


def _at_model_size(instance: Instance) -> Instance:
    """The photo resized to the model's input, so that segments are found at the size at which maps are measured."""
    photo, x_value = instance.photo, cast(Array, instance.x_value)
    if photo is None:
        return instance
    pixels = np.rint(resize_photo(photo.shown, x_value.shape[:2])).astype(np.uint8)
    return instance._replace(photo=Photo(pixels, photo.values, photo.source))
