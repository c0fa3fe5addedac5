"""Image: all that a store holds at one index, unchanged while the store goes on, and how it is written.

An image is taken at one go, by copying references: entries are immutable, and what else a store changes in place is
copied. It is written in pieces of bytes, each quickly encoded, so that the event loop gets its turn in between;
`materializer.restoration` reads the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import Assembler
from deltalog.wire.records import ClusterDocument
from materializer.bodies import Dictionary
from materializer.cluster_facts import ClusterFacts
from materializer.entry import Entry, object_key
from materializer.image_records import (
    HEAD,
    EntryValues,
    ImageCluster,
    ImageEntries,
    ImageEnvelope,
    ImageEvent,
    ImageFading,
    ImageGraves,
    ImageMemory,
    ImagePart,
    ImagePast,
    ImageRemoval,
    ImageShared,
    ImageState,
    ImageType,
    ImageWindow,
    Piece,
    PieceType,
)
from materializer.integrity import Integrity
from materializer.order import Removal
from materializer.store import Store
from materializer.window import Event, Was, event_of_new

# A piece has at most so many entries, or other things, and ends with the entry that makes it larger than so many bytes.
_ENTRIES = 128
_THINGS = 1024
# So many pieces of entries stand behind one of what they have in common.
_TOGETHER = 4
# Blocks of graves: of some 10 KB.
_BLOCKS = 8
_LARGE = 1 << 16
_NO_KEY = object_key("", "")


class Image:
    """What a store, its integrity and its reader's parts are at the moment of the call. O(types + entries), fast.

    The store must not forget (`Store.forget`) while the pieces of an image are being written.
    """

    def __init__(self, store: Store, integrity: Integrity, parts: Assembler) -> None:
        self.prefix = store.prefix
        self.tombstone_ttl = store.tombstone_ttl
        self.index = store.applied
        self.time = store.applied_time
        self._state = ImageState(
            prefix=store.prefix,
            tombstone_ttl=store.tombstone_ttl,
            applied=store.applied,
            applied_time=store.applied_time,
            floor=store.floor,
            unread_through=store.unread_through,
            caught_up_at=store.caught_up_at,
            catalogue=store.catalogue,
            documents=store.documents,
            controls=store.controls,
            removed=dict(store.removed),
            window_start=store.window.start,
        )
        self._types = [
            (
                ImageType(type_store.key, dict(type_store.floors), type_store.forgotten, type_store.unread_through),
                list(type_store.order.items),
                type_store.events.copy(),
                type_store.graves.packed(),
            )
            for type_store in store.types.values()
        ]
        self._numbers = {key: number for number, key in enumerate(store.types)}
        self._removed = {id(removal): dict(removal.entries) for removal in store.removals}
        self._fading = list(store.fading)
        self._faded = list(store.faded.values())
        self._sizes = dict(store.deletion_sizes)
        self._documents: list[ClusterDocument] = []
        numbers: dict[int, int] = {}
        self._clusters: list[ImageCluster] = []
        for cluster in store.clusters.values():
            for document in (*cluster.documents.values(), cluster.discovery):
                if document is not None and id(document) not in numbers:
                    numbers[id(document)] = len(self._documents)
                    self._documents.append(document)
            self._clusters.append(_cluster(cluster, numbers))
        self._counts = integrity.counts()
        self._parts = parts.held()
        self._common = _Common(self._numbers)
        present = [] if store.packing is None else [(key, store.packing.present(key)) for key in store.types]
        # Of types, by their numbers, those under which bodies are packed from here on.
        self._present = [
            (self._numbers[key], self._common.dictionary(found)) for key, found in present if found is not None
        ]

    def pieces(self) -> Iterator[Piece]:
        """All of it, in the order in which it is to be taken in again. None takes longer than some ms."""
        encode = msgspec.msgpack.Encoder().encode
        yield PieceType.STATE, encode(self._state)
        for number, (type_store, items, events, blocks) in enumerate(self._types):
            yield PieceType.TYPE, encode(type_store)
            # Of the items past the window's start, the indexes: what stands in the order is not written twice.
            standing: set[int] = set()
            pieces = self._in_order(number, items, standing)
            # What several have in common stands before all of them, so that what is packed is not cut up by it.
            while some_pieces := list(islice(pieces, _TOGETHER)):
                yield from self._common.pieces()
                yield from some_pieces
            for piece in self._in_window(number, events, standing):
                yield from self._common.pieces()
                yield piece
            for begin in range(0, len(blocks), _BLOCKS):
                yield PieceType.GRAVES, encode(ImageGraves(number, blocks[begin : begin + _BLOCKS]))
        yield from self._common.pieces()
        yield PieceType.DICTIONARIES, encode(self._present)
        fading = (self._of_fading(*one) for one in self._fading)
        while some := list(islice(fading, _THINGS)):
            yield PieceType.FADING, encode(some)
        faded = ((self._numbers[one.type], one) for one in self._faded)
        while few := list(islice(faded, _THINGS)):
            yield PieceType.FADED, encode(few)
        for document in self._documents:
            yield PieceType.DOCUMENT, encode(document)
        for cluster in self._clusters:
            yield PieceType.CLUSTER, encode(cluster)
        for counts in self._counts.split(_THINGS):
            yield PieceType.COUNTS, encode(counts)
        for sequence, data in self._parts:
            yield PieceType.PART, encode(ImagePart(sequence, data))

    def _in_order(self, number: int, items: list[Entry | Removal | None], standing: set[int]) -> Iterator[Piece]:
        waiting: list[Entry] = []
        start = self._state.window_start
        for item in items:
            if item is not None and item.index > start:
                standing.add(item.index)
            if isinstance(item, Entry):
                waiting.append(item)
                if len(waiting) >= _ENTRIES:
                    yield from self._pieces_of(number, 0, waiting)
                    waiting = []
            elif item is not None:
                yield from self._pieces_of(number, 0, waiting)
                waiting = []
                yield PieceType.REMOVAL, msgspec.msgpack.encode(ImageRemoval(number, item.index))
                tombstones = iter(self._removed[id(item)].values())
                while some := list(islice(tombstones, _ENTRIES)):
                    yield from self._pieces_of(number, item.index, some)
        yield from self._pieces_of(number, 0, waiting)

    def _in_window(self, number: int, events: list[Event | Entry], standing: set[int]) -> Iterator[Piece]:
        written: set[int] = set()
        waiting: list[ImageEvent] = []
        size = 0
        for one in events:
            event = one if isinstance(one, Event) else event_of_new(one)
            item, before = event.item, event.before
            known = before is not None and before.index in written
            waiting.append(
                ImageEvent(
                    index=event.index,
                    item=None if event.index in standing or isinstance(item, Removal) else self._common.values(item),
                    before_index=before.index if known and before is not None else 0,
                    before=None if known or before is None else self._common.values(before),
                    was=None if event.was is None else _selectables(event.was),
                    fresh=event.fresh,
                    removed=[self._common.values(entry) for entry in event.removed],
                )
            )
            written.add(event.index)
            size += event.weight
            if size >= _LARGE or len(waiting) >= _THINGS:
                yield self._of_window(number, waiting)
                waiting, size = [], 0
        if waiting:
            yield self._of_window(number, waiting)

    def _of_window(self, number: int, events: list[ImageEvent]) -> Piece:
        type = PieceType.PACKED_WINDOW if self._common.mostly_packed() else PieceType.WINDOW
        return type, msgspec.msgpack.encode(ImageWindow(number, events))

    def _pieces_of(self, number: int, removal: int, entries: list[Entry]) -> Iterator[Piece]:
        """Entries in one piece, or in several if they are large."""
        begin = size = 0
        for at, entry in enumerate(entries):
            size += len(entry.record)
            if size >= _LARGE or at == len(entries) - 1:
                text = self._entries(number, removal, entries[begin : at + 1])
                yield PieceType.PACKED if self._common.mostly_packed() else PieceType.ENTRIES, text
                begin, size = at + 1, 0

    def _entries(self, number: int, removal: int, entries: list[Entry]) -> bytes:
        apart: list[bytes] = []
        values = [self._common.values(entry, apart) for entry in entries]
        memories = [self._memory(at, entry) for at, entry in enumerate(entries) if entry.remembered is not None]
        head = msgspec.msgpack.encode(ImageEntries(number, removal, values, memories))
        return b"".join((HEAD.pack(len(head)), head, *apart))

    def _memory(self, at: int, entry: Entry) -> ImageMemory:
        replaced: list[EntryValues] = []
        pasts = [_earlier(entry)]
        before = entry.replaced
        while before is not None:
            replaced.append(self._common.values(before))
            pasts.append(_earlier(before))
            before = before.replaced
        return ImageMemory(at, replaced, pasts)

    def _of_fading(self, time: int, index: int, key: GroupResource, item: Entry | Removal) -> ImageFading:
        number = self._numbers[key]
        if isinstance(item, Removal):
            return ImageFading(time, index, number, item.index, True, "", _NO_KEY, 0, 0)
        size = self._sizes.get(index, 0)
        return ImageFading(time, index, number, item.index, item.deleted, item.cluster, item.key, item.uid_index, size)


class _Common:
    """What entries of an image have in common, numbered in the order in which it is first needed."""

    def __init__(self, types: dict[GroupResource, int]) -> None:
        self._types = types
        self._texts: dict[str, int] = {}
        # By identity: equal labels are mostly one object. They are held so that no other comes to have the same.
        self._labels: dict[int, int] = {}
        self._held: list[Mapping[str, str]] = []
        self._envelopes: dict[int, int] = {}
        self._dictionaries: dict[Dictionary, int] = {}
        self._new = ImageShared([], [], [], [])
        # Bytes of bodies since `mostly_packed` was asked.
        self._plain = self._packed = 0

    def values(self, entry: Entry, apart: list[bytes] | None = None) -> EntryValues:
        """An entry's values without what it remembers, which may go far back: that is written beside it.

        `apart`: takes the record if that is packed, of which the values have the length then.
        """
        envelope, dictionary, record = entry.envelope, entry.dictionary, entry.record
        in_envelope = self._envelopes.get(id(envelope))
        if in_envelope is None:
            in_envelope = self._envelopes[id(envelope)] = len(self._envelopes)
            made = ImageEnvelope(self._types[envelope.key], envelope.type_meta, envelope.field_names)
            self._new.envelopes.append(made)
        labels = self._labels.get(id(entry.labels))
        if labels is None:
            labels = self._labels[id(entry.labels)] = len(self._labels)
            self._held.append(entry.labels)
            self._new.labels.append([self._text(text) for pair in entry.labels.items() for text in pair])
        if dictionary is None:
            self._plain += len(record)
        else:
            self._packed += len(record)
            if apart is not None:
                apart.append(record)
        return (
            entry.index,
            entry.deleted,
            entry.key,
            self._text(entry.cluster),
            self._text(entry.namespace),
            self._text(entry.version),
            labels,
            self._text(entry.controller_uid),
            in_envelope,
            None if dictionary is None else self.dictionary(dictionary),
            record if dictionary is None or apart is None else len(record),
            None,
        )

    def dictionary(self, dictionary: Dictionary) -> int:
        """Its number."""
        found = self._dictionaries.get(dictionary)
        if found is None:
            found = self._dictionaries[dictionary] = len(self._dictionaries)
            self._new.dictionaries.append(dictionary.content)
        return found

    def _text(self, text: str) -> int:
        found = self._texts.get(text)
        if found is None:
            found = self._texts[text] = len(self._texts)
            self._new.texts.append(text)
        return found

    def mostly_packed(self) -> bool:
        """Whether most bytes of the entries whose values were asked for since the last call are packed ones."""
        found = self._packed > self._plain
        self._plain = self._packed = 0
        return found

    def pieces(self) -> Iterator[Piece]:
        """What was numbered since the last call: to be written before what needs it."""
        new = self._new
        if new.texts or new.labels or new.envelopes or new.dictionaries:
            self._new = ImageShared([], [], [], [])
            yield PieceType.SHARED, msgspec.msgpack.encode(new)


def _selectables(was: Was) -> tuple[dict[str, str], dict[str, str], str]:
    return (dict(was.labels), dict(was.fields), was.controller_uid or "")


def _cluster(cluster: ClusterFacts, numbers: dict[int, int]) -> ImageCluster:
    return ImageCluster(
        name=cluster.name,
        epoch=cluster.epoch,
        producer=cluster.producer,
        registered=cluster.registered,
        server_version=cluster.server_version,
        documents={key: numbers[id(document)] for key, document in cluster.documents.items()},
        discovery=None if cluster.discovery is None else numbers[id(cluster.discovery)],
        types=dict(cluster.types),
        version_since=dict(cluster.version_since),
        synced=dict(cluster.synced),
        synced_version=dict(cluster.synced_version),
        followed=dict(cluster.followed),
        versions_restarted_at=cluster.versions_restarted_at,
        health=cluster.health,
        type_health=dict(cluster.type_health),
        status=cluster.status,
        status_index=cluster.status_index,
        heard=cluster.heard,
        every=cluster.every,
    )


def _earlier(entry: Entry) -> list[ImagePast]:
    found: list[ImagePast] = []
    past = entry.past
    while past is not None and not past.forgotten:
        found.append((past.selectable_since, dict(past.labels), dict(past.fields), past.controller_uid))
        past = past.before
    return found
