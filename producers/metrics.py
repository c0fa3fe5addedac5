"""Metrics of the producing side, for Prometheus; by cluster and type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
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
        self.lists = Histogram(
            "kubebraid_producer_list_duration_seconds",
            "Duration of whole lists, until they are in the log",
            _BY_TYPE,
            buckets=_LIST_BUCKETS,
            registry=registry,
        )
        self.watches = Histogram(
            "kubebraid_producer_watch_duration_seconds",
            "How long watches lasted",
            _BY_TYPE,
            buckets=_WATCH_BUCKETS,
            registry=registry,
        )
        self.restarts = Counter(
            "kubebraid_producer_watch_restarts_total",
            "Watches that ended, by how",
            (*_BY_TYPE, "reason"),
            registry=registry,
        )
        self.relists = Counter(
            "kubebraid_producer_lists_total", "Lists taken, by why", (*_BY_TYPE, "reason"), registry=registry
        )
        self.appending = Histogram(
            "kubebraid_producer_append_seconds",
            "From the arrival of a watch event to the acknowledgement of its delta",
            _BY_TYPE,
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.lag = Histogram(
            "kubebraid_producer_lag_seconds",
            "From an object's change (managedFields' latest time, whole seconds, corrected by the cluster's clock) "
            "to the acknowledgement of its delta; sampled",
            _BY_TYPE,
            buckets=_CHANGE_BUCKETS,
            registry=registry,
        )
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

    def of(self, cluster: str, resource: str) -> TypeMetrics:
        """The counters of one type, e.g. `deployments.apps`."""
        return TypeMetrics(self, cluster, resource)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class TypeMetrics:
    """The counters of one type of one cluster."""

    def __init__(self, metrics: ProducerMetrics, cluster: str, resource: str) -> None:
        self._metrics = metrics
        self._labels = (cluster, resource)
        self._lists = metrics.lists.labels(cluster, resource)
        self._watches = metrics.watches.labels(cluster, resource)
        self._appending = metrics.appending.labels(cluster, resource)
        self._lag = metrics.lag.labels(cluster, resource)

    def listing(self, why: str) -> None:
        """A list has begun; `why` as the metric names it."""
        self._metrics.relists.labels(*self._labels, why).inc()

    def listed(self, seconds: float) -> None:
        """A list is in the log."""
        self._lists.observe(seconds)

    def watched(self, seconds: float, reason: str) -> None:
        """A watch has ended."""
        self._watches.observe(seconds)
        self._metrics.restarts.labels(*self._labels, reason).inc()

    def appended(self, seconds: float) -> None:
        """A watch event's delta is acknowledged, so long after the event arrived."""
        self._appending.observe(seconds)

    def changed(self, seconds: float) -> None:
        """A delta is acknowledged, so long after its object was changed in the cluster."""
        self._lag.observe(max(seconds, 0.0))


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
