"""Clusterpedia's query parameters on lists and watches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Members, Service

pytestmark = pytest.mark.asyncio(loop_scope="module")
PODS = "/api/v1/pods"


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(shared_service: Service) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def get(path: str, **query: str) -> tuple[int, Any]:
            async with session.get(shared_service.url + path, params=query) as answer:
                return answer.status, json.loads(await answer.read())

        yield get


def places(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            item["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"],
            item["metadata"].get("namespace", ""),
            item["metadata"]["name"],
        )
        for item in found["items"]
    ]


async def test_clusters_namespaces_and_names(ask: Ask) -> None:
    _, everything = await ask(PODS)
    places_all = places(everything)
    spaces = sorted({place[1] for place in places_all})[:2]
    _, found = await ask(PODS, clusters="alpha, nobody")
    assert places(found) == [place for place in places_all if place[0] == "alpha"]
    _, found = await ask(PODS, namespaces=",".join(spaces))
    assert places(found) == [place for place in places_all if place[1] in spaces]
    names = {place[2] for place in places_all[::17]}
    _, found = await ask(PODS, names=",".join(names))
    assert places(found) == [place for place in places_all if place[2] in names]
    assert len(places(found)) >= len(names)
    # The path is stronger.
    _, found = await ask(f"/clusters/bravo{PODS}", clusters="alpha")
    assert {place[0] for place in places(found)} == {"bravo"}
    _, found = await ask(f"/api/v1/namespaces/{spaces[0]}/pods", namespaces=spaces[1])
    assert {place[1] for place in places(found)} == {spaces[0]}


async def test_times_of_creation(ask: Ask) -> None:
    _, everything = await ask(PODS)
    times = sorted({item["metadata"]["creationTimestamp"] for item in everything["items"]})
    middle = times[len(times) // 2]
    _, since = await ask(PODS, since=middle)
    _, before = await ask(PODS, before=middle)
    assert all(item["metadata"]["creationTimestamp"] >= middle for item in since["items"])
    assert all(item["metadata"]["creationTimestamp"] < middle for item in before["items"])
    assert len(since["items"]) + len(before["items"]) == len(everything["items"])
    for text in (middle.replace("T", " ").removesuffix("Z"), middle.replace("Z", "+00:00")):
        _, again = await ask(PODS, since=text)
        assert places(again) == places(since)


async def test_what_an_object_controls(ask: Ask) -> None:
    _, deployments = await ask("/apis/apps/v1/deployments")
    _, sets = await ask("/apis/apps/v1/replicasets")
    _, pods = await ask(PODS)

    def owner(item: dict[str, Any]) -> str:
        return next((one["uid"] for one in item["metadata"].get("ownerReferences", []) if one.get("controller")), "")

    deployment = deployments["items"][0]["metadata"]["uid"]
    own = {item["metadata"]["uid"] for item in sets["items"] if owner(item) == deployment}
    assert own
    _, found = await ask("/apis/apps/v1/replicasets", ownerUID=deployment)
    assert {item["metadata"]["uid"] for item in found["items"]} == own
    _, found = await ask(PODS, ownerUID=deployment, ownerSeniority="1")
    wanted = {item["metadata"]["uid"] for item in pods["items"] if owner(item) in own}
    assert {item["metadata"]["uid"] for item in found["items"]} == wanted
    assert wanted
    _, found = await ask(PODS, ownerUID=deployment)
    assert found["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"before": "12"},
        {"since": "2026-02-01", "before": "2026-01-01"},
        {"ownerSeniority": "1"},
        {"ownerUID": "x", "ownerSeniority": "-1"},
        {"ownerUID": "x", "ownerSeniority": "11"},
        {"ownerUID": "x", "ownerSeniority": "1", "watch": "1"},
    ],
)
async def test_what_makes_no_sense(ask: Ask, query: dict[str, str]) -> None:
    status, found = await ask(PODS, **query)
    assert (status, found["kind"], found["reason"]) == (400, "Status", "BadRequest")


async def test_a_watch_of_chosen_clusters(shared_service: Service, shared_members: Members) -> None:
    query = {"watch": "1", "clusters": "alpha", "timeoutSeconds": "2"}
    async with (
        aiohttp.ClientSession(read_bufsize=2**22) as session,
        session.get(shared_service.url + PODS, params=query) as answer,
    ):
        shared_members["bravo"].churn.step(20)
        lines = (await answer.read()).splitlines()
    clusters = {
        json.loads(line)["object"]["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"] for line in lines
    }
    assert clusters == {"alpha"}
