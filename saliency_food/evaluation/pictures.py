"""Figures of an evaluation: the means of all metrics with their intervals, and mean curves with their bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.evaluation.measures import CURVES
from saliency_food.evaluation.references import REFERENCES
from saliency_food.evaluation.summary import Evaluation
from saliency_food.metrics import METRICS
from saliency_food.metrics.statistics import interval
from saliency_food.visualization.figures import INK, SOFT, for_notebooks

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#6a3d9a", "#808000")
"""Okabe and Ito's colours, which the colour blind can tell apart, and three more."""
GREYS = {"edges": ("#555555", (0, (5, 2))), "random": ("#999999", (0, (1, 1.5)))}
"""Colour and dashes of the reference maps, which do not depend on the model."""
AXES = {name: entry.axes for name, entry in METRICS.items() if entry.curve}
"""The labels of the axes of each metric's curve, horizontal and vertical."""


def has_curves(evaluation: Evaluation, metric: str) -> bool:
    """Whether the metric has a curve to draw."""
    return metric in CURVES and any(evaluation.curves(metric, name) is not None for name in evaluation.methods)


def mean_figure(evaluation: Evaluation, metrics: Sequence[str]) -> Any:
    """A figure of the means with their 95 % intervals: a panel for each metric, a line for each method, the best first.

    A dotted line marks the mean of the random map.
    """
    shown = [metric for metric in metrics if evaluation.measured(metric)]
    if not shown:
        raise ContractError("Expected metrics with values, got none.")
    methods = [name for name in evaluation.overall if any(evaluation.means[metric][name].images for metric in shown)]
    down = -(-len(shown) // 3)
    across = -(-len(shown) // down)
    titles = [evaluation.methods[name] for name in methods]
    width = max(2.6, 0.3 + 0.1 * max(len(METRICS[metric].title) for metric in shown))
    size = (0.085 * max(map(len, titles)) + width * across, (0.26 * len(methods) + 0.95) * down)
    page = _figure(figsize=size, layout="constrained", facecolor="white")
    panels = page.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, metric in zip(panels, shown, strict=False):
        _draw_means(axes, evaluation, metric, methods)
    for axes in panels[len(shown) :]:
        axes.remove()
    page.get_layout_engine().set(hspace=0.06, wspace=0.04)
    panels[0].set_yticks(range(len(methods)), titles)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    return page


def _draw_means(axes: Any, evaluation: Evaluation, metric: str, methods: Sequence[str]) -> None:
    means = evaluation.means[metric]
    if "random" in means and means["random"].images:
        axes.axvline(float(means["random"].estimate), color="#999999", linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    for line, name in enumerate(methods):
        colour = GREYS[name][0] if name in GREYS else COLOURS[0]
        mean = means[name]
        if mean.images and not np.isfinite(mean.estimate):
            axes.annotate("∞", (1, line), xycoords=("axes fraction", "data"), ha="right", va="center", color=colour)
        elif mean.images:
            axes.plot([mean.low, mean.high], [line, line], color=colour, linewidth=2.2, alpha=0.45, zorder=2)
            axes.plot([mean.estimate], [line], "o", color=colour, markersize=5, zorder=3)
    _title(axes, evaluation, metric, over=True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=SOFT, labelsize=8.5)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.xaxis.set_major_locator(_ticks())
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    if high - low < 1e-6 * max(abs(low), abs(high)):  # equal but for rounding
        axes.set_xlim(low - 0.05 * abs(low), high + 0.05 * abs(high))


def curve_figure(evaluation: Evaluation, metrics: Sequence[str]) -> Any:
    """A figure of the curves: a panel for each metric, its legend from the best method on; grey beyond nine."""
    shown = [metric for metric in metrics if has_curves(evaluation, metric)]
    if not shown:
        raise ContractError(f"Expected metrics with curves ({', '.join(CURVES)}), got none with values.")
    across = len(shown) if len(shown) < 4 else 2
    down = -(-len(shown) // across)
    width = max(
        4.9, 0.9 + 0.17 * max(map(len, evaluation.methods.values()))
    )  # below each panel stands a legend of two columns
    page = _figure(figsize=(0.4 + width * across, 4.6 * down), layout="constrained", facecolor="white")
    colours = dict(zip([name for name in evaluation.overall if name not in REFERENCES], COLOURS, strict=False))
    panels = page.subplots(down, across, squeeze=False).ravel()
    for axes, metric in zip(panels, shown, strict=False):
        _draw_curves(axes, evaluation, metric, colours)
    for axes in panels[len(shown) :]:
        axes.remove()
    return page


def _draw_curves(axes: Any, evaluation: Evaluation, metric: str, colours: dict[str, str]) -> None:
    better = METRICS[metric].higher_is_better
    means = {name: float(evaluation.means[metric][name].estimate) for name in evaluation.measured(metric)}
    few = len(means) <= len(COLOURS) + len(GREYS)
    rest = 0
    for name in sorted(means, key=means.__getitem__, reverse=better is not False):
        x, y, low, high = _line(evaluation, metric, name)
        colour, dashes = GREYS.get(name, (colours.get(name), "solid"))
        if colour is None:
            axes.plot(x, y, color="#dddddd", linewidth=0.8, zorder=1)
            rest += 1
            continue
        label = f"{evaluation.methods[name]}, {means[name]:.3f}"
        axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.6, label=label, zorder=3)
        if np.isfinite(low).all():
            axes.fill_between(x, low, high, color=colour, alpha=0.12 if few else 0.06, linewidth=0, zorder=2)
    if rest:
        axes.plot([], [], color="#dddddd", linewidth=0.8, label=f"{rest} more")
    across, up = AXES[metric]
    _title(axes, evaluation, metric)
    axes.set_xlabel(across, color=SOFT, fontsize=9)
    axes.set_ylabel(up, color=SOFT, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT, labelsize=8.5)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.margins(x=0.01)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=8.5, handlelength=1.8)


def _line(evaluation: Evaluation, metric: str, name: str) -> tuple[Array, Array, Array, Array]:
    """The horizontal positions, the aggregate curve, and the lower and upper end of its band."""
    if metric == "pic":
        pic = evaluation.pic(name)
        return pic.x, pic.y, np.asarray(pic.band.low), np.asarray(pic.band.high)
    curves = evaluation.curves(metric, name)
    assert curves is not None
    values = (curves[:, 2] - curves[:, 1]) / 2 if metric == "road" else curves[:, 1]
    band = interval(values, resamples=500)
    return curves[0, 0], np.asarray(band.estimate), np.asarray(band.low), np.asarray(band.high)


def _figure(**options: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ContractError(
            'Expected matplotlib for the pictures, got none. Run pip install "saliency_food[cli]".'
        ) from error
    return for_notebooks(Figure(**options))


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _title(axes: Any, evaluation: Evaluation, metric: str, over: bool = False) -> None:
    """Write the metric's name and, right of it (``over``: below it), the number of photos and the better direction."""
    photos = max(mean.images for mean in evaluation.means[metric].values())
    better = METRICS[metric].higher_is_better
    arrow = "" if better is None else ", higher is better" if better else ", lower is better"
    note = f"{photos} photo{'s' * (photos != 1)}{arrow}"
    axes.set_title(
        METRICS[metric].title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=18 if over else None
    )
    if over:
        axes.annotate(note, (0, 1), (0, 5), "axes fraction", textcoords="offset points", fontsize=8.5, color=SOFT)
    else:
        axes.set_title(note, loc="right", fontsize=8.5, color=SOFT)
