"""Ownership: who may write a cluster's deltas, kept by the log itself.

The owner record of a cluster bears an epoch that only grows. All appends of an owner name that record's
sequence as the expected one, so that the server refuses every append of a deposed owner, also those that were
in flight when it lost the cluster (Nats-Expected-Last-Subject-Sequence-Subject).

The record outlives the window of the events (`Nats-TTL: never`), but not their limit in bytes: an owner appends it
again, in the same epoch, long before it is among the oldest. One that has gone nevertheless is in the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import structlog

from deltalog import Appender, Conflict, Expect, UnreadableRecord
from deltalog.append import Fence
from deltalog.jetstream.stream import ASKED_AFTER, Log
from deltalog.wire import subjects
from deltalog.wire.records import ControlRecord, Fact, OwnerChanged, decode_control, encode_control
from deltalog.wire.subjects import control_subject
from producers.errors import ProducersError
from producers.follow.state_gap import find_gap

log = structlog.get_logger("producers.follow.ownership")


class Deposed(ProducersError):
    """Another producer owns the cluster now; this one's appends are refused from then on."""


# On owner records.
_LASTS = {"Nats-TTL": "never"}


class Owner(msgspec.Struct, frozen=True):
    """The right to append a cluster's deltas: the epoch, and what its messages expect, so that the server refuses them
    once this ownership is over.
    """

    cluster: str
    producer: str
    epoch: int
    fence: Fence

    @property
    def sequence(self) -> int:
        """Of the record that proves it, the last one where it was renewed."""
        return self.fence.sequence

    def control(self, fact: Fact) -> ControlRecord:
        """The record that states a fact in this ownership, now."""
        return ControlRecord(
            cluster=self.cluster,
            time=time.time_ns() // 1_000_000,
            producer=self.producer,
            epoch=self.epoch,
            fact=fact,
        )


async def take(log_: Log, appender: Appender, cluster: str, producer: str, at_least: int = 0) -> Owner:
    """Becomes the owner of a cluster, whichever producer was it before. Raises AppendError, BrokerUnavailable.

    `at_least`: an epoch that the cluster has had, should the log not know it any more.
    """
    subject = control_subject(cluster, subjects.OWNER)
    while True:
        last = await log_.last(subject)
        sequence, epoch, before = 0, 0, ""
        if last is None:
            epoch = max(await _last_epoch(log_, cluster), at_least)
        else:
            sequence, payload = last
            record = decode_control(payload)
            epoch, before = record.epoch, record.producer
        owner = Owner(cluster, producer, epoch + 1, Fence(subject, 0))
        payload = encode_control(owner.control(OwnerChanged()))
        # That of the state may have gone from the events, which know of none then.
        for expected in dict.fromkeys((sequence, 0)):
            try:
                taken = await appender.append_wait(subject, payload, {**Expect(expected).headers(), **_LASTS})
            except Conflict:
                continue
            owner.fence.move(taken)
            log.debug("cluster taken", cluster=cluster, epoch=owner.epoch, before=before or None)
            return owner


async def last_owner(log_: Log, cluster: str, sequence: int) -> ControlRecord | None:
    """The cluster's last owner record, which is the one at `sequence` or a later one; None: there is none.

    That would be the end of the history, so it is asked again (`ASKED_AFTER`). Raises LogUnavailable, UnreadableRecord.
    """
    for pause in ASKED_AFTER:
        await asyncio.sleep(pause)
        last = await log_.last(control_subject(cluster, subjects.OWNER))
        if last is not None and last[0] >= sequence:
            return decode_control(last[1])
    return None


async def _last_epoch(log_: Log, cluster: str) -> int:
    """An epoch not lower than any that a cluster without an owner record had: epochs only grow."""
    if (await find_gap(log_)).up_to:
        # It is the state that lacks the record. No cluster is taken as often as every second.
        return log_.now() // 1_000_000_000
    for record in (subjects.STATUS, subjects.HEALTH, subjects.CLUSTER):
        with contextlib.suppress(UnreadableRecord):
            if (last := await log_.last(control_subject(cluster, record))) is not None:
                return decode_control(last[1]).epoch
    return 0


async def renew(appender: Appender, owner: Owner) -> None:
    """Appends the record of an ownership again, in the same epoch. Raises Deposed, AppendError."""
    try:
        await appender.renew(owner.fence, encode_control(owner.control(OwnerChanged())), _LASTS)
    except Conflict as conflict:
        raise deposed(owner) from conflict
    log.debug("owner record renewed", cluster=owner.cluster, epoch=owner.epoch, sequence=owner.sequence)


def deposed(owner: Owner) -> Deposed:
    """The error of an owner whose append was refused."""
    return Deposed(f"cluster {owner.cluster} was taken over (epoch {owner.epoch} is over)")


async def release(appender: Appender, owner: Owner) -> None:
    """Ends an ownership for good: the cluster has no owner, as it is no longer in the log.

    Raises Deposed, AppendError.
    """
    record = msgspec.structs.replace(owner, epoch=owner.epoch + 1).control(OwnerChanged(removed=True))
    subject = control_subject(owner.cluster, subjects.OWNER)
    try:
        await appender.append_wait(subject, encode_control(record), {**Expect(owner.sequence).headers(), **_LASTS})
    except Conflict as conflict:
        raise deposed(owner) from conflict


async def append_control(appender: Appender, owner: Owner, control: ControlRecord, *, ttl: int | None = None) -> int:
    """Appends a control record under the owner's fence; `ttl` in seconds. Returns its sequence.

    Raises Deposed, AppendError.
    """
    headers = {} if ttl is None else {"Nats-TTL": f"{ttl}s"}
    try:
        return await appender.append_wait(control.subject, encode_control(control), headers, owner.fence)
    except Conflict as conflict:
        raise deposed(owner) from conflict
