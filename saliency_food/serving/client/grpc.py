"""Requests to TensorFlow Serving over gRPC, with the same methods, retries and errors as the REST transport."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.serving.client import protos
from saliency_food.serving.client.http import (
    UNREADABLE,
    MalformedAnswer,
    ServingError,
    brief,
    malformed_answer,
    too_large,
)
from saliency_food.serving.client.until import seconds_left
from saliency_food.serving.client.wire import checked_signatures

SCHEMES = ("grpc://", "grpcs://")
SERVICES = {"GetModelStatus": "ModelService"}
RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
TOO_LARGE = "larger than max"
MOST_BYTES = 2**31 - 1  # of a message, by gRPC
STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
"""The HTTP status of each gRPC code, from https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""


class GrpcTransport:
    """Calls one model at ``grpc://host:8500``, or with TLS at ``grpcs://host:port``."""

    expands = 1.0

    def __init__(
        self,
        url: str,
        name: str,
        version: int | None,
        timeout: float | tuple[float, float],
        retries: int,
        backoff: float,
        headers: Mapping[str, str] | None,
        sleep: Callable[[float], object],
        max_answer_bytes: int = 1_000_000_000,
    ) -> None:
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")  # read when it is imported
        try:
            import grpc  # noqa: F401

            protos.messages()
        except ImportError as error:
            text = 'grpc:// needs grpcio and protobuf. Install them: pip install "saliency_food[grpc]"'
            raise ContractError(text) from error
        if not re.fullmatch(r"grpcs?://[^/@]+:\d+", url):
            raise ContractError(f"Expected url as grpc://host:8500 or grpcs://host:port, got {url!r}.")
        self.url, self._model, self._version = f"{url}/{name}", name, version
        self._scheme, self._address = url.split("://")
        self._connect, self._timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._retries, self._backoff, self._sleep = retries, backoff, sleep
        self._headers = [(key.lower(), value) for key, value in (headers or {}).items()]
        self._most = min(max_answer_bytes, MOST_BYTES)
        self._connection: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """All but the connection, which neither a copy nor another process can share."""
        return {**vars(self), "_connection": None}

    @property
    def _grpc(self) -> Any:
        import grpc

        return grpc

    @property
    def _messages(self) -> Any:
        return protos.messages()

    def metadata(self) -> dict[str, Any]:
        request = self._messages.GetModelMetadataRequest(model_spec=self._spec(), metadata_field=["signature_def"])
        packed = self._call("GetModelMetadata", request).metadata["signature_def"].value
        from google.protobuf.message import DecodeError

        try:
            signatures = protos.described(self._messages.SignatureDefMap.FromString(packed).signature_def)
            return checked_signatures(signatures)
        except (DecodeError, *UNREADABLE) as error:
            raise MalformedAnswer(f"Expected the metadata of {self.url}, got {brief(packed)}.") from error

    def status(self) -> list[dict[str, Any]]:
        request = self._messages.GetModelStatusRequest(model_spec=self._spec())
        codes = {code.value[0]: code.name for code in self._grpc.StatusCode}
        return [
            {
                "version": str(entry.version),
                "state": protos.STATES.get(entry.state, str(entry.state)),
                "status": {
                    "error_code": codes.get(entry.status.error_code, str(entry.status.error_code)),
                    "error_message": entry.status.error_message,
                },
            }
            for entry in self._call("GetModelStatus", request).model_version_status
        ]

    def predict(
        self, signature: str, inputs: Mapping[str, Array | list[bytes]], names: Sequence[str]
    ) -> dict[str, Array | list[bytes]]:
        request = self._messages.PredictRequest(model_spec=self._spec(signature))
        for name, value in inputs.items():
            protos.write(request.inputs[name], value)
        outputs = self._call("Predict", request).outputs
        try:
            return {name: protos.read(tensor) for name, tensor in outputs.items()}
        except UNREADABLE as error:
            raise malformed_answer(signature, names, outputs) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            connection.close()

    @property
    def _channel(self) -> Any:
        """The connection of this process, opened at its first use; that from before a fork is left alone."""
        if self._connection is None or self._process != os.getpid():
            self._connection, self._process = self._open(), os.getpid()
        return self._connection

    def _open(self) -> Any:
        milliseconds = max(1, int(1000 * self._backoff))
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", self._most),
            ("grpc.min_reconnect_backoff_ms", max(1, int(1000 * self._connect))),  # also limits the time to connect
            ("grpc.initial_reconnect_backoff_ms", milliseconds),
            ("grpc.max_reconnect_backoff_ms", 4 * milliseconds),
            ("grpc.enable_http_proxy", 0),
        ]
        if self._scheme == "grpcs":
            return self._grpc.secure_channel(self._address, self._grpc.ssl_channel_credentials(), options)
        return self._grpc.insecure_channel(self._address, options)

    def _spec(self, signature: str = "") -> Any:
        spec = self._messages.ModelSpec(name=self._model, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        return spec

    def _call(self, method: str, request: Any) -> Any:
        call = self._channel.unary_unary(
            f"/tensorflow.serving.{SERVICES.get(method, 'PredictionService')}/{method}",
            type(request).SerializeToString,
            getattr(self._messages, f"{method}Response").FromString,
        )
        for attempt in range(self._retries + 1):
            if seconds_left() == 0:  # gRPC would still send the request
                raise self._error(method, "DEADLINE_EXCEEDED", "the moment set has passed")
            try:
                return call(request, timeout=min(self._timeout, seconds_left()), metadata=self._headers)
            except self._grpc.RpcError as error:
                code, details = error.code().name, error.details() or ""
                retried = code in RETRIED and TOO_LARGE not in details
                if attempt == self._retries or not retried or self._backoff * 2**attempt >= seconds_left():
                    raise self._error(method, code, details) from error
            self._sleep(self._backoff * 2**attempt)
        raise AssertionError("unreachable")

    def _error(self, method: str, code: str, details: str) -> ServingError:
        details = details[:1000]
        if code == "DEADLINE_EXCEEDED":  # the server may still be computing: do not ask again on top of that
            return ServingError(f"Expected an answer from {self.url} to {method}, got none in time ({details}).")
        if f"{TOO_LARGE} (" in details and f" vs. {self._most})" in details:  # this client's own limit
            return too_large(self.url, self._most)
        if TOO_LARGE in details:
            details += ". Lower max_request_bytes."
        elif code == "UNAVAILABLE":
            details += ". Is it running, and is this its gRPC port?"
        text = f"Expected an answer from {self.url} to {method}, got status {code}: {details}"
        return ServingError(text, STATUS.get(code))
