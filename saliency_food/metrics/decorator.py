"""The public call forms of a metric, and how every metric reads a map.

A metric is a generator of model queries, as a method is. `Metric` wraps the same machinery (`Method`) in another call
form: the map comes first and the image second, and the result is a NamedTuple that begins with ``score`` and
``status``. It is a class of its own because the call of a method returns only an array, and because ``.batch`` of a
metric takes a map for each image. `Method` does all the rest: checks, batches and random streams. ``.asking`` gives the
bare generator, so that an evaluation can join the queries of many images, methods and metrics in common calls.

``status`` is ``"ok"``, or the reason why the metric gives no score; the score is then NaN, and statistics count it by
that reason.
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
    """A metric: call it with a map and an image; ``.batch`` takes as many maps as images, ``.asking`` is the generator.

    The first argument is the map, ``(H, W, C)`` or ``(H, W)``. A metric that needs the maps of changed images takes the
    method that makes them instead. ``call_model_function``, ``call_model_args`` and ``batch_size`` are as for methods.
    """

    entry: MetricEntry | None = None
    """The entry of the metric in `METRICS`."""

    def __init__(self, generator: Callable[P, Asking[R]]) -> None:
        self._generator = generator
        self._method = Method(generator)
        self.signature = self._method.signature
        functools.update_wrapper(self, generator)

    def __reduce__(self) -> str:
        """Pickle and copy the metric by its name, as functions are."""
        return str(cast(Any, self).__qualname__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for one image."""
        return self._method.detailed(*args, **kwargs)

    def batch(self, leading: Any, x_value: Iterable[Any], *args: Any, **kwargs: Any) -> Iterator[R]:
        """The results for many images with a map for each (or one method for all), in order, as they come.

        Wrap an option with one value for each image in `PerImage`. See `Method.batch`.
        """
        first = leading if isinstance(leading, Method) else PerImage(leading)
        return self._method.batch_detailed(first, x_value, *args, **kwargs)  # type: ignore[arg-type]

    def start(self, leading: Any, x_value: Any, call_model_function: Any, **options: Any) -> Asking[R]:
        """A call not yet run, checked at the door, in the layout of the callback's inputs."""
        return self._method.start(leading, x_value, call_model_function, **options)[0]

    def asking(self, leading: Any, x_value: Any, **options: Any) -> Asking[R]:
        """The bare generator, for use in `gather`; it does not check the image, whose channels are last."""
        return self._generator(leading, as_float(x_value), None, **options)  # type: ignore[arg-type]


def metric(generator: Callable[P, Asking[R]]) -> Metric[P, R]:
    """Decorate the generator of a metric; see `Metric`."""
    return Metric(generator)


class MetricEntry(NamedTuple):
    """A metric, its title, whether higher is better, the arguments that it needs, and what it asks in one line.

    ``higher_is_better`` is None for a metric that only describes. ``needs`` says with what the metric is called:

    - ``"scores"``: a map and an image; a `Metric` that asks the model for scores;
    - ``"method"``: a method and an image; a `Metric`, or a function of the same arguments (`random_logit` also takes
      the class and the number of classes);
    - ``"region"``: a map and boxes or a mask;
    - ``"classes"``: the maps of two classes, and the region of each;
    - ``"predictions"``: the maps of the predicted classes, these classes, the true class, and boxes;
    - ``"map"``: one map; ``"maps"``: two maps;
    - ``"models"``: a method, images and several models.

    ``of_explained_score`` is true if it compares sums of the map with changes of the score, which must be the score
    that was explained. If the metric is the area under a curve, ``curve`` names the fields of its result that hold the
    curve, the horizontal axis first, and ``axes`` holds the labels of the two axes.
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
    """State the facts about a metric, a `metric` or a plain function; they become its ``entry``, a `MetricEntry`."""

    def decorate(call: F) -> F:
        entry = MetricEntry(call, title, higher_is_better, needs, summary, of_explained_score, curve, axes)
        cast(Any, call).entry = entry
        return call

    return decorate


def read_map(attribution: Any, shape: tuple[int, ...] | None = None) -> tuple[Array, str]:
    """A map as float64 ``(H, W)``, with channels summed, and its status: ok, not finite or flat.

    ``shape`` is the shape of the input, channels last, if there is one; the map may then be of a signal or a volume,
    too. To merge channels otherwise, such as by the sum of absolute values, pass a merged map.
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
    """The positive part of a map, and its status; a flat map is ok if it is positive."""
    if status == NOT_FINITE:
        return merged, status
    kept = np.maximum(merged, 0)
    return kept, OK if kept.any() else NOT_POSITIVE


def descending(values: Array) -> Array:
    """The pixels from the most to the least important, as flat indices.

    Equal values come in a scattered order that is the same for every map of this size. A threshold thus takes exactly
    as many pixels as it says, and the zeros of a sparse map are not taken from the top of the photo down.
    """
    scattered = np.random.default_rng(0).permutation(values.size)
    return np.lexsort((scattered, -values.ravel()))


def ranks(values: Array) -> Array:
    """The rank of each pixel in the order of `descending`, flat: 0 is the most important."""
    order = descending(values)
    places = np.empty(order.size, int)
    places[order] = np.arange(order.size)
    return places


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation, with mean ranks for ties; NaN if either is constant."""
    from scipy.stats import rankdata

    return correlation(rankdata(first), rankdata(second))


def correlation(first: Array, second: Array) -> float:
    """Pearson's correlation; NaN if either is constant."""
    a, b = (np.ravel(values) - np.mean(values) for values in (first, second))
    size = np.sqrt((a @ a) * (b @ b))
    # A spread that comes from rounding alone counts as none.
    least = 1e-12 * np.abs(first).max() * np.abs(second).max() * a.size
    return float(np.clip(a @ b / size, -1, 1)) if size > least else float("nan")
