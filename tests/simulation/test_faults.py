"""Faults, in-process and over the control endpoint."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.patience import eventually
from tests.simulation.conftest import Client, MakeConfigMap, Start

MAPS = "/api/v1/namespaces/default/configmaps"
FAULTS = "/_simulation/faults"


async def test_cut_watches_break_in_the_middle(client: Client) -> None:
    async with client.watch(MAPS, resourceVersion=str(client.cluster.storage.version)) as stream:
        assert client.cluster.faults.cut_watches() == 1
        with pytest.raises(aiohttp.ClientError):
            await stream.next()


async def test_the_next_answers_are_errors(client: Client) -> None:
    client.cluster.faults.fail_next(1, 429, retry_after=7)
    client.cluster.faults.fail_next(2, 503)
    async with client.session.get(client.cluster.url + MAPS) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert (await response.json())["reason"] == "TooManyRequests"
    assert [(await client.request("GET", MAPS))[0] for _ in range(3)] == [503, 503, 200]


async def test_a_closed_port_opens_again_where_it_was(
    client: Client,
) -> None:
    url = client.cluster.url
    async with client.watch(MAPS, resourceVersion=str(client.cluster.storage.version)) as stream:
        await client.cluster.faults.refuse_connections()
        with pytest.raises(aiohttp.ClientError):
            await stream.next()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(MAPS)
    await client.cluster.faults.accept_connections()
    assert client.cluster.url == url
    await client.get(MAPS)
    status, _ = await client.request("POST", FAULTS, {"refuse_seconds": 0.2})
    assert status == 200
    faults = client.cluster.faults
    await eventually(lambda: faults.refusing)
    await eventually(lambda: not faults.refusing)
    await client.get(MAPS)


async def test_a_hung_watch_goes_on_where_it_was(client: Client, config_map: MakeConfigMap) -> None:
    async with client.watch(MAPS, resourceVersion=str(client.cluster.storage.version), timeoutSeconds="1") as stream:
        client.cluster.faults.hang_watches()
        await client.create(MAPS, config_map("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.3):
                await stream.response.content.readline()
        client.cluster.faults.hang_watches(False)
        [event] = await stream.rest()
        assert event["object"]["metadata"]["name"] == "a"


async def test_servers_without_initial_events(client: Client) -> None:
    params = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    client.cluster.faults.initial_events = "refused"
    status, error = await client.request("GET", MAPS, params={"watch": "1", **params})
    assert (status, error["reason"]) == (422, "Invalid")
    client.cluster.faults.initial_events = "ignored"
    async with client.watch(MAPS, timeoutSeconds="1", **params) as stream:
        assert [event["type"] for event in await stream.rest()] == ["ADDED"]


async def test_watches_end_early(client: Client) -> None:
    client.cluster.faults.watch_lifetime = (0.05, 0.1)
    async with client.watch(MAPS, resourceVersion=str(client.cluster.storage.version)) as stream:
        assert await stream.rest() == []


async def test_bookmarks_are_left_out(start: Start) -> None:
    client = await start(bookmark_interval=0.05)
    client.cluster.faults.skip_bookmarks = True
    version = str(client.cluster.storage.version)
    params = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": "1"}
    async with client.watch(MAPS, **params) as stream:
        assert await stream.rest() == []


async def test_the_control_endpoint(client: Client) -> None:
    wanted = {
        "delay": 0.01,
        "skip_bookmarks": True,
        "initial_events": "ignored",
        "aggregated_discovery": False,
        "watch_lifetime": [1, 2],
        "fail_next": {"count": 2, "code": 500},
    }
    status, state = await client.request("POST", FAULTS, wanted)
    assert status == 200
    assert state["failures_due"] == 2
    assert state["watch_lifetime"] == [1.0, 2.0]
    assert client.cluster.faults.initial_events == "ignored"
    _, state = await client.request("POST", FAULTS, {"clear": True})
    assert state["failures_due"] == 0
    assert client.cluster.faults.aggregated_discovery
    assert (await client.request("GET", FAULTS))[1]["delay"] == 0.0
    refused: tuple[object, ...] = (
        {"odd": 1},
        {"delay": "x"},
        {"fail_next": {"code": 200}},
        [],
        {"initial_events": "x"},
    )
    for bad in refused:
        assert (await client.request("POST", FAULTS, bad))[0] == 400
    assert (await client.request("POST", "/_simulation/churn", {"rate": 5}))[1]["rate"] == 5.0
    assert (await client.request("POST", "/_simulation/churn", {"rate": -1}))[0] == 400
    floor = client.cluster.storage.collections[("", "pods")].floor
    assert (await client.request("POST", "/_simulation/compact", {}))[0] == 200
    assert client.cluster.storage.collections[("", "pods")].floor > floor
    assert (await client.get("/_simulation/state"))["objects"]["pods"] == 40
    assert (await client.request("GET", "/_simulation/none"))[0] == 404


async def test_an_outage_loses_nothing(client: Client, config_map: MakeConfigMap) -> None:
    made = await client.create(MAPS, config_map("a"))
    url = client.cluster.url
    await client.cluster.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(MAPS)
    await client.cluster.start()
    assert client.cluster.url == url
    assert await client.get(f"{MAPS}/a") == made
