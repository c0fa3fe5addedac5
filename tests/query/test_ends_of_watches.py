"""Watches that end with what they follow, without an error; and passed-on ones, with what was not synced."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deltalog.wire.subjects import REMOVED, TYPE
from query.http.passthrough import Upstream
from query.http.watch_frames import SocketFrames, frames_of
from query.identity import Identity
from tests.patience import PATIENCE
from tests.query.scene import Answers, Scene

PODS, SHIPS = "/api/v1/pods", "/apis/sea.example.io/v1/ships"
OF_SHIPS = {"group": "sea.example.io", "resource": "ships", "kind": "Ship"}


class Watch:
    """An open watch."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def event(self) -> tuple[str, str]:
        """The next event: its type, and the name or version of what it is of."""
        async with asyncio.timeout(PATIENCE):
            found = json.loads(await self.answer.content.readline())
        metadata = found["object"]["metadata"]
        return found["type"], metadata.get("name") or metadata["resourceVersion"]

    async def end(self) -> list[str]:
        """The types of the events up to a proper end, which comes by itself."""
        async with asyncio.timeout(PATIENCE):
            body = await self.answer.read()
        assert body.endswith(b"\n") or not body
        return [json.loads(line)["type"] for line in body.splitlines()]


@contextlib.asynccontextmanager
async def watching(served: Answers, path: str, **query: str) -> AsyncIterator[Watch]:
    query = {"watch": "1", "timeoutSeconds": "600", **query}
    async with served.session.get(served.url + path, params=query) as answer:
        assert answer.status == 200
        yield Watch(answer)


def of_version(scene: Scene, version: str, cluster: str = "alpha") -> None:
    """A cluster comes to store ships in another version."""
    data = {"kind": "Ship", "version": version, "namespaced": True, "custom": True}
    scene.control(TYPE, cluster, "ships", "sea.example.io", data=data)


@pytest.fixture
async def scene() -> Scene:
    made = Scene()
    made.custom("ships", "Ship")
    made.delta("one", uid="1", **OF_SHIPS)
    return made


@pytest.mark.parametrize("scope", ["", "/clusters/alpha"])
async def test_another_version(scene: Scene, scope: str) -> None:
    async with scene.serving() as served, watching(served, scope + SHIPS, resourceVersion="0") as watch:
        assert await watch.event() == ("ADDED", "one")
        of_version(scene, "v2")
        # As a producer goes on: nothing of it may be shown in a watch of v1.
        scene.delta("one", "MODIFIED", uid="1", member_version="2", **OF_SHIPS, version="v2")
        scene.tell()
        assert await watch.end() == []
        assert (await served.text(scope + SHIPS))[0] == 404


@pytest.mark.parametrize("scope", ["", "/clusters/alpha"])
async def test_a_type_that_goes(scene: Scene, scope: str) -> None:
    """Its definition was deleted: the objects first, as a kube-apiserver has it."""
    async with scene.serving() as served, watching(served, scope + SHIPS, resourceVersion="0") as watch:
        assert await watch.event() == ("ADDED", "one")
        scene.control(REMOVED, "alpha", "ships", "sea.example.io", data={"types": ["ships.sea.example.io"]})
        scene.tell()
        assert await watch.end() == ["DELETED"]


async def test_a_cluster_that_goes(scene: Scene) -> None:
    async with (
        scene.serving() as served,
        watching(served, "/clusters/alpha" + PODS, resourceVersion="0") as below,
        watching(served, PODS, resourceVersion="0", allowWatchBookmarks="1") as root,
    ):
        assert (await root.event())[0] == "BOOKMARK"
        scene.control(REMOVED, "alpha", data={"types": ["pods", "ships.sea.example.io"]})
        scene.tell()
        assert await below.end() == []
        # Another cluster has pods.
        scene.delta("two", uid="2", cluster="bravo")
        scene.tell()
        assert await root.event() == ("ADDED", "two")


async def test_a_version_of_some_clusters(scene: Scene) -> None:
    """At the root the others still serve it: the next watch is of those that do."""
    of_version(scene, "v1", "bravo")
    scene.delta("two", uid="2", cluster="bravo", **OF_SHIPS)
    async with scene.serving() as served:
        async with watching(served, SHIPS, resourceVersion="0") as watch:
            assert {await watch.event() for _ in "12"} == {("ADDED", "one"), ("ADDED", "two")}
            of_version(scene, "v2")
            scene.tell()
            assert await watch.end() == []
        ended_at = scene.index
        scene.delta("one", "MODIFIED", uid="1", member_version="2", **OF_SHIPS, version="v2")
        # Who goes on from there is told what has left this version.
        async with watching(served, SHIPS, resourceVersion=f"abcdefgh.{ended_at}") as watch:
            assert await watch.event() == ("DELETED", "one")
        async with watching(served, SHIPS, resourceVersion="0", allowWatchBookmarks="1") as watch:
            assert await watch.event() == ("ADDED", "two")
            assert (await watch.event())[0] == "BOOKMARK"
            scene.delta("one", "MODIFIED", uid="1", member_version="3", **OF_SHIPS, version="v2")
            scene.delta("two", "MODIFIED", uid="2", member_version="2", cluster="bravo", **OF_SHIPS)
            scene.tell()
            assert await watch.event() == ("MODIFIED", "two")


async def test_what_becomes_of_others_is_none_of_its_business(scene: Scene) -> None:
    scene.delta("p", uid="p")
    async with scene.serving() as served, watching(served, PODS, resourceVersion="0") as watch:
        assert await watch.event() == ("ADDED", "p")
        of_version(scene, "v2")
        scene.custom("boats", "Boat")
        scene.control(REMOVED, "alpha", "ships", "sea.example.io", data={"types": ["ships.sea.example.io"]})
        scene.tell()
        scene.delta("q", uid="q")
        scene.tell()
        assert await watch.event() == ("ADDED", "q")


# -- passed on ---------------------------------------------------------------------------------------------------------


class Member:
    """The API server of a cluster, which answers with pieces of bytes as the test has them."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.content_type = "application/json"
        self.asked: list[str] = []
        self.url = ""

    as_caller = False

    def has(self, cluster: str) -> bool:
        return cluster == "alpha"

    @contextlib.asynccontextmanager
    async def using(self, cluster: str, who: Identity) -> AsyncIterator[Upstream]:
        yield Upstream(self.url)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        self.asked.append(http.path_qs)
        if "watch" not in http.query and "/watch/" not in http.path:
            return web.json_response({"kind": "ShipList", "items": []})
        if "Upgrade" in http.headers:
            return await self.converse(http)
        response = web.StreamResponse()
        response.content_type = self.content_type
        await response.prepare(http)
        while True:
            await response.write(await self.pieces.get())

    async def converse(self, http: web.Request) -> web.StreamResponse:
        """A WebSocket whose frames are the pieces."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(http)
        assert http.transport is not None
        while not http.transport.is_closing():
            http.transport.write(await self.pieces.get())
        return socket


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    made = Member()
    application = web.Application()
    application.router.add_get("/{path:.*}", made.answer)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/")).rstrip("/")
        yield made


BOATS = "/clusters/alpha/apis/sea.example.io/v1/boats"
PROTOBUF = "application/vnd.kubernetes.protobuf"
LINE = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'
FRAME = (5).to_bytes(4, "big") + b"\x00abcd"


@pytest.mark.parametrize(("content_type", "whole"), [("application/json", LINE), (PROTOBUF, FRAME)])
@pytest.mark.parametrize("path", [f"{BOATS}?watch=1", BOATS.replace("boats", "watch/boats")])
async def test_a_passed_on_watch_ends_once_memory_has_it(
    scene: Scene, member: Member, path: str, content_type: str, whole: bytes
) -> None:
    """Behind a whole event: its first half came before."""
    member.content_type = content_type
    async with scene.serving(member) as served, asyncio.timeout(PATIENCE):
        async with served.session.get(served.url + path) as answer:
            assert answer.headers.getall("Warning") == [
                '299 kubebraid "not synced here: alpha itself answers for boats.sea.example.io, '
                'with resourceVersions of its own"'
            ]
            member.pieces.put_nowait(whole + whole[:7])
            assert await answer.content.readexactly(len(whole) + 7) == whole + whole[:7]
            scene.custom("boats", "Boat")
            scene.tell()
            member.pieces.put_nowait(whole[7:])
            assert await answer.content.read() == whole[7:]
        async with served.session.get(f"{served.url}{BOATS}?resourceVersion=0") as answer:
            assert "Warning" not in answer.headers
            assert (await answer.json())["metadata"]["resourceVersion"].startswith("abcdefgh.")


async def test_between_events_it_ends_at_once(scene: Scene, member: Member) -> None:
    async with scene.serving(member) as served, asyncio.timeout(PATIENCE):
        async with served.session.get(f"{served.url}{BOATS}?watch=1") as answer:
            # Another version of it, and another type, are not what it is of.
            scene.custom("boats", "Boat", version="v2")
            scene.custom("rafts", "Raft")
            scene.tell()
            member.pieces.put_nowait(LINE)
            assert await answer.content.readline() == LINE
            scene.custom("boats", "Boat")
            scene.tell()
            assert await answer.content.read() == b""


TEXT = b"\x81\x7e" + len(LINE).to_bytes(2, "big") + LINE


async def test_over_websocket_it_ends_behind_a_whole_message(scene: Scene, member: Member) -> None:
    """As its server would end it: by a frame that closes it."""
    async with scene.serving(member) as served, asyncio.timeout(PATIENCE):
        async with served.session.ws_connect(f"{served.url}{BOATS}?watch=1", autoclose=False) as socket:
            member.pieces.put_nowait(TEXT + TEXT[:9])
            assert (await socket.receive()).data == LINE.decode()
            scene.custom("boats", "Boat")
            scene.tell()
            member.pieces.put_nowait(TEXT[9:])
            assert (await socket.receive()).data == LINE.decode()
            closed = await socket.receive()
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1000)


def test_where_messages_of_a_websocket_end() -> None:
    frames = SocketFrames()
    assert frames.between
    large = b"\x82\x7f" + (70_000).to_bytes(8, "big")
    ping = b"\x89\x01p"
    # A message in two frames with a ping between them.
    parts = b"\x01\x02ab", ping, b"\x80\x00"
    for chunk, between in (
        *(
            (TEXT, True),
            (TEXT[:1], False),
            (TEXT[1:3], False),
            (TEXT[3:4], False),
            (TEXT[4:-1], False),
            (TEXT[-1:], True),
        ),
        *((large[:5], False), (large[5:] + b"x" * 69_999, False), (b"x" + ping, True)),
        *((parts[0], False), (parts[1], False), (parts[2], True), (b"", True)),
    ):
        frames.take(chunk)
        assert frames.between is between, chunk[:12]


async def test_our_versions_are_not_passed_on(scene: Scene, member: Member) -> None:
    """The cluster would answer 400, upon which a reflector repeats the request for ever."""
    async with scene.serving(member) as served:
        for path in (f"{BOATS}?resourceVersion=abcdefgh.7", f"{BOATS}?watch=1&resourceVersion=abcdefgh.7.12"):
            status, body = await served.text(path)
            assert (status, json.loads(body)["reason"]) == (410, "Expired")
        assert member.asked == []
        for version in ("", "0", "4711"):
            assert (await served.text(f"{BOATS}?resourceVersion={version}"))[0] == 200
        assert len(member.asked) == 3


async def test_what_is_not_synced_is_not_searched(scene: Scene, member: Member) -> None:
    """The cluster would ignore it, or look for labels that nothing has."""
    label = "labelSelector=app=a,search.clusterpedia.io"
    async with scene.serving(member) as served:
        for query in ("names=a", "orderby=name", "filter=true", f"{label}/names=a", f"{label}/limit=1&watch=1"):
            status, body = await served.text(f"{BOATS}?{query}")
            assert status == 400
            assert "boats.sea.example.io are not synced here, and alpha, which answers this itself" in body.decode()
        assert member.asked == []
        for query in ("labelSelector=app=a&limit=1", "fieldSelector=metadata.name=a", "continue=20"):
            assert (await served.text(f"{BOATS}?{query}"))[0] == 200
        assert len(member.asked) == 3


@pytest.mark.parametrize(
    ("content_type", "pieces", "between"),
    [
        ("application/json", [b"", b"{}", b"\n", b"{}\n{", b"}\n"], [True, False, True, False, True]),
        (
            PROTOBUF,
            [b"\0\0", b"\0\2a", b"b", FRAME + FRAME[:3]],
            [False, False, True, False],
        ),
        (
            PROTOBUF,
            [b"\0\0\0\0", FRAME * 3, FRAME[:8], FRAME[8:]],
            [True, True, False, True],
        ),
    ],
)
def test_where_events_end(content_type: str, pieces: list[bytes], between: list[bool]) -> None:
    frames = frames_of(content_type)
    assert frames is not None
    found = []
    for piece in pieces:
        frames.take(piece)
        found.append(frames.between)
    assert found == between
    assert frames_of("application/cbor-seq") is None
