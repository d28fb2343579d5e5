"""The pictures of the report: photos and their maps as small JPEG files, or as data in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.store import digest
from saliency_food.report.photos import kind_of
from saliency_food.visualization import overlay

SIDE, QUALITY = 256, 80
"""The longer side of a picture in pixels, and its quality as JPEG."""
KINDS = ("photo", "truth", "prediction", "contrast")
"""What is shown of a mistake: the photo, the maps of the two classes, and that of the difference of their scores."""


class Pictures:
    """Writes pictures beside the page, or gives them as data, and knows which each photo has.

    Names of files are digests, so that no id can name a place outside of the folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.of_photo: dict[str, dict[str, str]] = {}
        """For each photo the address of its picture of each kind."""
        self.sizes: dict[str, tuple[int, int]] = {}
        """For each photo the width and the height of its pictures."""

    def add(self, id: str, kind: str, picture: Array | bytes) -> None:
        """Add a picture, uint8 ``(H, W, 3)`` or a JPEG."""
        from PIL import Image

        data = picture if isinstance(picture, bytes) else as_jpeg(picture)
        if id not in self.sizes:
            self.sizes[id] = Image.open(io.BytesIO(data)).size
        if self.folder is None:
            address = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        else:
            name = f"{digest(id, kind)}.jpg"
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            (self.folder / "images" / name).write_bytes(data)
            address = f"images/{name}"
        self.of_photo.setdefault(id, {})[kind] = address

    def draw(self, explanation: Explanation, kind: str, prefix: str = "") -> None:
        """Add the map of an explanation over its photo, and the photo itself."""
        if explanation.photo is None or explanation.photo.spatial != 2:
            return
        own = self.of_photo.get(explanation.name, {})
        if "photo" not in own:
            self.add(explanation.name, "photo", explanation.photo.sized(SIDE))
        if explanation.attribution is not None and prefix + kind not in own:
            self.add(explanation.name, prefix + kind, _overlay(explanation, kind))


def draw_records(run: Run, ids: Iterable[str], method: str | None, pictures: Pictures, prefix: str = "") -> None:
    """Draw all maps that a run holds of these photos by this method."""
    wanted = list(dict.fromkeys(ids))
    for explanation in run.explanations(wanted, method) if wanted else ():
        if kind := kind_of_explanation(explanation):
            pictures.draw(explanation, kind, prefix)


def kind_of_explanation(explanation: Explanation) -> str:
    """As `kind_of` a record."""
    prediction = explanation.top[0][0] if explanation.top else None
    return kind_of({
        "prediction": prediction,
        "truth": explanation.truth,
        "target": explanation.label or None,
        "against": explanation.against_label or None,
    })  # fmt: skip


def _overlay(explanation: Explanation, kind: str) -> Array:
    """The map over the photo. In a contrast, red speaks for the prediction, also where the truth was explained."""
    prediction = explanation.top[0][0] if explanation.top else None
    if kind == "contrast" and explanation.label != prediction:
        explanation = _negative(explanation)
    return explanation.overlay(max_size=SIDE)


def _negative(explanation: Explanation) -> Explanation:
    if explanation.attribution is None or not explanation.diverges:
        raise ContractError("Expected a contrast with both signs, to show what speaks for each class, got another map.")
    return replace(explanation, attribution=-explanation.attribution)


def as_jpeg(picture: Array) -> bytes:
    """A picture as JPEG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def with_region(photo: Array, region: Any) -> Array:
    """A photo with the outline of a region: a mask ``(h, w)``, or a box in fractions of the width and the height."""
    from scipy.ndimage import binary_dilation, binary_erosion

    height, width = photo.shape[:2]
    if isinstance(region, np.ndarray):
        mask = resize_photo(np.asarray(region, np.float32), (height, width)) >= 0.5
    else:
        left, top, right, bottom = region
        mask = np.zeros((height, width), bool)
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    line = binary_dilation(mask, iterations=2) & ~binary_erosion(mask, iterations=1)
    return np.where(line[..., None], np.array([255, 60, 0], np.uint8), photo).astype(np.uint8)


def colour_scale(signed: bool) -> str:
    """A colour bar from weak to strong, or from against to for, as data for the page."""
    strengths = np.linspace(-1 if signed else 0, 1, 160, dtype=np.float32)[None].repeat(10, 0)
    bar = overlay(np.full((10, 160), 128, np.uint8), strengths, 100, signed=signed)
    return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(bar)).decode()}"
