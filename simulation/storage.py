"""Storage: one cluster's objects, its resourceVersion counter and the events that watches read. Pure, synchronous.

It takes the place of etcd and the watch cache. What a write means is the registry's: the storage stores, counts
versions, keeps a bounded number of events of each type, and notifies listeners of them.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from simulation.resources import SimulatedType

__all__ = [
    "DEFAULT_HISTORY",
    "ClusterStorage",
    "Collection",
    "CollectionSnapshot",
    "EventType",
    "HistoryGone",
    "StoredEvent",
    "StoredObject",
    "WriteLog",
    "encode_event",
    "encode_object",
    "go_json",
]

DEFAULT_HISTORY = 10_000
SNAPSHOTS_KEPT = 4

EventType = Literal["ADDED", "MODIFIED", "DELETED"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_VERSION = re.compile(rb'"resourceVersion":"[0-9]*"')

# What encoding/json of Go escapes beside what JSON has to, so that JSON can stand in HTML.
_GO_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
# The order of Go's ObjectMeta.
_METADATA_ORDER = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)


class HistoryGone(Exception):
    """The events after the version that a read wants are no longer kept.

    `wanted` is that version, `oldest` the oldest one from which on the events are kept.
    """

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {wanted} ({oldest})")
        self.wanted = wanted
        self.oldest = oldest


@dataclass(frozen=True, slots=True, eq=False)
class StoredObject:
    """One version of one object.

    `tail` is its JSON behind `SimulatedType.head`, so that every served version of the API is one concatenation away:
    of built-in types `"metadata":{...},...}`, of custom resources `"kind":"...","metadata":{...},...}`. `fields` are
    the values that field selectors compare, `owners` the uids in its ownerReferences.
    """

    namespace: str
    name: str
    uid: str
    version: int
    tail: bytes
    labels: dict[str, str]
    fields: dict[str, str]
    owners: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name); the namespace of a cluster-scoped object is empty."""
        return (self.namespace, self.name)

    @property
    def path(self) -> str:
        """The key as text, `default/web-0`; etcd and so every LIST has objects in the order of this."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def body(self) -> dict[str, Any]:
        """The object without kind and apiVersion, a fresh tree that the caller may change."""
        body: dict[str, Any] = _decode(b"{" + self.tail)
        body.pop("kind", None)
        return body

    def with_version(self, version: int) -> StoredObject:
        """The same content as of another resourceVersion, as a DELETED event shows it."""
        tail, found = _VERSION.subn(b'"resourceVersion":"%d"' % version, self.tail)
        if found > 1:
            # Users have a field or a label of this name, too.
            whole: dict[str, Any] = _decode(b"{" + self.tail)
            whole["metadata"]["resourceVersion"] = str(version)
            tail = go_json(whole)[1:]
        return replace(self, version=version, tail=tail)


class StoredEvent:
    """One change of one object: its state before and after it, and the encodings that its watchers share.

    For ADDED, `previous` is None; for DELETED, `current` is the last content with the version of the deletion.
    """

    __slots__ = ("_encoded", "_left", "current", "previous", "type", "version")

    def __init__(self, type: EventType, current: StoredObject, previous: StoredObject | None) -> None:
        self.type = type
        self.version = current.version
        self.current = current
        self.previous = previous
        self._left: StoredObject | None = None
        self._encoded: dict[tuple[str, bytes], bytes] = {}

    def encoded(self, type: EventType, head: bytes) -> bytes:
        """The event as a watch sends it, shown as `type`; encoded once for all watchers.

        An object that leaves a selector (DELETED shown for a MODIFIED) is shown with its previous content and
        this event's version.
        """
        key = (type, head)
        found = self._encoded.get(key)
        if found is None:
            shown = self.current
            if type == "DELETED" and self.type != "DELETED" and self.previous is not None:
                if self._left is None:
                    self._left = self.previous.with_version(self.version)
                shown = self._left
            found = encode_event(type, head, shown)
            self._encoded[key] = found
        return found


def encode_event(type: str, head: bytes, stored: StoredObject) -> bytes:
    """`{"type":...,"object":...}` and a newline."""
    return b'{"type":"%s","object":%s%s}\n' % (type.encode(), head, stored.tail)


class CollectionSnapshot(NamedTuple):
    """All objects of a type as of one version, in the order of LIST; `paths[i]` is the path of `objects[i]`."""

    version: int
    paths: Sequence[str]
    objects: Sequence[StoredObject]


@dataclass(slots=True)
class Collection:
    """The objects of one type and its events. Only its `ClusterStorage` writes to it.

    `floor` is the oldest version from which on all events are kept: a watch may start at it or above. `dropped` counts
    the events that are no longer kept, so that a cursor, `dropped + index`, stays valid: with 100 events dropped,
    `events[3]` is at cursor 103. `history` bounds the number of events. `term` grows when all watches have to end, as a
    server's do when it sets up the storage of a type anew. `removed` is set when the type is no longer served.
    `listeners` are called after each event.
    """

    type: SimulatedType
    floor: int
    history: int = DEFAULT_HISTORY
    objects: dict[tuple[str, str], StoredObject] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    by_path: dict[str, StoredObject] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)
    dropped: int = 0
    term: int = 0
    removed: bool = False
    listeners: set[Callable[[], None]] = field(default_factory=set)
    _snapshots: OrderedDict[int, CollectionSnapshot] = field(default_factory=OrderedDict)

    def cursor(self) -> int:
        """The cursor after the newest event. O(1)."""
        return self.dropped + len(self.events)

    def cursor_at(self, version: int) -> int:
        """The cursor of the first event after `version`. O(log n) in the events.

        Raises:
            HistoryGone: `version` is below the floor.
        """
        if version < self.floor:
            raise HistoryGone(version, self.floor)
        return self.dropped + bisect_right(self.events, version, key=lambda event: event.version)

    def since(self, cursor: int, limit: int) -> list[StoredEvent]:
        """At most `limit` events from a cursor on. O(limit).

        Raises:
            HistoryGone: the event at the cursor is no longer kept.
        """
        index = cursor - self.dropped
        if index < 0:
            raise HistoryGone(cursor, self.floor)
        return self.events[index : index + limit]

    def in_order(self) -> Iterator[StoredObject]:
        """All objects in the order of LIST. O(n)."""
        return map(self.by_path.__getitem__, self.paths)

    def snapshot(self, version: int, now: int) -> CollectionSnapshot:
        """All objects as of `version`; `now` is the storage's version. O(n log n), cached for the pages of one LIST.

        Raises:
            HistoryGone: `version` is below the floor.
        """
        found = self._snapshots.get(version)
        if found is not None:
            self._snapshots.move_to_end(version)
            return found
        newer = 0 if version >= now else self.cursor() - self.cursor_at(version)
        if newer == 0:
            found = CollectionSnapshot(version, tuple(self.paths), tuple(self.in_order()))
        else:
            state = dict(self.by_path)
            for event in reversed(self.events[-newer:]):
                if event.previous is None:
                    state.pop(event.current.path, None)
                else:
                    state[event.current.path] = event.previous
            paths = sorted(state)
            found = CollectionSnapshot(version, paths, [state[path] for path in paths])
        self._snapshots[version] = found
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        return found

    def compact(self, version: int) -> None:
        """Drop all events and snapshots: `version` is the new floor."""
        self.dropped += len(self.events)
        self.events.clear()
        self._snapshots.clear()
        self.floor = version

    def _record(self, event: StoredEvent) -> None:
        self.events.append(event)
        # Cut in slabs, since cutting a list from the front moves the rest.
        excess = len(self.events) - self.history
        if excess > 0 and excess * 4 >= self.history:
            self.floor = self.events[excess - 1].version
            del self.events[:excess]
            self.dropped += excess

    def _notify(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class WriteLog(Protocol):
    """Takes every write before a client can see it."""

    def put(self, key: tuple[str, str], stored: StoredObject) -> None:
        """An object has a new state."""

    def remove(self, key: tuple[str, str], namespace: str, name: str, version: int) -> None:
        """An object is removed, with a version of its own."""

    def type_removed(self, key: tuple[str, str], version: int) -> None:
        """A type is no longer served."""


class ClusterStorage:
    """The state of one cluster. Synchronous; used from one thread.

    The version counter is that of the whole cluster and only grows: every write takes the next, from `first_version`
    on. uids come from a generator seeded with `seed`. `history` bounds the events of each type. `journal`, if there is
    one, takes all writes. `types_changed` grows whenever the served types change.
    """

    def __init__(self, *, seed: int | str = 0, first_version: int = 1000, history: int = DEFAULT_HISTORY) -> None:
        self.version = first_version
        self.first_version = first_version
        self.history = history
        self.random = random.Random(seed)
        self.collections: dict[tuple[str, str], Collection] = {}
        self.owned: dict[str, set[tuple[tuple[str, str], tuple[str, str]]]] = {}
        self.types_changed = 0
        self._withdrawn: dict[tuple[str, str], tuple[StoredObject, ...]] = {}
        self.journal: WriteLog | None = None

    # Types

    def add_type(self, type: SimulatedType) -> Collection:
        """Serve a type; one that is served already gets the new description and keeps its objects.

        A type that was withdrawn is served again with the objects that it had. Watches end where a version is no
        longer served.
        """
        self.types_changed += 1
        found = self.collections.get(type.key)
        if found is not None:
            if not set(found.type.versions) <= set(type.versions):
                self.end_watches(found)
            found.type = type
            return found
        found = Collection(type, floor=self.version, history=self.history)
        self.collections[type.key] = found
        for stored in self._withdrawn.pop(type.key, ()):
            self._place(found, stored)
        found.compact(self.version)
        return found

    def remove_type(self, key: tuple[str, str]) -> None:
        """Remove a type with its objects and events. Its watches get the DELETED events and then end."""
        found = self.collections.get(key)
        if found is None:
            return
        self.empty(found)
        if self.journal is not None:
            self.journal.type_removed(key, self.version)
        self.types_changed += 1
        del self.collections[key]
        found.removed = True
        found._notify()

    def withdraw_type(self, key: tuple[str, str]) -> None:
        """Stop serving a type, but keep its objects for `add_type`. Its watches end without any event."""
        found = self.collections.pop(key, None)
        if found is None:
            return
        self._withdrawn[key] = tuple(found.in_order())
        for stored in self._withdrawn[key]:
            self._disown(found, stored)
        self.types_changed += 1
        found.removed = True
        found._notify()

    def empty(self, collection: Collection) -> None:
        """Remove all objects of a type, each as a version of its own."""
        for namespace, name in list(collection.objects):
            self.remove(collection, namespace, name)

    def end_watches(self, collection: Collection) -> None:
        """End all watches of a type and drop its history, as a server does that builds its watch cache anew."""
        collection.compact(self.version)
        collection.term += 1
        collection._notify()

    # Objects

    def new_uid(self) -> str:
        """A uid in the form of a version 4 UUID."""
        bits = self.random.getrandbits(128) & ~(0xF << 76) | (0x4 << 76)
        text = f"{bits & ~(0x3 << 62) | (0x2 << 62):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def get(self, key: tuple[str, str], namespace: str, name: str) -> StoredObject | None:
        """The stored object; None if there is none, or its type is not served. O(1)."""
        found = self.collections.get(key)
        return None if found is None else found.objects.get((namespace, name))

    def put(self, collection: Collection, body: dict[str, Any]) -> StoredObject:
        """Store an object as the next version: ADDED if its key is new, else MODIFIED.

        `body` needs metadata.name, metadata.uid and, for a namespaced type, metadata.namespace. O(n) in the objects of
        the type for a new key, else O(1).
        """
        version = self.version + 1
        stored = encode_object(collection.type, body, version)
        if self.journal is not None:
            self.journal.put(collection.type.key, stored)
        self.version = version
        return self._place(collection, stored)

    def restore(self, collection: Collection, body: dict[str, Any], version: int) -> StoredObject:
        """Store an object as of the version at which it was written, which the journal knows."""
        return self._place(collection, encode_object(collection.type, body, version))

    def _place(self, collection: Collection, stored: StoredObject) -> StoredObject:
        previous = collection.objects.get(stored.key)
        collection.objects[stored.key] = stored
        path = stored.path
        collection.by_path[path] = stored
        if previous is None:
            insort(collection.paths, path)
            self._own(collection, stored)
        elif previous.owners != stored.owners:
            self._disown(collection, previous)
            self._own(collection, stored)
        collection._record(StoredEvent("ADDED" if previous is None else "MODIFIED", stored, previous))
        collection._notify()
        return stored

    def remove(self, collection: Collection, namespace: str, name: str) -> StoredObject | None:
        """Remove an object as the next version: DELETED. Its last content with that version; None if there is none."""
        previous = collection.objects.pop((namespace, name), None)
        if previous is None:
            return None
        self.version += 1
        if self.journal is not None:
            self.journal.remove(collection.type.key, namespace, name, self.version)
        removed = previous.with_version(self.version)
        path = previous.path
        del collection.by_path[path]
        del collection.paths[bisect_left(collection.paths, path)]
        self._disown(collection, previous)
        collection._record(StoredEvent("DELETED", removed, previous))
        collection._notify()
        return removed

    def dependents(self, uid: str) -> list[tuple[Collection, StoredObject]]:
        """The objects that name `uid` as an owner, ordered by type and key."""
        found = []
        for key, (namespace, name) in sorted(self.owned.get(uid, ())):
            collection = self.collections[key]
            found.append((collection, collection.objects[(namespace, name)]))
        return found

    def compact(self) -> None:
        """Drop all history: a watch from an earlier version than the present one gets 410 Expired."""
        for collection in self.collections.values():
            collection.compact(self.version)

    def check(self) -> None:
        """Check the invariants of all collections. O(n) in the objects of the cluster.

        Raises:
            AssertionError: one does not hold.
        """
        owned: dict[str, set[tuple[tuple[str, str], tuple[str, str]]]] = {}
        for key, collection in self.collections.items():
            assert key == collection.type.key
            assert collection.paths == sorted(collection.by_path)
            assert len(collection.by_path) == len(collection.objects)
            assert collection.floor <= self.version
            versions = [event.version for event in collection.events]
            assert versions == sorted(set(versions))
            assert not versions or collection.floor < versions[0] <= versions[-1] <= self.version
            for (namespace, name), stored in collection.objects.items():
                assert collection.by_path[stored.path] is stored
                metadata = stored.body()["metadata"]
                assert (metadata.get("namespace", ""), metadata["name"]) == (namespace, name) == stored.key
                assert metadata["resourceVersion"] == str(stored.version)
                assert metadata["uid"] == stored.uid
                for uid in stored.owners:
                    owned.setdefault(uid, set()).add((key, stored.key))
        assert owned == self.owned

    def _own(self, collection: Collection, stored: StoredObject) -> None:
        for uid in stored.owners:
            self.owned.setdefault(uid, set()).add((collection.type.key, stored.key))

    def _disown(self, collection: Collection, stored: StoredObject) -> None:
        for uid in stored.owners:
            dependents = self.owned.get(uid)
            if dependents is not None:
                dependents.discard((collection.type.key, stored.key))
                if not dependents:
                    del self.owned[uid]


def go_json(value: Any) -> bytes:
    """A value as encoding/json of Go writes it: `<`, `>`, `&` and the separators of lines escaped."""
    data = _encode(value)
    for text, escaped in _GO_ESCAPES:
        if text in data:
            data = data.replace(text, escaped)
    return data


def _sorted_members(value: Any) -> Any:
    """A tree with the members of its objects by name, as Go writes maps, and so custom resources."""
    if isinstance(value, dict):
        return {name: _sorted_members(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted_members(item) for item in value]
    return value


def encode_object(type: SimulatedType, body: dict[str, Any], version: int | None) -> StoredObject:
    """The stored form of an object, without storing it. `version` None leaves resourceVersion out, for a dry run.

    The members of custom resources are in the order of their names, `kind` among them; only apiVersion is always first.
    """
    given = body["metadata"]
    metadata = {name: given[name] for name in _METADATA_ORDER if name in given}
    metadata.pop("resourceVersion", None)
    if version is not None:
        # Its place in the order, before labels and annotations.
        ordered = {name: metadata.pop(name) for name in _METADATA_ORDER[:4] if name in metadata}
        metadata = {**ordered, "resourceVersion": str(version), **metadata}
    for name in given:
        if name not in metadata and name != "resourceVersion":
            metadata[name] = given[name]
    rest = {name: value for name, value in body.items() if name not in ("metadata", "kind", "apiVersion")}
    if type.custom:
        tail = go_json(_sorted_members({"kind": type.kind, "metadata": metadata, **rest}))[1:]
    else:
        tail = go_json({"metadata": metadata, **rest})[1:]
    namespace = metadata.get("namespace", "")
    name = metadata["name"]
    fields = {"metadata.name": name}
    if type.namespaced:
        fields["metadata.namespace"] = namespace
    for label, read in type.fields.items():
        fields[label] = read(body)
    return StoredObject(
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        version=version or 0,
        tail=tail,
        labels=metadata.get("labels") or {},
        fields=fields,
        owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
    )
