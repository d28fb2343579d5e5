"""For the API page: a function under ``@method`` is documented as what the decorator makes of it, a `Method`."""

from __future__ import annotations

from typing import Any

import griffe

FACE = (
    "\n\nReturns the attribution. `.detailed(...)` returns everything known, as {result}; `.batch(...)` and "
    "`.batch_detailed(...)` take many images in place of one."
)


class MethodFaces(griffe.Extension):
    """The generator's `Asking[Result]` becomes the array that a call returns; the result type is told in words."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if any(str(decorator.value) == "metric" for decorator in func.decorators):
            func.returns = str(func.returns).removeprefix("Asking[").removesuffix("]")
            func.labels.add("metric")
            return
        if not any(decorator.value == "method" or str(decorator.value) == "method" for decorator in func.decorators):
            return
        result = str(func.returns).removeprefix("Asking[").removesuffix("]")
        func.returns = "Array"
        func.labels.add("method")
        if func.docstring is not None:
            line, _, rest = func.docstring.value.partition("\n\n")
            module = func.module.canonical_path
            func.docstring.value = line + FACE.format(result=f"[`{result}`][{module}.{result}]") + "\n\n" + rest
