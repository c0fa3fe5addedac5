"""Watches: Kubernetes' test/e2e/apimachinery/watch.go and watchlist.go.

Where those wait for what should not come, a mark is written here after everything else: what is seen before it has to
be exactly what is expected.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from tests.conformance.endpoint import MERGE, Endpoint, Refused, told
from tests.conformance.scenarios import scenario

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

LABEL = "watch-this-configmap"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
INITIAL = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}

STREAMED_TABLES = dict.fromkeys(
    ("cluster", "root"), "on purpose, initial events come as tables, too (docs/compatibility.md)"
)


def config_map(name: str, label: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {LABEL: label}}}


def maps_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def version_of(one: dict[str, Any]) -> str:
    return str(one["metadata"]["resourceVersion"])


@scenario("watch.go", "should observe add, update, and delete watch notifications on configmaps")
async def test_every_change_of_what_is_selected(endpoint: Endpoint) -> None:
    a, b = "multiple-watchers-A", "multiple-watchers-B"
    async with endpoint.namespace() as namespace, contextlib.AsyncExitStack() as stack:
        maps = maps_of(namespace)
        watches = {
            labels: await stack.enter_async_context(
                endpoint.watch(maps, labelSelector=f"{LABEL} in ({','.join(labels)})")
            )
            for labels in ((a,), (b,), (a, b))
        }
        made = await endpoint.create(maps, config_map("e2e-watch-test-configmap-a", a))
        first = await endpoint.update(f"{maps}/e2e-watch-test-configmap-a", data={"mutation": "1"})
        second = await endpoint.update(f"{maps}/e2e-watch-test-configmap-a", data={"mutation": "2"})
        await endpoint.delete(f"{maps}/e2e-watch-test-configmap-a")
        other = await endpoint.create(maps, config_map("e2e-watch-test-configmap-b", b))
        await endpoint.delete(f"{maps}/e2e-watch-test-configmap-b")
        of_a = [("ADDED", made), ("MODIFIED", first), ("MODIFIED", second), ("DELETED", second)]
        of_b = [("ADDED", other), ("DELETED", other)]
        mark_a, mark_b = await endpoint.mark(maps, {LABEL: a}), await endpoint.mark(maps, {LABEL: b})
        for labels, expected, mark in (((a,), of_a, mark_a), ((b,), of_b, mark_b), ((a, b), of_a + of_b, mark_a)):
            events = await watches[labels].until(mark)
            assert len(events) == len(expected)
            for event, (kind, one) in zip(events, expected, strict=True):
                assert event.type == kind
                if kind == "DELETED":
                    # The last state, with the version of the deletion.
                    assert event.version != version_of(one)
                    one = {**one, "metadata": {**one["metadata"], "resourceVersion": event.version}}
                assert event.object == one


@scenario("watch.go", "should be able to start watching from a specific resource version")
async def test_from_a_version_on(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        name = "e2e-watch-test-resource-version"
        await endpoint.create(maps, config_map(name, "from-resource-version"))
        first = await endpoint.update(f"{maps}/{name}", data={"mutation": "1"})
        second = await endpoint.update(f"{maps}/{name}", data={"mutation": "2"})
        await endpoint.delete(f"{maps}/{name}")
        query = {"labelSelector": f"{LABEL} in (from-resource-version)", "resourceVersion": version_of(first)}
        async with endpoint.watch(maps, **query) as watch:
            mark = await endpoint.mark(maps, {LABEL: "from-resource-version"})
            modified, deleted = await watch.until(mark)
    assert (modified.type, modified.object) == ("MODIFIED", second)
    assert (deleted.type, deleted.object["data"]) == ("DELETED", {"mutation": "2"})


@scenario(
    "watch.go",
    "should be able to restart watching from the last resource version observed by the previous watch",
)
async def test_from_the_last_version_on(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        name = "e2e-watch-test-watch-closed"
        selector = f"{LABEL} in (watch-closed-and-restarted)"
        async with endpoint.watch(maps, labelSelector=selector) as watch:
            made = await endpoint.create(maps, config_map(name, "watch-closed-and-restarted"))
            first = await endpoint.update(f"{maps}/{name}", data={"mutation": "1"})
            assert told(await watch.take(2)) == [("ADDED", made), ("MODIFIED", first)]
        second = await endpoint.update(f"{maps}/{name}", data={"mutation": "2"})
        async with endpoint.watch(maps, labelSelector=selector, resourceVersion=version_of(first)) as watch:
            await endpoint.delete(f"{maps}/{name}")
            mark = await endpoint.mark(maps, {LABEL: "watch-closed-and-restarted"})
            modified, deleted = await watch.until(mark)
    assert (modified.type, modified.object) == ("MODIFIED", second)
    assert (deleted.type, deleted.name) == ("DELETED", name)


@scenario("watch.go", "should observe an object deletion if it stops meeting the requirements of the selector")
async def test_what_leaves_and_enters_the_selector(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        name, label = "e2e-watch-test-label-changed", "label-changed-and-restored"
        path = f"{maps}/{name}"
        async with endpoint.watch(maps, labelSelector=f"{LABEL} in ({label})") as watch:
            made = await endpoint.create(maps, config_map(name, label))
            first = await endpoint.update(path, data={"mutation": "1"})
            left = await endpoint.patch(path, {"metadata": {"labels": {LABEL: "wrong-value"}}})
            await endpoint.update(path, data={"mutation": "2"})
            restored = await endpoint.patch(path, {"metadata": {"labels": {LABEL: label}}})
            third = await endpoint.update(path, data={"mutation": "3"})
            await endpoint.delete(path)
            mark = await endpoint.mark(maps, {LABEL: label})
            events = await watch.until(mark)
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "MODIFIED", "DELETED"]
    assert [event.object for event in events[:2]] == [made, first]
    # The last state that matched, with the version of the change.
    expected = {**first, "metadata": {**first["metadata"], "resourceVersion": version_of(left)}}
    assert events[2].object == expected
    assert [event.object for event in events[3:5]] == [restored, third]


async def produce(endpoint: Endpoint, maps: str, chance: random.Random) -> None:
    """Creates, changes and deletes ConfigMaps until it is cancelled (`produceConfigMapEvents`)."""
    existing: list[int] = []
    number = 0
    while True:
        choice = chance.randrange(3) if existing else 0
        if choice == 0:
            await endpoint.create(maps, {"metadata": {"name": f"cm-{number}"}})
            existing.append(number)
            number += 1
        elif choice == 1:
            path = f"{maps}/cm-{chance.choice(existing)}"
            await endpoint.patch(path, {"data": {"random": str(chance.random())}}, MERGE)
        else:
            await endpoint.delete(f"{maps}/cm-{existing.pop(chance.randrange(len(existing)))}")
        await asyncio.sleep(0.005)


@scenario("watch.go", "should receive events on concurrent watches in same order")
async def test_concurrent_watches_have_one_order(endpoint: Endpoint) -> None:
    iterations = 40
    async with endpoint.namespace() as namespace, contextlib.AsyncExitStack() as stack:
        maps = maps_of(namespace)
        version = version_of(await endpoint.get(maps))
        producer = asyncio.create_task(produce(endpoint, maps, random.Random(5)))
        try:
            watches = []
            for _ in range(iterations):
                watches.append(await stack.enter_async_context(endpoint.watch(maps, resourceVersion=version)))
                versions = [(await watch.take(1))[0].version for watch in watches]
                assert set(versions) == {versions[0]}
                version = versions[0]
        finally:
            producer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producer


async def add_well_known(endpoint: Endpoint, maps: str) -> list[dict[str, Any]]:
    """Five objects with the label `watchlist`; Secrets in Kubernetes' tests, which kubebraid does not sync unasked."""
    return [
        await endpoint.create(maps, {"metadata": {"name": f"map-{number}", "labels": {"watchlist": "true"}}})
        for number in range(1, 6)
    ]


@scenario(
    "watchlist.go", "should be requested by informers when WatchListClient is enabled", age="watches stream lists"
)
async def test_an_informer_streams_its_list(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        expected = await add_well_known(endpoint, maps)
        async with endpoint.watch(maps, labelSelector="watchlist=true", **INITIAL) as watch:
            initial = [await watch.next() for _ in range(6)]
            assert [(one.type, one.object) for one in initial[:5] if one] == [("ADDED", one) for one in expected]
            end = initial[5]
            assert end is not None
            assert end.type == "BOOKMARK"
            assert end.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            changed = await endpoint.patch(f"{maps}/map-1", {"data": {"foo": "bar"}})
            assert told(await watch.take(1)) == [("MODIFIED", changed)]
        # A watch goes on where the initial events ended.
        async with endpoint.watch(maps, labelSelector="watchlist=true", resourceVersion=end.version) as watch:
            assert told(await watch.take(1)) == [("MODIFIED", changed)]


@scenario("watchlist.go", "should NOT be requested by client-go's List method when WatchListClient is enabled")
async def test_a_plain_list(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        expected = await add_well_known(endpoint, maps)
        listed = await endpoint.get(maps, labelSelector="watchlist=true")
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert [{"kind": "ConfigMap", "apiVersion": "v1", **one} for one in listed["items"]] == expected
    # The type is said once, by the list.
    assert all("kind" not in one and "apiVersion" not in one for one in listed["items"])


@scenario("watchlist.go", "should NOT be requested by metadata client's List method when WatchListClient is enabled")
async def test_a_list_of_metadata(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        expected = [one["metadata"] for one in await add_well_known(endpoint, maps)]
        listed = await endpoint.get_as(METADATA_LIST, maps, labelSelector="watchlist=true")
        one = await endpoint.get_as(METADATA, f"{maps}/map-1")
    assert [item["metadata"] for item in listed["items"]] == expected
    assert one == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": expected[0]}


@scenario(
    "watchlist.go",
    "doesn't support receiving resources as Tables",
    fails=STREAMED_TABLES,
    age="streamed lists are no tables",
)
async def test_initial_events_have_no_table(endpoint: Endpoint) -> None:
    with pytest.raises(Refused) as refused:
        async with endpoint.watch(maps_of("default"), TABLE, **INITIAL):
            pass
    assert refused.value.code == 406


@scenario(
    "watchlist.go",
    "falls backs to supported content type when when receiving resources as Tables was requested",
    fails=STREAMED_TABLES,
    age="streamed lists are no tables",
)
async def test_initial_events_fall_back_from_a_table(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        expected = await add_well_known(endpoint, maps)
        accept = f"{TABLE},application/json"
        async with endpoint.watch(maps, accept, labelSelector="watchlist=true", **INITIAL) as watch:
            assert told(await watch.take(5)) == [("ADDED", one) for one in expected]


@pytest.mark.parametrize("version", [None, "0"])
@scenario(
    "kube-apiserver 1.36",
    "the end of the initial events is marked for every watch with bookmarks",
    age="initial events end unasked",
)
async def test_initial_events_end_unasked(endpoint: Endpoint, version: str | None) -> None:
    async with endpoint.namespace() as namespace:
        maps = maps_of(namespace)
        expected = await add_well_known(endpoint, maps)
        query = {"labelSelector": "watchlist=true", "allowWatchBookmarks": "true", "timeoutSeconds": "2"}
        now = (await endpoint.get(maps))["metadata"]["resourceVersion"]
        # A member's watch cache may be behind, and a watch of any version is of what that has.
        await endpoint.get(maps, resourceVersion=now, resourceVersionMatch="NotOlderThan")
        async with endpoint.watch(maps, **query, **({} if version is None else {"resourceVersion": version})) as watch:
            events = await watch.rest()
    assert told(events[:5]) == [("ADDED", one) for one in expected]
    assert events[5].type == "BOOKMARK"
    assert events[5].object["metadata"].get("annotations") == {"k8s.io/initial-events-end": "true"}
