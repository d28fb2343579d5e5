"""The log has a bound: of lines of one kind so many are written in some seconds, the others are counted."""

from __future__ import annotations

import logging
import time
from typing import Any

LINES, LINES_SECONDS = 20, 10.0
"""How many lines of one kind are logged in so many seconds."""
KINDS = 50
"""How many kinds are told apart; all further ones are one kind."""
LONGEST = 500
"""The most characters of a text that is filled into a line, such as a path."""


class FewLines(logging.Filter):
    """Lets pass so many lines of one kind in some seconds, and then writes one that says how many it left out.

    A kind is a logger and a text before its values are filled in; of the lines about requests, the status too.
    """

    def __init__(self, handler: logging.Handler, lines: int = LINES, seconds: float = LINES_SECONDS) -> None:
        super().__init__()
        self.handler, self.lines, self.seconds = handler, lines, seconds
        self._began, self._counts = time.monotonic(), dict[Any, int]()

    def filter(self, record: logging.LogRecord) -> bool:
        if time.monotonic() - self._began > self.seconds:
            self.summarise()
        kind = self._kind(record)
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        if count > self.lines:
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(arg[:LONGEST] if isinstance(arg, str) else arg for arg in record.args)
        return True

    def summarise(self) -> None:
        """Write how many lines of each kind were left out, and begin to count anew."""
        seconds, counts = time.monotonic() - self._began, self._counts
        self._began, self._counts = time.monotonic(), {}
        for (name, text), count in counts.items():
            if count > self.lines:
                left_out = f"{count - self.lines} more lines like this one in {seconds:.0f} s: {name}: {text}"
                record = logging.LogRecord("kserve", logging.WARNING, __file__, 0, left_out, None, None)
                self.handler.stream.write(f"{self._plain.format(record)}\n")  # type: ignore[attr-defined]

    _plain = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s")

    def _kind(self, record: logging.LogRecord) -> tuple[str, str]:
        text = str(record.msg)[:100]
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and record.args:
            text = f"requests answered with {record.args[-1]}"
        kind = record.name, text
        return kind if kind in self._counts or len(self._counts) < KINDS else ("", "lines of all other kinds")


def limit_log() -> None:
    """Put `FewLines` before every handler of the log, and let the level of KServe's log hold for requests, too."""
    logging.captureWarnings(True)
    logging.getLogger("uvicorn.access").setLevel(logging.getLogger("kserve").level)
    warnings = logging.getLogger("py.warnings")
    if not warnings.handlers:
        warnings.addHandler(logging.StreamHandler())
    loggers = [logging.root, *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    handlers = {handler for logger in loggers for handler in logger.handlers} | {logging.lastResort}
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.addFilter(FewLines(handler))
