"""What the log last stated of each object of one type: packed, as there is one for each object of all clusters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from struct import Struct
from typing import NamedTuple
from uuid import UUID

import msgspec

from deltalog import DELETED, Record, Replaced
from deltalog.wire.kubernetes import ObjectKey, newer, object_key
from deltalog.wire.subjects import parse_object
from deltalog.wire.summary import DIGEST_BYTES, Summary, parse_summary
from producers.follow.nothing import NOTHING

PackedVersion = int | str

NO_DIGEST = bytes(DIGEST_BYTES)
"""Of a message of an older release: what selectors saw of it is not known."""


class Known(msgspec.Struct, gc=False):
    """What the log last stated of one object. `uid_index` 0: its ADDED is not acknowledged yet.

    - `digest`: of what selectors look at (`selectables_digest`), or NO_DIGEST.
    - `packed_member_version`: the member cluster's resourceVersion.
    - `oldest_uid_index`: the `uid_index` of the first object of this name that the log knows of; 0: it is this one.
    - `deleted_at`: when it was deleted, in seconds by the log's clock, 0 while it exists; `deletion_index`: the
      sequence of its deletion, 0 until that is acknowledged.
    """

    packed_uid: bytes
    digest: bytes
    packed_member_version: PackedVersion
    uid_index: int
    oldest_uid_index: int = 0
    deleted_at: float = 0.0
    deletion_index: int = 0
    replaced: Replaced | None = None
    in_parts: bool = False

    @property
    def uid(self) -> str:
        """Unpacked."""
        return _unpacked_uid(self.packed_uid)

    @property
    def member_version(self) -> str:
        """Unpacked."""
        return str(self.packed_member_version)

    @property
    def first_uid_index(self) -> int:
        """The `uid_index` of the first object of this name that the log knows of."""
        return self.oldest_uid_index or self.uid_index

    def lives_as(self, packed_uid: bytes) -> bool:
        """Whether it is of the object with this uid, packed, and that exists."""
        return not self.deleted_at and self.packed_uid == packed_uid


_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
# As int() takes them back, and no longer than 8 bytes hold: etcd's revisions are shorter.
_NUMBER = re.compile(r"[1-9][0-9]{0,18}").fullmatch


# No UTF-8 text has this byte: it ends a text that is no usual uid, and makes it longer or shorter than one.
_END = b"\xff"
_UID_BYTES = 16


def packed_uid(uid: str) -> bytes:
    """16 bytes for a uid as API servers write it, the text for any other; equal where the texts are equal."""
    if _CANONICAL(uid):
        return bytes.fromhex(uid.replace("-", ""))
    text = uid.encode() + _END
    return text if len(text) != _UID_BYTES else text + _END


def _unpacked_uid(packed: bytes) -> str:
    return str(UUID(bytes=packed)) if len(packed) == _UID_BYTES else packed.rstrip(_END).decode()


def packed_version(version: str) -> PackedVersion:
    """A number for a resourceVersion that is one, the text itself for any other; equal where the texts are equal."""
    return int(version) if _NUMBER(version) else version


def newer_version(version: PackedVersion, than: PackedVersion) -> bool:
    """As `deltalog.wire.kubernetes.newer`, of packed versions."""
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return newer(str(version), str(than))


# -- as it is held -------------------------------------------------------------------------------------------------

Held = bytes | Known
"""A `Known` as bytes, 80 of memory; itself where it has a text for a version or uid, parts or a predecessor."""

# uid, digest, version, uid_index; oldest_uid_index; deleted_at and deletion_index. Which it is, its length says.
_LIVES = Struct(f">{_UID_BYTES}s{DIGEST_BYTES}sQQ")
_LIVES_AGAIN = Struct(f"{_LIVES.format}Q")
_DELETED = Struct(f"{_LIVES.format}dQ")
_DELETED_AGAIN = Struct(f"{_LIVES.format}dQQ")
_SHORTEST_DELETED = _DELETED.size
_LIVES_BYTES, _unpack = _LIVES.size, _LIVES.unpack


def hold(known: Known) -> Held:
    """A `Known` as it is held; `unpack` gives it back."""
    version = known.packed_member_version
    if known.replaced is not None or known.in_parts or type(version) is not int or len(known.packed_uid) != _UID_BYTES:
        return known
    lives = (known.packed_uid, known.digest, version, known.uid_index)
    if not known.deleted_at:
        return _LIVES_AGAIN.pack(*lives, known.oldest_uid_index) if known.oldest_uid_index else _LIVES.pack(*lives)
    deleted = (*lives, known.deleted_at, known.deletion_index)
    return _DELETED_AGAIN.pack(*deleted, known.oldest_uid_index) if known.oldest_uid_index else _DELETED.pack(*deleted)


def unpack(held: Held) -> Known:
    """What is held, of its own: to be held again where it is changed."""
    if type(held) is not bytes:
        assert isinstance(held, Known)
        return msgspec.structs.replace(held)
    size = len(held)
    if size == _LIVES_BYTES:
        return Known(*_unpack(held))
    if size == _LIVES_AGAIN.size:
        return Known(*_LIVES_AGAIN.unpack(held))
    if size == _DELETED.size:
        uid, digest, version, first, at, index = _DELETED.unpack(held)
        return Known(uid, digest, version, first, 0, at, index)
    uid, digest, version, first, at, index, oldest = _DELETED_AGAIN.unpack(held)
    return Known(uid, digest, version, first, oldest, at, index)


def _is_deleted(held: Held) -> bool:
    return len(held) >= _SHORTEST_DELETED if isinstance(held, bytes) else bool(held.deleted_at)


def known_of(summary: Summary, record: Record) -> Known:
    """What a message of the log states of its object."""
    first = summary.uid_index or record.sequence
    known = Known(
        packed_uid(summary.uid),
        summary.digest or NO_DIGEST,
        packed_version(summary.member_version),
        first,
        summary.oldest_uid_index if summary.oldest_uid_index != first else 0,
        replaced=summary.replaced,
        in_parts=summary.parts > 0,
    )
    if summary.type == DELETED:
        known.deleted_at, known.deletion_index = record.time / 1e9, record.sequence
    return known


class ForgottenNames(NamedTuple):
    """What was forgotten of deleted objects.

    `sequences`: of the deletions that the log said to forget, and not of those whose time was over. `left`: how many
    deletions are still remembered.
    """

    sequences: list[int]
    left: int


class KnownObjects:
    """What the log holds of one type of one cluster, or of one namespace of it; deleted objects are in it for a while.

    `otherwise_pruned`: names whose message in the log was pruned in another way than objects are now.
    `other_versions`: API versions, other than the synced one, that the log has messages in.
    """

    __slots__ = ("_held", "_in_other_versions", "_mark", "_version", "other_versions", "otherwise_pruned")

    def __init__(self, version: str, mark: str) -> None:
        self._held: dict[ObjectKey, Held] = {}
        # Nearly always empty.
        self.otherwise_pruned: dict[ObjectKey, None] = NOTHING
        self.other_versions: dict[str, None] = NOTHING
        self._version = version
        self._mark = mark
        # Objects that no message in the synced version was noted of so far.
        self._in_other_versions: dict[ObjectKey, None] = NOTHING

    def __len__(self) -> int:
        """Objects that exist, as far as the log knows. O(objects)."""
        return sum(not _is_deleted(held) for held in self._held.values())

    @property
    def empty(self) -> bool:
        """Whether there is nothing, not even a deleted object."""
        return not self._held

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._held)

    def get(self, key: ObjectKey) -> Known | None:
        """What is known of an object; to be `put` again where it is changed."""
        held = self._held.get(key)
        # Nearly all, without a further call.
        if type(held) is bytes and len(held) == _LIVES_BYTES:
            return Known(*_unpack(held))
        return None if held is None else unpack(held)

    def lives_at(self, key: ObjectKey, packed_uid: bytes, version: PackedVersion) -> bool:
        """Whether the log has just this state of an object that exists."""
        held = self._held.get(key)
        if type(held) is bytes and len(held) == _LIVES_BYTES:
            uid, _, held_version, _ = _unpack(held)
            return bool(uid == packed_uid and held_version == version)
        return (
            held is not None
            and (known := unpack(held)).lives_as(packed_uid)
            and (known.packed_member_version == version)
        )

    def put(self, key: ObjectKey, known: Known) -> None:
        """What is known of an object from now on."""
        self._held[key] = hold(known)

    def acknowledged(self, key: ObjectKey, uid_index: int) -> None:
        """An object's first message is in the log."""
        if (known := self.get(key)) is not None:
            known.uid_index = uid_index
            self._held[key] = hold(known)

    def deletion_acknowledged(self, key: ObjectKey, deletion_index: int) -> None:
        """An object's deletion is in the log."""
        if (known := self.get(key)) is not None:
            known.deletion_index = deletion_index
            self._held[key] = hold(known)

    def drop(self, key: ObjectKey) -> None:
        """Nothing is known of it any longer."""
        self._held.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: the log is about to be read again."""
        self._held.clear()
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
        key = object_key(address.namespace, address.name)
        if address.version != self._version:
            # The cluster served another version then: its messages are removed once the list in this one is in.
            self.other_versions = self.other_versions or {}
            self.other_versions[address.version] = None
            if key in self._held and key not in self._in_other_versions:
                return
            self._in_other_versions = self._in_other_versions or {}
            self._in_other_versions[key] = None
            summary = msgspec.structs.replace(summary, member_version="")
        elif self._in_other_versions:
            self._in_other_versions.pop(key, None)
        self._held[key] = hold(known_of(summary, record))
        if summary.pruned != self._mark:
            self.otherwise_pruned = self.otherwise_pruned or {}
            self.otherwise_pruned[key] = None
        elif self.otherwise_pruned:
            self.otherwise_pruned.pop(key, None)

    def missing(self, seen: AbstractSet[ObjectKey]) -> list[ObjectKey]:
        """Objects that exist and are not among those `seen`. O(objects)."""
        return [key for key, held in self._held.items() if key not in seen and not _is_deleted(held)]

    def tombstones_otherwise_pruned(self) -> list[ObjectKey]:
        """Deleted objects whose tombstones may hold what is to be pruned now."""
        return [key for key in self.otherwise_pruned if (held := self._held.get(key)) and _is_deleted(held)]

    def deletions(self) -> Iterator[int]:
        """The sequences of the deletions that are in the log, in no particular order. O(objects)."""
        for held in self._held.values():
            if _is_deleted(held) and (index := unpack(held).deletion_index):
                yield index

    def forget_deleted(self, before: float, through: int = 0) -> ForgottenNames:
        """Drops objects that were deleted before a time, or at a sequence up to `through`. O(objects).

        `before`: in seconds by the log's clock.
        """
        sequences: list[int] = []
        deleted = [key for key, held in self._held.items() if _is_deleted(held)]
        left = len(deleted)
        for key in deleted:
            known = unpack(self._held[key])
            if 0 < known.deletion_index <= through:
                sequences.append(known.deletion_index)
            elif known.deleted_at >= before:
                continue
            del self._held[key]
            left -= 1
        return ForgottenNames(sequences, left)
