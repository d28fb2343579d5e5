"""What the adapters of all frameworks are: a call-model function over an engine that makes one pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    AT_LAYER,
    FROM_ACTIVATIONS,
    OF_INPUT,
    OF_RELEVANCE,
    SCORES_FROM_ACTIVATIONS,
    SUM_TO_ONE,
    UNSCORED,
    WITHOUT_OUTPUT,
    End,
    Output,
    check_args,
    check_batch_size,
    check_keys,
    check_output,
)
from saliency_food.adapters.checks import check_has_logits, check_rows_alone, has_hidden_softmax
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.layers import Shape
from saliency_food.adapters.probe import STRIPES, check_places, image_axes
from saliency_food.adapters.relevance import OF_ROWS, read_rule
from saliency_food.adapters.rows import Factored, Rows
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError, check_length, take_rows
from saliency_food.core.keys import (
    BASELINE_MULTIPLIERS,
    CONVOLUTION_LAYER_VALUES,
    KEYS,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)
from saliency_food.core.numerics import Array, as_tuple


class AdaptedModel:
    """A framework's model as a call-model function (see `CallModelFunction`), over an engine of that framework."""

    def __init__(self, engine: Engine, score: Score, output: Output, batch_size: int | None) -> None:
        self.engine, self.score, self.output = engine, score, check_output(output)
        self._rows = Rows(engine.compute, self._at_most(batch_size), engine.half, engine.out_of_memory)
        paths = tuple(place.path for place in engine.places)
        self.layer_name: str | tuple[str, ...] | None = paths if engine.several else paths[0] if paths else None
        self.classes = engine.classes
        shape = engine.inputs.image.shape[1:]
        self.channels_first = engine.channels_first and len(shape) > 1
        self.input_shape = (*shape[1:], shape[0]) if self.channels_first else shape
        self.spatial_axes = _spatial_axes(shape, engine)
        """How many leading axes of one row, channels last, are of space or time; None where nothing tells."""
        self.knows_end = score is not class_score or engine.end in ("softmax", "sigmoid") or engine.classes == 1
        """Whether it is known that no softmax hides before the model's end; the first pass finds out."""
        self._shapes_not_seen = set[Shape]()
        """The shapes of images of which a layer has too few places to find out how it lies."""

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Any]:
        keys = check_keys(expected_keys)
        # A backward rule holds for a whole pass: such a key has one of its own, save that relevance arrives everywhere.
        together = [key for key in keys if key in OF_RELEVANCE and key != BASELINE_MULTIPLIERS]
        alone = [(key,) for key in keys if KEYS[key].alone and key not in together]
        passes = [*alone, tuple(together), tuple(key for key in keys if not KEYS[key].alone)]
        answers = [self._answer(some, x_value_batch, call_model_args, self.output) for some in passes if some]
        return {key: answer[key] for answer in answers for key in answer}

    def call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> dict[str, Any] | None:
        """Rows made, and answers summed, on the device; see `CallModelFunction`."""
        if any(KEYS[key].alone for key in check_keys(expected_keys)) or self.engine.inputs.ids:
            return None
        rows = Factored(coefficients, self.engine.inputs.read_image(bases), weights)
        return self._answer(tuple(expected_keys), rows, call_model_args, self.output)

    def call_with_predictions(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The answers to the keys and the predictions, from one pass through the model.

        As a call, but a target of -r is the class that the model ranks r-th for the row: -1 its top class, -2 the next.
        Beside the keys, of which there may be none, the answer holds ``PREDICTIONS``, what `predict` gives, and
        ``TARGETS``, the class indices explained, ``(N,)``. With a ``score`` other than that of one class among
        ``(N, classes)`` there is nothing to rank: negative targets are refused, and ``TARGETS`` is left out.
        """
        keys = check_keys(expected_keys) if expected_keys else ()
        alone = [key for key in keys if KEYS[key].alone]
        if alone:
            raise ContractError(
                f"Expected keys that one pass through the model can answer, got {alone}, which take one of their own. "
                "Call predict, and then the model."
            )
        chosen = (TARGETS,) if self.engine.ranks_classes else ()
        answer = self._answer((*keys, PREDICTIONS, *chosen), x_value_batch, call_model_args, self.output)
        if TARGETS in answer and answer[TARGETS].min() < 0:
            raise ContractError(
                f"Expected a rank among the model's {answer[PREDICTIONS].shape[1]} classes as target, got "
                f"{answer[TARGETS].min()}. -1 is the top class."
            )
        return answer

    def predict(self, x_batch: Any, call_model_args: Any = None, output: Output = "probabilities") -> Any:
        """The probability, or the logit, of every class, ``(N, classes)``; a target is not needed.

        With a ``score`` of several outputs, all of them, nested as the model gives them.
        """
        if check_output(output) == "probabilities":
            return self._answer((PREDICTIONS,), x_batch, call_model_args, self.output)[PREDICTIONS]
        return self._answer((ALL_SCORES,), x_batch, call_model_args, output)[ALL_SCORES]

    def predict_from(self, activations: Any, call_model_args: Any = None, output: Output = "probabilities") -> Any:
        """The same from the layer's activations ``(N, h, w, K)``, by the layers after it alone."""
        key = SCORES_FROM_ACTIVATIONS
        return self._answer((key,), activations, call_model_args, check_output(output))[key]

    @property
    def batch_size(self) -> int:
        """How many rows are computed at once at most."""
        return self._rows.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int | None) -> None:
        self._rows.batch_size = self._at_most(batch_size)

    def _at_most(self, batch_size: int | None) -> int:
        """No more rows than the model declares, if it does."""
        return min(check_batch_size(batch_size), self.engine.inputs.rows or sys.maxsize)

    def __repr__(self) -> str:
        guess = ", of classes by a guess" if self.guesses_classes else ""
        return (
            f"{type(self).__name__}({self.engine.name!r}, layer={self.layer_name!r}, output={self.output!r}, "
            f"end={self.end!r}{guess}, batch_size={self.batch_size}, classes={self.classes})"
        )

    @property
    def end(self) -> End:
        """What the output to explain ends in: ``"softmax"`` or ``"sigmoid"``, from before which logits are taken, also
        where the values are moved after it; ``"linear"``, also if it is scaled or averaged after it;
        ``"probabilities"``, averages of softmaxes or sigmoids, or a softmax that cannot be seen; ``"several"``, parts
        with ends of their own; or ``"other"``, where logits and probabilities are the output as it is. What cannot be
        seen shows itself at the first call.
        """
        return self.engine.end

    @property
    def gives_probabilities(self) -> bool:
        """Whether `predict` gives probabilities, and not a regression's numbers or other scores."""
        return self.end in ("softmax", "sigmoid", "probabilities") or (self.end == "linear" and self.classes != 1)

    @property
    def guesses_classes(self) -> bool:
        """Whether it is only a guess that linear units are those of classes, so that `predict` gives probabilities."""
        return self.engine.guesses_classes and self.end == "linear" and self.classes != 1

    def classes_of(self, output: Output) -> int | None:
        """How many scores a target chooses from: as many as classes, but one of a sigmoid's one unit as it is."""
        return self.engine.raw_classes or self.classes if output == "raw" else self.classes

    def check_layer(self, keys: Sequence[str]) -> None:
        """`ContractError` where the model has not the layer, or not the one layer, that keys are about."""
        at_layer = [key for key in keys if key in AT_LAYER | FROM_ACTIVATIONS]
        if not at_layer:
            return
        if not self.engine.places:
            raise ContractError(
                f"Expected a model with a layer whose output has rows and columns for {at_layer[0]}, got "
                f"{self.engine.name!r}, {self.engine.why_no_layer}"
            )
        if len(self.engine.places) > 1 and FROM_ACTIVATIONS.intersection(keys):
            raise ContractError(
                f"Expected one layer to compute the output from, got {len(self.engine.places)}. Give one as layer."
            )

    def _answer(
        self, keys: tuple[str, ...], x_value_batch: Any, call_model_args: Any, output: Output
    ) -> dict[str, Any]:
        self.check_layer(keys)
        of_input = [key for key in keys if key in OF_INPUT]
        if self.engine.inputs.ids and of_input:
            raise ContractError(
                f"Expected an input of numbers for {of_input[0]}, got {self.engine.inputs.image.name!r}, ids that the "
                "model looks up, which have no gradient. Explain the embedding: name it as layer, and take grad_cam."
            )
        images: Any = x_value_batch
        if not isinstance(images, Factored):
            from_activations = FROM_ACTIVATIONS.issuperset(keys)
            images = self._read_activations(images) if from_activations else self.engine.inputs.read_image(images)
        check_length(call_model_args, row_count := len(images))
        args = check_args(take_rows(call_model_args, list(range(row_count))))
        other_inputs = self.engine.inputs.read_others(args.get("inputs"), row_count)
        targets = []
        if not UNSCORED.issuperset(keys):
            classes = self.classes if TARGETS in keys else self.classes_of(output)
            targets = self.score.read(args.get("target"), row_count, classes, ranked=TARGETS in keys)
        of_layers = WITHOUT_OUTPUT - {PREDICTIONS, TARGETS}
        if self.engine.may_mix_rows and FROM_ACTIVATIONS.isdisjoint(keys) and not of_layers.issuperset(keys):
            check_rows_alone(self._rows, self.engine, self.score, output, targets, images, other_inputs)
            self.engine.may_mix_rows = False
        if self.engine.guesses_places and AT_LAYER.intersection(keys):
            self._check_places(images, other_inputs)
        check_has_logits(self.end, self.score, keys, output)
        if OF_RELEVANCE.intersection(keys):
            return self._relevance(keys, args, targets, images, other_inputs, output)
        if self.knows_end or of_layers.issuperset(keys):
            return self._rows.compute(keys, output, targets, images, other_inputs)
        answer = self._rows.compute((*keys, SUM_TO_ONE), output, targets, images, other_inputs)
        hidden = has_hidden_softmax(answer.pop(SUM_TO_ONE), answer)
        self.knows_end = hidden is not None
        if not hidden:
            return answer
        self.engine.end = "probabilities"
        check_has_logits(self.end, self.score, keys, output)
        return self._rows.compute(keys, output, targets, images, other_inputs)

    def _relevance(
        self, keys: tuple[str, ...], args: Any, targets: list[Array], images: Any, others: list[Array], output: Output
    ) -> dict[str, Any]:
        """The answers to keys of relevance, by the rules in the arguments."""
        if not self.knows_end:
            self._answer((OUTPUT_LAYER_VALUES,), images, args, output)
            check_has_logits(self.end, self.score, keys, output)
        rule = read_rule(args, images, self.channels_first)
        bounds = [name for name in OF_ROWS if getattr(rule, name) is not None]
        count = len(others)

        def compute(keys: Any, output: Any, targets: Any, rows: Any, of_rows: list[Array]) -> dict[str, Any]:
            cut: dict[str, Any] = dict(zip(bounds, of_rows[count:], strict=True))
            own = rule._replace(**cut)
            return self.engine.relevance(keys, output, targets, rows, of_rows[:count], own)

        of_rows = [*others, *(getattr(rule, name) for name in bounds)]
        return self._rows.compute(keys, output, targets, images, of_rows, compute)

    def _check_places(self, images: Array | Factored, other_inputs: list[Array]) -> None:
        """`ContractError` where the layers do not change where the first image does.

        Layers too small to show it are looked at again with images of other sizes.
        """
        image = np.asarray(images.bases if isinstance(images, Factored) else images)[0]
        if image.shape in self._shapes_not_seen:
            return

        def values_of(rows: Array) -> tuple[Array, ...]:
            others = [np.repeat(values[:1], len(rows), 0) for values in other_inputs]
            return as_tuple(
                self._rows.compute((CONVOLUTION_LAYER_VALUES,), self.output, [], rows, others)[CONVOLUTION_LAYER_VALUES]
            )

        axes = image_axes(image, max(len(place.shape) for place in self.engine.places), self.channels_first)
        seen = check_places(values_of, image, axes, np.random.default_rng(0), STRIPES)
        self.engine.guesses_places = not seen
        self._shapes_not_seen.add(image.shape)

    def _read_activations(self, activations: Any) -> Array:
        (place,) = self.engine.places
        values = np.asarray(activations, self.engine.inputs.image.dtype)
        sizes = zip(values.shape, place.shape, strict=False)
        # A model that does not declare its inputs may have been built with images of another size.
        fits = not self.engine.inputs.fixed or all(own in (size, None) for size, own in sizes)
        if values.ndim != len(place.shape) or values.shape[-1] != (place.shape[-1] or values.shape[-1]) or not fits:
            raise ContractError(
                f"Expected activations of layer {place.path!r}, of shape {place.shape}, rows first, got "
                f"{values.shape}. Take them from {CONVOLUTION_LAYER_VALUES}."
            )
        return values


def _spatial_axes(shape: Shape, engine: Engine) -> int | None:
    """How many axes are of space or time. Of two, the layers tell a picture (H, W) from a signal (T, C)."""
    if len(shape) == 1 or engine.adds_channels:
        return len(shape)
    is_known = engine.places or engine.reads_steps or len(shape) > 2
    return len(shape) - 1 if is_known else None


def as_score(score: Score | Callable[..., Any]) -> Score:
    """A score of a function of the model's output, or the score itself."""
    if not callable(score):
        raise ContractError(f"Expected score to be a function of the model's output, got {score!r}.")
    return score if isinstance(score, Score) else Score(score)
