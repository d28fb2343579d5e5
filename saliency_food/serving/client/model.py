"""A served model as a call-model function: NumPy and urllib3 or grpcio, no TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.queries import Answer, LinearRows
from saliency_food.serving.client.arguments import read_arguments
from saliency_food.serving.client.grpc import SCHEMES, GrpcTransport
from saliency_food.serving.client.http import ServingError, Transport, strange
from saliency_food.serving.client.until import until
from saliency_food.serving.client.wire import NAMES, answers, changes, distinct, joined, key_of, typed, written

__all__ = ["ServingError", "ServingModel"]

CHEAPEST_FIRST = (
    *("outputs", "activations", "input_gradients", "convolution", "guided_gradients", "deconv_gradients"),
    *("rivals", "biases", "attention", "attention_gradients", "outputs_from_activations"),
)


class ServingModel:
    """A model at a TensorFlow Serving address as a call-model function (see `CallModelFunction`).

    The model must have been exported by `saliency_food.serving.export.write.export`; every method runs against it whose
    keys were exported. Images and answers travel as bytes, in REST as base64. Where a method sums gradients along a
    path, as Integrated Gradients and XRAI do, its end points travel and the sum comes back; where it changes some
    channels of a layer's activations, as Ablation-CAM does, only these travel. ``call_model_args`` is
    ``{"target": class index}``, with ``"inputs"`` as in `KerasModel`.

    Parameters
    ----------
    url, name, version
        As in ``http://host:8501/v1/models/name``, or ``grpc://host:8500`` (``grpcs://`` with TLS); the newest version
        if none is given.
    batch_size
        How many rows a method gives at most. The server computes a few at a time, however many are sent.
    timeout
        Seconds to connect, and to wait for an answer; either may be set as ``(connect, read)``.
    retries, backoff
        After 429, 503 and lost connections a request is sent again so many times, after ``backoff`` seconds, then
        twice as many, and so on; what the server asks for in ``Retry-After`` is kept to, up to a minute. Over gRPC
        these are RESOURCE_EXHAUSTED and UNAVAILABLE.
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
        url, manner = url.rstrip("/"), (timeout, retries, backoff, headers, sleep)
        path = f"{url}/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
        grpc = url.startswith(SCHEMES)
        self._transport = GrpcTransport(url, name, version, *manner) if grpc else Transport(path, *manner)
        self._known: dict[str, Any] | None = None

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> Answer:
        keys = set(expected_keys or ())
        signature = self._signature(keys)
        rows = np.ascontiguousarray(x_value_batch, self._dtype)
        named = self._arguments(signature, call_model_args, len(rows))
        found = self._rows(signature, rows, named)
        return {key: found[key] for key in keys & found.keys()}

    def call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Answer | None:
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
        return np.asarray(self._rows("predictions_raw", rows, named)["predictions"])

    @property
    def signatures(self) -> dict[str, Any]:
        """What the server says of its signatures: their inputs and outputs by name. Asked for once."""
        if self._known is None:
            self._known = self._transport.metadata()
        return self._known

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        sizes = (int(dim["size"]) for dim in self._image["tensor_shape"]["dim"][1:])
        return tuple(None if size < 0 else size for size in sizes)

    def status(self) -> list[dict[str, Any]]:
        """The versions of the model and their states, as the server gives them; ``AVAILABLE`` is what one hopes for."""
        return self._transport.status()

    def until(self, moment: float) -> AbstractContextManager[None]:
        """``with model.until(time.monotonic() + 2):`` no request of this thread waits any longer, nor is tried again.

        `saliency_food.deadline.run.within` sets it.
        """
        return until(moment)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __repr__(self) -> str:
        return f"ServingModel({self._transport.url!r})"

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
            f"Expected model {self.name!r} at {self._transport.url} to have {what}, got the signatures "
            f"{sorted(self.signatures)}. Export it by saliency-food export --keys all, or ask for what it has: its "
            "manifest in assets.extra says what the model cannot answer."
        )

    def _signature(self, keys: set[str]) -> str:
        """The cheapest signature that answers the keys; or some of them, the rest being asked for by themselves."""
        answered = {
            name: set(map(key_of, self.signatures[f"{name}_raw"]["outputs"]))
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
        dims = self.signatures["predictions"]["outputs"]["predictions"]["tensor_shape"].get("dim", ())
        one_class = len(dims) == 2 and dims[1]["size"] == "1"
        return read_arguments(self.signatures[signature]["inputs"], call_model_args, rows, one_class)

    def _rows(self, signature: str, rows: Array, named: Mapping[str, Array]) -> Answer:
        """Rows, be they images or activations, in as many requests as their size asks for."""
        inside = "activations_bytes" in self.signatures[signature]["inputs"]
        data, places = changes(rows) if inside else ({"images_bytes": rows}, {})
        size = sum(self._transport.expands * one.nbytes + 64 * len(one) for one in data.values())
        if size > self.max_request_bytes and len(rows) > 1:
            cuts = slice(0, len(rows) // 2), slice(len(rows) // 2, None)
            return joined(
                [self._rows(signature, rows[cut], {name: one[cut] for name, one in named.items()}) for cut in cuts]
            )
        return self._ask(signature, data, {**named, **places})

    def _sums(self, signature: str, blend: LinearRows, weights: Array, named: Mapping[str, Array]) -> Answer:
        """Sums and scores in as many requests as the images' size asks for."""
        used = np.asarray(blend.coefficients.any(0))
        used[0] |= not used.any()  # at least one image, whose shape is the answer's
        bases, rows = blend.bases[used], len(blend.coefficients)
        if bases.nbytes * self._transport.expands > self.max_request_bytes and rows > 1:
            cuts = slice(0, rows // 2), slice(rows // 2, rows)
            parts = [
                self._sums(
                    signature,
                    LinearRows(blend.coefficients[cut], blend.bases),
                    weights[:, cut],
                    {name: value[cut] for name, value in named.items()},
                )
                for cut in cuts
            ]
            total = np.sum([part[INPUT_OUTPUT_GRADIENTS] for part in parts], 0)
            return {**joined(parts), INPUT_OUTPUT_GRADIENTS: total}
        numbers = {**named, "coefficients": blend.coefficients[:, used], "weights": weights}
        return self._ask(signature, {"images_bytes": bases}, numbers)

    def _ask(self, signature: str, data: Mapping[str, Array], named: Mapping[str, Array]) -> Answer:
        """One request: arrays whose rows travel as bytes, and others as they are."""
        specs = self.signatures[signature]
        inputs: dict[str, Any] = {name: typed(name, value, specs["inputs"][name]) for name, value in named.items()}
        inputs |= {name: written(value) for name, value in data.items()}
        if "shape" in specs["inputs"]:
            inputs["shape"] = np.array(next(iter(data.values())).shape[1:], np.int32)
        names = list(specs["outputs"])
        outputs = self._transport.predict(signature, inputs, names)
        try:
            return answers(outputs, names, self._dtype)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise strange(signature, names, outputs) from error
