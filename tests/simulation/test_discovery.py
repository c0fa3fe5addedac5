"""Discovery: the legacy lists and the aggregated form."""

from __future__ import annotations

from tests.simulation.conftest import Client

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_legacy(client: Client) -> None:
    assert (await client.get("/api"))["versions"] == ["v1"]
    core = await client.get("/api/v1")
    assert core["groupVersion"] == "v1"
    pods = next(entry for entry in core["resources"] if entry["name"] == "pods")
    assert pods == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
    }
    assert {"pods/log", "pods/status"} <= {entry["name"] for entry in core["resources"]}
    groups = {group["name"]: group for group in (await client.get("/apis"))["groups"]}
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    assert "certs.example.io" in groups
    apps = await client.get("/apis/apps/v1")
    assert "deployments/scale" in {entry["name"] for entry in apps["resources"]}
    certificates = (await client.get("/apis/certs.example.io/v1"))["resources"][0]
    assert certificates["shortNames"] == ["cert", "certs"]


async def test_aggregated(client: Client) -> None:
    for path in ("/api", "/apis"):
        async with client.session.get(client.cluster.url + path, headers={"Accept": V2}) as response:
            assert response.headers["Content-Type"] == V2
            assert response.headers["Vary"] == "Accept"
            tag = response.headers["ETag"]
            body = await response.json(content_type=None)
        assert (body["kind"], body["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
        if path == "/api":
            [core] = body["items"]
            assert "name" not in core["metadata"]
            pods = next(entry for entry in core["versions"][0]["resources"] if entry["resource"] == "pods")
            assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
            assert pods["scope"] == "Namespaced"
            below = [entry["subresource"] for entry in pods["subresources"]]
            assert below == ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"]
        else:
            assert "" not in {item["metadata"]["name"] for item in body["items"]}
        headers = {"Accept": V2, "If-None-Match": tag}
        async with client.session.get(client.cluster.url + path, headers=headers) as response:
            assert response.status == 304


async def test_a_server_that_lacks_the_aggregated_form(client: Client) -> None:
    client.cluster.faults.aggregated_discovery = False
    async with client.session.get(client.cluster.url + "/apis", headers={"Accept": f"{V2},application/json"}) as got:
        assert got.headers["Content-Type"] == "application/json"
        assert (await got.json())["kind"] == "APIGroupList"


async def test_paths_that_are_not_there(client: Client) -> None:
    for path in (
        "/nothing",
        "/api/v2",
        "/apis/none",
        "/apis/apps/v9",
        "/apis/apps/v1/none",
        "/api/v1/pods/a",
    ):
        status, error = await client.request("GET", path)
        assert (status, error["kind"], error["reason"]) == (404, "Status", "NotFound"), path
    assert (await client.request("OPTIONS", "/api/v1/pods"))[0] == 405


async def test_health_and_version(client: Client) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert await client.request("GET", path) == (200, b"ok")
    assert (await client.get("/version"))["gitVersion"] == "v1.36.0"
