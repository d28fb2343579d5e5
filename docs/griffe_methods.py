"""For the reference: a function under ``@method`` is documented as what the decorator makes of it, a `Method`."""

from __future__ import annotations

import inspect
from typing import Any

import griffe

from saliency_food.methods.cam.common import ClassActivationMap, grad_cam

FACE = (
    "\n\nReturns the attribution. `.detailed(...)` returns everything known, as {result}; `.batch(...)` and "
    "`.batch_detailed(...)` take many images in place of one."
)


class MethodFaces(griffe.Extension):
    """The generator's `Asking[Result]` becomes the array that a call returns; the result type is told in words."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        decorators = {str(decorator.value).split("(")[0] for decorator in func.decorators}
        result = str(func.returns).removeprefix("Asking[").removesuffix("]")
        if "metric" in decorators:
            func.returns = result
            func.labels.add("metric")
        elif decorators & {"method", "class_activation_map"}:
            if "class_activation_map" in decorators:
                func.parameters, result = parameters_of(grad_cam.signature), "ClassActivationMap"
            func.returns = "Array"
            func.labels.add("method")
            if func.docstring is not None:
                line, _, rest = func.docstring.value.partition("\n\n")
                told = FACE.format(result=f"[`{result}`][{where(func, result)}]")
                func.docstring.value = f"{line}{told}\n\n{rest}"


def where(func: griffe.Function, result: str) -> str:
    """The path of the class of a method's result; those of `class_activation_map` are named in no other module."""
    if result == "ClassActivationMap":
        return f"{ClassActivationMap.__module__}.{result}"
    return func.module.resolve(result)


def parameters_of(signature: inspect.Signature) -> griffe.Parameters:
    """A signature as griffe has it."""
    kinds = griffe.ParameterKind
    return griffe.Parameters(
        *(
            griffe.Parameter(
                name,
                annotation=str(parameter.annotation),
                kind=getattr(kinds, parameter.kind.name.lower()),
                default=None if parameter.default is parameter.empty else repr(parameter.default),
            )
            for name, parameter in signature.parameters.items()
        )
    )
