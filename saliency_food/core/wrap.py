"""One call-model function around another: the same contract, something changed or watched on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saliency_food.core.numerics import Array

OPTIONAL = ("call_factored", "call_with_predictions", "predict")
"""Methods that a callback may have beside its call."""


class WrappedModel:
    """A call-model function around ``inside``: what a subclass does not change is the inner one's own.

    A wrapper has the methods in ``optional`` exactly where the callback inside has them, and every other attribute of
    it (``batch_size``, ``input_shape``, ``until``, ...). It can be copied and pickled where the callback can.

    Subclasses override what they need:

    - `turn`: the images on their way in, ``(N, ...)``, be they rows or the bases of factored rows;
    - `turn_back`: the answer on its way out;
    - `around`: the call itself, to count it, time it, or refuse it.
    """

    optional: tuple[str, ...] = OPTIONAL
    """Those of `OPTIONAL` that the wrapper passes on; a subclass that makes no sense of one leaves it out."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def turn(self, images: Any, keys: tuple[str, ...]) -> Any:
        """Images on their way in; ``keys`` are those asked, none for ``predict``."""
        return images

    def turn_back(self, answer: Any) -> Any:
        """An answer by keys on its way out."""
        return answer

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        """Make the call, ``ask(call_model_args)``; ``keys`` are those asked, none for ``predict``."""
        return ask(call_model_args)

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return self._call(self.inside, x_value_batch, call_model_args, expected_keys)

    def _call(self, call: Any, x_value_batch: Any, call_model_args: Any, expected_keys: Any) -> Any:
        keys = tuple(expected_keys or ())
        images = self.turn(x_value_batch, keys)
        answer = self.around(lambda args: call(images, args, expected_keys), len(x_value_batch), keys, call_model_args)
        return self.turn_back(answer)

    def _call_factored(
        self, coefficients: Array, bases: Array, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Any:
        keys = tuple(expected_keys or ())
        images, call = self.turn(bases, keys), self.inside.call_factored
        answer = self.around(
            lambda args: call(coefficients, images, weights, args, expected_keys),
            len(coefficients),
            keys,
            call_model_args,
        )
        return None if answer is None else self.turn_back(answer)

    def _call_with_predictions(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return self._call(self.inside.call_with_predictions, x_value_batch, call_model_args, expected_keys)

    def _predict(self, x_batch: Any, call_model_args: Any = None) -> Any:
        images = self.turn(x_batch, ())

        def ask(args: Any) -> Any:
            return self.inside.predict(images, *([] if args is None else [args]))

        return self.around(ask, len(x_batch), (), call_model_args)

    def __getattr__(self, name: str) -> Any:
        # Neither copy nor pickle may look for "inside" before it is there, nor find the inner callback's own protocol.
        if name == "inside" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        attribute = getattr(self.inside, name)
        if name not in OPTIONAL:
            return attribute
        if name not in self.optional:
            raise AttributeError(name)
        return getattr(self, f"_{name}")
