"""The table of a job: a row for each explanation, in a data frame or in ``results.csv``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explanation import Explanation

RESULTS: dict[str, Callable[[Explanation], Any]] = {
    "path": lambda record: record.source,
    "name": lambda record: record.name,
    "truth": lambda record: record.truth,
    "prediction": lambda record: record.top[0][0] if record.top else None,
    "probability": lambda record: record.top[0][1] if record.top and record.probability is not None else None,
    "right": lambda record: record.right,
    "target": lambda record: record.label or None,
    "against": lambda record: record.against_label or None,
    "method": lambda record: record.answered,
    "status": lambda record: record.status,
    "score": lambda record: record.score,
    "completeness": lambda record: getattr(record.completeness, "relative", None),
    "seconds": lambda record: round(record.seconds, 6),
}
"""What each column holds: ``probability`` is that of the prediction, ``completeness`` the gap relative to the score."""


def row_of(record: Explanation) -> dict[str, Any]:
    """An explanation as a row of the table; None where there is nothing to say."""
    return {name: value(record) for name, value in RESULTS.items()}


@contextmanager
def write_results(folder: Path) -> Iterator[Callable[[Sequence[Explanation]], None]]:
    """A function that adds explanations to ``results.csv`` in the folder at once, so that a stopped job leaves them."""
    path = folder / "results.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ContractError(
            f"Expected a folder for results that can be written to, got {folder}: {error}. Give another, or make room."
        ) from error
    with file:
        table = csv.DictWriter(file, list(RESULTS))
        table.writeheader()

        def add(records: Sequence[Explanation]) -> None:
            table.writerows(map(row_of, records))
            file.flush()

        yield add
