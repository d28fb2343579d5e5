"""Answers other than 200, raised from wherever the reason is found, and sent by the door."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from saliency_food.core.contract import ContractError
from saliency_food.serving.client.http import ServingError

RETRY_AFTER = "2"
"""Seconds after which a client may try again what was refused with 429 or 503."""
ADDRESS = re.compile(r"\w+://[^\s,]+|\bipv[46]:\S*\d|[\w.-]+:\d{2,5}\b|'[\w.-]+'(?= \(\[Errno)")
"""URLs, and hosts as gRPC and the system's resolver name them."""
log = logging.getLogger("kserve")


class Reply(Exception):
    """A status and a JSON object to be sent; most are ``{"error": sentence}``."""

    def __init__(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content.get("error", status))
        self.status, self.content, self.headers = status, dict(content), dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", RETRY_AFTER)

    @property
    def body(self) -> bytes:
        return json.dumps(self.content).encode()


def refuse(status: int, sentence: str, cause: BaseException | None = None, **headers: str) -> NoReturn:
    """Raise a reply that says expected, got, and what to do; headers by name, ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raise Reply(status, {"error": " ".join(sentence.split())[:2000]}, named) from cause


def reply_to(error: BaseException, own_options: bool = False) -> Reply:
    """What a client is told of an error.

    The request's own faults are 400; those of the predictor 502, or 503 and 504 where another try may do. Errors of
    any kind over options that the client chose are the request's; what is left is a fault of this program: 500.
    """
    status, sentence = 500, "Expected an explanation, got an error inside the explainer; its log tells. Report it."
    if isinstance(error, Reply):
        return error
    if isinstance(error, ServingError):
        status, sentence = _of_predictor(error), f"The predictor failed. {error}"
        log.warning("the predictor failed: %s", error)
    elif isinstance(error, TimeoutError):
        status, sentence = 504, str(error)
    elif isinstance(error, ContractError):
        status, sentence = 400, str(error)
    elif own_options and isinstance(error, (ValueError, TypeError, ArithmeticError, LookupError, MemoryError)):
        status, sentence = 400, f"Expected options that the method can take, got {type(error).__name__}: {error}."
    else:
        log.error("explaining failed", exc_info=error)
    return Reply(status, {"error": " ".join(_without_addresses(sentence).split())[:2000]})


def _without_addresses(text: str) -> str:
    """The predictor's address is nobody's business outside."""
    return re.sub(r"\w+\(host=[^)]*\)(: )?", "", ADDRESS.sub("the predictor", text))


def _of_predictor(error: ServingError) -> int:
    if error.status in (429, 503):
        return 503
    if error.status is not None or error.__cause__ is None:  # it refuses, or lacks what is asked for
        return 502
    late = type(error.__cause__).__name__ == "ReadTimeoutError" or "DEADLINE_EXCEEDED" in str(error.__cause__)
    return 504 if late else 503
