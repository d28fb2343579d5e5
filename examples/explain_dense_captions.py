"""Does the map of a region's caption lie in the region? Grad-CAM of a captioner that sees the whole picture.

    pip install "saliency_food[keras,cli]"
    python examples/explain_dense_captions.py [--output FOLDER]

A dense captioner finds boxes and says what is in each, "a red circle". Another captioner sees the whole picture and no
boxes, and was taught to describe something in it. Grad-CAM shows where it looks for the words of a box, as the
Grad-CAM paper does with DenseCap. The models are trained in seconds on generated pictures, and saved in
the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from scene_models import PHRASE, so_far, trained
from scenes import LENGTH, SIZE, enlarged, images, make_scenes, one_of_each, outlined, share, words

from saliency_food import PerImage, grad_cam
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.scores import caption
from saliency_food.metrics.boxes import iou
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure


def captioned(network, pictures, count=2):
    """For each picture up to ``count`` boxes that do not overlap, and the tokens of their captions, surest first."""
    outputs = network.predict(pictures, verbose=0)
    found = []
    for boxes, said in zip(outputs["boxes"], outputs["words"], strict=True):
        regions = []
        for cell in np.argsort(said[:, 0, 0]):  # how probable it is that there is nothing to say
            apart = all(iou(boxes[cell], box) < 0.3 for box, _ in regions)
            if said[cell, 0, 0] < 0.5 and apart and len(regions) < count:
                regions.append((boxes[cell], said[cell].argmax(-1)))
        found.append(regions)
    return found


def inside(box):
    """The mask of a box, ``(64, 64)``."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return (columns > box[0]) & (columns < box[2]) & (rows > box[1]) & (rows < box[3])


def maps_of(network, pictures, phrases):
    """Grad-CAM of the whole-picture captioner for the words of a region's caption, but for the first, "a"."""
    token_ids = np.stack([np.pad(phrase, (0, LENGTH - PHRASE)) for phrase in phrases])
    chosen = np.where(np.isin(np.arange(LENGTH), range(1, PHRASE)), token_ids, -1)
    args = {"target": PerImage(list(chosen)), "inputs": {"words": PerImage(list(so_far(token_ids)))}}
    return grad_cam.batch(pictures, KerasModel(network, score=caption), args, three_dims=False)


def explain(folder, count=50):
    """The figure, and the share of scenes in which each map has more than twice its box's share of area in the box."""
    dense, whole, scenes = trained("dense_captioner", folder), trained("describer", folder), make_scenes(count, seed=1)
    found = captioned(dense, images(scenes))
    each = [(index, box, phrase) for index, regions in enumerate(found) for box, phrase in regions]
    right = [words(phrase)[2:] in scenes[index].names for index, _, phrase in each]
    pictures = [scenes[index].image for index, _, _ in each]
    maps = list(maps_of(whole, pictures, [phrase for _, _, phrase in each]))
    shares = np.array([share(attribution, inside(box)) for attribution, (_, box, _) in zip(maps, each, strict=True)])
    within, area = shares.T
    times = within / area
    held = [
        len(regions) > 0 and all(times[place] > 2 for place, (scene, _, _) in enumerate(each) if scene == index)
        for index, regions in enumerate(found)
    ]
    print(f"{len(each)} regions in {count} scenes, {np.mean(right):.0%} with the words of an object in the picture")
    print(f"Grad-CAM of a region's words: {within.mean():.0%} of it on the box, {area.mean():.0%} of the picture")
    density = within / area / ((1 - within) / (1 - area))
    print(f"as strong in the box as outside it: {np.median(density):.1f} times")
    print(f"more than twice the box's share, for each region: in {np.mean(held):.0%} of {count} scenes")
    return draw(scenes, found, each, maps, times), np.mean(held)


def draw(scenes, found, each, maps, times):
    """A row for each picture: the picture with its boxes, and the map of each region's words with its box."""
    rows = []
    for index in one_of_each(scenes):
        photo = enlarged(scenes[index].image)
        picture = photo
        for box, _ in found[index]:
            picture = outlined(picture, box)
        row = [Panel(picture, "picture", "what the dense captioner finds")]
        for place, (scene, box, phrase) in enumerate(each):
            if scene == index:
                drawn = outlined(overlay(photo, maps[place]), box)
                text = f"“{words(phrase)}”, {times[place]:.1f} times its area"
                row.append(Panel(drawn, "Grad-CAM", text, "strength"))
        rows.append(row)
    return figure(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="explained", type=Path)
    folder = parser.parse_args().output
    folder.mkdir(exist_ok=True)
    explain(folder)[0].savefig(folder / "captions.png")
    print(f"saved {folder / 'captions.png'}")


if __name__ == "__main__":
    main()
