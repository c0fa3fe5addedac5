"""A Binding posted by itself, `POST .../bindings`: the pod that it names is read here at once, or a Warning says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from query.http.passthrough import Upstream
from query.identity import Identity
from tests.query.scene import Scene

BINDINGS = "/clusters/alpha/api/v1/namespaces/x/bindings"
DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Member:
    """The API server of a cluster that binds pods; `asked`: method and path of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    as_caller = False

    def has(self, cluster: str) -> bool:
        return cluster == "alpha"

    @contextlib.asynccontextmanager
    async def using(self, cluster: str, who: Identity) -> AsyncIterator[Upstream]:
        yield Upstream(self.url)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        self.asked.append((http.method, http.path))
        if http.method == "POST":
            self.bodies.append(await http.read())
            return web.json_response(DONE, status=201)
        metadata = {"name": "web-0", "namespace": "x", "uid": "u", "resourceVersion": "2"}
        return web.json_response({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": "n"}})


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    made = Member()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/")).rstrip("/")
        yield made


async def bound(scene: Scene, member: Member, body: bytes, **headers: str) -> list[str]:
    """The warnings of the answer."""
    async with scene.serving(member) as served:
        async with served.session.post(served.url + BINDINGS, data=body, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (201, DONE)
            return answer.headers.getall("Warning", [])


def binding(name: str) -> bytes:
    found: dict[str, Any] = {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": name}, "target": {"name": "n"}}
    return json.dumps(found).encode()


async def test_the_pod_is_read_from_the_cluster(member: Member) -> None:
    """The scene's log is away, so it cannot be handed over: the answer says that it is not here yet."""
    scene = Scene()
    scene.delta("web-0", uid="u", namespace="x")
    body = binding("web-0")
    found = await bound(scene, member, body, **{"Content-Type": "application/json"})
    pod = "/api/v1/namespaces/x/pods/web-0"
    assert member.asked == [("POST", "/api/v1/namespaces/x/bindings"), ("GET", pod)]
    assert member.bodies == [body]
    assert found == ['299 kubebraid "alpha has done it, but it cannot be read here yet"']


async def test_where_the_body_does_not_tell_which_pod_a_warning_says_so(member: Member) -> None:
    scene = Scene()
    protobuf = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    found = await bound(scene, member, b"k8s\0\n\x0f", **protobuf)
    assert member.asked == [("POST", "/api/v1/namespaces/x/bindings")]
    assert member.bodies == [b"k8s\0\n\x0f"]
    assert found == ['299 kubebraid "alpha has done it; whether it can be read here yet is not known"']
