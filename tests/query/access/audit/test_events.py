"""Audit events of requests over HTTP, as a kube-apiserver writes them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from query.access.audit.events import HEADER, Audit, audit_id, pass_audit_id
from query.access.audit.policy import read_policy
from query.access.authorization.attributes import attributes_of
from query.http.accepting import Site
from query.http.connections import Runner
from query.identity import Identity

POLICY = b"""
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, nonResourceURLs: [/healthz]}
- level: Metadata
"""
JANE = Identity("jane", "7", ("dev", "system:authenticated"), (("scopes", ("a", "b")),))
BOT = Identity("system:serviceaccount:ci:bot", groups=("system:authenticated",))


class Collected:
    """Lines that are kept."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        assert line.endswith(b"}\n")
        self.events.append(json.loads(line))

    def close(self) -> None:
        pass


class Scene:
    """A server that notes what it is asked, and the lines of that."""

    def __init__(self, audit: Audit, lines: Collected) -> None:
        self.audit = audit
        self.lines = lines
        self.url = ""
        self.session = aiohttp.ClientSession()
        self.passed_on: dict[str, str] = {}

    async def handle(self, http: web.Request) -> web.StreamResponse:
        segments = [part for part in http.path.split("/") if part]
        cluster = None
        if segments[:1] == ["clusters"]:
            cluster, segments = segments[1], segments[2:]
        what = attributes_of(http.method, segments, http.query)
        headers = {HEADER: audit_id(http)}
        if "refused" in http.query:
            self.audit.unauthenticated(http, what, cluster=cluster)
            return web.Response(status=401, headers=headers)
        impersonator = BOT if "Impersonate-User" in http.headers else None
        lasting = "watch" in http.query
        event = self.audit.begin(http, JANE, impersonator, what, cluster=cluster, lasting=lasting)
        event.annotate("authorization.k8s.io/decision", "allow")
        event.annotate("authorization.k8s.io/decision", "forbid")
        if "panic" in http.query:
            event.panicked("it failed")
            return web.Response(status=500, headers=headers)
        pass_audit_id(http, self.passed_on)
        event.started(200)
        if "denied" in http.query:
            event.complete(403, "no", "Forbidden")
            return web.Response(status=403, headers=headers)
        event.complete(200)
        return web.Response(headers=headers)

    async def get(self, path: str, **headers: str) -> str:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.headers[HEADER]


@contextlib.asynccontextmanager
async def served(audit: Audit, lines: Collected) -> AsyncIterator[Scene]:
    scene = Scene(audit, lines)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", scene.handle)
    runner = Runner(application, shutdown_timeout=0.1)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, None, 128).start()
    scene.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    async with scene.session:
        yield scene
    await runner.cleanup()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    lines = Collected()
    async with served(Audit(read_policy(POLICY), lines), lines) as made:
        yield made


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def test_a_request(scene: Scene) -> None:
    given = await scene.get(
        "/clusters/alpha/apis/apps/v1/namespaces/web/deployments/shop/scale?x=1", **{"User-Agent": "me"}
    )
    received, complete = scene.lines.events
    for event in (received, complete):
        assert TIME.fullmatch(event.pop("requestReceivedTimestamp"))
        assert TIME.fullmatch(event.pop("stageTimestamp"))
    assert received.pop("annotations") == {"kubebraid.io/cluster": "alpha"}
    assert complete.pop("annotations") == {"kubebraid.io/cluster": "alpha", "authorization.k8s.io/decision": "allow"}
    assert complete.pop("responseStatus") == {"metadata": {}, "code": 200}
    assert received.pop("stage") == "RequestReceived"
    assert complete.pop("stage") == "ResponseComplete"
    assert received == complete
    # As a kube-apiserver has it, in its order.
    assert list(received.items()) == list(
        {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": given,
            "requestURI": "/clusters/alpha/apis/apps/v1/namespaces/web/deployments/shop/scale?x=1",
            "verb": "get",
            "user": {
                "username": "jane",
                "uid": "7",
                "groups": ["dev", "system:authenticated"],
                "extra": {"scopes": ["a", "b"]},
            },
            "sourceIPs": ["127.0.0.1"],
            "userAgent": "me",
            "objectRef": {
                "resource": "deployments",
                "namespace": "web",
                "name": "shop",
                "apiGroup": "apps",
                "apiVersion": "v1",
                "subresource": "scale",
            },
        }.items()
    )


async def test_ids(scene: Scene) -> None:
    assert await scene.get("/version", **{HEADER: "of-mine"}) == "of-mine"
    assert {event["auditID"] for event in scene.lines.events} == {"of-mine"}
    made = {await scene.get("/version"), await scene.get("/version")}
    assert len(made) == 2
    assert await scene.get("/version", **{HEADER: "x" * 5_000}) not in ("x" * 5_000, "")
    # Also where nothing is noted.
    assert await scene.get("/healthz", **{HEADER: "of-health"}) == "of-health"
    assert "of-health" not in {event["auditID"] for event in scene.lines.events}


async def test_an_id_goes_along_with_what_is_passed_on(scene: Scene) -> None:
    """Of a request that is noted; another's headers stay as they are."""
    given = await scene.get("/version")
    assert scene.passed_on == {HEADER: given}
    scene.passed_on = {}
    pass_audit_id(make_mocked_request("GET", "/version"), scene.passed_on)
    assert scene.passed_on == {}


async def test_stages(scene: Scene) -> None:
    async def stages(path: str) -> list[tuple[str, Any]]:
        scene.lines.events.clear()
        await scene.get(path)
        return [(event["stage"], event.get("responseStatus")) for event in scene.lines.events]

    fine = {"metadata": {}, "code": 200}
    assert await stages("/api/v1/pods?watch=1") == [
        ("RequestReceived", None),
        ("ResponseStarted", fine),
        ("ResponseComplete", fine),
    ]
    denied = {"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}
    assert await stages("/api/v1/pods?denied=1") == [("RequestReceived", None), ("ResponseComplete", denied)]
    failed = {"metadata": {}, "status": "Failure", "message": "it failed", "reason": "InternalError", "code": 500}
    assert await stages("/api/v1/pods?panic=1") == [("RequestReceived", None), ("Panic", failed)]
    assert await stages("/healthz") == []


async def test_who_impersonates(scene: Scene) -> None:
    await scene.get("/api/v1/pods", **{"Impersonate-User": "jane"})
    event = scene.lines.events[0]
    assert event["user"] == {"username": BOT.name, "groups": ["system:authenticated"]}
    assert event["impersonatedUser"]["username"] == "jane"


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ("Bearer secret-token", "Authentication failed, attempted: bearer"),
        ("Basic c2VjcmV0", "Authentication failed, attempted: basic"),
        ("", "Authentication failed, no credentials provided"),
    ],
)
async def test_who_is_not_known(scene: Scene, authorization: str, said: str) -> None:
    await scene.get("/api/v1/pods?refused=1", **({"Authorization": authorization} if authorization else {}))
    [event] = scene.lines.events
    assert event["stage"] == "ResponseStarted"
    assert event["user"] == {}
    assert event["responseStatus"] == {"metadata": {}, "message": said, "code": 401}
    assert "secret" not in json.dumps(event)
    assert "c2VjcmV0" not in json.dumps(event)


@pytest.mark.parametrize(
    ("headers", "addresses"),
    [
        ({"X-Forwarded-For": "10.0.0.1, 2001:db8::1 ,nonsense"}, ["10.0.0.1", "2001:db8::1", "127.0.0.1"]),
        ({"X-Forwarded-For": "10.0.0.1", "X-Real-Ip": "10.0.0.1"}, ["10.0.0.1", "127.0.0.1"]),
        ({"X-Real-Ip": "10.0.0.2"}, ["10.0.0.2", "127.0.0.1"]),
        ({"X-Forwarded-For": "10.0.0.1, 127.0.0.1"}, ["10.0.0.1", "127.0.0.1"]),
        ({}, ["127.0.0.1"]),
    ],
)
async def test_from_where(scene: Scene, headers: dict[str, str], addresses: list[str]) -> None:
    await scene.get("/version", **headers, **{"User-Agent": "x" * 5000})
    event = scene.lines.events[0]
    assert event["sourceIPs"] == addresses
    assert event["userAgent"] == "x" * 1024 + "...TRUNCATED"


async def test_without_a_policy_nothing_is_noted() -> None:
    lines = Collected()
    async with served(Audit(), lines) as scene:
        assert await scene.get("/api/v1/pods")
        await scene.get("/api/v1/pods?refused=1")
    assert lines.events == []
