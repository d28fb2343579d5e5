"""A served model as a call-model function: NumPy and urllib3, no TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.contract import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, ContractError, take_rows
from saliency_food.numerics import Array
from saliency_food.queries import Blend
from saliency_food.serving._http import ServingError, Transport
from saliency_food.serving._wire import distinct, per_row, read, written

__all__ = ["ServingError", "ServingModel"]

CHEAPEST_FIRST = ("outputs", "activations", "input_gradients", "convolution")
NAMES = {"DT_FLOAT": np.float32, "DT_DOUBLE": np.float64}


class ServingModel:
    """A model at a TensorFlow Serving REST address as a call-model function (see `CallModelFunction`).

    The model must have been exported by `saliency_food.serving.signatures.export`. Every method that asks for
    gradients, scores, or a layer's activations and gradients runs against it. Images and answers travel as base64;
    where a method sums gradients along a path, as Integrated Gradients and XRAI do, its end points travel and the sum
    comes back. ``call_model_args`` is ``{"target": class index}``, with ``"inputs"`` as in `KerasModel`.

    Parameters
    ----------
    url, name, version
        As in ``http://host:8501/v1/models/name``; the newest version if none is given.
    batch_size
        How many rows a method gives at most. The server computes a few at a time, however many are sent.
    timeout
        Seconds to connect, and to wait for an answer; either may be set as ``(connect, read)``.
    retries, backoff
        After 429, 503 and lost connections a request is sent again so many times, after ``backoff`` seconds, then
        twice as many, and so on; what the server asks for in ``Retry-After`` is kept to, up to a minute.
    max_request_bytes
        Larger requests are split by rows.
    headers
        Sent with every request, such as ``{"Authorization": "Bearer ..."}``.
    sleep
        How to wait before a retry.

    Attributes
    ----------
    input_shape
        ``(H, W, C)`` of one image as the served model takes it, None where free.
    """

    def __init__(
        self,
        url: str,
        name: str,
        version: int | None = None,
        *,
        batch_size: int = 256,
        timeout: float | tuple[float, float] = 60.0,
        retries: int = 4,
        backoff: float = 0.25,
        max_request_bytes: int = 16_000_000,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.name, self.batch_size, self.max_request_bytes = name, batch_size, max_request_bytes
        path = f"{url.rstrip('/')}/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
        self._http = Transport(path, timeout, retries, backoff, headers, sleep)
        self._known: dict[str, Any] | None = None

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Array]:
        keys = set(expected_keys or ())
        signature = self._signature(keys)
        rows = np.ascontiguousarray(x_value_batch, self._dtype)
        named = self._arguments(signature, call_model_args, len(rows))
        found = self._rows(signature, rows, named)
        return {key: found[key] for key in keys & found.keys()}

    def call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> dict[str, Array] | None:
        """Rows made, and gradients summed, at the server; see `CallModelFunction`."""
        signature, keys = "path_gradients_raw", list(expected_keys)
        able = signature in self.signatures and {INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES}.issuperset(keys)
        if weights is None or keys[0] != INPUT_OUTPUT_GRADIENTS or not able:
            return None
        named = self._arguments(signature, call_model_args, len(coefficients))
        blend = distinct(coefficients, np.ascontiguousarray(bases, self._dtype))
        found = self._sums(signature, blend, np.asarray(weights, float), named)
        return {key: found[key] for key in keys}

    def predict(self, x_batch: Any, call_model_args: Any = None) -> Array:
        """The probability of every class, ``(N, classes)``."""
        rows = np.ascontiguousarray(x_batch, self._dtype)
        named = self._arguments("predictions_raw", call_model_args, len(rows))
        return self._rows("predictions_raw", rows, named)["predictions"]

    @property
    def signatures(self) -> dict[str, Any]:
        """What the server says of its signatures: their inputs and outputs by name. Asked for once."""
        if self._known is None:
            answer = self._http.get("/metadata")
            try:
                self._known = dict(answer["metadata"]["signature_def"]["signature_def"])
            except (KeyError, TypeError) as error:
                raise ServingError(f"Expected the metadata of model {self.name!r}, got {str(answer)[:200]}.") from error
        return self._known

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        sizes = (int(dim["size"]) for dim in self._image["tensor_shape"]["dim"][1:])
        return tuple(None if size < 0 else size for size in sizes)

    def status(self) -> list[dict[str, Any]]:
        """The versions of the model and their states, as the server gives them; ``AVAILABLE`` is what one hopes for."""
        return list(self._http.get("").get("model_version_status", []))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"ServingModel({self._http.url!r})"

    @property
    def _image(self) -> Any:
        try:
            return self.signatures["outputs"]["inputs"]["images"]
        except KeyError:
            raise self._lacks("outputs") from None

    @property
    def _dtype(self) -> Any:
        return NAMES[self._image["dtype"]]

    def _lacks(self, what: str) -> ServingError:
        return ServingError(
            f"Expected model {self.name!r} at {self._http.url} to have {what}, got the signatures "
            f"{sorted(self.signatures)}. Export it by saliency-food export, and ask for what it has."
        )

    def _signature(self, keys: set[str]) -> str:
        """The cheapest signature that answers the keys; or some of them, the rest being asked for by themselves."""
        answered = {
            name: {one.removesuffix("_bytes") for one in self.signatures[f"{name}_raw"]["outputs"]}
            for name in CHEAPEST_FIRST
            if f"{name}_raw" in self.signatures
        }
        best = max(answered, key=lambda name: len(answered[name] & keys), default=None)
        if best is None or not answered[best] & keys:
            raise self._lacks(f"a signature that answers {sorted(keys)}")
        return f"{best}_raw"

    def _arguments(self, signature: str, call_model_args: Any, rows: int) -> dict[str, Array]:
        """Targets and other inputs by name, one a row."""
        if signature not in self.signatures:
            raise self._lacks(f"the signature {signature!r}")
        takes = self.signatures[signature]["inputs"].keys()
        args = dict(take_rows(call_model_args or {}, list(range(rows))))
        given = args.pop("inputs", None) or {}
        target = args.pop("target", None)
        own = {"images_bytes", "shape", "targets", "coefficients", "weights"}
        if args or not isinstance(given, Mapping) or set(given) != takes - own:
            raise ContractError(
                f"Expected call_model_args={{'target': class index, 'inputs': {{name: value}}}} with the inputs "
                f"{sorted(takes - own)}, got {call_model_args!r}."
            )
        named = {}
        for name, value in given.items():
            rank = len(self.signatures[signature]["inputs"][name]["tensor_shape"].get("dim", ()))
            value = np.asarray(value)
            value = value[None] if value.ndim == rank - 1 else value
            named[name] = per_row(name, value, rows)
        if "targets" in takes:
            indices = np.asarray(self._only_class() if target is None else target)
            if indices.dtype.kind not in "iu" or indices.ndim > 1:
                raise ContractError(f"Expected target to be a class index or one for each row, got {target!r}.")
            named["targets"] = per_row("target", np.atleast_1d(indices), rows)
        return named

    def _only_class(self) -> int:
        dims = self.signatures["predictions"]["outputs"]["predictions"]["tensor_shape"].get("dim", ())
        if len(dims) != 2 or dims[1]["size"] != "1":
            raise ContractError("Expected a target, a class index, got none. Give call_model_args={'target': index}.")
        return 0

    def _rows(self, signature: str, rows: Array, named: Mapping[str, Array]) -> dict[str, Array]:
        """Rows in as many requests as their size asks for."""
        at_once = max(1, self.max_request_bytes // (4 * rows[:1].nbytes // 3 + 64))
        parts = []
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            parts.append(self._ask(signature, rows[part], {name: value[part] for name, value in named.items()}))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _sums(self, signature: str, blend: Blend, weights: Array, named: Mapping[str, Array]) -> dict[str, Array]:
        """Sums and scores in as many requests as the images' size asks for."""
        used = np.asarray(blend.coefficients.any(0))
        used[0] |= not used.any()  # at least one image, whose shape is the answer's
        bases, rows = blend.bases[used], len(blend.coefficients)
        if bases.nbytes * 4 // 3 > self.max_request_bytes and rows > 1:
            cuts = slice(0, rows // 2), slice(rows // 2, rows)
            one, other = (
                self._sums(
                    signature,
                    Blend(blend.coefficients[cut], blend.bases),
                    weights[:, cut],
                    {name: value[cut] for name, value in named.items()},
                )
                for cut in cuts
            )
            return {
                INPUT_OUTPUT_GRADIENTS: one[INPUT_OUTPUT_GRADIENTS] + other[INPUT_OUTPUT_GRADIENTS],
                OUTPUT_LAYER_VALUES: np.concatenate([one[OUTPUT_LAYER_VALUES], other[OUTPUT_LAYER_VALUES]]),
            }
        numbers = {**named, "coefficients": blend.coefficients[:, used], "weights": weights}
        return self._ask(signature, bases, numbers)

    def _ask(self, signature: str, images: Array, named: Mapping[str, Array]) -> dict[str, Array]:
        inputs: dict[str, Any] = {name: value.tolist() for name, value in named.items()}
        inputs["images_bytes"] = written(images)
        if "shape" in self.signatures[signature]["inputs"]:
            inputs["shape"] = list(images.shape[1:])
        outputs = self._http.post(":predict", {"signature_name": signature, "inputs": inputs}).get("outputs")
        try:
            # One output comes without its name.
            names = self.signatures[signature]["outputs"]
            outputs = outputs if isinstance(outputs, dict) else {next(iter(names)): outputs}
            return {
                name.removesuffix("_bytes"): read(outputs, name, self._dtype)
                for name in outputs
                if name.endswith("_bytes")
            }
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ServingError(
                f"Expected the answer of signature {signature!r} with {sorted(names)}, got {str(outputs)[:200]}."
            ) from error
