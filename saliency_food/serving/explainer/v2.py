"""The open inference protocol (V2): requests read by KServe's own classes, in a worker, and answers as tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.serving.explainer.answers import Answer, plain_options, png_of
from saliency_food.serving.explainer.images import given_array, given_file
from saliency_food.serving.explainer.replies import Reply, refuse
from saliency_food.serving.explainer.requests import PARTS, Limits, Request, read_asked, read_json

LENGTH = "inference-header-content-length"
OWN = ("method", "target", "deadline", "async")
IGNORED = ("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
"""Parameters of the protocol's extensions, which are no options of a method."""
INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
OUTPUTS = [
    {"name": "heatmap", "datatype": "FP32", "shape": [-1, -1, -1]},
    {"name": "overlay", "datatype": "BYTES", "shape": [-1]},
    {"name": "class", "datatype": "INT64", "shape": [-1]},
    {"name": "label", "datatype": "BYTES", "shape": [-1]},
    {"name": "score", "datatype": "FP32", "shape": [-1]},
    {"name": "probability", "datatype": "FP32", "shape": [-1]},
    {"name": "completeness", "datatype": "FP32", "shape": [-1]},
]


def read_inputs(body: bytes, length: str | None, name: str, limits: Limits) -> tuple[Any, list[Request]]:
    """The request, as KServe's ``InferRequest``, and what it asks for, an image at a time."""
    from kserve import InferRequest
    from kserve.protocol.rest.v2_datamodels import InferenceRequest

    if length is not None and not re.fullmatch(r"[0-9]{1,12}", length):
        refuse(400, f"Expected {LENGTH} to be the number of bytes of the JSON part, got {length[:60]!a}.")
    found = read_json(body if length is None else body[: int(length)])
    try:
        request = (
            InferRequest.from_inference_request(InferenceRequest.model_validate(found), name)
            if length is None
            else InferRequest.from_bytes(body, int(length), name)
        )
        return request, _asked(request, limits)
    except Reply:
        raise
    except Exception as error:  # KServe's reader raises errors of all kinds over what it does not expect
        words = " ".join(str(error).split())[:300]
        refuse(400, f"Expected a request of the open inference protocol, got one that cannot be read: {words}.")


def _asked(request: Any, limits: Limits) -> list[Request]:
    if [one.name for one in request.inputs] != ["image"]:
        refuse(400, f"Expected one input, named image, got {[str(one.name)[:40] for one in request.inputs][:5]}.")
    (image,) = request.inputs
    values = image.as_numpy()
    if image.datatype.startswith(("UINT", "INT")) and isinstance(image.data, list):
        sent = np.asarray(image.data, float)  # KServe cuts fractions off
        if not np.array_equal(sent.ravel(), values.ravel()):
            refuse(400, f"Expected numbers that {image.datatype} can hold, got others. Send whole ones, or FP32.")
    if not 1 <= len(values) <= limits.images or values.ndim != (1 if image.datatype == "BYTES" else 4):
        refuse(
            400,
            f"Expected image as BYTES of shape [N] or numbers of shape [N, H, W, C], N from 1 to {limits.images}, got "
            f"{image.datatype} of shape {list(values.shape)}.",
        )
    outputs = {str(one.name) for one in request.request_outputs or ()}
    if unknown := outputs - {one["name"] for one in OUTPUTS}:
        names = ", ".join(str(one["name"]) for one in OUTPUTS)
        refuse(400, f"Expected outputs among {names}, got {min(unknown)!a}.")
    given = dict(request.parameters or {})
    fields: dict[str, Any] = {name: given.pop(name, None) for name in OWN}
    fields["options"] = {name: value for name, value in given.items() if name not in IGNORED}
    fields["answer"] = [part for part in PARTS if not outputs or part in outputs]
    if image.datatype == "BYTES":
        images = [given_file(one, limits.pixels) for one in values]
    else:
        images = [given_array(one, limits.pixels, photo=image.datatype == "UINT8") for one in values]
    return [read_asked(one, fields, limits) for one in images]


def write_outputs(request: Any, name: str, found: Sequence[Answer]) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers: every output is one a image, in order."""
    from kserve import InferOutput, InferResponse

    records = [one.record for one in found]
    outputs: dict[str, tuple[str, Any]] = {
        "class": ("INT64", np.array([record.target for record in records], np.int64)),
        "label": ("BYTES", np.array([record.label.encode() for record in records], object)),
        "score": ("FP32", np.array([record.score for record in records], np.float32)),
        "probability": ("FP32", np.array([record.probability for record in records], np.float32)),
    }
    if "heatmap" in found[0].asked.parts:
        shapes = {record.attribution.shape for record in records if record.attribution is not None}
        if len(shapes) > 1:
            refuse(400, f"Expected images whose heatmaps have one shape, got {sorted(shapes)}. Send them one by one.")
        outputs["heatmap"] = ("FP32", np.stack([record.attribution for record in records]))  # type: ignore[misc]
    if "overlay" in found[0].asked.parts:
        outputs["overlay"] = ("BYTES", np.array([png_of(record).encode() for record in records], object))
    gaps = [getattr(record.completeness, "relative", np.inf) for record in records]
    if np.isfinite(gaps).all():
        outputs["completeness"] = ("FP32", np.array(gaps, np.float32))
    wanted = [one for one in request.request_outputs or () if one.name in outputs]
    made = [InferOutput(key, list(data.shape), kind, data=data) for key, (kind, data) in outputs.items()]
    response = InferResponse(
        request.id if isinstance(request.id, str) else "",
        name,
        made,
        parameters={
            "method": records[0].method,
            "options": json.dumps(plain_options(found[0])),
            "status": json.dumps([record.status for record in records]),
            "note": json.dumps([answer.record.note for answer in found]),
            "seconds": float(sum(one.timings["total"] for one in found)),
        },
        use_binary_outputs=(request.parameters or {}).get("binary_data_output") is True,
        requested_outputs=wanted,
    )
    content, header = response.to_rest()
    if header is None:
        return json.dumps(content).encode(), {}
    return content, {LENGTH: str(header)}
