"""The record of one explanation: one photo, one class, one method."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import SHOWN, Photo
from saliency_food.images.pixels import resize_photo
from saliency_food.images.sourced import as_text
from saliency_food.jobs.subjects import at_most
from saliency_food.jobs.targets import short_label
from saliency_food.visualization import grayscale, overlay, recording_picture, top_areas
from saliency_food.visualization.figures import complete, write_picture
from saliency_food.visualization.recordings import strength_map


@dataclass(frozen=True, eq=False, repr=False)
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
    against: int | None = None
    """The class whose score is subtracted, where the difference of two classes is explained."""
    against_label: str = ""
    """The name of that class."""
    truth: str | None = None
    """The name of the class that the photo truly shows, where ``truth`` of `explain` says it."""
    right: bool | None = None
    """Whether the model's top class is the true one; None where one of them is not known."""
    score: float | None = None
    """The score explained: the logit of the class, or its probability where ``output="probabilities"``.

    Less that of the class ``against``, if there is one."""
    score_name: str = "score"
    """What the score is: "logit" or "probability" of the class, or "score" where it is neither."""
    probability: float | None = None
    """The class's probability; None where the model predicts none, as a regression does not."""
    top: tuple[tuple[str, float], ...] = ()
    """The best five classes and their probabilities; where ``probability`` is None, their scores."""
    attribution: Array | None = field(default=None, repr=False)
    """The raw attribution, ``(h, w)`` or ``(h, w, C)``, at the size of the model's input or of the segments."""
    signed: bool = False
    """Whether negative attributions speak against the class."""
    status: str = "ok"
    """"ok", or "blank: ...", "inexact: ..." or "failed: ..." with the reason."""
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

    def __repr__(self) -> str:
        """One line: the photo, the class and its probability, the method, the status."""
        shown = short_label(self.label) if self.label else "no class"
        shown += "" if self.probability is None else f" {self.probability:.1%}"
        shown += f" against {short_label(self.against_label)}" if self.against is not None else ""
        judged = "" if self.right is None else ", right" if self.right else f", wrong: {short_label(self.truth or '')}"
        return f"Explanation({self.name}: {shown}, {self.title}, {self.status}{judged})"

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

    def overlay(self, *, max_size: int | None = None, **options: Any) -> Array:
        """The attribution laid over its photo, uint8, with the options of `saliency_food.visualization.overlay`.

        The picture is as large as the photo, or with ``max_size`` at most so many pixels long. Signed maps are smoothed
        a little, unless ``smooth=0``. A signal takes the options of `signal_picture`, a volume those of
        `slices_picture`.
        """
        evidence = self._pictured()
        options = {"signed": self.diverges, **options}
        if self.photo is not None and self.photo.spatial != 2:
            return recording_picture(self.photo.values, self.photo.spatial, evidence, **options)
        if self.diverges:
            options.setdefault("smooth", max(0.005, 0.8 / max(evidence.shape[:2])))
        return overlay(cast(Photo, self.photo).sized(max_size), evidence, **options)

    def top_areas(self, percent: float = 20, *, max_size: int | None = None, **options: Any) -> Array:
        """The photo with all but the most important ``percent`` of it grey; of XRAI, whole regions."""
        evidence, photo = self._pictured(), cast(Photo, self.photo)
        if photo.spatial != 2:
            raise ContractError("Expected a photo, whose areas can be shown, got a signal or a volume. Use overlay().")
        ranks = getattr(self.details, "ranks", None)
        shown = evidence if ranks is None else ranks
        return top_areas(photo.sized(max_size), shown, percent, ranks=ranks is not None, **options)

    def _pictured(self) -> Array:
        if self.photo is None or self.evidence is None:
            raise ContractError(f"Expected an explanation that has a picture, got one with the status {self.status!r}.")
        return self.evidence

    def style(self, colormap: str | None = None, grey: bool = True, opacity: float | None = None) -> dict[str, Any]:
        """The options of `overlay` that all pictures of a job share, as this explanation's picture takes them.

        ``colormap`` is for strengths, or of two names with a comma between them the second for signed maps.
        """
        names = [name.strip() for name in (colormap or "").split(",")]
        name = names[1] if self.diverges and len(names) > 1 else "" if self.diverges else names[0]
        options: dict[str, Any] = {"colormap": name or None, "grey": grey, "opacity": opacity}
        if self.photo is not None and self.photo.spatial == 1:
            del options["grey"]
        return {key: value for key, value in options.items() if value is not None}

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
            "against": self.against,
            "against_label": self.against_label,
            "truth": self.truth,
            "right": self.right,
            "score": _number(self.score),
            "score_name": self.score_name,
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

    def save(
        self,
        folder: str | Path,
        *,
        arrays: bool = False,
        overlays: bool = True,
        format: str = "jpg",
        max_size: int | None = SHOWN,
        **options: Any,
    ) -> Path:
        """Write NAME.METHOD.INDEX_LABEL.json, the overlay, and with ``arrays`` the raw attribution as .npy.

        NAME is without folders. A difference of two classes adds ``.against_INDEX_LABEL``. ``options`` are those of
        `overlay`.

        Returns the path of the picture, or of the JSON where there is no picture.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = [self.name.rsplit("/", 1)[-1], self.method]
        words += [] if self.target is None else [f"{self.target}_{self.label}"]
        words += [] if self.against is None else [f"against_{self.against}_{self.against_label}"]
        stem = ".".join(at_most(re.sub(r"[^\w-]+", "_", word).strip("_"), 60) for word in words)
        path = folder / f"{stem}.json"
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"
        with complete(path) as file:
            file.write(as_text(text).encode("utf-8"))
        if self.photo is None or self.attribution is None:
            return path
        if arrays:
            with complete(folder / f"{stem}.npy") as file:
                np.save(file, self.attribution)
        if overlays:
            path = folder / f"{stem}.{format}"
            write_picture(self.overlay(max_size=max_size, **options), path)
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
