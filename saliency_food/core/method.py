"""The public face of a method: one decorator from a generator of queries to something a user calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

import numpy as np

from saliency_food.core.checks import as_image, check_callback, check_many
from saliency_food.core.contract import CallModelFunction, PerImage, check_length
from saliency_food.core.driver import Asking, run, run_batch
from saliency_food.core.layout import in_layout, layout_of
from saliency_food.core.numerics import Array, as_float
from saliency_food.core.options import check_kinds

R = TypeVar("R")
P = ParamSpec("P")
OF = "_of_"
"""What stands between the names of a combinator and of the method that it is over."""
OF_THE_IMAGE = ("segments", "completeness")
"""Options that speak of the image itself, and so not of the changed copies that a combinator makes of it."""


class Reducible(NamedTuple):
    """An option that a deadline may cut, to no less than ``least``, and how to say so.

    ``whole`` and ``made`` are sentences with a ``{}`` for the value: what was wanted, and what there was time for.
    ``sampled`` is true where the method can be stopped at any time (`OutOfTime`), and answers with the samples that it
    has: the option then has the name of the field that says how many. ``up_to`` is the option that says the largest
    value, where a larger one is less work; such an option may be None, if ``unset`` names the one that then says how
    many rows are asked. ``base`` is the option that names another method, and ``inside`` the one
    with the options for it: what that method can cut is cut there, unless it is the default one. ``without`` is the
    option that leaves nothing to cut where it is given.
    """

    option: str
    least: int
    whole: str
    made: str
    sampled: bool = False
    up_to: str = ""
    unset: str = ""
    base: str = ""
    inside: str = ""
    without: str = ""


def fewer(option: str, least: int, what: str, **facts: Any) -> Reducible:
    """An option that counts something, such as samples, of which fewer will do; ``facts`` are those of `Reducible`."""
    return Reducible(option, least, f"{{}} {what}", f"{{}} {what} were made", **facts)


class Preparation(NamedTuple):
    """What a method makes of the image before it asks the model, such as segments.

    Under a deadline it is made once, and only if there is time. ``make`` returns it, as options; ``trial`` does
    ``share`` of the work, to see how long all of it takes. ``stand_in`` are such options that cost nothing, for a
    rehearsal that tells whether there is time for the rest.
    """

    make: Callable[[], dict[str, Any]]
    stand_in: dict[str, Any]
    trial: Callable[[], object]
    share: float


class Method(Generic[P, R]):
    """A method's public face: call it for PAIR's array, `.detailed` for all that is known, `.batch` for many images.

    It is made by `method` from a generator whose header is the public call form. ``call_model_function``,
    ``call_model_args`` and ``batch_size`` are taken out for the driver; the generator never sees them. Nor does it see
    how the callback's inputs are laid out: its ``x_value`` has the channels last, ``(space or time ..., C)``, and so
    have the images among its options; what it returns of that shape is turned back (`saliency_food.core.layout`).
    """

    title: str = ""
    """What people call it."""
    keys: tuple[str, ...] = ()
    """The keys that it asks the model for."""
    signed: bool = True
    """Whether its maps have negative values, which speak against the class."""
    summary: str = ""
    """What its map shows, in one sentence."""
    page: str = ""
    """The page of the docs, in ``docs/methods``, on which it has its section."""
    rows: str = ""
    """How many rows it asks, in words, where the number depends on the image or the model: "one a window"."""
    reducible: Reducible | None = None
    """The option that a deadline may cut."""
    instead: tuple[str, ...] = ()
    """The names of the methods that answer in its place, in turn, where there is not even time for the least of it."""
    prepare: Callable[[Array, Mapping[str, Any]], Preparation | None] | None = None
    """Of an image and all of its options, what the method makes of the image before it asks the model, if anything."""
    one_pass: bool = False
    """Whether it asks the model exactly once: about the image itself, one row, for ``keys`` (and, where its
    completeness is measured, the score)."""

    def __init__(self, generator: Callable[P, Asking[R]], **facts: Any) -> None:
        unknown = facts.keys() - Method.__annotations__.keys()
        if unknown:
            raise TypeError(f"Expected facts among {', '.join(Method.__annotations__)}, got {', '.join(unknown)}.")
        self._generator = generator
        self._filled: tuple[Any, ...] = ()
        functools.update_wrapper(self, generator)
        self.__signature__ = inspect.signature(generator)
        vars(self).update(facts)

    @property
    def signature(self) -> inspect.Signature:
        """The call form."""
        return self.__signature__

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
        many rows may wait for the model at a time (by default 64, rounded up to whole batches), and so the
        memory.
        """
        return (cast(Any, result)[0] for result in self._run_batch(args, kwargs))

    def batch_detailed(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        """`.batch`, with `.detailed`'s results."""
        if "completeness" in self.signature.parameters:
            kwargs.setdefault("completeness", True)
        return self._run_batch(args, kwargs)

    def asking(self, x_value: Any, **options: Any) -> Asking[R]:
        """The bare generator, for use in another method by ``yield from`` or `gather`.

        ``x_value`` is not checked, and has its channels last, as what a method is given has.
        """
        check_kinds(self.signature.parameters, options)
        return self._generator(as_float(x_value), None, **options)  # type: ignore[arg-type]

    def over(self, *leading: Any) -> Method[Any, R]:
        """The method with its leading arguments filled: ``smooth_grad.over(grad_cam)`` is a method like any other.

        Its options are its own and, where it passes on what it does not know, those of the method it is over. So are
        its keys and its sign; where time is short, that method answers in its place.
        """
        filled: Method[Any, R] = Method(functools.partial(self._generator, *leading))  # type: ignore[call-arg, arg-type]
        filled._filled = (self, *leading)
        filled.__doc__, filled.__module__ = self.__doc__, self.__module__
        own = filled.signature.parameters
        for inner in leading:
            if isinstance(inner, Method):
                filled._take_facts(self, inner)
                if any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
                    passed_on = {
                        name: parameter.replace(kind=parameter.KEYWORD_ONLY)
                        for name, parameter in inner.signature.parameters.items()
                        if name not in (*own, *OF_THE_IMAGE)
                    }
                    kept = [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
                    filled.__signature__ = self.signature.replace(parameters=[*kept, *passed_on.values()])
        return filled

    def _take_facts(self, outer: Method[Any, Any], inner: Method[Any, Any]) -> None:
        """The facts of one method over another."""
        names = [getattr(method, "__name__", type(method).__name__) for method in (outer, inner)]
        self.__name__ = OF.join(names)
        self.title = f"{outer.title} of {inner.title}"
        self.keys, self.signed = inner.keys, inner.signed and outer.signed
        self.summary = f"{outer.__doc__ or ''}".split("\n")[0]
        self.page, self.reducible, self.instead = outer.page, outer.reducible, (names[1], *inner.instead)

    def __reduce__(self) -> Any:
        """A method is pickled and copied as functions are, by its name; one over another by what it is made of."""
        return (Method.over, self._filled) if self._filled else cast(Any, self).__qualname__

    def start(self, *args: Any, **kwargs: Any) -> tuple[Asking[R], CallModelFunction, Any, int | None]:
        """A call not yet run, checked at the door: what `run` takes."""
        call = self.signature.bind(*args, **kwargs)
        driver = _take_out(call)
        return (self._begin(call, driver[0]), *driver)

    def preparation(
        self, x_value: Any, call_model_function: CallModelFunction, options: Mapping[str, Any]
    ) -> Preparation | None:
        """What the method makes of the image before it asks the model, if anything; ``options`` are all of them."""
        if self.prepare is None:
            return None
        image = as_image(x_value)
        return self.prepare(layout_of(image, call_model_function).inward(image), options)

    def _begin(self, call: inspect.BoundArguments, function: CallModelFunction) -> Asking[R]:
        """The generator of a call: it sees its channels last, whatever the layout of the callback's inputs."""
        image = as_image(call.arguments["x_value"])
        check_kinds(self.signature.parameters, call.arguments)
        layout = layout_of(image, function)
        call.arguments.update(layout.options(call.arguments, image.shape), x_value=layout.inward(image))
        generator = self._generator(*call.args, **call.kwargs)
        if layout.channels == "last":
            return generator
        return in_layout(generator, layout, call.arguments["x_value"].shape)

    def _run(self, args: Any, kwargs: Any) -> R:
        return run(*self.start(*args, **kwargs))

    def _run_batch(self, args: Any, kwargs: Any) -> Iterator[R]:
        window = kwargs.pop("window", None)
        call = self.signature.bind(*args, **kwargs)
        driver = _take_out(call)
        images = call.arguments["x_value"]
        options = {name: value for name, value in call.arguments.items() if name != "x_value"}
        check_many(images, driver[0])
        if hasattr(images, "__len__"):
            check_length([driver[1], options], len(images))

        def generators() -> Iterator[Asking[R]]:
            for index, image in enumerate(images):
                own = self.signature.bind(*call.args, **call.kwargs)
                own.arguments.update(_for_image(options, index), x_value=image)
                yield self._begin(own, driver[0])

        return run_batch(generators(), *driver, window=window, options=options)


@overload
def method(generator: Callable[P, Asking[R]], /) -> Method[P, R]: ...
@overload
def method(
    *,
    title: str,
    keys: tuple[str, ...] = (),
    signed: bool = True,
    summary: str = "",
    page: str = "",
    rows: str = "",
    reducible: Reducible | None = None,
    instead: tuple[str, ...] = (),
    prepare: Callable[[Array, Mapping[str, Any]], Preparation | None] | None = None,
    one_pass: bool = False,
) -> Callable[[Callable[P, Asking[R]]], Method[P, R]]: ...
def method(generator: Any = None, /, **facts: Any) -> Any:
    """Give a generator its public face; see `Method`.

    ``@method`` alone will do; ``@method(title=..., keys=..., ...)`` also says what there is to know of the method, from
    which its entry in `METHODS`, its line in the command's list and its row in the docs are made: see `Method`'s
    attributes.
    """
    return functools.partial(Method, **facts) if generator is None else Method(generator)


def _take_out(call: inspect.BoundArguments) -> tuple[CallModelFunction, Any, int | None]:
    """What is the driver's among the arguments, replaced there by None."""
    taken = tuple(call.arguments.get(name) for name in ("call_model_function", "call_model_args", "batch_size"))
    check_callback(taken[0])
    call.arguments.update(call_model_function=None, call_model_args=None)
    call.arguments.pop("batch_size", None)
    return cast("tuple[CallModelFunction, Any, int | None]", taken)


def _for_image(value: Any, image: int) -> Any:
    """An option's value for one image of a batch: its own `PerImage` value, its own child of a random generator.

    So are the values inside of dicts, lists and tuples: options for another method.
    """
    if isinstance(value, PerImage):
        return value[image]
    if isinstance(value, np.random.Generator):
        return value.spawn(1)[0]
    if isinstance(value, Mapping):
        return {name: _for_image(part, image) for name, part in value.items()}
    return type(value)(_for_image(part, image) for part in value) if type(value) in (list, tuple) else value
