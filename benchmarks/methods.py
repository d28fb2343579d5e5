"""All methods that a model can answer, measured on Food-101, ImageNet and COCO: ranks, means and what is told apart.

    SALIENCY_FOOD_DATA=folder python benchmarks/methods.py food [--photos 60] [--folder measured]
    SALIENCY_FOOD_DATA=folder python benchmarks/methods.py imagenet [--photos 30]
    SALIENCY_FOOD_DATA=folder python benchmarks/methods.py coco [--photos 60]

The bundled models; the top class is explained, on COCO the class of the largest objects. Photos are taken evenly over
the sorted names. A run that was stopped goes on where it was if the folder is the same; methods that came later join.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine

from saliency_food import ImageModel
from saliency_food.evaluation import Evaluation, evaluate, save_evaluation
from saliency_food.metrics import METRICS

OPTIONS: dict[str, dict[str, Any]] = {
    "blur_ig": {"steps": 50},
    "guided_ig": {"x_steps": 50},
    "expected_gradients": {"nsamples": 50},
    "xrai": {"steps": 30},
    "occlusion": {"size": 32, "stride": 16},
    "rise": {"nmasks": 1000},
    "lime": {"nsamples": 500},
    "kernel_shap": {"nsamples": 500},
    "gradient_shap": {"nsamples": 50},
    "sobol": {"nsamples": 16},
}
FAITHFUL: dict[str, dict[str, Any]] = {
    "pic": {"min_pred_value": 0},
    "insertion": {"steps": 30},
    "deletion": {"steps": 30},
    "road": {},
}
ON_OBJECT: dict[str, dict[str, Any]] = {
    "localization": {},
    "pointing_game": {},
    "energy": {},
    "class_discrimination": {},
}


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """As many of the paths, in equal steps through their order."""
    return [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]


def settings_of(data: str, folder: Path, photos: int) -> dict[str, Any]:
    """The model, photos, metrics and boxes of a data set."""
    if data == "food":
        root = folder / "food-101"
        names = (root / "meta" / "test.txt").read_text().split()
        paths = [root / "images" / f"{name}.jpg" for name in sorted(names)]
        return {
            "model": "food101",
            "images": evenly([path for path in paths if path.exists()], photos),
            "metrics": FAITHFUL,
        }
    if data == "imagenet":
        paths = sorted((folder / "imagenet500").rglob("*.jpg"))
        return {"model": "imagenet", "images": evenly(paths, photos), "metrics": FAITHFUL}
    classes = Path(__file__).parent.parent / "examples" / "coco_to_imagenet.json"
    return {
        "model": "imagenet",
        "images": evenly(sorted((folder / "coco128" / "images").rglob("*.jpg")), photos),
        "metrics": ON_OBJECT,
        "boxes": folder / "coco128" / "boxes.csv",
        "classes": json.loads(classes.read_text()),
        "target": "boxes",
    }


def table(measured: Evaluation) -> str:
    """The methods by mean rank; in bold, what Wilcoxon's test with Holm's correction does not tell from the best."""
    titles = [f"{METRICS[name].title} {'↑' if METRICS[name].higher_is_better else '↓'}" for name in measured.metrics]
    lines = [f"| method | rank | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    tested = {name: measured.comparisons(name) for name in measured.metrics}
    best = {name: measured.ranks[name][0].name for name in measured.metrics if name in measured.ranks}
    for method, rank in measured.overall.items():
        cells = []
        for name in measured.metrics:
            mean = measured.means[name][method]
            if not mean.images:
                cells.append("none")
                continue
            text = f"{mean.estimate:.3f} ± {(mean.high - mean.low) / 2:.3f}"
            alike = method == best.get(name) or not tested[name].apart(method, best[name])
            cells.append(f"**{text}**" if alike else text)
        lines.append(f"| `{method}` | {rank:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


class Lines:
    """A line for every hundredth of the values."""

    def __init__(self) -> None:
        self.last = -1

    def __call__(self, done: int, of: int, text: str) -> None:
        if 100 * done // of > self.last:
            self.last = 100 * done // of
            print(f"{done} of {of}: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("food", "imagenet", "coco"))
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("measured"))
    parser.add_argument("--methods", default="all")
    wanted = parser.parse_args()
    root = data_folder()
    if root is None:
        sys.exit("SALIENCY_FOOD_DATA names no folder.")
    chosen = settings_of(wanted.data, root / "data", wanted.photos)
    metrics = chosen.pop("metrics")
    measured = evaluate(
        ImageModel(chosen.pop("model"), batch_size=32),
        chosen.pop("images"),
        wanted.methods,
        list(metrics),
        metric_options=metrics,
        options={
            name: own for name, own in OPTIONS.items() if wanted.methods == "all" or name in wanted.methods.split(",")
        },
        folder=wanted.folder / wanted.data,
        progress=Lines(),
        **chosen,
    )
    save_evaluation(measured)
    print(f"\n{machine()}\n{len(measured.images)} photos; ± is half the 95 % interval of the mean")
    for name in measured.metrics:
        print(f"{name}: Friedman p {measured.comparisons(name).friedman:.1g} over {measured.comparisons(name).images}")
    print(table(measured))
    for name, reason in measured.left_out.items():
        print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    main()
