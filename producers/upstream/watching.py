"""LIST and WATCH of one API server as values: pages of objects, and events until a watch ends.

Contract: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes, KEP-3157 for
lists that come as the beginning of a watch; client-go tools/cache/reflector.go for when a watch is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, NamedTuple, Self

import msgspec

from deltalog.wire.delta import UNDECODABLE
from producers.errors import ClusterUnavailable
from producers.upstream.apiserver import (
    LARGEST_ANSWER,
    ApiServer,
    BadAnswer,
    GetRequest,
    RequestRefused,
    TooLarge,
    Unreachable,
    Way,
)
from producers.upstream.deadlines import CLOCK, Deadline
from producers.upstream.exchange import Response, SilentServer
from producers.upstream.objects import RawObject, Unusable, readable_identity, without_line_feeds
from producers.upstream.odd_json import (
    OddObject,
    begun_object,
    begun_rest,
    begun_value,
    elements,
    has_several,
    members,
    mended,
    naming,
    odd_object,
)

# Objects in one page of a list.
PAGE = 500
# By what that is divided where a page is too large to be held.
_FEWER = 10
# How many times the largest answer a line of a watch may have, of which the beginning is held and the rest passed over.
_PASSED_OVER = 8
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_NO_QUERY: dict[str, str] = {}


class Target(NamedTuple):
    """What is listed and watched: a path, and a label selector (empty: all of it)."""

    path: str
    selector: str = ""

    def query(self) -> dict[str, str]:
        """Parameters of a LIST or WATCH."""
        return {"labelSelector": self.selector} if self.selector else {}


class NotStreamed(ClusterUnavailable):
    """The server does not send initial events as asked; its lists are taken by pages."""


class ListMeta(msgspec.Struct, rename="camel"):
    """A page's metadata: the list's version, the token of the next page (empty: the last), how many are left."""

    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class Page(msgspec.Struct):
    """One page of a list; all pages of one list have the same version."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[RawObject] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK; the members of `object` are still raw."""

    type: str
    object: RawObject


class _EventStatus(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class EventVersion(msgspec.Struct, rename="camel"):
    """The part of an event's metadata that following needs."""

    resource_version: str = ""
    annotations: dict[str, str] | None = None

    @property
    def ends_initial_events(self) -> bool:
        """Whether a bookmark says that the initial events are complete (KEP-3157)."""
        return (self.annotations or {}).get(_INITIAL_EVENTS_END) == "true"


class _ErrorEvent(msgspec.Struct):
    object: _EventStatus


_page = msgspec.json.Decoder(Page)
_list_meta = msgspec.json.Decoder(ListMeta)
_event = msgspec.json.Decoder(WatchEvent)
_error_event = msgspec.json.Decoder(_ErrorEvent)
_version = msgspec.json.Decoder(EventVersion)
_NO_METADATA = msgspec.Raw(b"{}")


# -- one request ---------------------------------------------------------------------------------------------------


async def list_pages(server: ApiServer, target: Target) -> AsyncGenerator[Page, None]:
    """The pages of one consistent list, unparsed objects in each.

    The next page is asked for before one is yielded, so that it comes while this one is written; no more than that.
    Where a page is too large to be held, pages have fewer objects from there on; an object that is too large by itself
    is an `OddObject`. Raises:
        RequestRefused: with code 410 if the list has to be begun again.
        Unreachable, BadAnswer: if it breaks off.
        TooLarge: if the server does not keep to `limit`, and its list is too large to be held.
    """
    limit = PAGE

    async def page_at(token: str) -> Page:
        nonlocal limit
        while True:
            query = {"limit": str(limit), **target.query(), **({"continue": token} if token else {})}
            try:
                body, _ = await server.get(target.path, query)
            except TooLarge as problem:
                if limit > 1:
                    limit = max(limit // _FEWER, 1)
                    continue
                limit = max(PAGE // _FEWER, 1)
                return await asyncio.to_thread(_begun_page, problem)
            try:
                return _page_of(body)
            except UNDECODABLE:
                # It takes a while, in which others go on.
                return await asyncio.to_thread(_odd_page_of, body)

    coming = asyncio.create_task(page_at(""))
    try:
        while True:
            page = await coming
            if page.metadata.next_page:
                coming = asyncio.create_task(page_at(page.metadata.next_page))
            yield page
            if not page.metadata.next_page:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def _page_of(body: bytes) -> Page:
    """Raises what is in UNDECODABLE."""
    if not body.isascii():
        # Decoding what is looked at only would not find it.
        body.decode()
    # A line feed at the end, as kube-apiserver has it, is part of no object.
    text = without_line_feeds(body) if body.find(b"\n", 0, len(body) - 1) >= 0 else body
    return _page.decode(text)


def _odd_page_of(body: bytes) -> Page:
    """A page with items that are no objects, or odd ones. Raises BadAnswer."""
    try:
        found = members(body)
        metadata = _list_meta.decode(mended(found.get("metadata", b"{}")))
        items = found.get("items", b"null")
        return Page(metadata, [] if items == b"null" else [_item(item) for item in elements(items)])
    except (ValueError, *UNDECODABLE) as cause:
        raise BadAnswer(f"no list: {cause}") from cause


def _begun_page(problem: TooLarge) -> Page:
    """A page with one object that is too large, named as far as it begins so.

    Raises `problem` if it is no page, and TooLarge if it has several objects: what is behind the first is not known.
    """
    try:
        metadata = begun_value(problem.beginning, "metadata")
        items = begun_rest(problem.beginning, "items")
        if metadata is None or items is None or not items.startswith(b"["):
            raise problem
        page = Page(_list_meta.decode(mended(metadata)), [])
    except (ValueError, KeyError, *UNDECODABLE):
        raise problem from None
    # Of what was asked for by one object a page has no more, but on a server that does not know `limit`: it has no next
    # page either. Only then the whole beginning is gone through.
    if not page.metadata.next_page and has_several(items):
        raise TooLarge(
            f"{problem} although it was asked for one object (limit=1): the server has no pages; "
            "exclude the type from what is synced"
        )
    try:
        page.items = [begun_object(items[1:].lstrip(), _too_large())]
    except (ValueError, KeyError, *UNDECODABLE):
        unnamed = OddObject()
        unnamed.problem = _too_large()
        page.items = [unnamed]
    return page


def _too_large() -> str:
    return f"it has more than {LARGEST_ANSWER / 1024 / 1024:g} MiB"


def _item(item: bytes) -> RawObject:
    try:
        return odd_object(item)
    except (ValueError, KeyError, *UNDECODABLE):
        # The writer leaves out, and logs, what has no metadata.
        return {}


class BegunLine(bytes):
    """The beginning of a line that is too large to be held."""


class LineCutter:
    """Cuts what comes in pieces into lines of any length; of one that is too large there is a `BegunLine`."""

    __slots__ = ("_begun", "_length")

    def __init__(self) -> None:
        self._begun: list[bytes] | None = None
        self._length = 0

    @property
    def begun(self) -> bool:
        """Whether a line has begun, and has not ended."""
        return self._begun is not None

    def of(self, chunk: bytes) -> list[bytes]:
        """The lines that end in the next piece, and nothing that is blank. Raises TooLarge for one that has no end.

        Nothing of what they came in is held here but the beginning of the line after them: the next one may take
        minutes in a watch that is idle.
        """
        if b"\n" not in chunk:
            before, self._length = self._length, self._length + len(chunk)
            if before <= LARGEST_ANSWER:
                self._begun = self._begun or []
                self._begun.append(chunk)
            elif self._length > _PASSED_OVER * LARGEST_ANSWER:
                raise TooLarge(f"a line of more than {_PASSED_OVER * LARGEST_ANSWER} bytes")
            return []
        pieces = chunk.split(b"\n")
        if self._begun is not None:
            large = self._length > LARGEST_ANSWER
            pieces[0] = BegunLine(b"".join(self._begun)) if large else b"".join((*self._begun, pieces[0]))
        last = pieces.pop()
        self._begun, self._length = ([last], len(last)) if last else (None, 0)
        return [piece for piece in pieces if piece and not piece.isspace()]


class Watch(Deadline):
    """One watch, from its request until the server or `end` ends it. Entering it asks, leaving it ends the request.

    `version` None asks for the present state first, as ADDED events that end with a bookmark (KEP-3157). It is read
    once: by `events`, or without a frame for it, by `arrived`, `more` and `event` in turn. `ending`: whether `end` was
    called. A connection that is silent for longer than this server has shown to be is given up as half-open.

    Entering raises:
        RequestRefused: with code 410 if the version is too old.
        Unreachable: if there is no answer. So does leaving, where reading failed as the answer broke off.
    """

    __slots__ = (
        "_asking", "_failed", "_initial", "_lasts", "_lines", "_path", "_query", "_response", "_server", "_silence",
        "_until", "_way", "_whole_by", "changing", "ending",
    )  # fmt: skip

    def __init__(self, server: ApiServer, target: Target, version: str | None) -> None:
        super().__init__()
        timing = server.timing
        self.ending = False
        self._server = server
        self._path = target.path
        # Whether it is in its initial events.
        self._initial = version is None
        self._lasts = random.randint(*timing.watch)
        self._query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(self._lasts)}
        self._query |= target.query()
        if version is None:
            self._query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            self._query["resourceVersion"] = version
        self._silence = timing.initial_silence if self._initial else self._lasts + timing.watch_grace
        # When it is ended, by the event loop's clock.
        self._until = math.inf
        # Whether a change has come before the end of the initial events: that is to come soon then.
        self.changing = False
        # When the line that has begun, or the initial events, are to have their end, by the event loop's clock.
        self._whole_by = math.inf
        # What did not come in time; empty: all did.
        self._failed = ""
        self._lines = LineCutter()
        self._asking: GetRequest | None = None
        self._response: Response | None = None
        self._way: Way | None = None

    async def __aenter__(self) -> Self:
        asking = self._server.open(self._path, self._query, silence=self._silence)
        # Nothing that is needed to begin is held while it lasts: there is a watch for each type of each cluster.
        self._query = _NO_QUERY
        try:
            self._response, self._way = await asking.__aenter__()
        except Unreachable as cause:
            if self._initial and isinstance(cause.__cause__, SilentServer):
                raise NotStreamed(str(cause)) from None
            raise
        self._asking = asking
        self._response.lasts()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._server.deadlines.forget(self)
        asking, self._asking, self._response, self._way = self._asking, None, None, None
        # Half a line may be large.
        self._lines = LineCutter()
        if asking is not None:
            await asking.__aexit__(kind, error, trace)

    def end(self) -> None:
        """Ends it between two events; nothing more is read."""
        self.ending = True
        if self._response is not None:
            self._response.wake()

    def end_at(self, when: float) -> None:
        """Ends it at a time, by the event loop's clock; infinite: never."""
        self._until = when

    def passed(self) -> None:
        """The time that it may last, or be silent, is over."""
        now = asyncio.get_running_loop().time() + CLOCK
        if self._until <= now:
            self.end()
            return
        if self._whole_by > now:
            self._failed = f"nothing said for {self._silence:.0f} s"
        else:
            self._failed = "a line without end" if not self.changing else "changes come"
        if self._response is not None:
            self._response.wake()

    def arrived(self) -> Sequence[bytes] | None:
        """The lines that have come by now; None at its end. They are taken in before it is asked again.

        Raises:
            Unreachable, BadAnswer: if it breaks off. The former also by what leaving it makes of a TransportError.
            TooLarge: if a line is so large that its end is not waited for.
            NotStreamed: if initial events were asked for and their end does not come.
        """
        assert self._response is not None
        # Its time is over also where there is always something to take.
        if self.ending or (self._until != math.inf and self._until <= asyncio.get_running_loop().time()):
            return None
        if self._failed:
            if self._initial:
                raise NotStreamed(f"{self._failed}, and no end of the initial events")
            raise Unreachable(f"{self._server.host}: watch of {self._path}: {self._failed}")
        chunk = self._response.take()
        if chunk is None:
            return ()
        if not chunk:
            return None
        lines = self._lines.of(chunk)
        # Only the server's silence counts, not the time that its events take here.
        self.deadline = math.inf
        if lines and not self.changing:
            self._whole_by = math.inf
        return lines

    def more(self) -> Awaitable[None]:
        """To be awaited where nothing has arrived: done when something may have."""
        assert self._response is not None
        waiting = self._response.coming()
        if self.deadline == math.inf:
            now = asyncio.get_running_loop().time()
            if self._whole_by == math.inf:
                if self.changing:
                    self._whole_by = now + self._silence
                elif self._lines.begun:
                    # Also a server that sends its watches' ends would have sent that by then.
                    self._whole_by = now + self._lasts + self._server.timing.watch_grace
            self.deadline = min(now + self._silence, self._until, self._whole_by)
            self._server.deadlines.note(self)
        return waiting

    def event(self, line: bytes) -> WatchEvent:
        """The event of a line that is no `BegunLine`. Raises BadAnswer, and RequestRefused for an ERROR event."""
        assert self._way is not None
        event = _watch_event(line, self._way)
        if event.type == "BOOKMARK":
            # This server sends them, about one a minute: two missing ones are a broken connection.
            self._silence, self._initial = self._server.timing.bookmark_silence, False
            self.changing, self._whole_by = False, math.inf
        elif self._initial and event.type != "ADDED":
            self.changing = True
        return event

    async def begun_event(self, line: BegunLine) -> WatchEvent:
        """The event of a line that is too large. Raises TooLarge if it does not begin as one that names its object."""
        return await asyncio.to_thread(_begun_event, line)

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """The events until its end. Raises as entering it, `arrived`, `event` and `begun_event` do."""
        async with self:
            while (lines := self.arrived()) is not None:
                for line in lines:
                    yield await self.begun_event(line) if type(line) is BegunLine else self.event(line)
                    # Nothing of what came is held until the next comes.
                    del line
                    if self.ending:
                        return
                if not lines:
                    await self.more()


def _watch_event(line: bytes, way: Way) -> WatchEvent:
    """Raises BadAnswer, and RequestRefused for an ERROR event."""
    try:
        if not line.isascii():
            line.decode()
        event = _event.decode(line)
    except UNDECODABLE as cause:
        event = _odd_event(line, cause)
    if event.type == "ERROR":
        try:
            status = _error_event.decode(line).object
        except UNDECODABLE as cause:
            raise BadAnswer(f"no watch event: {cause}") from cause
        raise way.refusal(status.code, status.reason, status.message)
    return event


def _odd_event(line: bytes, cause: Exception) -> WatchEvent:
    """An event whose object is odd. Raises BadAnswer, because of `cause`, for what is no event of an object."""
    try:
        found = members(line)
        event = WatchEvent(msgspec.json.decode(found["type"], type=str), odd_object(found["object"]))
        readable_identity(event.object)
    except (ValueError, KeyError, Unusable, *UNDECODABLE):
        raise BadAnswer(f"no watch event: {cause}") from cause
    return event


def _begun_event(line: BegunLine) -> WatchEvent:
    """An event whose object is too large. Raises TooLarge if it does not begin as one that names it."""
    try:
        kind, found = begun_value(line, "type"), begun_rest(line, "object")
        if kind is None or found is None:
            raise KeyError("type")
        event = WatchEvent(msgspec.json.decode(kind, type=str), begun_object(found, _too_large()))
        readable_identity(event.object)
    except (ValueError, KeyError, Unusable, *UNDECODABLE):
        raise TooLarge(
            f"a line of more than {LARGEST_ANSWER} bytes, of no object that is named at its beginning"
        ) from None
    return event


def version_of(event: WatchEvent) -> EventVersion:
    """The version of an event's object, and a bookmark's annotations. Raises BadAnswer.

    Empty for an object whose version is no string: it is left out alone.
    """
    try:
        return _version.decode(event.object.get("metadata", _NO_METADATA))
    except UNDECODABLE as cause:
        if event.type != "BOOKMARK":
            with contextlib.suppress(Unusable):
                return EventVersion(readable_identity(event.object).resource_version or "")
        raise BadAnswer(f"no watch event: {cause}") from cause


# -- list, then watch ----------------------------------------------------------------------------------------------


class WholeObject(dict[str, Any]):
    """An object that was read as a whole. `problem`: what of it could not be read; it has then what names it."""

    problem: str = ""


async def current_objects(server: ApiServer, target: Target) -> AsyncGenerator[dict[str, WholeObject], None]:
    """All objects of a target by name: after its list, and again after each change of one of them. Never ends.

    For few objects that are needed whole, within one namespace or without namespaces. What is odd in one of them is
    mended or left out of it, and concerns no other. A version that has expired leads to a new list. Raises:
        ClusterUnavailable: when the list or a watch fails; the caller begins again.
    """
    while True:
        objects: dict[str, WholeObject] = {}
        version = ""
        async with contextlib.aclosing(list_pages(server, target)) as pages:
            async for page in pages:
                version = page.metadata.resource_version
                for raw in page.items or ():
                    item = _decoded(raw)
                    if name := _name_of(item):
                        objects[name] = item
        yield objects
        try:
            while True:
                started = time.monotonic()
                async with contextlib.aclosing(Watch(server, target, version).events()) as events:
                    async for event in events:
                        item = _decoded(event.object)
                        metadata = item.get("metadata") or {}
                        version = metadata.get("resourceVersion") or version
                        name = _name_of(item)
                        if event.type == "BOOKMARK" or not name:
                            continue
                        if event.type == "DELETED":
                            objects.pop(name, None)
                        else:
                            objects[name] = item
                        yield objects
                if time.monotonic() - started < 1.0:
                    # A server that ends watches at once must not be asked in a loop.
                    await asyncio.sleep(random.uniform(0.5, 1.0))
        except RequestRefused as refused:
            if not refused.expired:
                raise


def _name_of(item: WholeObject) -> str:
    metadata = item.get("metadata")
    return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""


def _decoded(raw: RawObject) -> WholeObject:
    """The whole object, mended where it is odd, without what cannot be read."""
    item = WholeObject()
    item.problem = raw.problem if isinstance(raw, OddObject) else ""
    for key, value in raw.items():
        try:
            item[key] = msgspec.json.decode(value)
        except UNDECODABLE:
            text = mended(bytes(value))
            try:
                item[key] = msgspec.json.decode(text)
            except UNDECODABLE as cause:
                item.problem = f"{key}: {'nested too deeply' if isinstance(cause, RecursionError) else cause}"
                if key == "metadata":
                    with contextlib.suppress(ValueError, *UNDECODABLE):
                        item[key] = naming(text)
    return item
