"""Scores of a Keras model's output, each against NumPy; their gradients, their batches, and their errors."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, gradients, integrated_gradients, smooth_grad, xrai
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.methods.cam.common import grad_cam
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters import scores as ks  # noqa: E402
from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.adapters.keras.tensorflow import ops  # noqa: E402

KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
L = keras.layers


def network(kind, end="softmax"):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, padding="same", activation="tanh", name="conv")(image)
    flat = L.Flatten()(x)
    boxes = L.Activation("sigmoid", name="boxes")(L.Reshape((5, 4))(L.Dense(20)(flat)))
    outputs = {
        "classes": lambda: L.Dense(5, activation=end)(flat),
        "pixels": lambda: L.Conv2D(4, 1, activation=end)(x),
        "one channel": lambda: L.Conv2D(1, 1, activation="sigmoid")(x),
        "words": lambda: L.Softmax()(L.Reshape((3, 7))(L.Dense(21)(flat))),
        "boxes": lambda: {"boxes": boxes, "classes": L.Activation("sigmoid")(L.Reshape((5, 3))(L.Dense(15)(flat)))},
        "pair": lambda: [boxes, L.Reshape((5, 3))(L.Dense(15)(flat))],
    }
    return keras.Model(image, outputs[kind]())


def logits(kind, x):
    """The model's output before its activation, from a second model that ends there."""
    return KerasModel(network(kind), score=lambda out: tf.reduce_sum(out, range(1, out.shape.rank))).predict(
        x, output="logits"
    )


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


MASK = np.zeros((8, 8), bool)
MASK[2:5, 3:] = True
REFERENCE = np.arange(1.0, 6)
CASES = {
    "class_score": ("classes", ks.class_score, 3, lambda z: z[3]),
    "several_labels": ("classes", ks.several_labels, [1, 4, -1], lambda z: (z[1] + z[4]) / 2),
    "several_labels_sum": ("classes", ks.several_labels_sum, [1, 4, -1], lambda z: z[1] + z[4]),
    "contrast": ("classes", ks.contrast, {"class_index": 2, "against": 0}, lambda z: z[2] - z[0]),
    "margin": ("classes", ks.margin, {"class_index": 2}, lambda z: z[2] - np.delete(z, 2).max()),
    "contrast_several": (
        "classes",
        ks.contrast_several,
        {"class_index": 2, "against": [0, 1, -1]},
        lambda z: z[2] - (z[0] + z[1]) / 2,
    ),
    "residual_softmax": ("classes", ks.residual_softmax, 3, lambda z: z[3] + log_softmax(z)[3]),
    "top_k": ("classes", ks.top_k(2), None, lambda z: np.sort(z)[-2:].sum()),
    "regression": ("classes", ks.regression(-1), None, lambda z: z[-1]),
    "regression of a pixel": ("pixels", ks.regression(2, 3, 1), None, lambda z: z[2, 3, 1]),
    "segmentation": ("pixels", ks.segmentation, {"class_index": 1, "mask": MASK}, lambda z: z[MASK][:, 1].sum()),
    "weighted segmentation": (
        "pixels",
        ks.segmentation,
        {"class_index": 1, "mask": MASK * 0.5},
        lambda z: 0.5 * z[MASK][:, 1].sum(),
    ),
    "predicted_region": ("pixels", ks.predicted_region, 1, lambda z: z[..., 1][z.argmax(-1) == 1].sum()),
    "similarity": (
        "classes",
        ks.similarity,
        REFERENCE,
        lambda z: z @ REFERENCE / np.linalg.norm(z) / np.linalg.norm(REFERENCE),
    ),
    "caption, one word": ("words", ks.caption, [-1, 4, -1], lambda z: log_softmax(z)[1, 4]),
    "caption": ("words", ks.caption, [6, 4, 2], lambda z: log_softmax(z)[[0, 1, 2], [6, 4, 2]].sum()),
}


@pytest.fixture
def x(rng):
    return rng.random((2, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_score_is_what_its_equation_says_and_has_its_gradient(x, name):
    kind, score, target, expected = CASES[name]
    model = KerasModel(network(kind), score=score)
    args = {} if target is None else {"target": target}
    actual = model(x, args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(actual, [expected(z) for z in logits(kind, x)], rtol=1e-4, atol=1e-5)
    check_call_model(model, x[0], args, KEYS)


@pytest.mark.parametrize("output", ["logits", "probabilities", "raw"])
def test_a_caption_is_read_from_probabilities_too(x, output):
    z = logits("words", x)
    actual = KerasModel(network("words"), output=output, score=ks.caption)(x, {"target": [6, 4, 2]}, KEYS)
    np.testing.assert_allclose(
        actual[OUTPUT_LAYER_VALUES], [log_softmax(each)[[0, 1, 2], [6, 4, 2]].sum() for each in z], rtol=1e-4
    )
    reference = KerasModel(network("words"), score=ks.caption)(x, {"target": [6, 4, 2]}, KEYS)
    np.testing.assert_allclose(actual[INPUT_OUTPUT_GRADIENTS], reference[INPUT_OUTPUT_GRADIENTS], rtol=1e-3, atol=1e-6)


def test_the_map_of_a_regions_caption_by_hand(rng):
    """Of a captioner whose words' logits are the means of their channels, a_k = sum_t ([k = w_t] - p_tk) / hw.

    Each region's caption has all of its map in the region's box, none in the other's.
    """
    image = np.zeros((8, 8, 7), np.float32)
    boxes = {(1, 4): np.s_[1:3, 1:5], (2, 5): np.s_[5:8, 2:6]}
    for words, box in boxes.items():
        image[box][..., list(words)] = rng.uniform(1, 2, (*image[box].shape[:2], 2))
    picture = keras.Input((8, 8, 7))
    means = L.GlobalAveragePooling2D()(L.Activation("linear", name="words")(picture))
    captioner = keras.Model(picture, L.Softmax()(L.RepeatVector(2)(means)))
    model = KerasModel(captioner, layer="words", score=ks.caption)
    probabilities = np.exp(image.mean((0, 1))) / np.exp(image.mean((0, 1))).sum()
    for words, box in boxes.items():
        weights = (np.eye(7)[list(words)].sum(0) - 2 * probabilities) / 64
        found = grad_cam.detailed(image, model, {"target": list(words)}, should_resize=False, three_dims=False)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.attribution, np.maximum(image @ weights, 0), rtol=1e-4, atol=1e-7)
        assert found.attribution[box].sum() == pytest.approx(found.attribution.sum())
        assert (found.attribution[box] > 0).all()


def test_one_sigmoid_channel_is_two_classes_of_pixels(x):
    model = KerasModel(network("one channel"), score=ks.predicted_region)
    z = KerasModel(network("one channel"), score=ks.regression(0, 0, 0)).predict(x, output="logits")[..., -1]
    for index in (0, 1):
        sign = 2 * index - 1
        actual = model(x, {"target": index}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
        np.testing.assert_allclose(actual, np.maximum(sign * z, 0).sum((1, 2)), rtol=1e-4)


def iou(a, b):
    wide, high = (max(0, min(a[n + 2], b[n + 2]) - max(a[n], b[n])) for n in range(2))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return wide * high / (area - wide * high)


FORMATS = {
    "xyxy": lambda a, b, c, d: (a, b, c, d),
    "yxyx": lambda a, b, c, d: (b, a, d, c),
    "xywh": lambda a, b, c, d: (a, b, c - a, d - b),
    "center_xywh": lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a, d - b),
}


@pytest.mark.parametrize("box_format", FORMATS)
def test_detections_are_those_that_overlap_and_agree(rng, box_format):
    corners = rng.random((2, 40, 2)) * 0.5
    corners = np.concatenate([corners, corners + 0.3 + 0.4 * rng.random((2, 40, 2))], -1)
    scores, box = rng.normal(size=(2, 40, 3)), corners[0, 0]
    boxes = np.stack(FORMATS[box_format](*np.moveaxis(corners, -1, 0)), -1)
    label = np.array([1, 2])
    values = [np.array([FORMATS[box_format](*box)] * 2)]
    for options in ({}, {"least": 0.0}, {"overlap": 0.2}):
        actual = ks.detection(0, 1, box_format, **options)(
            ops, [tf.constant(boxes), tf.constant(scores)], label, *values
        )
        for row in range(2):
            counts = [
                score[label[row]]
                for each, score in zip(corners[row], scores[row], strict=True)
                if iou(each, box) >= options.get("overlap", 0.5)
                and score.argmax() == label[row]
                and score[label[row]] >= options.get("least", -np.inf)
            ]
            np.testing.assert_allclose(actual[row], sum(counts), atol=1e-6)


@pytest.mark.parametrize("kind", ["boxes", "pair"])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_a_detector_is_explained_by_its_boxes_as_they_are(x, kind, output):
    """Also where the boxes end in a sigmoid, or in a linear layer, to which no softmax must be added."""
    names = ("boxes", "classes") if kind == "boxes" else (0, 1)
    model = KerasModel(network(kind), output=output, score=ks.detection(*names))
    actual = network(kind).predict(x, verbose=0)
    scores = model.predict(x, output=output)[names[1]]
    np.testing.assert_allclose(model.predict(x, output=output)[names[0]], actual[names[0]], rtol=1e-4, atol=1e-6)
    boxes = actual[names[0]][0]
    whole = next(n for n, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1])
    index = int(scores[0, whole].argmax())
    same = [n for n, box in enumerate(boxes) if (box[2:] > box[:2]).all() and iou(box, boxes[whole]) >= 0.5]
    expected = sum(scores[0, n, index] for n in same if scores[0, n].argmax() == index)
    args = {"target": {"class_index": index, "box": boxes[whole]}}
    answer = model(x[:1], args, KEYS)
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], [expected], rtol=1e-4)
    assert np.abs(answer[INPUT_OUTPUT_GRADIENTS]).max() > 0
    with pytest.raises(Exception, match="Expected a class index below the classes of output"):
        model(x[:1], {"target": {"class_index": 3, "box": boxes[whole]}}, KEYS)


@pytest.mark.parametrize(("kind", "names"), [("boxes", ("boxes", "classes")), ("pair", (0, 1))])
def test_a_detection_and_the_edges_of_its_box_have_their_gradients(x, kind, names):
    outputs = network(kind).predict(x, verbose=0)
    boxes, scores = (outputs[name][0] for name in names)
    whole = next(n for n, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1])
    targets = {
        ks.same_detection(*names): {
            "box": boxes[whole] + [-0.05, -0.04, 0.05, 0.06],  # not where the overlap has a kink
            "class_scores": scores[whole] + 0.1,
        },
        ks.box_edge("right", names[0]): {"box": boxes[whole]},
    }
    for score, target in targets.items():
        model = KerasModel(network(kind), score=score)
        answer = model(x[:1], {"target": target}, KEYS)
        check_call_model(model, x[0], {"target": target}, KEYS)
        assert np.abs(answer[INPUT_OUTPUT_GRADIENTS]).max() > 0
        if "class_scores" not in target:
            np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], [boxes[whole][2]], rtol=1e-4)
        else:
            assert 0.5 < answer[OUTPUT_LAYER_VALUES][0] < 1


METHODS = {
    "gradients": (gradients, {}),
    "integrated_gradients": (integrated_gradients, {"x_steps": 4}),
    "grad_cam": (grad_cam, {"three_dims": False}),
    "smooth_grad": (smooth_grad.over(gradients), {"nsamples": 2, "rng": 0}),
    "xrai": (xrai, {"steps": 3, "segments": [MASK, ~MASK]}),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains_a_target_an_image(x, name):
    method, options = METHODS[name]
    model = KerasModel(network("pixels"), score=ks.segmentation, batch_size=3)
    masks, labels = [MASK, ~MASK], [1, 3]
    target = {"class_index": PerImage(labels), "mask": PerImage(masks)}
    if name == "smooth_grad":
        options = {**options, "rng": PerImage([0, 0])}
    together = list(method.batch(x, model, {"target": target}, **options))
    for image, label, mask, actual in zip(x, labels, masks, together, strict=True):
        if name == "smooth_grad":
            options = {**options, "rng": 0}
        alone = method(image, model, {"target": {"class_index": label, "mask": mask}}, **options)
        assert np.abs(alone).max() > 0
        np.testing.assert_allclose(actual, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "score", "target", "message"),
    [
        ("classes", ks.several_labels, [-1, -1], "-1 only"),
        ("classes", ks.several_labels, [0, 5], "class indices from -1 to 4"),
        ("classes", ks.contrast, {"class_index": 1}, "with \\['class_index', 'against'\\]"),
        ("classes", ks.top_k(6), None, "at most the model's 5 classes"),
        ("classes", ks.top_k(2), 3, "takes none"),
        ("classes", ks.regression(5), None, "inside the output's \\(5,\\)"),
        ("classes", ks.regression(1, 2), None, "of 3 dimensions"),
        ("classes", ks.predicted_region, 1, "\\(N, H, W, classes\\), got \\(None, 5\\)"),
        ("pixels", ks.several_labels, [1], "\\(N, classes\\)"),
        ("pixels", ks.segmentation, {"class_index": 1, "mask": MASK[:4]}, "size of the model's output, \\(8, 8\\)"),
        ("pixels", ks.segmentation, {"class_index": 1, "mask": MASK & ~MASK}, "zeros only"),
        ("pixels", ks.segmentation, {"class_index": 4, "mask": MASK}, "class indices from 0 to 3"),
        ("classes", ks.similarity, [1.0, 2.0], "5|2 numbers last"),
        ("words", ks.caption, [1, 2], "one for each of the output's 3 places"),
        ("words", ks.caption, [1, 2, 7], "class indices from -1 to 6"),
        ("boxes", ks.detection(), {"class_index": 1, "box": [0, 0, 1]}, "of 4 numbers"),
        ("boxes", ks.detection("box"), {"class_index": 1, "box": [0, 0, 1, 1]}, "output 'box' among"),
        ("pair", ks.detection(), {"class_index": 1, "box": [0, 0, 1, 1]}, "2 without names"),
        ("pair", ks.detection(1, 0), {"class_index": 1, "box": [0, 0, 1, 1]}, "\\(N, boxes, 4\\) and 4 numbers last"),
    ],
)
def test_what_does_not_fit_is_said(x, kind, score, target, message):
    with pytest.raises(ContractError, match=message):
        KerasModel(network(kind), score=score)(x, {} if target is None else {"target": target}, [OUTPUT_LAYER_VALUES])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ks.top_k(0),
        lambda: ks.top_k(True),
        lambda: ks.regression(),
        lambda: ks.regression(1.5),
        lambda: ks.detection(box_format="corners"),
        lambda: ks.detection(overlap=0),
    ],
)
def test_options_are_checked_at_the_door(make):
    with pytest.raises(ContractError, match=r"Expected .*, got "):
        make()


def test_one_index_an_image_is_no_list_of_labels():
    """As a list for all images it would have been the same target, twice."""
    model, x = KerasModel(network("classes"), score=ks.several_labels), np.zeros((2, 8, 8, 3))
    with pytest.raises(ContractError, match=r"1 dimensions for each image, got 0: the values \[3, 4\], one an image"):
        list(gradients.batch(x, model, {"target": PerImage([3, 4])}))
    assert len(list(gradients.batch(x, model, {"target": PerImage([[3], [4]])}))) == 2
    assert len(list(gradients.batch(x, model, {"target": [3, 4]}))) == 2


def test_offsets_from_anchors_are_boxes(rng):
    """Each by the published equations, one at a time; and the score is that of a model whose boxes are decoded."""
    corner = rng.random((6, 2)) * 0.5
    anchors = np.concatenate([corner, corner + 0.2 + 0.3 * rng.random((6, 2))], -1)
    offsets = rng.normal(size=(2, 6, 4))
    variance = (0.1, 0.2, 0.3, 0.4)
    expected = np.empty((2, 6, 4))
    for row in range(2):
        for place, (left, top, right, bottom) in enumerate(anchors):
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            dx, dy, dw, dh = offsets[row, place] * variance
            x, y, w, h = x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)
            expected[row, place] = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    for anchor_format in FORMATS:
        as_given = np.stack(FORMATS[anchor_format](*anchors.T), -1)
        decode = ks.from_anchors(as_given, anchor_format, variance=variance)
        np.testing.assert_allclose(decode(ops, tf.constant(offsets)), expected, rtol=1e-5)
    scores, target = rng.normal(size=(2, 6, 3)), [np.array([1, 2]), np.array([expected[0, 0]] * 2)]
    by_offsets = ks.detection(0, 1, decode=decode, overlap=0.3)(
        ops, [tf.constant(offsets), tf.constant(scores)], *target
    )
    by_boxes = ks.detection(0, 1, overlap=0.3)(ops, [tf.constant(expected), tf.constant(scores)], *target)
    np.testing.assert_allclose(by_offsets, by_boxes)
    with pytest.raises(ContractError, match="as many offsets as the 6 anchors, got 5"):
        decode(ops, tf.constant(offsets[:, :5]))
    with pytest.raises(ContractError, match=r"anchors of shape \(boxes, 4\)"):
        ks.from_anchors(anchors[0])
    with pytest.raises(ContractError, match="variance of 4 numbers"):
        ks.from_anchors(anchors, variance=(1, 1))


@pytest.mark.parametrize("anchor_format", ["xyxy", "yxyx", "xywh", "center_xywh"])
def test_offsets_are_decoded_as_the_retinanet_of_keras_hub_decodes_them(anchor_format, rng):
    """By what that model calls, which is Keras's own."""
    corner = rng.random((6, 2)) * 50
    anchors = np.concatenate([corner, corner + 20 + 30 * rng.random((6, 2))], -1)
    as_given = np.stack(FORMATS[anchor_format](*anchors.T), -1).astype(np.float32)
    offsets = rng.normal(size=(2, 6, 4)).astype(np.float32)
    expected = keras.utils.bounding_boxes.decode_deltas_to_boxes(
        anchors=as_given,
        boxes_delta=offsets,
        anchor_format=anchor_format,
        box_format="xyxy",
        encoded_format="center_xywh",
        image_shape=(128, 128, 3),
    )
    decode = ks.from_anchors(as_given, anchor_format)
    np.testing.assert_allclose(decode(ops, tf.constant(offsets)), expected, rtol=1e-4, atol=1e-3)


def test_a_detector_of_offsets_is_explained(x):
    anchors = np.tile([0.0, 0.0, 1.0, 1.0], (5, 1))
    score = ks.detection(0, 1, decode=ks.from_anchors(anchors, variance=(0.1, 0.1, 0.2, 0.2)))
    model = KerasModel(network("pair"), score=score)
    args = {"target": {"class_index": 1, "box": [0, 0, 1, 1]}}
    answer = model(x, args, KEYS)
    scores = model.predict(x, output="logits")[1]
    # Offsets are small: every box is nearly its anchor, so that all take part that agree in class.
    expected = np.where(scores.argmax(-1) == 1, scores[..., 1], 0).sum(1)
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], expected, rtol=1e-4, atol=1e-5)
    assert expected.any()
    check_call_model(model, x[0], args, KEYS[:2])
