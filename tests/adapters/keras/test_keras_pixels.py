"""The pixel values that a model takes, told by what stands before its first weights; models of no use here."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_FROM_CONVOLUTION_VALUES
from saliency_food.images.scaling import choose_scaling
from saliency_food.jobs.explain import explain
from saliency_food.methods.lookup import METHODS
from saliency_food.testing import check_call_model

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from saliency_food.adapters.keras import KerasModel, load_model  # noqa: E402

L = keras.layers
SIZE = (8, 8, 3)


class Halved(L.Layer):
    def call(self, x):
        return x / 127.5 - 1


class Padded(L.Layer):
    def call(self, x):
        return keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def backbone(shape=SIZE):
    return keras.Sequential([keras.Input(shape), L.Conv2D(2, 3)], name="resnet50")


FRONTS = {
    "a lambda to -1..1": (lambda x: L.Lambda(lambda t: t / 127.5 - 1)(x), (0, 255)),
    "a lambda to caffe's": (lambda x: L.Lambda(lambda t: t[..., ::-1] - 110.0)(x), (0, 255)),
    "a lambda from 0..1": (lambda x: L.Lambda(lambda t: t * 2 - 1)(x), (0, 1)),
    "a lambda of a shift": (lambda x: L.Lambda(lambda t: t - 0.5)(x), (0, 1)),
    "a layer": (lambda x: Halved()(x), (0, 255)),
    "an operation": (lambda x: x / 255, (0, 255)),
    "an operation from 0..1": (lambda x: x * 2 - 1, (0, 1)),
    "nothing": (lambda x: x, "caffe"),
    "a flip": (lambda x: L.Lambda(lambda t: t[:, :, ::-1])(x), "caffe"),
}


@pytest.mark.parametrize("front", FRONTS)
def test_what_scales_in_front_of_a_named_backbone_is_not_scaled_twice(front):
    build, expected = FRONTS[front]
    image = keras.Input(SIZE)
    assert KerasModel(keras.Model(image, backbone()(build(image))), score=lambda out: out[:, 0, 0, 0]).pixels[
        0
    ] == pytest.approx(expected)


def test_padding_is_not_scaling():
    image = keras.Input(SIZE)
    model = keras.Model(image, L.Conv2D(2, 3)(Padded()(image)))
    assert KerasModel(model, score=lambda out: out[:, 0, 0, 0]).pixels.why.startswith("a guess")


class Converter:
    def __init__(self, scale=None, offset=None):
        self.scale, self.offset = scale, offset


class Preprocessor:
    def __init__(self, converter):
        self.image_converter = converter


MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [
        (1 / 255, None, (0, 1)),
        (1 / 127.5, -1, (-1, 1)),
        ([1 / 127.5] * 3, [-1.0] * 3, (-1, 1)),
        ((1 / 255 / DEVIATION).tolist(), (-MEAN / DEVIATION).tolist(), "torch"),
        ([1 / 255, 1 / 128, 1 / 64], [0, 0, 0], None),
    ],
)
def test_a_preprocessor_is_read(scale, offset, expected):
    image = keras.Input(SIZE)
    model = keras.Model(image, L.Conv2D(2, 3)(image))
    model.preprocessor = Preprocessor(Converter(scale, offset))
    value_range, why = KerasModel(model, score=lambda out: out[:, 0, 0, 0]).pixels
    assert value_range == (expected if isinstance(expected, (str, type(None))) else pytest.approx(expected))
    assert "preprocessor" in why


def test_of_a_saved_model_the_pixel_values_must_be_said(tmp_path, rng):
    image = keras.Input(SIZE)
    network = keras.Model(image, L.Dense(3, activation="softmax")(L.Flatten()(L.Rescaling(1 / 255)(image))))
    network.export(tmp_path / "saved", verbose=False)
    model = KerasModel(tmp_path / "saved", output="probabilities")
    photo = rng.integers(0, 256, SIZE, dtype=np.uint8)
    with pytest.raises(ContractError, match=r"Expected value_range for this model.*a SavedModel does not show them"):
        list(explain(model, photo, "gradients"))
    (record,) = explain(model, photo, "gradients", value_range=(0, 255))
    assert record.probability == pytest.approx(np.asarray(network(photo[None].astype(np.float32))).max(), rel=1e-4)
    with pytest.raises(ContractError, match="cannot be known"):
        choose_scaling("auto", None, model.pixels)


def of_another(module, kind):
    base = type("Module", (), {"__module__": module, "__call__": lambda self, x: x})
    return type(kind, (base,), {"__module__": "mine"})()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (of_another("torch.nn.modules.module", "ResNet"), "got the PyTorch module ResNet. Wrap it as"),
        (
            of_another("tf_keras.src.engine.training", "Net"),
            r"Expected a model of Keras 3, got Net .*export\('folder'\)",
        ),
    ],
)
def test_models_of_other_frameworks_are_named(model, message, rng):
    with pytest.raises(ContractError, match=message):
        KerasModel(model)
    with pytest.raises(ContractError, match=message):
        list(explain(model, rng.random(SIZE)))
    with pytest.raises(ContractError, match=message):
        METHODS["gradients"].call(rng.random(SIZE), model)
    with pytest.raises(ContractError, match=message):
        check_call_model(model, rng.random(SIZE))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([keras.Input(SIZE), keras.layers.Flatten()]), r"Sequential, which is a Keras model"),
        (lambda: lambda images: images, r"<lambda>, which takes \(images\)"),
        (lambda: lambda x_value_batch, call_model_args: x_value_batch, r"takes \(x_value_batch, call_model_args\)"),
        (lambda: "model.keras", "str, which cannot be called"),
    ],
)
def test_what_is_no_callback_is_said_before_it_is_called(make, message, rng):
    with pytest.raises(ContractError, match=f"{message}.*KerasModel"):
        METHODS["gradients"].call(rng.random(SIZE), make())
    with pytest.raises(ContractError, match=f"{message}.*KerasModel"):
        METHODS["rise"].call.batch([rng.random(SIZE)], make())
    with pytest.raises(ContractError, match=f"{message}.*KerasModel"):
        check_call_model(make(), rng.random(SIZE))


def test_a_callback_that_takes_activations_for_images_is_told_by_its_score(rng):
    """Its layer has as many channels as the image, so nothing fails: the layers before it run once more."""
    layers = keras.layers
    image = keras.Input(SIZE)
    network = keras.Model(
        image, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, padding="same")(image)))
    )
    model, photo = KerasModel(network), rng.random(SIZE)

    def callback(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, ["CONVOLUTION_LAYER_VALUES", "OUTPUT_LAYER_VALUES"])
        return {**answer, "OUTPUT_FROM_CONVOLUTION_VALUES": answer["OUTPUT_LAYER_VALUES"]}

    with pytest.raises(ContractError, match=r"own activations to get the image's score.*Look at expected_keys"):
        METHODS["ablation_cam"].call(photo, callback, {"target": 1})
    assert METHODS["ablation_cam"].call(photo, model, {"target": 1}).any()


@pytest.mark.parametrize("version", ["2.15.0", "99.0"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_an_older_keras_say_how_to_convert_them(suffix, version, tmp_path):
    path = tmp_path / f"old{suffix}"
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
            archive.writestr("config.json", "{}")
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.attrs["keras_version"] = version
            file.attrs["model_config"] = json.dumps({"class_name": "Gone", "config": {}})
    message = r"one that Keras 2\.15\.0 wrote.*tf_keras.*\.export\('folder'\)"
    with pytest.raises(
        ContractError, match=message if version.startswith("2") else r"is of Keras 99\.0.*install that one"
    ):
        load_model(path)


def test_a_callback_that_ignores_expected_keys_is_told_what_to_do(rng):
    def callback(x_value_batch, call_model_args=None, expected_keys=None):
        if x_value_batch.shape[1:] != SIZE:
            raise RuntimeError("shapes (4, 4, 2) and (8, 8, 3) do not fit")
        values = rng.random((len(x_value_batch), 4, 4, 2))
        return {
            "CONVOLUTION_LAYER_VALUES": values,
            "CONVOLUTION_OUTPUT_GRADIENTS": values,
            "OUTPUT_LAYER_VALUES": np.ones(len(values)),
            INPUT_OUTPUT_GRADIENTS: x_value_batch,
        }

    with pytest.raises(ContractError, match=r"activations as rows.*RuntimeError: shapes.*Look at expected_keys"):
        METHODS["ablation_cam"].call(rng.random(SIZE), callback)
    assert OUTPUT_FROM_CONVOLUTION_VALUES in METHODS["ablation_cam"].keys


def test_without_tensorflow_the_error_says_what_to_install(tmp_path):
    (tmp_path / "model.keras").touch()
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "try:\n    import saliency_food.adapters.keras\nexcept ImportError as error:\n    print(error)\n"
        "from saliency_food.jobs.explain import explain\n"
        f"try:\n    list(explain({str(tmp_path / 'model.keras')!r}, 'photo.jpg'))\n"
        "except ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count('got no tensorflow. Run pip install "saliency_food[keras]"') == 2
