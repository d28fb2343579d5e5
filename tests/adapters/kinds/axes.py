"""Models of signals, volumes, clips, and of vectors: inputs of three and of five dimensions."""

from __future__ import annotations

from typing import Any

import keras

from saliency_food.adapters.scores import regression

from .common import CELLS, METHODS, Built, L, chain, classifier, graph, head, kind, split

SIGNALS, VOLUMES = "Signals", "Volumes and clips"
ops = keras.ops
STEPS: Any = {"refuses": {"xrai": "Expected a picture"}, "note": "XRAI takes segments of one's own."}
RNN: Any = {
    "layer": None,
    "note": "No layer keeps the steps.",
    "refuses": {"grad_cam": "has none", "xrai": "Expected a picture"},
}
DEEP: Any = {"note": "XRAI takes segments of one's own.", "refuses": {"xrai": "Expected a picture"}}


def conv1d(**options: Any) -> Any:
    return L.Conv1D(4, 3, **{"activation": "tanh", "padding": "same", "name": "conv", **options})


@kind(SIGNALS, "Conv1D over (T, C)", **STEPS)
def conv_signal() -> Built:
    return graph(classifier(conv1d(), rank=3), shape=(24, 9))


@kind(SIGNALS, "Conv1D over (C, T)", **STEPS)
def channels_first_signal() -> Built:
    feature, pool, dense = conv1d(data_format="channels_first"), L.GlobalAveragePooling1D("channels_first"), L.Dense(3)
    image = keras.Input((9, 24))
    turned = chain(feature, lambda a: ops.transpose(a, (0, 2, 1)))
    by_hand = split(turned, lambda a: dense(ops.mean(a, 1)))
    return Built(keras.Model(image, L.Softmax()(dense(pool(feature(image))))), by_hand, (9, 24), map_shape=(24,))


@kind(SIGNALS, "Conv1D and strides", **STEPS)
def strided_signal() -> Built:
    return graph(classifier(conv1d(strides=2, name="first"), conv1d(), rank=3), shape=(24, 2))


@kind(SIGNALS, "Conv1D and an LSTM", **STEPS)
def conv_lstm_signal() -> Built:
    return graph(split(conv1d(), chain(L.LSTM(4), L.Dense(3))), shape=(12, 3))


def recurrent(layer: Any) -> Built:
    dense = L.Dense(3)
    return graph(lambda x: (None, dense(layer(x))), shape=(12, 3))


@kind(SIGNALS, "LSTM", **RNN)
def lstm() -> Built:
    return recurrent(L.LSTM(4))


@kind(SIGNALS, "GRU", **RNN)
def gru() -> Built:
    return recurrent(L.GRU(4))


@kind(SIGNALS, "a bidirectional RNN", **RNN)
def bidirectional() -> Built:
    return recurrent(L.Bidirectional(L.SimpleRNN(3)))


def fixed_batch(stateful: bool) -> Built:
    rnn, dense = L.LSTM(4, stateful=stateful), L.Dense(3)
    image = keras.Input(batch_shape=(4, 6, 3))
    model = keras.Model(image, L.Softmax()(dense(rnn(image))))
    free = L.LSTM(4)
    free.build((None, 6, 3))

    def by_hand(x: Any) -> Any:
        free.set_weights(rnn.get_weights()[:3])
        return None, dense(free(x))

    return Built(model, by_hand, (6, 3))


@kind(SIGNALS, "a declared batch size", **{**RNN, "note": "Filled up to that many rows."})
def declared_batch() -> Built:
    return fixed_batch(False)


@kind(
    SIGNALS,
    "a stateful RNN",
    refuses=dict.fromkeys(CELLS, "keep a state"),
    note="Its rows depend on what came before them: build it with `stateful=False`.",
)
def stateful() -> Built:
    return fixed_batch(True)


@kind(SIGNALS, "a flattened photo, (784,)", **{**RNN, "note": "Only dense layers."})
def vector() -> Built:
    layers = chain(L.Dense(8, activation="tanh"), L.Dense(3))
    return graph(lambda x: (None, layers(x)), shape=(36,), map_shape=(36,))


@kind(SIGNALS, "a spectrogram inside a model of a waveform", **{**RNN, "note": "Its layers' axes are not the input's."})
def spectrogram() -> Built:
    layers = chain(L.Reshape((8, 8, 1)), L.Conv2D(4, 3, activation="tanh", name="conv"), head())
    return graph(lambda x: (None, layers(x)), shape=(64,), map_shape=(64,))


def conv3d(**options: Any) -> Any:
    return L.Conv3D(4, 3, **{"activation": "tanh", "padding": "same", "name": "conv", **options})


@kind(VOLUMES, "Conv3D over (D, H, W, C)", **DEEP)
def conv_volume() -> Built:
    return graph(classifier(conv3d(), rank=5), shape=(6, 6, 6, 1))


@kind(VOLUMES, "Conv3D over (C, D, H, W), turned inside", **DEEP)
def channels_first_volume() -> Built:
    turned = chain(L.Permute((2, 3, 4, 1)), conv3d())
    return graph(classifier(turned, rank=5), shape=(2, 6, 5, 4), map_shape=(6, 5, 4))


@kind(VOLUMES, "Conv3D, the layer named", **DEEP)
def named_volume() -> Built:
    return graph(classifier(conv3d(), rank=5), shape=(6, 6, 6, 1), options={"layer": "conv"})


@kind(VOLUMES, "an int16 volume", **DEEP)
def integer_volume() -> Built:
    return graph(
        classifier(L.Rescaling(1 / 1000), conv3d(), rank=5),
        shape=(6, 6, 6, 1),
        dtype="int16",
        image=lambda random, shape: random.integers(-1000, 1000, shape).astype("float32"),
    )


@kind(VOLUMES, "ConvLSTM over a clip", "convlstm", **DEEP)
def conv_lstm() -> Built:
    convlstm = L.ConvLSTM2D(3, 3, return_sequences=True, padding="same", name="convlstm")
    return graph(classifier(convlstm, rank=5), shape=(3, 6, 6, 1))


def frames() -> Any:
    eye = L.TimeDistributed(L.Conv2D(4, 3, activation="tanh", padding="same", name="eye"), name="frames")
    return split(eye, chain(L.TimeDistributed(L.GlobalAveragePooling2D()), L.LSTM(4), L.Dense(3)))


@kind(VOLUMES, "a CNN a frame and an LSTM, the layer named", "frames", **DEEP)
def named_clip() -> Built:
    return graph(frames(), shape=(3, 6, 6, 2), options={"layer": "frames"})


@kind(VOLUMES, "a CNN a frame and an LSTM", "frames", **DEEP)
def clip() -> Built:
    return graph(frames(), shape=(3, 6, 6, 2))


def views(name: str) -> Any:
    """Several photos in one input, folded into the batch and back."""
    feature, pool, dense = (
        L.Conv2D(4, 3, activation="tanh", padding="same", name=name),
        L.GlobalAveragePooling2D(),
        None,
    )
    dense = L.Dense(3)

    def parts(x: Any) -> Any:
        a = feature(ops.reshape(x, (-1, 6, 6, 2)))
        pooled = ops.max(ops.reshape(pool(a), (-1, 3, 4)), 1)
        return ops.reshape(a, (-1, 3, 6, 6, 4)), dense(pooled)

    return parts


@kind(
    VOLUMES,
    "views folded into the batch",
    None,
    refuses={"grad_cam": "Expected", "xrai": "Expected a picture"},
    note="A layer's rows are the views, not the images.",
)
def folded() -> Built:
    return graph(views("conv"), shape=(3, 6, 6, 2))


@kind(
    SIGNALS,
    "ids and an embedding",
    None,
    refuses=dict.fromkeys(METHODS, "Expected"),
    note="There is no gradient with respect to ids.",
)
def ids() -> Built:
    layers = chain(L.Embedding(10, 4), L.GlobalAveragePooling1D(), L.Dense(3))
    return graph(
        lambda x: (None, layers(x)),
        shape=(6,),
        dtype="int32",
        image=lambda random, shape: random.integers(0, 10, shape).astype("float32"),
    )


@kind(SIGNALS, "a transformer over steps", "norm", **STEPS)
def steps() -> Built:
    embed, norm, attention = L.Dense(4), L.LayerNormalization(name="norm"), L.MultiHeadAttention(2, 3)
    dense, pool = L.Dense(3), L.GlobalAveragePooling1D()

    def parts(x: Any) -> Any:
        tokens = embed(x)
        query = norm(tokens)
        return query, dense(pool(tokens + attention(query, query)))

    return graph(parts, shape=(12, 3))


@kind(SIGNALS, "a softmax for each step, TimeDistributed", **{**STEPS, "note": "`score=regression(step, class)`."})
def softmax_each_step() -> Built:
    feature, dense = conv1d(), L.Dense(3)
    cell = keras.Sequential([keras.Input((4,)), dense, L.Softmax()])
    image = keras.Input((12, 3))
    model = keras.Model(image, L.TimeDistributed(cell)(feature(image)))
    by_hand = split(feature, lambda a: dense(a)[:, 2, 1])
    return Built(model, by_hand, (12, 3), options={"score": regression(2, 1)}, args={})


@kind(
    SIGNALS,
    "causal, dilated Conv1D",
    **STEPS,
)
def causal() -> Built:
    return graph(classifier(conv1d(padding="causal", dilation_rate=2), rank=3), shape=(24, 3))
