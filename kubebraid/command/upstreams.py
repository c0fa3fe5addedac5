"""The API servers of clusters as the query service reaches them: by the members' kubeconfigs, as whom is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

import structlog
from multidict import MultiMapping

from kubebraid.command.settings import Forward
from producers.members.membership import Member, Members
from producers.supervision import Complaints, reason_of
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, Unreachable, Way
from producers.upstream.exchange import NotConnected, Response, TransportError
from query.access.authorization.names import ACCOUNT_OF
from query.forward.forwarding import NoUpstream
from query.http.passthrough import BrokenAnswer, NoAnswer, Upstream, UpstreamAnswer, UpstreamUnreachable
from query.http.tunnels import BrokenTunnel
from query.identity import AUTHENTICATED, Identity
from query.timing import QueryTiming

# A client waits for these requests.
_TIMING = ProducerTiming(connect=QueryTiming().forward_connect)


class _Answer:
    """An answer as it comes from a member cluster."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status: int = response.status
        self.reason: str | None = response.reason
        self.headers: MultiMapping[str] = response.headers

    async def next_chunk(self) -> bytes:
        try:
            return await self._response.next_chunk()
        except TransportError as cause:
            raise BrokenAnswer(str(cause)) from None


class _Way:
    """The way to a member cluster that producers take, too: the same connection, TLS and proxy."""

    def __init__(self, way: Way) -> None:
        self._way = way

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes | AsyncIterator[bytes] | None
    ) -> AsyncIterator[UpstreamAnswer]:
        try:
            request = self._way.transport.request(method, path, headers, body, decompress=False)
            response = await request.__aenter__()
        except NotConnected as cause:
            raise UpstreamUnreachable(str(cause)) from None
        except TransportError as cause:
            raise NoAnswer(str(cause)) from None
        try:
            if response.status == 401:
                await self._way.refused()
            yield _Answer(response)
        finally:
            await request.__aexit__()

    async def connect(self, protocol: asyncio.Protocol) -> None:
        try:
            await self._way.transport.connect(protocol)
        except TransportError as cause:
            raise BrokenTunnel(f"cannot be reached: {cause}") from None


log = structlog.get_logger("kubebraid")


def impersonating(who: Identity) -> list[tuple[str, str]]:
    """Headers by which we ask in another user's name, whose own rights then count.

    Kubernetes "User impersonation". The group of all who are authenticated is given to them there without being named.
    Of which cluster a service account is, is told to no member: it would need a right of its own for that.
    """
    headers = [("Impersonate-User", who.name)]
    if who.uid:
        headers.append(("Impersonate-Uid", who.uid))
    headers += [("Impersonate-Group", group) for group in who.groups if group != AUTHENTICATED]
    headers += [
        (f"Impersonate-Extra-{quote(key, safe='')}", value)
        for key, values in who.extra
        if key != ACCOUNT_OF
        for value in values
    ]
    return headers


class MemberServers:
    """Upstreams of all members. With `forward` CALLER only the way there is ours: the caller shows who it is.

    `known_as`: as whom a cluster knows a user, by the cluster's name.
    """

    def __init__(
        self,
        members: Members,
        forward: Forward,
        timing: ProducerTiming = _TIMING,
        known_as: Callable[[str, Identity], Identity] = lambda _, who: who,
    ) -> None:
        self._known_as = known_as
        self._members = members
        self._forward = forward
        self._timing = timing
        self._servers: dict[str, ApiServer] = {}
        # What is wrong with clusters that nothing expects.
        self._complaints: dict[str, Complaints] = {}

    async def aclose(self) -> None:
        """Ends the connections to all API servers."""
        for name, server in self._servers.items():
            try:
                await server.close()
            except Exception as cause:  # noqa: BLE001 - supervised
                log.warning("a connection could not be closed", cluster=name, reason=reason_of(cause))
        self._servers.clear()

    def has(self, cluster: str) -> bool:
        """Whether requests for a cluster can be passed on."""
        return cluster in self._members.current

    @property
    def as_caller(self) -> bool:
        """Whether a cluster is shown who asks, and decides about that, not about us."""
        return self._forward in (Forward.CALLER, Forward.IMPERSONATE)

    @asynccontextmanager
    async def using(self, cluster: str, who: Identity) -> AsyncIterator[Upstream]:
        """A cluster's API server, with a connection that stays while the block lasts. Raises NoUpstream."""
        member = self._members.current.get(cluster)
        if member is None:
            if (gone := self._servers.pop(cluster, None)) is not None:
                await gone.close()
            raise NoUpstream("it is none of the clusters that this instance was given")
        async with AsyncExitStack() as stack:
            try:
                server = await self._server(cluster, member)
                way = await stack.enter_async_context(server.way(identified=self._forward is not Forward.CALLER))
            except Unreachable as problem:
                raise NoUpstream(str(problem)) from None
            except Exception as cause:  # noqa: BLE001 - supervised
                # One cluster's credentials, whatever they lead to, are that cluster's requests' alone.
                complain = self._complaints.setdefault(
                    cluster, Complaints(log, "requests cannot be passed on", cluster=cluster)
                )
                raise NoUpstream(complain(cause)) from None
            self._complaints.pop(cluster, None)
            identity = way.identity
            if self._forward is Forward.IMPERSONATE:
                identity = [*(identity or ()), *impersonating(self._known_as(cluster, who))]
            yield Upstream(server.host, identity, _Way(way))

    async def _server(self, cluster: str, member: Member) -> ApiServer:
        server = self._servers.get(cluster)
        if server is None:
            server = self._servers[cluster] = ApiServer(member.access, self._timing)
        else:
            await server.change(member.access)
        return server
