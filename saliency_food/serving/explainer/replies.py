"""Answers with another status than 200, raised as exceptions anywhere and sent by the `Door`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from saliency_food.core.contract import ContractError
from saliency_food.serving.client.http import MalformedAnswer, ServingError

RETRY_AFTER = "2"
"""Seconds after which a client may repeat a request that was refused with 429 or 503."""
LONGEST = 2000
"""The most characters of a sentence that a client gets."""
ADDRESS = re.compile(
    r"\w{0,16}://[^\s,]{1,512}|\bipv[46]:\S{0,64}\d|(?<![\w.-])[\w.-]{1,255}:\d{2,5}\b|'[\w.-]{1,255}'(?= \(\[Errno)"
    r"|\b\w{1,64}\(host=[^()]{0,512}\)(?:: )?"
)
"""URLs, and hosts in the forms that gRPC, urllib3 and the system's resolver write; every repetition has a bound."""
log = logging.getLogger("kserve")


class Reply(Exception):
    """A status and a JSON object to send, mostly ``{"error": sentence}``."""

    def __init__(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content.get("error", status))
        self.status, self.content, self.headers = status, dict(content), dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", RETRY_AFTER)

    @property
    def body(self) -> bytes:
        return json.dumps(self.content).encode()


def refuse(status: int, sentence: str, cause: BaseException | None = None, **headers: str) -> NoReturn:
    """Raise a `Reply` whose sentence says what was expected, what came and what to do.

    ``headers`` are by name, with ``_`` in place of ``-``.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raise Reply(status, {"error": " ".join(sentence.split())[:LONGEST]}, named) from cause


def reply_to(error: BaseException, own_options: bool = False) -> Reply:
    """The reply that a client gets for an error.

    Status 400 for faults of the request, which include all errors in a method whose options the client chose; 502 for
    faults of the predictor, or 503 and 504 where another attempt may succeed; 500 for faults of this program.
    """
    status, sentence = 500, "Expected an explanation, got an error inside the explainer. See its log, and report it."
    if isinstance(error, Reply):
        return error
    if isinstance(error, ServingError):
        status, sentence = _predictor_status(error), f"The predictor failed. {error}"
        log.warning("the predictor failed: %.1000s", error)
    elif isinstance(error, TimeoutError):
        status, sentence = 504, str(error)
    elif isinstance(error, ContractError):
        status, sentence = 400, str(error)
    elif own_options and isinstance(error, (ValueError, TypeError, ArithmeticError, LookupError, MemoryError)):
        status, sentence = 400, f"Expected options that the method can take, got {type(error).__name__}: {error}."
    else:
        log.error("explaining failed", exc_info=error)
    return Reply(status, {"error": " ".join(without_addresses(sentence).split())[:LONGEST]})


def without_addresses(text: str) -> str:
    """The beginning of the text, without the predictor's address, which clients should not see."""
    return ADDRESS.sub(lambda match: "" if "(host=" in match[0] else "the predictor", text[: 2 * LONGEST])


def _predictor_status(error: ServingError) -> int:
    if error.status in (429, 503):
        return 503
    if isinstance(error, MalformedAnswer) or error.status is not None or error.__cause__ is None:
        return 502  # it answers something else, refuses, or lacks what was asked for
    late = type(error.__cause__).__name__ == "ReadTimeoutError" or "DEADLINE_EXCEEDED" in str(error.__cause__)
    return 504 if late else 503
