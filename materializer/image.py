"""Image: all that a store holds at one index, unchanged while the store goes on, and a store restored from one.

An image is taken at one go, by copying references: entries are immutable, and what else a store changes in place is
copied. It is written in pieces of bytes, each quickly encoded, so that the event loop gets its turn in between;
`Restoration` reads the pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, MutableMapping
from enum import IntEnum
from itertools import accumulate, islice
from typing import Any, NamedTuple

import msgspec

from deltalog.wire.delta import Selectables
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import Assembler
from deltalog.wire.records import ClusterDocument, DocumentName, TypeStatus
from deltalog.wire.resource_type import ResourceType
from materializer.bodies import ALONE, Dictionary, Packing
from materializer.cluster_facts import ClusterFacts, Health
from materializer.entry import Entry, Envelope, Life, ObjectKey, Past, envelope_of, object_key, record_of
from materializer.errors import MaterializerError
from materializer.graves import PACKED_RECORDS, PackedBlock
from materializer.integrity import Counts, Integrity
from materializer.mapped import MappedFile
from materializer.order import Order, Removal
from materializer.record import NO_TEXTS, plain_size
from materializer.store import Faded, Store
from materializer.type_store import TypeStore
from materializer.window import CLOSED, Event, TypeWindow, Was, Window, event_of_new, weight_of

# A piece has at most so many entries, or other things, and ends with the entry that makes it larger than so many bytes.
_ENTRIES = 128
_THINGS = 1024
# So many pieces of entries stand behind one of what they have in common.
_TOGETHER = 4
# Blocks of graves: of some 10 KB.
_BLOCKS = 8
_LARGE = 1 << 16

Piece = tuple[int, bytes]
"""What it is (`PieceType`) and its text."""


class PieceType(IntEnum):
    """What a piece is of."""

    STATE = 1
    TYPE = 2
    ENTRIES = 3
    REMOVAL = 4
    FADING = 5
    DOCUMENT = 6
    CLUSTER = 7
    COUNTS = 8
    PART = 9
    WINDOW = 10
    SHARED = 11
    GRAVES = 12
    FADED = 13
    PACKED = 14
    PACKED_WINDOW = 15
    DICTIONARIES = 16


PACKED_PIECES = frozenset({PieceType.PACKED, PieceType.PACKED_WINDOW})
"""Pieces of which most bytes are packed bodies."""


class NotAnImage(MaterializerError):
    """These pieces are not those of an image."""


class _State(msgspec.Struct, array_like=True):
    prefix: str
    tombstone_ttl: int
    applied: int
    applied_time: int
    floor: int
    unread_through: int
    caught_up_at: int
    catalogue: int
    documents: int
    controls: int
    removed: dict[str, int]
    window_start: int


class _Type(msgspec.Struct, array_like=True):
    key: GroupResource
    floors: dict[str, int]
    forgotten: int
    unread_through: int


class _Cluster(msgspec.Struct, array_like=True):
    """As `ClusterFacts`; documents by their number."""

    name: str
    epoch: int
    producer: str
    registered: bool
    server_version: dict[str, Any]
    documents: dict[DocumentName, int]
    discovery: int | None
    types: dict[GroupResource, ResourceType]
    version_since: dict[GroupResource, int]
    synced: dict[GroupResource, int]
    synced_version: dict[GroupResource, str]
    followed: dict[GroupResource, str]
    versions_restarted_at: int
    health: Health | None
    type_health: dict[GroupResource, Health]
    status: dict[GroupResource, TypeStatus]
    status_index: int
    heard: int
    every: int


class _Removal(msgspec.Struct, array_like=True):
    type: int
    index: int


class _Fading(msgspec.Struct, array_like=True, gc=False):
    """One of `Store.fading`: its item by the index at which it stands in the order, or by the uid's `first`.

    `size`: as in `Store.deletion_sizes`.
    """

    time: int
    index: int
    type: int
    at: int
    deleted: bool
    cluster: str
    key: ObjectKey
    first: int
    size: int


class _Graves(msgspec.Struct, array_like=True):
    type: int
    blocks: list[PackedBlock]


class _Part(msgspec.Struct, array_like=True):
    sequence: int
    data: bytes


class _Stored(Entry, array_like=True, kw_only=True, gc=False, eq=False):
    """An entry as it is written and read: what it may have in common with others by number, without what it remembers.

    `dictionary`: None if the body is plain. `record`: its length where it stands behind the entries of its piece.
    """

    cluster: int  # type: ignore[assignment]  # until `Restoration` has put in its place what has the number
    namespace: int  # type: ignore[assignment]
    version: int  # type: ignore[assignment]
    labels: int  # type: ignore[assignment]
    controller_uid: int  # type: ignore[assignment]
    envelope: int  # type: ignore[assignment]
    dictionary: int | None  # type: ignore[assignment]
    record: bytes | int  # type: ignore[assignment]
    remembered: None = None


# Of a piece of entries: how long what stands before the records is.
_HEAD = struct.Struct("<I")

_Values = tuple[Any, ...]
"""Those of a `_Stored`, in its order, which is not that of an entry: redefined fields come last."""


class _Shared(msgspec.Struct, array_like=True):
    """What later entries have in common, beside what was told before; each goes on counting its kind.

    `labels`: names and values in turn, by the numbers of their texts. `dictionaries`: their contents.
    """

    texts: list[str]
    labels: list[list[int]]
    envelopes: list[_Envelope]
    dictionaries: list[bytes]


_NO_KEY = object_key("", "")


class _Envelope(msgspec.Struct, array_like=True):
    """As `Envelope`, its type by number."""

    type: int
    type_meta: bytes
    field_names: tuple[str, ...]


# since, labels, fields, owner.
_Earlier = tuple[int, dict[str, str], dict[str, str], str]


class _Memory(msgspec.Struct, array_like=True):
    """What entry number `at` of a piece remembers: those it replaced, newest first, and earlier states of all."""

    at: int
    replaced: list[Any]
    pasts: list[list[_Earlier]]


class _Entries(msgspec.Struct, array_like=True):
    """`removal`: index of the removal that they are the tombstones of; 0: they stand in the order themselves."""

    type: int
    removal: int
    entries: list[Any]
    memories: list[_Memory]


class _Event(msgspec.Struct, array_like=True):
    """An event of the window. `item` None: what stands in the order at its index.

    `before_index`: the event whose item is the state before, 0 if that is `before` itself, or none.
    """

    index: int
    item: Any
    before_index: int
    before: Any
    was: tuple[dict[str, str], dict[str, str], str] | None
    fresh: bool
    removed: list[Any]


class _Window(msgspec.Struct, array_like=True):
    type: int
    events: list[_Event]


SHAPE = [
    (one.__name__, one.__struct_fields__)
    for one in (
        *(
            _State,
            _Type,
            _Cluster,
            _Removal,
            _Fading,
            _Graves,
            _Part,
            _Stored,
            _Envelope,
            _Shared,
            _Memory,
            _Entries,
            _Event,
            _Window,
        ),
        *(ResourceType, Health, ClusterDocument, TypeStatus, Counts, *PACKED_RECORDS),
    )
]
"""The records of an image and their fields: an image with other ones cannot be read."""


# -- taking and writing ------------------------------------------------------------------------------------------------


class Image:
    """What a store, its integrity and its reader's parts are at the moment of the call. O(types + entries), fast.

    The store must not forget (`Store.forget`) while the pieces of an image are being written.
    """

    def __init__(self, store: Store, integrity: Integrity, parts: Assembler) -> None:
        self.prefix = store.prefix
        self.tombstone_ttl = store.tombstone_ttl
        self.index = store.applied
        self.time = store.applied_time
        self._state = _State(
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
                _Type(type_store.key, dict(type_store.floors), type_store.forgotten, type_store.unread_through),
                list(type_store.order.items),
                type_store.events.copy(),
                type_store.graves.packed(),
            )
            for type_store in store.types.values()
        ]
        self._numbers = {key: number for number, key in enumerate(store.types)}
        self._removed = {id(removal): dict(removal.entries) for removal in store.removals}
        self._fading = list(store.fading)
        self._faded = list(store.faded)
        self._sizes = dict(store.deletion_sizes)
        self._documents: list[ClusterDocument] = []
        numbers: dict[int, int] = {}
        self._clusters: list[_Cluster] = []
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
                yield PieceType.GRAVES, encode(_Graves(number, blocks[begin : begin + _BLOCKS]))
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
            yield PieceType.PART, encode(_Part(sequence, data))

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
                yield PieceType.REMOVAL, msgspec.msgpack.encode(_Removal(number, item.index))
                tombstones = iter(self._removed[id(item)].values())
                while some := list(islice(tombstones, _ENTRIES)):
                    yield from self._pieces_of(number, item.index, some)
        yield from self._pieces_of(number, 0, waiting)

    def _in_window(self, number: int, events: list[Event | Entry], standing: set[int]) -> Iterator[Piece]:
        written: set[int] = set()
        waiting: list[_Event] = []
        size = 0
        for one in events:
            event = one if isinstance(one, Event) else event_of_new(one)
            item, before = event.item, event.before
            known = before is not None and before.index in written
            waiting.append(
                _Event(
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

    def _of_window(self, number: int, events: list[_Event]) -> Piece:
        type = PieceType.PACKED_WINDOW if self._common.mostly_packed() else PieceType.WINDOW
        return type, msgspec.msgpack.encode(_Window(number, events))

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
        head = msgspec.msgpack.encode(_Entries(number, removal, values, memories))
        return b"".join((_HEAD.pack(len(head)), head, *apart))

    def _memory(self, at: int, entry: Entry) -> _Memory:
        replaced: list[_Values] = []
        pasts = [_earlier(entry)]
        before = entry.replaced
        while before is not None:
            replaced.append(self._common.values(before))
            pasts.append(_earlier(before))
            before = before.replaced
        return _Memory(at, replaced, pasts)

    def _of_fading(self, time: int, index: int, key: GroupResource, item: Entry | Removal) -> _Fading:
        number = self._numbers[key]
        if isinstance(item, Removal):
            return _Fading(time, index, number, item.index, True, "", _NO_KEY, 0, 0)
        size = self._sizes.get(index, 0)
        return _Fading(time, index, number, item.index, item.deleted, item.cluster, item.key, item.uid_index, size)


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
        self._new = _Shared([], [], [], [])
        # Bytes of bodies since `mostly_packed` was asked.
        self._plain = self._packed = 0

    def values(self, entry: Entry, apart: list[bytes] | None = None) -> _Values:
        """An entry's values without what it remembers, which may go far back: that is written beside it.

        `apart`: takes the record if that is packed, of which the values have the length then.
        """
        envelope, dictionary, record = entry.envelope, entry.dictionary, entry.record
        in_envelope = self._envelopes.get(id(envelope))
        if in_envelope is None:
            in_envelope = self._envelopes[id(envelope)] = len(self._envelopes)
            made = _Envelope(self._types[envelope.key], envelope.type_meta, envelope.field_names)
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
            self._new = _Shared([], [], [], [])
            yield PieceType.SHARED, msgspec.msgpack.encode(new)


def _selectables(was: Was) -> tuple[dict[str, str], dict[str, str], str]:
    return (dict(was.labels), dict(was.fields), was.controller_uid or "")


def _cluster(cluster: ClusterFacts, numbers: dict[int, int]) -> _Cluster:
    return _Cluster(
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


def _earlier(entry: Entry) -> list[_Earlier]:
    found: list[_Earlier] = []
    past = entry.past
    while past is not None and not past.forgotten:
        found.append((past.selectable_since, dict(past.labels), dict(past.fields), past.controller_uid))
        past = past.before
    return found


# -- taking in ---------------------------------------------------------------------------------------------------------


class _EntriesRead(msgspec.Struct, array_like=True):
    type: int
    removal: int
    entries: list[_Stored]
    memories: list[_MemoryRead]


class _MemoryRead(msgspec.Struct, array_like=True):
    at: int
    replaced: list[_Stored]
    pasts: list[list[_Earlier]]


class _EventRead(msgspec.Struct, array_like=True):
    index: int
    item: _Stored | None
    before_index: int
    before: _Stored | None
    was: tuple[dict[str, str], dict[str, str], str] | None
    fresh: bool
    removed: list[_Stored]


class _WindowRead(msgspec.Struct, array_like=True):
    type: int
    events: list[_EventRead]


class ApartRecords(NamedTuple):
    """Entries of a piece whose records stand apart in it, where those begin, and how long they are: in parallel."""

    entries: list[Any]
    places: list[int]
    lengths: list[int]

    def sizes(self, text: bytes | memoryview) -> tuple[int, int]:
        """Bytes of the records of live entries, and what they would be with plain bodies. O(entries)."""
        live = [(place, length) for entry, place, length in zip(*self, strict=True) if not entry.deleted]
        return sum(length for _, length in live), sum(plain_size(text, place) for place, _ in live)


def type_in(text: bytes | memoryview) -> GroupResource:
    """Of which type a TYPE piece is. Raises MsgspecError."""
    return msgspec.msgpack.decode(text, type=_Type).key


def dictionaries_in(text: bytes | memoryview) -> list[Dictionary]:
    """The dictionaries in a SHARED piece, which go on counting them. Raises MsgspecError."""
    contents = msgspec.msgpack.decode(text, type=_Shared).dictionaries
    return [Dictionary(content) if content else ALONE for content in contents]


def entries_in(text: bytes | memoryview) -> tuple[_EntriesRead, ApartRecords]:
    """What a piece of entries has, and where the records of those stand that have none. O(its length).

    Raises:
        ValueError: it is no such piece.
    """
    if len(text) < _HEAD.size:
        raise ValueError("it is too short")
    at = _HEAD.size + _HEAD.unpack_from(text)[0]
    read = _entries_decoder.decode(memoryview(text)[_HEAD.size : at])
    found = [entry for entry in read.entries if type(entry.record) is int]
    lengths: list[Any] = [entry.record for entry in found]
    if (lengths and min(lengths) < 0) or any(entry.dictionary is None for entry in found):
        raise ValueError("a record stands apart that is not packed")
    places = list(accumulate(lengths, initial=at))
    if places.pop() != len(text):
        raise ValueError("records are missing, or too many")
    return read, ApartRecords(found, places, lengths)


_window_decoder: msgspec.msgpack.Decoder[_WindowRead] = msgspec.msgpack.Decoder(_WindowRead)
_entries_decoder: msgspec.msgpack.Decoder[_EntriesRead] = msgspec.msgpack.Decoder(_EntriesRead)
# How many different label sets are remembered at most, to find equal ones.
_REMEMBERED = 1 << 16


class Restoration:
    """A store in the making, from the pieces of an image in their order.

    What cannot be read raises NotAnImage; then nothing of it is to be used. `file`: where the pieces stand, if records
    are to be left there.
    """

    def __init__(self, file: MappedFile | None = None) -> None:
        self._file = file
        self._state: _State | None = None
        self._type_stores: list[TypeStore] = []
        self._removals: dict[tuple[int, int], Removal] = {}
        self._fading: list[_Fading] = []
        self._faded: list[tuple[int, Faded]] = []
        self._documents: list[ClusterDocument] = []
        self._clusters: list[_Cluster] = []
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
                self._state = decode(text, type=_State)
            elif piece_type == PieceType.TYPE:
                record = decode(text, type=_Type)
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
                self._take_shared(decode(text, type=_Shared))
            elif piece_type == PieceType.DICTIONARIES:
                self._present = decode(text, type=list[tuple[int, int]])
            elif piece_type == PieceType.REMOVAL:
                where = decode(text, type=_Removal)
                removal = self._removals[where.type, where.index] = Removal(where.index, {})
                self._type_stores[where.type].order.append(where.index, removal)
            elif piece_type == PieceType.FADING:
                self._fading += decode(text, type=list[_Fading])
            elif piece_type == PieceType.FADED:
                self._faded += decode(text, type=list[tuple[int, Faded]])
            elif piece_type == PieceType.GRAVES:
                graves = decode(text, type=_Graves)
                for block in graves.blocks:
                    self._type_stores[graves.type].graves.restore(block)
            elif piece_type == PieceType.DOCUMENT:
                self._documents.append(decode(text, type=ClusterDocument))
            elif piece_type == PieceType.CLUSTER:
                self._clusters.append(decode(text, type=_Cluster))
            elif piece_type == PieceType.COUNTS:
                self._counts.add(decode(text, type=Counts))
            elif piece_type == PieceType.PART:
                part = decode(text, type=_Part)
                self._parts.hold(part.sequence, part.data)
            else:
                raise NotAnImage(f"a piece of type {piece_type}")
        except (msgspec.MsgspecError, ValueError, LookupError) as cause:
            raise NotAnImage(f"a piece of type {piece_type} cannot be read: {cause}") from cause

    def _take_shared(self, shared: _Shared) -> None:
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
        self._dictionaries += [Dictionary(content) if content else ALONE for content in shared.dictionaries]

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

    def _take_window(self, record: _WindowRead) -> None:
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

    def _remember(self, entry: Entry, pasts: list[_Earlier]) -> None:
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
            store.faded.extend(faded._replace(type=self._type_stores[number].key) for number, faded in self._faded)
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

    def _item(self, record: _Fading) -> Entry | Removal:
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

    def _cluster_of(self, record: _Cluster, store: Store) -> ClusterFacts:
        cluster = ClusterFacts(record.name, record.versions_restarted_at)
        for name in _Cluster.__struct_fields__:
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
