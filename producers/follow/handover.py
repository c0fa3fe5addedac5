"""Handover: states of objects that others know before the cluster's watches do, taken in by the type's informer.

The other end is `deltalog.handover`: NATS request and reply, not in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
import structlog
from nats.aio.msg import Msg

from deltalog import LogUnavailable
from deltalog.handover import HandoverAnswer, decode_handover, encode_answer, handover_subject
from deltalog.jetstream.connection import TRANSPORT_ERRORS
from deltalog.jetstream.stream import Log
from deltalog.wire.kubernetes import GroupResource
from producers.errors import ProducersError
from producers.follow.type_informer import TypeInformer
from producers.supervision import Complaints
from producers.upstream.objects import Unusable, raw_object

_log = structlog.get_logger("producers.follow.handover")

# States that may wait for their turn.
_PENDING = 1024


async def take_handovers(log: Log, cluster: str, informers: Mapping[GroupResource, TypeInformer]) -> None:
    """Answers requests to take a state in, several at a time, until cancelled."""
    subscription = await log.connection.client.subscribe(
        handover_subject(log.name, cluster), pending_msgs_limit=_PENDING
    )
    complain = Complaints(_log, "a handover failed", cluster=cluster)
    try:
        async with asyncio.TaskGroup() as tasks:
            async for message in subscription.messages:
                tasks.create_task(_answer(log, informers, message, complain), name=f"{cluster}: handover")
    finally:
        with contextlib.suppress(*TRANSPORT_ERRORS):
            await log.connection.client.unsubscribe(subscription)


async def _answer(
    log: Log, informers: Mapping[GroupResource, TypeInformer], message: Msg, complain: Complaints
) -> None:
    try:
        handed = decode_handover(message.data)
        key = GroupResource(handed.group, handed.resource)
        if (informer := informers.get(key)) is None:
            raise Unusable(f"{key} is not synced")
        sequence = await (await informer.hand_over(raw_object(handed.object), deleted=handed.deleted))
        taken = HandoverAnswer(sequence or await log.head())
    except (ProducersError, LogUnavailable, msgspec.MsgspecError) as cause:
        taken = HandoverAnswer(refused=str(cause))
    except Exception as cause:  # noqa: BLE001 - supervised
        # Whoever hands over waits for the watch instead.
        taken = HandoverAnswer(refused=complain(cause))
    with contextlib.suppress(*TRANSPORT_ERRORS):
        await message.respond(encode_answer(taken))
