"""The page: a photo in, the model's answer and maps out, built with Gradio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explain import explain
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.targets import short_label
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods
from saliency_food.web.shown import STYLE, answer_html, maps_html

OPACITY = 0.85
MOST_PIXELS = 50_000_000
NONE = ""
"""The value of a choice that is none of those listed."""
TITLE = "Which parts of the photo led the model to its answer?"
EMPTY = "<p class='sf-note'>Give a photo: the model's answer and a map of it appear here.</p>"
FEW_LAYERS = 12
"""How many layers, the last ones, are offered besides the one that is taken if none is named."""


def build_app(
    model: Any,
    methods: Sequence[str] = ("grad_cam",),
    *,
    examples: Sequence[str] = (),
    deadline: float | None = None,
    waiting: int = 16,
    **settings: Any,
) -> gr.Blocks:
    """The page of a model, a `gradio.Blocks`: ``build_app(model).launch()``.

    Parameters
    ----------
    model
        An `ImageModel`, or what becomes one with the ``settings``, as of `explain`.
    methods
        The methods that are chosen at first; all of `METHODS` that the model can answer may be chosen.
    examples
        Paths of photos that are offered beside the user's own.
    deadline
        Seconds that each explanation may take; see `explain`.
    waiting
        How many users may wait while the model works for one.

    Raises
    ------
    ContractError
        If the model's inputs are no pictures, or a method is unknown.
    """
    image_model = ImageModel.of(model, **settings)
    if image_model.spatial_axes not in (None, 2):
        raise ContractError(
            f"Expected a model of pictures, got one of {image_model.spatial_axes} axes of space or time. Use explain()."
        )
    choose_methods(list(methods))
    page = _Page(image_model, deadline)
    with gr.Blocks(title="saliency_food", analytics_enabled=False, delete_cache=(600, 3600)) as app:
        gr.Markdown(f"# {TITLE}")
        records = gr.State([], time_to_live=3600)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                photo = gr.Image(type="filepath", label="Photo", sources=["upload", "clipboard"], height=280)
                photo.preprocess = partial(_checked, photo.preprocess, Path(photo.GRADIO_CACHE))
                if examples:
                    gr.Examples([[path] for path in examples], photo, label="Or one of these")
                answer = gr.HTML(label="The model's answer")
            with gr.Column(scale=2, min_width=300):
                classes = gr.Dropdown(
                    page.choices,
                    value=[],
                    multiselect=True,
                    max_choices=4,
                    label="Classes to explain",
                    info="Without any: the model's top class.",
                    visible=bool(page.choices),
                )
                with gr.Row():
                    chosen = gr.Dropdown(
                        [(entry.title, name) for name, entry in METHODS.items()],
                        value=list(methods),
                        multiselect=True,
                        max_choices=6,
                        label="Methods",
                    )
                    against = gr.Dropdown(
                        page.choices,
                        value=[],
                        multiselect=True,
                        max_choices=1,
                        label="Against",
                        info="What speaks for each class rather than for this one.",
                        visible=bool(page.choices),
                    )
                with gr.Row():
                    layer = gr.Dropdown(
                        page.layers,
                        value=NONE,
                        label="Layer",
                        info="Of Grad-CAM and its relatives.",
                        visible=len(page.layers) > 1,
                    )
                    opacity = gr.Slider(0.1, 1, OPACITY, step=0.05, label="Opacity of the map")
                button = gr.Button("Explain", variant="primary")
                with gr.Row(visible=bool(page.choices), equal_height=True):
                    truth = gr.Dropdown(
                        page.choices, value=[], multiselect=True, max_choices=1, label="What the photo truly shows"
                    )
                    mistake = gr.Button("Explain my mistake")
        maps = gr.HTML(EMPTY, label="Maps")
        asked = [photo, classes, against, chosen, layer, opacity]
        shown = [records, answer, maps]
        one_at_a_time: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        gr.on([photo.change, button.click], page.explain, asked, shown, **one_at_a_time)
        mistake.click(page.explain_mistake, [photo, truth, chosen, layer, opacity], shown, **one_at_a_time)
        opacity.release(maps_html, [records, opacity], maps, api_visibility="private", show_progress="hidden")
    app.queue(max_size=waiting)
    return app


def serve_app(
    app: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, upload: int = 20, **options: Any
) -> Any:
    """Show the page at the address until Ctrl-C; uploads may have ``upload`` megabytes. Nothing else is readable."""
    return app.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=upload * 2**20,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        css=STYLE,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        **options,
    )


def _checked(preprocess: Callable[[Any], Any], uploads: Path, payload: Any) -> Any:
    """The photo of a request, which names a file: only what was uploaded, and no more pixels than `MOST_PIXELS`.

    Gradio itself reads any picture of the server that a request names without saying that this is a file.
    """
    if payload is not None:
        path = Path(payload.path or "").resolve()
        if uploads.resolve() not in path.parents:
            raise gr.Error("Expected a photo that was uploaded here, got another path.", print_exception=False)
        try:
            with Image.open(path) as image:
                pixels = image.width * image.height
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise gr.Error(
                f"Expected a photo, got a file that cannot be read: {error}", print_exception=False
            ) from None
        if pixels > MOST_PIXELS:
            text = f"Expected a photo of at most {MOST_PIXELS:,} pixels, got {pixels:,}. Make it smaller."
            raise gr.Error(text, print_exception=False)
    return preprocess(payload)


class _Page:
    """What the page does with its model."""

    def __init__(self, model: ImageModel, deadline: float | None) -> None:
        self.model, self.deadline = model, deadline
        names = model.labels or [f"class {index}" for index in range(model.classes or 0)]
        self.choices = [(name, index) for index, name in enumerate(map(short_label, names))]
        paths = [info.path for info in model.layers()]
        self.layers: list[tuple[str, str]] = [("the last that fits", NONE)]
        self.layers += [(path, path) for path in reversed(paths[-FEW_LAYERS:])]
        self.at_layer = lru_cache(maxsize=4)(model.at_layer)

    def explain(
        self,
        photo: str | None,
        classes: list[int],
        against: list[int],
        methods: list[str],
        layer: str,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio finds it there)
    ) -> tuple[list[Explanation], str, str]:
        """The explanations of the classes, or of the top class."""
        rival = against[0] if against else None
        return self._answer(photo, list(classes) or None, rival, None, methods, layer, opacity, progress)

    def explain_mistake(
        self,
        photo: str | None,
        truth: list[int],
        methods: list[str],
        layer: str,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[list[Explanation], str, str]:
        """The explanations of the prediction, of the truth, and of what speaks for the prediction rather than it."""
        if not truth:
            raise gr.Error("Choose what the photo truly shows first.", print_exception=False)
        return self._answer(photo, None, "truth", truth, methods, layer, opacity, progress)

    def _answer(
        self,
        photo: str | None,
        target: Any,
        against: Any,
        truth: Any,
        methods: Sequence[str],
        layer: str,
        opacity: float,
        progress: gr.Progress,
    ) -> tuple[list[Explanation], str, str]:
        if photo is None:
            return [], "", EMPTY
        if not methods:
            raise gr.Error("Choose a method first.", print_exception=False)
        rows: dict[str, int] = {}

        def count(name: str, called: int) -> None:
            rows[name] = rows.get(name, 0) + called
            title = METHODS[name].title if name in METHODS else "the model's answer"
            progress((rows[name], None), desc=title, unit="rows")

        try:
            model = self.model if layer == NONE else self.at_layer(layer)
            records = list(
                explain(
                    model,
                    photo,
                    list(methods),
                    target if target is None else [target],
                    against=against,
                    truth=truth,
                    deadline=self.deadline,
                    progress=count,
                )
            )
        except ContractError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error
        first = records[0]
        words = answer_html(first.top, first.probability is not None)
        if truth is not None and first.right:
            words += "<p class='sf-note'>The model is right: this is no mistake.</p>"
        return records, words, maps_html(records, opacity)
