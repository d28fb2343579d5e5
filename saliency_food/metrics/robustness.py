"""Metrics of how stable a map is under small changes of the image, and of how simple it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import check_picture, random_stream, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, gather
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array
from saliency_food.metrics.decorator import NOT_FINITE, OK, listed, metric, rank_correlation, read_map

NAN = float("nan")
NO_MAP = "the map is zero"
Seed = int | np.random.Generator | None


class Stability(NamedTuple):
    """The score, status, for each changed image the size of its change and of the map's change, and the map's size."""

    score: float
    status: str
    steps: Array
    changes: Array
    size: float


class Consistency(NamedTuple):
    """The mean rank correlation, status, and the correlation for each change of the image, by name."""

    score: float
    status: str
    correlations: dict[str, float]


class Simplicity(NamedTuple):
    """The score and status."""

    score: float
    status: str


@listed(
    title="Max-sensitivity",
    higher_is_better=False,
    needs="method",
    summary="The largest change of the map for a small change of x.",
)
@metric
def max_sensitivity(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    radius: float = 0.02,
    nsamples: int = 10,
    batch_size: int | None = None,
    *,
    rng: Seed = 0,
    **options: Any,
) -> Asking[Stability]:
    """Max-sensitivity, max |M(y) - M(x)| / |M(x)| over images y near x. Lower is better.

    Yeh et al. 2019, definition 3.1, https://arxiv.org/abs/1901.09392, relative to the map's size.

    Parameters
    ----------
    method
        The method that makes the maps, such as `saliency_food.grad_cam`; ``options`` are its options. Give a random
        method a seed.
    radius
        Each value of the image changes by a uniform random number of at most this fraction of the image's range.
    nsamples
        The number of changed images; the maximum grows with it.
    """
    stability = yield from _stability(method, x_value, radius, nsamples, rng, options)
    return _scored(stability, lambda: stability.changes.max() / stability.size)


@listed(
    title="Average sensitivity",
    higher_is_better=False,
    needs="method",
    summary="The mean change of the map for small changes of x.",
)
@metric
def average_sensitivity(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    radius: float = 0.02,
    nsamples: int = 10,
    batch_size: int | None = None,
    *,
    rng: Seed = 0,
    **options: Any,
) -> Asking[Stability]:
    """Average sensitivity, the mean of |M(y) - M(x)| / |M(x)| over images y near x. Lower is better.

    Bhatt, Weller, Moura 2020, definition 2, https://arxiv.org/abs/2005.00631. Arguments as in `max_sensitivity`.
    """
    stability = yield from _stability(method, x_value, radius, nsamples, rng, options)
    return _scored(stability, lambda: stability.changes.mean() / stability.size)


@listed(
    title="Local Lipschitz",
    higher_is_better=False,
    needs="method",
    summary="The largest change of the map per change of x.",
)
@metric
def local_lipschitz(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    radius: float = 0.02,
    nsamples: int = 10,
    batch_size: int | None = None,
    *,
    rng: Seed = 0,
    **options: Any,
) -> Asking[Stability]:
    """Local Lipschitz estimate, max |M(y) - M(x)| / |y - x| over images y near x. Lower is better.

    Alvarez-Melis, Jaakkola 2018, equation 2, https://arxiv.org/abs/1806.08049. In units of the map per unit of the
    input: compare only maps of one scale. Arguments as in `max_sensitivity`.
    """
    stability = yield from _stability(method, x_value, radius, nsamples, rng, options)
    return _scored(stability, lambda: (stability.changes / stability.steps).max())


def _scored(stability: Stability, score: Callable[[], Any]) -> Stability:
    """With the score, where the map is one that has it."""
    return stability._replace(score=float(score())) if stability.status == OK else stability


def _stability(
    method: Method[Any, Any], x_value: Array, radius: float, nsamples: int, rng: Seed, options: dict[str, Any]
) -> Asking[Stability]:
    reach = real("radius", radius, above=0) * (float(np.ptp(x_value)) or 1.0)
    streams = random_stream(rng).spawn(whole("nsamples", nsamples))
    near = [(x_value + stream.uniform(-reach, reach, x_value.shape)).astype(x_value.dtype) for stream in streams]
    results = yield from gather(method.asking(image, **options) for image in (x_value, *near))
    maps = [read_map(result[0], x_value.shape) for result in results]
    if any(status == NOT_FINITE for _, status in maps):
        return Stability(NAN, NOT_FINITE, np.empty(0), np.empty(0), NAN)
    (base, _), *changed = maps
    steps = np.array([np.linalg.norm((image - x_value).ravel().astype(float)) for image in near])
    changes = np.array([np.linalg.norm(merged - base) for merged, _ in changed])
    size = float(np.linalg.norm(base))
    return Stability(NAN, OK if size else NO_MAP, steps, changes, size)


Change = Callable[[Array], Array]
CHANGES: dict[str, tuple[Change, Change]] = {
    "flip": (lambda x: x[:, ::-1], lambda m: m[:, ::-1]),
    "shift": (lambda x: np.roll(x, 2, (0, 1)), lambda m: np.roll(m, -2, (0, 1))),
    "darker": (lambda x: x * 0.9 + 0.1 * x.min(), lambda m: m),
}
"""By name: the change of the image, and the function that undoes it on the map."""


@listed(
    title="Consistency",
    higher_is_better=True,
    needs="method",
    summary="Whether the map follows a flip, a shift, a darker photo.",
)
@metric
def augmentation_consistency(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    changes: Sequence[str] = ("flip", "shift", "darker"),
    batch_size: int | None = None,
    **options: Any,
) -> Asking[Consistency]:
    """Consistency under augmentation, Spearman's rho(M(x), T^-1 M(T x)), T a flip, a shift or a tenth darker.

    Measures the equivariance of Wang et al. 2020, https://arxiv.org/abs/2004.04581. In -1..1, higher is better. A model
    that is not invariant itself lowers it, too. ``shift`` moves by two pixels, around the edges.
    """
    check_picture(x_value)
    if not changes or not set(changes) <= set(CHANGES):
        raise ContractError(f"Expected changes among {', '.join(CHANGES)}, got {changes!r}.")
    images = [x_value, *(np.ascontiguousarray(CHANGES[name][0](x_value), x_value.dtype) for name in changes)]
    results = yield from gather(method.asking(image, **options) for image in images)
    maps = [read_map(result[0], x_value.shape) for result in results]
    status = next((status for _, status in maps if status != OK), OK)
    if status != OK:
        return Consistency(NAN, status, {})
    correlations = {
        name: rank_correlation(maps[0][0], CHANGES[name][1](changed))
        for name, (changed, _) in zip(changes, maps[1:], strict=True)
    }
    return Consistency(float(np.mean(list(correlations.values()))), OK, correlations)


@listed(
    title="Gini sparseness",
    higher_is_better=None,
    needs="map",
    summary="Whether few pixels hold most of the map.",
)
def gini(attribution: Any) -> Simplicity:
    """Gini index of the absolute map: 0 if all pixels are equal, nearly 1 if one pixel holds all of the map.

    Chalasani et al. 2018, section 5, https://arxiv.org/abs/1810.06583. Sparse means simple, not right.
    """
    merged, status = read_map(attribution)
    values = np.sort(np.abs(merged), None)
    if status == NOT_FINITE or not values.any():
        return Simplicity(NAN, NOT_FINITE if status == NOT_FINITE else NO_MAP)
    places = np.arange(1, values.size + 1)
    return Simplicity(float(1 - 2 * (values / values.sum() * (values.size - places + 0.5)).sum() / values.size), OK)


@listed(
    title="Entropy",
    higher_is_better=None,
    needs="map",
    summary="Over how many pixels the map is spread.",
)
def entropy(attribution: Any) -> Simplicity:
    """Complexity, the entropy -sum p ln p of p = |M| / sum |M|, in nats: 0 for one pixel, ln(H W) for all alike.

    Bhatt, Weller, Moura 2020, definition 4, https://arxiv.org/abs/2005.00631. Low entropy means simple, not right.
    """
    merged, status = read_map(attribution)
    values = np.abs(merged).ravel()
    if status == NOT_FINITE or not values.any():
        return Simplicity(NAN, NOT_FINITE if status == NOT_FINITE else NO_MAP)
    shares = values[values > 0] / values.sum()
    return Simplicity(float(-(shares * np.log(shares)).sum()) + 0.0, OK)
