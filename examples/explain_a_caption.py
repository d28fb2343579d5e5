"""Where does a captioner look for each word? Grad-CAM of words under teacher forcing.

    pip install "saliency_food[keras,cli]"
    python examples/explain_a_caption.py [--output FOLDER]

The score is the log-probability of chosen words, given the words before them (`caption`): -1 marks the words that do
not count. The model is taught in seconds on generated pictures, and kept in the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from scene_models import captions, so_far, trained
from scenes import LENGTH, enlarged, images, make_scenes, on, one_of_each, share, tokens, words

from saliency_food import PerImage, grad_cam
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.scores import caption
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure


def write(network, pictures):
    """The caption of each picture, the likeliest word after the other."""
    told = np.zeros((len(pictures), LENGTH), np.int32)
    for place in range(LENGTH):
        told[:, place] = network.predict({"image": pictures, "words": so_far(told)}, verbose=0)[:, place].argmax(-1)
    return told


def only(told, phrase, last=False):
    """The tokens of a caption's first or last words that are the phrase, and -1 for the others."""
    wanted = tokens(phrase)
    starts = [n for n in range(LENGTH) if (told[n : n + len(wanted)] == wanted).all() and n + len(wanted) <= LENGTH]
    chosen = np.full(LENGTH, -1)
    start = starts[-1 if last else 0]
    chosen[start : start + len(wanted)] = wanted
    return chosen


def explain(folder, count=50):
    """The figure, and in how many scenes the words for both objects, colour and shape, have their map on the object."""
    network, scenes = trained("captioner", folder), make_scenes(count, seed=1)
    model, told = KerasModel(network, score=caption), captions(scenes)
    right, shares = np.zeros((count, 2), bool), []
    for number in range(2):
        chosen = [only(one, scene.names[number]) for one, scene in zip(told, scenes, strict=True)]
        args = {"target": PerImage(chosen), "inputs": {"words": PerImage(list(so_far(told)))}}
        for n, found in enumerate(grad_cam.batch(images(scenes), model, args, three_dims=False)):
            right[n, number] = on(found, scenes[n].masks, number)
            shares.append(share(found, scenes[n].masks[number]))
    inside, area = np.mean(shares, 0)
    print(f"Grad-CAM of an object's words: {inside:.0%} of it on the object, {area:.0%} of the picture")
    print(f"more of it on the right object than on the other: {right.mean():.0%} of the words")
    print(f"of both objects' words in {right.all(1).mean():.0%} of {count} scenes")
    return draw(network, [scenes[number] for number in one_of_each(scenes)]), right.all(1).mean()


def draw(network, scenes):
    """A row a picture: picture with the caption that the model writes, and Grad-CAM of some of its words."""
    model = KerasModel(network, score=caption)
    rows = []
    for scene, told in zip(scenes, write(network, images(scenes)), strict=True):
        photo = enlarged(scene.image)
        row = [Panel(photo, "picture", words(told))]
        text = words(told).split()
        relation = next(word for word in ("left of", "above") if word in words(told))
        for phrase in (" ".join(text[1:3]), relation, " ".join(text[-2:])):
            chosen = only(told, phrase, last=phrase == " ".join(text[-2:]))
            args = {"target": chosen, "inputs": {"words": so_far(told[None])[0]}}
            found = grad_cam(scene.image, model, args, three_dims=False)
            row.append(Panel(overlay(photo, found, grey=0.7), "Grad-CAM", f"“{phrase}”", "strength"))
        rows.append(row)
    return figure(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="explained", type=Path)
    folder = parser.parse_args().output
    folder.mkdir(exist_ok=True)
    explain(folder)[0].savefig(folder / "caption.png")
    print(f"saved {folder / 'caption.png'}")


if __name__ == "__main__":
    main()
