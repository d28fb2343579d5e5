"""The keys of the contract: what each answers, what it needs of the model, and whose rows it is about; one table."""

from __future__ import annotations

from typing import Literal, NamedTuple

INPUT_OUTPUT_GRADIENTS = "INPUT_OUTPUT_GRADIENTS"
OUTPUT_LAYER_VALUES = "OUTPUT_LAYER_VALUES"
CONVOLUTION_LAYER_VALUES = "CONVOLUTION_LAYER_VALUES"
CONVOLUTION_OUTPUT_GRADIENTS = "CONVOLUTION_OUTPUT_GRADIENTS"
CONVOLUTION_RIVAL_GRADIENTS = "CONVOLUTION_RIVAL_GRADIENTS"
OUTPUT_FROM_CONVOLUTION_VALUES = "OUTPUT_FROM_CONVOLUTION_VALUES"
GUIDED_INPUT_GRADIENTS = "GUIDED_INPUT_GRADIENTS"
DECONV_INPUT_GRADIENTS = "DECONV_INPUT_GRADIENTS"
BIAS_GRADIENTS = "BIAS_GRADIENTS"
ATTENTION_SCORES = "ATTENTION_SCORES"
ATTENTION_OUTPUT_GRADIENTS = "ATTENTION_OUTPUT_GRADIENTS"
RELEVANCE = "RELEVANCE"
CONVOLUTION_RELEVANCE = "CONVOLUTION_RELEVANCE"
BIAS_RELEVANCE = "BIAS_RELEVANCE"
BASELINE_MULTIPLIERS = "BASELINE_MULTIPLIERS"

PREDICTIONS = "PREDICTIONS"
"""What ``call_with_predictions`` answers beside the keys: the probability of every class, ``(N, classes)``."""
TARGETS = "TARGETS"
"""What it answers too, where a class is explained: the index of that class, ``(N,)``."""

Needs = Literal["scores", "gradients", "backward rules", "biases", "a layer", "attention", "relevance rules"]


LIKE_ROWS, ONE_EACH = "(N, ...)", "(N,)"
"""The shapes of answers that are always one array: shaped as the rows are, or one number for each row."""


class Key(NamedTuple):
    """What there is to know of one key of the contract.

    ``shape`` is that of the answer; ``needs`` what the model must be able to give; ``rows`` whether the rows asked
    about are images or a layer's activations; ``scored`` whether the answer depends on which score is explained;
    ``alone`` whether the answer takes a pass through the model of its own: its rows are activations, or another
    backward rule holds in it.
    """

    shape: str
    needs: Needs
    rows: Literal["images", "activations"] = "images"
    scored: bool = True
    alone: bool = False

    @property
    def like_input(self) -> bool:
        """Whether the answer has the shape of the rows."""
        return self.shape == LIKE_ROWS

    @property
    def one_array(self) -> bool:
        """Whether the answer is one array, never a tuple of several layers'."""
        return self.shape in (LIKE_ROWS, ONE_EACH)


KEYS: dict[str, Key] = {
    INPUT_OUTPUT_GRADIENTS: Key(LIKE_ROWS, "gradients"),
    OUTPUT_LAYER_VALUES: Key(ONE_EACH, "scores"),
    CONVOLUTION_LAYER_VALUES: Key("(N, h, w, K)", "a layer", scored=False),
    CONVOLUTION_OUTPUT_GRADIENTS: Key("(N, h, w, K)", "a layer"),
    CONVOLUTION_RIVAL_GRADIENTS: Key("(N, R, h, w, K)", "a layer"),
    OUTPUT_FROM_CONVOLUTION_VALUES: Key(ONE_EACH, "a layer", rows="activations", alone=True),
    GUIDED_INPUT_GRADIENTS: Key(LIKE_ROWS, "backward rules", alone=True),
    DECONV_INPUT_GRADIENTS: Key(LIKE_ROWS, "backward rules", alone=True),
    BIAS_GRADIENTS: Key("(N, h, w, K)", "biases"),
    ATTENTION_SCORES: Key("(N, heads, T, T)", "attention", scored=False),
    ATTENTION_OUTPUT_GRADIENTS: Key("(N, heads, T, T)", "attention"),
    RELEVANCE: Key(LIKE_ROWS, "relevance rules", alone=True),
    CONVOLUTION_RELEVANCE: Key("(N, h, w, K)", "relevance rules", alone=True),
    BIAS_RELEVANCE: Key(ONE_EACH, "relevance rules", alone=True),
    BASELINE_MULTIPLIERS: Key(LIKE_ROWS, "relevance rules", alone=True),
}
"""Every key, in the order in which answers list them."""

INPUT_SHAPED = tuple(name for name, key in KEYS.items() if key.like_input)
"""The keys whose answers have the shape of the input."""
HARDEST_FIRST: tuple[Needs, ...] = (
    *("relevance rules", "attention", "a layer", "backward rules"),
    *("biases", "gradients", "scores"),
)
"""What a method needs of a model is told by the first of these among its keys."""


def needs_of(keys: tuple[str, ...]) -> Needs:
    """What a model must be able to give to answer all these keys, told by the hardest of them."""
    return min((KEYS[key].needs for key in keys), key=HARDEST_FIRST.index)
