"""Storage, against a model that keeps every state of the past."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.resources import BUILT_IN
from simulation.storage import ClusterStorage, HistoryGone, encode_object

PODS = next(type for type in BUILT_IN if type.resource == "pods")


def body(storage: ClusterStorage, namespace: str, name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": storage.new_uid(), "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "remove", "compact"]),
        st.sampled_from(["a", "a-b", "b"]),
        st.sampled_from(["x", "y", "z"]),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(steps, st.integers(2, 20))
@settings(max_examples=60)
def test_against_a_model(script: list[tuple[str, str, str, int]], history: int) -> None:
    storage = ClusterStorage(first_version=5000, history=history)
    pods = storage.add_type(PODS)
    now: dict[str, str] = {}
    past = {storage.version: dict(now)}
    for action, namespace, name, number in script:
        path = f"{namespace}/{name}"
        if action == "put":
            storage.put(pods, body(storage, namespace, name, number=str(number)))
            now[path] = str(number)
        elif action == "remove":
            gone = storage.remove(pods, namespace, name)
            assert (gone is not None) == (now.pop(path, None) is not None)
        else:
            storage.compact()
        past[storage.version] = dict(now)
        storage.check()
    for version, expected in past.items():
        try:
            snapshot = pods.snapshot(version, storage.version)
        except HistoryGone:
            assert version < pods.floor
            continue
        assert version >= pods.floor
        assert list(snapshot.paths) == sorted(expected)
        assert {s.path: s.labels["number"] for s in snapshot.objects} == expected
        # The events after it lead to the present.
        state = dict(expected)
        for event in pods.since(pods.cursor_at(version), 10_000):
            if event.type == "DELETED":
                assert event.previous is not None
                assert event.current.version == event.version > event.previous.version
                del state[event.current.path]
            else:
                assert (event.type == "ADDED") == (event.current.path not in state)
                state[event.current.path] = event.current.labels["number"]
        assert state == now


def test_versions_belong_to_the_cluster_and_only_grow() -> None:
    storage = ClusterStorage(first_version=4000)
    pods = storage.add_type(PODS)
    others = storage.add_type(next(type for type in BUILT_IN if type.resource == "configmaps"))
    first = storage.put(pods, body(storage, "a", "x"))
    second = storage.put(others, {"metadata": {"name": "c", "namespace": "a", "uid": storage.new_uid()}})
    removed = storage.remove(pods, "a", "x")
    assert removed is not None
    assert [first.version, second.version, removed.version] == [4001, 4002, 4003]
    assert removed.body()["metadata"]["resourceVersion"] == "4003"
    assert removed.body()["metadata"]["uid"] == first.uid


def test_bounded_history_forgets_the_oldest() -> None:
    storage = ClusterStorage(first_version=0, history=10)
    pods = storage.add_type(PODS)
    for _ in range(100):
        storage.put(pods, body(storage, "a", "x"))
    assert 10 <= len(pods.events) <= 13
    with pytest.raises(HistoryGone):
        pods.cursor_at(50)
    assert len(pods.since(pods.cursor_at(95), 100)) == 5


def test_events_are_encoded_once_for_all() -> None:
    storage = ClusterStorage()
    pods = storage.add_type(PODS)
    storage.put(pods, body(storage, "a", "x"))
    [event] = pods.since(pods.cursor_at(storage.first_version), 10)
    assert event.encoded("ADDED", PODS.head()) is event.encoded("ADDED", PODS.head())


def test_a_version_in_a_label_is_not_taken_for_the_version() -> None:
    storage = ClusterStorage()
    spiteful = body(storage, "a", "x")
    spiteful["metadata"]["annotations"] = {"a": '"resourceVersion":"1"'}
    stored = encode_object(PODS, spiteful, 7).with_version(8)
    assert stored.body()["metadata"]["resourceVersion"] == "8"
    assert stored.body()["metadata"]["annotations"] == {"a": '"resourceVersion":"1"'}


def test_uids_look_like_uuids_and_follow_the_seed() -> None:
    uids = [ClusterStorage(seed=3).new_uid() for _ in range(2)]
    assert uids[0] == uids[1]
    assert len(uids[0]) == 36
    assert uids[0][14] == "4"
    assert uids[0][19] in "89ab"
