"""LIST: the state that a list is of, its page, and the answer streamed in slices of stored bytes.

Kubernetes API Concepts, "Semantics for get and list".
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

from aiohttp import web

from materializer.entry import Entry
from materializer.materializer import Materializer
from query.http.rendering import send_list
from query.http.request import Request
from query.http.status import ApiError, expired
from query.objects.consistency import Consistency
from query.objects.pages import (
    DEFAULT_LIMITS,
    FrozenLists,
    ListPage,
    Snapshot,
    SnapshotLimits,
    first_page,
    further_page,
)
from query.objects.requests import CollectionRequest
from query.objects.versions import check_history
from query.timing import QueryTiming

# Items are joined and sent in slices of about this many bytes, so that the event loop serves others in between.
_SLICE_BYTES = 256 * 1024


class Lists:
    """Answers LISTs from the store. `frozen`: the states of those that are read in pages."""

    def __init__(
        self,
        materializer: Materializer,
        consistency: Consistency,
        timing: QueryTiming,
        limits: SnapshotLimits = DEFAULT_LIMITS,
    ) -> None:
        self._materializer = materializer
        self._consistency = consistency
        self.frozen = FrozenLists(timing, limits)
        # Held while one slice of one list is made: of all lists, so that one slice is made between two turns of the
        # loop, however many lists there are.
        self._turns = asyncio.Lock()

    def close(self) -> None:
        """Drops the states of paged lists; what is being sent goes on to its end."""
        self.frozen.close()

    async def answer(self, request: Request, asked: CollectionRequest) -> web.StreamResponse:
        """The list, or the page of it, that is asked for.

        Raises:
            ApiError: 400, a version or continue token that is none; 410, a state that is not known any more; 429, 504,
                see `Consistency`.
        """
        exact = await self._reach(request, asked)
        encoder = asked.encoder
        check_history(self._materializer, encoder.versions)
        page = self._page(request, asked, exact)
        head = encoder.list_head(encoder.versions.of_list(page.index), page.token, page.remaining)
        size = encoder.size(page.entries)
        if size:
            size += len(page.entries) - 1
        items = map(encoder.items, slices(page.entries))
        render, warnings = request.rendering(), request.warning_headers()
        return await send_list(
            request.http, render, warnings, head, items, encoder.opening, size, request.begin, self._turns
        )

    async def _reach(self, request: Request, asked: CollectionRequest) -> int | None:
        """Waits until the store is as new as is asked for; returns the index of an exact list."""
        options = asked.options
        if options.token or not options.version:
            await self._consistency.current(request)
        elif asked.member_versions is not None:
            if options.match == "Exact":
                raise ApiError(400, "a list is exact at versions of this service only, not at those of the clusters")
            await self._consistency.at_member_versions(request, asked.key, asked.member_versions)
        elif options.version != "0":
            index = await self._consistency.at_least(request, options.version)
            if options.match == "Exact" or (options.limit and not options.match):
                return index
        return None

    def _page(self, request: Request, asked: CollectionRequest, exact: int | None) -> ListPage:
        """What the answer has, of the present state or of the one at an exact index."""
        store, key, options, selection = self._materializer.store, asked.key, asked.options, asked.selection
        scope = (key, selection, asked.seniority, self._materializer.generation)
        if asked.seniority:
            assert selection.controller_uids is not None
            [owner] = selection.controller_uids
            owners = store.owned(owner, asked.seniority, selection.clusters)
            selection = dataclasses.replace(selection, controller_uids=owners)
        type_store = store.types.get(key)
        index = store.applied
        frozen: Snapshot | None = None
        if exact is not None and exact != index:
            frozen = self.frozen.find(exact, scope)
            unchanged = type_store is None or type_store.last() <= exact
            if frozen is None and not (unchanged and exact >= store.floor_of(key, selection.clusters)):
                raise expired(f"The resourceVersion for the provided list is too old: {options.version[:128]}")
            index = exact

        def lives(entry: Entry) -> bool:
            # Not the store of this moment: a list must not keep alive one that was replaced.
            now = self._materializer.store.types.get(key)
            return now is not None and now.get(entry.cluster, entry.key) is entry

        def present() -> Snapshot:
            return Snapshot(index, scope, [] if type_store is None else type_store.select(selection), lives)

        client = request.http.remote or ""
        if options.token:
            return further_page(self.frozen, present, scope, options, asked.encoder.versions, client)
        if options.version == "0":
            # "0" means any state, and its answer is whole (apiserver storage/cacher: computeListLimit).
            options = dataclasses.replace(options, limit=0)
        return first_page(self.frozen, frozen or present(), options, store.prefix, client)


def slices(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Runs of entries whose bodies have about as many bytes as are sent at one go."""
    begin, size = 0, 0
    for at, entry in enumerate(entries):
        size += len(entry.content)
        if size >= _SLICE_BYTES:
            yield entries[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(entries):
        yield entries[begin:]
