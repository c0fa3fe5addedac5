"""Probe: whether a cluster is ready, asked again and again; every change of the answer is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import random

import structlog

from producers.errors import ClusterUnavailable
from producers.follow.cluster_state import ClusterState
from producers.follow.recorded import Recorded
from producers.upstream.apiserver import ApiServer, RequestRefused

log = structlog.get_logger("producers.follow.probe")


async def why_not_ready(server: ApiServer) -> str | None:
    """Why an API server cannot be read now, by its /readyz; None if it can."""
    patience = server.timing.probe
    try:
        async with asyncio.timeout(patience):
            await server.get("/readyz")
    except TimeoutError:
        # The server is not to blame for what it was not asked.
        return server.waits_for or f"{server.host}: no answer within {patience:g} s"
    except ClusterUnavailable as cause:
        # Where /readyz is not for us, the server is there all the same.
        if not isinstance(cause, RequestRefused) or cause.code == 401 or cause.code >= 500:
            return str(cause)
    return None


async def probe(state: ClusterState, recorded: Recorded) -> None:
    """Keeps `state.unreachable` current and records its changes, until cancelled. Raises Deposed, AppendError."""
    said: str | None = ""
    while True:
        state.probe_now.clear()
        reason = await why_not_ready(state.server) or state.lasting_failure() or state.undiscovered
        state.unreachable = reason
        if state.metrics is not None:
            state.metrics.clock.labels(state.name).set(state.server.clock_offset)
        if reason is not None:
            state.down.set()
        else:
            state.down.clear()
        if said == "" or (reason is None) != (said is None):
            await recorded.state_health(reason)
            if reason is not None:
                log.warning("cluster is not ready", cluster=state.name, reason=reason)
            elif said:
                log.info("cluster is back", cluster=state.name)
                state.retry_now()
        said = reason
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(state.timing.probe_every * random.uniform(0.8, 1.2)):
                await state.probe_now.wait()
