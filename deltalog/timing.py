"""How long readers of the log wait for what, as one value that is handed in."""

from __future__ import annotations

import msgspec


class LogTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of reading the log, all in seconds; the defaults are what an installation wants.

    Example: `LogTiming(look_every=0.1)` looks ten times a second whether the log is still the same, all else as ever.
    """

    heartbeat: float = 2.0
    """The server says after so long without a message that there is none (`idle_heartbeat`, ADR-15)."""
    silence: float = 6.0
    """Without a message or a heartbeat for so long, a consumer counts as lost and is made anew; 3 heartbeats."""
    read_again: tuple[float, float] = (0.05, 2.0)
    """First and longest pause between attempts to read."""
    look_every: float = 5.0
    """Between two looks of a subscription, or of who keeps a mirror, at whether the log is still the same."""
    purges_every: float = 60.0
    """Between two looks at whether something was purged from the log that a mirror still has."""
    purge_after: float = 600.0
    """Between the record that deletions are forgotten, and taking their messages out of the state: until then every
    instance has learned of it, those of older releases too, which take it from the mark when they start."""
    purge_others: float = 60.0
    """So much later at least, and twice that at most, do others than the one that decided look whether it was done."""


DEFAULT_TIMING = LogTiming()
"""The timing of an installation."""
