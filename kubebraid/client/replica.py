"""The storage as a Python API: what Clusterpedia's storage layer offers, with the names of its counterparts.

    async with Storage.connect("nats://127.0.0.1:4222") as storage:
        pods = storage.resource("", "pods")
        entries, version = await pods.list(Filter(clusters=frozenset({"alpha"})))
        async for change in pods.watch(Filter(), version):
            print(change.type, change.entry.cluster, change.entry.name)

Entries and their bodies are the store's own: to be read, never changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec

from deltalog import Appender, LogSettings, connect, open_log
from deltalog.wire.kubernetes import GroupResource, ObjectName
from deltalog.wire.records import ClusterRegistered
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selectors import Requirement
from materializer.cursor import ShownChange, changes, initial
from materializer.entry import Entry, object_key
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.resume import Expired, HistoryReplaced, from_member_versions, from_now, from_version, unread
from materializer.versions import Named, list_version, object_version, parse_versions
from producers.follow.ownership import append_control, take
from producers.follow.removal import remove_cluster, remove_type
from producers.producer import producer_id

__all__ = ["Deleted", "Expired", "Filter", "ResourceStorage", "Storage", "StorageConfig"]

_EVENTS: GroupResource = GroupResource("", "events")
# Changes read at one go.
_READ_LIMIT = 512
# Seconds to wait for all that the log holds now: who reads here gets an error where an HTTP client gets a warning.
_CURRENT = 5.0


class StorageConfig(msgspec.Struct, frozen=True):
    """How a type is stored: in which version each cluster's objects are, and whether they have namespaces."""

    group: str
    resource: str
    kind: str
    namespaced: bool
    versions: dict[str, str]


class Deleted(msgspec.Struct, frozen=True):
    """A deleted object. `final`: `body` is its last state; else the last that is known of it, or its metadata alone."""

    body: bytes
    version: str
    final: bool


class Storage:
    """One replica of the ordered store, kept current while the context lasts (NewStorageFactory)."""

    def __init__(self, materializer: Materializer) -> None:
        self.materializer = materializer
        self._name = producer_id()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str, stream: str = "KUBEBRAID") -> AsyncIterator[Storage]:
        """Opens the log at a NATS URL and replays it. Raises BrokerUnavailable, LogError."""
        connection = await connect(url, name="kubebraid-storage")
        try:
            materializer = Materializer(await open_log(connection, LogSettings(name=stream)))
            async with cls.over(materializer) as storage:
                yield storage
        finally:
            await connection.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def over(cls, materializer: Materializer) -> AsyncIterator[Storage]:
        """Runs a materializer of one's own. What fails in it ends the block (Shutdown: leaving the block).

        The block is cancelled then, and the failure raised where it ends.
        """
        running = asyncio.create_task(materializer.run(), name="storage")
        ready = asyncio.ensure_future(materializer.ready.wait())
        block = asyncio.current_task()
        failed = False

        def ended(task: asyncio.Task[None]) -> None:
            nonlocal failed
            if block is not None and not task.cancelled() and task.exception() is not None:
                failed = True
                block.cancel()

        try:
            await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            running.add_done_callback(ended)
            try:
                yield cls(materializer)
            except asyncio.CancelledError:
                if not failed:
                    raise
                if block is not None:
                    block.uncancel()
            if failed:
                running.result()
        finally:
            running.remove_done_callback(ended)
            for task in (running, ready):
                task.cancel()
            await asyncio.wait((running, ready))

    # -- clusters ----------------------------------------------------------------------------------------------------

    def clusters(self) -> list[str]:
        """The names of the clusters that the log has, sorted."""
        return sorted(self.materializer.store.clusters)

    def get_resource_versions(self, cluster: str) -> dict[GroupResource, dict[ObjectName, str]]:
        """GetResourceVersions: each object's own resourceVersion, by type and (namespace, name). O(objects)."""
        return {
            key: {ObjectName((entry.namespace, entry.name)): entry.member_version for entry in objects.values()}
            for key, resource in self.materializer.store.types.items()
            if (objects := resource.clusters.get(cluster))
        }

    async def prepare_cluster(self, cluster: str) -> None:
        """PrepareCluster: makes a cluster known before its first object. Does nothing if it is.

        Raises AppendError, BrokerUnavailable, Deposed if a producer takes it in the same moment.
        """
        await self.materializer.wait_current(_CURRENT)
        known = self.materializer.store.clusters.get(cluster)
        if known is not None and known.registered:
            return
        log = self.materializer.log
        async with Appender.to(log) as appender:
            owner = await take(log, appender, cluster, self._name)
            index = await append_control(appender, owner, owner.control(ClusterRegistered()))
        await self.materializer.wait_applied(index, None)

    async def clean_cluster(self, cluster: str) -> None:
        """CleanCluster: removes a cluster and all its objects; watchers see each of them deleted, at one index.

        A producer that still follows the cluster brings it back: take it out of its configuration first. Raises
        AppendError, BrokerUnavailable, Deposed.
        """
        index = await remove_cluster(self.materializer.log, self._name, cluster)
        await self.materializer.wait_applied(index, None)

    async def clean_cluster_resource(self, cluster: str, group: str, resource: str) -> None:
        """CleanClusterResource: removes a type of a cluster, and its objects. As `clean_cluster` otherwise."""
        index = await remove_type(self.materializer.log, self._name, cluster, GroupResource(group, resource))
        await self.materializer.wait_applied(index, None)

    # -- resources ---------------------------------------------------------------------------------------------------

    def resource(self, group: str, resource: str) -> ResourceStorage:
        """NewResourceStorage."""
        return ResourceStorage(self.materializer, GroupResource(group, resource))

    @staticmethod
    def get_supported_request_verbs() -> tuple[str, ...]:
        """GetSupportedRequestVerbs."""
        return ("get", "list", "watch", "create", "update", "patch", "delete")


class ResourceStorage:
    """One resource type over all clusters (ResourceStorage)."""

    def __init__(self, materializer: Materializer, key: GroupResource) -> None:
        self.key = key
        self._materializer = materializer

    def get_storage_config(self) -> StorageConfig | None:
        """GetStorageConfig; None while no cluster has the type."""
        infos: dict[str, ResourceType] = {
            name: info
            for name, cluster in self._materializer.store.clusters.items()
            if (info := cluster.types.get(self.key)) is not None
        }
        if not infos:
            return None
        one = next(iter(infos.values()))
        versions = {name: info.version for name, info in sorted(infos.items())}
        return StorageConfig(*self.key, one.kind, one.namespaced, versions)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, cluster: str, namespace: str, name: str) -> Entry | None:
        """Get: an object as the log has it now. Raises LogUnreachable."""
        await self._materializer.wait_current(_CURRENT)
        resource = self._materializer.store.types.get(self.key)
        return None if resource is None else resource.get(cluster, object_key(namespace, name))

    async def list(self, wanted: Filter | None = None) -> tuple[list[Entry], str]:
        """List: what matches now, by cluster, namespace and name, and the version to watch from.

        Raises LogUnreachable.
        """
        await self._materializer.wait_current(_CURRENT)
        store = self._materializer.store
        resource = store.types.get(self.key)
        return [] if resource is None else resource.select(wanted or Filter()), list_version(
            store.prefix, store.applied
        )

    async def watch(self, wanted: Filter | None = None, version: str = "") -> AsyncGenerator[ShownChange, None]:
        """Watch: changes past a version, for ever; "" and "0": the present state first, as ADDED.

        `version` in every form (docs/versions.md): of a list or an object here, or the clusters' own as JSON. A slow
        reader gets an object's latest state. Raises Expired, at once or when the history changes, and BrokenVersions.
        """
        wanted = wanted or Filter()
        member_versions = parse_versions(version) if version else None
        materializer = self._materializer
        changed = asyncio.Event()
        stop = materializer.listen(self.key, changed.set)
        store = materializer.store
        try:
            if member_versions is not None:
                await materializer.wait_current(_CURRENT)
                store = materializer.store
                start = from_member_versions(store, self.key, wanted, member_versions)
                for change in start.backlog:
                    yield change
            elif version not in ("", "0"):
                start = from_version(store, self.key, wanted, version, Named(store.prefix))
            else:
                start = from_now(store, wanted)
                resource = store.types.get(self.key)
                for change in initial(store, resource, wanted) if resource is not None else ():
                    yield change
            cursor = start.cursor()
            while True:
                changed.clear()
                while True:
                    if materializer.store is not store:
                        raise HistoryReplaced
                    resource = unread(store, self.key, start, cursor)
                    if resource is None:
                        break
                    found, upto = changes(resource, cursor.position(resource), start.wanted, _READ_LIMIT)
                    cursor.advance(store, upto)
                    for change in found:
                        yield change
                await changed.wait()
        finally:
            stop()

    def convert_deleted_object(self, cluster: str, namespace: str, name: str) -> Deleted | None:
        """ConvertDeletedObject: what is known of an object that was deleted; None if nothing is, any more."""
        store = self._materializer.store
        resource = store.types.get(self.key)
        tombstone = None if resource is None else resource.tombstone(cluster, object_key(namespace, name))
        if tombstone is None:
            return None
        return Deleted(
            tombstone.body, object_version(store.prefix, tombstone.index, tombstone.member_version), tombstone.final
        )

    # -- writing -----------------------------------------------------------------------------------------------------

    async def create(self, cluster: str, obj: bytes) -> str:
        """Create: a new object as its cluster answered it, in the log and readable here when this returns.

        Returns its version. Raises NotTaken where only the cluster's watch can bring it, NotThereYet.
        """
        return await self._append(cluster, obj)

    async def update(self, cluster: str, obj: bytes) -> str:
        """Update: as `create`."""
        return await self._append(cluster, obj)

    async def delete(self, cluster: str, obj: bytes) -> str:
        """Delete: the object's last state, with the resourceVersion of its deletion; as `create`."""
        return await self._append(cluster, obj, deleted=True)

    async def _append(self, cluster: str, obj: bytes, *, deleted: bool = False) -> str:
        index = await self._materializer.append(cluster, *self.key, obj, deleted=deleted)
        return list_version(self._materializer.store.prefix, index)

    # -- events ------------------------------------------------------------------------------------------------------

    async def record_event(self, cluster: str, event: bytes) -> str:
        """RecordEvent: an Event about an object of this type; as `create`, if the cluster's events are synced."""
        return await ResourceStorage(self._materializer, _EVENTS)._append(cluster, event)

    def events(self, entry: Entry) -> Sequence[Entry]:
        """The Events about an object, by name, as far as its cluster's events are synced."""
        resource = self._materializer.store.types.get(_EVENTS)
        about = Requirement("involvedObject.uid", "in", (entry.uid,))
        wanted = Filter(clusters=frozenset({entry.cluster}), fields=(about,))
        return [] if resource is None else resource.select(wanted)
