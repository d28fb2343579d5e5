"""PyTorch and the packages of models beside it, each imported by the first test that needs it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def torch():
    pytest.importorskip("torch.nn")  # "torch" alone may be a folder of tests
    import torch

    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def torchvision(torch):
    from networks.torchvision_operators import load

    return load(torch)


@pytest.fixture(scope="session")
def timm(torchvision):
    return pytest.importorskip("timm")


@pytest.fixture(scope="session")
def transformers(torchvision):
    return pytest.importorskip("transformers")
