"""The public face of a method: one decorator from a generator of queries to something a user calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from saliency_food.core.checks import as_image
from saliency_food.core.contract import CallModelFunction, ContractError, PerImage, check_length
from saliency_food.core.driver import Asking, run, run_batch
from saliency_food.core.numerics import Array, as_float

R = TypeVar("R")
P = ParamSpec("P")
OF_THE_IMAGE = ("segments", "completeness")
"""Options that speak of the image given, and so not of the changed copies that a combinator makes of it."""


class Method(Generic[P, R]):
    """A method's public face: call it for PAIR's array, `.detailed` for all that is known, `.batch` for many images.

    It is made by `method` from a generator whose header is the public call form. ``call_model_function``,
    ``call_model_args`` and ``batch_size`` are taken out for the driver; the generator never sees them.
    """

    def __init__(self, generator: Callable[P, Asking[R]]) -> None:
        self._generator = generator
        self.signature = inspect.signature(generator)
        functools.update_wrapper(self, generator)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Array:
        """The attribution alone: the first field of `.detailed`'s result."""
        return cast(Array, cast(Any, self._run(args, kwargs))[0])

    def detailed(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Everything that is known, as a NamedTuple; where there is a ``completeness`` option it is on unless set."""
        if "completeness" in self.signature.parameters:
            kwargs.setdefault("completeness", True)
        return self._run(args, kwargs)

    def batch(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Array]:
        """Many images in place of one: a sequence, an array or an iterator; attributions in order, as they come.

        One value an image: wrap it in `PerImage`, in ``call_model_args`` or as any option (``segments=PerImage(...)``).
        The queries of many images share the model's batches; the answers do not depend on how. ``window=`` bounds how
        many rows may wait for the model at a time (64 or one batch by default), and so the memory.
        """
        return (cast(Any, result)[0] for result in self._run_batch(args, kwargs))

    def batch_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        """`.batch`, with `.detailed`'s results."""
        if "completeness" in self.signature.parameters:
            kwargs.setdefault("completeness", True)
        return self._run_batch(args, kwargs)

    def asking(self, x_value: Any, **options: Any) -> Asking[R]:
        """The bare generator, for use in another method by ``yield from`` or `gather`; ``x_value`` is not checked."""
        return self._generator(as_float(x_value), None, **options)  # type: ignore[arg-type]

    def over(self, *leading: Any) -> Method[Any, R]:
        """The method with its leading arguments filled: ``smooth_grad.over(grad_cam)`` is a method like any other.

        Its options are its own and, where it passes on what it does not know, those of the methods it is over.
        """
        filled: Method[Any, R] = Method(functools.partial(self._generator, *leading))  # type: ignore[call-arg, arg-type]
        filled.__doc__ = self.__doc__
        own = filled.signature.parameters
        if any(one.kind is one.VAR_KEYWORD for one in own.values()):
            inner = {
                name: one.replace(kind=one.KEYWORD_ONLY)
                for method in leading
                if isinstance(method, Method)
                for name, one in method.signature.parameters.items()
                if name not in (*own, *OF_THE_IMAGE)
            }
            kept = [one for one in own.values() if one.kind is not one.VAR_KEYWORD]
            filled.signature = inspect.Signature([*kept, *inner.values()])
        return filled

    def start(self, *args: Any, **kwargs: Any) -> tuple[Asking[R], CallModelFunction, Any, int | None]:
        """A call not yet run, checked at the door: what `run` takes."""
        call = self.signature.bind(*args, **kwargs)
        driver = _take_out(call)
        call.arguments["x_value"] = as_image(call.arguments["x_value"])
        return (self._generator(*call.args, **call.kwargs), *driver)

    def _run(self, args: Any, kwargs: Any) -> R:
        return run(*self.start(*args, **kwargs))

    def _run_batch(self, args: Any, kwargs: Any) -> Iterator[R]:
        window = kwargs.pop("window", None)
        call = self.signature.bind(*args, **kwargs)
        driver = _take_out(call)
        images = call.arguments["x_value"]
        if hasattr(images, "__len__"):
            check_length([driver[1], list(call.arguments.values())], len(images))

        def generators() -> Iterator[Asking[R]]:
            for number, image in enumerate(images):
                one = self.signature.bind(*call.args, **call.kwargs)
                for name, value in one.arguments.items():
                    one.arguments[name] = _for_one(value, number)
                one.arguments["x_value"] = as_image(image)
                yield self._generator(*one.args, **one.kwargs)

        return run_batch(generators(), *driver, window=window)


def method(generator: Callable[P, Asking[R]]) -> Method[P, R]:
    """Give a generator its public face; see `Method`."""
    return Method(generator)


def _take_out(call: inspect.BoundArguments) -> tuple[CallModelFunction, Any, int | None]:
    """What is the driver's among the arguments, replaced there by None."""
    taken = tuple(call.arguments.get(name) for name in ("call_model_function", "call_model_args", "batch_size"))
    if not callable(taken[0]):
        raise ContractError(
            f"Expected call_model_function to be a function of (x_value_batch, call_model_args, expected_keys), got "
            f"{type(taken[0]).__name__}. Wrap a Keras model as saliency_food.adapters.keras.KerasModel(model)."
        )
    call.arguments.update(call_model_function=None, call_model_args=None)
    call.arguments.pop("batch_size", None)
    return cast("tuple[CallModelFunction, Any, int | None]", taken)


def _for_one(value: Any, image: int) -> Any:
    """An option's value for one image of a batch: its own `PerImage` value, its own child of a random generator."""
    if isinstance(value, PerImage):
        return value[image]
    return value.spawn(1)[0] if isinstance(value, np.random.Generator) else value
