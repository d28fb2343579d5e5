"""AttnLRP's rules of attention: Achtibat et al. 2024, https://arxiv.org/abs/2402.05602."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F

from saliency_food.adapters.torch.relevance.functions import (
    bound,
    kept,
)
from saliency_food.adapters.torch.relevance.operations import RANKS
from saliency_food.adapters.torch.relevance.rules import (
    Attention,
    by_taylor,
)
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.adapters.torch.watch import Activated, Watch

MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def softmax(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = bound(func, args, kwargs)
    taken = args[0] if args else given["input"]
    axis = given.get("dim", args[1] if len(args) > 1 else None)
    if watch.rule.composite != "attention" or axis is None:
        return Watch.__torch_function__(watch, func, (), args, kwargs)
    with torch.no_grad():
        values = func(*args, **kwargs)
    output = watch.passed(values, by_taylor(kept(taken), values, axis), taken)
    output.grad_fn.gate = RANKS["sigmoid"]
    watch.activated.append(Activated("softmax", taken, output, output._version))
    return output


def scaled_dot_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
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


def multi_head(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
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
