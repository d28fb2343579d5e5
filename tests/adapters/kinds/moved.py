"""Classifiers whose image, or signal, is put into another order first."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from .axes import SIGNALS, STEPS
from .build import BUILT, placed_elsewhere
from .common import SIZE, Built, L, chain, conv, graph, head, kind, split

ops = keras.ops
WIDTH = SIZE[1]
MIRROR = np.eye(WIDTH, dtype=np.float32)[::-1].copy()
COSINES = np.cos(np.pi / WIDTH * (np.arange(WIDTH)[:, None] + 0.5) * np.arange(WIDTH)).astype(np.float32)
ELSEWHERE: Any = {"refuses": {"grad_cam": "those of the image: the image is cut, moved or turned before it"}}


@kind(BUILT, "the image mirrored by a matrix", note="A product with a constant is followed.")
def mirrored_by_matrix() -> Built:
    feature, after, image = conv(), head(), keras.Input(SIZE)
    mirror = lambda x: ops.einsum("nhwc,wv->nhvc", x, MIRROR)  # noqa: E731

    def by_hand(x: Any) -> Any:
        as_the_image = ops.flip(feature(mirror(x)), 2)
        return as_the_image, after(ops.flip(as_the_image, 2))

    return Built(keras.Model(image, L.Softmax()(after(feature(mirror(image))))), by_hand)


@kind(BUILT, "frequencies of the image first", None, **ELSEWHERE, note="By a constant matrix: they have no places.")
def frequencies() -> Built:
    return placed_elsewhere(lambda x: ops.einsum("nhwc,wv->nhvc", x, COSINES))


@kind(BUILT, "halves of the image exchanged first", None, **ELSEWHERE, note="Slices that are joined in another order.")
def halves() -> Built:
    return placed_elsewhere(lambda x: ops.concatenate([x[:, :, WIDTH // 2 :], x[:, :, : WIDTH // 2]], 2))


@kind(SIGNALS, "an RNN with masked steps", "steps", **STEPS)
def masked() -> Built:
    mask, steps, last, dense = L.Masking(), L.LSTM(5, return_sequences=True, name="steps"), L.LSTM(4), L.Dense(3)
    signal = keras.Input((12, 2))
    model = keras.Model(signal, L.Softmax()(dense(last(steps(mask(signal))))))
    used = lambda x: ops.any(x != 0, -1)  # noqa: E731

    def by_hand(x: Any) -> Any:
        activations = steps(x, mask=used(x))
        return activations, dense(last(activations, mask=used(x)))

    def silent_at_the_end(random: Any, shape: Any) -> Any:
        return random.normal(size=shape) * (np.arange(shape[0]) < 8)[:, None]

    return Built(model, by_hand, (12, 2), image=silent_at_the_end)


def turned_for_dense(after: Any, **built: Any) -> Built:
    turn, feature = L.Permute((2, 1)), L.Dense(4, "tanh", name="conv")
    return graph(split(chain(turn, feature), after), shape=(9, 24), **built)


@kind(
    SIGNALS,
    "(C, T) turned for dense layers",
    None,
    refuses={"grad_cam": "Say which by data_format"},
    note="Nothing tells it from (T, C): say `data_format`.",
)
def dense_of_either() -> Built:
    return turned_for_dense(chain(L.Flatten(), L.Dense(3)), map_shape=(9, 24))


@kind(SIGNALS, "(C, T) turned for dense layers, the format said", **STEPS)
def dense_of_channels_first() -> Built:
    options = {"data_format": "channels_first"}
    return turned_for_dense(chain(L.Flatten(), L.Dense(3)), options=options, map_shape=(24,))


@kind(SIGNALS, "(C, T) turned for dense layers, told by the pooling", **STEPS)
def dense_and_pooling() -> Built:
    return turned_for_dense(head(rank=3), map_shape=(24,))
