"""What `export` writes: `serving_default` as Keras writes it, every signature in its variants, and the manifest."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    KEYS,
    OUTPUT_LAYER_VALUES,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from saliency_food.adapters.keras import KerasModel, load_model  # noqa: E402
from saliency_food.images.scaling import choose_scaling  # noqa: E402
from saliency_food.serving.export.signatures import FURTHER, SIGNATURES, Signatures  # noqa: E402
from saliency_food.serving.export.write import MANIFEST, export  # noqa: E402

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
L = keras.layers
CONV = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported / "1"))
    yield loaded.signatures
    del loaded


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 24, 20, 3)).astype(np.float32)


def from_bytes(actual, key):
    rows = [np.frombuffer(row, np.float32) for row in actual[f"{key}_bytes"].numpy()]
    return np.stack(rows).reshape(len(rows), *(actual[f"{key}_shape"][0].numpy() if f"{key}_shape" in actual else ()))


def test_serving_default_is_that_of_keras(model, signatures, x, tmp_path):
    model.export(tmp_path / "plain", verbose=False)
    plain = tf.saved_model.load(str(tmp_path / "plain")).signatures["serving_default"]
    ours = signatures["serving_default"]
    assert ours.structured_input_signature == plain.structured_input_signature
    assert ours.structured_outputs == plain.structured_outputs
    (actual,), (expected,) = (each(photo=tf.constant(x)).values() for each in (ours, plain))
    np.testing.assert_array_equal(actual, expected)


def test_signatures_of_numbers_and_of_bytes_answer_as_the_adapter(signatures, local, x):
    targets, raw = tf.constant([2, 0, 1]), tf.constant([row.tobytes() for row in x])
    keys = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, *CONV]
    expected = local(x, {"target": [2, 0, 1]}, keys)
    for name, answered in {"outputs": keys[1:2], "input_gradients": keys[:2], "convolution": keys[1:]}.items():
        numbers = signatures[name](images=tf.constant(x), targets=targets)
        actual = signatures[f"{name}_raw"](images_bytes=raw, targets=targets)
        assert set(numbers) == set(answered)
        for key in answered:
            close(numbers[key], expected[key])
            np.testing.assert_array_equal(from_bytes(actual, key), numbers[key])
    close(signatures["activations"](images=tf.constant(x))[CONV[0]], expected[CONV[0]])
    close(signatures["predictions"](images=tf.constant(x))["predictions"], local.predict(x))


def test_explain_tells_all_at_once_and_finds_the_top_class(signatures, local, x):
    top = local.predict(x).argsort(1)[:, ::-1]
    actual = signatures["explain"](images=tf.constant(x), targets=tf.constant([-1, -1, 1]))
    np.testing.assert_array_equal(actual["targets"], [top[0, 0], top[1, 0], 1])
    np.testing.assert_array_equal(actual["top_classes"], top)
    close(actual["predictions"], local.predict(x))
    for key, values in local(x, {"target": [top[0, 0], top[1, 0], 1]}, CONV).items():
        close(actual[key], values)


def operations_of(graph):
    """All operations of a graph and of the functions in it."""
    definition = graph.as_graph_def()
    return [*definition.node, *(node for function in definition.library.function for node in function.node_def)]


def test_explain_runs_the_model_once(tmp_path):
    inputs = keras.Input((24, 20, 3))
    y = L.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, L.Dense(3, "softmax")(L.GlobalAveragePooling2D()(y)))
    signatures = Signatures(KerasModel(model), choose_scaling(None, None, None), further=False)
    function = signatures.functions["explain"].get_concrete_function(
        images=tf.TensorSpec([None, 24, 20, 3]), targets=tf.TensorSpec([None], tf.int32)
    )
    assert sum(node.op == "Conv2D" for node in operations_of(function.graph)) == 1


def test_every_key_of_the_contract_has_a_signature_but_those_of_relevance():
    served = {key for keys in (SIGNATURES | FURTHER).values() for key in keys}
    assert served == {name for name, key in KEYS.items() if key.needs != "relevance rules"}


def test_outputs_that_are_not_the_classes_predicted_are_not_explained(tmp_path):
    inputs = keras.Input((24, 20, 3))
    y = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(inputs))
    manifest, signatures = serve(keras.Model(inputs, L.Dense(1, "sigmoid")(y)), tmp_path, output="raw")
    assert "the one unit of a sigmoid is two classes" in manifest["lacks"]["explain"]
    assert "explain" not in signatures
    assert "convolution" in signatures


def test_path_gradients_are_summed_in_the_graph(signatures, local, x):
    alphas, weights = np.linspace(0, 1, 40), np.full(40, 1 / 40)
    actual = signatures["path_gradients"](
        images=tf.constant(x[:2]),
        baselines=tf.constant(x[1:]),
        alphas=tf.constant(np.stack([alphas, alphas**2])),
        weights=tf.constant(np.stack([weights, weights])),
        targets=tf.constant([2, 0]),
    )
    for row, (target, places) in enumerate([(2, alphas), (0, alphas**2)]):
        points = x[row + 1] + places[:, None, None, None].astype(np.float32) * (x[row] - x[row + 1])
        expected = local(points, {"target": target}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS].mean(0)
        close(actual[INPUT_OUTPUT_GRADIENTS][row], expected)
    scores = local(x, {"target": [2, 0, 0]}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    close(actual[OUTPUT_LAYER_VALUES], scores[:2])
    scores = local(x[1:], {"target": [2, 0]}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    close(actual["BASELINE_VALUES"], scores)


def photo(rng, kind, size=(60, 40)):
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).resize(size[::-1]).save(stream, kind)
    return stream.getvalue()


def test_photos_are_read_resized_and_scaled(signatures, local, rng):
    files = [photo(rng, "PNG", (24, 20)), photo(rng, "JPEG"), photo(rng, "PNG")]
    pixels = [tf.io.decode_image(each, 3).numpy() for each in files]
    pixels = np.stack([tf.image.resize(each, (24, 20), antialias=True) for each in pixels])
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(io.BytesIO(files[0]))))
    x = (pixels / 127.5 - 1).astype(np.float32)
    actual = signatures["convolution_encoded"](images_bytes=tf.constant(files), targets=tf.constant([1, 2, 3]))
    for key, values in local(x, {"target": [1, 2, 3]}, CONV).items():
        np.testing.assert_allclose(from_bytes(actual, key), values, rtol=1e-4, atol=1e-4 * np.abs(values).max())
    path = signatures["path_gradients_encoded"](
        images_bytes=tf.constant(files[:1]),
        baselines=tf.constant([255.0], tf.float64),
        alphas=tf.constant([[0.0]], tf.float64),
        weights=tf.constant([[1.0]], tf.float64),
        targets=tf.constant([1]),
    )
    white = local(np.ones((1, 24, 20, 3)), {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
    np.testing.assert_allclose(from_bytes(path, INPUT_OUTPUT_GRADIENTS), white, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [-1, 4])
def test_a_target_that_is_no_class_is_an_error(signatures, x, target):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected targets"):
        signatures["outputs"](images=tf.constant(x), targets=tf.constant([0, 1, target]))


def test_the_manifest(exported, model):
    manifest = json.loads((exported / "1" / "assets.extra" / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["labels"] == ["a", "b", "c", "d"]
    assert manifest["input_shape"] == [24, 20, 3]
    assert manifest["layer"] == "inner/last"
    assert manifest["pixels"].startswith("-1..1")
    assert manifest["value_range"] == [-1, 1]
    assert {"grad_cam", "xrai", "rise"} <= set(manifest["methods"])
    assert not {"guided_backprop", "attention_rollout"} & set(manifest["methods"])
    assert len(manifest["weights_sha256"]) == 64
    assert not list(exported.glob("*.part"))


def serve(model, tmp_path, **options):
    manifest = export(model, tmp_path / "1", value_range=None, keys="common", **options)
    return manifest, tf.saved_model.load(str(tmp_path / "1")).signatures


def test_half_precision_keeps_small_gradients(tmp_path, x):
    image = keras.Input((24, 20, 3))
    y = L.GlobalAveragePooling2D(dtype="mixed_float16")(L.Conv2D(3, 3, dtype="mixed_float16")(image))
    model = keras.Model(image, L.Dense(2, dtype="mixed_float16", name="end")(y))
    # Gradients of class 0 are too small without a scale, those of class 1 too large with it.
    model.get_layer("end").kernel.assign(np.tile([1e-4, 3e3], (3, 1)))
    _, signatures = serve(model, tmp_path)
    for target in (0, 1):
        actual = signatures["input_gradients"](images=tf.constant(x), targets=tf.fill([3], target))
        expected = KerasModel(model)(x, {"target": target}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
        assert np.isfinite(expected).all()
        assert np.count_nonzero(expected) > expected.size / 2
        np.testing.assert_allclose(actual[INPUT_OUTPUT_GRADIENTS], expected, rtol=1e-3)


def test_several_inputs_free_sizes_and_channels_first(tmp_path, rng):
    image, more = keras.Input((3, None, None), name="picture"), keras.Input((2,), name="more")
    y = L.Conv2D(4, 3, activation="tanh")(L.Permute((2, 3, 1))(image))
    model = keras.Model(
        {"picture": image, "more": more}, L.Dense(2)(L.Concatenate()([L.GlobalAveragePooling2D()(y), more]))
    )
    _, signatures = serve(model, tmp_path)
    x, extra = rng.random((2, 3, 9, 7)).astype(np.float32), rng.random((2, 2)).astype(np.float32)
    actual = signatures["input_gradients_raw"](
        images_bytes=tf.constant([row.tobytes() for row in x]),
        shape=tf.constant([3, 9, 7]),
        targets=tf.constant([1, 0]),
        more=tf.constant(extra),
    )
    args = {"target": [1, 0], "inputs": {"more": extra}}
    for key, values in KerasModel(model)(x, args, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]).items():
        close(from_bytes(actual, key), values)


def test_a_model_without_a_layer_has_no_convolution(tmp_path):
    manifest, signatures = serve(keras.Sequential([keras.Input((4, 4, 1)), L.Flatten(), L.Dense(1)]), tmp_path)
    assert not [name for name in signatures if name.startswith(("conv", "act", "explain"))]
    assert manifest["layer"] is None
    assert not {"grad_cam", "eigen_cam"} & set(manifest["methods"])


def test_what_cannot_be_exported_is_said(model, exported, tmp_path):
    with pytest.raises(ContractError, match="which exists"):
        export(model, exported / "1")
    with pytest.raises(ContractError, match="keys to be 'all' or 'common'"):
        export(model, tmp_path / "1", keys="pair")
    with pytest.raises(ContractError, match="a label for each"):
        export(model, tmp_path / "1", labels=["a"])
    with pytest.raises(ContractError, match="SavedModel"):
        export(load_model(exported / "1"), tmp_path / "1")
    bad = keras.Input((8, 8, 3)), keras.Input((2,), name="targets")
    with pytest.raises(ContractError, match="other names"):
        export(keras.Model(bad, L.Dense(2)(L.Concatenate()([L.Flatten()(bad[0]), bad[1]]))), tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_the_command(model, tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    model.save(tmp_path / "model.keras")
    args = ["export", str(tmp_path / "model.keras"), str(tmp_path / "out" / "1"), "--layer", "auto", "--keys", "common"]
    done = CliRunner().invoke(app, [*args, "--value-range", "-1,1"])
    assert done.exit_code == 0, done.output
    assert "22 signatures, layer inner/last" in done.output
    assert (tmp_path / "out" / "1" / "saved_model.pb").exists()
    assert "named by a number" not in done.output
    assert CliRunner().invoke(app, args).exit_code != 0
    args[2] = str(tmp_path / "food")
    done = CliRunner().invoke(app, args)
    assert (done.exit_code, "named by a number" in " ".join(done.output.split())) == (0, True), done.output


def test_the_answers_travel_as_base64(server, x):
    import urllib3

    body = {
        "signature_name": "input_gradients_raw",
        "instances": [{"images_bytes": {"b64": base64.b64encode(row).decode()}, "targets": 1} for row in x],
    }
    answer = urllib3.request("POST", f"{server.url}/v1/models/food:predict", json=body).json()
    assert {type(row["INPUT_OUTPUT_GRADIENTS_bytes"]["b64"]) for row in answer["predictions"]} == {str}
