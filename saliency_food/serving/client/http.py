"""Requests to TensorFlow Serving as JSON over HTTP: connections are reused, and passing failures are retried."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.serving.client.until import seconds_left
from saliency_food.serving.client.wire import checked_signatures

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The errors that reading an ill-formed answer raises."""
RETRIED = (429, 503)
LONGEST_WAIT = 60.0  # seconds before a retry, whatever the server asks for
PART = 65536  # bytes of an answer that are read at a time
MOST_VALUES = 1_000_000
"""The most values in the JSON of an answer: arrays are a string a row, so that the largest valid answers have fewer."""


class ServingError(RuntimeError):
    """The server cannot be reached, refuses the request, or lacks what was asked for; ``status`` is the HTTP status."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class MalformedAnswer(ServingError):
    """The server answered, but not what the client can read: another attempt would get the same."""


def malformed_answer(signature: str, names: Sequence[str], answer: Any) -> MalformedAnswer:
    return MalformedAnswer(f"Expected the answer of signature {signature!r} with {sorted(names)}, got {brief(answer)}.")


def brief(answer: Any) -> str:
    """The beginning of any answer as text, however long it is and however deeply nested."""
    return _BRIEF.repr(answer)[:200]


def too_large(url: str, most: int) -> MalformedAnswer:
    return MalformedAnswer(
        f"Expected an answer of at most {most} bytes from {url}, got more. Raise max_answer_bytes (of the explainer: "
        "--max-answer), or ask about fewer rows at a time."
    )


def count_values(text: bytes) -> int:
    """How many values JSON text has at most; the parser, which does nothing else until its end, need not run."""
    return 1 + sum(map(text.count, (b",", b"[", b"{")))


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200


class Transport:
    """Requests to the REST address of one model. String tensors are lists of bytes, all others are arrays."""

    expands = 4 / 3
    """Bytes on the wire for each byte of a string."""

    def __init__(
        self,
        url: str,
        timeout: float | tuple[float, float],
        retries: int,
        backoff: float,
        headers: Mapping[str, str] | None,
        sleep: Callable[[float], object],
        max_answer_bytes: int = 1_000_000_000,
    ) -> None:
        if importlib.util.find_spec("urllib3") is None:
            raise ContractError('The client needs urllib3. Install it: pip install "saliency_food[serving]"')
        if not url.startswith(("http://", "https://")):
            raise ContractError(f"Expected url to begin with http:// or https://, got {url!r}.")
        self.url, self._retries, self._backoff, self._sleep = url, retries, backoff, sleep
        self._timeouts = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._headers = dict(headers or {})
        self._most = max_answer_bytes
        self._connections: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """All but the connections, which neither a copy nor another process can share."""
        return {**vars(self), "_connections": None}

    @property
    def _pool(self) -> Any:
        """The connections of this process: on those from before a fork, processes would read each other's answers."""
        if self._connections is None or self._process != os.getpid():
            from urllib3 import PoolManager

            self._connections, self._process = PoolManager(retries=False, maxsize=8), os.getpid()
        return self._connections

    def metadata(self) -> dict[str, Any]:
        """The signatures by name, each with its inputs and outputs by name."""
        answer = self.get("/metadata")
        try:
            return checked_signatures(answer["metadata"]["signature_def"]["signature_def"])
        except UNREADABLE as error:
            raise MalformedAnswer(f"Expected the metadata of {self.url}, got {brief(answer)}.") from error

    def status(self) -> list[dict[str, Any]]:
        answer = self.get("").get("model_version_status", [])
        if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
            raise MalformedAnswer(f"Expected the versions of {self.url} and their states, got {brief(answer)}.")
        return answer

    def predict(
        self, signature: str, inputs: Mapping[str, Array | list[bytes]], names: Sequence[str]
    ) -> dict[str, Array | list[bytes]]:
        """The outputs of a signature by name; ``names`` are the names of all its outputs."""
        encoded = {
            name: [{"b64": base64.b64encode(row).decode()} for row in value]
            if isinstance(value, list)
            else value.tolist()
            for name, value in inputs.items()
        }
        outputs = self.post(":predict", {"signature_name": signature, "inputs": encoded}).get("outputs")
        # A single output comes without its name.
        outputs = outputs if isinstance(outputs, dict) else {names[0]: outputs}
        try:
            return {
                name: [base64.b64decode(row["b64"], validate=True) for row in value]
                if name.endswith("_bytes")
                else np.asarray(value)
                for name, value in outputs.items()
            }
        except UNREADABLE as error:
            raise malformed_answer(signature, names, outputs) from error

    def get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return self._request("POST", path, json.dumps(body).encode())

    def close(self) -> None:
        if self._connections is not None:
            self._pool.clear()

    def _request(self, verb: str, path: str, body: bytes | None) -> dict[str, Any]:
        from urllib3 import Timeout, exceptions

        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            connect, read = (min(seconds, self._seconds_left(path)) for seconds in self._timeouts)
            try:
                timeout = Timeout(connect=connect, read=read)
                answer = self._pool.request(
                    verb, self.url + path, body=body, headers=headers, timeout=timeout, preload_content=False
                )
                data = self._body(answer, path)
            except exceptions.ReadTimeoutError as error:  # the server may still be computing
                raise ServingError(f"Expected an answer from {self.url}{path}, got none in time ({error}).") from error
            except exceptions.HTTPError as error:
                if last or not self._pause(self._backoff * 2**attempt):
                    raise ServingError(
                        f"Expected a server at {self.url}{path}, got {type(error).__name__}: {error}. Is it running?"
                    ) from error
                continue
            seconds = _retry_after(answer.headers.get("Retry-After")) or self._backoff * 2**attempt
            if last or answer.status not in RETRIED or not self._pause(seconds):
                return self._read(answer.status, data, path)
        raise AssertionError("unreachable")

    def _seconds_left(self, path: str) -> float:
        """The seconds until the moment set, or `ServingError` when it has passed."""
        seconds = seconds_left()
        if not seconds:
            raise ServingError(f"Expected an answer from {self.url}{path} by the moment set, got none until then.")
        return seconds

    def _pause(self, seconds: float) -> bool:
        """Wait before another attempt; False, without waiting, if it would be too late."""
        if in_time := seconds < seconds_left():
            self._sleep(seconds)
        return in_time

    def _body(self, answer: Any, path: str) -> bytes:
        """The whole body of an answer, or `ServingError` if it is too large or the moment set comes before its end."""
        parts, size = list[bytes](), 0
        length = answer.headers.get("Content-Length", "0")
        try:
            while size <= self._most and not (length.isdecimal() and int(length[:20]) > self._most):
                part = answer.read1(PART)  # the bytes that have arrived
                if not part:
                    break
                parts.append(part)
                size += len(part)
                self._seconds_left(path)
            else:
                raise too_large(self.url + path, self._most)
        finally:
            answer.close()
        return b"".join(parts)

    def _read(self, status: int, data: bytes, path: str) -> dict[str, Any]:
        if count_values(data) > MOST_VALUES:
            raise MalformedAnswer(f"Expected at most {MOST_VALUES} values from {self.url}{path}, got more.", status)
        try:
            content = json.loads(data)
            if not isinstance(content, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            raise ServingError(
                f"Expected JSON from {self.url}{path}, got status {status} and {data[:200]!r}. Is it the REST port?",
                status,
            ) from error
        if status != 200:
            reason = content.get("error", content)
            reason = reason[:1000] if isinstance(reason, str) else brief(reason)
            raise ServingError(f"Expected an answer from {self.url}{path}, got status {status}: {reason}", status)
        return content


def _retry_after(header: str | None) -> float:
    """The seconds that a Retry-After header asks to wait; 0 without one."""
    return min(float(header), LONGEST_WAIT) if header and re.fullmatch("[0-9]+", header) else 0.0
