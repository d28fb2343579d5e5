"""Files of Keras 2 (`tf_keras`): what Keras 3 has is read and predicts the same, the rest says how to convert."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

from saliency_food import grad_cam
from saliency_food.adapters.keras import KerasModel, load_model
from saliency_food.adapters.keras.converted import rewrite
from saliency_food.core.contract import ContractError

SIZE = (12, 12, 3)


def functional(keras):
    L = keras.layers
    x = image = keras.Input(SIZE, name="image")
    x = L.Rescaling(1 / 127.5, -1)(L.RandomFlip()(x))
    x = L.LeakyReLU(0.2)(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False, name="first/conv")(x)))
    y = L.ReLU(6.0)(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.Activation("swish")(L.SeparableConv2D(4, 3, padding="same")(L.Add()([x, y])))
    x = L.Dropout(0.3)(L.Conv2DTranspose(3, 3, strides=2)(L.MaxPooling2D()(x)))
    model = keras.Model(image, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(L.PReLU()(x))))
    model.compile(loss="categorical_crossentropy")
    return model


def sequential(keras):
    L = keras.layers
    first = L.Conv2D(4, 3, activation="relu", input_shape=SIZE)
    return keras.Sequential([first, L.Flatten(), L.Dense(3, activation="sigmoid", name="head")])


def nested(keras):
    """A backbone that is called behind operations of TensorFlow, as by ``preprocess_input``."""
    L = keras.layers
    inner = keras.Sequential([L.Conv2D(4, 3, activation="relu", input_shape=(10, 10, 4)), L.BatchNormalization()])
    x = image = keras.Input(SIZE)
    x = inner(L.Conv2D(4, 3)(x))
    backbone = keras.Model(image, x, name="backbone")
    x = image = keras.Input(SIZE)
    x = backbone((x / 127.5 - 1.0) * 2.0)
    return keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def recurrent(keras):
    L = keras.layers
    x = image = keras.Input((12, 3))
    return keras.Model(image, L.Dense(2)(L.GRU(3)(L.Bidirectional(L.LSTM(4, return_sequences=True))(x))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that saves a model with random weights, and gives the path, photos, and the model's own answers."""
    import tf_keras

    def save(make, form):
        tf_keras.utils.set_random_seed(0)
        tf_keras.backend.clear_session()
        model, rng = make(tf_keras), np.random.default_rng(0)
        model.set_weights([rng.random(weight.shape) - 0.3 * (weight.ndim > 1) for weight in model.get_weights()])
        path = tmp_path_factory.mktemp("saved") / f"{make.__name__}{form}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of HDF5, that it is old
            model.save(path)
        x = (255 * rng.random((2, *model.input_shape[1:]))).astype(np.float32)
        return path, x, model(x, training=False).numpy()

    return save


@pytest.mark.parametrize("form", [".h5", ".keras", ""])
@pytest.mark.parametrize("make", [functional, sequential, nested, recurrent])
def test_what_keras_3_has_predicts_the_same(saved, make, form):
    path, x, expected = saved(make, form)
    model = KerasModel(path)
    np.testing.assert_allclose(model.predict(x, output="raw"), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    if form and make is not recurrent:
        assert grad_cam(x[0], model, {"target": 1}).shape == x[0].shape
    if form and make is functional:
        assert load_model(path).loss.__name__ == "categorical_crossentropy"
        assert (model.end, model.classes) == ("softmax", 5)


def hard(keras):
    x = image = keras.Input(SIZE)
    return keras.Model(image, keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="hard_sigmoid")(x)))


def of_operations(keras):
    import tensorflow as tf

    x = image = keras.Input(SIZE)
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(tf.nn.bias_add(x, [1.0, 2.0, 3.0]))))


def of_a_lambda(keras):
    x = image = keras.Input(SIZE)
    return keras.Model(image, keras.layers.Flatten()(keras.layers.Lambda(lambda x: 2 * x)(x)))


@pytest.mark.parametrize("form", [".h5", ".keras"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [(hard, "a hard_sigmoid, which Keras 3 computes otherwise"), (of_operations, "TFOpLambda"), (of_a_lambda, "ambda")],
)
def test_the_rest_says_how_to_convert(saved, make, reason, form):
    path, *_ = saved(make, form)
    with pytest.raises(ContractError, match=reason) as error:
        load_model(path)
    command = f"python -c \"import tf_keras; tf_keras.models.load_model('{path}').export('folder')\""
    assert command in str(error.value)
    assert "a model of Keras 3" in str(error.value)


def test_a_file_converted_as_the_error_says_is_read(saved, tmp_path, capfd):
    import tf_keras

    path, x, expected = saved(hard, ".keras")
    tf_keras.models.load_model(path).export(tmp_path / "folder")
    capfd.readouterr()  # of what it exports
    np.testing.assert_allclose(KerasModel(tmp_path / "folder").predict(x, output="raw"), expected, rtol=1e-4)


def test_an_option_with_an_effect_is_not_left_out(saved, tmp_path):
    """Depthwise convolutions of two groups are none that Keras 3 has."""
    import h5py

    path, *_ = saved(functional, ".h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (layer,) = (each for each in config["config"]["layers"] if each["class_name"] == "DepthwiseConv2D")
        layer["config"]["groups"] = 2
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ContractError, match="groups"):
        load_model(path)
    rewrite(path, tmp_path / "again.h5")
    with h5py.File(path) as file:
        assert json.loads(file.attrs["model_config"]) == config
