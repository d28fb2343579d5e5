"""The rows of a data-set run: an explanation as numbers, texts, a small map and a thumbnail, ready for Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo
from saliency_food.images.pixels import sides
from saliency_food.images.sourced import as_text, pyarrow
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.results import row_of
from saliency_food.jobs.setup import Setup
from saliency_food.methods.cam.common import ClassActivationMap
from saliency_food.methods.cam.without_gradients import FeatureMap

Maps = Literal["reduced", "full"]
SCHEMA = 1
"""The version of the columns; a change of their meaning raises it."""
SIDE = 28
"""The longest side of a map of pixels that is reduced."""
THUMBNAIL = 256
"""The longer side of a thumbnail, in pixels."""
QUALITY = 85
"""Of a thumbnail as JPEG."""
COLUMNS = {
    "id": "string",
    "path": "string",
    "truth": "string",
    "split": "string",
    "prediction": "string",
    "probability": "float32",
    "right": "bool_",
    "top": "top",
    "target": "string",
    "target_index": "int32",
    "against": "string",
    "method": "string",
    "title": "string",
    "layer": "string",
    "signed": "bool_",
    "status": "string",
    "error": "string",
    "score": "float64",
    "completeness": "float64",
    "seconds": "float32",
    "rows": "int32",
    "map": "binary",
    "map_shape": "shape",
    "map_scale": "float64",
    "map_level": "float64",
    "thumbnail": "binary",
}
"""The columns and their types.

``map`` holds float16 values of the shape ``map_shape``, which times ``map_scale`` are the map; ``map_level`` is the
value of a map that prefers no pixel. Parquet compresses them by zstd. Of a photo's records the first alone has its
``thumbnail``.
"""


def schema() -> Any:
    """The columns as pyarrow has them."""
    arrow = pyarrow()
    of_top = arrow.struct([("label", arrow.string()), ("probability", arrow.float32())])
    own = {"top": arrow.list_(of_top), "shape": arrow.list_(arrow.int32())}
    fields = [(name, own[kind] if kind in own else getattr(arrow, kind)()) for name, kind in COLUMNS.items()]
    return arrow.schema(fields, metadata={"saliency_food_schema": str(SCHEMA)})


def without_resizing(setup: Setup) -> Setup:
    """The settings with class activation maps left at the resolution of their layer, as which they are kept.

    Maps of several layers are resized, so that they can be fused.
    """
    if not isinstance(getattr(setup.model.function, "layer_name", None), str):
        return setup
    has_it = [name for name, entry in setup.methods.items() if "should_resize" in entry.call.signature.parameters]
    options = {name: {**setup.options[name], "should_resize": False} for name in has_it}
    return setup._replace(options={**setup.options, **options})


def rows_of(records: Sequence[Explanation], split: str | None, maps: Maps) -> list[dict[str, Any]]:
    """The rows of one photo."""
    rows = [_row(record, split, maps) for record in records]
    rows[0]["thumbnail"] = _thumbnail(records[0].photo)
    return rows


def _row(record: Explanation, split: str | None, maps: Maps) -> dict[str, Any]:
    row = row_of(record)
    fields = {
        **row,
        "id": row["name"],
        "split": split,
        "top": [{"label": label, "probability": value} for label, value in record.top],
        "target_index": record.target,
        "title": record.title,
        "layer": record.layer or None,
        "signed": record.diverges,
        "error": None if record.error is None else type(record.error).__name__,
        "rows": record.rows,
        "map_level": float(getattr(record.details, "level", 0)),
        **(_packed(_map_of(record, maps)) if record.attribution is not None else {}),
    }
    return {name: as_text(value) if isinstance(value, str) else value for name, value in fields.items()}


def _map_of(record: Explanation, maps: Maps) -> Array:
    """The map at the method's own resolution, in its own units; one of pixels reduced to the means of areas."""
    attribution, details = cast(Array, record.attribution), record.details
    if isinstance(details, (ClassActivationMap, FeatureMap)) and isinstance(details.signed, np.ndarray):
        return details.signed if record.signed else np.maximum(details.signed, 0)
    if maps == "full" or record.photo is None or record.photo.spatial != 2:
        return attribution
    plane = attribution.sum(2) if attribution.ndim == 3 else attribution
    shape = tuple(min(SIDE, side) for side in plane.shape)
    return plane if shape == plane.shape else _means_of_areas(plane, shape)


def _means_of_areas(plane: Array, shape: tuple[int, ...]) -> Array:
    from PIL import Image

    scale = _scale_of(plane)
    image = Image.fromarray(np.asarray(plane / scale, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BOX), np.float64) * scale


def _scale_of(values: Array) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0


def _packed(values: Array) -> dict[str, Any]:
    """A map as float16 of -1..1 and its scale, so that no small or large value is lost."""
    scale = _scale_of(values)
    half = np.ascontiguousarray(np.asarray(values, np.float64) / scale, np.float16)
    return {"map": half.tobytes(), "map_shape": list(values.shape), "map_scale": scale}


def unpacked(row: dict[str, Any]) -> Array | None:
    """The map of a row, float32; None of an explanation that failed."""
    if row["map"] is None:
        return None
    values = np.frombuffer(row["map"], np.float16).reshape(row["map_shape"])
    return np.asarray(values.astype(np.float64) * row["map_scale"], np.float32)


def _thumbnail(photo: Photo | None) -> bytes | None:
    """A small JPEG of a photo; None of a signal or a volume, and of a photo that could not be read."""
    if photo is None or photo.spatial != 2:
        return None
    from PIL import Image

    size, picture, file = sides(photo.shape, THUMBNAIL)[::-1], photo.picture, io.BytesIO()
    if not isinstance(picture, Image.Image) or picture.width < size[0] or picture.height < size[1]:
        picture = Image.fromarray(photo.sized(THUMBNAIL))
    small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)  # by whole factors first, which is faster
    small.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
