"""Renewal: the owner record of a cluster is appended again before the events forget it.

What the events have no longer cannot be expected by an append: the server would refuse the owner as if it was deposed.
"""

from __future__ import annotations

from deltalog import Appender
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import StreamState
from producers.follow.ownership import Owner, renew


class Renewal:
    """Looks at where an owner's record stands in the events, and renews it in their older half."""

    def __init__(self, log: Log, appender: Appender, owner: Owner) -> None:
        self._log = log
        self._appender = appender
        self._owner = owner
        self._renewed = log.now()

    def is_due(self, events: StreamState) -> bool:
        """Whether the record is in the older half of what the events have, by its age or by its place.

        Example: of a log that keeps an hour and has messages 700 to 900, a record at 790; one of half an hour ago. In a
        log that grows it is renewed at each doubling: the first to go are the first.
        """
        if not self._log.window:
            # The last message of each subject stays.
            return False
        old = self._log.now() - self._renewed > self._log.window * 1_000_000_000 // 2
        return old or 2 * self._owner.sequence < events.first_sequence + events.last_sequence

    async def look(self, events: StreamState) -> None:
        """Renews the record where that is due; `events`: how these are now. Raises Deposed, AppendError."""
        if self.is_due(events):
            self._renewed = self._log.now()
            await renew(self._appender, self._owner)
