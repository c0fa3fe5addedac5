"""Tenure: one uninterrupted ownership of a cluster; its tasks live in one group and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from deltalog import Appender
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import StreamState
from producers.follow.cluster_state import ClusterState
from producers.follow.completion import Completion
from producers.follow.followed_types import FollowedTypes
from producers.follow.handover import take_handovers
from producers.follow.history_watch import watch_history
from producers.follow.openapi_documents import OpenApi
from producers.follow.ownership import Owner
from producers.follow.probe import probe
from producers.follow.recorded import Recorded
from producers.follow.renewal import Renewal
from producers.follow.state_gap import StateGap, find_gap
from producers.follow.status import report_status
from producers.follow.type_informer import TypeInformer
from producers.supervision import endless

log = structlog.get_logger("producers.follow.tenure")


async def serve_tenure(
    state: ClusterState, log_: Log, appender: Appender, owner: Owner, on_synced: Callable[[TypeInformer], None]
) -> None:
    """Follows a cluster as its owner until cancelled, or until one of the tasks fails.

    Raises an ExceptionGroup with what ended it: Deposed, LogUnavailable or HistoryEnded, if all is as it should be;
    anything else is a mistake that its caller has to supervise.
    """
    recorded = Recorded(log_, appender, owner)
    gap = await find_gap(log_)
    await recorded.read(gap)
    log.info("producing", cluster=state.name, epoch=owner.epoch)
    # A task of its own: a group whose tasks fail while it is cancelled reports the failures only, and one whose tasks
    # fail leaves its task marked as cancelled (both until Python 3.13).
    task = asyncio.create_task(_run(state, recorded, gap, on_synced), name=f"{state.name}: tenure")
    try:
        await asyncio.wait((task,))
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()
        state.informers.clear()
    task.result()


async def _run(
    state: ClusterState, recorded: Recorded, gap: StateGap, on_synced: Callable[[TypeInformer], None]
) -> None:
    name, timing = state.name, state.timing
    openapi = OpenApi(state.server, recorded, first_lists=state.first_lists, timing=timing)
    renewal = Renewal(recorded.log, recorded.appender, recorded.owner)
    completion = Completion(state, recorded, gap, openapi.look)

    async def look(events: StreamState) -> None:
        await renewal.look(events)
        await completion.look(events)

    # The log's identity as it was read; it may be another one by now.
    history = watch_history(
        recorded.log,
        recorded.appender,
        recorded.log.identity,
        recorded.owner.sequence,
        timing.look_at_history_every,
        look,
    )
    async with asyncio.TaskGroup() as tasks:
        types = FollowedTypes(state, recorded, tasks, discovery_changed=openapi.look, on_synced=on_synced)
        for what, work in (
            ("probe", probe(state, recorded)),
            ("discovery", types.run()),
            ("definitions", types.follow_definitions()),
            ("server", types.follow_server()),
            ("status", report_status(state, recorded)),
            ("handover", take_handovers(recorded.log, name, state.informers)),
            ("history", history),
            ("OpenAPI", openapi.run()),
        ):
            tasks.create_task(endless(work), name=f"{name}: {what}")
