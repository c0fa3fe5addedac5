"""Ownership: who may write a cluster's deltas, kept by the log itself.

The owner record of a cluster bears an epoch that only grows. All appends of an owner name that record's
sequence as the expected one, so that the server refuses every append of a deposed owner, also those that were
in flight when it lost the cluster (Nats-Expected-Last-Subject-Sequence-Subject).
"""

from __future__ import annotations

import time

import msgspec
import structlog

from deltalog import Appender, Conflict, Expect
from deltalog.jetstream.stream import Log
from deltalog.wire import subjects
from deltalog.wire.records import ControlRecord, Fact, OwnerChanged, decode_control, encode_control
from deltalog.wire.subjects import control_subject
from producers.errors import ProducersError

log = structlog.get_logger("producers.follow.ownership")


class Deposed(ProducersError):
    """Another producer owns the cluster now; this one's appends are refused from then on."""


class Owner(msgspec.Struct, frozen=True):
    """The right to append a cluster's deltas: the epoch, and the sequence of the record that proves it."""

    cluster: str
    producer: str
    epoch: int
    sequence: int

    def fence(self) -> dict[str, str]:
        """The headers that make the server refuse a message once this ownership is over."""
        return Expect(self.sequence, control_subject(self.cluster, subjects.OWNER)).headers()

    def control(self, fact: Fact) -> ControlRecord:
        """The record that states a fact in this ownership, now."""
        return ControlRecord(
            cluster=self.cluster,
            time=time.time_ns() // 1_000_000,
            producer=self.producer,
            epoch=self.epoch,
            fact=fact,
        )


async def take(log_: Log, appender: Appender, cluster: str, producer: str) -> Owner:
    """Becomes the owner of a cluster, whichever producer was it before. Raises AppendError, BrokerUnavailable."""
    subject = control_subject(cluster, subjects.OWNER)
    while True:
        last = await log_.last(subject)
        sequence, epoch, before = 0, 0, ""
        if last is not None:
            sequence, payload = last
            record = decode_control(payload)
            epoch, before = record.epoch, record.producer
        owner = Owner(cluster, producer, epoch + 1, 0)
        try:
            taken = await appender.append_wait(
                subject, encode_control(owner.control(OwnerChanged())), Expect(sequence).headers()
            )
        except Conflict:
            continue
        log.debug("cluster taken", cluster=cluster, epoch=owner.epoch, before=before or None)
        return msgspec.structs.replace(owner, sequence=taken)


async def release(appender: Appender, owner: Owner) -> None:
    """Ends an ownership for good: the cluster has no owner, as it is no longer in the log.

    Raises Deposed, AppendError.
    """
    record = msgspec.structs.replace(owner, epoch=owner.epoch + 1).control(OwnerChanged(removed=True))
    subject = control_subject(owner.cluster, subjects.OWNER)
    try:
        await appender.append_wait(subject, encode_control(record), Expect(owner.sequence).headers())
    except Conflict as conflict:
        raise Deposed(f"cluster {owner.cluster} was taken over (epoch {owner.epoch} is over)") from conflict


async def append_control(appender: Appender, owner: Owner, control: ControlRecord, *, ttl: int | None = None) -> int:
    """Appends a control record under the owner's fence; `ttl` in seconds. Returns its sequence.

    Raises Deposed, AppendError.
    """
    headers = owner.fence()
    if ttl is not None:
        headers["Nats-TTL"] = f"{ttl}s"
    try:
        return await appender.append_wait(control.subject, encode_control(control), headers)
    except Conflict as conflict:
        raise Deposed(f"cluster {owner.cluster} was taken over (epoch {owner.epoch} is over)") from conflict
