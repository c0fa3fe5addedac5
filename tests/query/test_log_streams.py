"""What /metrics, /readyz and /clusters say of the log's streams."""

from __future__ import annotations

import pytest

from deltalog.wire.subjects import SYNCED
from materializer.streams import LogStreams
from query.discovery.readiness import Readiness
from query.metrics import ServiceMetrics
from query.objects.pages import FrozenLists
from tests.materializer.test_streams import SINCE, stream
from tests.query.scene import Scene


class NoWatches:
    open = 0


@pytest.fixture
def scene() -> Scene:
    return Scene()


def metrics(scene: Scene) -> str:
    return ServiceMetrics(scene.materializer, NoWatches(), FrozenLists()).text().decode()


def test_nothing_is_said_before_they_were_looked_at(scene: Scene) -> None:
    readiness = Readiness(scene.materializer)
    assert "kubebraid_log_stream" not in metrics(scene)
    assert readiness.document()["streams"] is None
    assert "events" not in readiness.probe("readyz", verbose=True)[1]


def test_both_streams(scene: Scene) -> None:
    scene.materializer.guard.streams = LogStreams(3600, stream(900), stream(880, silent=60, lacks_to=7), SINCE)
    lines = metrics(scene).splitlines()
    for line in (
        'kubebraid_log_stream_messages{stream="events"} 12.0',
        'kubebraid_log_stream_bytes{stream="state"} 3.2e+06',
        'kubebraid_log_stream_first_sequence{stream="events"} 3.0',
        'kubebraid_log_stream_last_sequence{stream="events"} 900.0',
        'kubebraid_log_stream_last_sequence{stream="state"} 880.0',
        "kubebraid_log_events_since_timestamp_seconds 1.7958618235e+09",
        "kubebraid_log_state_present 1.0",
        "kubebraid_log_state_lag 20.0",
        "kubebraid_log_state_lacks_to 7.0",
    ):
        assert line in lines
    readiness = Readiness(scene.materializer)
    code, text = readiness.probe("readyz", verbose=True)
    assert "[+]log's events since 2026-11-28T10:30:23Z: 12 messages" in text
    assert "[!]the log's state stream is 20 messages behind the events\n" in text
    # It is mended; meanwhile the events serve.
    assert (code, readiness.document()["ready"]) == (200, True)
    assert readiness.document()["streams"]["state"]["lag"] == 20


def test_where_the_window_begins_is_told_if_there_is_one(scene: Scene) -> None:
    assert f"kubebraid_window_start {float(scene.index)}" in metrics(scene)
    scene.store.window.close()
    assert "kubebraid_window_start" not in metrics(scene)


def test_no_state_stream(scene: Scene) -> None:
    scene.materializer.guard.streams = LogStreams(3600, stream(900), None, SINCE)
    lines = metrics(scene).splitlines()
    assert "kubebraid_log_state_present 0.0" in lines
    assert not any(
        line.startswith("kubebraid_log_stream") and "state" in line.split("{", 1)[1] for line in lines if "{" in line
    )
    assert "[!]the log's state stream is not there\n" in Readiness(scene.materializer).probe("readyz", verbose=True)[1]


def test_a_gap_is_told_of_until_each_cluster_was_listed_again(scene: Scene) -> None:
    lacks_to = scene.store.applied
    scene.materializer.guard.streams = LogStreams(3600, stream(900), stream(900, lacks_to=lacks_to), SINCE)
    readiness = Readiness(scene.materializer)
    trouble = f"the log's state stream may lack what alpha, bravo had before index {lacks_to}, until it is listed again"
    assert readiness.document()["streams"]["trouble"] == trouble
    assert f"[!]{trouble}\n" in readiness.probe("readyz", verbose=True)[1]
    for cluster in ("alpha", "bravo"):
        scene.control(SYNCED, cluster, "pods", data={"version": "1"})
    assert readiness.document()["streams"]["trouble"] is None
    assert readiness.document()["streams"]["state"]["lacksTo"] == lacks_to
