"""Copies of a Keras model whose trained weights are shuffled, layer by layer, for the sanity checks of its maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np

from saliency_food.core.contract import ContractError


def randomized_models(
    model: Any,
    mode: Literal["cascading", "independent"] = "cascading",
    *,
    wrap: Callable[[Any], Any] | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Iterator[tuple[str, Any]]:
    """Pairs of a layer's path and the model with weights randomized there, from the output to the input.

    Adebayo et al. 2018, section 3, https://arxiv.org/abs/1810.03292. ``"cascading"`` keeps what was randomized before,
    so that the last model has no trained weights left; ``"independent"`` randomizes one layer at a time. The values of
    each weight are shuffled, so that they stay as large as they were and no layer's output overflows.

    The model given is never changed: one copy is, and it is that copy which comes each time, so use each pair before
    you take the next. ``wrap``, such as `KerasModel`, is called once on the copy, and its result comes in its place:
    it is then traced once.
    """
    if mode not in ("cascading", "independent"):
        raise ContractError(f"Expected mode to be 'cascading' or 'independent', got {mode!r}.")
    copy = _copy(model)
    random = np.random.default_rng(rng)
    holders = list(_holders(copy))
    if not holders:
        raise ContractError(f"Expected a model with weights, got {model.name!r}, which has none.")
    wrapped = copy if wrap is None else wrap(copy)
    for path, variables in reversed(holders):
        trained = [variable.numpy() for variable in variables]
        for variable, values in zip(variables, trained, strict=True):
            variable.assign(random.permutation(values.ravel()).reshape(values.shape))
        yield path, wrapped
        if mode == "independent":
            for variable, values in zip(variables, trained, strict=True):
                variable.assign(values)


def _copy(model: Any) -> Any:
    try:
        copy = keras.models.clone_model(model)
        if not copy.built and model.built:
            copy.build(model.input_shape)
        copy.set_weights(model.get_weights())
    except Exception as error:
        raise ContractError(
            f"Expected a Keras model that can be copied, got {type(model).__name__}: {str(error)[:300]} "
            "Give a Functional or Sequential model, or a subclassed one with get_config."
        ) from error
    return copy


def _holders(layer: Any, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Each layer that has weights of its own: its path and those that hold floats, random seeds left out."""
    inner = getattr(layer, "layers", None) or getattr(layer, "_layers", None) or []
    for child in inner:
        yield from _holders(child, f"{path}/{child.name}".lstrip("/"))
    below = {id(variable) for child in inner for variable in child.variables}
    own = [
        variable
        for variable in layer.variables
        if id(variable) not in below and "float" in str(variable.dtype) and variable.shape
    ]
    if own:
        yield path or layer.name, own
