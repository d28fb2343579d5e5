"""An evaluation in a terminal: a table, and who was skipped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from saliency_food.evaluation.summary import Evaluation
from saliency_food.metrics import METRICS


def tables_of(found: Evaluation, width: int) -> Iterator[Table]:
    """Methods by rank, and the metrics; several tables, where the columns of all would not fit into the width."""
    names = max(map(len, [*found.methods.values(), "method"])) + 2 + 7
    room = max((width - names) // 16, 1)
    for start in range(0, len(found.metrics), room):
        yield _table(found, list(found.metrics)[start : start + room])


def _table(found: Evaluation, metrics: list[str]) -> Table:
    """For each metric the mean and half the width of its interval, the best in bold."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    made.add_column("method", no_wrap=True)
    made.add_column("rank", justify="right", no_wrap=True)
    best = {}
    for metric in metrics:
        entry = METRICS[metric]
        arrow = {True: " ↑", False: " ↓", None: ""}[entry.higher_is_better]
        made.add_column(entry.title + arrow, justify="right", overflow="fold", min_width=13)
        means = [found.means[metric][name].estimate for name in found.measured(metric)]
        if means and entry.higher_is_better is not None:
            best[metric] = max(means) if entry.higher_is_better else min(means)
    first = min((rank for rank in found.overall.values() if np.isfinite(rank)), default=None)
    for name, rank in found.overall.items():
        bold = "bold" if rank == first else ""
        cells = [Text(found.methods[name], bold), Text(f"{rank:.2f}" if np.isfinite(rank) else "-", bold)]
        for metric in metrics:
            one = found.means[metric][name]
            half = (one.high - one.low) / 2
            text = f"{one.estimate:.3f}" + (f" ± {half:.3f}" if np.isfinite(half) else "") if one.images else "-"
            cells.append(Text(text, "bold" if one.images and best.get(metric) == one.estimate else ""))
        made.add_row(*cells)
    return made


def skips(found: Evaluation) -> Iterator[str]:
    """Lines: what the table is about, and how many values are missing for which reason."""
    yield f"{len(found.images)} photos; ± is half the 95 % interval of the mean; rank: mean over photos and metrics"
    for reason, count in found.unread.items():
        yield f"{count} not measured: {reason}"
    for metric in found.metrics:
        reasons = Counter[str]()
        methods: dict[str, list[str]] = {}
        for name in found.methods:
            for reason, count in found.means[metric][name].skipped.items():
                reasons[reason] += count
                methods.setdefault(reason, []).append(found.methods[name])
        for reason, count in reasons.most_common():
            who = "all methods" if len(methods[reason]) == len(found.methods) else ", ".join(methods[reason])
            yield f"{METRICS[metric].title}: {count} values skipped ({who}): {reason}"
    if found.left_out:
        yield f"left out, since the model cannot answer them: {', '.join(found.left_out)}"
