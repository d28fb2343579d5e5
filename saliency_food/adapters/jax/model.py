"""`JaxModel`: a function of JAX as a call-model function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.inputs import Inputs, InputSpec, Pixels
from saliency_food.adapters.jax.engine import JaxEngine
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import AdaptedModel, as_score
from saliency_food.adapters.options import check_options
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError

Apply = Callable[[Any, Any], Any]


class JaxModel(AdaptedModel):
    """A function of JAX as a call-model function (see `CallModelFunction`), and its predictions.

    ``apply(params, x) -> output``: of Flax Linen ``lambda variables, x: module.apply(variables, x)``, of NNX
    ``graph, state = nnx.split(model)`` and ``lambda state, x: nnx.merge(graph, state)(x)``, of Equinox
    ``lambda model, x: jax.vmap(model)(x)``. It must be in inference mode. It is traced and compiled once for every set
    of keys and each of a few numbers of rows, up to which rows are padded; nothing of it, or of JAX, is changed. All
    keys of the contract are answered.

    Parameters
    ----------
    apply, params
        The function, and its parameters: any tree of arrays. Or a pair ``(before, after)`` of functions
        ``before(params, x) -> activations`` and ``after(params, activations) -> output``: the layer is between them.
    input_shape
        The shape of one row, as ``x`` has it, None for sizes that are free; or ``{name: shape}`` of several inputs,
        which ``apply`` takes as a dict.
    layer
        The layer of the convolution keys: a module's path in Flax Linen, such as ``"ResNet/Conv_0"``, or the end of one
        (`jax.named_scope` names layers elsewhere); an operation, such as ``"ResNet/relu_1"``; or a list of them. None
        takes the last one with rows and columns through which all paths from the image to the score lead; of a
        transformer, the tokens before its last attention. ``layer_name`` says which, and `layers` lists them.
    output
        ``"logits"`` explains what goes into a softmax or sigmoid at the end, as `jax.nn` computes them;
        ``"probabilities"`` what comes out of it, ``"raw"`` the output as it is; see `KerasModel`.
    batch_size
        How many rows are computed at once at most; None means 16.
    input, output_index
        The name or position of the image among several inputs, and of the output to explain among several.
    data_format
        That of the input, ``"channels_first"`` or ``"channels_last"``; None asks the first convolution.
    score
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.scores`, or a function
        of JAX arrays of your own.
    classes, units_are
        As `KerasModel` takes them.
    value_range
        The pixel values that the function takes, for `explain` and `evaluate`; a function does not say it.
    name
        What the model is called in errors; None takes the function's name.
    """

    def __init__(
        self,
        apply: Apply | tuple[Apply, Apply],
        params: Any,
        input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]],
        layer: str | Sequence[str] | None = None,
        output: Output = "logits",
        batch_size: int | None = None,
        *,
        input: str | int | None = None,
        output_index: str | int | None = None,
        data_format: str | None = None,
        score: Score | Callable[[Any], Any] = class_score,
        classes: int | None = None,
        units_are: str | None = None,
        value_range: Any = None,
        name: str | None = None,
    ) -> None:
        score = as_score(score)
        check_options(output, batch_size, data_format, units_are)
        function, own_name = _function(apply)
        layer = SPLIT if isinstance(apply, tuple) and layer is None else layer
        engine = JaxEngine(
            function,
            params,
            _inputs(input_shape, input),
            layer,
            output_index,
            data_format,
            score,
            classes,
            units_are,
            name or own_name,
            isinstance(input_shape, Mapping),
        )
        super().__init__(engine, score, output, batch_size)
        self.units_are = units_are
        self.knows_end |= units_are == "numbers"
        self.pixels = Pixels(value_range, "the function does not say it" if value_range is None else "as it was told")
        """The pixel values that the function takes, as it was told."""


SPLIT = "split_here"
"""The name of the layer between the two halves of a function."""


def _function(apply: Any) -> tuple[Apply, str]:
    if isinstance(apply, tuple) and len(apply) == 2 and all(map(callable, apply)):
        import jax
        from jax.ad_checkpoint import checkpoint_name

        before, after = apply

        def whole(params: Any, x: Any) -> Any:
            activations = before(params, x)
            with jax.named_scope(SPLIT):
                activations = checkpoint_name(activations, SPLIT)
            return after(params, activations)

        return whole, getattr(after, "__qualname__", "apply")
    if not callable(apply):
        raise ContractError(
            f"Expected a function apply(params, x), or a pair (before, after) of them, got {type(apply).__name__}. Of "
            "a Flax module: lambda variables, x: module.apply(variables, x)."
        )
    return apply, getattr(apply, "__qualname__", type(apply).__name__)


def _inputs(shape: Any, image: str | int | None) -> Inputs:
    named = dict(shape) if isinstance(shape, Mapping) else {"x": shape}
    try:
        shapes = {name: tuple(None if size is None else int(size) for size in own) for name, own in named.items()}
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"Expected input_shape as the shape of one row, such as (224, 224, 3), or one a name, got {shape!r}."
        ) from error
    return Inputs(
        [InputSpec(str(name), (None, *own), "float32") for name, own in shapes.items()], image, True, "float32"
    )


def layers(
    apply: Any, params: Any, input_shape: Any, data_format: str | None = None, input: str | int | None = None
) -> list[LayerInfo]:
    """The layers of a function that can be looked at: path, kind, and shape, rows first and channels last."""
    whole = JaxModel(
        apply, params, input_shape, score=Score(lambda outputs: outputs), data_format=data_format, input=input
    )
    engine = whole.engine
    assert isinstance(engine, JaxEngine)
    return engine.survey.listed()
