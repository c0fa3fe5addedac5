"""Discovery below a cluster that requests are passed on to: all that the cluster serves, as it says so itself.

Also what is not synced: types, versions, and what can only be asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deltalog import connect
from kubebraid.command.broker import EmbeddedBroker
from simulation import SimulatedCluster
from simulation.aggregation import registration
from tests.e2e.conftest import Kubectl, Members, NotServed, Starter, StartProcess
from tests.patience import PATIENCE
from tests.ports import free_port

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
GEARS: dict[str, Any] = {
    "metadata": {"name": "gears.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {
            "plural": "gears",
            "singular": "gear",
            "kind": "Gear",
            "listKind": "GearList",
            "shortNames": ["gr"],
            "categories": ["all", "works"],
        },
        "versions": [
            {"name": name, "served": True, "storage": name == "v1", "schema": SCHEMA, "subresources": {"status": {}}}
            for name in ("v1alpha1", "v1beta1", "v1")
        ],
    },
}
GEAR = {"apiVersion": "example.com/v1beta1", "kind": "Gear", "metadata": {"name": "cog", "namespace": "default"}}
OLDER = "/apis/example.com/v1beta1/namespaces/default/gears"


async def asked(url: str, accept: str = "application/json") -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as answer:
        return answer.status, await answer.json()


async def document(url: str, accept: str = "application/json") -> Any:
    status, found = await asked(url, accept)
    if status != 200:
        raise NotServed(f"{url}: {found}")
    return found


def named(entries: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Entries by name; verbs and lists of names in any order."""
    made = {}
    for one in entries:
        plain = {name: sorted(value) if name in ("verbs", "categories") else value for name, value in one.items()}
        if "subresources" in plain:
            plain["subresources"] = named(plain["subresources"], "subresource")
        made[one[key]] = plain
    assert len(made) == len(entries)
    return made


async def discovery(url: str) -> dict[str, Any]:
    """All documents at a server: what is in lists by name, groups and versions in their order."""
    found: dict[str, Any] = {"api": (await document(f"{url}/api"))["versions"]}
    groups = (await document(f"{url}/apis"))["groups"]
    found["apis"] = groups
    for group in groups:
        found[group["name"]] = await document(f"{url}/apis/{group['name']}")
    for version in ["api/v1", *(f"apis/{one['groupVersion']}" for group in groups for one in group["versions"])]:
        listed = await document(f"{url}/{version}")
        found[version] = (listed["kind"], listed["groupVersion"], named(listed["resources"], "name"))
    for path in ("api", "apis"):
        # A simulated cluster knows the one, and both have the same content.
        items = (await document(f"{url}/{path}", f"{AGGREGATED.format('v2')},application/json"))["items"]
        found[f"{path} aggregated"] = [
            (
                item["metadata"].get("name", ""),
                [(one["version"], one["freshness"], named(one["resources"], "resource")) for one in item["versions"]],
            )
            for item in items
        ]
    return found


async def as_the_cluster(url: str, wanted: dict[str, Any], patience: float = PATIENCE) -> None:
    """Waits until discovery at `url` is the one that is wanted."""
    limit = asyncio.get_running_loop().time() + patience
    found: dict[str, Any] = {}
    while asyncio.get_running_loop().time() < limit:
        # It may change between two documents.
        with contextlib.suppress(NotServed):
            found = await discovery(url)
            if found == wanted:
                return
        await asyncio.sleep(0.1)
    # One after the other, so that a failure can be read.
    for name, one in wanted.items():
        assert found.get(name) == one, name
    assert found == wanted


async def post(url: str, body: Any) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert answer.status == 201, await answer.text()
        return dict(await answer.json())


@pytest.fixture
async def alpha(members: Members) -> SimulatedCluster:
    """A member cluster with a type in three versions, and an API that cannot be watched."""
    cluster = members["alpha"]
    await post(cluster.url + CRDS, GEARS)
    await post(cluster.url + SERVICES, registration("metrics.k8s.io", "v1beta1"))
    return cluster


@pytest.fixture
def given(members: Members) -> tuple[str, ...]:
    """What a service is told. A NATS at a port of its own: others may begin at the same moment."""
    data = str(members.kubeconfig.parent / "data")
    return ("--kubeconfig", str(members.kubeconfig), "--data", data, "--nats-port", str(free_port()))


@pytest.mark.parametrize("aggregated", [True, False], ids=["aggregated discovery", "older discovery"])
async def test_documents_are_the_clusters_own(
    alpha: SimulatedCluster, given: tuple[str, ...], start: Starter, aggregated: bool
) -> None:
    """Before and after the cluster is down, and after a restart here."""
    wanted = await discovery(alpha.url)
    assert [one["version"] for one in wanted["example.com"]["versions"]] == ["v1", "v1beta1", "v1alpha1"]
    assert {"secrets", "events", "pods/exec"} <= set(wanted["api/v1"][2])
    alpha.faults.aggregated_discovery = aggregated
    service = await start(*given)
    below = f"{service.url}/clusters/alpha"
    await as_the_cluster(below, wanted)
    whole, beta = [await document(f"{below}/apis", AGGREGATED.format(version)) for version in ("v2", "v2beta1")]
    assert whole["items"] == beta["items"]
    assert beta["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{below}/apis/example.com/v1beta1") as answer:
            tag = answer.headers["ETag"]
        async with session.get(f"{below}/apis/example.com/v1beta1", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304

    await alpha.stop()
    assert await discovery(below) == wanted
    # From the log, and once more from a snapshot that the last one left.
    for end in (service.kill, service.stop):
        await end()
        await service.start()
        await service.ready()
        assert await discovery(below) == wanted
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{below}/apis/example.com/v1beta1", headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304

    # It comes back and has one version more, and a type less.
    await alpha.start()
    async with aiohttp.ClientSession() as session:
        async with session.delete(f"{alpha.url}{SERVICES}/v1beta1.metrics.k8s.io") as answer:
            assert answer.status == 200
        versions = [*GEARS["spec"]["versions"], {"name": "v2", "served": True, "storage": False, "schema": SCHEMA}]
        async with session.patch(
            f"{alpha.url}{CRDS}/gears.example.com",
            json={"spec": {"versions": versions}},
            headers={"Content-Type": "application/merge-patch+json"},
        ) as answer:
            assert answer.status == 200, await answer.text()
    alpha.faults.aggregated_discovery = True
    wanted = await discovery(alpha.url)
    assert "metrics.k8s.io" not in wanted
    alpha.faults.aggregated_discovery = aggregated
    await as_the_cluster(below, wanted)


async def test_only_what_can_be_asked_for_is_offered(
    alpha: SimulatedCluster, given: tuple[str, ...], start: Starter
) -> None:
    """The root, and a cluster that nothing is passed on to, have what is synced; so has all that speaks of that."""
    service = await start(*given)
    await as_the_cluster(f"{service.url}/clusters/alpha", await discovery(alpha.url))

    async def is_of_what_is_synced(scope: str) -> None:
        found = await discovery(service.url + scope)
        assert "secrets" not in found["api/v1"][2]
        assert "metrics.k8s.io" not in found
        assert [one["version"] for one in found["example.com"]["versions"]] == ["v1"]
        assert found["apis/example.com/v1"][2]["gears"]["verbs"] == ["get", "list", "watch"]

    await is_of_what_is_synced("")
    told = {one["name"]: one for one in (await service.get("/clusters"))["clusters"]}
    assert "gears.example.com" in told["alpha"]["types"]
    assert not {"secrets", "nodes.metrics.k8s.io"} & set(told["alpha"]["types"])
    assert told["alpha"]["missing"] == []
    await service.stop()
    service = await start(*given, "--forward", "off")
    for scope in ("", "/clusters/alpha", "/clusters/bravo"):
        found = await asked(f"{service.url}{scope}/api/v1/secrets")
        assert found[0] == 404
    for scope in ("", "/clusters/alpha"):
        await is_of_what_is_synced(scope)


async def test_what_is_not_synced_is_passed_on(alpha: SimulatedCluster, given: tuple[str, ...], start: Starter) -> None:
    """Read, watched and changed in a version that is not synced: with the cluster's own versions."""
    service = await start(*given)
    below = f"{service.url}/clusters/alpha"
    made = await post(below + OLDER, GEAR)
    for path in (OLDER, "/apis/example.com/v1beta1/gears"):
        found, own = await document(below + path), await document(alpha.url + path)
        assert found == own
        assert found["items"][0]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert await document(f"{below}{OLDER}/cog") == await document(f"{alpha.url}{OLDER}/cog")
    start_at = (await document(below + OLDER))["metadata"]["resourceVersion"]
    async with (
        aiohttp.ClientSession() as session,
        session.get(below + OLDER, params={"watch": "1", "resourceVersion": start_at}) as watch,
    ):
        assert watch.status == 200
        other = await post(alpha.url + OLDER, {**GEAR, "metadata": {"name": "other"}})
        async with asyncio.timeout(PATIENCE):
            event = json.loads(await watch.content.readline())
    assert event == {"type": "ADDED", "object": other}
    # The synced version is read here, with versions of here.
    found = await document(below + OLDER.replace("v1beta1", "v1"))
    assert {one["apiVersion"] for one in found["items"]} == {"example.com/v1"}
    assert "." in found["metadata"]["resourceVersion"]


async def test_kubectl(alpha: SimulatedCluster, given: tuple[str, ...], start: Starter, kubectl: Kubectl) -> None:
    service = await start(*given)
    await as_the_cluster(f"{service.url}/clusters/alpha", await discovery(alpha.url))

    async def run(url: str, *arguments: str, input: str | None = None) -> str:
        code, out, err = await kubectl("--server", url, *arguments, input=input)
        assert code == 0, (arguments, err)
        return out

    below = f"{service.url}/clusters/alpha"
    for arguments in (
        ("api-resources", "-o", "wide"),
        ("api-resources", "--namespaced=false", "-o", "name"),
        ("api-versions",),
    ):
        assert sorted((await run(below, *arguments)).split("\n")) == sorted(
            (await run(alpha.url, *arguments)).split("\n")
        )
    body = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "key"}, "type": "Opaque", "data": {"a": "Yg=="}}
    assert "secret/key created" in await run(below, "apply", "-f", "-", input=json.dumps(body))
    assert "key" in await run(below, "get", "secrets", "-n", "default")
    assert await run(below, "get", "secret", "key", "-o", "jsonpath={.type}") == "Opaque"
    assert "cpu" in (await run(below, "top", "nodes")).lower()
    # The same object three times: made, found as it is, changed.
    assert "created" in await run(below, "apply", "-f", "-", input=json.dumps(GEAR))
    assert "unchanged" in await run(below, "apply", "-f", "-", input=json.dumps(GEAR))
    changed = {**GEAR, "spec": {"teeth": 7}}
    assert "configured" in await run(below, "apply", "-f", "-", input=json.dumps(changed))
    for name, version in (("gears.v1beta1.example.com", "v1beta1"), ("gears", "v1"), ("gr", "v1")):
        out = await run(below, "get", name, "-o", "jsonpath={.items[*].apiVersion} {.items[*].spec.teeth}")
        assert out == f"example.com/{version} 7", name
    assert "deleted" in await run(below, "delete", "-f", "-", input=json.dumps(changed))
    code, _, err = await kubectl("--server", service.url, "get", "secrets")
    assert code == 1
    assert "the server doesn't have a resource type" in err


async def test_a_log_without_it(alpha: SimulatedCluster, members: Members, start: Starter, tmp_path: Path) -> None:
    """As one that an older producer has written: then what is synced is what there is."""
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        given = ("--nats", broker.url, "--kubeconfig", str(members.kubeconfig))
        both = await start(*given)
        wanted = await discovery(alpha.url)
        await as_the_cluster(f"{both.url}/clusters/alpha", wanted)
        assert await both.stop() == 0
        connection = await connect(broker.url, name="test")
        try:
            for stream in ("KUBEBRAID_STATE", "KUBEBRAID"):
                raw = await connection.api(f"STREAM.PURGE.{stream}", {"filter": "kbc.*.discovery"})
                assert json.loads(bytes(raw))["purged"] == 2
        finally:
            await connection.close()
        reading = await start(*given, "--forward", "caller", command="serve")
        found = await discovery(f"{reading.url}/clusters/alpha")
        assert [one["version"] for one in found["example.com"]["versions"]] == ["v1"]
        assert "secrets" not in found["api/v1"][2]
        assert "create" in found["api/v1"][2]["pods"]["verbs"]
        # With a producer it is there again.
        await start(*given)
        await as_the_cluster(f"{reading.url}/clusters/alpha", wanted)


async def test_types_in_shards(
    alpha: SimulatedCluster, members: Members, process: StartProcess, start: Starter, tmp_path: Path, kubectl: Kubectl
) -> None:
    """A cluster whose types are in several logs: one of the groups passes requests on, the other only reads."""
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        kubeconfig = ("--nats", broker.url, "--kubeconfig", str(members.kubeconfig))
        arguments: list[str] = []
        readers = []
        for stream, chosen in (("PODS", ("--include", "pods")), ("REST", ("--include", "*", "--exclude", "pods"))):
            await process("produce", *kubeconfig, "--stream", stream, *chosen)
            given = ("--nats", broker.url, "--stream", stream)
            readers.append(await start(*given, command="serve"))
            forwarding = await start(*kubeconfig, "--stream", stream, "--forward", "caller", command="serve")
            arguments += ["--group", f"{stream}={forwarding.url}"]
        wanted = await discovery(alpha.url)
        router = await start(*arguments, command="route")
        await as_the_cluster(f"{router.url}/clusters/alpha", wanted)
        found = await document(f"{router.url}/clusters/alpha/apis", AGGREGATED.format("v2beta1"))
        assert found["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
        server = ("--server", f"{router.url}/clusters/alpha")
        for command in (("get", "secrets"), ("get", "pods,deployments,nodes,gears.v1beta1.example.com")):
            code, _, err = await kubectl(*server, *command)
            assert code == 0, err
        code, out, err = await kubectl(*server, "apply", "-f", "-", input=json.dumps(GEAR))
        assert (code, "created" in out) == (0, True), err
        root = await discovery(router.url)
        assert "secrets" not in root["api/v1"][2]
        assert "pods" in root["api/v1"][2]

        # A reader of pods asked first does not make less of what the other one passes on.
        mixed = await start("--group", f"PODS={readers[0].url}", *arguments[2:], command="route")
        await as_the_cluster(f"{mixed.url}/clusters/alpha", wanted)
