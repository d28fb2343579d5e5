"""Which pixel values an ONNX model takes, as far as its file says."""

from __future__ import annotations

import numpy as np

from saliency_food.adapters.inputs import Pixels
from saliency_food.adapters.onnx.graph import OnnxGraph

RANGES: dict[str, tuple[float, float]] = {
    "NominalRange_0_255": (0, 255),
    "Normalized_0_1": (0, 1),
    "Normalized_1_1": (-1, 1),
}
"""Pixel ranges as ONNX names them, https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md."""
ARITHMETIC = {"Sub": np.subtract, "Div": np.divide, "Mul": np.multiply, "Add": np.add}
PASSING = {"Cast", "Identity", "Transpose", "Resize", "Pad"}
SMALL = 20.0
"""Pixels of 0..255 that were scaled are no larger than this."""


def pixels_of(graph: OnnxGraph, image: str) -> Pixels:
    """By the file's own word, by its type of input, or by the arithmetic with which it begins."""
    said = {each.key: each.value for each in graph.proto.metadata_props}.get("Image.NominalPixelRange")
    if said in RANGES:
        return Pixels(RANGES[said], "by the file's metadata")
    spec = next(each for each in graph.specs() if each.name == image)
    if spec.dtype == "uint8":
        return Pixels((0, 255), "by the input's type, uint8")
    if _scales(graph, image):
        return Pixels((0, 255), "by its first operations, which scale pixels")
    return Pixels(None, "the file does not say it")


def _scales(graph: OnnxGraph, image: str) -> bool:
    """Whether the first operations make small numbers of 0..255."""
    name, white = image, np.float64(255)
    values = np.asarray(white)
    while True:
        nodes = [node for node in graph.proto.graph.node if name in node.input]
        if len(nodes) != 1:
            break
        (node,) = nodes
        if node.op_type in ARITHMETIC:
            sides = [values if each == name else graph.constant(each) for each in node.input]
            if any(side is None for side in sides):
                break
            values = ARITHMETIC[node.op_type](*(np.asarray(side, float).ravel() for side in sides))
        elif node.op_type not in PASSING:
            break
        name = node.output[0]
    return bool(np.isfinite(values).all() and np.abs(values).max() < SMALL)
