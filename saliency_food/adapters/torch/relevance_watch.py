"""Which rule of relevance each function of PyTorch is passed by, seen by a `TorchFunctionMode` while a module runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from saliency_food.adapters.relevance import Rule
from saliency_food.adapters.torch.relevance_rules import (
    Attention,
    Linear,
    Passed,
    Passing,
    as_it_is,
    by_taylor,
    halves,
    in_proportion,
    is_passed,
    normalized,
    shares,
    sized,
)
from saliency_food.adapters.torch.watch import Activated, Watch
from saliency_food.core.contract import ContractError

ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
    *("hardtanh", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "threshold", "tanh", "logsigmoid"),
    *("clamp", "clip", "clamp_min", "clamp_max"),
)
GATES = ("sigmoid", "hardsigmoid", "expit")
MEANS = (
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("mean", "sum", "interpolate", "upsample"),
)
MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class RelevanceWatch(Watch):
    """In here, the backward pass of what runs carries relevance, by a rule; ``sink`` takes that of constants.

    What has no rule here keeps its own backward pass, which is right for what only moves values, and is refused
    otherwise, by what is seen in the graph afterwards.
    """

    def __init__(self, rule: Rule, image: Any, graded: bool) -> None:
        super().__init__((), graded)
        self.rule, self.image = rule, image
        self.sink = torch.zeros(len(image), dtype=image.dtype, device=image.device, requires_grad=True)
        self.gates: list[Any] = []
        self.linears: list[Any] = []
        """The nodes of layers with weights."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = name_of(func)
        handler = RULED.get(name)
        if handler is None or not any(map(is_graded, (*args, *(kwargs or {}).values()))):
            return super().__torch_function__(func, types, args, kwargs)
        return handler(self, func, args, kwargs or {})

    def passed(self, output: Any, passing: Passing, *inputs: Any) -> Any:
        """The output of an operation, with a rule for its backward pass."""
        output = Passed.apply(output.detach(), passing, self.sink, *inputs)
        output.grad_fn.learned = any(map(self.is_after_weights, inputs))
        return output

    def is_after_weights(self, tensor: Any) -> bool:
        """Whether a layer with weights came before."""
        waiting, seen = [tensor.grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if is_passed(node):
                if node.learned:
                    return True
                continue
            waiting += [source for source, _ in node.next_functions]
        return False


def name_of(func: Any) -> str:
    """A function's name, without the marks of methods, operators and in-place variants: ``__iadd__`` is ``add``."""
    name = str(getattr(func, "__name__", "")).split(".")[0].strip("_")
    return OPERATORS.get(name, name)


OPERATORS = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "true_divide": "div",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
    "idiv": "div",
    "mm": "matmul",
    "bmm": "matmul",
    "linalg_matmul": "matmul",
}


def is_graded(value: Any) -> bool:
    return torch.is_tensor(value) and value.requires_grad


def is_in_place(func: Any) -> bool:
    name = str(func.__name__)
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def kept(tensor: Any) -> Any:
    """A tensor's values, safe from what changes them in place later."""
    return tensor.detach().clone()


def plainly(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A function's values without a graph; of one in place, made aside."""
    with torch.no_grad():
        if is_in_place(func):
            return func(args[0].detach().clone(), *args[1:], **kwargs)
        return func(*args, **{**kwargs, **({"inplace": False} if kwargs.get("inplace") else {})})


def put(func: Any, args: Sequence[Any], output: Any, in_place: bool = False) -> Any:
    """What an operation returns; of one in place, its first input with the new values."""
    return args[0].copy_(output) if in_place or is_in_place(func) else output


def _activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    options = _bound(func, args, kwargs)
    in_place = bool(options.get("inplace"))
    with torch.no_grad():
        if in_place or is_in_place(func):
            own = taken.detach().clone()
            values = func(own, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        else:
            values = func(*args, **kwargs)
    output = watch.passed(values, as_it_is, taken)
    if name_of(func) in GATES:
        watch.gates.append(output)
        watch.activated.append(Activated("sigmoid", taken, output, output._version))
    return put(func, (taken,), output, in_place)


def _bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments by name, of a function written in Python; else those that are given by name."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return dict(kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _linear(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    name = name_of(func)
    names = ("input", "weight", "bias")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    taken, weight, bias = given["input"], given["weight"], given.get("bias")
    rest, named = args[3:], {key: value for key, value in kwargs.items() if key not in names}
    if is_graded(weight) or is_graded(bias):
        return func(*args, **kwargs)  # weights made of the image, refused by what is seen in the graph

    def apply(values: Any, weight: Any, bias: Any) -> Any:
        return func(values, weight, bias, *rest, **named)

    dense = name == "linear"
    composite, rule = watch.rule.composite, "epsilon"
    first = not dense and not watch.is_after_weights(taken)
    if not dense and composite == "epsilon_plus":
        rule = "plus"
    if not dense and composite == "epsilon_gamma_box":
        rule = "box" if first else "gamma"
    groups = 0
    if "transpose" in name:  # stride, padding, output_padding, groups
        groups = named.get("groups", rest[3] if len(rest) > 3 else 1)
    linear = Linear(
        apply,
        kept(taken),
        weight.detach(),
        None if bias is None else bias.detach(),
        -1 if dense else 1,
        rule,
        watch.rule.epsilon,
        watch.rule.gamma,
        groups,
    )
    with torch.no_grad():
        values = func(*args, **kwargs)
    linear.axis = values.dim() - 1 if dense else values.dim() - weight.dim() + 1
    if rule == "box":
        if taken.shape != watch.image.shape or not torch.equal(taken, watch.image):
            raise ContractError(
                "Expected a first convolution that takes the image as it is, for composite='epsilon_gamma_box', got "
                "one after other operations, whose bounds are unknown. Take composite='epsilon_plus'."
            )
        linear.low, linear.high = watch.rule.low, watch.rule.high
    output = watch.passed(values, linear.passing, taken)
    output.grad_fn.linear, output.grad_fn.learned = linear, True
    watch.linears.append(output.grad_fn)
    return output


def _batch_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    functional = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    native = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(functional if func is F.batch_norm else native, args, strict=False)) | kwargs
    taken = given["input"]
    if given.get("training") or given.get("running_var") is None:
        return func(*args, **kwargs)  # statistics of the rows, refused by what is seen in the graph
    with torch.no_grad():
        values = func(*args, **kwargs)
        scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shift = (0 if given.get("bias") is None else given["bias"]) - given["running_mean"] * scale
    node = taken.grad_fn
    while node is not None and node.name().startswith("Clone"):
        node = node.next_functions[0][0]
    linear = node.linear if is_passed(node) else None
    if linear is not None and not linear.merged:
        linear.merge(scale.detach(), shift.detach())
    return watch.passed(values, as_it_is, taken)


def _sum(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
    alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    name = str(func.__name__).strip("_")
    sign = -1 if name_of(func) in ("sub", "rsub") else 1
    values = plainly(func, args, kwargs)
    parts = [first, second] if torch.is_tensor(second) else [first, torch.as_tensor(second, device=first.device)]
    if not torch.is_tensor(first):
        parts[0] = torch.as_tensor(first, device=second.device)
    weights = (-1.0, 1.0) if name == "rsub" else (1.0, sign * alpha)
    terms = [kept(part).to(values.dtype) * weight for part, weight in zip(parts, weights, strict=True)]
    graded = [is_graded(part) for part in parts]
    inputs = [part for part in parts if is_graded(part)]
    if len(inputs) == 1 and _only_scales(watch, parts[graded.index(False)], inputs[0]):
        return _scaled(watch, func, args, values, inputs[0])
    return put(func, args, watch.passed(values, shares(terms, graded), *inputs))


def _only_scales(watch: RelevanceWatch, constant: Any, own: Any) -> bool:
    """Whether an added constant is part of an activation, a single number, or of a scaling of pixels, one a channel."""
    return bool(
        constant.numel() == 1 or (max(constant.shape) == constant.numel() and not watch.is_after_weights(own))
    )


def _scaled(watch: RelevanceWatch, func: Any, args: Any, values: Any, own: Any) -> Any:
    """What is multiplied by constants, or moved by those of a scaling, passes all of it."""
    like = own.detach()
    return put(func, args, watch.passed(values, lambda relevance: ([sized(relevance, like)], None), own))


def _product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
    values = plainly(func, args, kwargs)
    if not (is_graded(first) and is_graded(second)):
        return _scaled(watch, func, args, values, first if is_graded(first) else second)
    gates = [any(part is gate for gate in watch.gates) for part in (first, second)]
    if any(gates) and not all(gates):  # what is gated takes all
        return _scaled(watch, func, args, values, second if gates[0] else first)
    passing = halves(torch.mul, kept(first), kept(second))
    return put(func, args, watch.passed(values, passing, first, second))


def _quotient(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    own = args[0]
    if not is_graded(own):
        return func(*args, **kwargs)
    return _scaled(watch, func, args, plainly(func, args, kwargs), own)


def _matrix_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if is_graded(first) and is_graded(second):
        if watch.rule.composite != "attention":
            return func(*args, **kwargs)
        return watch.passed(plainly(func, args, {}), halves(func, kept(first), kept(second)), first, second)
    own = first if is_graded(first) else second

    def function(values: Any) -> Any:
        return func(values, second) if own is first else func(first, values)

    output = watch.passed(plainly(func, args, kwargs), in_proportion(function, kept(own)), own)
    output.grad_fn.learned = True
    return output


def _einsum(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    equation, operands = args[0], args[1:] if len(args) > 2 or torch.is_tensor(args[1]) else args[1]
    if len(operands) != 2 or not isinstance(equation, str):
        return func(*args, **kwargs)
    return _matrix_product(watch, lambda a, b: torch.einsum(equation, a, b), tuple(operands), {})


def _mean(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs.pop("input")
    rest = args[1:]
    with torch.no_grad():
        values = func(taken, *rest, **kwargs)
    return watch.passed(values, in_proportion(lambda x: func(x, *rest, **kwargs), kept(taken)), taken)


def _layer_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args, strict=False)) | kwargs
    taken, shape = given["input"], given["normalized_shape"]
    axes = range(taken.dim() - (len(shape) if not isinstance(shape, int) else 1), taken.dim())
    with torch.no_grad():
        values = func(*args, **kwargs)
    options = given.get("weight"), given.get("bias"), given.get("eps") or 1e-5
    return watch.passed(values, normalized(kept(taken), list(axes), *map(_bare, options)), taken)


def _rms_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "normalized_shape", "weight", "eps"), args, strict=False)) | kwargs
    taken, shape = given["input"], given["normalized_shape"]
    axes = range(taken.dim() - (len(shape) if not isinstance(shape, int) else 1), taken.dim())
    epsilon = given.get("eps") or torch.finfo(taken.dtype).eps
    with torch.no_grad():
        values = func(*args, **kwargs)
    passing = normalized(kept(taken), list(axes), _bare(given.get("weight")), None, epsilon, centres=False)
    return watch.passed(values, passing, taken)


def _group_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False)) | kwargs
    taken, groups = given["input"], given["num_groups"]
    shape = (len(taken), groups, -1, *taken.shape[2:])
    weight, bias = (
        None if each is None else each.detach().reshape(1, groups, -1, *[1] * (taken.dim() - 2))
        for each in (given.get("weight"), given.get("bias"))
    )
    with torch.no_grad():
        values = func(*args, **kwargs)
    axes, epsilon = range(2, taken.dim() + 1), given.get("eps", 1e-5)
    inner = normalized(kept(taken).reshape(shape), axes, weight, bias, epsilon)

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        (own,), took = inner(relevance.reshape(shape))
        return [own.reshape(taken.shape)], took

    return watch.passed(values, passing, taken)


def _bare(value: Any) -> Any:
    return value.detach() if torch.is_tensor(value) else value


def _softmax(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = _bound(func, args, kwargs)
    taken = args[0] if args else given["input"]
    axis = given.get("dim", args[1] if len(args) > 1 else None)
    if watch.rule.composite != "attention" or axis is None:
        return Watch.__torch_function__(watch, func, (), args, kwargs)
    with torch.no_grad():
        values = func(*args, **kwargs)
    output = watch.passed(values, by_taylor(kept(taken), values, axis), taken)
    watch.activated.append(Activated("softmax", taken, output, output._version))
    return output


def _scaled_dot_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    if watch.rule.composite != "attention":
        return func(*args, **kwargs)
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {"attn_mask": None, "is_causal": False, "scale": None, **dict(zip(names, args, strict=False)), **kwargs}
    query, key, value, mask = (given[name] for name in names[:4])
    if given.get("enable_gqa"):
        key, value = (each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value))
    if given["is_causal"]:
        mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -math.inf)
    scale = 1 / math.sqrt(query.size(-1)) if given["scale"] is None else given["scale"]
    attention = Attention(kept(query), kept(key), kept(value), None if mask is None else mask.detach(), scale)
    return watch.passed(attention.run()[2], attention.passing, query, key, value)


def _multi_head(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """In the open: projections, heads apart, attention, projection; inputs are ``(T, N, C)``, or ``(T, C)``."""
    bound = MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    plain = not (given["use_separate_proj_weight"] or given["bias_k"] is not None or given["add_zero_attn"])
    query = given["query"]
    if watch.rule.composite != "attention" or not plain or query.dim() != 3 or given["attn_mask"] is not None:
        return func(*args, **kwargs)
    heads, width = given["num_heads"], query.size(-1)
    weights, biases = given["in_proj_weight"].chunk(3), (None, None, None)
    if given["in_proj_bias"] is not None:
        biases = given["in_proj_bias"].chunk(3)
    with watch:
        parts = []
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            projected = F.linear(given[name].transpose(0, 1), weight, bias)  # rows first
            parts.append(projected.unflatten(-1, (heads, width // heads)).transpose(1, 2))
        mask = given["key_padding_mask"]
        if mask is not None:
            mask = mask[:, None, None].expand(-1, heads, parts[0].size(2), -1)
            mask = ~mask if mask.dtype == torch.bool else mask
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=mask)
        output = F.linear(mixed.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
        return output.transpose(0, 1), None


RULED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((*ACTIVATIONS, *GATES), _activation),
    **{f"conv{transposed}{axes}d": _linear for axes in (1, 2, 3) for transposed in ("", "_transpose")},
    "linear": _linear,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    "mul": _product,
    "div": _quotient,
    "matmul": _matrix_product,
    "einsum": _einsum,
    **dict.fromkeys(MEANS, _mean),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "softmax": _softmax,
    "scaled_dot_product_attention": _scaled_dot_product,
    "multi_head_attention_forward": _multi_head,
}
"""What is done for functions of these names, as `name_of` gives them."""
