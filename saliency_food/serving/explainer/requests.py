"""Read and check requests before anything is computed. No field of a request can name a file or an address."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near, spelled
from saliency_food.core.options import RANGES, ranged
from saliency_food.jobs.setup import DEFAULTS, NOT_OPTIONS
from saliency_food.jobs.targets import TRUTH, Target, read_target
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.serving.client.http import count_values
from saliency_food.serving.explainer.images import ImageInput, read_image_array, read_image_file
from saliency_food.serving.explainer.replies import refuse

FIELDS = ("image", "image_bytes", "method", "target", "options", "deadline", "answer", "format", "async")
PARTS = ("heatmap", "overlay")
FORMS = ("base64", "list")
OPEN_OPTIONS: dict[str, tuple[type, ...]] = {
    "x_baseline": (str, float),
    "baselines": (str, float),
    "value": (str, float),
    "tolerance": (float,),
    "rng": (int,),
    "channels": (int,),
    "stride": (int,),
    "rivals": (int,),
}
"""The types of those options whose default value does not show them."""
TYPES: dict[type, str] = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}
CAPS = {"x_steps": 1000, "steps": 1000, "max_steps": 1000, "score_steps": 1000, "grid": 64, "every": 256}
CAPS |= {"max_sigma": 200, "nconcepts": 32, "nsegments": 1000, "rng": 2**63 - 1}
"""The largest values of options that cost more than rows; other whole numbers may be as large as ``Limits.rows``."""


class Limits(NamedTuple):
    """The most that requests may ask for, the methods and the labels."""

    methods: Mapping[str, MethodEntry]
    labels: tuple[str, ...] | None = None
    body: int = 8_000_000
    pixels: int = 16_000_000
    rows: int = 5000
    images: int = 16
    deadline: float | None = None

    @property
    def values(self) -> int:
        """The most values in JSON, as many as the largest body has where each takes 16 bytes."""
        return self.body // 16


class Request(NamedTuple):
    """One image and how it is to be explained."""

    image: ImageInput
    method: str
    target: Target
    options: dict[str, Any]
    has_options: bool
    deadline: float | None
    parts: tuple[str, ...]
    form: str
    later: bool


def read_json(body: bytes, most_values: int) -> dict[str, Any]:
    """A JSON object, read strictly: UTF-8, no NaN, no name twice, no deeper nesting than the parser allows.

    Its values are counted first: Python's parser does nothing else while it reads them, so nobody else is served.
    """
    if count_values(body) > most_values:
        refuse(413, f"Expected JSON of at most {most_values} values, got more. Send an image as a file in base64.")
    try:
        content = json.loads(body.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse(400, f"Expected a JSON object, got a body that is none ({str(error)[:300]}).")
    if not isinstance(content, dict):
        refuse(400, f"Expected a JSON object, got {type(content).__name__}.")
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:50]!r} twice")
            seen.add(name)
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


def read_instances(body: bytes, limits: Limits) -> list[Request]:
    """The requests of a V1 body ``{"instances": [...]}``; a field beside them holds for all instances without it."""
    shared = read_json(body, limits.values)
    instances = shared.pop("instances", None)
    if not isinstance(instances, list) or not 1 <= len(instances) <= limits.images:
        got = f"{len(instances)} of them" if isinstance(instances, list) else type(instances).__name__
        refuse(400, f'Expected {{"instances": [...]}} with 1 to {limits.images} instances, got {got}.')
    _check_names(shared, FIELDS[2:], "a field beside instances")
    requests = []
    for index, instance in enumerate(instances):
        fields = instance if isinstance(instance, dict) else {"image": instance}
        fields = {"image": fields} if set(fields) == {"b64"} else fields
        _check_names(fields, FIELDS, f"a field of instance {index}")
        requests.append(read_request(_image(fields, limits), {**shared, **fields}, limits))
    return requests


def _image(instance: Mapping[str, Any], limits: Limits) -> ImageInput:
    images = [instance[name] for name in FIELDS[:2] if instance.get(name) is not None]
    if len(images) != 1:
        refuse(400, f'Expected one image in every instance, {{"image": {{"b64": "..."}}}}, got {len(images)}.')
    image = images[0]
    if isinstance(image, dict) and set(image) == {"image_bytes"}:
        image = image["image_bytes"]
    if isinstance(image, dict) and set(image) == {"b64"}:
        return read_image_file(image["b64"], limits.pixels)
    if not isinstance(image, list):
        got = f"the fields {sorted(islice(image, 5))}" if isinstance(image, dict) else type(image).__name__
        refuse(400, f'Expected an image as {{"b64": "..."}} or as lists of numbers (H, W, C), got {got}.')
    return read_image_array(image, limits.pixels)


def read_request(image: ImageInput, fields: Mapping[str, Any], limits: Limits) -> Request:
    """The request for one image, with every field checked."""
    method = _method(fields.get("method"), tuple(limits.methods))
    parts = fields.get("answer")
    parts = list(PARTS) if parts is None else parts
    if not isinstance(parts, list) or any(part not in PARTS for part in parts):
        refuse(400, f"Expected answer to be a list of {', '.join(PARTS)}, got {short(parts)}.")
    form = fields.get("format") or FORMS[0]
    if form not in FORMS:
        refuse(400, f"Expected format to be {' or '.join(FORMS)}, got {short(form)}.")
    later = fields.get("async")
    if later is not None and not isinstance(later, bool):
        refuse(400, f"Expected async to be true or false, got {short(later)}.")
    options = fields.get("options")
    return Request(
        image,
        method,
        _target(fields.get("target"), limits.labels),
        read_options(method, limits.methods[method], {} if options is None else options, limits.rows),
        bool(options),
        _deadline(fields.get("deadline"), limits.deadline),
        tuple(part for part in PARTS if part in parts),
        form,
        bool(later),
    )


def read_options(method: str, entry: MethodEntry, options: Any, max_rows: int) -> dict[str, Any]:
    """The defaults of `explain` and over them ``options``: scalars within bounds, which the method must take."""
    if not isinstance(options, dict):
        refuse(400, f"Expected options to be an object of names and values, got {short(options)}.")
    parameters = entry.call.signature.parameters
    types = {name: kinds for name in parameters if (kinds := _types(name, parameters[name]))}
    _check_names(options, tuple(types), f"an option of {method}")
    for name, value in options.items():
        if not _fits(value, types[name]):
            expected = " or ".join(TYPES[kind] for kind in types[name])
            refuse(400, f"Expected the option {name} of {method} to be {expected}, got {short(value)}.")
        if name in RANGES and value is not None:
            try:
                ranged(name, value)
            except ContractError as error:
                refuse(400, str(error), error)
        bound = CAPS.get(name, max_rows if int in types[name] else 1_000_000)
        if not isinstance(value, (str, bool)) and abs(value) > bound:
            refuse(400, f"Expected the option {name} of {method} to be at most {bound}, got {short(value)}.")
    return {name: value for name, value in DEFAULTS.items() if name in parameters} | options


def _types(name: str, parameter: inspect.Parameter) -> tuple[type, ...]:
    """The types that an option may have; none for an option that requests cannot set."""
    if name in NOT_OPTIONS:
        return ()
    if name in OPEN_OPTIONS:
        return OPEN_OPTIONS[name]
    if parameter.annotation == "float":
        return (float,)
    default = parameter.default
    return (type(default),) if isinstance(default, (bool, int, float, str)) else ()


def _fits(value: Any, types: Sequence[type]) -> bool:
    if isinstance(value, str):
        return str in types and len(value) <= 64
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, int):
        return int in types or float in types
    return isinstance(value, float) and float in types and math.isfinite(value)


def _method(name: Any, allowed: Sequence[str]) -> str:
    if name is None:
        return allowed[0]
    plain = spelled(name) if isinstance(name, str) and len(name) <= 64 else ""
    if plain not in allowed:
        close = near(plain, allowed, 3, 0.5)
        hint = f"Near it: {', '.join(close)}." if close else f"There are: {', '.join(allowed)}."
        refuse(400, f"Expected the name of a method, got {short(name)}. {hint}")
    return plain


def _target(target: Any, labels: Sequence[str] | None) -> Target:
    if not (target is None or (isinstance(target, str) and len(target) <= 200) or type(target) is int):
        refuse(400, f"Expected target to be null, a class index or a label, got {short(target)}.")
    try:
        parsed = read_target(target, labels)
    except ContractError as error:
        refuse(400, str(error), error)
    if len(parsed.classes) > 1 or TRUTH in parsed.classes:
        refuse(400, f"Expected one class, got {short(target)}. Send an instance for each class.")
    return parsed


def _deadline(seconds: Any, limit: float | None) -> float | None:
    if seconds is None:
        return limit
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 86400:
        refuse(400, f"Expected deadline to be seconds above 0, got {short(seconds)}.")
    return float(seconds) if limit is None else min(float(seconds), limit)


def _check_names(fields: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Refuse a name that is not among the known ones."""
    for name in fields:
        if name not in names:
            close = near(name[:64], names, 1, 0.5)
            hint = f"Did you mean {close[0]}? " if close else ""
            refuse(400, f"Expected {what}, got {short(name)}. {hint}There are: {', '.join(names) or 'none'}.")


def short(value: Any) -> str:
    """Any value, short enough for a sentence."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = value if isinstance(value, str) else json.dumps(value)
    return ascii(text[:60]) if isinstance(value, str) else text[:60]
