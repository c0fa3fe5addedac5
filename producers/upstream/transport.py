"""Requests to one server over as few connections as it allows: HTTP/2 where it speaks it, else HTTP/1.1.

libcurl does it (docs/decisions/0015): one connection with a stream for each request, as client-go has it; another one
when the server's limit of streams is reached. Of libcurl's own surroundings nothing counts: no environment, no .netrc,
no cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence

import msgspec
import pycurl

from producers.upstream.exchange import SAFE_METHODS, NotConnected, Response, TransportError, header_lines
from producers.upstream.liveness import ConnectionName, Liveness, ServerConnection
from producers.upstream.lookups import Found, Lookups, lookups_of_process, needs_lookup
from producers.upstream.memory_files import memory_file
from producers.upstream.multi import Multi
from producers.upstream.proxies import Proxy
from producers.upstream.raw_connection import RawConnection
from producers.upstream.server_url import ServerUrl
from producers.upstream.tls import TlsSettings, system_authorities
from producers.upstream.turns import Turn, Turns, handshakes_of_process

# Handles of requests that ended, kept for the next ones of the same server.
_KEPT = 4
# Requests at once that wait for the head of their answer. A connection's limit of streams is known once the server has
# said anything; until then 100 may be sent (RFC 9113, 6.5.2), and more would queue behind that limit for good.
_UNANSWERED = 100
# Seconds since its last use for which a connection counts as there, without a look at it.
_STILL_USED = 0.5
_CLOSED = "the connection was closed here"


class _Stale(TransportError):
    """It went into a connection that had ended."""


class ConnectionTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of connections, in seconds: client-go's."""

    dial: float = 30.0
    """Until the server, or the proxy, accepts a connection."""
    handshake: float = 10.0
    """From there until requests can be sent."""
    silence: float = 30.0
    """Without a byte over a connection that several requests share, until the server is asked whether it is there."""
    answer: float = 15.0
    """Without a byte from then on, until the connection is cut."""
    keepalive: float = 30.0
    """After this silence the kernel asks the peer whether it is there (TCP keep-alive), three times."""
    unacknowledged: float = 30.0
    """What was sent and is not acknowledged by the peer's kernel for so long ends the connection (TCP_USER_TIMEOUT)."""


class Transport:
    """The connections to one server with one set of TLS settings; belongs to one event loop. Close it at the end.

    `compressed`: answers may come compressed with gzip. `cluster`: whose it is, among the lookups of all.
    """

    def __init__(
        self,
        server: ServerUrl,
        tls: TlsSettings = TlsSettings(),  # noqa: B008 - a frozen value
        proxy: Proxy | None = None,
        *,
        compressed: bool = True,
        cluster: str = "",
        timing: ConnectionTiming = ConnectionTiming(),  # noqa: B008
        handshakes: Turns | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        self.server = server
        self.tls = tls
        self.proxy = proxy
        self.timing = timing
        self.compressed = compressed
        self._cluster = cluster
        certificate = tls.certificate
        self._authorities = memory_file("authorities", tls.authorities) if tls.authorities else None
        self._certificate = (
            memory_file("certificate", certificate.chain + b"\n" + certificate.key) if certificate is not None else None
        )
        self._loop = asyncio.get_running_loop()
        self._multi = Multi(self._loop)
        self._unanswered = Turns(_UNANSWERED)
        self._liveness = Liveness(timing.silence, timing.answer, self._ask)
        self._handshakes = handshakes if handshakes is not None else handshakes_of_process()
        self._lookups = lookups if lookups is not None else lookups_of_process()
        # Where connections are made to, and its addresses where those are to be looked up.
        self._end = (server.address.host, server.port) if proxy is None else (proxy.address.host, proxy.port)
        self._addresses: Found = ()
        self._under_way: dict[Response, pycurl.Curl] = {}
        self._raw: dict[RawConnection, pycurl.Curl] = {}
        self._kept: list[pycurl.Curl] = []
        self._closed = False
        # Whether an answer has come by HTTP/2, and how many requests are on connections now.
        self._multiplexed = False
        self._connected = 0
        self._used = 0.0
        # Set while the first connection is coming about: how that ended, for those that wait for it.
        self._first: asyncio.Future[NotConnected | None] | None = None

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self._under_way) + len(self._raw)

    @property
    def sockets(self) -> int:
        """How many connections have something under way."""
        return self._multi.sockets

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        silence: float | None = None,
        decompress: bool = True,
    ) -> Exchange:
        """Sends a request when it is entered; the block has the answer. `path` with its query, encoded.

        Redirects are not followed: credentials would go where they lead. `silence`: seconds without a byte from the
        server after which it is given up, while one is waited for. `decompress`: gzip is asked for, if this transport
        does, and undone; else the headers say what is asked for, and the body stays as it is. A body that comes in
        pieces has the length that a Content-Length header says, or is sent without one.

        Entering raises:
            NotConnected: the server has seen nothing of it.
            TransportError: no answer came.
        """
        return Exchange(self, method, path, headers, body, silence, decompress)

    async def close(self) -> None:
        """Ends all connections, and requests under way with a TransportError."""
        self._closed = True
        await self._liveness.close()
        for response in list(self._under_way):
            response.fail(TransportError(_CLOSED))
        for raw in list(self._raw):
            raw.abort()
        self._multi.close()
        for curl in self._kept:
            curl.close()
        self._kept.clear()
        for file in (self._authorities, self._certificate):
            if file is not None:
                file.close()
        self._settle_first(NotConnected(_CLOSED))

    # -- for its requests ----------------------------------------------------------------------------------------------

    async def begin(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        silence: float | None,
        decompress: bool,
    ) -> Response:
        """Sends a request and waits for the head of its answer; `end` it. Raises as `request` does."""
        safe = method in SAFE_METHODS
        repeatable = safe and (body is None or isinstance(body, bytes))
        # libcurl sees only a second later that an idle connection has ended: no place for what may change something.
        idle = self._connected == 0 and self._loop.time() - self._used > _STILL_USED
        for fresh in (False, False, True) if repeatable else (idle and not safe,):
            try:
                return await self._attempt(method, path, headers, body, silence, decompress, fresh)
            except _Stale:
                if fresh or not repeatable:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        silence: float | None,
        decompress: bool,
        fresh: bool,
    ) -> Response:
        """`fresh`: over a new connection. Raises _Stale where it went into a connection that had ended."""
        handshake, first = await self._admit()
        try:
            unanswered = await self._unanswered.begin()
        except BaseException:
            if handshake is not None:
                handshake.end()
            if first:
                self._settle_first(None)
            raise
        curl = self._kept.pop() if self._kept else pycurl.Curl()

        def sent(name: ConnectionName) -> ServerConnection:
            self._connected += 1
            if handshake is not None:
                handshake.end()
            if first:
                self._settle_first(None)
            return self._liveness.enter(name, response.sockets)

        response = Response(self._multi, curl, method, silence, sent)
        self._under_way[response] = curl
        outcome: NotConnected | None = None
        try:
            self._configure(curl, response)
            curl.setopt(pycurl.FRESH_CONNECT, fresh)
            lines = self._locate(curl, path)
            if decompress and self.compressed:
                curl.setopt(pycurl.ACCEPT_ENCODING, "gzip")
            elif not decompress:
                curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
            self._set_request(curl, response, method, [*headers, *lines], body)
            if self._closed:
                raise NotConnected(_CLOSED)
            await response.begin(self.timing.dial, self.timing.handshake)
        except BaseException as cause:
            if isinstance(cause, NotConnected):
                outcome = cause
                self._lookups.forget(self._end[0])
            stale = response.broke_off_unanswered and not curl.getinfo(pycurl.NUM_CONNECTS)
            await self.end(response)
            if isinstance(cause, (pycurl.error, UnicodeError)):
                raise NotConnected(f"the request cannot be sent: {' '.join(str(cause).split())}") from None
            if isinstance(cause, TransportError) and stale:
                raise _Stale(str(cause)) from None
            raise
        finally:
            unanswered.end()
            if handshake is not None:
                handshake.end()
            if first:
                self._settle_first(outcome)
        self._multiplexed = response.version.startswith("2")
        if response.connection is not None:
            response.connection.shared = self._multiplexed
        return response

    async def end(self, response: Response) -> None:
        """Ends a request, whatever is still to come of its answer."""
        curl = self._under_way.pop(response, None)
        if curl is None:
            return
        self._used = self._loop.time()
        if response.sent:
            self._connected -= 1
        if response.connection is not None:
            self._liveness.leave(response.connection)
        try:
            await response.end()
        finally:
            if self._closed or len(self._kept) >= _KEPT:
                curl.close()
            else:
                curl.reset()
                self._kept.append(curl)

    async def _admit(self) -> tuple[Turn | None, bool]:
        """Waits until a request may start: beside others on a connection, or as one for which one may be made.

        The first that makes one (the second value) has the others wait, who then share it.
        """
        while not (self._multiplexed and self._connected):
            if self._closed:
                raise NotConnected(_CLOSED)
            if self._first is None:
                first = not self._connected
                if first:
                    self._first = self._loop.create_future()
                try:
                    await self._find()
                    return await self._handshakes.begin(), first
                except BaseException as cause:
                    if first:
                        self._settle_first(cause if isinstance(cause, NotConnected) else None)
                    raise
            failed = await asyncio.shield(self._first)
            if failed is not None:
                raise NotConnected(str(failed))
        return None, False

    async def _find(self) -> None:
        """Finds the addresses that a connection may be made to. Raises NotConnected."""
        name, _ = self._end
        if not needs_lookup(name):
            return
        said = f"Could not resolve {'host' if self.proxy is None else 'proxy'}: {name}"
        try:
            async with asyncio.timeout(self.timing.dial):
                self._addresses = await self._lookups.addresses(name, self._cluster)
        except TimeoutError:
            raise NotConnected(f"{said}: no answer within {self.timing.dial:g} s") from None
        if not self._addresses:
            raise NotConnected(said)

    def _settle_first(self, failed: NotConnected | None) -> None:
        first, self._first = self._first, None
        if first is not None and not first.done():
            first.set_result(failed)

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Makes a connection of its own that carries whatever is sent, by HTTP/1.1's rules, and gives it to a protocol.

        Raises:
            NotConnected: none came about.
        """
        await self._find()
        handshake = await self._handshakes.begin()
        curl = pycurl.Curl()
        response = Response(self._multi, curl, "CONNECT", None, lambda name: ServerConnection(name, 0.0, -1))
        self._under_way[response] = curl
        try:
            if self._closed:
                raise NotConnected(_CLOSED)
            self._configure(curl, response)
            self._locate(curl, "/")
            curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
            curl.setopt(pycurl.CONNECT_ONLY, 1)
            await response.connect(self.timing.dial, self.timing.handshake)
        except BaseException:
            await self.end(response)
            raise
        finally:
            handshake.end()
        del self._under_way[response]
        raw = RawConnection(self._multi, curl, protocol, self._forget)
        if not raw.is_closing():
            self._raw[raw] = curl

    def _forget(self, raw: RawConnection) -> None:
        curl = self._raw.pop(raw, None)
        if curl is not None:
            curl.close()

    async def _ask(self) -> None:
        """Asks for something that every API server answers at once, if only that it may not be asked."""
        with contextlib.suppress(TransportError):
            async with self.request("GET", "/livez/ping") as response:
                await response.read(1024)

    # -- as options of libcurl -----------------------------------------------------------------------------------------

    def _set_request(
        self,
        curl: pycurl.Curl,
        response: Response,
        method: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> None:
        length = None
        kept = []
        for name, value in headers:
            if name.lower() == "content-length":
                length = int(value) if value.isdecimal() else None
            else:
                kept.append((name, value))
        if method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif body is not None and not isinstance(body, bytes):
            response.send(body, length)
        elif body is not None or method in ("POST", "PUT", "PATCH"):
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDS, body or b"")
        if method != "GET" or body is not None:
            curl.setopt(pycurl.CUSTOMREQUEST, method)
        curl.setopt(pycurl.HTTPHEADER, header_lines(kept))

    def _configure(self, curl: pycurl.Curl, response: Response) -> None:
        """What all requests of this transport have in common."""

        def made(fd: int, purpose: int) -> int:
            response.sockets = (*response.sockets, fd)
            self._set_up_socket(fd)
            return int(pycurl.SOCKOPT_OK)

        set_option = curl.setopt
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.NETRC, pycurl.NETRC_IGNORED)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.PATH_AS_IS, 1)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.PIPEWAIT, 1)
        set_option(pycurl.TCP_NODELAY, 1)
        set_option(pycurl.SOCKOPTFUNCTION, made)
        set_option(pycurl.CONNECTTIMEOUT_MS, int((self.timing.dial + self.timing.handshake) * 1000))
        version = pycurl.CURL_HTTP_VERSION_2TLS if http2_wanted() else pycurl.CURL_HTTP_VERSION_1_1
        set_option(pycurl.HTTP_VERSION, version)
        # Towards proxies; to servers requests say who they are.
        set_option(pycurl.USERAGENT, "kubebraid")
        self._configure_proxy(curl)
        if self._addresses:
            # libcurl then looks nothing up by itself.
            name, port = self._end
            addresses = ",".join(f"[{one}]" if ":" in one else one for one in self._addresses)
            set_option(pycurl.RESOLVE, [f"{name}:{port}:{addresses}"])
        if self.server.secure:
            self._configure_tls(curl)

    def _set_up_socket(self, fd: int) -> None:
        connection = socket.socket(fileno=fd)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (
                ("TCP_KEEPIDLE", max(1, int(self.timing.keepalive))),
                ("TCP_KEEPINTVL", max(1, int(self.timing.keepalive / 3))),
                ("TCP_KEEPCNT", 3),
                ("TCP_USER_TIMEOUT", int(self.timing.unacknowledged * 1000)),
            ):
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except OSError:
            # No TCP, or a system that does not have them: the connection does without.
            pass
        finally:
            connection.detach()

    def _configure_proxy(self, curl: pycurl.Curl) -> None:
        # Both are set in any case, or libcurl would look into the environment, by rules of its own.
        curl.setopt(pycurl.NOPROXY, "")
        if self.proxy is None:
            curl.setopt(pycurl.PROXY, "")
            return
        address = self.proxy.address
        # A SOCKS proxy finds the address of a name, as Go leaves it to it.
        scheme = "socks5h" if address.scheme == "socks5" else address.scheme
        host = address.netloc if address.port else f"{address.netloc}:{self.proxy.port}"
        curl.setopt(pycurl.PROXY, f"{scheme}://{host}")
        # Headers are for the server, not for the proxy on the way there.
        curl.setopt(pycurl.HEADEROPT, pycurl.HEADER_SEPARATE)
        if address.has_userinfo:
            curl.setopt(pycurl.PROXYAUTH, pycurl.HTTPAUTH_BASIC)
            curl.setopt(pycurl.PROXYUSERNAME, address.username)
            curl.setopt(pycurl.PROXYPASSWORD, address.password)
        if address.scheme == "https":
            self._configure_trust(
                curl, pycurl.PROXY_CAINFO, pycurl.PROXY_CAINFO_BLOB, pycurl.PROXY_CAPATH,
                pycurl.PROXY_SSL_VERIFYPEER, pycurl.PROXY_SSL_VERIFYHOST,
            )  # fmt: skip
            curl.setopt(pycurl.PROXY_SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
            if self._certificate is not None:
                curl.setopt(pycurl.PROXY_SSLCERT, self._certificate.path)
                curl.setopt(pycurl.PROXY_SSLKEY, self._certificate.path)
            elif self.tls.certificate is not None:
                curl.setopt(pycurl.PROXY_SSLCERT_BLOB, self.tls.certificate.chain)
                curl.setopt(pycurl.PROXY_SSLKEY_BLOB, self.tls.certificate.key)
            curl.setopt(pycurl.PROXY_KEYPASSWD, "")

    def _configure_tls(self, curl: pycurl.Curl) -> None:
        self._configure_trust(
            curl, pycurl.CAINFO, pycurl.CAINFO_BLOB, pycurl.CAPATH, pycurl.SSL_VERIFYPEER, pycurl.SSL_VERIFYHOST
        )
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        if self._certificate is not None:
            curl.setopt(pycurl.SSLCERT, self._certificate.path)
            curl.setopt(pycurl.SSLKEY, self._certificate.path)
        elif self.tls.certificate is not None:
            curl.setopt(pycurl.SSLCERT_BLOB, self.tls.certificate.chain)
            curl.setopt(pycurl.SSLKEY_BLOB, self.tls.certificate.key)
        # An encrypted key is an error then; without it OpenSSL asks at the terminal.
        curl.setopt(pycurl.KEYPASSWD, "")

    def _configure_trust(
        self, curl: pycurl.Curl, file: int, blob: int, directory: int, verify: int, verify_host: int
    ) -> None:
        # What libcurl was built to trust is not what this system trusts.
        curl.unsetopt(directory)
        curl.unsetopt(file)
        if self.tls.insecure:
            curl.setopt(verify, 0)
            curl.setopt(verify_host, 0)
            return
        path, content = ("", self.tls.authorities) if self.tls.authorities else system_authorities()
        if self._authorities is not None:
            path = self._authorities.path
        if path:
            curl.setopt(file, path)
        else:
            curl.setopt(blob, content or b"\n")

    def _locate(self, curl: pycurl.Curl, path: str) -> list[tuple[str, str]]:
        """Sets the URL; returns headers that go with it."""
        address, name = self.server.address, self.tls.server_name.removeprefix("[").removesuffix("]")
        if not name or not self.server.secure:
            curl.setopt(pycurl.URL, f"{address.scheme}://{address.netloc}{self.server.prefix}{path}")
            return []
        # libcurl checks the URL's host and sends it as SNI: the URL has that name then, and the way leads to the host.
        shown = f"[{name}]" if ":" in name else name
        curl.setopt(pycurl.URL, f"https://{shown}:{self.server.port}{self.server.prefix}{path}")
        host = f"[{address.host}]" if ":" in address.host else address.host
        curl.setopt(pycurl.CONNECT_TO, [f"{shown}:{self.server.port}:{host}:{self.server.port}"])
        return [("Host", address.netloc)]


def http2_wanted() -> bool:
    """Whether HTTP/2 is offered to servers: DISABLE_HTTP2 turns it off, as for client-go."""
    return not os.environ.get("DISABLE_HTTP2")


class Exchange:
    """One request; entering it sends it, leaving it ends it, whatever is still to come."""

    __slots__ = ("_body", "_decompress", "_headers", "_method", "_path", "_response", "_silence", "_transport")

    def __init__(
        self,
        transport: Transport,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None,
        silence: float | None,
        decompress: bool,
    ) -> None:
        self._transport = transport
        self._method = method
        self._path = path
        self._headers = headers
        self._body = body
        self._silence = silence
        self._decompress = decompress
        self._response: Response | None = None

    async def __aenter__(self) -> Response:
        self._response = await self._transport.begin(
            self._method, self._path, self._headers, self._body, self._silence, self._decompress
        )
        # It is sent; a watch lasts for minutes.
        self._path, self._headers, self._body = "", (), None
        return self._response

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            await self._transport.end(self._response)
