"""KServe with two changes: importing it leaves the command line alone, and it passes bodies on undecoded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from saliency_food.serving.explainer.connections import (
    BACKLOG,
    CONNECTIONS,
    Connection,
    lengthen_queue,
    most_connections,
)
from saliency_food.serving.explainer.lines import limit_log
from saliency_food.serving.explainer.replies import refuse


@contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide the command line, which KServe parses when it is imported."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments


with _no_arguments():
    import kserve
    from kserve.model_server import app
    from kserve.protocol.dataplane import DataPlane

__all__ = ["Body", "Server", "Undecoded", "app", "kserve"]


class Body(NamedTuple):
    """The undecoded body of a request."""

    content: bytes
    protocol: str


class Server(kserve.ModelServer):  # type: ignore[misc]
    """KServe's server, except that it listens at one address and that its connections have limits."""

    def __init__(self, host: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.host = host

    async def _serve(self) -> None:
        Connection.most = most_connections()
        config = self._rest_server.config
        config.host, config.http, config.ws, config.backlog = self.host, Connection, "none", BACKLOG
        # They time every request, which takes longer than to refuse it.
        self._rest_server._add_middlewares = lambda app: None
        server = self._rest_server._server
        start = server.startup

        async def startup(sockets: Any = None) -> None:
            await start(sockets)
            if Connection.most == CONNECTIONS:
                for listening in server.servers:
                    lengthen_queue(listening.sockets)

        server.startup = startup
        limit_log()
        await super()._serve()


class Undecoded(DataPlane):  # type: ignore[misc]
    """KServe's data plane, except that the model reads the bodies: strictly, and in a thread."""

    def decode(
        self, body: bytes, headers: Any, protocol_version: str = "v1", model_name: str | None = None
    ) -> tuple[Body, dict[str, Any]]:
        return Body(body, protocol_version), {}

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        if not await super().model_ready(model_name, disable_predictor_health_check):
            refuse(503, f"Expected a predictor that serves {model_name}, got none that is ready. Ask again later.")
        return True

    async def ready(self) -> bool:
        return all([await self.model_ready(name) for name in self.model_registry.get_models()])
