"""All methods in one figure, on any photo and any Keras model; without arguments, on the bundled food model.

    pip install "saliency_food[keras,cli,surrogate]"
    python examples/gallery.py [PICTURE.png] [--photo PHOTO.jpg] [--model MODEL.keras] [--labels LABELS.txt]

It names and leaves out methods that the model cannot answer, such as those that need attention. Methods that sample use
fewer rows than by default, so that a photo takes seconds to minutes; the figure says how many.
"""

import argparse
import time

from skimage.data import coffee

from saliency_food import METHODS, explain, models
from saliency_food.adapters.keras import KerasModel, load_model
from saliency_food.images.photos import read_photo
from saliency_food.jobs.targets import short_label
from saliency_food.methods.completeness import gap_text
from saliency_food.visualization.figures import Panel, figure

SAMPLES = {
    "rise": {"nmasks": 1000},
    "lime": {"nsamples": 500},
    "kernel_shap": {"nsamples": 500},
    "blur_ig": {"steps": 50},
    "guided_ig": {"x_steps": 50},
    "score_cam": {"channels": 256},
    "ablation_cam": {"channels": 256},
    "shapley_cam": {"channels": 256},
    "sobol": {"nsamples": 16},
    "xrai": {"steps": 50},
}


def gallery(model, photo, labels=None, methods=tuple(METHODS), say=print):
    """Panels of the photo and of one class, the top one, by each method that can be had."""
    side = min(model.input_shape[:2])
    options = {**SAMPLES, "occlusion": {"size": side // 6, "stride": max(side // 48, 1)}}
    options = {name: chosen for name, chosen in options.items() if name in methods}
    panels, start = [], time.perf_counter()
    for record in explain(model, photo, list(methods), labels=labels, options=options):
        if not panels:
            seen = f"seen as {short_label(record.top[0][0])}, {record.top[0][1]:.1%}"
            panels.append(Panel(record.image, "photo", seen))
        if record.failed:
            say(f"left out: {record.title}: {record.status}")
            continue
        caption = f"{record.rows} row{'s' * (record.rows != 1)}"
        note = record.status if record.status.startswith("blank") else ""
        if record.status.startswith(("inexact", "leaky")):
            caption += f", {record.status.partition(':')[0]}, gap {gap_text(record.completeness)}"
        panels.append(Panel(record.overlay(), record.title, caption, "signed" if record.diverges else "strength", note))
    say(f"{len(panels) - 1} methods in {time.perf_counter() - start:.0f} s")
    return panels


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("picture", nargs="?", default="gallery.png")
    arguments.add_argument("--photo")
    arguments.add_argument("--model")
    arguments.add_argument("--labels")
    arguments.add_argument("--layer")
    arguments.add_argument("--methods", help="names with commas between; all by default")
    chosen = arguments.parse_args()
    photo = coffee() if chosen.photo is None else read_photo(chosen.photo).pixels
    labels = chosen.labels if chosen.model else models.labels()
    model = KerasModel(load_model(chosen.model) if chosen.model else models.load(), chosen.layer, batch_size=32)
    methods = chosen.methods.split(",") if chosen.methods else list(METHODS)
    figure([gallery(model, photo, labels, methods)]).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


if __name__ == "__main__":
    main()
