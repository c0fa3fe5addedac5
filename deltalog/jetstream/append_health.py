"""Whether streams take in what is sent to them, or why not: limits that are reached, a disk that is full."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger("deltalog.jetstream.append_health")


class Intake:
    """What the appends of one connection met with; each change is said once in the log."""

    def __init__(self) -> None:
        # Why, and since when (time.monotonic), by stream; the empty name: nobody took what was sent.
        self.refusals: dict[str, tuple[str, float]] = {}

    def refused(self, stream: str, reason: str) -> None:
        known = self.refusals.get(stream)
        self.refusals[stream] = (reason, time.monotonic() if known is None else known[1])
        if known is None or known[0] != reason:
            log.error(
                "the log takes nothing in; what is refused is tried again until there is room (docs/nats.md)",
                stream=stream or None,
                reason=reason,
            )

    def accepted(self, stream: str) -> None:
        for name in (stream, ""):
            if (known := self.refusals.pop(name, None)) is not None:
                log.info(
                    "the log takes in again",
                    stream=name or None,
                    seconds=round(time.monotonic() - known[1]),
                    was=known[0],
                )

    def since(self) -> float | None:
        """For how many seconds some stream has taken nothing in; None if none refuses."""
        began = [since for _, since in self.refusals.values()]
        return time.monotonic() - min(began) if began else None

    def problems(self) -> list[str]:
        """What is wrong, one line for each stream; none where all is well."""
        now = time.monotonic()
        return [
            f"{f'stream {stream}' if stream else 'the log'} has taken nothing in for {now - since:.0f} s: {reason}"
            for stream, (reason, since) in self.refusals.items()
        ]
