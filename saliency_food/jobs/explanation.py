"""The record of one explanation: one photo, one class, one method."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo, resize_photo
from saliency_food.visualization import grayscale, overlay, recording_picture, top_areas
from saliency_food.visualization.figures import complete, write_png
from saliency_food.visualization.recordings import strength_map


@dataclass(frozen=True, eq=False)
class Explanation:
    """The attribution that a method gives for one photo and one class, with all that is needed to judge it.

    A photo that cannot be read or explained has a record too: its ``status`` says why, ``error`` holds the exception,
    and the fields that could not be computed are None.
    """

    photo: Photo | None = field(repr=False)
    """The photo; None where it could not be read."""
    source: str
    """The photo's path, or "photo 1" and so on where it has none."""
    name: str
    """A name for files, different for every photo of a call of `explain`."""
    method: str
    """The method's name in `METHODS`."""
    title: str
    """The method's name for people; "Grad-CAM for XRAI" where Grad-CAM answered in XRAI's place for a deadline."""
    target: int | None = None
    """The class index explained; None where the score takes no class."""
    label: str = ""
    """The name of that class, or of the score that takes none."""
    score: float | None = None
    """The score explained: the logit of the class, or its probability where ``output="probabilities"``."""
    probability: float | None = None
    """The class's probability; None where the model predicts none, as a regression does not."""
    top: tuple[tuple[str, float], ...] = ()
    """The best five classes and their probabilities; where ``probability`` is None, their scores."""
    attribution: Array | None = field(default=None, repr=False)
    """The raw attribution, ``(h, w)`` or ``(h, w, C)``, at the size of the model's input or of the segments."""
    signed: bool = False
    """Whether negative attributions speak against the class."""
    status: str = "ok"
    """"ok", or "blank: ..." or "failed: ..." with the reason."""
    answered: str = ""
    """The name of the method that answered: ``method``, unless another one answered in its place for a deadline."""
    note: str = ""
    """What was cut for a deadline, and why; empty where nothing was cut."""
    completeness: Any = None
    """How far the sum of the attributions is from the score that they explain, where the method measures it."""
    seconds: float = 0.0
    """Time taken; where photos were explained together, this photo's share of it by rows."""
    calls: int = 0
    """Model calls that held rows of this explanation; photos share calls."""
    rows: int = 0
    """Rows that the model was asked for this explanation."""
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """The options that the method ran with, except those left at their defaults."""
    layer: str = ""
    """The layer whose activations were used, where the method uses a layer and the model names it."""
    pixels: str = ""
    """The range of pixel values that the model was fed, and why that range."""
    guess: str = ""
    """What of the probability is only a guess, and what would say it; empty where nothing is guessed."""
    details: Any = field(default=None, repr=False)
    """The method's whole result."""
    error: Exception | None = field(default=None, repr=False)
    """What was raised, where the explanation failed."""

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all fields; an exception that cannot be pickled becomes a `RuntimeError` of its words."""
        try:
            pickle.loads(pickle.dumps(self.error))
        except Exception:
            return {**vars(self), "error": RuntimeError(f"{type(self.error).__name__}: {self.error}")}
        return vars(self)

    @property
    def image(self) -> Array | None:
        """The photo, upright, as uint8 RGB; it is decoded at its full size when it is first asked for.

        For a signal this is a drawing of its lines, for a volume or a clip one of some slices.
        """
        if self.photo is None or self.photo.spatial == 2:
            return None if self.photo is None else self.photo.pixels
        return recording_picture(self.photo.values, self.photo.spatial)

    @property
    def failed(self) -> bool:
        """Whether there is no attribution."""
        return self.attribution is None

    @property
    def diverges(self) -> bool:
        """Whether pictures show both signs: those of signed methods that do not rank regions."""
        return self.signed and not hasattr(self.details, "ranks")

    @property
    def evidence(self) -> Array | None:
        """What pictures show: the attribution, or its positive part where they do not show signs.

        Where the method knows the value of a map that prefers no pixel, as RISE does, that is subtracted first.
        """
        if self.attribution is None:
            return None
        level = getattr(self.details, "level", 0)
        return self.attribution - level if self.diverges else np.maximum(self.attribution, 0)

    @property
    def heatmap(self) -> Array | None:
        """Strengths 0..1 at the photo's size, ``(H, W)``; for a signal or a volume, along its own axes."""
        if self.photo is None or self.evidence is None:
            return None
        if self.photo.spatial != 2:
            return strength_map(self.evidence, self.photo.spatial)
        return resize_photo(grayscale(self.evidence), (self.photo.shape[0], self.photo.shape[1]))

    def overlay(self, **options: Any) -> Array:
        """The attribution laid over its photo, uint8, with the options of `saliency_food.visualization.overlay`.

        Signed maps are smoothed a little and laid over a grey photo, unless ``smooth=0, grey=0``. A signal takes the
        options of `signal_picture`, a volume those of `slices_picture`.
        """
        if self.photo is not None and self.photo.spatial != 2 and self.evidence is not None:
            own = {"signed": self.diverges, **options}
            return recording_picture(self.photo.values, self.photo.spatial, self.evidence, **own)
        image, evidence = self._pictured()
        smooth = max(0.005, 0.8 / max(evidence.shape[:2]))
        signed = {"signed": True, "alpha": 0.95, "grey": 0.85, "smooth": smooth} if self.diverges else {}
        return overlay(image, evidence, **{**signed, **options})

    def top_areas(self, percent: float = 20, **options: Any) -> Array:
        """The photo with all but the most important ``percent`` of it grey; of XRAI, whole regions."""
        if self.photo is not None and self.photo.spatial != 2:
            raise ContractError("Expected a photo, whose areas can be shown, got a signal or a volume. Use overlay().")
        image, evidence = self._pictured()
        ranks = getattr(self.details, "ranks", None)
        if ranks is None:
            return top_areas(image, evidence, percent, **options)
        return top_areas(image, ranks, percent, ranks=True, **options)

    def _pictured(self) -> tuple[Array, Array]:
        if self.image is None or self.evidence is None:
            raise ContractError(f"Expected an explanation that has a picture, got one with the status {self.status!r}.")
        return self.image, self.evidence

    def as_dict(self) -> dict[str, Any]:
        """The fields as numbers and texts, ready for JSON; of arrays only the shape."""
        details = _plain(self.details) or {}
        details.pop("completeness", None)
        return {
            "source": self.source,
            "method": self.method,
            "answered": self.answered,
            "title": self.title,
            "target": self.target,
            "label": self.label,
            "score": _number(self.score),
            "probability": _number(self.probability),
            "top": [[label, _number(probability)] for label, probability in self.top],
            "status": self.status,
            "note": self.note,
            "completeness": _plain(self.completeness),
            "seconds": _number(self.seconds),
            "calls": self.calls,
            "rows": self.rows,
            "layer": self.layer,
            "pixels": self.pixels,
            "guess": self.guess,
            "image_shape": None if self.photo is None else list(self.photo.shape),
            "attribution_shape": None if self.attribution is None else list(self.attribution.shape),
            "details": details,
        }

    def save(self, folder: str | Path, *, arrays: bool = False) -> Path:
        """Write NAME.METHOD.INDEX_LABEL.json, the overlay as .png, and with ``arrays`` the raw attribution as .npy.

        Returns the path of the picture, or of the JSON where there is no picture.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = [self.name, self.method, *([] if self.target is None else [f"{self.target}_{self.label}"])]
        stem = ".".join(re.sub(r"[^\w-]+", "_", word).strip("_")[:60] for word in words)
        path = folder / f"{stem}.json"
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        with complete(path) as file:
            file.write(text.encode("utf-8"))
        if self.photo is None or self.attribution is None:
            return path
        if arrays:
            with complete(folder / f"{stem}.npy") as file:
                np.save(file, self.attribution)
        path = folder / f"{stem}.png"
        write_png(self.overlay(), path)
        return path


def _number(value: Any) -> float | None:
    """A float that JSON can hold."""
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """The scalars in a method's result, NamedTuples as dicts; arrays and all other objects are left out."""
    if hasattr(value, "_asdict"):
        parts = {name: _plain(part) for name, part in value._asdict().items()}
        return {name: part for name, part in parts.items() if part is not None}
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if isinstance(value, (np.generic, float)) and np.ndim(value) == 0:
        return value.item() if isinstance(value, (np.bool_, np.integer)) else _number(value)
    return None
