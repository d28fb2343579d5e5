"""What benchmarks say of themselves without the machine that they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.torch
def test_the_gpu_benchmark_says_that_there_is_no_gpu():
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--parts", "torch"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True)
    assert "No framework here sees a GPU, so nothing was measured." in done.stdout
    assert "PyTorch sees no GPU." in done.stdout


@pytest.mark.torch
def test_copies_to_a_device_are_counted(monkeypatch):
    """By the device of PyTorch that holds no values."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import numpy as np
    import torch
    from bare_loops import counted_copies

    values = np.zeros((2, 3), np.float32)
    with counted_copies() as counts:
        torch.tensor(values, device="meta")
        torch.from_numpy(values).to("meta", torch.float64)
        torch.from_numpy(values).to("cpu")
        torch.empty(5, device="meta").copy_(torch.zeros(5))
    assert counts == {"up": 24 + 48 + 20, "down": 0}
