"""The application: all requests go to one handler, whatever their path and method; what aiohttp refuses is a Status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from query.http.status import ApiError

# The largest body that is read, in bytes; a kube-apiserver takes 3 MB.
_BODY = 64 * 1024 * 1024


def single_handler_application(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
    """An aiohttp application that has nothing but this handler."""

    @web.middleware
    async def every_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        # `OPTIONS *` is no path that a route could match.
        return await handle(request)

    application = web.Application(client_max_size=_BODY, middlewares=[every_request])
    # `.` would not match the line feed of an encoded path.
    application.router.add_route("*", r"/{path:[\s\S]*}", handle, expect_handler=_expected)
    application.on_response_prepare.append(_not_cached)
    return application


async def _not_cached(_: web.Request, response: web.StreamResponse) -> None:
    """What says nothing of caching may not be cached (k8s.io/apiserver pkg/endpoints/filters/cachecontrol.go)."""
    response.headers.setdefault("Cache-Control", "no-cache, private")


async def _expected(http: web.Request) -> web.StreamResponse | None:
    """What the Expect header wants before the body is sent (RFC 9110, 10.1.1)."""
    expect = http.headers.get("Expect", "")
    if expect.lower() != "100-continue":
        error = ApiError(417, f"nothing is known of Expect: {expect[:64]!r}")
        return web.Response(body=error.body(), status=error.code, content_type="application/json")
    if http.version >= (1, 1):
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Of the answer, whose head has not begun.
        http.writer.output_size = 0
    return None


def as_api_error(problem: web.HTTPException) -> ApiError:
    """What aiohttp refuses by itself, such as a WebSocket's handshake, as a Status."""
    return ApiError(problem.status, " ".join((problem.text or problem.reason).split()))
