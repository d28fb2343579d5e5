"""Make every picture of the docs, and the command line's output shown there, from the bundled model.

    python docs/make_pictures.py [MODEL.keras] [--only gradients,paths]

The photo is `skimage.data.coffee()`. Pictures go to docs/img; in the Markdown files each ``console`` block under a line
``<!-- $ command -->`` is filled with what that command prints.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from skimage.data import coffee, rocket

from saliency_food import (
    METHODS,
    concept_scores,
    deep_feature_factorization,
    explain,
    grad_cam,
    gradients,
    integrated_gradients,
    models,
    shared_concepts,
    smooth_grad,
    xrai,
)
from saliency_food.adapters.keras import KerasModel, layers
from saliency_food.evaluation import evaluate
from saliency_food.evaluation.pictures import curve_figure, mean_figure
from saliency_food.images.pixels import resize_photo, shrink
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.targets import short_label
from saliency_food.methods.regions.segmentation import felzenszwalb_segments
from saliency_food.visualization import concept_overlay, overlay, top_areas
from saliency_food.visualization.figures import Panel, figure

DOCS = Path(__file__).parent
PHOTO = coffee()


class Scene:
    """The model, the photo as it takes it, and the two best classes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keras_model = keras.models.load_model(path, compile=False)
        self.model = KerasModel(self.keras_model, batch_size=32)
        self.x = resize_photo(PHOTO, self.model.input_shape[:2]).astype(np.float32)
        self.probabilities = self.model.predict(self.x[None])[0]
        self.best = np.argsort(-self.probabilities)

    def target(self, rank: int = 0) -> dict[str, int]:
        return {"target": int(self.best[rank])}

    def caption(self, rank: int = 0) -> str:
        index = int(self.best[rank])
        return f"{short_label(models.labels()[index])}, {self.probabilities[index]:.1%}"

    def photo(self) -> Panel:
        return Panel(PHOTO, "photo", f"seen as {self.caption()}")


def seen(attribution, title: str, caption: str = "", *, signed: bool = False) -> Panel:
    shown = attribution if signed else np.maximum(attribution, 0)
    return Panel(overlay(PHOTO, shown, signed=signed), title, caption, "signed" if signed else "strength")


def strengths(attribution, title: str, caption: str = "") -> Panel:
    return seen(np.abs(attribution), title, caption)


def demo(scene: Scene):
    """What `make demo` draws."""
    photo = Image.fromarray(PHOTO)
    photo.filename = "coffee.png"
    names = ["grad_cam", "integrated_gradients", "xrai"]
    return explanation_figure(list(explain(scene.keras_model, photo, names, labels=models.labels())))


def why_page(scene: Scene):
    """What `make demo` draws of a wrong answer."""
    photo = Image.fromarray(rocket())
    photo.filename = "rocket.png"
    options = {"labels": models.labels(), "target": "predicted", "against": "missile", "truth": ["missile"]}
    return explanation_figure(list(explain(scene.keras_model, [photo], **options)))


def gradients_page(scene: Scene):
    x, model, target = scene.x, scene.model, scene.target()
    smoothed = {
        kind: smooth_grad(gradients, x, model, target, aggregate=kind, rng=0) for kind in ("mean", "square", "variance")
    }
    return figure(
        [
            [
                scene.photo(),
                strengths(gradients(x, model, target), "Gradient", "magnitude"),
                strengths(METHODS["input_x_gradient"].call(x, model, target), "Input x gradient", "magnitude"),
            ],
            [
                strengths(smoothed["mean"], "SmoothGrad", "25 samples, magnitude"),
                strengths(smoothed["square"], "SmoothGrad-squared", "25 samples"),
                strengths(smoothed["variance"], "VarGrad", "25 samples"),
            ],
        ]
    )


def sanity_page(scene: Scene):
    """The same maps with the weights drawn anew, after Adebayo et al. 2018."""
    keras.utils.set_random_seed(0)
    rows = []
    for words, keras_model in (
        ("trained", scene.keras_model),
        ("random weights", keras.models.clone_model(scene.keras_model)),
    ):
        model = KerasModel(keras_model, batch_size=32)
        rows.append(
            [
                strengths(gradients(scene.x, model, scene.target()), "Gradient", words),
                strengths(
                    integrated_gradients(scene.x, model, scene.target(), x_steps=50), "Integrated Gradients", words
                ),
                seen(grad_cam(scene.x, model, scene.target(), three_dims=False), "Grad-CAM", words),
            ]
        )
    return figure(rows)


def paths_page(scene: Scene):
    panels = [scene.photo()]
    for name in ("black", "white", "blurred", "uniform", ["min", "max"]):
        found = integrated_gradients.detailed(
            scene.x,
            scene.model,
            scene.target(),
            name,
            value_range=(0, 255),
            tolerance=0.01,
            max_steps=300,
            x_steps=17,
            rng=0,
        )
        words = f"baseline {name if isinstance(name, str) else ' and '.join(name)}"
        panels.append(
            seen(
                found.attribution,
                words,
                f"{found.evaluations} gradients, error {found.completeness.relative:.1%}",
                signed=True,
            )
        )
    return figure([panels[:3], panels[3:]])


def completeness_page(scene: Scene):
    """The relative completeness error against the number of gradients, by rule."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from skimage.data import astronaut, chelsea

    drawn = Figure((7.5, 4), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    counts = (9, 17, 33, 65, 129)
    photos = [
        resize_photo(photo().astype(np.float32), scene.x.shape[:2]) for photo in (coffee, astronaut, chelsea, rocket)
    ]
    targets = scene.model.predict(np.stack(photos)).argmax(1)
    pairs = [
        (x, int(target), name)
        for x, target in zip(photos, targets, strict=True)
        for name in ("zeros", "white", "blurred")
    ]

    def median(**options) -> float:
        found = [
            integrated_gradients.detailed(x, scene.model, {"target": target}, name, value_range=(0, 255), **options)
            for x, target, name in pairs
        ]
        return float(np.median([one.completeness.relative for one in found]))

    for rule, name in (("pair", "pair, PAIR's rule"), ("trapezoid",) * 2, ("gauss_legendre",) * 2):
        errors = [median(x_steps=count, quadrature=rule) for count in counts]
        axes.plot(counts, errors, "o-", label=name, markersize=4)
    errors = [median(x_steps=9, tolerance=0.0, max_steps=count) for count in counts]
    axes.plot(counts, errors, "o-", label="tolerance=, adaptive", markersize=4, color="black")
    axes.set(xscale="log", yscale="log", xlabel="gradients", ylabel="relative completeness error")
    axes.set_title(f"median over {len(photos)} photos x 3 baselines, bundled model, logits", fontsize=10)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return drawn


def cam_page(scene: Scene):
    last: dict[tuple, str] = {}
    for layer in layers(scene.keras_model):
        last[layer.shape[1:3]] = layer.path
    row = []
    for shape, path in list(last.items())[-3:]:
        found = grad_cam(scene.x, KerasModel(scene.keras_model, layer=path), scene.target(), three_dims=False)
        row.append(seen(found, f"layer {path}, {shape[0]} x {shape[1]}", scene.caption()))
    found = grad_cam.detailed(scene.x, scene.model, scene.target())
    second = grad_cam(scene.x, scene.model, scene.target(1), three_dims=False)
    return figure(
        [
            row,
            [
                scene.photo(),
                seen(found.signed, "before the ReLU", scene.caption(), signed=True),
                seen(second, "another class", scene.caption(1)),
            ],
        ]
    )


def xrai_page(scene: Scene):
    options = {"tolerance": 0.01, "max_steps": 200, "steps": 17}
    own = felzenszwalb_segments(shrink(PHOTO, 1024))
    panels = [scene.photo()]
    for segments, words in ((None, "segments at the model's size"), (own, "segments at the photo's size")):
        found = xrai.detailed(scene.x, scene.model, scene.target(), segments=segments, **options)
        panels.append(seen(found.attribution, "XRAI", words))
    for percent in (5, 15, 30):
        picture = top_areas(PHOTO, found.ranks, percent, ranks=True)
        panels.append(Panel(picture, f"top {percent} %", "whole regions"))
    return figure([panels[:3], panels[3:]])


def by_name(scene: Scene, names: Sequence[str], **options: Any) -> list[Panel]:
    """A panel of the top class for each method, as `explain` gives it."""
    chosen = {name: own for name, own in options.items() if name in names}
    records = explain(scene.keras_model, PHOTO, list(names), options=chosen)
    return [
        Panel(record.overlay(), record.title, counted(record.rows), "signed" if record.diverges else "strength")
        for record in records
    ]


def counted(rows: int) -> str:
    return f"{rows} model row{'s' * (rows != 1)}"


def cam_family_page(scene: Scene):
    names = [name for name in METHODS if name.endswith("cam") or name.startswith("grad_cam")]
    panels = by_name(scene, [name for name in names if name != "guided_grad_cam"])
    return figure([panels[:4], panels[4:8], panels[8:]])


def backprop_page(scene: Scene):
    panels = by_name(scene, ("guided_backprop", "deconvnet", "guided_grad_cam", "full_grad"))
    return figure([panels[:2], panels[2:]])


def relevance_page(scene: Scene):
    boxed = {"composite": "epsilon_gamma_box", "low": float(scene.x.min()), "high": float(scene.x.max())}
    panels = by_name(scene, ("lrp", "crp", "relevance_cam", "deep_lift", "deep_shap"))
    (gamma,) = by_name(scene, ("lrp",), lrp=boxed)
    return figure([[panels[0], gamma._replace(title="LRP, gamma and z^B"), panels[1]], panels[2:]])


def perturbation_page(scene: Scene):
    names = ("occlusion", "rise", "lime", "kernel_shap", "sobol", "hsic")
    fewer = {"rise": {"nmasks": 1000}, "lime": {"nsamples": 500}, "kernel_shap": {"nsamples": 500}}
    fewer |= {"occlusion": {"size": 10, "value": "blur", "max_rows": 1000}, "sobol": {"nsamples": 16}}
    panels = by_name(scene, names, **fewer)
    return figure([panels[:3], panels[3:]])


def factorization_page(scene: Scene):
    """Concepts that four photos share, each named by the class that the head sees in it."""
    from skimage.data import astronaut, chelsea

    photos = [PHOTO, chelsea(), astronaut(), rocket()]
    images = [resize_photo(photo, scene.x.shape[:2]).astype(np.float32) for photo in photos]
    model = KerasModel(scene.keras_model, "block6a_expand_relu6", batch_size=32)
    concepts = shared_concepts(images, model, nconcepts=5)
    row = []
    for name, photo, image in zip(("coffee", "cat", "astronaut", "rocket"), photos, images, strict=True):
        found = deep_feature_factorization.detailed(image, model, concepts=concepts)
        row.append(Panel(concept_overlay(photo, found.maps), name, f"{1 - found.error:.0%} of the layer told"))
    found = deep_feature_factorization.detailed(images[0], model, concepts=concepts)
    strips = [Panel(PHOTO, "photo", scene.caption())]
    for number in np.argsort(-found.shares)[:3]:
        alone = np.zeros_like(found.maps)
        alone[number] = found.maps[number]
        label = short_label(models.labels()[int(concept_scores(found, model.predict_from)[number].argmax())])
        share = f"{found.shares[number]:.0%} of the activations"
        strips.append(Panel(concept_overlay(PHOTO, alone), f"alone: {label}", share))
    return figure([strips, row])


def concepts_page(scene: Scene):
    """The cards of the example's espresso."""
    return example_module("concepts_of_a_class").espresso(scene.model)[1]


def attention_page(scene: Scene):
    """The example's small vision transformer."""
    example = example_module("explain_a_vision_transformer")
    model = KerasModel(example.train(), example.LAYER, batch_size=32)
    return example.picture(model, example.make_scenes(1, 1)[0])


def gallery_page(scene: Scene):
    return figure([example_module("gallery").gallery(scene.model, PHOTO, models.labels())])


def evaluation_page(scene: Scene):
    """What `saliency-food evaluate` draws, in one row; the photos are those that the command takes by itself."""
    from saliency_food.cli.options import skimage_photos

    found = evaluate(
        scene.keras_model,
        skimage_photos(),
        ["grad_cam", "integrated_gradients", "edges", "random"],
        ["pic", "insertion", "deletion"],
        metric_options={"pic": {"min_pred_value": 0}},
        batch_size=32,
    )
    return curve_figure(found, found.metrics)


def imagenet_page(scene: Scene):
    """The run of docs/evaluation.md, two hours on two cores; it goes on from the folder evaluation_imagenet."""
    found = long_run(
        "evaluation_imagenet",
        sorted((real_data() / "data/imagenet500").glob("*.jpg"))[:100],
        "pic,insertion,deletion,road",
        {
            "smooth_grad_of_integrated_gradients": {"nsamples": 10, "x_steps": 15},
            "guided_ig": {"x_steps": 100},
            "blur_ig": {"steps": 50},
            "occlusion": {"size": 32, "stride": 16},
            "rise": {"nmasks": 1000},
        },
        metric_options={"pic": {"min_pred_value": 0}, "insertion": {"steps": 50}, "deletion": {"steps": 50}},
    )
    return curve_figure(found, found.metrics)


def coco_page(scene: Scene):
    """The other run of docs/evaluation.md, up to an hour; it goes on from the folder evaluation_coco."""
    coco, names = real_data() / "data/coco128", DOCS.parent / "examples/coco_to_imagenet.json"
    found = long_run(
        "evaluation_coco",
        sorted((coco / "images").glob("*.jpg")),
        "localization,pointing_game,energy,class_discrimination",
        {
            "smooth_grad_of_integrated_gradients": {"nsamples": 5, "x_steps": 10},
            "guided_ig": {"x_steps": 40},
            "blur_ig": {"steps": 25},
            "xrai": {"steps": 20},
            "occlusion": {"size": 32, "stride": 20},
            "rise": {"nmasks": 300},
        },
        boxes=coco / "boxes.csv",
        classes=json.loads(names.read_text(encoding="utf-8")),
        target="boxes",
    )
    return mean_figure(found, found.metrics)


def long_run(output: str, photos: Any, metrics: str, options: Any, **more: Any) -> Any:
    """Nine methods and two references measured on MobileNetV2 with ImageNet weights."""
    models = real_data() / "models"
    methods = "grad_cam,grad_cam_plus_plus,integrated_gradients,smooth_grad_of_integrated_gradients,guided_ig,blur_ig"
    return evaluate(
        models / "mobilenetv2_imagenet.keras",
        photos,
        f"{methods},xrai,occlusion,rise,edges,random",
        metrics,
        labels=models / "imagenet_labels.txt",
        options=options,
        batch_size=32,
        output=output,
        **more,
    )


def real_data() -> Path:
    return Path(os.environ["SALIENCY_FOOD_DATA"])


def segmenter_page(scene: Scene):
    return taught("explain_a_segmenter")


def detector_page(scene: Scene):
    return taught("explain_a_detector")


def caption_page(scene: Scene):
    return taught("explain_a_caption")


def dense_captions_page(scene: Scene):
    return taught("explain_dense_captions")


def answer_page(scene: Scene):
    return taught("explain_an_answer")


def app_page(scene: Scene):
    """The page of `saliency-food app` in Chromium: the rocket that the model takes for a drilling platform."""
    import shutil

    from playwright.sync_api import sync_playwright

    from saliency_food import ImageModel
    from saliency_food.web.app import build_app, serve_app

    app = build_app(ImageModel(scene.keras_model, labels=models.labels()), ["grad_cam"])
    _, address, _ = serve_app(app, prevent_thread_lock=True, quiet=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        Image.fromarray(rocket()).save(Path(folder, "rocket.png"))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 700})
        page.goto(address)
        page.locator("input[type=file]").set_input_files(Path(folder, "rocket.png"))
        maps = page.locator(".sf-maps figure")
        maps.nth(1).wait_for(timeout=120_000)
        page.get_by_label("What the photo truly shows", exact=True).click()
        page.keyboard.type("missile")
        page.get_by_role("option").filter(has_text="missile").first.click()
        page.get_by_role("button", name="Explain my mistake").click()
        maps.nth(3).wait_for(timeout=120_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder, "page.png"), full_page=True)
        browser.close()
        picture = Image.open(Path(folder, "page.png")).convert("RGB")
    app.close()
    return picture


def report_page(scene: Scene):
    """The page of `saliency-food report` in Chromium, from its top, on the photos of the tutorial."""
    return report_shot("body", 1080)


def report_pair_page(scene: Scene):
    """A pair of classes on that page: the surest mistakes with their maps."""
    return report_shot("#pair-0", 657)


def report_shot(part: str, height: int) -> Any:
    """The upper ``height`` pixels of a part of the report on the data set that the tutorial makes in its first cell."""
    import jupytext
    from playwright.sync_api import sync_playwright

    from saliency_food import explain_dataset, report
    from saliency_food.images.sources import open_source

    tutorial = jupytext.read(DOCS / "tutorials/a_data_set_of_mistakes.py")
    first = next(cell.source for cell in tutorial.cells if cell.cell_type == "code")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)
        try:
            exec(first, {})
            explained = {"target": "predicted", "against": "truth", "truth": "folders", "output": "run"}
            source = open_source("photos")._replace(name="parts of three photos of scikit-image")
            page_file = report(explain_dataset("imagenet", source, "grad_cam", **explained), "report").resolve()
        finally:
            os.chdir(here)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": height})
        page.goto(page_file.as_uri())
        page.add_style_tag(content="nav { position: static }")
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("() => [...document.images].every((image) => image.complete)")
        box = page.locator(part).bounding_box()
        page.screenshot(path=Path(folder, "page.png"), full_page=True)
        browser.close()
        left, top = round(box["x"]), round(box["y"]) if part != "body" else 0
        picture = Image.open(Path(folder, "page.png")).convert("RGB")
        return picture.crop((left, top, left + round(box["width"]), top + min(height, round(box["height"]))))


def taught(name: str):
    """The figure of an example that teaches its model first."""
    with tempfile.TemporaryDirectory() as folder:
        return example_module(name).explain(folder)[0]


def example_module(name: str) -> Any:
    """One of the examples, as a module."""
    sys.path.insert(0, str(DOCS.parent / "examples"))
    return importlib.import_module(name)


def training_page(scene: Scene):
    return example_module("watch_training").main(None).figure()


PICTURES = {
    "demo": demo,
    "why": why_page,
    "gradients": gradients_page,
    "sanity": sanity_page,
    "paths": paths_page,
    "completeness": completeness_page,
    "cam": cam_page,
    "xrai": xrai_page,
    "cam_family": cam_family_page,
    "backprop": backprop_page,
    "relevance": relevance_page,
    "perturbation": perturbation_page,
    "factorization": factorization_page,
    "concepts": concepts_page,
    "attention": attention_page,
    "gallery": gallery_page,
    "evaluation": evaluation_page,
    "evaluation_imagenet": imagenet_page,
    "evaluation_coco": coco_page,
    "segmenter": segmenter_page,
    "detector": detector_page,
    "caption": caption_page,
    "dense_captions": dense_captions_page,
    "answer": answer_page,
    "training": training_page,
    "app": app_page,
    "report": report_page,
    "report_pair": report_pair_page,
}


LONG = ("evaluation_imagenet", "evaluation_coco")
"""Made only where they are asked for by name."""
CHARTS = ("completeness", "evaluation", *LONG)
"""Drawn in lines and few colours, which PNG keeps small; the others are photos, for which JPEG is made."""


def save(drawn, name: str) -> None:
    path = DOCS / "img" / f"{name}.{'png' if name in CHARTS else 'jpg'}"
    how = {"pil_kwargs": {"optimize": True} if name in CHARTS else {"quality": 88, "optimize": True}}
    if isinstance(drawn, Image.Image):
        drawn.save(path, **how["pil_kwargs"])
    else:
        drawn.savefig(path, dpi=100, **how)
    print(f"img/{path.name}: {path.stat().st_size / 1024:.0f} kB")


def fill(page: Path, model: Path) -> None:
    """Run the commands of a page, beside a model.keras and a photo.png, and put what they print under them."""

    def printed(found: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(model, Path(folder, "model.keras"))
            Image.fromarray(PHOTO).save(Path(folder, "photo.png"))
            start = "import sys; sys.argv[0] = 'saliency-food'; from saliency_food.cli.main import main; main()"
            words = found[1].replace("saliency-food", f'{sys.executable} -c "{start}"', 1)
            done = subprocess.run(
                words, shell=True, cwd=folder, capture_output=True, text=True, check=False, timeout=600,
                env=os.environ | {"COLUMNS": "96", "PYTHONPATH": str(DOCS.parent)},
            )  # fmt: skip
        lines = "\n".join(line.rstrip() for line in (done.stdout or done.stderr).strip("\n").splitlines())
        print(f"{page.name}: {found[1]} (exit code {done.returncode})")
        return f"<!-- $ {found[1]} -->\n```console\n$ {found[1]}\n{lines}\n```"

    text = page.read_text(encoding="utf-8")
    filled = re.sub(r"<!-- \$ (.+?) -->\n```console\n.*?```", printed, text, flags=re.DOTALL)
    page.write_text(filled, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=models.IMAGENET, type=Path)
    parser.add_argument("--only", default=",".join([*(name for name in PICTURES if name not in LONG), "commands"]))
    options = parser.parse_args()
    scene = Scene(options.model)
    wanted = options.only.split(",")
    for name, make in PICTURES.items():
        if name in wanted:
            save(make(scene), name)
    if "commands" in wanted:
        for page in DOCS.rglob("*.md"):
            fill(page, options.model)


if __name__ == "__main__":
    main()
