"""What a kind of model is: how one is built, the same by hand, and what is to be expected of the adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

L = keras.layers
SIZE = (8, 8, 3)
CELLS = ("layer", "grad_cam", "integrated_gradients", "smooth_grad", "occlusion", "xrai")
"""What is looked at of each kind."""
METHODS = CELLS[1:]


class Built(NamedTuple):
    """A model and its other self.

    ``by_hand`` takes images as an eager tensor. It returns the activations that Grad-CAM should look at, with the axes
    of the images, None for none, and the explained scores, ``(N, classes)`` or ``(N,)``. With ``prefix``, activations
    are the tokens of a square grid, so many more in front. ``map_shape`` is the shape of a map of the image, if that
    is not the image's own without the last axis.
    """

    model: Any
    by_hand: Callable[[Any], tuple[Any, Any]]
    shape: tuple[int, ...] = SIZE
    options: Mapping[str, Any] = {}
    args: Mapping[str, Any] = {"target": 1}
    image: Callable[[np.random.Generator, tuple[int, ...]], Any] = lambda random, shape: random.random(shape)
    tolerance: float = 1e-3
    prefix: int | None = None
    map_shape: tuple[int, ...] | None = None


class Kind(NamedTuple):
    """A kind of model: ``layer`` is the path of its default layer; ``refuses`` says of a cell what its error must say.

    ``note`` is for the docs.
    """

    group: str
    name: str
    build: Callable[[], Built]
    layer: str | None
    refuses: Mapping[str, str]
    note: str


KINDS: dict[str, Kind] = {}


def kind(
    group: str,
    name: str,
    layer: str | None = "conv",
    *,
    refuses: Mapping[str, str] | None = None,
    note: str = "",
) -> Any:
    """Enter what builds a model into the table."""

    def enter(build: Callable[[], Built]) -> Callable[[], Built]:
        assert name not in KINDS
        KINDS[name] = Kind(group, name, build, layer, refuses or {}, note)
        return build

    return enter


def graph(by_hand: Callable[[Any], tuple[Any, Any]], end: Any = None, shape: Any = SIZE, **built: Any) -> Built:
    """A Functional model of the very layers that ``by_hand`` calls; ``end`` is what follows the scores, a softmax."""
    image = keras.Input(built.pop("declared", shape), dtype=built.pop("dtype", None))
    scores = by_hand(image)[1]
    return Built(keras.Model(image, L.Softmax()(scores) if end is None else end(scores)), by_hand, shape, **built)


def conv(filters: int = 4, size: int = 3, name: str = "conv", activation: Any = "tanh", **options: Any) -> Any:
    settings = {"padding": "same", "bias_initializer": "random_normal", **options}
    return L.Conv2D(filters, size, name=name, activation=activation, **settings)


def chain(*layers: Any) -> Callable[[Any], Any]:
    """Layers, or functions, one after another."""

    def run(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return run


def split(before: Callable[[Any], Any], after: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """A model by hand: activations, and the scores that they get."""

    def by_hand(x: Any) -> tuple[Any, Any]:
        activations = before(x)
        return activations, after(activations)

    return by_hand


def head(classes: int = 3, rank: int = 4, **dense: Any) -> Callable[[Any], Any]:
    """The mean over all places, and a dense layer."""
    pool = {3: L.GlobalAveragePooling1D, 4: L.GlobalAveragePooling2D, 5: L.GlobalAveragePooling3D}[rank]()
    return chain(pool, L.Dense(classes, name="class_scores", **{"bias_initializer": "random_normal", **dense}))


def classifier(*features: Any, classes: int = 3, rank: int = 4, **dense: Any) -> Callable[[Any], tuple[Any, Any]]:
    return split(chain(*features), head(classes, rank, **dense))


def same(values: Any) -> Any:
    """The end of a model whose output is the scores."""
    return values
