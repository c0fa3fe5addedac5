"""Completion: a state stream that was made anew lacks what the events had forgotten; the producer appends that again.

Objects come as repetitions, the same uid at the same version, so that nothing is shown to those who have them.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from deltalog import LogUnavailable
from deltalog.jetstream.stream_info import StreamState
from producers.follow.cluster_state import ClusterState
from producers.follow.recorded import Recorded
from producers.follow.state_gap import StateGap, find_gap

log = structlog.get_logger("producers.follow.completion")


class Completion:
    """Makes the state complete again, each time that it was made anew with a gap.

    `handled`: the gap that was there when the cluster was taken. `discovery_changed`: looks at the cluster's
    documents now.
    """

    def __init__(
        self, state: ClusterState, recorded: Recorded, handled: StateGap, discovery_changed: Callable[[], None]
    ) -> None:
        self._state = state
        self._recorded = recorded
        self._handled = handled
        self._discovery_changed = discovery_changed

    async def look(self, events: StreamState) -> None:
        """Looks whether the state has a gap that was not there before. Raises HistoryChanged, Deposed, AppendError."""
        try:
            gap = await find_gap(self._recorded.log)
        except LogUnavailable as cause:
            log.debug("the state stream cannot be asked", cluster=self._state.name, reason=str(cause))
            return
        if gap != self._handled and gap.up_to:
            await self._complete(gap)

    async def _complete(self, gap: StateGap) -> None:
        state, recorded = self._state, self._recorded
        log.warning("the log's state has a gap: what it lacks is appended again", cluster=state.name, up_to=gap.up_to)
        for key, informer in list(state.informers.items()):
            # In this order: the record comes again when the informer is done, and not before.
            recorded.synced.discard(key)
            await informer.complete()
        await recorded.state_again()
        self._handled = gap
        state.rediscover.set()
        self._discovery_changed()
