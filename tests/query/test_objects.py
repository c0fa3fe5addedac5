"""GET, LIST, WATCH and readiness from a store without a log behind it: each part alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from deltalog.wire.delta import DELETED, MODIFIED
from deltalog.wire.subjects import HEALTH, TYPE
from query.discovery.paths import RequestTarget
from query.discovery.readiness import Readiness
from query.http.health import Check, failed, warning
from query.http.request import Request
from query.http.status import ApiError
from query.objects.lists import Lists
from query.objects.reads import Reads
from query.objects.watch import WatchStart
from query.objects.watches import Watches
from tests.patience import PATIENCE
from tests.query.scene import QUICK, Scene


@pytest.fixture
async def scene() -> Scene:
    return Scene()


# -- GET ---------------------------------------------------------------------------------------------------------------


async def test_an_object_by_its_name(scene: Scene) -> None:
    scene.delta("one", uid="1")
    scene.delta("two", uid="2")
    scene.delta("two", uid="3", cluster="bravo")
    reads = Reads(scene.materializer, scene.consistency)

    async def get(name: str, cluster: str | None = None, **query: str) -> tuple[dict[str, Any], Request]:
        request = scene.request(**query)
        request.cluster = cluster
        answer = await reads.answer(request, RequestTarget("", "v1", "pods", "x", name), scene.served)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body), request

    found, request = await get("one")
    assert found["metadata"]["uid"] == "1"
    # What cannot be asked of the log is said with the answer.
    assert len(request.warnings) == 1
    assert "the log cannot be reached" in request.warnings[0]
    _, request = await get("one", resourceVersion="0")
    assert request.warnings == []
    assert (await get("two", "bravo"))[0]["metadata"]["uid"] == "3"
    for name, code in (("two", 400), ("three", 404)):
        with pytest.raises(ApiError) as error:
            await get(name)
        assert error.value.code == code


async def test_a_name_in_two_clusters_is_refused_with_the_command_that_works(scene: Scene) -> None:
    for cluster in ("alpha", "bravo"):
        scene.delta("two", uid=cluster, cluster=cluster)
    async with scene.serving() as served:
        own = served.url.removeprefix("http://")
        for headers, scheme, host in (
            ({}, "http", own),
            ({"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "k8s.example.com"}, "https", "k8s.example.com"),
            ({"X-Forwarded-Proto": "x"}, "http", own),
        ):
            url = f"{served.url}/int/api/v1/namespaces/x/pods/two"
            async with served.session.get(url, headers=headers) as answer:
                assert answer.status == 400
                assert (await answer.json())["message"] == (
                    'please specify the cluster name: pods "two" is in alpha, bravo; for example kubectl --server '
                    f"{scheme}://{host}/int/clusters/alpha get pods two -n x"
                )
        path = "/api/v1/namespaces/x/pods/two"
        assert (await served.json(f"{path}?clusters=bravo"))["metadata"]["uid"] == "bravo"
        await served.json(f"{path}?clusters=alpha,bravo", code=400)
        await served.json(f"{path}?clusters=charlie", code=404)
        await served.json(f"/clusters/alpha{path}?clusters=bravo", code=404)


@pytest.mark.parametrize(
    ("version", "code"),
    [("abcdefgh.99", 504), ("ijklmnop.1", 410), ("what", 410), ('{"alpha":"99"}', 504), ('{"alpha":"x"}', 410)],
)
async def test_versions_that_a_read_cannot_be_at(scene: Scene, version: str, code: int) -> None:
    scene.delta("one")
    with pytest.raises(ApiError) as error:
        await Reads(scene.materializer, scene.consistency).answer(
            scene.request(resourceVersion=version), RequestTarget("", "v1", "pods", "x", "one"), scene.served
        )
    assert error.value.code == code


async def test_nothing_is_read_while_the_log_is_replayed(scene: Scene) -> None:
    scene.materializer.ready.clear()
    with pytest.raises(ApiError) as error:
        await scene.consistency.current(scene.request())
    assert (error.value.code, error.value.retry_after) == (429, 1)


# -- LIST --------------------------------------------------------------------------------------------------------------


async def listed(scene: Scene, lists: Lists, prepare: Callable[[], object] = lambda: None, /, **query: str) -> Any:
    """The answer to a LIST by a server that has nothing else. `prepare` is called when the request was parsed."""

    async def handle(http: web.Request) -> web.StreamResponse:
        request = Request(http)
        asked = scene.asked(request)
        prepare()
        try:
            return await lists.answer(request, asked)
        except ApiError as error:
            return request.failure(error)

    application = web.Application()
    application.router.add_get("/", handle)
    async with TestServer(application) as server, ClientSession() as session:
        async with session.get(server.make_url("/"), params=query) as answer:
            return await answer.json()


async def test_pages_and_exact_lists(scene: Scene) -> None:
    for name in "abc":
        last = scene.delta(name, uid=name)
    lists = Lists(scene.materializer, scene.consistency, QUICK)
    page = await listed(scene, lists, limit="2")
    assert [one["metadata"]["name"] for one in page["items"]] == ["a", "b"]
    assert page["metadata"]["resourceVersion"] == f"abcdefgh.{last}"
    scene.delta("b2", uid="b2")
    rest = await listed(scene, lists, **{"limit": "2", "continue": page["metadata"]["continue"]})
    assert [one["metadata"]["name"] for one in rest["items"]] == ["c"]
    assert rest["metadata"] == {"resourceVersion": f"abcdefgh.{last}"}
    # The same state by its version, as long as its snapshot is kept, or the events since then are.
    query = {"resourceVersion": f"abcdefgh.{last}", "resourceVersionMatch": "Exact"}
    assert [one["metadata"]["name"] for one in (await listed(scene, lists, **query))["items"]] == ["a", "b", "c"]
    lists.close()
    assert [one["metadata"]["name"] for one in (await listed(scene, lists, **query))["items"]] == ["a", "b", "c"]
    scene.store.window.open(scene.index)
    assert (await listed(scene, lists, **query))["code"] == 410


async def test_limits_are_ignored_for_any_state(scene: Scene) -> None:
    for name in "abc":
        scene.delta(name, uid=name)
    lists = Lists(scene.materializer, scene.consistency, QUICK)
    for match in ({}, {"resourceVersionMatch": "NotOlderThan"}):
        assert len((await listed(scene, lists, limit="1", resourceVersion="0", **match))["items"]) == 3
    version = f"abcdefgh.{scene.index}"
    for match in ({}, {"resourceVersionMatch": "NotOlderThan"}):
        assert len((await listed(scene, lists, limit="1", resourceVersion=version, **match))["items"]) == 1


async def test_a_list_is_not_of_two_histories(scene: Scene) -> None:
    scene.delta("one")
    lists = Lists(scene.materializer, scene.consistency, QUICK)
    assert (await listed(scene, lists, scene.replace))["code"] == 410


# -- WATCH -------------------------------------------------------------------------------------------------------------


async def events(watches: Watches, start: WatchStart | ApiError) -> list[tuple[str, str]]:
    """Types of the events of a watch, and what they are of: a name, a version or a code."""
    lines: list[bytes] = []

    async def send(payload: bytes) -> None:
        lines.extend(payload.splitlines())

    async with asyncio.timeout(PATIENCE):
        await watches.serve(start, send)
    found = []
    for line in lines:
        event = json.loads(line)
        of = event["object"]
        shown = of["metadata"].get("name") or of["metadata"].get("resourceVersion") or str(of.get("code"))
        found.append((event["type"], shown))
    return found


Watching = Callable[..., Awaitable[list[tuple[str, str]]]]


@pytest.fixture
def watching(scene: Scene) -> Watching:
    async def watch(prepare: Callable[[], object] = lambda: None, **query: str) -> list[tuple[str, str]]:
        watches = Watches(scene.materializer, scene.consistency, QUICK)
        request = scene.request(**{"timeoutSeconds": "1"} | query)
        asked = scene.asked(request, watch=True)
        prepare()
        start = await watches.begin(request, asked)
        if isinstance(start, WatchStart):
            assert start.timeout == 1
        asyncio.get_running_loop().call_soon(watches.close)
        return await events(watches, start)

    return watch


async def test_where_watches_begin(scene: Scene, watching: Watching) -> None:
    first = scene.delta("one", uid="1")
    second = scene.delta("two", uid="2", member_version="2")
    scene.delta("one", MODIFIED, uid="1", member_version="3")
    last = scene.delta("two", DELETED, uid="2", member_version="4")
    assert await watching() == [("ADDED", "one")]
    assert await watching(resourceVersion="0") == [("ADDED", "one")]
    # Of what was created and deleted since then it is told nothing, unless all events since then are here.
    every = [("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]
    assert await watching(resourceVersion=f"abcdefgh.{first}") == every
    scene.store.window.open(scene.index)
    assert await watching(resourceVersion=f"abcdefgh.{first}") == [("MODIFIED", "one")]
    assert await watching(resourceVersion=f"abcdefgh.{second}") == [("MODIFIED", "one"), ("DELETED", "two")]
    assert await watching(resourceVersion=f"abcdefgh.{last}") == []
    marked = {"sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "1"}
    assert await watching(**marked) == [("ADDED", "one"), ("BOOKMARK", f"abcdefgh.{last}")]
    # A version that is ahead is an event, as from a kube-apiserver.
    assert await watching(resourceVersion="abcdefgh.99", **marked) == [("ERROR", "504")]
    # A forgotten version is no obstacle to the present state.
    scene.store.floor = last
    assert await watching(resourceVersion=f"abcdefgh.{first}") == [("ERROR", "410")]
    assert (await watching(resourceVersion=f"abcdefgh.{first}", **marked))[0] == ("ADDED", "one")


async def test_bookmarks_that_watches_begin_with(scene: Scene, watching: Watching) -> None:
    """A watch that is cut in its first second must have had an event: else client-go takes it for a failed one."""
    first = scene.delta("one", uid="1")
    last = scene.delta("two", uid="2")
    now = f"abcdefgh.{last}"
    bookmarks = {"allowWatchBookmarks": "1"}
    for version in (f"abcdefgh.{first}", f"abcdefgh.{first}.77"):
        # At the version that it was given, in its form: an object's does not say that all of its index is known.
        assert await watching(resourceVersion=version, **bookmarks) == [("BOOKMARK", version), ("ADDED", "two")]
        assert await watching(resourceVersion=version) == [("ADDED", "two")]
    assert await watching(resourceVersion=now, **bookmarks) == [("BOOKMARK", now)]
    # One that is ahead of the store has all up to there.
    assert await watching(resourceVersion="abcdefgh.99", **bookmarks) == [("BOOKMARK", "abcdefgh.99")]
    # After the clusters' own versions, what changed since then comes first.
    theirs = {"resourceVersion": '{"alpha":"0"}'}
    assert (await watching(**theirs, **bookmarks))[-1] == ("BOOKMARK", now)
    # One that begins now, without the state.
    without = {"sendInitialEvents": "0", "resourceVersionMatch": "NotOlderThan"}
    assert await watching(**without, **bookmarks) == [("BOOKMARK", now)]
    assert await watching(**without) == []
    # One that begins with the state, as it is asked for by default or explicitly.
    whole = [("ADDED", "one"), ("ADDED", "two"), ("BOOKMARK", now)]
    explicit = {"sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan"}
    for query in ({}, {"resourceVersion": "0"}, explicit, {"resourceVersion": "0", **explicit}):
        assert await watching(**query, **bookmarks) == whole
        assert await watching(**query) == whole[:-1]


async def test_only_the_end_of_initial_events_is_marked(scene: Scene) -> None:
    index = scene.delta("one")
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    async with scene.serving() as served:
        for query, marked in (
            ("resourceVersion=0", True),
            ("resourceVersion=0&sendInitialEvents=1&resourceVersionMatch=NotOlderThan", True),
            (f"resourceVersion=abcdefgh.{index}", False),
        ):
            path = f"/api/v1/pods?watch=1&allowWatchBookmarks=1&timeoutSeconds=1&{query}"
            bookmark, *rest = [one for one in await served.events(path) if one["type"] == "BOOKMARK"]
            annotations = {"k8s.io/initial-events-end": "true"} if marked else None
            assert bookmark["object"]["metadata"].get("annotations") == annotations
            assert all("annotations" not in one["object"]["metadata"] for one in rest)
            # The first table tells its columns, also if it is a bookmark's.
            shown = await served.events(path, table)
            assert shown[0]["object"]["columnDefinitions"]
            assert all(one["object"]["columnDefinitions"] is None for one in shown[1:])


async def test_a_watch_is_not_of_two_histories(scene: Scene, watching: Watching) -> None:
    index = scene.delta("one")
    before = scene.store
    for query in ({}, {"resourceVersion": f"abcdefgh.{index}"}, {"resourceVersion": "0"}):
        scene.materializer._served.store = before
        assert await watching(**query) in ([("ADDED", "one")], [])
        assert await watching(scene.replace, **query) == [("ERROR", "410")]


# -- readiness ---------------------------------------------------------------------------------------------------------


async def test_what_keeps_an_instance_from_being_ready(scene: Scene) -> None:
    others: list[Check] = []
    readiness = Readiness(scene.materializer, lambda: ("alpha", "bravo"), others=lambda: others)
    assert readiness.probe("readyz", verbose=False) == (200, "ok")
    scene.control(TYPE, "bravo", "nodes", data={"kind": "Node", "version": "v1", "namespaced": False})
    others.append(warning("stream X has taken nothing in for 3 s: it is full"))
    status, text = readiness.probe("readyz", verbose=False)
    assert (status, text) == (
        503,
        f"[+]log replayed to index {scene.index}\n[!]stream X has taken nothing in for 3 s: it is full\n"
        "[+]cluster alpha ok\n[-]cluster bravo: first lists missing: nodes\nreadyz check failed\n",
    )
    assert readiness.document()["notes"] == ["[!]stream X has taken nothing in for 3 s: it is full"]
    # One that is down delays nothing.
    scene.control(HEALTH, "bravo", data={"healthy": False, "reason": "gone"})
    assert readiness.probe("readyz", verbose=True)[0] == 200
    assert readiness.probe("livez", verbose=True) == (200, "[+]ping ok\nlivez check passed\n")
    # What failed in other parts counts in the status as in the text.
    others.append(failed("the log cannot be opened"))
    status, text = readiness.probe("readyz", verbose=False)
    assert status == 503
    assert text.endswith("[+]cluster alpha ok\n[!]cluster bravo is stale: gone\nreadyz check failed\n")
    assert readiness.document()["ready"] is False
    scene.materializer.ready.clear()
    assert readiness.probe("readyz", verbose=False)[1].startswith(f"[-]log being replayed, at index {scene.index}\n")
