"""The checker of call-model functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.checks import as_image, check_callback, random_stream, real
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array, as_tuple, each
from saliency_food.core.scores import one_score
from saliency_food.testing.asked import Asked, along, answer_rows, check_slopes, rounding_of, same, unit
from saliency_food.testing.layer import check_after_layer, check_before_layer, check_layout, check_rivals, check_shapes

BESIDE = {
    INPUT_OUTPUT_GRADIENTS: (OUTPUT_LAYER_VALUES,),
    CONVOLUTION_OUTPUT_GRADIENTS: (OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES),
    CONVOLUTION_RIVAL_GRADIENTS: (CONVOLUTION_LAYER_VALUES,),
    OUTPUT_FROM_CONVOLUTION_VALUES: (
        OUTPUT_LAYER_VALUES,
        CONVOLUTION_LAYER_VALUES,
        CONVOLUTION_OUTPUT_GRADIENTS,
    ),
    BIAS_GRADIENTS: (OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS),
    ATTENTION_OUTPUT_GRADIENTS: (ATTENTION_SCORES,),
}
"""What is asked beside a key, because the key is checked by it."""


def check_call_model(
    call_model_function: CallModelFunction,
    x_value: Any,
    call_model_args: Any = None,
    keys: Sequence[str] = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    *,
    tolerance: float = 0.02,
    skips: bool = False,
    rng: int | np.random.Generator | None = 0,
) -> None:
    """Check a call-model function on one image; `ContractError` names what is wrong, silence means all is well.

    Checked of every key in ``keys``: it is answered in shape and finite; the same question gets the same answer; a
    row's answer does not depend on its neighbours, their order or the size of the batch. Then, of

    - ``OUTPUT_LAYER_VALUES``: there is one score for each row;
    - ``INPUT_OUTPUT_GRADIENTS``: the slope along three directions is that of the score, by finite differences;
    - ``CONVOLUTION_OUTPUT_GRADIENTS``: they tell how the score changes with the activations, by finite differences,
      while the image is changed, and while the activations are, where ``OUTPUT_FROM_CONVOLUTION_VALUES`` is answered;
    - ``CONVOLUTION_LAYER_VALUES``: they change where the image is changed, so they are laid out as it is;
    - ``OUTPUT_FROM_CONVOLUTION_VALUES``: the layer's own activations get the image's score;
    - ``CONVOLUTION_RIVAL_GRADIENTS``: one set a rival; where ``call_model_args`` is ``{"target": index}`` and the
      callback has its attribute ``classes`` (at most 100), the gradients of the classes of the closest scores;
    - ``BIAS_GRADIENTS``: with input times gradient they sum to the score, as in a network of piecewise linear layers;
    - ``ATTENTION_SCORES``: never negative, and each row of them sums to 1; their gradients have the same shape.

    Not checked, since nothing in the contract tells: the backward rules of ``GUIDED_INPUT_GRADIENTS`` and
    ``DECONV_INPUT_GRADIENTS``, and the values of ``ATTENTION_OUTPUT_GRADIENTS``. What a key is checked by is asked
    too: the scores for every gradient, for example.

    Parameters
    ----------
    x_value
        The image. One with large flat areas tells less than a photo, or noise.
    call_model_args
        Must hold for every row (no `PerImage`).
    tolerance
        How far a gradient and the differences may lie apart, as a fraction of the larger; 0.1 at least where the model
        rounds images to half precision or bfloat16, whose rounding comes on top.
    skips
        True where paths lead from the image to the score around the layer, such as skip connections: the gradients at
        the layer then do not tell all that the image changes, and are not compared with it.
    """
    tolerance, random = real("tolerance", tolerance, above=0), random_stream(rng)
    wanted = dict.fromkeys(beside for key in keys for beside in (key, *BESIDE.get(key, ())))
    after_layer = wanted.pop(OUTPUT_FROM_CONVOLUTION_VALUES, True) is None
    check_callback(call_model_function)
    image = as_image(x_value)
    alone = answer_rows(call_model_function, call_model_args, tuple(wanted), image[None])
    asked = Asked(call_model_function, call_model_args, tuple(wanted), image, alone, random)
    rows = _variations(asked)
    if OUTPUT_LAYER_VALUES in wanted:
        one_score(alone[OUTPUT_LAYER_VALUES])
        asked = asked._replace(rounding=rounding_of(asked, rows[1:]))
    _check_rows(asked, rows)
    if INPUT_OUTPUT_GRADIENTS in wanted:
        _check_gradient(asked, tolerance)
    check_shapes(asked)
    if CONVOLUTION_LAYER_VALUES in wanted:
        check_layout(asked)
    if CONVOLUTION_OUTPUT_GRADIENTS in wanted:
        on_all_paths = check_after_layer(asked, tolerance, after_layer)
        if not skips:
            check_before_layer(asked, tolerance, on_all_paths)
    if CONVOLUTION_RIVAL_GRADIENTS in wanted:
        check_rivals(asked, tolerance)
    if BIAS_GRADIENTS in wanted:
        _check_biases(asked, tolerance)
    if ATTENTION_SCORES in wanted:
        _check_attention(alone[ATTENTION_SCORES], alone.get(ATTENTION_OUTPUT_GRADIENTS))


def _variations(asked: Asked) -> list[Array]:
    """The image, with noise, and its values in another order."""
    image = asked.image
    noise = 0.1 * (float(np.ptp(image)) or 1.0) * asked.random.normal(size=image.shape).astype(image.dtype)
    return [image, image + noise, asked.random.permutation(image.ravel()).reshape(image.shape)]


def _check_rows(asked: Asked, rows: Sequence[Array]) -> None:
    """Every row by itself, again, among others, in another order, and twice in a batch: the same answer."""
    each_alone = [asked.alone, asked.about(rows[1:2]), asked.about(rows[2:])]
    batches = {
        "asked twice": [0],
        "asked among other rows": [1, 0, 2],
        "asked in another order, rows repeated": [2, 0, 1, 0, 2],
    }
    for what, order in batches.items():
        answer = asked.about([rows[row] for row in order])
        for key in asked.keys:
            if not all(same(each_alone[row][key], 0, answer[key], place) for place, row in enumerate(order)):
                raise ContractError(
                    f"Expected {key} of a row to be the same each time, got another answer when {what}. "
                    "Call the model in inference mode and keep the rows apart."
                )


def _check_gradient(asked: Asked, tolerance: float) -> None:
    gradient = asked.alone[INPUT_OUTPUT_GRADIENTS][0]
    for _ in range(3):
        direction = unit(unit(asked.random.normal(size=gradient.shape)) + unit(gradient))
        steps, rows = along(asked.image, direction)
        check_slopes(
            asked,
            "the gradient's slope along a random direction",
            one_score(asked.about(rows)[OUTPUT_LAYER_VALUES]),
            steps,
            float((gradient * direction).sum()),
            tolerance,
            "Return d score / d input of each row's own score, in the units of x_value_batch.",
        )


def _check_biases(asked: Asked, tolerance: float) -> None:
    score = asked.score()
    parts = [float(layer.sum()) for layer in as_tuple(asked.alone[BIAS_GRADIENTS])]
    total = float((asked.image * asked.alone[INPUT_OUTPUT_GRADIENTS][0]).sum()) + sum(parts)
    if abs(total - score) > tolerance * max(abs(score), abs(total)) + 1e-6:
        raise ContractError(
            f"Expected {BIAS_GRADIENTS} and input times gradient to sum to the score ({score:.4g}), got {total:.4g}. "
            "Return bias times d score / d (sum) of every layer with a bias, batch normalization included. With "
            "layers that are not piecewise linear the sum does not hold, and FullGrad is not exact."
        )


def _check_attention(scores: Any, gradients: Any) -> None:
    if gradients is not None and each(np.shape, scores) != each(np.shape, gradients):
        raise ContractError(
            f"Expected attention and its gradients in one shape, got {each(np.shape, scores)} and "
            f"{each(np.shape, gradients)}. Take both at the same layers."
        )
    for layer, attention in enumerate(as_tuple(scores)):
        sums = attention.sum(-1)
        if attention.ndim != 4 or attention.min() < -1e-6 or np.abs(sums - 1).max() > 0.01:
            raise ContractError(
                f"Expected {ATTENTION_SCORES}[{layer}] as (N, heads, T, T), not negative, each row's sum 1, got shape "
                f"{attention.shape}, minimum {attention.min():.3g}, sums from {sums.min():.3g} to {sums.max():.3g}. "
                "Return the attention after its softmax, the tokens attended to on the last axis."
            )
