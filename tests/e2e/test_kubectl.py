"""kubectl against a running service: what a newcomer types first."""

from __future__ import annotations

import asyncio
import json

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "fresh", "namespace": "default", "labels": {"app": "fresh"}},
    "spec": {"containers": [{"name": "main", "image": "registry.example/fresh:1"}]},
}


@pytest.fixture
def service(shared_service):
    return shared_service


@pytest.fixture
def members(shared_members):
    return shared_members


async def test_get_pods_of_all_clusters_as_a_table(service, members, kubectl):
    code, out, err = await kubectl("--server", service.url, "get", "pods", "-A")
    assert code == 0, err
    head, *rows = out.splitlines()
    assert head.split() == ["NAMESPACE", "CLUSTER", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert len(rows) == 120
    assert {row.split()[1] for row in rows} == {"alpha", "bravo"}
    for cluster in members.clusters:
        code, out, err = await kubectl("--server", f"{service.url}/clusters/{cluster.name}", "get", "pods", "-A")
        assert code == 0, err
        assert out.splitlines()[0].split()[:2] == ["NAMESPACE", "NAME"]
        assert len(out.splitlines()) == 61


@pytest.mark.parametrize(
    ("resource", "columns"),
    [
        ("deployments", ["CLUSTER", "NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]),
        ("nodes", ["CLUSTER", "NAME", "STATUS", "ROLES", "AGE", "VERSION"]),
        ("services", ["CLUSTER", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]),
        ("namespaces", ["CLUSTER", "NAME", "STATUS", "AGE"]),
    ],
)
async def test_columns(service, kubectl, resource, columns):
    arguments = [] if resource in ("nodes", "namespaces") else ["-A"]
    code, out, err = await kubectl("--server", service.url, "get", resource, *arguments)
    assert code == 0, err
    head = out.splitlines()[0].split()
    assert head == (["NAMESPACE", *columns] if arguments else columns)
    assert len(out.splitlines()) > 2


async def test_label_selector_selects_as_the_cluster_does(service, members, kubectl, compare):
    objects, _ = await compare.items(members["alpha"].url + "/apis/apps/v1/deployments")
    app = next(iter(objects.values()))["metadata"]["labels"]["app"]
    code, out, err = await kubectl(
        *("--server", f"{service.url}/clusters/alpha", "get", "deploy", "-A", "-l", f"app={app}", "-o", "name")
    )
    assert code == 0, err
    wanted = {f"deployment.apps/{key[1]}" for key, one in objects.items() if one["metadata"]["labels"]["app"] == app}
    assert set(out.split()) == wanted
    assert 0 < len(wanted) < len(objects)


async def test_custom_resource_by_its_short_name_with_its_columns(service, kubectl):
    code, out, err = await kubectl("--server", service.url, "get", "cert", "-A")
    assert code == 0, err
    assert out.splitlines()[0].split()[:4] == ["NAMESPACE", "CLUSTER", "NAME", "READY"]
    assert len(out.splitlines()) > 2


async def test_api_resources_and_raw(service, kubectl):
    code, out, err = await kubectl("--server", service.url, "api-resources")
    assert code == 0, err
    assert any(line.split()[0] == "certificates" for line in out.splitlines())
    assert not any(line.split()[0] == "secrets" for line in out.splitlines()), "secrets are opt-in"
    code, out, err = await kubectl("--server", service.url, "get", "--raw", "/api/v1/namespaces")
    assert code == 0, err
    assert json.loads(out)["kind"] == "NamespaceList"


async def test_outputs_and_small_pages(service, kubectl):
    code, out, err = await kubectl("--server", service.url, "get", "pods", "-A", "-o", "name", "--chunk-size=7")
    assert code == 0, err
    assert len(out.split()) == 120
    code, out, err = await kubectl("--server", service.url, "get", "pods", "-A", "-o", "json")
    assert code == 0, err
    clusters = {
        item["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"] for item in json.loads(out)["items"]
    }
    assert clusters == {"alpha", "bravo"}
    code, out, err = await kubectl("--server", service.url, "get", "nodes", "-o", "wide", "--sort-by", ".metadata.name")
    assert code == 0, err
    assert "INTERNAL-IP" in out.splitlines()[0]


async def test_watch_sees_a_new_object_and_its_end(service, members, kubectl):
    watching = asyncio.create_task(
        kubectl("--server", service.url, "get", "pods", "-n", "default", "-w", "--output-watch-events", seconds=6)
    )
    await asyncio.sleep(2)
    url = ("--server", members["alpha"].url)
    code, _, err = await kubectl(*url, "create", "--validate=false", "-f", "-", input=json.dumps(NEW_POD))
    assert code == 0, err
    await asyncio.sleep(1)
    code, _, err = await kubectl(*url, "delete", "pod", "fresh", "-n", "default", "--wait=false")
    assert code == 0, err
    _, out, _ = await watching
    events = [(line.split()[0], line.split()[2]) for line in out.splitlines() if "fresh" in line and "alpha" in line]
    assert events[0][0] == "ADDED", out
    assert events[-1][0] == "DELETED", out


async def test_one_object_and_what_is_not_there(service, kubectl):
    code, out, err = await kubectl("--server", f"{service.url}/clusters/alpha", "get", "ns", "default", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["metadata"]["name"] == "default"
    code, _, err = await kubectl("--server", service.url, "get", "ns", "default")
    assert code == 1
    assert "please specify the cluster name" in err
    assert "alpha, bravo" in err
    code, _, err = await kubectl("--server", service.url, "get", "pod", "nobody", "-n", "default")
    assert code == 1
    assert 'pods "nobody" not found' in err
    code, _, err = await kubectl("--server", service.url, "get", "--raw", "/clusters/zulu/api/v1/pods")
    assert code == 1
    assert 'clusters "zulu" not found; there are: alpha, bravo' in err


async def test_bad_selector_and_write(service, kubectl):
    code, _, err = await kubectl("--server", service.url, "get", "pods", "-l", "a in (")
    assert code == 1
    assert "unable to parse requirement" in err
    code, _, err = await kubectl("--server", service.url, "get", "pods", "-A", "--field-selector", "spec.color=red")
    assert code == 1
    assert "field label not supported: spec.color" in err
    code, _, err = await kubectl("--server", service.url, "delete", "ns", "default", "--wait=false")
    assert code == 1
    assert "not allow" in err
