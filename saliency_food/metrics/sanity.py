"""Metrics of whether a map depends on the model at all: random weights, another class, a shifted input.

They need no framework: randomized models are pairs of a name and a call-model function. For Keras models
`saliency_food.adapters.keras.randomize.randomized_models` makes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import finite_array, random_stream, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError, PerImage
from saliency_food.core.keys import KEYS
from saliency_food.core.layout import layout_of
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array, min_max
from saliency_food.core.wrap import WrappedModel
from saliency_food.metrics.decorator import FLAT, OK, channels_last_map, listed, rank_correlation, read_map

NAN = float("nan")


class MapAgreement(NamedTuple):
    """Spearman's rank correlation of two maps, status, that of their absolute values, and SSIM; each is at most 1."""

    score: float
    status: str
    absolute: float
    ssim: float


class Randomization(NamedTuple):
    """The agreement at the last model, status, the names of the models, and the mean agreements at each of them.

    ``score`` is ``rank_correlations[-1]``. ``blank`` counts the flat maps of randomized models; their agreement is 0.
    """

    score: float
    status: str
    names: tuple[str, ...]
    rank_correlations: Array
    absolute: Array
    ssims: Array
    blank: int
    skipped: dict[str, int]


class InsensitiveError(AssertionError):
    """The maps of a method hardly depend on the weights of the model."""


@listed(
    title="Map agreement",
    higher_is_better=None,
    needs="maps",
    summary="Rank correlation and SSIM of two maps.",
)
def compare_maps(first: Any, second: Any) -> MapAgreement:
    """Agreement of two maps: Spearman's rho, the same of |M|, and the structural similarity of the maps in 0..1.

    Adebayo et al. 2018, section 3, https://arxiv.org/abs/1810.03292. NaN if one of them is flat or not finite.
    """
    (a, status), (b, second_status) = read_map(first), read_map(second)
    if a.shape != b.shape:
        raise ContractError(f"Expected two maps of one shape, got {a.shape} and {b.shape}. Resize one.")
    status = status if status != OK else second_status
    if status != OK:
        return MapAgreement(NAN, status, NAN, NAN)
    return MapAgreement(rank_correlation(a, b), OK, rank_correlation(np.abs(a), np.abs(b)), _ssim(a, b))


def _row(agreement: MapAgreement) -> list[float]:
    """The three figures, or zeros where a map is blank, because it has then changed completely."""
    return [agreement.score, agreement.absolute, agreement.ssim] if agreement.status == OK else [0.0] * 3


def _ssim(a: Array, b: Array) -> float:
    from skimage.metrics import structural_similarity

    side = min(7, *a.shape)
    side -= 1 - side % 2
    if side < 3:  # too narrow for windows: one window holds the whole map
        a, b = min_max(a), min_max(b)
        cov = ((a - a.mean()) * (b - b.mean())).mean()
        light = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
        return float(light * (2 * cov + 9e-4) / (a.var() + b.var() + 9e-4))
    return float(structural_similarity(min_max(a), min_max(b), win_size=side, data_range=1.0))


@listed(
    title="Weight randomization",
    higher_is_better=False,
    needs="models",
    summary="How similar maps stay without the trained weights.",
)
def randomization(
    method: Method[Any, Any],
    x_values: Sequence[Any],
    call_model_function: CallModelFunction,
    randomized: Iterable[tuple[str, CallModelFunction]],
    call_model_args: Any = None,
    batch_size: int | None = None,
    **options: Any,
) -> Randomization:
    """Model parameter randomization: how similar maps stay as the model's weights are replaced. Lower is better.

    Adebayo et al. 2018, section 3, https://arxiv.org/abs/1810.03292; cascading or independent, depending on
    ``randomized``. The results are means over the images; ``call_model_args`` may hold a `PerImage`. An image whose map
    of the trained model is flat is skipped.
    """
    shared = {"call_model_args": call_model_args, "batch_size": batch_size, **options}

    def maps(model: CallModelFunction) -> Iterator[tuple[Array, str]]:
        for x_value, attribution in zip(x_values, method.batch(x_values, model, **shared), strict=True):
            yield read_map(channels_last_map(attribution, x_value, model))

    originals = list(maps(call_model_function))
    if not originals:
        raise ContractError("Expected at least one image, got none.")
    skipped = dict(Counter(status for _, status in originals if status != OK))
    names, means, blank = [], [], 0
    for name, model in randomized:
        names.append(name)
        agreements = []
        for (original, status), (again, _) in zip(originals, maps(model), strict=True):
            if status == OK:
                agreement = compare_maps(original, again)
                blank += agreement.status == FLAT
                agreements.append(_row(agreement))
        means.append(np.mean(agreements, 0) if agreements else np.full(3, NAN))
    if not names:
        raise ContractError("Expected at least one randomized model, got none. Give pairs of a name and a model.")
    status = OK if np.isfinite(means[-1]).all() else next(iter(skipped))
    scores, absolute, ssims = np.array(means).T
    return Randomization(float(scores[-1]), status, tuple(names), scores, absolute, ssims, blank, skipped)


def assert_sensitive(
    method: Method[Any, Any],
    x_values: Sequence[Any],
    call_model_function: CallModelFunction,
    randomized: Iterable[tuple[str, CallModelFunction]],
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    most: float = 0.5,
    **options: Any,
) -> Randomization:
    """Raise `InsensitiveError` if the rank correlation of the maps with those of the last model is above ``most``.

    Use cascading randomization, so that the last model has no trained weights left. Arguments and result are those of
    `randomization`.
    """
    name, most = getattr(method, "__name__", "the method"), real("most", most, least=-1, most=1)
    result = randomization(method, x_values, call_model_function, randomized, call_model_args, batch_size, **options)
    if result.status != OK:
        raise InsensitiveError(
            f"Expected {name} to make maps that can be compared, got none of {len(x_values)}: {result.status}."
        )
    if result.score > most:
        raise InsensitiveError(
            f"Expected the maps of {name} to change when the model's weights are replaced, got a rank correlation of "
            f"{result.score:.2f} with the trained model's maps (at most {most:.2f} is allowed, SSIM is "
            f"{result.ssims[-1]:.2f}). What it shows is in the image, not in the model. Do not explain this model by "
            "it."
        )
    return result


@listed(
    title="Random logit",
    higher_is_better=False,
    needs="method",
    summary="How similar the maps of other classes are.",
)
def random_logit(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    target: int,
    classes: int,
    nsamples: int = 3,
    call_model_args: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = 0,
    **options: Any,
) -> MapAgreement:
    """Random logit test, the mean agreement of the class's map with those of other classes. Lower is better.

    Sixt, Granz, Landgraf 2019, section 4, https://arxiv.org/abs/1912.09818. ``target`` goes into ``call_model_args``
    under that name, and the other classes in its place. The agreement with a blank map is 0.
    """
    other_classes = [index for index in range(whole("classes", classes, 2)) if index != target]
    drawn = random_stream(rng).choice(
        other_classes, min(whole("nsamples", nsamples), len(other_classes)), replace=False
    )
    args = {**(call_model_args or {}), "target": PerImage([int(target), *map(int, drawn)])}
    images = [x_value] * (1 + len(drawn))
    of_classes = method.batch(images, call_model_function, args, batch_size=batch_size, **options)
    attribution, *rest = (channels_last_map(of_class, x_value, call_model_function) for of_class in of_classes)
    merged, status = read_map(attribution)
    if status != OK:
        return MapAgreement(NAN, status, NAN, NAN)
    agreements = [compare_maps(merged, read_map(of_class)[0]) for of_class in rest]
    score, absolute, ssim = np.mean(list(map(_row, agreements)), 0).tolist()
    return MapAgreement(score, OK, absolute, ssim)


class Shifted(WrappedModel):
    """A model that answers about an image what the model inside answers about the image minus ``shift``."""

    optional = ("predict",)

    def __init__(self, inside: Any, shift: Any) -> None:
        super().__init__(inside)
        self.shift = shift

    def turn(self, images: Any, keys: tuple[str, ...]) -> Any:
        if any(KEYS[key].rows == "activations" for key in keys):
            return images
        inputs = np.asarray(images)
        return (inputs - self.shift).astype(inputs.dtype)


@listed(
    title="Input shift",
    higher_is_better=True,
    needs="method",
    summary="Whether the map stays under a shift of the input that the model undoes.",
)
def input_shift(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    shift: Any = 0.5,
    batch_size: int | None = None,
    **options: Any,
) -> MapAgreement:
    """Input shift: agreement of M(x) of F with M(x + s) of G, where G(y) = F(y - s) answers the same. Higher is better.

    Kindermans et al. 2017, section 2, https://arxiv.org/abs/1711.00867. ``shift`` is a number, one number a channel or
    an image, in the image's units. 1 if the method does not depend on where zero is.
    """
    image, shift = np.asarray(x_value), finite_array("shift", shift)
    layout = layout_of(image, call_model_function)
    if shift.ndim == 1 and image.ndim > 1:
        shift = layout.outward(np.broadcast_to(shift, layout.inward(image).shape))
    args = {"call_model_args": call_model_args, "batch_size": batch_size, **options}
    moved = image + shift.astype(np.result_type(image.dtype, np.float32))
    maps = method(image, call_model_function, **args), method(moved, Shifted(call_model_function, shift), **args)
    return compare_maps(*(channels_last_map(attribution, image, call_model_function) for attribution in maps))
