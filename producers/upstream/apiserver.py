"""A member cluster's API server: requests with credentials that are renewed, streams of bytes, Kubernetes' errors."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
import structlog

from producers.errors import ClusterUnavailable
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.access import ClusterAccess, Credentials
from producers.upstream.kubeconfig import BadKubeconfig

log = structlog.get_logger("producers.upstream.apiserver")


# Bytes of an answer that is read as a whole. Of a server that sends without end no more than this is held.
LARGEST_ANSWER = 64 * 1024 * 1024


class Unreachable(ClusterUnavailable):
    """The API server cannot be reached, or broke off."""


class RequestRefused(ClusterUnavailable):
    """The API server answered with an error. `retry_after` in seconds, from its header (429, 503)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason or message}" if not message else f"{code} {message}")
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @property
    def expired(self) -> bool:
        """410: the version is too old; only a new list helps."""
        return self.code == 410 or self.reason in ("Expired", "Gone")


class BadAnswer(ClusterUnavailable):
    """The API server answered with something else than what was asked for."""


class TooLarge(BadAnswer):
    """The API server's answer is larger than any that is of use."""


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class ApiServer:
    """The connection to one member cluster, owned by its producer.

    New credentials are taken when their files change, before they expire, and after a 401; streams under way go on
    with the old ones to their end. `streams_lists`: whether lists come as the beginning of a watch.
    """

    def __init__(self, access: ClusterAccess, timing: ProducerTiming = DEFAULT) -> None:
        self.timing = timing
        self.access = access
        self.streams_lists = False
        # Set when the credentials lead to another server than before.
        self.moved = asyncio.Event()
        # How far its clock is ahead of ours, in seconds, to half a second.
        self.clock_offset = 0.0
        self._credentials: Credentials | None = None
        self._uses: dict[Credentials, int] = {}
        self._checked = 0.0
        self._lock = asyncio.Lock()

    @property
    def host(self) -> str:
        """The server's URL; empty until there are credentials."""
        return self._credentials.host if self._credentials is not None else ""

    async def _current(self) -> Credentials:
        now = time.monotonic()
        every = self.timing.reload_credentials_every
        if self._credentials is None or now - self._checked > every:
            async with self._lock:
                known = self._credentials
                if known is None:
                    self._credentials = await self.access.credentials()
                elif now - self._checked > every and await asyncio.to_thread(known.outdated):
                    await self._replace()
                self._checked = time.monotonic()
        assert self._credentials is not None
        return self._credentials

    async def _replace(self) -> None:
        try:
            fresh = await self.access.credentials()
        except BadKubeconfig as problem:
            # A file that is just being written; the old credentials may still do.
            log.warning("credentials cannot be read anew", cluster=self.access.name, reason=str(problem))
            return
        old, self._credentials = self._credentials, fresh
        log.info("credentials read anew", cluster=self.access.name)
        if old is not None and old.host != fresh.host:
            self.moved.set()
        if old is not None and not self._uses.get(old):
            await old.client.close()

    async def change(self, access: ClusterAccess) -> None:
        """Goes on with other credentials, e.g. after a Secret was changed."""
        async with self._lock:
            self.access = access
            if self._credentials is not None:
                await self._replace()

    async def reload(self) -> None:
        """Takes the credentials as they are now, if they were not just taken."""
        async with self._lock:
            if time.monotonic() - self._checked >= self.timing.reload_credentials_every / 5:
                await self._replace()
                self._checked = time.monotonic()

    async def close(self) -> None:
        """Closes all connections, also of requests under way."""
        for credentials in {*self._uses, *((self._credentials,) if self._credentials else ())}:
            await credentials.client.close()
        self._uses.clear()
        self._credentials = None

    @asynccontextmanager
    async def using(self) -> AsyncIterator[Credentials]:
        """The credentials as they are now; they stay usable to the end of the block. Raises BadKubeconfig."""
        credentials = await self._current()
        self._uses[credentials] = self._uses.get(credentials, 0) + 1
        try:
            yield credentials
        finally:
            left = self._uses.get(credentials, 1) - 1
            if left:
                self._uses[credentials] = left
            else:
                self._uses.pop(credentials, None)
                if credentials is not self._credentials:
                    await credentials.client.close()

    @asynccontextmanager
    async def open(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
        known: str = "",
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose answer is read as it comes.

        `silence`: seconds without a byte after which the answer is given up; None: `ProducerTiming.read`. `known`: the
        ETag of a document that is known already. Raises:
            RequestRefused: for an error answer; with code 304 if the document is the known one.
            Unreachable: if there is no answer, or it breaks off inside the block.
        """
        try:
            async with self.using() as credentials:
                asked = time.time()
                response: aiohttp.ClientResponse = await credentials.client.call_api(
                    path,
                    "GET",
                    query_params=list((query or {}).items()),
                    header_params={"Accept": accept, **({"If-None-Match": known} if known else {})},
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _request_timeout=aiohttp.ClientTimeout(
                        sock_connect=self.timing.connect, sock_read=self.timing.read if silence is None else silence
                    ),
                )
                try:
                    self._note_date(response, asked)
                    if response.status != 200:
                        await self._refuse(response)
                    yield response
                finally:
                    response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as cause:
            raise Unreachable(f"{self.host}: {' '.join(str(cause).split()) or type(cause).__name__}") from cause
        except BadKubeconfig as cause:
            raise Unreachable(str(cause)) from cause

    def _note_date(self, response: aiohttp.ClientResponse, asked: float) -> None:
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return
        # Its second began up to one before the answer did.
        self.clock_offset = date.timestamp() + 0.5 - (asked + time.time()) / 2

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        body = await response.content.read(64 * 1024)
        try:
            status = msgspec.json.decode(body, type=_Status)
        except msgspec.MsgspecError:
            status = _Status(message=body[:200].decode(errors="replace").strip())
        retry_after = None
        if (text := response.headers.get("Retry-After", "")).isdigit():
            retry_after = float(text)
        if response.status == 401:
            await self.reload()
        raise RequestRefused(response.status, status.reason, status.message or str(response.reason or ""), retry_after)

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
            async with asyncio.timeout(self.timing.answer), self.open(path, query, accept=accept) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > most:
                        raise TooLarge(f"{self.host}: the answer to {path} has more than {most} bytes")
                return bytes(body), response.headers.get("Content-Type", "")
        except TimeoutError:
            late = f"{self.host}: the answer to {path} is not whole within {self.timing.answer:g} s"
            raise Unreachable(late) from None
