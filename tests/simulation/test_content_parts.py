"""The parts of the content, each made alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
import zstandard

from simulation.content import ContentBuilder, PodBuilder, Variety, add_event
from simulation.content.builder import owner_reference
from simulation.content.certificates import CERTIFICATES, add_certificate, add_definition
from simulation.content.network import add_service
from simulation.content.nodes import add_node
from simulation.content.pods import PodState
from simulation.content.populate import populate
from simulation.content.templates import pod_template
from simulation.content.volumes import add_volume
from simulation.content.workloads import Workloads, deployment_status, replica_set_status
from simulation.registry import Registry
from simulation.storage import ClusterStorage

# What zstandard takes as samples.
Buffer = bytes | bytearray | memoryview
ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
OWNER = owner_reference("apps/v1", "ReplicaSet", "web", "11111111-1111-4111-8111-111111111111")


@pytest.fixture
def builder() -> ContentBuilder:
    """Of an empty cluster at noon, with two nodes."""
    made = ContentBuilder(Registry(ClusterStorage(seed=1)), "alpha", 1, clock=lambda: NOON)
    for number in range(2):
        add_node(made, number)
    return made


def test_a_node_has_its_lease(builder: ContentBuilder) -> None:
    assert builder.nodes == ["alpha-node-000", "alpha-node-001"]
    node = builder.storage.get(("", "nodes"), "", "alpha-node-000")
    lease = builder.storage.get(("coordination.k8s.io", "leases"), "kube-node-lease", "alpha-node-000")
    assert node is not None
    assert lease is not None
    assert lease.owners == (node.uid,)
    assert lease.body()["spec"]["renewTime"] == "2026-01-31T12:00:00.000000Z"
    assert node.body()["metadata"]["creationTimestamp"] == "2025-12-12T12:00:00Z"
    assert node.body()["spec"]["taints"]


@pytest.mark.parametrize(
    ("state", "phase", "ready", "waiting"),
    [
        ("Running", "Running", True, None),
        ("NotReady", "Running", False, None),
        ("CrashLoopBackOff", "Running", False, "CrashLoopBackOff"),
        ("Starting", "Pending", False, "ContainerCreating"),
        ("Completed", "Succeeded", False, None),
    ],
)
def test_a_pod_in_each_state(
    builder: ContentBuilder, state: PodState, phase: str, ready: bool, waiting: str | None
) -> None:
    template = pod_template("web", "shop", "frontend", "registry.example.io/web:1", sidecar=True)
    pod = PodBuilder(builder).add("shop", "web-", template, OWNER, state, age=60.0)
    body = pod.body()
    assert body["metadata"]["creationTimestamp"] == "2026-01-31T11:59:00Z"
    assert body["spec"]["nodeName"] == "alpha-node-001", "the first node is the control plane's"
    status = body["status"]
    assert (status["phase"], "podIP" in status) == (phase, state != "Starting")
    conditions = {one["type"]: one["status"] == "True" for one in status["conditions"]}
    assert (conditions["Ready"], conditions["ContainersReady"], conditions["PodScheduled"]) == (ready, ready, True)
    assert [one["name"] for one in status["containerStatuses"]] == ["app", "proxy"]
    for one in status["containerStatuses"]:
        assert one["ready"] is ready
        assert one["state"].get("waiting", {}).get("reason") == waiting
    assert {entry["manager"] for entry in body["metadata"]["managedFields"]} == {"kube-controller-manager", "kubelet"}


def test_a_pod_that_is_not_scheduled(builder: ContentBuilder) -> None:
    template = pod_template("web", "shop", "frontend", "registry.example.io/web:1", sidecar=False)
    body = PodBuilder(builder).add("shop", "web-", template, OWNER, "Pending").body()
    assert "nodeName" not in body["spec"]
    assert body["status"]["conditions"][0]["message"] == "0/2 nodes are available: 2 Insufficient memory."
    assert [entry["manager"] for entry in body["metadata"]["managedFields"]] == ["kube-controller-manager"]


def test_a_service_has_the_addresses_of_its_pods(builder: ContentBuilder) -> None:
    template = pod_template("web", "shop", "frontend", "registry.example.io/web:1", sidecar=False)
    pods = PodBuilder(builder)
    made = [pods.add("shop", "web-", template, OWNER, state) for state in ("Running", "NotReady", "Pending")]
    add_service(builder, "shop", "web", {"app": "web"}, made, 60.0)
    [found] = builder.storage.collections[("discovery.k8s.io", "endpointslices")].in_order()
    endpoints = found.body()["endpoints"]
    assert [one["targetRef"]["uid"] for one in endpoints] == [made[0].uid, made[1].uid]
    assert [one["conditions"]["ready"] for one in endpoints] == [True, False]


def test_a_claim_and_its_volume_name_each_other(builder: ContentBuilder) -> None:
    add_volume(builder, "shop", "data-db-0", {}, 60.0)
    [claim] = builder.storage.collections[("", "persistentvolumeclaims")].in_order()
    [volume] = builder.storage.collections[("", "persistentvolumes")].in_order()
    assert claim.body()["spec"]["volumeName"] == volume.name
    assert volume.body()["spec"]["claimRef"]["uid"] == claim.uid


def test_workloads_have_their_pods(builder: ContentBuilder) -> None:
    workloads = Workloads(builder, PodBuilder(builder))
    workloads.add_daemon_set(2)
    workloads.add_stateful_set("shop", 3)
    workloads.add_job("shop", 0)
    workloads.add_cron_job("shop")
    workloads.add_application("shop", 0, 4)
    pods = list(builder.storage.collections[("", "pods")].in_order())
    owned = [pod.body()["metadata"]["ownerReferences"][0]["kind"] for pod in pods]
    assert {kind: owned.count(kind) for kind in owned} == {"DaemonSet": 2, "StatefulSet": 3, "Job": 1, "ReplicaSet": 4}
    assert {pod.name for pod in pods} >= {"shop-db-0", "shop-db-1", "shop-db-2"}
    builder.storage.check()


def test_counts_of_zero_are_left_out() -> None:
    assert "unavailableReplicas" not in deployment_status(4, 4, 1, "2026-01-31T12:00:00Z")
    assert deployment_status(8, 6, 1, "")["conditions"][0]["status"] == "True"
    assert deployment_status(8, 5, 1, "")["conditions"][0]["status"] == "False"
    assert replica_set_status(0, 0, 3) == {"replicas": 0, "observedGeneration": 3}


def test_an_event_is_about_a_pod(builder: ContentBuilder) -> None:
    template = pod_template("web", "shop", "frontend", "registry.example.io/web:1", sidecar=False)
    pod = PodBuilder(builder).add("shop", "web-", template, OWNER, "Running")
    event = add_event(builder, "shop", pod.name, age=30.0)
    assert event is not None
    assert event.body()["involvedObject"]["uid"] == pod.uid
    assert event.body()["lastTimestamp"] == "2026-01-31T11:59:30Z"
    assert add_event(builder, "shop", "absent") is None


def test_a_certificate_needs_its_definition(builder: ContentBuilder) -> None:
    assert CERTIFICATES not in builder.storage.collections
    add_definition(builder)
    add_certificate(builder, "shop", 6)
    [certificate] = builder.storage.collections[CERTIFICATES].in_order()
    assert certificate.body()["status"]["conditions"][0]["reason"] == "Issuing"


@pytest.mark.slow
def test_mixed_pods_shrink_as_those_of_a_real_cluster() -> None:
    """6 to 7 times under a dictionary trained on other pods of the cluster; uniform ones twice as much."""
    ratios = {}
    for variety in get_args(Variety):
        registry = Registry(ClusterStorage(seed=1), now=lambda: "2026-01-31T12:00:00Z")
        populate(registry, name="alpha", pods=4000, seed=1, clock=lambda: NOON, variety=variety)
        bodies = []
        for stored in registry.storage.collections[("", "pods")].in_order():
            body = stored.body()
            del body["metadata"]["managedFields"]
            bodies.append(json.dumps(body, separators=(",", ":")).encode())
        sizes = sorted(map(len, bodies))
        assert 4_200 < sum(sizes) / len(sizes) < 5_200, variety
        if variety == "mixed":
            assert (sizes[0] < 2_500, sizes[-1] > 12_000, sizes[-1] < 25_000) == (True, True, True)
        random.Random(1).shuffle(bodies)
        training, others = bodies[:1000], bodies[1000:]
        dictionary = zstandard.train_dictionary(112 * 1024, list[Buffer](training))
        packer = zstandard.ZstdCompressor(level=3, dict_data=dictionary, write_checksum=False)
        ratios[variety] = sum(map(len, others)) / sum(len(packer.compress(body)) for body in others)
    assert 6.0 < ratios["mixed"] < 7.2
    assert 12.0 < ratios["uniform"] < 15.0


def test_mixed_pods_are_what_clusters_have() -> None:
    """All that makes pods differ occurs among a thousand."""
    registry = Registry(ClusterStorage(seed=1), now=lambda: "2026-01-31T12:00:00Z")
    populate(registry, name="alpha", pods=1000, seed=1, clock=lambda: NOON)
    pods = [stored.body() for stored in registry.storage.collections[("", "pods")].in_order()]
    spec_keys = {key for pod in pods for key in pod["spec"]}
    assert spec_keys >= {"affinity", "imagePullSecrets", "initContainers", "nodeSelector", "topologySpreadConstraints"}
    assert {pod["status"]["qosClass"] for pod in pods} == {"Burstable", "BestEffort", "Guaranteed"}
    assert any("mesh.example.io/status" in pod["metadata"]["annotations"] for pod in pods)
    for pod in pods:
        created, status = pod["metadata"]["creationTimestamp"], pod["status"]
        times = [one["lastTransitionTime"] for one in status["conditions"]]
        assert all(created <= time <= "2026-01-31T12:00:00Z" for time in times)
        names = [container["name"] for container in pod["spec"]["containers"]]
        assert len(set(names)) == len(names)
        if status["phase"] == "Running":
            assert [one["name"] for one in status["containerStatuses"]] == names
        mounted = {
            mount["name"]
            for one in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))
            for mount in one.get("volumeMounts", ())
        }
        assert mounted <= {volume["name"] for volume in pod["spec"].get("volumes", ())}


def digest(seed: int) -> str:
    """A hash over all that is made for a seed."""
    registry = Registry(ClusterStorage(seed=seed), now=lambda: "2026-01-31T12:00:00Z")
    populate(registry, name="alpha", pods=60, seed=seed, clock=lambda: NOON)
    whole = hashlib.sha256()
    for collection in registry.storage.collections.values():
        for event in collection.events:
            whole.update(event.current.tail)
    return whole.hexdigest()


@pytest.mark.processes
@pytest.mark.parametrize("hashing", ["1", "2"])
def test_a_seed_makes_the_same_bytes_in_each_process(hashing: str) -> None:
    """Whatever order the hashes of a process give its sets."""
    code = "from tests.simulation.test_content_parts import digest; print(digest(4))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hashing},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest(4) != digest(5)
