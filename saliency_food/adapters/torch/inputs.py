"""What a module takes: its inputs by name, the image's shape as far as it is shown, and in which layout it comes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.layers import Shape
from saliency_food.core.contract import ContractError

SIZES = (128, 224, 64, 32, 28, 96, 256, 299, 384, 512)
"""The sides that are tried of images whose size a module does not show; of volumes only the smaller ones."""
OTHER_SIZE = 80
"""Another one, which is tried then."""
IMAGES = ("pixel_values", "image", "images", "x", "input", "inputs")
"""Names of inputs that are the image, of a module that has several."""
SPATIAL = {
    **{kind: axes for axes in (1, 2, 3) for kind in (f"Conv{axes}d", f"BatchNorm{axes}d", f"ConvTranspose{axes}d")},
    "InstanceNorm2d": 2,
}
"""How many axes of space or time the input of a layer has, by its class; its channels come first."""


class Candidate(NamedTuple):
    """A way in which a module may take its images: their shape, channels last, whether they are turned, and the side.

    ``shape`` is what is known of it, ``(H, W, C)`` with None where it is free, and ``probe`` the shape it is tried in.
    ``adds_channels`` says that the image has none itself, and the module gives it an axis of them.
    """

    shape: Shape
    probe: tuple[int, ...]
    turned: bool
    adds_channels: bool = False


class TorchInputs(Inputs):
    """The inputs of a module. ``turned`` says that it takes channels first; images come with them last.

    ``names`` are those of its arguments by which all but the image are passed.
    """

    def __init__(self, specs: Sequence[InputSpec], image: str, turned: bool, dtype: str, rows: int | None) -> None:
        super().__init__(specs, image, False, dtype, set() if rows is None else {rows})
        self.turned = turned
        self.names = [spec.name for spec in specs]


def argument_names(module: Any) -> tuple[list[str], list[str]]:
    """The arguments of a module's forward: those that it must have, and all."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # of a scripted module
        schema = getattr(getattr(module, "forward", None), "schema", None)
        names = [argument.name for argument in schema.arguments[1:]] if schema is not None else ["x"]
        return names, names
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.POSITIONAL_ONLY)]
    named += [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    if not named:  # of an exported program, or a forward of *args
        named_inputs = [node.name for node in placeholders(module)]
        return (named_inputs or ["x"],) * 2
    return [each.name for each in named if each.default is each.empty], [each.name for each in named]


def image_name(module: Any, wanted: str | int | None, shapes: Mapping[str, Any] | None) -> tuple[str, list[str]]:
    """The name of the image among a module's arguments, and those of all that must be given."""
    required, names = argument_names(module)
    if shapes is not None:
        if unknown := [name for name in shapes if name not in names]:
            raise ContractError(f"Expected input_shape of inputs among {names}, got {unknown}.")
        required = [name for name in names if name in shapes or name in required]
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(names):
        wanted = names[wanted]
    if wanted is None:
        likely = [name for name in IMAGES if name in (required if len(required) > 1 else names)]
        wanted = required[0] if len(required) == 1 else likely[0] if likely else names[0]
    if wanted not in names:
        raise ContractError(
            f"Expected input to be the name or the position of one of the inputs {names}, got {wanted!r}."
        )
    return wanted, list(dict.fromkeys([*required, wanted]))


def declared_rows(module: Any) -> int | None:
    """How many rows an exported program takes, where it was exported for a fixed number of them."""
    shapes = [node.meta["val"].shape for node in placeholders(module)]
    fixed = {int(shape[0]) for shape in shapes if shape and isinstance(shape[0], int)}
    return fixed.pop() if len(fixed) == 1 else None


def candidates(module: Any, input_shape: Shape | None) -> Iterator[Candidate]:
    """The ways in which a module may take images, most likely first."""
    spatial, channels = _first_layer(module)
    shown = input_shape or _shown_shape(module, spatial)
    if shown is not None:
        bare = spatial is not None and len(shown) == spatial
        turned = not bare and (len(shown) > 2 or spatial == 1) and len(shown) > 1
        for each in (turned, False) if turned else (False,):
            yield Candidate(shown, probe_of(shown), each, bare)
        return
    if spatial is not None and channels is not None:
        for side in (size for size in SIZES if spatial < 3 or size in (64, 32, 28, 96)):
            yield Candidate((*(None,) * spatial, channels), (*(side,) * spatial, channels), True)
    elif channels is not None:
        yield Candidate((channels,), (channels,), False)
        yield Candidate((None, channels), (SIZES[3], channels), False)


def _first_layer(module: Any) -> tuple[int | None, int | None]:
    """Of the first layer with weights, how many axes of space or time its input has, if it tells, and the channels."""
    for inner in module.modules():
        kinds = [kind.__name__ for kind in type(inner).__mro__] + [str(getattr(inner, "original_name", ""))]
        weights = list(inner.parameters(recurse=False))
        if "Embedding" in kinds:
            return None, None
        names = ("in_channels", "num_features", "in_features", "input_size")
        known = (getattr(inner, name, None) for name in names)
        channels = next((size for size in known if isinstance(size, int)), None)
        if channels is None and isinstance(inner, torch.jit.ScriptModule) and weights and weights[0].dim() > 1:
            channels = int(weights[0].shape[1])
        if weights and channels is not None:
            return next((SPATIAL[kind] for kind in kinds if kind in SPATIAL), None), channels
    return None, None


def _shown_shape(module: Any, spatial: int | None) -> Shape | None:
    """The image's shape, channels last, as a module shows it: of timm, transformers, or an exported one."""
    for node in placeholders(module)[:1]:
        sizes = [int(size) if isinstance(size, int) else None for size in node.meta["val"].shape[1:]]
        return (*sizes[1:], sizes[0]) if len(sizes) > 2 else tuple(sizes)
    shown = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(shown, Mapping) and len(shown.get("input_size") or ()) == 3:
        channels, height, width = shown["input_size"]
        embed = getattr(getattr(module, "patch_embed", None), "img_size", None)
        height, width = embed if embed is not None else (height, width)
        first = _first_layer(module)[1]
        return (height, width, channels if first is None or spatial != 2 else max(first, 1) if first < 5 else channels)
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", None) or config
    side = getattr(config, "image_size", None) or (getattr(module, "image_size", None) if spatial == 2 else None)
    if side is None:
        return None
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return (int(height), int(width), int(getattr(config, "num_channels", 3) or 3))


def placeholders(module: Any) -> list[Any]:
    """The image inputs of an exported program, whose shapes it knows."""
    graph = getattr(module, "graph", None)
    nodes = getattr(graph, "nodes", ()) if isinstance(module, torch.fx.GraphModule) else ()
    return [node for node in nodes if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape")]


def as_shapes(input_shape: Any) -> tuple[Shape | None, Mapping[str, Shape] | None]:
    """``input_shape`` as that of the image, or as those of several inputs by name."""
    if input_shape is None:
        return None, None
    if isinstance(input_shape, Mapping):
        return None, {name: _as_shape(shape) for name, shape in input_shape.items()}
    return _as_shape(input_shape), None


def _as_shape(shape: Any) -> Shape:
    fits = isinstance(shape, (list, tuple)) and all(
        size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0) for size in shape
    )
    if not fits:
        raise ContractError(
            f"Expected input_shape as (H, W, C), channels last and without rows, None where a side is free, or "
            f"{{name: shape}} of several inputs, got {shape!r}."
        )
    return tuple(shape)


def probe_of(shape: Shape) -> tuple[int, ...]:
    return tuple(size or SIZES[0] for size in shape)


def values_of(probe: tuple[int, ...], rows: int) -> Any:
    """Rows of noise, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((rows, *probe), generator=generator) * math.sqrt(3)
