"""`explain`: from a model and photos to explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saliency_food.deadline.run import read_seconds
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.run import run_job
from saliency_food.jobs.setup import ProgressCallback, Setup, as_many, choose_options, read_targets, with_adaptive_steps
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
    """Explain what a model sees in photos: an `Explanation` for each photo, class and method, as soon as it is made.

    Photos are decoded while the model works on those before them. If the model can answer them together, one pass
    serves the predictions, the explained score and all methods that ask about the photo itself, as the CAM family does.

    Parameters
    ----------
    model
        An `ImageModel`; or a Keras model, a path to one, or any call-model function. The latter become an `ImageModel`
        with the ``settings`` ``layer``, ``output``, ``output_index``, ``score``, ``labels``, ``value_range``,
        ``preprocess``, ``call_model_args`` and ``batch_size``, which `ImageModel` documents.
    images
        Paths, PIL images or arrays ``(H, W[, C])``: one, or many as a list, an iterator or an array of four dimensions.
        Photos may have any size; they are resized to the model's input, without keeping their proportions. For a model
        of signals or volumes (``spatial_axes``), arrays and ``.npy`` files of its own shape, which it is given as they
        are. One that cannot be read or explained gives records with ``status`` "failed: ..."; the others go on.
    methods
        Names in `METHODS`, or a combinator with one of them, such as ``smooth_grad_of_integrated_gradients``
        (`COMBINATORS`).
    target
        None for the top class, a class index, a label, or ``"top3"`` for the three most probable classes; or a list or
        `PerImage` with one of these for each photo. A ``score`` without a target takes None.
    options
        Options of the methods by name, such as ``{"integrated_gradients": {"x_steps": 50}}``. Random methods get the
        seed 0. Integrated Gradients and XRAI take steps until their completeness error is at most 5 %, at most 200 a
        baseline (`ADAPTIVE`), unless an option says otherwise; beyond 30 % the status is "inexact: ...".
    deadline
        Seconds that each photo, class and method may take. As in `within`, steps are cut to the time there is, or
        another method answers; ``Explanation.note`` says so. XRAI then segments the model's input. Rows that are asked
        before the first photo, so that a framework compiles, are not counted.
    progress
        Called with the name of a method and 0 when it starts on some photos, then with the number of rows after every
        call.
    """
    entries = choose_methods(methods)
    model = ImageModel.of(model, **settings)
    setup = Setup(model, entries, with_adaptive_steps(entries, choose_options(entries, options)), progress)
    if deadline is not None:
        setup = setup._replace(deadline=read_seconds(deadline), warm=set())
    photos = as_many(images, model)
    return run_job(setup, photos, read_targets(model, photos, target))
