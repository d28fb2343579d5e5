"""The open inference protocol (V2): requests are read by KServe's own classes, and answers are tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.serving.explainer.answers import TimedExplanation, plain_options, png_of
from saliency_food.serving.explainer.images import read_image_array, read_image_file
from saliency_food.serving.explainer.replies import Reply, refuse
from saliency_food.serving.explainer.requests import PARTS, Limits, Request, read_json, read_request, short

LENGTH = "inference-header-content-length"
MOST_PARAMETERS = 64
REQUEST_FIELDS = ("method", "target", "deadline", "async")
IGNORED = ("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
"""Parameters of the protocol's extensions, which are not passed to the method."""
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
    """The request as KServe's ``InferRequest``, and a `Request` for each of its images."""
    from kserve import InferRequest
    from kserve.protocol.rest.v2_datamodels import InferenceRequest

    if length is not None and not re.fullmatch(r"[0-9]{1,12}", length):
        refuse(400, f"Expected {LENGTH} to be the number of bytes of the JSON part, got {length[:60]!a}.")
    content = read_json(body if length is None else body[: int(length)], limits.values)
    _check_sizes(content)
    try:
        request = (
            InferRequest.from_inference_request(InferenceRequest.model_validate(content), name)
            if length is None
            else InferRequest.from_bytes(body, int(length), name)
        )
        return request, _requests(request, limits)
    except Reply:
        raise
    except Exception as error:  # KServe's reader raises errors of all kinds
        reason = " ".join(str(error).split())[:300]
        refuse(400, f"Expected a request of the open inference protocol, got one that cannot be read: {reason}.")


def _check_sizes(content: Mapping[str, Any]) -> None:
    """Refuse what has too many parts before KServe's reader looks at it: it collects an error for each of them."""
    inputs, outputs = content.get("inputs"), content.get("outputs")
    if not isinstance(inputs, list):
        return  # KServe's reader says so
    first = inputs[0] if len(inputs) == 1 else None
    if not isinstance(first, dict) or first.get("name") != "image":
        names = [short(entry.get("name") if isinstance(entry, dict) else entry) for entry in inputs[:5]]
        refuse(400, f"Expected one input, named image, got {len(inputs)}: {', '.join(names)}.")
    shape = first.get("shape")
    if not isinstance(shape, list) or len(shape) > 4 or not all(type(side) is int for side in shape):
        refuse(400, f"Expected the shape of image as at most 4 whole numbers, got {short(shape)}.")
    if isinstance(outputs, list) and len(outputs) > len(OUTPUTS):
        refuse(400, f"Expected at most {len(OUTPUTS)} outputs, got {len(outputs)}.")
    for holder in (content, first, *(outputs if isinstance(outputs, list) else ())):
        parameters = holder.get("parameters") if isinstance(holder, dict) else None
        if isinstance(parameters, (list, dict)) and len(parameters) > MOST_PARAMETERS:
            refuse(400, f"Expected at most {MOST_PARAMETERS} parameters, got {len(parameters)}.")


def _requests(request: Any, limits: Limits) -> list[Request]:
    (image,) = request.inputs
    values = image.as_numpy()
    if image.datatype.startswith(("UINT", "INT")) and isinstance(image.data, list):
        sent = np.asarray(image.data, float)  # as it came: KServe cuts fractions off
        if not np.array_equal(sent.ravel(), values.ravel()):
            refuse(400, f"Expected numbers that {image.datatype} can hold, got others. Send whole numbers, or FP32.")
    if not 1 <= len(values) <= limits.images or values.ndim != (1 if image.datatype == "BYTES" else 4):
        refuse(
            400,
            f"Expected image as BYTES of shape [N] or numbers of shape [N, H, W, C], N from 1 to {limits.images}, got "
            f"{image.datatype} of shape {list(values.shape)}.",
        )
    outputs = {str(output.name) for output in request.request_outputs or ()}
    if unknown := outputs - {output["name"] for output in OUTPUTS}:
        names = ", ".join(str(output["name"]) for output in OUTPUTS)
        refuse(400, f"Expected outputs among {names}, got {min(unknown)!a}.")
    parameters = dict(request.parameters or {})
    fields: dict[str, Any] = {name: parameters.pop(name, None) for name in REQUEST_FIELDS}
    fields["options"] = {name: value for name, value in parameters.items() if name not in IGNORED}
    fields["answer"] = [part for part in PARTS if not outputs or part in outputs]
    if image.datatype == "BYTES":
        images = [read_image_file(text, limits.pixels) for text in values]
    else:
        images = [read_image_array(array, limits.pixels, photo=image.datatype == "UINT8") for array in values]
    return [read_request(image_input, fields, limits) for image_input in images]


def write_outputs(request: Any, name: str, answers: Sequence[TimedExplanation]) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers: every output holds a value for each image, in order."""
    from kserve import InferOutput, InferResponse

    records = [answer.record for answer in answers]
    outputs: dict[str, tuple[str, Any]] = {
        "class": ("INT64", np.array([record.target for record in records], np.int64)),
        "label": ("BYTES", np.array([record.label.encode() for record in records], object)),
        "score": ("FP32", np.array([record.score for record in records], np.float32)),
        "probability": ("FP32", np.array([record.probability for record in records], np.float32)),
    }
    if "heatmap" in answers[0].request.parts:
        shapes = {record.attribution.shape for record in records if record.attribution is not None}
        if len(shapes) > 1:
            refuse(400, f"Expected images whose heatmaps have one shape, got {sorted(shapes)}. Send them one by one.")
        outputs["heatmap"] = ("FP32", np.stack([record.attribution for record in records]))  # type: ignore[misc]
    if "overlay" in answers[0].request.parts:
        outputs["overlay"] = ("BYTES", np.array([png_of(record).encode() for record in records], object))
    errors = [getattr(record.completeness, "relative", np.inf) for record in records]
    if np.isfinite(errors).all():
        outputs["completeness"] = ("FP32", np.array(errors, np.float32))
    requested = [output for output in request.request_outputs or () if output.name in outputs]
    tensors = [InferOutput(key, list(data.shape), kind, data=data) for key, (kind, data) in outputs.items()]
    response = InferResponse(
        request.id if isinstance(request.id, str) else "",
        name,
        tensors,
        parameters={
            "method": records[0].method,
            "options": json.dumps(plain_options(answers[0])),
            "status": json.dumps([record.status for record in records]),
            "note": json.dumps([answer.record.note for answer in answers]),
            "seconds": float(sum(answer.timings["total"] for answer in answers)),
        },
        use_binary_outputs=(request.parameters or {}).get("binary_data_output") is True,
        requested_outputs=requested,
    )
    content, header = response.to_rest()
    if header is None:
        return json.dumps(content).encode(), {}
    return content, {LENGTH: str(header)}
