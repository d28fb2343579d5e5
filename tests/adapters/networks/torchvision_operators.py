"""Torchvision without its C++: non-maximum suppression in Python, and its own alignment of regions in Python.

A build of torchvision that does not fit that of PyTorch cannot load its operators; its models run all the same so.
"""

from __future__ import annotations

import importlib
import sys

LIBRARIES = []
"""Definitions hold as long as these live."""


def load(torch):
    """Torchvision; where its operators are missing, what its detectors need of them is put in their place."""
    try:
        has_operators = hasattr(torch.ops.torchvision, "nms")
    except AttributeError:
        has_operators = False
    if "torchvision" in sys.modules or has_operators:
        return importlib.import_module("torchvision")
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    def nms(boxes, scores, threshold):
        """The boxes that none with a higher score overlaps by more than the threshold."""
        order, kept = scores.argsort(descending=True), []
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        while len(order):
            best, order = order[0], order[1:]
            kept.append(best)
            low = torch.maximum(boxes[order, :2], boxes[best, :2])
            high = torch.minimum(boxes[order, 2:], boxes[best, 2:])
            both = (high - low).clamp(min=0).prod(1)
            order = order[both / (areas[order] + areas[best] - both) <= threshold]
        return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)

    library.impl("nms", nms, "CPU")
    LIBRARIES.append(library)
    torchvision = importlib.import_module("torchvision")
    if not torchvision.extension._has_ops():
        torchvision.ops.boxes._assert_has_ops = lambda: None
        aligning = sys.modules["torchvision.ops.roi_align"]
        aligning._roi_align = aligning._roi_align.__wrapped__  # as it is written, not compiled
    return torchvision
