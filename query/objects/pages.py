"""Pages: a list that is read in parts, all of the state of the first one.

What a list has found is frozen at its first page, and a continue token names it: Kubernetes API Concepts, "Retrieving
large results sets in chunks". A kube-apiserver keeps old states in etcd for that; here they are references to entries.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import string
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from materializer.entry import Entry
from materializer.versions import list_version
from query.http.status import ApiError
from query.identity import NOBODY, Identity
from query.objects.options import Options, quoted
from query.search.order import PLACE, ListOrder
from query.search.terms import Search
from query.timing import DEFAULT_TIMING, QueryTiming

# How many of a snapshot's entries are looked at to find out what it costs.
_SAMPLE = 16
_BY_PLACE = ListOrder()
_NO_SEARCH = Search()
# What continue tokens say of themselves, and what they are written in.
_VERSION = "kubebraid/v1"
_BASE64 = frozenset(string.ascii_letters + string.digits + "-_")
# What a snapshot and an entry that it keeps alive cost beside references and bodies, in bytes.
_OWN_BYTES = 1024
_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """How many bytes all snapshots together may cost, and how many of them there may be."""

    bytes: int = 256 * 1024 * 1024
    number: int = 2048


DEFAULT_LIMITS = SnapshotLimits()

CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
"""What a kube-apiserver says of a token whose state is not known any more (apiserver storage/etcd3/errors.go)."""


class Token(msgspec.Struct):
    """A continue token's content.

    `rv`: the version of the list whose page it continues, "" for the present state. `start`: cluster, namespace and
    name of the last object that was sent; before these, its values by which the list is sorted, if it has an `order`.
    `who`: whose it is, see `reader`.
    """

    v: str
    rv: str
    start: list[str | int]
    id: str = ""
    who: str = ""
    order: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The result of a list at an index of the log.

    `scope`: what was listed, and of which history: lists with equal scopes at one index are the same. `entries`: sorted
    by the list's order, which is by cluster, namespace and name unless it was asked for another one. `lives`: whether
    the store holds an entry as well, so that this keeps no old one.
    """

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
        pinned = sum([_ENTRY_BYTES + len(one.record) for one in sample if one.index > before and not self.lives(one)])
        return _OWN_BYTES + 8 * len(entries) + pinned * len(entries) // max(len(sample), 1)


class _Kept(msgspec.Struct, eq=False):
    snapshot: Snapshot
    client: str
    used: float
    bytes: int


class FrozenLists:
    """Snapshots of paged lists that are under way. Owned by the service.

    They are bounded by what they cost, which grows as objects change. When that is too much, the client (a user, or an
    address) that has most of it loses its least recently used one, so that no client ends the lists of others. One that
    is unused for `timing.snapshot_life` seconds is dropped. `evicted` counts those that had to go.
    """

    def __init__(self, timing: QueryTiming = DEFAULT_TIMING, limits: SnapshotLimits = DEFAULT_LIMITS) -> None:
        self._life = timing.snapshot_life
        self._weigh_every = min(timing.weigh_every, timing.snapshot_life)
        self._limits = limits
        self._kept: OrderedDict[tuple[int, object], _Kept] = OrderedDict()
        # By client.
        self._bytes: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._weighing: asyncio.TimerHandle | None = None
        self.evicted = 0

    def close(self) -> None:
        """Drops all; their further pages are 410."""
        self._kept.clear()
        self._bytes.clear()
        self._numbers.clear()
        if self._weighing is not None:
            self._weighing.cancel()
            self._weighing = None

    def keep(self, snapshot: Snapshot, client: str) -> None:
        """Keeps a snapshot for further pages. `client`: who asked first; others may use it as well."""
        self._drop_old()
        key = (snapshot.index, snapshot.scope)
        known = self._kept.get(key)
        if known is not None:
            # The same state of the same objects: tokens of both are for this one.
            known.used = time.monotonic()
            self._kept.move_to_end(key)
            return
        kept = self._kept[key] = _Kept(snapshot, client, time.monotonic(), snapshot.bytes())
        self._bytes[client] += kept.bytes
        self._numbers[client] += 1
        self._bound()
        if self._weighing is None:
            self._weigh_later()

    def find(self, index: int, scope: object) -> Snapshot | None:
        """The snapshot of a list at an index, if it is kept. O(1)."""
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
        """Finds out what they cost now, and drops some where that is too much. O(n log n) in their number."""
        newest: dict[object, int] = {}
        self._bytes.clear()
        # Of those of one scope the oldest keeps alive what the others hold, too.
        for (index, scope), kept in sorted(self._kept.items(), key=lambda item: item[0][0]):
            kept.bytes = kept.snapshot.bytes(newest.get(scope, -1))
            newest[scope] = index
            self._bytes[kept.client] += kept.bytes
        self._bound()

    def _bound(self) -> None:
        limits = self._limits
        while len(self._kept) > 1 and (len(self._kept) > limits.number or self.size > limits.bytes):
            has = self._numbers if len(self._kept) > limits.number else self._bytes
            [(most, _)] = has.most_common(1)
            self._drop(next(key for key, kept in self._kept.items() if kept.client == most))
            self.evicted += 1

    def _drop(self, key: tuple[int, object]) -> None:
        kept = self._kept.pop(key)
        self._bytes[kept.client] -= kept.bytes
        self._numbers[kept.client] -= 1
        if not self._numbers[kept.client]:
            del self._bytes[kept.client], self._numbers[kept.client]

    def _drop_old(self) -> None:
        limit = time.monotonic() - self._life
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.used >= limit:
                break
            self._drop(key)

    def _weigh_later(self) -> None:
        self._weighing = asyncio.get_running_loop().call_later(self._weigh_every, self._weigh)

    def _weigh(self) -> None:
        self._weighing = None
        self._drop_old()
        self.weigh()
        if self._kept:
            self._weigh_later()

    def __len__(self) -> int:
        return len(self._kept)


def reader(who: Identity) -> str:
    """What a continue token says of the user that it was made for, "" of somebody unknown.

    At every instance the same. It keeps no secret: whoever makes up a token gets what they may see and no more.
    """
    return "" if who == NOBODY else hashlib.sha256(who.name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def encode_continue(version: str, last: Entry, who: str = "", order: ListOrder = _BY_PLACE) -> str:
    """A continue token: the version of a list, the last object that was sent of it, and whose it is (`reader`)."""
    return _text_of(Token(_VERSION, version, order.key(last), who=who, order=str(order)))


def go_on_inconsistently(token: Token) -> str:
    """The token that goes on behind the same object in the present state, once the state of the list is not known."""
    return _text_of(Token(_VERSION, "", token.start, who=token.who, order=token.order))


def decode_continue(text: str, who: str = "") -> Token:
    """The inverse of `encode_continue`, for the user that it was made for.

    Raises:
        ApiError: 400, it is no token of this service, or not this user's, in the words of k8s.io/apiserver
            pkg/storage/continue.go.
    """
    for at, char in enumerate(text):
        if char not in _BASE64:
            raise _invalid(f": illegal base64 data at input byte {at}")
    if len(text) % 4 == 1:
        raise _invalid(f": illegal base64 data at input byte {len(text) - 1}")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    try:
        token = msgspec.json.decode(data, type=Token)
    except (ValueError, msgspec.MsgspecError, RecursionError) as cause:
        raise _invalid(f": {_why_no_json(data) or cause}") from None
    if token.v != _VERSION:
        raise _invalid(f": server does not recognize this encoded version {token.v[:64]}")
    if token.who != who:
        raise _invalid(": it is another user's")
    if len(token.start) < len(PLACE):
        raise _invalid(f": encoded start key empty (version {_VERSION})")
    return token


def check_order(token: Token, order: ListOrder) -> None:
    """Raises ApiError 400 unless a token is of a list in this order: behind which object it goes on depends on that."""
    if token.order != str(order) or not order.key_fits(token.start):
        raise _invalid(": it is of a list with another orderby")


def _invalid(why: str) -> ApiError:
    return ApiError(400, f"invalid continue token: continue key is not valid{why}")


def _why_no_json(data: bytes) -> str:
    """What Go says of bytes whose beginning is none of JSON; "" of others."""
    begin = data.lstrip(b" \t\r\n")[:1]
    if not begin:
        return "unexpected end of JSON input"
    if begin in b'{["-0123456789tfn':
        return ""
    char = {"'": "\\'", '"': '"'}.get(begin.decode("latin-1")) or quoted(begin.decode("latin-1"))[1:-1]
    return f"invalid character '{char}' looking for beginning of value"


def _text_of(token: Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class ListPage:
    """One answer of a list: its entries, and the index of the state that they are of.

    `token` goes on with the next page, "" if this is the last one. `remaining`: how many entries come behind this page,
    None if there are none or the list has a selector (ListMeta.remainingItemCount).
    """

    entries: list[Entry]
    index: int
    token: str = ""
    remaining: int | None = None


def page_of(
    frozen: FrozenLists,
    found: Snapshot,
    token: Token | None,
    options: Options,
    prefix: str,
    client: str,
    who: str = "",
    search: Search = _NO_SEARCH,
) -> ListPage:
    """The first page of a list that found this, or the one that a token asks for; it is kept if there are more.

    `prefix`: of the history; `client`: whose bytes count together; `who`: whose tokens they are, see `reader`;
    `search`: how it is paged. With five entries a to e and a limit of 2 the first page has a and b, `remaining` is 3,
    and its token stands behind b.
    """
    entries, order = found.entries, search.order
    begin = min(search.offset or 0, len(entries)) if token is None else order.behind(entries, token.start)
    end = len(entries) if not options.limit else min(begin + options.limit, len(entries))
    page = entries[begin:end]
    remaining = _remaining(len(entries) - end, options, search)
    if end >= len(entries) or search.with_continue is False:
        return ListPage(page, found.index, remaining=remaining)
    frozen.keep(found, client)
    return ListPage(
        page, found.index, encode_continue(list_version(prefix, found.index), page[-1], who, order), remaining
    )


def _remaining(behind: int, options: Options, search: Search) -> int | None:
    """What a list says of how many come behind its page."""
    if search.with_remaining_count is not None:
        return behind if search.with_remaining_count else None
    selective = bool(search.label_selector or options.field_selector or search.expression)
    return None if selective or not behind else behind
