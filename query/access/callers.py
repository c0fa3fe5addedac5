"""Callers: who sent a request, from its connection and headers, and as whom it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import unquote

from aiohttp import web

from query.access.authentication.authenticator import Authentication, RequestCredentials
from query.access.authentication.impersonation import Decide, Impersonation, wanted_user
from query.access.authorization.attributes import Attributes, attributes_of
from query.access.gate import Caller


class Callers:
    """Finds out who sent requests: the whole of authentication and impersonation.

    `peer_chain`: the certificates that a request's client has shown (DER), its own first. `decide`: whether a user may
    impersonate another one.
    """

    def __init__(
        self,
        authentication: Authentication,
        decide: Decide,
        peer_chain: Callable[[web.Request], Sequence[bytes]] = lambda _: (),
    ) -> None:
        self._authentication = authentication
        self._impersonation = Impersonation(decide)
        self._peer_chain = peer_chain

    async def caller(self, http: web.Request, cluster: str | None) -> Caller:
        """Who sent a request; `cluster`: the one that its path names, None for all.

        Raises:
            ApiError: 400, headers that cannot be; 401, nobody that is known; 403, may not impersonate whom it names.
        """
        path = unquote(http.rel_url.raw_path, errors="replace")
        presented = RequestCredentials(http.headers, self._peer_chain(http), path)
        who = await self._authentication.who(presented)
        wanted = wanted_user(http.headers)
        warnings = tuple(presented.warnings)
        if wanted is None:
            return Caller(who, warnings=warnings)
        found = await self._impersonation.who(who, wanted, cluster, _attributes(http, path, cluster))
        return Caller(found.who, who, warnings)


def _attributes(http: web.Request, path: str, cluster: str | None) -> Attributes:
    """What a request does, in the scope that its path names. Raises ApiError 404."""
    within = path.strip("/")
    if within == "int" or within.startswith("int/"):
        within = within.removeprefix("int").lstrip("/")
    if cluster is not None:
        within = within.removeprefix("clusters/").removeprefix(cluster).lstrip("/")
    return attributes_of(http.method, within.split("/"), http.query, trailing_slash=path.endswith("/"))
