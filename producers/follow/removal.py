"""Removal: a cluster that is no longer followed leaves the log, or stays in it as stale.

What is removed is purged from the state only: the events keep it for their window, so that whoever reads these from
before sees what happened, and then the record of the removal.
"""

from __future__ import annotations

import contextlib

from deltalog import Appender, Record
from deltalog.jetstream.stream import Log
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import HealthChanged, ObjectsRemoved
from deltalog.wire.removal import removed_subjects
from deltalog.wire.subjects import OBJECTS, encode_token, object_filter, parse_object
from producers.follow.ownership import Owner, append_control, release, take


async def remove_cluster(log: Log, producer: str, cluster: str) -> int:
    """Removes a cluster with all its objects: first the record, then what it speaks of. Returns the record's sequence.

    Takes the cluster over, so that a producer which still follows it is refused. Can be done again where it failed.
    Raises AppendError, BrokerUnavailable (the state does not come as far, too), Deposed if another producer took it
    meanwhile.
    """
    async with Appender.to(log) as appender:
        owner = await take(log, appender, cluster, producer)
        token = encode_token(cluster)
        types = await _types(log, f"{OBJECTS}.{token}.>")
        removed = owner.control(ObjectsRemoved(types=types))
        sequence = await append_control(appender, owner, removed, ttl=log.tombstone_ttl)
        for pattern in removed_subjects(cluster, None):
            await log.purge_state(pattern, sequence)
        # The record of the removal is forgotten one day, this one is not: there is no such cluster, nor an owner.
        await release(appender, owner)
        return sequence


async def _types(log: Log, pattern: str) -> tuple[GroupResource, ...]:
    """The types that the log has objects of, or tombstones. O(messages), their headers only."""
    found: set[GroupResource] = set()

    def note(record: Record) -> None:
        with contextlib.suppress(ValueError):
            address = parse_object(record.subject)
            found.add(GroupResource(address.group, address.resource))

    await read_to_end(log, note, subjects=(pattern,), headers_only=True)
    return tuple(sorted(found, key=str))


async def leave_cluster(log: Log, producer: str, cluster: str) -> None:
    """Marks a cluster as no longer followed; its objects stay, stale. Raises as `remove_cluster`."""
    async with Appender.to(log) as appender:
        owner = await take(log, appender, cluster, producer)
        await append_control(appender, owner, owner.control(HealthChanged(reason="no longer followed")))


async def remove_type(log: Log, producer: str, cluster: str, resource: GroupResource) -> int:
    """Removes a type of a cluster with its objects. Returns the record's sequence; as `remove_cluster` otherwise."""
    async with Appender.to(log) as appender:
        owner = await take(log, appender, cluster, producer)
        return await append_removed_type(log, appender, owner, resource)


async def append_removed_type(log: Log, appender: Appender, owner: Owner, resource: GroupResource) -> int:
    """The record that a type is removed, then the purge of its messages. Raises Deposed, LogUnavailable."""
    objects = object_filter(owner.cluster, *resource)
    removed = owner.control(ObjectsRemoved(resource=resource, types=await _types(log, objects)))
    sequence = await append_control(appender, owner, removed, ttl=log.tombstone_ttl)
    for pattern in removed_subjects(owner.cluster, resource):
        await log.purge_state(pattern, sequence)
    return sequence
