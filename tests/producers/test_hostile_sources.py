"""Objects of a host cluster that describe clusters: who may write one of them stops and takes no other's cluster."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from producers.kubeconfig.model import ClusterAccess
from producers.members import host_cluster
from producers.members.described import Described
from producers.rules.configuration import Host, PediaClusters, Secrets
from producers.timing import ProducerTiming
from simulation.kubeconfig import kubeconfig
from tests.patience import eventually
from tests.producers.conftest import Rig
from tests.producers.odd_front import front

SECRETS = "/api/v1/namespaces/default/secrets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PEDIA = "/apis/cluster.clusterpedia.io/v1alpha2"


@pytest.fixture
def pods() -> int:
    return 3


def text(server: str) -> str:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    return base64.b64encode(json.dumps(document).encode()).decode()


def secret(name: str, server: str, **labels: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"kubebraid.io/cluster": "yes", **labels}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"kubeconfig": text(server)}}


class Source:
    """What a source reports."""

    def __init__(self) -> None:
        self.clusters: dict[str, ClusterAccess] = {}
        self.problems: dict[str, str] = {}
        self.complaint: str | None = None

    def report(self, described: Described) -> None:
        self.clusters, self.problems = described.clusters, described.problems

    def complain(self, problem: str | None) -> None:
        self.complaint = problem


@contextlib.asynccontextmanager
async def followed(origin: Secrets | PediaClusters) -> AsyncIterator[Source]:
    source = Source()
    timing = ProducerTiming(host_backoff=(0.02, 0.1))
    task = asyncio.create_task(host_cluster.follow(origin, source.report, source.complain, timing))
    try:
        yield source
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait((task,))


def has(source: Source, name: str, server: str) -> Callable[[], bool]:
    return lambda: name in source.clusters and server == source.clusters[name].cluster.server


async def test_a_secret_takes_no_other_secrets_cluster(rig: Rig) -> None:
    """By the label that names its cluster; not when it is changed, made anew or read again either."""
    origin = Secrets(Host(str(rig.kubeconfig)), namespace="default", selector="kubebraid.io/cluster")
    label = {"kubebraid.io/cluster-name": "prod"}
    await rig.request("POST", SECRETS, secret("evil-before", "http://evil-before.test"))
    async with followed(origin) as source:
        await eventually(has(source, "evil-before", "http://evil-before.test"))
        await rig.request("POST", SECRETS, secret("prod-kubeconfig", "http://good.test"))
        await eventually(has(source, "prod", "http://good.test"))
        # A newer one, and one that is older and bears the name only now.
        await rig.request("POST", SECRETS, secret("a", "http://evil.test", **label))
        await rig.request("PUT", f"{SECRETS}/evil-before", secret("evil-before", "http://evil.test", **label))
        await rig.request("POST", SECRETS, secret("last", "http://last.test"))
        await eventually(has(source, "last", "http://last.test"))
        assert has(source, "prod", "http://good.test")()
        assert set(source.clusters) == {"prod", "last"}
        assert len(source.problems) == 2
        assert all("secret prod-kubeconfig names already" in problem for problem in source.problems.values())
        # Its own changes are its own.
        await rig.request("PUT", f"{SECRETS}/prod-kubeconfig", secret("prod-kubeconfig", "http://better.test"))
        await eventually(has(source, "prod", "http://better.test"))
        # Who had the name gives it back.
        await rig.request("DELETE", f"{SECRETS}/prod-kubeconfig")
        await eventually(has(source, "prod", "http://evil.test"))


async def define_pedia(rig: Rig) -> None:
    for plural, kind in (("pediaclusters", "PediaCluster"), ("clustersyncresources", "ClusterSyncResources")):
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        await rig.request(
            "POST",
            CRDS,
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.cluster.clusterpedia.io"},
                "spec": {
                    "group": "cluster.clusterpedia.io",
                    "scope": "Cluster",
                    "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                    "versions": [{"name": "v1alpha2", "served": True, "storage": True, "schema": schema}],
                },
            },
        )


_ODD: list[Any] = [None, 7, True, [], {}, "", "x", "a/b", [1], {"a": 1}, "\ufffd" * 300, [None], {"": None}]


def _odd(chance: random.Random) -> Any:
    return chance.choice(_ODD)


@pytest.mark.parametrize("seed", range(3))
async def test_odd_objects_that_describe_clusters_are_alone(rig: Rig, seed: int) -> None:
    """PediaClusters whose fields are of any type (as where their CRD has no schema) beside good ones."""
    chance = random.Random(seed)
    await define_pedia(rig)

    async def pedia(name: str, spec: Any) -> None:
        body = {
            "apiVersion": "cluster.clusterpedia.io/v1alpha2",
            "kind": "PediaCluster",
            "metadata": {"name": name},
            "spec": spec,
        }
        async with aiohttp.ClientSession() as session:
            # What the simulation itself refuses never comes to us.
            async with session.post(f"{rig.cluster.url}{PEDIA}/pediaclusters", json=body) as answer:
                assert answer.status in (201, 400, 422), await answer.text()

    async with followed(PediaClusters(Host(str(rig.kubeconfig)))) as source:
        await pedia("good-0", {"kubeconfig": text("http://good-0.test")})
        for number in range(40):
            keys = ("kubeconfig", "apiserver", "caData", "tokenData", "certData", "keyData", "syncResources")
            spec: Any = {key: _odd(chance) for key in (*keys, "syncResourcesRefName") if chance.random() < 0.5}
            if chance.random() < 0.5:
                spec["syncResources"] = [{"group": _odd(chance), "resources": _odd(chance), "versions": _odd(chance)}]
            if chance.random() < 0.5:
                spec["apiserver"] = "https://odd.test"
            await pedia(f"odd-{number}", spec if chance.random() < 0.9 else _odd(chance))
        await pedia("good-1", {"kubeconfig": text("http://good-1.test")})
        await eventually(has(source, "good-1", "http://good-1.test"))
        assert has(source, "good-0", "http://good-0.test")()
        assert source.complaint is None
        assert not any(access.problem for name, access in source.clusters.items() if name.startswith("good"))
        assert any(access.problem for access in source.clusters.values())


_DEEP = b"[" * 5000 + b"]" * 5000


def _odd_text(found: bytes) -> bytes:
    """Half of a surrogate pair, bytes that are no UTF-8, and what is nested too deeply to be decoded."""
    odd = {b'"HALF"': b'"a\\ud800b"', b'"BYTES"': b'"\xff"', b'"DEEP"': _DEEP}
    for mark, text_ in odd.items():
        found = found.replace(mark, text_)
    return found


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "watched"])
async def test_a_secret_with_odd_text_concerns_its_cluster_alone(rig: Rig, listed: bool) -> None:
    def odd() -> list[dict[str, Any]]:
        found = []
        for name, mark in (("half", "HALF"), ("bytes", "BYTES"), ("deep", "DEEP")):
            made = secret(f"{name}-kubeconfig", f"http://{name}.test", **{"kubebraid.io/cluster-name": f"odd-{name}"})
            made["metadata"]["annotations"] = {"note": mark}
            found.append(made)
        broken = secret("broken-kubeconfig", "http://broken.test")
        broken["data"]["kubeconfig"] = "HALF"
        return [*found, broken]

    async with front(rig.cluster, _odd_text) as url:
        document = kubeconfig([rig.cluster])
        document["clusters"][0]["cluster"] = {"server": url}
        rig.kubeconfig.write_text(json.dumps(document))
        origin = Secrets(Host(str(rig.kubeconfig)), namespace="default", selector="kubebraid.io/cluster")
        await rig.request("POST", SECRETS, secret("good-0-kubeconfig", "http://good-0.test"))
        if listed:
            for one in odd():
                await rig.request("POST", SECRETS, one)
        async with followed(origin) as source:
            await eventually(has(source, "good-0", "http://good-0.test"))
            if not listed:
                for one in odd():
                    await rig.request("POST", SECRETS, one)
            await rig.request("POST", SECRETS, secret("good-1-kubeconfig", "http://good-1.test"))
            await eventually(has(source, "good-1", "http://good-1.test"))
            for name in ("half", "bytes"):
                # Where it concerns nothing that is needed, it concerns nothing.
                assert has(source, f"odd-{name}", f"http://{name}.test")()
            deep = source.clusters["odd-deep"]
            assert deep.problem.startswith("secret deep-kubeconfig: ")
            assert "nested too deeply" in deep.problem
            assert source.clusters["broken"].problem == "secret broken-kubeconfig: kubeconfig is no base64"
            assert source.complaint is None
            # Well again.
            await rig.request("PUT", f"{SECRETS}/deep-kubeconfig", secret("deep-kubeconfig", "http://well.test"))
            await eventually(has(source, "deep", "http://well.test"))


async def test_a_pedia_cluster_with_odd_text_concerns_itself_alone(rig: Rig) -> None:
    await define_pedia(rig)
    async with front(rig.cluster, _odd_text) as url:
        document = kubeconfig([rig.cluster])
        document["clusters"][0]["cluster"] = {"server": url}
        rig.kubeconfig.write_text(json.dumps(document))

        async def pedia(name: str, **spec: Any) -> None:
            body = {
                "apiVersion": "cluster.clusterpedia.io/v1alpha2",
                "kind": "PediaCluster",
                "metadata": {"name": name},
                "spec": spec,
            }
            await rig.request("POST", f"{PEDIA}/pediaclusters", body)

        await pedia("good-0", apiserver="https://good-0.test")
        await pedia("half-0", apiserver="https://half-0.test", note="HALF")
        await pedia("deep-0", apiserver="https://deep-0.test", note="DEEP")
        async with followed(PediaClusters(Host(str(rig.kubeconfig)))) as source:
            await eventually(has(source, "good-0", "https://good-0.test"))
            await pedia("half-1", apiserver="https://half-1.test", note="HALF")
            await pedia("deep-1", apiserver="https://deep-1.test", note="DEEP")
            await pedia("good-1", apiserver="https://good-1.test")
            await eventually(has(source, "good-1", "https://good-1.test"))
            for number in range(2):
                assert has(source, f"half-{number}", f"https://half-{number}.test")()
                assert "nested too deeply" in source.clusters[f"deep-{number}"].problem
            assert source.complaint is None
