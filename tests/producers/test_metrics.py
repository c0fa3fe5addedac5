"""Metrics of types: the text that prometheus_client makes of its own counters, made of little memory."""

from __future__ import annotations

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from producers import metrics
from producers.metrics import ProducerMetrics

TYPES = [("alpha", "pods"), ("alpha", 'odd"\n\\.example.io'), ("bravo", "deployments.apps")]
SECONDS = st.floats(0, 1000) | st.sampled_from([0.0, 0.005, 0.1, 1.0, 2.0, 60.0, 600.0])
# What happens to which type.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(TYPES),
        st.sampled_from(["listing", "listed", "watched", "appended", "changed"]),
        SECONDS,
        st.sampled_from(["first", "broken", "expired"]),
    ),
    max_size=60,
)


class _Reference:
    """The same counters as prometheus_client has them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"kubebraid_producer_{name}", text, ("cluster", "type"), buckets=buckets, registry=registry
            )

        def counter(name: str, text: str) -> Counter:
            return Counter(f"kubebraid_producer_{name}", text, ("cluster", "type", "reason"), registry=registry)

        self.lists = histogram(
            "list_duration_seconds", "Duration of whole lists, until they are in the log", metrics._LIST_BUCKETS
        )
        self.watches = histogram("watch_duration_seconds", "How long watches lasted", metrics._WATCH_BUCKETS)
        self.restarts = counter("watch_restarts_total", "Watches that ended, by how")
        self.relists = counter("lists_total", "Lists taken, by why")
        self.appending = histogram(
            "append_seconds",
            "From the arrival of a watch event to the acknowledgement of its delta",
            metrics._LAG_BUCKETS,
        )
        self.lag = histogram(
            "lag_seconds",
            "From an object's change (managedFields' latest time, whole seconds, corrected by the cluster's clock) "
            "to the acknowledgement of its delta; sampled",
            metrics._CHANGE_BUCKETS,
        )

    def begin(self, labels: tuple[str, str]) -> None:
        for one in (self.lists, self.watches, self.appending, self.lag):
            one.labels(*labels)


def _lines(registry: CollectorRegistry, named: str) -> list[str]:
    """The lines of metrics with such names, but for when each began."""
    text = generate_latest(registry).decode()
    lines = [line for line in text.splitlines() if any(f" {one}" in f" {line}" for one in named.split())]
    return [line.rpartition(" ")[0] if "_created{" in line else line for line in lines]


NAMED = (
    "kubebraid_producer_list_duration kubebraid_producer_watch_ kubebraid_producer_lists_ kubebraid_producer_append_ "
    "kubebraid_producer_lag_"
)


@given(EVENTS)
def test_the_text_is_that_of_prometheus_own_counters(
    events: list[tuple[tuple[str, str], str, float, str]],
) -> None:
    reference, ours = _Reference(), ProducerMetrics()
    for labels in TYPES:
        reference.begin(labels)
        ours.of(*labels)
    for labels, what, seconds, reason in events:
        of_type = ours.of(*labels)
        match what:
            case "listing":
                of_type.listing(reason)
                reference.relists.labels(*labels, reason).inc()
            case "listed":
                of_type.listed(seconds)
                reference.lists.labels(*labels).observe(seconds)
            case "watched":
                of_type.watched(seconds, reason)
                reference.watches.labels(*labels).observe(seconds)
                reference.restarts.labels(*labels, reason).inc()
            case "appended":
                of_type.appended(seconds)
                reference.appending.labels(*labels).observe(seconds)
            case "changed":
                of_type.changed(seconds)
                reference.lag.labels(*labels).observe(seconds)
    # Counters of one metric come by type here, there in the order in which they began.
    found, expected = _lines(ours.registry, NAMED), _lines(reference.registry, NAMED)
    assert sorted(found) == sorted(expected)
    assert [line for line in found if line.startswith("#")] == [line for line in expected if line.startswith("#")]


def test_a_type_takes_little_memory() -> None:
    ours, many = ProducerMetrics(), 2000
    names = [sys.intern(f"type-{number}") for number in range(many)]
    tracemalloc.start()
    try:
        for name in names:
            of_type = ours.of("alpha", name)
            of_type.listing("first")
            of_type.listed(1.0)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / many < 1200
