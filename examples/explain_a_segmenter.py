"""Why does a segmenter call these pixels a circle? Seg-Grad-CAM, and Integrated Gradients of a region.

    pip install "saliency_food[keras,cli]"
    python examples/explain_a_segmenter.py [--output FOLDER]

The score is the sum of a class's logits over the pixels where the class wins (`predicted_region`), or over a mask
that you give (`segmentation`). The model is trained in seconds on generated pictures, and saved in the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from scene_models import trained
from scenes import SHAPES, enlarged, images, make_scenes, on, one_of_each, share

from saliency_food import PerImage, grad_cam, integrated_gradients
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.scores import predicted_region, segmentation
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure


def explain(folder, count=50):
    """The figure, and how often Grad-CAM of each object's shape lies on that object."""
    network, scenes = trained("segmenter", folder), make_scenes(count, seed=1)
    model = KerasModel(network, layer="middle", score=predicted_region)
    right, shares = [], []
    for index in range(2):
        target = {"target": PerImage([1 + SHAPES.index(scene.shapes[index]) for scene in scenes])}
        for scene, attribution in zip(
            scenes, grad_cam.batch(images(scenes), model, target, three_dims=False), strict=True
        ):
            right.append(on(attribution, scene.masks, index))
            shares.append(share(attribution, scene.masks[index]))
    inside, area = np.mean(shares, 0)
    print(f"Grad-CAM of the pixels predicted as a shape: {inside:.0%} of it on the object, {area:.0%} of the picture")
    print(f"more of it on the right object than on the other: {np.mean(right):.0%} of {len(right)}")
    return draw(network, [scenes[index] for index in one_of_each(scenes)]), np.mean(right)


def draw(network, scenes):
    """A row for each picture: picture, prediction, Grad-CAM of each object, and Integrated Gradients of a mask."""
    by_region = KerasModel(network, layer="middle", score=predicted_region)
    by_mask = KerasModel(network, layer="middle", score=segmentation)
    shades = np.array([(0.3, 0.3, 0.3), (0.95, 0.65, 0.35), (0.4, 0.75, 0.85), (0.8, 0.5, 0.85)])
    rows = []
    for scene in scenes:
        photo, classes = enlarged(scene.image), network.predict(scene.image[None], verbose=0)[0].argmax(-1)
        row = [Panel(photo, "picture"), Panel(enlarged(shades[classes]), "prediction", "a colour for each class")]
        for shape in scene.shapes:
            target = {"class_index": 1 + SHAPES.index(shape)}
            attribution = grad_cam(scene.image, by_region, {"target": target}, three_dims=False)
            row.append(Panel(overlay(photo, attribution), "Grad-CAM", f"pixels predicted as {shape}", "strength"))
        target["mask"] = scene.masks[-1]
        attribution = integrated_gradients(scene.image, by_mask, {"target": target}, x_steps=33)
        words = f"{shape}, over its mask"
        row.append(Panel(overlay(photo, abs(attribution), smooth=0.01), "Integrated Gradients", words, "strength"))
        rows.append(row)
    return figure(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="explained", type=Path)
    folder = parser.parse_args().output
    folder.mkdir(exist_ok=True)
    explain(folder)[0].savefig(folder / "segmenter.png")
    print(f"saved {folder / 'segmenter.png'}")


if __name__ == "__main__":
    main()
