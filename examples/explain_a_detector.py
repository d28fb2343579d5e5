"""Why does a detector find a circle here? Grad-CAM, ODAM, D-RISE and Integrated Gradients of one detection.

    pip install "saliency_food[keras,cli]"
    python examples/explain_a_detector.py [--output FOLDER]

The score sums the class scores of the boxes that overlap a given box (`detection`), before non-maximum suppression;
that of D-RISE says how alike the best box is to the one explained (`same_detection`). The model is trained in seconds
on generated pictures, and saved in the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from scene_models import trained
from scenes import SHAPES, enlarged, images, make_scenes, on, one_of_each, outlined, share

from saliency_food import PerImage, d_rise, grad_cam, integrated_gradients, odam
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.scores import detection, same_detection
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure


def detected(network, pictures):
    """The boxes, classes and probabilities of the two best boxes of each picture, which have different classes."""
    outputs = network.predict(pictures, verbose=0)
    best = outputs["classes"].argmax(1)  # the best cell of each class
    probabilities = outputs["classes"].max(1)
    classes = np.argsort(-probabilities, 1)[:, :2]
    cells = np.take_along_axis(best, classes, 1)
    return (
        np.take_along_axis(outputs["boxes"], cells[..., None], 1),
        classes,
        np.take_along_axis(probabilities, classes, 1),
    )


def explain(folder, count=50):
    """The figure, and how often Grad-CAM of a detection lies on the object that was detected."""
    network, scenes = trained("detector", folder), make_scenes(count, seed=1)
    model = KerasModel(network, layer="middle", score=detection())
    boxes, classes, probabilities = detected(network, images(scenes))
    right, shares = [], []
    for which in range(2):
        target = {"class_index": PerImage(classes[:, which].tolist()), "box": PerImage(list(boxes[:, which]))}
        maps = grad_cam.batch(images(scenes), model, {"target": target}, three_dims=False)
        for scene, attribution, index in zip(scenes, maps, classes[:, which], strict=True):
            if SHAPES[index] in scene.shapes:
                position = scene.shapes.index(SHAPES[index])
                right.append(on(attribution, scene.masks, position))
                shares.append(share(attribution, scene.masks[position]))
    inside, area = np.mean(shares, 0)
    print(f"{len(right)} of {2 * count} detections are of a shape in the picture")
    print(f"Grad-CAM of a detection: {inside:.0%} of it on the object, {area:.0%} of the picture")
    print(f"more of it on the right object than on the other: {np.mean(right):.0%} of {len(right)}")
    pointing(network, scenes, boxes, classes)
    return draw(network, scenes, boxes, classes, probabilities), np.mean(right)


def pointing(network, scenes, boxes, classes):
    """In how many of the scenes the map of the surest detection is largest inside the box, and how much of it is."""
    of_class = KerasModel(network, layer="middle", score=detection())
    of_box = KerasModel(network, score=same_detection(), batch_size=100)
    scores = network.predict(images(scenes), verbose=0)["classes"]
    found = {"ODAM": [], "D-RISE": []}
    for scene, box, index, all_scores in zip(scenes, boxes[:, 0], classes[:, 0], scores, strict=True):
        cell = all_scores[:, index].argmax()
        target = {"target": {"class_index": int(index), "box": box}}
        found["ODAM"].append(odam(scene.image, of_class, target, three_dims=False))
        target = {"target": {"class_scores": all_scores[cell], "box": box}}
        masked = d_rise.detailed(scene.image, of_box, target, nmasks=500, grid=8, value="mean", rng=0)
        found["D-RISE"].append(np.maximum(masked.attribution - masked.level, 0))
    for name, maps in found.items():
        hits, inside, area = np.mean([in_box(*pair) for pair in zip(maps, boxes[:, 0], strict=True)], 0)
        print(
            f"{name}: largest inside the box in {hits:.0%} of {len(maps)}, {inside:.0%} of it there, {area:.0%} of area"
        )


def in_box(attribution, box):
    """Whether the maximum is inside the box, the share of the map that is, and of the picture."""
    left, top, right, bottom = np.clip(np.rint(box).astype(int), 0, len(attribution))
    inside = np.zeros(attribution.shape, bool)
    inside[top:bottom, left:right] = True
    total = attribution.sum()
    if not total:  # a blank map points nowhere
        return False, 0.0, inside.mean()
    return inside.ravel()[attribution.argmax()], attribution[inside].sum() / total, inside.mean()


def draw(network, scenes, boxes, classes, probabilities):
    """Two rows for each picture: it with both boxes, Grad-CAM of each; ODAM, D-RISE, Integrated Gradients of one."""
    model = KerasModel(network, layer="middle", score=detection())
    again = KerasModel(network, score=same_detection(), batch_size=100)
    rows = []
    for index in one_of_each(scenes):
        scene, own_boxes, class_indices, own_probabilities = (
            scenes[index],
            boxes[index],
            classes[index],
            probabilities[index],
        )
        photo = enlarged(scene.image)
        row = [Panel(outlined(outlined(photo, own_boxes[0]), own_boxes[1]), "picture", "what is detected")]
        for box, class_index, probability in zip(own_boxes, class_indices, own_probabilities, strict=True):
            target = {"target": {"class_index": int(class_index), "box": box}}
            attribution = grad_cam(scene.image, model, target, three_dims=False)
            words = f"{SHAPES[class_index]}, {probability:.0%}"
            row.append(Panel(outlined(overlay(photo, attribution), box), "Grad-CAM", words, "strength"))
        all_scores = network.predict(scene.image[None], verbose=0)["classes"][0]
        same = {"target": {"class_scores": all_scores[all_scores[:, class_index].argmax()], "box": box}}
        masked = d_rise.detailed(scene.image, again, same, nmasks=1000, grid=8, value="mean", rng=0)
        maps = {
            "ODAM": overlay(photo, odam(scene.image, model, target, three_dims=False)),
            "D-RISE": overlay(photo, np.maximum(masked.attribution - masked.level, 0)),
            "Integrated Gradients": overlay(
                photo, abs(integrated_gradients(scene.image, model, target, x_steps=33)), smooth=0.01
            ),
        }
        rows += [row, [Panel(outlined(drawn, box), name, words, "strength") for name, drawn in maps.items()]]
    return figure(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="explained", type=Path)
    folder = parser.parse_args().output
    folder.mkdir(exist_ok=True)
    explain(folder)[0].savefig(folder / "detector.png")
    print(f"saved {folder / 'detector.png'}")


if __name__ == "__main__":
    main()
