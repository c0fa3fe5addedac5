"""Whether streams store what is appended to them, or why not: limits that are reached, a disk that is full."""

from __future__ import annotations

import time
from typing import NamedTuple

import structlog

log = structlog.get_logger("deltalog.jetstream.append_health")


class Refusal(NamedTuple):
    """Why a stream stores nothing, and since when (time.monotonic, seconds)."""

    reason: str
    since: float


class AppendHealth:
    """What the appends of one connection met with; each change is said once in the log.

    `refusals`: by stream; the empty name: no stream answered. Example: after `refused("KUBEBRAID", "maximum bytes
    exceeded")` there is one refusal, until `accepted("KUBEBRAID")`.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, Refusal] = {}

    def refused(self, stream: str, reason: str) -> None:
        """A stream has refused a message, or not answered in time."""
        known = self.refusals.get(stream)
        self.refusals[stream] = Refusal(reason, time.monotonic() if known is None else known.since)
        if known is None or known.reason != reason:
            log.error(
                "the log takes nothing in; what is refused is tried again until there is room (docs/nats.md)",
                stream=stream or None,
                reason=reason,
            )

    def accepted(self, stream: str) -> None:
        """A stream has stored a message."""
        for name in (stream, ""):
            if (known := self.refusals.pop(name, None)) is not None:
                log.info(
                    "the log takes in again",
                    stream=name or None,
                    seconds=round(time.monotonic() - known.since),
                    was=known.reason,
                )

    def refusing_for(self) -> float | None:
        """For how many seconds some stream has stored nothing; None if all do."""
        began = [known.since for known in self.refusals.values()]
        return time.monotonic() - min(began) if began else None

    def problems(self) -> list[str]:
        """What is wrong, one line for each stream; none where all is well."""
        now = time.monotonic()
        return [
            f"{f'stream {stream}' if stream else 'the log'} has taken nothing in for {now - since:.0f} s: {reason}"
            for stream, (reason, since) in self.refusals.items()
        ]
