"""Metrics of the serving side, for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from materializer.burying import RememberedDeletions
from materializer.materializer import Materializer
from materializer.store import Store
from materializer.streams import LogStreams
from materializer.window import CLOSED


class OpenWatches(Protocol):
    """What the metrics ask of the watches: how many are open."""

    open: int


class PagedLists(Protocol):
    """What the metrics ask of the lists that are read in pages: their number, their bytes, and how many had to go."""

    evicted: int

    @property
    def size(self) -> int:
        """About the bytes that they cost."""
        ...

    def __len__(self) -> int: ...


class ServiceMetrics:
    """The registry of one service, and what its requests count in it.

    `gather`: makes the text of all processes, where this one is one of several.
    """

    def __init__(self, materializer: Materializer, watches: OpenWatches, frozen: PagedLists) -> None:
        self.registry = CollectorRegistry()
        self._others: list[CollectorRegistry] = []
        self.gather: Callable[[], Awaitable[bytes]] | None = None
        self.requests = Counter(
            "kubebraid_requests_total", "Requests answered", ("verb", "resource", "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "kubebraid_request_duration_seconds",
            "Duration of requests other than watches",
            ("verb",),
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0),
            registry=self.registry,
        )
        self.stalls = Counter(
            "kubebraid_stalled_answers_total", "Answers broken off as nobody took them", registry=self.registry
        )
        self.watch_bytes = Counter("kubebraid_watch_bytes_total", "Bytes sent to watchers", registry=self.registry)
        self.registry.register(_StoreCollector(materializer, watches, frozen))

    def also(self, registry: CollectorRegistry) -> None:
        """Shows what another part of the process counts as well."""
        self._others.append(registry)

    async def answer(self) -> web.Response:
        """The answer of /metrics: of all processes where this is one of several (`gather`)."""
        text = self.text() if self.gather is None else await self.gather()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def text(self) -> bytes:
        """What this process counts, in Prometheus' text format."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *self._others))


def _of_streams(streams: LogStreams) -> Iterable[Metric]:
    """What the log's streams were like at the last look, some seconds ago."""
    extents = {"events": streams.events, "state": streams.state}
    there = {name: extent for name, extent in extents.items() if extent is not None}
    for key, text, value in (
        ("messages", "Messages in a stream of the log", attrgetter("messages")),
        ("bytes", "Bytes that they take", attrgetter("bytes")),
        ("first_sequence", "First sequence in a stream of the log", attrgetter("first_sequence")),
        ("last_sequence", "Last sequence in a stream of the log", attrgetter("last_sequence")),
    ):
        family = GaugeMetricFamily(f"kubebraid_log_stream_{key}", text, labels=("stream",))
        for name, extent in there.items():
            family.add_metric((name,), value(extent))
        yield family
    yield GaugeMetricFamily(
        "kubebraid_log_events_since_timestamp_seconds", "Oldest change that the events have", value=streams.oldest / 1e9
    )
    there_is = float(streams.state is not None)
    yield GaugeMetricFamily("kubebraid_log_state_present", "0 while there is no state stream", value=there_is)
    yield GaugeMetricFamily("kubebraid_log_state_lag", "Messages that the state lacks of the events", value=streams.lag)
    yield GaugeMetricFamily(
        "kubebraid_log_state_lacks_to", "Sequence up to which the state has lost messages", value=streams.lacks_to
    )


def _of_deletions(found: RememberedDeletions, now: int) -> Iterable[Metric]:
    """What is remembered of deletions; `now` by the log's clock, in nanoseconds since 1970."""
    since = 0.0 if found.since is None else max(0.0, (now - found.since) / 1e9)
    for key, text, value in (
        ("", "Deletions that are remembered", found.number),
        ("_bytes", "Memory that they take, about", found.bytes),
        ("_log_bytes", "Bytes that the log holds for them", found.log_bytes),
        ("_seconds", "How long ago the oldest of them was", since),
    ):
        yield GaugeMetricFamily(f"kubebraid_deletions{key}", text, value=value)


def _of_bodies(store: Store) -> Iterable[Metric]:
    """What objects take, by type, and what packing their bodies did and costs."""
    if (packing := store.packing) is None:
        return
    labels = ("group", "resource")
    held = GaugeMetricFamily("kubebraid_objects_held_bytes", "Live objects as they are held", labels=labels)
    plain = GaugeMetricFamily("kubebraid_objects_plain_bytes", "What they would take with plain bodies", labels=labels)
    sizes = GaugeMetricFamily("kubebraid_dictionary_bytes", "Dictionary that bodies are packed under", labels=labels)
    for key, type_store in store.types.items():
        held.add_metric(key, type_store.held)
        plain.add_metric(key, type_store.held + type_store.saved)
        if (present := packing.present(key)) is not None:
            sizes.add_metric(key, len(present.content))
    yield from (held, plain, sizes)
    counts = packing.counts()
    yield GaugeMetricFamily("kubebraid_plain_bytes", "Of what is held, what is not packed yet", value=store.plain.size)
    yield GaugeMetricFamily("kubebraid_dictionaries", "Dictionaries, also old ones in use", value=counts.dictionaries)
    yield GaugeMetricFamily("kubebraid_dictionaries_bytes", "Memory that they take", value=counts.dictionary_bytes)
    for name, text, value in (
        ("packed_plain_bytes", "Bytes of bodies that were to be packed", counts.plain),
        ("packed_held_bytes", "What became of them", counts.held),
        ("packing_seconds", "CPU time for that", counts.packing_seconds),
        ("dictionaries_trained", "Dictionaries that were trained and taken", counts.trainings),
        ("dictionaries_refused", "Dictionaries that were trained and would not pay", counts.refused),
        ("training_seconds", "CPU time for both", counts.training_seconds),
    ):
        yield CounterMetricFamily(f"kubebraid_{name}", text, value=value)


class _StoreCollector(Collector):
    """Reads the store when asked, so that counting costs its hot path nothing."""

    def __init__(self, materializer: Materializer, watches: OpenWatches, frozen: PagedLists) -> None:
        self._materializer = materializer
        self._watches = watches
        self._frozen = frozen

    def collect(self) -> Iterable[Metric]:
        materializer = self._materializer
        store = materializer.store
        objects = GaugeMetricFamily("kubebraid_objects", "Live objects", labels=("cluster", "group", "resource"))
        for (group, resource), type_store in store.types.items():
            for cluster, entries in type_store.clusters.items():
                objects.add_metric((cluster, group, resource), len(entries))
        yield objects
        yield from _of_bodies(store)
        messages = CounterMetricFamily("kubebraid_log_messages", "Messages by what became of them", labels=("outcome",))
        for outcome, count in store.outcomes.items():
            messages.add_metric((outcome.value,), count)
        messages.add_metric(("unreadable",), materializer.unreadable)
        yield messages
        yield GaugeMetricFamily("kubebraid_applied_index", "Last sequence applied", value=store.applied)
        yield GaugeMetricFamily("kubebraid_resume_floor", "Lowest index a watch may resume at", value=store.floor)
        yield from _of_deletions(materializer.forgetting.remembered(), materializer.log.now())
        purged = materializer.forgetting.purging.purged
        yield GaugeMetricFamily(
            "kubebraid_deletions_to_purge",
            "Forgotten deletions that are still in the log",
            value=len(materializer.forgetting.purging),
        )
        yield CounterMetricFamily(
            "kubebraid_deletions_purged", "Forgotten deletions that were taken out of the log here", value=purged
        )
        window = store.window
        if window.start != CLOSED:
            yield GaugeMetricFamily(
                "kubebraid_window_start", "Index past which every event is here", value=window.start
            )
        yield GaugeMetricFamily("kubebraid_window_events", "Events that are kept", value=len(window))
        yield GaugeMetricFamily("kubebraid_window_bytes", "Memory that they cost, about", value=window.size)
        yield CounterMetricFamily("kubebraid_window_dropped", "Events dropped for want of memory", value=window.dropped)
        yield CounterMetricFamily(
            "kubebraid_doubtful_deletions",
            "Deletions shown to watches of what they may never have been shown",
            value=window.doubtful,
        )
        if (streams := materializer.streams) is not None:
            yield from _of_streams(streams)
        age = materializer.age()
        yield GaugeMetricFamily("kubebraid_log_age_seconds", "Since all of the log was known to be here", value=age)
        reachable = float(materializer.outage_seconds() is None)
        yield GaugeMetricFamily("kubebraid_log_reachable", "0 while the log cannot be read", value=reachable)
        if (snapshots := materializer.snapshots) is not None:
            yield GaugeMetricFamily("kubebraid_snapshot_index", "Index of the last snapshot", value=snapshots.index)
            yield GaugeMetricFamily("kubebraid_snapshot_bytes", "Length of that snapshot", value=snapshots.size)
        yield GaugeMetricFamily("kubebraid_watches", "Watches open", value=self._watches.open)
        yield GaugeMetricFamily("kubebraid_frozen_lists", "Lists that are read in pages", value=len(self._frozen))
        yield GaugeMetricFamily("kubebraid_frozen_lists_bytes", "Memory that they cost, about", value=self._frozen.size)
        yield CounterMetricFamily(
            "kubebraid_frozen_lists_evicted", "Lists whose further pages are 410", value=self._frozen.evicted
        )
        stale = GaugeMetricFamily("kubebraid_cluster_stale", "1 if a cluster's objects may be old", labels=("cluster",))
        for one in store.clusters.values():
            stale.add_metric((one.name,), 0.0 if materializer.stale_reason(one) is None else 1.0)
        yield stale
