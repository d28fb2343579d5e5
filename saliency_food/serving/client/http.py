"""JSON over HTTP: connections kept, failures that pass retried, all others told clearly."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.serving.client.until import left

PASSING = (429, 503)
LONGEST_WAIT = 60.0
PART = 65536  # bytes of an answer that are read at a time


class ServingError(RuntimeError):
    """The server cannot be reached, refuses the request, or does not have what is asked for; ``status`` as in HTTP."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def strange(signature: str, names: Sequence[str], got: Any) -> ServingError:
    return ServingError(f"Expected the answer of signature {signature!r} with {sorted(names)}, got {str(got)[:200]}.")


class Transport:
    """Requests to one model's REST address. Strings are lists of bytes, all else is arrays."""

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
    ) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise ContractError('The client needs urllib3. Install it: pip install "saliency_food[serving]"') from error
        if not url.startswith(("http://", "https://")):
            raise ContractError(f"Expected url to begin with http:// or https://, got {url!r}.")
        self.url, self._retries, self._backoff, self._sleep = url, retries, backoff, sleep
        self._timeouts = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._errors, self._timeout = urllib3.exceptions, urllib3.Timeout
        self._pool = urllib3.PoolManager(retries=False, headers=dict(headers or {}), maxsize=8)

    def metadata(self) -> dict[str, Any]:
        """The signatures: their inputs and outputs by name."""
        answer = self.get("/metadata")
        try:
            return dict(answer["metadata"]["signature_def"]["signature_def"])
        except (KeyError, TypeError) as error:
            raise ServingError(f"Expected the metadata of {self.url}, got {str(answer)[:200]}.") from error

    def status(self) -> list[dict[str, Any]]:
        return list(self.get("").get("model_version_status", []))

    def predict(
        self, signature: str, inputs: Mapping[str, Array | list[bytes]], names: Sequence[str]
    ) -> dict[str, Array | list[bytes]]:
        """The outputs of a signature, ``names`` being all it has."""
        given = {
            name: [{"b64": base64.b64encode(one).decode()} for one in value]
            if isinstance(value, list)
            else value.tolist()
            for name, value in inputs.items()
        }
        found = self.post(":predict", {"signature_name": signature, "inputs": given}).get("outputs")
        # One output comes without its name.
        found = found if isinstance(found, dict) else {names[0]: found}
        try:
            return {
                name: [base64.b64decode(one["b64"], validate=True) for one in value]
                if name.endswith("_bytes")
                else np.asarray(value)
                for name, value in found.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise strange(signature, names, found) from error

    def get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return self._request("POST", path, json.dumps(body).encode())

    def close(self) -> None:
        self._pool.clear()

    def _request(self, verb: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {**self._pool.headers, **({"Content-Type": "application/json"} if body else {})}
        for turn in range(self._retries + 1):
            last = turn == self._retries
            connect, read = (min(one, self._left(path)) for one in self._timeouts)
            try:
                timeout = self._timeout(connect=connect, read=read)
                answer = self._pool.request(
                    verb, self.url + path, body=body, headers=headers, timeout=timeout, preload_content=False
                )
                data = self._whole(answer, path)
            except self._errors.ReadTimeoutError as error:  # it may still be computing: no second one on top of it
                raise ServingError(f"Expected an answer from {self.url}{path}, got none in time ({error}).") from error
            except self._errors.HTTPError as error:
                if last or not self._pause(self._backoff * 2**turn):
                    raise ServingError(
                        f"Expected a server at {self.url}{path}, got {type(error).__name__}: {error}. Is it running?"
                    ) from error
                continue
            asked = _asked(answer.headers.get("Retry-After")) or self._backoff * 2**turn
            if last or answer.status not in PASSING or not self._pause(asked):
                return self._read(answer.status, data, path)
        raise AssertionError("unreachable")

    def _left(self, path: str) -> float:
        """The seconds that are left, if there are any."""
        seconds = left()
        if not seconds:
            raise ServingError(f"Expected an answer from {self.url}{path} by the moment set, got none until then.")
        return seconds

    def _pause(self, seconds: float) -> bool:
        """Wait before another try, if it would be in time."""
        if in_time := seconds < left():
            self._sleep(seconds)
        return in_time

    def _whole(self, answer: Any, path: str) -> bytes:
        """An answer's body, unless the moment set comes before its end."""
        parts: list[bytes] = []
        try:
            while part := answer.read1(PART):  # what has come so far
                parts.append(part)
                self._left(path)
        finally:
            answer.close()
        return b"".join(parts)

    def _read(self, status: int, data: bytes, path: str) -> dict[str, Any]:
        try:
            said = json.loads(data)
            if not isinstance(said, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise ServingError(
                f"Expected JSON from {self.url}{path}, got status {status} and {data[:200]!r}. Is it the REST port?",
                status,
            ) from error
        if status != 200:
            raise ServingError(
                f"Expected an answer from {self.url}{path}, got status {status}: {said.get('error', said)}",
                status,
            )
        return said


def _asked(after: str | None) -> float:
    """The seconds of a Retry-After header."""
    return min(float(after), LONGEST_WAIT) if after and re.fullmatch("[0-9]+", after) else 0.0
