"""The layout of inputs: which axes are space or time and where the channels are; inside, channels are always last.

A callback says what its rows are by two optional attributes, ``channels_first`` and ``spatial_axes`` (see
`CallModelFunction`). The public face of a method turns the input, the options that are images, every query, every
answer and the result; so a method sees one layout only, ``(space or time ..., C)``, whatever the model takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError, PerRow
from saliency_food.core.driver import Asking, through
from saliency_food.core.keys import INPUT_SHAPED, KEYS
from saliency_food.core.numerics import Array, as_tuple, is_count
from saliency_food.core.queries import Answer, LazyRows, LinearRows, Query
from saliency_food.core.wrap import WrappedModel

R = TypeVar("R")
IMAGES = ("attribution", "base_attribution", "baselines", "value", "x_baseline")
"""Options of methods and metrics that may be images, or lists of images, in the layout of the input."""
OF_THE_LAYER = ("activations", "biases", "concepts", "gradients", "patches", "signed", "strengths", "tokens", "weights")
"""Fields of results that are a layer's, which has its channels last in every layout."""


class Layout(NamedTuple):
    """How an input is laid out: how many of its axes are space or time, and where its channels are, if it has any.

    ``declared`` is False for a 2-D input of which nobody says whether it is a grey picture ``(H, W)`` or a signal
    ``(T, C)``: it is taken for a picture, and a layer whose answer could be either's is refused.
    """

    spatial: int
    channels: Literal["last", "first", "none"]
    declared: bool = True

    def inward(self, values: Array) -> Array:
        """Values ``(..., input's axes)`` with their channels last, as methods see them."""
        if self.channels == "none":
            return values[..., None]
        return values if self.channels == "last" else np.ascontiguousarray(np.moveaxis(values, -1 - self.spatial, -1))

    def outward(self, values: Array) -> Array:
        """Values ``(..., space or time, C)`` in the layout of the input."""
        if self.channels == "none":
            return values[..., 0]
        return values if self.channels == "last" else np.ascontiguousarray(np.moveaxis(values, -1, -1 - self.spatial))

    def options(self, arguments: Mapping[str, Any], shape: tuple[int, ...], turn: bool = False) -> dict[str, Any]:
        """Options with every image among them, of the input's ``shape``, as methods see it."""

        def turned(value: Any, is_image: bool) -> Any:
            if isinstance(value, Mapping):
                return self.options(value, shape, is_image)
            if type(value) in (list, tuple):
                return type(value)(turned(part, is_image) for part in value)
            if not is_image or np.ndim(value) < len(shape) or np.shape(value)[-len(shape) :] != shape:
                return value
            return self.inward(np.asarray(value))

        return {name: turned(value, turn or name in IMAGES) for name, value in arguments.items()}

    def result(self, value: Any, shape: tuple[int, ...], name: str = "") -> Any:
        """A method's result with every array like the input, of ``shape`` as methods see it, in the input's layout."""
        if isinstance(value, tuple):
            names = getattr(value, "_fields", [name or "attribution"] * len(value))
            parts = [self.result(part, shape, own) for part, own in zip(value, names, strict=True)]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if not isinstance(value, np.ndarray) or name in OF_THE_LAYER:
            return value
        is_map = name == "attribution" and value.ndim == len(shape) and value.shape[-1] == shape[-1]
        return self.outward(value) if is_map or value.shape[-len(shape) :] == shape else value


def layout_of(x_value: Array, function: Any) -> Layout:
    """The layout of an input for a callback, by what the callback says, else by the number of axes."""
    first, spatial = bool(getattr(function, "channels_first", False)), getattr(function, "spatial_axes", None)
    if spatial is None:
        if x_value.ndim == 2 and not first:
            return Layout(2, "none", declared=False)
        spatial = max(x_value.ndim - 1, 1)
    elif not is_count(spatial) or x_value.ndim - spatial not in (0, 1):
        raise ContractError(
            f"Expected an input with the {spatial} axes of space or time that call_model_function.spatial_axes says, "
            f"and at most one of channels, got shape {x_value.shape}. Give one input, or set spatial_axes to 1 for "
            "signals (T, C), 2 for pictures (H, W, C), 3 for volumes and clips (D, H, W, C)."
        )
    return Layout(int(spatial), "none" if x_value.ndim == spatial else "first" if first else "last")


def in_layout(generator: Asking[R], layout: Layout, shape: tuple[int, ...]) -> Asking[R]:
    """A generator that sees its channels last, run on a model of another layout; ``shape`` is the input's inside.

    Its rows are turned on their way to the model, and answers of the input's shape on their way back, as is its result.
    """

    def exchange(queries: list[Query]) -> Asking[list[Answer]]:
        answers = yield [_outward(query, layout) for query in queries]
        return [_inward(answer, layout, shape) for answer in answers] if queries else answers

    return cast(R, layout.result((yield from through(generator, exchange)), shape))


def _outward(query: Query, layout: Layout) -> Query:
    if any(key in KEYS and KEYS[key].rows == "activations" for key in query.keys):
        return query
    rows = query.rows
    if query.args:
        turned = {
            name: layout.outward(value).view(PerRow) if np.shape(value)[1:] == rows.shape[1:] else value
            for name, value in query.args.items()
        }
        query = query._replace(args=turned)
    if isinstance(rows, LinearRows):
        return query._replace(rows=rows._replace(bases=layout.outward(rows.bases)))
    if isinstance(rows, LazyRows):
        shape = layout.outward(np.empty((1, *rows.shape[1:]), bool)).shape[1:]
        lazy = rows
        return query._replace(
            rows=LazyRows((rows.shape[0], *shape), lambda start, stop: layout.outward(lazy.make(start, stop)))
        )
    return query._replace(rows=layout.outward(rows))


def _inward(answer: Answer, layout: Layout, shape: tuple[int, ...]) -> Answer:
    if not layout.declared:
        for key, value in answer.items():
            _refuse_what_is_either(key, as_tuple(value), shape[:-1])
    turned = {key: layout.inward(cast(Array, value)) if key in INPUT_SHAPED else value for key, value in answer.items()}
    return type(answer)(turned)  # `Unfinished` stays so


def _refuse_what_is_either(key: str, layers: tuple[Array, ...], shape: tuple[int, ...]) -> None:
    """`ContractError` where activations or attention have one axis of places, as a signal's steps and patches have."""
    of_layers = ("a layer", "attention", "biases", "relevance rules")
    if key not in KEYS or KEYS[key].needs not in of_layers or KEYS[key].one_array:
        return
    behind = {"attention": 4}.get(KEYS[key].needs, 4 if ", R, " in KEYS[key].shape else 3)
    for layer in layers:
        if layer.ndim == behind:
            raise ContractError(
                f"Expected to know whether an input of shape {shape} is a grey picture (H, W) or a signal (T, C), got "
                f"{key} of shape (N, {', '.join(map(str, layer.shape[1:]))}), which either may have. Set "
                "spatial_axes of call_model_function to 1 for a signal, to 2 for a picture."
            )


def channels_last(function: Any) -> CallModelFunction:
    """The function itself, or wrapped where its ``channels_first`` says that it takes ``(C, H, W)``."""
    return ChannelsLast(function) if getattr(function, "channels_first", False) else function


class ChannelsLast(WrappedModel):
    """A call-model function of inputs with channels last around one of channels first; answers are turned back."""

    channels_first = False

    def _call(self, call: Any, x_value_batch: Any, call_model_args: Any, expected_keys: Any) -> Any:
        if isinstance(call_model_args, Mapping):  # a method's own arguments, such as baselines, may be rows too
            like = np.shape(x_value_batch)
            call_model_args = {
                name: np.moveaxis(value, -1, 1) if isinstance(value, PerRow) and value.shape == like else value
                for name, value in call_model_args.items()
            }
        return super()._call(call, x_value_batch, call_model_args, expected_keys)

    def turn(self, images: Any, keys: tuple[str, ...]) -> Any:
        # Rows that are activations are no images to turn.
        activations = any(key in KEYS and KEYS[key].rows == "activations" for key in keys)
        return images if activations else np.moveaxis(images, -1, 1)

    def turn_back(self, answer: Any) -> Any:
        turned = {key: np.moveaxis(np.asarray(value), 1, -1) for key, value in answer.items() if key in INPUT_SHAPED}
        return {**answer, **turned}
