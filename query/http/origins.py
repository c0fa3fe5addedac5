"""Origins: requests that a web page may have sent from the browser of somebody who may reach this service.

Reading by HTTP is stopped by the browser, as no answer allows it (CORS). What a browser does not stop is refused here:
a name of another site that was rebound to this address, a WebSocket, and requests that change something.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from query.http.status import ApiError

ALLOWED_ORIGIN = web.RequestKey("ALLOWED_ORIGIN", bool)
"""Of a request: whether pages of its origin may use the API (`query.http.cors`)."""


def refuse_foreign_hosts(http: web.BaseRequest, hosts: frozenset[str] | None) -> None:
    """Refuses requests that are addressed to another host name than these; None: any is accepted.

    Without authentication this keeps a page that rebinds its name to loopback from reading clusters, as
    `kubectl proxy --accept-hosts` does.

    Raises:
        ApiError: 403.
    """
    if hosts is not None and _host_name(http.host) not in hosts:
        raise ApiError(403, f"requests for host {http.host[:64]!r} are not answered here")


def refuse_foreign_pages(http: web.BaseRequest) -> None:
    """Refuses what a page of another origin sends (RFC 6454): for WebSockets and for whatever is not only read.

    Raises:
        ApiError: 403.
    """
    origin = http.headers.get("Origin")
    if http.get(ALLOWED_ORIGIN):
        return
    if origin is not None and urlsplit(origin).netloc.lower() != http.host.lower():
        raise ApiError(403, f"a page of {origin[:128]!r} may not use this service")


def _host_name(host: str) -> str:
    """A Host header without its port."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
