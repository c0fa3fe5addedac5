"""Followed types: discovery again and again, and an informer for each type that the rules want."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable

import msgspec
import structlog

from deltalog import HistoryEnded, LogUnavailable
from deltalog.jetstream.backoff import Backoff
from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.records import HealthChanged
from deltalog.wire.resource_type import ResourceType, Scope
from producers.errors import ClusterUnavailable
from producers.follow.cluster_state import ClusterState, Treatment
from producers.follow.normalize import Normalizer
from producers.follow.ownership import Deposed
from producers.follow.recorded import Recorded
from producers.follow.type_informer import TypeInformer
from producers.metrics import StateCounts
from producers.rules.rules import Chosen
from producers.supervision import BY_ITSELF, CANCELLED, WorkEnded, being_cancelled, beyond
from producers.upstream.definitions import Definitions
from producers.upstream.discovery import Discovered, discover, registered, server_version, streams_lists
from producers.upstream.shared_types import shared

log = structlog.get_logger("producers.follow.followed_types")

# Groups whose objects define other types.
_DEFINING = ("apiextensions.k8s.io", "apiregistration.k8s.io")


class FollowedTypes:
    """The types of one cluster under one ownership. One task runs `run`; informers are tasks of `tasks`.

    `discovery_changed` is called when discovery found something new, or may have; `on_synced` whenever a type's
    complete list is in the log.
    """

    def __init__(
        self,
        state: ClusterState,
        recorded: Recorded,
        tasks: asyncio.TaskGroup,
        *,
        discovery_changed: Callable[[], None],
        on_synced: Callable[[TypeInformer], None],
    ) -> None:
        self._state = state
        self._recorded = recorded
        self._tasks = tasks
        self._discovery_changed = discovery_changed
        self._on_synced = on_synced
        # What each informer was started with: when that changes, it is restarted.
        self._running: dict[GroupResource, tuple[asyncio.Task[None], ResourceType, Scope, Treatment, int]] = {}
        self._definitions = Definitions(state.server, state.rediscover.set)
        # Once for all informers.
        self._on_type_synced, self._on_trouble = self._synced, self._trouble
        # Counts the servers that the cluster's name led to.
        self._server_number = 0

    # -- discovery -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Discovers types, starts and ends informers, until cancelled. Raises Deposed, AppendError."""
        state, timing = self._state, self._state.timing
        backoff = Backoff(*timing.discover_again)
        doubt = Backoff(timing.discover_doubtful, timing.discover_every, jitter=0.0)
        known, asked = None, True
        while True:
            try:
                version = await server_version(state.server)
                if not state.discovered.is_set():
                    state.server.streams_lists = streams_lists(version)
                found = await self._discovered()
            except ClusterUnavailable as cause:
                level = logging.INFO if state.unreachable is None else logging.DEBUG
                log.log(level, "types cannot be discovered", cluster=state.name, reason=str(cause))
                if state.undiscovered is None:
                    state.undiscovered = f"types cannot be discovered: {cause}"
                    state.probe_now.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.pause()):
                        await self._next()
                continue
            backoff.reset()
            state.undiscovered = None
            if state.unreachable is not None:
                state.probe_now.set()
            if found.left_out and (known is None or found.left_out != known.left_out):
                some = ", ".join(sorted(found.left_out)[:3])
                log.warning("types left out: no names", cluster=state.name, types=some, number=len(found.left_out))
            wanted = {one.resource.group_resource: one for one in state.member.rules.chosen(found.types)}
            await self._follow(wanted, found)
            del wanted
            await self._recorded.state_discovery(found)
            # The log has it from here on; to hold it for each cluster would be another copy of it.
            found = msgspec.structs.replace(found, document=b"")
            await self._recorded.state_cluster(version)
            state.discovered.set()
            if asked or found != known:
                self._discovery_changed()
            known = found
            if found.whole:
                doubt.reset()
                asked = await self._next()
            else:
                asked = await self._next(doubt.pause())

    async def _next(self, within: float | None = None) -> bool:
        """Returns when it is time to discover again, after about `within` seconds at the latest.

        None: `ProducerTiming.discover_every`. True if there is a reason to, false if only the time has come.
        """
        timing, rediscover = self._state.timing, self._state.rediscover
        asked = False
        within = timing.discover_every if within is None else within
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within * random.uniform(0.8, 1.2)):
                await rediscover.wait()
                asked = True
                # A CRD's condition Established follows its creation; several come together.
                await asyncio.sleep(timing.discover_together)
        rediscover.clear()
        return asked

    async def _discovered(self) -> Discovered:
        found = await discover(self._state.server, self._definitions.current)
        if absent := self._recorded.groups - found.groups:
            away = absent & await registered(self._state.server)
            found = msgspec.structs.replace(found, doubtful=found.doubtful | away)
        return found

    async def follow_definitions(self) -> None:
        """Follows the definitions of custom types, until cancelled."""
        await self._definitions.run()

    async def follow_server(self) -> None:
        """Takes all lists again when the cluster's name leads to another server, until cancelled."""
        server = self._state.server
        while True:
            await server.moved.wait()
            server.moved.clear()
            log.warning("another server", cluster=self._state.name, server=server.host)
            self._server_number += 1
            self._definitions.forget()
            self._state.rediscover.set()

    # -- informers -------------------------------------------------------------------------------------------------

    async def _follow(self, wanted: dict[GroupResource, Chosen], found: Discovered) -> None:
        recorded = self._recorded
        for key in [key for key in recorded.types if key not in wanted]:
            if found.doubts(key) and self._still_chosen(key):
                await self._doubt(key)
            else:
                await self._stop(key)
                await recorded.remove_type(key)
        for key, chosen in wanted.items():
            synced = recorded.types.get(key, chosen.resource).version
            if synced != chosen.resource.version and GroupVersion(key.group, synced) in found.stale:
                # Another version would append all objects again, and once more when this one is served again.
                await self._doubt(key)
                continue
            await recorded.state_type(self._as_recorded(chosen))
            running = self._running.get(key)
            # What other versions there are changes nothing for the one that is synced.
            synced_as = shared(msgspec.structs.replace(chosen.resource, versions=()))
            like = (synced_as, chosen.scope, self._state.treatment, self._server_number)
            if running is not None and running[1:] != like:
                await self._stop(key)
                running = None
            if running is None:
                self._running[key] = (self._start(key, chosen.resource, chosen.scope), *like)

    def _as_recorded(self, chosen: Chosen) -> ResourceType:
        """A type as its record states it: with what is synced of it."""
        return shared(
            msgspec.structs.replace(
                chosen.resource,
                namespaces=chosen.scope.namespaces,
                selector=chosen.scope.selector,
                pruned=self._state.treatment.pruning.of(chosen.resource).pointers,
            )
        )

    def _still_chosen(self, key: GroupResource) -> bool:
        """Whether the rules still want a type that cannot be discovered now, as far as that is known."""
        informer = self._state.informers.get(key)
        return informer is None or self._state.member.rules.choose((informer.resource,)) is not None

    async def _doubt(self, key: GroupResource) -> None:
        """A type whose API does not answer stays as it is; that it is not followed is recorded."""
        if key not in self._running:
            await self._unhealthy(key, "its API is registered and not served now")

    def _start(self, key: GroupResource, resource: ResourceType, scope: Scope) -> asyncio.Task[None]:
        # At once, since the first lists are those of the informers that there are.
        informer = self._state.informers[key] = self._informer(key, resource, scope)
        return self._tasks.create_task(self._inform(key, informer), name=sys.intern(str(key)))

    async def _inform(self, key: GroupResource, informer: TypeInformer) -> None:
        """Runs a type's informer, and another one where it fails with what nothing expects. Raises as informers do."""
        state, timing = self._state, self._state.timing
        backoff: Backoff | None = None
        while True:
            started = time.monotonic()
            try:
                # As `endless`, which is not called: of what there is very much, a frame more would be felt.
                try:
                    await informer.run()
                except asyncio.CancelledError:
                    if being_cancelled():
                        raise
                    raise WorkEnded(CANCELLED) from None
                raise WorkEnded(BY_ITSELF)
            except Exception as cause:
                unexpected = beyond(cause, Deposed, LogUnavailable, HistoryEnded)
                if unexpected is None or being_cancelled():
                    raise
                reason = state.failed(unexpected, str(key))
                informer.error, informer.error_since = reason, informer.error_since or time.time()
                if backoff is None or time.monotonic() - started >= timing.stable:
                    backoff = Backoff(*timing.failure_backoff)
            informer.synced.clear()
            self._recorded.unhealthy.add(key)
            # What was appended and is on its way is in the log once this is: the next informer reads it back.
            await self._recorded.append(HealthChanged(resource=key, reason=reason))
            await backoff.wait()
            if state.informers.get(key) is not informer:
                return
            state.going_again()
            informer = state.informers[key] = self._informer(key, informer.resource, informer.scope, informer)

    def _informer(
        self, key: GroupResource, resource: ResourceType, scope: Scope, before: TypeInformer | None = None
    ) -> TypeInformer:
        """A type's informer; `before`: the one that failed, for whoever looks until this one is synced."""
        state, recorded, text = self._state, self._recorded, sys.intern(str(key))
        informer = TypeInformer(
            state.server,
            recorded.log,
            recorded.appender,
            recorded.owner,
            resource,
            scope,
            Normalizer(state.name, resource, state.treatment.pruning),
            state.counts.setdefault(text, StateCounts()),
            on_synced=self._on_type_synced,
            on_trouble=self._on_trouble,
            on_change=self._changed if resource.group in _DEFINING else None,
            relist_every=state.treatment.relist_every,
            timing=state.timing,
            metrics=None if state.metrics is None else state.metrics.of(state.name, text),
        )
        if before is not None:
            informer.error, informer.error_since = before.error, before.error_since
        return informer

    async def _stop(self, key: GroupResource) -> None:
        running = self._running.pop(key, None)
        self._state.informers.pop(key, None)
        if running is not None:
            running[0].cancel()
            await asyncio.wait((running[0],))

    # -- what informers report -------------------------------------------------------------------------------------

    def _changed(self, resource: ResourceType) -> None:
        """A CRD or aggregated API was added, changed or removed: types may have been."""
        if resource.resource == "customresourcedefinitions" and self._definitions.followed:
            # They tell of it themselves, when they have it.
            return
        self._state.rediscover.set()

    async def _synced(self, informer: TypeInformer) -> None:
        key = informer.resource.group_resource
        if key in self._state.informers:
            self._on_synced(informer)
        await self._recorded.state_synced(key, informer.version, informer.objects)

    async def _trouble(self, resource: ResourceType, reason: str) -> None:
        """Records that a type cannot be read now; once, until it can."""
        key = resource.group_resource
        if (informer := self._state.informers.get(key)) is not None:
            informer.error = reason
            informer.error_since = informer.error_since or time.time()
        await self._unhealthy(key, reason)

    async def _unhealthy(self, key: GroupResource, reason: str) -> None:
        if key not in self._recorded.unhealthy and self._state.unreachable is None:
            log.warning("type cannot be read", cluster=self._state.name, type=str(key), reason=reason)
        await self._recorded.state_unhealthy(key, reason)
