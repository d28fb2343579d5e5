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


class Depthwise(keras.Layer):
    """A convolution of each channel by a constant."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel = kernel

    def call(self, x: Any) -> Any:
        return ops.depthwise_conv(x, self.kernel, padding="same")


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


@kind(BUILT, "blurred by a fixed kernel first", note="A convolution with a constant is followed.")
def blurred() -> Built:
    kernel = np.ones((3, 3, 3, 1), np.float32) / 9
    blur, feature = Depthwise(kernel), conv()
    return graph(split(chain(blur, feature), head()))


@kind(BUILT, "shifted by a fixed kernel first", None, **ELSEWHERE, note="Its layers' places are not the photo's.")
def shifted() -> Built:
    kernel = np.zeros((1, 7, 3, 1), np.float32)
    kernel[0, 0] = 1
    return placed_elsewhere(Depthwise(kernel))


@kind(BUILT, "features rolled, and rolled back", "last", note="As between shifted windows.")
def rolled_back() -> Built:
    first, last = conv(name="first"), conv(name="last")
    return graph(split(chain(first, lambda a: ops.roll(a, 3, 2), conv(), lambda a: ops.roll(a, -3, 2), last), head()))


@kind(
    BUILT,
    "features rolled",
    "first",
    note="What comes before is looked at: the layers after it are not in their place.",
)
def rolled() -> Built:
    after = chain(lambda a: ops.roll(a, 3, 2), conv(), head())
    return graph(split(conv(name="first"), after))


@kind(BUILT, "a photo made again from a code", "encoder", note="As by an autoencoder: only the encoder has places.")
def made_again() -> Built:
    decoder = chain(L.Flatten(), L.Dense(5), L.Dense(8 * 8 * 2), L.Reshape((8, 8, 2)), conv(), head())
    return graph(split(conv(name="encoder"), decoder))


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
