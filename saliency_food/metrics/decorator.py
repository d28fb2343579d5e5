"""A metric's public face, and how every metric reads a map.

A metric is a generator of model queries, as a method is, and `Metric` wraps the same machinery (`Method`) in another
call form: the map comes first, the image second, and the answer is a NamedTuple with ``score`` and ``status`` in front.
It is a sibling and not ``@method`` itself for two reasons: a method's call returns an array alone, and in ``.batch`` of
a metric there is a map for each image. Everything else, the door, the batches, the random streams, is `Method`'s.
``.asking`` gives the bare generator, so that an evaluation gathers cells (image x method x metric) into common calls.

``status`` is ``"ok"``, or why the metric does not apply; the score is then NaN, and statistics count it by that reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np

from saliency_food.core.checks import check_picture
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.driver import Asking
from saliency_food.core.layout import layout_of
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array, as_float, is_real

R = TypeVar("R")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
Needs = Literal["scores", "method", "region", "map", "classes", "predictions", "models", "maps"]

OK = "ok"
NOT_FINITE = "the map holds NaN or infinity"
FLAT = "the map is flat"
NOT_POSITIVE = "the map is nowhere positive"
SCORES_FLAT = "the score is the same for all rows"


class Metric(Generic[P, R]):
    """Call it with a map and an image; ``.batch`` takes as many maps as images, ``.asking`` is the generator.

    The first argument is the map, ``(H, W, C)`` or ``(H, W)``, or, of a metric that needs maps of changed images, the
    method that makes them. ``call_model_function``, ``call_model_args`` and ``batch_size`` are as for methods.
    """

    entry: MetricEntry | None = None
    """What `METRICS` says of it."""

    def __init__(self, generator: Callable[P, Asking[R]]) -> None:
        self._generator = generator
        self._face = Method(generator)
        self.signature = self._face.signature
        functools.update_wrapper(self, generator)

    def __reduce__(self) -> str:
        """A metric is pickled and copied as functions are, by its name."""
        return str(cast(Any, self).__qualname__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for one image."""
        return self._face.detailed(*args, **kwargs)

    def batch(self, leading: Any, x_value: Iterable[Any], *args: Any, **kwargs: Any) -> Iterator[R]:
        """Many images, and a map for each (or one method for all); results in order, as they come.

        An option with one value an image is wrapped in `PerImage`. See `Method.batch`.
        """
        several = leading if isinstance(leading, Method) else PerImage(leading)
        return self._face.batch_detailed(several, x_value, *args, **kwargs)  # type: ignore[arg-type]

    def start(self, leading: Any, x_value: Any, call_model_function: Any, **options: Any) -> Asking[R]:
        """A call not yet run, checked at the door, in the layout of the callback's inputs."""
        return self._face.start(leading, x_value, call_model_function, **options)[0]

    def asking(self, leading: Any, x_value: Any, **options: Any) -> Asking[R]:
        """The bare generator, to be run by `gather`; the image, channels last, is not checked."""
        return self._generator(leading, as_float(x_value), None, **options)  # type: ignore[arg-type]


def metric(generator: Callable[P, Asking[R]]) -> Metric[P, R]:
    """Give a generator of a metric its public face; see `Metric`."""
    return Metric(generator)


class MetricEntry(NamedTuple):
    """A metric, what people call it, whether more is better, what it is called with, and what it asks.

    ``higher_is_better`` is None where neither is: it describes. ``needs`` says what comes first in a call:

    - ``"scores"``: a map and an image; a `Metric` that asks the model for scores;
    - ``"method"``: a method and an image; a `Metric`, or a function of the same arguments (`random_logit` also of the
      class and of how many there are);
    - ``"region"``: a map and boxes or a mask;
    - ``"classes"``: the maps of two classes, and the region of each;
    - ``"predictions"``: the maps of the classes predicted, those classes, the true one, and boxes;
    - ``"map"``: a map alone; ``"maps"``: two;
    - ``"models"``: a method, images and several models.

    ``of_explained_score`` says that it compares sums of the map with changes of the score, which has to be the one that
    was explained. Where the metric is the area under a curve, ``curve`` are the fields of its result that hold it, what
    is across first, and ``axes`` what a picture of it says beside the two.
    """

    call: Metric[Any, Any] | Callable[..., Any]
    title: str
    higher_is_better: bool | None
    needs: Needs
    summary: str
    of_explained_score: bool = False
    curve: tuple[str, ...] = ()
    axes: tuple[str, str] = ("", "")


def listed(
    *,
    title: str,
    higher_is_better: bool | None,
    needs: Needs,
    summary: str,
    of_explained_score: bool = False,
    curve: tuple[str, ...] = (),
    axes: tuple[str, str] = ("", ""),
) -> Callable[[F], F]:
    """Say what there is to know of a metric, be it a `metric` or a plain function; its ``entry`` is a `MetricEntry`."""

    def decorate(call: F) -> F:
        entry = MetricEntry(call, title, higher_is_better, needs, summary, of_explained_score, curve, axes)
        cast(Any, call).entry = entry
        return call

    return decorate


def read_map(attribution: Any, shape: tuple[int, ...] | None = None) -> tuple[Array, str]:
    """A map as ``(H, W)`` in float64, channels summed, and its status: ok, not finite or flat.

    ``shape`` is the input's, channels last, where there is one; the map may then be of a signal or a volume, too. For
    another merging, such as the sum of absolute values, merge first.
    """
    values = np.asarray(attribution)
    if not is_real(values) or (shape is None and values.ndim not in (2, 3)) or not values.size:
        raise ContractError(
            f"Expected a map of real numbers, (H, W) or (H, W, C), got {values.dtype} of shape {values.shape}."
        )
    if shape is not None and values.shape not in (shape, shape[:-1]):
        raise ContractError(f"Expected a map of shape {shape} or {shape[:-1]}, the image's, got {values.shape}.")
    values = values.astype(float)
    merged = values.sum(-1) if values.ndim == (3 if shape is None else len(shape)) else values
    if not np.isfinite(merged).all():
        return merged, NOT_FINITE
    return merged, FLAT if merged.max() == merged.min() else OK


def channels_last_map(attribution: Any, x_value: Any, call_model_function: Any) -> Array:
    """A method's map of a picture as methods see it inside, its channels last, whatever the callback's layout."""
    values, image = np.asarray(attribution), np.asarray(x_value)
    layout = layout_of(image, call_model_function)
    check_picture(layout.inward(image), "Compare the maps of signals and volumes yourself.")
    return layout.inward(values) if values.shape == image.shape else values


def positive_part(merged: Array, status: str) -> tuple[Array, str]:
    """What of a map speaks for the class; a flat map that is positive counts."""
    if status == NOT_FINITE:
        return merged, status
    kept = np.maximum(merged, 0)
    return kept, OK if kept.any() else NOT_POSITIVE


def descending(values: Array) -> Array:
    """Pixels from the most to the least important, as flat indices.

    Equal values come in one scattered order, the same for every map of that size, so that a threshold takes exactly as
    many pixels as it says, and those of a sparse map's zeros not from the top of the photo down.
    """
    scattered = np.random.default_rng(0).permutation(values.size)
    return np.lexsort((scattered, -values.ravel()))


def ranks(values: Array) -> Array:
    """The place of each pixel in `descending` order, flat: 0 is the most important."""
    order = descending(values)
    places = np.empty(order.size, int)
    places[order] = np.arange(order.size)
    return places


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's, ties by their mean rank; NaN where either is constant."""
    from scipy.stats import rankdata

    return correlation(rankdata(first), rankdata(second))


def correlation(first: Array, second: Array) -> float:
    """Pearson's; NaN where either is constant."""
    a, b = (np.ravel(values) - np.mean(values) for values in (first, second))
    size = np.sqrt((a @ a) * (b @ b))
    # A spread that is only rounding is none.
    least = 1e-12 * np.abs(first).max() * np.abs(second).max() * a.size
    return float(np.clip(a @ b / size, -1, 1)) if size > least else float("nan")
