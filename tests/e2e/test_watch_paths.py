"""Watches by their old path, /api/v1/watch/..., deprecated since 1.11 and still answered by a kube-apiserver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Members, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRETS = "/api/v1/namespaces/default/secrets"


Events = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(loop_scope="module")
async def events(shared_service: Service) -> AsyncIterator[Events]:
    """The events of a watch until it ends after a second; code and text of what is none."""
    async with aiohttp.ClientSession() as session:

        async def made(path: str, **query: str) -> Any:
            query = {"timeoutSeconds": "1", **query}
            async with asyncio.timeout(PATIENCE), session.get(shared_service.url + path, params=query) as answer:
                text = await answer.text()
                return (
                    [json.loads(line) for line in text.splitlines()] if answer.status == 200 else (answer.status, text)
                )

        yield made


def places(found: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted(
        (
            one["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"],
            one["metadata"].get("namespace", ""),
            one["metadata"]["name"],
        )
        for one in found
    )


async def test_they_are_the_watches_of_today(events: Events, shared_service: Service) -> None:
    for scope, old, new in (
        ("", "/api/v1/watch/pods", "/api/v1/pods"),
        ("", "/api/v1/watch/namespaces", "/api/v1/namespaces"),
        ("/clusters/alpha", "/api/v1/watch/namespaces/default/pods", "/api/v1/namespaces/default/pods"),
        ("/clusters/alpha", "/apis/certs.example.io/v1/watch/certificates", "/apis/certs.example.io/v1/certificates"),
        ("/int", "/apis/apps/v1/watch/deployments", "/apis/apps/v1/deployments"),
        ("/int/clusters/alpha", "/api/v1/watch/nodes", "/api/v1/nodes"),
    ):
        listed = (await shared_service.get(scope + new))["items"]
        # What the parameter says does not count.
        found = await events(scope + old, watch="false")
        assert {event["type"] for event in found} == ({"ADDED"} if listed else set())
        assert places(event["object"] for event in found) == places(listed)


async def test_of_one_object(events: Events, shared_service: Service) -> None:
    listed = (await shared_service.get("/api/v1/pods"))["items"]
    namespace, name = listed[0]["metadata"]["namespace"], listed[0]["metadata"]["name"]
    wanted = [place for place in places(listed) if place[1:] == (namespace, name)]
    path = f"/api/v1/watch/namespaces/{namespace}/pods/{name}"
    assert places(event["object"] for event in await events(path)) == wanted
    below = [place for place in wanted if place[0] == "alpha"]
    assert places(event["object"] for event in await events(f"/clusters/alpha{path}")) == below
    assert (await events(path, fieldSelector="metadata.name=another"))[0] == 400
    assert places(event["object"] for event in await events(path, fieldSelector=f"metadata.name={name}")) == wanted
    assert places(event["object"] for event in await events("/api/v1/watch/namespaces/default")) == [
        ("alpha", "", "default"),
        ("bravo", "", "default"),
    ]
    assert (await events(f"/api/v1/watch/pods/{name}"))[0] == 404
    assert (await events("/api/v1/watch/unheard"))[0] == 404


async def test_they_resume_and_are_told_of_bad_options(events: Events, shared_service: Service) -> None:
    version = (await shared_service.get("/api/v1/pods"))["metadata"]["resourceVersion"]
    assert await events("/api/v1/watch/pods", resourceVersion=version) == []
    [event] = await events("/api/v1/watch/pods", resourceVersion="nowhere.1.")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert (await events("/api/v1/watch/pods", resourceVersionMatch="Exact"))[0] == 422
    bookmark, *_ = await events(
        "/api/v1/watch/pods",
        labelSelector="no=one",
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
        timeoutSeconds="2",
        limit="1",
    )
    assert bookmark["type"] == "BOOKMARK"


async def test_of_what_is_not_synced_the_cluster_has_its_own(
    events: Events, shared_members: Members, shared_service: Service
) -> None:
    body = {"metadata": {"name": "old-path"}}
    async with aiohttp.ClientSession() as session:
        async with session.post(shared_members["alpha"].url + SECRETS, json=body) as answer:
            assert answer.status == 201
            made = await answer.json()
    found = await events(
        "/clusters/alpha/api/v1/watch/namespaces/default/secrets", fieldSelector="metadata.name=old-path"
    )
    assert [event["object"]["metadata"]["resourceVersion"] for event in found] == [made["metadata"]["resourceVersion"]]
    assert (await events("/api/v1/watch/secrets"))[0] == 404


async def test_writes_are_not_taken_there(shared_service: Service) -> None:
    async with aiohttp.ClientSession() as session:
        for scope in ("", "/clusters/alpha"):
            url = f"{shared_service.url}{scope}/api/v1/watch/namespaces/default/pods"
            for method in ("POST", "DELETE"):
                async with session.request(method, url, json={"kind": "Pod", "apiVersion": "v1"}) as answer:
                    assert answer.status == 405, await answer.text()
