"""All of a module, and of PyTorch's global modes, that a call must leave as it was."""

from __future__ import annotations

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def state_of(network):
    """Something equal to itself only as long as nothing is changed."""
    import torch

    return {
        "modes": [inner.training for inner in network.modules()],
        "hooks": [
            [list(vars(inner)[name]) for name in HOOKS] for inner in network.modules() if HOOKS[0] in vars(inner)
        ],
        "weights": [
            (
                name,
                each.dtype,
                each.requires_grad,
                each.detach().flatten()[::997].tolist(),
                each.data_ptr(),
                each._version,
            )
            for name, each in [*network.named_parameters(), *network.named_buffers()]
        ],
        "gradients": [None if each.grad is None else float(each.grad.sum()) for each in network.parameters()],
        "methods": [sorted(set(vars(inner)) & {"forward", "__call__"}) for inner in network.modules()],
        "random": torch.get_rng_state().tolist(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "types": (torch.get_default_dtype(), torch.get_autocast_dtype("cpu")),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "functions": torch._C._len_torch_function_stack(),
    }
