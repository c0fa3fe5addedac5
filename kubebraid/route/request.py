"""A request to the router: who sent it from where, and instances' answers as its own."""

from __future__ import annotations

from aiohttp import web

from kubebraid.route.callers import ProxiedCaller
from kubebraid.route.documents import InstanceAnswer
from query.http.request import Request, client_address


class RoutedRequest(Request):
    """A request to the router. `caller`: who sent it, once that is known."""

    def __init__(self, http: web.Request) -> None:
        super().__init__(http)
        self.caller = ProxiedCaller((), False, b"")

    @property
    def place(self) -> str:
        """The address of its client: whoever keeps a connection gets its answers from the same instances."""
        peer = self.http.transport.get_extra_info("peername") if self.http.transport is not None else None
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""

    @property
    def forwarded(self) -> list[tuple[str, str]]:
        """Headers that say where it came from: for the commands that refusals name, and for audit."""
        scheme, host = client_address(self.http)
        way = [*self.http.headers.getall("X-Forwarded-For", ()), *([self.http.remote] if self.http.remote else [])]
        said = [("X-Forwarded-For", ", ".join(way))] if way else []
        return [*said, ("X-Forwarded-Proto", scheme), ("X-Forwarded-Host", host)]

    def relayed(self, said: InstanceAnswer) -> web.Response:
        """An instance's answer, as it is."""
        if not said.content_type.startswith("application/json"):
            return web.Response(status=said.status, body=said.body, headers={"Content-Type": said.content_type})
        return self.answer(said.body, status=said.status)
