"""Status: how each type is followed, recorded from time to time; and thereby that there is a producer at all."""

from __future__ import annotations

import asyncio
import random

from deltalog.wire.records import StatusReport, TypeStatus
from producers.follow.cluster_state import ClusterState
from producers.follow.recorded import Recorded
from producers.follow.type_informer import TypeInformer


async def report_status(state: ClusterState, recorded: Recorded) -> None:
    """Appends `status` records until cancelled. Raises Deposed, AppendError."""
    # The first one soon, as an operator who has just started it looks at what it does.
    every = state.timing.status_every
    pause = min(state.timing.first_status, every)
    while True:
        await asyncio.sleep(pause * random.uniform(0.8, 1.0))
        pause = every
        await recorded.append(_report(state, every))


def _report(state: ClusterState, every: float) -> StatusReport:
    types = {key: _type_status(informer) for key, informer in state.informers.items()}
    return StatusReport(types=types, every=int(every * 1000))


def _type_status(informer: TypeInformer) -> TypeStatus:
    return TypeStatus(
        objects=informer.objects,
        synced=informer.synced.is_set(),
        version=informer.version,
        listed=_milliseconds(informer.synced_at),
        event=_milliseconds(informer.last_event),
        stale=_milliseconds(informer.error_since),
        error=informer.error,
        odd=informer.odd,
        odd_lines=informer.odd_lines,
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
