"""The informer for many clusters: failover between instances, new histories, lists in pages, slow readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kubebraid.client.many_clusters import ADDED, CLUSTER_ANNOTATION, DELETED, MODIFIED, Change, Informer, Key, Refused
from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Members, Starter
from tests.patience import PATIENCE

PATH = "/api/v1/configmaps"


class Seen:
    """What a reader holds; each change must fit to what it held before."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.changes = 0

    def take_in(self, change: Change) -> None:
        self.changes += 1
        held = self.objects.get(change.key)
        if change.type == ADDED:
            assert held is None
            assert change.before is None
            self.objects[change.key] = change.object
        elif change.type == MODIFIED:
            assert held is not None
            assert held == change.before
            assert held != change.object
            self.objects[change.key] = change.object
        else:
            assert change.type == DELETED
            assert held == change.before
            del self.objects[change.key]

    async def read(self, informer: Informer) -> None:
        async for change in informer.changes():
            self.take_in(change)


@contextlib.asynccontextmanager
async def reading(informer: Informer) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(seen.read(informer))
    try:
        yield seen
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(true: Callable[[], bool], patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not true():
            await asyncio.sleep(0.02)


async def churn(members: Members, steps: int) -> None:
    """Config maps come, change and go, of the same names in both clusters."""
    chance = random.Random(7)
    async with aiohttp.ClientSession() as session:
        for step in range(steps):
            cluster = chance.choice(members.clusters)
            url = f"{cluster.url}/api/v1/namespaces/default/configmaps"
            name = f"c{chance.randrange(8)}"
            body = {"metadata": {"name": name}, "data": {"step": str(step)}}
            match chance.randrange(3):
                case 0:
                    request = session.delete(f"{url}/{name}")
                case 1:
                    request = session.post(url, json=body)
                case _:
                    request = session.put(f"{url}/{name}", json=body)
            async with request as answer:
                await answer.read()
            await asyncio.sleep(0.005)


async def present(members: Members) -> dict[Key, str]:
    """Each config map's version in its own cluster."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for cluster in members.clusters:
            async with session.get(cluster.url + PATH) as answer:
                for item in (await answer.json())["items"]:
                    metadata = item["metadata"]
                    found[Key(cluster.name, metadata["namespace"], metadata["name"])] = metadata["resourceVersion"]
    return found


def versions(objects: Mapping[Key, dict[str, Any]]) -> dict[Key, str]:
    return {key: found["metadata"]["resourceVersion"].rpartition(".")[2] for key, found in objects.items()}


async def test_nothing_is_lost_when_instances_die(members: Members, broker: EmbeddedBroker, start: Starter) -> None:
    first = await start("--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    second = await start("--nats", broker.url, command="serve")
    third = await start("--nats", broker.url, command="serve")
    # The first one produces, too; the informer goes between the others.
    async with Informer([second.url, third.url], PATH) as informer, reading(informer) as seen:
        await asyncio.wait_for(informer.synced(), PATIENCE)
        assert versions(informer.objects) == await present(members)
        for service in (second, third):
            changing = asyncio.create_task(churn(members, 120))
            await asyncio.sleep(0.3)
            await service.kill()
            await asyncio.sleep(0.2)
            await service.start()
            await changing
            await service.ready()
        last = await present(members)
        await becomes(lambda: versions(informer.objects) == last and seen.objects == dict(informer.objects))
        assert seen.changes > len(last)
        assert {key.cluster for key in informer.objects} == {"alpha", "bravo"}
    assert first.process is not None


async def test_a_new_history_is_listed_anew(members: Members, tmp_path: Path, start: Starter) -> None:
    arguments = ("--kubeconfig", str(members.kubeconfig), "--include", "configmaps")
    service = await start(*arguments, "--data", str(tmp_path / "one"))
    async with Informer([service.url], PATH, parameters={"clusters": "alpha"}) as informer, reading(informer) as seen:
        await asyncio.wait_for(informer.synced(), PATIENCE)
        prefix = informer.version.partition(".")[0]
        await service.stop()
        await churn(members, 30)
        other = await start(*arguments, "--data", str(tmp_path / "two"), port=service.port)
        last = {key: version for key, version in (await present(members)).items() if key.cluster == "alpha"}
        await becomes(lambda: versions(informer.objects) == last and seen.objects == dict(informer.objects))
        assert informer.version.partition(".")[0] != prefix
        assert other.port == service.port


async def test_what_can_never_be_answered_is_raised(members: Members, tmp_path: Path, start: Starter) -> None:
    service = await start(
        *("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"), "--include", "configmaps")
    )
    async with Informer([service.url], PATH, selector="a=b=c") as informer:
        with pytest.raises(Refused, match="found '='"):
            await asyncio.wait_for(informer.synced(), PATIENCE)
        with pytest.raises(Refused):
            await asyncio.wait_for(anext(informer.changes()), PATIENCE)


# -- a server of its own kind --------------------------------------------------------------------------------


def item(name: str, version: int, uid: str = "", cluster: str = "alpha") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "x", "uid": uid or name, "resourceVersion": f"p.{version}.1"}
    return {"metadata": {**metadata, "annotations": {CLUSTER_ANNOTATION: cluster}}}


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answers = list[Answer]


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[str, Answers, list[dict[str, str]]]]:
    """A server that answers from a script, then holds its last watch; its URL, the script, and the queries it got."""
    answers: Answers = []
    asked: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        if not answers:
            await asyncio.Event().wait()
        return await answers.pop(0)(request)

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}", answers, asked
    await runner.cleanup()


def failure(code: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"kind": "Status", "code": code, "message": f"no {code}"}, status=code, headers=headers
        )

    return answer


def page(*items: dict[str, Any], token: str = "", version: str = "p.9") -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        metadata = {"resourceVersion": version, "continue": token}
        content = {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": list(items)}
        return web.json_response(content)

    return answer


def watch(*events: tuple[str, dict[str, Any]], hold: bool = False) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for kind, found in events:
            shown = {"kind": "Pod", "apiVersion": "v1", **found}
            await response.write(json.dumps({"type": kind, "object": shown}).encode() + b"\n")
        if hold:
            await asyncio.Event().wait()
        return response

    return answer


async def test_pages_where_lists_cannot_be_streamed(scripted: tuple[str, Answers, list[dict[str, str]]]) -> None:
    url, answers, asked = scripted
    answers += [
        failure(503, **{"Retry-After": "0"}),
        failure(422),
        page(item("a", 1), token="t1"),
        failure(410),
        page(item("a", 1), item("a", 2, cluster="bravo"), token="t2"),
        page(item("b", 3)),
        watch(("MODIFIED", item("a", 10)), ("DELETED", item("nobody", 11)), ("DELETED", item("b", 12))),
        watch(("ERROR", {"code": 410, "message": "too old"})),
        page(item("a", 10), item("c", 13, uid="other")),
        watch(("BOOKMARK", {"metadata": {"resourceVersion": "p.20"}}), hold=True),
    ]
    async with Informer([url], PATH) as informer, reading(informer) as seen:
        await becomes(lambda: informer.version == "p.20")
        await becomes(lambda: seen.objects == dict(informer.objects))
        assert {(key.cluster, key.name) for key in informer.objects} == {("alpha", "a"), ("alpha", "c")}
        # Also of those that came in a list, where a kube-apiserver leaves it out.
        assert {(one["kind"], one["apiVersion"]) for one in informer.objects.values()} == {("Pod", "v1")}
    assert "sendInitialEvents" in asked[0]
    assert [query.get("continue") for query in asked[2:6]] == [None, "t1", None, "t2"]
    assert [query.get("resourceVersion") for query in asked[6:]] == ["p.9", "p.12.1", None, "p.9"]


async def test_a_server_that_falls_silent_is_left(scripted: tuple[str, Answers, list[dict[str, str]]]) -> None:
    url, answers, asked = scripted
    end = ("BOOKMARK", {"metadata": {"resourceVersion": "p.5", "annotations": {"k8s.io/initial-events-end": "true"}}})
    answers += [watch(("ADDED", item("a", 1)), end, hold=True), watch(("MODIFIED", item("a", 6)), hold=True)]
    async with Informer([url], PATH, silence=0.3) as informer:
        await becomes(lambda: informer.version == "p.6.1")
    assert asked[1]["resourceVersion"] == "p.5"


async def test_slow_readers_get_the_latest_state(scripted: tuple[str, Answers, list[dict[str, str]]]) -> None:
    url, answers, _ = scripted
    end = ("BOOKMARK", {"metadata": {"resourceVersion": "p.5", "annotations": {"k8s.io/initial-events-end": "true"}}})
    changes = [("MODIFIED", item("a", number)) for number in range(10, 30)]
    began = asyncio.Event()

    async def later(request: web.Request) -> web.StreamResponse:
        # What goes before it was read is never shown.
        await began.wait()
        follows = watch(
            *changes,
            ("ADDED", item("c", 30)),
            ("DELETED", item("c", 31)),
            ("DELETED", item("b", 32)),
            ("ADDED", item("b", 33, uid="new")),
            ("DELETED", item("d", 34)),
            hold=True,
        )
        return await follows(request)

    answers += [
        watch(("ADDED", item("a", 1)), ("ADDED", item("b", 2)), ("ADDED", item("d", 3)), end),
        later,
    ]
    async with Informer([url], PATH) as informer:
        reader = informer.changes()
        shown = []
        async with asyncio.timeout(PATIENCE):
            await informer.synced()
            first = [await anext(reader) for _ in range(3)]
            began.set()
            await becomes(lambda: informer.version == "p.34.1")
            shown = [await anext(reader) for _ in range(4)]
        assert {(one.type, one.key.name) for one in first} == {(ADDED, "a"), (ADDED, "b"), (ADDED, "d")}
        assert [(one.type, one.key.name) for one in shown] == [
            (MODIFIED, "a"),
            (DELETED, "b"),
            (ADDED, "b"),
            (DELETED, "d"),
        ]
        assert shown[0].object["metadata"]["resourceVersion"] == "p.29.1"
        await reader.aclose()
