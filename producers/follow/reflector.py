"""The reflector: keeps the log equal to one list of a cluster: list, then watch, and the same again after each failure.

A list or watch ends by itself, with an expired version (410), with another refusal, or because the server cannot be
reached (`producers.upstream.watching`). Contract: https://kubernetes.io/docs/reference/using-api/api-concepts/
(efficient detection of changes); client-go tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from deltalog import AppendError, LogUnavailable
from deltalog.jetstream.backoff import Backoff
from deltalog.wire.kubernetes import ObjectKey
from producers.errors import ClusterUnavailable
from producers.flag import Flag
from producers.follow.writer import Stored, Writer
from producers.metrics import TypeMetrics
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.apiserver import ApiServer, BadAnswer, RequestRefused, TooLarge, Unreachable
from producers.upstream.deadlines import CLOCK
from producers.upstream.objects import RawObject, Unusable, changed_at, readable_identity
from producers.upstream.turns import Turn, beginnings_of_process
from producers.upstream.watching import BegunLine, NotStreamed, Target, Watch, WatchEvent, list_pages, version_of

log = structlog.get_logger("producers.follow.reflector")

# Why a list was taken, as metrics name it.
FIRST, EXPIRED, BROKEN, LOG, PERIODIC, REQUEST = "first", "expired", "broken", "log", "periodic", "request"


# -- list, then watch ----------------------------------------------------------------------------------------------


Pause = tuple[Backoff, float | None] | None
"""What is waited for until the next attempt, and for how many seconds the server asks; None: nothing."""


class Told(Protocol):
    """Who is told how a reflector fares: its informer."""

    async def reflector_synced(self) -> None:
        """A complete list is in the log, or a watch that had trouble goes on."""

    async def reflector_in_trouble(self, reason: str) -> None:
        """Lists or watches fail."""


class Reflector:
    """Keeps the log's view of one target equal to the cluster's. Owned by its informer, which is `told` how it fares.

    `accepts`: which namespaces' objects count, where the target has more than is wanted. `relist_every`: seconds
    between two lists that are taken although the watch works, 0: none.

    `listed` counts objects of the list under way; `synced` is set while the log holds a complete list; `version`
    is the cluster's version up to which the log has everything; `synced_at`, `last_event`: seconds since 1970.
    """

    # There is one for each type of each cluster.
    __slots__ = (
        "_accepts", "_anew", "_anew_at", "_another_way", "_asked", "_attempt", "_began", "_broken", "_by_pages",
        "_cluster", "_completes", "_due", "_initial", "_lacking_known", "_lacks", "_list_backoff",
        "_metrics", "_on_change", "_read_back", "_relist_every", "_retry_now", "_sampled", "_server", "_timing",
        "_told", "_turn", "_watch_backoff", "_watch_began", "_watch_now", "_why", "expected", "last_event",
        "listed", "relists", "synced", "synced_at", "target", "version", "writer",
    )  # fmt: skip

    def __init__(
        self,
        cluster: str,
        server: ApiServer,
        target: Target,
        writer: Writer,
        told: Told,
        *,
        on_change: Callable[[], None] | None = None,
        accepts: Callable[[str], bool] | None = None,
        relist_every: float = 0.0,
        metrics: TypeMetrics | None = None,
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self.target = target
        self.writer = writer
        self.listed = 0
        self.expected: int | None = None
        self.synced = Flag()
        self.synced_at = 0.0
        self.version = ""
        self.last_event = 0.0
        self.relists = 0
        self._cluster = cluster
        self._server = server
        self._told = told
        self._on_change = on_change
        self._accepts = accepts
        self._relist_every = relist_every
        self._metrics = metrics
        self._timing = timing
        self._sampled = 0.0
        self._retry_now = Flag()
        # Watches that broke one after the other.
        self._broken = 0
        # Made with the first failure that they are for.
        self._watch_backoff: Backoff | None = None
        self._list_backoff: Backoff | None = None
        # Lists that failed one after the other.
        self._attempt = 0
        # Whether all is to begin with a list, and when it last did; whether the log is to be read back before it.
        self._anew = self._read_back = True
        self._anew_at = 0.0
        # The keys of the initial events of a watch that began with a list, until that is in the log.
        self._initial: set[ObjectKey] | None = None
        # When the watch began that is under way, 0: none is; it, once past its list.
        self._watch_began = 0.0
        self._watch_now: Watch | None = None
        # While it begins; until it has its list, or so long that others are not to wait for that.
        self._turn: Turn | None = None
        writer.on_failure = self._log_failed
        # Whether the log has lost objects, so that a list has to bring them again that begins when it is known which.
        self._lacks = self._lacking_known = self._completes = False
        # Whether the next list is the same one, taken by pages as it could not be streamed.
        self._another_way = False
        # Whether a watch could not get past something, and lists of this target are taken by pages for that.
        self._by_pages = False
        self._why = FIRST
        # When a list is due though nothing is wrong: the first one soon enough that a hundred reflectors, started
        # together, are spread over the whole interval from then on.
        self._due = time.monotonic() + relist_every * random.uniform(0.1, 1.0) if relist_every else math.inf
        # Whether somebody asked for a list since the last one began: that one may have been read before.
        self._asked = False

    def retry_now(self) -> None:
        """Ends a pause between attempts: the cluster is ready again."""
        self._retry_now.set()

    def _log_failed(self) -> None:
        """The log did not take an event in: there may be no further event that would run into that."""
        self._retry_now.set()
        if self._watch_now is not None:
            self._watch_now.end()

    def relist(self) -> None:
        """Compares the whole list with the log now; behind a list that is under way, once that has ended."""
        self._due = 0.0
        self._asked = True
        self._why = REQUEST
        self._retry_now.set()
        if self._watch_now is not None:
            self._watch_now.end()

    async def complete(self) -> None:
        """The log has lost some of what it had: appends that again. `synced` is set when that is done.

        Raises HistoryChanged, AppendError.
        """
        self.synced.clear()
        self._lacks, self._lacking_known = True, False
        await self.writer.find_lacking()
        self._lacking_known = True
        self.relist()

    # -- lists -----------------------------------------------------------------------------------------------------

    async def _observe(self, found: RawObject, *, listed: bool, stored: Stored | None = None) -> ObjectKey | None:
        if self._accepts is not None:
            try:
                if not self._accepts(readable_identity(found).namespace or ""):
                    return None
            except Unusable:
                # The writer leaves it out, and logs it.
                pass
        return await self.writer.observe(found, listed=listed, stored=stored)

    async def _list(self) -> None:
        """Brings one complete list into the log, by pages."""
        self._begin_list()
        seen: set[ObjectKey] = set()
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
        self.writer.odd.begin_list()
        self._completes = self._lacks and self._lacking_known
        self._asked = False
        self.listed = 0
        self.expected = None
        if not self._another_way:
            self.relists += 1
            if self._metrics is not None:
                self._metrics.listing(self._why)
        self._another_way = False

    async def _end_list(self, seen: set[ObjectKey], version: str) -> None:
        """The list is complete: what is not in it is deleted, and the log has all of it."""
        await self.writer.delete_all_but(seen, version)
        await self.writer.settle()
        await self.writer.purge_other_versions()
        self.writer.forget_deleted()
        self.writer.odd.end_list()
        self.version = version
        self.synced_at = time.time()
        if self._completes:
            self.writer.lacking.clear()
            self._lacks = self._completes = False
        if not self._lacks:
            self.synced.set()
        self._end_turn()
        if self._asked:
            self._due = 0.0
        elif self._relist_every:
            if self._due < time.monotonic():
                self._due = time.monotonic() + self._relist_every * random.uniform(0.9, 1.1)
        else:
            self._due = math.inf
        if self._metrics is not None:
            self._metrics.listed(time.monotonic() - self._began)
        if self._lacks:
            # It began before it was known what the log lacks.
            self._due = 0.0
        else:
            await self._told.reflector_synced()
        log.debug(
            "synced",
            cluster=self._cluster,
            type=str(self.writer.resource.group_resource),
            path=self.target.path,
            objects=len(self.writer),
            why=self._why,
        )
        self._why = REQUEST if self._asked else PERIODIC

    # -- watches ---------------------------------------------------------------------------------------------------

    async def _next_watch(self) -> Watch:
        """The next watch, and before it the list by pages that it goes on from, where one is due."""
        if self._anew:
            self._anew_at = time.monotonic()
            # Thousands begin together, when a process starts or NATS is there again.
            self._turn = await beginnings_of_process().begin()
            if self._read_back:
                await self.writer.read_back()
                self._read_back = False
            self._anew = False
            self._broken = 0
            self._watch_backoff = None
        # What failed behind the last event of a watch is found here: `_log_failed` has ended that.
        self.writer.check()
        # What a watch is ended for is due, however coarse clocks are.
        due = time.monotonic() + CLOCK >= self._due
        # Without a version a watch begins with what there is, and says nothing of what is gone.
        listing = due or not self.synced.is_set() or not self.version
        if listing and (self._by_pages or not self._server.streams_lists):
            await self._list()
            listing = False
        self._watch_began = time.monotonic()
        # The list comes along with the watch where the server streams lists.
        self._initial = None
        if listing:
            self._begin_list()
            self._initial = set()
        watch = Watch(self._server, self.target, None if listing else self.version)
        if not listing:
            self._past_list(watch)
        return watch

    def _past_list(self, watch: Watch) -> None:
        """From now on a list is taken when it is due or asked for, also where that was under the last one."""
        self._watch_now = watch
        if self._due != math.inf:
            watch.end_at(asyncio.get_running_loop().time() + max(self._due - time.monotonic(), 0.0))

    async def _take_in_lines(self, watch: Watch, lines: Sequence[bytes]) -> None:
        """Takes in events of the watch, until it is to end."""
        for line in lines:
            event = await watch.begun_event(line) if type(line) is BegunLine else watch.event(line)
            await self._take_in(event)
            if watch.changing and not self._server.streams_lists:
                # What is known of the server by now: this one would not end either.
                raise NotStreamed("changes come before the end of the initial events")
            # Its parts are views of the whole line: not held until the next one comes.
            del event
            if self._initial is None and self._watch_now is None:
                self._past_list(watch)
            if watch.ending:
                return

    async def _take_in(self, event: WatchEvent) -> None:
        """Takes in one event; `_initial` are the keys of the initial events so far, None behind their end."""
        self.last_event = time.time()
        initial = self._initial
        # The writer knows the version of what it took in; that of other events is read here.
        metadata = version_of(event) if event.type == "BOOKMARK" or self._accepts is not None else None
        if event.type == "BOOKMARK":
            assert metadata is not None
            if initial is not None:
                if not metadata.ends_initial_events:
                    raise NotStreamed("a bookmark that does not end the initial events")
                await self._end_list(initial, metadata.resource_version)
                self._initial = None
        elif event.type in ("ADDED", "MODIFIED"):
            key = await self._observe(event.object, listed=initial is not None, stored=self._timed(event, initial))
            if initial is not None:
                self.listed += 1
                if key is not None:
                    initial.add(key)
        elif event.type == "DELETED":
            await self.writer.observe_deleted(event.object, stored=self._timed(event, initial))
        else:
            # Its text is the server's, which may be what it was shown of us.
            raise BadAnswer("a watch event of an unknown type")
        reached = self.writer.last_version if metadata is None else metadata.resource_version
        self.version = reached or self.version
        if self._on_change is not None and event.type != "BOOKMARK":
            self._on_change()

    def _timed(self, event: WatchEvent, initial: set[ObjectKey] | None) -> Stored | None:
        """What measures how long a change took to the log; called when it is there."""
        if self._metrics is None or initial is not None:
            return None
        changed = 0
        # Reading the time out of every object would be felt.
        if event.type != "DELETED" and self.last_event - self._sampled >= self._timing.sample_every:
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

    def _end_watch(self, why: str) -> float:
        """Returns for how long it has lasted, in seconds."""
        lasted, self._watch_began = time.monotonic() - self._watch_began, 0.0
        self._watch_now = self._initial = None
        if self._metrics is not None:
            self._metrics.watched(lasted, why)
        return lasted

    async def _watch_ended(self) -> None:
        """A watch has ended by itself; the next one goes on from its version."""
        if self._initial is not None:
            raise NotStreamed("the watch ended before its initial events did")
        lasted = self._end_watch("ended")
        self._broken = 0
        self._watch_backoff = None
        if lasted < 1.0 and time.monotonic() + CLOCK < self._due:
            # A server that ends watches at once must not be asked in a loop.
            await asyncio.sleep(random.uniform(0.5, 1.0))

    async def _watch_failed(self, cause: ClusterUnavailable) -> Pause:
        """A watch has failed: the next one goes on from its version, unless only a list helps. Raises `cause` then."""
        if isinstance(cause, NotStreamed):
            log.info("lists are taken by pages", cluster=self._cluster, path=self.target.path, reason=str(cause))
            self._take_by_pages()
            return None
        reason, retry_after = str(cause), None
        if isinstance(cause, RequestRefused):
            if self._initial is not None and cause.code in (400, 422):
                self._take_by_pages()
                return None
            lasts = not cause.expired and cause.code != 404
            retry_after = cause.retry_after
        else:
            # The version still holds: no list is needed until the server refuses it.
            lasts = isinstance(cause, (Unreachable, BadAnswer))
            if isinstance(cause, TooLarge):
                # What a watch cannot get past, a list by pages may.
                self._by_pages = True
                lasts = False
        if not (lasts and self.synced.is_set()):
            raise cause
        if self._end_watch("broken") >= self._timing.stable:
            self._broken = 0
            self._watch_backoff = None
        self._broken += 1
        log.debug("watch broken", cluster=self._cluster, path=self.target.path, reason=reason)
        if self._broken > 1:
            await self._told.reflector_in_trouble(reason)
        if self._watch_backoff is None:
            self._watch_backoff = Backoff(*self._timing.list_backoff)
        return self._watch_backoff, retry_after

    def _take_by_pages(self) -> None:
        """The server does not stream lists as it is asked: the same list is taken in another way."""
        self._end_watch("ended")
        self._server.streams_lists = False
        self._another_way = True

    # -- for ever --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """List-then-watch, again and again, until cancelled. Raises Deposed, HistoryChanged."""
        try:
            while True:
                watch: Watch | None = None
                lines: Sequence[bytes] | None = None
                pause: Pause = None
                try:
                    try:
                        # This is all that there is while a watch is idle, of each type of each cluster: no coroutine
                        # within, no generator, no timer of its own.
                        async with await self._next_watch() as watch:
                            if self._broken > 1:
                                # The type is healthy again.
                                await self._told.reflector_synced()
                            while (lines := watch.arrived()) is not None:
                                if lines:
                                    await self._take_in_lines(watch, lines)
                                else:
                                    await watch.more()
                        await self._watch_ended()
                    except ClusterUnavailable as cause:
                        if not self._watch_began:
                            raise
                        pause = await self._watch_failed(cause)
                except (ClusterUnavailable, LogUnavailable) as cause:
                    pause = await self._again(cause)
                if pause is not None:
                    # Behind the `except`, and nothing of what failed is held meanwhile: it may last.
                    del watch, lines
                    await self._pause(*pause)
        finally:
            self._end_turn()
            if self._watch_began:
                self._end_watch("ended")

    async def _again(self, cause: ClusterUnavailable | LogUnavailable) -> Pause:
        """Only a list helps: it is taken after a pause."""
        if self._watch_began:
            self._end_watch("ended")
        self._end_turn()
        retry_after, expired = None, False
        if isinstance(cause, RequestRefused):
            retry_after, expired = cause.retry_after, cause.expired
        reason = str(cause)
        if expired:
            reason = "the version expired"
            self._why = EXPIRED
        elif isinstance(cause, LogUnavailable):
            self._why = LOG
            self._read_back = True
        else:
            self._why = BROKEN
            await self._told.reflector_in_trouble(reason)
        lasted = time.monotonic() - self._anew_at > self._timing.stable
        if self._list_backoff is None or (lasted and (expired or self.synced.is_set())):
            self._list_backoff = Backoff(*self._timing.list_backoff)
            self._attempt = 0
        self.synced.clear()
        self._attempt += 1
        attempt, path = self._attempt, self.target.path
        log.info("listing again", cluster=self._cluster, path=path, reason=reason, attempt=attempt)
        self._anew = True
        return self._list_backoff, retry_after

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    async def _pause(self, backoff: Backoff, retry_after: float | None) -> None:
        """Waits for the next pause, or as long as the server asks; ends early on `retry_now`."""
        self._retry_now.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(backoff.pause(), retry_after or 0.0)):
                await self._retry_now.wait()
