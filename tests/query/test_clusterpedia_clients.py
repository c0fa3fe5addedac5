"""What Clusterpedia's clients send: the requests of its documents, of its client-go and of kubectl with its kubeconfig.

Clusterpedia has no plugin of kubectl: hack/gen-clusterconfigs.sh adds clusters to a kubeconfig, whose servers are the
paths below `resources`. Each request is answered as there, or, where docs/search.md says so, rightly.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.query.test_collections import Several

ROOT = "/apis/clusterpedia.io/v1beta1"
ALL, ALPHA = f"{ROOT}/resources", f"{ROOT}/resources/clusters/alpha"
DEPLOYMENTS, PODS = "/apis/apps/v1/deployments", "/api/v1/pods"
# As kubectl asks for what it prints, and client-go for what it decodes.
KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
CLIENT_GO = "application/json, */*"
SEARCH = "search.clusterpedia.io/"


def fleet() -> Several:
    made = Several()
    for cluster in ("alpha", "bravo"):
        for namespace, name in (("kube-system", "coredns"), ("default", "web")):
            made.one("deployments", name, cluster=cluster, namespace=namespace, body={"spec": {"replicas": 3}})
            uid = made.uid("deployments", cluster, name, "")
            phase = "Running" if name == "web" else "Pending"
            containers = [{"name": "container1"}, {"name": name}]
            made.one(
                "pods",
                f"{name}-1",
                cluster=cluster,
                namespace=namespace,
                body={"spec": {"containers": containers}, "status": {"phase": phase}},
                fields={"status.phase": phase},
                controller_uid=uid,
            )
        made.one("statefulsets", "db", cluster=cluster, namespace="default")
    return made


def labelled(**labels: str) -> dict[str, str]:
    """Search labels as client-go's builder writes them: several values in parentheses."""
    texts = []
    for name, value in labels.items():
        label = f"internalstorage.clusterpedia.io/{name[1:]}" if name.startswith("_") else f"{SEARCH}{name}"
        label = label.replace("_", "-")
        texts.append(f"{label} in ({value})" if "," in value else f"{label}={value}")
    return {"labelSelector": ",".join(texts)}


def fields(text: str) -> dict[str, str]:
    return {"fieldSelector": text, "limit": "500"}


# Path, parameters, and what is found: as `cluster/name`, in its order.
LISTS: list[tuple[str, dict[str, str], str]] = [
    (ALL + DEPLOYMENTS, {}, "alpha/web alpha/coredns bravo/web bravo/coredns"),
    (ALPHA + DEPLOYMENTS, {}, "alpha/web alpha/coredns"),
    (f"{ALL}/apis/apps/v1/namespaces/kube-system/deployments", {}, "alpha/coredns bravo/coredns"),
    (ALL + DEPLOYMENTS, {"clusters": "alpha"}, "alpha/web alpha/coredns"),
    (ALL + DEPLOYMENTS, labelled(clusters="alpha,bravo"), "alpha/web alpha/coredns bravo/web bravo/coredns"),
    (ALL + DEPLOYMENTS, {"namespaces": "kube-system,other"}, "alpha/coredns bravo/coredns"),
    (ALL + DEPLOYMENTS, {"labelSelector": f"{SEARCH}namespaces in (kube-system, x)"}, "alpha/coredns bravo/coredns"),
    (ALL + DEPLOYMENTS, {"names": "coredns,airflow"}, "alpha/coredns bravo/coredns"),
    (f"{ALL}/apis/apps/v1/namespaces/default/deployments", {"names": "coredns,web"}, "alpha/web bravo/web"),
    (ALL + DEPLOYMENTS, labelled(clusters="bravo", names="coredns"), "bravo/coredns"),
    (ALL + DEPLOYMENTS, labelled(_fuzzy_name="ored"), "alpha/coredns bravo/coredns"),
    (ALL + PODS, fields("status.phase=Running"), "alpha/web-1 bravo/web-1"),
    (ALL + PODS, fields(".status.phase notin (Running,Succeeded)"), "alpha/coredns-1 bravo/coredns-1"),
    (ALL + PODS, fields("status['phase']!=Running"), "alpha/coredns-1 bravo/coredns-1"),
    (ALL + DEPLOYMENTS, fields("metadata.annotations['test.io'] in (value1,value2),spec.replicas=3"), ""),
    (ALPHA + PODS, fields("spec.containers[].name!=web"), "alpha/coredns-1"),
    (ALPHA + PODS, fields("spec.containers[].name == container1"), "alpha/web-1 alpha/coredns-1"),
    (ALPHA + PODS, fields("spec.containers[1].name in (web,other)"), "alpha/web-1"),
    (ALL + DEPLOYMENTS, {"orderby": "namespace desc,cluster"}, "alpha/coredns bravo/coredns alpha/web bravo/web"),
    (
        ALL + DEPLOYMENTS,
        {"labelSelector": f"{SEARCH}orderby in (namespace_desc, cluster, name)"},
        "alpha/coredns bravo/coredns alpha/web bravo/web",
    ),
    (ALL + DEPLOYMENTS, {"limit": "10", "continue": "2"}, "bravo/web bravo/coredns"),
    (ALL + DEPLOYMENTS, {**labelled(offset="3"), "limit": "10"}, "bravo/coredns"),
    (ALPHA + PODS, labelled(_owner_uid="deployments-alpha-web-1"), "alpha/web-1"),
    (ALPHA + PODS, labelled(owner_uid="deployments-alpha-web-1"), "alpha/web-1"),
    (ALPHA + PODS, labelled(owner_name="web", owner_gr="deployments.apps"), "alpha/web-1"),
    # client-go's builder multiplies seconds by a billion.
    (ALL + DEPLOYMENTS, {**labelled(names="web"), "timeoutSeconds": "5000000000000000000"}, "alpha/web bravo/web"),
    # Of collections.
    (f"{ROOT}/collectionresources/workloads", labelled(namespaces="default"), "alpha/web bravo/web alpha/db bravo/db"),
    (f"{ROOT}/collectionresources/workloads", {"limit": "1"}, "alpha/web"),
    (
        f"{ROOT}/collectionresources/any",
        {"groups": "apps", "resources": "batch/v1/jobs,batch/v1/cronjobs", "clusters": "alpha"},
        "alpha/web alpha/coredns alpha/db",
    ),
    (f"{ROOT}/collectionresources/any", {"onlyMetadata": "true", "groups": "apps", "names": "db"}, "alpha/db bravo/db"),
    (f"{ROOT}/collectionresources/any", {"resources": "pods,apps/deployments", "names": "web"}, "alpha/web bravo/web"),
]


def places(found: dict[str, Any]) -> str:
    texts = []
    for item in found["items"]:
        metadata = item["metadata"]
        texts.append(f"{metadata['labels']['cluster']}/{metadata['name']}")
    return " ".join(texts)


async def test_lists() -> None:
    async with fleet().serving() as ask:
        for path, query, wanted in LISTS:
            url = f"{path}?{urlencode(query, quote_via=quote)}"
            assert places(await ask.json(url, CLIENT_GO)) == wanted, url
            table = await ask.json(url, KUBECTL)
            if path.startswith(ALPHA):
                # Here as the cluster's own API server has them.
                assert [table["columnDefinitions"][0]["name"], len(table["rows"])] == ["Name", len(wanted.split())]
                continue
            assert table["columnDefinitions"][0]["name"] == "Cluster"
            clusters = [row["cells"][0] for row in table["rows"]]
            assert clusters == [one.partition("/")[0] for one in wanted.split()], url


async def test_pages_as_clients_count_them() -> None:
    async with fleet().serving() as ask:
        # The total that consoles show: offset + len(items) + remainingItemCount; a flag needs no value.
        for asked in ("withRemainingCount", "withRemainingCount=true", quote(f"labelSelector={SEARCH}", safe="=")):
            query = f"{asked}with-remaining-count%3Dtrue" if asked.startswith("label") else asked
            found = await ask.json(f"{ALL}{DEPLOYMENTS}?{query}&limit=1&continue=1", CLIENT_GO)
            assert 1 + len(found["items"]) + found["metadata"]["remainingItemCount"] == 4
        found = await ask.json(f"{ALL}{DEPLOYMENTS}?withContinue=true&limit=1", CLIENT_GO)
        rest = await ask.json(f"{ALL}{DEPLOYMENTS}?limit=10&continue={found['metadata']['continue']}", CLIENT_GO)
        assert len(rest["items"]) == 3
        page = await ask.json(f"{ROOT}/collectionresources/any?groups=apps&limit=2", CLIENT_GO)
        # Of collections they are fields of their own, as its Go type has them.
        assert (page["remainingItemCount"], "continue" in page, "continue" in page["metadata"]) == (4, True, False)


async def test_one_object_and_what_is_none() -> None:
    async with fleet().serving() as ask:
        path = "/apis/apps/v1/namespaces/default/deployments/web"
        assert (await ask.json(ALPHA + path, CLIENT_GO))["metadata"]["name"] == "web"
        # Two clusters have it: there "please specify the cluster name", here with the names.
        refused = await ask.json(ALL + path, CLIENT_GO, code=400)
        assert "alpha" in refused["message"]
        assert "bravo" in refused["message"]
        await ask.json(f"{ROOT}/resources/clusters/none{PODS}", CLIENT_GO, code=404)
        await ask.json(f"{ALL}{DEPLOYMENTS}?whereSQL=namespace%20IS%20NOT%20NULL", CLIENT_GO, code=400)
        await ask.json(f"{ALL}{DEPLOYMENTS}?since=2026-02-01&before=2026-01-01", CLIENT_GO, code=400)


@pytest.mark.parametrize("scope", [ALL, ALPHA])
async def test_discovery_as_kubectl_and_controller_runtime_look(scope: str) -> None:
    async with fleet().serving() as ask:
        assert (await ask.json(f"{scope}/version", CLIENT_GO))["major"] == "1"
        assert (await ask.json(f"{scope}/api", CLIENT_GO))["versions"] == ["v1"]
        groups = (await ask.json(f"{scope}/apis", CLIENT_GO))["groups"]
        assert [one["name"] for one in groups] == ["apps", "sea.example.io"]
        listed = await ask.json(f"{scope}/apis/apps/v1", CLIENT_GO)
        assert {one["name"]: "list" in one["verbs"] for one in listed["resources"]} == {
            "deployments": True,
            "statefulsets": True,
        }
        # What kubectl 1.26 and newer ask first.
        aggregated = await ask.json(
            f"{scope}/apis",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
        )
        assert [one["metadata"]["name"] for one in aggregated["items"]] == ["apps", "sea.example.io"]


async def test_collections_as_its_client_reads_them() -> None:
    """`CollectionResource().List`, `.Get` and `.Fetch` of client-go, and `kubectl get collectionresources`."""
    async with fleet().serving() as ask:
        listed = await ask.json(f"{ROOT}/collectionresources", CLIENT_GO)
        assert (listed["kind"], listed["apiVersion"]) == ("CollectionResourceList", "clusterpedia.io/v1beta1")
        assert [one["metadata"]["name"] for one in listed["items"]] == ["any", "workloads", "kuberesources"]
        table = await ask.json(f"{ROOT}/collectionresources?limit=500", KUBECTL)
        assert [row["cells"] for row in table["rows"]][:2] == [
            ["any", "*"],
            ["workloads", "apps.deployments,apps.daemonsets,apps.statefulsets"],
        ]
        assert table["rows"][2]["cells"][1].startswith(".*,admissionregistration.k8s.io.*,")
        # An error there as here: nothing says what is in it.
        assert (await ask.json(f"{ROOT}/collectionresources/any", CLIENT_GO, code=400))["reason"] == "BadRequest"
        table = await ask.json(f"{ROOT}/collectionresources/workloads", KUBECTL)
        columns = [one["name"] for one in table["columnDefinitions"]]
        assert columns == ["Cluster", "Group", "Version", "Kind", "Namespace", "Name", "Age"]
        assert table["rows"][0]["cells"][:6] == ["alpha", "apps", "v1", "Deployment", "default", "web"]
        found = await ask.json(f"{ROOT}/collectionresources/workloads?limit=1", CLIENT_GO)
        assert found["resourceTypes"][0] == {
            "group": "apps",
            "version": "v1",
            "kind": "Deployment",
            "resource": "deployments",
        }
        assert (found["items"][0]["kind"], found["items"][0]["apiVersion"]) == ("Deployment", "apps/v1")
        # Its example asks for one that is not there.
        missing = await ask.json(
            f"{ROOT}/collectionresources/workflows?{urlencode(labelled(namespaces='kube-system'))}", CLIENT_GO, code=404
        )
        assert missing["details"] == {"name": "workflows", "group": "clusterpedia.io", "kind": "collectionresources"}
