"""Image records: what the pieces of an image are made of, and what stands in a piece of entries.

Written by `materializer.image`; read by `materializer.restoration`, and by `materializer.adoption`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import ClusterDocument, DocumentName, TypeStatus
from deltalog.wire.resource_type import ResourceType
from materializer.bodies import ALONE, Dictionary
from materializer.cluster_facts import Health
from materializer.entry import Entry, ObjectKey
from materializer.errors import MaterializerError
from materializer.graves import PACKED_RECORDS, PackedBlock
from materializer.integrity import Counts
from materializer.record import plain_size

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


class ImageState(msgspec.Struct, array_like=True):
    """What a store is as a whole, by the names that `Store` has; `window_start`: `Window.start`."""

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


class ImageType(msgspec.Struct, array_like=True):
    """A type of the store: what its `TypeStore` has beside entries. Its number is how many came before it."""

    key: GroupResource
    floors: dict[str, int]
    forgotten: int
    unread_through: int


class ImageCluster(msgspec.Struct, array_like=True):
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


class ImageRemoval(msgspec.Struct, array_like=True):
    """A removal in the order of type number `type`, at its index; its tombstones come after it."""

    type: int
    index: int


class ImageFading(msgspec.Struct, array_like=True, gc=False):
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


class ImageGraves(msgspec.Struct, array_like=True):
    """Graves of type number `type`, in blocks as they are held."""

    type: int
    blocks: list[PackedBlock]


class ImagePart(msgspec.Struct, array_like=True):
    """A part of an object whose other parts are still to come, by its sequence in the log."""

    sequence: int
    data: bytes


class ImageEntry(Entry, array_like=True, kw_only=True, gc=False, eq=False):
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


HEAD = struct.Struct("<I")
"""Begins a piece of entries: the length of the `ImageEntries` that follow, in bytes; behind those stand records."""

EntryValues = tuple[Any, ...]
"""Those of an `ImageEntry`, in its order, which is not that of an entry: redefined fields come last."""


class ImageShared(msgspec.Struct, array_like=True):
    """What later entries have in common, beside what was told before; each goes on counting its kind.

    `labels`: names and values in turn, by the numbers of their texts. `dictionaries`: their contents.
    """

    texts: list[str]
    labels: list[list[int]]
    envelopes: list[ImageEnvelope]
    dictionaries: list[bytes]

    def made_dictionaries(self) -> list[Dictionary]:
        """Its dictionaries, of these contents. O(their sizes)."""
        return [Dictionary(content) if content else ALONE for content in self.dictionaries]


class ImageEnvelope(msgspec.Struct, array_like=True):
    """As `Envelope`, its type by number."""

    type: int
    type_meta: bytes
    field_names: tuple[str, ...]


ImagePast = tuple[int, dict[str, str], dict[str, str], str]
"""As `Past`: selectable_since, labels, fields, controller_uid."""


class ImageMemory(msgspec.Struct, array_like=True):
    """What entry number `at` of a piece remembers: those it replaced, newest first, and earlier states of all."""

    at: int
    replaced: list[Any]
    pasts: list[list[ImagePast]]


class ImageEntries(msgspec.Struct, array_like=True):
    """`removal`: index of the removal that they are the tombstones of; 0: they stand in the order themselves."""

    type: int
    removal: int
    entries: list[Any]
    memories: list[ImageMemory]


class ImageEvent(msgspec.Struct, array_like=True):
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


class ImageWindow(msgspec.Struct, array_like=True):
    """Events in the window of type number `type`, in their order."""

    type: int
    events: list[ImageEvent]


class EntriesRead(msgspec.Struct, array_like=True):
    """`ImageEntries`, which has plain values, as it is read."""

    type: int
    removal: int
    entries: list[ImageEntry]
    memories: list[MemoryRead]


class MemoryRead(msgspec.Struct, array_like=True):
    """`ImageMemory` as it is read."""

    at: int
    replaced: list[ImageEntry]
    pasts: list[list[ImagePast]]


class EventRead(msgspec.Struct, array_like=True):
    """`ImageEvent` as it is read."""

    index: int
    item: ImageEntry | None
    before_index: int
    before: ImageEntry | None
    was: tuple[dict[str, str], dict[str, str], str] | None
    fresh: bool
    removed: list[ImageEntry]


class WindowRead(msgspec.Struct, array_like=True):
    """`ImageWindow` as it is read."""

    type: int
    events: list[EventRead]


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
    return msgspec.msgpack.decode(text, type=ImageType).key


def dictionaries_in(text: bytes | memoryview) -> list[Dictionary]:
    """The dictionaries in a SHARED piece, which go on counting them. Raises MsgspecError."""
    return msgspec.msgpack.decode(text, type=ImageShared).made_dictionaries()


def entries_in(text: bytes | memoryview) -> tuple[EntriesRead, ApartRecords]:
    """What a piece of entries has, and where the records of those stand that have none. O(its length).

    Raises:
        ValueError: it is no such piece.
    """
    if len(text) < HEAD.size:
        raise ValueError("it is too short")
    at = HEAD.size + HEAD.unpack_from(text)[0]
    read = _entries_decoder.decode(memoryview(text)[HEAD.size : at])
    found = [entry for entry in read.entries if type(entry.record) is int]
    lengths: list[Any] = [entry.record for entry in found]
    if (lengths and min(lengths) < 0) or any(entry.dictionary is None for entry in found):
        raise ValueError("a record stands apart that is not packed")
    places = list(accumulate(lengths, initial=at))
    if places.pop() != len(text):
        raise ValueError("records are missing, or too many")
    return read, ApartRecords(found, places, lengths)


_entries_decoder: msgspec.msgpack.Decoder[EntriesRead] = msgspec.msgpack.Decoder(EntriesRead)

SHAPE = [
    (one.__name__, one.__struct_fields__)
    for one in (
        *(
            ImageState,
            ImageType,
            ImageCluster,
            ImageRemoval,
            ImageFading,
            ImageGraves,
            ImagePart,
            ImageEntry,
            ImageEnvelope,
            ImageShared,
            ImageMemory,
            ImageEntries,
            ImageEvent,
            ImageWindow,
        ),
        *(ResourceType, Health, ClusterDocument, TypeStatus, Counts, *PACKED_RECORDS),
    )
]
"""The records of an image and their fields: an image with other ones cannot be read."""
