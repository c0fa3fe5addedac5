"""What a real kubectl shows of objects in known states, wide columns too: the rows a kube-apiserver would send."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Kubectl, Members, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMESPACE = "states"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
TEMPLATE = {
    "metadata": {"labels": {"app": "shop"}},
    "spec": {"containers": [{"name": "a", "image": "r.io/a:1"}, {"name": "b", "image": "r.io/b:2"}]},
}
SELECTOR = {"matchLabels": {"app": "shop"}}
RUNNING = {"ready": True, "restartCount": 0, "state": {"running": {}}}


def ago(hours: float) -> str:
    """So that the age has half an hour until it reads otherwise."""
    return (datetime.now(UTC) - timedelta(hours=hours + 0.5)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(statuses: list[dict[str, Any]], phase: str, spec: dict[str, Any] | None = None, **status: Any) -> Any:
    named = [{"name": f"c{at}", **one} for at, one in enumerate(statuses)]
    containers = [{"name": one["name"], "image": "r.io/c:1"} for one in named]
    return (
        {"containers": containers, "nodeName": "n1", **(spec or {})},
        {"phase": phase, "podIP": "10.9.8.7", "podIPs": [{"ip": "10.9.8.7"}], "containerStatuses": named, **status},
    )


FAILING = {
    "ready": False,
    "restartCount": 7,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "finishedAt": ago(26)}},
}
DONE = {"ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
SIDECAR = {"initContainers": [{"name": "mesh", "image": "r.io/mesh:1", "restartPolicy": "Always"}]}
MESH = {"name": "mesh", "started": True, **RUNNING}
GATED = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
READY = [{"type": "Ready", "status": "True"}, {"type": "a.io/seen", "status": "True"}]

# Path, name, spec or more of the object, status.
OBJECTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("/api/v1/namespaces/states/pods", "crashes", *pod([RUNNING, FAILING], "Running")),
    ("/api/v1/namespaces/states/pods", "ended", *pod([DONE], "Succeeded")),
    ("/api/v1/namespaces/states/pods", "evicted", *pod([], "Failed", reason="Evicted")),
    (
        "/api/v1/namespaces/states/pods",
        "gated",
        *pod([], "Pending", {"nodeName": ""}, conditions=GATED, podIP="", podIPs=[]),
    ),
    ("/api/v1/namespaces/states/pods", "leaving", *pod([RUNNING], "Running")),
    (
        "/api/v1/namespaces/states/pods",
        "meshed",
        *pod(
            [RUNNING],
            "Running",
            {**SIDECAR, "readinessGates": [{"conditionType": "a.io/seen"}, {"conditionType": "b.io/seen"}]},
            initContainerStatuses=[MESH],
            conditions=READY,
            nominatedNodeName="n2",
        ),
    ),
    (
        "/api/v1/namespaces/states/services",
        "balanced",
        {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9"],
            "externalIPs": ["198.51.100.7"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"b": "2", "a": "1"},
        },
        {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "203.0.113.5"}]}},
    ),
    (
        "/apis/apps/v1/namespaces/states/deployments",
        "shop",
        {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
        {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
    ),
    (
        "/apis/apps/v1/namespaces/states/statefulsets",
        "db",
        {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE},
        {"replicas": 3, "readyReplicas": 1},
    ),
    (
        "/apis/batch/v1/namespaces/states/jobs",
        "migrate",
        {"completions": 3, "parallelism": 2, "selector": SELECTOR, "template": TEMPLATE},
        {"succeeded": 1, "startTime": ago(50)},
    ),
    (
        "/apis/batch/v1/namespaces/states/cronjobs",
        "nightly",
        {
            "schedule": "0 3 * * *",
            "timeZone": "Etc/UTC",
            "suspend": True,
            "jobTemplate": {"spec": {"template": TEMPLATE}},
        },
        {"lastScheduleTime": ago(9)},
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/states/ingresses",
        "front",
        {"ingressClassName": "nginx", "rules": [{"host": f"{one}.example.com"} for one in "abcd"], "tls": [{}]},
        {"loadBalancer": {"ingress": [{"ip": "203.0.113.6"}]}},
    ),
    (
        "/api/v1/namespaces/states/persistentvolumeclaims",
        "data",
        {"volumeName": "pv-1", "storageClassName": "fast", "volumeMode": "Block", "accessModes": ["ReadWriteOnce"]},
        {"phase": "Bound", "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "8Gi"}},
    ),
    (
        "/api/v1/nodes",
        "cordoned",
        {"unschedulable": True},
        {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [
                {"type": "InternalIP", "address": "10.0.0.4"},
                {"type": "ExternalIP", "address": "192.0.2.4"},
            ],
            "nodeInfo": {"kubeletVersion": "v1.36.1", "osImage": "Debian", "containerRuntimeVersion": "containerd://2"},
        },
    ),
]

# By resource: columns and rows as `kubectl get -o wide` prints them; `*` stands for the age of what was just created.
WIDE: dict[str, list[list[str]]] = {
    "pods": [
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ["crashes", "1/2", "CrashLoopBackOff", "7 (26h ago)", "*", "10.9.8.7", "n1", "<none>", "<none>"],
        ["ended", "0/1", "Completed", "0", "*", "10.9.8.7", "n1", "<none>", "<none>"],
        ["evicted", "0/0", "Evicted", "0", "*", "10.9.8.7", "n1", "<none>", "<none>"],
        ["gated", "0/0", "SchedulingGated", "0", "*", "<none>", "<none>", "<none>", "<none>"],
        ["leaving", "1/1", "Terminating", "0", "*", "10.9.8.7", "n1", "<none>", "<none>"],
        ["meshed", "2/2", "Running", "0", "*", "10.9.8.7", "n1", "n2", "1/2"],
    ],
    "services": [
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"],
        [
            *("balanced", "LoadBalancer", "10.96.0.9", "203.0.113.5,lb.example.com,198.51.100.7"),
            *("80:30080/TCP,53/UDP", "*", "a=1,b=2"),
        ],
    ],
    "deployments": [
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"],
        ["shop", "2/3", "1", "2", "*", "a,b", "r.io/a:1,r.io/b:2", "app=shop"],
    ],
    "statefulsets": [
        ["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"],
        ["db", "1/3", "*", "a,b", "r.io/a:1,r.io/b:2"],
    ],
    "jobs": [
        ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"],
        ["migrate", "Running", "1/3", "2d2h", "*", "a,b", "r.io/a:1,r.io/b:2", "app=shop"],
    ],
    "cronjobs": [
        [
            *("NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "AGE", "CONTAINERS", "IMAGES"),
            "SELECTOR",
        ],
        ["nightly", "0 3 * * *", "Etc/UTC", "True", "0", "9h", "*", "a,b", "r.io/a:1,r.io/b:2", "<none>"],
    ],
    "ingresses": [
        ["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"],
        ["front", "nginx", "a.example.com,b.example.com,c.example.com + 1 more...", "203.0.113.6", "80, 443", "*"],
    ],
    "persistentvolumeclaims": [
        [
            *("NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "VOLUMEATTRIBUTESCLASS", "AGE"),
            "VOLUMEMODE",
        ],
        ["data", "Bound", "pv-1", "8Gi", "RWO,RWX", "fast", "<unset>", "*", "Block"],
    ],
    "node/cordoned": [
        [
            *("NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION"),
            "CONTAINER-RUNTIME",
        ],
        [
            *("cordoned", "NotReady,SchedulingDisabled", "edge", "*", "v1.36.1", "10.0.0.4", "192.0.2.4", "Debian"),
            *("<unknown>", "containerd://2"),
        ],
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(shared_members: Members, shared_service: Service) -> Service:
    """The service, with objects in all these states in cluster alpha, seen by it."""
    alpha = shared_members["alpha"]
    async with aiohttp.ClientSession() as session:

        async def put(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            async with session.request(method, alpha.url + path, json=body) as answer:
                assert answer.status in (200, 201, 202), await answer.text()
                made: dict[str, Any] = await answer.json()
                return made

        await put("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        newest: dict[str, str] = {}
        for path, name, spec, status in OBJECTS:
            metadata: dict[str, Any] = {"name": name}
            if name == "leaving":
                metadata["finalizers"] = ["example.io/hold"]
            if name == "cordoned":
                metadata["labels"] = {"node-role.kubernetes.io/edge": ""}
            made = await put("POST", path, {"metadata": metadata, "spec": spec})
            made = await put("PUT", f"{path}/{name}/status", {**made, "status": status})
            if name == "leaving":
                made = await put("DELETE", f"{path}/{name}", {})
            newest[path] = made["metadata"]["resourceVersion"]
    for path, version in newest.items():
        # A list at a version of the cluster's waits until that is here.
        at = json.dumps({"alpha": version})
        await shared_service.get(path, resourceVersion=at, resourceVersionMatch="NotOlderThan")
    return shared_service


def read(table: str) -> list[list[str]]:
    """The cells of each line, cut where the head's columns begin."""
    lines = table.splitlines()
    starts = [found.start() for found in re.finditer(r"(?<!\S)(?<!\S )\S", lines[0])]
    return [[line[begin:end].strip() for begin, end in zip(starts, [*starts[1:], None], strict=True)] for line in lines]


def same(cells: list[str], wanted: list[str]) -> bool:
    ages = [cell for cell, want in zip(cells, wanted, strict=True) if want == "*"]
    fixed = [cell if want != "*" else "*" for cell, want in zip(cells, wanted, strict=True)]
    return fixed == wanted and all(re.fullmatch(r"\d+s|\d+m(\d+s)?", age) for age in ages)


@pytest.mark.parametrize("resource", WIDE)
async def test_wide_rows(service: Service, kubectl: Kubectl, resource: str) -> None:
    scope = ("--server", f"{service.url}/clusters/alpha", "-n", NAMESPACE)
    code, out, err = await kubectl(*scope, "get", resource, "-o", "wide")
    assert code == 0, err
    found = read(out)
    assert found[0] == WIDE[resource][0]
    assert len(found) == len(WIDE[resource])
    for cells, wanted in zip(found[1:], WIDE[resource][1:], strict=True):
        assert same(cells, wanted), (cells, wanted)


async def test_rows_of_several_types_with_labels_at_the_root(service: Service, kubectl: Kubectl) -> None:
    code, out, err = await kubectl(
        *("--server", service.url, "-n", NAMESPACE, "get", "deployments,statefulsets", "--show-labels")
    )
    assert code == 0, err
    tables = [read(table) for table in out.strip().split("\n\n")]
    assert [table[0] for table in tables] == [
        ["CLUSTER", "NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "LABELS"],
        ["CLUSTER", "NAME", "READY", "AGE", "LABELS"],
    ]
    assert same(tables[0][1], ["alpha", "deployment.apps/shop", "2/3", "1", "2", "*", "<none>"]), out
    assert same(tables[1][1], ["alpha", "statefulset.apps/db", "1/3", "*", "<none>"]), out


async def test_rows_sorted_by_what_no_column_shows(service: Service, kubectl: Kubectl) -> None:
    scope = ("--server", f"{service.url}/clusters/alpha", "-n", NAMESPACE)
    code, out, err = await kubectl(*scope, "get", "pods", "--no-headers", "--sort-by", "{.status.phase}")
    assert code == 0, err
    phases = ["evicted", "gated", "crashes", "leaving", "meshed", "ended"]
    assert [line.split()[0] for line in out.splitlines()] == phases


async def test_a_watch_of_one_pod_shows_its_rows_as_they_change(
    service: Service, kubectl: Kubectl, shared_members: Members
) -> None:
    """`get -w` makes tables of single objects: one head, then a row for each state."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/crashes"
    alpha = shared_members["alpha"]
    query = {"watch": "1", "fieldSelector": "metadata.name=crashes", "timeoutSeconds": "30"}
    async with aiohttp.ClientSession() as session:
        url = f"{service.url}/clusters/alpha{path.removesuffix('/crashes')}"
        async with asyncio.timeout(PATIENCE), session.get(url, params=query, headers=TABLE) as watch:
            first = json.loads(await watch.content.readline())["object"]
            assert [column["name"] for column in first["columnDefinitions"]][:3] == ["Name", "Ready", "Status"]
            assert first["rows"][0]["cells"][1:4] == ["1/2", "CrashLoopBackOff", "7 (26h ago)"]
            async with session.get(alpha.url + path) as answer:
                before = await answer.json()
            after = {**before, "status": {**before["status"], "phase": "Failed"}}
            async with session.put(f"{alpha.url}{path}/status", json=after) as answer:
                assert answer.status == 200
            second = json.loads(await watch.content.readline())["object"]
            assert second["columnDefinitions"] is None
            [row] = second["rows"]
            assert row["conditions"][0]["reason"] == "Failed"
        async with session.get(alpha.url + path) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        async with session.put(
            f"{alpha.url}{path}/status",
            json={**before, "metadata": {**before["metadata"], "resourceVersion": version}},
        ) as answer:
            assert answer.status == 200
            restored = (await answer.json())["metadata"]["resourceVersion"]
    at = json.dumps({"alpha": restored})
    await service.get("/api/v1/pods", resourceVersion=at, resourceVersionMatch="NotOlderThan")


async def test_a_watch_of_nothing_tells_its_columns_with_the_first_bookmark(service: Service) -> None:
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "1",
    }
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        url = f"{service.url}/api/v1/namespaces/nowhere/pods"
        async with session.get(url, params=query, headers=TABLE) as watch:
            first, *later = [json.loads(line) async for line in watch.content]
    assert first["type"] == "BOOKMARK"
    assert [column["name"] for column in first["object"]["columnDefinitions"]][:2] == ["Cluster", "Name"]
    assert all(event["object"]["columnDefinitions"] is None for event in later)


async def test_what_is_to_be_included_is_a_matter_of_tables(service: Service) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{service.url}/api/v1/namespaces/{NAMESPACE}/pods?includeObject=All"
        async with session.get(url) as answer:
            assert answer.status == 200
        async with session.get(url, headers=TABLE) as answer:
            assert answer.status == 400
            assert "Unable to convert to Table as requested" in (await answer.json())["message"]
