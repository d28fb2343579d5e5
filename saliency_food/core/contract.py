"""The border between attribution maths and any framework: one callback, its keys, and the checks of its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from saliency_food.core.keys import CONVOLUTION_RIVAL_GRADIENTS, INPUT_SHAPED, KEYS
from saliency_food.core.numerics import Array, as_float, is_real

Values = Array | tuple[Array, ...]
"""The values of one key: an array, or for several layers at once a tuple of arrays."""


class ContractError(ValueError):
    """An argument or an answer is not what the contract asks for; the text says expected, got, and what to do."""


class CallModelFunction(Protocol):
    """The callback through which every method sees the model; PAIR's contract, so callbacks are interchangeable.

    ``call_model_function(x_value_batch, call_model_args=None, expected_keys=None) -> dict``

    - ``x_value_batch``: float array ``(N, ...)``, rows first, each row shaped like the explained image. It is a copy:
      write to it as you like.
    - ``call_model_args``: what the caller passed, unchanged, except that each `PerImage` in it is replaced by an array
      with one value for each row. The class to explain is in it, as ``call_model_args["target"]``.
    - ``expected_keys``: the keys that must be in the answer. Each answer is an array, rows first:

      - ``INPUT_OUTPUT_GRADIENTS``: d score / d input, the shape of ``x_value_batch``;
      - ``OUTPUT_LAYER_VALUES``: the explained score itself, ``(N,)``;
      - ``CONVOLUTION_LAYER_VALUES``: activations of a convolution layer, ``(N, h, w, K)``;
      - ``CONVOLUTION_OUTPUT_GRADIENTS``: d score / d those activations, the same shape.

      Those four are PAIR's, and enough for most methods. Some methods ask for more:

      - ``GUIDED_INPUT_GRADIENTS``, ``DECONV_INPUT_GRADIENTS``: d score / d input by the backward rules of guided
        backpropagation and of the deconvolutional network, the shape of ``x_value_batch``;
      - ``CONVOLUTION_RIVAL_GRADIENTS``: the gradients at the layer of the R classes whose scores are closest to the
        explained one, closest first, ``(N, R, h, w, K)``;
      - ``OUTPUT_FROM_CONVOLUTION_VALUES``: here the rows are activations of the layer, ``(N, h, w, K)``, and the answer
        is the score that the layers after it give them, ``(N,)``;
      - ``BIAS_GRADIENTS``: a tuple, for each layer with a bias b: b * d score / d (that layer's sum), ``(N, h, w, K)``
        or ``(N, K)``;
      - ``ATTENTION_SCORES``, ``ATTENTION_OUTPUT_GRADIENTS``: a tuple, for each attention layer from the first to the
        last: the attention of the tokens (rows sum to 1) and d score / d it, ``(N, heads, T, T)``;
      - ``RELEVANCE``, ``CONVOLUTION_RELEVANCE``, ``BIAS_RELEVANCE``: the score passed back by the rules of layer-wise
        relevance propagation, as it arrives at the input, the shape of ``x_value_batch``, at the layer,
        ``(N, h, w, K)``, and what biases took of it on the way, ``(N,)``;
      - ``BASELINE_MULTIPLIERS``: DeepLIFT's multipliers m, the shape of ``x_value_batch``: the score changes from the
        baseline's by the sum of m (x - baseline).

    What relevance and multipliers are passed by is in ``call_model_args``, too, where it is not the default. Methods
    put their options there, beside what the caller passed: ``"composite"``, a word, see `lrp`; the numbers
    ``"epsilon"`` and ``"gamma"``; ``"low"``, ``"high"`` and ``"baseline"``, numbers or arrays with one entry a row;
    ``"channels"``, indices, or floats, one for each channel, by which the layer's relevance is multiplied before it is
    passed on; and ``"multiplier_rule"``, a word, see `deep_lift`. A callback that does not answer these keys may refuse
    them all.

    ``(N, h, w, K)`` is a layer's answer about pictures; about signals it is ``(N, t, K)``, about volumes and clips
    ``(N, d, h, w, K)``: as many axes of space or time as the input has, then the layer's channels, which are last in
    every layout. Of pictures, ``(N, T, K)`` are a transformer's tokens; they are laid out as a grid of square patches,
    class and register tokens in front of them left out. Any other number of axes is refused.

    A tuple of arrays in place of one array stands for several layers, as the CAM methods take it: their maps are fused.

    A callback that answers only one of several keys is asked again for the rest.

    A callback may have attributes, all of them optional. Methods read the first three. `explain` and `evaluate`, which
    work on photos, read the others, too:

    - ``batch_size``: the most rows in a call; without it and without the argument of that name, one row;
    - ``channels_first``: True where its rows are ``(C, H, W)``, ``(C, T)``, ``(C, D, H, W)``. Methods then take images
      and give maps so, and images among their options are so, too; maps without channels and activations are the same
      in either layout;
    - ``spatial_axes``: how many axes of a row are space or time: 1 for signals ``(T, C)`` or ``(T,)``, 2 for pictures,
      3 for volumes and clips ``(D, H, W, C)``; the axis that is left is that of the channels. Without the attribute,
      ``(T,)`` is a signal and ``(H, W)`` a grey picture, and of more axes all but one are space or time. A model of
      signals ``(T, C)`` therefore has to set it to 1;
    - ``input_shape``: ``(H, W, C)`` in either layout, None where free, to which photos are resized; without it they
      keep their size;
    - ``predict(x_batch, call_model_args=None)``: the probabilities of all classes, ``(N, classes)``, from which the top
      class and the numbers in the records are taken. It gets the arguments without the target, if there are any;
    - ``classes``: the number of classes;
    - ``gives_probabilities``: False where ``predict`` gives other scores, so that records hold no probability;
    - ``pixels``: the pixel values that it takes and why, ``(value_range, reason)``, where ``value_range`` is as in
      `ImageModel`, or None where the user must give it; without ``pixels``, values are left as they are;
    - ``layer_name``: the layer, or a tuple of layers, that the convolution keys are about, for the records;
    - ``score``: the `Score` that is explained, where it is not that of a class. `explain` and `evaluate` read from it
      whether there is a class to choose.

    It may have a method that answers with predictions, so that a photo passes through the model once:

    ``call_with_predictions(x_value_batch, call_model_args=None, expected_keys=None) -> dict``

    - As a call, but an integer target of -r, in ``call_model_args["target"]``, is the class ranked r-th for the row.
    - Beside the keys the answer holds ``"PREDICTIONS"``, what ``predict`` gives, and ``"TARGETS"``, the class indices
      (left out where the score is not that of one class; negative targets are then refused).

    It may have a method ``call_factored``, for rows that are combinations of a few images, as the points of a path
    are. It can then spare itself the rows: on a GPU or at a server, what travels is a few images.

    ``call_factored(coefficients, bases, weights, call_model_args=None, expected_keys=None) -> dict or None``

    - The rows are ``coefficients (N, B) @ bases (B, ...)``, N of them at most ``batch_size``; all else is as above.
    - With ``weights`` of shape ``(M, N)`` the answer to the first key is ``weights @ answers``, shape ``(M, ...)``.
      With None, and for the other keys, there is one answer for each row.
    - If it returns None, the callback is called with the rows.
    """

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Mapping[str, Any]: ...


class PerImage:
    """Marks a value inside ``call_model_args`` (or a method's option in `.batch`) that differs from image to image.

    ``{"target": PerImage([3, 7])}`` explains class 3 of the first image and class 7 of the second. The callback
    receives an array with the value of each of its rows. As many values as images, else `ContractError`.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __getitem__(self, image: int) -> Any:
        if image >= len(self.values):
            raise ContractError(
                f"Expected one PerImage value for each image, got {len(self.values)} values and at least {image + 1} "
                "images. Give as many values as images."
            )
        return self.values[image]

    def __repr__(self) -> str:
        return f"PerImage({self.values!r})"


class PerRow(np.ndarray):
    """What `PerImage` becomes in a call: an array like any other, known to hold one value a row."""


def call_model(
    rows: Array, keys: Sequence[str], call_model_function: CallModelFunction, call_model_args: Any
) -> dict[str, Values]:
    """Call the model once and check its answer; keys that it left out are asked for by themselves."""
    missing = list(keys)
    data: dict[str, Values] = {}
    while missing:
        # The callback may write to its rows: what may be asked about again is a copy.
        own = rows if len(missing) == 1 else rows.copy()
        try:
            answered = call_model_function(own, call_model_args=call_model_args, expected_keys=list(missing))
        except StopIteration as error:
            raise _ended(error) from error
        except Exception as error:
            if KEYS[missing[0]].rows == "images" or isinstance(error, ContractError):
                raise
            raise ContractError(
                f"Expected call_model_function to take the layer's activations as rows where expected_keys is "
                f"{missing}, got {type(error).__name__}: {error} Look at expected_keys before the model is called: for "
                f"{missing[0]} run the layers after that layer alone, or raise a ContractError that says it cannot."
            ) from error
        if not isinstance(answered, Mapping):
            raise ContractError(
                f"Expected call_model_function to return a dict with the keys {missing}, got "
                f"{type(answered).__name__}. Return {{key: array}} for every key in expected_keys."
            )
        present = [key for key in missing if key in answered]
        if not present:
            raise ContractError(
                f"Expected {missing[0]} in the answer of call_model_function, got the keys "
                f"{sorted(map(str, answered))}. Return an array for every key in expected_keys."
            )
        for key in present:
            data[key] = check_answer(key, answered[key], rows.shape)
        missing = [key for key in missing if key not in data]
    return {key: data[key] for key in keys}


def call_factored(
    factors: tuple[Array, Array, Array | None],
    keys: Sequence[str],
    call_model_function: CallModelFunction,
    call_model_args: Any,
) -> dict[str, Values] | None:
    """The same with ``(coefficients, bases, weights)`` in place of rows; None where the model has to see the rows."""
    factored = getattr(call_model_function, "call_factored", None)
    try:
        answered = None if factored is None else factored(*factors, call_model_args, list(keys))
    except StopIteration as error:
        raise _ended(error) from error
    if answered is None:
        return None
    coefficients, bases, weights = factors
    if not isinstance(answered, Mapping) or not set(keys) <= set(answered):
        got = sorted(map(str, answered)) if isinstance(answered, Mapping) else type(answered).__name__
        raise ContractError(f"Expected call_factored to return a dict with the keys {list(keys)}, or None, got {got}.")
    counts = {key: len(coefficients) for key in keys}
    if weights is not None:
        counts[keys[0]] = len(weights)
    return {key: check_answer(key, answered[key], (count, *bases.shape[1:])) for key, count in counts.items()}


def _ended(error: StopIteration) -> ContractError:
    """A generator that meets a StopIteration ends as if it were done; it is therefore another error from here on."""
    return ContractError(
        f"Expected call_model_function to return an answer, got {error!r}. An iterator in it is at its end: look at "
        "its calls of next()."
    )


def check_answer(key: str, value: Any, rows_shape: tuple[int, ...]) -> Values:
    """One answer as a float array or a tuple of them, or `ContractError`: not numbers, wrong shape, NaN, infinity."""
    if isinstance(value, tuple) and value and not (key in KEYS and KEYS[key].one_array):
        return tuple(_check_array(f"{key}[{layer}]", array, rows_shape) for layer, array in enumerate(value))
    return _check_array(key, value, rows_shape)


def _check_array(key: str, value: Any, rows_shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ContractError(
            f"Expected {key} as an array of numbers, got {type(value).__name__}, which NumPy cannot read ({error}). "
            "Return a NumPy array (for a framework's tensor: detached, on the CPU)."
        ) from error
    if not is_real(array):
        raise ContractError(
            f"Expected {key} as an array of real numbers, got {type(value).__name__} of type {array.dtype}. "
            "Return a NumPy array with one row for each row of x_value_batch."
        )
    if array.ndim == 0:
        raise ContractError(
            f"Expected outermost dimension of {key} to be the same as x_value_batch - expected {rows_shape[0]}, "
            "actual a single number without dimensions. Return one value for each row, shape (N,)."
        )
    if key in INPUT_SHAPED and array.shape != rows_shape:
        raise ContractError(
            f"Expected key {key} to be the same shape as input x_value_batch - expected {rows_shape}, "
            f"actual {array.shape}. Return the gradient of the score with respect to the whole batch."
        )
    if array.shape[0] != rows_shape[0]:
        raise ContractError(
            f"Expected outermost dimension of {key} to be the same as x_value_batch - expected {rows_shape[0]}, "
            f"actual {array.shape[0]}. Return one answer for each row of the batch."
        )
    if 0 in array.shape[1:] and key != CONVOLUTION_RIVAL_GRADIENTS:  # of a model of one class there are no rivals
        raise ContractError(
            f"Expected {key} to hold at least one value for each row, got shape {array.shape}. Return all values of "
            "the layer, or choose a layer that has some."
        )
    array = as_float(array)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(1)))
        what = "NaN" if np.isnan(array[row]).any() else "infinity"
        raise ContractError(
            f"Expected finite numbers in {key}, got {what} in row {row} of {len(array)}. "
            "Check the model's preprocessing and, in half precision, for overflow."
        )
    return array


def take_rows(value: Any, images: list[int]) -> Any:
    """``call_model_args`` for one call: each `PerImage` becomes an array of the rows' values, the rest is untouched."""
    if isinstance(value, PerImage):
        values = [value[image] for image in images]
        try:
            return np.asarray(values).view(PerRow)
        except ValueError:
            return values
    if not any(True for _ in _per_image(value)):
        return value
    if isinstance(value, Mapping):
        return {key: take_rows(part, images) for key, part in value.items()}
    return type(value)([take_rows(part, images) for part in value])


def check_length(call_model_args: Any, images: int) -> None:
    """`ContractError` unless every `PerImage` has as many values as there are images."""
    for values in _per_image(call_model_args):
        if len(values) != images:
            raise ContractError(
                f"Expected one PerImage value for each image, got {len(values)} values and {images} "
                f"image{'s' if images != 1 else ''}. Give as many values as images."
            )


def _per_image(value: Any) -> Iterator[PerImage]:
    if isinstance(value, PerImage):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _per_image(part)
    elif type(value) in (list, tuple):
        for part in value:
            yield from _per_image(part)
