"""Content and churn: believable, seeded, of the size that was asked for."""

from __future__ import annotations

import asyncio
import json

import pytest

from simulation import ClusterStorage, SimulatedCluster
from simulation.storage import Collection
from tests.patience import eventually
from tests.simulation.conftest import Start

PODS = ("", "pods")


def collection(storage: ClusterStorage, resource: str) -> Collection:
    return next(found for key, found in storage.collections.items() if key[1] == resource)


@pytest.mark.parametrize("pods", [0, 1, 2, 7, 10, 33, 100, 400])
def test_exactly_as_many_pods(pods: int) -> None:
    storage = SimulatedCluster("alpha", pods=pods).storage
    assert len(storage.collections[PODS].objects) == pods
    storage.check()


def test_what_belongs_together_does() -> None:
    storage = SimulatedCluster("alpha", pods=200).storage
    uids = {stored.uid for found in storage.collections.values() for stored in found.objects.values()}
    nodes = {stored.name for stored in collection(storage, "nodes").objects.values()}
    namespaces = {stored.name for stored in collection(storage, "namespaces").objects.values()}
    for found in storage.collections.values():
        for stored in found.objects.values():
            assert set(stored.owners) <= uids
            assert not stored.namespace or stored.namespace in namespaces
            if found.type.resource in ("pods", "deployments", "nodes", "services"):
                assert len(json.dumps(stored.body()["metadata"]["managedFields"])) > 300
    phases = set()
    for stored in storage.collections[PODS].objects.values():
        body = stored.body()
        phases.add(body["status"]["phase"])
        assert body["spec"].get("nodeName", "alpha-node-001") in nodes
        assert {"app", "tier"} <= set(stored.labels)
        assert len(stored.owners) == 1
    assert phases == {"Running", "Pending", "Succeeded"}
    for stored in collection(storage, "replicasets").objects.values():
        pods = [pod for found, pod in storage.dependents(stored.uid) if found.type.key == PODS]
        assert len(pods) == stored.body()["spec"]["replicas"]
        assert all(pod.labels.items() >= stored.labels.items() for pod in pods)
    sizes = [len(stored.tail) for stored in storage.collections[PODS].objects.values()]
    assert 4_000 < sum(sizes) / len(sizes) < 9_000


def test_the_same_seed_makes_the_same_names_and_other_clusters_differ() -> None:
    first = SimulatedCluster("alpha", pods=50, seed=4, version=1000)
    again = SimulatedCluster("alpha", pods=50, seed=4, version=1000)
    later = SimulatedCluster("alpha", pods=50, seed=4)
    other = SimulatedCluster("bravo", pods=50, seed=4)
    pods = [cluster.storage.collections[PODS] for cluster in (first, again, later, other)]
    assert pods[0].paths == pods[1].paths == pods[2].paths != pods[3].paths
    uids = [[stored.uid for stored in found.in_order()] for found in pods]
    assert uids[0] == uids[1] != uids[2]
    assert SimulatedCluster("alpha").storage.first_version >= later.storage.first_version


def test_churn_keeps_the_cluster_whole() -> None:
    cluster = SimulatedCluster("alpha", pods=60)
    pods = cluster.storage.collections[PODS]
    before = cluster.storage.version
    made = 0
    for _ in range(60):
        made += cluster.churn.step(50)
        cluster.storage.check()
        assert abs(len(pods.objects) - 60) <= 6
    assert made == cluster.storage.version - before == cluster.churn.writes
    assert set(cluster.churn.counts) == {
        "readiness",
        "pod_started",
        "pod_replaced",
        "scaled",
        "event",
        "config_map",
        "lease",
        "certificate",
    }
    for stored in collection(cluster.storage, "replicasets").objects.values():
        owned = [pod for found, pod in cluster.storage.dependents(stored.uid) if found.type.key == PODS]
        assert len(owned) == stored.body()["spec"]["replicas"]


def test_churn_bears_what_people_delete() -> None:
    cluster = SimulatedCluster("alpha", pods=30)
    storage = cluster.storage
    for found in list(storage.collections.values()):
        if found.type.resource not in ("namespaces", "customresourcedefinitions"):
            for key in list(found.objects):
                storage.remove(found, *key)
    storage.remove_type(("certs.example.io", "certificates"))
    assert cluster.churn.step(10) == 0


async def test_churn_runs_at_its_rate_and_stops(
    start: Start,
) -> None:
    client = await start(pods=50, churn=400.0)
    storage = client.cluster.storage
    before = storage.version
    await eventually(lambda: storage.version >= before + 200)
    client.cluster.churn.rate = 0.0
    await asyncio.sleep(0.02)
    paused = storage.version
    await asyncio.sleep(0.05)
    assert storage.version == paused
    client.cluster.churn.rate = 1000.0
    await eventually(lambda: storage.version >= paused + 50)
    await client.cluster.churn.stop()
    stopped = storage.version
    await asyncio.sleep(0.05)
    assert storage.version == stopped


async def test_a_watch_under_churn_leads_to_the_present(start: Start) -> None:
    client = await start(pods=60, churn=500.0)
    listed = await client.get("/api/v1/pods")
    state = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in listed["items"]}
    last = int(listed["metadata"]["resourceVersion"])
    async with client.watch("/api/v1/pods", resourceVersion=str(last), timeoutSeconds="3") as stream:
        seen = 0
        while (event := await stream.next()) is not None:
            metadata = event["object"]["metadata"]
            assert int(metadata["resourceVersion"]) > last
            last = int(metadata["resourceVersion"])
            seen += 1
            if event["type"] == "DELETED":
                del state[metadata["uid"]]
            else:
                assert (event["type"] == "ADDED") == (metadata["uid"] not in state)
                state[metadata["uid"]] = metadata["resourceVersion"]
            if seen == 300:
                client.cluster.churn.rate = 0.0
    assert seen >= 300
    present = await client.get("/api/v1/pods")
    assert state == {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in present["items"]}
