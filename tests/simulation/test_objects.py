"""Writes over HTTP: create, update, patch, delete, and what follows from them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.conftest import Client, MakeConfigMap, Start

MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "web:1"}, {"name": "proxy", "image": "proxy:1"}]},
        },
    },
}


def crd(plural: str = "widgets", group: str = "example.org", **version: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {"name": "v1alpha1", "served": True, "storage": False, "schema": {}},
                {"name": "v1", "served": True, "storage": True, "schema": {}, **version},
            ],
        },
    }


async def test_create_sets_what_the_server_sets(client: Client, config_map: MakeConfigMap) -> None:
    made = await client.create(MAPS, config_map("a", x="1"))
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["resourceVersion"] == str(client.cluster.storage.version)
    assert len(metadata["uid"]) == 36
    assert metadata["managedFields"][0]["operation"] == "Update"
    assert "generation" not in metadata
    assert await client.get(f"{MAPS}/a") == made
    status, error = await client.request("POST", MAPS, config_map("a"))
    assert (status, error["reason"]) == (409, "AlreadyExists")
    assert error["details"] == {"name": "a", "kind": "configmaps"}
    generated = await client.create(MAPS, {"metadata": {"generateName": "gen-"}})
    assert generated["metadata"]["name"].startswith("gen-")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (MAPS, b"{", 400),
        (MAPS, b"[]", 400),
        (MAPS, {"metadata": {}}, 422),
        (MAPS, {"metadata": {"name": "Not_Valid"}}, 422),
        (MAPS, {"kind": "Pod", "metadata": {"name": "a"}}, 400),
        (MAPS, {"apiVersion": "apps/v1", "metadata": {"name": "a"}}, 400),
        (MAPS, {"metadata": {"name": "a", "namespace": "other"}}, 400),
        (MAPS, {"metadata": {"name": "a", "labels": {"n": 1}}}, 400),
        (MAPS, {"metadata": {"name": "a", "resourceVersion": "5"}}, 400),
        (DEPLOYMENTS, {"metadata": {"name": "a"}, "spec": []}, 400),
        ("/api/v1/namespaces/absent/configmaps", {"metadata": {"name": "a"}}, 404),
        ("/api/v1/configmaps", {"metadata": {"name": "a"}}, 405),
        (CRDS, {"metadata": {"name": "a"}}, 422),
    ],
)
async def test_what_create_refuses(
    client: Client,
    path: str,
    body: bytes | dict[str, Any],
    code: int,
) -> None:
    status, error = await client.request("POST", path, body)
    assert (status, error["kind"], error["code"]) == (code, "Status", code)


async def test_update_needs_the_latest_version(client: Client, config_map: MakeConfigMap) -> None:
    made = await client.create(MAPS, config_map("a", x="1"))
    status, changed = await client.request("PUT", f"{MAPS}/a", {**made, "data": {"x": "2"}})
    assert status == 200
    status, error = await client.request("PUT", f"{MAPS}/a", {**made, "data": {"x": "3"}})
    assert (status, error["reason"]) == (409, "Conflict")
    assert "please apply your changes to the latest version" in error["message"]
    # No version: the last one wins. A wrong uid: conflict. A wrong name: bad.
    assert (await client.request("PUT", f"{MAPS}/a", config_map("a", x="4")))[0] == 200
    wrong = config_map("a")
    wrong["metadata"]["uid"] = "another"
    assert (await client.request("PUT", f"{MAPS}/a", wrong))[0] == 409
    assert (await client.request("PUT", f"{MAPS}/a", config_map("b")))[0] == 400
    assert (await client.request("PUT", f"{MAPS}/absent", config_map("absent")))[0] == 404
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]


async def test_what_changes_nothing_has_no_new_version(client: Client, config_map: MakeConfigMap) -> None:
    made = await client.create(MAPS, config_map("a", x="1"))
    status, same = await client.request("PUT", f"{MAPS}/a", made)
    assert (status, same) == (200, made)
    assert await client.patch(f"{MAPS}/a", {"data": {"x": "1"}}) == made
    assert client.cluster.storage.version == int(made["metadata"]["resourceVersion"])


async def test_generation_follows_the_spec_and_status_is_apart(client: Client) -> None:
    made = await client.create(DEPLOYMENTS, {**DEPLOYMENT, "status": {"replicas": 9}})
    assert made["metadata"]["generation"] == 1
    assert made["status"] == {}
    labelled = await client.patch(f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    scaled = await client.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 5}, "status": {"replicas": 7}})
    assert scaled["metadata"]["generation"] == 2
    assert scaled["status"] == {}
    told = await client.patch(f"{DEPLOYMENTS}/web/status", {"spec": {"replicas": 1}, "status": {"replicas": 5}})
    assert told["status"] == {"replicas": 5}
    assert told["spec"]["replicas"] == 5
    assert told["metadata"]["generation"] == 2
    assert told["metadata"]["managedFields"][-1]["subresource"] == "status"
    status, scale = await client.request("GET", f"{DEPLOYMENTS}/web/scale")
    assert (status, scale["kind"], scale["spec"]) == (200, "Scale", {"replicas": 5})
    scale["spec"]["replicas"] = 3
    assert (await client.request("PUT", f"{DEPLOYMENTS}/web/scale", scale))[0] == 200
    assert (await client.get(f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 3


async def test_the_four_patches(client: Client) -> None:
    await client.create(DEPLOYMENTS, DEPLOYMENT)
    path = f"{DEPLOYMENTS}/web"
    new_image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "web:2"}]}}}}

    def images(body: dict[str, Any]) -> list[str]:
        return [entry["image"] for entry in body["spec"]["template"]["spec"]["containers"]]

    strategic = await client.patch(path, new_image, "application/strategic-merge-patch+json")
    assert images(strategic) == ["web:2", "proxy:1"]
    removing = {"spec": {"template": {"spec": {"containers": [{"name": "proxy", "$patch": "delete"}]}}}}
    assert images(await client.patch(path, removing, "application/strategic-merge-patch+json")) == ["web:2"]
    json_patch = [
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 4},
        {"op": "add", "path": "/metadata/labels", "value": {"a~b": "c"}},
        {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "x", "image": "x:1"}},
        {"op": "copy", "from": "/spec/replicas", "path": "/spec/minReadySeconds"},
        {"op": "move", "from": "/spec/minReadySeconds", "path": "/spec/progressDeadlineSeconds"},
    ]
    patched = await client.patch(path, json_patch, "application/json-patch+json")
    assert images(patched) == ["web:2", "x:1"]
    assert (patched["spec"]["replicas"], patched["spec"]["progressDeadlineSeconds"]) == (4, 4)
    headers = {"Content-Type": "application/json-patch+json"}
    failing = [{"op": "test", "path": "/spec/replicas", "value": 2}]
    assert (await client.request("PATCH", path, failing, headers=headers))[0] == 422
    replaced = await client.patch(path, new_image)
    assert images(replaced) == ["web:2"]
    applied = b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {by: apply}}\n"
    headers = {"Content-Type": "application/apply-patch+yaml"}
    assert (await client.request("PATCH", path, applied, headers=headers))[0] == 422
    status, body = await client.request("PATCH", f"{path}?fieldManager=me", applied, headers=headers)
    assert status == 200
    assert body["metadata"]["labels"]["by"] == "apply"
    assert body["metadata"]["managedFields"][-1]["operation"] == "Apply"
    fresh = applied.replace(b"name: web", b"name: fresh")
    assert (await client.request("PATCH", f"{DEPLOYMENTS}/fresh?fieldManager=me", fresh, headers=headers))[0] == 201
    status, _ = await client.request("PATCH", path, {}, headers={"Content-Type": "application/odd"})
    assert status == 415


async def test_dry_run_changes_nothing(client: Client, config_map: MakeConfigMap) -> None:
    version = client.cluster.storage.version
    assert (await client.request("POST", f"{MAPS}?dryRun=All", config_map("a")))[0] == 201
    assert (await client.request("GET", f"{MAPS}/a"))[0] == 404
    assert (await client.request("DELETE", f"{MAPS}/kube-root-ca.crt?dryRun=All"))[0] == 200
    assert (await client.request("POST", f"{MAPS}?dryRun=Some", config_map("a")))[0] == 422
    assert client.cluster.storage.version == version


async def test_delete(client: Client, config_map: MakeConfigMap) -> None:
    made = await client.create(MAPS, config_map("a"))
    bad = {"preconditions": {"uid": "another"}}
    assert (await client.request("DELETE", f"{MAPS}/a", bad))[0] == 409
    gone = await client.delete(f"{MAPS}/a")
    assert (gone["kind"], gone["status"], gone["details"]["uid"]) == (
        "Status",
        "Success",
        made["metadata"]["uid"],
    )
    status, error = await client.request("DELETE", f"{MAPS}/a")
    assert (status, error["message"]) == (404, 'configmaps "a" not found')
    for name in ("a", "b", "c"):
        await client.create(MAPS, config_map(name, {"group": "x"} if name != "c" else None))
    deleted = await client.delete(f"{MAPS}?labelSelector=group%3Dx")
    assert [item["metadata"]["name"] for item in deleted["items"]] == ["a", "b"]
    assert (await client.get(f"{MAPS}/c"))["metadata"]["name"] == "c"


async def test_finalizers_hold_an_object(client: Client, config_map: MakeConfigMap) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.org/hold"]
    await client.create(MAPS, body)
    held = await client.delete(f"{MAPS}/a")
    assert held["metadata"]["deletionTimestamp"]
    await client.patch(f"{MAPS}/a", {"metadata": {"finalizers": None}})
    assert (await client.request("GET", f"{MAPS}/a"))[0] == 404


async def test_owners_take_their_dependents_along(client: Client) -> None:
    deployments = (await client.get("/apis/apps/v1/deployments"))["items"]
    chosen = max(deployments, key=lambda item: item["spec"]["replicas"])["metadata"]
    version = str(client.cluster.storage.version)
    await client.delete(f"/apis/apps/v1/namespaces/{chosen['namespace']}/deployments/{chosen['name']}")
    selector = f"app={chosen['name']}"
    assert (await client.get("/apis/apps/v1/replicasets", labelSelector=selector))["items"] == []
    assert (await client.get("/api/v1/pods", labelSelector=selector))["items"] == []
    params = {"resourceVersion": version, "labelSelector": selector, "timeoutSeconds": "1"}
    async with client.watch("/api/v1/pods", **params) as stream:
        events = await stream.rest()
    # A running pod is seen to end before it is gone.
    assert {event["type"] for event in events} == {"MODIFIED", "DELETED"}
    client.cluster.storage.check()


async def test_orphans_stay(client: Client) -> None:
    chosen = (await client.get("/apis/apps/v1/deployments"))["items"][0]["metadata"]
    path = f"/apis/apps/v1/namespaces/{chosen['namespace']}/deployments/{chosen['name']}"
    await client.delete(path, {"propagationPolicy": "Orphan"})
    [left] = (await client.get("/apis/apps/v1/replicasets", labelSelector=f"app={chosen['name']}"))["items"]
    assert "ownerReferences" not in left["metadata"] or left["metadata"]["ownerReferences"] == []


async def test_a_namespace_takes_its_content_along(client: Client, config_map: MakeConfigMap) -> None:
    await client.create("/api/v1/namespaces", {"metadata": {"name": "brief"}})
    await client.create("/api/v1/namespaces/brief/configmaps", config_map("a"))
    ending = await client.delete("/api/v1/namespaces/brief")
    assert ending["status"]["phase"] == "Terminating"
    assert (await client.request("GET", "/api/v1/namespaces/brief"))[0] == 404
    assert (await client.get("/api/v1/namespaces/brief/configmaps"))["items"] == []
    assert (await client.request("DELETE", "/api/v1/namespaces/default"))[0] == 403


async def test_custom_resources_come_and_go(client: Client) -> None:
    made = await client.create(CRDS, crd(subresources={"status": {}}))
    assert {(entry["type"], entry["status"]) for entry in made["status"]["conditions"]} == {
        ("NamesAccepted", "True"),
        ("Established", "True"),
    }
    assert made["status"]["storedVersions"] == ["v1"]
    group = await client.get("/apis/example.org")
    assert [entry["version"] for entry in group["versions"]] == ["v1", "v1alpha1"]
    path = "/apis/example.org/v1/namespaces/default/widgets"
    body = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"n": 1}}
    widget = await client.create(path, body)
    assert widget["metadata"]["generation"] == 1
    other = await client.get("/apis/example.org/v1alpha1/namespaces/default/widgets/w")
    assert other["apiVersion"] == "example.org/v1alpha1"
    assert (await client.request("PUT", f"{path}/w", body))[0] == 422
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    assert (await client.request("PATCH", f"{path}/w", {}, headers=headers))[0] == 415
    async with client.watch(path, resourceVersion=widget["metadata"]["resourceVersion"]) as stream:
        await client.delete(f"{CRDS}/widgets.example.org")
        events = await stream.rest()
    assert [event["type"] for event in events] == ["DELETED"]
    assert (await client.request("GET", "/apis/example.org"))[0] == 404
    assert (await client.request("GET", path))[0] == 404


async def test_logs(client: Client) -> None:
    pods = (await client.get("/api/v1/pods", fieldSelector="status.phase=Running"))["items"]
    metadata, container = pods[0]["metadata"], pods[0]["spec"]["containers"][0]["name"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
    status, text = await client.request("GET", path, params={"container": container, "tailLines": "2"})
    assert (status, text.count(b"\n")) == (200, 2)
    assert (await client.request("GET", path, params={"container": "absent"}))[0] == 400


async def test_tokens(start: Start) -> None:
    client = await start(token="secret")
    status, error = await client.request("GET", "/api")
    assert (status, error["reason"]) == (401, "Unauthorized")
    assert (await client.request("GET", "/api", headers={"Authorization": "Bearer secret"}))[0] == 200
