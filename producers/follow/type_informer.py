"""The informer: one type of one cluster in the log, by one reflector, or by one for each namespace that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from deltalog import Appender
from deltalog.jetstream.stream import Log
from deltalog.wire.resource_type import ResourceType, Scope
from producers.flag import Flag
from producers.follow.normalize import Normalizer
from producers.follow.ownership import Owner
from producers.follow.reflector import Reflector
from producers.follow.writer import Writer
from producers.metrics import StateCounts, TypeMetrics
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.apiserver import ApiServer
from producers.upstream.objects import RawObject, Unusable, identify
from producers.upstream.watching import Target


class TypeInformer:
    """Keeps the log's view of one type equal to what the rules want of it. Owned by its cluster's producer.

    `on_synced` is called when all of it is in the log (with the version of the last list), `on_trouble` with the reason
    when something cannot be read. `synced` is set while the log holds all of it.
    """

    __slots__ = (
        "_on_synced", "_on_trouble", "_whole", "counts", "error", "error_since", "reflectors", "resource", "scope",
        "synced",
    )  # fmt: skip

    def __init__(
        self,
        server: ApiServer,
        log_: Log,
        appender: Appender,
        owner: Owner,
        resource: ResourceType,
        scope: Scope,
        normalizer: Normalizer,
        counts: StateCounts,
        *,
        on_synced: Callable[[TypeInformer], Awaitable[None]],
        on_trouble: Callable[[ResourceType, str], Awaitable[None]],
        on_change: Callable[[ResourceType], None] | None = None,
        relist_every: float = 0.0,
        metrics: TypeMetrics | None = None,
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self.resource = resource
        self.scope = scope
        self.counts = counts
        self.synced = Flag()
        self.error = ""
        self.error_since = 0.0
        self._on_synced = on_synced
        self._on_trouble = on_trouble
        self._whole = Writer(log_, appender, owner, resource, normalizer, counts, timing=timing)
        accepts = scope.covers if scope.namespaces and not scope.only else None
        self.reflectors: list[Reflector] = []
        for namespace in scope.only or (None,):
            self.reflectors.append(
                Reflector(
                    owner.cluster,
                    server,
                    Target(resource.path_within(namespace), scope.selector),
                    self._whole
                    if namespace is None
                    else Writer(
                        log_, appender, owner, resource, normalizer, counts, namespace=namespace, timing=timing
                    ),
                    self,
                    on_change=None if on_change is None else lambda: on_change(resource),
                    accepts=accepts,
                    relist_every=relist_every,
                    metrics=metrics,
                    timing=timing,
                )
            )

    # -- its state ---------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> int:
        """Objects that exist, as far as the log knows. O(objects)."""
        return sum(len(reflector.writer) for reflector in self.reflectors)

    @property
    def listed(self) -> int:
        """Objects of the lists under way."""
        return sum(reflector.listed for reflector in self.reflectors)

    @property
    def expected(self) -> int | None:
        """How many the lists under way will have, as far as servers tell it."""
        known = [reflector.expected for reflector in self.reflectors if reflector.expected is not None]
        return sum(known) if known else None

    @property
    def version(self) -> str:
        """The cluster's version that the last list was of, or the last event had."""
        return max((reflector.version for reflector in self.reflectors), key=lambda version: (len(version), version))

    @property
    def relists(self) -> int:
        """Lists taken so far."""
        return sum(reflector.relists for reflector in self.reflectors)

    @property
    def odd(self) -> int:
        """Objects that the log has not as they are."""
        return sum(len(reflector.writer.odd) for reflector in self.reflectors)

    @property
    def odd_lines(self) -> tuple[str, ...]:
        """What is the matter with a few of them."""
        return tuple(line for reflector in self.reflectors for line in reflector.writer.odd.lines())[:3]

    @property
    def synced_at(self) -> float:
        """When its last complete list was in the log, in seconds since 1970."""
        return min(reflector.synced_at for reflector in self.reflectors)

    @property
    def last_event(self) -> float:
        """When a watch last sent something, in seconds since 1970."""
        return max(reflector.last_event for reflector in self.reflectors)

    async def hand_over(self, found: RawObject, *, deleted: bool) -> asyncio.Future[int]:
        """Takes in a state that did not come by list or watch; see `Writer.hand_over`. Raises Unusable too."""
        namespace = identify(found).namespace or ""
        key = self.resource.group_resource
        if self.scope.selector:
            raise Unusable(f"{key} are synced by a label selector, which the cluster itself applies")
        if not self.scope.covers(namespace):
            raise Unusable(f"{key} of namespace {namespace} are not synced")
        if not self.synced.is_set():
            raise Unusable(f"{key} are being listed")
        only = self.scope.only
        reflector = self.reflectors[only.index(namespace) if only else 0]
        return await reflector.writer.hand_over(found, deleted=deleted)

    # -- its work ----------------------------------------------------------------------------------------------------

    def retry_now(self) -> None:
        """Ends pauses between attempts: the cluster is ready again."""
        for reflector in self.reflectors:
            reflector.retry_now()

    def relist(self) -> None:
        """Compares the whole list with the log now."""
        for reflector in self.reflectors:
            reflector.relist()

    async def complete(self) -> None:
        """The log has lost some of what it had: appends that again. `on_synced` is called when that is done.

        Raises HistoryChanged, AppendError.
        """
        for reflector in self.reflectors:
            await reflector.complete()

    def run(self) -> Awaitable[None]:
        """Follows until cancelled. Raises Deposed, HistoryChanged, and what the log fails with."""
        if self.scope.only:
            return self._run_namespaces(frozenset(self.scope.only))
        # A task more for each type of each cluster would be felt, or even a frame.
        return self.reflectors[0].run()

    async def _run_namespaces(self, only: frozenset[str]) -> None:
        # Other namespaces may have been wanted before.
        await self._whole.read_back()
        await self._whole.delete_outside(only)
        await self._whole.settle()
        async with asyncio.TaskGroup() as tasks:
            for reflector in self.reflectors:
                tasks.create_task(reflector.run(), name=f"{self.resource.group_resource}: {reflector.target.path}")

    async def reflector_synced(self) -> None:
        """A reflector has synced; see `Told`."""
        if all(reflector.synced.is_set() for reflector in self.reflectors):
            self.synced.set()
            self.error, self.error_since = "", 0.0
            await self._on_synced(self)

    async def reflector_in_trouble(self, reason: str) -> None:
        """A reflector has trouble; see `Told`."""
        await self._on_trouble(self.resource, reason)
