"""LIST: frozen snapshots, pages and continue tokens, streamed in slices of stored bytes."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from materializer.entry import Entry
from materializer.versions import Named
from query.http.status import ApiError, expired
from query.objects.options import Options, version_of

# Bytes that all snapshots together may cost, and their number.
_SNAPSHOT_BYTES = 256 * 1024 * 1024
_SNAPSHOTS = 2048
_SNAPSHOT_SECONDS = 300.0
# Seconds between two looks at what they cost, and how many of its entries are looked at.
_WEIGH_EVERY = 5.0
_SAMPLE = 16
# What a snapshot and an entry that it keeps alive cost beside references and bodies.
_OWN_BYTES = 1024
_ENTRY_BYTES = 1024
# Items are joined and sent in slices of about this many bytes, so that the event loop serves others in between.
_SLICE_BYTES = 256 * 1024


class _Token(msgspec.Struct):
    """A continue token's content: the first page's version, and the last object sent."""

    v: str
    rv: str
    start: list[str]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The result of a list, frozen at its first page. `lives`: whether the store holds an entry, too."""

    index: int
    scope: object
    entries: list[Entry]
    lives: Callable[[Entry], bool] = lambda _: True

    def bytes(self, before: int = -1) -> int:
        """About what it costs: references, and old states that only it keeps alive, by a sample. O(1).

        `before`: the index of another one of the same scope; entries up to that are that one's matter.
        """
        entries = self.entries
        sample = entries[:: max(len(entries) // _SAMPLE, 1)]
        pinned = sum([_ENTRY_BYTES + len(one.body) for one in sample if one.index > before and not self.lives(one)])
        return _OWN_BYTES + 8 * len(entries) + pinned * len(entries) // max(len(sample), 1)


class _Kept(msgspec.Struct, eq=False):
    snapshot: Snapshot
    owner: str
    used: float
    bytes: int


class Snapshots:
    """Snapshots of paged lists that are under way. Owned by the service.

    Bounded by what they cost, which grows as objects change. Where that is too much, whoever has most of it, by
    address, loses the one that was not used for longest: nobody ends the lists of others. `scope` says of which
    history they are, too. They go by themselves when nobody asks any more.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, object], _Kept] = OrderedDict()
        # By owner.
        self._bytes: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._weighing: asyncio.TimerHandle | None = None
        self.evicted = 0

    def close(self) -> None:
        self._kept.clear()
        self._bytes.clear()
        self._numbers.clear()
        if self._weighing is not None:
            self._weighing.cancel()
            self._weighing = None

    def keep(self, snapshot: Snapshot, owner: str = "") -> None:
        """`owner`: the address of who asked for it first; others may go on with it, too."""
        self._drop_old()
        key = (snapshot.index, snapshot.scope)
        known = self._kept.get(key)
        if known is not None:
            # The same state of the same objects: tokens of both are for this one.
            known.used = time.monotonic()
            self._kept.move_to_end(key)
            return
        kept = self._kept[key] = _Kept(snapshot, owner, time.monotonic(), snapshot.bytes())
        self._bytes[owner] += kept.bytes
        self._numbers[owner] += 1
        self._bound()
        if self._weighing is None:
            self._weigh_later()

    def find(self, index: int, scope: object) -> Snapshot | None:
        self._drop_old()
        found = self._kept.get((index, scope))
        if found is None:
            return None
        found.used = time.monotonic()
        self._kept.move_to_end((index, scope))
        return found.snapshot

    @property
    def size(self) -> int:
        """About the bytes that all of them cost."""
        return self._bytes.total()

    def weigh(self) -> None:
        """Finds out what they cost now. O(number)."""
        newest: dict[object, int] = {}
        self._bytes.clear()
        # Of those of one scope the oldest keeps alive what the others hold, too.
        for (index, scope), kept in sorted(self._kept.items(), key=lambda item: item[0][0]):
            kept.bytes = kept.snapshot.bytes(newest.get(scope, -1))
            newest[scope] = index
            self._bytes[kept.owner] += kept.bytes
        self._bound()

    def _bound(self) -> None:
        while len(self._kept) > 1 and (len(self._kept) > _SNAPSHOTS or self.size > _SNAPSHOT_BYTES):
            has = self._numbers if len(self._kept) > _SNAPSHOTS else self._bytes
            [(most, _)] = has.most_common(1)
            self._drop(next(key for key, kept in self._kept.items() if kept.owner == most))
            self.evicted += 1

    def _drop(self, key: tuple[int, object]) -> None:
        kept = self._kept.pop(key)
        self._bytes[kept.owner] -= kept.bytes
        self._numbers[kept.owner] -= 1
        if not self._numbers[kept.owner]:
            del self._bytes[kept.owner], self._numbers[kept.owner]

    def _drop_old(self) -> None:
        limit = time.monotonic() - _SNAPSHOT_SECONDS
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.used >= limit:
                break
            self._drop(key)

    def _weigh_later(self) -> None:
        self._weighing = asyncio.get_running_loop().call_later(min(_WEIGH_EVERY, _SNAPSHOT_SECONDS), self._weigh)

    def _weigh(self) -> None:
        self._weighing = None
        self._drop_old()
        self.weigh()
        if self._kept:
            self._weigh_later()

    def __len__(self) -> int:
        return len(self._kept)


def encode_token(version: str, last: Entry) -> str:
    token = _Token("kubebraid/v1", version, [last.cluster, last.namespace, last.name])
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


def decode_token(text: str) -> _Token:
    """Raises ApiError 400."""
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
        if token.v != "kubebraid/v1" or len(token.start) != 3:
            raise ValueError("not one of ours")
    except (ValueError, msgspec.MsgspecError) as cause:
        raise ApiError(400, f"continue key is not valid: {cause}") from None
    return token


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list: its entries, its version's index, what it says of further ones."""

    entries: list[Entry]
    version: str
    token: str
    remaining: int | None


def first_page(
    snapshots: Snapshots,
    entries: list[Entry],
    options: Options,
    version: str,
    index: int,
    scope: object,
    owner: str = "",
    lives: Callable[[Entry], bool] = lambda _: True,
) -> Page:
    """The first page of a list whose complete result is `entries`.

    `owner`: the address of who asks. `lives`: whether an entry is still in the store.
    """
    if not options.limit or len(entries) <= options.limit:
        return Page(entries, version, "", None)
    snapshots.keep(Snapshot(index, scope, entries, lives), owner)
    return _page(entries, 0, options, version)


def further_page(
    snapshots: Snapshots,
    present: Callable[[], list[Entry]],
    options: Options,
    versions: Named,
    present_version: str,
    scope: object,
    owner: str = "",
    lives: Callable[[Entry], bool] = lambda _: True,
) -> Page:
    """The page that a continue token asks for. `present` finds the list's result as it is now.

    Raises ApiError 400 for a token that is none, 410 with a token to go on inconsistently if its snapshot is
    no longer here.
    """
    token = decode_token(options.token)
    start = tuple(token.start)
    if not token.rv:
        # It goes on inconsistently, and from here on consistently with this state.
        found = present()
        page = _page(found, _position(found, start), options, present_version)
        if page.token:
            snapshots.keep(Snapshot(version_of(present_version, versions).index, scope, found, lives), owner)
        return page
    index = version_of(token.rv, versions).index
    snapshot = snapshots.find(index, scope)
    if snapshot is None:
        fresh = _Token("kubebraid/v1", "", list(start))
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new "
            "list without the continue parameter, or use the continue token in this response to retrieve the "
            "remainder of the results. Continuing with the provided token results in an inconsistent list - "
            "objects that were created, modified, or deleted between the time the first chunk was returned and "
            "now may show up in the list.",
            base64.urlsafe_b64encode(msgspec.json.encode(fresh)).rstrip(b"=").decode(),
        )
    return _page(snapshot.entries, _position(snapshot.entries, start), options, token.rv)


def _position(entries: list[Entry], start: tuple[str, ...]) -> int:
    """Where the first entry behind `start` stands; entries are sorted by cluster, namespace and name. O(log n)."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        entry = entries[middle]
        if (entry.cluster, entry.namespace, entry.name) <= start:
            low = middle + 1
        else:
            high = middle
    return low


def _page(entries: list[Entry], begin: int, options: Options, version: str) -> Page:
    end = len(entries) if not options.limit else min(begin + options.limit, len(entries))
    page = entries[begin:end]
    if end >= len(entries):
        return Page(page, version, "", None)
    selective = bool(options.label_selector or options.field_selector)
    return Page(page, version, encode_token(version, page[-1]), None if selective else len(entries) - end)


def slices(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Runs of entries of about a slice's size each."""
    begin, size = 0, 0
    for at, entry in enumerate(entries):
        size += len(entry.body)
        if size >= _SLICE_BYTES:
            yield entries[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(entries):
        yield entries[begin:]
