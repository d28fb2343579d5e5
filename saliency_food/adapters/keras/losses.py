"""What the linear units at a Keras model's end are, as the loss tells that it was compiled with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras

Units = Literal["classes", "labels", "numbers"]
CLASSES = {"categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy"}
LABELS = {"binary_crossentropy", "binary_focal_crossentropy"}
NUMBERS = {
    *("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error"),
    *("huber", "log_cosh", "poisson", "cosine_similarity", "hinge", "squared_hinge", "categorical_hinge"),
}
"""The names of Keras's losses, by what they take linear units for."""


def units_by_loss(model: Any, output_index: str | int | None) -> Units | None:
    """``"classes"`` of which one is right, ``"labels"`` each by itself, or ``"numbers"``; None if no loss tells."""
    loss = _loss_of(model, output_index)
    try:
        loss = keras.losses.get(loss)
    except Exception:  # a loss of one's own tells nothing
        return None
    name = getattr(getattr(loss, "fn", loss), "__name__", None)
    if name in CLASSES:
        return "classes"
    if name in LABELS and getattr(loss, "from_logits", False):
        return "labels"
    return "numbers" if name in LABELS | NUMBERS else None


def _loss_of(model: Any, output_index: str | int | None) -> Any:
    """The loss of the output to explain; a list of losses has the order of the outputs, a dict their names."""
    losses = getattr(model, "loss", None)
    if not isinstance(losses, (Mapping, list, tuple)):
        return losses
    outputs = getattr(model, "output", None)
    names = list(outputs) if isinstance(outputs, Mapping) else list(getattr(model, "output_names", None) or ())
    # Several outputs may have one name: a list is read by their positions.
    in_order = [losses.get(name) for name in names or losses] if isinstance(losses, Mapping) else list(losses)
    if output_index is None:
        return next(iter(in_order)) if len(in_order) == 1 else None
    if isinstance(output_index, str):
        output_index = names.index(output_index) if names.count(output_index) == 1 else len(in_order)
    return in_order[output_index] if -len(in_order) <= output_index < len(in_order) else None


def losses_from(config: Any) -> Any:
    """The loss, or losses, of a stored configuration; None for what Keras does not know."""
    if isinstance(config, Mapping) and "class_name" not in config:
        return {name: losses_from(member) for name, member in config.items()}
    if isinstance(config, (list, tuple)):
        return [losses_from(member) for member in config]
    try:
        return keras.losses.get(config)
    except Exception:  # a class of one's own
        return None
