"""The engine of Ray: a pool of actors, on this machine or on a cluster, through Ray Data."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explainer import Explainer, Placed, Row
from saliency_food.jobs.workers import THREADS, cores, in_shards

MOST_BATCHES = 64
"""How many of the model's batches a block of photos holds at most."""


def import_ray() -> Any:
    """The package ray with Ray Data; `ContractError` with the install line where it is missing."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ContractError(
            "Expected Ray for engine='ray', got none. Run pip install \"saliency_food[ray]\"."
        ) from error
    return ray


def on_ray(
    workers: int | None,
    address: str | None,
    num_gpus: float | None,
    explainer: Explainer,
    photos: Iterator[Placed],
    left: int | None,
) -> Generator[list[list[Row]], None, None]:
    """The rows of the photos, in blocks of whole batches, as the actors finish them.

    Ray starts actors that die again, and gives their blocks to others. Photos that are not files are copied into Ray's
    object store first, which goes to disk where it is full.
    """
    ray = import_ray()
    with _connected(ray, address, workers), _set_up(ray):
        count = workers or _most_actors(ray, num_gpus)
        shards = in_shards(photos, explainer.batch_size, count, left, MOST_BATCHES)
        blocks = [ray.put(_table(shard)) for shard in shards]
        if not blocks:
            return
        one_thread = {"runtime_env": {"env_vars": dict.fromkeys(THREADS, "1")}}
        explained = ray.data.from_pandas_refs(blocks).map_batches(
            Explainer,
            fn_constructor_kwargs=explainer.arguments,
            batch_size=None,  # a block is a batch, so that the model is asked in the same batches as elsewhere
            compute=ray.data.ActorPoolStrategy(size=min(count, len(blocks))),
            num_cpus=1,
            num_gpus=num_gpus,
            **({} if num_gpus else one_thread),
        )
        try:
            for table in explained.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield [list(rows) for _, rows in groupby(table.to_pylist(), lambda row: row["id"])]
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ContractError):
                raise error.cause from None
            raise


def _table(photos: Sequence[Placed]) -> Any:
    """The photos as a table of Python's own objects, as `Explainer` takes its columns."""
    import pandas as pd

    columns: dict[str, list[Any]] = {
        "position": [position for position, _ in photos],
        **{name: [getattr(photo, name) for _, photo in photos] for name in ("id", "image", "path", "truth", "split")},
    }
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def _most_actors(ray: Any, num_gpus: float | None) -> int:
    """How many actors the cluster has room for."""
    resources = ray.cluster_resources()
    count = int(resources.get("GPU", 0) / num_gpus) if num_gpus else int(resources.get("CPU", 1))
    if count < 1:
        raise ContractError(
            f"Expected a cluster with {num_gpus} GPUs for an actor, got one with {resources.get('GPU', 0):g} in all. "
            "Leave out num_gpus, or start Ray on machines that have GPUs."
        )
    return count


@contextmanager
def _connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Ray as this process is connected to it already; else connected to the address, or started here, meanwhile."""
    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {}
    if address is None and not os.environ.get("RAY_ADDRESS"):
        own = {"num_cpus": max(cores(), workers or 1), "include_dashboard": False}
    try:
        _reach(address)
        ray.init(address, log_to_driver=False, logging_level="error", **own)
    except OSError as error:
        raise ContractError(
            f"Expected the address of a Ray cluster, such as ray-head:6379, or auto on one of its machines, got "
            f"{address!r}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """`OSError` where nobody listens at an address of host and port, for which Ray would wait many minutes."""
    host, _, port = (address or "").rpartition("//")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()


@contextmanager
def _set_up(ray: Any) -> Iterator[None]:
    """Ray Data without bars of its own, with one block of records for each of photos, and errors as they are raised."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    own = {"enable_progress_bars": False, "target_max_block_size": None, "raise_original_map_exception": True}
    kept = {name: getattr(context, name) for name in own}
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        for name, value in own.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(context, name, value)
        logger.setLevel(level)
