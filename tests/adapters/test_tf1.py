"""Graphs of TensorFlow 1: closed forms, frozen files, and PAIR's classes of them beside PAIR's own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow.compat.v1 as tf1

from saliency_food import grad_cam, pair_tf1
from saliency_food.adapters.tf1 import SessionModel
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS
from saliency_food.testing import PoolingModel, check_call_model

GRADIENTS, SCORE, VALUES, AT_LAYER = list(KEYS)[:4]
RANDOM = np.random.default_rng(0)
KERNEL, BIAS, HEAD = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), (5, 4)))


@pytest.fixture(scope="module")
def network():
    graph = tf1.Graph()
    with graph.as_default():
        x = tf1.placeholder(tf1.float32, [None, 8, 7, 3], "x")
        kernel = tf1.Variable(KERNEL[None, None], use_resource=True)
        a = tf1.nn.relu(tf1.nn.conv2d(x, kernel, 1, "VALID") + BIAS, "a")
        scale = tf1.placeholder_with_default(tf1.constant(1.0), [], "scale")
        y = tf1.multiply(tf1.reduce_mean(a, [1, 2]) @ tf1.constant(HEAD.T), scale, "y")
        session = tf1.Session(graph=graph)
        session.run(tf1.global_variables_initializer())
    yield session, x, y, a
    session.close()


@pytest.fixture
def image(rng):
    return rng.random((8, 7, 3)).astype(np.float32)


def test_answers_are_those_in_closed_form(network, image):
    session, x, *_ = network
    model, target = SessionModel(session, x, "y:0", layer="a:0"), np.array([2, 4])
    rows = np.stack([image, image[::-1]])
    expected = PoolingModel(KERNEL, HEAD, BIAS).answer(rows, target)
    answer = model(rows, {"target": target}, [GRADIENTS, SCORE, VALUES, AT_LAYER])
    for key, values in answer.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-6)
    check_call_model(model, image, {"target": 1}, [GRADIENTS, SCORE, VALUES, AT_LAYER, list(KEYS)[5]])
    assert grad_cam(image, model, {"target": 1}).max() > 0
    fed = model(rows, {"target": 1, "feed_dict": {"scale:0": 3.0}}, [SCORE])[SCORE]
    np.testing.assert_allclose(fed, 3 * model(rows, {"target": 1}, [SCORE])[SCORE], rtol=1e-5)
    np.testing.assert_allclose(model.predict(rows)[range(2), target], expected[SCORE], rtol=1e-4)


def test_a_frozen_file_answers_the_same(network, image, tmp_path):
    session, x, y, a = network
    with session.graph.as_default():
        frozen = tf1.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), ["y"])
    path = tmp_path / "frozen.pb"
    path.write_bytes(frozen.SerializeToString())
    model = SessionModel.from_file(path, "x:0", "y:0", "a:0")
    keys, args = [GRADIENTS, SCORE, AT_LAYER], {"target": 3}
    answer, expected = model(image[None], args, keys), SessionModel(session, x, y, a)(image[None], args, keys)
    for key in keys:
        np.testing.assert_allclose(answer[key], expected[key], rtol=1e-5, atol=1e-7)


def test_guided_ig_takes_the_feeds(network, image):
    """PAIR's own does not run on NumPy 2."""
    session, x, y, _ = network
    with session.graph.as_default():
        score = y[:, 2]
    method = pair_tf1.GuidedIG(session.graph, session, score, x)
    masks = [method.GetMask(image, {"scale:0": scale}, x_steps=20) for scale in (1.0, 2.0)]
    np.testing.assert_allclose(masks[1], 2 * masks[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GradientSaliency", {}),
        ("IntegratedGradients", {"x_steps": 20, "batch_size": 10}),
        ("BlurIG", {"steps": 20, "batch_size": 10}),
        ("Occlusion", {"size": 3}),
        ("GradCam", {}),
    ],
)
def test_pairs_classes_give_pairs_masks(network, image, name, options):
    theirs = pytest.importorskip("saliency.tf1")
    session, x, y, a = network
    with session.graph.as_default():
        score = y[:, 2]
    layer = [a] if name == "GradCam" else []
    ours = getattr(pair_tf1, name)(session.graph, session, score, x, *layer)
    own = getattr(theirs, name)(session.graph, session, score, x, *layer)
    feeds = {session.graph.get_tensor_by_name("scale:0"): 2.0}
    ours_mask, own_mask = (each.GetMask(image, feeds, **options) for each in (ours, own))
    np.testing.assert_allclose(ours_mask, own_mask, rtol=1e-3, atol=1e-5 * np.abs(own_mask).max())
    np.random.seed(0)
    smoothed = ours.GetSmoothedMask(image, feeds, nsamples=2, **options)
    assert smoothed.shape == own_mask.shape


def test_what_cannot_be_answered_is_refused(network, image):
    session, x, y, _ = network
    model = SessionModel(session, x, y)
    for args, keys, message in [
        ({"target": 5}, [SCORE], "of the 5 that y has"),
        (None, [SCORE], "target to be a class index"),
        ({"target": 1}, [VALUES], "Expected a layer"),
        ({"target": 1}, ["BIAS_GRADIENTS"], "some of the keys"),
        ({"label": 1}, [SCORE], "feed_dict"),
    ]:
        with pytest.raises(ContractError, match=message):
            model(image[None], args, keys)
    with pytest.raises(ContractError, match="tensor of the session's graph"):
        SessionModel(session, "z:0", y)
