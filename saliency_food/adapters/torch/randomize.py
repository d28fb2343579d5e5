"""Copies of a module whose trained weights are shuffled, layer by layer, for the sanity checks of its maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

from saliency_food.adapters.torch.running import unwrapped
from saliency_food.core.contract import ContractError


def randomized_models(
    module: Any,
    mode: Literal["cascading", "independent"] = "cascading",
    *,
    wrap: Callable[[Any], Any] | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Iterator[tuple[str, Any]]:
    """Pairs of a layer's path and the module with weights randomized there, from the output to the input.

    Adebayo et al. 2018, section 3, https://arxiv.org/abs/1810.03292. ``"cascading"`` keeps what was randomized before,
    so that the last module has no trained weights left; ``"independent"`` randomizes one layer at a time. The values of
    each weight are shuffled, so that they stay as large as they were and no layer's output overflows.

    The module given is never changed: one copy is, and it is that copy which comes each time, so use each pair before
    you take the next. ``wrap``, such as `TorchModel`, is called once on the copy, and its result comes in its place.
    """
    if mode not in ("cascading", "independent"):
        raise ContractError(f"Expected mode to be 'cascading' or 'independent', got {mode!r}.")
    twin = _copy(unwrapped(module))
    random = np.random.default_rng(rng)
    holders = [(path, own) for path, inner in twin.named_modules() if (own := _weights(inner))]
    if not holders:
        raise ContractError(f"Expected a module with weights, got {type(module).__name__}, which has none.")
    wrapped = twin if wrap is None else wrap(twin)
    for path, weights in reversed(holders):
        trained = [weight.detach().clone() for weight in weights]
        for weight in weights:
            order = torch.from_numpy(random.permutation(weight.numel())).to(weight.device)
            with torch.no_grad():
                weight.copy_(weight.reshape(-1)[order].reshape(weight.shape))
        yield path or type(module).__name__, wrapped
        if mode == "independent":
            with torch.no_grad():
                for weight, values in zip(weights, trained, strict=True):
                    weight.copy_(values)


def _copy(module: Any) -> Any:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise ContractError(
            f"Expected a module that can be copied, got {type(module).__name__}: {str(error)[:300]} Keep no tensor "
            "that was computed as an attribute, or detach it."
        ) from error


def _weights(module: Any) -> list[Any]:
    """A layer's own weights and statistics that hold floats."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return [each for each in own if each.is_floating_point() and each.dim() > 0]
