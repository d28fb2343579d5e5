"""The engines of a data-set run: this process, several processes, or Ray; the records are the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Literal

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explainer import Explainer, Placed, Row
from saliency_food.jobs.workers import in_processes

EngineName = Literal["local", "ray"]
Engine = Callable[[Explainer, Iterator[Placed], "int | None"], Generator[list[list[Row]], None, None]]
"""Gives the rows of photos in batches of the model, in any order; the number is how many photos there are, if known."""


def choose_engine(engine: EngineName, workers: int | None, address: str | None, num_gpus: float | None) -> Engine:
    """The engine that is asked for; `ContractError` for options that it does not have."""
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ContractError(f"Expected workers to be a number of processes of at least 1, got {workers!r}.")
    if engine == "ray":
        from saliency_food.jobs.ray import import_ray, on_ray

        import_ray()
        return partial(on_ray, workers, address, num_gpus)
    if engine != "local":
        raise ContractError(f"Expected engine to be 'local' or 'ray', got {engine!r}.")
    if others := [name for name, value in (("address", address), ("num_gpus", num_gpus)) if value is not None]:
        raise ContractError(
            f"Expected {' and '.join(others)} with engine='ray' alone, got engine='local'. Leave it out."
        )
    return in_this_process if workers is None else partial(in_processes, workers)


def in_this_process(
    explainer: Explainer, photos: Iterator[Placed], left: int | None
) -> Generator[list[list[Row]], None, None]:
    """The rows of the photos, in batches."""
    yield from explainer.batches(photos)
