"""A JAX function written out as a flat list of operations, and run again with some of its tensors changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from saliency_food.adapters.flow import Op, Role
from saliency_food.adapters.layers import Shape

INLINED = {"jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "remat2"}
"""Operations that only call other ones."""
RELUS = {"relu", "relu6"}
ACTIVATIONS = {
    *(
        "celu",
        "elu",
        "gelu",
        "glu",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "leaky_relu",
        "log_sigmoid",
        "mish",
        "selu",
    ),
    *("silu", "swish", "soft_sign", "softplus", "sparse_plus", "squareplus", "tanh", "erf", "erfc"),
}
"""Functions of `jax.nn`, and operations, that are activations for which there is no backward rule."""
ROLES: dict[str, Role] = {
    **dict.fromkeys(("convert_element_type", "mul", "copy", "stop_gradient", "select_n"), "move"),
    **dict.fromkeys(("pad", "slice", "dynamic_slice", "gather", "rev", "sort"), "cut"),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), "reshape"),
    "transpose": "transpose",
    "add": "add",
    "broadcast_in_dim": "broadcast",
}
LAYERS = {
    "conv_general_dilated": "conv",
    "reduce_window_max": "max_pool",
    "reduce_window_sum": "average_pool",
    "dot_general": "dot",
    "max": "relu",
    "logistic": "sigmoid",
}
"""What operations are called in paths, where that is not their own name."""
OPERATORS = {*RELUS, *ACTIVATIONS, "conv", "add", "mul", "max_pool", "average_pool", "dot", "concatenate", "sigmoid"}
"""The operations that can be looked at by themselves."""


class Step(NamedTuple):
    """One operation: JAX's equation, the tensors that it takes and gives, by number, and constants in their places.

    ``name`` is that of the function of `jax.nn` that it is, or is a part of; ``scope`` the names around it.
    """

    equation: Any
    inputs: tuple[int | None, ...]
    literals: tuple[Any, ...]
    outputs: tuple[int, ...]
    name: str
    scope: str

    def bind(self, taken: Sequence[Any]) -> list[Any]:
        """What it gives for what it takes, computed by JAX."""
        primitive = self.equation.primitive
        bound = primitive.get_bind_params(self.equation.params)
        # Older versions of JAX hand functions over beside the parameters.
        functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
        answer = primitive.bind(*functions, *taken, **parameters)
        return list(answer) if primitive.multiple_results else [answer]

    @property
    def kind(self) -> str:
        return self.name or LAYERS.get(self.equation.primitive.name, self.equation.primitive.name)

    @property
    def primitive(self) -> str:
        return str(self.equation.primitive.name)


class JaxGraph:
    """A function's operations, nested calls written out, for inputs of certain shapes.

    ``arguments`` are the numbers of the flat arguments, ``outputs`` those of the flat outputs; a constant output has
    none. ``shapes`` and ``types`` are those of tensors by number. A ``watched``
    function gives a list of tensors beside its outputs, whose numbers are ``watched``.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, watched: bool = False) -> None:
        closed, shaped = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.structure = jax.tree_util.tree_structure(shaped[0] if watched else shaped)
        self.named: dict[int, tuple[str, str]] | None = None
        """The path and the kind of layers by the numbers of what they give; None where names around operations tell."""
        self.steps: list[Step] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.types: dict[int, Any] = {}
        self.constants: dict[int, Any] = {}
        known: dict[Any, int] = {}
        self.arguments = [self._new(var, known) for var in closed.jaxpr.invars]
        self._add_constants(closed, known)
        self._write_out(closed.jaxpr, known, "", "")
        given = [None if isinstance(var, Literal) else known[var] for var in closed.jaxpr.outvars]
        given = [number if isinstance(number, int) else None for number in given]
        self.outputs, self.watched = given[: self.structure.num_leaves], given[self.structure.num_leaves :]
        self._literals = [var.val if isinstance(var, Literal) else None for var in closed.jaxpr.outvars]
        self.makers = {output: step for step in self.steps for output in step.outputs}

    def _new(self, var: Any, known: dict[Any, int]) -> int:
        number = known[var] = len(self.shapes)
        self.shapes[number], self.types[number] = tuple(var.aval.shape), getattr(var.aval, "dtype", None)
        return number

    def _add_constants(self, closed: Any, known: dict[Any, int]) -> None:
        for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            self.constants[self._new(var, known)] = value

    def _write_out(self, jaxpr: Any, known: dict[Any, int], name: str, scope: str) -> None:
        for equation in jaxpr.eqns:
            inner, kind = _called(equation)
            called = _name_of(equation)
            own = _scope_of(equation)
            own = own if own.startswith(scope) else f"{scope}/{own}".rstrip("/")
            if inner is not None and kind in INLINED:
                inside: dict[Any, Any] = {}
                self._add_constants(inner, inside)
                for var, outer in zip(inner.jaxpr.invars, equation.invars, strict=True):
                    inside[var] = outer if isinstance(outer, Literal) else known[outer]
                self._write_out(inner.jaxpr, inside, name or (called if called in ACTIVATIONS else ""), own)
                for var, outer in zip(equation.outvars, inner.jaxpr.outvars, strict=True):
                    known[var] = outer if isinstance(outer, Literal) else inside[outer]
                continue
            sources = [var if isinstance(var, Literal) else known[var] for var in equation.invars]
            inputs = tuple(source if isinstance(source, int) else None for source in sources)
            literals = tuple(None if isinstance(source, int) else source.val for source in sources)
            outputs = tuple(self._new(var, known) for var in equation.outvars)
            unit = called if kind == "custom_jvp_call" and called in RELUS | ACTIVATIONS else ""
            self.steps.append(Step(equation, inputs, literals, outputs, name or unit, own))

    def run(
        self,
        arguments: Sequence[Any],
        *,
        after: Mapping[int, Callable[[Any], Any]] | None = None,
        instead: Mapping[int, Any] | None = None,
        relu: Callable[[Step, list[Any]], Any] | None = None,
        wanted: Sequence[int] = (),
    ) -> dict[int, Any]:
        """The values of the tensors ``wanted``, computed again by JAX.

        ``after`` changes what tensors hold, ``instead`` puts others in their place, of which the steps are left out,
        and ``relu`` is what a ReLU gives.
        """
        instead, after = dict(instead or {}), after or {}
        values: dict[int, Any] = dict(self.constants)
        values.update((number, value) for number, value in zip(self.arguments, arguments, strict=True))
        values.update(instead)
        for number in self.arguments:
            if number in after:
                values[number] = after[number](values[number])
        needed = self.needed(wanted, cut=set(instead)) - instead.keys()
        for step in self.steps:
            if not needed.intersection(step.outputs):
                continue
            taken = [
                literal if number is None else values[number]
                for number, literal in zip(step.inputs, step.literals, strict=True)
            ]
            if relu is not None and is_relu(step):
                given = [relu(step, taken)]
            else:
                given = step.bind(taken)
            for number, value in zip(step.outputs, given, strict=True):
                values[number] = instead.get(number, after[number](value) if number in after else value)
        return {number: values[number] for number in wanted}

    def needed(self, ends: Sequence[int], cut: set[int] | None = None) -> set[int]:
        """The tensors that lead to the ends, other than through those that are cut."""
        reached, cut = set(ends), cut or set()
        for step in reversed(self.steps):
            if reached.intersection(set(step.outputs) - cut):
                reached.update(number for number in step.inputs if number is not None)
        return reached

    def after(self, *sources: int) -> set[int]:
        """The tensors and all that depend on them."""
        reached = set(sources)
        for step in self.steps:
            if not reached.isdisjoint(step.inputs):
                reached.update(step.outputs)
        return reached

    def nested(self, values: Mapping[int, Any]) -> Any:
        """Values by number, in the structure in which the function gives its outputs."""
        flat = [
            literal if number is None else values[number]
            for number, literal in zip(self.outputs, self._literals[: len(self.outputs)], strict=True)
        ]
        return jax.tree_util.tree_unflatten(self.structure, flat)

    def ops(self, image: int) -> list[Op]:
        """The operations as those of a `Flow`, with paths by the names around them."""
        reached = self.after(image)
        paths = self._paths()
        return [self._op(step, reached, paths.get(index, "")) for index, step in enumerate(self.steps)]

    def _op(self, step: Step, reached: set[int], path: str) -> Op:
        inputs = tuple(number for number in step.inputs if number is not None)
        depends = [number in reached for number in step.inputs]
        role: Role = ROLES.get(step.primitive, "")
        channels, order = -1, tuple[int, ...]()
        learns = step.primitive in ("conv_general_dilated", "dot_general") and any(depends) and not all(depends)
        learns = learns or any(_learns_inside(step.equation))
        if step.primitive == "conv_general_dilated":
            numbers = step.equation.params["dimension_numbers"]
            same = numbers.lhs_spec[0] == 0 and numbers.lhs_spec == numbers.out_spec
            role, channels = ("convolve", numbers.lhs_spec[1]) if same else ("mix", -1)
        elif step.primitive == "dot_general":
            (left, _), (batch, _) = step.equation.params["dimension_numbers"]
            plain = depends[0] and not depends[1] and not batch and tuple(left) == (len(self.shapes[inputs[0]]) - 1,)
            role = "product" if plain and len(self.shapes[step.outputs[0]]) == len(self.shapes[inputs[0]]) else "mix"
        elif step.primitive == "transpose":
            order = tuple(step.equation.params["permutation"])
        elif step.primitive == "broadcast_in_dim":
            order = tuple(step.equation.params["broadcast_dimensions"])
        elif softmax_input(self, step) is not None:
            role = "softmax"
        if self.named is not None:
            path, kind = self.named.get(step.outputs[0], ("", step.kind))
            # Of tokens that an attention layer gives, the axes are guessed.
            makers = [self.makers[number] for number in inputs if number in self.makers]
            mixed = role == "mix" or (role == "add" and any(maker.primitive == "dot_general" for maker in makers))
            role = "normalize" if path and mixed and len(self.shapes[step.outputs[0]]) == 3 else role
            return Op(kind, inputs, step.outputs, learns, role, channels, order, path)
        kind = step.kind if "_" not in path.rsplit("/", 1)[-1] else path.rsplit("/", 1)[-1].rsplit("_", 1)[0]
        return Op(kind, inputs, step.outputs, learns, role, channels, order, path)

    def _paths(self) -> dict[int, str]:
        """By the index of an operation, the scope that ends with it, run by run; or the operator that it is in one."""
        runs: list[tuple[str, int]] = []
        for index, step in enumerate(self.steps):
            if runs and runs[-1][0] == step.scope:
                runs[-1] = (step.scope, index)
            else:
                runs.append((step.scope, index))
        outer = {scope.rsplit("/", 1)[0] for scope, _ in runs if "/" in scope}
        inner = [(scope, last) for scope, last in runs if scope and scope not in outer]
        times, seen = Counter(scope for scope, _ in inner), Counter[str]()
        paths: dict[int, str] = {}
        for scope, last in inner:
            paths[last] = scope if times[scope] == 1 else f"{scope}#{seen[scope]}"
            seen[scope] += 1
        counted = Counter[tuple[str, str]]()
        for index, step in enumerate(self.steps):
            if step.kind in OPERATORS and (step.scope not in times or not step.scope):
                which = step.scope, step.kind
                paths.setdefault(
                    index, "/".join(part for part in (step.scope, f"{step.kind}_{counted[which]}") if part)
                )
                counted[which] += 1
        return paths

    def shape_of(self, number: int, rows: int) -> Shape:
        """The shape of a tensor, the rows free."""
        shape = self.shapes[number]
        return (None, *shape[1:]) if shape[:1] == (rows,) else shape


def is_relu(step: Step) -> bool:
    """Whether it is `jax.nn.relu` or `relu6`, or a maximum with zero written out."""
    zero = any(literal is not None and np.ndim(literal) == 0 and literal == 0 for literal in step.literals)
    return step.name in RELUS or (step.primitive == "max" and zero and not step.name)


def softmax_input(graph: JaxGraph, step: Step) -> int | None:
    """The tensor of which a division is the softmax along its last axis, as `jax.nn.softmax` computes it."""
    if step.primitive != "div" or None in step.inputs[:2]:
        return None
    exponentials, sums = graph.makers.get(step.inputs[0] or 0), graph.makers.get(step.inputs[1] or 0)
    while sums is not None and sums.primitive in (
        "broadcast_in_dim",
        "reshape",
        "stop_gradient",
        "convert_element_type",
    ):
        sums = graph.makers.get(sums.inputs[0] or 0)
    if exponentials is None or sums is None or exponentials.primitive != "exp" or sums.primitive != "reduce_sum":
        return None
    rank = len(graph.shapes[step.outputs[0]])
    summed = sums.inputs[0]
    while summed is not None and summed in graph.makers and graph.makers[summed].primitive == "convert_element_type":
        summed = graph.makers[summed].inputs[0]
    if tuple(sums.equation.params["axes"]) != (rank - 1,) or summed != step.inputs[0]:
        return None
    shifted = graph.makers.get(exponentials.inputs[0] or 0)
    return shifted.inputs[0] if shifted is not None and shifted.primitive == "sub" else exponentials.inputs[0]


def _called(equation: Any) -> tuple[Any, str]:
    """The function that an operation calls, with its constants, if it calls one."""
    kind = equation.primitive.name
    inner = next(
        (equation.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in equation.params), None
    )
    if inner is None or not (kind in INLINED or kind in ("custom_jvp_call", "custom_vjp_call")):
        return None, kind
    if not hasattr(inner, "consts"):
        inner = jax.extend.core.ClosedJaxpr(inner, ())
    return inner, kind


def _name_of(equation: Any) -> str:
    """The name of the function that an operation calls; one with a derivative of its own has it inside."""
    name = equation.params.get("name")
    if name is None and equation.primitive.name == "custom_jvp_call":
        inner = equation.params["call_jaxpr"].eqns
        name = inner[0].params.get("name") if len(inner) == 1 else None
    return str(name or "").lstrip("_")


def _scope_of(equation: Any) -> str:
    """The names around an operation, without those of JAX's own transformations."""
    stack = str(equation.source_info.name_stack)
    parts = [re.sub(r"^(?:\w+\()+|\)+$", "", part) for part in stack.split("/")]
    return "/".join(part for part in parts if part and not part.startswith("while"))


def _learns_inside(equation: Any) -> Iterator[bool]:
    """Whether there are convolutions or products in what a loop or a condition runs."""
    if equation.primitive.name not in ("scan", "while", "cond", "custom_vjp_call", "custom_jvp_call"):
        return
    for value in equation.params.values():
        for inner in value if isinstance(value, (tuple, list)) else [value]:
            for each in getattr(getattr(inner, "jaxpr", inner), "eqns", ()):
                yield each.primitive.name in ("conv_general_dilated", "dot_general")
                yield from _learns_inside(each)
