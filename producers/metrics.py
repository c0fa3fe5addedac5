"""Metrics of the producing side, for Prometheus; by cluster and type."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BY_TYPE = ("cluster", "type")
_LIST_BUCKETS = (0.1, 0.5, 2.0, 10.0, 60.0)
_WATCH_BUCKETS = (1.0, 10.0, 60.0, 300.0, 600.0)
_LAG_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
_CHANGE_BUCKETS = (1.0, 2.0, 5.0, 15.0, 60.0)


class StateCounts(msgspec.Struct):
    """What became of the states that a cluster sent of one type, since this process began.

    `refused`: another producer owns the cluster; `suppressed`: the log had the state already; `failed`: the log did not
    acknowledge it; `unusable`: no object, or one without a name.
    """

    added: int = 0
    modified: int = 0
    deleted: int = 0
    suppressed: int = 0
    refused: int = 0
    failed: int = 0
    unusable: int = 0


class TypeReading(NamedTuple):
    """One followed type at a scrape; `last_event` in seconds since 1970."""

    type: str
    objects: int
    synced: bool
    last_event: float


class ClusterReading(NamedTuple):
    """One cluster at a scrape. `held`: it is this producer's; `up`: it can be read; `counts` by type."""

    name: str
    held: bool
    up: bool
    types: list[TypeReading]
    counts: dict[str, StateCounts]


class ProducerMetrics:
    """The registry of one process's producers.

    `clusters` are readings of those it knows, `refused` the streams that take nothing in; both are asked for at each
    scrape, so that counting costs the hot path nothing.
    """

    def __init__(
        self,
        clusters: Callable[[], Iterable[ClusterReading]] = tuple,
        refused: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self._types: dict[tuple[str, str], TypeMetrics] = {}
        registry.register(_Types(self._types))
        self.clock = Gauge(
            "kubebraid_cluster_clock_offset_seconds",
            "How far a cluster's clock is ahead of ours, from its answers' Date",
            ("cluster",),
            registry=registry,
        )
        refusing = Gauge(
            "kubebraid_producer_log_refusing", "Streams that take nothing in, as when they are full", registry=registry
        )
        refusing.set_function(lambda: float(len(list(refused()))))
        registry.register(_Clusters(clusters))

    def deletions(self, remembered: Callable[[], float]) -> None:
        """Shows how many deletions are remembered, asked for at each scrape."""
        gauge = Gauge("kubebraid_producer_deletions", "Deletions that the producer remembers", registry=self.registry)
        gauge.set_function(remembered)

    def of(self, cluster: str, resource: str) -> TypeMetrics:
        """The counters of one type, e.g. `deployments.apps`; the same ones each time."""
        found = self._types.get((cluster, resource))
        if found is None:
            found = self._types[cluster, resource] = TypeMetrics()
        return found

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Observed:
    """What a histogram has observed: how many by bucket, without those below, the last one above all bounds."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts = array("Q", bytes(8 * (len(bounds) + 1)))
        self.sum = 0.0

    def observe(self, bounds: tuple[float, ...], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value


_Counts = dict[str, tuple[float, float]]
"""A counter by its last label: its value, and since when there is one, in seconds since 1970."""


class TypeMetrics:
    """The counters of one type of one cluster.

    As numbers, which become metrics at a scrape: those of prometheus_client take 9 KB for each type of each cluster.
    """

    __slots__ = ("appending", "created", "first_list", "lag", "lists", "relists", "restarts", "watches")

    def __init__(self) -> None:
        self.created = time.time()
        # Made with the first observation: most types of most clusters change seldom.
        self.lists: _Observed | None = None
        # Seconds that the first list took: most types have no other one.
        self.first_list: float | None = None
        self.watches: _Observed | None = None
        self.appending: _Observed | None = None
        self.lag: _Observed | None = None
        self.relists: _Counts = {}
        self.restarts: _Counts | None = None

    def listing(self, why: str) -> None:
        """A list has begun; `why` as the metric names it."""
        _count(self.relists, why)

    def listed(self, seconds: float) -> None:
        """A list is in the log."""
        if self.first_list is None:
            self.first_list = seconds
            return
        if self.lists is None:
            self.lists = self.all_lists()
        self.lists.observe(_LIST_BUCKETS, seconds)

    def all_lists(self) -> _Observed:
        """What is observed of lists."""
        if self.lists is not None:
            return self.lists
        first = _Observed(_LIST_BUCKETS)
        if self.first_list is not None:
            first.observe(_LIST_BUCKETS, self.first_list)
        return first

    def watched(self, seconds: float, reason: str) -> None:
        """A watch has ended."""
        if self.watches is None:
            self.watches = _Observed(_WATCH_BUCKETS)
        self.watches.observe(_WATCH_BUCKETS, seconds)
        self.restarts = self.restarts or {}
        _count(self.restarts, reason)

    def appended(self, seconds: float) -> None:
        """A watch event's delta is acknowledged, so long after the event arrived."""
        if self.appending is None:
            self.appending = _Observed(_LAG_BUCKETS)
        self.appending.observe(_LAG_BUCKETS, seconds)

    def changed(self, seconds: float) -> None:
        """A delta is acknowledged, so long after its object was changed in the cluster."""
        if self.lag is None:
            self.lag = _Observed(_CHANGE_BUCKETS)
        self.lag.observe(_CHANGE_BUCKETS, max(seconds, 0.0))


def _count(counts: _Counts, label: str) -> None:
    value, since = counts.get(label) or (0.0, time.time())
    counts[label] = (value + 1, since)


class _Types(Collector):
    """The metrics of types, made of their counters when they are asked for."""

    def __init__(self, types: Mapping[tuple[str, str], TypeMetrics]) -> None:
        self._types = types

    def collect(self) -> Iterable[Metric]:
        yield self._histogram(
            "kubebraid_producer_list_duration_seconds",
            "Duration of whole lists, until they are in the log",
            _LIST_BUCKETS,
            TypeMetrics.all_lists,
        )
        yield self._histogram(
            "kubebraid_producer_watch_duration_seconds",
            "How long watches lasted",
            _WATCH_BUCKETS,
            attrgetter("watches"),
        )
        yield self._counter("kubebraid_producer_watch_restarts", "Watches that ended, by how", attrgetter("restarts"))
        yield self._counter("kubebraid_producer_lists", "Lists taken, by why", attrgetter("relists"))
        yield self._histogram(
            "kubebraid_producer_append_seconds",
            "From the arrival of a watch event to the acknowledgement of its delta",
            _LAG_BUCKETS,
            attrgetter("appending"),
        )
        yield self._histogram(
            "kubebraid_producer_lag_seconds",
            "From an object's change (managedFields' latest time, whole seconds, corrected by the cluster's clock) "
            "to the acknowledgement of its delta; sampled",
            _CHANGE_BUCKETS,
            attrgetter("lag"),
        )

    def _histogram(
        self, name: str, documentation: str, bounds: tuple[float, ...], of: Callable[[TypeMetrics], _Observed | None]
    ) -> Metric:
        family = HistogramMetricFamily(name, documentation, labels=_BY_TYPE)
        nothing = _Observed(bounds)
        texts = [*map(repr, bounds), "+Inf"]
        for labels, counters in list(self._types.items()):
            observed = of(counters) or nothing
            family.add_metric(
                labels, list(zip(texts, map(float, accumulate(observed.counts)), strict=True)), observed.sum
            )
            family.add_sample(f"{name}_created", dict(zip(_BY_TYPE, labels, strict=True)), counters.created)
        return family

    def _counter(self, name: str, documentation: str, of: Callable[[TypeMetrics], _Counts | None]) -> Metric:
        family = CounterMetricFamily(name, documentation, labels=(*_BY_TYPE, "reason"))
        for labels, counters in list(self._types.items()):
            for reason, (value, since) in list((of(counters) or {}).items()):
                family.add_metric((*labels, reason), value, created=since)
        return family


class _Clusters(Collector):
    """Metrics that are read when they are asked for."""

    def __init__(self, clusters: Callable[[], Iterable[ClusterReading]]) -> None:
        self._clusters = clusters

    def collect(self) -> Iterable[Metric]:
        objects = GaugeMetricFamily("kubebraid_producer_objects", "Objects known to live", labels=_BY_TYPE)
        synced = GaugeMetricFamily(
            "kubebraid_producer_synced", "1 while the log holds a complete list that is being followed", labels=_BY_TYPE
        )
        event = GaugeMetricFamily(
            "kubebraid_producer_last_event_timestamp_seconds", "When a watch last said something", labels=_BY_TYPE
        )
        deltas = CounterMetricFamily(
            "kubebraid_producer_deltas",
            "What became of the states that clusters told: appended (added, modified, deleted), suppressed as known, "
            "refused by the log as another producer owns the cluster, failed, unusable",
            labels=(*_BY_TYPE, "outcome"),
        )
        held = GaugeMetricFamily(
            "kubebraid_producer_cluster_held", "1 for clusters of this producer", labels=["cluster"]
        )
        up = GaugeMetricFamily("kubebraid_producer_cluster_up", "1 while a cluster can be followed", labels=["cluster"])
        for cluster in self._clusters():
            held.add_metric((cluster.name,), float(cluster.held))
            if cluster.held:
                up.add_metric((cluster.name,), float(cluster.up))
            for one in cluster.types:
                labels = (cluster.name, one.type)
                objects.add_metric(labels, one.objects)
                synced.add_metric(labels, float(one.synced))
                event.add_metric(labels, one.last_event)
            for resource, counts in cluster.counts.items():
                for outcome in counts.__struct_fields__:
                    deltas.add_metric((cluster.name, resource, outcome), getattr(counts, outcome))
        return (objects, synced, event, deltas, held, up)
