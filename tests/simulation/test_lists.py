"""LIST over HTTP: versions, pages, selectors, forms."""

from __future__ import annotations

import base64
import json

import pytest

from tests.simulation.conftest import Client, MakeConfigMap, Start

PODS = "/api/v1/pods"


async def test_items_of_built_in_types_have_no_kind(client: Client) -> None:
    listed = await client.get(PODS)
    assert (listed["kind"], listed["apiVersion"]) == ("PodList", "v1")
    assert len(listed["items"]) == 40
    assert all("kind" not in item and "apiVersion" not in item for item in listed["items"])
    assert listed["metadata"] == {"resourceVersion": str(client.cluster.storage.version)}
    one = listed["items"][0]["metadata"]
    alone = await client.get(f"/api/v1/namespaces/{one['namespace']}/pods/{one['name']}")
    assert (alone["kind"], alone["apiVersion"]) == ("Pod", "v1")
    assert alone["metadata"] == one


async def test_items_of_custom_resources_have_a_kind(client: Client) -> None:
    listed = await client.get("/apis/certs.example.io/v1/certificates")
    assert listed["kind"] == "CertificateList"
    assert {item["kind"] for item in listed["items"]} == {"Certificate"}
    assert {item["apiVersion"] for item in listed["items"]} == {"certs.example.io/v1"}


async def test_order_is_that_of_etcd_keys(client: Client) -> None:
    items = (await client.get(PODS))["items"]
    paths = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items]
    assert paths == sorted(paths)


async def test_pages_are_one_snapshot(client: Client, config_map: MakeConfigMap) -> None:
    expected = (await client.get(PODS))["items"]
    first = await client.get(PODS, limit="7")
    version = first["metadata"]["resourceVersion"]
    assert first["metadata"]["remainingItemCount"] == 33
    token = first["metadata"]["continue"]
    decoded = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert decoded["v"] == "meta.k8s.io/v1"
    assert decoded["rv"] == int(version)
    items = first["items"]
    victim = expected[-1]["metadata"]
    await client.delete(f"/api/v1/namespaces/{victim['namespace']}/pods/{victim['name']}")
    while token:
        page = await client.get(PODS, limit="7", **{"continue": token})
        assert page["metadata"]["resourceVersion"] == version
        items += page["items"]
        token = page["metadata"].get("continue", "")
    assert items == expected
    assert len((await client.get(PODS))["items"]) == 39


async def test_pages_of_a_namespace_and_a_selector(client: Client) -> None:
    whole = await client.get(PODS)
    namespace = whole["items"][0]["metadata"]["namespace"]
    expected = [item for item in whole["items"] if item["metadata"]["namespace"] == namespace]
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert (await client.get(path))["items"] == expected
    first = await client.get(path, limit="2")
    assert first["metadata"]["remainingItemCount"] == len(expected) - 2
    second = await client.get(path, limit="500", **{"continue": first["metadata"]["continue"]})
    assert first["items"] + second["items"] == expected
    page = await client.get(PODS, limit="2", labelSelector="app")
    assert "remainingItemCount" not in page["metadata"]


async def test_continue_after_compaction_is_expired_and_may_go_on(client: Client) -> None:
    first = await client.get(PODS, limit="10")
    await client.request(
        "PATCH",
        "/api/v1/nodes/alpha-node-000",
        {"metadata": {"labels": {"a": "b"}}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    client.cluster.storage.compact()
    status, error = await client.request("GET", PODS, params={"limit": "10", "continue": first["metadata"]["continue"]})
    assert (status, error["reason"], error["code"]) == (410, "Expired", 410)
    rest = await client.get(PODS, limit="500", **{"continue": error["metadata"]["continue"]})
    assert len(rest["items"]) == 30


async def test_versions(client: Client) -> None:
    before = await client.get(PODS)
    version = before["metadata"]["resourceVersion"]
    victim = before["items"][0]["metadata"]
    await client.delete(f"/api/v1/namespaces/{victim['namespace']}/pods/{victim['name']}")
    exact = await client.get(PODS, resourceVersion=version, resourceVersionMatch="Exact")
    assert exact == before
    assert len((await client.get(PODS, resourceVersion=version, limit="500"))["items"]) == 40
    for params in (
        {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": version},
        {"resourceVersion": "0", "limit": "3"},
    ):
        assert len((await client.get(PODS, **params))["items"]) == 39
    client.cluster.storage.compact()
    params = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    status, error = await client.request("GET", PODS, params=params)
    assert (status, error["reason"]) == (410, "Expired")


async def test_a_version_of_the_future_is_waited_for(start: Start) -> None:
    client = await start(pods=40, version_wait=0.05)
    wanted = str(client.cluster.storage.version + 5)
    status, error = await client.request("GET", PODS, params={"resourceVersion": wanted})
    assert (status, error["reason"]) == (504, "Timeout")
    assert error["details"]["retryAfterSeconds"] == 1
    assert error["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422),
        ({"resourceVersionMatch": "Odd", "resourceVersion": "5"}, 422),
        ({"sendInitialEvents": "true"}, 422),
        ({"resourceVersion": "abc"}, 400),
        ({"limit": "x"}, 400),
        ({"continue": "no-token"}, 400),
        ({"fieldSelector": "spec.color=red"}, 400),
        ({"labelSelector": "a in (b"}, 400),
        ({"labelSelector": "a=b=c"}, 400),
    ],
)
async def test_what_lists_refuse(client: Client, params: dict[str, str], code: int) -> None:
    status, error = await client.request("GET", PODS, params=params)
    assert (status, error["kind"], error["code"]) == (code, "Status", code)


async def test_selectors(client: Client, config_map: MakeConfigMap) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    for name, labels in (
        ("a", {"app": "web", "tier": "front"}),
        ("b", {"app": "web", "tier": "back"}),
        ("c", {"app": "db", "size": "10"}),
        ("d", None),
    ):
        await client.create(path, config_map(name, labels))

    async def names(**params: str) -> str:
        listed = await client.get(path, **params)
        return "".join(item["metadata"]["name"] for item in listed["items"] if len(item["metadata"]["name"]) == 1)

    for selector, expected in (
        ("app=web", "ab"),
        ("app==web,tier!=back", "a"),
        ("app!=web", "cd"),
        ("app in (web, db)", "abc"),
        ("app notin (web)", "cd"),
        ("!app", "d"),
        ("app", "abc"),
        ("size>5", "c"),
        ("size<5", ""),
        ("tier in (front),app", "a"),
    ):
        assert await names(labelSelector=selector) == expected, selector
    assert await names(fieldSelector="metadata.name=b") == "b"
    assert await names(fieldSelector="metadata.name!=b,metadata.namespace=default") == "acd"
    pods = (await client.get(PODS))["items"]
    node = "alpha-node-001"
    found = await client.get(PODS, fieldSelector=f"spec.nodeName={node},status.phase!=Succeeded")
    expected_pods = [
        pod for pod in pods if pod["spec"].get("nodeName") == node and pod["status"]["phase"] != "Succeeded"
    ]
    assert found["items"] == expected_pods


async def test_tables_and_metadata(client: Client) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, certs = await client.request("GET", "/apis/certs.example.io/v1/certificates", headers={"Accept": table})
    assert [column["name"] for column in certs["columnDefinitions"]] == [
        "Name",
        "Ready",
        "Secret",
        "Issuer",
        "Age",
    ]
    assert [column["priority"] for column in certs["columnDefinitions"]] == [0, 0, 0, 1, 0]
    cells = certs["rows"][0]["cells"]
    assert cells[1:4] == ["True", cells[0], "example-ca"]
    assert certs["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    _, listed = await client.request("GET", PODS, headers={"Accept": partial})
    assert listed["kind"] == "PartialObjectMetadataList"
    assert all("spec" not in item for item in listed["items"])
    status, _ = await client.request("GET", PODS, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert status == 406
    both = "application/vnd.kubernetes.protobuf,application/json"
    assert (await client.request("GET", PODS, headers={"Accept": both}))[0] == 200


async def test_a_large_list_is_the_same_in_gzip(start: Start) -> None:
    client = await start(pods=700)
    async with client.session.get(client.cluster.url + PODS, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        packed = await response.json()
    async with client.session.get(client.cluster.url + PODS, headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        plain = await response.json()
    assert packed == plain
    assert len(plain["items"]) == 700
