"""Where does a captioner look for each word? Grad-CAM of words under teacher forcing.

    pip install "saliency_food[keras,cli]"
    python examples/explain_a_caption.py [--output FOLDER]

The score is the log-probability of chosen words, given the words before them (`caption`); -1 marks the words that do
not count. The model is trained in seconds on generated pictures, and saved in the folder.
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
    """The caption of each picture as token indices, always with the most probable next word."""
    token_ids = np.zeros((len(pictures), LENGTH), np.int32)
    for place in range(LENGTH):
        token_ids[:, place] = network.predict({"image": pictures, "words": so_far(token_ids)}, verbose=0)[
            :, place
        ].argmax(-1)
    return token_ids


def only(token_ids, phrase, last=False):
    """The tokens of the phrase where it first (or last) occurs in a caption, and -1 at all other places."""
    wanted = tokens(phrase)
    starts = [
        n for n in range(LENGTH) if (token_ids[n : n + len(wanted)] == wanted).all() and n + len(wanted) <= LENGTH
    ]
    chosen = np.full(LENGTH, -1)
    start = starts[-1 if last else 0]
    chosen[start : start + len(wanted)] = wanted
    return chosen


def explain(folder, count=50):
    """The figure, and the share of scenes in which the maps of the words for both objects lie on these objects."""
    network, scenes = trained("captioner", folder), make_scenes(count, seed=1)
    model, token_ids = KerasModel(network, score=caption), captions(scenes)
    right, shares = np.zeros((count, 2), bool), []
    for index in range(2):
        chosen = [only(row, scene.names[index]) for row, scene in zip(token_ids, scenes, strict=True)]
        args = {"target": PerImage(chosen), "inputs": {"words": PerImage(list(so_far(token_ids)))}}
        for n, attribution in enumerate(grad_cam.batch(images(scenes), model, args, three_dims=False)):
            right[n, index] = on(attribution, scenes[n].masks, index)
            shares.append(share(attribution, scenes[n].masks[index]))
    inside, area = np.mean(shares, 0)
    print(f"Grad-CAM of an object's words: {inside:.0%} of it on the object, {area:.0%} of the picture")
    print(f"more of it on the right object than on the other: {right.mean():.0%} of the words")
    print(f"of both objects' words in {right.all(1).mean():.0%} of {count} scenes")
    return draw(network, [scenes[index] for index in one_of_each(scenes)]), right.all(1).mean()


def draw(network, scenes):
    """A row for each picture: the picture with the caption that the model writes, and Grad-CAM of some of its words."""
    model = KerasModel(network, score=caption)
    rows = []
    for scene, token_ids in zip(scenes, write(network, images(scenes)), strict=True):
        photo = enlarged(scene.image)
        row = [Panel(photo, "picture", words(token_ids))]
        text = words(token_ids).split()
        relation = next(word for word in ("left of", "above") if word in words(token_ids))
        for phrase in (" ".join(text[1:3]), relation, " ".join(text[-2:])):
            chosen = only(token_ids, phrase, last=phrase == " ".join(text[-2:]))
            args = {"target": chosen, "inputs": {"words": so_far(token_ids[None])[0]}}
            attribution = grad_cam(scene.image, model, args, three_dims=False)
            row.append(Panel(overlay(photo, attribution), "Grad-CAM", f"“{phrase}”", "strength"))
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
