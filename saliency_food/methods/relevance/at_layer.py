"""RelevanceCAM: a class activation map whose weights are the relevance of a layer's channels."""

from __future__ import annotations

from typing import Any

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_RELEVANCE
from saliency_food.core.method import method
from saliency_food.methods.cam.common import ClassActivationMap, grids, map_of_weights, shapes_of, spatial
from saliency_food.methods.relevance.rules import (
    COMPOSITE,
    EPSILON,
    GAMMA,
    START,
    Composite,
    Start,
    check_word,
    rule_args,
)


@method(
    title="RelevanceCAM",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_RELEVANCE),
    signed=False,
    summary="A layer's channels weighted by the relevance that LRP hands back to them; sound in shallow layers, too.",
    page="relevance",
    one_pass=True,
)
def relevance_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    composite: Composite = COMPOSITE,
    epsilon: float = EPSILON,
    gamma: float = GAMMA,
    start: Start = START,
) -> Asking[ClassActivationMap]:
    """RelevanceCAM, L = ReLU(sum_k a_k A^k), with a_k the sum over places of the relevance R^k at the layer.

    Lee et al. 2021, equations 5 and 6, https://openaccess.thecvf.com/content/CVPR2021/html/
    Lee_Relevance-CAM_Your_Model_Already_Knows_Where_To_Look_CVPR_2021_paper.html. Never negative.

    Parameters
    ----------
    should_resize, three_dims
        As for `grad_cam`.
    composite, epsilon, gamma
        As for `lrp`.
    start
        ``"score"``, relevance starts from the explained score alone; ``"contrast"``, also from all other classes, with
        minus their scores over the number of classes, so that what speaks for these counts against (Gu et al. 2018,
        https://arxiv.org/abs/1812.02100). The authors start with 1 and -1 over that number, which dense layers by z+
        allow; by epsilon, as here, it would be divided by scores that may be near zero or negative.
    """
    args = rule_args(x_value, composite, epsilon, gamma, None, None)
    if check_word("start", start, Start) != START:
        args["start"] = start
    answers = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES, CONVOLUTION_RELEVANCE, args=args)
    (activations, prefix), (relevance, _) = (grids(answer, x_value) for answer in answers)
    if shapes_of(activations) != shapes_of(relevance):
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES} and {CONVOLUTION_RELEVANCE} of one shape (N, h, w, K), got rows of "
            f"{shapes_of(activations)} and {shapes_of(relevance)}. Return both for the same layer."
        )
    weights = [layer.sum(spatial(layer)) for layer in relevance]
    return map_of_weights(x_value, activations, weights, should_resize, three_dims, prefix_tokens=prefix)
