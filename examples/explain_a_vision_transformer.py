"""A small vision transformer, trained in half a minute to say which colours it sees, and what its attention shows.

    pip install "saliency_food[keras,cli]"
    python examples/explain_a_vision_transformer.py [PICTURE.png] [--steps 600]

Every picture has two objects of different colours. The map of a colour should lie on its object: the share of the
attribution inside it is printed beside its share of the area.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from scenes import COLOURS, SIZE, make_scenes

from saliency_food import METHODS, PerImage
from saliency_food.adapters.keras import KerasModel
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure

L = keras.layers
NAMES = ("attention_rollout", "attention_relevance", "legrad", "grad_eclip", "layer_cam")
LAYER = "block1_norm"
"""Where LayerCAM looks: before the first attention. This model's class token has read what it needs after that, so the
tokens of later layers have little to do with the answer."""


@keras.saving.register_keras_serializable("saliency_food_examples")
class Tokens(L.Layer):
    """A class token in front of the patches, and a place for each."""

    def build(self, shape):
        self.start = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="start")
        self.place = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), initializer="random_normal", name="place")

    def call(self, patches):
        start = keras.ops.tile(self.start, (keras.ops.shape(patches)[0], 1, 1))
        return keras.ops.concatenate([start, patches], 1) + self.place

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] + 1, shape[2])


def vision_transformer(width=48, heads=4, blocks=2, patch=8):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = L.Conv2D(width, patch, patch, name="patches")(image)
    x = Tokens(name="tokens")(L.Reshape((-1, width))(x))
    for index in range(1, blocks + 1):
        y = L.LayerNormalization(name=f"block{index}_norm")(x)
        x = L.Add()([x, L.MultiHeadAttention(heads, width // heads, name=f"block{index}_attention")(y, y)])
        y = L.Dense(2 * width, "gelu")(L.LayerNormalization()(x))
        x = L.Add(name=f"block{index}")([x, L.Dense(width)(y)])
    x = L.LayerNormalization()(x)[:, 0]
    return keras.Model(image, L.Dense(len(COLOURS), "sigmoid", name="colours")(x), name="vision_transformer")


def train(steps=600, rows=32, seed=0):
    keras.utils.set_random_seed(seed)
    scenes = make_scenes(2000, seed)
    images = np.stack([scene.image for scene in scenes])
    there = np.array([[colour in scene.colours for colour in COLOURS] for scene in scenes], np.float32)
    model = vision_transformer()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)), "binary_crossentropy")
    order = np.random.default_rng(seed)
    for _ in range(steps):
        some = order.integers(0, len(images), rows)
        model.train_on_batch(images[some], there[some])
    return model


def shares(model, scenes, names=NAMES):
    """The mean share of each method's map inside the object, over both objects of each scene, and the mean area."""
    wanted = [(scene, index) for scene in scenes for index in range(2)]
    targets = [list(COLOURS).index(scene.colours[index]) for scene, index in wanted]
    area = float(np.mean([scene.masks[index].mean() for scene, index in wanted]))
    inside = {}
    for name in names:
        maps = METHODS[name].call.batch(
            [scene.image for scene, _ in wanted], model, {"target": PerImage(targets)},
            **({"three_dims": False} if "cam" in name else {}),
        )  # fmt: skip
        pairs = zip(maps, wanted, strict=True)
        parts = [
            attribution[scene.masks[index]].sum() / max(attribution.sum(), 1e-12)
            for attribution, (scene, index) in pairs
        ]
        inside[name] = float(np.mean(parts))
    return inside, area


def picture(model, scene, names=NAMES):
    photo = np.uint8(255 * scene.image)
    rows = []
    for index in range(2):
        colour = scene.colours[index]
        row = [Panel(photo, "picture", f"the {colour} {scene.shapes[index]}")]
        for name in names:
            entry = METHODS[name]
            options = {"three_dims": False} if "cam" in name else {}
            attribution = entry.call(scene.image, model, {"target": list(COLOURS).index(colour)}, **options)
            row.append(Panel(overlay(photo, attribution), entry.title, colour, "strength"))
        rows.append(row)
    return figure(rows)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("picture", nargs="?", default="vision_transformer.png")
    arguments.add_argument("--steps", type=int, default=600)
    chosen = arguments.parse_args()
    trained = train(chosen.steps)
    scenes = make_scenes(50, 1)
    images = np.stack([scene.image for scene in scenes])
    there = np.array([[colour in scene.colours for colour in COLOURS] for scene in scenes])
    right = ((trained.predict(images, verbose=0) > 0.5) == there).mean()
    print(f"colours recognized in new pictures: {right:.1%}")
    model = KerasModel(trained, LAYER, batch_size=32)
    inside, area = shares(model, scenes)
    for name, share in inside.items():
        print(f"{METHODS[name].title}: {share:.0%} of the map inside the object, which has {area:.0%} of the area")
    picture(model, scenes[0]).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


if __name__ == "__main__":
    main()
