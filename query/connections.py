"""Connections: what a client sends that is no HTTP is answered with a Status, too.

aiohttp answers requests that it cannot parse by itself, with a line of text; API clients expect a Status.
"""

from __future__ import annotations

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from query.status import ApiError

log = structlog.get_logger("query.connections")


class _Handler(RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed, or to a failure outside of the service's own handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        if isinstance(exc, ConnectionError):
            # Nobody is left to be told.
            error = ApiError(status, "the connection was lost")
        elif status == 500:
            log.error("request failed", exc_info=exc)
            error = ApiError(500, "kubebraid failed on this request; its log has the reason")
        else:
            text = " ".join((message or "").split())[:256] or type(exc).__name__
            log.debug("not HTTP", reason=text)
            error = ApiError(status, f"this is no HTTP request: {text}")
        response = web.Response(status=status, body=error.body(), content_type="application/json")
        response.force_close()
        return response


class _Server(Server):
    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application whose every answer is one that API clients can read."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)
