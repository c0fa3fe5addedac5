"""Graves: what is remembered of objects that were deleted some minutes ago, at some 100 bytes each.

A client that was away for hours resumes its watch, and has to be shown what was deleted meanwhile. For that the last
body is not needed: identity, labels, fields and owner say whether the client had the object, and DELETED carries
metadata. So a tombstone that no live watcher can be waiting for is *buried*: stripped to a `Grave`, and packed with
its neighbours into a block, column by column, since neighbours have their cluster, labels and the like in common.

Nothing here knows how the store holds what is not buried yet; it is fed with graves in the order of their indexes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from isal import isal_zlib

from materializer.record import uid_bytes

T = TypeVar("T")

BLOCK = 128
"""Graves in a block: with fewer they have less in common, with more a lookup by name unpacks more for nothing."""
# As small as zlib's level 6 to a tenth, and seven times as fast.
_LEVEL = 2
# Bytes that a block takes beside its data: itself, its integers and its place in a list.
_BLOCK_OVERHEAD = 33 + 120 + 5 * 32 + 8
# A word of `_Names`: a name's hash, then the number of a block.
_BLOCK_BITS = 30
_BLOCK_MASK = (1 << _BLOCK_BITS) - 1
_HASH_MASK = (1 << 34) - 1
# Names are sorted in runs of so many words at least, and merged into runs of so many at most (0.5 MB, in some 3 ms).
_SHORTEST_RUN = 256
_LONGEST_RUN = 1 << 16
_CACHED_BLOCKS = 2
# A class, whatever its stub says.
_BAD_DATA: type[Exception] = isal_zlib.error  # type: ignore[assignment]


class Earlier(NamedTuple):
    """What selectors saw of an object from index `since` on, in a state before its last one."""

    since: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    controller_uid: str


class Grave(msgspec.Struct, array_like=True, kw_only=True, gc=False):
    """What is remembered of a deleted object; the fields mean what they mean in `materializer.entry.Entry`.

    - `removal`: it went with its whole type or cluster, so that many have this index and the log no message of it.
    - `size`: bytes that the log holds for its deletion; 0 for one of a removal.
    - `replaced`: those that had the name before it and may be remembered by watchers, newest first.
    - `pasts`: earlier states that selectors saw differently, newest first.
    """

    index: int
    time: int
    cluster: str
    namespace: str
    name: str
    version: str
    uid: str
    uid_index: int
    member_version: str
    labels: Mapping[str, str] = {}
    fields: Mapping[str, str] = {}
    controller_uid: str = ""
    created: int = 0
    type_meta: bytes = b""
    selectable_since: int = 0
    observed_from: int = 0
    oldest_uid_index: int = 0
    first_known_version: str = ""
    deleted: bool = True
    final: bool = True
    removal: bool = False
    size: int = 0
    replaced: list[Grave] = []
    pasts: list[Earlier] = []


class GraveScope(Protocol):
    """Which graves are wanted, by what they are called; None: all. `materializer.filter.Filter` is one."""

    @property
    def clusters(self) -> frozenset[str] | None:
        """Names of clusters."""

    @property
    def namespaces(self) -> frozenset[str] | None:
        """Namespaces; "" is that of what has none."""

    @property
    def names(self) -> frozenset[str] | None:
        """Names of objects."""


class ForgottenGraves(NamedTuple):
    """What `Graves.forget` has forgotten.

    - `through`: the highest index of it, 0: nothing. `graves`: how many.
    - `messages`: indexes of the messages of the log that said so, ascending.
    """

    through: int
    graves: int
    messages: array[int]


class BlockSize(NamedTuple):
    """How much one block holds: so many graves, with indexes up to `last`, for which the log has `size` bytes."""

    last: int
    graves: int
    size: int


class OfVersion(NamedTuple):
    """How many deletions of one cluster in one API version the log has messages of, with indexes up to `last`."""

    cluster: str
    version: str
    messages: int
    last: int


class PackedBlock(NamedTuple):
    """A block as it is written into an image: its data, and as bits, low ones first, which graves count no longer."""

    data: bytes
    gone: bytes


# -- a block -----------------------------------------------------------------------------------------------------------


class _Scanned(msgspec.Struct, array_like=True):
    """What is read of every grave that is passed on the way to others; `rest`: the `_Rest`.

    A list, or a byte, for each field; of what graves have in common every value once (`_SharedTexts`). Numbers are
    differences, from those of the grave before or from others of the same grave, so that they are small.
    """

    indexes: list[int]
    sizes: list[int]
    flags: bytes
    clusters: _SharedTexts
    namespaces: _SharedTexts
    names: list[str]
    rest: msgspec.Raw


class _Rest(msgspec.Struct, array_like=True):
    """What is read of those that are wanted."""

    times: list[int]
    uid_ages: list[int]
    selectable_ages: list[int]
    observed: list[int]
    oldest_ages: list[int]
    created: list[int]
    uids: bytes
    other_uids: dict[int, str]
    member_versions: list[int | str]
    first_known_versions: list[int | str]
    versions: _SharedTexts
    controller_uids: _SharedTexts
    type_metas: _SharedBytes
    labels: _SharedMaps
    fields: _SharedMaps
    rare: dict[int, tuple[list[Grave], list[Earlier]]]


class _SharedTexts(msgspec.Struct, array_like=True):
    """`values`: each once; `at`: of each grave the number of its value, a byte each, as a block has BLOCK graves."""

    values: list[str]
    at: bytes


class _SharedBytes(msgspec.Struct, array_like=True):
    values: list[bytes]
    at: bytes


class _SharedMaps(msgspec.Struct, array_like=True):
    values: list[dict[str, str]]
    at: bytes


PACKED_RECORDS = (_Scanned, _Rest, Grave)
"""The records in the data of a `PackedBlock`: with other fields it cannot be read."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Scanned).decode
_decode_rest = msgspec.msgpack.Decoder(_Rest).decode
_DELETED, _FINAL, _REMOVAL = 1, 2, 4
_SIGN = 1 << 63
_INDEX = (1 << 64) - 1
# In the place of a uid that is another text than an API server's.
_NO_UID = bytes(16)


def _shared(values: Sequence[T]) -> tuple[list[T], bytes]:
    numbers: dict[T, int] = {}
    at = bytes(numbers.setdefault(value, len(numbers)) for value in values)
    return list(numbers), at


def _shared_maps(values: Sequence[Mapping[str, str]]) -> _SharedMaps:
    keys, at = _shared([tuple(value.items()) for value in values])
    return _SharedMaps([dict(key) for key in keys], at)


def _uid_text(packed: bytes) -> str:
    """The inverse of `uid_bytes`."""
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _number(text: str) -> int | None:
    """A version that is a number as one; None for any other text, also one that a number is not written as."""
    if not (text.isascii() and text.isdigit() and len(text) < 19) or (text[0] == "0" and text != "0"):
        return None
    return int(text)


def _versions(texts: Sequence[str]) -> list[int | str]:
    """Numbers as differences from the number before, other texts as they are."""
    found: list[int | str] = []
    before = 0
    for text in texts:
        number = _number(text)
        if number is None:
            found.append(text)
        else:
            found.append(number - before)
            before = number
    return found


def _version_texts(packed: Iterable[int | str]) -> list[str]:
    """The inverse of `_versions`."""
    found: list[str] = []
    before = 0
    for one in packed:
        if isinstance(one, int):
            before += one
            found.append(str(before))
        else:
            found.append(one)
    return found


def _signed(number: int) -> int:
    """The number of 64 bits with a sign that has the same lowest bits: sums of differences come out all the same."""
    return (number + _SIGN) % (2 * _SIGN) - _SIGN


def _differences(numbers: Sequence[int]) -> list[int]:
    return [_signed(number - before) for number, before in zip(numbers, (0, *numbers[:-1]), strict=True)]


def _pack(graves: Sequence[Grave]) -> bytes:
    """Up to BLOCK graves as bytes. O(their size), some 5 us each."""
    uids = [uid_bytes(one.uid) for one in graves]
    rest = _Rest(
        times=_differences([one.time for one in graves]),
        uid_ages=[_signed(one.index - one.uid_index) for one in graves],
        selectable_ages=[_signed(one.index - one.selectable_since) for one in graves],
        observed=[_signed(one.observed_from - one.uid_index) for one in graves],
        oldest_ages=[_signed(one.uid_index - one.oldest_uid_index) for one in graves],
        created=_differences([one.created for one in graves]),
        uids=b"".join(packed or _NO_UID for packed in uids),
        other_uids={at: graves[at].uid for at, packed in enumerate(uids) if not packed},
        member_versions=_versions([one.member_version for one in graves]),
        first_known_versions=_versions([one.first_known_version for one in graves]),
        versions=_SharedTexts(*_shared([one.version for one in graves])),
        controller_uids=_SharedTexts(*_shared([one.controller_uid for one in graves])),
        type_metas=_SharedBytes(*_shared([one.type_meta for one in graves])),
        labels=_shared_maps([one.labels for one in graves]),
        fields=_shared_maps([one.fields for one in graves]),
        rare={at: (one.replaced, one.pasts) for at, one in enumerate(graves) if one.replaced or one.pasts},
    )
    scanned = _Scanned(
        indexes=_differences([one.index for one in graves]),
        sizes=[one.size for one in graves],
        flags=bytes(_DELETED * one.deleted | _FINAL * one.final | _REMOVAL * one.removal for one in graves),
        clusters=_SharedTexts(*_shared([one.cluster for one in graves])),
        namespaces=_SharedTexts(*_shared([one.namespace for one in graves])),
        names=[one.name for one in graves],
        rest=msgspec.Raw(_encode(rest)),
    )
    data: bytes = isal_zlib.compress(_encode(scanned), _LEVEL)
    return data


class _Unpacked:
    """The `_Rest` of a block, its numbers and texts as they were."""

    __slots__ = ("created", "first_known_versions", "member_versions", "rest", "times")

    def __init__(self, raw: msgspec.Raw) -> None:
        self.rest = _decode_rest(raw)
        self.times = list(accumulate(self.rest.times))
        self.created = [_signed(one) for one in accumulate(self.rest.created)]
        self.member_versions = _version_texts(self.rest.member_versions)
        self.first_known_versions = _version_texts(self.rest.first_known_versions)


class _Rows:
    """An unpacked block; the rest of it is unpacked when it is first asked for."""

    __slots__ = ("_rest", "_scanned", "indexes")

    def __init__(self, data: bytes) -> None:
        self._scanned = _decode(isal_zlib.decompress(data))
        self.indexes = list(accumulate(self._scanned.indexes))
        self._rest: _Unpacked | None = None

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def rest(self) -> _Unpacked:
        if self._rest is None:
            self._rest = _Unpacked(self._scanned.rest)
        return self._rest

    @property
    def times(self) -> list[int]:
        return self.rest.times

    def size(self, at: int) -> int:
        return self._scanned.sizes[at]

    def cluster(self, at: int) -> str:
        return self._place(at)[0]

    def version(self, at: int) -> str:
        versions = self.rest.rest.versions
        return versions.values[versions.at[at]]

    def is_message(self, at: int) -> bool:
        return not self._scanned.flags[at] & _REMOVAL

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Cluster, namespace and name of each."""
        scanned = self._scanned
        clusters, namespaces = scanned.clusters.values, scanned.namespaces.values
        for cluster, namespace, name in zip(scanned.clusters.at, scanned.namespaces.at, scanned.names, strict=True):
            yield clusters[cluster], namespaces[namespace], name

    def find(self, cluster: str, namespace: str, name: str, gone: int) -> int | None:
        """Where the grave of a name is, of those that are not `gone`; None: nowhere."""
        for at, one in enumerate(self._scanned.names):
            if one == name and not gone >> at & 1 and self._place(at) == (cluster, namespace):
                return at
        return None

    def _place(self, at: int) -> tuple[str, str]:
        clusters, namespaces = self._scanned.clusters, self._scanned.namespaces
        return clusters.values[clusters.at[at]], namespaces.values[namespaces.at[at]]

    def within(self, scope: GraveScope, begin: int) -> Iterable[int]:
        """Where the graves of a scope are, from `begin` on."""
        scanned = self._scanned
        found: Iterable[int] = range(begin, len(self.indexes))
        for wanted, column in ((scope.clusters, scanned.clusters), (scope.namespaces, scanned.namespaces)):
            if wanted is None:
                continue
            numbers = {number for number, value in enumerate(column.values) if value in wanted}
            if not numbers:
                return ()
            if len(numbers) < len(column.values):
                found = [at for at in found if column.at[at] in numbers]
        if (names := scope.names) is not None:
            found = [at for at in found if scanned.names[at] in names]
        return found

    def grave(self, at: int) -> Grave:
        """The grave itself; equal labels and the like are one object."""
        unpacked = self.rest
        rest, flags = unpacked.rest, self._scanned.flags[at]
        uid = rest.other_uids.get(at)
        if uid is None:
            uid = _uid_text(rest.uids[16 * at : 16 * at + 16])
        index = self.indexes[at]
        uid_index = index - rest.uid_ages[at] & _INDEX
        replaced, pasts = rest.rare.get(at, ((), ()))
        cluster, namespace = self._place(at)
        return Grave(
            index=index,
            time=unpacked.times[at],
            cluster=cluster,
            namespace=namespace,
            name=self._scanned.names[at],
            version=rest.versions.values[rest.versions.at[at]],
            uid=uid,
            uid_index=uid_index,
            member_version=unpacked.member_versions[at],
            labels=rest.labels.values[rest.labels.at[at]],
            fields=rest.fields.values[rest.fields.at[at]],
            controller_uid=rest.controller_uids.values[rest.controller_uids.at[at]],
            created=unpacked.created[at],
            type_meta=rest.type_metas.values[rest.type_metas.at[at]],
            selectable_since=index - rest.selectable_ages[at] & _INDEX,
            observed_from=uid_index + rest.observed[at] & _INDEX,
            oldest_uid_index=uid_index - rest.oldest_ages[at] & _INDEX,
            first_known_version=unpacked.first_known_versions[at],
            deleted=bool(flags & _DELETED),
            final=bool(flags & _FINAL),
            removal=bool(flags & _REMOVAL),
            size=self._scanned.sizes[at],
            replaced=list(replaced),
            pasts=list(pasts),
        )


class _Block(msgspec.Struct, gc=False):
    """A packed block, and what can be known of it without unpacking it. `gone`: as bits, which count no longer.

    `count`, `messages`, `size`: of those that count: how many, of how many the log has a message, bytes of these.
    """

    data: bytes
    first: int
    last: int
    earliest: int
    latest: int
    count: int
    messages: int
    size: int
    gone: int = 0


def _block_of(data: bytes, rows: _Rows, gone: int = 0) -> _Block:
    there = [at for at in range(len(rows)) if not gone >> at & 1]
    return _Block(
        data=data,
        first=rows.indexes[0],
        last=rows.indexes[-1],
        earliest=min(rows.times),
        latest=max(rows.times),
        count=len(there),
        messages=sum(map(rows.is_message, there)),
        size=sum(map(rows.size, there)),
        gone=gone,
    )


# -- the names ---------------------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    words: array[int]
    last: int


class _Names:
    """Which blocks may have a name: 8 bytes for each, in sorted runs, the oldest names first.

    A dict would take a hundred. O(log n) for each run to find, of which there are few.
    """

    __slots__ = ("_newest", "_runs", "_waiting")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        # By hash, those of the next run; of several with the same hash, all of them. And how many these are: a name
        # that is deleted again and again has one for each time.
        self._newest: dict[int, list[int]] = {}
        self._waiting = 0

    def add(self, hash_: int, number: int) -> None:
        hash_ &= _HASH_MASK
        self._newest.setdefault(hash_, []).append(number & _BLOCK_MASK)
        self._waiting += 1
        if self._waiting < _SHORTEST_RUN:
            return
        self._waiting = 0
        words = sorted(one << _BLOCK_BITS | low for one, lows in self._newest.items() for low in lows)
        self._newest = {}
        while self._runs and len(self._runs[-1].words) <= len(words) <= _LONGEST_RUN // 2:
            words = sorted([*self._runs.pop().words, *words])
        self._runs.append(_Run(array("Q", words), number))

    def find(self, hash_: int) -> set[int]:
        """Numbers of blocks, as their lowest bits."""
        hash_ &= _HASH_MASK
        found = set(self._newest.get(hash_, ()))
        word = hash_ << _BLOCK_BITS
        for words, _ in self._runs:
            at = bisect_left(words, word)
            while at < len(words) and words[at] >> _BLOCK_BITS == hash_:
                found.add(words[at] & _BLOCK_MASK)
                at += 1
        return found

    def drop_below(self, number: int) -> None:
        """Drops the runs that only speak of blocks below this one."""
        runs = self._runs
        while runs and runs[0].last < number:
            del runs[0]

    @property
    def bytes(self) -> int:
        return 180 * len(self._newest) + sum(64 + len(run.words) * run.words.itemsize for run in self._runs)


# -- all of a type -----------------------------------------------------------------------------------------------------


class Graves:
    """The graves of one type, by index and by name.

    - `messages`: of how many of them the log holds a message; the rest went with their type or cluster.
    - `size`: bytes that the log holds for them.

    Each name has one grave at most. Example: b deleted at 4 and a at 7 are buried; `after(4)` is a, `get` of b finds it
    until it is created again (`discard`), and `forget(through=5)` leaves a alone.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.size = 0
        self._count = 0
        self._packed = 0
        # Block number `_first + i` is `_blocks[i]`; None where none of it counts any longer.
        self._first = 0
        self._blocks: list[_Block | None] = []
        self._names = _Names()
        self._unpacked: dict[int, _Rows] = {}
        # By cluster and API version: how many messages, and the index of the newest, which may be gone.
        self._of_versions: dict[tuple[str, str], tuple[int, int]] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Bytes of memory that they take, about. O(runs of names)."""
        return self._packed + self._names.bytes

    # -- burying -----------------------------------------------------------------------------------------------------

    def bury(self, graves: Iterable[Grave]) -> None:
        """Takes in graves, ascending by index, none below those that are here. Some 10 us each."""
        waiting = list(graves)
        number = self._first + len(self._blocks)
        known = 0
        # A quiet type buries a few at a time: they go into the last block while that has room.
        if waiting and self._blocks and (last := self._blocks[-1]) is not None and last.count < BLOCK // 2:
            number -= 1
            rows = self._rows(number, last)
            before = [rows.grave(at) for at in range(len(rows)) if not last.gone >> at & 1]
            known = len(before)
            waiting = [*before, *waiting]
            self._drop(number)
            del self._blocks[-1]
        for begin in range(0, len(waiting), BLOCK):
            some = waiting[begin : begin + BLOCK]
            data = _pack(some)
            for one in some[known:]:
                self._names.add(hash((one.cluster, one.namespace, one.name)), number)
                if not one.removal:
                    self._count_in(one.cluster, one.version, one.index)
            known = 0
            times = [one.time for one in some]
            self._append(
                _Block(
                    data=data,
                    first=some[0].index,
                    last=some[-1].index,
                    earliest=min(times),
                    latest=max(times),
                    count=len(some),
                    messages=sum(not one.removal for one in some),
                    size=sum(one.size for one in some),
                )
            )
            number += 1

    def _append(self, block: _Block) -> None:
        self._blocks.append(block)
        self._count += block.count
        self.messages += block.messages
        self.size += block.size
        self._packed += _BLOCK_OVERHEAD + len(block.data)

    def _count_in(self, cluster: str, version: str, index: int) -> None:
        messages, last = self._of_versions.get((cluster, version), (0, 0))
        self._of_versions[cluster, version] = (messages + 1, max(last, index))

    def _count_out(self, rows: _Rows, at: int) -> None:
        if not rows.is_message(at):
            return
        place = (rows.cluster(at), rows.version(at))
        messages, last = self._of_versions[place]
        if messages > 1:
            self._of_versions[place] = (messages - 1, last)
        else:
            del self._of_versions[place]

    def _drop(self, number: int) -> None:
        block = self._blocks[number - self._first]
        assert block is not None
        self._blocks[number - self._first] = None
        self._unpacked.pop(number, None)
        self._count -= block.count
        self.messages -= block.messages
        self.size -= block.size
        self._packed -= _BLOCK_OVERHEAD + len(block.data)

    def _close_front(self) -> None:
        """Closes the gap at the beginning, so that what was forgotten takes no memory."""
        leading = next((at for at, block in enumerate(self._blocks) if block is not None), len(self._blocks))
        if leading:
            del self._blocks[:leading]
            self._first += leading
            self._names.drop_below(self._first)

    def _rows(self, number: int, block: _Block) -> _Rows:
        rows = self._unpacked.get(number)
        if rows is None:
            rows = _Rows(block.data)
            while len(self._unpacked) >= _CACHED_BLOCKS:
                del self._unpacked[next(iter(self._unpacked))]
            self._unpacked[number] = rows
        return rows

    # -- by name -----------------------------------------------------------------------------------------------------

    def get(self, cluster: str, namespace: str, name: str) -> Grave | None:
        """The grave of a name; None if there is none. O(log n); some 100 us where there is one."""
        found = self._find(cluster, namespace, name)
        return None if found is None else found[1].grave(found[2])

    def discard(self, cluster: str, namespace: str, name: str) -> Grave | None:
        """Takes the grave of a name out, and returns it. As `get`."""
        found = self._find(cluster, namespace, name)
        if found is None:
            return None
        number, rows, at = found
        grave = rows.grave(at)
        self._lose(number, rows, at)
        self._close_front()
        return grave

    def discard_cluster(self, cluster: str) -> None:
        """Takes all of a cluster out. O(n)."""
        scope = _OfCluster(frozenset((cluster,)))
        for at, block in enumerate(self._blocks):
            if block is None:
                continue
            rows = self._rows(self._first + at, block)
            for row in rows.within(scope, 0):
                if not block.gone >> row & 1:
                    self._lose(self._first + at, rows, row)
        self._close_front()

    def _find(self, cluster: str, namespace: str, name: str) -> tuple[int, _Rows, int] | None:
        if not self._count:
            return None
        for low in self._names.find(hash((cluster, namespace, name))):
            # The one number with these lowest bits that is not forgotten.
            number = self._first + (low - self._first & _BLOCK_MASK)
            if number - self._first >= len(self._blocks) or (block := self._blocks[number - self._first]) is None:
                continue
            rows = self._rows(number, block)
            at = rows.find(cluster, namespace, name, block.gone)
            if at is not None:
                return number, rows, at
        return None

    def _lose(self, number: int, rows: _Rows, at: int) -> None:
        block = self._blocks[number - self._first]
        assert block is not None
        block.gone |= 1 << at
        self._count_out(rows, at)
        if block.count == 1:
            self._drop(number)
            return
        block.count -= 1
        self._count -= 1
        message = rows.is_message(at)
        block.messages -= message
        self.messages -= message
        block.size -= rows.size(at)
        self.size -= rows.size(at)

    # -- by index ----------------------------------------------------------------------------------------------------

    def after(self, index: int, scope: GraveScope | None = None) -> Iterator[Grave]:
        """Graves with a higher index, ascending, of a scope if one is given. O(log n) to the first.

        Unpacks a block of them at a time, some 100 us, less where few of it are in the scope. Not to be gone on with
        once graves were changed.
        """
        blocks = self._blocks
        for at in range(self._position(index), len(blocks)):
            block = blocks[at]
            if block is None or block.last <= index:
                continue
            rows = self._rows(self._first + at, block)
            begin = bisect_right(rows.indexes, index)
            gone = block.gone
            for row in range(begin, len(rows)) if scope is None else rows.within(scope, begin):
                if not gone >> row & 1:
                    yield rows.grave(row)

    def _position(self, index: int) -> int:
        """A block before which none has a higher index. O(log n)."""
        blocks = self._blocks
        low, high = 0, len(blocks)
        while low < high:
            middle = probe = (low + high) // 2
            while probe < high and blocks[probe] is None:
                probe += 1
            block = blocks[probe] if probe < high else None
            if block is None or block.last > index:
                high = middle
            else:
                low = probe + 1
        return low

    def entries(self, cluster: str | None = None) -> Iterator[Grave]:
        """All of a cluster, or of all, by index. O(n)."""
        return self.after(-1, None if cluster is None else _OfCluster(frozenset((cluster,))))

    @property
    def last(self) -> int:
        """The highest index of a grave, 0 if there is none; also of one that was discarded since. O(1), mostly."""
        return next((block.last for block in reversed(self._blocks) if block is not None), 0)

    @property
    def oldest_time(self) -> int | None:
        """When the log stored the oldest deletion, or one that was discarded since: ns since 1970; None: no graves."""
        return next((block.earliest for block in self._blocks if block is not None), None)

    # -- forgetting --------------------------------------------------------------------------------------------------

    def forget(self, *, before: int = 0, through: int = 0) -> ForgottenGraves:
        """Forgets, from the oldest on, what was stored before a time (ns since 1970) or has an index up to `through`.

        Amortised O(1) each. Ends at the first that is neither. Example: with graves at 4 (stored at 10), 7 (at 30) and
        9 (at 20), `forget(before=25)` forgets the first alone, and `forget(through=8)` the first two.
        """
        messages = array("Q")
        count, highest = 0, 0
        for at, block in enumerate(self._blocks):
            if block is None:
                continue
            if block.first > through and block.earliest >= before:
                break
            number = self._first + at
            rows = self._rows(number, block)
            kept = next(
                (row for row, index in enumerate(rows.indexes) if index > through and rows.times[row] >= before), None
            )
            end = len(rows) if kept is None else kept
            if end:
                highest = rows.indexes[end - 1]
            for row in range(end):
                if block.gone >> row & 1:
                    continue
                count += 1
                if rows.is_message(row):
                    messages.append(rows.indexes[row])
                if kept is not None:
                    self._lose(number, rows, row)
                else:
                    self._count_out(rows, row)
            if kept is not None:
                break
            self._drop(number)
        self._close_front()
        return ForgottenGraves(highest, count, messages)

    def first_since(self, time: int) -> int | None:
        """The lowest index of a grave that the log stored at `time` (ns since 1970) or later. O(blocks)."""
        for at, block in enumerate(self._blocks):
            if block is None or block.latest < time:
                continue
            rows = self._rows(self._first + at, block)
            for row, stored in enumerate(rows.times):
                if stored >= time and not block.gone >> row & 1:
                    return rows.indexes[row]
        return None

    def stored_before(self, limit: int) -> int:
        """How many messages of the log, stored before `limit` (ns since 1970), are remembered. O(blocks)."""
        count = 0
        for at, block in enumerate(self._blocks):
            if block is None or block.earliest >= limit:
                continue
            if block.latest < limit:
                count += block.messages
                continue
            rows = self._rows(self._first + at, block)
            times = rows.times
            count += sum(
                times[row] < limit and not block.gone >> row & 1 and rows.is_message(row) for row in range(len(rows))
            )
        return count

    def of_versions(self) -> Iterator[OfVersion]:
        """Of how many the log has messages, by cluster and API version. O(these)."""
        for (cluster, version), (messages, last) in self._of_versions.items():
            yield OfVersion(cluster, version, messages, last)

    def sizes(self, *, each: bool = False) -> Iterator[BlockSize]:
        """How much the blocks hold, from the oldest on; `each`: each grave by itself. O(blocks), or O(n)."""
        for at, block in enumerate(self._blocks):
            if block is None:
                continue
            if not each:
                yield BlockSize(block.last, block.count, block.size)
                continue
            rows = self._rows(self._first + at, block)
            for row, index in enumerate(rows.indexes):
                if not block.gone >> row & 1:
                    yield BlockSize(index, 1, rows.size(row))

    # -- images ------------------------------------------------------------------------------------------------------

    def packed(self) -> list[PackedBlock]:
        """All of them, unchanged whatever happens to the graves. O(blocks)."""
        return [
            PackedBlock(block.data, block.gone.to_bytes(BLOCK // 8, "little"))
            for block in self._blocks
            if block is not None
        ]

    def restore(self, block: PackedBlock) -> None:
        """Takes in a block of `packed`, in their order. O(BLOCK).

        Raises:
            ValueError: it is none.
        """
        try:
            rows = _Rows(block.data)
            taken = _block_of(block.data, rows, int.from_bytes(block.gone, "little"))
        except (_BAD_DATA, msgspec.MsgspecError, LookupError, UnicodeError) as cause:
            raise ValueError(f"no block of graves: {cause}") from cause
        number = self._first + len(self._blocks)
        for name in rows.names():
            self._names.add(hash(name), number)
        for at in range(len(rows)):
            if rows.is_message(at) and not taken.gone >> at & 1:
                self._count_in(rows.cluster(at), rows.version(at), rows.indexes[at])
        self._append(taken)

    def check(self) -> None:
        """The invariants as code, for tests. O(n).

        Raises:
            AssertionError: one of them is broken.
        """
        graves = list(self.after(-1))
        blocks = [block for block in self._blocks if block is not None]
        assert len(graves) == self._count == sum(block.count for block in blocks)
        assert all(block.count for block in blocks), "a block of which nothing counts is none"
        assert self.messages == sum(not one.removal for one in graves) == sum(block.messages for block in blocks)
        assert self.size == sum(one.size for one in graves) == sum(block.size for block in blocks)
        indexes = [one.index for one in graves]
        assert indexes == sorted(indexes), "graves ascend"
        names = [(one.cluster, one.namespace, one.name) for one in graves]
        assert len(set(names)) == len(names), "a name has one grave"
        assert not self._blocks or self._blocks[0] is not None
        of_versions = Counter((one.cluster, one.version) for one in graves if not one.removal)
        assert {(one.cluster, one.version): one.messages for one in self.of_versions()} == of_versions


class _OfCluster(NamedTuple):
    clusters: frozenset[str]
    namespaces: None = None
    names: None = None
