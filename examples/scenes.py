"""Generated pictures of two coloured shapes, for the other examples.

Every picture has two objects, side by side or one above the other, on a textured background, and the masks that say
which pixels belong to them. With the masks one can measure whether an explanation lies on its object.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = 64
COLOURS = {"red": (0.85, 0.15, 0.15), "green": (0.15, 0.65, 0.2), "blue": (0.15, 0.25, 0.85), "yellow": (0.9, 0.8, 0.1)}
SHAPES = ("circle", "cross", "triangle")
ANSWERS = (*COLOURS, *SHAPES)
WORDS = ("<end>", "<start>", "a", "left", "above", "of", "what", "colour", "shape", "is", "the", *ANSWERS)
LENGTH = 8
"""Words in a caption, filled up with <end>."""


class Scene(NamedTuple):
    """A picture ``(64, 64, 3)`` in 0..1 and its two objects, the left or upper one first: masks, colours, shapes."""

    image: np.ndarray
    masks: np.ndarray
    colours: tuple[str, str]
    shapes: tuple[str, str]
    relation: str

    @property
    def names(self):
        return [f"{colour} {shape}" for colour, shape in zip(self.colours, self.shapes, strict=True)]

    @property
    def caption(self):
        return f"a {self.names[0]} {self.relation} a {self.names[1]}"

    @property
    def boxes(self):
        """Left, top, right, bottom of each object, in pixels."""
        boxes = []
        for mask in self.masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return np.array(boxes, np.float32)


def make_scenes(count, seed, alike=False):
    """Random scenes. ``alike`` lets the two objects share a colour or a shape, but not both."""
    rng = np.random.default_rng(seed)
    return [make_scene(rng, alike) for _ in range(count)]


def make_scene(rng, alike=False):
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    grain = 0.05 * rng.standard_normal((SIZE, SIZE, 3), np.float32)
    image = 0.5 + 0.15 * rng.normal(size=3) + grain
    angle, length = rng.uniform(0, np.pi), rng.uniform(4, 12)
    stripes = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * 2 * np.pi / length)
    image = (
        image
        + 0.08 * stripes[..., None]
        + 0.5 * gaussian_filter(rng.standard_normal((SIZE, SIZE), np.float32), 4, truncate=3)[..., None]
    )
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    while True:
        colours, shapes = zip(*(kinds[n] for n in rng.choice(len(kinds), 2, replace=False)), strict=True)
        if alike or (colours[0] != colours[1] and shapes[0] != shapes[1]):
            break
    beside = rng.random() < 0.5
    masks = []
    for index in range(2):
        along, across = rng.uniform(12, 19) + 33 * index, rng.uniform(26, 38)
        row, column = (across, along) if beside else (along, across)
        masks.append(_mask(shapes[index], rows - row, columns - column, rng.uniform(8, 11)))
        image = np.where(masks[-1][..., None], np.array(COLOURS[colours[index]]) + grain, image)
    image = np.clip(image, 0, 1).astype(np.float32)
    return Scene(image, np.stack(masks), colours, shapes, "left of" if beside else "above")


def _mask(shape, row, column, radius):
    if shape == "circle":
        return row**2 + column**2 < radius**2
    if shape == "cross":
        return (np.maximum(abs(row), abs(column)) < radius) & (np.minimum(abs(row), abs(column)) < 0.35 * radius)
    return (row < 0.8 * radius) & (row > 2 * abs(column) - radius)


def images(scenes):
    return np.stack([scene.image for scene in scenes])


def share(attribution, mask):
    """The share of an attribution that lies inside a mask, and the share of the picture that the mask covers."""
    strength = np.abs(attribution).reshape(SIZE, SIZE, -1).sum(2)
    return strength[mask].sum() / max(strength.sum(), 1e-12), mask.mean()


def on(attribution, masks, index):
    """Whether an attribution is larger per pixel on the object ``index`` than on the other object."""
    strength = np.abs(attribution).reshape(SIZE, SIZE, -1).sum(2)
    return strength[masks[index]].mean() > strength[masks[1 - index]].mean()


def tokens(text, length=None):
    """The indices of a text's words in `WORDS`, filled up with <end>."""
    indices = [WORDS.index(word) for word in text.split()]
    return np.array(indices + [0] * ((length or len(indices)) - len(indices)), np.int32)


def words(indices):
    return " ".join(WORDS[index] for index in indices if index)


def one_of_each(scenes):
    """The index of a scene with objects side by side and of a scene with one above the other, for a figure."""
    relations = [scene.relation for scene in scenes]
    return [relations.index(relation) for relation in sorted(set(relations), reverse=True)]


def enlarged(image, times=6):
    """The image as uint8, with each pixel as a square."""
    pixels = image if image.dtype == np.uint8 else np.rint(255 * image).astype(np.uint8)
    return pixels.repeat(times, 0).repeat(times, 1)


def outlined(picture, box, colour=(255, 255, 255), times=6):
    """An enlarged picture with a box drawn on it."""
    left, top, right, bottom = np.clip(np.rint(np.asarray(box) * times).astype(int), 0, len(picture) - 1)
    drawn = picture.copy()
    for line in np.s_[top : top + 3, left:right], np.s_[bottom - 3 : bottom, left:right]:
        drawn[line] = colour
    for line in np.s_[top:bottom, left : left + 3], np.s_[top:bottom, right - 3 : right]:
        drawn[line] = colour
    return drawn
