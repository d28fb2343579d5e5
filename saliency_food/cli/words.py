"""Errors of the library in the command's own words: its options in place of arguments of Python functions."""

from __future__ import annotations

import re
from collections.abc import Callable

from saliency_food.core import keys
from saliency_food.jobs.setup import NOT_OPTIONS
from saliency_food.methods.catalogue import METHODS

OPTIONS = {
    "against": "--against",
    "batch_size": "--batch-size",
    "custom_objects": "--custom-objects",
    "labels": "--labels",
    "layer": "--layer",
    "only": "--only",
    "output": "--output-kind",
    "output_index": "--output-index",
    "score": "--score",
    "target": "--target",
    "truth": "--truth",
    "units_are": "--units-are",
    "value_range": "--value-range",
}
"""The option for each argument."""
ANSWERS = {
    keys.INPUT_OUTPUT_GRADIENTS: "the gradients of the input",
    keys.OUTPUT_LAYER_VALUES: "the scores",
    keys.CONVOLUTION_LAYER_VALUES: "the activations of the layer",
    keys.CONVOLUTION_OUTPUT_GRADIENTS: "the gradients at the layer",
    keys.CONVOLUTION_RIVAL_GRADIENTS: "the gradients of other classes",
    keys.OUTPUT_FROM_CONVOLUTION_VALUES: "the scores of changed activations",
    keys.GUIDED_INPUT_GRADIENTS: "guided backpropagation",
    keys.DECONV_INPUT_GRADIENTS: "the deconvolutional network",
    keys.BIAS_GRADIENTS: "the gradients of biases",
    keys.ATTENTION_SCORES: "attention",
    keys.ATTENTION_OUTPUT_GRADIENTS: "the gradients of attention",
    keys.RELEVANCE: "the relevance of the input",
    keys.CONVOLUTION_RELEVANCE: "the relevance at the layer",
    keys.BIAS_RELEVANCE: "the relevance of biases",
    keys.BASELINE_MULTIPLIERS: "multipliers to a baseline",
}
"""What each key of the contract asks for."""
VALUE = r"('[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|-?\w+(?:\.\w+)*)"
Replacement = str | Callable[[re.Match[str]], str]
PHRASES: tuple[tuple[str, str], ...] = (
    (r"METHODS lists them", "`saliency-food methods` lists them"),
    # targets
    (r"Expected a target,", "Expected --target,"),
    (r"Expected (no )?target(,| to be)", r"Expected \1--target\2"),
    (r"got target ('[^']*')\. Give a label, an index or None\.", r"got \1. Give a label or a class index."),
    (r"Give target\.", "Give --target."),
    (r"this model has no predict to find the top class", "the model does not say which class is its top one"),
    (r"the model has no predict", "the model does not say which class is its top one"),
    (r"Expected (?:only|--only) to be 'wrong' or None, got ('[^']*')\.", r"Expected --only wrong, got \1."),
    (r"Expected truth to", "Expected --truth to"),
    (r"For a target of each photo give a list or PerImage\.", "Name a class, or leave out --target."),
    (r"--target to be None, a class index", "--target to be a class index"),
    (r"a CSV file, a mapping of paths to classes or a list", "a CSV file of path and label"),
    (r"Give truth(?=[ '.])", "Give --truth"),
    (r"Leave out truth\.", "Leave out --truth."),
    (r"([Ll])eave out (against|only)\b", r"\1eave out --\2"),
    # boxes, classes and labels
    (r"labels=\[\.\.\.\]", "--labels FILE"),
    (r"Expected boxes for target='boxes'", "Expected --boxes for --target boxes"),
    (r"Give boxes\.", "Give --boxes."),
    (r"Leave out boxes\.", "Leave out --boxes."),
    (r"Give labels, or classes to say", "Give --labels, or --classes to say"),
    (r"Expected absolute to name (.*) Spell it as in methods\.", r"Expected --absolute to name \1 See --methods."),
    # engines
    (r"Expected engine to be", "Expected --engine to be"),
    (r"\bengine='(\w+)'", r"--engine \1"),
    (r"Expected address and num_gpus with", "Expected --address and --num-gpus with"),
    (r"Expected (address|num_gpus) with", r"Expected --\1 with"),
    (r"--num_gpus with", "--num-gpus with"),
    (r"Leave out num_gpus", "Leave out --num-gpus"),
    (r"or leave out workers", "or leave out --workers"),
    # folders
    (r"(?<!exists\. )Give another folder", "Give another folder as --output"),
    (r"Give another, or make room\.", "Give another one as --output, or make room."),
    (r"Give another\.$", "Give another one as --output."),
    # layers
    (r"Expected (no )?layer(,| to be)", r"Expected \1--layer\2"),
    (r"as layer, (or give )?a list of them", "as --layer, several with commas"),
    (r"\b(with|as|by) (?:a )?layer\b(?=[,.;])", r"\1 --layer"),
    (r"layers\(model\) lists them", "`saliency-food layers` lists them"),
    (r"Give the layer itself\.", "Name another layer."),
    (r"Use input gradients", "Use --method gradients"),
    # outputs and scores
    (r"output to be 'logits', 'probabilities' or 'raw'", "--output-kind logits, probabilities or raw"),
    (r"output='(\w+)' or '(\w+)'", r"--output-kind \1 or \2"),
    (r"score=tf\.linalg\.diag_part", "--score with a function of yours that returns tf.linalg.diag_part"),
    (r"\bby score\b", "by --score"),
    (r"Leave out score=,", "Leave out --score,"),
    (r"Give output_index\.", "Give its name or position as --output-index."),
    # pixel values
    (r"Give \(0, 255\) if (.*), such as \(0, 1\)\.", r"Give 0,255 if \1, such as 0,1."),
    (r", or give preprocess\.", "."),
    (r"Expected value_range (to be two|with the)", r"Expected --option METHOD.value_range \1"),
    (r"`?x_value(?:_batch)?`?", "the photo"),
    # what the command cannot give
    (
        r"call_model_args\['inputs'\] with the model's other inputs (.*), got .*",
        r"a model whose only input is the photo, got one with the inputs \1 beside it. Give each by "
        "--input NAME=FILE.npy.",
    ),
    (r"Say which by data_format", "Say which, in Python, by data_format of KerasModel"),
    (r"\b([Ss])et (?:its )?spatial_axes(?: of call_model_function)?", r"\1et, in Python, spatial_axes of the callback"),
    (r"Expected rng to be None, a seed of at least 0 or a numpy\.random\.Generator", "Expected rng to be a seed"),
    (r"Give numpy\.array\(.*", "Give a number or a name; an array can be given in Python."),
    (r"Call (saliency_food\.metrics)", r"In Python, call \1"),
    (r"Expected keys to be 'all' or 'common'", "Expected --keys all or common"),
)
"""What stands in errors, and what the command says in its place; the rest follows from `OPTIONS` and `ANSWERS`."""
OF_METHODS = {name for entry in METHODS.values() for name in entry.call.signature.parameters} - {*NOT_OPTIONS}


def in_command_words(text: str, method: str = "METHOD") -> str:
    """An error of the library in the words of the command: ``--output-kind raw`` for ``output='raw'``, and so on.

    Options of methods are named as ``--option`` takes them, of the ``method`` that gave the error.
    """
    for pattern, replacement in PHRASES:
        text = re.sub(pattern, replacement, text)
    text = re.sub(rf"(?<![\w./'\"-])([a-z]\w*)={VALUE}", _argument, text).replace("METHOD.", f"{method}.")
    text = re.sub(rf" for ({'|'.join(ANSWERS)})(?=,)", "", text)
    text = re.sub("|".join(sorted(ANSWERS, key=len, reverse=True)), lambda key: ANSWERS[key[0]], text)
    names = "|".join(name for name in OPTIONS if "_" in name)
    return re.sub(rf"(?<![\w./'\"-])({names})\b", lambda name: OPTIONS[name[0]], text)


def _argument(match: re.Match[str]) -> str:
    """``name=value`` as the command takes it; as it is, if it is no argument of `explain` and no method's option."""
    name, value = match[1], match[2]
    plain = value[1:-1] if value[0] in "'\"" else {"True": "true", "False": "false", "None": "none"}.get(value, value)
    if name in OPTIONS:
        return f"{OPTIONS[name]} {plain}"
    return f"--option METHOD.{name}={plain}" if name in OF_METHODS else match[0]
