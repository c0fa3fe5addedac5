"""WATCH over HTTP: starts, resumes, selectors, bookmarks, expiry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.patience import eventually
from tests.simulation.conftest import Client, MakeConfigMap, Start

MAPS = "/api/v1/namespaces/default/configmaps"


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def test_from_a_version_on(client: Client, config_map: MakeConfigMap) -> None:
    version = (await client.get(MAPS))["metadata"]["resourceVersion"]
    async with client.watch(MAPS, resourceVersion=version) as stream:
        made = await client.create(MAPS, config_map("a", x="1"))
        changed = await client.patch(f"{MAPS}/a", {"data": {"x": "2"}})
        await client.delete(f"{MAPS}/a")
        added, modified, deleted = await stream.take(3)
    assert added == {"type": "ADDED", "object": made}
    assert modified == {"type": "MODIFIED", "object": changed}
    assert deleted["type"] == "DELETED"
    assert deleted["object"]["data"] == {"x": "2"}
    assert int(deleted["object"]["metadata"]["resourceVersion"]) == client.cluster.storage.version
    # The same again, from the past.
    async with client.watch(MAPS, resourceVersion=version) as stream:
        assert await stream.take(3) == [added, modified, deleted]
    middle = added["object"]["metadata"]["resourceVersion"]
    async with client.watch(MAPS, resourceVersion=middle, timeoutSeconds="1") as stream:
        assert await stream.rest() == [modified, deleted]


@pytest.mark.parametrize("version", [None, "0"])
async def test_without_a_version_the_state_comes_first(
    client: Client, config_map: MakeConfigMap, version: str | None
) -> None:
    await client.create(MAPS, config_map("a"))
    params = {} if version is None else {"resourceVersion": version}
    async with client.watch(MAPS, **params) as stream:
        assert told(await stream.take(2)) == [("ADDED", "a"), ("ADDED", "kube-root-ca.crt")]
        await client.create(MAPS, config_map("b"))
        assert told(await stream.take(1)) == [("ADDED", "b")]


async def test_send_initial_events(client: Client, config_map: MakeConfigMap) -> None:
    params = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with client.watch(MAPS, **params) as stream:
        first, end = await stream.take(2)
        assert told([first]) == [("ADDED", "kube-root-ca.crt")]
        assert end["type"] == "BOOKMARK"
        assert end["object"]["kind"] == "ConfigMap"
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert end["object"]["metadata"]["resourceVersion"] == str(client.cluster.storage.version)
        await client.create(MAPS, config_map("b"))
        assert told(await stream.take(1)) == [("ADDED", "b")]


@pytest.mark.parametrize(
    "params",
    [
        {"sendInitialEvents": "true"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
    ],
)
async def test_what_watches_refuse(client: Client, params: dict[str, str]) -> None:
    status, error = await client.request("GET", MAPS, params={"watch": "true", **params})
    assert (status, error["reason"]) == (422, "Invalid")


async def test_what_enters_and_leaves_a_selector(client: Client, config_map: MakeConfigMap) -> None:
    version = str(client.cluster.storage.version)
    await client.create(MAPS, config_map("a", {"on": "no"}, n="1"))
    await client.patch(f"{MAPS}/a", {"metadata": {"labels": {"on": "yes"}}, "data": {"n": "2"}})
    await client.patch(f"{MAPS}/a", {"data": {"n": "3"}})
    left = await client.patch(f"{MAPS}/a", {"metadata": {"labels": {"on": "no"}}, "data": {"n": "4"}})
    await client.delete(f"{MAPS}/a")
    async with client.watch(MAPS, resourceVersion=version, labelSelector="on=yes", timeoutSeconds="1") as stream:
        events = await stream.rest()
    assert [(event["type"], event["object"]["data"]["n"]) for event in events] == [
        ("ADDED", "2"),
        ("MODIFIED", "3"),
        ("DELETED", "3"),
    ]
    assert events[-1]["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert events[-1]["object"]["metadata"]["labels"] == {"on": "yes"}
    async with client.watch(
        MAPS, resourceVersion=version, fieldSelector="metadata.name=b", timeoutSeconds="1"
    ) as stream:
        await client.create(MAPS, config_map("b"))
        assert told(await stream.rest()) == [("ADDED", "b")]


async def test_a_version_from_before_compaction_is_expired(client: Client, config_map: MakeConfigMap) -> None:
    version = str(client.cluster.storage.version)
    await client.create(MAPS, config_map("a"))
    async with client.watch(MAPS, resourceVersion=version) as open_stream:
        await open_stream.take(1)
        client.cluster.storage.compact()
        async with client.watch(MAPS, resourceVersion=version) as stream:
            [error] = await stream.rest()
        assert error["type"] == "ERROR"
        assert (error["object"]["kind"], error["object"]["code"]) == ("Status", 410)
        assert error["object"]["reason"] == "Expired"
        assert error["object"]["message"].startswith("too old resource version: ")
        # A watch that is up to date does not mind.
        await client.create(MAPS, config_map("b"))
        assert told(await open_stream.take(1)) == [("ADDED", "b")]
    now = str(client.cluster.storage.version)
    async with client.watch(MAPS, resourceVersion=now, timeoutSeconds="1") as stream:
        assert await stream.rest() == []


async def test_a_version_beyond_the_bounded_history_is_expired(start: Start, config_map: MakeConfigMap) -> None:
    client = await start(history=8)
    version = str(client.cluster.storage.version)
    for number in range(30):
        await client.create(MAPS, config_map(f"m{number}"))
    async with client.watch(MAPS, resourceVersion=version) as stream:
        [error] = await stream.rest()
    assert error["object"]["code"] == 410


async def test_bookmarks_come_at_intervals(start: Start, config_map: MakeConfigMap) -> None:
    client = await start(bookmark_interval=0.05)
    version = str(client.cluster.storage.version)
    async with client.watch(MAPS, resourceVersion=version, allowWatchBookmarks="true") as stream:
        [first] = await stream.take(1)
        assert first["type"] == "BOOKMARK"
        assert first["object"]["metadata"]["resourceVersion"] == version
        # A bookmark moves on with the cluster, not with the type.
        await client.create("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": "quiet"}})
        while True:
            [later] = await stream.take(1)
            if later["object"]["metadata"]["resourceVersion"] != version:
                break
        assert later["type"] == "BOOKMARK"


async def test_a_bookmark_comes_before_the_end(client: Client) -> None:
    version = str(client.cluster.storage.version)
    async with client.watch(MAPS, resourceVersion=version, allowWatchBookmarks="true", timeoutSeconds="3") as stream:
        events = await stream.rest()
    assert [event["type"] for event in events] == ["BOOKMARK"]


async def test_a_watch_ahead_of_the_cluster_waits(client: Client, config_map: MakeConfigMap) -> None:
    ahead = str(client.cluster.storage.version + 1)
    async with client.watch(MAPS, resourceVersion=ahead, timeoutSeconds="2") as stream:
        await client.create(MAPS, config_map("a"))
        await client.create(MAPS, config_map("b"))
        assert told(await stream.take(1)) == [("ADDED", "b")]


async def test_many_watches_see_the_same(client: Client, config_map: MakeConfigMap) -> None:
    version = str(client.cluster.storage.version)

    async def watched() -> list[tuple[str, str]]:
        async with client.watch(MAPS, resourceVersion=version) as stream:
            return told(await stream.take(20))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watched()) for _ in range(30)]
        for number in range(20):
            await client.create(MAPS, config_map(f"m{number:02d}"))
    assert all(task.result() == [("ADDED", f"m{number:02d}") for number in range(20)] for task in tasks)


async def test_tables_send_their_columns_once(client: Client, config_map: MakeConfigMap) -> None:
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    version = str(client.cluster.storage.version)
    await client.create(MAPS, config_map("a"))
    await client.create(MAPS, config_map("b"))
    params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
    async with client.session.get(client.cluster.url + MAPS, params=params, headers=headers) as response:
        import json

        first, second = [json.loads(line) async for line in response.content]
    assert first["object"]["kind"] == "Table"
    assert first["object"]["columnDefinitions"]
    assert not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_a_client_that_leaves_is_forgotten(
    client: Client,
) -> None:
    collection = client.cluster.storage.collections[("", "configmaps")]
    async with client.watch(MAPS, resourceVersion=str(client.cluster.storage.version)) as stream:
        stream.response.close()
    await eventually(lambda: not collection.listeners and not client.cluster.faults.watches)
