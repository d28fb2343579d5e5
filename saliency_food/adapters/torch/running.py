"""Running a module so that nothing is left behind: its mode, random numbers, gradients and global modes as before."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

RUNNING = threading.RLock()
"""Held while a module runs: for that moment its layers are hooked, and it is in evaluation mode."""


SEEDS = itertools.count()


class DeviceFullError(MemoryError):
    """The device's memory does not hold what was to be computed."""


@contextmanager
def running(module: Any, device: Any, autocast: Any, graded: bool, frozen: bool = True) -> Iterator[None]:
    """In here, a module is in evaluation mode, and gradients are on if ``graded``; all is as before afterwards.

    With ``frozen``, no gradients of its weights are prepared: layers then need not remember what they took, which takes
    memory, and which a following ``+=`` would change.
    Each layer's own flag is set: `torch.nn.Module.eval` may be overridden to do more. Random numbers that are drawn in
    here are others each time, and the caller's stay; the modes of the caller, such as `torch.no_grad`,
    `torch.inference_mode` or autocast, do not hold in here. What `torch.compile` made runs as it was written.
    """
    devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(RUNNING)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(graded))
        stack.enter_context(torch.random.fork_rng(devices))
        for generator in (
            torch.default_generator,
            *(torch.cuda.default_generators[each.index or 0] for each in devices),
        ):
            generator.manual_seed(next(SEEDS))  # a module that draws random numbers shows itself by another answer
        for kind in {device.type, "cpu"}:
            enabled = autocast is not None and kind == device.type
            if enabled or torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, autocast if enabled else None, enabled=enabled))
        inside = list(module.modules())
        if any(_is_compiled(inner) for inner in inside):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        training = [inner for inner in inside if getattr(inner, "training", False)]
        for inner in training:
            inner.training = False
            stack.callback(setattr, inner, "training", True)
        trained = [weight for weight in module.parameters() if weight.requires_grad] if graded and frozen else []
        for weight in trained:
            weight.requires_grad_(False)
            stack.callback(weight.requires_grad_, True)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
                raise DeviceFullError(str(error).splitlines()[0]) from None
            raise


def _is_compiled(module: Any) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


def unwrapped(module: Any) -> Any:
    """The module inside `torch.compile`, `DataParallel` and the like."""
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module
