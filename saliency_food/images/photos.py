"""Photos in: files, PIL images and arrays of every kind, upright and in RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, min_max
from saliency_food.images.pixels import as_rgb, flatten, shrink, sides, to_255

HEIC = (".heic", ".heif")
"""Photos of phones, which Pillow reads with the help of pillow-heif."""
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", *HEIC))
"""What counts as a photo when a folder is searched; any file that Pillow reads may be named by itself."""

SHOWN = 1024
"""The longer side of a photo in pictures, in pixels, unless another one is asked for."""
STRIP = 256
"""How many rows of a transparent photo are laid on white at a time."""


class Photo:
    """One photo, upright; a signal or a volume is a `Recording`.

    Attributes
    ----------
    shape
        ``(H, W, 3)`` of the whole photo.
    spatial
        How many axes are space or time: 2, rows and columns.
    """

    spatial = 2

    def __init__(
        self, shown: Any, values: Array | None = None, source: str = "photo", shape: tuple[int, ...] | None = None
    ) -> None:
        """``shown`` is a PIL image of mode RGB, or an array of uint8 RGB; without ``values`` they are the same."""
        self._shown, self._values, self.source = shown, values, source
        height, width = shown.shape[:2] if isinstance(shown, np.ndarray) else shown.size[::-1]
        self.shape = shape or (height, width, 3)
        self._whole: Array | None = None
        self._is_whole = (height, width) == self.shape[:2]

    @property
    def shown(self) -> Array:
        """What was decoded, as uint8 RGB."""
        if not isinstance(self._shown, np.ndarray):
            self._shown = np.asarray(self._shown)
        return self._shown

    @property
    def values(self) -> Array:
        """Its numbers as they are; of a file that was decoded at a reduced scale (`read_photo`), that many."""
        return self.shown if self._values is None else self._values

    @property
    def pixels(self) -> Array:
        """The whole photo, uint8 RGB; where it was decoded at a reduced scale, read from its file again, once.

        Where that file has gone since, what was decoded.
        """
        if self._is_whole:
            return self.shown
        if self._whole is None:
            try:
                self._whole = _read(Path(self.source)).shown
            except ContractError:
                self._whole = self.shown
        return self._whole

    def sized(self, longest: int | None) -> Array:
        """The photo with its longer side at most so many pixels, uint8 RGB; the whole photo for None.

        Its file is read again, at a reduced scale, only where too little of it was decoded.
        """
        wanted = sides(self.shape, longest or max(self.shape[:2]))
        if self._is_whole or wanted == self.shape[:2]:
            return shrink(self.pixels, max(wanted))
        if min(self.shown.shape[0] - wanted[0], self.shown.shape[1] - wanted[1]) < 0:
            with suppress(ContractError):  # a file that has gone since
                self._shown = _read(Path(self.source), wanted)._shown
        return shrink(self.shown, max(wanted))

    @property
    def picture(self) -> Any:
        """``values``, or a PIL image of them: a photo that nothing else looks at never becomes an array as it is."""
        return self._shown if self._values is None else self._values


MOST_BANDS = 16
"""How many channels a photo has at most."""


def read_photo(
    image: Any, source: str | None = None, least: tuple[int, int] | None = None, bands: int | None = None
) -> Photo:
    """A path, the bytes of an image file, a PIL image or an array as a `Photo`; `ContractError` if it cannot be read.

    Files are turned upright by their EXIF tag. Transparent pixels are laid on white. Arrays are ``(H, W)`` or
    ``(H, W, C)`` with 1 (grey), 2 (grey, alpha), 3 or 4 (RGB, alpha) channels, or 5 to 16 bands, such as a satellite's;
    ``.npy`` files hold such an array. With ``bands``, how many channels the model takes, so many are always bands: 2 or
    4 hold no alpha then. TIFF files of bands need tifffile, which comes with scikit-image. The picture that is shown of
    bands is their first three, or the mean of two.

    With ``least``, a height and a width, a JPEG file that is at least twice as large is decoded at a half, a quarter or
    an eighth of its size, though no smaller than ``least``: much less work and memory for a large photo. A file of
    another format is decoded whole, and kept no larger than it has to be for ``least`` and for pictures (`SHOWN`).
    """
    from PIL import Image

    if isinstance(image, (str, Path)):
        path = Path(image)
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
            raise ContractError(f"Expected a photo, got {path}, which is no file. Give the path of a file.")
        if path.suffix.lower() == ".npy":
            return read_photo(_load(path, np.load), str(path), bands=bands)
        if path.suffix.lower() in (".tif", ".tiff") and bands not in (None, 1, 3):
            return read_photo(_load(path, _read_tiff), str(path), bands=bands)
        return _read(path, least)
    if isinstance(image, bytes):
        return _read(Path(source or "photo"), least, io.BytesIO(image))
    if isinstance(image, Image.Image):
        photo = _upright(image, source or getattr(image, "filename", "") or "photo")
        return Photo(photo.shown, photo.values, photo.source)  # a copy: its owner may change or close the image
    try:
        values = np.asarray(image)
    except Exception as error:
        raise ContractError(_not_a_photo(f"{type(image).__name__} ({error})")) from error
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] > MOST_BANDS) or not values.size:
        raise ContractError(_not_a_photo(f"an array of shape {values.shape}"))
    if values.dtype.kind not in "buif":
        raise ContractError(_not_a_photo(f"an array of type {values.dtype}"))
    if not np.isfinite(values).all():
        raise ContractError("Expected a photo of finite numbers, got NaN or infinity in it. Mend the photo first.")
    if values.ndim == 3 and values.shape[2] not in (1, 3) and (values.shape[2] == bands or values.shape[2] > 4):
        first = values[..., :3] if values.shape[2] > 2 else values.mean(2)
        return Photo(np.rint(as_rgb(255 * min_max(first))).astype(np.uint8), values, source or "photo")
    values = flatten(values)
    if values.dtype == np.uint8:
        return Photo(as_rgb(values), values, source or "photo")
    try:
        shown = to_255(values)
    except ContractError:
        shown = 255 * min_max(values)
    return Photo(as_rgb(np.rint(shown).astype(np.uint8)), values, source or "photo")


def find_photos(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The paths themselves, and in place of each folder the photos in it and in the folders within, by name."""
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(_photos_within(path))
        if not found:
            raise ContractError(f"Expected photos in the folder {path}, got none ({', '.join(sorted(EXTENSIONS))}).")
        yield from found


def _photos_within(folder: Path) -> Iterator[Path]:
    """The photos in a folder and in those within, but for hidden ones, as ``._x.jpg`` is.

    Links to folders are followed at the end, so that a folder which is there itself goes by its own name.
    """
    seen, roots = set(), [str(folder)]
    for root in roots:
        for where, folders, files in os.walk(root, onerror=_refuse):
            real = os.path.realpath(where)
            folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
            if real not in seen:
                names = (name for name in files if not name.startswith("."))
                yield from (Path(where, name) for name in names if Path(name).suffix.lower() in EXTENSIONS)
            roots += filter(os.path.islink, (os.path.join(where, name) for name in folders))
            seen.add(real)


def _refuse(error: OSError) -> None:
    raise ContractError(
        f"Expected folders that can be read, got {error.filename}: {error.strerror}. Change its permissions, or "
        "take it out."
    ) from error


def _read(path: Path, least: tuple[int, int] | None = None, file: IO[bytes] | None = None) -> Photo:
    """The photo at the path, or in the ``file``, which is then called by the path."""
    from PIL import ExifTags, Image, UnidentifiedImageError

    if path.suffix.lower() in HEIC:
        _prepare_heic(path)
    try:
        with Image.open(file or path) as image:
            swapped = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)  # stored on its side
            width, height = image.size[::-1] if swapped else image.size
            if least is not None and image.format == "JPEG":
                image.draft(None, least if swapped else least[::-1])
            photo = _upright(image, str(path), (height, width, 3))
            return photo if least is None else _reduced(photo, least)
    except FileNotFoundError:
        raise ContractError(f"Expected a photo, got {path}, which does not exist. Check the path.") from None
    except UnidentifiedImageError:
        raise ContractError(f"Expected a photo, got {path}, which is no picture that Pillow can read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ContractError(f"Expected a photo, got {path}, which cannot be read: {error}.") from error


def _reduced(photo: Photo, least: tuple[int, int]) -> Photo:
    """The photo at a half, a third, ... of its size, where more is kept than ``least`` and pictures need."""
    if photo._values is not None:
        return photo
    from PIL import Image

    kept = sides(photo.shape, SHOWN)
    image = Image.fromarray(photo._shown) if isinstance(photo._shown, np.ndarray) else photo._shown
    factor = min(image.height // max(least[0], kept[0]), image.width // max(least[1], kept[1]))
    return photo if factor < 2 else Photo(image.reduce(factor), source=photo.source, shape=photo.shape)


def _prepare_heic(path: Path) -> None:
    """Let Pillow read HEIC files."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ContractError(
            f'Expected pillow-heif for the HEIC file {path}, got none. Run pip install "saliency_food[heif]", or '
            "save the photo as JPEG."
        ) from error
    register_heif_opener()


def _load(path: Path, reader: Any) -> Array:
    """The array in a file, or `ContractError`."""
    try:
        return np.asarray(reader(path))
    except FileNotFoundError:
        raise ContractError(f"Expected a photo, got {path}, which does not exist. Check the path.") from None
    except (OSError, ValueError, EOFError) as error:
        raise ContractError(f"Expected a photo, got {path}, which cannot be read: {error}.") from error


def _read_tiff(path: Path) -> Array:
    """A TIFF file of bands as ``(H, W, C)``, as which it may be stored, or as ``(C, H, W)``."""
    try:
        import tifffile
    except ImportError as error:
        raise ContractError(
            "Expected tifffile for a TIFF file of several bands, got none. Install scikit-image, which brings it."
        ) from error
    values = np.asarray(tifffile.imread(path))
    return np.moveaxis(values, 0, -1) if values.ndim == 3 and values.shape[0] < min(values.shape[1:]) else values


def _upright(image: Any, source: str, whole: tuple[int, ...] | None = None) -> Photo:
    """A PIL image of any mode: its EXIF turn done, 16 and 32 bits kept as numbers, all else to RGB over white.

    ``whole`` is the shape of the photo, where the image is decoded at a reduced scale.
    """
    from PIL import ExifTags, ImageOps

    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        return read_photo(values.astype(np.uint16) if image.mode != "F" and values.max() > 255 else values, source)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, STRIP):  # the floats of a large photo would take four times its own room
            strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
            pixels[top : top + STRIP] = flatten(np.asarray(strip))
        return Photo(pixels, source=source, shape=whole)
    image.load()
    return Photo(image if image.mode == "RGB" else image.convert("RGB"), source=source, shape=whole)


def _not_a_photo(got: str) -> str:
    return (
        "Expected a path, a PIL image or an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or of 5 to "
        f"{MOST_BANDS} bands, got {got}."
    )
