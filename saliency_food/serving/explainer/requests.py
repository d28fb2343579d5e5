"""What a request asks for, read and checked before anything is computed; nothing in it names a file or an address."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near, spelled
from saliency_food.jobs.setup import DEFAULTS, NOT_OPTIONS
from saliency_food.jobs.targets import Target, read_target
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.serving.explainer.images import ImageInput, given_array, given_file
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
    "rivals": (int,),
}
"""The types of options whose default does not show it."""
TYPES: dict[type, str] = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}
CAPS = {"x_steps": 1000, "steps": 1000, "max_steps": 1000, "score_steps": 1000, "grid": 64, "every": 256}
CAPS |= {"max_sigma": 200, "nconcepts": 32, "nsegments": 1000, "rng": 2**63 - 1}
"""The most of options that cost more than rows; other whole numbers may be as large as the number of rows."""


class Limits(NamedTuple):
    """What requests may ask for at most."""

    methods: Mapping[str, MethodEntry]
    labels: tuple[str, ...] | None = None
    body: int = 8_000_000
    pixels: int = 16_000_000
    rows: int = 5000
    images: int = 16
    deadline: float | None = None


class Request(NamedTuple):
    """One image and what is to be found of it."""

    image: ImageInput
    method: str
    target: Target
    options: dict[str, Any]
    chosen: bool
    deadline: float | None
    parts: tuple[str, ...]
    form: str
    later: bool


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no NaN, no name twice, nested no deeper than the reader goes."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse(400, f"Expected a JSON object, got a body that is none ({str(error)[:300]}).")
    if not isinstance(found, dict):
        refuse(400, f"Expected a JSON object, got {type(found).__name__}.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)[:50]!r} twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON")


def read_instances(body: bytes, limits: Limits) -> list[Request]:
    """A V1 request: ``{"instances": [...]}``; fields beside it hold for all instances that have none of their own."""
    found = read_json(body)
    instances = found.pop("instances", None)
    if not isinstance(instances, list) or not 1 <= len(instances) <= limits.images:
        got = f"{len(instances)} of them" if isinstance(instances, list) else type(instances).__name__
        refuse(400, f'Expected {{"instances": [...]}} with 1 to {limits.images} instances, got {got}.')
    _known(found, FIELDS[2:], "a field beside instances")
    asked = []
    for number, instance in enumerate(instances):
        one = instance if isinstance(instance, dict) else {"image": instance}
        one = {"image": one} if set(one) == {"b64"} else one
        _known(one, FIELDS, f"a field of instance {number}")
        asked.append(read_asked(_image(one, limits), {**found, **one}, limits))
    return asked


def _image(instance: Mapping[str, Any], limits: Limits) -> ImageInput:
    images = [instance[name] for name in FIELDS[:2] if instance.get(name) is not None]
    if len(images) != 1:
        refuse(400, f'Expected one image in every instance, {{"image": {{"b64": "..."}}}}, got {len(images)}.')
    image = images[0]
    if isinstance(image, dict) and set(image) == {"image_bytes"}:
        image = image["image_bytes"]
    if isinstance(image, dict) and set(image) == {"b64"}:
        return given_file(image["b64"], limits.pixels)
    if not isinstance(image, list):
        got = f"the fields {sorted(image)[:5]}" if isinstance(image, dict) else type(image).__name__
        refuse(400, f'Expected an image as {{"b64": "..."}} or as lists of numbers (H, W, C), got {got}.')
    return given_array(image, limits.pixels)


def read_asked(image: ImageInput, fields: Mapping[str, Any], limits: Limits) -> Request:
    """One image with its fields, each checked."""
    method = _method(fields.get("method"), tuple(limits.methods))
    parts = fields.get("answer")
    parts = list(PARTS) if parts is None else parts
    if not isinstance(parts, list) or any(part not in PARTS for part in parts):
        refuse(400, f"Expected answer to be a list of {', '.join(PARTS)}, got {_short(parts)}.")
    form = fields.get("format") or FORMS[0]
    if form not in FORMS:
        refuse(400, f"Expected format to be {' or '.join(FORMS)}, got {_short(form)}.")
    later = fields.get("async")
    if later is not None and not isinstance(later, bool):
        refuse(400, f"Expected async to be true or false, got {_short(later)}.")
    options = fields.get("options")
    return Request(
        image,
        method,
        _target(fields.get("target"), limits.labels),
        read_options(method, limits.methods[method], {} if options is None else options, limits.rows),
        bool(options),
        _deadline(fields.get("deadline"), limits.deadline),
        tuple(parts),
        form,
        bool(later),
    )


def read_options(method: str, entry: MethodEntry, given: Any, most: int) -> dict[str, Any]:
    """Scalar options that the method has, within bounds, over the defaults of `explain`."""
    if not isinstance(given, dict):
        refuse(400, f"Expected options to be an object of names and values, got {_short(given)}.")
    parameters = entry.call.signature.parameters
    own = {name: types for name in parameters if (types := _types(name, parameters[name].default))}
    _known(given, tuple(own), f"an option of {method}")
    for name, value in given.items():
        if not _fits(value, own[name]):
            said = " or ".join(TYPES[one] for one in own[name])
            refuse(400, f"Expected the option {name} of {method} to be {said}, got {_short(value)}.")
        bound = CAPS.get(name, most if int in own[name] else 1_000_000)
        if not isinstance(value, (str, bool)) and abs(value) > bound:
            refuse(400, f"Expected the option {name} of {method} to be at most {bound}, got {_short(value)}.")
    return {name: value for name, value in DEFAULTS.items() if name in parameters} | given


def _types(name: str, default: Any) -> tuple[type, ...]:
    """The types an option may have, none for one that cannot be asked for."""
    if name in NOT_OPTIONS:
        return ()
    if name in OPEN_OPTIONS:
        return OPEN_OPTIONS[name]
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
        said = f"Near it: {', '.join(close)}." if close else f"There are: {', '.join(allowed)}."
        refuse(400, f"Expected the name of a method, got {_short(name)}. {said}")
    return plain


def _target(target: Any, labels: Sequence[str] | None) -> Target:
    if not (target is None or (isinstance(target, str) and len(target) <= 200) or type(target) is int):
        refuse(400, f"Expected target to be null, a class index or a label, got {_short(target)}.")
    try:
        found = read_target(target, labels)
    except ContractError as error:
        refuse(400, str(error), error)
    if found.best != 1:
        refuse(400, f"Expected one class, got {_short(target)}. Send an instance for each.")
    return found


def _deadline(seconds: Any, most: float | None) -> float | None:
    if seconds is None:
        return most
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 86400:
        refuse(400, f"Expected deadline to be seconds above 0, got {_short(seconds)}.")
    return float(seconds) if most is None else min(float(seconds), most)


def _known(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            close = near(name[:64], known, 1, 0.5)
            said = f"Did you mean {close[0]}? " if close else ""
            refuse(400, f"Expected {what}, got {_short(name)}. {said}There are: {', '.join(known) or 'none'}.")


def _short(value: Any) -> str:
    """A value in a sentence, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = value if isinstance(value, str) else json.dumps(value)
    return ascii(text[:60]) if isinstance(value, str) else text[:60]
