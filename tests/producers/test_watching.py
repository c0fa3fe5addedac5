"""LIST and WATCH as values, discovery's version and the probe, against a real API server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from producers.follow.probe import why_not_ready
from producers.kubeconfig.files import access_of
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.discovery import server_version, streams_lists
from producers.upstream.objects import identify
from producers.upstream.watching import PAGE, Target, Watch, current_objects, list_pages, version_of
from simulation import SimulatedCluster, write_kubeconfig
from tests.patience import PATIENCE

PODS = Target("/api/v1/pods")
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster("alpha", seed=1, pods=PAGE + 20) as made:
        yield made


@pytest.fixture
async def server(cluster: SimulatedCluster, tmp_path: Path) -> AsyncIterator[ApiServer]:
    write_kubeconfig([cluster], tmp_path / "kubeconfig")
    made = ApiServer(access_of(str(tmp_path / "kubeconfig"), "alpha"), ProducerTiming(probe=PATIENCE))
    yield made
    await made.close()


async def write(cluster: SimulatedCluster, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, cluster.url + path, json=body) as answer:
        assert answer.status < 300, await answer.text()


async def test_a_list_by_pages_then_the_watch_from_its_version(cluster: SimulatedCluster, server: ApiServer) -> None:
    pages = [page async for page in list_pages(server, PODS)]
    assert [len(page.items or ()) for page in pages] == [PAGE, 20]
    (version,) = {page.metadata.resource_version for page in pages}
    cluster.churn.step(20)
    watch = Watch(server, PODS, version)
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(watch.events()) as events:
        event = await anext(events)
        assert event.type in ("ADDED", "MODIFIED", "DELETED")
        assert int(version_of(event).resource_version) > int(version)
        assert identify(event.object).resource_version == version_of(event).resource_version
        watch.end()
        assert [one async for one in events] == [], "nothing more is read"


async def test_initial_events_end_with_their_bookmark(server: ApiServer) -> None:
    names = set()
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(Watch(server, PODS, None).events()) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                assert version_of(event).ends_initial_events
                break
            names.add(identify(event.object).name)
    assert len(names) == PAGE + 20


async def test_a_version_that_is_too_old_is_refused_as_expired(cluster: SimulatedCluster, server: ApiServer) -> None:
    version = [page async for page in list_pages(server, PODS)][-1].metadata.resource_version
    cluster.churn.step(20)
    cluster.faults.compact()
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(Watch(server, PODS, version).events()) as events:
        with pytest.raises(RequestRefused) as refused:
            await anext(events)
    assert refused.value.expired


async def test_all_objects_after_each_change(cluster: SimulatedCluster, server: ApiServer) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        contextlib.aclosing(current_objects(server, Target(CONFIG_MAPS))) as states,
    ):
        before = set(await anext(states))
        await write(cluster, "POST", CONFIG_MAPS, {"metadata": {"name": "new"}, "data": {"a": "b"}})
        async for objects in states:
            if "new" in objects:
                break
        assert set(objects) == before | {"new"}
        assert objects["new"]["data"] == {"a": "b"}
        await write(cluster, "DELETE", f"{CONFIG_MAPS}/new")
        async for objects in states:
            if "new" not in objects:
                break
        assert set(objects) == before


async def test_the_version_decides_whether_lists_are_streamed(server: ApiServer) -> None:
    version = await server_version(server)
    assert str(version["minor"]).rstrip("+").isdigit()
    assert streams_lists({"major": "1", "minor": "32+"})
    assert not streams_lists({"major": "1", "minor": "31"})
    assert not streams_lists({})


async def test_why_a_server_is_not_ready(cluster: SimulatedCluster, server: ApiServer) -> None:
    assert await why_not_ready(server) is None
    cluster.faults.fail_next(1, 503)
    assert "503" in str(await why_not_ready(server))
    cluster.faults.fail_next(1, 403)
    assert await why_not_ready(server) is None, "its /readyz is not for us; it is there all the same"
    await cluster.stop()
    assert await why_not_ready(server)
