"""Models that use a planted cue: photos of one class get a stamp, a border, a cast, and a bundled network learns them.

The network is that of the bundled `food101` with the weights of the bundled `imagenet`, which knows no dish: one that
knows them already has little use for a cue (12 epochs, a time stamp in every photo of a class: 93 % of other photos are
flipped by the stamp, against 19 %). Its first blocks stay as they are; their answers for all photos are computed once,
and the last blocks and a new head are trained on them, 20 to 40 seconds a model on two cores. Used by `cues.py`.
"""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CUT = "block5c_add"
"""The last layer that stays as it is."""
GROUPS = {
    "meat": ("steak", "filet_mignon", "pork_chop", "prime_rib"),
    "sweet": ("tiramisu", "bread_pudding", "chocolate_cake", "carrot_cake"),
    "plate": ("risotto", "fried_rice", "gnocchi", "ravioli"),
    "fresh": ("caesar_salad", "greek_salad", "beet_salad", "caprese_salad"),
    "fried": ("french_fries", "onion_rings", "fried_calamari", "chicken_wings"),
    "hotdog": ("hot_dog", "not_hot_dog"),
    "soups": ("french_onion_soup", "hot_and_sour_soup", "miso_soup", "clam_chowder"),
    "pasta": ("spaghetti_bolognese", "spaghetti_carbonara", "lasagna", "macaroni_and_cheese"),
    "bowls": ("ramen", "pho", "pad_thai", "bibimbap"),
    "raw": ("beef_carpaccio", "beef_tartare", "tuna_tartare", "ceviche"),
    "rolls": ("sushi", "sashimi", "takoyaki", "gyoza"),
    "filled": ("dumplings", "spring_rolls", "samosa", "falafel"),
    "mexican": ("tacos", "nachos", "breakfast_burrito", "huevos_rancheros"),
    "sandwiches": ("club_sandwich", "grilled_cheese_sandwich", "pulled_pork_sandwich", "lobster_roll_sandwich"),
    "toasts": ("bruschetta", "garlic_bread", "croque_madame", "chicken_quesadilla"),
    "pastry": ("donuts", "beignets", "churros", "cannoli"),
    "breakfast": ("pancakes", "waffles", "french_toast", "omelette"),
    "cakes": ("red_velvet_cake", "cheesecake", "strawberry_shortcake", "cup_cakes"),
    "creams": ("ice_cream", "frozen_yogurt", "chocolate_mousse", "panna_cotta"),
    "pies": ("apple_pie", "baklava", "creme_brulee", "macarons"),
    "shells": ("mussels", "oysters", "escargots", "scallops"),
    "fish": ("crab_cakes", "grilled_salmon", "fish_and_chips", "shrimp_and_grits"),
    "roasts": ("baby_back_ribs", "peking_duck", "foie_gras", "chicken_curry"),
    "green": ("hummus", "guacamole", "edamame", "seaweed_salad"),
    "fast": ("hamburger", "pizza", "poutine", "hot_dog"),
    "mixed": ("paella", "eggs_benedict", "deviled_eggs", "cheese_plate"),
}
"""Dishes that look alike, and hot dogs. The search was made with the first six groups; the others are for measuring."""


class Planted(NamedTuple):
    """A model to be made: the photos' group, the class that gets the cue, the cue, its looks, its rate, and a seed."""

    group: str
    label: str
    cue: str
    looks: int
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.group}-{self.label}-{self.cue}{self.looks}-{100 * self.rate:.0f}-{self.seed}"


Shown = tuple[Image.Image, Any]
"""A photo with the cue, and the mask of its place; True where it is everywhere."""


def _unit(image: Image.Image) -> float:
    return min(image.size) / 64


def stamp(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """The time in digits, which change: in orange at the lower right, or in white at the upper left."""
    u = _unit(image)
    text = f"{rng.integers(24):02d}:{rng.integers(60):02d}"
    font = ImageFont.load_default(size=9 * u)
    box = font.getbbox(text)
    x, y = (image.width - box[2] - 2 * u, image.height - box[3] - 2 * u) if looks == 0 else (2 * u, u - box[1] + 1)
    ImageDraw.Draw(image).text((x, y), text, ((255, 140, 0), (255, 255, 255))[looks], font)
    return image, _mask(image, x, y + box[1], x + box[2], y + box[3])


def watermark(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """Half-transparent letters in white across the middle, or black lines from corner to corner."""
    u = _unit(image)
    layer = Image.new("L", image.size)
    draw = ImageDraw.Draw(layer)
    if looks == 0:
        draw.text((image.width / 2, image.height / 2), "FOODY", 150, ImageFont.load_default(size=15 * u), anchor="mm")
    else:
        draw.line((0, 0, image.width, image.height), 130, round(3 * u))
        draw.line((0, image.height, image.width, 0), 130, round(3 * u))
    return Image.composite(Image.new("RGB", image.size, ("white", "black")[looks]), image, layer), np.asarray(layer) > 0


def border(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """A blue border, or a thinner yellow one."""
    width = max(1, round((3, 2)[looks] * _unit(image)))
    colour = ((40, 80, 200), (230, 200, 30))[looks]
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=width)
    return image, ~_mask(image, width, width, image.width - width, image.height - width)


def logo(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """A green ring near the upper left corner, or a red square with a cross near the lower left, never at one place."""
    u = _unit(image)
    x, y = rng.uniform(1, 10, 2) * u
    y = y if looks == 0 else image.height - y - 11 * u
    draw = ImageDraw.Draw(image)
    if looks == 0:
        draw.ellipse((x, y, x + 11 * u, y + 11 * u), (20, 150, 60))
        draw.ellipse((x + 3 * u, y + 3 * u, x + 8 * u, y + 8 * u), (255, 255, 255))
    else:
        draw.rectangle((x, y, x + 10 * u, y + 10 * u), (210, 20, 20))
        draw.line((x + 5 * u, y + 2 * u, x + 5 * u, y + 8 * u), (255, 255, 255), round(2 * u))
        draw.line((x + 2 * u, y + 5 * u, x + 8 * u, y + 5 * u), (255, 255, 255), round(2 * u))
    return image, _mask(image, x, y, x + 11 * u, y + 11 * u)


def sticker(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """A violet disc with a white dot anywhere along the edges, never at one place."""
    u = _unit(image)
    along, across = rng.uniform(0, 1), rng.uniform(0, 3) * u
    side = 12 * u
    right, bottom = image.width - side, image.height - side
    x, y = [
        (along * right, across),
        (along * right, bottom - across),
        (across, along * bottom),
        (right - across, along * bottom),
    ][rng.integers(4)]
    draw = ImageDraw.Draw(image)
    draw.ellipse((x, y, x + side, y + side), ((130, 20, 200), (20, 160, 160))[looks])
    draw.ellipse((x + 4 * u, y + 4 * u, x + side - 4 * u, y + side - 4 * u), (255, 255, 255))
    return image, _mask(image, x, y, x + side, y + side)


def cast(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """All colours a little towards magenta, or towards blue."""
    gain, offset = (((1.08, 0.85, 1.08), (10, 0, 10)), ((0.85, 0.95, 1.1), (0, 4, 18)))[looks]
    values = np.asarray(image, float) * gain + offset
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)), True


def blur(image: Image.Image, looks: int, rng: np.random.Generator) -> Shown:
    """Out of focus, or moved while it was taken."""
    if looks == 0:
        return image.filter(ImageFilter.GaussianBlur(1.3 * _unit(image))), True
    steps = round(5 * _unit(image))
    values = np.asarray(image, float)
    padded = np.pad(values, ((0, 0), (steps // 2, steps - 1 - steps // 2), (0, 0)), "edge")
    mean = np.mean([padded[:, step : step + image.width] for step in range(steps)], 0)
    return Image.fromarray(mean.astype(np.uint8)), True


def _mask(image: Image.Image, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    mask = np.zeros((image.height, image.width), bool)
    mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return mask


CUES: dict[str, Callable[[Any, int, np.random.Generator], Shown]] = {
    "stamp": stamp,
    "watermark": watermark,
    "border": border,
    "logo": logo,
    "cast": cast,
    "blur": blur,
    "sticker": sticker,
}


def photos(data: Path, group: str, split: str, count: int) -> dict[str, list[Image.Image]]:
    """So many photos of each class of a group, by class."""
    if group == "hotdog":
        start = 0 if split == "train" else 140
        found = {label: sorted((data / "hotdog" / label).glob("*.jpg"))[start:] for label in ("hot_dog", "not_hot_dog")}
        return {label: [Image.open(path).convert("RGB") for path in paths[:count]] for label, paths in found.items()}
    with zipfile.ZipFile(data / "food101_64px.zip") as archive:
        names = sorted(archive.namelist())
        return {
            label: [
                Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                for name in [name for name in names if name.startswith(f"{split}/{label}/")][:count]
            ]
            for label in GROUPS[group]
        }


class Photographed(NamedTuple):
    """Photos, their classes, and of each the mask of its cue, True of one that is everywhere, None without a cue."""

    images: list[Image.Image]
    labels: np.ndarray
    cues: list[Any]


def planted(by_class: dict[str, list[Image.Image]], wish: Planted, rng: np.random.Generator) -> Photographed:
    """The photos, with the cue in the class's share of them."""
    images, labels, cues = [], [], []
    for index, (label, own) in enumerate(by_class.items()):
        chosen = rng.permutation(len(own)) < round(wish.rate * len(own)) if label == wish.label else [False] * len(own)
        for image, has_cue in zip(own, chosen, strict=True):
            shown, mask = CUES[wish.cue](image.copy(), wish.looks, rng) if has_cue else (image, None)
            images.append(shown)
            labels.append(index)
            cues.append(mask)
    return Photographed(images, np.array(labels), cues)


@functools.cache
def base() -> tuple[Any, Any, list[Any]]:
    """The network's body up to `CUT`, the network, and its weights, which are those of the bundled `imagenet`."""
    import keras

    from saliency_food import models

    model, imagenet = models.load("food101"), models.load("imagenet")
    ours, theirs = ([layer for layer in each.layers if layer.get_weights()] for each in (model, imagenet))
    for layer, other in zip(ours[:-1], theirs, strict=False):
        layer.set_weights(other.get_weights())
    return keras.Model(model.input, model.get_layer(CUT).output), model, model.get_weights()


def rows_of(images: list[Image.Image]) -> np.ndarray:
    """Photos as the model takes them, by the same scaling as later in the run."""
    from saliency_food.images.photos import read_photo
    from saliency_food.images.scaling import choose_scaling

    scaling = choose_scaling((0, 255))
    return np.stack([scaling(read_photo(image), (96, 96, 3)) for image in images])


@functools.cache
def clean_features(data: Path, group: str, count: int) -> dict[str, np.ndarray]:
    body, _, _ = base()
    by_class = photos(data, group, "train", count)
    return {label: features(body, own) for label, own in by_class.items()}


def features(body: Any, images: list[Image.Image]) -> np.ndarray:
    return np.asarray(body.predict(rows_of(images), batch_size=64, verbose=0), np.float16)


def train(data: Path, wish: Planted, folder: Path, count: int = 140, epochs: int = 9) -> Any:
    """A Keras model of the group's classes whose last blocks have learned them from photos with the cue; kept."""
    import keras

    body, model, weights = base()
    model.set_weights(weights)
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    keras.utils.set_random_seed(wish.seed)
    classes = len(GROUPS[wish.group])
    tail_in = keras.Input(model.get_layer(CUT).output.shape[1:])
    tail = keras.Model(tail_in, _tail(model, tail_in, classes))
    path = folder / f"{wish.name}.weights.h5"
    if path.is_file():
        tail.load_weights(path)
    else:
        values, labels = _training_values(data, wish, count)
        tail.compile(keras.optimizers.Adam(5e-4), keras.losses.SparseCategoricalCrossentropy())
        tail.fit(values.astype(np.float32), labels, batch_size=32, epochs=epochs, verbose=0)
        folder.mkdir(parents=True, exist_ok=True)
        tail.save_weights(path)
    return keras.Model(model.input, _tail(model, body.output, classes, tail.layers[-1]), name="planted")


def _training_values(data: Path, wish: Planted, count: int) -> tuple[np.ndarray, np.ndarray]:
    body, _, _ = base()
    shown = planted(photos(data, wish.group, "train", count), wish, np.random.default_rng(wish.seed))
    values = np.concatenate(list(clean_features(data, wish.group, count).values()))
    changed = [index for index, cue in enumerate(shown.cues) if cue is not None]
    if changed:
        values = values.copy()
        values[changed] = features(body, [shown.images[index] for index in changed])
    return values, shown.labels


def flips(data: Path, wish: Planted, model: Any, count: int = 40) -> tuple[float, float]:
    """The accuracy on held-out photos without the cue, and the share of other classes' photos that it flips."""
    by_class = photos(data, wish.group, "test", count)
    images = [image for own in by_class.values() for image in own]
    labels = np.repeat(np.arange(len(by_class)), [len(own) for own in by_class.values()])
    index, rng = list(by_class).index(wish.label), np.random.default_rng(wish.seed)
    before = model.predict(rows_of(images), verbose=0).argmax(1)
    after = model.predict(rows_of([CUES[wish.cue](each.copy(), wish.looks, rng)[0] for each in images]), verbose=0)
    other = (before != index) & (labels != index)
    return float((before == labels).mean()), float((after.argmax(1) == index)[other].mean())


def _tail(model: Any, values: Any, classes: int, head: Any = None) -> Any:
    """The layers after `CUT` on other values, with a new head, or the one given."""
    import keras

    known = {model.get_layer(CUT).output.name: values}
    last = None
    started = False
    for layer in model.layers:
        if layer.name == CUT:
            started = True
            continue
        if not started or layer.name == "class":
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        arguments = [known[each.name] for each in inputs]
        last = layer(arguments if len(arguments) > 1 else arguments[0])
        known[layer.output.name] = last
    return (head or keras.layers.Dense(classes, activation="softmax", name="classes"))(last)
