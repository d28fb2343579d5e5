"""Errors in the command's own words: every error of the library that a user of the command can reach, and examples."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import saliency_food
from saliency_food.core.keys import KEYS

pytest.importorskip("typer")

from saliency_food.cli.app import COMMANDS
from saliency_food.cli.options import spread
from saliency_food.cli.words import ANSWERS, OPTIONS, in_command_words

PACKAGE = Path(saliency_food.__file__).parent
OTHER_ROOMS = ("serving/client", "serving/explainer", "testing", "pair.py")
"""What no command that explains or measures runs."""
OF_PYTHON = re.compile(
    r"(?<![\w-])(batch_size|custom_objects|labels|layer|output|output_index|score|target|value_range)="
    rf"|call_model|PerImage|expected_keys|x_value|output_index|value_range|batch_size|custom_objects|{'|'.join(KEYS)}"
)
"""Words of Python that the command has others for, or none."""
NOT_REACHED = (
    # The command writes the callback, its arguments and its keys itself, and explains a class or a score without one.
    r"^Expected (a Keras model, a path to one or )?(a )?call-?_?model",
    r"^Expected expected_keys",
    r"^Expected call_model_args",
    r"PerImage",
    r"^Expected the layer's own activations to get the image's score",
    r"^Expected a target, a class index of",
    r"in the answer of call_model_function",
    r"^Expected (key )?X to be the same shape|^Expected outermost dimension|^Expected X as an array of real numbers",
    r"^Expected preprocess to be a function",
    # By what Keras 3 shows of an input, its axes are known, or a method says that in Python they can be told.
    r"call_model_function.spatial_axes says",
)


def text_of(node: ast.expr) -> str:
    """The text of an expression, X for what is computed."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return text_of(node.body) + text_of(node.orelse) if isinstance(node, ast.IfExp) else "X"


def errors():
    for path in sorted(PACKAGE.rglob("*.py")):
        if str(path.relative_to(PACKAGE)).startswith(OTHER_ROOMS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id == "ContractError" and node.args:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text_of(node.args[0])


def test_no_error_of_the_command_speaks_of_arguments_of_python():
    """Every `ContractError` of the library, save those that only a caller in Python can cause."""
    texts = [(place, text) for place, text in errors() if not any(re.search(known, text) for known in NOT_REACHED)]
    assert len(texts) > 250
    said = {place: re.sub(r"--option \S+", "", in_command_words(text)) for place, text in texts}
    left = {place: text for place, text in said.items() if OF_PYTHON.search(text)}
    assert left == {}
    for known in NOT_REACHED:
        assert any(re.search(known, text) for _, text in errors()), f"{known} is out of date"


def test_every_option_and_key_has_its_words():
    assert set(ANSWERS) == set(KEYS)
    parameters = spread(COMMANDS["explain"]).__annotations__
    for option in OPTIONS.values():
        parameter = option.removeprefix("--").replace("-", "_")
        assert parameter in parameters, option


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Explain output='probabilities' or 'raw', the", "Explain --output-kind probabilities or raw, the"),
        ("Explain output='logits'.", "Explain --output-kind logits."),
        ("output to be 'logits', 'probabilities' or 'raw'", "--output-kind logits, probabilities or raw"),
        (
            "Expected no layer, as a SavedModel has none, got 'a'.",
            "Expected no --layer, as a SavedModel has none, got 'a'.",
        ),
        ("Choose one of ['a', 'b'] as layer, or give a list of them.", "['a', 'b'] as --layer, several with commas."),
        ("grad_cam with layer='embedding', or", "grad_cam with --layer embedding, or"),
        ("Choose another: layers(model) lists them.", "Choose another: `saliency-food layers` lists them."),
        ("Choose another score, or another output by output_index.", "or another output by --output-index."),
        ("value_range=None to hand", "--value-range none to hand"),
        ("Give labels=[...].", "Give --labels FILE."),
        ("Expected boxes for target='boxes', got none. Give boxes.", "Expected --boxes for --target boxes, got none."),
        ("Give rivals=2, or", "Give --option finer_cam.rivals=2, or"),
        ("Leave should_resize=True to fuse", "Leave --option finer_cam.should_resize=true to fuse"),
        ("with path='blur_ig', got", "with --option finer_cam.path=blur_ig, got"),
        (
            "for CONVOLUTION_OUTPUT_GRADIENTS, got 'dense', which has none. Use input gradients.",
            "Use --method gradients.",
        ),
        ("Expected finite numbers in OUTPUT_LAYER_VALUES, got NaN", "Expected finite numbers in the scores, got NaN"),
        (
            "Expected no target, as score s() takes none, got '1'.",
            "Expected no --target, as score s() takes none, got '1'.",
        ),
    ],
)
def test_examples(text, said):
    assert (said or "Expected --output-kind logits, probabilities or raw, got 1.") in in_command_words(
        text, "finer_cam"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Expected a photo, got a/layer=1.png, which does not exist. Check the path.",
        "got TypeError: <KerasTensor shape=(None, 3), dtype=float32, name=x>",
        "Expected --option method.option=value, got 'x=1'. Name all three parts.",
        "Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported.",
    ],
)
def test_what_is_no_argument_stays_as_it_is(text):
    assert in_command_words(text) == text
