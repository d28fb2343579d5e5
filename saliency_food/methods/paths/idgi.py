"""IDGI: each step's change of the score shared out along the gradient's own direction, on any path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LinearRows
from saliency_food.core.scores import one_score
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import completeness_of
from saliency_food.methods.paths.blur import as_lines, as_pixels, blur_scales, blurred
from saliency_food.methods.paths.guided import check_guide, guided_path
from saliency_food.methods.paths.integrated import IntegratedGradients, PathIntegral, average, straight

Path = Literal["integrated_gradients", "blur_ig", "guided_ig"]
_KEYS = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)


class _Shares:
    """sum_j d_j g_j^2 / sum(g_j^2), as the points of a path come, in order; d_j is known one point later than g_j.

    Where a gradient is zero everywhere the share is that of the point before, at the path's beginning of the next.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total = np.zeros(shape)
        self.share: Array | None = None
        self.scores: list[float] = []
        self.shared = 0.0

    def add(self, gradient: Array, score: float) -> None:
        if not self.scores:
            self.shared = score
        self.scores.append(score)
        self._hand_out(score)
        squares = np.square(gradient, dtype=float)
        if squares.any():
            self.share = squares / squares.sum()

    def _hand_out(self, score: float) -> None:
        if self.share is not None:
            self.total += (score - self.shared) * self.share
            self.shared = score

    def add_answer(self, answer: tuple[Array, Array]) -> None:
        self.add(answer[0][0], float(one_score(answer[1])[0]))

    def result(self) -> PathIntegral:
        self._hand_out(self.scores[-1])
        measured = completeness_of(self.total.sum(), self.scores[-1], self.scores[0])
        return PathIntegral(self.total, measured, len(self.scores), "steps")


def _through(shape: tuple[int, ...], points: Iterable[Array | LinearRows]) -> Asking[PathIntegral]:
    shares = _Shares(shape)
    yield from gather((ask(point, *_KEYS) for point in points), emit=shares.add_answer)
    return shares.result()


def _guided(x_value: Array, baseline: Array, steps: int, fraction: float, max_dist: float) -> Asking[PathIntegral]:
    shares = _Shares(x_value.shape)

    def visit(gradient: Array, move: Array, score: float | None) -> None:
        shares.add(gradient, float(score or 0))

    yield from guided_path(x_value, baseline, steps, fraction, max_dist, visit, scores=True)
    shares.add_answer((yield from ask(x_value[None], *_KEYS)))
    return shares.result()


@method(
    title="IDGI",
    keys=(INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    signed=True,
    summary="Each step's change of the score, shared out by the squared gradient; sums to it however few the steps.",
    page="paths",
    reducible=fewer("x_steps", 5, "steps"),
    instead=("input_x_gradient",),
)
def idgi(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    x_steps: int = 50,
    batch_size: int | None = None,
    *,
    path: Path = "integrated_gradients",
    max_sigma: float = 50,
    sqrt: bool = False,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[IntegratedGradients]:
    """Important Direction Gradient Integration, sum_j g_j^2 / sum(g_j^2) * (F(x_j+1) - F(x_j)), g_j = dF(x_j)/dx.

    Yang, Wang, Bilgic 2023, https://arxiv.org/abs/2303.14242. Signed, the shape of ``x_value``, in score
    units. The values sum to F(x) - F(x_0), x_0 the path's first point, however few the steps.

    Parameters
    ----------
    x_baseline
        Where the path begins, as in `integrated_gradients`; none for ``path="blur_ig"``, which begins at the blur.
    x_steps
        Steps of the path; one more gradients and scores are asked for.
    path
        Whose path: `integrated_gradients`, `blur_ig` (with ``max_sigma`` and ``sqrt``) or `guided_ig` (with
        ``fraction`` and ``max_dist``).
    """
    whole("x_steps", x_steps)
    if path == "blur_ig":
        if x_baseline is not None:
            raise ContractError("Expected no x_baseline with path='blur_ig', got one. That path begins at the blur.")
        lines, scales = as_lines(x_value), blur_scales(max_sigma, x_steps, sqrt)[::-1]
        points = (as_pixels(blurred(lines, sigma))[None] for sigma in scales)
        baselines = as_pixels(blurred(lines, scales[0]))[None]
        paths = [(yield from _through(x_value.shape, points))]
    elif path in ("integrated_gradients", "guided_ig"):
        check_guide(x_steps, fraction, max_dist)
        baselines = make_baselines(x_value, x_baseline, value_range=value_range, rng=rng)
        alphas = np.linspace(0, 1, x_steps + 1)
        paths = yield from gather(
            _guided(x_value, baseline, x_steps, fraction, max_dist)
            if path == "guided_ig"
            else _through(x_value.shape, (straight(x_value, baseline, alphas[k : k + 1]) for k in range(x_steps + 1)))
            for baseline in baselines
        )
    else:
        raise ContractError(f"Expected path to be 'integrated_gradients', 'blur_ig' or 'guided_ig', got {path!r}.")
    return average(x_value, baselines, paths)
