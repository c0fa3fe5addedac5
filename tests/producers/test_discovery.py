"""Types that appear, change their version and go: custom ones and aggregated APIs, by either kind of discovery."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from deltalog.jetstream.stream import Log
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource
from materializer.cursor import Cursor, changes
from materializer.entry import object_key
from materializer.filter import Filter
from materializer.store import Store
from producers.kubeconfig.files import access_of
from producers.rules.rules import Rules
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused, Unreachable
from producers.upstream.definitions import Definitions
from producers.upstream.discovery import discover, registered
from simulation import SimulatedCluster
from simulation.aggregation import registration
from simulation.faults import AwayShown
from simulation.resources import SimulatedType
from tests.ageing import state_at
from tests.patience import PATIENCE, eventually
from tests.producers.conftest import Rig

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BOATS = GroupResource("sea.example.io", "boats")
REPORTS = SimulatedType("reports.example.io", ("v1",), "reports", "Report")
REPORTED = GroupResource(*REPORTS.key)
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CONFIG_MAPS = GroupResource("", "configmaps")
ASSETS = GroupResource("inventory.example.io", "assets")
ASSETS_PATH = "/apis/inventory.example.io/v1/namespaces/default/assets"
SAMPLES = SimulatedType("reports.example.io", ("v1",), "samples", "Sample", verbs=("get", "list"))


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


async def versions_held(log: Log) -> set[str]:
    """The versions in which the log's state has boats."""
    found: list[str] = []
    pattern = "kb.alpha.sea%2Eexample%2Eio.*.boats.>"
    await state_at(log, await log.head())
    await read_to_end(log, lambda record: found.append(record.subject), subjects=(pattern,))
    return {subject.split(".")[3] for subject in found}


def names(store: Store, key: GroupResource) -> list[str]:
    kind = store.types.get(key)
    return sorted(entry.name for entry in kind.select(Filter())) if kind is not None else []


@pytest.fixture(params=[True, False], ids=["aggregated discovery", "older discovery"])
def cluster(rig: Rig, request: pytest.FixtureRequest) -> SimulatedCluster:
    rig.cluster.faults.aggregated_discovery = request.param
    return rig.cluster


async def boat(rig: Rig, name: str, version: str) -> None:
    body = {"apiVersion": f"sea.example.io/{version}", "kind": "Boat", "metadata": {"name": name}}
    await rig.request("POST", f"/apis/sea.example.io/{version}/namespaces/default/boats", body)


async def test_a_custom_type_is_added_changes_its_version_and_is_removed(rig: Rig, cluster: SimulatedCluster) -> None:
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
    await eventually(lambda: store.clusters["alpha"].types[BOATS].version == "v1beta1")
    assert store.clusters["alpha"].types[BOATS].versions == ("v1beta1", "v1alpha1")
    await boat(rig, "tern", "v1beta1")
    await eventually(lambda: names(store, BOATS) == ["gull", "tern"])
    await eventually(lambda: {entry.version for entry in store.types[BOATS].live()} == {"v1beta1"})
    # What was shown of it: the old one in its new version, the new one once.
    shown, _ = changes(store.types[BOATS], Cursor(start).position(store.types[BOATS]), Filter(), 100)
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
    shown, _ = changes(store.types[BOATS], Cursor(start).position(store.types[BOATS]), Filter(), 100)
    assert sorted((change.type, change.entry.name) for change in shown) == [("DELETED", "gull"), ("DELETED", "tern")]
    cold = await rig.materializer()
    assert names(cold.store, BOATS) == []
    assert BOATS not in cold.store.clusters["alpha"].types


async def test_the_synced_version_follows_what_is_preferred_and_served(rig: Rig, cluster: SimulatedCluster) -> None:
    """As a type grows up: a version more, another one stored, the old one served no more."""
    path = f"{CRDS}/boats.sea.example.io"
    await rig.request("POST", CRDS, crd("v1alpha1"))
    await boat(rig, "gull", "v1alpha1")
    warm = await rig.materializer()
    await rig.produce("*")
    info = warm.store.clusters["alpha"].types

    async def becomes(versions: tuple[str, ...], *served: str, stored: str) -> None:
        patch = {"spec": crd(*served, storage=stored)["spec"]}
        await rig.request("PATCH", path, patch, "application/merge-patch+json")
        await eventually(lambda: info[BOATS].versions == versions)
        await boat(rig, f"boat-{len(names(warm.store, BOATS))}", versions[-1])
        served_as = f"/apis/sea.example.io/{versions[0]}/boats"
        entries = await rig.settled(warm, served_as, *BOATS)
        assert {entry.version for entry in entries} == {versions[0]}
        assert {json.loads(entry.body)["apiVersion"] for entry in entries} == {f"sea.example.io/{versions[0]}"}

    await becomes(("v1beta1", "v1alpha1"), "v1beta1", "v1alpha1", stored="v1alpha1")
    await becomes(("v1beta1", "v1alpha1"), "v1beta1", "v1alpha1", stored="v1beta1")
    await becomes(("v1beta1",), "v1beta1", stored="v1beta1")
    await becomes(("v1", "v1beta1"), "v1beta1", "v1", stored="v1beta1")
    cold = await rig.materializer()
    assert {entry.version for entry in cold.store.types[BOATS].live()} == {"v1"}
    assert names(cold.store, BOATS) == names(warm.store, BOATS) != []
    # What is left of the versions before is purged right after the list.
    async with asyncio.timeout(PATIENCE):
        while (await versions_held(warm.log)) != {"v1"}:
            await asyncio.sleep(0.05)


async def test_another_version_that_is_served_too_takes_no_list(rig: Rig, cluster: SimulatedCluster) -> None:
    await rig.request("POST", CRDS, crd("v1"))
    await boat(rig, "gull", "v1")
    warm = await rig.materializer()
    producer, _ = await rig.produce("boats.sea.example.io", "customresourcedefinitions.apiextensions.k8s.io")
    before = producer.clusters["alpha"].informers[BOATS]
    patch = {"spec": crd("v1", "v1beta1")["spec"]}
    await rig.request("PATCH", f"{CRDS}/boats.sea.example.io", patch, "application/merge-patch+json")
    await eventually(lambda: warm.store.clusters["alpha"].types[BOATS].versions == ("v1", "v1beta1"))
    assert producer.clusters["alpha"].informers[BOATS] is before


async def test_a_rule_chooses_among_versions(rig: Rig, cluster: SimulatedCluster) -> None:
    await rig.request("POST", CRDS, crd("v1beta1", "v1alpha1"))
    await boat(rig, "gull", "v1alpha1")
    warm = await rig.materializer()
    producer, _ = await rig.produce("boats.sea.example.io/v1alpha1", "pods")
    await eventually(lambda: names(warm.store, BOATS) == ["gull"])
    assert {entry.version for entry in warm.store.types[BOATS].live()} == {"v1alpha1"}
    patch = {"spec": crd("v1beta1")["spec"]}
    await rig.request("PATCH", f"{CRDS}/boats.sea.example.io", patch, "application/merge-patch+json")
    producer.clusters["alpha"].rediscover()
    # No rule names the version that is left.
    await eventually(lambda: BOATS not in warm.store.clusters["alpha"].types)
    assert names(warm.store, BOATS) == []


async def test_an_aggregated_api_is_added_is_away_comes_back_and_is_removed(
    rig: Rig, cluster: SimulatedCluster
) -> None:
    warm = await rig.materializer()
    store = warm.store
    key = REPORTED
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
    following.state.retry_now()
    await eventually(lambda: names(store, key) == ["one", "two"])
    await eventually(lambda: key not in store.clusters["alpha"].type_health)

    cluster.retire("reports.example.io")
    await eventually(lambda: key not in store.clusters["alpha"].types)
    assert names(store, key) == []


@pytest.mark.parametrize("shown", ["empty", "cached", "missing"])
async def test_an_api_service_is_added_is_away_and_is_removed(
    rig: Rig, cluster: SimulatedCluster, shown: AwayShown
) -> None:
    cluster.faults.away_shown = shown
    warm = await rig.materializer()
    producer, _ = await rig.produce("*")
    store, following = warm.store, producer.clusters["alpha"]
    types, health = store.clusters["alpha"].types, store.clusters["alpha"].type_health
    await rig.request("POST", SERVICES, registration("metrics.k8s.io", "v1beta1"))
    await rig.request("POST", SERVICES, registration(ASSETS[0], "v1"))
    await rig.request("POST", ASSETS_PATH, {"metadata": {"name": "one"}})
    await eventually(lambda: names(store, ASSETS) == ["one"])
    assert not [key for key in types if key[0] == "metrics.k8s.io"], "it cannot be watched"

    cluster.faults.unavailable(ASSETS[0])
    cluster.faults.cut_watches()
    await eventually(lambda: ASSETS in health)
    # One that comes while it is away shows that discovery was finished since.
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in types)
    assert names(store, ASSETS) == ["one"]
    assert ASSETS in types

    cluster.faults.unavailable()
    await rig.request("POST", ASSETS_PATH, {"metadata": {"name": "two"}})
    following.state.retry_now()
    await eventually(lambda: names(store, ASSETS) == ["one", "two"] and ASSETS not in health)

    await rig.request("DELETE", f"{SERVICES}/v1.{ASSETS[0]}")
    await eventually(lambda: ASSETS not in types)
    assert names(store, ASSETS) == []
    assert following.state.counts["assets.inventory.example.io"].deleted == 0, "the removal record is for all"
    cold = await rig.materializer()
    assert ASSETS not in cold.store.clusters["alpha"].types
    await rig.request("POST", SERVICES, registration(ASSETS[0], "v1"))
    await eventually(lambda: names(store, ASSETS) == ["one", "two"])


async def test_a_version_that_is_away_is_not_replaced_by_another(rig: Rig, cluster: SimulatedCluster) -> None:
    cluster.aggregate(SimulatedType("reports.example.io", ("v1", "v1beta1"), "reports", "Report"))
    await rig.request("POST", "/apis/reports.example.io/v1/namespaces/default/reports", {"metadata": {"name": "one"}})
    warm = await rig.materializer()
    await rig.produce("*")
    types = warm.store.clusters["alpha"].types
    await eventually(lambda: names(warm.store, REPORTED) == ["one"])
    cluster.faults.unavailable("v1.reports.example.io")
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in types)
    assert types[REPORTED].version == "v1"
    assert {entry.version for entry in warm.store.types[REPORTED].live()} == {"v1"}
    # Once it is no longer registered, it is away for good.
    await rig.request("DELETE", f"{SERVICES}/v1.reports.example.io")
    await eventually(lambda: types[REPORTED].version == "v1beta1")
    await eventually(lambda: {entry.version for entry in warm.store.types[REPORTED].live()} == {"v1beta1"})
    assert names(warm.store, REPORTED) == ["one"]


async def test_a_producer_that_begins_while_an_api_is_away(rig: Rig, cluster: SimulatedCluster) -> None:
    await rig.request("POST", SERVICES, registration(ASSETS[0], "v1"))
    await rig.request("POST", ASSETS_PATH, {"metadata": {"name": "one"}})
    warm = await rig.materializer()
    _, task = await rig.produce("*")
    await eventually(lambda: names(warm.store, ASSETS) == ["one"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    cluster.faults.unavailable(ASSETS[0])
    await rig.produce("*")
    health = warm.store.clusters["alpha"].type_health
    await eventually(lambda: ASSETS in health)
    assert "not served now" in health[ASSETS].reason
    assert names(warm.store, ASSETS) == ["one"]
    cluster.faults.unavailable()
    await rig.request("POST", ASSETS_PATH, {"metadata": {"name": "two"}})
    await eventually(lambda: names(warm.store, ASSETS) == ["one", "two"] and ASSETS not in health)


@pytest.mark.parametrize(
    "failure", [RequestRefused(503, "ServiceUnavailable", "no"), Unreachable("reset"), b"<html>", b"\xff"]
)
async def test_what_cannot_be_asked_is_not_removed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, failure: Exception | bytes
) -> None:
    """Discovery lacks a group, and whether it is registered can't be learnt just then."""
    await rig.request("POST", SERVICES, registration(ASSETS[0], "v1"))
    await rig.request("POST", ASSETS_PATH, {"metadata": {"name": "one"}})
    warm = await rig.materializer()
    producer, task = await rig.produce("*")
    following = producer.clusters["alpha"]
    await eventually(lambda: names(warm.store, ASSETS) == ["one"])
    get, asked = following.server.get, asyncio.Event()

    async def odd(path: str, *arguments: Any, **named: Any) -> tuple[bytes, str]:
        if path != SERVICES:
            return await get(path, *arguments, **named)
        asked.set()
        if isinstance(failure, Exception):
            raise failure
        return failure, "application/json"

    monkeypatch.setattr(following.server, "get", odd)
    rig.cluster.faults.away_shown = "missing"
    rig.cluster.faults.unavailable(ASSETS[0])
    await eventually(asked.is_set)
    await eventually(lambda: following.state.undiscovered)
    monkeypatch.setattr(following.server, "get", get)
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in warm.store.clusters["alpha"].types)
    assert not task.done()
    assert following.state.undiscovered is None
    assert names(warm.store, ASSETS) == ["one"]


async def test_a_server_that_has_just_started_lacks_custom_types(
    rig: Rig, cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Established they are all the same: nothing is removed, and it is looked at again soon."""
    await rig.request("POST", CRDS, crd("v1"))
    await boat(rig, "gull", "v1")
    warm = await rig.materializer()
    producer, _ = await rig.produce("*")
    await eventually(lambda: names(warm.store, BOATS) == ["gull"])
    groups, asked = cluster.api.descriptions.served_groups, []

    def without_custom() -> Any:
        asked.append(1)
        return {key: value for key, value in groups().items() if not key.endswith("example.io")}

    monkeypatch.setattr(cluster.api.descriptions, "served_groups", without_custom)
    producer.clusters["alpha"].rediscover()
    await eventually(lambda: asked)
    await rig.request("POST", SERVICES, registration("metrics.k8s.io", "v1beta1"))
    before = len(asked)
    await eventually(lambda: len(asked) > before + 4)
    assert BOATS in warm.store.clusters["alpha"].types
    assert names(warm.store, BOATS) == ["gull"]
    monkeypatch.undo()
    await boat(rig, "tern", "v1")
    await eventually(lambda: names(warm.store, BOATS) == ["gull", "tern"])


async def test_a_group_that_discovery_forgets_while_it_is_away_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers do that leave a group out while its own server does not answer."""
    warm = await rig.materializer()
    key = REPORTED
    rig.cluster.aggregate(REPORTS)
    await rig.request("POST", "/apis/reports.example.io/v1/namespaces/default/reports", {"metadata": {"name": "one"}})
    producer, _ = await rig.produce("*")
    await eventually(lambda: names(warm.store, key) == ["one"])
    descriptions = rig.cluster.api.descriptions
    groups = descriptions.served_groups
    monkeypatch.setattr(
        descriptions, "served_groups", lambda: {k: v for k, v in groups().items() if k != "reports.example.io"}
    )
    await rig.request("POST", CRDS, crd("v1"))
    await eventually(lambda: BOATS in warm.store.clusters["alpha"].types)
    assert key in warm.store.clusters["alpha"].types
    assert names(warm.store, key) == ["one"]
    rig.cluster.retire("reports.example.io")
    producer.clusters["alpha"].rediscover()
    await eventually(lambda: key not in warm.store.clusters["alpha"].types)


async def test_a_group_that_cannot_be_decoded_holds_up_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.cluster.faults.aggregated_discovery = False
    server = ApiServer(access_of(str(rig.kubeconfig), "alpha"))
    get = server.get

    async def odd(path: str, *arguments: Any, **named: Any) -> tuple[bytes, str]:
        if path == "/apis/apps/v1":
            return b"<html>", "text/html"
        if path == "/apis/batch/v1":
            raise RequestRefused(500, "InternalError", "no")
        return await get(path, *arguments, **named)

    monkeypatch.setattr(server, "get", odd)
    try:
        found = await discover(server, Definitions(server, lambda: None).current)
        assert found.doubtful == {"apps", "batch"}
        titles = {str(versions[0].group_resource) for versions in found.types}
        assert "pods" in titles
        assert "deployments.apps" not in titles
        assert await registered(server) == frozenset()
    finally:
        await server.close()


async def answered(*changed: tuple[str, bytes, str]) -> Any:
    """What `discover` makes of a server that answers so, and else as one that has nothing."""
    known = {path: (body, kind) for path, body, kind in changed}

    class Server:
        timing = ProducerTiming(discover_group=0.1)

        async def get(self, path: str, query: Any = None, *, accept: str = "") -> tuple[bytes, str]:
            if path not in known:
                raise RequestRefused(404, "NotFound", "no")
            if known[path][0] == b"hangs":
                await asyncio.Event().wait()
            return known[path]

    server: ApiServer = Server()  # type: ignore[assignment]
    return await discover(server, Definitions(server, lambda: None).current)


async def test_lists_that_are_null_are_empty() -> None:
    group = b'{"metadata":{"name":"%s"},"versions":[{"version":"v1","resources":%s}]}'
    pods = b'[{"resource":"pods","responseKind":{"kind":"Pod"},"verbs":["list","watch"],"shortNames":null}]'
    odd = b'[{"resource":"parents","verbs":null,"categories":null}]'
    items = [
        group % (b"a", pods),
        group % (b"b", odd),
        group % (b"c", b"null"),
        b'{"metadata":{"name":"d"},"versions":null}',
    ]
    nonsense = b'{"metadata":{"name":"e"},"versions":{"v1":"no"}}'
    found = await answered(
        ("/api", b'{"items":null}', "application/json;g=apidiscovery.k8s.io"),
        ("/apis", b'{"items":[%s]}' % b",".join([*items, nonsense]), "application/json;g=apidiscovery.k8s.io"),
    )
    assert [str(versions[0].group_resource) for versions in found.types] == ["pods.a"]
    assert found.doubtful == {"e"}
    assert found.groups == {"a", "b", "c", "d", "e"}

    listed = (
        b'{"groups":[{"name":"a","versions":[{"groupVersion":"a/v1","version":"v1"}]},{"name":"d","versions":null}]}'
    )
    found = await answered(
        ("/api", b'{"versions":null}', "application/json"),
        ("/api/v1", b'{"resources":[{"name":"pods","verbs":["list","watch"]},{"name":"odd","verbs":null}]}', ""),
        ("/apis", listed, "application/json"),
        ("/apis/a/v1", b'{"resources":null}', ""),
    )
    assert [str(versions[0].group_resource) for versions in found.types] == ["pods"]
    assert found.doubtful == frozenset()
    assert found.groups == {"", "a", "d"}


async def test_a_group_that_hangs_holds_up_no_other() -> None:
    names = [f"g{number}" for number in range(20)]
    groups = [{"name": name, "versions": [{"groupVersion": f"{name}/v1", "version": "v1"}]} for name in names]
    body = b'{"resources":[{"name":"things","verbs":["list","watch"]}]}'
    found = await answered(
        ("/api", b"{}", ""),
        ("/api/v1", body, ""),
        ("/apis", json.dumps({"groups": groups}).encode(), ""),
        *((f"/apis/{name}/v1", body if name != "g7" else b"hangs", "") for name in names),
    )
    assert found.doubtful == {"g7"}
    assert len(found.types) == 20


async def test_both_kinds_of_discovery_say_the_same(rig: Rig) -> None:
    rig.cluster.aggregate(REPORTS)
    await rig.request("POST", CRDS, crd("v1beta1", "v1alpha1"))
    found = []
    for aggregated in (True, False):
        rig.cluster.faults.aggregated_discovery = aggregated
        server = ApiServer(access_of(str(rig.kubeconfig), "alpha"))
        try:
            found.append(await discover(server, Definitions(server, lambda: None).current))
            assert await registered(server) == {"reports.example.io"}
        finally:
            await server.close()
    assert {str(one[0].group_resource): one for one in found[0].types} == {
        str(one[0].group_resource): one for one in found[1].types
    }
    chosen = {str(one.resource.group_resource): one.resource.version for one in Rules.of(("*",)).chosen(found[0].types)}
    assert chosen["boats.sea.example.io"] == "v1beta1"
    assert "secrets" not in chosen


@pytest.mark.parametrize("ahead", [5400.0, -5400.0])
async def test_a_cluster_whose_clock_is_wrong(rig: Rig, ahead: float) -> None:
    """It is told, and nothing goes by it: changes arrive, tombstones are kept, lag is in our time."""
    rig.timing = ProducerTiming(probe_every=0.2)
    rig.cluster.faults.clock = ahead
    warm = await rig.materializer()
    producer, _ = await rig.produce("pods", "configmaps")
    path = "/api/v1/namespaces/default/configmaps"
    await rig.request("POST", path, {"metadata": {"name": "late"}})
    await eventually(lambda: "late" in names(warm.store, CONFIG_MAPS))
    await rig.request("DELETE", f"{path}/late")
    await eventually(lambda: "late" not in names(warm.store, CONFIG_MAPS))
    warm.store.forget(warm.log.now())
    cold = await rig.materializer()
    for one in (warm, cold):
        assert object_key("default", "late") in one.store.types[CONFIG_MAPS].tombstones["alpha"]
    assert abs(producer.clusters["alpha"].server.clock_offset - ahead) < 30

    def told(offset: float) -> bool:
        text = producer.metrics.text().decode()
        value = next(line for line in text.splitlines() if line.startswith("kubebraid_cluster_clock_offset_seconds{"))
        return abs(float(value.split()[-1]) - offset) < 30

    assert told(ahead)
    text = producer.metrics.text().decode()
    start = 'kubebraid_producer_lag_seconds_sum{cluster="alpha",type="configmaps"}'
    lag = next(line for line in text.splitlines() if line.startswith(start))
    assert 0 <= float(lag.split()[-1]) < 60

    # It is set right while we follow: what comes now is older than what came before, by the cluster's clock.
    rig.cluster.faults.clock = -ahead
    await rig.request("POST", path, {"metadata": {"name": "late"}})
    rig.cluster.churn.step(20)
    await rig.settled(warm, path.replace("/namespaces/default", ""), "", "configmaps")
    await rig.settled(warm, "/api/v1/pods", "", "pods")
    assert "late" in names(warm.store, CONFIG_MAPS)
    await eventually(lambda: told(-ahead))


def _has_column(store: Store, name: str) -> bool:
    return name in str(store.clusters["alpha"].types[BOATS].columns)


async def test_definitions_are_listed_once_then_watched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their type is not followed; a list is taken again only where the watch's version has expired."""
    asked: list[str] = []
    real = ApiServer.open

    def opened(self: ApiServer, path: str, query: Any = None, **options: Any) -> Any:
        if path == CRDS:
            asked.append("watch" if "watch" in (query or {}) else "list")
        return real(self, path, query, **options)

    monkeypatch.setattr(ApiServer, "open", opened)
    rig.timing = ProducerTiming(
        discover_every=0.05, discover_doubtful=0.05, discover_together=0.02, list_backoff=(0.02, 0.1), stable=0.1
    )
    warm = await rig.materializer()
    producer, _ = await rig.produce("pods", "boats.sea.example.io", "apiservices.apiregistration.k8s.io")
    looks = 0
    discovered = producer.clusters["alpha"].state.discovered
    for number in range(3):
        await rig.request("POST", CRDS, crd("v1"))
        await eventually(lambda: BOATS in warm.store.clusters["alpha"].types)
        assert warm.store.clusters["alpha"].types[BOATS].custom
        path = f"{CRDS}/boats.sea.example.io"
        patch = crd("v1")["spec"]
        patch["versions"][0]["additionalPrinterColumns"] = [{"name": f"C{number}", "type": "string", "jsonPath": ".a"}]
        await rig.request("PATCH", path, {"spec": patch}, "application/merge-patch+json")
        await eventually(partial(_has_column, warm.store, f"C{number}"))
        # Several looks at the types, between any two changes.
        for _ in range(3):
            discovered.clear()
            producer.clusters["alpha"].rediscover()
            await discovered.wait()
            looks += 1
        rig.cluster.faults.cut_watches()
        await rig.request("DELETE", path)
        await eventually(lambda: BOATS not in warm.store.clusters["alpha"].types)
    assert asked.count("list") == 1, asked
    assert asked.count("watch") >= 2
    assert looks == 9

    # What happened while no version was left to go on from.
    rig.cluster.faults.hang_watches()
    await rig.request("POST", CRDS, crd("v1"))
    rig.cluster.faults.compact()
    rig.cluster.faults.hang_watches(False)
    rig.cluster.faults.cut_watches()
    await eventually(lambda: BOATS in warm.store.clusters["alpha"].types)
    await eventually(lambda: warm.store.clusters["alpha"].types[BOATS].custom)
    assert asked.count("list") == 2, asked
