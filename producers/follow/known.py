"""What the log last stated of each object of one type: packed, as there is one for each object of all clusters."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from sys import intern
from uuid import UUID

import msgspec

from deltalog import DELETED, Record, Replaced
from deltalog.wire.kubernetes import ObjectName, newer
from deltalog.wire.subjects import parse_object
from deltalog.wire.summary import DIGEST_BYTES, Summary, parse_summary

PackedVersion = int | str


class KnownPast(msgspec.Struct, gc=False):
    """What few objects have: a deletion, a predecessor, parts.

    `deleted_at`: when it was deleted, in seconds by the log's clock, 0 while it exists; `deletion_index`: the sequence
    of its deletion, once that is acknowledged. `oldest_uid_index` 0: the name has had no other object.
    """

    oldest_uid_index: int = 0
    deleted_at: float = 0.0
    deletion_index: int = 0
    replaced: Replaced | None = None
    in_parts: bool = False


_NO_PAST = KnownPast()
NO_DIGEST = bytes(DIGEST_BYTES)
"""Of a message of an older release: what selectors saw of it is not known."""


class Known(msgspec.Struct, gc=False):
    """What the log last stated of one object. `uid_index` 0: its ADDED is not acknowledged yet.

    Packed: a usual uid into 16 bytes, a usual version into a number, and all that is rare into a `KnownPast` that most
    objects do without. `packed`: the packed uid, then the digest of what selectors look at (`selectables_digest`): it
    costs no memory there, as Python takes 64 bytes for a value of 16 as for one of 24.
    """

    packed: bytes
    packed_member_version: PackedVersion
    uid_index: int
    own_past: KnownPast | None = None

    @property
    def packed_uid(self) -> bytes:
        """As of the function `packed_uid`."""
        return self.packed[:-DIGEST_BYTES]

    @property
    def uid(self) -> str:
        """Unpacked."""
        return _unpacked_uid(self.packed_uid)

    @property
    def digest(self) -> bytes:
        """Of what selectors look at, or NO_DIGEST."""
        return self.packed[-DIGEST_BYTES:]

    def lives_as(self, packed_uid: bytes) -> bool:
        """Whether it is of the object with this uid, packed, and that exists."""
        past = self.own_past
        return (past is None or not past.deleted_at) and self.packed[:-DIGEST_BYTES] == packed_uid

    @property
    def member_version(self) -> str:
        """The member cluster's resourceVersion, unpacked."""
        return str(self.packed_member_version)

    @property
    def oldest_uid_index(self) -> int:
        """The `uid_index` of the first object of this name that the log knows of."""
        return self.past.oldest_uid_index or self.uid_index

    @property
    def past(self) -> KnownPast:
        """To be read only."""
        return self.own_past or _NO_PAST

    def with_past(self) -> KnownPast:
        """To be written to."""
        if self.own_past is None:
            self.own_past = KnownPast()
        return self.own_past


_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
# As int() takes them back, and no longer than etcd's revisions are.
_NUMBER = re.compile(r"[1-9][0-9]{0,19}").fullmatch


# No UTF-8 text has this byte: it ends a text that is no usual uid, and makes it longer or shorter than one.
_END = b"\xff"


def packed_uid(uid: str) -> bytes:
    """16 bytes for a uid as API servers write it, the text for any other; equal where the texts are equal."""
    if _CANONICAL(uid):
        return bytes.fromhex(uid.replace("-", ""))
    text = uid.encode() + _END
    return text if len(text) != 16 else text + _END


def _unpacked_uid(packed: bytes) -> str:
    return str(UUID(bytes=packed)) if len(packed) == 16 else packed.rstrip(_END).decode()


def packed_version(version: str) -> PackedVersion:
    """A number for a resourceVersion that is one, the text itself for any other; equal where the texts are equal."""
    return int(version) if _NUMBER(version) else version


def newer_version(version: PackedVersion, than: PackedVersion) -> bool:
    """As `deltalog.wire.kubernetes.newer`, of packed versions."""
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return newer(str(version), str(than))


def known_of(summary: Summary, record: Record) -> Known:
    """What a message of the log states of its object."""
    first = summary.uid_index or record.sequence
    oldest = summary.oldest_uid_index if summary.oldest_uid_index not in (0, first) else 0
    known = Known(
        packed_uid(summary.uid) + (summary.digest or NO_DIGEST), packed_version(summary.member_version), first
    )
    deleted = summary.type == DELETED
    if deleted or oldest or summary.replaced is not None or summary.parts:
        at, sequence = (record.time / 1e9, record.sequence) if deleted else (0.0, 0)
        known.own_past = KnownPast(oldest, at, sequence, summary.replaced, summary.parts > 0)
    return known


class KnownObjects:
    """What the log holds of one type of one cluster, or of one namespace of it; deleted objects are in it for a while.

    `objects` by namespace and name. `otherwise_pruned`: names whose message in the log was pruned in another way than
    objects are now. `other_versions`: API versions, other than the synced one, that the log has messages in.
    """

    def __init__(self, version: str, mark: str) -> None:
        self.objects: dict[ObjectName, Known] = {}
        self.otherwise_pruned: set[ObjectName] = set()
        self.other_versions: set[str] = set()
        self._version = version
        self._mark = mark
        # Objects that no message in the synced version was noted of so far.
        self._in_other_versions: set[ObjectName] = set()

    def __len__(self) -> int:
        """Objects that exist, as far as the log knows. O(objects)."""
        return sum(not known.past.deleted_at for known in self.objects.values())

    def clear(self) -> None:
        """Forgets everything: the log is about to be read again."""
        self.objects.clear()
        self.otherwise_pruned.clear()
        self.other_versions.clear()
        self._in_other_versions.clear()

    def note(self, record: Record) -> None:
        """Takes in a message of the log, by its headers.

        The last one of an object counts, of those in the synced version if there are any.
        """
        summary = parse_summary(record.headers or {})
        if summary is None:
            return
        address = parse_object(record.subject)
        key = ObjectName((intern(address.namespace), address.name))
        if address.version != self._version:
            # The cluster served another version then: its messages are removed once the list in this one is in.
            self.other_versions.add(address.version)
            if key in self.objects and key not in self._in_other_versions:
                return
            self._in_other_versions.add(key)
            summary = msgspec.structs.replace(summary, member_version="")
        elif self._in_other_versions:
            self._in_other_versions.discard(key)
        self.objects[key] = known_of(summary, record)
        if summary.pruned != self._mark:
            self.otherwise_pruned.add(key)
        elif self.otherwise_pruned:
            self.otherwise_pruned.discard(key)

    def missing(self, seen: AbstractSet[ObjectName]) -> list[ObjectName]:
        """Objects that exist and are not among those `seen`. O(objects)."""
        return [key for key, known in self.objects.items() if not known.past.deleted_at and key not in seen]

    def tombstones_otherwise_pruned(self) -> list[ObjectName]:
        """Deleted objects whose tombstones may hold what is to be pruned now."""
        return [key for key in self.otherwise_pruned if (known := self.objects.get(key)) and known.past.deleted_at]

    def forget_deleted(self, before: float) -> None:
        """Drops objects that were deleted before a time in seconds by the log's clock. O(objects)."""
        for key in [key for key, known in self.objects.items() if 0 < known.past.deleted_at < before]:
            del self.objects[key]
