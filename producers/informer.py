"""The informer of one type of one cluster, in three layers: one request, list then watch, for ever.

The layers' exits are named: a list or watch ends by itself (`WatchEnded`), with an expired version (410), with
another refusal, or because the server cannot be reached. Contract: kubernetes.io "Efficient detection of
changes"; client-go tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
import msgspec
import structlog

from deltalog import AppendError, BrokerUnavailable
from deltalog.connection import JetStreamRefused
from producers.apiserver import ApiServer, Refused, Unreachable
from producers.discovery import ResourceType
from producers.normalize import Members, Unusable, members, without_line_feeds
from producers.writer import Key, Writer

log = structlog.get_logger("producers.informer")

PAGE = 500
# A watch is asked to end after a random time in this range, in seconds, so that a hundred don't return at once
# (client-go: 5 to 10 minutes).
_WATCH_SECONDS = (300, 600)
# What a server may be late in ending a watch, in seconds, before the connection counts as half-open.
_WATCH_GRACE = 15.0
# Seconds of silence after which a connection is given up: while initial events come, and once bookmarks do.
_INITIAL_SILENCE = 20.0
_BOOKMARK_SILENCE = 150.0
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
# A watch that lasted so long, in seconds, was no failure; the next one begins the backoff anew.
_STABLE = 10.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0


class BadAnswer(Exception):
    """The server answered with something that is no list, or no watch event."""


class _NotStreamed(Exception):
    """The server does not send initial events as asked; its lists are taken by pages."""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _Page(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[Members] | None = None


class _OddPage(msgspec.Struct):
    """A page with items that are no objects."""

    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch; the members of `object` are still raw."""

    type: str
    object: Members


class _EventStatus(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class _Version(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _ErrorEvent(msgspec.Struct):
    object: _EventStatus


_page = msgspec.json.Decoder(_Page)
_odd_page = msgspec.json.Decoder(_OddPage)
_event = msgspec.json.Decoder(WatchEvent)
_error_event = msgspec.json.Decoder(_ErrorEvent)
_version = msgspec.json.Decoder(_Version)
_NO_METADATA = msgspec.Raw(b"{}")
# What msgspec raises: text that isn't UTF-8 and nesting without end have no msgspec error of their own.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# -- one request ---------------------------------------------------------------------------------------------------


async def list_pages(server: ApiServer, kind: ResourceType) -> AsyncGenerator[_Page, None]:
    """The pages of one consistent list, unparsed objects in each. Raises Refused (410: begin again), Unreachable.

    The next page is asked for before one is yielded, so that it comes while this one is written; no more than that.
    """
    query = {"limit": str(PAGE)}
    coming = asyncio.create_task(server.get(kind.path, query))
    try:
        while True:
            body, _ = await coming
            page = _page_of(body)
            if page.metadata.next_page:
                query = {"limit": str(PAGE), "continue": page.metadata.next_page}
                coming = asyncio.create_task(server.get(kind.path, query))
            yield page
            if not page.metadata.next_page:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def _page_of(body: bytes) -> _Page:
    """Raises BadAnswer."""
    try:
        # A line feed at the end, as kube-apiserver has it, is part of no object.
        text = without_line_feeds(body) if body.find(b"\n", 0, len(body) - 1) >= 0 else body
        try:
            return _page.decode(text)
        except msgspec.ValidationError:
            odd = _odd_page.decode(text)
            # The writer leaves out, and tells of, what has no metadata.
            return _Page(odd.metadata, [_members(item) for item in odd.items or ()])
    except _UNDECODABLE as cause:
        raise BadAnswer(f"no list: {cause}") from cause


def _members(item: msgspec.Raw) -> Members:
    try:
        return members(item)
    except Unusable:
        return {}


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
    """Lines of any length, those together that came together. (`readline` stops at a limit; a few MB do happen.)"""
    begun: list[bytes] = []
    async for chunk in content.iter_any():
        if b"\n" not in chunk:
            begun.append(chunk)
            continue
        pieces = chunk.split(b"\n")
        if begun:
            pieces[0] = b"".join((*begun, pieces[0]))
        last = pieces.pop()
        begun = [last] if last else []
        if whole := [piece for piece in pieces if piece and not piece.isspace()]:
            yield whole


async def watch_events(
    server: ApiServer, kind: ResourceType, version: str | None, opened: Callable[[], Awaitable[None]]
) -> AsyncGenerator[WatchEvent, None]:
    """The events of one watch from `version` until the server ends it; `opened` is called once it has begun.

    `version` None asks for the present state first, as ADDED events that end with a bookmark (KEP-3157).
    A connection that is silent for longer than this server has shown to be is given up as half-open.
    Raises Refused, Unreachable, BadAnswer.
    """
    seconds = random.randint(*_WATCH_SECONDS)
    query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
    if version is None:
        query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    else:
        query["resourceVersion"] = version
    loop = asyncio.get_running_loop()
    initial = version is None
    silence = _INITIAL_SILENCE if initial else seconds + _WATCH_GRACE
    async with server.open(kind.path, query, silence=seconds + _WATCH_GRACE) as response:
        await opened()
        patience: asyncio.Timeout
        try:
            async with asyncio.timeout(silence) as patience, contextlib.aclosing(lines(response.content)) as arriving:
                async for together in arriving:
                    # Only the server's silence counts, not what we take to digest what it said.
                    patience.reschedule(None)
                    for line in together:
                        event = _watch_event(line)
                        yield event
                        if event.type == "BOOKMARK":
                            # This server sends them, about one a minute: two missing ones are a broken connection.
                            silence, initial = _BOOKMARK_SILENCE, False
                        elif not initial and silence == _INITIAL_SILENCE:
                            silence = seconds + _WATCH_GRACE
                    patience.reschedule(loop.time() + silence)
        except TimeoutError:
            if not patience.expired():
                raise
            if initial:
                raise _NotStreamed(f"nothing said for {silence:.0f} s, and no end of the initial events") from None
            raise Unreachable(f"{server.host}: the watch of {kind.title} was silent for {silence:.0f} s") from None


def _watch_event(line: bytes) -> WatchEvent:
    """Raises BadAnswer, and Refused for an ERROR event."""
    try:
        event = _event.decode(line)
        if event.type == "ERROR":
            status = _error_event.decode(line).object
            raise Refused(status.code, status.reason, status.message)
    except _UNDECODABLE as cause:
        raise BadAnswer(f"no watch event: {cause}") from cause
    return event


def _version_of(event: WatchEvent) -> _Version:
    """Raises BadAnswer."""
    try:
        return _version.decode(event.object.get("metadata", _NO_METADATA))
    except _UNDECODABLE as cause:
        raise BadAnswer(f"no watch event: {cause}") from cause


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

    async def _list(self) -> None:
        """Brings one complete list into the log, by pages."""
        self._begin_list()
        seen: set[Key] = set()
        version = ""
        async with contextlib.aclosing(list_pages(self._server, self.kind)) as pages:
            async for page in pages:
                version = page.metadata.resource_version
                items = page.items or ()
                if self.expected is None:
                    self.expected = len(items) + (page.metadata.remaining_item_count or 0)
                for item in items:
                    if (key := await self.writer.observe(item, listed=True)) is not None:
                        seen.add(key)
                    self.listed += 1
        await self._end_list(seen, version)

    def _begin_list(self) -> None:
        self.relists += 1
        self.listed = 0
        self.expected = None

    async def _end_list(self, seen: set[Key], version: str) -> None:
        """The list is complete: what it missed has gone, and the log has all of it."""
        await self.writer.gone_all_but(seen, version)
        await self.writer.settle()
        await self.writer.purge_other_versions()
        self.writer.forget_gone()
        self.version = version
        self.synced.set()
        await self._on_synced(self.kind, version, len(self.writer))
        log.debug("synced", cluster=self._cluster, type=self.kind.title, objects=len(self.writer))

    async def _watch(self, version: str | None) -> None:
        """Follows from `version`, moving it on, until the watch ends by itself; None: with the present state first."""
        initial: set[Key] | None = None
        if version is None:
            self._begin_list()
            initial = set()
        async with contextlib.aclosing(watch_events(self._server, self.kind, version, self._opened)) as events:
            async for event in events:
                self.last_event = time.time()
                if event.type == "BOOKMARK":
                    metadata = _version_of(event)
                    reached = metadata.resource_version
                    if initial is not None:
                        if (metadata.annotations or {}).get(_INITIAL_EVENTS_END) != "true":
                            raise _NotStreamed("a bookmark that does not end the initial events")
                        await self._end_list(initial, reached)
                        initial = None
                elif event.type in ("ADDED", "MODIFIED"):
                    key = await self.writer.observe(event.object, listed=initial is not None)
                    reached = self.writer.last_version
                    if initial is not None:
                        self.listed += 1
                        if key is not None:
                            initial.add(key)
                elif event.type == "DELETED":
                    await self.writer.gone(event.object)
                    reached = self.writer.last_version
                else:
                    raise BadAnswer(f"a watch event of type {event.type!r}")
                self.version = reached or self.version
                if self._on_change is not None and event.type != "BOOKMARK":
                    self._on_change(self.kind)
        if initial is not None:
            raise _NotStreamed("the watch ended before its initial events did")

    async def _opened(self) -> None:
        """A watch has begun: what was said of trouble before is over."""
        if self._broken > 1:
            await self._on_synced(self.kind, self.version, len(self.writer))

    async def list_then_watch(self) -> None:
        """One list, then watches from it until the version expires or something breaks. Always raises."""
        self._broken = 0
        while True:
            if not self.synced.is_set() and not self._server.streams_lists:
                await self._list()
            # Until there is a list, the watch brings it along.
            following = self.version if self.synced.is_set() else None
            started = time.monotonic()
            reason, retry_after = "", None
            try:
                await self._watch(following)
            except _NotStreamed as cause:
                log.info("lists are taken by pages", cluster=self._cluster, type=self.kind.title, reason=str(cause))
                self._server.streams_lists = False
                continue
            except (Unreachable, BadAnswer) as cause:
                if not self.synced.is_set():
                    raise
                # The version still holds: no list is needed until the server says so.
                reason = str(cause)
            except Refused as refused:
                if not self.synced.is_set() and following is None and refused.code in (400, 422):
                    self._server.streams_lists = False
                    continue
                if not self.synced.is_set() or refused.expired or refused.code == 404:
                    raise
                reason, retry_after = str(refused), refused.retry_after
            lasted = time.monotonic() - started
            if reason:
                self._broken = self._broken + 1 if lasted < _STABLE else 1
                log.debug("watch broken", cluster=self._cluster, type=self.kind.title, reason=reason)
                if self._broken > 1:
                    await self._on_trouble(self.kind, reason)
                await self._pause(self._broken, retry_after)
                continue
            self._broken = 0
            if lasted < 1.0:
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
