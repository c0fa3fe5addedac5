"""kubectl against a running service: what a newcomer types first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.e2e.conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME_AND_KIND = "jsonpath={.metadata.name} {.kind}{'\\n'}"
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


# -- all outputs and options, across clusters and below one ------------------------------------------------------------

SCOPES = pytest.mark.parametrize("cluster", [None, "alpha"], ids=["root", "one-cluster"])


def below(service, cluster: str | None) -> str:
    return service.url if cluster is None else f"{service.url}/clusters/{cluster}"


async def objects(service, cluster: str | None, path: str) -> list[dict]:
    return (await service.get(f"/clusters/{cluster}{path}" if cluster else path))["items"]


def bare(one: dict) -> dict:
    """An object without what only stands where objects of several types may."""
    return {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}


@pytest.fixture
def run(service, kubectl):
    """kubectl that must succeed, in a scope: its standard output."""

    async def made(cluster: str | None, *arguments: str) -> str:
        code, out, err = await kubectl("--server", below(service, cluster), *arguments)
        assert code == 0, err
        return out

    return made


class Following:
    """A kubectl that runs on, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, *words: str) -> list[str]:
        """The columns of the next line that has all the words; fails when none comes."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                if all(word in line for word in words):
                    return line.split()
        raise AssertionError(f"kubectl ended before a line with {words} came")


@pytest.fixture
def following(service, tmp_path):
    """kubectl that runs on, in a scope; killed at the end of the block."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not on this machine")

    @contextlib.asynccontextmanager
    async def made(cluster: str | None, *arguments: str):
        process = await asyncio.create_subprocess_exec(
            *(found, "--server", below(service, cluster), *arguments),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)},
        )
        try:
            yield Following(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return made


@pytest.fixture
def member(members):
    """Requests to the member cluster alpha itself."""

    async def ask(method: str, path: str, body: dict | None = None, *, patch: bool = False) -> dict:
        headers = {"Content-Type": "application/merge-patch+json"} if patch else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, members["alpha"].url + path, json=body, headers=headers) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return await answer.json()

    return ask


def pod_named(name: str) -> dict:
    return {**NEW_POD, "metadata": {"name": name, "namespace": "default", "labels": {"app": name}}}


@SCOPES
async def test_every_output_has_the_same_objects(service, run, cluster):
    listed = await objects(service, cluster, "/apis/apps/v1/deployments")
    names = [one["metadata"]["name"] for one in listed]
    get = ("get", "deployments", "-A", "-o")
    for output, loads in (("json", json.loads), ("yaml", yaml.safe_load)):
        found = loads(await run(cluster, *get, output))
        assert (found["kind"], found["apiVersion"]) == ("List", "v1")
        assert [
            {key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in found["items"]
        ] == [{key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in listed]
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
async def test_order_labels_and_selectors(service, run, cluster):
    pods = await objects(service, cluster, "/api/v1/pods")
    get = ("get", "pods", "-A")
    out = await run(cluster, *get, "--sort-by=.metadata.creationTimestamp", "--no-headers")
    at = 1 if cluster else 2
    created = {(one["metadata"]["namespace"], one["metadata"]["name"]): [] for one in pods}
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
    wanted = {",".join(f"{key}={value}" for key, value in sorted(one["metadata"]["labels"].items())) for one in pods}
    assert shown == wanted
    app = next(one["metadata"]["labels"]["app"] for one in pods if "app" in one["metadata"]["labels"])
    node = next(one["spec"]["nodeName"] for one in pods if one["metadata"]["labels"].get("app") == app)
    for options, chosen in (
        (["-l", f"app={app}"], lambda one: one["metadata"]["labels"].get("app") == app),
        (["-l", f"app notin ({app}),app"], lambda one: one["metadata"]["labels"].get("app", app) != app),
        (["--field-selector", f"spec.nodeName={node}"], lambda one: one["spec"].get("nodeName") == node),
        (
            ["--field-selector", "status.phase!=Running,metadata.namespace!=kube-system"],
            lambda one: one["status"]["phase"] != "Running" and one["metadata"]["namespace"] != "kube-system",
        ),
    ):
        found = await run(cluster, *get, *options, "-o", "jsonpath={.items[*].metadata.uid}", "--chunk-size=3")
        assert sorted(found.split()) == sorted(one["metadata"]["uid"] for one in pods if chosen(one))


@SCOPES
async def test_several_types_and_categories_at_once(service, run, cluster):
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
async def test_watching_shows_each_change(following, member, cluster):
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
async def test_wait(service, kubectl, following, member, cluster):
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
async def test_what_the_server_has(service, run, cluster):
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
async def test_rollout(service, run, cluster):
    path = "/apis/apps/v1/deployments"
    names = [one["metadata"]["name"] for one in await objects(service, None, path)]
    one = next(
        one
        for one in await objects(service, "alpha", path)
        if names.count(one["metadata"]["name"]) == 1
        and one["status"].get("availableReplicas") == one["status"].get("updatedReplicas") == one["spec"]["replicas"]
    )
    name, namespace = one["metadata"]["name"], one["metadata"]["namespace"]
    out = await run(cluster, "rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=20s")
    assert "successfully rolled out" in out
    assert name in await run(cluster, "rollout", "history", f"deployment/{name}", "-n", namespace)


@pytest_asyncio.fixture(loop_scope="module")
async def with_events(members, tmp_path):
    """A service that has been asked for events, too."""
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    service = Service("up", *arguments, "--include", "*", "--include", "events", log=tmp_path / "up.log")
    await service.start()
    try:
        yield await service.ready()
    finally:
        await service.stop()


async def test_describe_with_events(with_events, kubectl):
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
