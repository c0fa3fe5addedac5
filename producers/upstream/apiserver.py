"""A member cluster's API server: requests with credentials that are renewed, streams of bytes, Kubernetes' errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import structlog

from deltalog.wire.delta import UNDECODABLE
from producers.credentials.choosing import credential_for
from producers.credentials.credential import BadCredentials, Credential, Presented
from producers.errors import ClusterUnavailable
from producers.flag import Flag
from producers.kubeconfig.entries import Cluster, User
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.threads import share_of
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.authority import Authority
from producers.upstream.deadlines import Deadlines
from producers.upstream.exchange import Response, TransportError
from producers.upstream.proxies import Proxy, proxy_for
from producers.upstream.server_url import ServerUrl, parse_server
from producers.upstream.sharing import SharedByServers
from producers.upstream.tls import TlsSettings
from producers.upstream.transport import ConnectionTiming, Transport

log = structlog.get_logger("producers.upstream.apiserver")

# Bytes of an answer that is read as a whole. Of a server that sends without end no more than this is held.
LARGEST_ANSWER = 64 * 1024 * 1024
# Characters of what a server says that messages have; those of a secret that is struck out of it, at least.
_LONGEST = 300
_SHORTEST_SECRET = 4


class Unreachable(ClusterUnavailable):
    """The API server cannot be reached, or broke off."""


class RequestRefused(ClusterUnavailable):
    """The API server answered with an error. `retry_after` in seconds, from its header (429, 503)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        # In one line and no more of it than a line has room for, whatever the server says.
        super().__init__(f"{code} {one_line(message or reason)}")
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @property
    def expired(self) -> bool:
        """410: the version is too old; only a new list helps."""
        return self.code == 410 or self.reason in ("Expired", "Gone")


def one_line(text: str) -> str:
    """What a server says, as a line of ours has it: at most 300 characters, none of which moves a cursor."""
    text = " ".join(text[:1000].split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def struck_out(text: str, identity: Sequence[tuple[str, str]]) -> str:
    """A server's text without the credentials that it was shown: some answer with what they were asked."""
    for name, value in identity:
        if name.lower() == "authorization":
            kind, _, secret = value.partition(" ")
            secrets = [secret]
            if kind == "Basic":
                with contextlib.suppress(ValueError):
                    both = base64.b64decode(secret).decode(errors="replace")
                    secrets += [both, both.partition(":")[2]]
            for one in secrets:
                if len(one) >= _SHORTEST_SECRET:
                    text = text.replace(one, "***")
    return text


class BadAnswer(ClusterUnavailable):
    """The API server answered with something else than what was asked for."""


class TooLarge(BadAnswer):
    """The API server's answer is larger than any that is of use. `beginning`: what was read of it, if it is known."""

    def __init__(self, message: str, beginning: bytes = b"") -> None:
        super().__init__(message)
        self.beginning = beginning


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Route:
    """How an access leads to its server: what does not change without the kubeconfig."""

    server: ServerUrl
    proxy: Proxy | None
    cluster: Cluster


class Way:
    """A connection to ask over now, and as whom: `identity` are headers, None where the caller says who asks.

    `users`: the table in which it is counted.
    """

    __slots__ = ("_credential", "_shown", "identity", "transport", "users")

    def __init__(
        self,
        transport: Transport,
        identity: Sequence[tuple[str, str]] | None,
        shown: Presented,
        credential: Credential | None,
        users: dict[Transport, int],
    ) -> None:
        self.transport = transport
        self.identity = identity
        self.users = users
        self._shown = shown
        self._credential = credential

    def is_as(self, other: Way) -> bool:
        """Whether it is as good as another one."""
        return (
            self.transport is other.transport
            and self.users is other.users
            and self._credential is other._credential
            and self._shown is other._shown
            and self.identity == other.identity
        )

    async def refused(self) -> None:
        """The server has answered 401."""
        if self._credential is not None:
            await self._credential.refused(self._shown)

    def refusal(self, code: int, reason: str, message: str, retry_after: float | None = None) -> RequestRefused:
        """What the server says of why it refuses, in an answer or a watch, without the credentials it was shown."""
        identity = self.identity or ()
        return RequestRefused(code, struck_out(reason, identity), struck_out(message, identity), retry_after)


class Opened(NamedTuple):
    """An answer whose head has come, and the way that it comes."""

    response: Response
    way: Way


class ApiServer:
    """The connection to one member cluster, owned by its producer.

    Its credentials are renewed as their kind is, and after a 401. Another certificate, authority or server needs
    another connection: streams under way go on over the old one to their end. `streams_lists`: whether lists come as
    the beginning of a watch.
    """

    def __init__(self, access: ClusterAccess, timing: ProducerTiming = DEFAULT) -> None:
        self.timing = timing
        self.access = access
        self.streams_lists = False
        # Set when the kubeconfig leads to another server than before.
        self.moved = Flag()
        # How far its clock is ahead of ours, in seconds, to half a second.
        self.clock_offset = 0.0
        # Connections, by how many blocks use each; the one that the way leads over now.
        self._users: dict[Transport, int] = {}
        self._latest: Transport | None = None
        self._closed = False
        self._shared = SharedByServers.joined(timing)
        self._take(access)

    def _take(self, access: ClusterAccess) -> None:
        """What can be said of an access without asking or reading anything."""
        self._last_way: Way | None = None
        self.access = access
        self._route: _Route | None = None
        self._problem = access.problem
        self._credential: Credential | None = None
        threads = self._shared.credentials.threads.of(share_of(access.cluster.authority_file))
        self._authority = Authority(access.cluster, access.where or access.name, threads, self.timing)
        if access.problem:
            return
        try:
            server = parse_server(access.cluster.server)
            self._route = _Route(server, proxy_for(server, access.cluster.proxy_url), access.cluster)
        except BadKubeconfig as problem:
            self._problem = f"{access.where or access.name}: {problem}"
            return
        user = access.user
        if not server.secure and (server.assumed or user != User(impersonation=user.impersonation)):
            log.warning("no credentials are sent", cluster=access.name, reason=server.unprotected)
        self._credential = credential_for(access, self._shared.credentials, self.timing)

    @property
    def host(self) -> str:
        """The server's URL without userinfo; empty if the kubeconfig has none that can be used."""
        return self._route.server.shown if self._route is not None else ""

    @property
    def deadlines(self) -> Deadlines:
        """The deadlines of what is read of this server and of all others that the event loop asks."""
        return self._shared.deadlines

    @property
    def closed(self) -> bool:
        """Whether it was closed, and cannot be asked any more."""
        return self._closed

    @property
    def waits_for(self) -> str:
        """What has to come before the server can be asked: `plugin X has not answered yet`; empty: nothing."""
        return "" if self._credential is None else self._credential.waits_for

    async def change(self, access: ClusterAccess) -> None:
        """Goes on with another access, e.g. after a Secret was changed; an equal one is the same."""
        if access == self.access:
            return
        before, old, authority = self.host, self._credential, self._authority
        self._take(access)
        log.info("credentials read anew", cluster=access.name)
        if before and self.host and before != self.host:
            self.moved.set()
        await authority.close()
        if old is not None:
            await old.close()
        await self._close_unused()

    async def close(self) -> None:
        """Closes all connections, also of requests under way."""
        if self._closed:
            return
        self._closed = True
        self._last_way = None
        # Whatever one of them raises, also where the caller is cancelled: no plugin outlives its server.
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._shared.leave)
            if self._credential is not None:
                stack.push_async_callback(self._credential.close)
            stack.push_async_callback(self._authority.close)
            for transport in list(self._users):
                stack.push_async_callback(transport.close)

    def reopen(self, access: ClusterAccess) -> None:
        """After `close`, however that ended: it can be asked again, and has none of the connections of before.

        What is known of the server stays, as it is the same one.
        """
        if self._closed:
            self._closed = False
            # Requests of before end with the connections that they were on, in their own table.
            self._users, self._latest = {}, None
            self._shared = SharedByServers.joined(self.timing)
            self._take(access)

    # -- the way there -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def way(self, *, identified: bool = True) -> AsyncIterator[Way]:
        """The way to the server as it is now; its connection stays while the block lasts.

        `identified`: with the credentials of the kubeconfig; else with none, and nothing is run or read for them.
        Raises:
            Unreachable: the kubeconfig cannot be used, or there are no credentials.
        """
        way = await self._begin_way(identified)
        try:
            yield way
        finally:
            await self._end_way(way)

    async def _begin_way(self, identified: bool) -> Way:
        """What is begun is to be ended. Raises Unreachable."""
        route, credential = self._route, self._credential if identified else None
        if route is None or (identified and credential is None):
            raise Unreachable(self._problem)
        shown, tls = Presented(), TlsSettings()
        try:
            if credential is not None:
                shown = await credential.current()
            if route.server.secure:
                authorities = await self._authority.current()
                tls = TlsSettings(authorities, route.cluster.insecure, route.cluster.tls_server_name, shown.certificate)
        except (BadCredentials, BadKubeconfig) as cause:
            raise Unreachable(str(cause)) from cause
        if self._closed:
            raise Unreachable(f"{self.host}: the connection was closed here")
        transport = self._transport(route, tls)
        self._users[transport] += 1
        way = Way(transport, _identity(route, shown) if identified else None, shown, credential, self._users)
        if not identified:
            return way
        # One for all watches that go the same way.
        if self._last_way is None or not self._last_way.is_as(way):
            self._last_way = way
        return self._last_way

    async def _end_way(self, way: Way) -> None:
        way.users[way.transport] -= 1
        await self._close_unused()

    def _transport(self, route: _Route, tls: TlsSettings) -> Transport:
        compressed = not route.cluster.disable_compression
        for transport in self._users:
            if (transport.server, transport.proxy, transport.tls) == (route.server, route.proxy, tls):
                self._latest = transport
                return transport
        limits = ConnectionTiming(dial=self.timing.connect, handshake=self.timing.handshake)
        self._latest = Transport(
            route.server, tls, route.proxy, compressed=compressed, cluster=self.access.name, timing=limits
        )
        self._users[self._latest] = 0
        return self._latest

    async def _close_unused(self) -> None:
        """Closes connections that the way does not lead over any more, each once its last request is over."""
        for transport in [one for one, users in self._users.items() if not users and one is not self._latest]:
            del self._users[transport]
            await transport.close()

    # -- requests ------------------------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
        known: str = "",
        silence: float | None = None,
    ) -> GetRequest:
        """A GET whose answer is read as it comes, inside the block.

        `silence`: seconds without a byte after which the answer is given up; None: `ProducerTiming.read`. `known`: the
        ETag of a document that is known already. Raises:
            RequestRefused: for an error answer; with code 304 if the document is the known one.
            Unreachable: if there is no answer, or it breaks off inside the block.
        """
        headers = [("Accept", accept), ("User-Agent", user_agent())]
        if known:
            headers.append(("If-None-Match", known))
        return GetRequest(self, _with_query(path, query), headers, self.timing.read if silence is None else silence)

    async def ask(self, path: str, headers: Sequence[tuple[str, str]], silence: float) -> Opened:
        """For `GetRequest`, which ends it by `end`. Raises as `open`."""
        asked = time.time()
        way = await self._begin_way(True)
        try:
            response = await way.transport.begin("GET", path, [*headers, *(way.identity or ())], None, silence, True)
            try:
                self._note_date(response, asked)
                if response.status == 401:
                    await way.refused()
                if response.status != 200:
                    await self._refuse(response, way)
                return Opened(response, way)
            except BaseException:
                await way.transport.end(response)
                raise
        except BaseException as cause:
            await self._end_way(way)
            if isinstance(cause, TransportError):
                raise Unreachable(f"{way.transport.server.shown}: {cause}") from cause
            raise

    async def end(self, response: Response, way: Way, failed: BaseException | None) -> None:
        """Ends what `ask` began. Raises Unreachable if it `failed` as the answer broke off."""
        try:
            await way.transport.end(response)
        finally:
            await self._end_way(way)
        if isinstance(failed, TransportError):
            raise Unreachable(f"{way.transport.server.shown}: {failed}") from failed

    def _note_date(self, response: Response, asked: float) -> None:
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return
        # Its second began up to one before the answer did.
        self.clock_offset = date.timestamp() + 0.5 - (asked + time.time()) / 2

    async def _refuse(self, response: Response, way: Way) -> None:
        body = b""
        # What it is refused for is known without it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timing.refusal):
                body = await response.read(64 * 1024)
        try:
            status = msgspec.json.decode(body, type=_Status)
        except UNDECODABLE:
            status = _Status(message=" ".join(body.decode(errors="replace").split()))
        retry_after = None
        if (text := response.headers.get("Retry-After", "")).isdigit():
            retry_after = float(text)
        raise way.refusal(response.status, status.reason, status.message or response.reason, retry_after)

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
        most: int = LARGEST_ANSWER,
    ) -> tuple[bytes, str]:
        """Body and content type of an answer. Raises RequestRefused and Unreachable, and TooLarge past `most` bytes."""
        try:
            async with asyncio.timeout(self.timing.answer), self.open(path, query, accept=accept) as (response, _):
                body = await response.read(most + 1)
                if len(body) > most:
                    raise TooLarge(f"{self.host}: the answer to {path} has more than {most} bytes", body)
                return body, response.headers.get("Content-Type", "")
        except TimeoutError:
            late = f"{self.host}: the answer to {path} is not whole within {self.timing.answer:g} s"
            raise Unreachable(late) from None

    async def post(self, path: str, body: bytes, *, most: int = LARGEST_ANSWER) -> bytes:
        """The answer to an object in JSON that is created, such as a review: 200 or 201.

        Raises:
            RequestRefused, Unreachable, TooLarge: as `get`.
        """
        headers = [("Accept", "application/json"), ("Content-Type", "application/json"), ("User-Agent", user_agent())]
        try:
            async with asyncio.timeout(self.timing.answer), self.way() as way:
                headers += way.identity or ()
                request = way.transport.request("POST", path, headers, body, silence=self.timing.read)
                async with request as response:
                    if response.status == 401:
                        await way.refused()
                    if response.status not in (200, 201):
                        await self._refuse(response, way)
                    answer = await response.read(most + 1)
        except TransportError as cause:
            raise Unreachable(f"{self.host}: {cause}") from cause
        except TimeoutError:
            raise Unreachable(f"{self.host}: no answer to {path} within {self.timing.answer:g} s") from None
        if len(answer) > most:
            raise TooLarge(f"{self.host}: the answer to {path} has more than {most} bytes")
        return answer


class GetRequest:
    """A GET: entering it asks and gives the answer, leaving it ends that. Raises as `ApiServer.open` says.

    A class, not a generator: there is one for each type of each cluster, for as long as its watch lasts.
    """

    __slots__ = ("_headers", "_path", "_response", "_server", "_silence", "_way")

    def __init__(self, server: ApiServer, path: str, headers: Sequence[tuple[str, str]], silence: float) -> None:
        self._server = server
        self._path = path
        self._headers = headers
        self._silence = silence
        self._response: Response | None = None
        self._way: Way | None = None

    async def __aenter__(self) -> Opened:
        opened = await self._server.ask(self._path, self._headers, self._silence)
        self._response, self._way = opened
        self._path, self._headers = "", ()
        return opened

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._response is not None and self._way is not None:
            await self._server.end(self._response, self._way, error)


@functools.cache
def user_agent() -> str:
    """Who we are in servers' audit logs."""
    try:
        return f"kubebraid/{metadata.version('kubebraid')}"
    except metadata.PackageNotFoundError:
        return "kubebraid"


def _identity(route: _Route, shown: Presented) -> Sequence[tuple[str, str]]:
    """Headers that say who asks. What the server's URL says counts before a token or a name (client-go's order)."""
    basic = route.server.address.basic
    if not basic:
        return shown.headers
    return [("Authorization", basic), *((name, value) for name, value in shown.headers if name != "Authorization")]


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path
