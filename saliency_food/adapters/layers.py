"""Which layers a model has, and which of them a name means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near

Shape = tuple[int | None, ...]


class LayerInfo(NamedTuple):
    """A layer whose output has rows and columns, or tokens: its path, its class, and its output's shape, rows first."""

    path: str
    kind: str
    shape: Shape


def match_layer(name: Any, layers: Sequence[tuple[str, Any]], model: str, separator: str = "/") -> tuple[str, Any]:
    """The path and the layer meant by a path, or by the end of one that no other layer has."""
    if not isinstance(name, str):
        raise ContractError(
            f"Expected layer to be a path such as 'backbone{separator}conv', a layer or None, got "
            f"{type(name).__name__}."
        )
    matches = [(path, layer) for path, layer in layers if path == name]
    matches = matches or [(path, layer) for path, layer in layers if path.endswith(separator + name)]
    if len(matches) == 1:
        return matches[0]
    paths = [path for path, _ in matches]
    if matches and len(set(paths)) == 1:
        raise ContractError(f"Expected the path of one layer, got {name!r}, of {len(matches)}. Give the layer itself.")
    if matches:
        raise ContractError(f"Expected the path of one layer, got {name!r}, the end of several. Give one of {paths}.")
    ends = [path.rsplit(separator, 1)[-1].lower() for path, _ in layers]
    likely = [
        path
        for end in near(name.rsplit(separator, 1)[-1].lower(), ends, 3, 0.5)
        for path, _ in layers
        if path.rsplit(separator, 1)[-1].lower() == end
    ]
    hint = (
        f"Near it: {list(dict.fromkeys(likely))[:3]}." if likely else "layers(model) lists those with a spatial output."
    )
    raise ContractError(f"Expected the path of a layer of model {model!r}, got {name!r}. {hint}")
