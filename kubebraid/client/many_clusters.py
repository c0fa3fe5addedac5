"""An informer for many clusters: a local copy of a type's objects by (cluster, namespace, name), kept current.

    async with Informer(["http://127.0.0.1:8001"], "/api/v1/pods", selector="app=web") as pods:
        await pods.synced()
        for (cluster, namespace, name), pod in pods.objects.items():
            ...
        async for change in pods.changes():
            print(change.type, change.key, change.object["status"]["phase"])

Informers of Kubernetes' own clients key by namespace and name: below `/clusters/<cluster>` they are right, at the root
objects of two clusters would take each other's place. This one needs nothing of kubebraid but its HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl as tls
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
import structlog

from kubebraid.errors import KubebraidError, Unavailable

__all__ = ["ADDED", "CLUSTER_ANNOTATION", "DELETED", "MODIFIED", "Change", "Informer", "Key", "Refused"]

log = structlog.get_logger("kubebraid.client.many_clusters")

CLUSTER_ANNOTATION = "shadow.clusterpedia.io/cluster-name"
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"

# Seconds: how long a watch is asked for, and after which silence (bookmarks come each minute) it is given up.
_WATCH = (300.0, 600.0)
_SILENCE = 150.0
# Seconds between attempts once all servers were tried, doubled up to the second.
_PAUSE = (0.1, 5.0)
# A watch without an event that lasts less is no watch (client-go: very short watch).
_SHORT = 1.0
_PAGE = 500
# What trying again cannot change: the request itself is wrong.
_HOPELESS = frozenset({400, 405, 406, 422})


class Key(NamedTuple):
    """Which object: `namespace` is empty for cluster-scoped ones."""

    cluster: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an object since this reader last saw it.

    `type`: ADDED, MODIFIED or DELETED. `object`: its last state, as far as that is known; `before`: the state that this
    reader saw last, None with ADDED. An object that was deleted and made again under its name is two changes.
    """

    type: str
    key: Key
    object: dict[str, Any]
    before: dict[str, Any] | None


class Refused(KubebraidError):
    """The service will never answer this request otherwise; the message is its own."""


class _Expired(KubebraidError):
    """410: the version is of the past; only a list helps."""


class _Unavailable(Unavailable):
    """This server does not answer now. `after`: seconds that it asks to wait."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class _Reader:
    """One reader's changes since it last looked: for each object the state it knows; so they are bounded."""

    def __init__(self, objects: Mapping[Key, dict[str, Any]]) -> None:
        self.pending: dict[Key, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
            key: (None, found) for key, found in objects.items()
        }
        self.woken = asyncio.Event()
        self.woken.set()

    def changed(self, key: Key, before: dict[str, Any] | None, last: dict[str, Any] | None) -> None:
        known = self.pending[key][0] if key in self.pending else before
        self.pending[key] = (known, last)
        self.woken.set()


class Informer:
    """Follows one type; `objects` is always the state of some moment of the one history that all servers serve.

    `servers`: base URLs, of several instances on one log; when one fails, the next goes on from the same version.
    `path`: as in the API, `/apis/apps/v1/deployments`, also `/api/v1/namespaces/shop/pods`. `parameters`: further query
    parameters (`clusters`, `ownerUID`, ...). An object's DELETED has its last known state.
    """

    def __init__(
        self,
        servers: Sequence[str],
        path: str,
        *,
        selector: str = "",
        fields: str = "",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        silence: float = _SILENCE,
    ) -> None:
        if not servers:
            raise ValueError("an informer needs a server")
        self._servers = [server.rstrip("/") for server in servers]
        self._at = 0
        self._path = path
        self._query = dict(parameters or {})
        if selector:
            self._query["labelSelector"] = selector
        if fields:
            self._query["fieldSelector"] = fields
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._ssl = ssl
        self._silence = silence
        self._objects: dict[Key, dict[str, Any]] = {}
        self.objects: Mapping[Key, dict[str, Any]] = MappingProxyType(self._objects)
        self.version = ""
        self._synced = asyncio.Event()
        self._readers: set[_Reader] = set()
        self._running: asyncio.Task[None] | None = None
        # Lists as the beginning of a watch, until a server shows that it has none.
        self._streams = True

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name=f"informer {self._path}")
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait((self._running,))
        if not self._running.cancelled():
            # Whoever waited was told.
            self._running.exception()

    async def synced(self) -> None:
        """Returns when `objects` is a whole state for the first time. Raises Refused."""
        await self._or_failure(self._synced.wait)

    async def changes(self) -> AsyncGenerator[Change, None]:
        """What is there as ADDED, then every change; to a slow reader an object's latest state only. Raises Refused.

        Each call is a reader of its own.
        """
        reader = _Reader(self._objects)
        self._readers.add(reader)
        try:
            while True:
                await self._or_failure(reader.woken.wait)
                reader.woken.clear()
                while reader.pending:
                    key = next(iter(reader.pending))
                    before, last = reader.pending.pop(key)
                    if last is None:
                        if before is not None:
                            yield Change(DELETED, key, before, before)
                    elif before is None:
                        yield Change(ADDED, key, last, None)
                    elif before["metadata"].get("uid") != last["metadata"].get("uid"):
                        yield Change(DELETED, key, before, before)
                        yield Change(ADDED, key, last, None)
                    else:
                        yield Change(MODIFIED, key, last, before)
        finally:
            self._readers.discard(reader)

    async def _or_failure(self, wait: Callable[[], Any]) -> None:
        assert self._running is not None, "enter the informer first: async with Informer(...)"
        waiting = asyncio.ensure_future(wait())
        try:
            await asyncio.wait((waiting, self._running), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                self._running.result()
        finally:
            waiting.cancel()

    # -- following ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=self._silence)
        pause, failures = _PAUSE[0], 0
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session:
            while True:
                version = self.version
                try:
                    if version:
                        await self._watch(session, version)
                    elif self._streams:
                        await self._stream(session)
                    else:
                        await self._list(session)
                    pause, failures = _PAUSE[0], 0
                except _Expired as cause:
                    log.info("the version has expired: listing anew", path=self._path, reason=str(cause))
                    self.version = ""
                except (_Unavailable, aiohttp.ClientError, TimeoutError, OSError) as cause:
                    if self.version != version:
                        pause, failures = _PAUSE[0], 0
                    failures += 1
                    log.debug("server does not answer", server=self._servers[self._at], reason=str(cause))
                    self._at = (self._at + 1) % len(self._servers)
                    wait = cause.after if isinstance(cause, _Unavailable) else 0.0
                    if failures >= len(self._servers):
                        wait = max(wait, pause)
                        pause = min(pause * 2, _PAUSE[1])
                    await asyncio.sleep(wait * random.uniform(0.8, 1.2))

    @contextlib.asynccontextmanager
    async def _open(self, session: aiohttp.ClientSession, **query: str) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._servers[self._at] + self._path
        async with session.get(url, params={**self._query, **query}, ssl=self._ssl or True) as answer:
            if answer.status != 200:
                self._refuse(answer, await answer.content.read(64 * 1024))
            yield answer

    def _refuse(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        try:
            message = str(msgspec.json.decode(body).get("message"))
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError):
            message = f"{answer.status} {answer.reason}"
        if answer.status == 410:
            raise _Expired(message)
        if answer.status in _HOPELESS:
            raise Refused(message)
        after = answer.headers.get("Retry-After", "")
        raise _Unavailable(message, float(after) if after.isascii() and after.isdigit() else 0.0)

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        """A list as the beginning of a watch, and that watch."""
        listed: dict[Key, dict[str, Any]] | None = {}
        query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", **self._watching()}
        try:
            async with self._open(session, **query) as answer:
                async for type_, found in _events(answer):
                    if listed is None:
                        self._take_in(type_, found)
                    elif type_ != "BOOKMARK":
                        listed[_key(found)] = found
                    elif (found["metadata"].get("annotations") or {}).get(_INITIAL_EVENTS_END) == "true":
                        self._replace(listed, found["metadata"]["resourceVersion"])
                        listed = None
        except Refused:
            if not self._streams or listed is None:
                raise
            self._streams = False
            return
        if listed is not None:
            raise _Unavailable("the list ended before it was whole")

    async def _list(self, session: aiohttp.ClientSession) -> None:
        """A list in pages."""
        listed: dict[Key, dict[str, Any]] = {}
        query = {"limit": str(_PAGE)}
        while True:
            async with self._open(session, **query) as answer:
                page = msgspec.json.decode(await answer.read())
            # Items of built-in types do not say what they are; events do.
            type_meta = {"kind": str(page["kind"]).removesuffix("List"), "apiVersion": page["apiVersion"]}
            for item in page["items"] or ():
                listed[_key(item)] = {**type_meta, **item}
            if not (token := page["metadata"].get("continue")):
                break
            query["continue"] = token
        self._replace(listed, page["metadata"]["resourceVersion"])

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> None:
        loop = asyncio.get_running_loop()
        began, events = loop.time(), 0
        async with self._open(session, resourceVersion=version, **self._watching()) as answer:
            async for type_, found in _events(answer):
                events += 1
                self._take_in(type_, found)
        if not events and loop.time() - began < _SHORT:
            raise _Unavailable("the watch ended at once")

    @staticmethod
    def _watching() -> dict[str, str]:
        return {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(random.uniform(*_WATCH))),
        }

    # -- the copy ----------------------------------------------------------------------------------------------------

    def _take_in(self, type_: str, found: dict[str, Any]) -> None:
        if type_ != "BOOKMARK":
            self._set(_key(found), None if type_ == DELETED else found)
        self.version = found["metadata"]["resourceVersion"]

    def _replace(self, listed: dict[Key, dict[str, Any]], version: str) -> None:
        for key in [key for key in self._objects if key not in listed]:
            self._set(key, None)
        for key, found in listed.items():
            self._set(key, found)
        self.version = version
        self._synced.set()

    def _set(self, key: Key, last: dict[str, Any] | None) -> None:
        before = self._objects.get(key)
        if last is None:
            # One too many may come behind a resume.
            if before is None:
                return
            del self._objects[key]
        else:
            if before is not None and before["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]:
                return
            self._objects[key] = last
        for reader in self._readers:
            reader.changed(key, before, last)


def _key(found: dict[str, Any]) -> Key:
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    return Key(annotations.get(CLUSTER_ANNOTATION, ""), metadata.get("namespace", ""), metadata["name"])


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a watch. Raises _Expired and _Unavailable for an ERROR."""
    rest = b""
    async for piece in answer.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            event = msgspec.json.decode(line)
            type_, found = event["type"], event["object"]
            if type_ == "ERROR":
                if found.get("code") == 410:
                    raise _Expired(found.get("message", ""))
                raise _Unavailable(found.get("message", ""))
            yield type_, found
