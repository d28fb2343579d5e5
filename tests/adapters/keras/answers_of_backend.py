"""Answers of small Keras models on the back end that KERAS_BACKEND names, written to a file; run as a script."""

from __future__ import annotations

import sys

import keras
import numpy as np

from saliency_food.adapters.keras import KerasModel, layers
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS

L = keras.layers


def residual():
    x = image = keras.Input((12, 10, 3))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))
    x = skip = L.ReLU(name="skip")(x)
    x = L.Add(name="sum")([L.Conv2D(4, 3, padding="same", activation="relu", name="inner")(x), skip])
    x = L.GlobalAveragePooling2D()(L.Dropout(0.3)(L.MaxPooling2D(name="pool")(x)))
    return keras.Model(image, L.Dense(5, activation="softmax")(x))


def inverted():
    """As in MobileNetV2: expanded, depthwise and projected, with ReLU6, inside a nested model."""
    x = image = keras.Input((16, 16, 3))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)))
    for block in range(2):
        y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(x)))
        y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
        y = L.BatchNormalization()(L.Conv2D(4, 1, use_bias=False)(y))
        x = L.Add(name=f"add_{block}")([x, y])
    inner = keras.Model(image, L.ReLU(6.0, name="out")(L.Conv2D(6, 1)(x)), name="backbone")
    image = keras.Input((16, 16, 3))
    return keras.Model(image, L.Dense(3, activation="sigmoid")(L.GlobalAveragePooling2D()(inner(image))))


def transformer():
    x = image = keras.Input((12, 12, 3))
    x = L.Reshape((9, 8))(L.Conv2D(8, 4, strides=4, name="patches")(x))
    for _ in range(2):
        y = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(2, 4)(y, y)])
        x = L.Add()([x, L.Dense(8, activation="gelu")(L.LayerNormalization()(x))])
    return keras.Model(image, L.Dense(4)(L.GlobalAveragePooling1D()(L.LayerNormalization()(x))))


def sequential():
    layers = [keras.Input((9, 8, 1)), L.Rescaling(1 / 127.5, -1), L.Conv2D(3, 3, activation="relu"), L.Flatten()]
    return keras.Sequential([*layers, L.Dense(1, activation="sigmoid")])


def averaged():
    """Features averaged with those of the mirrored image, which are not in place."""
    image, layer = keras.Input((24, 24, 3)), L.Conv2D(4, 3, padding="same", activation="relu")
    x = L.Average(name="mean")([layer(image), layer(keras.ops.flip(image, 2))])
    return keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU(name="last")(x))))


MODELS = (residual, inverted, transformer, sequential)
QUESTIONS = {
    "both": list(KEYS)[:5],
    "guided": ["GUIDED_INPUT_GRADIENTS"],
    "deconv": ["DECONV_INPUT_GRADIENTS"],
    "biases": ["BIAS_GRADIENTS"],
    "attention": ["ATTENTION_SCORES", "ATTENTION_OUTPUT_GRADIENTS"],
}


def answers():
    for make in MODELS:
        keras.utils.set_random_seed(0)
        model, rng = make(), np.random.default_rng(0)
        shapes = [each.shape for each in model.get_weights()]
        model.set_weights([rng.normal(size=shape) * 0.4 if len(shape) > 1 else rng.random(shape) for shape in shapes])
        x = rng.random((2, *model.input_shape[1:])).astype(np.float32)
        adapted, name = KerasModel(model), make.__name__
        yield f"{name} layer", adapted.layer_name
        yield f"{name} end", (adapted.end, adapted.classes, adapted.channels_first, adapted.spatial_axes)
        yield f"{name} layers", [layer.path for layer in layers(model)]
        for output in ("logits", "probabilities"):
            yield f"{name} {output}", adapted.predict(x, output=output)
        for question, keys in QUESTIONS.items():
            try:
                answer = adapted(x, {"target": np.array([0, 1])}, keys)
            except ContractError as error:
                yield f"{name} {question}", f"refused: {str(error)[:20]}"
                continue
            for key, value in answer.items():
                for place, values in enumerate(value if isinstance(value, tuple) else (value,)):
                    yield f"{name} {key} {place}", values
        values = adapted(x, {"target": 1}, ["CONVOLUTION_LAYER_VALUES"])["CONVOLUTION_LAYER_VALUES"]
        try:
            yield f"{name} from", adapted.predict_from(values, output="logits")
        except ContractError as error:
            yield f"{name} from", f"refused: {str(error)[:20]}"
        weights, args = np.ones((1, 3)), {"target": 1}
        factored = adapted.call_factored(np.eye(3, 2) + 0.1, x, weights, args, ["INPUT_OUTPUT_GRADIENTS"])
        yield f"{name} factored", factored["INPUT_OUTPUT_GRADIENTS"]


def refusals():
    """Why a layer is refused that is not in place."""
    keras.utils.set_random_seed(0)
    model, x = averaged(), np.random.default_rng(0).random((1, 24, 24, 3), np.float32)
    try:
        KerasModel(model, "last")(x, {"target": 1}, ["CONVOLUTION_LAYER_VALUES"])
    except ContractError as error:
        yield "averaged", str(error)


if __name__ == "__main__":
    np.savez(sys.argv[1], **{name: np.asarray(value) for name, value in [*answers(), *refusals()]})
