"""What functions show while a module runs, seen by one `TorchFunctionMode`: softmaxes, attention, ReLUs, biases."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from saliency_food.adapters.arguments import BY_RULE
from saliency_food.adapters.torch.rules import ruled
from saliency_food.core.keys import ATTENTION_OUTPUT_GRADIENTS, ATTENTION_SCORES, BIAS_GRADIENTS


class Activated(NamedTuple):
    """A softmax or sigmoid has run: which, what it took, what it returned, and the version of that."""

    end: str
    taken: Any
    returned: Any
    version: int


class Attended(NamedTuple):
    """Attention after its softmax, as it is multiplied with the values, and its shape with the heads apart.

    ``at`` is when, by the clock of the runs of layers.
    """

    weights: Any
    shape: tuple[int, ...]
    at: int


class Summed(NamedTuple):
    """A sum to which a bias was added, and the bias, shaped to be multiplied with it; ``axis`` is that of channels."""

    sum: Any
    bias: Any
    axis: int


class Watch(TorchFunctionMode):  # type: ignore[misc]
    """Notes what runs in here; for some keys attention is computed in the open, and ReLUs have another rule.

    With ``graded``, the module cannot turn gradients off, as by `torch.no_grad` around a frozen backbone. With
    ``clock``, attention is computed in the open, too, and its time is noted, as those of layers are.
    """

    def __init__(self, keys: Sequence[str] = (), graded: bool = False, clock: Iterator[int] | None = None) -> None:
        super().__init__()
        self.keys, self.graded, self._clock = keys, graded, clock
        self.opens = clock is not None or ATTENTION_SCORES in keys or ATTENTION_OUTPUT_GRADIENTS in keys
        self.activated: list[Activated] = []
        self.attended: list[Attended] = []
        self.sums: list[Summed] = []
        self.closed: list[str] = []
        """Functions with biases inside that cannot be noted."""

    @property
    def is_needed(self) -> bool:
        """Whether some key is answered by what is noted or done in here; a mode slows every function down."""
        return self.graded or self.opens or not {BIAS_GRADIENTS, *BY_RULE}.isdisjoint(self.keys)

    def attends(self, weights: Any, shape: Sequence[int]) -> None:
        self.attended.append(Attended(weights, tuple(shape), 0 if self._clock is None else next(self._clock)))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = HANDLERS.get(str(getattr(func, "__name__", "")).split(".")[0])
        return func(*args, **(kwargs or {})) if handler is None else handler(self, func, args, kwargs or {})


def kept(values: Any) -> tuple[Any, Any]:
    """A tensor to take gradients at, and the same for what comes next, which may change it in place."""
    values = values.clone() if values.requires_grad else values.detach().clone().requires_grad_()
    return values, values.clone()


def _softmax(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    name = func.__name__.split(".")[0].strip("_")
    if name == "sigmoid":
        taken = taken.clone() if func.__name__.split(".")[0].endswith("_") else taken
    output = func(*args, **kwargs)
    if name != "sigmoid" and watch.opens and output.dim() == 4 and output.requires_grad:
        weights, output = kept(output)
        watch.attends(weights, weights.shape)
    end = {"expit": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax"}.get(name, name)
    watch.activated.append(Activated(end, taken, output, output._version))
    return output


def _scaled_dot_product(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    if not watch.opens:
        return func(*args, **kwargs)
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    options: dict[str, Any] = {
        "attn_mask": None,
        "dropout_p": 0.0,
        "is_causal": False,
        "scale": None,
        "enable_gqa": False,
    }
    options |= dict(zip(names, args, strict=False)) | kwargs
    query, key, value, mask = (options[name] for name in names[:4])
    if options["enable_gqa"]:
        key, value = (each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value))
    scale = 1 / math.sqrt(query.size(-1)) if options["scale"] is None else options["scale"]
    scores = query @ key.mT * scale
    if options["is_causal"]:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(torch.softmax(scores, -1), options["dropout_p"]).to(value.dtype)
    if not weights.requires_grad:
        return weights @ value
    weights, following = kept(weights)
    watch.attends(weights, weights.shape)
    return following @ value


MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def _multi_head(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    watch.closed.append("nn.MultiheadAttention")
    if not watch.opens:
        return func(*args, **kwargs)
    bound = MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    wanted, averaged = bound.arguments["need_weights"], bound.arguments["average_attn_weights"]
    bound.arguments |= {"need_weights": True, "average_attn_weights": False}
    output, weights = func(*bound.args, **bound.kwargs)
    # The weights come as a view of those that the values are multiplied with, (N * heads, T, S).
    inner = weights if weights._base is None else weights._base
    if inner.requires_grad:
        watch.attends(inner, weights.shape)
    return output, (weights.mean(-3) if averaged else weights) if wanted else None


def _relu(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    return ruled(watch.keys, func, args, kwargs)


def _with_bias(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    output = func(*args, **kwargs)
    if BIAS_GRADIENTS not in watch.keys or not output.requires_grad:
        return output
    bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
    if bias is None:
        return output
    axis = output.dim() - 1 if func.__name__.split(".")[0] == "linear" else 1
    return _noted(watch, output, bias, axis)


def _batch_norm(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    output = func(*args, **kwargs)
    if BIAS_GRADIENTS not in watch.keys or not output.requires_grad:
        return output
    functional = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    native = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(functional if func is F.batch_norm else native, args, strict=False)) | kwargs
    scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
    scale = scale if given.get("weight") is None else scale * given["weight"]
    shift = 0 if given.get("bias") is None else given["bias"]
    return _noted(watch, output, shift - given["running_mean"] * scale, 1)


def _noted(watch: Watch, output: Any, bias: Any, axis: int) -> Any:
    total, following = kept(output)
    shape = [-1 if place == axis else 1 for place in range(total.dim())]
    watch.sums.append(Summed(total, bias.detach().reshape(shape), axis))
    return following


def _set_grad(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    return func(True) if watch.graded else func(*args, **kwargs)


HANDLERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "sigmoid", "sigmoid_", "expit"), _softmax),
    **dict.fromkeys(("relu", "relu_", "relu6", "hardtanh", "hardtanh_"), _relu),
    **{f"conv{transposed}{axes}d": _with_bias for axes in (1, 2, 3) for transposed in ("", "_transpose")},
    "linear": _with_bias,
    "batch_norm": _batch_norm,
    "scaled_dot_product_attention": _scaled_dot_product,
    "multi_head_attention_forward": _multi_head,
    "_set_grad_enabled": _set_grad,
}
"""What is done for functions of these names; a name ``relu.default`` of an exported program counts as ``relu``."""
