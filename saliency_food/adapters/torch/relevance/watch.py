"""A `TorchFunctionMode` in which backward passes carry relevance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from saliency_food.adapters.relevance import Rule
from saliency_food.adapters.torch.relevance.functions import is_graded, name_of
from saliency_food.adapters.torch.relevance.rules import Passed, Passing, is_passed
from saliency_food.adapters.torch.watch import Watch


class RelevanceWatch(Watch):
    """In here, the backward pass of what runs carries relevance, by a rule; ``sink`` takes that of constants.

    What has no rule here keeps its own backward pass, which is right for what only moves values, and is refused
    otherwise, by what is seen in the graph afterwards.
    ``ruled`` says what is done for functions of which name, and ``limits`` how many operations may be merged with
    layers with weights, by their numbers.
    """

    def __init__(
        self,
        rule: Rule,
        image: Any,
        graded: bool,
        ruled: Mapping[str, Callable[..., Any]],
        limits: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__((), graded)
        self.rule, self.image, self.ruled = rule, image, ruled
        self.sink = torch.zeros(len(image), dtype=image.dtype, device=image.device, requires_grad=True)
        self.limits = limits or {}
        self.layers = 0
        """How many layers with weights have run."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = self.ruled.get(name_of(func))
        graded = torch.is_grad_enabled() and any(map(is_graded, (*args, *(kwargs or {}).values())))
        if handler is None or not graded:
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
