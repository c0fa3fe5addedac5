"""Lists: Kubernetes' test/e2e/apimachinery/chunking.go, and what resourceVersion and resourceVersionMatch mean.

The latter are the tables of "Resource versions" in "Kubernetes API Concepts", as `RunTestList` of
k8s.io/apiserver pkg/storage/testing runs through them.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.endpoint import Endpoint, Refused
from tests.conformance.scenarios import scenario

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

TOTAL = 400


@contextlib.asynccontextmanager
async def many(endpoint: Endpoint, count: int = TOTAL) -> AsyncIterator[str]:
    """The path of so many Leases: PodTemplates in Kubernetes' tests, which simulated clusters do not have."""
    async with endpoint.namespace() as namespace:
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        for number in range(count):
            await endpoint.create(leases, {"metadata": {"name": f"template-{number:04d}"}})
        yield leases


def names(listed: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


def version_of(listed: dict[str, Any]) -> str:
    return str(listed["metadata"]["resourceVersion"])


def sorting(endpoint: Endpoint) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Puts items from a member's watch cache into their order, if the member does not itself."""
    if endpoint.does("lists from the watch cache are sorted"):
        return lambda items: items
    return lambda items: sorted(items, key=lambda item: str(item["metadata"]["name"]))


def expect(listed: dict[str, Any], found: int, limit: int) -> int:
    """A page with the next names, and with how many come after it. How many were found then."""
    items = names(listed)
    assert len(items) <= limit
    assert items == [f"template-{number:04d}" for number in range(found, found + len(items))]
    found += len(items)
    if listed["metadata"].get("continue"):
        assert listed["metadata"]["remainingItemCount"] + found == TOTAL
    else:
        assert "remainingItemCount" not in listed["metadata"]
    return found


@scenario("chunking.go", "should return chunks of results for list calls")
async def test_chunks(endpoint: Endpoint) -> None:
    chance = random.Random(3)
    async with many(endpoint) as leases:
        for _ in range(3):
            found, token, version = 0, "", ""
            while True:
                limit = chance.randrange(TOTAL // 10) + 1
                page = await endpoint.get(leases, limit=str(limit), **({"continue": token} if token else {}))
                found = expect(page, found, limit)
                version = version or version_of(page)
                assert version_of(page) == version
                token = page["metadata"].get("continue", "")
                if not token:
                    break
            assert found == TOTAL
        assert len(names(await endpoint.get(leases, limit=str(TOTAL + 1)))) == TOTAL


@contextlib.asynccontextmanager
async def compacted(ground: Ground, endpoint: Endpoint) -> AsyncIterator[Endpoint]:
    """Where the states of before are not kept: the member when it is compacted, an instance without a window."""
    if endpoint.name != "member":
        async with ground.another("--window-memory", "0", scope=endpoint.name) as forgetful:
            yield forgetful
    elif endpoint.simulated:
        await endpoint.ask("POST", "/_simulation/compact", {})
        yield endpoint
    else:
        pytest.skip("a real cluster takes ten minutes to compact")


@scenario(
    "chunking.go",
    "should support continue listing from the last key if the original version has been compacted away, though the "
    "list is inconsistent",
)
async def test_chunks_of_what_was_compacted(ground: Ground, endpoint: Endpoint) -> None:
    limit = TOTAL // 10
    async with many(endpoint) as leases:
        first = await endpoint.get(leases, limit=str(limit))
        found = expect(first, 0, limit)
        token = first["metadata"]["continue"]
        # The version moves on, so that another state is there to go on with.
        await endpoint.patch(f"{leases}/template-0000", {"metadata": {"labels": {"a": "b"}}})
        async with compacted(ground, endpoint) as forgetful:
            with pytest.raises(Refused) as refused:
                await forgetful.get(leases, limit=str(limit), **{"continue": token})
            assert (refused.value.code, refused.value.status["reason"]) == (410, "Expired")
            token, version = refused.value.status["metadata"]["continue"], ""
            while token:
                page = await forgetful.get(leases, limit=str(limit), **{"continue": token})
                if not version:
                    assert len(names(page)) == limit
                found = expect(page, found, limit)
                assert version_of(page) != version_of(first)
                version = version or version_of(page)
                assert version_of(page) == version
                token = page["metadata"].get("continue", "")
        assert found == TOTAL


@scenario(
    "API Concepts",
    "a list at an exact version is the state of that version",
)
async def test_exact(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = f"/api/v1/namespaces/{namespace}/configmaps"
        query = {"labelSelector": "mine"}
        states = []
        labels = {"mine": ""}
        for number in range(3):
            await endpoint.create(maps, {"metadata": {"name": f"m{number}", "labels": labels}})
            states.append(await endpoint.get(maps, **query))
        await endpoint.patch(f"{maps}/m0", {"data": {"a": "b"}})
        states.append(await endpoint.get(maps, **query))
        await endpoint.patch(f"{maps}/m1", {"metadata": {"labels": {"mine": None}}})
        states.append(await endpoint.get(maps, **query))
        await endpoint.delete(f"{maps}/m0")
        states.append(await endpoint.get(maps, **query))
        assert [names(state) for state in states] == [
            ["m0"],
            ["m0", "m1"],
            ["m0", "m1", "m2"],
            ["m0", "m1", "m2"],
            ["m0", "m2"],
            ["m2"],
        ]
        for state in states:
            exact = {"resourceVersion": version_of(state), "resourceVersionMatch": "Exact"}
            assert await endpoint.get(maps, **query, **exact) == state
            # Without a match a version with a limit is exact, too.
            legacy = await endpoint.get(maps, **query, resourceVersion=version_of(state), limit="500")
            assert legacy == state
            page = await endpoint.get(maps, **query, **exact, limit="1")
            items = page["items"]
            while token := page["metadata"].get("continue"):
                assert version_of(page) == version_of(state)
                page = await endpoint.get(maps, **query, limit="1", **{"continue": token})
                items += page["items"]
            assert items == state["items"]


@scenario("API Concepts", "a list not older than a version is the state of now")
async def test_not_older_than(endpoint: Endpoint) -> None:
    async with many(endpoint, 5) as leases:
        whole = await endpoint.get(leases)
        version = version_of(whole)
        await endpoint.create(leases, {"metadata": {"name": "template-0005"}})
        newest = await endpoint.get(leases)
        assert len(names(newest)) == 6
        sort = sorting(endpoint)
        match = {"resourceVersionMatch": "NotOlderThan"}
        for query in ({}, match):
            listed = await endpoint.get(leases, resourceVersion=version, **query)
            assert sort(listed["items"]) == newest["items"]
            assert version_of(listed) != version
        page = await endpoint.get(leases, resourceVersion=version, limit="2", **match)
        assert names(page) == ["template-0000", "template-0001"]
        rest = await endpoint.get(leases, limit="500", **{"continue": page["metadata"]["continue"]})
        assert page["items"] + rest["items"] == newest["items"]
        assert version_of(page) != version


@scenario(
    "API Concepts",
    "a list of version 0 is whole, whatever its limit",
)
async def test_any_version(endpoint: Endpoint) -> None:
    async with many(endpoint, 5) as leases:
        newest = await endpoint.get(leases)
        for query in ({}, {"limit": "2"}, {"resourceVersionMatch": "NotOlderThan", "limit": "2"}):
            listed = await endpoint.get(leases, resourceVersion="0", **query)
            assert sorting(endpoint)(listed["items"]) == newest["items"], query
            assert not listed["metadata"].get("continue")


@scenario("API Concepts", "a continue token goes with the version 0 and with no other")
async def test_tokens_and_versions(endpoint: Endpoint) -> None:
    async with many(endpoint, 5) as leases:
        page = await endpoint.get(leases, limit="2")
        token = {"continue": page["metadata"]["continue"]}
        rest = await endpoint.get(leases, resourceVersion="0", **token)
        assert names(page) + names(rest) == [f"template-{number:04d}" for number in range(5)]
        with pytest.raises(Refused) as refused:
            await endpoint.get(leases, resourceVersion=version_of(page), **token)
        assert refused.value.code == 400
        assert refused.value.status["message"] == "specifying resource version is not allowed when using continue"


@scenario("API Concepts", "a list of a version that is not reached is refused after a while")
async def test_too_large(endpoint: Endpoint) -> None:
    version = version_of(await endpoint.get("/api/v1/namespaces"))
    head, _, index = version.rpartition(".")
    ahead = f"{head}.{int(index) + 1_000_000}" if head else str(int(index) + 1_000_000)
    queries = [{}, {"resourceVersionMatch": "NotOlderThan"}, {"resourceVersionMatch": "Exact"}]
    if not endpoint.does("an exact version that is ahead is 504"):
        queries.pop()
    for query in queries:
        with pytest.raises(Refused) as refused:
            await endpoint.get("/api/v1/namespaces", resourceVersion=ahead, **query)
        assert (refused.value.code, refused.value.status["reason"]) == (504, "Timeout")
        details = refused.value.status["details"]
        assert details["retryAfterSeconds"] == 1
        assert details["causes"][0]["reason"] == "ResourceVersionTooLarge"


@scenario(
    "API Concepts",
    "initial events of a version that is not reached are an ERROR event",
    age="watches stream lists",
)
async def test_initial_events_of_what_is_ahead(endpoint: Endpoint) -> None:
    version = version_of(await endpoint.get("/api/v1/namespaces"))
    head, _, index = version.rpartition(".")
    ahead = f"{head}.{int(index) + 1_000_000}" if head else str(int(index) + 1_000_000)
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": ahead}
    async with endpoint.watch("/api/v1/namespaces", **query) as watch:
        [error] = await watch.rest()
    assert error.type == "ERROR"
    assert (error.object["code"], error.object["reason"]) == (504, "Timeout")
    assert error.object["message"].startswith("Timeout: Too large resource version: ")
