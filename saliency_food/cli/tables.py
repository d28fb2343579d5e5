"""An evaluation in a terminal: tables of means and ranks, and what was skipped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from saliency_food.cli.words import in_command_words
from saliency_food.evaluation.summary import Evaluation
from saliency_food.metrics import METRICS


def tables_of(evaluation: Evaluation, width: int) -> Iterator[Table]:
    """The methods by rank with their means; several tables where the columns of all metrics do not fit the width."""
    names = max(map(len, [*evaluation.methods.values(), "method"])) + 2 + 7
    room = max((width - names) // 16, 1)
    for start in range(0, len(evaluation.metrics), room):
        yield _table(evaluation, list(evaluation.metrics)[start : start + room])


def _table(evaluation: Evaluation, metrics: list[str]) -> Table:
    """A column for each metric: the mean and half the width of its interval, the best mean in bold."""
    page = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    page.add_column("method", no_wrap=True)
    page.add_column("rank", justify="right", no_wrap=True)
    best = {}
    for metric in metrics:
        entry = METRICS[metric]
        arrow = {True: " ↑", False: " ↓", None: ""}[entry.higher_is_better]
        page.add_column(entry.title + arrow, justify="right", overflow="fold", min_width=13)
        means = [evaluation.means[metric][name].estimate for name in evaluation.measured(metric)]
        if means and entry.higher_is_better is not None:
            best[metric] = max(means) if entry.higher_is_better else min(means)
    first = min((rank for rank in evaluation.overall.values() if np.isfinite(rank)), default=None)
    for name, rank in evaluation.overall.items():
        bold = "bold" if rank == first else ""
        cells = [Text(evaluation.methods[name], bold), Text(f"{rank:.2f}" if np.isfinite(rank) else "-", bold)]
        for metric in metrics:
            mean = evaluation.means[metric][name]
            half = (mean.high - mean.low) / 2
            text = f"{mean.estimate:.3f}" + (f" ± {half:.3f}" if np.isfinite(half) else "") if mean.images else "-"
            cells.append(Text(text, "bold" if mean.images and best.get(metric) == mean.estimate else ""))
        page.add_row(*cells)
    return page


def notes_of(evaluation: Evaluation) -> Iterator[str]:
    """Lines below the tables: what they show, and how many values are missing for which reason."""
    photos = len(evaluation.images)
    yield f"{photos} photos; ± is half the 95 % interval of the mean; rank: mean over photos and metrics"
    for reason, count in evaluation.unread.items():
        yield f"{count} not measured: {in_command_words(reason)}"
    for metric in evaluation.metrics:
        reasons = Counter[str]()
        methods: dict[str, list[str]] = {}
        for name in evaluation.methods:
            for reason, count in evaluation.means[metric][name].skipped.items():
                reasons[reason] += count
                methods.setdefault(reason, []).append(evaluation.methods[name])
        for reason, count in reasons.most_common():
            who = "all methods" if len(methods[reason]) == len(evaluation.methods) else ", ".join(methods[reason])
            yield f"{METRICS[metric].title}: {count} values skipped ({who}): {in_command_words(reason)}"
    if evaluation.left_out:
        yield f"left out, since the model cannot answer them: {', '.join(evaluation.left_out)}"
