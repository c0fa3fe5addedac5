"""APIs of other servers: registered, away, withdrawn; definitions that change their versions; a clock that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.conftest import Client, MakeConfigMap, Start

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ASSETS = "/apis/inventory.example.io/v1/namespaces/default/assets"
MAPS = "/api/v1/namespaces/default/configmaps"


def service(group: str, version: str) -> dict[str, object]:
    spec = {"group": group, "version": version, "service": {"namespace": "default", "name": "backend"}}
    return {"metadata": {"name": f"{version}.{group}"}, "spec": spec}


async def shown(client: Client, group: str) -> dict[str, tuple[str, int]] | None:
    """Freshness and number of resources of a group's versions in aggregated discovery; None: it is not there."""
    async with client.session.get(client.cluster.url + "/apis", headers={"Accept": V2}) as response:
        items = (await response.json(content_type=None))["items"]
    for item in items:
        if item["metadata"]["name"] == group:
            return {one["version"]: (one["freshness"], len(one["resources"])) for one in item["versions"]}
    return None


def available(made: dict[str, Any]) -> str:
    return str(made["status"]["conditions"][0]["status"])


async def test_metrics_are_read_and_not_watched(client: Client) -> None:
    assert (await client.request("GET", "/apis/metrics.k8s.io/v1beta1/pods"))[0] == 404
    assert available(await client.create(SERVICES, service("metrics.k8s.io", "v1beta1"))) == "True"
    pods = await client.get("/apis/metrics.k8s.io/v1beta1/pods")
    assert (pods["kind"], len(pods["items"])) == ("PodMetricsList", 40)
    assert pods["items"][0]["containers"][0]["usage"]["cpu"]
    nodes = await client.get("/apis/metrics.k8s.io/v1beta1/nodes")
    assert {item["usage"]["memory"] for item in nodes["items"]} == {"64Mi"}
    for resource in (await client.get("/apis/metrics.k8s.io/v1beta1"))["resources"]:
        assert resource["verbs"] == ["get", "list"]
    for method, path in (("GET", "pods?watch=1"), ("GET", "watch/nodes"), ("DELETE", "nodes/a"), ("POST", "nodes")):
        assert (await client.request(method, f"/apis/metrics.k8s.io/v1beta1/{path}", {}))[0] == 405


async def test_an_api_goes_without_a_word_and_comes_back_with_what_it_has(client: Client) -> None:
    made = await client.create(SERVICES, service("inventory.example.io", "v1"))
    asset = await client.create(ASSETS, {"metadata": {"name": "a"}})
    async with client.watch(ASSETS, resourceVersion=asset["metadata"]["resourceVersion"]) as stream:
        await client.delete(f"{SERVICES}/{made['metadata']['name']}")
        assert await stream.rest() == []
    assert (await client.request("GET", ASSETS))[0] == 404
    assert "inventory.example.io" not in {group["name"] for group in (await client.get("/apis"))["groups"]}
    client.cluster.storage.check()
    await client.create(SERVICES, service("inventory.example.io", "v1"))
    assert await client.get(f"{ASSETS}/a") == asset
    client.cluster.storage.check()


async def test_an_api_that_is_away(client: Client) -> None:
    group = "inventory.example.io"
    await client.create(SERVICES, service(group, "v1"))
    faults = client.cluster.faults
    async with client.watch(SERVICES, resourceVersion=str(client.cluster.storage.version)) as stream:
        status, _ = await client.request("POST", "/_simulation/faults", {"unavailable": [group]})
        assert status == 200
        [event] = await stream.take(1)
        assert (event["type"], available(event["object"])) == ("MODIFIED", "False")
    assert (await client.get("/_simulation/apis"))["unavailable"] == [f"v1.{group}"]
    assert (await client.request("GET", ASSETS))[0] == 503
    assert (await client.request("GET", f"/apis/{group}/v1"))[0] == 503
    assert (await client.get(f"/apis/{group}"))["versions"][0]["version"] == "v1"
    assert (await client.request("GET", "/apis/apps/v1"))[0] == 200
    assert await shown(client, group) == {"v1": ("Stale", 0)}
    assert await shown(client, "apps") == {"v1": ("Current", 4)}
    faults.away_shown = "cached"
    assert await shown(client, group) == {"v1": ("Stale", 1)}
    faults.away_shown = "missing"
    assert await shown(client, group) is None
    assert group not in {one["name"] for one in (await client.get("/apis"))["groups"]}
    await client.request("POST", "/_simulation/faults", {"clear": True})
    assert await shown(client, group) == {"v1": ("Current", 1)}
    assert available(await client.get(f"{SERVICES}/v1.{group}")) == "True"


async def test_a_registration_that_nobody_answers(client: Client) -> None:
    assert available(await client.create(SERVICES, service("nobody.example.io", "v1"))) == "False"
    assert await shown(client, "nobody.example.io") == {"v1": ("Stale", 0)}
    assert (await client.request("GET", "/apis/nobody.example.io/v1"))[0] == 503
    body = {"group": "nobody.example.io", "resource": "ghosts", "kind": "Ghost", "namespaced": False}
    status, state = await client.request("POST", "/_simulation/apis", body)
    assert (status, state["unavailable"]) == (200, [])
    await client.create("/apis/nobody.example.io/v1/ghosts", {"metadata": {"name": "g"}})
    await client.request("POST", "/_simulation/apis", {"retire": "nobody.example.io"})
    assert (await client.request("GET", "/apis/nobody.example.io/v1"))[0] == 404
    refused: tuple[object, ...] = ({"group": "x"}, [], {"retire": "x", "versions": 1})
    for bad in refused:
        assert (await client.request("POST", "/_simulation/apis", bad))[0] in (200, 400)
    odd = service("inventory.example.io", "v1") | {"metadata": {"name": "v2.inventory.example.io"}}
    assert (await client.request("POST", SERVICES, odd))[0] == 422


async def test_registrations_outlive_the_process_and_other_servers_do_not(start: Start, tmp_path: Path) -> None:
    client = await start(state=tmp_path)
    await client.create(SERVICES, service("inventory.example.io", "v1"))
    await client.create(ASSETS, {"metadata": {"name": "a"}})
    await client.cluster.stop()
    again = await start(state=tmp_path)
    assert (await again.get(ASSETS))["items"] == []
    again.cluster.storage.check()


async def test_a_definition_changes_its_versions(client: Client) -> None:
    def versions(**served: bool) -> dict[str, object]:
        last = list(served)[-1]
        return {
            "versions": [
                {"name": name, "served": is_, "storage": name == last, "schema": {}} for name, is_ in served.items()
            ]
        }

    names = {"plural": "boats", "kind": "Boat"}
    spec = {"group": "sea.example.io", "scope": "Namespaced", "names": names, **versions(v1alpha1=True)}
    await client.create(CRDS, {"metadata": {"name": "boats.sea.example.io"}, "spec": spec})
    old, new = (f"/apis/sea.example.io/{version}/namespaces/default/boats" for version in ("v1alpha1", "v1beta1"))
    boat = {"apiVersion": "sea.example.io/v1alpha1", "kind": "Boat", "metadata": {"name": "gull"}}
    made = await client.create(old, boat)
    async with client.watch(old, resourceVersion=made["metadata"]["resourceVersion"]) as stream:
        changed = await client.patch(f"{CRDS}/boats.sea.example.io", {"spec": versions(v1alpha1=True, v1beta1=True)})
        assert await stream.rest() == [], "the storage is set up anew"
    assert changed["status"]["storedVersions"] == ["v1alpha1", "v1beta1"]
    assert {(await client.get(f"{path}/gull"))["apiVersion"] for path in (old, new)} == {
        "sea.example.io/v1alpha1",
        "sea.example.io/v1beta1",
    }
    async with client.watch(old, resourceVersion=made["metadata"]["resourceVersion"]) as stream:
        [event] = await stream.rest()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    async with client.watch(old, resourceVersion=str(client.cluster.storage.version)) as stream:
        await client.patch(f"{CRDS}/boats.sea.example.io", {"spec": versions(v1alpha1=False, v1beta1=True)})
        assert await stream.rest() == []
    assert (await client.request("GET", old))[0] == 404
    [item] = (await client.get(new))["items"]
    assert item["apiVersion"] == "sea.example.io/v1beta1"
    assert item["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
async def test_a_clock_that_is_wrong(client: Client, config_map: MakeConfigMap, ahead: float) -> None:
    def off(found: datetime) -> float:
        return abs((found - datetime.now(UTC) - timedelta(seconds=ahead)).total_seconds())

    status, state = await client.request("POST", "/_simulation/faults", {"clock": ahead})
    assert (status, state["clock"]) == (200, ahead)
    made = await client.create(MAPS, config_map("a"))
    assert off(datetime.fromisoformat(made["metadata"]["creationTimestamp"])) < 60
    assert off(datetime.fromisoformat(made["metadata"]["managedFields"][0]["time"])) < 60
    for path in ("/version", MAPS, f"{MAPS}?watch=1&timeoutSeconds=1", "/apis/none"):
        async with client.session.get(client.cluster.url + path) as response:
            assert off(parsedate_to_datetime(response.headers["Date"])) < 60, path
    await client.request("POST", "/_simulation/faults", {"clear": True})
    async with client.session.get(client.cluster.url + "/version") as response:
        assert abs((parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)).total_seconds()) < 60
