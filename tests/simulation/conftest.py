"""What the tests of the simulation share: clusters on free ports, and a plain HTTP client for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from simulation import SimulatedCluster
from tests.patience import PATIENCE


class Stream:
    """The events of one watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any] | None:
        """The next event; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            line = await self.response.content.readline()
        return json.loads(line) if line else None

    async def take(self, count: int) -> list[dict[str, Any]]:
        """As many events, which must come."""
        events = [await self.next() for _ in range(count)]
        assert None not in events
        return [event for event in events if event is not None]

    async def rest(self) -> list[dict[str, Any]]:
        """The events up to the end of the stream."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


class Client:
    """Speaks HTTP to one cluster."""

    def __init__(self, cluster: SimulatedCluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        headers = options.pop("headers", {})
        if body is not None:
            options["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        async with self.session.request(method, self.cluster.url + path, headers=headers, **options) as response:
            data = await response.read()
            kind = response.headers.get("Content-Type", "")
            return response.status, json.loads(data) if data and kind.startswith("application/json") else data

    async def get(self, path: str, **params: str) -> Any:
        """The JSON of a GET that must succeed."""
        status, body = await self.request("GET", path, params=params)
        assert status == 200, body
        return body

    async def create(self, path: str, body: Any) -> Any:
        """The object that a POST must create."""
        status, made = await self.request("POST", path, body)
        assert status == 201, made
        return made

    async def delete(self, path: str, body: Any = None) -> Any:
        """The answer of a DELETE that must succeed."""
        status, answer = await self.request("DELETE", path, body)
        assert status == 200, answer
        return answer

    async def patch(self, path: str, patch: Any, kind: str = "application/merge-patch+json") -> Any:
        """The object that a PATCH must change."""
        status, changed = await self.request("PATCH", path, patch, headers={"Content-Type": kind})
        assert status == 200, changed
        return changed

    @asynccontextmanager
    async def watch(self, path: str, **params: str) -> AsyncIterator[Stream]:
        """A watch that must start."""
        async with self.session.get(
            self.cluster.url + path, params={"watch": "1", **params}, timeout=aiohttp.ClientTimeout(None)
        ) as response:
            assert response.status == 200, await response.read()
            assert response.headers["Content-Type"] == "application/json"
            yield Stream(response)


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start clusters; they stop with the test. Takes what SimulatedCluster takes, the name aside."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def started(name: str = "alpha", **options: Any) -> Client:
            cluster = await stack.enter_async_context(SimulatedCluster(name, **options))
            return Client(cluster, session)

        yield started


@pytest.fixture
async def client(start: Start) -> Client:
    """A small cluster without churn."""
    return await start(pods=40)


MakeConfigMap = Callable[..., dict[str, Any]]


@pytest.fixture
def config_map() -> MakeConfigMap:
    """Makes the body of a ConfigMap."""

    def made(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
        metadata = {"name": name, **({"labels": labels} if labels else {})}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    return made
