"""Freshness: how old what is served may be, since the log, or a mirror's origin, was last heard of."""

from __future__ import annotations

import time

from deltalog.reader import Reader
from materializer.errors import MaterializerError
from materializer.served import Served
from materializer.timing import Timing


class LogUnreachable(MaterializerError):
    """The log's head cannot be asked for: what memory holds may be old. `age`: seconds since it was current."""

    def __init__(self, age: float) -> None:
        super().__init__(f"the log cannot be reached; this state is {age:.0f} s old")
        self.age = age


class Freshness:
    """Since when it has not been certain that all of the log is here.

    - `reader`: who follows the log now; None before the first one.
    - `current_at`, `origin_heard`: when a consistent read was one, when the origin of a mirror was last heard of there;
      by time.monotonic.
    - `unreadable_since`: when the log could no longer be read, in seconds since 1970; None while it can.
    """

    def __init__(self, served: Served, timing: Timing) -> None:
        self._served = served
        self._timing = timing
        self.reader: Reader | None = None
        self.current_at = self.origin_heard = time.monotonic()
        self.unreadable_since: float | None = None

    def age(self) -> float:
        """Seconds since it was known that all of the log is here; a few seconds where all is well."""
        heard = self.current_at if self.reader is None or self._served.snapshot_only else self.reader.heard
        if self._served.log.mirror:
            heard = min(heard, self.origin_heard)
        return time.monotonic() - max(heard, self.current_at)

    def outage_seconds(self) -> float | None:
        """`age`, if the log cannot be read, or a mirror does not hear of its origin; None if all is well."""
        now = time.monotonic()
        # A consistent read has asked both; the reader's next message and the next look at the origin come later.
        current = self.current_at
        silent = self.reader is not None and now - max(self.reader.heard, current) > self._timing.unheard
        cut_off = self._served.log.mirror and now - max(self.origin_heard, current) > self._timing.origin_unheard
        unreadable = self.unreadable_since is not None or self._served.snapshot_only
        return self.age() if unreadable or silent or cut_off else None
