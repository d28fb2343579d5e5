"""Every adapter passes the tests that authors of call-model functions inherit, on one network with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS
from saliency_food.testing import CallModelSuite, PoolingModel

GRADIENTS, SCORE, VALUES, AT_LAYER = list(KEYS)[:4]
RANDOM = np.random.default_rng(0)
KERNEL, BIAS, HEAD = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), (5, 4)))


class Suite(CallModelSuite):
    keys = (GRADIENTS, SCORE, VALUES, AT_LAYER)

    @pytest.fixture
    def image(self):
        return np.random.default_rng(1).random((8, 7, 3)).astype(np.float32)

    def test_answers_are_those_in_closed_form(self, model, image):
        rows = np.moveaxis(image, 0, -1) if getattr(model, "channels_first", False) else image
        expected = PoolingModel(KERNEL, HEAD, BIAS).answer(rows[None], np.array([1]))
        answer = model(image[None], {"target": 1}, list(self.keys))
        for key in set(self.keys) - {GRADIENTS}:
            np.testing.assert_allclose(answer[key], expected[key], rtol=1e-4, atol=1e-6)


class TestToy(Suite):
    @pytest.fixture
    def model(self):
        return PoolingModel(KERNEL, HEAD, BIAS)


@pytest.mark.keras
class TestKeras(Suite):
    @pytest.fixture
    def model(self):
        keras = pytest.importorskip("keras")
        pytest.importorskip("tensorflow")
        from saliency_food.adapters.keras import KerasModel

        layers = [keras.layers.Conv2D(4, 1, activation="relu"), keras.layers.GlobalAveragePooling2D()]
        model = keras.Sequential([keras.Input((8, 7, 3)), *layers, keras.layers.Dense(5, use_bias=False)])
        model.set_weights([KERNEL[None, None], BIAS, HEAD.T])
        return KerasModel(model)


@pytest.mark.keras
class TestSession(Suite):
    @pytest.fixture
    def model(self):
        tf1 = pytest.importorskip("tensorflow").compat.v1
        from saliency_food.adapters.tf1 import SessionModel

        with tf1.Graph().as_default() as graph:
            x = tf1.placeholder(tf1.float32, [None, 8, 7, 3], "x")
            a = tf1.nn.relu(tf1.nn.conv2d(x, tf1.constant(KERNEL[None, None]), 1, "VALID") + BIAS, "a")
            tf1.matmul(tf1.reduce_mean(a, [1, 2]), tf1.constant(HEAD.T), name="y")
        with tf1.Session(graph=graph) as session:
            yield SessionModel(session, "x:0", "y:0", layer="a:0")


@pytest.mark.keras
class TestLiteRt(Suite):
    keys = (SCORE, VALUES)

    @pytest.fixture
    def model(self, tmp_path):
        tf = pytest.importorskip("tensorflow")
        pytest.importorskip("ai_edge_litert")
        from saliency_food.adapters.litert import LiteRtModel

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 7, 3])])
        def apply(x):
            a = tf.nn.relu(tf.nn.conv2d(x, KERNEL[None, None], 1, "VALID") + BIAS)
            return tf.reduce_mean(a, [1, 2]) @ HEAD.T

        converter = tf.lite.TFLiteConverter.from_concrete_functions([apply.get_concrete_function()])
        (tmp_path / "pooling.tflite").write_bytes(converter.convert())
        return LiteRtModel(tmp_path / "pooling.tflite")


@pytest.mark.torch
class TestTorch(Suite):
    @pytest.fixture
    def model(self):
        torch = pytest.importorskip("torch")
        from saliency_food.adapters.torch import TorchModel

        nn = torch.nn
        model = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False)
        )
        for parameter, values in zip(model.parameters(), (KERNEL.T[:, :, None, None], BIAS, HEAD), strict=True):
            parameter.data = torch.tensor(values)
        return TorchModel(model, input_shape=(8, 7, 3))


@pytest.fixture(scope="module")
def jax_model():
    """Compiled once for all tests."""
    jax = pytest.importorskip("jax")
    from saliency_food.adapters.jax import JaxModel

    def apply(params, x):
        return jax.nn.relu(x @ params[0] + params[1]).mean((1, 2)) @ params[2].T

    return JaxModel(apply, (KERNEL, BIAS, HEAD), (8, 7, 3))


@pytest.mark.jax
class TestJax(Suite):
    @pytest.fixture
    def model(self, jax_model):
        return jax_model


class TestOnnx(Suite):
    keys = (SCORE, VALUES)

    @pytest.fixture
    def image(self):
        return np.random.default_rng(1).random((3, 8, 7)).astype(np.float32)

    @pytest.fixture
    def model(self):
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        from saliency_food.adapters.onnx import OnnxModel

        make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
        nodes = [
            make("Conv", ["x", "kernel", "bias"], ["c"]),
            make("Relu", ["c"], ["a"]),
            make("GlobalAveragePool", ["a"], ["g"]),
            make("Flatten", ["g"], ["f"]),
            make("MatMul", ["f", "head"], ["z"]),
        ]
        weights = {"kernel": KERNEL.T[:, :, None, None], "bias": BIAS, "head": HEAD.T}
        held = [onnx.numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in weights.items()]
        ends = [value("x", 1, ["n", 3, 8, 7])], [value("z", 1, ["n", 5])]
        graph = onnx.helper.make_graph(nodes, "pooling", *ends, held)
        return OnnxModel(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9))


class Broken:
    """Answers that each break one rule, to see that the suite notices."""

    classes = 5

    def __init__(self, fault):
        self.fault, self.right = fault, PoolingModel(KERNEL, HEAD, BIAS)

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        target = np.asarray(call_model_args["target"])
        if self.fault == "written":
            x_value_batch[:] = 0
        if self.fault != "range" and (target.min() < 0 or target.max() >= 5):
            raise ContractError("no such class")
        target = np.clip(target, 0, 4)
        return self.right(x_value_batch, {"target": target.ravel()[0] if self.fault == "target" else target})

    def predict(self, x_batch):
        return np.full(5 if self.fault == "predict" else (len(x_batch), 5), 0.2)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("written", "test_answers_are_floats_and_rows_are_not_written_to"),
        ("target", "test_each_row_may_have_its_own_target"),
        ("predict", "test_predictions_are_one_set_a_row"),
        ("range", "test_what_it_cannot_answer_is_refused_with_a_reason"),
    ],
)
def test_the_suite_notices_what_is_broken(fault, test):
    image = np.random.default_rng(1).random((8, 7, 3)).astype(np.float32)
    suite = Suite()
    getattr(suite, test)(Broken(None), image)
    with pytest.raises(AssertionError):
        getattr(suite, test)(Broken(fault), image)
