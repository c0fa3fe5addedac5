"""The reflector: keeps the log equal to one list of a cluster, in three layers: one request, list then watch, for ever.

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
from functools import partial
from typing import NamedTuple

import aiohttp
import msgspec
import structlog

from deltalog import AppendError, BrokerUnavailable
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.wire.kubernetes import ObjectName
from producers.errors import ClusterUnavailable
from producers.follow.normalize import Members, Unusable, changed_at, identify, members, without_line_feeds
from producers.follow.writer import Stored, Writer
from producers.metrics import TypeMetrics
from producers.upstream.apiserver import ApiServer, Refused, Unreachable

log = structlog.get_logger("producers.follow.reflector")

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
# Seconds between two objects of which it is measured when their cluster changed them.
_SAMPLE_EVERY = 1.0


# Why a list was taken, as metrics name it.
FIRST, EXPIRED, BROKEN, LOG, PERIODIC, REQUEST = "first", "expired", "broken", "log", "periodic", "request"


class Target(NamedTuple):
    """What is listed and watched: a path, and a label selector (empty: all of it)."""

    path: str
    selector: str = ""

    def query(self) -> dict[str, str]:
        return {"labelSelector": self.selector} if self.selector else {}


class BadAnswer(ClusterUnavailable):
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


async def list_pages(server: ApiServer, target: Target) -> AsyncGenerator[_Page, None]:
    """The pages of one consistent list, unparsed objects in each. Raises Refused (410: begin again), Unreachable.

    The next page is asked for before one is yielded, so that it comes while this one is written; no more than that.
    """
    query = {"limit": str(PAGE), **target.query()}
    coming = asyncio.create_task(server.get(target.path, query))
    try:
        while True:
            body, _ = await coming
            page = _page_of(body)
            if page.metadata.next_page:
                query = {**query, "continue": page.metadata.next_page}
                coming = asyncio.create_task(server.get(target.path, query))
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
    """Lines of any length, those together that have come. (`readline` has a limit; a line has several MB at times.)"""
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


class Watch:
    """One watch, from its request until the server or `end` ends it. Read once, by `events`."""

    def __init__(self, server: ApiServer, target: Target, version: str | None) -> None:
        self._server = server
        self._target = target
        self._version = version
        self._ending = False
        self._patience: asyncio.Timeout | None = None

    def end(self) -> None:
        """Ends it between two events: what was read is digested, nothing more is read."""
        self._ending = True
        if self._patience is not None and self._patience.when() is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def events(self, opened: Callable[[], Awaitable[None]]) -> AsyncGenerator[WatchEvent, None]:
        """The events from `version` until the end; `opened` is called once it has begun.

        `version` None asks for the present state first, as ADDED events that end with a bookmark (KEP-3157).
        A connection that is silent for longer than this server has shown to be is given up as half-open.
        Raises Refused, Unreachable, BadAnswer.
        """
        seconds = random.randint(*_WATCH_SECONDS)
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)} | self._target.query()
        initial = self._version is None
        if self._version is None:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            query["resourceVersion"] = self._version
        loop = asyncio.get_running_loop()
        silence = _INITIAL_SILENCE if initial else seconds + _WATCH_GRACE
        async with self._server.open(self._target.path, query, silence=seconds + _WATCH_GRACE) as response:
            await opened()
            patience: asyncio.Timeout
            try:
                async with (
                    asyncio.timeout(silence) as patience,
                    contextlib.aclosing(lines(response.content)) as arriving,
                ):
                    self._patience = patience
                    if self._ending:
                        # It was told to before it began.
                        patience.reschedule(loop.time())
                    async for together in arriving:
                        # Only the server's silence counts, not what we take to digest what it said.
                        patience.reschedule(None)
                        for line in together:
                            event = _watch_event(line)
                            yield event
                            if self._ending:
                                return
                            if event.type == "BOOKMARK":
                                # This server sends them, about one a minute: two missing ones are a broken connection.
                                silence, initial = _BOOKMARK_SILENCE, False
                            elif not initial and silence == _INITIAL_SILENCE:
                                silence = seconds + _WATCH_GRACE
                        patience.reschedule(loop.time() + silence)
            except TimeoutError:
                if not patience.expired():
                    raise
                if self._ending:
                    return
                said = f"nothing said for {silence:.0f} s"
                if initial:
                    raise _NotStreamed(f"{said}, and no end of the initial events") from None
                raise Unreachable(f"{self._server.host}: watch of {self._target.path}: {said}") from None


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


class Reflector:
    """Keeps the log's view of one target equal to the cluster's. Owned by its informer.

    `accepts`: which namespaces' objects count, where the target has more than is wanted. `relist_every`: seconds
    between two lists that are taken though the watch goes well, 0: none.

    `listed` counts objects of the list under way; `synced` is set while the log holds a complete list; `version`
    is the cluster's version up to which the log has everything; `synced_at`, `last_event`: seconds since 1970.
    """

    def __init__(
        self,
        cluster: str,
        server: ApiServer,
        target: Target,
        writer: Writer,
        *,
        on_synced: Callable[[], Awaitable[None]],
        on_trouble: Callable[[str], Awaitable[None]],
        on_change: Callable[[], None] | None = None,
        accepts: Callable[[str], bool] | None = None,
        relist_every: float = 0.0,
        metrics: TypeMetrics | None = None,
    ) -> None:
        self.target = target
        self.writer = writer
        self.listed = 0
        self.expected: int | None = None
        self.synced = asyncio.Event()
        self.synced_at = 0.0
        self.version = ""
        self.last_event = 0.0
        self.relists = 0
        self._cluster = cluster
        self._server = server
        self._on_synced = on_synced
        self._on_trouble = on_trouble
        self._on_change = on_change
        self._accepts = accepts
        self._relist_every = relist_every
        self._metrics = metrics
        self._sampled = 0.0
        self._hurry = asyncio.Event()
        self._broken = 0
        # Whether the watch is still in its initial events.
        self._initial = False
        self._watch_now: Watch | None = None
        writer.on_failure = self._log_failed
        # Whether the next list is the same one, taken by pages as it could not be streamed.
        self._another_way = False
        self._why = FIRST
        # When a list is due though nothing is wrong: the first one soon enough that a hundred reflectors, started
        # together, are spread over the whole interval from then on.
        self._due = time.monotonic() + relist_every * random.uniform(0.1, 1.0) if relist_every else float("inf")

    def hurry(self) -> None:
        """Ends a pause between attempts: the cluster is said to be back."""
        self._hurry.set()

    def _log_failed(self) -> None:
        """The log did not take in what a watch told: there may be no further event that would run into that."""
        self._hurry.set()
        if self._watch_now is not None:
            self._watch_now.end()

    def relist(self) -> None:
        """Compares the whole list with the log now."""
        self._due = 0.0
        self._why = REQUEST
        self._hurry.set()
        if self._watch_now is not None:
            self._watch_now.end()

    # -- lists -----------------------------------------------------------------------------------------------------

    async def _observe(self, found: Members, *, listed: bool, stored: Stored | None = None) -> ObjectName | None:
        if self._accepts is not None:
            try:
                if not self._accepts(identify(found).namespace or ""):
                    return None
            except Unusable:
                # The writer leaves it out, and says so.
                pass
        return await self.writer.observe(found, listed=listed, stored=stored)

    async def _list(self) -> None:
        """Brings one complete list into the log, by pages."""
        self._begin_list()
        seen: set[ObjectName] = set()
        version = ""
        async with contextlib.aclosing(list_pages(self._server, self.target)) as pages:
            async for page in pages:
                version = page.metadata.resource_version
                items = page.items or ()
                if self.expected is None:
                    self.expected = len(items) + (page.metadata.remaining_item_count or 0)
                for item in items:
                    if (key := await self._observe(item, listed=True)) is not None:
                        seen.add(key)
                    self.listed += 1
        await self._end_list(seen, version)

    def _begin_list(self) -> None:
        self._began = time.monotonic()
        self.listed = 0
        self.expected = None
        if not self._another_way:
            self.relists += 1
            if self._metrics is not None:
                self._metrics.listing(self._why)
        self._another_way = False

    async def _end_list(self, seen: set[ObjectName], version: str) -> None:
        """The list is complete: what it missed has gone, and the log has all of it."""
        await self.writer.gone_all_but(seen, version)
        await self.writer.settle()
        await self.writer.purge_other_versions()
        self.writer.forget_gone()
        self.version = version
        self.synced_at = time.time()
        self.synced.set()
        if self._relist_every:
            if self._due < time.monotonic():
                self._due = time.monotonic() + self._relist_every * random.uniform(0.9, 1.1)
        else:
            self._due = float("inf")
        if self._metrics is not None:
            self._metrics.listed(time.monotonic() - self._began)
        await self._on_synced()
        log.debug(
            "synced",
            cluster=self._cluster,
            type=str(self.writer.kind.group_resource),
            path=self.target.path,
            objects=len(self.writer),
            why=self._why,
        )
        self._why = PERIODIC

    # -- watches ---------------------------------------------------------------------------------------------------

    async def _watch(self, version: str | None) -> None:
        """Follows from `version`, moving it on, until the watch ends by itself; None: with the present state first."""
        initial: set[ObjectName] | None = None
        self._initial = version is None
        if version is None:
            self._begin_list()
            initial = set()
        watch = Watch(self._server, self.target, version)
        ending: asyncio.TimerHandle | None = None

        def beyond_list() -> None:
            """From now on a list can be asked for; one under way answers such a request itself."""
            nonlocal ending
            self._watch_now = watch
            if self._due != float("inf"):
                loop = asyncio.get_running_loop()
                ending = loop.call_later(max(self._due - time.monotonic(), 0.0), watch.end)

        if initial is None:
            beyond_list()
        try:
            async with contextlib.aclosing(watch.events(self._opened)) as events:
                async for event in events:
                    initial = await self._take_in(event, initial)
                    if self._initial and initial is None:
                        self._initial = False
                        beyond_list()
        finally:
            self._watch_now = None
            if ending is not None:
                ending.cancel()
        if initial is not None:
            raise _NotStreamed("the watch ended before its initial events did")

    async def _take_in(self, event: WatchEvent, initial: set[ObjectName] | None) -> set[ObjectName] | None:
        """Takes in one event; `initial` are the keys of the initial events so far, None behind their end."""
        self.last_event = time.time()
        # The writer says the version of what it took in; what it is not shown is read here.
        metadata = _version_of(event) if event.type == "BOOKMARK" or self._accepts is not None else None
        if event.type == "BOOKMARK":
            assert metadata is not None
            if initial is not None:
                if (metadata.annotations or {}).get(_INITIAL_EVENTS_END) != "true":
                    raise _NotStreamed("a bookmark that does not end the initial events")
                await self._end_list(initial, metadata.resource_version)
                initial = None
        elif event.type in ("ADDED", "MODIFIED"):
            key = await self._observe(event.object, listed=initial is not None, stored=self._timed(event, initial))
            if initial is not None:
                self.listed += 1
                if key is not None:
                    initial.add(key)
        elif event.type == "DELETED":
            await self.writer.gone(event.object, stored=self._timed(event, initial))
        else:
            raise BadAnswer(f"a watch event of type {event.type!r}")
        reached = self.writer.last_version if metadata is None else metadata.resource_version
        self.version = reached or self.version
        if self._on_change is not None and event.type != "BOOKMARK":
            self._on_change()
        return initial

    def _timed(self, event: WatchEvent, initial: set[ObjectName] | None) -> Stored | None:
        """What measures how long a change took to the log; called when it is there."""
        if self._metrics is None or initial is not None:
            return None
        changed = 0
        # Reading the time out of every object would be felt.
        if event.type != "DELETED" and self.last_event - self._sampled >= _SAMPLE_EVERY:
            self._sampled = self.last_event
            changed = changed_at(event.object)
        return partial(self._stored, time.monotonic(), changed)

    def _stored(self, arrived: float, changed: int, sequence: int, error: AppendError | None) -> None:
        if error is not None:
            return
        assert self._metrics is not None
        self._metrics.appended(time.monotonic() - arrived)
        if changed:
            self._metrics.changed(time.time() + self._server.clock_offset - changed)

    async def _opened(self) -> None:
        """A watch has begun: what was said of trouble before is over."""
        if self._broken > 1:
            await self._on_synced()

    async def list_then_watch(self) -> None:
        """One list, then watches from it until the version expires or something breaks. Always raises."""
        self._broken = 0
        while True:
            # What failed behind the last event of a watch is found here: `_log_failed` has ended that.
            self.writer.check()
            due = time.monotonic() >= self._due
            listing = due or not self.synced.is_set()
            if listing and not self._server.streams_lists:
                await self._list()
                listing = False
            started = time.monotonic()
            reason, retry_after = "", None
            try:
                # The list comes along with the watch where the server streams lists.
                await self._watch(None if listing else self.version)
            except _NotStreamed as cause:
                log.info("lists are taken by pages", cluster=self._cluster, path=self.target.path, reason=str(cause))
                self._server.streams_lists = False
                self._another_way = True
                continue
            except (Unreachable, BadAnswer) as cause:
                if not self.synced.is_set():
                    raise
                # The version still holds: no list is needed until the server says so.
                reason = str(cause)
            except Refused as refused:
                if self._initial and refused.code in (400, 422):
                    self._server.streams_lists = False
                    self._another_way = True
                    continue
                if not self.synced.is_set() or refused.expired or refused.code == 404:
                    raise
                reason, retry_after = str(refused), refused.retry_after
            finally:
                lasted = time.monotonic() - started
                if self._metrics is not None:
                    self._metrics.watched(lasted, "broken" if reason else "ended")
            if reason:
                self._broken = self._broken + 1 if lasted < _STABLE else 1
                log.debug("watch broken", cluster=self._cluster, path=self.target.path, reason=reason)
                if self._broken > 1:
                    await self._on_trouble(reason)
                await self._pause(self._broken, retry_after)
                continue
            self._broken = 0
            if lasted < 1.0 and time.monotonic() < self._due:
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
                    self._why = EXPIRED
                    attempt = 0 if time.monotonic() - started > 10 else attempt
                else:
                    reason = str(refused)
                    self._why = BROKEN
                    await self._on_trouble(reason)
            except (Unreachable, BadAnswer) as cause:
                reason = str(cause)
                self._why = BROKEN
                await self._on_trouble(reason)
            except (AppendError, BrokerUnavailable, JetStreamRefused) as cause:
                reason = str(cause)
                self._why = LOG
                read_back = True
            self.synced.clear()
            attempt += 1
            log.info("listing again", cluster=self._cluster, path=self.target.path, reason=reason, attempt=attempt)
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
