"""Event streams: the answer to a WATCH, as lines of a chunked body or as messages of a WebSocket.

k8s.io/apiserver pkg/endpoints/handlers/watch.go: WatchServer.HandleHTTP and HandleWS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web

from query.http.origins import refuse_foreign_pages
from query.http.rendering import JSON
from query.http.request import Request
from query.http.websocket import Send, converse, is_websocket


async def send_events(request: Request, serve: Callable[[Send], Awaitable[None]]) -> web.StreamResponse:
    """Answers with what `serve` sends, in the way that the client asks for, until `serve` returns or the client goes.

    `serve` gets a function that sends lines and waits while the client takes no more; that is all the back-pressure
    there is. It raises ConnectionError when the client is gone.

    Raises:
        ApiError: 403, a WebSocket for a page of another site.
    """
    http = request.http
    if is_websocket(http):
        refuse_foreign_pages(http)
        request.begin()
        return await converse(http, request.warning_headers(), serve)
    response = web.StreamResponse()
    response.content_type = JSON
    for name, value in request.warning_headers():
        response.headers.add(name, value)
    if http.version >= HttpVersion11:
        # To an HTTP/1.0 client the end of the connection is the end of the stream.
        response.enable_chunked_encoding()
    request.begin()
    await response.prepare(http)
    try:
        await serve(response.write)
    except ConnectionError:
        return response
    await response.write_eof()
    return response
