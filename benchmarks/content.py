"""Content: simulated pods as the log holds them, normalised as producers do it, and a log filled with them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from deltalog import ADDED, DELETED, MODIFIED, Appender, AppendError, Delta, encode_delta
from deltalog.append import OnAck
from deltalog.jetstream.stream import Log
from deltalog.wire.records import ClusterRegistered, HealthChanged, TypeSynced
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from producers.follow.normalize import Normalized, Normalizer
from producers.follow.ownership import Owner, append_control, take
from simulation import SimulatedCluster
from simulation.content import Variety

PODS = ResourceType(
    group="",
    resource="pods",
    version="v1",
    kind="Pod",
    singular="pod",
    namespaced=True,
    short_names=("po",),
    categories=("all",),
    verbs=("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
    versions=("v1",),
)

# A larger log has several clusters, as it would.
_PODS_PER_CLUSTER = 10_000
_PRODUCER = "benchmark"


class Pod(msgspec.Struct, gc=False):
    """A pod in the log: `first` is the sequence at which it entered."""

    cluster: str
    content: Normalized
    first: int = 0


@dataclass
class Filled:
    """What a log was filled with: so many `objects`, of `size` bytes. `owners` may append more, by cluster.

    `pods`: those that are kept, the first of the log.
    """

    pods: list[Pod] = field(default_factory=list)
    owners: dict[str, Owner] = field(default_factory=dict)
    objects: int = 0
    size: int = 0


def normalized_pods(cluster: str, pods: int, variety: Variety = "mixed") -> list[Normalized]:
    """Pods of a simulated cluster in the log's form."""
    simulated = SimulatedCluster(cluster, pods=pods, variety=variety)
    normalize = Normalizer(cluster, PODS)
    return [normalize(b"{" + stored.tail) for stored in simulated.storage.collections["", "pods"].in_order()]


def delta_of(kind: str, owner: Owner, found: Normalized, first: int, info: ResourceType = PODS) -> Delta:
    return Delta(
        type=kind,
        cluster=owner.cluster,
        group=info.group,
        version=info.version,
        resource=info.resource,
        namespace=found.namespace,
        name=found.name,
        uid=found.uid,
        member_version=found.member_version,
        time=time.time_ns() // 1_000_000,
        producer=owner.producer,
        epoch=owner.epoch,
        uid_index=first,
        created=found.created,
        controller_uid=found.controller_uid,
        labels=found.labels,
        fields=found.fields,
        version_offset=found.version_offset,
        metadata_end=found.metadata_end,
        object=found.object,
    )


def message(owner: Owner, delta: Delta) -> tuple[str, bytes, dict[str, str]]:
    """Subject, payload and headers of a delta, as producers append it."""
    prefix = type_prefix(owner.cluster, delta.group, delta.version, delta.resource)
    subject = object_subject(prefix, delta.namespace, delta.name)
    return subject, encode_delta(delta), {**owner.fence.headers(), **summary_headers(delta)}


def change_of(owner: Owner, pod: Pod, step: int) -> tuple[str, bytes, dict[str, str]]:
    """The message of a later state of a pod in the log; `step` grows from change to change."""
    later = msgspec.structs.replace(pod.content, member_version=str(int(pod.content.member_version) + step))
    return message(owner, delta_of(MODIFIED, owner, later, pod.first))


def deletion_of(owner: Owner, pod: Pod) -> tuple[str, bytes, dict[str, str]]:
    """The message of the deletion of a pod in the log."""
    last = msgspec.structs.replace(pod.content, member_version=str(int(pod.content.member_version) + 1_000_000))
    return message(owner, msgspec.structs.replace(delta_of(DELETED, owner, last, pod.first), final=True))


async def fill(log: Log, pods: int, variety: Variety = "mixed", *, keep: int | None = None) -> Filled:
    """Bring so many pods into the log, with the control records that make them readable.

    `keep`: how many of them are to be in what it returns; all, if that is not said. 10,000 pods take some 6 seconds of
    processor time; of more, those of a cluster are made in a process of its own while others are appended.

    Raises:
        AppendError: the log does not take them.
    """
    filled = Filled()
    async with Appender(log.connection) as appender, _clusters(pods, variety) as clusters:
        async for name, contents in clusters:
            owner = await take(log, appender, name, _PRODUCER)
            filled.owners[name] = owner
            version = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
            await append_control(appender, owner, owner.control(ClusterRegistered(version=version)))
            await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
            await append_control(appender, owner, owner.control(PODS))
            for content in contents:
                pod = Pod(name, content)
                subject, payload, headers = message(owner, delta_of(ADDED, owner, content, 0))
                await appender.append(subject, payload, remember(pod), headers)
                if keep is None or len(filled.pods) < keep:
                    filled.pods.append(pod)
                filled.objects += 1
                filled.size += len(content.object)
            await appender.drain()
            await append_control(appender, owner, owner.control(TypeSynced(resource=PODS.group_resource, version="1")))
    return filled


@asynccontextmanager
async def _clusters(pods: int, variety: Variety) -> AsyncIterator[AsyncIterator[tuple[str, list[Normalized]]]]:
    """The clusters that so many pods are in, by name, each with its pods, made ahead of who takes them."""
    parts = [
        (f"bench-{number + 1}", min(_PODS_PER_CLUSTER, pods - number * _PODS_PER_CLUSTER))
        for number in range(-(-pods // _PODS_PER_CLUSTER))
    ]
    if len(parts) == 1:
        yield _made(*parts[0], variety)
        return
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield _made_ahead(pool, parts, variety, workers)


async def _made(name: str, pods: int, variety: Variety) -> AsyncIterator[tuple[str, list[Normalized]]]:
    yield name, normalized_pods(name, pods, variety)


async def _made_ahead(
    pool: ProcessPoolExecutor, parts: list[tuple[str, int]], variety: Variety, ahead: int
) -> AsyncIterator[tuple[str, list[Normalized]]]:
    under_way = deque(pool.submit(normalized_pods, name, pods, variety) for name, pods in parts[:ahead])
    for number, (name, _) in enumerate(parts):
        contents = await asyncio.wrap_future(under_way.popleft())
        if number + ahead < len(parts):
            under_way.append(pool.submit(normalized_pods, *parts[number + ahead], variety))
        yield name, contents


def remember(pod: Pod) -> OnAck:
    def acknowledged(sequence: int, error: AppendError | None) -> None:
        if error is not None:
            raise error
        pod.first = sequence

    return acknowledged
