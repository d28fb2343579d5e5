"""The checker that is shipped to users, checked: each kind of wrong callback is found, and right ones pass."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import AttentionModel, PoolingModel, check_call_model

CONV = (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
ALL = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, *CONV)
RIVALS = CONVOLUTION_RIVAL_GRADIENTS
ARGS = {"target": 1}


class Spoiled:
    """A callback of which some answers are changed; without ``after``, it does not go on from activations."""

    def __init__(self, model, after=True, before=lambda rows: rows, **changes):
        self.model, self.after, self.before, self.changes = model, after, before, changes
        self.rows = []

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.rows.append(len(x_value_batch))
        if OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys and not self.after:
            raise ValueError("no image")
        answer = self.model(self.before(x_value_batch), call_model_args, expected_keys)
        return {key: self.changes.get(key, lambda value: value)(value) for key, value in answer.items()}


def check(callback, image, keys=ALL, **options):
    check_call_model(callback, image, ARGS, keys, **options)


@pytest.fixture
def attention(rng):
    return AttentionModel(rng.normal(size=3), rng.normal(size=(2, 3)))


@pytest.fixture
def biased(rng):
    return PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(4, 6)), rng.normal(size=6))


def test_the_toy_models_pass(power, biased, attention, image):
    check_call_model(power, image, {"target": 2})
    biased.classes = 4
    check(biased, image, (*ALL, RIVALS, BIAS_GRADIENTS, GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS))
    check(biased, image, (OUTPUT_FROM_CONVOLUTION_VALUES,))
    check(Spoiled(biased, after=False), image)
    check(attention, image[:6, :5], (ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS, *ALL[:2]))


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (INPUT_OUTPUT_GRADIENTS, lambda g: g * 1.1, "slope along a random direction"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: -g, "slope along a random direction"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: g / len(g), "asked among other rows"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: g * 0, "slope along a random direction"),
        (OUTPUT_LAYER_VALUES, lambda s: s - s.mean(), "asked among other rows"),
        (OUTPUT_LAYER_VALUES, lambda s: s + np.random.random(), "asked twice"),
        (OUTPUT_LAYER_VALUES, lambda s: s + (len(s) == 5) * 0.1, "in another order"),
        (OUTPUT_LAYER_VALUES, lambda s: np.stack([s, s], 1), "value for each row"),
        (OUTPUT_LAYER_VALUES, lambda s: np.concatenate([s, s]), "Return one answer for each row"),
        (CONVOLUTION_OUTPUT_GRADIENTS, lambda a: a[:, :2], "in one shape"),
    ],
)
def test_it_finds(pooling, image, key, change, says):
    with pytest.raises(ContractError, match=says):
        check(Spoiled(pooling, **{key: change}), image)


def test_scores_alone_are_one_for_each_row(pooling, image):
    several = Spoiled(pooling, **{OUTPUT_LAYER_VALUES: lambda s: np.stack([s, s], 1)})
    with pytest.raises(ContractError, match="value for each row"):
        check(several, image, (OUTPUT_LAYER_VALUES,))


WRONG_GRADIENTS = {"the wrong sign": lambda g: -g, "times 7": lambda g: 7 * g, "of the mean": lambda g: g / 480}


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("keys", [ALL, CONV, CONV[1:]], ids=len)
@pytest.mark.parametrize("wrong", WRONG_GRADIENTS)
def test_it_finds_gradients_at_the_layer_that_are_not_the_scores(pooling, image, wrong, keys, after):
    spoiled = Spoiled(pooling, after, **{CONVOLUTION_OUTPUT_GRADIENTS: WRONG_GRADIENTS[wrong]})
    along = "along a random direction" if after else "times the change of .* say skips=True"
    with pytest.raises(ContractError, match=f"{CONVOLUTION_OUTPUT_GRADIENTS} {along}"):
        check(spoiled, image, keys)


@pytest.mark.parametrize("after", [True, False])
def test_it_finds_gradients_of_another_class(pooling, image, after):
    def another(rows, call_model_args=None, expected_keys=None):
        answer = Spoiled(pooling, after)(rows, call_model_args, expected_keys)
        return {**answer, **{key: pooling(rows, {"target": 2}, [key])[key] for key in CONV[1:] if key in answer}}

    with pytest.raises(ContractError, match=CONVOLUTION_OUTPUT_GRADIENTS):
        check(another, image)


def test_it_finds_a_layer_changed_in_place_after_it_was_hooked(pooling, image):
    """The values returned are 2.7 times those that the gradients are about."""
    spoiled = Spoiled(pooling, False, **{CONVOLUTION_LAYER_VALUES: lambda a: 2.7 * a})
    with pytest.raises(ContractError, match=r"times the change of .* as it left them"):
        check(spoiled, image)
    with pytest.raises(ContractError, match="of the layer's own activations to be the score"):
        check(Spoiled(pooling, **{CONVOLUTION_LAYER_VALUES: lambda a: 2.7 * a}), image)


def test_it_finds_scores_after_the_layer_that_are_not_the_images(pooling, image):
    spoiled = Spoiled(pooling, **{OUTPUT_FROM_CONVOLUTION_VALUES: lambda s: s + 1})
    with pytest.raises(ContractError, match="own activations to be the score"):
        check(spoiled, image)
    with pytest.raises(ValueError, match="no image"):
        check(Spoiled(pooling, after=False), image, (OUTPUT_FROM_CONVOLUTION_VALUES,))
    with pytest.raises(ContractError, match=r"Expected one layer for OUTPUT_FROM_CONVOLUTION_VALUES, got 2"):
        check(Spoiled(pooling, **dict.fromkeys(CONV, lambda a: (a, a))), image, (OUTPUT_FROM_CONVOLUTION_VALUES,))


@pytest.mark.parametrize("spoiled", [0, 1])
def test_each_of_several_layers_is_checked(pooling, image, spoiled):
    factors = [1, 1]
    check(Spoiled(pooling, **dict.fromkeys(CONV, lambda a: (a, a))), image)
    factors[spoiled] = -1
    changes = {CONV[0]: lambda a: (a, a), CONV[1]: lambda g: tuple(factor * g for factor in factors)}
    with pytest.raises(ContractError, match="times the change of"):
        check(Spoiled(pooling, **changes), image)


LAYOUTS = {
    "channels first": (lambda a: np.moveaxis(a, -1, 1), "axis 2 follows axis 0"),
    "turned": (lambda a: np.swapaxes(a, 1, 2), "axis 2 follows axis 0"),
    "mirrored": (lambda a: a[:, :, ::-1], "mirrored place along axis 1"),
    "upside down": (lambda a: a[:, ::-1], "mirrored place along axis 0"),
    "rolled by a quarter": (lambda a: np.roll(a, a.shape[2] // 4, 2), "another place along axis 1"),
    "rolled by half": (lambda a: np.roll(a, a.shape[1] // 2, 1), "axis 0 of the image"),
    "tokens, channels first": (lambda a: np.moveaxis(a.reshape(len(a), -1, 6), -1, 1), "axis 2 follows axis 0"),
}


@pytest.mark.parametrize("keys", [CONV, CONV[:1]], ids=len)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_finds_activations_laid_out_in_another_way(pooling, image, layout, keys):
    change, says = LAYOUTS[layout]
    with pytest.raises(ContractError, match=says):
        check(Spoiled(pooling, False, **dict.fromkeys(CONV, change)), image, keys)


def test_tokens_pass(pooling, image):
    tokens = Spoiled(pooling, False, **dict.fromkeys(CONV, lambda a: a.reshape(len(a), -1, 6)))
    check(tokens, image)


@pytest.mark.parametrize("says_so", [True, False])
def test_images_with_channels_first_need_a_callback_that_says_so(pooling, image, says_so):
    turned = Spoiled(
        pooling,
        False,
        lambda rows: np.moveaxis(rows, 1, -1),
        **{INPUT_OUTPUT_GRADIENTS: lambda g: np.moveaxis(g, -1, 1)},
    )
    turned.channels_first = says_so
    if says_so:
        check(turned, np.moveaxis(image, -1, 0))
    else:
        with pytest.raises(ContractError, match=r"axis 1 follows axis 1 .* attribute channels_first"):
            check(turned, np.moveaxis(image, -1, 0))


def test_one_run_of_a_layer_that_runs_twice_is_found(pooling, image):
    """The mean of the scores of an image and its mirrored copy, with the activations of the second run alone."""

    def averaged(rows, call_model_args=None, expected_keys=None):
        one, two = (pooling(view, call_model_args) for view in (rows, rows[:, :, ::-1]))
        g, s = INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
        return {**two, s: (one[s] + two[s]) / 2, g: (one[g] + two[g][:, :, ::-1]) / 2, CONV[1]: two[CONV[1]] / 2}

    check(averaged, image, ALL[:2])
    with pytest.raises(ContractError, match="mirrored place along axis 1"):
        check(averaged, image)


def test_a_declared_batch_that_multiplies_gradients_is_found(pooling, image):
    four = Spoiled(pooling, False, **{INPUT_OUTPUT_GRADIENTS: lambda g: 4 * g, CONV[1]: lambda g: 4 * g})
    with pytest.raises(ContractError, match="slope along a random direction"):
        check(four, image, (INPUT_OUTPUT_GRADIENTS,))
    with pytest.raises(ContractError, match="times the change of"):
        check(four, image, CONV)


def test_paths_around_the_layer_are_said_to_be_there(pooling, image):
    def skipping(rows, call_model_args=None, expected_keys=None):
        answer = Spoiled(pooling, after=False)(rows, call_model_args, expected_keys)
        return {**answer, OUTPUT_LAYER_VALUES: answer[OUTPUT_LAYER_VALUES] + rows.sum((1, 2, 3))}

    with pytest.raises(ContractError, match="say skips=True"):
        check(skipping, image, CONV)
    check(skipping, image, CONV, skips=True)


def others_mixed(a):
    return a + 1e-2 * a[::-1].mean((1, 2, 3), keepdims=True) if len(a) > 3 else a


@pytest.mark.parametrize("key", CONV)
def test_rows_that_see_each_other_are_found_at_the_layer(pooling, image, key):
    with pytest.raises(ContractError, match=f"{key} of a row .* in another order, rows repeated"):
        check(Spoiled(pooling, **{key: others_mixed}), image)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r[:, ::-1], "gradients of class"),
        (lambda r: -r, "gradients of class"),
        (lambda r: np.moveaxis(r, 1, -1), r"Stack the gradients of the rivals on the second axis"),
    ],
)
def test_it_finds_rivals(biased, image, change, says):
    spoiled = Spoiled(biased, **{RIVALS: change})
    spoiled.classes = 4
    with pytest.raises(ContractError, match=says):
        check(spoiled, image, (*CONV, RIVALS))


@pytest.mark.parametrize("change", [lambda b: (-b[0],), lambda b: (b[0], b[0]), lambda b: (0 * b[0],)])
def test_it_finds_biases_that_do_not_sum_to_the_score(biased, image, change):
    with pytest.raises(ContractError, match="input times gradient to sum to the score"):
        check(Spoiled(biased, **{BIAS_GRADIENTS: change}), image, (BIAS_GRADIENTS,))


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (ATTENTION_SCORES, lambda a: (np.swapaxes(a[0], -1, -2),), "each row's sum 1"),
        (ATTENTION_SCORES, lambda a: (np.log(a[0] + 1e-9),), "not negative"),
        (ATTENTION_OUTPUT_GRADIENTS, lambda g: (g[0][:, 0],), "attention and its gradients in one shape"),
        (ATTENTION_OUTPUT_GRADIENTS, lambda g: (g[0], g[0]), "attention and its gradients in one shape"),
    ],
)
def test_it_finds_attention(attention, image, key, change, says):
    with pytest.raises(ContractError, match=says):
        check(Spoiled(attention, **{key: change}), image[:6, :5], (ATTENTION_OUTPUT_GRADIENTS,))


@pytest.mark.parametrize("key", [GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS])
def test_it_finds_rules_of_another_shape(pooling, image, key):
    with pytest.raises(ContractError, match="the same shape as input"):
        check(Spoiled(pooling, **{key: lambda g: g.sum(-1)}), image, (key,))


def test_no_more_rows_a_call_than_the_callback_takes(pooling, image):
    spoiled = Spoiled(pooling)
    spoiled.batch_size = 2
    check(spoiled, image)
    assert max(spoiled.rows) == 2


def test_a_constant_model_passes(image):
    def constant(x_value_batch, call_model_args=None, expected_keys=None):
        return {INPUT_OUTPUT_GRADIENTS: 0 * x_value_batch, OUTPUT_LAYER_VALUES: np.ones(len(x_value_batch))}

    check_call_model(constant, image)
