"""Metrics of the producing side, for Prometheus; by cluster and type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from producers.follow.cluster_producer import ClusterProducer

_BY_TYPE = ("cluster", "type")
_LIST_BUCKETS = (0.1, 0.5, 2.0, 10.0, 60.0)
_WATCH_BUCKETS = (1.0, 10.0, 60.0, 300.0, 600.0)
_LAG_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
_CHANGE_BUCKETS = (1.0, 2.0, 5.0, 15.0, 60.0)


class Metrics:
    """The registry of one process's producers. `clusters`: those it knows, asked at each scrape; `refused`: streams
    that take nothing in, likewise.
    """

    def __init__(
        self,
        clusters: Callable[[], Iterable[ClusterProducer]] = tuple,
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

    def of(self, cluster: str, title: str) -> TypeMetrics:
        return TypeMetrics(self, cluster, title)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class TypeMetrics:
    """What one type of one cluster counts."""

    def __init__(self, metrics: Metrics, cluster: str, title: str) -> None:
        self._metrics = metrics
        self._labels = (cluster, title)
        self._lists = metrics.lists.labels(cluster, title)
        self._watches = metrics.watches.labels(cluster, title)
        self._appending = metrics.appending.labels(cluster, title)
        self._lag = metrics.lag.labels(cluster, title)

    def listing(self, why: str) -> None:
        self._metrics.relists.labels(*self._labels, why).inc()

    def listed(self, seconds: float) -> None:
        self._lists.observe(seconds)

    def watched(self, seconds: float, reason: str) -> None:
        self._watches.observe(seconds)
        self._metrics.restarts.labels(*self._labels, reason).inc()

    def appended(self, seconds: float) -> None:
        self._appending.observe(seconds)

    def changed(self, seconds: float) -> None:
        self._lag.observe(max(seconds, 0.0))


class _Clusters(Collector):
    """Reads what producers know when asked, so that counting costs their hot path nothing."""

    def __init__(self, clusters: Callable[[], Iterable[ClusterProducer]]) -> None:
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
            held.add_metric((cluster.name,), float(cluster.holding))
            if cluster.holding:
                up.add_metric((cluster.name,), float(cluster.unreachable is None))
            for informer in cluster.informers.values():
                labels = (cluster.name, str(informer.kind.group_resource))
                objects.add_metric(labels, informer.objects)
                synced.add_metric(labels, float(informer.synced.is_set()))
                event.add_metric(labels, informer.last_event)
            for title, counts in cluster.counts.items():
                for outcome in counts.__struct_fields__:
                    deltas.add_metric((cluster.name, title, outcome), getattr(counts, outcome))
        return (objects, synced, event, deltas, held, up)
