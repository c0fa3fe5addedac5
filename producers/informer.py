"""The informer of one type of one cluster, in three layers: one request, list then watch, for ever.

The layers' exits are named: a list or watch ends by itself (`WatchEnded`), with an expired version (410), with
another refusal, or because the server cannot be reached. Contract: kubernetes.io "Efficient detection of
changes"; client-go tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec
import structlog

from deltalog import AppendError, BrokerUnavailable
from deltalog.connection import JetStreamRefused
from producers.apiserver import ApiServer, Refused, Unreachable
from producers.discovery import ResourceType
from producers.writer import Key, Writer

log = structlog.get_logger("producers.informer")

PAGE = 500
# A watch is asked to end after a random time in this range, in seconds, so that a hundred don't return at once
# (client-go: 5 to 10 minutes).
_WATCH_SECONDS = (300, 600)
# What a server may be late in ending a watch, in seconds, before the connection counts as half-open.
_WATCH_GRACE = 15.0
# A watch that lasted so long, in seconds, was no failure; the next one begins the backoff anew.
_STABLE = 10.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0


class BadAnswer(Exception):
    """The server answered with something that is no list, or no watch event."""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _Page(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch; `object` is still raw."""

    type: str
    object: msgspec.Raw


class _EventStatus(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Version


_page = msgspec.json.Decoder(_Page)
_event = msgspec.json.Decoder(WatchEvent)
_versioned = msgspec.json.Decoder(_Versioned)


# -- one request ---------------------------------------------------------------------------------------------------


async def list_pages(server: ApiServer, kind: ResourceType) -> AsyncIterator[_Page]:
    """The pages of one consistent list, unparsed objects in each. Raises Refused (410: begin again), Unreachable."""
    query = {"limit": str(PAGE)}
    while True:
        body, _ = await server.get(kind.path, query)
        try:
            page = _page.decode(body)
        except msgspec.MsgspecError as cause:
            raise BadAnswer(f"no list: {cause}") from cause
        yield page
        if not page.metadata.next_page:
            return
        query = {"limit": str(PAGE), "continue": page.metadata.next_page}


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length. (`readline` stops at a limit; a watch line has several MB at times.)"""
    begun: list[bytes] = []
    async for chunk in content.iter_any():
        if b"\n" not in chunk:
            begun.append(chunk)
            continue
        pieces = chunk.split(b"\n")
        pieces[0] = b"".join((*begun, pieces[0]))
        last = pieces.pop()
        begun = [last] if last else []
        for piece in pieces:
            if piece.strip():
                yield piece


async def watch_events(
    server: ApiServer, kind: ResourceType, version: str, opened: Callable[[], Awaitable[None]]
) -> AsyncIterator[WatchEvent]:
    """The events of one watch from `version` until the server ends it; `opened` is called once it has begun.

    Raises Refused, Unreachable, BadAnswer.
    """
    seconds = random.randint(*_WATCH_SECONDS)
    query = {
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(seconds),
    }
    async with server.open(kind.path, query, silence=seconds + _WATCH_GRACE) as response:
        await opened()
        async for line in lines(response.content):
            try:
                event = _event.decode(line)
            except msgspec.MsgspecError as cause:
                raise BadAnswer(f"no watch event: {cause}") from cause
            if event.type == "ERROR":
                status = msgspec.json.decode(event.object, type=_EventStatus)
                raise Refused(status.code, status.reason, status.message)
            yield event


# -- list, then watch ----------------------------------------------------------------------------------------------


class Informer:
    """Keeps the log's view of one type of one cluster equal to the cluster's. Owned by its cluster's producer.

    `listed` counts objects of the list under way; `synced` is set while the log holds a complete list; `version`
    is the cluster's version up to which the log has everything.
    """

    def __init__(
        self,
        cluster: str,
        server: ApiServer,
        kind: ResourceType,
        writer: Writer,
        *,
        on_synced: Callable[[ResourceType, str, int], Awaitable[None]],
        on_trouble: Callable[[ResourceType, str], Awaitable[None]],
        on_change: Callable[[ResourceType], None] | None = None,
    ) -> None:
        self.kind = kind
        self.writer = writer
        self.listed = 0
        self.expected: int | None = None
        self.synced = asyncio.Event()
        self.version = ""
        self.last_event = 0.0
        self.relists = 0
        self._cluster = cluster
        self._server = server
        self._on_synced = on_synced
        self._on_trouble = on_trouble
        self._on_change = on_change
        self._hurry = asyncio.Event()
        self._broken = 0

    def hurry(self) -> None:
        """Ends a pause between attempts: the cluster is said to be back."""
        self._hurry.set()

    async def _list(self) -> str:
        """Brings one complete list into the log; returns its version."""
        self.relists += 1
        self.listed = 0
        self.expected = None
        seen: set[Key] = set()
        version = ""
        async for page in list_pages(self._server, self.kind):
            version = page.metadata.resource_version
            items = page.items or ()
            if self.expected is None:
                self.expected = len(items) + (page.metadata.remaining_item_count or 0)
            for item in items:
                if (key := await self.writer.observe(item, listed=True)) is not None:
                    seen.add(key)
                self.listed += 1
        await self.writer.gone_all_but(seen, version)
        await self.writer.settle()
        await self.writer.purge_other_versions()
        self.writer.forget_gone(24 * 3600.0)
        return version

    async def _watch(self) -> None:
        """Follows from `version`, moving it on, until the watch ends by itself."""
        async for event in watch_events(self._server, self.kind, self.version, self._opened):
            self.last_event = time.time()
            if event.type == "BOOKMARK":
                pass
            elif event.type in ("ADDED", "MODIFIED"):
                await self.writer.observe(event.object, listed=False)
            elif event.type == "DELETED":
                await self.writer.gone(event.object)
            else:
                raise BadAnswer(f"a watch event of type {event.type!r}")
            self.version = _versioned.decode(event.object).metadata.resource_version or self.version
            if self._on_change is not None and event.type != "BOOKMARK":
                self._on_change(self.kind)

    async def _opened(self) -> None:
        """A watch has begun: what was said of trouble before is over."""
        if self._broken > 1:
            await self._on_synced(self.kind, self.version, len(self.writer))

    async def list_then_watch(self) -> None:
        """One list, then watches from it until the version expires or something breaks. Always raises."""
        self.version = await self._list()
        self.synced.set()
        await self._on_synced(self.kind, self.version, len(self.writer))
        log.debug("synced", cluster=self._cluster, type=self.kind.title, objects=len(self.writer))
        self._broken = 0
        while True:
            started = time.monotonic()
            try:
                await self._watch()
            except (Unreachable, BadAnswer) as cause:
                # The version still holds: no list is needed until the server says so.
                self._broken = self._broken + 1 if time.monotonic() - started < _STABLE else 1
                if self._broken > 1:
                    await self._on_trouble(self.kind, str(cause))
                log.debug("watch broken", cluster=self._cluster, type=self.kind.title, reason=str(cause))
                await self._pause(self._broken)
                continue
            except Refused as refused:
                if refused.expired or refused.code == 404:
                    raise
                self._broken = self._broken + 1 if time.monotonic() - started < _STABLE else 1
                if self._broken > 1:
                    await self._on_trouble(self.kind, str(refused))
                await self._pause(self._broken, refused.retry_after)
                continue
            self._broken = 0
            if time.monotonic() - started < 1.0:
                # A server that ends watches at once must not be asked in a loop.
                await asyncio.sleep(random.uniform(0.5, 1.0))

    # -- for ever --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """List-then-watch, again and again, until cancelled. Raises Deposed, HistoryChanged."""
        attempt = 0
        read_back = True
        while True:
            retry_after = None
            started = time.monotonic()
            try:
                if read_back:
                    await self.writer.read_back()
                    read_back = False
                await self.list_then_watch()
            except Refused as refused:
                retry_after = refused.retry_after
                if refused.expired:
                    reason = "the version expired"
                    attempt = 0 if time.monotonic() - started > 10 else attempt
                else:
                    reason = str(refused)
                    await self._on_trouble(self.kind, reason)
            except (Unreachable, BadAnswer) as cause:
                reason = str(cause)
                await self._on_trouble(self.kind, reason)
            except (AppendError, BrokerUnavailable, JetStreamRefused) as cause:
                reason = str(cause)
                read_back = True
            self.synced.clear()
            attempt += 1
            log.info("listing again", cluster=self._cluster, type=self.kind.title, reason=reason, attempt=attempt)
            await self._pause(attempt, retry_after)

    async def _pause(self, attempt: int, retry_after: float | None = None) -> None:
        """Exponential backoff with jitter; ends early when somebody says that the cluster is back."""
        pause = min(_BACKOFF_FIRST * 2 ** min(attempt - 1, 10), _BACKOFF_LAST)
        self._hurry.clear()
        try:
            async with asyncio.timeout(max(pause * random.uniform(0.5, 1.5), retry_after or 0.0)):
                await self._hurry.wait()
        except TimeoutError:
            pass
