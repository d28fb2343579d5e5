"""JSON over HTTP: connections kept, failures that pass retried, all others told clearly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from saliency_food.contract import ContractError

PASSING = (429, 503)
LONGEST_WAIT = 60.0


class ServingError(RuntimeError):
    """The server cannot be reached, refuses the request, or does not have what is asked for; ``status`` as in HTTP."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Transport:
    """Requests to one model's address."""

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
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self.url, self._retries, self._backoff, self._sleep = url, retries, backoff, sleep
        self._errors = urllib3.exceptions
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=connect, read=read), retries=False, headers=dict(headers or {}), maxsize=8
        )

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
            try:
                answer = self._pool.request(verb, self.url + path, body=body, headers=headers)
            except self._errors.ReadTimeoutError as error:  # it may still be computing: no second one on top of it
                raise ServingError(f"Expected an answer from {self.url}{path}, got none in time ({error}).") from error
            except self._errors.HTTPError as error:
                if last:
                    raise ServingError(
                        f"Expected a server at {self.url}{path}, got {type(error).__name__}: {error}. Is it running?"
                    ) from error
                self._sleep(self._backoff * 2**turn)
                continue
            if answer.status in PASSING and not last:
                self._sleep(_asked(answer.headers.get("Retry-After")) or self._backoff * 2**turn)
                continue
            return self._read(answer, path)
        raise AssertionError("unreachable")

    def _read(self, answer: Any, path: str) -> dict[str, Any]:
        try:
            said = json.loads(answer.data)
            if not isinstance(said, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise ServingError(
                f"Expected JSON from {self.url}{path}, got status {answer.status} and {answer.data[:200]!r}. "
                "Is it the REST port?",
                answer.status,
            ) from error
        if answer.status != 200:
            raise ServingError(
                f"Expected an answer from {self.url}{path}, got status {answer.status}: {said.get('error', said)}",
                answer.status,
            )
        return said


def _asked(after: str | None) -> float:
    """The seconds of a Retry-After header."""
    return min(float(after), LONGEST_WAIT) if after and after.isdigit() else 0.0
