"""Restoration: a store made from the pieces of an image, as it was when that was taken."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec

from deltalog.wire.delta import Selectables
from deltalog.wire.parts import Assembler
from deltalog.wire.records import ClusterDocument
from materializer.bodies import Dictionary, Packing
from materializer.cluster_facts import ClusterFacts
from materializer.entry import Entry, Envelope, Life, ObjectKey, Past, envelope_of, record_of
from materializer.image_records import (
    ImageCluster,
    ImageFading,
    ImageGraves,
    ImagePart,
    ImagePast,
    ImageRemoval,
    ImageShared,
    ImageState,
    ImageType,
    NotAnImage,
    PieceType,
    WindowRead,
    entries_in,
)
from materializer.integrity import Counts
from materializer.mapped import MappedFile
from materializer.order import Order, Removal
from materializer.record import NO_TEXTS
from materializer.store import Faded, Store
from materializer.type_store import TypeStore
from materializer.window import CLOSED, Event, TypeWindow, Window, event_of_new, weight_of

_window_decoder: msgspec.msgpack.Decoder[WindowRead] = msgspec.msgpack.Decoder(WindowRead)
# How many different label sets are remembered at most, to find equal ones.
_REMEMBERED = 1 << 16


class Restoration:
    """A store in the making, from the pieces of an image in their order.

    What cannot be read raises NotAnImage; then nothing of it is to be used. `file`: where the pieces stand, if records
    are to be left there.
    """

    def __init__(self, file: MappedFile | None = None) -> None:
        self._file = file
        self._state: ImageState | None = None
        self._type_stores: list[TypeStore] = []
        self._removals: dict[tuple[int, int], Removal] = {}
        self._fading: list[ImageFading] = []
        self._faded: list[tuple[int, Faded]] = []
        self._documents: list[ClusterDocument] = []
        self._clusters: list[ImageCluster] = []
        self._counts = Counts()
        # Those that may be packed.
        self._plain: list[Entry] = []
        # With the index at which they came to be past.
        self._pasts: list[tuple[int, Past]] = []
        self._parts = Assembler()
        self._window: list[tuple[TypeWindow, Event]] = []
        # Of the type whose window is being read, the items by index.
        self._items: dict[int, Entry] = {}
        # What entries have in common, by number.
        self._texts: list[str] = []
        self._labels: list[dict[str, str]] = []
        self._envelopes: list[Envelope] = []
        self._dictionaries: list[Dictionary] = []
        self._known_labels: dict[tuple[int, ...], dict[str, str]] = {}
        # Of types, by their numbers, the present dictionaries.
        self._present: list[tuple[int, int]] = []

    def take(self, piece_type: int, text: bytes | memoryview, at: int | None = None) -> None:
        """Takes in a piece; `at`: where it stands in the file, as it is. O(its length). Raises NotAnImage."""
        decode = msgspec.msgpack.decode
        try:
            if piece_type in (PieceType.PACKED, PieceType.ENTRIES):
                self._take_entries(text, at)
            elif piece_type in (PieceType.PACKED_WINDOW, PieceType.WINDOW):
                self._take_window(_window_decoder.decode(text))
            elif piece_type == PieceType.STATE:
                self._state = decode(text, type=ImageState)
            elif piece_type == PieceType.TYPE:
                record = decode(text, type=ImageType)
                # Its window and prefix are those of the store that it comes into.
                made = TypeStore(record.key, True, Window(0), "")
                made.floors, made.forgotten, made.unread_through = (
                    record.floors,
                    record.forgotten,
                    record.unread_through,
                )
                self._type_stores.append(made)
                self._items = {}
            elif piece_type == PieceType.SHARED:
                self._take_shared(decode(text, type=ImageShared))
            elif piece_type == PieceType.DICTIONARIES:
                self._present = decode(text, type=list[tuple[int, int]])
            elif piece_type == PieceType.REMOVAL:
                where = decode(text, type=ImageRemoval)
                removal = self._removals[where.type, where.index] = Removal(where.index, {})
                self._type_stores[where.type].order.append(where.index, removal)
            elif piece_type == PieceType.FADING:
                self._fading += decode(text, type=list[ImageFading])
            elif piece_type == PieceType.FADED:
                self._faded += decode(text, type=list[tuple[int, Faded]])
            elif piece_type == PieceType.GRAVES:
                graves = decode(text, type=ImageGraves)
                for block in graves.blocks:
                    self._type_stores[graves.type].graves.restore(block)
            elif piece_type == PieceType.DOCUMENT:
                self._documents.append(decode(text, type=ClusterDocument))
            elif piece_type == PieceType.CLUSTER:
                self._clusters.append(decode(text, type=ImageCluster))
            elif piece_type == PieceType.COUNTS:
                self._counts.add(decode(text, type=Counts))
            elif piece_type == PieceType.PART:
                part = decode(text, type=ImagePart)
                self._parts.hold(part.sequence, part.data)
            else:
                raise NotAnImage(f"a piece of type {piece_type}")
        except (msgspec.MsgspecError, ValueError, LookupError) as cause:
            raise NotAnImage(f"a piece of type {piece_type} cannot be read: {cause}") from cause

    def _take_shared(self, shared: ImageShared) -> None:
        if self._state is None:
            raise NotAnImage("something that entries have in common before the state")
        self._texts += shared.texts
        text = self._texts.__getitem__
        known = self._known_labels
        for numbers in shared.labels:
            # Those that are equal were not one object where this was written, if they came at other times.
            labels = known.get(at := tuple(numbers))
            if labels is None:
                if len(known) >= _REMEMBERED:
                    known.clear()
                labels = known[at] = dict(zip(map(text, numbers[::2]), map(text, numbers[1::2]), strict=True))
            self._labels.append(labels)
        for one in shared.envelopes:
            key = self._type_stores[one.type].key
            self._envelopes.append(envelope_of(key, self._state.prefix, one.type_meta, one.field_names))
        self._dictionaries += shared.made_dictionaries()

    def _take_entries(self, text: bytes | memoryview, at: int | None) -> None:
        record, apart = entries_in(text)
        type_store = self._type_stores[record.type]
        removal = self._removals[record.type, record.removal] if record.removal else None
        entries = self._share(record.entries)
        if removal is None:
            held, plain = apart.sizes(text)
            type_store.held += held
            type_store.saved += plain - held
        file = self._file if removal is None and at is not None else None
        view, begins = memoryview(text), at or 0
        for entry, place, length in zip(*apart, strict=True):
            if file is None or entry.deleted or not file.put(entry, begins + place, length, entry.dictionary):
                entry.record = bytes(view[place : place + length])
        if removal is None:
            indexes, items = type_store.order.indexes, type_store.order.items
            objects: MutableMapping[ObjectKey, Entry] = {}
            tombstones: dict[ObjectKey, Entry] = {}
            cluster: str | None = None
            for entry in entries:
                indexes.append(entry.index)
                items.append(entry)
                # Shared texts: mostly it is the same one again.
                if entry.cluster is not cluster:
                    cluster = entry.cluster
                    objects = type_store.objects(cluster)
                    tombstones = type_store.tombstones.setdefault(cluster, {})
                if entry.deleted:
                    tombstones[entry.key] = entry
                else:
                    objects[entry.key] = entry
                    if entry.dictionary is None:
                        type_store.held += len(entry.record)
        else:
            for entry in entries:
                removal.entries[entry.cluster, entry.key] = entry
                type_store.tombstones.setdefault(entry.cluster, {})[entry.key] = entry
        for memory in record.memories:
            entry = entries[memory.at]
            self._share(memory.replaced)
            self._remember(entry, memory.pasts[0])
            for before, pasts in zip(memory.replaced, memory.pasts[1:], strict=True):
                self._remember(before, pasts)
                entry.remember(entry.past, before)
                entry = before

    def _take_window(self, record: WindowRead) -> None:
        type_store = self._type_stores[record.type]
        for one in record.events:
            self._share([entry for entry in (one.item, one.before, *one.removed) if entry is not None])
            before = self._items[one.before_index] if one.before_index else one.before
            was = None if one.was is None else Selectables(*one.was)
            item = one.item or _standing(type_store.order, one.index)
            if isinstance(item, Entry):
                self._items[one.index] = item
            removed = tuple(one.removed)
            if one.fresh and isinstance(item, Entry):
                event = event_of_new(item)
            else:
                event = Event(one.index, item, before, was, one.fresh, removed, weight_of(item, before, removed))
            self._window.append((type_store.events, event))

    def _share(self, entries: list[Any]) -> list[Entry]:
        """The same entries, with what they have in common in place of its numbers."""
        texts, all_labels, envelopes = self._texts, self._labels, self._envelopes
        for entry in entries:
            entry.cluster = texts[entry.cluster]
            entry.namespace = texts[entry.namespace]
            entry.version = texts[entry.version]
            entry.labels = all_labels[entry.labels]
            entry.controller_uid = texts[entry.controller_uid]
            entry.envelope = envelopes[entry.envelope]
            if entry.dictionary is None:
                self._plain.append(entry)
            else:
                entry.dictionary = self._dictionaries[entry.dictionary]
        return entries

    def _remember(self, entry: Entry, pasts: list[ImagePast]) -> None:
        found = [Past(*one) for one in pasts]
        since = entry.selectable_since
        for at, past in enumerate(found):
            past.before = found[at + 1] if at + 1 < len(found) else None
            self._pasts.append((since, past))
            since = past.selectable_since
        entry.remember(found[0] if found else None, entry.replaced)

    def finish(self) -> Iterator[None]:
        """What is to be done when all pieces are in, in steps; then `restored`. Raises NotAnImage."""
        for type_store in self._type_stores:
            type_store.sort()
            yield

    def restored(self, packing: Packing | None = None) -> tuple[Store, Counts, Assembler]:
        """The store as it was, what its integrity had counted, and the parts of objects to come. Raises NotAnImage.

        `packing`: how its bodies are packed from here on; it goes on with the dictionaries of then.
        """
        record = self._state
        if record is None:
            raise NotAnImage("it does not say of what store it is")
        # Whoever goes on with it says how large its window may be.
        size = sum(event.weight for _, event in self._window) or 1
        store = Store(record.prefix, record.tombstone_ttl, size, packing)
        if record.window_start == CLOSED:
            store.window.close()
        else:
            store.window.restore(self._window, record.window_start)
        for type_store in self._type_stores:
            type_store.window, type_store.prefix = store.window, store.prefix
        store.loading = False
        store.applied, store.applied_time = record.applied, record.applied_time
        store.floor, store.unread_through, store.caught_up_at = record.floor, record.unread_through, record.caught_up_at
        store.catalogue, store.documents, store.controls = record.catalogue, record.documents, record.controls
        store.removed = record.removed
        store.types = {type_store.key: type_store for type_store in self._type_stores}
        store.removals.extend(sorted(self._removals.values(), key=lambda one: one.index))
        self._pasts.sort(key=lambda one: one[0])
        store.pasts.extend(past for _, past in self._pasts)
        try:
            for one in self._fading:
                store.fading.append((one.time, one.index, self._type_stores[one.type].key, self._item(one)))
                if one.size:
                    store.deletion_sizes[one.index] = one.size
            for number, faded in self._faded:
                store.add_faded(faded._replace(type=self._type_stores[number].key))
            for cluster in self._clusters:
                store.clusters[cluster.name] = self._cluster_of(cluster, store)
                for key, since in cluster.version_since.items():
                    if key in store.types:
                        store.types[key].version_since[cluster.name] = since
            if packing is not None:
                packing.count_in(self._dictionaries)
                for type, number in self._present:
                    packing.adopt(self._type_stores[type].key, self._dictionaries[number])
        except LookupError as cause:
            raise NotAnImage(f"it speaks of what it does not have: {cause}") from cause
        if packing is not None:
            for entry in self._plain:
                store.plain.add(entry)
        store.fit()
        return store, self._counts, self._parts

    def _item(self, record: ImageFading) -> Entry | Removal:
        type_store = self._type_stores[record.type]
        if record.deleted:
            found = _at(type_store.order, record.at)
            if found is not None:
                return found
        else:
            live = type_store.get(record.cluster, record.key)
            if live is not None and live.uid_index == record.first:
                return live
        # It stands nowhere any more: that it fades is all that matters.
        life = Life(record.first, record.at, record.at, record.first, "", {}, (), NO_TEXTS, "", None, None)
        nothing = record_of(
            life,
            prefix="",
            index=record.at,
            time=record.time,
            created=0,
            uid="",
            uid_packed=b"",
            member_version="",
            final=False,
            rest=b"",
            behind_metadata=0,
        )
        return Entry(
            *(record.at, record.deleted, record.cluster, record.key.partition("\0")[0], record.key, "", {}, ""),
            *(envelope_of(type_store.key, "", b"", ()), None, nothing),
        )

    def _cluster_of(self, record: ImageCluster, store: Store) -> ClusterFacts:
        cluster = ClusterFacts(record.name, record.versions_restarted_at)
        for name in ImageCluster.__struct_fields__:
            if name not in ("documents", "discovery"):
                setattr(cluster, name, getattr(record, name))
        cluster.documents = {key: store.share(self._documents[number]) for key, number in record.documents.items()}
        if record.discovery is not None:
            cluster.discovery = store.share(self._documents[record.discovery])
        return cluster


def _standing(order: Order, index: int) -> Entry | Removal:
    """What stands in the order at an index; the removal that was there, if nothing does any more."""
    item = next(order.after(index - 1), None)
    return item if item is not None and item.index == index else Removal(index, {})


def _at(order: Order, index: int) -> Entry | Removal | None:
    """What of the dead stands at an index."""
    item = next(order.after(index - 1), None)
    if item is None or item.index != index or (isinstance(item, Entry) and not item.deleted):
        return None
    return item
