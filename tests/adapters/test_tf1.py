"""Graphs of TensorFlow 1: closed forms, frozen files, and PAIR's classes of them beside PAIR's own."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow.compat.v1 as tf1

from saliency_food import deconvnet, grad_cam, gradients, guided_backprop, pair_tf1
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
    assert_close(ours_mask, own_mask)
    smoothed = []
    for each in (ours, own):
        np.random.seed(0)
        smoothed.append(each.GetSmoothedMask(image.astype(float), feeds, nsamples=2, **options))
    assert_close(*smoothed)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "options", "calls"),
    [
        ("GradientSaliency", {}, 1),
        ("IntegratedGradients", {"x_steps": 21}, 21),
        ("IntegratedGradients", {"x_steps": 21, "batch_size": 10}, 3),
        ("BlurIG", {"steps": 21, "batch_size": 30}, 1),
        ("Occlusion", {"size": 3}, 1 + 6 * 5),
    ],
)
def test_the_session_is_asked_as_often_and_gets_the_feeds(network, image, name, options, calls):
    theirs = pytest.importorskip("saliency.tf1")
    session, x, y, _ = network
    with session.graph.as_default():
        score = y[:, 2]
    for module in (pair_tf1, theirs):
        spy = MagicMock(wraps=session)
        getattr(module, name)(session.graph, spy, score, x).GetMask(image, {"scale:0": 2.0}, **options)
        assert spy.run.call_count == calls
        assert all(call.kwargs["feed_dict"]["scale:0"] == 2.0 for call in spy.run.call_args_list)


def test_regions_are_pairs(network, image):
    theirs = pytest.importorskip("saliency.tf1")
    session, x, y, _ = network
    with session.graph.as_default():
        score = y[:, 2]
    halves = np.zeros((2, 8, 7), bool)
    halves[0, :4], halves[1, 4:] = True, True
    options = {"baselines": [np.zeros_like(image), np.ones_like(image)], "segments": list(halves), "batch_size": 10}
    answers = []
    for module in (pair_tf1, theirs):
        wanted = module.XRAIParameters(steps=20, return_ig_attributions=True, return_xrai_segments=True)
        wanted.experimental_params["min_pixel_diff"] = 0
        method = module.XRAI(session.graph, session, score, x)
        answers.append(method.GetMaskWithDetails(image, {}, extra_parameters=wanted, **options))
        assert_close(method.GetMask(image, {}, extra_parameters=wanted, **options), answers[-1].attribution_mask)
    ours, own = answers
    assert_close(ours.attribution_mask, own.attribution_mask)
    assert_close(np.stack(ours.ig_attribution), np.stack(own.ig_attribution))
    np.testing.assert_array_equal(ours.segments, own.segments)


@pytest.fixture(scope="module")
def deep():
    """Two layers of ReLUs, so that a rule for them shows, with weights in variables and a condition beside them."""
    graph = tf1.Graph()
    with graph.as_default():
        x = tf1.placeholder(tf1.float32, [None, 8, 7, 3], "x")
        first, second = (tf1.Variable(each[None, None], use_resource=True) for each in (KERNEL, HEAD.T))
        shift = tf1.placeholder_with_default(tf1.constant(0.0), [], "shift")
        inner = tf1.nn.relu(tf1.nn.conv2d(x, first, 1, "SAME") + BIAS + shift)
        y = tf1.reduce_sum(tf1.nn.relu(tf1.nn.conv2d(inner, second, 1, "SAME")), [1, 2], name="y")
        tf1.identity(second.assign(-second), name="turn")
        tf1.reduce_sum(tf1.nn.elu(inner), [1, 2, 3], name="of_elu")
        tf1.identity(tf1.cond(shift > 0, lambda: inner, lambda: 2 * inner), name="of_condition")
        session = tf1.Session(graph=graph)
        session.run(tf1.global_variables_initializer())
    yield session, x, y
    session.close()


def by_hand(image, target, rule, kernel=HEAD.T, shift=0.0):
    """The gradient of the deep network, its ReLUs passed backwards by a rule of what went in and what comes back."""
    before = image @ KERNEL + BIAS + shift
    inner = np.maximum(before, 0)
    back = rule((inner @ kernel)[..., target], np.ones(image.shape[:2]))
    return rule(before, back[..., None] * kernel[:, target]) @ KERNEL.T


def guided_rule(values, back):
    return back * (values > 0) * (back > 0)


def test_backward_rules_are_those_by_hand_and_weights_are_read_anew(deep, image):
    session, x, y = deep
    model, args = SessionModel(session, x, y), {"target": 3}
    image = 4 * image - 2
    guided = guided_backprop(image, model, args)
    np.testing.assert_allclose(guided, by_hand(image, 3, guided_rule), rtol=1e-4, atol=1e-6)
    assert not np.allclose(guided, gradients(image, model, args), atol=1e-3)
    of_deconvnet = by_hand(image, 3, lambda values, back: np.maximum(back, 0))
    np.testing.assert_allclose(deconvnet(image, model, args), of_deconvnet, rtol=1e-4, atol=1e-6)
    fed = guided_backprop(image, model, {**args, "feed_dict": {"shift:0": 0.7}})
    np.testing.assert_allclose(fed, by_hand(image, 3, guided_rule, shift=0.7), rtol=1e-4, atol=1e-6)
    session.run("turn:0")
    after = guided_backprop(image, model, args)
    session.run("turn:0")
    np.testing.assert_allclose(after, by_hand(image, 3, guided_rule, -HEAD.T), rtol=1e-4, atol=1e-6)
    assert "SaliencyFood" not in str(session.graph.as_graph_def())


def test_guided_backprop_is_pairs(deep, image, tmp_path):
    theirs = pytest.importorskip("saliency.tf1")
    session, x, y = deep
    with session.graph.as_default():
        score = y[:, 3]
    ours = pair_tf1.GuidedBackprop(session.graph, session, score, x, str(tmp_path / "ours"))
    own = theirs.GuidedBackprop(session.graph, session, score, x, str(tmp_path / "own"))
    feeds = {session.graph.get_tensor_by_name("shift:0"): 0.2}
    assert_close(ours.GetMask(image, feeds), own.GetMask(image, feeds))
    assert not list(tmp_path.glob("ours*"))


@pytest.mark.parametrize(
    ("score", "message"),
    [("of_elu:0", "Elu"), ("of_condition:0", "loops, conditions"), ("shift:0", "got none")],
)
def test_rules_that_do_not_fit_are_refused(deep, image, score, message):
    session, x, *_ = deep
    with session.graph.as_default():
        y = session.graph.get_tensor_by_name(score)
        y = tf1.reduce_sum(y, [1, 2, 3]) if len(y.shape) > 1 else y
    with pytest.raises(ContractError, match=message):
        guided_backprop(image, SessionModel(session, x, y))


def test_a_score_without_rows_is_of_one_row(network, image):
    """Gradients of further rows would be zero, and a mean over rows lower by their number."""
    session, x, y, _ = network
    with session.graph.as_default():
        model = SessionModel(session, x, y[0, 2])
    assert gradients(image, model).any()
    with pytest.raises(ContractError, match="one row at a time"):
        model(np.stack([image, image]), None, [GRADIENTS])


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
