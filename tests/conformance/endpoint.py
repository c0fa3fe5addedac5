"""An API server as a scenario sees it: objects written and read, watches read up to a mark."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import kubernetes_asyncio

from tests.conformance.ages import AGES
from tests.patience import PATIENCE

__all__ = ["Access", "Endpoint", "Event", "Refused", "Watch", "access_of_context", "opened"]

MERGE = "application/merge-patch+json"

Object = dict[str, Any]


@dataclass(frozen=True)
class Access:
    """How a server is spoken to: its URL, and what its requests need."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None = None


async def access_of_context(kubeconfig: str, context: str) -> Access:
    """The server of a context of a kubeconfig."""
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(kubeconfig, context, configuration)
    tls = None
    host = configuration.host or ""
    if host.startswith("https:"):
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    token = await configuration.get_api_key_with_prefix("BearerToken")
    return Access(host, {"Authorization": token} if token else {}, tls)


@contextlib.asynccontextmanager
async def opened(access: Access) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with a server; lines of its watches may be long."""
    connector = aiohttp.TCPConnector(ssl=access.tls or True, limit=0)
    async with aiohttp.ClientSession(
        headers=access.headers, connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE), read_bufsize=2**22
    ) as session:
        yield session


class Refused(Exception):
    """A request was answered with a Status: `status` is it (a text is its message), `code` that of HTTP."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code}: {status}")
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Event:
    """A line of a watch: its bytes, and what it says."""

    line: bytes
    type: str
    object: Object

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])


class Watch:
    """A watch that goes on; nothing of it is lost between two calls."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, patience: float | None = PATIENCE) -> Event | None:
        """The next event; None at the end. `patience`: how many seconds it is waited for, None: for ever."""
        async with asyncio.timeout(patience):
            line = await self.response.content.readline()
        if not line:
            return None
        assert line.endswith(b"\n"), line
        event = json.loads(line)
        return Event(line, event["type"], event["object"])

    async def take(self, count: int) -> list[Event]:
        """As many events, which must come; bookmarks are passed over."""
        events: list[Event] = []
        while len(events) < count:
            event = await self.next()
            assert event is not None, f"the watch has ended after {told(events)}"
            if event.type != "BOOKMARK":
                events.append(event)
        return events

    async def until(self, mark: str) -> list[Event]:
        """The events before the object `mark` comes, which is written last: no others may come later."""
        events: list[Event] = []
        while True:
            [event] = await self.take(1)
            if event.type == "ADDED" and event.name == mark:
                return events
            events.append(event)

    async def rest(self) -> list[Event]:
        """What comes until the server ends the watch, bookmarks too."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


def told(events: list[Event]) -> list[tuple[str, Object]]:
    """Types and objects, to compare."""
    return [(event.type, event.object) for event in events]


class Endpoint:
    """A server: read at one URL, written at the same or another.

    `name` is member (the cluster itself), cluster (through kubebraid, below `/clusters/<cluster>`) or root (read at
    the root of all clusters, written below the cluster's path). `minor`: the member is a Kubernetes 1.`minor`.
    """

    def __init__(
        self, name: str, session: aiohttp.ClientSession, reads: str, writes: str, *, simulated: bool, minor: int
    ) -> None:
        self.name = name
        self.session = session
        self.reads = reads
        self.writes = writes
        self.simulated = simulated
        self.minor = minor
        self._marks = itertools.count()

    def does(self, age: str) -> bool:
        """Whether this answers as a row of `AGES` says: kubebraid, and a member that is new enough."""
        since = AGES[age]
        return self.minor >= since.minor or (self.name != "member" and not since.through)

    # -- requests --------------------------------------------------------------------------------------------------

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **query: str
    ) -> Object:
        """The JSON of an answer. Raises Refused."""
        base = self.reads if method == "GET" else self.writes
        headers = {"Content-Type": "application/json", **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        async with self.session.request(method, base + path, params=query, data=data, headers=headers) as answer:
            data = await answer.read()
            if answer.status >= 400:
                # Where nothing is served at a path, there is no Status but a line of text.
                raise Refused(answer.status, json.loads(data) if data.startswith(b"{") else {"message": data.decode()})
            found: Object = json.loads(data)
            return found

    async def get(self, path: str, **query: str) -> Object:
        return await self.ask("GET", path, None, None, **query)

    async def get_as(self, accept: str, path: str, **query: str) -> Object:
        """A GET in another representation."""
        return await self.ask("GET", path, None, {"Accept": accept}, **query)

    async def bytes(self, path: str, **query: str) -> bytes:
        """The body of a GET that must succeed."""
        async with self.session.get(self.reads + path, params=query) as answer:
            data = await answer.read()
            assert answer.status == 200, data
            return data

    async def create(self, path: str, body: Object) -> Object:
        return await self.ask("POST", path, body)

    async def patch(self, path: str, patch: Any, content_type: str = MERGE) -> Object:
        return await self.ask("PATCH", path, patch, {"Content-Type": content_type})

    async def update(self, path: str, **changes: Any) -> Object:
        """Read, changed, written, as `updateConfigMap` of Kubernetes' tests; again after a conflict."""
        while True:
            # Read where it is written: at the root a name may be that of several clusters.
            async with self.session.get(self.writes + path) as answer:
                found = json.loads(await answer.read())
                assert answer.status == 200, found
            for key, value in changes.items():
                if isinstance(value, dict):
                    found[key] = {**found.get(key, {}), **value}
                else:
                    found[key] = value
            with contextlib.suppress(Conflict):
                return await self._put(path, found)

    async def _put(self, path: str, body: Object) -> Object:
        try:
            return await self.ask("PUT", path, body)
        except Refused as refused:
            if refused.code == 409:
                raise Conflict(refused.code, refused.status) from refused
            raise

    async def delete(self, path: str, **options: Any) -> Object:
        return await self.ask("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    @contextlib.asynccontextmanager
    async def watch(self, path: str, accept: str = "application/json", **query: str) -> AsyncIterator[Watch]:
        """A watch that must begin. Raises Refused."""
        params = {"watch": "1", **query}
        async with self.session.get(
            self.reads + path, params=params, headers={"Accept": accept}, timeout=aiohttp.ClientTimeout(None)
        ) as answer:
            if answer.status != 200:
                raise Refused(answer.status, json.loads(await answer.read()))
            yield Watch(answer)

    # -- what scenarios need ---------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def namespace(self) -> AsyncIterator[str]:
        """A namespace of its own, which is visible; removed at the end."""
        name = f"kubebraid-conformance-{secrets.token_hex(4)}"
        await self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            if not self.simulated:
                await self._furnished(name)
            yield name
        finally:
            with contextlib.suppress(Refused):
                await self.delete(f"/api/v1/namespaces/{name}")

    async def _furnished(self, namespace: str) -> None:
        """Returns when the controllers of a real cluster have put into a namespace what pods need."""
        paths = [
            f"/api/v1/namespaces/{namespace}/{one}"
            for one in ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
        ]
        for path in paths:
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with self.session.get(self.writes + path) as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.1)

    async def mark(self, maps: str, labels: Mapping[str, str] | None = None) -> str:
        """The name of a ConfigMap that is made now, after all that was written before."""
        name = f"zz-mark-{next(self._marks)}"
        await self.create(maps, {"metadata": {"name": name, "labels": dict(labels or {})}})
        return name


class Conflict(Refused):
    """Somebody else has changed the object meanwhile."""
