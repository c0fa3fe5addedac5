"""Collections through a router: listed once, answered by the group that has all of one, else what to ask instead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from kubebraid.route.router import Router
from query.search.collection_file import read_collections
from query.search.collections import ResourceCollection, with_configured
from query.service import QueryService
from tests.query.access.guarded import World
from tests.query.scene import QUICK, Answers
from tests.route.test_guarded_router import PartOfWorld

ROOT = "/apis/clusterpedia.io/v1beta1/collectionresources"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Core(PartOfWorld):
    kept = frozenset({("", "pods"), ("", "namespaces")})


class Apps(PartOfWorld):
    kept = frozenset({("apps", "replicasets")})


def filled(world: World, *clusters: str) -> World:
    for cluster in clusters:
        world.pod(cluster, "web", f"{cluster}-pod")
        world.put(cluster, "namespaces", "web")
        world.put(cluster, "replicasets", f"{cluster}-set", "web", "apps")
    return world


def configured(**types: str) -> tuple[ResourceCollection, ...]:
    text = "".join(f"- name: {name}\n  resourceTypes: [{of}]\n" for name, of in types.items())
    return read_collections(text.encode())


@contextlib.asynccontextmanager
async def routed(**groups: tuple[World, tuple[ResourceCollection, ...]]) -> AsyncIterator[Answers]:
    """A router before a group of one instance for each world, which has some collections."""
    async with contextlib.AsyncExitStack() as stack:
        urls: dict[str, list[str]] = {}
        for name, (world, collections) in groups.items():
            service = QueryService(world.materializer, "test", timing=QUICK, collections=with_configured(collections))
            server = await stack.enter_async_context(TestServer(service.application()))
            stack.callback(service.close)
            urls[name] = [str(server.make_url("")).rstrip("/")]
        router = Router(urls)
        await stack.enter_async_context(router.connected())
        looking = asyncio.ensure_future(router.run())
        await router.first_looks()
        server = await stack.enter_async_context(TestServer(router.application()))
        session = await stack.enter_async_context(ClientSession())
        try:
            yield Answers(session, str(server.make_url("")).rstrip("/"))
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


def names(found: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in found["items"]]


async def test_by_types() -> None:
    base = configured(base="{resource: pods}, {resource: namespaces}", mixed="{resource: pods}, {group: apps}")
    more = configured(mixed="{resource: pods}, {group: batch}", stray="{resource: pods}")
    core, apps = filled(Core("alpha", "bravo"), "alpha", "bravo"), filled(Apps("alpha", "bravo"), "alpha", "bravo")
    async with routed(core=(core, base), apps=(apps, more)) as ask:
        listed = await ask.json(ROOT)
        assert names(listed) == ["any", "workloads", "kuberesources", "base", "mixed", "stray"]
        assert [(one["group"], one["resource"]) for one in listed["items"][4]["resourceTypes"]] == [
            ("", "pods"),
            ("apps", ""),
            ("batch", ""),
        ]
        rows = (await ask.json(ROOT, TABLE))["rows"]
        assert [row["cells"] for row in rows[3:]] == [
            ["base", ".pods,.namespaces"],
            ["mixed", ".pods,apps.*,batch.*"],
            ["stray", ".pods"],
        ]
        pods, sets = ["alpha-pod", "bravo-pod"], ["alpha-set", "bravo-set"]
        assert names(await ask.json(f"{ROOT}/any?resources=pods")) == pods
        assert names(await ask.json(f"{ROOT}/any?groups=apps&resources=nothings")) == sets
        assert names(await ask.json(f"{ROOT}/base")) == ["web", "web", *pods]
        assert names(await ask.json(f"/int{ROOT}/base?names=web")) == ["web", "web"]
        assert len((await ask.json(f"{ROOT}/base", TABLE))["rows"]) == 4
        page = await ask.json(f"{ROOT}/base?limit=3")
        assert names(await ask.json(f"{ROOT}/base?continue={page['continue']}")) == pods[1:]
        events = await ask.events(f"{ROOT}/base?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dalpha-pod")
        assert [one["object"]["metadata"]["name"] for one in events] == ["alpha-pod"]
        # Nothing of it is anywhere.
        assert names(await ask.json(f"{ROOT}/workloads")) == []
        for path in (f"{ROOT}/any?groups=*", f"{ROOT}/kuberesources", f"{ROOT}/mixed"):
            refused = await ask.json(path, code=400)
            assert "in several logs, which have no version in common" in refused["message"]
            assert "replicasets.apps in apps" in refused["message"]
            way = refused["message"].rpartition("ask for those of one, as ")[2]
            # What it names works.
            assert set(names(await ask.json(way))) <= {*pods, "web"}
        stray = await ask.json(f"{ROOT}/stray", code=400)
        assert stray["message"] == (
            "collection stray: the configuration of group core has others: start all instances with the same "
            "--collections"
        )
        missing = await ask.json(f"{ROOT}/nothing", code=404)
        assert missing["message"] == 'collectionresources.clusterpedia.io "nothing" not found'
        assert (await ask.json(f"{ROOT}/any", code=400))["message"].startswith("collection any: name its types")
        await ask.json(f"{ROOT}?watch=1", code=400)
        async with ask.session.post(f"{ask.url}{ROOT}/any") as answer:
            assert answer.status == 405


async def test_by_clusters() -> None:
    one, other = filled(Core("alpha"), "alpha"), filled(Core("bravo"), "bravo")
    async with routed(one=(one, ()), other=(other, ())) as ask:
        refused = await ask.json(f"{ROOT}/any?resources=pods", code=400)
        assert refused["message"] == (
            "collection any: pods are in several logs, by cluster, which have no version in common: ask for its types "
            "one by one below /clusters/<cluster>"
        )


async def test_the_group_that_has_a_type_in_all_clusters() -> None:
    part, whole = filled(Core("alpha"), "alpha"), filled(Core("alpha", "bravo"), "alpha", "bravo")
    async with routed(part=(part, ()), whole=(whole, ())) as ask:
        assert names(await ask.json(f"{ROOT}/any?resources=pods")) == ["alpha-pod", "bravo-pod"]


async def test_a_group_that_was_never_seen() -> None:
    world = filled(Core("alpha"), "alpha")
    async with routed(core=(world, ())) as ask, ClientSession() as session:
        router = Router({"core": [ask.url], "away": ["http://127.0.0.1:1"]})
        async with router.connected(), TestServer(router.application()) as server:
            looking = asyncio.ensure_future(router.run())
            await router.first_looks()
            both = Answers(session, str(server.make_url("")).rstrip("/"))
            for path in (ROOT, f"{ROOT}/any?resources=pods"):
                assert "group away" in (await both.json(path, code=503))["message"]
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
