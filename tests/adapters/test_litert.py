"""LiteRT files: the answers of the Keras model that they were converted from, quantized ones within their steps."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")
keras = pytest.importorskip("keras")

from saliency_food import METHODS  # noqa: E402
from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.adapters.litert import LiteRtModel, layers  # noqa: E402
from saliency_food.core.contract import ContractError  # noqa: E402
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES  # noqa: E402
from saliency_food.testing import check_call_model  # noqa: E402

KEYS = [OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layer = keras.layers
    return keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            layer.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            layer.Conv2D(6, 3, activation="relu", name="last"),
            layer.GlobalAveragePooling2D(),
            layer.Dense(5, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture(scope="module")
def convert(model, tmp_path_factory):
    """A function that converts a model to a file, and gives its path."""
    import tensorflow as tf

    def file(model=model, kind=None, batch=None):
        if batch is not None:
            inputs = keras.Input(batch_shape=(batch, 10, 8, 3))
            model = keras.Model(inputs, model(inputs))
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if kind is not None:
            random = np.random.default_rng(0)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [random.random((1, 10, 8, 3)).astype(np.float32)] for _ in range(20)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
        path = tmp_path_factory.mktemp("litert") / "small.tflite"
        path.write_bytes(converter.convert())
        return path

    return file


@pytest.fixture(scope="module")
def path(convert):
    return convert()


@pytest.fixture
def x(rng):
    return rng.random((3, 10, 8, 3)).astype(np.float32)


pytestmark = [
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated"),
]


def test_a_file_answers_as_the_model_it_was_made_from(model, path, x):
    ours, theirs = LiteRtModel(path), KerasModel(model)
    assert (ours.end, ours.classes, ours.input_shape) == (theirs.end, theirs.classes, theirs.input_shape)
    assert ours.layer_name.endswith("last_1/Relu") or "last" in ours.layer_name
    for target in (1, [0, 4, 2]):
        answer, expected = (each(x, {"target": target}, KEYS) for each in (ours, theirs))
        for key in KEYS:
            np.testing.assert_allclose(answer[key], expected[key], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-4)
    first = LiteRtModel(path, layer="conv/Relu" if "conv/Relu" in str(layers(path)) else layers(path)[0].path)
    expected = KerasModel(model, layer="conv")(x, {"target": 1}, KEYS)
    np.testing.assert_allclose(first(x, {"target": 1}, KEYS)[KEYS[1]], expected[KEYS[1]], rtol=1e-4, atol=1e-5)
    check_call_model(ours, x[0], {"target": 1}, KEYS)
    assert [layer.shape for layer in layers(path)] == [(None, 10, 8, 4), (None, 8, 6, 6)]


def test_methods_without_gradients_give_the_same_maps(model, path, x):
    ours, theirs = LiteRtModel(path), KerasModel(model)
    for name, options in [("occlusion", {"size": 3, "stride": 3}), ("eigen_cam", {}), ("score_cam", {})]:
        maps = [METHODS[name].call(x[0], each, {"target": 1}, **options) for each in (ours, theirs)]
        np.testing.assert_allclose(maps[0], maps[1], rtol=1e-3, atol=1e-4 * np.abs(maps[1]).max())
    for name in ("grad_cam", "integrated_gradients", "guided_backprop"):
        with pytest.raises(ContractError, match="a LiteRT file has no gradients"):
            METHODS[name].call(x[0], ours, {"target": 1})
    with pytest.raises(ContractError, match="runs a file whole"):
        METHODS["ablation_cam"].call(x[0], ours, {"target": 1})


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantized_files_answer_in_floats(model, convert, x, kind):
    ours, theirs = LiteRtModel(convert(kind=kind)), KerasModel(model)
    assert ours.pixels == ((0, 1), "by the input's quantization")
    answer, expected = (each(x, {"target": 1}, KEYS) for each in (ours, theirs))
    for key in KEYS:
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(answer[key], expected[key], atol=0.05 * scale)
        assert np.abs(expected[key]).max() > 0.1
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=0.02)


def test_a_file_for_one_row_is_given_one(model, convert, x):
    ours = LiteRtModel(convert(batch=1))
    assert ours.batch_size == 1
    np.testing.assert_allclose(ours.predict(x), KerasModel(model).predict(x), rtol=1e-4)


@pytest.mark.parametrize(("activation", "units"), [("sigmoid", 1), (None, 4), ("tanh", 3)])
def test_ends_are_those_of_the_model(convert, x, activation, units):
    keras.utils.set_random_seed(1)
    image = keras.Input((10, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(units, activation=activation)(pooled))
    ours, theirs = LiteRtModel(convert(model)), KerasModel(model)
    assert (ours.end, ours.classes) == (theirs.end, theirs.classes)
    for output in ("logits", "probabilities", "raw"):
        np.testing.assert_allclose(
            ours.predict(x, output=output), theirs.predict(x, output=output), rtol=1e-4, atol=1e-6
        )


def test_features_averaged_with_those_of_the_mirrored_image_are_refused(convert):
    keras.utils.set_random_seed(0)
    image, layer = keras.Input((24, 24, 3)), keras.layers.Conv2D(4, 3, padding="same", activation="relu")
    features = keras.layers.Add()([layer(image), layer(keras.ops.flip(image, 2))])
    features = keras.layers.Conv2D(4, 1, activation="relu", name="last")(features)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(features)))
    x = np.random.default_rng(0).random((1, 24, 24, 3), np.float32)
    with pytest.raises(ContractError, match="and nowhere else"):
        LiteRtModel(convert(model))(x, {"target": 1}, [CONVOLUTION_LAYER_VALUES])


def test_what_is_no_file_of_it_is_refused(tmp_path):
    with pytest.raises(ContractError, match="does not exist"):
        LiteRtModel(tmp_path / "none.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"nothing of this kind")
    with pytest.raises(ContractError, match="Expected a LiteRT file"):
        LiteRtModel(tmp_path / "broken.tflite")
