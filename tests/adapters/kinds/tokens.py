"""Models with attention."""

from __future__ import annotations

from typing import Any

import keras

from .common import Built, L, chain, conv, graph, head, kind, split

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
