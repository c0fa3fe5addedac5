"""Clusters that come and go while producers run: by files, by a directory, by objects of a host cluster."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deltalog import Log, open_log
from deltalog.wire.kubernetes import GroupResource
from materializer.materializer import Materializer
from producers.members.membership import Members
from producers.producer import Producer
from producers.rules.configuration import load
from producers.timing import ProducerTiming
from simulation import SimulatedCluster
from simulation.kubeconfig import kubeconfig
from tests.producers.conftest import Rig

PODS = GroupResource("", "pods")


# Files are looked at more often than an operator needs.
ATTENTIVE = ProducerTiming(look_at_files_every=0.1)


@contextlib.asynccontextmanager
async def cluster(name: str, pods: int = 20) -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(name, seed=hash(name) % 1000, pods=pods) as made:
        yield made


class Fleet:
    """A producer on a configuration file, and what the log says of its clusters."""

    def __init__(self, rig: Rig, file: Path) -> None:
        self.rig = rig
        self.file = file

    def write(self, text: str) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.file)

    async def start(self) -> Producer:
        writing = await self.rig.connection("write")

        async def opened() -> Log:
            return await open_log(writing, self.rig.settings)

        members = Members(load(self.file), self.file, ATTENTIVE)
        await members.first()
        producer = Producer(members, opened, writing)
        self.rig._background(asyncio.create_task(producer.run()))
        return producer

    async def shows(self, warm: Materializer, **pods: int) -> None:
        """Waits until the log's clusters are these, with so many pods each."""

        def now() -> dict[str, int]:
            kind = warm.store.types.get(PODS)
            return {
                name: 0 if kind is None else len(kind.objects(name))
                for name, one in warm.store.clusters.items()
                if one.registered
            }

        loop = asyncio.get_running_loop()
        limit = loop.time() + 20
        while now() != pods:
            assert loop.time() < limit, f"{now()}, not {pods}"
            await asyncio.sleep(0.05)
        warm.store.check()


@pytest.fixture
def fleet(rig: Rig, tmp_path: Path) -> Fleet:
    return Fleet(rig, tmp_path / "kubebraid.yaml")


def write(path: Path, *clusters: SimulatedCluster) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_text(yaml.safe_dump(kubeconfig(clusters)))
    draft.replace(path)


async def test_kubeconfig_files_of_a_directory(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    directory = tmp_path / "clusters"
    directory.mkdir()
    fleet.write(f"clusters: [{{directory: {directory}}}]\nsync: [pods]\n")
    async with cluster("alpha", 10) as one, cluster("bravo", 20) as two:
        write(directory / "east.yaml", one)
        producer = await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, east=10)
        write(directory / "west.kubeconfig", two)
        await fleet.shows(warm, east=10, west=20)
        # What cannot be read keeps its cluster; others come and go.
        (directory / "east.yaml").write_text("clusters: [")
        write(directory / "south.yaml", two)
        await fleet.shows(warm, east=10, west=20, south=20)
        (directory / "west.kubeconfig").unlink()
        await fleet.shows(warm, east=10, south=20)
        cold = await rig.materializer()
        await fleet.shows(cold, east=10, south=20)
        assert sorted(producer.clusters) == ["east", "south"]
        # One that comes back begins anew, under a later epoch.
        write(directory / "west.kubeconfig", one)
        await fleet.shows(warm, east=10, west=10, south=20)
        await fleet.shows(await rig.materializer(), east=10, west=10, south=20)


async def test_a_configuration_that_changes(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    async with cluster("alpha", 10) as one, cluster("bravo", 20) as two:
        write(tmp_path / "members", one, two)
        fleet.write("clusters: [{kubeconfig: members, contexts: [alpha]}]\nsync: [pods]\n")
        producer = await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, alpha=10)
        running = producer.clusters["alpha"].informers[PODS]
        fleet.write("clusters: [{kubeconfig: members}]\nsync: [pods, nodes]\n")
        await fleet.shows(warm, alpha=10, bravo=20)
        assert producer.clusters["alpha"].informers[PODS] is running, "what is as it was goes on"
        while ("", "nodes") not in producer.clusters["alpha"].informers:
            await asyncio.sleep(0.05)
        # Nonsense changes nothing, and is mended without a restart.
        fleet.write("clusters: [{kubeconfig: members}]\nsink: [pods]\n")
        await asyncio.sleep(0.5)
        await fleet.shows(warm, alpha=10, bravo=20)
        while (nodes := warm.store.types.get(GroupResource("", "nodes"))) is None or not nodes.objects("bravo"):
            await asyncio.sleep(0.05)
        fleet.write("clusters: [{kubeconfig: members, contexts: [bravo]}]\nsync: [nodes]\n")
        await fleet.shows(warm, bravo=0)
        assert len(warm.store.types[GroupResource("", "nodes")].objects("bravo")) > 0
        cold = await rig.materializer()
        await fleet.shows(cold, bravo=0)


async def test_a_cluster_that_is_to_be_kept_stays_as_stale(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    async with cluster("alpha", 10) as one, cluster("bravo", 20) as two:
        write(tmp_path / "members", one, two)
        fleet.write("clusters: [{kubeconfig: members}]\nsync: [pods]\nwhenRemoved: keep\n")
        await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, alpha=10, bravo=20)
        write(tmp_path / "members", one)
        while warm.stale_reason(warm.store.clusters["bravo"]) is None:
            await asyncio.sleep(0.05)
        assert warm.stale_reason(warm.store.clusters["bravo"]) == "no longer followed"
        await fleet.shows(warm, alpha=10, bravo=20)


def secret(name: str, text: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"kubebraid.io/cluster": "yes", **labels}},
        "data": {"kubeconfig": base64.b64encode(text.encode()).decode()},
    }


async def test_secrets_of_a_host_cluster(rig: Rig, fleet: Fleet) -> None:
    path = "/api/v1/namespaces/default/secrets"
    fleet.write(
        f"clusters: [{{secrets: {{namespace: default, labelSelector: kubebraid.io/cluster}},"
        f" host: {{kubeconfig: {rig.kubeconfig}}}}}]\nsync: [pods]\n"
    )
    async with cluster("east", 10) as one, cluster("west", 20) as two:
        await rig.request("POST", path, secret("east-kubeconfig", yaml.safe_dump(kubeconfig([one]))))
        await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, east=10)
        labelled = secret("x", yaml.safe_dump(kubeconfig([two])), **{"cluster.x-k8s.io/cluster-name": "west"})
        await rig.request("POST", path, labelled)
        await fleet.shows(warm, east=10, west=20)
        # A Secret that would run a command describes no cluster.
        document = kubeconfig([one])
        document["users"][0]["user"] = {
            "exec": {"command": "/bin/false", "apiVersion": "client.authentication.k8s.io/v1"}
        }
        await rig.request("POST", path, secret("evil-kubeconfig", json.dumps(document)))
        # Another server under the same name: its objects take the place of the old one's.
        await rig.request(
            "PUT", f"{path}/east-kubeconfig", secret("east-kubeconfig", yaml.safe_dump(kubeconfig([two])))
        )
        await rig.request("DELETE", f"{path}/x")
        limit = asyncio.get_running_loop().time() + 20
        while asyncio.get_running_loop().time() < limit:
            registered = [name for name, one in warm.store.clusters.items() if one.registered]
            if registered == ["east"] and len(warm.store.types[PODS].objects("east")) == 20:
                break
            await asyncio.sleep(0.05)
        await fleet.shows(warm, east=20)


async def test_another_host_cluster(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    """The host's kubeconfig is looked at while its objects are watched."""
    path = "/api/v1/namespaces/default/secrets"
    host = tmp_path / "host"
    host.write_text(rig.kubeconfig.read_text())
    fleet.write(
        f"clusters: [{{secrets: {{namespace: default, labelSelector: kubebraid.io/cluster}},"
        f" host: {{kubeconfig: {host}}}}}]\nsync: [pods]\n"
    )
    async with cluster("east", 10) as one, cluster("west", 20) as two, cluster("other", 5) as other:
        await rig.request("POST", path, secret("east-kubeconfig", yaml.safe_dump(kubeconfig([one]))))
        async with aiohttp.ClientSession() as session:
            body = secret("west-kubeconfig", yaml.safe_dump(kubeconfig([two])))
            async with session.post(f"{other.url}{path}", json=body) as answer:
                assert answer.status == 201
        await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, east=10)
        write(host, other)
        await fleet.shows(warm, west=20)


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "cluster.clusterpedia.io",
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1alpha2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def definition(plural: str, kind: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(CRD))
    made["metadata"] = {"name": f"{plural}.cluster.clusterpedia.io"}
    made["spec"]["names"] = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return made


def pedia(name: str, **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "cluster.clusterpedia.io/v1alpha2",
        "kind": "PediaCluster",
        "metadata": {"name": name},
        "spec": spec,
    }


async def test_pedia_clusters_of_a_host_cluster(rig: Rig, fleet: Fleet) -> None:
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    path = "/apis/cluster.clusterpedia.io/v1alpha2/pediaclusters"
    await rig.request("POST", crds, definition("pediaclusters", "PediaCluster"))
    await rig.request("POST", crds, definition("clustersyncresources", "ClusterSyncResources"))
    fleet.write(f"clusters: [{{pediaClusters: {{}}, host: {{kubeconfig: {rig.kubeconfig}}}}}]\n")
    async with cluster("east", 10) as one, cluster("west", 20) as two:
        text = base64.b64encode(yaml.safe_dump(kubeconfig([one])).encode()).decode()
        core = {"group": "", "versions": ["v1"], "resources": ["pods", "pods/status"]}
        await rig.request("POST", path, pedia("one", kubeconfig=text, syncResources=[core]))
        producer = await fleet.start()
        warm = await rig.materializer()
        await fleet.shows(warm, one=10)
        assert set(producer.clusters["one"].informers) == {PODS}
        shared = {
            "apiVersion": "cluster.clusterpedia.io/v1alpha2",
            "kind": "ClusterSyncResources",
            "metadata": {"name": "usual"},
            "spec": {"syncResources": [{"group": "", "resources": ["pods"]}, {"group": "apps", "resources": ["*"]}]},
        }
        await rig.request("POST", path.replace("pediaclusters", "clustersyncresources"), shared)
        two_more = pedia("two", apiserver=two.url, syncResourcesRefName="usual", syncAllCustomResources=True)
        await rig.request("POST", path, two_more)
        await fleet.shows(warm, one=10, two=20)
        types = {".".join(filter(None, reversed(key))) for key in producer.clusters["two"].informers}
        assert {"pods", "deployments.apps", "certificates.certs.example.io"} <= types
        assert not {"nodes", "secrets"} & types
        await rig.request("DELETE", f"{path}/one")
        await fleet.shows(warm, two=20)


async def test_one_namespace_after_another(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    """Rules by namespace and selector: what is not wanted any more goes, without a restart."""
    write(tmp_path / "members", rig.cluster)
    listed = (await rig.request("GET", "/api/v1/pods"))["items"]
    by_namespace: dict[str, int] = {}
    for item in listed:
        by_namespace[item["metadata"]["namespace"]] = by_namespace.get(item["metadata"]["namespace"], 0) + 1
    first, second = sorted(by_namespace)[:2]

    def sync(**rule: object) -> None:
        fleet.write(yaml.safe_dump({"clusters": [{"kubeconfig": "members"}], "sync": [{"types": ["pods"], **rule}]}))

    sync()
    producer = await fleet.start()
    warm = await rig.materializer()
    await fleet.shows(warm, alpha=len(listed))
    sync(namespaces=[first])
    await fleet.shows(warm, alpha=by_namespace[first])
    assert warm.store.clusters["alpha"].types[PODS].namespaces == (first,)
    sync(namespaces=[first, second])
    await fleet.shows(warm, alpha=by_namespace[first] + by_namespace[second])
    assert len(producer.clusters["alpha"].informers[PODS].reflectors) == 2
    # Followed, too: a pod that comes or goes in one of them.
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fresh"}, "spec": {"containers": [{"name": "a"}]}}
    await rig.request("POST", f"/api/v1/namespaces/{second}/pods", body)
    await fleet.shows(warm, alpha=by_namespace[first] + by_namespace[second] + 1)
    sync(namespaces=[f"!{second}"])
    await fleet.shows(warm, alpha=len(listed) - by_namespace[second])
    await rig.request("POST", f"/api/v1/namespaces/{first}/pods", body)
    await fleet.shows(warm, alpha=len(listed) - by_namespace[second] + 1)
    await rig.request("DELETE", f"/api/v1/namespaces/{first}/pods/fresh")
    await rig.request("DELETE", f"/api/v1/namespaces/{second}/pods/fresh")
    await fleet.shows(warm, alpha=len(listed) - by_namespace[second])
    sync()
    await fleet.shows(warm, alpha=len(listed))
    await fleet.shows(await rig.materializer(), alpha=len(listed))


async def test_an_object_that_enters_and_leaves_a_selector(rig: Rig, fleet: Fleet, tmp_path: Path) -> None:
    write(tmp_path / "members", rig.cluster)
    path = "/api/v1/namespaces/default/configmaps"
    fleet.write("clusters: [{kubeconfig: members}]\nsync: [{types: [configmaps], labelSelector: shown=yes}]\n")

    def labelled(value: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "labels": {"shown": value}}}

    await rig.request("POST", path, labelled("no"))
    await fleet.start()
    warm = await rig.materializer()

    async def has(count: int) -> None:
        limit = asyncio.get_running_loop().time() + 20
        while (kind := warm.store.types.get(GroupResource("", "configmaps"))) is None or len(
            kind.objects("alpha")
        ) != count:
            assert asyncio.get_running_loop().time() < limit
            await asyncio.sleep(0.05)
        warm.store.check()

    for _ in range(3):
        await rig.request("PUT", f"{path}/one", labelled("yes"))
        await has(1)
        await rig.request("PUT", f"{path}/one", labelled("no"))
        await has(0)
    await rig.request("PUT", f"{path}/one", labelled("yes"))
    await has(1)
    cold = await rig.materializer()
    assert len(cold.store.types[GroupResource("", "configmaps")].objects("alpha")) == 1
    cold.store.check()
