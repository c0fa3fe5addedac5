"""The ordered store: every object of every cluster, by name and by index. Pure and synchronous.

It is fed with the log's messages in order (`apply_delta`, `apply_control`, `skip`) and is at any time a function of
them: two stores fed by the same log answer alike, however fast each was fed and wherever it began. The exception is
what a resume may ask about the time before a store's own beginning (see `Filter.matched_at`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, MutableMapping, Set
from enum import StrEnum
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from deltalog.wire import delta as wire
from deltalog.wire.delta import Delta
from deltalog.wire.kubernetes import GroupResource, newer
from deltalog.wire.records import (
    ClusterDocument,
    ClusterRegistered,
    ControlRecord,
    DiscoveryDocument,
    HealthChanged,
    ObjectsRemoved,
    OpenApiDocument,
    OwnerChanged,
    StatusReport,
    TypeSynced,
)
from deltalog.wire.resource_type import ResourceType
from materializer.bodies import Packing
from materializer.cluster_facts import ClusterFacts, Health
from materializer.entry import (
    METADATA,
    Entry,
    Life,
    ObjectKey,
    Past,
    changed_entry,
    check_numbers,
    entry_of,
    life_of,
    new_entry,
    object_key,
)
from materializer.filter import Filter
from materializer.order import Removal
from materializer.plain import LOADING_BYTES, Batch, Packed, PlainEntries, packed
from materializer.record import UID, UID_END, encode_texts, is_newer, plain_size, uid_bytes
from materializer.type_store import TypeStore
from materializer.window import CLOSED, Window, in_proportion

# How many past label sets are remembered for watchers with a selector; older ones count as unknown.
_PAST_LIMIT = 8192
# What a live entry takes beside its record.
_ENTRY_BYTES = 350
# How far our clock and the server's may be apart, in nanoseconds, where the floor of a cold start depends on both.
_CLOCK_MARGIN = 1_000_000_000


class Outcome(StrEnum):
    """What became of a message; the values are those of a metric's label.

    - APPLIED: it changed the store. REDELIVERED: its sequence was taken in before.
    - FENCED: its producer's epoch is over, so it is ignored. NOT_NEWER: the store has this state or a later one.
    - UNKNOWN_OBJECT: a deletion of an object that the store did not have; kept as a tombstone all the same.
    """

    APPLIED = "applied"
    REDELIVERED = "redelivered"
    FENCED = "fenced"
    NOT_NEWER = "not-newer"
    UNKNOWN_OBJECT = "unknown-object"


class Faded(NamedTuple):
    """A live object that has the name of another one, of which metadata is remembered (`Entry.replaced`).

    `time`, `index`: of the change by which it took its place. `uid_index`: its own.
    """

    time: int
    index: int  # type: ignore[assignment]  # it hides tuple.index
    type: GroupResource
    cluster: str
    key: ObjectKey
    uid_index: int


class Store:
    """Everything that the log holds of one history, up to the message `applied`.

    - `applied`: sequence of the last message taken in; `applied_time`: when the log stored it, in ns since 1970.
    - `unread_through`: the highest sequence that was superseded or purged before this process read it; 0: none.
    - `caught_up_at`: what `applied` was when the log last had nothing more.
    - `floor`: the lowest index at which a watch may resume: that of the newest tombstone that was forgotten.
    - `dirty`: types changed since the owner last cleared it.
    - `controls`: index of the last control record; `catalogue`: of the last one that changed the set of resource types;
      `documents`: of the last one that changed the OpenAPI documents.
    - `outcomes`: how many messages had which outcome.
    - `loading`: the log is being read for the first time; see `finish_loading`.
    - `fading`: what will be forgotten and is whole yet, oldest first, as (time, index, type, item): a tombstone, a
      removal, or an entry whose `replaced` is. `faded`: of the last kind, those whose `replaced` is stripped,
      by type, cluster and key: of a name that is used again and again the last one.
    - `deletion_sizes`: by the index of a whole tombstone, how many bytes its message takes in the log.
    - `removals`: removals whose tombstones are not all buried yet, oldest first.
    - `removed`: by cluster, the index of a removal that did not name the types that had objects.
    - `pasts`: earlier states that are remembered, oldest first.
    - `window`: the newest events, every one of them, in so many bytes as were given, or (`fits_window`) as is in
      proportion to the live objects; see `materializer.window`.
    - `packing`: how bodies are packed; None: they stay plain. `plain`: the entries that are yet to be packed.

    Example: the log has messages 3, 4 and 7 (the others were superseded). After all three were taken in, `applied` is
    7, `unread_through` is 6, and `caught_up_at` is 7 once `settle` was called.
    """

    def __init__(
        self,
        prefix: str,
        tombstone_ttl: int,
        window: int = 0,
        packing: Packing | None = None,
        *,
        fits_window: bool = False,
    ) -> None:
        self.prefix = prefix
        self.tombstone_ttl = tombstone_ttl
        self.window = Window(window)
        self.packing = packing
        self.plain = PlainEntries(LOADING_BYTES)
        self.fits_window = fits_window
        self.applied = 0
        self.applied_time = 0
        self.floor = 0
        self.unread_through = 0
        self.caught_up_at = 0
        self.types: dict[GroupResource, TypeStore] = {}
        self.clusters: dict[str, ClusterFacts] = {}
        self.catalogue = 0
        self.documents = 0
        self.controls = 0
        self.dirty: set[GroupResource] = set()
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.loading = True
        self.fading: deque[tuple[int, int, GroupResource, Entry | Removal]] = deque()
        self.faded: OrderedDict[tuple[GroupResource, str, ObjectKey], Faded] = OrderedDict()
        self.deletion_sizes: dict[int, int] = {}
        self.removals: deque[Removal] = deque()
        self.pasts: deque[Past] = deque()
        self.removed: dict[str, int] = {}
        # While loading: messages that no type's order has (time, index).
        self._others: list[tuple[int, int]] = []
        # Clusters of one version have the same documents; they are kept once.
        self._shared: WeakValueDictionary[str, ClusterDocument] = WeakValueDictionary()

    # -- taking in the log -------------------------------------------------------------------------------------

    def skip(self, index: int, time: int) -> None:
        """Takes in a message that changes nothing here: a server's marker, a part, one that cannot be read. O(1)."""
        if index > self.applied:
            self._note_unread(index)
            self.applied = index
            self.applied_time = time
            if self.loading:
                self._others.append((time, index))

    def settle(self) -> None:
        """Notes that the log has nothing more now: of all that was superseded unread, the successor is here. O(1)."""
        self.caught_up_at = self.applied

    def note_compacted(self, upto: int) -> None:
        """Notes that states up to `upto` may have been superseded unread, and that all events past it come. O(window).

        To be called when the log has been read up to there where it has the latest states only.
        """
        self.unread_through = max(self.unread_through, upto)
        self.window.open(max(upto, self.applied))

    def _before(self, life: Life, index: int, current: Entry | None, *, same: bool) -> Entry | None:
        """The state right before that at `index`, if it is here; None also if there was none.

        `same`: whether `current` is a state of the same uid.

        What the store has of the name is it unless a later one may have been superseded unread.
        """
        known = current
        if current is not None and current.index < self.unread_through and self.caught_up_at < self.unread_through:
            known = None
        if life.uid_index < index:
            return known if same else None
        if known is None and life.replaced is not None and life.replaced.index == index:
            # It took the place of one that was never deleted, and of which only the log knows.
            return life.replaced
        return known

    def _note_unread(self, index: int) -> None:
        if index > self.applied + 1:
            self.unread_through = index - 1
            if self.window.start != CLOSED:
                self.window.open(index - 1)

    def apply_delta(self, delta: Delta, index: int, time: int, size: int = 0) -> Outcome:
        """Takes in an object's change, stored by the log at `time` (ns). Amortised O(log n); in a first replay O(1).

        `size`: bytes that the log holds for it.
        """
        outcome = self._apply_delta(delta, index, time)
        self.outcomes[outcome] += 1
        if delta.type == wire.DELETED and size and self.fading and self.fading[-1][1] == index:
            self.deletion_sizes[index] = size
        if index > self.applied:
            self.applied = index
            self.applied_time = time
        return outcome

    def _apply_delta(self, delta: Delta, index: int, time: int) -> Outcome:
        if index <= self.applied:
            return Outcome.REDELIVERED
        cluster = self.clusters.get(delta.cluster)
        if cluster is None:
            cluster = self.clusters[delta.cluster] = ClusterFacts(delta.cluster, index)
        if delta.epoch < cluster.epoch:
            return Outcome.FENCED
        # A plain tuple finds what a GroupResource is the key of, and costs nothing to make.
        type_store = self.types.get((delta.group, delta.resource))  # type: ignore[call-overload]
        if type_store is None:
            type_store = self._add_type(GroupResource(delta.group, delta.resource))
        type_key = type_store.key
        self._note_unread(index)
        type_store.unread_through = self.unread_through
        objects = type_store.objects(delta.cluster)
        key: ObjectKey = f"{delta.namespace}\0{delta.name}"  # type: ignore[assignment]  # hot: no call
        current: Entry | None = objects.get(key)
        uid_packed = uid_bytes(delta.uid)
        same = False
        if current is not None:
            same = current.record[UID:UID_END] == uid_packed if uid_packed else current.is_of(b"", delta.uid)
        if delta.in_order:
            # Also if this state is known already: what matters is that the log has come to it.
            cluster.followed[type_key] = delta.member_version
        elif delta.restored and current is not None and newer(current.member_version, delta.member_version):
            cluster.versions_restarted_at = index
            cluster.followed.clear()
        if delta.type == wire.DELETED:
            return self._delete(type_store, objects, key, current, delta, index, time, uid_packed, same=same)
        tombstone = None
        if current is not None:
            if (
                same
                and current.version == delta.version
                and not delta.restored
                and not is_newer(delta.member_version, current.record)
            ):
                return Outcome.NOT_NEWER
        else:
            tombstone = type_store.tombstone(delta.cluster, key)
            if (
                tombstone is not None
                and tombstone.is_of(uid_packed, delta.uid)
                and tombstone.final
                and not delta.restored
                and not newer(delta.member_version, tombstone.member_version)
            ):
                return Outcome.NOT_NEWER
        if current is None and tombstone is None and delta.replaced is None:
            entry = new_entry(delta, index, time, self.prefix, type_key, uid_packed, type_store.like)
            type_store.like = entry.envelope
            self._bring(type_store, objects, entry)
            self.window.add(
                type_store.events,
                index,
                entry,
                None,
                entry if delta.was is wire.UNCHANGED else delta.was,
                fresh=delta.uid_index in (0, index),
            )
            return Outcome.APPLIED
        life = life_of(delta, index, self.prefix, type_key)
        changed = self._before(life, index, current, same=same)
        fresh = changed is None and life.uid_index == index
        fades = False
        if same:
            assert current is not None
            self._continue(life, current, knows=changed is not None)
        elif (before := current or tombstone) is not None:
            self._replace(life, before)
            fades = True
        if life.uid_index == index:
            # It entered the log with this message.
            life.first_known_version = delta.member_version
        entry = entry_of(delta, index, time, self.prefix, life, type_key, uid_packed, current)
        if fades:
            self.fading.append((time, index, type_key, entry))
        if life.replaced is not None and current is None and tombstone is None:
            self.fading.append((life.replaced.time, life.uid_index, type_key, entry))
        if current is not None:
            type_store.order.discard(current.index)
            if current.dictionary is None:
                # As `leave` does.
                type_store.held -= len(current.record)
            else:
                type_store.leave(current)
            if current.version != entry.version:
                self._changed_version(type_store, entry)
        elif tombstone is not None:
            self._drop_tombstone(type_store, tombstone, key)
        if current is not None and type_store.indexes:
            type_store.indexes.discard(current)
        self._bring(type_store, objects, entry)
        # What selectors saw before, by the log alone: where the state before is not here.
        was = None if changed is not None else entry if delta.was is wire.UNCHANGED else delta.was
        self.window.add(type_store.events, index, entry, changed, was, fresh=fresh)
        return Outcome.APPLIED

    def _bring(self, type_store: TypeStore, objects: MutableMapping[ObjectKey, Entry], entry: Entry) -> None:
        """Makes an entry the live one of its name, as the newest of its type. O(indexes), and O(log n) for some."""
        objects[entry.key] = entry
        type_store.held += len(entry.record)
        if self.packing is not None:
            self.plain.add(entry)
        if type_store.indexes:
            type_store.indexes.add(entry)
        type_store.order.append(entry.index, entry)
        self.dirty.add(type_store.key)

    def _add_type(self, type_key: GroupResource) -> TypeStore:
        found = self.types[type_key] = TypeStore(type_key, self.loading, self.window, self.prefix)
        clusters = self.clusters.values()
        found.version_since = {
            one.name: one.version_since[type_key] for one in clusters if type_key in one.version_since
        }
        return found

    def _changed_version(self, type_store: TypeStore, entry: Entry) -> None:
        """An object is in another API version than before: so are all of its cluster soon."""
        self.clusters[entry.cluster].version_since[type_store.key] = entry.index
        type_store.version_since[entry.cluster] = entry.index

    def _continue(self, life: Life, current: Entry, *, knows: bool) -> None:
        """Hands on what is known of a live object to its next state; `knows`: `current` is the one right before."""
        past = life.go_on(current, knows=knows)
        if past is not None:
            self.pasts.append(past)
            if len(self.pasts) > _PAST_LIMIT:
                self.pasts.popleft().forget()

    def _delete(
        self,
        type_store: TypeStore,
        objects: MutableMapping[ObjectKey, Entry],
        key: ObjectKey,
        current: Entry | None,
        delta: Delta,
        index: int,
        time: int,
        uid_packed: bytes,
        *,
        same: bool,
    ) -> Outcome:
        if current is not None and not same and delta.uid_index <= current.index:
            return Outcome.NOT_NEWER
        # What it deletes is not taken out for one that cannot be kept as a tombstone.
        check_numbers(delta)
        life = life_of(delta, index, self.prefix, type_store.key)
        before = self._before(life, index, current, same=same)
        body_of: Entry | None = None
        if current is not None and type_store.indexes:
            type_store.indexes.discard(current)
        if current is not None and not same:
            # A whole life that was superseded in the log before this process came to read it.
            self._replace(life, current)
            del objects[key]
            type_store.leave(current)
            type_store.order.discard(current.index)
        elif current is not None:
            self._continue(life, current, knows=before is not None)
            if before is not None or delta.was is None:
                # Labels that only the deletion itself changes do not count: selectors go by what watchers saw.
                life.take_selectables(current)
                if not delta.final:
                    # The log has the metadata only; this process still has all of it.
                    body_of = current
            elif delta.was is not wire.UNCHANGED:
                # A state that was superseded unread.
                life.labels, fields = delta.was.labels, delta.was.fields
                life.field_names, life.field_values = tuple(fields), encode_texts(list(fields.values()))
                life.controller_uid = delta.was.controller_uid or ""
            del objects[key]
            type_store.leave(current)
            type_store.order.discard(current.index)
        else:
            tombstone = type_store.tombstone(delta.cluster, key)
            if tombstone is not None:
                if tombstone.is_of(uid_packed, delta.uid) and delta.uid_index <= tombstone.index:
                    return Outcome.NOT_NEWER
                self._drop_tombstone(type_store, tombstone, key)
                self._replace(life, tombstone)
        entry = entry_of(delta, index, time, self.prefix, life, type_store.key, uid_packed, current)
        if body_of is not None:
            entry = _with_body_of(entry, body_of)
        self._queue(entry)
        if current is not None and current.version != entry.version:
            self._changed_version(type_store, entry)
        self._add_tombstone(type_store, entry)
        type_store.order.append(index, entry)
        was = None if before is not None else entry if delta.was is wire.UNCHANGED else delta.was
        self.window.add(type_store.events, index, entry, before, was)
        self.fading.append((time, index, type_store.key, entry))
        self.dirty.add(type_store.key)
        return Outcome.APPLIED if current is not None or self.loading else Outcome.UNKNOWN_OBJECT

    def _replace(self, life: Life, before: Entry) -> None:
        """Makes `before` what the name was to watchers ahead of this uid, and of those that only the log knows of."""
        from_log = life.replaced
        if before.replaced is not None:
            # Not changed in place: an image of the store may still be in the making.
            before = msgspec.structs.replace(before)
            before.remember(before.past, None)
            self._queue(before)
        life.oldest_uid_index = min(life.oldest_uid_index, before.oldest_uid_index)
        if from_log is None or from_log.uid_index <= before.index:
            life.replaced = before
        else:
            from_log.remember(from_log.past, before)

    def _queue(self, entry: Entry) -> None:
        """Notes an entry that may be plain for being packed."""
        if self.packing is not None and entry.dictionary is None:
            self.plain.add(entry)

    @staticmethod
    def _add_tombstone(type_store: TypeStore, entry: Entry) -> None:
        type_store.tombstones.setdefault(entry.cluster, {})[entry.key] = entry

    @staticmethod
    def _drop_tombstone(type_store: TypeStore, tombstone: Entry, key: ObjectKey) -> None:
        if type_store.tombstones.get(tombstone.cluster, {}).pop(key, None) is None:
            type_store.graves.discard(tombstone.cluster, tombstone.namespace, tombstone.name)
            return
        item = type_store.order.items[bisect_left(type_store.order.indexes, tombstone.index)]
        if isinstance(item, Removal):
            item.entries.pop((tombstone.cluster, key), None)
        else:
            type_store.order.discard(tombstone.index)

    def apply_control(self, control: ControlRecord, index: int, time: int) -> Outcome:
        """Takes in a control record. O(1); a removal O(objects removed)."""
        if index <= self.applied:
            outcome = Outcome.REDELIVERED
        else:
            self._note_unread(index)
            outcome = self._apply_control(control, index, time)
            self.applied = index
            self.applied_time = time
            self.controls = index
            if self.loading:
                self._others.append((time, index))
        self.outcomes[outcome] += 1
        return outcome

    def _apply_control(self, control: ControlRecord, index: int, time: int) -> Outcome:
        cluster = self.clusters.get(control.cluster)
        if cluster is None:
            cluster = self.clusters[control.cluster] = ClusterFacts(control.cluster, index)
        if control.epoch < cluster.epoch:
            return Outcome.FENCED
        cluster.heard = time
        match control.fact:
            case OwnerChanged(removed=removed):
                cluster.epoch = control.epoch
                cluster.producer = control.producer
                if removed:
                    # The last record of a cluster that was removed.
                    del self.clusters[control.cluster]
                    self.catalogue = self.documents = index
            case StatusReport(types=types, every=every):
                cluster.status = types
                cluster.status_index = index
                cluster.every = every
            case ClusterRegistered(version=version):
                cluster.registered = True
                cluster.server_version = version
                self.catalogue = index
            case ResourceType(group_resource=resource) as info:
                known = cluster.types.get(resource)
                if known is None or known.version != info.version:
                    cluster.version_since[resource] = index
                    if (type_store := self.types.get(resource)) is not None:
                        type_store.version_since[cluster.name] = index
                if known != info:
                    cluster.types[resource] = info
                    self.catalogue = index
            case OpenApiDocument(name=name, document=document):
                if document is not None:
                    cluster.documents[name] = self.share(document)
                else:
                    cluster.documents.pop(name, None)
                self.documents = index
            case DiscoveryDocument(document=document):
                cluster.discovery = None if document is None else self.share(document)
            case TypeSynced(resource=resource, version=version):
                cluster.synced[resource] = index
                cluster.synced_version[resource] = version
                cluster.type_health.pop(resource, None)
            case HealthChanged(resource=resource, healthy=healthy, reason=reason):
                health = Health(healthy, reason, control.time)
                if resource is not None:
                    cluster.type_health[resource] = health
                else:
                    cluster.health = health
            case ObjectsRemoved() as fact:
                self._apply_removed(cluster, fact, index, time)
        return Outcome.APPLIED

    def _apply_removed(self, cluster: ClusterFacts, removed: ObjectsRemoved, index: int, time: int) -> None:
        resource, had = removed.resource, removed.types
        keys = list(self.types) if resource is None else [resource]
        if resource is None:
            if self.unread_through > self.caught_up_at and had is None:
                self.removed[cluster.name] = index
            keys += [one for one in sorted(set(had or ())) if one not in self.types]
        for gone in keys:
            self._remove(cluster.name, gone, index, time, unseen=had is None or gone in had)
        if resource is None:
            del self.clusters[cluster.name]
            self.documents = index
        else:
            cluster.types.pop(resource, None)
            cluster.version_since.pop(resource, None)
            cluster.synced.pop(resource, None)
            cluster.synced_version.pop(resource, None)
            cluster.followed.pop(resource, None)
            cluster.type_health.pop(resource, None)
        self.catalogue = index

    def share(self, document: ClusterDocument) -> ClusterDocument:
        """The document, or an equal one of another cluster: clusters of one version have the same. O(size) at most."""
        known = self._shared.get(document.hash)
        if known == document:
            return known
        self._shared[document.hash] = document
        return document

    def _remove(self, cluster: str, type_key: GroupResource, index: int, time: int, *, unseen: bool) -> None:
        """Removes a type's objects of a cluster, at one index.

        `unseen`: whether there may have been objects that were purged before this process read them.
        """
        type_store = self.types.get(type_key)
        if type_store is None:
            type_store = self._add_type(type_key)
        type_store.unread_through = self.unread_through
        type_store.version_since.pop(cluster, None)
        if self.unread_through > self.caught_up_at and unseen:
            # Some of what was removed may never have been seen here.
            type_store.floors[cluster] = index
        objects = type_store.clusters.pop(cluster, {})
        type_store.indexes.clear()
        if self.packing is not None and not len(type_store):
            # If it comes again it may be of another kind.
            self.packing.forget(type_key)
        if not objects and not self.loading:
            # The tombstones stay: a watcher may not have read them yet.
            return
        if self.loading:
            # What was removed is purged, or being purged: only a store that saw the objects can name them.
            for entry in list(objects.values()):
                type_store.order.discard(entry.index)
                type_store.leave(entry)
            for tombstone in list(type_store.tombstones.get(cluster, {}).values()):
                self._drop_tombstone(type_store, tombstone, tombstone.key)
            type_store.graves.discard_cluster(cluster)
            if unseen:
                type_store.floors[cluster] = index
            self.dirty.add(type_key)
            return
        removal = Removal(index, {})
        removed = tuple(objects.values())
        for key, entry in objects.items():
            type_store.order.discard(entry.index)
            type_store.leave(entry)
            tombstone = changed_entry(entry, deleted=True, index=index, time=time, final=False)
            self._queue(tombstone)
            removal.entries[cluster, key] = tombstone
            self._add_tombstone(type_store, tombstone)
        type_store.order.append(index, removal)
        self.window.add(type_store.events, index, removal, None, removed=removed)
        self.removals.append(removal)
        self.fading.append((time, index, type_key, removal))
        self.dirty.add(type_key)

    def finish_loading(self, now: int, created: int = 0) -> None:
        """The first replay came to the log's head: sorts every type, and finds the floor, once. O(n log n).

        `now`, and when the stream was `created`: nanoseconds since 1970. In a stream that is younger than the tombstone
        time nothing was forgotten, so the floor stays 0.
        """
        if not self.loading:
            return
        self.loading = False
        for type_store in self.types.values():
            type_store.sort()
        # What the server may already have forgotten was stored before the tombstone time began, so it lies below
        # the first message since then; in doubt the floor is too high, and a client lists anew.
        oldest = now - self.tombstone_ttl * 1_000_000_000
        if created < oldest + _CLOCK_MARGIN:
            self.floor = max(self.floor, self._below_first_since(oldest + _CLOCK_MARGIN))
        self._others.clear()
        self.forget(now)

    def _below_first_since(self, time: int) -> int:
        """The index below the first surviving change stored at `time` or later; `applied` if there is none."""
        lowest = next((index for stored, index in self._others if stored >= time), self.applied + 1)
        for type_store in self.types.values():
            item = next(
                (item for item in type_store.order.items if isinstance(item, Entry) and item.time >= time), None
            )
            if item is not None:
                lowest = min(lowest, item.index)
            if (buried := type_store.graves.first_since(time)) is not None:
                lowest = min(lowest, buried)
        return lowest - 1

    def forget(self, now: int) -> None:
        """Forgets tombstones older than the tombstone time and raises the floor. Amortised O(1) each."""
        self.fit()
        for type_store in self.types.values():
            type_store.indexes.drop_unused()
        limit = now - self.tombstone_ttl * 1_000_000_000
        for type_store in self.types.values():
            if found := type_store.graves.forget(before=limit).through:
                self._forgot(type_store, found)
        while (first := self.first_faded()) is not None and first.time < limit:
            self.forget_first_faded()
        while self.fading and self.fading[0][0] < limit:
            self.forget_first()

    def _forgot(self, type_store: TypeStore, index: int) -> None:
        self.floor = max(self.floor, index)
        type_store.forgotten = max(type_store.forgotten, index)

    def forget_first(self) -> int:
        """Forgets the first of `fading`; the index of its message, if it is a tombstone that has one, else 0."""
        _, index, type_key, item = self.fading.popleft()
        type_store = self.types[type_key]
        self._forgot(type_store, index)
        if isinstance(item, Removal):
            self.removals.remove(item)
            for cluster, key in item.entries:
                type_store.drop_tombstone(cluster, key)
            type_store.order.discard(item.index)
        elif item.deleted:
            self.deletion_sizes.pop(index, None)
            tombstones = type_store.tombstones.get(item.cluster, {})
            if tombstones.get(item.key) is item:
                type_store.drop_tombstone(item.cluster, item.key)
                type_store.order.discard(item.index)
                return index
        else:
            self._forget_replaced(type_store, item.cluster, item.key, item.uid_index)
        return 0

    def first_faded(self) -> Faded | None:
        """The first of `faded`. O(1)."""
        return next(iter(self.faded.values()), None)

    def add_faded(self, faded: Faded) -> None:
        """Takes in one more, in place of that of its name: its predecessor's was dropped with that. O(1)."""
        at = faded.type, faded.cluster, faded.key
        self.faded[at] = faded
        self.faded.move_to_end(at)

    def forget_first_faded(self) -> None:
        """Forgets the first of `faded`."""
        _, one = self.faded.popitem(last=False)
        type_store = self.types[one.type]
        self._forgot(type_store, one.index)
        self._forget_replaced(type_store, one.cluster, one.key, one.uid_index)

    @staticmethod
    def _forget_replaced(type_store: TypeStore, cluster: str, key: ObjectKey, uid_index: int) -> None:
        live = type_store.get(cluster, key)
        if live is not None and live.uid_index == uid_index:
            live.remember(live.past, None)

    def fading_before(self, limit: int) -> int:
        """How many tombstones stored before `limit` are still remembered. O(those that are whole, blocks of graves)."""
        count = sum(type_store.graves.stored_before(limit) for type_store in self.types.values())
        for time, _, type_key, item in self.fading:
            if time >= limit:
                break
            if isinstance(item, Entry):
                count += self.types[type_key].tombstones.get(item.cluster, {}).get(item.key) is item
        return count

    # -- packing -----------------------------------------------------------------------------------------------

    def take_plain(self, *, train: bool = True) -> Batch:
        """The oldest entries whose bodies are plain, for `plain.packed`. O(those; samples, when some are wanted).

        `train`: as it will be given to `packed`; without it no samples are looked for.

        What comes of it is to be given to `settle_packed`, or they to `plain.give_back`.
        """
        taken = self.plain.take()
        types = {key: self.types[key] for key in {entry.envelope.key for entry, _ in taken} if key in self.types}
        objects = {key: len(type_store) for key, type_store in types.items()}
        wanted = self.packing.wanted(objects) if train and self.packing is not None else {}
        samples = {key: types[key].bodies(some.bodies, newest=some.newest) for key, some in wanted.items()}
        return Batch(taken, objects, samples)

    def settle_packed(self, done: Iterable[Packed]) -> None:
        """Has entries be held as was found for them, in place. O(those)."""
        types = self.types
        for entry, before, dictionary, record in done:
            if entry.record is not before:
                continue
            entry.record, entry.dictionary = record, dictionary
            type_store = types.get(entry.envelope.key)
            if type_store is not None and type_store.get(entry.cluster, entry.key) is entry:
                saved = len(before) - len(record)
                type_store.held -= saved
                type_store.saved += saved
        self.plain.settled()
        if self.plain.out:
            # What a thread has is older than the oldest here, and plain yet.
            return
        oldest = self.plain.oldest()
        self.window.settle(self.applied + 1 if oldest is None else oldest.index)

    def pack(self, upto: int = 0, *, train: bool = True) -> None:
        """Packs the oldest bodies until no more than `upto` bytes are plain. O(their bytes), some 10 us each.

        `train`: as in `Packing.take`.
        """
        while self.packing is not None and self.plain.size > upto and len(self.plain):
            self.settle_packed(packed(self.packing, self.take_plain(train=train), train=train))

    def fit(self) -> None:
        """Sets what is bounded in proportion to the live objects: plain bodies, and the window. O(types, clusters)."""
        held = sum(type_store.held for type_store in self.types.values())
        self.plain.bound(held + sum(type_store.saved for type_store in self.types.values()))
        if self.fits_window:
            self.window.resize(in_proportion(held + _ENTRY_BYTES * sum(map(len, self.types.values()))))

    # -- reading -----------------------------------------------------------------------------------------------

    def owned(
        self,
        uid: str,
        seniority: int,
        clusters: frozenset[str] | None,
        seen: Callable[[GroupResource, Entry], bool] | None = None,
    ) -> frozenset[str]:
        """The owners to ask for, `seniority` hops below an object: 0: its own uid, 1: those of what it controls.

        (A Deployment's Pods are controlled by its ReplicaSets: seniority 1.) `seen`: whether who asks may see an owner
        between; None: all. O(objects owned).
        """
        return self.owned_by(frozenset({uid}), seniority, clusters, seen)

    def owned_by(
        self,
        uids: Set[str],
        seniority: int,
        clusters: frozenset[str] | None,
        seen: Callable[[GroupResource, Entry], bool] | None = None,
    ) -> frozenset[str]:
        """As `owned`, of several objects. O(objects owned)."""
        for _ in range(seniority):
            uids = {
                entry.uid
                for type_store in self.types.values()
                for entry in type_store.indexes.owned(uids, type_store.live)
                if (clusters is None or entry.cluster in clusters) and (seen is None or seen(type_store.key, entry))
            }
            if not uids:
                break
        return frozenset(uids)

    def called(
        self, wanted: Filter, resource: GroupResource | None, seen: Callable[[GroupResource, Entry], bool] | None = None
    ) -> frozenset[str]:
        """The uids of what a filter selects of a type, or of all types. O(types), and as `TypeStore.select` of each."""
        found = [self.types.get(resource)] if resource is not None else list(self.types.values())
        return frozenset(
            entry.uid
            for type_store in found
            if type_store is not None
            for entry in type_store.select(wanted)
            if seen is None or seen(type_store.key, entry)
        )

    def floor_of(self, type_key: GroupResource, clusters: frozenset[str] | None) -> int:
        """The lowest index at which a watch of a type may resume; `clusters` None: of all. O(clusters with a floor).

        Beside the store's `floor` count removals of which this process did not see every object.
        """
        floor = self.floor
        type_store = self.types.get(type_key)
        for floors in (self.removed, {} if type_store is None else type_store.floors):
            named = floors.keys() if clusters is None else clusters & floors.keys()
            floor = max([floor, *(floors[cluster] for cluster in named)])
        return floor

    def check(self) -> None:
        """The invariants as code, for tests. O(n).

        Raises:
            AssertionError: one of them is broken.
        """
        for type_store in self.types.values():
            order = type_store.order
            assert len(order.indexes) == len(order.items)
            assert all(a < b for a, b in zip(order.indexes, order.indexes[1:], strict=False)), "order ascends"
            assert order.holes == sum(item is None for item in order.items)
            by_index = {i: item for i, item in zip(order.indexes, order.items, strict=True) if item is not None}
            assert not by_index or max(by_index) <= self.applied
            dead = held = plain = 0
            for cluster, objects in type_store.clusters.items():
                for key, entry in objects.items():
                    assert entry.key == key
                    assert entry.cluster == cluster
                    assert not entry.deleted
                    assert by_index[entry.index] is entry, "a live entry stands in the order"
                    assert entry.uid_index <= entry.selectable_since <= entry.index, (
                        entry.uid_index,
                        entry.selectable_since,
                        entry.index,
                    )
                    assert entry.type_meta.startswith(b'{"kind":')
                    held += len(entry.record)
                    plain += plain_size(entry.record)
                    content = entry.content
                    assert len(content) == entry.size
                    assert content.startswith(METADATA + b'"resourceVersion":"')
                    assert content.endswith(entry.rest)
                    assert entry.rest[: -entry.behind_metadata].endswith(b"}")
                    assert list(entry.fields) == list(entry.envelope.field_names)
            for cluster, tombstones in type_store.tombstones.items():
                for key, tombstone in tombstones.items():
                    assert tombstone.deleted
                    assert key not in type_store.clusters.get(cluster, {}), "no name both lives and is dead"
                    item = by_index[tombstone.index]
                    assert item is tombstone or (isinstance(item, Removal) and item.entries[cluster, key] is tombstone)
                    dead += 1
            assert (type_store.held, type_store.saved) == (held, plain - held), "what is held is counted"
            type_store.graves.check()
            for grave in type_store.graves.entries():
                key = object_key(grave.namespace, grave.name)
                assert grave.deleted
                assert key not in type_store.clusters.get(grave.cluster, {}), "no name both lives and is buried"
                assert key not in type_store.tombstones.get(grave.cluster, {}), "what is buried is nowhere else"
            type_store.indexes.check(list(type_store.live()))
            in_order = sum(len(item.entries) if isinstance(item, Removal) else 1 for item in by_index.values())
            assert in_order == len(type_store) + dead, "nothing stands in the order that has no name"


def _with_body_of(entry: Entry, current: Entry) -> Entry:
    return changed_entry(
        entry,
        created=current.created,
        body_of=current,
    )
