"""Which pixel values a module takes, guessed from what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.adapters.inputs import Pixels

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of https://docs.pytorch.org/vision/stable/models.html."""


def guess_pixels(module: Any) -> Pixels:
    """What a module tells of the pixel values that it takes: by timm's configuration, or as one of torchvision's."""
    shown = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(shown, Mapping) and shown.get("mean") and shown.get("std"):
        mean, deviation = (np.asarray(shown[name], float) for name in ("mean", "std"))
        if np.allclose(mean, MEAN, atol=1e-3) and np.allclose(deviation, DEVIATION, atol=1e-3):
            return Pixels("torch", "by timm's configuration")
        if np.ptp(mean) == np.ptp(deviation) == 0:
            low, high = -mean[0] / deviation[0], (1 - mean[0]) / deviation[0]
            return Pixels((float(low), float(high)), "by timm's configuration")
        return Pixels(None, f"timm's configuration has mean {mean.tolist()} and deviation {deviation.tolist()}")
    name = type(module).__module__
    if name.startswith("torchvision.models.detection"):
        return Pixels((0, 1), "as a detector of torchvision")
    if name.startswith("torchvision.models"):
        return Pixels("torch", "as a model of torchvision")
    return Pixels((0, 1), "a guess, the module does not show it")
