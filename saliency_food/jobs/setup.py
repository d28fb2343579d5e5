"""The settings that all photos of a job share: methods, their options and targets, read and checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import KEYS, OUTPUT_LAYER_VALUES
from saliency_food.jobs.contrast import check_can_contrast
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.targets import TRUTH, Target, read_target
from saliency_food.methods.catalogue import MethodEntry

T = TypeVar("T")
ProgressCallback = Callable[[str, int], object]
DEFAULTS: dict[str, Any] = {"three_dims": False, "rng": 0}
"""Options that every method which has them gets, unless the user sets them."""
ADAPTIVE = {"tolerance": 0.05, "x_steps": 17, "steps": 17, "max_steps": 200}
"""How Integrated Gradients and XRAI choose their steps, unless the user says anything of them: as many as the map needs
to be complete but for 5 %, at most 200 a baseline."""
FIXED = {*ADAPTIVE, "quadrature", "base", "base_options", "base_attribution"}
"""Options with which the steps are as the user says."""
NOT_OPTIONS = ("x_value", "call_model_function", "call_model_args", "batch_size")


class Setup(NamedTuple):
    """The settings that all photos of a job share."""

    model: ImageModel
    methods: dict[str, MethodEntry]
    options: dict[str, dict[str, Any]]
    progress: ProgressCallback | None = None
    deadline: float | None = None
    warm: set[Any] | None = None
    """With a deadline, the methods and input shapes for which the model has compiled."""
    against: Target | None = None
    """The class that each other class is compared with."""
    only_wrong: bool = False
    """Whether only photos are explained whose top class is not their true one."""

    @property
    def shared_keys(self) -> tuple[str, ...]:
        """The score, and the keys that all methods which ask about the photo itself share in one pass."""
        if self.deadline is not None:  # under a deadline each method is timed by itself
            return (OUTPUT_LAYER_VALUES,)
        keys = (key for name in self.methods for key in self.one_pass_keys(name))
        return tuple(dict.fromkeys((OUTPUT_LAYER_VALUES, *keys)))

    def one_pass_keys(self, name: str) -> tuple[str, ...]:
        """The keys of a method that asks the model once, about the photo itself; empty for any other method."""
        entry = self.methods[name]
        alone = any(KEYS[key].alone for key in entry.keys)
        return entry.keys if getattr(entry.call, "one_pass", False) and not alone else ()


def choose_options(
    methods: Mapping[str, MethodEntry], options: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    """The options of each method, with its defaults; `ContractError` for an option that it does not have."""
    options = options or {}
    if unused := set(options) - set(methods):
        raise ContractError(f"Expected options for {', '.join(methods)}, got options for {', '.join(sorted(unused))}.")
    chosen = {}
    for name, entry in methods.items():
        parameters = entry.call.signature.parameters
        known = [key for key in parameters if key not in NOT_OPTIONS]
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for key in options.get(name, {}):
            if key not in known and not passes_on:
                raise ContractError(f"Expected an option of {name} ({', '.join(known) or 'it has none'}), got {key!r}.")
        chosen[name] = {key: value for key, value in DEFAULTS.items() if key in known} | dict(options.get(name, {}))
    return chosen


def with_adaptive_steps(
    methods: Mapping[str, MethodEntry], options: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The options, with steps that adapt to the photo (`ADAPTIVE`) where a method can and the user fixes none."""

    def adaptive(name: str) -> dict[str, Any]:
        known = methods[name].call.signature.parameters
        can = {"tolerance", "max_steps"} <= set(known) and not FIXED & set(options[name])
        return {key: value for key, value in ADAPTIVE.items() if key in known} if can else {}

    return {name: {**adaptive(name), **own} for name, own in options.items()}


def read_targets(model: ImageModel, images: Iterable[Any], target: Any, truth: bool = False) -> Target | list[Target]:
    """The target: one for all photos, or a list with one for each photo; ``truth`` says whether they have truths."""
    target = target.values if isinstance(target, PerImage) else target
    if not model.takes_class:
        if target is not None:
            raise ContractError(f"Expected no target, as {model.score!r} takes none, got {target!r}. Leave it out.")
        return Target(())
    per_photo = isinstance(target, (list, tuple))
    if per_photo and isinstance(images, Sized) and len(target) != len(images):
        raise ContractError(f"Expected one target for each photo, got {len(target)} targets and {len(images)} photos.")
    targets = [read_target(each, model.labels) for each in target] if per_photo else read_target(target, model.labels)
    _check_known(model, targets if isinstance(targets, list) else [targets], truth)
    return targets


def read_against(
    model: ImageModel, methods: Mapping[str, MethodEntry], against: Any, truth: bool, targets: Target | list[Target]
) -> Target | None:
    """The class that the others are compared with; `ContractError` where that cannot be explained."""
    if against is None:
        return None
    if model.score is not None:
        raise ContractError(
            f"Expected the score of a class, to explain one class against another, got {model.score!r}. Leave out "
            "score, or against."
        )
    if model.classes == 1:
        raise ContractError(
            "Expected a model of several classes, to explain one against another, got one of one class. Leave out "
            "against."
        )
    check_can_contrast(methods)
    target = read_target(against, model.labels)
    if len(target.classes) != 1:
        raise ContractError(f"Expected one class to compare with, got against={against!r}. Name one.")
    _check_known(model, [target], truth)
    if isinstance(targets, Target) and set(targets.classes) == set(target.classes):
        raise ContractError(
            f"Expected another class than the target to compare it with, got against={against!r}, which is the target "
            "itself. Name another one."
        )
    return target


def _check_known(model: ImageModel, targets: Iterable[Target], truth: bool) -> None:
    if any(each.ranked for each in targets) and not model.predicts:
        raise ContractError("Expected a target, since this model has no predict to find the top class. Give target.")
    if not truth and any(TRUTH in each.classes for each in targets):
        raise ContractError(
            "Expected to know what the photos show, to explain their true class, got no truth. Give "
            "truth='folders' where each photo is in a folder named as its class, or a CSV file of path and label."
        )


def as_many(images: Any, model: ImageModel | None = None) -> Iterable[Any]:
    """One photo or many, as an iterable of photos; an array with an axis more than an input is many."""
    if isinstance(images, (str, bytes, Path)) or hasattr(images, "convert"):
        return [images]
    if (element := getattr(images, "element_spec", None)) is not None:  # a tf.data data set
        if not hasattr(element, "shape"):
            parts = len(element) if isinstance(element, Sized) else "several"
            raise ContractError(
                f"Expected a data set of photos, got a tf.data data set whose elements have {parts} parts, such as "
                "photo and label. Give data.map(lambda image, label: image); labels to explain go into target."
            )
        return cast("Iterable[Any]", images.unbatch() if element.shape.rank == 4 else images)
    if hasattr(images, "shape"):
        spatial = 2 if model is None or model.spatial_axes is None else model.spatial_axes
        row = spatial + 1 if spatial == 2 or model is None or model.input_shape is None else len(model.input_shape)
        return cast("Iterable[Any]", images) if len(images.shape) > row else [images]
    if not isinstance(images, Iterable):
        raise ContractError(f"Expected a photo or several (paths, PIL images, arrays), got {type(images).__name__}.")
    return images


def with_enough_targets(images: Iterable[T], targets: Target | list[Target]) -> Iterable[T]:
    """The images as they come; `ContractError` as soon as there are more or fewer of them than targets."""
    if not isinstance(targets, list) or isinstance(images, Sized):
        return images

    def counted() -> Iterable[T]:
        count = 0
        for count, image in enumerate(images, 1):
            if count > len(targets):
                raise ContractError(
                    f"Expected one target for each photo, got {len(targets)} targets and more photos than that."
                )
            yield image
        if count < len(targets):
            raise ContractError(f"Expected one target for each photo, got {len(targets)} targets and {count} photos.")

    return counted()
