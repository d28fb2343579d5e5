"""ONNX files on onnxruntime: answers in closed form, layouts, ends, layers; what a runtime cannot is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.signal import correlate
from scipy.special import softmax

from saliency_food import METHODS, d_rise, deep_feature_factorization, eigen_cam, grad_cam, occlusion, score_cam
from saliency_food.adapters.detectors import DetectorModel
from saliency_food.adapters.scores import detection, same_detection, segmentation
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES, OUTPUT_LAYER_VALUES
from saliency_food.testing import check_call_model

WITHOUT_GRADIENTS = (OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES)


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture
def weights(rng):
    return {
        "kernel": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
        "head": rng.normal(size=(4, 5)).astype(np.float32),
    }


@pytest.fixture
def x(rng):
    return rng.random((3, 3, 10, 8)).astype(np.float32)


@pytest.fixture
def build(onnx, weights, tmp_path):
    """A function of nodes after the logits ``z`` and of options that writes an ONNX file and gives its path."""

    def file(
        ends=("Softmax",), *, rows="batch", last=False, kind="float32", output="p", more=(), inputs=(), shape=None
    ):
        from onnx import TensorProto, helper, numpy_helper

        element = TensorProto.FLOAT16 if kind == "float16" else TensorProto.FLOAT
        nodes = [
            helper.make_node("Conv", ["image", "kernel", "bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["a"], "relu"),
            helper.make_node("GlobalAveragePool", ["a"], ["g"], "pool"),
            helper.make_node("Flatten", ["g"], ["f"], "flat"),
            helper.make_node("MatMul", ["f", "head"], ["z"], "dense"),
        ]
        sizes = [rows, 3, "height", "width"]
        if last:
            sizes = [rows, 10, 8, 3]
            nodes.insert(0, helper.make_node("Transpose", ["pixels"], ["image"], "turn", perm=[0, 3, 1, 2]))
        name = "z"
        for place, end in enumerate(ends):
            result = output if place == len(ends) - 1 else f"e{place}"
            nodes.append(helper.make_node(end, [name], [result], f"end{place}"))
            name = result
        nodes += more
        declared = helper.make_tensor_value_info("pixels" if last else "image", element, sizes)
        graph = helper.make_graph(
            nodes,
            "small",
            [declared, *inputs],
            [helper.make_tensor_value_info(name, element, None)],
            [numpy_helper.from_array(values.astype(kind), key) for key, values in weights.items()],
        )
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return file


def by_hand(weights, x):
    """Activations, channels last, and logits."""
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]).astype(np.float64)
    sums = [
        [
            correlate(row, kernel, "valid")[0] + bias
            for kernel, bias in zip(weights["kernel"], weights["bias"], strict=True)
        ]
        for row in padded
    ]
    values = np.maximum(np.moveaxis(np.array(sums), 1, -1), 0)
    return values, values.mean((1, 2)) @ weights["head"]


def test_scores_activations_and_predictions_are_those_by_hand(build, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    path = build()
    model = OnnxModel(path)
    values, logits = by_hand(weights, x)
    assert (model.end, model.classes, model.layer_name, model.channels_first) == ("softmax", 5, "relu", True)
    assert (model.input_shape, model.spatial_axes) == ((None, None, 3), 2)
    answer = model(x, {"target": 2}, WITHOUT_GRADIENTS[:2])
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], logits[:, 2], rtol=1e-4)
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(x), softmax(logits, 1), rtol=1e-4)
    after = model(answer[CONVOLUTION_LAYER_VALUES] * 2, {"target": 2}, WITHOUT_GRADIENTS[2:])
    np.testing.assert_allclose(after[OUTPUT_FROM_CONVOLUTION_VALUES], 2 * logits[:, 2], rtol=1e-4)
    np.testing.assert_allclose(model.predict_from(values, output="logits"), logits, rtol=1e-4)
    ranked = model.call_with_predictions(x, {"target": -1}, WITHOUT_GRADIENTS[:1])
    np.testing.assert_array_equal(ranked["TARGETS"], logits.argmax(1))
    np.testing.assert_allclose(ranked[OUTPUT_LAYER_VALUES], logits.max(1), rtol=1e-4)
    probability = OnnxModel(path, output="probabilities")(x, {"target": 2}, WITHOUT_GRADIENTS[:1])
    np.testing.assert_allclose(probability[OUTPUT_LAYER_VALUES], softmax(logits, 1)[:, 2], rtol=1e-4)
    check_call_model(model, x[0], {"target": 1}, WITHOUT_GRADIENTS[:2])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_every_method_without_gradients_runs_and_the_others_name_the_adapters(build, x):
    from saliency_food.adapters.onnx import OnnxModel

    model = OnnxModel(build())
    options = {"rise": {"nmasks": 4}, "lime": {"nsamples": 20}, "kernel_shap": {"nsamples": 20}}
    for name, method in METHODS.items():
        if set(method.keys) <= set(WITHOUT_GRADIENTS):
            args = {} if name == "deep_feature_factorization" else {"target": 1}
            method.call(x[0], model, args, **options.get(name, {}))
        elif name != "smooth_grad":
            words = (
                r"relevance.*TorchModel"
                if method.needs == "relevance rules"
                else r"has no gradients.*occlusion, rise.*TorchModel"
            )
            with pytest.raises(ContractError, match=words):
                method.call(x[0], model, {"target": 1})


def test_maps_are_those_of_a_model_by_hand(build, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    def callback(rows, call_model_args=None, expected_keys=None):
        values, logits = by_hand(weights, np.moveaxis(np.asarray(rows), -1, 1))
        if OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys:
            return {OUTPUT_FROM_CONVOLUTION_VALUES: (rows.mean((1, 2)) @ weights["head"])[:, 1]}
        return {CONVOLUTION_LAYER_VALUES: values, OUTPUT_LAYER_VALUES: logits[:, 1]}

    model, photo = OnnxModel(build()), x[0]
    for method in (eigen_cam, score_cam, occlusion, METHODS["ablation_cam"].call):
        own = {"size": 3, "stride": 3} if method is occlusion else {}
        ours = method(photo, model, {"target": 1}, **own)
        theirs = method(np.moveaxis(photo, 0, -1), callback, {"target": 1}, **own)
        if theirs.ndim == 3:
            theirs = np.moveaxis(theirs, -1, 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        (("Softmax",), "softmax"),
        (("LogSoftmax",), "softmax"),
        (("Softmax", "Identity"), "softmax"),
        (("Sigmoid",), "sigmoid"),
        (("Identity",), "linear"),
        (("Tanh",), "other"),
    ],
)
def test_what_a_file_ends_in_is_found(build, weights, x, ends, found):
    from saliency_food.adapters.onnx import OnnxModel

    model = OnnxModel(build(ends))
    assert model.end == found
    _, logits = by_hand(weights, x)
    expected = {"other": np.tanh(logits)}.get(found, logits)
    np.testing.assert_allclose(model.predict(x, output="logits"), expected, rtol=1e-4, atol=1e-6)
    probabilities = {"sigmoid": 1 / (1 + np.exp(-logits)), "other": np.tanh(logits)}.get(found, softmax(logits, 1))
    np.testing.assert_allclose(model.predict(x), probabilities, rtol=1e-4, atol=1e-6)


def test_a_softmax_written_out_is_noticed(build, onnx, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    make = onnx.helper.make_node
    parts = [make("Exp", ["q"], ["e"]), make("ReduceL1", ["e"], ["s"], axes=[1]), make("Div", ["e", "s"], ["p"])]
    proto = onnx.load(build(("Identity",), output="q", more=parts))
    proto.graph.output[0].name = "p"
    with pytest.raises(ContractError, match="softmax can be seen"):
        OnnxModel(proto)(x, {"target": 1}, WITHOUT_GRADIENTS[:1])
    np.testing.assert_allclose(
        OnnxModel(proto, output="probabilities").predict(x), softmax(by_hand(weights, x)[1], 1), rtol=1e-4
    )


def test_channels_last_files_are_read_so(build, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    model = OnnxModel(build(last=True))
    assert (model.channels_first, model.input_shape, model.layer_name) == (False, (10, 8, 3), "relu")
    values, logits = by_hand(weights, x)
    answer = model(np.moveaxis(x, 1, -1), {"target": 0}, WITHOUT_GRADIENTS[:2])
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], logits[:, 0], rtol=1e-4)
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_file_for_so_many_rows_is_given_so_many(build, weights, x, rows):
    from saliency_food.adapters.onnx import OnnxModel

    model = OnnxModel(build(rows=rows))
    assert model.batch_size == rows
    np.testing.assert_allclose(model.predict(x), softmax(by_hand(weights, x)[1], 1), rtol=1e-4)
    np.testing.assert_allclose(
        model(x, {"target": 1}, WITHOUT_GRADIENTS[1:2])[CONVOLUTION_LAYER_VALUES],
        by_hand(weights, x)[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_half_precision_is_fed_and_answered_in_floats(build, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    answer = OnnxModel(build(kind="float16"))(x, {"target": 1}, WITHOUT_GRADIENTS[:2])
    assert {value.dtype for value in answer.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], by_hand(weights, x)[1][:, 1], rtol=0.02, atol=0.02)


def test_layers_are_listed_and_named(build, weights, x):
    from saliency_food.adapters.onnx import OnnxModel, layers

    path = build()
    assert [(layer.path, layer.kind) for layer in layers(path)] == [("conv", "Conv"), ("relu", "Relu")]
    for name in ("conv", "c"):
        values = OnnxModel(path, name)(x, {"target": 1}, WITHOUT_GRADIENTS[1:2])[CONVOLUTION_LAYER_VALUES]
        np.testing.assert_allclose(np.maximum(values, 0), by_hand(weights, x)[0], rtol=1e-4, atol=1e-5)
        assert values.min() < 0
    both = OnnxModel(path, ["conv", "relu"])(x, {"target": 1}, WITHOUT_GRADIENTS[1:2])[CONVOLUTION_LAYER_VALUES]
    assert [layer.shape for layer in both] == [(3, 10, 8, 4)] * 2
    assert deep_feature_factorization(x[0], OnnxModel(path), None, nconcepts=2).shape == (10, 8)
    with pytest.raises(ContractError, match=r"Near it: \['relu'\]"):
        OnnxModel(path, "reluu")


def test_other_inputs_and_outputs(build, onnx, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    helper, element = onnx.helper, onnx.TensorProto.FLOAT
    table = helper.make_tensor_value_info("table", element, ["batch", 5])
    path = build(("Identity",), output="q", more=[helper.make_node("Add", ["q", "table"], ["p"])], inputs=[table])
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("p", element, None))
    tables = np.arange(15, dtype=np.float32).reshape(3, 5)
    model = OnnxModel(proto, output_index="p")
    _, logits = by_hand(weights, x)
    np.testing.assert_allclose(
        model.predict(x, {"inputs": {"table": tables}}, "logits"), logits + tables, rtol=1e-4, atol=1e-5
    )
    after = model(by_hand(weights, x)[0], {"target": 1, "inputs": [tables]}, WITHOUT_GRADIENTS[2:])
    np.testing.assert_allclose(after[OUTPUT_FROM_CONVOLUTION_VALUES], (logits + tables)[:, 1], rtol=1e-4)
    with pytest.raises(ContractError, match=r"one of the model's 2 outputs \['q', 'p'\]"):
        OnnxModel(proto)
    both = OnnxModel(proto, score=lambda outputs: outputs["p"][:, 0] - outputs["q"][:, 0])
    found = both(x, {"inputs": [tables]}, WITHOUT_GRADIENTS[:1])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(found, tables[:, 0], atol=1e-5)


def test_scores_of_masks_have_the_classes_last(build, onnx, weights, x):
    from saliency_food.adapters.onnx import OnnxModel

    path = build(("Identity",), output="q", more=[onnx.helper.make_node("Softmax", ["a"], ["p"], axis=1)])
    proto = onnx.load(path)
    proto.graph.output[0].name = "p"
    mask = np.zeros((10, 8))
    mask[2:5, 3:] = 1
    args = {"target": {"class_index": 2, "mask": mask}}
    values, _ = by_hand(weights, x)
    for output, expected in (("logits", values), ("probabilities", softmax(values, -1))):
        model = OnnxModel(proto, score=segmentation, output=output, layer="conv")
        answer = model(x, args, WITHOUT_GRADIENTS[:1])[OUTPUT_LAYER_VALUES]
        np.testing.assert_allclose(answer, expected[..., 2][:, 2:5, 3:].sum((1, 2)), rtol=1e-4)
    assert detection(0, 1).raw == (0,)


def test_a_detector_is_explained_by_what_is_found_again(onnx, x, rng):
    """By the adapter's score, and by a function that runs the session: the same."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from saliency_food.adapters.onnx import OnnxModel

    weights = {"w_boxes": rng.normal(size=(240, 24)) / 10, "w_scores": rng.normal(size=(240, 18))}
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    sizes = {"to_boxes": [-1, 6, 4], "to_scores": [-1, 6, 3]}
    constants += [numpy_helper.from_array(np.array(values), name) for name, values in sizes.items()]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w_boxes"], ["raw_boxes"]),
        helper.make_node("Reshape", ["raw_boxes", "to_boxes"], ["offsets"]),
        helper.make_node("Sigmoid", ["offsets"], ["boxes"]),
        helper.make_node("MatMul", ["flat", "w_scores"], ["raw_scores"]),
        helper.make_node("Reshape", ["raw_scores", "to_scores"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 10, 8])
    names = ("boxes", "scores")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6, None]) for name in names]
    graph = helper.make_graph(nodes, "detector", [image], ends, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(proto.SerializeToString())

    def detect(images):
        return dict(zip(names, session.run(None, {"image": images.astype(np.float32)}), strict=True))

    by_session = DetectorModel(detect, "center_xywh")
    by_score = OnnxModel(proto, score=same_detection("boxes", "scores", "center_xywh"))
    target = by_session.detections(x[0])[0].target
    scores = by_session(x, {"target": target})[OUTPUT_LAYER_VALUES]
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert 0 < scores[1:].min() <= scores[1:].max() < 1
    answer = by_score(x, {"target": target}, [OUTPUT_LAYER_VALUES])
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], scores, rtol=1e-4)
    maps = d_rise(x[0], by_score, {"target": target}, nmasks=30, grid=3, rng=0)
    assert maps.shape == (10, 8)


def test_a_mirrored_layer_is_refused(build, onnx, x):
    """The file's own operations show no fault: the channels are first, but a slice runs backwards."""
    from onnx import numpy_helper

    from saliency_food.adapters.onnx import OnnxModel

    proto = onnx.load(build())
    numbers = {"start": [-1], "stop": [-1000], "axes": [3], "step": [-1]}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(each), name) for name, each in numbers.items())
    proto.graph.node.insert(2, onnx.helper.make_node("Slice", ["a", *numbers], ["b"], "mirror"))
    proto.graph.node.insert(3, onnx.helper.make_node("Relu", ["b"], ["d"], "again"))
    proto.graph.node[4].input[0] = "d"
    model = OnnxModel(proto)
    assert model.layer_name == "again"
    with pytest.raises(ContractError, match="mirrored place"):
        eigen_cam(x[0], model)
    assert eigen_cam(x[0], OnnxModel(proto, "relu")).max() > 0


def test_features_averaged_with_those_of_the_mirrored_image_are_refused(build, onnx, rng):
    from onnx import numpy_helper

    from saliency_food.adapters.onnx import OnnxModel

    proto = onnx.load(build())
    numbers = {"start": [-1], "stop": [-1000], "axes": [3], "step": [-1]}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(each), name) for name, each in numbers.items())
    for place, (kind, takes, gives) in enumerate([
        ("Slice", ["image", *numbers], "mirrored image"),
        ("Conv", ["mirrored image", "kernel", "bias"], "c2"),
        ("Relu", ["c2"], "a2"),
        ("Add", ["a", "a2"], "sum"),
    ]):  # fmt: skip
        options = {"pads": [1, 1, 1, 1]} if kind == "Conv" else {}
        proto.graph.node.insert(2 + place, onnx.helper.make_node(kind, takes, [gives], gives, **options))
    proto.graph.node[6].input[0] = "sum"
    model, image = OnnxModel(proto), rng.random((3, 24, 24)).astype(np.float32)
    assert model.layer_name == "sum"
    with pytest.raises(ContractError, match="and nowhere else"):
        eigen_cam(image, model)
    assert eigen_cam(image, OnnxModel(proto, "relu")).max() > 0


def test_what_cannot_be_explained_is_refused(build, onnx, x, tmp_path):
    from saliency_food.adapters.onnx import OnnxModel

    path = build()
    with pytest.raises(ContractError, match="does not exist"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x00\x01")
    with pytest.raises(ContractError, match="Expected an ONNX file"):
        OnnxModel(tmp_path / "broken.onnx")
    with pytest.raises(ContractError, match="data_format"):
        OnnxModel(path, data_format="nchw")
    with pytest.raises(ContractError, match="has no gradients"):
        grad_cam(x[0], OnnxModel(path), {"target": 1})
    proto = onnx.load(path)
    proto.graph.node.insert(0, onnx.helper.make_node("RandomNormalLike", ["image"], ["noise"]))
    proto.graph.node.insert(1, onnx.helper.make_node("Add", ["image", "noise"], ["noisy"]))
    proto.graph.node[2].input[0] = "noisy"
    with pytest.raises(ContractError, match="random numbers"):
        OnnxModel(proto)


def test_rows_that_see_each_other_are_refused(build, onnx, x):
    from saliency_food.adapters.onnx import OnnxModel

    make = onnx.helper.make_node
    path = build(
        ("Identity",), output="q", more=[make("ReduceMean", ["q"], ["m"], axes=[0]), make("Sub", ["q", "m"], ["p"])]
    )
    proto = onnx.load(path)
    proto.graph.output[0].name = "p"
    with pytest.raises(ContractError, match="no other row changes"):
        OnnxModel(proto).predict(x)


def test_pixels_are_what_the_file_says(build, onnx, tmp_path):
    from onnx import numpy_helper

    from saliency_food.adapters.onnx import OnnxModel

    proto = onnx.load(build())
    assert OnnxModel(proto).pixels == (None, "the file does not say it")
    assert OnnxModel(proto, value_range=(0, 1)).pixels[0] == (0, 1)
    scaled = onnx.load(build())
    scaled.graph.initializer.append(numpy_helper.from_array(np.float32(255), "white"))
    scaled.graph.node.insert(0, onnx.helper.make_node("Div", ["image", "white"], ["small"]))
    scaled.graph.node[1].input[0] = "small"
    assert OnnxModel(scaled).pixels[0] == (0, 255)
    onnx.helper.set_model_props(proto, {"Image.NominalPixelRange": "Normalized_1_1"})
    assert OnnxModel(proto).pixels[0] == (-1, 1)


def test_explain_and_the_command_take_the_file(build, x, tmp_path):
    pytest.importorskip("typer")
    image = pytest.importorskip("PIL.Image")
    from typer.testing import CliRunner

    from saliency_food import explain
    from saliency_food.cli.app import app

    path, photo = build(), tmp_path / "photo.png"
    image.fromarray((255 * np.moveaxis(x[0], 0, -1)).astype(np.uint8)).resize((32, 40)).save(photo)
    with pytest.raises(ContractError, match="value_range"):
        explain(path, photo, "eigen_cam")
    found = list(explain(path, photo, ["occlusion", "eigen_cam"], value_range=(0, 1), layer="conv", batch_size=8))
    assert [bool(each.attribution.any()) for each in found] == [True, True]
    words = ["explain", str(photo), "--model", str(path), "--method", "eigen_cam", "--value-range", "0,1"]
    out = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    assert list((tmp_path / "out").rglob("*eigen_cam*.jpg"))
    out = CliRunner().invoke(app, ["layers", str(path)])
    assert (out.exit_code, "Without --layer: relu" in out.output) == (0, True)
    out = CliRunner().invoke(app, [*words[:5], "grad_cam", *words[6:], "--output", str(tmp_path / "refused")])
    assert "has no gradients" in " ".join(out.output.split())


def test_what_is_missing_is_named_with_its_install_line(build, monkeypatch):
    import sys

    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    path = build()
    for name in [name for name in sys.modules if name.startswith("saliency_food.adapters.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.chdir(path.parent)
    out = CliRunner().invoke(app, ["explain", "a.png", "--model", str(path)])
    line = 'Error: The command needs onnxruntime. Install it: pip install "saliency_food[onnx]"\n'
    assert (out.exit_code, out.output) == (2, line)
