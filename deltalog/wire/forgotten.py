"""The record of forgotten deletions: up to which sequence the log remembers deletions no longer, though it might.

It is one message for the whole log, the last of its subject. It has no payload and bears `Nats-Marker-Reason`, as the
server's own markers do: readers of releases before this record pass it over, where a control record would have made
them believe in a cluster of its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalog.wire.subjects import CONTROL

FORGOTTEN_SUBJECT = f"{CONTROL}.forgotten"
"""No cluster's record: those have at least three tokens."""
FORGOTTEN_HEADER = "Kb-Forgotten"
MARKER_HEADER = "Nats-Marker-Reason"


def forgotten_headers(through: int) -> dict[str, str]:
    """The headers of the record that deletions up to the sequence `through` are forgotten."""
    return {MARKER_HEADER: "Forgotten", FORGOTTEN_HEADER: str(through)}


def forgotten_through(headers: Mapping[str, str]) -> int:
    """What a message's headers say of it; 0: it is no such record.

    Example: that of a message with `Kb-Forgotten: 4711` is 4711.
    """
    text = headers.get(FORGOTTEN_HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
