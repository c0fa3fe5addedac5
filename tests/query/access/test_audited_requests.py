"""What is noted of requests that try to be somebody, and of those whose headers are no text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestServer

from query.access.audit.events import Audit
from query.access.audit.policy import read_policy
from query.access.authentication.authenticator import Authentication, RequestCredentials
from query.access.authorization.chain import Chain
from query.access.callers import Callers
from query.access.gate import Gate
from query.entrance import Entrance
from query.identity import Identity
from query.service import QueryService
from tests.query.access.guarded import DISCOVERY, World, rule
from tests.query.scene import QUICK

POLICY = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}"


class Jane:
    """Takes everyone for jane."""

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        return Identity("jane")


class Lines:
    """Events that are kept."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        self.events.append(json.loads(line))

    def close(self) -> None:
        pass


class Served:
    """A service that notes what it is asked, by bytes."""

    def __init__(self, url: str, lines: Lines) -> None:
        self._url, self._lines = url, lines

    async def ask(self, *headers: bytes) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
        """Code and body of the answer to a GET of a pod, and the events of it."""
        self._lines.events.clear()
        place = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        lines = (b"GET /api/v1/namespaces/web/pods/same HTTP/1.1", b"Host: h", b"Connection: close", *headers)
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), json.loads(body), list(self._lines.events)


@pytest.fixture(name="served")
async def served_fixture() -> AsyncIterator[Served]:
    world, lines = World("alpha", "bravo"), Lines()
    for cluster in ("alpha", "bravo"):
        world.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        world.cluster_role(cluster, "pods", rule("pods"), to="user:jane")
        world.pod(cluster, "web", "same")
    chain = Chain((world.members(),))

    def clusters() -> Any:
        return world.store.clusters.keys()

    gate = Gate(clusters, Callers(Authentication([Jane()]), chain, clusters), chain)
    entrance = Entrance(gate=gate, audit=Audit(read_policy(POLICY), lines))
    service = QueryService(world.materializer, "test", timing=QUICK, entrance=entrance)
    async with TestServer(service.application()) as server:
        yield Served(str(server.make_url("/")), lines)
        service.close()


async def test_headers_that_are_no_text_are_noted_and_answered(served: Served) -> None:
    code, body, events = await served.ask(b"User-Agent: curl/\xff\xe9", b"X-Forwarded-Host: h\xff")
    assert (code, "http://h\ufffd/clusters/alpha" in body["message"]) == (400, True)
    assert [(event["stage"], event["userAgent"]) for event in events] == [
        ("RequestReceived", "curl/\ufffd\ufffd"),
        ("ResponseComplete", "curl/\ufffd\ufffd"),
    ]


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (403, (b"Impersonate-User: joe",)),
        (400, (b"Impersonate-Group: dev",)),
        (400, (b"Impersonate-User: j\xff",)),
        (400, (b"Impersonate-User: joe", b"Impersonate-Extra-%ff: x")),
    ],
)
async def test_who_tries_to_be_another_is_noted(served: Served, code: int, headers: tuple[bytes, ...]) -> None:
    answered, _, events = await served.ask(*headers)
    assert answered == code
    assert [event["user"]["username"] for event in events] == ["jane", "jane"]
    assert events[-1]["responseStatus"]["code"] == code
