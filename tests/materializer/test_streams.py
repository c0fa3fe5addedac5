"""What operators are shown of the log's two streams: their extent, how far the events reach back, and what is wrong."""

from __future__ import annotations

import pytest

from deltalog.jetstream.stream_info import StreamState, nanoseconds
from materializer.streams import LogStreams

SINCE = nanoseconds("2026-11-28T10:30:23.5Z")


def stream(last: int, *, silent: float = 0.0, lacks_to: int = 0) -> StreamState:
    return StreamState(12, 11, 3, last, 0, "2026", "abc", silent, 3_200_000, lacks_to)


def test_all_is_well() -> None:
    streams = LogStreams(3600, stream(900), stream(900), SINCE)
    assert (streams.lag, streams.lacks_to, streams.trouble(["alpha"])) == (0, 0, None)
    extent = "12 messages, 3,200,000 bytes"
    assert streams.text == f"log's events since 2026-11-28T10:30:23Z: {extent}; state: {extent}"
    extents = {"messages": 12, "bytes": 3_200_000, "first": 3, "last": 900}
    assert streams.document() == {
        "events": {**extents, "since": "2026-11-28T10:30:23.500000000Z"},
        "state": {**extents, "lag": 0, "lacksTo": 0},
        "window": 3600,
        "trouble": None,
    }


@pytest.mark.parametrize(
    ("state", "clusters", "trouble"),
    [
        (None, [], "the log's state stream is not there"),
        (stream(880, silent=11), [], "the log's state stream is 20 messages behind the events"),
        # A moment behind is how a mirror is.
        (stream(880, silent=9), [], None),
        # It was asked later.
        (stream(920, silent=11), [], None),
        (
            stream(900, lacks_to=700),
            ["alpha"],
            "the log's state stream may lack what alpha had before index 700, until it is listed again",
        ),
        (
            stream(900, lacks_to=700),
            list("abcdef"),
            "the log's state stream may lack what a, b, c, d, e, ... had before index 700, until it is listed again",
        ),
        # All was listed again.
        (stream(900, lacks_to=700), [], None),
    ],
)
def test_what_is_wrong_with_the_state(state: StreamState | None, clusters: list[str], trouble: str | None) -> None:
    streams = LogStreams(3600, stream(900), state, SINCE)
    assert streams.trouble(clusters) == trouble
    assert streams.document(trouble)["trouble"] == trouble


def test_a_log_of_an_older_release_has_no_state() -> None:
    streams = LogStreams(0, stream(900), None, 0)
    assert streams.trouble() is None
    assert (streams.document()["state"], streams.document()["events"]["since"]) == (None, None)
    assert streams.text == "log's events: 12 messages, 3,200,000 bytes; state: none"
