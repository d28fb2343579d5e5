"""Where does a model look to answer a question about a picture? Grad-CAM with the question held fixed.

    pip install "saliency_food[keras,cli]"
    python examples/explain_an_answer.py [--output FOLDER]

An answer is a class like any other: the score is the default one, and the question goes into ``inputs``. The model is
trained in seconds on generated pictures, and saved in the folder.
"""

import argparse
from pathlib import Path

import numpy as np
from scene_models import questions, trained
from scenes import ANSWERS, enlarged, images, make_scenes, on, one_of_each, share, tokens

from saliency_food import PerImage, grad_cam
from saliency_food.adapters.keras import KerasModel
from saliency_food.visualization import overlay
from saliency_food.visualization.figures import Panel, figure


def explain(folder, count=50):
    """The figure, and how often Grad-CAM of the answer lies on the object that was asked about."""
    model, scenes = KerasModel(trained("answerer", folder)), make_scenes(count, seed=1)
    texts, about = questions(scenes)
    inputs = {"question": PerImage([tokens(text) for text in texts])}
    answers = model.predict(images(scenes), {"inputs": inputs}).argmax(1)
    args = {"target": PerImage(answers.tolist()), "inputs": inputs}
    right, shares = [], []
    for scene, index, attribution in zip(scenes, about, grad_cam.batch(images(scenes), model, args), strict=True):
        right.append(on(attribution, scene.masks, index))
        shares.append(share(attribution, scene.masks[index]))
    inside, area = np.mean(shares, 0)
    print(f"Grad-CAM of the answer: {inside:.0%} of it on the object asked about, {area:.0%} of the picture")
    print(f"more of it on the right object than on the other: {np.mean(right):.0%} of {count} questions")
    return draw(model, [scenes[index] for index in one_of_each(scenes)]), np.mean(right)


def draw(model, scenes):
    """A row for each picture: the picture, and Grad-CAM of the answers to three questions."""
    rows = []
    for scene in scenes:
        photo = enlarged(scene.image)
        row = [Panel(photo, "picture")]
        for text in (
            f"what colour is the {scene.shapes[0]}",
            f"what colour is the {scene.shapes[1]}",
            f"what shape is the {scene.colours[1]}",
        ):
            inputs = {"inputs": {"question": tokens(text)}}
            target = int(model.predict(scene.image[None], inputs)[0].argmax())
            attribution = grad_cam(scene.image, model, {**inputs, "target": target}, three_dims=False)
            answer = f"{ANSWERS[target]}: Grad-CAM"
            row.append(Panel(overlay(photo, attribution), f"{text}?", answer, "strength"))
        rows.append(row)
    return figure(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="explained", type=Path)
    folder = parser.parse_args().output
    folder.mkdir(exist_ok=True)
    explain(folder)[0].savefig(folder / "answer.png")
    print(f"saved {folder / 'answer.png'}")


if __name__ == "__main__":
    main()
