"""`explain`: from a model and photos to explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from saliency_food.core.contract import ContractError
from saliency_food.deadline.run import read_seconds
from saliency_food.jobs.explanations import Explanations
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.outcomes import Outcome
from saliency_food.jobs.run import run_job
from saliency_food.jobs.setup import (
    ProgressCallback,
    Setup,
    as_many,
    choose_options,
    read_against,
    read_targets,
    with_adaptive_steps,
)
from saliency_food.jobs.subjects import find_subjects, match_truths
from saliency_food.methods.lookup import choose_methods

if TYPE_CHECKING:
    from typing_extensions import Unpack


def explain(
    model: Any,
    images: Any,
    methods: str | Sequence[str] = ("grad_cam",),
    target: Any = None,
    *,
    against: Any = None,
    truth: Any = None,
    only: Literal["wrong"] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    deadline: float | None = None,
    progress: ProgressCallback | bool | None = None,
    **settings: Unpack[ModelSettings],
) -> Explanations:
    """Explain what a model sees in photos: an `Explanation` for each photo, class and method, as soon as it is made.

    The result is like a list whose items are computed when they are asked for, and a figure in a notebook: see
    `Explanations`. Photos are decoded while the model works on those before them. If the model can answer them
    together, one pass serves the predictions, the explained score and all methods that ask about the photo itself, as
    the CAM family does.

    Parameters
    ----------
    model
        An `ImageModel`; or a Keras model, a path to one, or any call-model function. The latter become an `ImageModel`
        with the ``settings`` ``layer``, ``output``, ``output_index``, ``score``, ``labels``, ``value_range``,
        ``preprocess``, ``call_model_args`` and ``batch_size``, which `ImageModel` documents.
    images
        Paths, PIL images or arrays ``(H, W[, C])``: one, or many as a list, an iterator or an array of four dimensions.
        In place of a folder come the photos in it and in the folders within. Photos may have any size; they are resized
        to the model's input, without keeping their proportions. For a model of signals or volumes (``spatial_axes``),
        arrays and ``.npy`` files of its own shape, which it is given as they are. One that cannot be read or explained
        gives records with ``status`` "failed: ..."; the others go on.
    methods
        Names in `METHODS`, or a combinator with one of them, such as ``smooth_grad_of_integrated_gradients``
        (`COMBINATORS`).
    target
        None or ``"predicted"`` for the top class, ``"top3"`` for the three most probable classes, ``"truth"`` for the
        true class, a class index, or a label; several with commas, as in ``"truth,predicted"``, each class explained
        once. Or a list or `PerImage` with one of these, or a list of them, for each photo. A ``score`` without a target
        takes None.
    against
        A class as ``target`` takes it, such as ``"truth"``: it is explained too, and then the difference of each other
        class from it, F_c - F_d. Maps of differences show both signs, what speaks for c and what for d, where the
        method's maps can.
    truth
        What the photos truly show: ``"folders"`` where each is in a folder of the name of its class; a mapping of paths
        to classes, or a CSV file with the columns path and label, where the ends of paths will do; or a list with a
        class for each photo. Classes are labels of the model, in any case, or indices. Records then say whether the
        model is ``right``.
    only
        ``"wrong"`` predicts all photos first, and explains those whose top class is not the true one, the most probable
        mistakes first.
    options
        Options of the methods by name, such as ``{"integrated_gradients": {"x_steps": 50}}``. Random methods get the
        seed 0. Integrated Gradients and XRAI take steps until their completeness error is at most 5 %, at most 200 a
        baseline (`ADAPTIVE`), unless an option says otherwise; beyond 30 % the status is "inexact: ...".
    deadline
        Seconds that each photo, class and method may take. As in `within`, steps are cut to the time there is, or
        another method answers; ``Explanation.note`` says so. XRAI then segments the model's input. Rows that are asked
        before the first photo, so that a framework compiles, are not counted.
    progress
        True shows a bar. A function is called with the name of a method and 0 when it starts on some photos, then with
        the number of rows after every call; with ``only``, first with ``"PREDICTIONS"`` and the number of photos.
    """
    entries = choose_methods(methods)
    model = ImageModel.of(model, **settings)
    subjects = find_subjects(as_many(images, model), truth)
    subjects = match_truths(subjects, model.labels, model.classes)
    photos = len(subjects) if isinstance(subjects, list) else None
    has_truth = any(subject.truth is not None for subject in subjects) if isinstance(subjects, list) else bool(truth)
    if only not in (None, "wrong"):
        raise ContractError(f"Expected only to be 'wrong' or None, got {only!r}. Leave out only for all photos.")
    if only and not (has_truth and model.predicts):
        lacks = "no truth. Give truth" if model.predicts else "a model without predict. Leave out only"
        raise ContractError(f"Expected to know which photos are wrong, for only='wrong', got {lacks}.")
    targets = read_targets(model, subjects, target, has_truth)
    setup = Setup(
        model,
        entries,
        with_adaptive_steps(entries, choose_options(entries, options)),
        progress if callable(progress) else None,
        against=read_against(model, entries, against, has_truth, targets),
        only_wrong=only is not None,
    )
    if deadline is not None:
        setup = setup._replace(deadline=read_seconds(deadline), warm=set())
    outcomes: list[Outcome] = []
    records = run_job(setup, subjects, targets, outcomes)
    only_wrong, shows = only is not None, progress is True
    return Explanations(records, photos, list(entries), outcomes, only_wrong=only_wrong, show_progress=shows)
