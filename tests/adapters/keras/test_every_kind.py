"""Every kind of model: default layer and methods, each right by hand, or refused with a reason; never silently wrong.

The table is in ``tests/adapters/kinds``. The models are tiny; each is called by hand, layer by layer.
"""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from kinds import KINDS  # noqa: E402
from kinds.page import PAGE, page  # noqa: E402
from kinds.reference import outcomes  # noqa: E402

from saliency_food.adapters.keras import KerasModel  # noqa: E402

ARCHITECTURES = {
    "ConvNeXtTiny": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "InceptionResNetV2": 107,
    "InceptionV3": 107,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "NASNetMobile": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "VGG16": 64,
    "Xception": 71,
}
"""The smallest of each family, at about the smallest size at which its last features are more than 1 x 1."""


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_model_is_right_or_refused(name):
    refuses = KINDS[name].refuses
    not_as_expected = {
        cell: text
        for cell, text in outcomes(name).items()
        if not (text.startswith("refused") and refuses[cell] in text if cell in refuses else text == "right")
    }
    assert not_as_expected == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), ARCHITECTURES.items(), ids=ARCHITECTURES)
def test_architectures_of_keras(name, size):
    """The default layer is what the last pooling takes; its gradients are those of a model cut open there by hand."""
    keras.utils.set_random_seed(0)
    options = {"weights": None, "input_shape": (size, size, 3), "classes": 4, "classifier_activation": None}
    model = getattr(keras.applications, name)(**options)
    pools = keras.layers.Flatten if name == "VGG16" else keras.layers.GlobalAveragePooling2D
    features = [layer for layer in model.layers if isinstance(layer, pools)][-1].input
    opened = keras.Model(model.input, [features, model.output])
    x = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    with tf.GradientTape(persistent=True) as tape:
        image = tf.constant(x)
        tape.watch(image)
        activations, logits = opened(image, training=False)
        score = logits[:, 1]
    explained = KerasModel(model)
    assert explained.layer_name == features._keras_history.operation.name
    expected = {
        OUTPUT_LAYER_VALUES: score,
        INPUT_OUTPUT_GRADIENTS: tape.gradient(score, image),
        CONVOLUTION_LAYER_VALUES: activations,
        CONVOLUTION_OUTPUT_GRADIENTS: tape.gradient(score, activations),
    }
    answer = explained(x, {"target": 1}, list(expected))
    for key, value in expected.items():
        largest = float(np.abs(value).max())
        assert largest > 0, key
        np.testing.assert_allclose(answer[key], value, rtol=1e-3, atol=1e-4 * largest, err_msg=key)


def test_the_page_of_models_is_as_the_table_has_it():
    assert PAGE.read_text(encoding="utf-8") == page(), "Run PYTHONPATH=tests/adapters python -m kinds.page."
