"""LIST: the state that a list is of, its page, and the answer streamed in slices of stored bytes.

Kubernetes API Concepts, "Semantics for get and list".
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from aiohttp import web

from materializer import reading
from materializer.entry import Entry
from materializer.filter import BodyCondition, Filter
from materializer.materializer import Materializer
from materializer.read_ahead import ReadAhead
from materializer.sorting import STEP
from materializer.type_store import BeforeWindow, Scanned, matching
from query.http.accept import Form
from query.http.limits import RequestCounts, RequestLimits
from query.http.rendering import send_list
from query.http.request import Request
from query.http.status import ApiError, expired
from query.objects.consistency import Consistency
from query.objects.injected_events import events_of
from query.objects.pages import (
    CONTINUE_EXPIRED,
    DEFAULT_LIMITS,
    FrozenLists,
    ListPage,
    Snapshot,
    SnapshotLimits,
    Token,
    check_order,
    decode_continue,
    go_on_inconsistently,
    page_of,
    reader,
)
from query.objects.requests import CollectionRequest
from query.objects.turns import at_once, in_slices
from query.objects.versions import check_history
from query.search.known import KnownMatches
from query.search.order import ListOrder
from query.search.owners import owners_of, prepare_owners
from query.search.where import chosen_by
from query.timing import QueryTiming

# Items are joined and sent in slices of about this many bytes, so that the event loop serves others in between.
_SLICE_BYTES = 256 * 1024


class _Scan(NamedTuple):
    """Entries that may be in a list. `present`: whether they are those of now."""

    found: Scanned
    present: bool


_DONE = object()
# So many objects tell whether there is a field.
_SAMPLE = 256


class Lists:
    """Answers LISTs from the store. `frozen`: the states of those that are read in pages; `counts`: their bytes'."""

    def __init__(
        self,
        materializer: Materializer,
        consistency: Consistency,
        timing: QueryTiming,
        limits: SnapshotLimits = DEFAULT_LIMITS,
        counts: RequestCounts | None = None,
        turns: asyncio.Lock | None = None,
    ) -> None:
        self._counts = RequestCounts(RequestLimits()) if counts is None else counts
        self._materializer = materializer
        self._consistency = consistency
        self.frozen = FrozenLists(timing, limits)
        self._known = KnownMatches()
        # Held while one slice of one list is made: of all lists, so that one slice is made between two turns of the
        # loop, however many lists there are.
        self._turns = asyncio.Lock() if turns is None else turns

    def close(self) -> None:
        """Drops the states of paged lists; what is being sent goes on to its end."""
        self.frozen.close()

    async def answer(self, request: Request, asked: CollectionRequest) -> web.StreamResponse:
        """The list, or the page of it, that is asked for.

        Raises:
            ApiError: 400, a version or continue token that is none; 410, a state that is not known any more; 429, 504,
                see `Consistency`; 429, too many bytes are under way.
        """
        token = decode_continue(asked.options.token, reader(request.who)) if asked.options.token else None
        if token is not None and asked.options.version not in ("", "0"):
            raise ApiError(400, "specifying resource version is not allowed when using continue")
        if token is not None:
            check_order(token, asked.search.order)
        exact = await self._reach(request, asked, token)
        encoder = asked.encoder
        check_history(self._materializer, encoder.versions)
        if asked.parts is not None:
            found = await self._states(asked.parts, asked.search.order, exact)
        else:
            found = await self._state(request, asked, exact)
        # It may have taken its time.
        check_history(self._materializer, encoder.versions)
        page = self._page(request, asked, token, found)
        if asked.search.inject_events:
            events = await events_of(self._materializer, self._turns, page.entries, asked.owners)
            encoder = encoder.with_events(events)
        head = encoder.list_head(encoder.versions.of_list(page.index), page.token, page.remaining)
        size = await self._sum(encoder.size, page.entries)
        if size:
            size += len(page.entries) - 1
        render, warnings = request.rendering(), request.warning_headers()
        # Of tables it is not known before; their rows come of so much.
        counted = size if size is not None else await self._sum(reading.size, page.entries) or 0
        # Rows that are kept need no bodies.
        ahead = ReadAhead(slices(page.entries), ahead=encoder.form is not Form.TABLE)
        items: Iterator[list[bytes]]
        if encoder.as_stored and render.compact:
            items = (encoder.pieces(*slice_) for slice_ in ahead)
        else:
            items = (encoder.items(part, None if rests is None else list(map(bytes, rests))) for part, rests in ahead)
        with self._counts.sending(request.who, counted), closing(ahead):
            return await send_list(
                request.http,
                render,
                warnings,
                head,
                items,
                encoder.opening,
                size,
                request.begin,
                self._turns,
                ahead.ready,
            )

    async def _reach(self, request: Request, asked: CollectionRequest, token: Token | None) -> int | None:
        """Waits until the store is as new as is asked for; returns the index whose state is asked for, None: any."""
        options = asked.options
        if token is not None and token.rv:
            # Of whichever instance: it may have been ahead of this one.
            return await self._consistency.at_least(request, token.rv)
        if token is not None or not options.version:
            await self._consistency.current(request)
        elif asked.member_versions is not None:
            if options.match == "Exact":
                raise ApiError(400, "a list is exact at versions of this service only, not at those of the clusters")
            await self._consistency.at_member_versions(request, asked.key, asked.member_versions)
        elif options.version != "0":
            index = await self._consistency.at_least(request, options.version)
            # apiserver storage/interfaces.go: ValidateListOptions; with a limit and no match it is "legacy exact".
            if options.match == "Exact" or (options.limit and not options.match):
                return index
        return None

    def _page(
        self, request: Request, asked: CollectionRequest, token: Token | None, found: Snapshot | None
    ) -> ListPage:
        """What the answer has of what was found. Raises ApiError 410: that is not known any more."""
        options, search = asked.options, asked.search
        if found is None:
            if token is not None:
                raise expired(CONTINUE_EXPIRED, go_on_inconsistently(token))
            raise expired(f"The resourceVersion for the provided list is too old: {options.version[:128]}")
        if token is None and options.version == "0" and not (search.limit or search.offset or search.order):
            # "0" means any state, and its answer is whole (apiserver storage/cacher: computeListLimit).
            options = dataclasses.replace(options, limit=0)
        prefix, who = self._materializer.store.prefix, reader(request.who)
        return page_of(self.frozen, found, token, options, prefix, request.client, who, search)

    async def _state(self, request: Request, asked: CollectionRequest, exact: int | None) -> Snapshot | None:
        """What a list has at an index, or now (None); None if that is not known any more.

        It is known as long as its pages are being read, as long as nothing changed since, and within the window of
        events; so each instance with the same history answers alike within that. O(entries in scope).

        What takes long is done with entries that were taken at one index, and do not change.
        """
        scope = (*self._scope(asked), asked.search.order, self._materializer.generation)
        if exact is not None and (kept := self.frozen.find(exact, scope)) is not None:
            return kept
        selection = await self._prepare(asked)
        index = self._materializer.store.applied if exact is None else exact
        scan = self._scan(asked, selection, index)
        if scan is None:
            return None
        searched, entries = await self._narrow(asked, selection, scan, index)
        if not entries and asked.selection.where is not None:
            _warn_of_unknown(request, asked.selection.where, searched)
        if asked.search.order:
            entries = await self._do(asked.search.order.steps(entries), few=len(entries) <= STEP // 4)
        return Snapshot(index, scope, entries, self._lives)

    async def _states(
        self, parts: tuple[CollectionRequest, ...], order: ListOrder, exact: int | None
    ) -> Snapshot | None:
        """As `_state`, of several types at one index."""
        scope = (tuple(self._scope(part) for part in parts), order, self._materializer.generation)
        if exact is not None and (kept := self.frozen.find(exact, scope)) is not None:
            return kept
        wanted = [(part, await self._prepare(part)) for part in parts]
        store = self._materializer.store
        index = store.applied if exact is None else exact
        # The largest first: what changes before a type's turn has to be undone.
        sizes = [len(store.types.get(part.key, ())) for part in parts]
        turns = sorted(range(len(parts)), key=lambda at: -sizes[at])
        steps = self._scans([wanted[at] for at in turns], index)
        scans = at_once(steps) if sum(sizes) <= STEP else await in_slices(self._turns, steps)
        if scans is None and exact is None:
            # It changes faster than states are remembered: all at one go, then.
            index = self._materializer.store.applied
            scans = at_once(self._scans([wanted[at] for at in turns], index))
        if scans is None:
            return None
        found = dict(zip(turns, scans, strict=True))
        few = sum([len(scan.found.entries) for scan in scans]) <= _SAMPLE
        entries: list[Entry] = []
        for at, (part, selection) in enumerate(wanted):
            entries += (await self._narrow(part, selection, found[at], index, few=few))[1]
        if len(order.terms) > 1:
            entries = await self._do(order.steps(entries), few=len(entries) <= STEP // 4)
        return Snapshot(index, scope, entries, self._lives)

    def _scans(self, wanted: Sequence[tuple[CollectionRequest, Filter]], index: int) -> Iterator[list[_Scan] | None]:
        """What filters may find of several types at an index, a type at a time; None: that is not known any more."""
        scans: list[_Scan] = []
        yield scans
        for part, selection in wanted:
            scan = self._scan(part, selection, index)
            if scan is None:
                yield None
                return
            scans.append(scan)
            yield scans

    @staticmethod
    def _scope(asked: CollectionRequest) -> tuple[object, ...]:
        """What is listed of a type."""
        owner = None if asked.search.owner is None or asked.search.owner.direct else asked.search.owner
        return (asked.key, asked.selection, owner, asked.owners)

    async def _prepare(self, asked: CollectionRequest) -> Filter:
        """Makes the indexes that a list of a type needs; returns its filter, with owners, without what bodies say."""
        store, owner = self._materializer.store, asked.search.owner
        selection = dataclasses.replace(asked.selection, where=None)
        if owner is not None and not owner.direct:
            await in_slices(self._turns, prepare_owners(store, owner))
            uids = owners_of(store, owner, selection, asked.owners)
            selection = dataclasses.replace(selection, controller_uids=uids)
        if (type_store := store.types.get(asked.key)) is not None:
            lacking = type_store.prepare(selection)
            if next(lacking, _DONE) is not _DONE:
                await in_slices(self._turns, lacking)
        return selection

    def _scan(self, asked: CollectionRequest, selection: Filter, index: int) -> _Scan | None:
        """What a filter may find of a type at an index; None: that is not known any more."""
        store, owner = self._materializer.store, asked.search.owner
        if index != store.applied and index < store.floor_of(asked.key, selection.clusters):
            return None
        type_store = store.types.get(asked.key)
        if type_store is None:
            return _Scan(Scanned([], whole=True, ordered=True), present=False)
        if index >= type_store.last():
            return _Scan(type_store.scan(selection), present=True)
        if owner is not None and not owner.direct:
            # Who owned what then is not known.
            return None
        try:
            return _Scan(type_store.scan_as_of(index, selection), present=False)
        except BeforeWindow:
            return None

    async def _narrow(
        self, asked: CollectionRequest, selection: Filter, scan: _Scan, index: int, *, few: bool = True
    ) -> tuple[list[Entry], list[Entry]]:
        """What of a scan the filter selects, and what of that the condition on bodies, by cluster, namespace, name.

        `few`: whether what is few of this scan is few of all that are narrowed.
        """
        found, where = scan.found, asked.selection.where
        entries = await self._do(matching(found, selection), few=few and len(found.entries) <= STEP)
        if where is None or not entries:
            return entries, entries
        steps = chosen_by(where, entries)
        if scan.present:
            known = (asked.key, selection, where, self._materializer.generation)
            steps = self._known.chosen(known, where, entries, index)
        return entries, await self._do(steps, few=few and len(entries) <= min(_SAMPLE, where.at_once))

    def _lives(self, entry: Entry) -> bool:
        # Not the store of this moment: a list must not keep alive one that was replaced.
        now = self._materializer.store.types.get(entry.envelope.key)
        return now is not None and now.get(entry.cluster, entry.key) is entry

    async def _sum(self, size: Callable[[Sequence[Entry]], int | None], entries: list[Entry]) -> int | None:
        """A size of entries that is the sum of those of their parts; None: of some it is not known."""
        if len(entries) <= STEP:
            return size(entries)

        def steps() -> Iterator[int | None]:
            total = 0
            for begin in range(0, len(entries), STEP):
                part = size(entries[begin : begin + STEP])
                if part is None:
                    yield None
                    return
                total += part
                yield total

        return await in_slices(self._turns, steps())

    async def _do(self, steps: Iterator[list[Entry]], *, few: bool) -> list[Entry]:
        """What the steps make; of few entries it is made without waiting for the slices of others."""
        return (at_once(steps) if few else await in_slices(self._turns, steps)) or []


def _warn_of_unknown(request: Request, where: BodyCondition, searched: list[Entry]) -> None:
    """Warns of fields that nothing has, where a kube-apiserver refuses a field that it does not know."""
    if searched and (unknown := where.unknown(searched[:_SAMPLE])):
        some = "the objects" if len(searched) <= _SAMPLE else f"the first {_SAMPLE} objects"
        request.warnings.append(f"fieldSelector: none of {some} that were searched has {', '.join(unknown)}")


def slices(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Runs of entries whose bodies have about as many bytes as are sent at one go."""
    begin, size = 0, 0
    runs = (entries[at : at + _SAMPLE] for at in range(0, len(entries), _SAMPLE))
    for at, more in enumerate(more for run in runs for more in reading.sizes(run)):
        size += more
        if size >= _SLICE_BYTES:
            yield entries[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(entries):
        yield entries[begin:]
