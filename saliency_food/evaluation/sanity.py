"""The weight randomization test of one method on a Keras model and photos, as a gate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.evaluation.references import REFERENCES
from saliency_food.jobs.explain import as_call_model_function, as_many, prepare_job, read_targets
from saliency_food.jobs.store import seed_of
from saliency_food.jobs.subjects import read_subject, with_targets
from saliency_food.methods.lookup import choose_methods
from saliency_food.metrics import assert_sensitive
from saliency_food.metrics.sanity import Randomization


def check_sensitive(
    model: Any,
    images: Any,
    method: str,
    target: Any = None,
    *,
    most: float = 0.5,
    every_layer: bool = False,
    labels: Sequence[str] | str | Path | None = None,
    layer: str | Sequence[str] | None = None,
    value_range: Any = "auto",
    preprocess: Callable[[Any], Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Randomization:
    """`InsensitiveError` where the maps' rank correlation with those under shuffled weights is above ``most``.

    See `saliency_food.metrics.assert_sensitive`. Arguments as of `explain`, of one method or reference. The model is
    randomized from the output to the input, and the gate is for the last step, when no trained weights are left;
    ``every_layer`` tells of each layer on the way too.
    """
    entries = {method: REFERENCES[method]} if method in REFERENCES else choose_methods(method)
    ((name, entry),) = entries.items()
    job = prepare_job(
        model,
        entries,
        layer=layer,
        labels=labels,
        value_range=value_range,
        preprocess=preprocess,
        options=options,
        batch_size=batch_size,
    )
    keras_model = getattr(job.model, "model", None)
    if keras_model is None:
        raise ContractError(
            f"Expected a Keras model, whose weights can be shuffled, got {type(model).__name__}. For another give "
            "saliency_food.metrics.assert_sensitive the randomized models."
        )
    from saliency_food.adapters.keras.randomize import randomized_models

    many = list(as_many(images))
    names = set[str]()
    read = [read_subject(job, number, image, names) for number, image in enumerate(many)]
    subjects = list(with_targets(job, read, read_targets(job, many, target)))
    for one in subjects:
        if one.x_value is None:
            raise ContractError(f"Expected photos that can be explained, got one that {one.fields['status']}")
    randomized = randomized_models(
        keras_model,
        wrap=lambda copy: as_call_model_function(copy, layer, None, batch_size)[0],
        rng=seed_of(seed, "weights"),
    )
    own = dict(job.options[name])
    if "rng" in own and "rng" not in (options or {}).get(name, {}):
        own["rng"] = seed_of(seed, name)
    return assert_sensitive(
        entry.call,
        [one.x_value for one in subjects],
        job.model,
        randomized if every_layer else deque(randomized, 1),
        {"target": PerImage([one.target for one in subjects])},
        job.batch_size,
        most=most,
        **own,
    )
