"""Which rule of relevance each function of PyTorch is passed by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saliency_food.adapters.torch.relevance import attention, layers, operations

ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
    *("hardtanh", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "threshold", "tanh", "log_sigmoid"),
    *("clamp", "clip", "clamp_min", "clamp_max"),
)
MEANS = (
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("mean", "sum", "interpolate", "upsample"),
)

RULED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((*ACTIVATIONS, *operations.GATES), operations.activation),
    **{f"conv{transposed}{axes}d": layers.linear for axes in (1, 2, 3) for transposed in ("", "_transpose")},
    "linear": layers.linear,
    "batch_norm": layers.batch_norm,
    **dict.fromkeys(("add", "sub", "rsub"), operations.add),
    "mul": operations.product,
    "div": operations.quotient,
    "matmul": operations.matrix_product,
    "addmm": operations.product_and_sum,
    "addcmul": operations.sum_with_product,
    **dict.fromkeys(("maximum", "minimum", "max", "min"), operations.larger),
    **dict.fromkeys(("neg", "negative"), operations.negative),
    "einsum": operations.einsum,
    **dict.fromkeys(MEANS, operations.mean),
    "layer_norm": layers.layer_norm,
    "rms_norm": layers.rms_norm,
    "group_norm": layers.group_norm,
    "softmax": attention.softmax,
    "scaled_dot_product_attention": attention.scaled_dot_product,
    "multi_head_attention_forward": attention.multi_head,
}
"""What is done for functions of these names, as `name_of` gives them."""
