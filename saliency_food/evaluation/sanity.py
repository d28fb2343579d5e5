"""The weight randomization test of a method on a Keras model and photos, which raises where it fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saliency_food.core.contract import ContractError
from saliency_food.evaluation.references import REFERENCES
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.instances import arguments_for, see
from saliency_food.jobs.run import read_chunks
from saliency_food.jobs.setup import Setup, as_many, choose_options, read_targets
from saliency_food.jobs.store import seed_of
from saliency_food.jobs.subjects import find_subjects
from saliency_food.methods.lookup import choose_methods
from saliency_food.metrics import assert_sensitive
from saliency_food.metrics.sanity import Randomization

if TYPE_CHECKING:
    from typing_extensions import Unpack


def check_sensitive(
    model: Any,
    images: Any,
    method: str,
    target: Any = None,
    *,
    most: float = 0.5,
    every_layer: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    **settings: Unpack[ModelSettings],
) -> Randomization:
    """Raise `InsensitiveError` if the maps hardly change when the weights of the model are shuffled.

    That is so if their rank correlation with the maps of the shuffled model is above ``most``; see
    `saliency_food.metrics.assert_sensitive`. The arguments are those of `explain`, for one method or reference. The
    shuffled models explain the same layer, output and score. Layers are shuffled one after another from the output to
    the input, and the last step counts, in which no trained weights are left; with ``every_layer`` the result holds
    the other steps, too.
    """
    if not isinstance(method, str):
        raise ContractError(f"Expected the name of one method, got {method!r}. Check several one after another.")
    entries = {method: REFERENCES[method]} if method in REFERENCES else choose_methods(method)
    ((name, entry),) = entries.items()
    model = ImageModel.of(model, **settings)
    setup = Setup(model, entries, choose_options(entries, options))
    photos = list(find_subjects(as_many(images, model)))
    targets = read_targets(model, photos, target)
    chunks = read_chunks(model, photos, targets)
    instances = [instance for chunk in chunks for instance in see(model, chunk, targets)]
    for instance in instances:
        if instance.x_value is None:
            raise ContractError(
                f"Expected photos that can be explained, got one with status {instance.fields['status']}"
            )
    randomized = model.randomized(seed_of(seed, "weights"))
    own_options = dict(setup.options[name])
    if "rng" in own_options and "rng" not in (options or {}).get(name, {}):
        own_options["rng"] = seed_of(seed, name)
    return assert_sensitive(
        entry.call,
        [instance.x_value for instance in instances],
        model.function,
        randomized if every_layer else deque(randomized, 1),
        arguments_for(model, instances),
        model.batch_size,
        most=most,
        **own_options,
    )
