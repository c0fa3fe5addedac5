"""Handover: states of objects that are known before a watch brings them, given to the producer that may append them.

A write that a member cluster has accepted through us is known here before the cluster's watch tells it. It goes to
the cluster's producer, which alone appends and knows what the log has: so the state gets one index, whichever is
first, and the watch's own copy of it is a repetition. By NATS request and reply; not in the log.
"""

from __future__ import annotations

import msgspec
from nats import errors

from deltalog.jetstream.connection import TRANSPORT_ERRORS, Connection
from deltalog.wire.errors import DeltalogError
from deltalog.wire.subjects import encode_token


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """One object's state as JSON, with the cluster's own resourceVersion; `deleted`: its last one."""

    group: str
    resource: str
    object: bytes
    deleted: bool = False


class HandoverAnswer(msgspec.Struct, frozen=True):
    """The answer: the log has the state at `sequence` or before, or why it was not taken."""

    sequence: int = 0
    refused: str = ""


class NotTaken(DeltalogError):
    """The state was not appended now; the cluster's watch will bring it. The message says why."""


_decode_answer = msgspec.msgpack.Decoder(HandoverAnswer).decode
decode_handover = msgspec.msgpack.Decoder(Handover).decode
encode_answer = msgspec.msgpack.Encoder().encode


def handover_subject(stream: str, cluster: str) -> str:
    """The subject on which the producer of a cluster takes states. Example: `kubebraid.KUBEBRAID.offer.alpha`."""
    return f"kubebraid.{stream}.offer.{encode_token(cluster)}"


async def hand_over(connection: Connection, stream: str, cluster: str, handover: Handover, timeout: float) -> int:
    """Hands a state over; returns a sequence at which the log has it. `timeout` in seconds. Raises NotTaken."""
    if not connection.opened:
        raise NotTaken(f"NATS at {connection.url} does not answer")
    payload = msgspec.msgpack.encode(handover)
    if len(payload) > connection.client.max_payload:
        raise NotTaken("the object is too large to be handed over")
    try:
        answer = await connection.client.request(handover_subject(stream, cluster), payload, timeout=timeout)
    except errors.NoRespondersError:
        raise NotTaken(f"nobody produces cluster {cluster} now") from None
    except TRANSPORT_ERRORS as cause:
        raise NotTaken(f"the producer of cluster {cluster} does not answer: {cause}") from None
    decoded = _decode_answer(answer.data)
    if decoded.refused:
        raise NotTaken(decoded.refused)
    return decoded.sequence
