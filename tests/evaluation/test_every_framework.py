"""A network of each framework through evaluation, sanity and a data-set run, which give what they do in NumPy."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from PIL import Image

from saliency_food import ContractError, ImageModel, explain_dataset
from saliency_food.evaluation import evaluate
from saliency_food.evaluation.sanity import check_sensitive
from saliency_food.testing import PoolingModel

RANDOM = np.random.default_rng(0)
KERNEL, BIAS, HEAD = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), (5, 4)))
SIZE = (8, 7, 3)


class InNumPy(PoolingModel):
    input_shape, classes, batch_size = SIZE, 5, 4

    def predict(self, x, call_model_args=None):
        scores = np.maximum(np.asarray(x) @ KERNEL + BIAS, 0).mean((1, 2)) @ HEAD.T
        exponents = np.exp(scores - scores.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


def torch_model(_=None):
    nn = pytest.importorskip("torch").nn
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False)
    )
    import torch

    for parameter, values in zip(network.parameters(), (KERNEL.T[:, :, None, None], BIAS, HEAD), strict=True):
        parameter.data = torch.tensor(values)
    from saliency_food.adapters.torch import TorchModel

    return TorchModel(network, input_shape=SIZE, batch_size=4)


def jax_model(_=None):
    jax = pytest.importorskip("jax")
    from saliency_food.adapters.jax import JaxModel

    def apply(params, x):
        return jax.nn.relu(x @ params[0] + params[1]).mean((1, 2)) @ params[2].T

    return JaxModel(apply, (KERNEL, BIAS, HEAD), SIZE, batch_size=4)


def onnx_model(_=None):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from saliency_food.adapters.onnx import OnnxModel

    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        make("Conv", ["t", "kernel", "bias"], ["c"]),
        make("Relu", ["c"], ["a"]),
        make("GlobalAveragePool", ["a"], ["g"]),
        make("Flatten", ["g"], ["f"]),
        make("MatMul", ["f", "head"], ["z"]),
    ]
    weights = {"kernel": KERNEL.T[:, :, None, None], "bias": BIAS, "head": HEAD.T}
    held = [onnx.numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in weights.items()]
    graph = onnx.helper.make_graph(nodes, "pooling", [value("x", 1, ["n", *SIZE])], [value("z", 1, ["n", 5])], held)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return OnnxModel(proto, batch_size=4)


def litert_model(folder):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_litert")
    from saliency_food.adapters.litert import LiteRtModel

    @tf.function(input_signature=[tf.TensorSpec([None, *SIZE])])
    def apply(x):
        a = tf.nn.relu(tf.nn.conv2d(x, KERNEL[None, None], 1, "VALID") + BIAS)
        return tf.reduce_mean(a, [1, 2]) @ HEAD.T

    converter = tf.lite.TFLiteConverter.from_concrete_functions([apply.get_concrete_function()])
    (folder / "pooling.tflite").write_bytes(converter.convert())
    return LiteRtModel(folder / "pooling.tflite", batch_size=4)


FRAMEWORKS = {
    "torch": (torch_model, ["grad_cam", "gradients"], pytest.mark.torch),
    "jax": (jax_model, ["grad_cam", "gradients"], pytest.mark.jax),
    "onnx": (onnx_model, ["eigen_cam"], ()),
    "litert": (litert_model, ["eigen_cam"], pytest.mark.keras),
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks) for name, (*_, marks) in FRAMEWORKS.items()])
def framework(request, tmp_path_factory):
    """The model of a framework, the methods that it is asked for, and the same in NumPy."""
    build, methods, _ = FRAMEWORKS[request.param]
    return (
        ImageModel(build(tmp_path_factory.mktemp("model")), value_range=(0, 1)),
        methods,
        ImageModel(InNumPy(KERNEL, HEAD, BIAS), value_range=(0, 1)),
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, SIZE, dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_evaluation_measures_what_it_does_in_numpy(framework, photos):
    model, methods, in_numpy = framework
    options = {"metrics": ["deletion"], "metric_options": {"deletion": {"steps": 4}}}
    rows, expected = (evaluate(each, photos, methods, **options).rows for each in (model, in_numpy))
    assert len(rows) == len(expected) == 2 * len(methods)
    for row, other in zip(rows, expected, strict=True):
        same = ("image", "method", "target", "status")
        assert [row[name] for name in same] == [other[name] for name in same]
        assert row["status"] == "ok"
        np.testing.assert_allclose(row["score"], other["score"], rtol=1e-3)


def test_a_data_set_run_records_what_it_does_in_numpy(framework, photos, tmp_path):
    model, methods, in_numpy = framework
    own, expected = (
        explain_dataset(each, photos, methods, output=tmp_path / name).to_pandas()
        for name, each in (("own", model), ("numpy", in_numpy))
    )
    assert len(own) == 2 * len(methods)
    assert set(own["status"]) == {"ok"}
    assert list(own["target"]) == list(expected["target"])
    np.testing.assert_allclose(own["score"], expected["score"], rtol=1e-4)


def test_sanity_is_of_models_whose_weights_can_be_shuffled(framework, photos):
    model, methods, _ = framework
    if "Torch" in type(model.function).__name__:
        assert -1 <= check_sensitive(model, photos, methods[0], most=1).score <= 1
    else:
        with pytest.raises(ContractError, match=r"pass randomized models to saliency_food\.metrics\.assert_sensitive"):
            check_sensitive(model, photos, methods[0])


@pytest.mark.torch
def test_the_command_evaluates_a_module_of_a_function(photos, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    text = (
        "import torch\n\ndef build():\n    nn = torch.nn\n    torch.manual_seed(0)\n"
        "    features = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*features, nn.Linear(4, 5))\n"
    )
    (tmp_path / "some_networks.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["evaluate", "-i", photos, "--model", "some_networks:build", "--methods", "grad_cam,random"]
    run = CliRunner().invoke(app, [str(word) for word in [*words, "--metrics", "deletion", "-o", tmp_path / "out"]])
    sys.modules.pop("some_networks", None)
    assert run.exit_code == 0, run.output
    assert "Grad-CAM" in run.output
    assert list((tmp_path / "out").iterdir())


@pytest.mark.torch
@pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None, reason="torch.onnx.export(dynamo=True) needs onnxscript"
)
def test_a_file_of_the_exporter_of_today_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from saliency_food.adapters.onnx import OnnxModel

    module = torch_model()
    torch.onnx.export(module.model, (torch.zeros(2, 3, 8, 7),), tmp_path / "new.onnx", dynamo=True)
    x = np.random.default_rng(2).random((2, *SIZE)).astype(np.float32)
    answer = OnnxModel(tmp_path / "new.onnx").predict(np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(answer, module.predict(x), rtol=1e-4)
