"""Integrity: whether the log still holds what the store was built from, by counting its subjects.

A message that was deleted from the state stream leaves no trace, and one that was superseded by a newer one of its
subject is gone as a matter of course. But the stream knows how many subjects it has, and the store how many it should
have. If it has fewer, an audit (one reading of the state without payloads) finds out which are missing.

Example: 1,000 live objects, 20 tombstones and 30 control records should be 1,050 subjects. A stream with 1,049 has lost
one, unless a tombstone is at the end of its time and may be gone already.

Some messages are purged by those who write, and do not count as missing: the tombstones of a type that was removed
(its objects are none here either), and those in a version of the type that is not synced any longer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, islice

import msgspec

from deltalog.history import Probe
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import StreamState
from deltalog.reader import Record, read_to_end
from deltalog.wire import subjects
from deltalog.wire.delta import Delta
from deltalog.wire.forgotten import FORGOTTEN_SUBJECT
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import ControlRecord, ObjectsRemoved, OpenApiDocument
from deltalog.wire.subjects import (
    CONTROL,
    OBJECTS,
    control_subject,
    encode_token,
    object_filter,
    parse_control,
    parse_object,
)
from materializer.entry import Entry, ObjectKey, object_key
from materializer.graves import Grave
from materializer.store import Store

# How much sooner than by the tombstone time a tombstone may go, for clocks that differ, in nanoseconds.
_MARGIN = 5_000_000_000
_NEWEST, _OTHERS = 8, 16
# So many buried deletions are looked at in one turn, in some 10 ms.
_AT_ONCE = 2048


class Missing(msgspec.Struct):
    """What an audit did not find in the log.

    `living`: subjects of live objects and control records; `tombstone`: index of the newest missing tombstone, or 0.
    """

    living: list[str]
    tombstone: int = 0


class Counts(msgspec.Struct, array_like=True):
    """What is counted beside the store, by subject.

    - `records`: sequences of control records; `parts`: in how many messages an object is that is in several.
    - `unread`: subjects whose last message cannot be read here.
    - `shortfall`: how many subjects the log may have too few without a reason to look closer: an audit found out why.
    - `removed`: sequence and time (ns since 1970) of records of removals that are not forgotten yet.
    - `forgotten`: sequence of the record of forgotten deletions (`deltalog.wire.forgotten`); 0: there is none.
    """

    records: dict[str, int] = {}
    parts: dict[str, int] = {}
    unread: list[str] = []
    shortfall: int = 0
    removed: dict[str, tuple[int, int]] = {}
    forgotten: int = 0

    def split(self, most: int) -> Iterator[Counts]:
        """The same in several, with at most so many subjects each."""
        yield Counts(shortfall=self.shortfall, forgotten=self.forgotten)
        records, parts, removed = iter(self.records.items()), iter(self.parts.items()), iter(self.removed.items())
        while some := dict(islice(records, most)):
            yield Counts(records=some)
        while some := dict(islice(parts, most)):
            yield Counts(parts=some)
        while more := dict(islice(removed, most)):
            yield Counts(removed=more)
        for at in range(0, len(self.unread), most):
            yield Counts(unread=self.unread[at : at + most])

    def add(self, more: Counts) -> None:
        """The inverse of `split`."""
        self.records.update(more.records)
        self.parts.update(more.parts)
        self.unread += more.unread
        self.shortfall += more.shortfall
        self.removed.update(more.removed)
        self.forgotten = max(self.forgotten, more.forgotten)


class Integrity:
    """Counts what the log of one store should hold. Fed with the same messages as the store, by the store's owner.

    - `due`: a state of the stream that is to be compared once the store has come as far; None if there is none.
    - `suspicious`: the log has too few subjects; `audit` finds out why.
    """

    def __init__(self, store: Store, counts: Counts | None = None) -> None:
        counts = counts or Counts()
        self.store = store
        self.due: StreamState | None = None
        self.suspicious = False
        self._records = counts.records
        self._parts = counts.parts
        # Subjects whose last message cannot be read here.
        self._unread = set(counts.unread)
        self._shortfall = counts.shortfall
        self._removed = counts.removed
        self._forgotten = counts.forgotten

    def counts(self) -> Counts:
        """What it knows now, to go on from elsewhere."""
        unread, removed = list(self._unread), dict(self._removed)
        return Counts(dict(self._records), dict(self._parts), unread, self._shortfall, removed, self._forgotten)

    # -- what comes in ---------------------------------------------------------------------------------------------

    def take_delta(self, delta: Delta, subject: str) -> None:
        """A delta that the store takes in, whole or in parts."""
        if self._unread:
            self._unread.discard(subject)
        if delta.parts:
            self._parts[subject] = len(delta.parts)
        elif self._parts:
            self._parts.pop(subject, None)

    def take_unreadable(self, subject: str) -> None:
        """A message that cannot be read, of another format or not of ours: its subject counts all the same."""
        if subject not in self._records and not self._has(subject):
            self._unread.add(subject)

    def _has(self, subject: str) -> bool:
        """Whether the store counts an object by this subject, alive or dead."""
        try:
            at = parse_object(subject)
        except ValueError:
            return False
        type_store = self.store.types.get(GroupResource(at.group, at.resource))
        key = object_key(at.namespace, at.name)
        return type_store is not None and (
            type_store.get(at.cluster, key) is not None or type_store.tombstone(at.cluster, key) is not None
        )

    def take_control(self, control: ControlRecord, subject: str, sequence: int, time: int) -> None:
        """A control record, stored at `time` (ns since 1970): those that speak of what is removed go with it."""
        self._unread.discard(subject)
        fact = control.fact
        if isinstance(fact, OpenApiDocument) and fact.document is None:
            # The document has gone, and what says so goes, too.
            self._records.pop(subject, None)
            return
        if not isinstance(fact, ObjectsRemoved):
            self._records[subject] = sequence
            return
        oldest = time - self.store.tombstone_ttl * 1_000_000_000
        self._removed = {one: at for one, at in self._removed.items() if at[1] > oldest}
        self._removed[subject] = (sequence, time)
        cluster = encode_token(control.cluster)
        for one in [one for one in self._unread if one.startswith(f"{OBJECTS}.{cluster}.")]:
            if fact.resource is None or _is_of(one, fact.resource):
                self._unread.discard(one)
        if fact.resource is not None:
            for record in subjects.TYPE_RECORDS:
                self._records.pop(control_subject(control.cluster, record, *fact.resource), None)
            gone = (control.cluster, *fact.resource)
            for one in list(self._parts):
                at = parse_object(one)
                if (at.cluster, at.group, at.resource) == gone:
                    del self._parts[one]
            return
        owner = control_subject(control.cluster, subjects.OWNER)
        for one in [one for one in self._records if one.startswith(f"{CONTROL}.{cluster}.") and one != owner]:
            del self._records[one]
        for one in [one for one in self._parts if one.startswith(f"{OBJECTS}.{cluster}.")]:
            del self._parts[one]

    def take_forgotten(self, sequence: int) -> None:
        """The record of forgotten deletions: there is one."""
        self._forgotten = sequence

    # -- counting --------------------------------------------------------------------------------------------------

    def compare(self, state: StreamState, now: int) -> bool:
        """Compares with what the state stream had, or leaves it `due` until the store is as far as that was then.

        Sets `suspicious` if there is too little. False: the store is past it, so it cannot be compared.
        """
        self.due = None
        if self.store.applied < state.last_sequence:
            self.due = state
        elif self.store.applied == state.last_sequence:
            self.settle(state, now)
        else:
            return False
        return True

    def settle(self, state: StreamState, now: int) -> None:
        """Compares: the store is just as far as the stream was at `state`."""
        self.due = None
        lacking = self._lacking(state, now)
        self._shortfall = min(self._shortfall, max(lacking, 0))
        self.suspicious = self.suspicious or lacking > self._shortfall

    def _lacking(self, state: StreamState, now: int) -> int:
        """How many subjects the log has too few, as far as that can be said.

        O(types, and tombstones about to go); O(tombstones) where it seems to have too few.
        """
        store = self.store
        limit = now - store.tombstone_ttl * 1_000_000_000 + _MARGIN
        count = len(self._records) + len(self._unread) + sum(self._parts.values()) - state.subjects
        count += sum(time > limit for _, time in self._removed.values()) + bool(self._forgotten)
        for type_store in store.types.values():
            count += len(type_store) + type_store.graves.messages
            count += sum(len(tombstones) for tombstones in type_store.tombstones.values())
        for removal in store.removals:
            # Theirs are no messages.
            count -= len(removal.entries)
        count -= store.fading_before(limit)
        if count > 0:
            count -= self._purged_tombstones(limit)
        return count

    def _purged_tombstones(self, limit: int) -> int:
        """How many tombstones stored since `limit` those who write have purged, or may have.

        O(whole tombstones, clusters with buried ones): it is asked again and again for a day after a removal. O(buried
        ones) where a removed type or cluster came back, and lost more since.
        """
        count = 0
        for type_store in self.store.types.values():
            key, graves = type_store.key, type_store.graves
            whole = chain.from_iterable(tombstones.values() for tombstones in type_store.tombstones.values())
            count += sum(one.time >= limit and self._may_be_purged(one, key) for one in whole)
            for buried in graves.of_versions():
                # Of those about to go, which are counted as gone already, a few may be among them.
                if self._is_purged(key, buried.cluster, buried.version, buried.last):
                    count += buried.messages
                elif self._is_purged(key, buried.cluster, buried.version, 0):
                    count += sum(
                        not one.removal and one.version == buried.version and self._may_be_purged(one, key)
                        for one in graves.entries(buried.cluster)
                    )
        return count

    def _may_be_purged(self, tombstone: Entry | Grave, key: GroupResource) -> bool:
        """Whether a tombstone is from before its type or cluster was removed, or in a version that is not synced."""
        return self._is_purged(key, tombstone.cluster, tombstone.version, tombstone.index)

    def _is_purged(self, key: GroupResource, cluster: str, version: str, index: int) -> bool:
        """The same of a deletion at an index."""
        if self._removed:
            for resource in (key, GroupResource("", "")):
                removed = self._removed.get(control_subject(cluster, subjects.REMOVED, *resource))
                if removed is not None and index < removed[0]:
                    return True
        facts = self.store.clusters.get(cluster)
        synced = None if facts is None else facts.types.get(key)
        return synced is not None and synced.version != version

    # -- looking closer --------------------------------------------------------------------------------------------

    async def audit(self, log: Log, applied: Callable[[int], Awaitable[None]]) -> Missing:
        """Reads the whole log's subjects and says what is missing that was there before the reading began.

        `applied` returns when the store has come to an index. Raises as readers do, BrokerUnavailable.
        """
        store, before = self.store, self.store.applied
        seen: set[tuple[str, GroupResource, ObjectKey]] = set()
        records: set[str] = set()

        def see(record: Record) -> None:
            if record.subject.startswith(CONTROL):
                records.add(record.subject)
                return
            try:
                at = parse_object(record.subject)
            except ValueError:
                # Not written by us, under a subject of ours.
                return
            seen.add((at.cluster, GroupResource(at.group, at.resource), object_key(at.namespace, at.name)))

        await read_to_end(log, see, subjects=(f"{OBJECTS}.>", f"{CONTROL}.>"), headers_only=True)
        # Then what was superseded, deleted or removed while we read is known to the store, too.
        await applied(await log.head())
        kept = await log.kept()
        # What a state that was made anew lacks was not cut out of the history, and is appended again.
        lacks_to = 0 if kept is None else kept.lacks_to
        missing = Missing(
            [subject for subject, at in self._records.items() if lacks_to < at <= before and subject not in records]
        )
        if lacks_to < self._forgotten <= before and FORGOTTEN_SUBJECT not in records:
            missing.living.append(FORGOTTEN_SUBJECT)
        limit = log.now() - store.tombstone_ttl * 1_000_000_000 + _MARGIN
        for number, type_store in enumerate(list(store.types.values())):
            for item in list(type_store.order.items):
                if (
                    not isinstance(item, Entry)
                    or not lacks_to < item.index <= before
                    or (item.cluster, type_store.key, item.key) in seen
                ):
                    continue
                if not item.deleted:
                    missing.living.append(_filter(item, type_store.key))
                elif item.time > limit and not self._may_be_purged(item, type_store.key):
                    missing.tombstone = max(missing.tombstone, item.index)
            at = lacks_to
            while graves := list(islice(type_store.graves.after(at), _AT_ONCE)):
                # Others of the same index are of the same removal, which the log has no messages of.
                at = graves[-1].index
                for grave in graves:
                    if grave.removal or grave.index > before or grave.time <= limit:
                        continue
                    key = object_key(grave.namespace, grave.name)
                    if (grave.cluster, type_store.key, key) in seen or self._may_be_purged(grave, type_store.key):
                        continue
                    missing.tombstone = max(missing.tombstone, grave.index)
                await asyncio.sleep(0)
            if number % 8 == 7:
                await asyncio.sleep(0)
        self.suspicious = False
        if not missing.living and kept is not None:
            # Whatever the count was about, it causes no further audit.
            self._shortfall = max(self._shortfall, self._lacking(kept, log.now()))
        return missing

    # -- probes ----------------------------------------------------------------------------------------------------

    def probes(self) -> tuple[Probe, ...]:
        """Some messages that the log holds, by which an instance without a store can see whether it was cut.

        The newest, since the end is what is cut off a log that lost its last writes; the oldest, since a purge begins
        there; and some of the others.
        """
        found: list[Probe] = []
        oldest = sorted(self._records, key=self._records.__getitem__)
        for subject in {*oldest[:2], *random.sample(oldest, min(len(oldest), _OTHERS // 2))}:
            at = parse_control(subject)
            removals = _removals(at.cluster, GroupResource(at.group, at.resource))
            found.append(Probe(self._records[subject], subject, removals))
        newest: list[tuple[int, GroupResource, Entry]] = []
        type_stores = [type_store for type_store in self.store.types.values() if type_store.order.items]
        for type_store in type_stores:
            last = islice(reversed(type_store.order.items), 4 * _NEWEST)
            living = [item for item in last if isinstance(item, Entry) and not item.deleted]
            newest.extend((item.index, type_store.key, item) for item in living)
        chosen = sorted(newest, key=lambda one: -one[0])[:_NEWEST]
        sizes = [len(type_store.order.items) for type_store in type_stores]
        for type_store in random.choices(type_stores, sizes, k=_OTHERS) if type_stores else ():
            item = random.choice(type_store.order.items)
            if isinstance(item, Entry) and not item.deleted:
                chosen.append((item.index, type_store.key, item))
        for index, key, item in chosen:
            found.append(Probe(index, _filter(item, key), _removals(item.cluster, key)))
        return tuple(found)


def _is_of(subject: str, resource: GroupResource) -> bool:
    """Whether a subject is of an object of a type."""
    try:
        at = parse_object(subject)
    except ValueError:
        return False
    return (at.group, at.resource) == resource


def _filter(entry: Entry, key: GroupResource) -> str:
    """An object's subject in any version: a cluster may come to serve another one."""
    return object_filter(entry.cluster, *key, entry.namespace, entry.name)


def _removals(cluster: str, key: GroupResource) -> tuple[str, ...]:
    whole = control_subject(cluster, subjects.REMOVED)
    return (whole, control_subject(cluster, subjects.REMOVED, *key)) if key[1] else (whole,)
