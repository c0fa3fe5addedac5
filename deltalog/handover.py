"""Offers: states of objects that somebody else than a watch learned of, handed to who may append them.

A write that a member cluster has accepted through us is known here before the cluster's watch tells it. It goes to
the cluster's producer, which alone appends and knows what the log has: so the state gets one index, whoever is
first, and the watch's own copy of it is a repetition. By NATS request and reply; not in the log.
"""

from __future__ import annotations

import msgspec
from nats import errors

from deltalog.jetstream.connection import TRANSPORT_ERRORS, Connection
from deltalog.wire.errors import DeltalogError
from deltalog.wire.subjects import encode_token


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One object's state as JSON, with the cluster's own resourceVersion; `deleted`: its last one."""

    group: str
    resource: str
    object: bytes
    deleted: bool = False


class Taken(msgspec.Struct, frozen=True):
    """The answer: the log has the state at `sequence` or before, or why it was not taken."""

    sequence: int = 0
    refused: str = ""


class NotTaken(DeltalogError):
    """The state was not appended now; the cluster's watch will bring it. The message says why."""


_decode_taken = msgspec.msgpack.Decoder(Taken).decode
decode_offer = msgspec.msgpack.Decoder(Offer).decode
encode_answer = msgspec.msgpack.Encoder().encode


def offer_subject(stream: str, cluster: str) -> str:
    """Where the producer of a cluster takes offers."""
    return f"kubebraid.{stream}.offer.{encode_token(cluster)}"


async def hand_over(connection: Connection, stream: str, cluster: str, offer: Offer, timeout: float) -> int:
    """Offers a state; returns a sequence at which the log has it. `timeout` in seconds. Raises NotTaken."""
    if not connection.opened:
        raise NotTaken(f"NATS at {connection.url} does not answer")
    payload = msgspec.msgpack.encode(offer)
    if len(payload) > connection.client.max_payload:
        raise NotTaken("the object is too large to be handed over")
    try:
        answer = await connection.client.request(offer_subject(stream, cluster), payload, timeout=timeout)
    except errors.NoRespondersError:
        raise NotTaken(f"nobody produces cluster {cluster} now") from None
    except TRANSPORT_ERRORS as cause:
        raise NotTaken(f"the producer of cluster {cluster} does not answer: {cause}") from None
    taken = _decode_taken(answer.data)
    if taken.refused:
        raise NotTaken(taken.refused)
    return taken.sequence
