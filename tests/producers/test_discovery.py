"""Types that appear, change their version and go: custom ones and aggregated APIs, by either kind of discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from materializer.cursor import changes
from materializer.filter import Filter
from producers.apiserver import ApiServer, Refused
from producers.discovery import discover, registered
from producers.kubeconfig import Context
from producers.rules import Rules
from simulation.resources import ResourceType

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BOATS = ("sea.example.io", "boats")
REPORTS = ResourceType("reports.example.io", ("v1",), "reports", "Report")
SAMPLES = ResourceType("reports.example.io", ("v1",), "samples", "Sample", verbs=("get", "list"))


def crd(*served: str, storage: str = "") -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    storage = storage or served[-1]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.io"},
        "spec": {
            "group": "sea.example.io",
            "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "versions": [
                {"name": name, "served": name in served, "storage": name == storage, "schema": schema}
                for name in dict.fromkeys((*served, storage))
            ],
        },
    }


async def eventually(check: Callable[[], Any], patience: float = 30.0) -> Any:
    limit = asyncio.get_running_loop().time() + patience
    while not (found := check()):
        assert asyncio.get_running_loop().time() < limit, "did not happen"
        await asyncio.sleep(0.05)
    return found


def names(store, key) -> list[str]:
    kind = store.types.get(key)
    return sorted(entry.name for entry in kind.select(Filter())) if kind is not None else []


@pytest.fixture(params=[True, False], ids=["aggregated discovery", "older discovery"])
def cluster(rig, request):
    rig.cluster.faults.aggregated_discovery = request.param
    return rig.cluster


async def boat(rig, name: str, version: str) -> None:
    body = {"apiVersion": f"sea.example.io/{version}", "kind": "Boat", "metadata": {"name": name}}
    await rig.request("POST", f"/apis/sea.example.io/{version}/namespaces/default/boats", body)


async def test_a_custom_type_appears_changes_its_version_and_goes(rig, cluster):
    warm = await rig.materializer()
    store = warm.store
    await rig.produce("*")
    await rig.request("POST", CRDS, crd("v1alpha1"))
    await boat(rig, "gull", "v1alpha1")
    await eventually(lambda: names(store, BOATS) == ["gull"])
    assert store.clusters["alpha"].types[BOATS].version == "v1alpha1"
    start = store.applied

    path = f"{CRDS}/boats.sea.example.io"
    await rig.request("PATCH", path, {"spec": crd("v1beta1", "v1alpha1")["spec"]}, "application/merge-patch+json")
    info = await eventually(lambda: (one := store.clusters["alpha"].types[BOATS]).version == "v1beta1" and one)
    assert info.versions == ("v1beta1", "v1alpha1")
    await boat(rig, "tern", "v1beta1")
    await eventually(lambda: names(store, BOATS) == ["gull", "tern"])
    await eventually(lambda: {entry.version for entry in store.types[BOATS].live()} == {"v1beta1"})
    # What was shown of it: the old one in its new version, the new one once.
    shown, _ = changes(store.types[BOATS], start, Filter(), 100)
    assert sorted((change.type, change.entry.name) for change in shown) == [("ADDED", "tern"), ("MODIFIED", "gull")]

    await rig.request("PATCH", path, {"spec": crd("v1beta1")["spec"]}, "application/merge-patch+json")
    await eventually(lambda: store.clusters["alpha"].types[BOATS].versions == ("v1beta1",))
    cold = await rig.materializer()
    assert names(cold.store, BOATS) == ["gull", "tern"]
    assert {entry.version for entry in cold.store.types[BOATS].live()} == {"v1beta1"}

    start = store.applied
    await rig.request("DELETE", path)
    await eventually(lambda: BOATS not in store.clusters["alpha"].types)
    assert names(store, BOATS) == []
    shown, _ = changes(store.types[BOATS], start, Filter(), 100)
    assert sorted((change.type, change.entry.name) for change in shown) == [("DELETED", "gull"), ("DELETED", "tern")]
    cold = await rig.materializer()
    assert names(cold.store, BOATS) == []
    assert BOATS not in cold.store.clusters["alpha"].types


async def test_a_rule_chooses_among_versions(rig, cluster):
    await rig.request("POST", CRDS, crd("v1beta1", "v1alpha1"))
    await boat(rig, "gull", "v1alpha1")
    warm = await rig.materializer()
    await rig.produce("boats.sea.example.io/v1alpha1", "pods")
    await eventually(lambda: names(warm.store, BOATS) == ["gull"])
    assert {entry.version for entry in warm.store.types[BOATS].live()} == {"v1alpha1"}


async def test_an_aggregated_api_comes_is_away_comes_back_and_goes(rig, cluster):
    warm = await rig.materializer()
    store = warm.store
    key = REPORTS.key
    producer, _ = await rig.produce("*")
    following = producer.clusters["alpha"]
    cluster.aggregate(REPORTS)
    cluster.aggregate(SAMPLES)
    await rig.request("POST", "/apis/reports.example.io/v1/namespaces/default/reports", {"metadata": {"name": "one"}})
    await eventually(lambda: names(store, key) == ["one"])
    assert SAMPLES.key not in store.clusters["alpha"].types, "it cannot be watched"
    assert SAMPLES.key not in following.informers

    cluster.faults.unavailable("reports.example.io")
    cluster.faults.cut_watches()
    following.rediscover()
    health = await eventually(lambda: store.clusters["alpha"].type_health.get(key))
    assert "503" in health.reason or "connection refused" in health.reason
    # Something that comes after the group has been found away, so that it was looked at.
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in store.clusters["alpha"].types)
    assert names(store, key) == ["one"]
    assert key in store.clusters["alpha"].types
    assert len(await rig.settled(warm, "/api/v1/pods", "", "pods")) == 30

    cluster.faults.unavailable()
    body = {"metadata": {"name": "two"}}
    await rig.request("POST", "/apis/reports.example.io/v1/namespaces/default/reports", body)
    following.hurry()
    await eventually(lambda: names(store, key) == ["one", "two"])
    await eventually(lambda: key not in store.clusters["alpha"].type_health)

    cluster.retire("reports.example.io")
    await eventually(lambda: key not in store.clusters["alpha"].types)
    assert names(store, key) == []


async def test_a_group_that_discovery_forgets_while_it_is_away_is_kept(rig, monkeypatch):
    """As servers do that leave a group out while its own server does not answer."""
    warm = await rig.materializer()
    key = REPORTS.key
    rig.cluster.aggregate(REPORTS)
    await rig.request("POST", "/apis/reports.example.io/v1/namespaces/default/reports", {"metadata": {"name": "one"}})
    producer, _ = await rig.produce("*")
    await eventually(lambda: names(warm.store, key) == ["one"])
    groups = rig.cluster.api._groups
    monkeypatch.setattr(
        rig.cluster.api, "_groups", lambda: {k: v for k, v in groups().items() if k != "reports.example.io"}
    )
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in warm.store.clusters["alpha"].types)
    assert key in warm.store.clusters["alpha"].types
    assert names(warm.store, key) == ["one"]
    rig.cluster.retire("reports.example.io")
    producer.clusters["alpha"].rediscover()
    await eventually(lambda: key not in warm.store.clusters["alpha"].types)


async def test_a_group_that_talks_nonsense_hinders_nobody(rig, monkeypatch):
    rig.cluster.faults.aggregated_discovery = False
    server = ApiServer(Context("alpha", str(rig.kubeconfig), "alpha"))
    get = server.get

    async def odd(path: str, *arguments: Any, **named: Any) -> tuple[bytes, str]:
        if path == "/apis/apps/v1":
            return b"<html>", "text/html"
        if path == "/apis/batch/v1":
            raise Refused(500, "InternalError", "no")
        return await get(path, *arguments, **named)

    monkeypatch.setattr(server, "get", odd)
    try:
        found = await discover(server)
        assert found.doubtful == {"apps", "batch"}
        titles = {versions[0].title for versions in found.types}
        assert "pods" in titles
        assert "deployments.apps" not in titles
        assert await registered(server) == frozenset()
    finally:
        await server.close()


async def test_both_kinds_of_discovery_say_the_same(rig):
    rig.cluster.aggregate(REPORTS)
    await rig.request("POST", CRDS, crd("v1beta1", "v1alpha1"))
    found = []
    for aggregated in (True, False):
        rig.cluster.faults.aggregated_discovery = aggregated
        server = ApiServer(Context("alpha", str(rig.kubeconfig), "alpha"))
        try:
            found.append(await discover(server))
            assert await registered(server) == {"reports.example.io"}
        finally:
            await server.close()
    assert {one[0].title: one for one in found[0].types} == {one[0].title: one for one in found[1].types}
    chosen = {one.kind.title: one.kind.version for one in Rules.of(("*",)).chosen(found[0])}
    assert chosen["boats.sea.example.io"] == "v1beta1"
    assert "secrets" not in chosen


@pytest.mark.parametrize("ahead", [5400.0, -5400.0])
async def test_a_cluster_whose_clock_is_wrong(rig, ahead):
    """It is told, and nothing goes by it: changes arrive, tombstones are kept, lag is in our time."""
    rig.cluster.faults.clock = ahead
    warm = await rig.materializer()
    producer, _ = await rig.produce("pods", "configmaps")
    path = "/api/v1/namespaces/default/configmaps"
    await rig.request("POST", path, {"metadata": {"name": "late"}})
    await eventually(lambda: "late" in names(warm.store, ("", "configmaps")))
    await rig.request("DELETE", f"{path}/late")
    await eventually(lambda: "late" not in names(warm.store, ("", "configmaps")))
    warm.store.forget(warm.log.now())
    cold = await rig.materializer()
    for one in (warm, cold):
        assert ("default", "late") in one.store.types["", "configmaps"].graves["alpha"]
    assert abs(producer.clusters["alpha"].server.clock_offset - ahead) < 30
    text = producer.metrics.text().decode()
    value = next(line for line in text.splitlines() if line.startswith("kubebraid_cluster_clock_offset_seconds{"))
    assert abs(float(value.split()[-1]) - ahead) < 30
    start = 'kubebraid_producer_lag_seconds_sum{cluster="alpha",type="configmaps"}'
    lag = next(line for line in text.splitlines() if line.startswith(start))
    assert 0 <= float(lag.split()[-1]) < 60
