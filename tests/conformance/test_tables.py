"""Tables: Kubernetes' test/e2e/apimachinery/table_conversion.go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.endpoint import Endpoint
from tests.conformance.scenarios import REAL, scenario

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

TABLE = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
NEWER_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
# At the root a table begins with the cluster: docs/compatibility.md.
BELOW_A_CLUSTER = ("member", "cluster")
POD = {
    "metadata": {"name": "pod-1"},
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "pod-1",
                "image": "registry.k8s.io/pause:3.10",
                "ports": [{"containerPort": 8080}],
                "env": [{"name": "SERVE_PORT_8080", "value": "foo"}],
            }
        ],
    },
}


def printed(table: dict[str, Any]) -> list[str]:
    """The lines of a table as kubectl prints them, wide columns left out."""
    columns = [number for number, one in enumerate(table["columnDefinitions"]) if one["priority"] == 0]
    head = " ".join(table["columnDefinitions"][number]["name"].upper() for number in columns)
    return [head, *(" ".join(str(row["cells"][number]) for number in columns) for row in table["rows"])]


@scenario(
    "table_conversion.go",
    "should return pod details",
    runs=BELOW_A_CLUSTER if REAL else ("cluster",),
)
async def test_one_pod(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        await endpoint.create(pods, POD)
        table = await endpoint.get_as(TABLE, f"{pods}/pod-1")
        await endpoint.delete(f"{pods}/pod-1", gracePeriodSeconds=0)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1beta1")
    assert len(table["columnDefinitions"]) > 2
    [row] = table["rows"]
    assert len(row["cells"]) == len(table["columnDefinitions"])
    assert (table["columnDefinitions"][0]["name"], row["cells"][0]) == ("Name", "pod-1")
    head, line = printed(table)
    assert head.startswith("NAME ")
    assert line.startswith("pod-1 ")


@scenario("table_conversion.go", "should return chunks of table results for list calls", runs=BELOW_A_CLUSTER)
async def test_chunks(endpoint: Endpoint) -> None:
    async with endpoint.namespace() as namespace:
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        for number in range(20):
            await endpoint.create(leases, {"metadata": {"name": f"template-{number:04d}"}})
        page = await endpoint.get_as(TABLE, leases, limit="2")
        rest = await endpoint.get_as(TABLE, leases, **{"continue": page["metadata"]["continue"]})
    assert [row["cells"][0] for row in page["rows"]] == ["template-0000", "template-0001"]
    assert page["metadata"]["resourceVersion"]
    assert [row["cells"][0] for row in rest["rows"]] == [f"template-{number:04d}" for number in range(2, 20)]


@scenario(
    "table_conversion.go",
    "should return generic metadata details across all namespaces for nodes",
    runs=BELOW_A_CLUSTER,
)
async def test_nodes(endpoint: Endpoint) -> None:
    table = await endpoint.get_as(TABLE, "/api/v1/nodes")
    assert len(table["columnDefinitions"]) >= 2
    if not table["rows"] and not endpoint.simulated:
        pytest.skip("the cluster has no nodes")
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
    assert table["columnDefinitions"][0]["name"] == "Name"
    assert table["metadata"]["resourceVersion"]
    assert printed(table)[0].startswith("NAME ")


@scenario("table_conversion.go", "should return a 406 for a backend which does not implement metadata")
async def test_what_has_no_table(endpoint: Endpoint) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    }
    # At the root, too, though nothing is written there.
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    headers = {"Accept": NEWER_TABLE}
    async with endpoint.session.post(endpoint.reads + path, json=review, headers=headers) as answer:
        assert answer.status == 406
        assert (await answer.json())["code"] == 406
