"""The second source: states that are handed over before the cluster's watch tells them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deltalog.handover import NotTaken
from deltalog.wire.kubernetes import GroupResource, ObjectKey
from materializer.cursor import Cursor, changes
from materializer.entry import Entry, object_key
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.store import Outcome, Store
from tests.patience import PATIENCE, eventually
from tests.producers.conftest import Rig

PATH = "/api/v1/namespaces/default/configmaps"
KEY = GroupResource("", "configmaps")


def entry(store: Store, name: str) -> Entry | None:
    kind = store.types.get(KEY)
    return None if kind is None else kind.get("alpha", object_key("default", name))


def held(store: Store, name: str) -> Entry:
    found = entry(store, name)
    assert found is not None
    return found


async def hand(warm: Materializer, answer: dict[str, Any], **given: Any) -> int:
    return await warm.append("alpha", *KEY, json.dumps(answer).encode(), timeout=PATIENCE, **given)


async def test_a_write_is_readable_before_the_watch_has_it_and_appended_once(rig: Rig) -> None:
    warm = await rig.materializer()
    await rig.produce("configmaps")
    start = warm.store.applied
    rig.cluster.faults.hang_watches()
    made = await rig.request("POST", PATH, {"metadata": {"name": "own"}})
    index = await hand(warm, made)
    assert held(warm.store, "own").member_version == made["metadata"]["resourceVersion"]
    assert held(warm.store, "own").index == index
    changed = await rig.request("PATCH", f"{PATH}/own", {"data": {"a": "b"}}, "application/merge-patch+json")
    index = await hand(warm, changed)
    assert json.loads(held(warm.store, "own").body)["data"] == {"a": "b"}
    # Older ones, and the same again, change nothing.
    await hand(warm, made)
    await hand(warm, changed)
    assert held(warm.store, "own").member_version == changed["metadata"]["resourceVersion"]

    other = await rig.request("POST", PATH, {"metadata": {"name": "other"}})
    await hand(warm, other)
    gone = await rig.request("DELETE", f"{PATH}/other")
    version = str(int(other["metadata"]["resourceVersion"]) + 1)
    await hand(warm, {**other, "metadata": {**other["metadata"], "resourceVersion": version}}, deleted=True)
    assert gone
    assert entry(warm.store, "other") is None

    # Now the watch tells all of it, then something new.
    rig.cluster.faults.hang_watches(False)
    await rig.request("POST", PATH, {"metadata": {"name": "later"}})
    await eventually(lambda: entry(warm.store, "later"))
    shown, _ = changes(warm.store.types[KEY], Cursor(start).position(warm.store.types[KEY]), Filter(), 100)
    assert [(one.type, one.entry.name) for one in shown] == [
        *(("ADDED", "own"), ("MODIFIED", "own")),
        *(("ADDED", "other"), ("DELETED", "other")),
        ("ADDED", "later"),
    ]
    cold = await rig.materializer()
    assert held(cold.store, "own").index == index, "the watch's copies were not appended"
    assert [one.body for one in cold.store.types[KEY].select(Filter())] == [
        one.body for one in warm.store.types[KEY].select(Filter())
    ]


async def test_a_list_that_is_older_takes_nothing_back(rig: Rig) -> None:
    rig.cluster.faults.initial_events = "refused"
    warm = await rig.materializer()
    producer, _ = await rig.produce("configmaps")
    for number in range(3):
        await rig.request("POST", PATH, {"metadata": {"name": f"c{number}"}})
    await eventually(lambda: entry(warm.store, "c2"))
    informer = producer.clusters["alpha"].informers[KEY]
    (reflector,) = informer.reflectors
    # While a list is taken there is no watch.
    rig.cluster.faults.hang_watches()
    before = await rig.request("GET", PATH)
    changed = await rig.request("PATCH", f"{PATH}/c0", {"data": {"a": "b"}}, "application/merge-patch+json")
    new = await rig.request("POST", PATH, {"metadata": {"name": "new"}})
    for one in (changed, new):
        await hand(warm, one)
    # A list from before, as one that was under way would be.
    writer = reflector.writer
    seen: set[ObjectKey] = set()
    for item in before["items"]:
        name = await writer.observe(json.dumps(item).encode(), listed=True)
        assert name is not None
        seen.add(name)
    await writer.delete_all_but(seen, before["metadata"]["resourceVersion"])
    await writer.settle()
    await warm.wait_current(PATIENCE)
    assert held(warm.store, "c0").member_version == changed["metadata"]["resourceVersion"]
    assert held(warm.store, "new").member_version == new["metadata"]["resourceVersion"]


async def test_many_at_once_beside_the_watch(rig: Rig) -> None:
    warm = await rig.materializer()
    await rig.produce("configmaps")
    await rig.request("POST", PATH, {"metadata": {"name": "own"}})

    async def write(number: int) -> None:
        answer = await rig.request("PATCH", f"{PATH}/own", {"data": {"n": str(number)}}, "application/merge-patch+json")
        await hand(warm, answer)
        found = held(warm.store, "own")
        assert int(found.member_version) >= int(answer["metadata"]["resourceVersion"])

    await asyncio.gather(*(write(number) for number in range(40)))
    kind = "/api/v1/configmaps"
    await rig.settled(warm, kind, *KEY)
    assert warm.store.outcomes[Outcome.NOT_NEWER] == 0, "each state was appended once"


@pytest.mark.parametrize(
    ("cluster", "resource", "body", "said"),
    [
        ("nobody", "configmaps", b"{}", "nobody produces"),
        ("alpha", "secrets", b"{}", "secrets is not synced"),
        ("alpha", "configmaps", b"{", "not a Kubernetes object"),
        ("alpha", "configmaps", b"[]", "not a Kubernetes object"),
        ("alpha", "configmaps", b'{"metadata":{}}', "without a name"),
    ],
)
async def test_what_is_not_taken(rig: Rig, cluster: str, resource: str, body: bytes, said: str) -> None:
    warm = await rig.materializer()
    await rig.produce("configmaps")
    with pytest.raises(NotTaken, match=said):
        await warm.append(cluster, "", resource, body, timeout=PATIENCE)
