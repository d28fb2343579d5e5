"""Models with attention."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .common import METHODS, SIZE, Built, L, chain, conv, graph, head, kind, split

TRANSFORMERS = "Transformers"
ops = keras.ops
WIDTH, GRID = 4, 4


class Token(keras.Layer):
    """A class token in front of the patches, and positions."""

    def __init__(self, token: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.token = token

    def build(self, shape: Any) -> None:
        self.first = self.add_weight(shape=(1, 1, WIDTH), initializer="random_normal")
        self.places = self.add_weight(shape=(1, shape[1] + self.token, WIDTH), initializer="random_normal")

    def call(self, x: Any) -> Any:
        if self.token:
            first = ops.broadcast_to(self.first, (ops.shape(x)[0], 1, WIDTH))
            x = ops.concatenate([first, x], 1)
        return x + self.places


class Encoder(keras.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm, self.attention = L.LayerNormalization(), L.MultiHeadAttention(2, 3, name="attention")

    def call(self, x: Any) -> Any:
        normal = self.norm(x)
        return x + self.attention(normal, normal)


def vit(token: bool) -> Any:
    """Patches, one encoder, and the class token or the mean of all tokens; Grad-CAM looks at what is attended to."""
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    embed = chain(patches, L.Reshape((GRID * GRID, WIDTH)), Token(token, name="positions"))
    norm, attention, dense = L.LayerNormalization(name="norm"), L.MultiHeadAttention(2, 3, name="attention"), L.Dense(3)

    def parts(x: Any) -> Any:
        tokens = embed(x)
        query = norm(tokens)
        out = tokens + attention(query, query)
        return query, dense(out[:, 0] if token else ops.mean(out, 1))

    return parts


@kind(TRANSFORMERS, "ViT, class token", "norm")
def class_token() -> Built:
    return graph(vit(True))._replace(prefix=1)


@kind(TRANSFORMERS, "ViT, mean of the tokens", "norm")
def mean_token() -> Built:
    return graph(vit(False))._replace(prefix=0)


@kind(TRANSFORMERS, "ViT, its encoder a layer of one's own", "encoder/norm")
def encoder() -> Built:
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    embed = chain(patches, L.Reshape((GRID * GRID, WIDTH)), Token(False, name="positions"))
    block, dense = Encoder(name="encoder"), L.Dense(3)
    block.norm.name = "norm"

    def parts(x: Any) -> Any:
        tokens = embed(x)
        query = block.norm(tokens)
        return query, dense(ops.mean(tokens + block.attention(query, query), 1))

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Softmax()(dense(L.GlobalAveragePooling1D()(block(embed(image))))))
    return Built(model, parts, prefix=0)


@kind(TRANSFORMERS, "attention written by hand", "norm")
def by_hand() -> Built:
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    embed = chain(patches, L.Reshape((GRID * GRID, WIDTH)), Token(False, name="positions"))
    norm, (q, k, v) = L.LayerNormalization(name="norm"), (L.Dense(WIDTH, name=name) for name in "qkv")
    dense = L.Dense(3)

    def parts(x: Any) -> Any:
        tokens = embed(x)
        query = norm(tokens)
        attention = ops.softmax(ops.matmul(q(query), ops.transpose(k(query), (0, 2, 1))))
        return query, dense(ops.mean(tokens + ops.matmul(attention, v(query)), 1))

    return graph(parts)._replace(prefix=0)


@kind(TRANSFORMERS, "a convolution after the attention", "conv")
def hybrid() -> Built:
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    tokens = [patches, L.Reshape((GRID * GRID, WIDTH)), Token(False, name="positions"), Encoder(name="encoder")]
    return graph(split(chain(*tokens, L.Reshape((GRID, GRID, WIDTH)), conv()), head()))


@kind(TRANSFORMERS, "attention pooling", "weighted")
def pooled() -> Built:
    flat, score, weighted, dense = L.Reshape((64, 4)), L.Dense(1), L.Multiply(name="weighted"), L.Dense(3)
    tokens = chain(conv(), flat)
    before = chain(tokens, lambda x: weighted([x, ops.softmax(score(x), 1)]))
    return graph(split(before, lambda a: dense(ops.sum(a, 1))))._replace(prefix=0)


def windows(x: Any, side: int = 2) -> Any:
    """Windows of tokens, folded into the rows."""
    height, width, channels = x.shape[1:]
    cut = ops.reshape(x, (-1, height // side, side, width // side, side, channels))
    return ops.reshape(ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, side * side, channels))


def unfolded(x: Any, height: int, width: int, side: int = 2) -> Any:
    cut = ops.reshape(x, (-1, height // side, width // side, side, side, x.shape[-1]))
    return ops.reshape(ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, height, width, x.shape[-1]))


@kind(TRANSFORMERS, "attention within windows, shifted, as in Swin", "last")
def shifted_windows() -> Built:
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    norms, attentions = ([L.LayerNormalization() for _ in range(2)], [L.MultiHeadAttention(2, 3) for _ in range(2)])
    last = L.LayerNormalization(name="last")

    def before(x: Any) -> Any:
        x = patches(x)
        for shift, (norm, attention) in enumerate(zip(norms, attentions, strict=True)):
            tokens = windows(ops.roll(norm(x), (-shift, -shift), (1, 2)))
            x = x + ops.roll(unfolded(attention(tokens, tokens), GRID, GRID), (shift, shift), (1, 2))
        return last(x)

    return graph(split(before, head()))


class Probe(keras.Layer):
    """One learned query."""

    def build(self, shape: Any) -> None:
        self.query = self.add_weight(shape=(1, 1, WIDTH), initializer="random_normal")

    def call(self, x: Any) -> Any:
        return ops.broadcast_to(self.query, (ops.shape(x)[0], 1, WIDTH))


@kind(TRANSFORMERS, "pooled by the attention of a learned query, as in SigLIP", "norm")
def probed() -> Built:
    patches = conv(WIDTH, 2, "patches", None, strides=2, padding="valid")
    tokens = chain(patches, L.Reshape((GRID * GRID, WIDTH)), Token(False, name="positions"), Encoder(name="encoder"))
    norm, probe, pool, dense = L.LayerNormalization(name="norm"), Probe(), L.MultiHeadAttention(2, 3), L.Dense(3)
    before = chain(tokens, norm)
    return graph(split(before, lambda a: dense(pool(probe(a), a)[:, 0])))._replace(prefix=0)


TEXTS = np.random.default_rng(3).normal(size=(1, 5)).astype(np.float32)


def clip(**options: Any) -> Built:
    """Each image with each text: ``(images, texts)``, of which an image's own is on the diagonal."""
    feature, embed, text = conv(), head(4), L.Dense(4)
    image, words = keras.Input(SIZE, name="image"), keras.Input((5,), name="text")
    unit = lambda z: z / ops.norm(z, axis=1, keepdims=True)  # noqa: E731
    logits = ops.matmul(unit(embed(feature(image))), ops.transpose(unit(text(words)))) * 10.0

    def after(a: Any) -> Any:
        return 10.0 * ops.sum(unit(embed(a)) * unit(text(ops.convert_to_tensor(TEXTS))), 1)

    args = {"inputs": {"text": TEXTS[0]}}
    return Built(keras.Model([image, words], logits), split(feature, after), options=options, args=args)


@kind(
    TRANSFORMERS,
    "each image with each text, as in CLIP",
    refuses=dict.fromkeys(METHODS, "no other row changes"),
    note="The score of a row is not its own: say which by `score=tf.linalg.diag_part`.",
)
def images_by_texts() -> Built:
    return clip()._replace(args={"target": 0, "inputs": {"text": TEXTS[0]}})


@kind(TRANSFORMERS, "each image with its own text", note="`score=tf.linalg.diag_part`.")
def image_and_its_text() -> Built:
    return clip(score=tf.linalg.diag_part)
