"""kubectl that reads, at the root and below one cluster: every output, option and kind of watch.

What it changes and streams is in test_kubectl_changes.py, tables in test_tables.py, explain in test_openapi.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.e2e.conftest import AskMember, Comparison, Follow, Kubectl, Members, Run, Service, below, objects

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME_AND_KIND = "jsonpath={.metadata.name} {.kind}{'\\n'}"
NEW_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "fresh", "namespace": "default", "labels": {"app": "fresh"}},
    "spec": {"containers": [{"name": "main", "image": "registry.example/fresh:1"}]},
}


@pytest.fixture
def service(shared_service: Service) -> Service:
    return shared_service


@pytest.fixture
def members(shared_members: Members) -> Members:
    return shared_members


async def test_get_pods_of_all_clusters_as_a_table(service: Service, members: Members, kubectl: Kubectl) -> None:
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
async def test_columns(service: Service, kubectl: Kubectl, resource: str, columns: list[str]) -> None:
    arguments = [] if resource in ("nodes", "namespaces") else ["-A"]
    code, out, err = await kubectl("--server", service.url, "get", resource, *arguments)
    assert code == 0, err
    head = out.splitlines()[0].split()
    assert head == (["NAMESPACE", *columns] if arguments else columns)
    assert len(out.splitlines()) > 2


async def test_label_selector_selects_as_the_cluster_does(
    service: Service, members: Members, kubectl: Kubectl, compare: Comparison
) -> None:
    objects, _ = await compare.items(members["alpha"].url + "/apis/apps/v1/deployments")
    app = next(iter(objects.values()))["metadata"]["labels"]["app"]
    code, out, err = await kubectl(
        *("--server", f"{service.url}/clusters/alpha", "get", "deploy", "-A", "-l", f"app={app}", "-o", "name")
    )
    assert code == 0, err
    wanted = {f"deployment.apps/{key[1]}" for key, one in objects.items() if one["metadata"]["labels"]["app"] == app}
    assert set(out.split()) == wanted
    assert 0 < len(wanted) < len(objects)


async def test_custom_resource_by_its_short_name_with_its_columns(service: Service, kubectl: Kubectl) -> None:
    code, out, err = await kubectl("--server", service.url, "get", "cert", "-A")
    assert code == 0, err
    assert out.splitlines()[0].split()[:4] == ["NAMESPACE", "CLUSTER", "NAME", "READY"]
    assert len(out.splitlines()) > 2


async def test_api_resources_and_raw(service: Service, kubectl: Kubectl) -> None:
    code, out, err = await kubectl("--server", service.url, "api-resources")
    assert code == 0, err
    assert any(line.split()[0] == "certificates" for line in out.splitlines())
    assert not any(line.split()[0] == "secrets" for line in out.splitlines()), "secrets are opt-in"
    code, out, err = await kubectl("--server", service.url, "get", "--raw", "/api/v1/namespaces")
    assert code == 0, err
    assert json.loads(out)["kind"] == "NamespaceList"


async def test_outputs_and_small_pages(service: Service, kubectl: Kubectl) -> None:
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


async def test_one_object_and_what_is_not_there(service: Service, kubectl: Kubectl) -> None:
    code, out, err = await kubectl("--server", f"{service.url}/clusters/alpha", "get", "ns", "default", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["metadata"]["name"] == "default"
    code, _, err = await kubectl("--server", service.url, "get", "ns", "default")
    assert code == 1
    assert "please specify the cluster name" in err
    assert "alpha, bravo" in err
    # The command that works is said.
    command = err.strip().rpartition("for example kubectl ")[2].split()
    code, out, err = await kubectl(*command)
    assert code == 0, err
    assert "default" in out
    code, _, err = await kubectl("--server", service.url, "get", "pod", "nobody", "-n", "default")
    assert code == 1
    assert 'pods "nobody" not found' in err
    code, _, err = await kubectl("--server", service.url, "get", "--raw", "/clusters/zulu/api/v1/pods")
    assert code == 1
    assert 'clusters "zulu" not found; there are: alpha, bravo' in err


async def test_bad_selector_and_write(service: Service, kubectl: Kubectl) -> None:
    code, _, err = await kubectl("--server", service.url, "get", "pods", "-l", "a in (")
    assert code == 1
    assert "unable to parse requirement" in err
    code, _, err = await kubectl("--server", service.url, "get", "pods", "-A", "--field-selector", "spec..color=red")
    assert code == 1
    assert "field label not supported: spec..color" in err
    # Any field may be asked for; that there is none, is warned of.
    code, out, err = await kubectl("--server", service.url, "get", "pods", "-A", "--field-selector", "spec.color=red")
    assert (code, out) == (0, "")
    assert "Warning: fieldSelector: none of the objects that were searched has spec.color" in err
    code, _, err = await kubectl("--server", service.url, "delete", "ns", "default", "--wait=false")
    assert code == 1
    assert "not allow" in err


# -- all outputs and options, across clusters and below one ------------------------------------------------------------

SCOPES = pytest.mark.parametrize("cluster", [None, "alpha"], ids=["root", "one-cluster"])


def bare(one: dict[str, Any]) -> dict[str, Any]:
    """An object without what only stands where objects of several types may."""
    return {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}


def pod_named(name: str) -> dict[str, Any]:
    return {**NEW_POD, "metadata": {"name": name, "namespace": "default", "labels": {"app": name}}}


@SCOPES
async def test_every_output_has_the_same_objects(service: Service, run: Run, cluster: str | None) -> None:
    listed = await objects(service, cluster, "/apis/apps/v1/deployments")
    names = [one["metadata"]["name"] for one in listed]
    get = ("get", "deployments", "-A", "-o")
    for output, loads in (("json", json.loads), ("yaml", yaml.safe_load)):
        found = loads(await run(cluster, *get, output))
        assert (found["kind"], found["apiVersion"]) == ("List", "v1")
        assert [bare(one) for one in found["items"]] == [bare(one) for one in listed]
        assert {one["kind"] for one in found["items"]} == {"Deployment"}
    assert (await run(cluster, *get, "name")).split() == [f"deployment.apps/{name}" for name in names]
    assert (await run(cluster, *get, "jsonpath={.items[*].metadata.name}")).split() == names
    template = '{{range .items}}{{.metadata.name}} {{.spec.replicas}}{{"\\n"}}{{end}}'
    assert (await run(cluster, *get, f"go-template={template}")).splitlines() == [
        f"{one['metadata']['name']} {one['spec']['replicas']}" for one in listed
    ]
    columns = "NAME:.metadata.name,IMAGE:.spec.template.spec.containers[0].image"
    head, *rows = (await run(cluster, *get, f"custom-columns={columns}")).splitlines()
    assert head.split() == ["NAME", "IMAGE"]
    assert [row.split() for row in rows] == [
        [one["metadata"]["name"], one["spec"]["template"]["spec"]["containers"][0]["image"]] for one in listed
    ]
    head, *rows = (await run(cluster, *get, "wide")).splitlines()
    assert head.split()[-3:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    at = head.index("IMAGES")
    assert [row[at:].split()[0] for row in rows] == [
        ",".join(container["image"] for container in one["spec"]["template"]["spec"]["containers"]) for one in listed
    ]


@SCOPES
async def test_order_labels_and_selectors(service: Service, run: Run, cluster: str | None) -> None:
    pods = await objects(service, cluster, "/api/v1/pods")
    get = ("get", "pods", "-A")
    out = await run(cluster, *get, "--sort-by=.metadata.creationTimestamp", "--no-headers")
    at = 1 if cluster else 2
    created: dict[tuple[str, str], list[str]] = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): [] for one in pods
    }
    for one in pods:
        created[one["metadata"]["namespace"], one["metadata"]["name"]].append(one["metadata"]["creationTimestamp"])
    times = [created[line.split()[0], line.split()[at]] for line in out.splitlines()]
    assert len(times) == len(pods)
    alone = [found[0] for found in times if len(found) == 1]
    assert alone == sorted(alone)
    assert len(alone) > len(pods) / 2
    head, *rows = (await run(cluster, *get, "-L", "app,tier", "--show-labels")).splitlines()
    assert head.split()[-3:] == ["APP", "TIER", "LABELS"]
    shown = {row.split()[-1] for row in rows}
    # In the order of the whole text: `a.b/c=1` stands before `a=1`.
    wanted = {",".join(sorted(f"{key}={value}" for key, value in one["metadata"]["labels"].items())) for one in pods}
    assert shown == wanted
    app = next(one["metadata"]["labels"]["app"] for one in pods if "app" in one["metadata"]["labels"])
    node = next(one["spec"]["nodeName"] for one in pods if one["metadata"]["labels"].get("app") == app)
    cases: tuple[tuple[list[str], Callable[[dict[str, Any]], bool]], ...] = (
        (["-l", f"app={app}"], lambda one: one["metadata"]["labels"].get("app") == app),
        (["-l", f"app notin ({app}),app"], lambda one: one["metadata"]["labels"].get("app", app) != app),
        (["--field-selector", f"spec.nodeName={node}"], lambda one: one["spec"].get("nodeName") == node),
        (
            ["--field-selector", "status.phase!=Running,metadata.namespace!=kube-system"],
            lambda one: one["status"]["phase"] != "Running" and one["metadata"]["namespace"] != "kube-system",
        ),
    )
    for options, chosen in cases:
        found = await run(cluster, *get, *options, "-o", "jsonpath={.items[*].metadata.uid}", "--chunk-size=3")
        assert sorted(found.split()) == sorted(one["metadata"]["uid"] for one in pods if chosen(one))


@SCOPES
async def test_several_types_and_categories_at_once(service: Service, run: Run, cluster: str | None) -> None:
    out = await run(cluster, "get", "deploy,svc,nodes,cert", "-A", "-o", "name")
    counts = {title: out.count(f"{title}/") for title in ("deployment.apps", "service", "node")}
    for title, path in (
        ("deployment.apps", "/apis/apps/v1/deployments"),
        ("service", "/api/v1/services"),
        ("node", "/api/v1/nodes"),
    ):
        assert counts[title] == len(await objects(service, cluster, path)) > 0
    out = await run(cluster, "get", "all", "-A", "-o", "name")
    assert {line.split("/")[0] for line in out.split()} >= {"pod", "service", "deployment.apps", "replicaset.apps"}


@SCOPES
async def test_watching_shows_each_change(following: Follow, member: AskMember, cluster: str | None) -> None:
    name = f"watched-{cluster or 'all'}"
    # What is there when it begins is how a test knows that it has begun.
    await member("POST", "/api/v1/namespaces/default/pods", pod_named(f"before-{name}"))
    async with (
        following(cluster, "get", "pods", "-n", "default", "-w", "--output-watch-events") as table,
        following(cluster, "get", "pods", "-n", "default", "--watch-only", "-o", "name", "-l", f"app={name}") as names,
        following(
            cluster, "get", "pods", "-n", "default", "-w", "-o", "jsonpath={.metadata.name} {.kind}{'\\n'}"
        ) as plain,
    ):
        await table.until(f"before-{name}")
        await plain.until(f"before-{name}")
        await member("POST", "/api/v1/namespaces/default/pods", pod_named(name))
        assert (await table.until(f" {name} "))[0] == "ADDED"
        # Of what came before its own watch began, this one never tells: it gets something to tell until it does.
        told = asyncio.ensure_future(names.until(f"pod/{name}"))
        number = 0
        while not told.done():
            number += 1
            change = {"metadata": {"annotations": {"number": str(number)}}}
            await member("PATCH", f"/api/v1/namespaces/default/pods/{name}", change, patch=True)
            assert (await table.until(f" {name} "))[0] == "MODIFIED"
            await asyncio.wait([told], timeout=0.2)
        assert await told == [f"pod/{name}"]
        await plain.until(f"{name} ")
        await member("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
        while (await table.until(f" {name} "))[0] != "DELETED":
            pass


@SCOPES
async def test_wait(
    service: Service, kubectl: Kubectl, following: Follow, member: AskMember, cluster: str | None
) -> None:
    name = f"awaited-{cluster or 'all'}"
    path = f"/api/v1/namespaces/default/pods/{name}"
    await member("POST", "/api/v1/namespaces/default/pods", pod_named(name))
    async with following(cluster, "get", "pods", "-n", "default", "-w", "--no-headers") as shown:
        await shown.until(name)
    wait = ("--server", below(service, cluster), "wait", "-n", "default", f"pod/{name}", "--timeout=30s")
    ready = asyncio.create_task(kubectl(*wait, "--for=condition=Ready"))
    phase = asyncio.create_task(kubectl(*wait, "--for=jsonpath={.status.phase}=Running"))
    code, _, err = await kubectl(*wait, "--for=condition=Ready", "--timeout=1ms")
    assert code == 1
    assert "timed out waiting for the condition" in err
    assert not ready.done()
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await member("PATCH", f"{path}/status", status, patch=True)
    for waiting in (ready, phase):
        code, out, err = await waiting
        assert (code, out) == (0, f"pod/{name} condition met\n"), err
    gone = asyncio.create_task(kubectl(*wait, "--for=delete"))
    await member("DELETE", f"{path}?gracePeriodSeconds=0")
    code, _, err = await gone
    # By now the deletion may have come before the question.
    assert code == 0 or "NotFound" in err, err


@SCOPES
async def test_what_the_server_has(service: Service, run: Run, cluster: str | None) -> None:
    wide = await run(cluster, "api-resources", "-o", "wide", "--no-headers")
    lines = {line.split()[0]: line for line in wide.splitlines()}
    assert "cert,certs" in lines["certificates"]
    assert "get,list" in lines["pods"].replace("create,delete,deletecollection,", "")
    names = (await run(cluster, "api-resources", "-o", "name", "--namespaced=false", "--verbs=list,watch")).split()
    assert {"nodes", "namespaces", "customresourcedefinitions.apiextensions.k8s.io"} <= set(names)
    assert "pods" not in names
    versions = (await run(cluster, "api-versions")).split()
    assert {"v1", "apps/v1", "certs.example.io/v1"} <= set(versions)
    assert json.loads(await run(cluster, "get", "--raw", "/api/v1/pods?limit=2"))["kind"] == "PodList"
    assert json.loads(await run(cluster, "version", "-o", "json"))["serverVersion"]["major"] == "1"


@SCOPES
async def test_rollout(run: Run, following: Follow, member: AskMember, cluster: str | None) -> None:
    name = f"rolled-{cluster or 'all'}"
    path = "/apis/apps/v1/namespaces/default/deployments"
    container = {"name": "main", "image": "registry.example/rolled:1"}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    made = await member("POST", path, {"metadata": {"name": name}, "spec": spec})
    async with following(cluster, "get", "deployments", "-n", "default", "-w", "--no-headers") as shown:
        await shown.until(name)
    generation = made["metadata"]["generation"]
    status = {"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2}
    await member("PATCH", f"{path}/{name}/status", {"status": {**status, "availableReplicas": 1}}, patch=True)
    async with following(cluster, "rollout", "status", f"deployment/{name}", "-n", "default") as shown:
        await shown.until("1 of 2 updated replicas are available")
        await member("PATCH", f"{path}/{name}/status", {"status": {"availableReplicas": 2}}, patch=True)
        await shown.until("successfully rolled out")
    assert name in await run(cluster, "rollout", "history", f"deployment/{name}", "-n", "default")


@pytest_asyncio.fixture(loop_scope="module")
async def with_events(members: Members, tmp_path: Path) -> AsyncIterator[Service]:
    """A service that has been asked for events, too."""
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    service = Service("up", *arguments, "--include", "*", "--include", "events", log=tmp_path / "up.log")
    await service.start()
    try:
        yield await service.ready()
    finally:
        await service.stop()


async def test_describe_with_events(with_events: Service, kubectl: Kubectl) -> None:
    """Events are served where they were asked for; then describe finds them, across clusters too."""
    service = with_events
    names = [one["metadata"]["name"] for one in await objects(service, None, "/api/v1/pods")]
    events = [
        one
        for one in await objects(service, "alpha", "/api/v1/events")
        if one["involvedObject"]["kind"] == "Pod" and names.count(one["involvedObject"]["name"]) == 1
    ]
    event = events[0]
    pod, namespace = event["involvedObject"]["name"], event["involvedObject"]["namespace"]
    deployment = (await objects(service, "alpha", "/apis/apps/v1/deployments"))[0]["metadata"]
    backend = (await objects(service, "alpha", "/api/v1/services"))[0]["metadata"]
    pods = await objects(service, "alpha", "/api/v1/pods")
    node = next(one["spec"]["nodeName"] for one in pods if one["metadata"]["name"] == pod)
    for cluster in (None, "alpha"):

        async def describe(*arguments: str, cluster: str | None = cluster) -> str:
            code, out, err = await kubectl("--server", below(service, cluster), "describe", *arguments)
            assert code == 0, err
            return out

        out = await describe("pod", pod, "-n", namespace)
        assert f"Node:             {node}/" in out
        _, told = out.split("Events:\n")
        assert event["reason"] in told
        assert event["message"] in told
        out = await describe("pods", "-n", namespace, "-l", "app")
        assert out.count("\nService Account:") > 1
        if cluster is None:
            continue
        out = await describe("deployment", deployment["name"], "-n", deployment["namespace"])
        assert "NewReplicaSet:" in out
        assert f"{deployment['name']}-" in out.split("NewReplicaSet:")[1].splitlines()[0]
        out = await describe("service", backend["name"], "-n", backend["namespace"])
        assert "Endpoints:" in out
        out = await describe("node", node)
        there = [one["metadata"]["name"] for one in pods if one["spec"].get("nodeName") == node]
        running = [
            one["metadata"]["name"]
            for one in pods
            if one["spec"].get("nodeName") == node and one["status"]["phase"] not in ("Succeeded", "Failed")
        ]
        assert there
        assert f"({len(running)} in total)" in out
        assert all(f" {name} " in out for name in running)
    code, out, err = await kubectl("--server", service.url, "events", "-n", namespace, "--for", f"pod/{pod}")
    assert code == 0, err
    assert event["message"] in out


# -- further options ---------------------------------------------------------------------------------------------------


@SCOPES
async def test_ways_to_show_rows(service: Service, run: Run, cluster: str | None) -> None:
    listed = await objects(service, cluster, "/api/v1/pods")
    get = ("get", "pods", "-A", "--no-headers")
    rows = (await run(cluster, *get, "--show-kind")).splitlines()
    # At the root the cluster comes first; the kind still stands before the name.
    at = 1 if cluster else 2
    assert [row.split()[at] for row in rows] == [f"pod/{one['metadata']['name']}" for one in listed]
    # The client's own columns, from whole objects.
    rows = (await run(cluster, *get, "--server-print=false")).splitlines()
    assert [row.split()[1] for row in rows] == [one["metadata"]["name"] for one in listed]
    # What a cluster's objects have, but for managedFields, which are not kept.
    found = json.loads(await run(cluster, "get", "pods", "-A", "-o", "json", "--show-managed-fields"))["items"]
    assert [bare(one) for one in found] == [bare(one) for one in listed]
    assert not any("managedFields" in one["metadata"] for one in found)


@SCOPES
async def test_names_that_are_not_there(service: Service, kubectl: Kubectl, run: Run, cluster: str | None) -> None:
    get = ("get", "pod", "nobody", "-n", "default")
    assert await run(cluster, *get, "--ignore-not-found") == ""
    code, _, err = await kubectl("--server", below(service, cluster), *get)
    assert (code, err) == (1, 'Error from server (NotFound): pods "nobody" not found\n')
    code, out, err = await kubectl("--server", below(service, cluster), "get", "pods", "-n", "nowhere")
    assert (code, out, err) == (0, "", "No resources found in nowhere namespace.\n")
    code, _, err = await kubectl("--server", below(service, cluster), "get", "unheard")
    assert (code, err) == (1, 'error: the server doesn\'t have a resource type "unheard"\n')


@SCOPES
async def test_one_object_in_every_output(
    service: Service, run: Run, member: AskMember, following: Follow, cluster: str | None
) -> None:
    name = f"single-{cluster or 'all'}"
    made = await member("POST", "/api/v1/namespaces/default/pods", pod_named(name))
    async with following(cluster, "get", "pods", "-n", "default", "-w", "--no-headers") as shown:
        await shown.until(name)
    get = ("get", "pod", name, "-n", "default", "-o")
    for output, loads in (("json", json.loads), ("yaml", yaml.safe_load)):
        found = loads(await run(cluster, *get, output))
        assert (found["kind"], found["apiVersion"]) == ("Pod", "v1")
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        assert found["metadata"]["resourceVersion"].endswith("." + made["metadata"]["resourceVersion"])
    assert await run(cluster, *get, "name") == f"pod/{name}\n"
    assert await run(cluster, *get, "jsonpath={.spec.containers[0].image}") == "registry.example/fresh:1"
    assert await run(cluster, *get, "go-template={{.metadata.labels.app}}") == name
    assert (await run(cluster, *get, "custom-columns=N:.metadata.name", "--no-headers")).split() == [name]
    assert name in await run(cluster, *get, "wide", "--show-labels")
    # Followed: one GET, then a watch of its name.
    async with following(cluster, "get", "pod", name, "-n", "default", "-w", "-o", NAME_AND_KIND) as shown:
        assert await shown.until(name) == [name, "Pod"]
        # Of what comes between the two it never tells: it gets something to tell until it does.
        told = asyncio.ensure_future(shown.until(name))
        number = 0
        while not told.done():
            number += 1
            change = {"metadata": {"labels": {"number": str(number)}}}
            await member("PATCH", f"/api/v1/namespaces/default/pods/{name}", change, patch=True)
            await asyncio.wait([told], timeout=0.2)
        assert await told == [name, "Pod"]
    await member("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")


@SCOPES
async def test_wait_for_what_comes(
    service: Service, kubectl: Kubectl, following: Follow, member: AskMember, cluster: str | None
) -> None:
    """`--for=create` asks again and again; the others watch by name or selector."""
    name = f"coming-{cluster or 'all'}"
    wait = ("--server", below(service, cluster), "wait", "-n", "default", "--timeout=30s")
    created = asyncio.create_task(kubectl(*wait, f"pod/{name}", "--for=create"))
    await member("POST", "/api/v1/namespaces/default/pods", pod_named(name))
    code, out, err = await created
    assert (code, out) == (0, f"pod/{name} condition met\n"), err
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}}
    await member("PATCH", f"/api/v1/namespaces/default/pods/{name}/status", status, patch=True)
    code, out, err = await kubectl(*wait, "pods", "-l", f"app={name}", "--for=condition=Ready=false")
    assert (code, out) == (0, f"pod/{name} condition met\n"), err
    await member("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
    code, _, err = await kubectl(*wait, "pods", "-l", f"app={name}", "--for=delete")
    assert code == 0 or "no matching resources found" in err, err


@SCOPES
async def test_chunks_are_pages_of_one_state(service: Service, run: Run, cluster: str | None) -> None:
    listed = await objects(service, cluster, "/api/v1/pods")
    out = await run(cluster, "get", "pods", "-A", "--chunk-size=7", "-o", "jsonpath={.items[*].metadata.uid}", "-v=6")
    assert out.split() == [one["metadata"]["uid"] for one in listed]
    table = await run(cluster, "get", "pods", "-A", "--chunk-size=7", "--no-headers")
    assert len(table.splitlines()) == len(listed)
    apps = [one["metadata"]["labels"].get("app", "") for one in listed]
    app = next(app for app in apps if app and apps.count(app) > 1)
    out = await run(cluster, "describe", "pods", "-A", "-l", f"app={app}", "--chunk-size=1")
    assert out.count("\nService Account:") == apps.count(app)


async def test_describe_of_a_name_in_two_clusters(service: Service, kubectl: Kubectl, run: Run) -> None:
    """At the root one must say which: below a cluster it is clear."""
    code, _, err = await kubectl("--server", service.url, "describe", "namespace", "default")
    assert code == 1
    assert "please specify the cluster name" in err
    assert "Status:       Active" in await run("alpha", "describe", "namespace", "default")
    cert = (await objects(service, "alpha", "/apis/certs.example.io/v1/certificates"))[0]["metadata"]
    out = await run("alpha", "describe", "cert", cert["name"], "-n", cert["namespace"])
    assert "API Version:  certs.example.io/v1" in out


@SCOPES
async def test_about_the_server(service: Service, kubectl: Kubectl, run: Run, cluster: str | None) -> None:
    assert f"is running at {below(service, cluster)}" in await run(cluster, "cluster-info")
    assert await run(cluster, "get", "--raw", "/readyz") == "ok"
    assert await run(cluster, "get", "--raw", "/livez") == "ok"
    assert await run(cluster, "get", "--raw", "/healthz") == "ok"
    assert json.loads(await run(cluster, "get", "--raw", "/openapi/v3"))["paths"]
    code, out, err = await kubectl("--server", below(service, cluster), "auth", "whoami", "-o", "json")
    if cluster is None:
        assert (code, json.loads(out)["status"]["userInfo"]["username"]) == (0, "system:anonymous"), err
    _, out, _ = await kubectl("--server", below(service, cluster), "auth", "can-i", "watch", "pods")
    assert out.split() == ["yes"]
