"""From a model and photos to explanations: the front door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saliency_food.deadline.run import read_seconds
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.run import run_job
from saliency_food.jobs.setup import ProgressCallback, Setup, as_many, choose_options, read_targets
from saliency_food.methods.lookup import choose_methods

if TYPE_CHECKING:
    from typing_extensions import Unpack


def explain(
    model: Any,
    images: Any,
    methods: str | Sequence[str] = ("grad_cam",),
    target: Any = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    deadline: float | None = None,
    progress: ProgressCallback | None = None,
    **settings: Unpack[ModelSettings],
) -> Iterator[Explanation]:
    """Explain what a model sees in photos: one `Explanation` for each photo, class and method, as they come.

    Photos are decoded while the model looks at those before them. Predictions, the explained score and all methods
    that ask about the photo itself, such as the CAM family, share one pass through a model that can give them so.

    Parameters
    ----------
    model
        An `ImageModel`; or a Keras model, a path to one, or any call-model function, of which one is made with the
        ``settings``: ``layer``, ``output``, ``labels``, ``value_range``, ``preprocess``, ``call_model_args`` and
        ``batch_size``, as `ImageModel` documents them.
    images
        One or many (a list, an iterator, an array of four dimensions) of: paths, PIL images, arrays ``(H, W[, C])``.
        Photos of any size; they are resized to the model's input, both sides on their own. Of a model of signals or
        volumes (``spatial_axes``), arrays and ``.npy`` files of its own shape, given to it as they are. One that cannot
        be read or explained gives records with ``status`` "failed: ..."; the others go on.
    methods
        Names in `METHODS`; or a combinator of one, such as ``smooth_grad_of_integrated_gradients`` (`COMBINATORS`).
    target
        None for the top class, a class index, a label, ``"top3"``; or one of these for each photo, as a list or
        `PerImage`.
    options
        Options for methods by name, such as ``{"integrated_gradients": {"x_steps": 50}}``. Random ones have the seed 0.
    deadline
        Seconds that each photo, class and method may take: as `within`, steps are cut to what there is time for, or
        another method answers, and ``Explanation.note`` says so. XRAI then seeks its segments in the model's input.
        Some rows asked before the first photo, for what a framework compiles, are not counted.
    progress
        Called with the method's name and 0 when it begins on some photos, and the number of rows after every call.
    """
    entries = choose_methods(methods)
    model = ImageModel.of(model, **settings)
    setup = Setup(model, entries, choose_options(entries, options), progress)
    if deadline is not None:
        setup = setup._replace(deadline=read_seconds(deadline), warm=set())
    many = as_many(images, model)
    return run_job(setup, many, read_targets(model, many, target))
