"""Timing: how long the materializer waits for what, as one value that is handed in."""

from __future__ import annotations

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of one materializer, all in seconds; the defaults are what an operator wants.

    Example: `Timing(look_every=0.1)` asks ten times a second whether the log is still the same, all else as ever.
    """

    look_every: float = 5.0
    """Between two looks at whether the log is still the history that was read; spread by a fifth of it."""
    retry: float = 1.0
    """Between two attempts at what cannot go on without the log."""
    audit: float = 10.0
    """What the store may take to come to the index that an audit, or a snapshot, waits for."""
    last_mark: float = 3.0
    """What noting the end of a run beside the log may take."""
    forget_every: float = 5.0
    """Between two looks for tombstones that are older than the tombstone time."""
    bury_after: float = 300.0
    """So long the last body of a deleted object is kept for watches from before the window; then metadata alone."""
    look_for_snapshot: float = 15.0
    """Between two looks of one that shares a snapshot's records at whether another process has written a newer one."""
    last_snapshot: float = 12.0
    """What the snapshot at the end of a run may take."""
    former_clusters: float = 120.0
    """For how long clusters of a history that has ended are expected in the next one, which producers fill."""
    unheard: float = 7.0
    """Without a word of the log, whose heartbeat is 2 s, until that is an outage."""
    origin_unheard: float = 12.0
    """The same for a mirror's origin, which is looked at every `look_every`."""
    rest_factor: float = 2.0
    """Listeners that took a time to wake rest for so many times that time: one event to each of many watchers costs
    almost as much to write as several, and what changes meanwhile goes out together."""
    shortest_rest: float = 0.002
    """Shorter rests are none: timers have milliseconds."""
    longest_rest: float = 0.02
    """No rest is longer."""


DEFAULT = Timing()
"""The timing of an installation."""
