"""WATCH: where one begins, and all that are open.

Kubernetes API Concepts, "Semantics for watch"; what a resume means is in `materializer.resume`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from deltalog.wire.delta import DELETED
from materializer.cursor import ShownChange
from materializer.filter import BodyCondition
from materializer.materializer import Materializer
from materializer.resume import Expired, Resumption, from_member_versions, from_now, from_version
from query.access.gate import Permit
from query.http.request import Request
from query.http.status import ApiError, expired
from query.http.websocket import Send
from query.objects.collection_watch import CollectionStream
from query.objects.consistency import Consistency
from query.objects.requests import CollectionRequest
from query.objects.shared_events import SharedEvents
from query.objects.turns import in_slices
from query.objects.versions import check_history
from query.objects.watch import WatchedType, WatchStart, WatchStream, error_event
from query.timing import QueryTiming


class Watches:
    """Serves watches from one materializer. `open`: how many there are now; `turns`: as of `in_slices`."""

    def __init__(
        self,
        materializer: Materializer,
        consistency: Consistency,
        timing: QueryTiming,
        turns: asyncio.Lock | None = None,
    ) -> None:
        self._materializer = materializer
        self._consistency = consistency
        self._timing = timing
        self._shared = SharedEvents()
        self._turns = asyncio.Lock() if turns is None else turns
        self._closing = asyncio.Event()
        self._wakes: set[Callable[[], None]] = set()
        self.open = 0

    def close(self) -> None:
        """Ends all watches cleanly; their clients go on elsewhere from their versions."""
        self._closing.set()
        for wake in tuple(self._wakes):
            wake()

    async def begin(
        self, request: Request, asked: CollectionRequest, permit: Permit | None = None
    ) -> WatchStart | ApiError:
        """Where a watch begins, or the error 410 or 504 that it is answered with as its only event.

        As an event, as a kube-apiserver does once it has parsed the version (apiserver storage/cacher: newErrWatcher):
        some clients know an expired version by nothing else.

        Raises:
            ApiError: any other: 429, see `Consistency`.
        """
        options = asked.options
        initial = bool(options.initial_events)
        try:
            resumption = await self._resume(request, asked, initial=initial)
            check_history(self._materializer, asked.encoder.versions)
        except Expired as problem:
            return expired(str(problem))
        except ApiError as problem:
            if problem.code in (410, 504):
                return problem
            raise
        return WatchStart(
            key=asked.key,
            selection=asked.selection if resumption is None else resumption.wanted,
            encoder=asked.encoder,
            followed=asked.followed,
            resumption=resumption,
            bookmarks=options.bookmarks,
            begins_at=self._version_of(asked, resumption),
            timeout=float(options.timeout) if options.timeout else None,
            permit=permit,
            parts=None if asked.parts is None else tuple(WatchedType(one.key, one.selection) for one in asked.parts),
        )

    @staticmethod
    def _version_of(asked: CollectionRequest, resumption: Resumption | None) -> str:
        """The version that a watch without an initial state begins at, for its first bookmark.

        The client's own where it is one of ours: an object's version says less of what it holds than a list's.
        """
        if resumption is None:
            return ""
        text, versions = asked.options.version, asked.encoder.versions
        if asked.member_versions is None and text not in ("", "0"):
            given = versions.parse(text)
            if given.member_version:
                return versions.of_object(given.index, given.member_version)
        return versions.of_list(resumption.read_to)

    async def _resume(self, request: Request, asked: CollectionRequest, *, initial: bool) -> Resumption | None:
        """Waits until the store is as new as is asked for. None: the watch begins with the initial state."""
        version, wanted = asked.options.version, asked.selection
        if asked.member_versions is not None:
            if asked.parts is not None:
                raise ApiError(400, "a collection is watched from versions of this service, not from those of clusters")
            if initial:
                await self._consistency.at_member_versions(request, asked.key, asked.member_versions)
                return None
            await self._consistency.current(request)
            return await self._resume_at_members(asked, asked.member_versions)
        if version in ("", "0"):
            if not version:
                await self._consistency.current(request)
            return None if initial else from_now(self._materializer.store, wanted)
        if initial:
            # A forgotten version will do: the present state is at least as new.
            await self._consistency.at_least(request, version)
            return None
        if asked.parts is not None:
            return self._resume_types(asked, asked.parts)
        return from_version(self._materializer.store, asked.key, wanted, version, asked.encoder.versions)

    def _resume_types(self, asked: CollectionRequest, parts: Sequence[CollectionRequest]) -> Resumption:
        """A resume of a collection, where all its types can be resumed."""
        store, text, versions = self._materializer.store, asked.options.version, asked.encoder.versions
        resumption = from_version(store, asked.key, asked.selection, text, versions)
        for part in parts:
            from_version(store, part.key, part.selection, text, versions)
        for key in asked.gone:
            gone = store.types.get(key)
            if gone is not None and gone.last() > resumption.read_to:
                raise Expired(f"too old resource version: {text[:128]} ({gone.last()}): {key} were there then")
        return resumption

    async def _resume_at_members(self, asked: CollectionRequest, versions: Mapping[str, str]) -> Resumption:
        """A resume at versions of member clusters: bodies of all that changed since are read in slices."""
        store, wanted, where = self._materializer.store, asked.selection, asked.selection.where
        if where is None:
            return from_member_versions(store, asked.key, wanted, versions)
        found = from_member_versions(store, asked.key, dataclasses.replace(wanted, where=None), versions)
        backlog = await in_slices(self._turns, _meeting(where, found.backlog, versions))
        whole = dataclasses.replace(found.wanted, where=where)
        return dataclasses.replace(found, wanted=whole, backlog=tuple(backlog or ()))

    async def serve(self, start: WatchStart | ApiError, send: Send) -> None:
        """Sends events until the time is over, the service closes or the watch expires; or that it cannot begin.

        `send` waits while the client cannot take more, which is all the back-pressure there is.

        Raises:
            ClientStalled: the client takes nothing though the time is over.
            ConnectionError: the client is gone.
        """
        if isinstance(start, ApiError):
            await send(error_event(start))
            return
        stream = WatchStream if start.parts is None else CollectionStream
        watch = stream(self._materializer, self._shared, self._closing, start, send, self._timing, self._turns)
        self.open += 1
        self._wakes.add(watch.wake)
        try:
            await watch.run()
        finally:
            self._wakes.discard(watch.wake)
            self.open -= 1
            if not self.open:
                self._shared.clear()


# So many changes are looked at between two looks at the time.
_STEP = 64


def _meeting(
    where: BodyCondition, backlog: Sequence[ShownChange], versions: Mapping[str, str]
) -> Iterator[list[ShownChange]]:
    """The changes, by a condition on bodies, in steps: what does not meet it is deleted to who may hold it."""
    found: list[ShownChange] = []
    step = min(_STEP, where.at_once)
    for begin in range(0, len(backlog), step):
        some = backlog[begin : begin + step]
        met = set(map(id, where.chosen([change.entry for change in some if change.type != DELETED])))
        for change in some:
            if change.type == DELETED or id(change.entry) in met:
                found.append(change)
            elif versions.get(change.entry.cluster):
                found.append(ShownChange(DELETED, change.entry, change.at))
        yield found
