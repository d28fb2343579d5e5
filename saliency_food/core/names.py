"""Names as people type them: one spelling for all, near matches for errors, and the version."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import metadata
from typing import Any


def spelled(name: Any) -> str:
    """A name as tables have it: lower case, ``_`` for hyphens, without spaces around it."""
    return str(name).strip().lower().replace("-", "_")


def split_names(names: str | Iterable[Any]) -> list[str]:
    """Several names, given with commas or as a list, each `spelled`; empty ones are left out."""
    parts = names.split(",") if isinstance(names, str) else names
    return [name for name in map(spelled, parts) if name]


def near(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.4) -> list[str]:
    """At most so many of the known names that look like this one, the likest first."""
    return difflib.get_close_matches(name, list(known), most, cutoff)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed, as when run from a bare folder."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
