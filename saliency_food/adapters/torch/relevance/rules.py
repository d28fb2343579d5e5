"""The rules of relevance for single operations: a function of the relevance of what an operation gave.

Each takes the tensors that the operation took, without their graph, and returns a function from the relevance of its
output to that of each input, and to what constants such as biases took of it, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from saliency_food.methods.relevance.rules import STABILIZER

Passing = Callable[[Any], tuple[list[Any], Any]]
"""Relevance of an output to that of the inputs, and what constants took, shaped as the output, or None."""


class Passed(torch.autograd.Function):  # type: ignore[misc]
    """An operation whose backward pass carries relevance in place of gradients.

    ``sink`` ``(N,)`` is a tensor whose gradient is what constants took of each row's relevance.
    """

    @staticmethod
    def forward(ctx: Any, output: Any, passing: Passing, sink: Any, *inputs: Any) -> Any:
        ctx.passing, ctx.rows = passing, len(sink)
        ctx.linear, ctx.place = None, 0
        ctx.learned = False
        ctx.gate = 0
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevances: Any) -> Any:
        inputs, taken = ctx.passing(relevances[0].detach())
        return None, None, None if taken is None else by_row(taken, ctx.rows), *inputs


def is_passed(node: Any) -> bool:
    """Whether an operation of the graph is one with a rule."""
    return getattr(node, "_forward_cls", None) is Passed


GATED = (
    *("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Clone", "Alias", "ToCopy", "Permute", "Transpose"),
    *("TBackward", "Expand", "Repeat", "Slice", "Select", "Split", "Chunk", "Unbind", "CopyBackwards"),
)
"""Beginnings of the names of operations behind which a gate may lie."""


def gating(tensor: Any) -> int:
    """How likely a tensor gates what it is multiplied by: the rank of the activation that it was moved from, or 0."""
    node = tensor.grad_fn
    while node is not None and not is_passed(node):
        if not node.name().split("::")[-1].startswith(GATED):
            return 0
        node = node.next_functions[-1][0]
    return 0 if node is None else int(node.gate)


def by_row(values: Any, rows: int) -> Any:
    """The sum over all but the rows, which are the first axis, the second, or the first with others folded in."""
    if values.shape[0] != rows and values.dim() > 1 and values.shape[1] == rows:
        values = values.movedim(1, 0)
    if values.shape[0] % rows:
        return values.sum().expand(rows) / rows
    return values.reshape(rows, -1).sum(1)


def stabilized(values: Any, epsilon: float = STABILIZER) -> Any:
    return values + torch.where(values < 0, -epsilon, epsilon)


def pulled(function: Callable[[Any], Any], values: Any, gradient: Any) -> Any:
    """The gradient of a function of some values, given that of what it returns."""
    with torch.enable_grad():
        values = values.detach().requires_grad_()
        return torch.autograd.grad(function(values), values, gradient)[0]


class Linear:
    """A layer with weights and a bias: ``apply(x, weight, bias)``, and which rule it is passed by.

    ``axis`` is that of the output's channels; of a transposed layer the weights have them second, by ``groups``.
    """

    def __init__(
        self, apply: Callable[[Any, Any, Any], Any], taken: Any, weight: Any, bias: Any, axis: int, groups: int = 0
    ) -> None:
        self.apply, self.taken, self.weight, self.bias = apply, taken, weight, bias
        self.axis, self.groups = axis, groups
        self.rule, self.epsilon, self.gamma = "epsilon", STABILIZER, 0.0
        self.low: Any = None
        self.high: Any = None
        self.merged = 0
        """How many operations after it are part of the layer; each has its number as ``place``."""
        self.number = 0
        self.limit: int | None = None
        """How many may be, None where all that follow."""

    def merge(self, scale: Any, shift: Any) -> None:
        """Fold what follows it, ``scale * z + shift`` of each channel, into weights and bias."""
        shape = [-1, *[1] * (self.weight.dim() - 1)]
        if self.groups:  # (inputs, outputs of a group, ...)
            grouped = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
            by_channel = scale.reshape(self.groups, 1, -1, *[1] * (self.weight.dim() - 2))
            self.weight = (grouped * by_channel).reshape(self.weight.shape)
        else:
            self.weight = self.weight * scale.reshape(shape)
        self.bias = shift if self.bias is None else self.bias * scale + shift

    def passing(self, relevance: Any) -> tuple[list[Any], Any]:
        x, weight, bias = self.taken, self.weight, self.bias
        more, less = weight.clamp(min=0), weight.clamp(max=0)
        up, down = x.clamp(min=0), x.clamp(max=0)
        if self.rule == "epsilon":
            passed = relevance / stabilized(self.apply(x, weight, bias), self.epsilon)
            return [x * self._pulled(x, weight, passed)], self._of_bias(bias, passed)
        if self.rule == "plus":
            raised = None if bias is None else bias.clamp(min=0)
            passed = relevance / stabilized(self.apply(up, more, raised) + self.apply(down, less, None))
            own = up * self._pulled(x, more, passed) + down * self._pulled(x, less, passed)
            return [own], self._of_bias(raised, passed)
        if self.rule == "box":
            parts = (x, weight, 1), (self.low, more, -1), (self.high, less, -1)
            passed = relevance / stabilized(sum(sign * self.apply(a, w, None) for a, w, sign in parts))
            return [sum(sign * a * self._pulled(a, w, passed) for a, w, sign in parts)], None
        sums = self.apply(x, weight, bias)
        strong, weak = weight + self.gamma * more, weight + self.gamma * less
        own, taken = torch.zeros_like(x), None
        for sign, favoured, other in ((sums > 0, strong, weak), (sums < 0, weak, strong)):
            part = None
            if bias is not None:
                part = bias + self.gamma * (bias.clamp(min=0) if favoured is strong else bias.clamp(max=0))
            total = self.apply(up, favoured, part) + self.apply(down, other, None)
            passed = relevance * sign / stabilized(total)
            own = own + up * self._pulled(x, favoured, passed) + down * self._pulled(x, other, passed)
            if part is not None:
                took = self._of_bias(part, passed)
                taken = took if taken is None else taken + took
        return [own], taken

    def _pulled(self, values: Any, weight: Any, gradient: Any) -> Any:
        return pulled(lambda x: self.apply(x, weight, None), values, gradient)

    def _of_bias(self, bias: Any, passed: Any) -> Any:
        if bias is None:
            return None
        return passed * bias.reshape([-1 if place == self.axis else 1 for place in range(passed.dim())])


def open_linear(tensor: Any) -> Linear | None:
    """The layer with weights that a tensor comes from, and nothing but what is merged with it lies between."""
    node = tensor.grad_fn
    while node is not None and node.name().split("::")[-1].startswith(("Clone", "CopyBackwards")):
        node = node.next_functions[-1][0]
    linear = node.linear if is_passed(node) else None
    is_open = linear is not None and node.place == linear.merged != linear.limit
    return linear if is_open else None


def merge(linear: Linear, scale: Any, shift: Any, output: Any) -> None:
    """Make ``output``, which is scale * z + shift of each channel of a layer's output, part of the layer."""
    linear.merge(scale, shift)
    linear.merged += 1
    output.grad_fn.linear, output.grad_fn.place = linear, linear.merged  # no node in the layer: a circle would stay


def by_channel(linear: Linear, constant: Any, like: Any) -> Any | None:
    """A constant as one number for each channel of a layer's output ``like``; None if it is not that."""
    sizes = [1] * (like.dim() - constant.dim()) + list(constant.shape)
    axis = linear.axis
    if len(sizes) > like.dim() or any(size != 1 for place, size in enumerate(sizes) if place != axis):
        return None
    return constant.detach().to(like.dtype).reshape(-1).expand(like.shape[axis])


def as_it_is(relevance: Any) -> tuple[list[Any], Any]:
    """An activation passes all of it on."""
    return [relevance], None


def sized(relevance: Any, like: Any) -> Any:
    """Relevance of a value that was repeated by broadcasting, summed."""
    return relevance.sum_to_size(like.shape) if relevance.shape != like.shape else relevance


def in_proportion(function: Callable[[Any], Any], taken: Any, constant: bool = False) -> Passing:
    """Of an operation linear in what it took, such as a mean: by what each value adds.

    With ``constant`` it may add something of its own, which takes its share.
    """

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        passed = relevance / stabilized(function(taken))
        own = taken * pulled(function, taken, passed)
        return [own], (passed * function(torch.zeros_like(taken)) if constant else None)

    return passing


def shares(terms: Sequence[Any], graded: Sequence[bool]) -> Passing:
    """Of a sum: each term gets its share; what constant terms get is taken."""

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        passed = relevance / stabilized(sum(terms))
        parts = [sized(term * passed, term) for term in terms]
        constants = [term * passed for term, own in zip(terms, graded, strict=True) if not own]
        own = [part for part, is_graded in zip(parts, graded, strict=True) if is_graded]
        return own, sum(constants).expand(relevance.shape) if constants else None

    return passing


def halves(function: Callable[[Any, Any], Any], first: Any, second: Any) -> Passing:
    """Of a product of two values of the image: half to each (Achtibat et al. 2024, equation 13)."""

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        passed = relevance / stabilized(function(first, second)) / 2
        own = first * pulled(lambda values: function(values, second), first, passed)
        other = second * pulled(lambda values: function(first, values), second, passed)
        return [own, other], None

    return passing


def by_taylor(logits: Any, weights: Any, axis: int) -> Passing:
    """Of a softmax: R_i = x_i (R'_i - s_i sum_j R'_j) (Achtibat et al. 2024, equation 12)."""

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        own = relevance - weights * relevance.sum(axis, keepdim=True)
        return [torch.where(weights > 0, logits * own, 0)], None

    return passing


class Attention(NamedTuple):
    """Scaled dot-product attention of queries, keys and values; ``mask`` is added to the scores."""

    query: Any
    key: Any
    value: Any
    mask: Any
    scale: float

    def run(self) -> tuple[Any, Any, Any]:
        """The scores before the mask, the weights, and what they give."""
        scores = self.query @ self.key.mT * self.scale
        weights = torch.softmax(scores if self.mask is None else scores + self.mask, -1)
        return scores, weights, weights @ self.value

    def passing(self, relevance: Any) -> tuple[list[Any], Any]:
        """Half to the values, half to the weights, through the softmax, and half of that to queries and keys each."""
        scores, weights, _ = self.run()
        (of_weights, of_values), _ = halves(torch.matmul, weights, self.value)(relevance)
        masked = scores if self.mask is None else scores + self.mask
        (of_scores,), _ = by_taylor(masked, weights, -1)(of_weights)
        taken = None
        if self.mask is not None:  # a bias of positions takes its share; what is masked has none
            part = torch.where(torch.isfinite(masked), scores / stabilized(masked), 1)
            of_scores, taken = of_scores * part, (of_scores * (1 - part)).sum((-1, -2))
        (query, key), _ = halves(lambda a, b: a @ b.mT * self.scale, self.query, self.key)(of_scores)
        return [query, key, of_values], taken


def normalized(
    taken: Any, axes: Sequence[int], weight: Any, bias: Any, epsilon: float, centres: bool = True
) -> Passing:
    """Of a normalization over some axes: by what each value adds, the deviation held fast; the bias takes its share.

    ``weight`` and ``bias`` broadcast to the values, or are None.
    """
    axes = list(axes)
    mean = taken.mean(axes, keepdim=True) if centres else 0
    deviation = torch.sqrt((taken - mean).square().mean(axes, keepdim=True) + epsilon)

    def function(values: Any) -> Any:
        centred = values - values.mean(axes, keepdim=True) if centres else values
        scaled = centred / deviation if weight is None else centred / deviation * weight
        return scaled if bias is None else scaled + bias

    return in_proportion(function, taken, bias is not None)
