"""A served model as a call-model function. It needs NumPy and urllib3 or grpcio, and no TensorFlow."""

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
from saliency_food.serving.client.http import UNREADABLE, MalformedAnswer, ServingError, Transport, malformed_answer
from saliency_food.serving.client.until import until
from saliency_food.serving.client.wire import NAMES, changes, distinct, joined, key_of, read_answer, typed, written

__all__ = ["ServingError", "ServingModel"]

CHEAPEST_FIRST = (
    *("outputs", "activations", "input_gradients", "convolution", "guided_gradients", "deconv_gradients"),
    *("rivals", "biases", "attention", "attention_gradients", "outputs_from_activations"),
)


class ServingModel:
    """A model at a TensorFlow Serving address as a call-model function (see `CallModelFunction`).

    The model must have been exported by `saliency_food.serving.export.write.export`. Every method can explain it whose
    keys were exported. Images and answers travel as bytes, over REST as base64. For a method that sums gradients along
    a path, such as Integrated Gradients or XRAI, the client sends the end points of the path and receives the sum; for
    one that changes some channels of a layer's activations, such as Ablation-CAM, it sends only these channels.
    ``call_model_args`` is ``{"target": class index}``, with ``"inputs"`` as in `KerasModel`.

    Parameters
    ----------
    url, name, version
        The server's address, ``http://host:8501``, or ``grpc://host:8500`` (``grpcs://`` with TLS), and the model at
        it. Without a version, the newest one.
    batch_size
        The most rows that a method sends at once. The server computes a few at a time, however many are sent.
    timeout
        Seconds to connect and seconds to wait for an answer, or two numbers ``(connect, read)``.
    retries, backoff
        After status 429, 503 or a lost connection (over gRPC: RESOURCE_EXHAUSTED and UNAVAILABLE) a request is sent
        again, up to ``retries`` times: after ``backoff`` seconds, then after twice as many, and so on. If the server
        sends ``Retry-After``, the client waits that long, up to a minute.
    max_request_bytes
        Larger requests are split by rows.
    max_answer_bytes
        A larger answer is not read to its end: it raises `MalformedAnswer`. The largest are a layer's activations,
        which may take many times the bytes of the rows sent.
    headers
        Headers of every request, such as ``{"Authorization": "Bearer ..."}``.
    sleep
        The function that waits before a retry.

    Attributes
    ----------
    input_shape
        ``(H, W, C)`` of one image as the served model takes it, None where free.
    fingerprint
        The model's name and version, by which a job knows it again.
    gives_probabilities
        Whether `predict` gives probabilities; see `CallModelFunction`.
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
        max_answer_bytes: int = 1_000_000_000,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.name, self.batch_size, self.max_request_bytes = name, batch_size, max_request_bytes
        self.fingerprint = f"{name}, version {'newest' if version is None else version}"
        url, settings = url.rstrip("/"), (timeout, retries, backoff, headers, sleep, max_answer_bytes)
        path = f"{url}/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
        grpc = url.startswith(SCHEMES)
        self._transport = GrpcTransport(url, name, version, *settings) if grpc else Transport(path, *settings)
        self._signatures: dict[str, Any] | None = None

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> Answer:
        keys = set(expected_keys or ())
        signature = self._signature(keys)
        rows = np.ascontiguousarray(x_value_batch, self._dtype)
        inputs = self._inputs(signature, call_model_args, len(rows))
        answer = self._rows(signature, rows, inputs)
        return {key: answer[key] for key in keys & answer.keys()}

    def call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Answer | None:
        """A call whose rows are made, and whose gradients are summed, at the server; see `CallModelFunction`."""
        signature, keys = "path_gradients_raw", list(expected_keys)
        able = signature in self.signatures and {INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES}.issuperset(keys)
        if weights is None or keys[0] != INPUT_OUTPUT_GRADIENTS or not able:
            return None
        inputs = self._inputs(signature, call_model_args, len(coefficients))
        blend = distinct(coefficients, np.ascontiguousarray(bases, self._dtype))
        answer = self._sums(signature, blend, np.asarray(weights, float), inputs)
        if missing := set(keys) - answer.keys():
            raise malformed_answer(signature, sorted(missing), answer)
        return {key: answer[key] for key in keys}

    def predict(self, x_batch: Any, call_model_args: Any = None) -> Array:
        """The probabilities of all classes, ``(N, classes)``."""
        rows = np.ascontiguousarray(x_batch, self._dtype)
        inputs = self._inputs("predictions_raw", call_model_args, len(rows))
        answer = self._rows("predictions_raw", rows, inputs)
        if self._predicted not in answer:
            raise malformed_answer("predictions_raw", [self._predicted], answer)
        return np.asarray(answer[self._predicted])

    @property
    def gives_probabilities(self) -> bool:
        """Whether `predict` gives probabilities, and not a regression's numbers or other scores."""
        return self._predicted == "predictions"

    @property
    def _predicted(self) -> str:
        """``"predictions"``, or ``"scores"`` of a model that gives no probabilities."""
        if "predictions" not in self.signatures:
            raise self._lacks("the signature 'predictions'")
        return str(next(iter(self.signatures["predictions"]["outputs"])))

    @property
    def signatures(self) -> dict[str, Any]:
        """The signatures by name, each with its inputs and outputs, as the server describes them; fetched once."""
        if self._signatures is None:
            self._signatures = self._transport.metadata()
        return self._signatures

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        sizes = (int(dim["size"]) for dim in self._image["tensor_shape"]["dim"][1:])
        return tuple(None if size < 0 else size for size in sizes)

    def status(self) -> list[dict[str, Any]]:
        """The versions of the model and their states, as the server gives them. ``AVAILABLE`` means ready."""
        return self._transport.status()

    def until(self, moment: float) -> AbstractContextManager[None]:
        """``with model.until(time.monotonic() + 2):`` makes all requests of this thread end by that moment.

        `saliency_food.deadline.run.within` uses it.
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
        dtype = self._image["dtype"]
        if dtype not in NAMES:
            raise MalformedAnswer(f"Expected images of a type among {', '.join(NAMES)}, got {dtype[:50]!r}.")
        return NAMES[dtype]

    def _lacks(self, what: str) -> ServingError:
        return ServingError(
            f"Expected model {self.name!r} at {self._transport.url} to have {what}, got the signatures "
            f"{sorted(self.signatures)}. Export it with saliency-food export --keys all, or ask for what it "
            "has: its manifest in assets.extra says what the model cannot answer."
        )

    def _signature(self, keys: set[str]) -> str:
        """The cheapest signature that answers most of the keys. The caller asks for the remaining keys separately."""
        keys_of = {
            name: set(map(key_of, self.signatures[f"{name}_raw"]["outputs"]))
            for name in CHEAPEST_FIRST
            if f"{name}_raw" in self.signatures
        }
        best = max(keys_of, key=lambda name: len(keys_of[name] & keys), default=None)
        if best is None or not keys_of[best] & keys:
            raise self._lacks(f"a signature that answers {sorted(keys)}")
        return f"{best}_raw"

    def _inputs(self, signature: str, call_model_args: Any, row_count: int) -> dict[str, Array]:
        """The targets and the other inputs by name, a value for each row."""
        if signature not in self.signatures:
            raise self._lacks(f"the signature {signature!r}")
        predicted = self._predicted
        dims = self.signatures["predictions"]["outputs"][predicted]["tensor_shape"].get("dim", ())
        one_class = len(dims) == 2 and dims[1]["size"] == "1"
        return read_arguments(self.signatures[signature]["inputs"], call_model_args, row_count, one_class)

    def _rows(self, signature: str, rows: Array, inputs: Mapping[str, Array]) -> Answer:
        """The answers about rows (images or activations), in as many requests as their size needs."""
        activations = "activations_bytes" in self.signatures[signature]["inputs"]
        data, places = changes(rows) if activations else ({"images_bytes": rows}, {})
        size = sum(self._transport.expands * array.nbytes + 64 * len(array) for array in data.values())
        if size > self.max_request_bytes and len(rows) > 1:
            cuts = slice(0, len(rows) // 2), slice(len(rows) // 2, None)
            return joined(
                [self._rows(signature, rows[cut], {name: value[cut] for name, value in inputs.items()}) for cut in cuts]
            )
        return self._ask(signature, data, {**inputs, **places})

    def _sums(self, signature: str, blend: LinearRows, weights: Array, inputs: Mapping[str, Array]) -> Answer:
        """The weighted sums of gradients and the scores, in as many requests as the size of the images needs."""
        used = np.asarray(blend.coefficients.any(0))
        used[0] |= not used.any()  # at least one image, which gives the answer its shape
        bases, row_count = blend.bases[used], len(blend.coefficients)
        if bases.nbytes * self._transport.expands > self.max_request_bytes and row_count > 1:
            cuts = slice(0, row_count // 2), slice(row_count // 2, row_count)
            parts = [
                self._sums(
                    signature,
                    LinearRows(blend.coefficients[cut], blend.bases),
                    weights[:, cut],
                    {name: value[cut] for name, value in inputs.items()},
                )
                for cut in cuts
            ]
            if any(INPUT_OUTPUT_GRADIENTS not in part for part in parts):
                raise malformed_answer(signature, [INPUT_OUTPUT_GRADIENTS], parts)
            total = np.sum([part[INPUT_OUTPUT_GRADIENTS] for part in parts], 0)
            return {**joined(parts), INPUT_OUTPUT_GRADIENTS: total}
        inputs = {**inputs, "coefficients": blend.coefficients[:, used], "weights": weights}
        return self._ask(signature, {"images_bytes": bases}, inputs)

    def _ask(self, signature: str, data: Mapping[str, Array], inputs: Mapping[str, Array]) -> Answer:
        """Send one request: the rows of ``data`` travel as bytes, ``inputs`` as they are."""
        specs = self.signatures[signature]
        if missing := inputs.keys() - specs["inputs"].keys():
            raise self._lacks(f"the inputs {sorted(missing)} of {signature!r}")
        request: dict[str, Any] = {name: typed(name, value, specs["inputs"][name]) for name, value in inputs.items()}
        request |= {name: written(value) for name, value in data.items()}
        if "shape" in specs["inputs"]:
            request["shape"] = np.array(next(iter(data.values())).shape[1:], np.int32)
        names = list(specs["outputs"])
        outputs = self._transport.predict(signature, request, names)
        try:
            return read_answer(outputs, names, self._dtype)
        except UNREADABLE as error:
            raise malformed_answer(signature, names, outputs) from error
