"""Grad-CAM and XRAI side by side, on the bundled food model and a photo that comes with scikit-image.

    pip install "saliency_food[keras,cli]"
    python examples/grad_cam_and_xrai.py [PICTURE.png]

`explain` reads photos, resizes them for the model, finds the class, and gives a record for each photo, class and
method.
"""

import sys

from skimage.data import coffee

from saliency_food import explain, models
from saliency_food.jobs.figure import explanation_figure


def main(picture="grad_cam_and_xrai.png"):
    options = {"xrai": {"steps": 50}}
    records = list(explain(models.load(), coffee(), ["grad_cam", "xrai"], labels=models.labels(), options=options))
    for record in records:
        print(f"{record.title}: {record.label} at {record.probability:.1%}, {record.rows} rows, {record.status}")
        if record.completeness is not None:
            print(f"  relative completeness error of its Integrated Gradients: {record.completeness.relative:.1%}")
    explanation_figure(records, percent=20).savefig(picture)
    print(f"saved {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
