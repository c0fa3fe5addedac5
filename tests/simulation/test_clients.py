"""Real clients: kubectl, the Python client, and the command that runs it all."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from simulation import SimulatedCluster, simulate, write_kubeconfig
from simulation.kubeconfig import cluster_name
from tests.patience import PATIENCE, eventually
from tests.simulation.conftest import Start

KUBECTL = shutil.which("kubectl")

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: app, image: "hello:1"}]}
---
apiVersion: certs.example.io/v1
kind: Certificate
metadata: {name: hello, namespace: default}
spec: {secretName: hello, issuerRef: {name: ours}}
"""


@pytest.mark.processes
@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on this machine")
async def test_kubectl(start: Start, tmp_path: Path) -> None:
    client = await start(pods=40)
    config = tmp_path / "config"
    write_kubeconfig([client.cluster], config)
    manifest = tmp_path / "hello.yaml"
    manifest.write_text(MANIFEST)
    environment = {**os.environ, "KUBECONFIG": str(config), "HOME": str(tmp_path)}

    async def kubectl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(KUBECTL), *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    assert len((await kubectl("get", "pods", "-A", "--no-headers", "--chunk-size=7")).splitlines()) == 40
    types = await kubectl("api-resources")
    assert "certificates" in types
    assert "cert,certs" in types
    header, *rows = (await kubectl("get", "certs", "-A", "-o", "wide")).splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "READY", "SECRET", "ISSUER", "AGE"]
    assert len(rows) == 4
    assert "created" in await kubectl("apply", "-f", str(manifest))
    assert (await kubectl("apply", "-f", str(manifest))).count("unchanged") == 2
    manifest.write_text(MANIFEST.replace("hello:1", "hello:2"))
    assert "configured" in await kubectl("apply", "-f", str(manifest))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifest))
    assert "scaled" in await kubectl("scale", "deployment", "hello", "--replicas=3")
    watching = asyncio.create_task(
        kubectl("get", "deployments", "-n", "default", "-w", "--request-timeout=4s", "--no-headers")
    )
    await eventually(lambda: bool(client.cluster.faults.watches))
    assert "labeled" in await kubectl("label", "deployment", "hello", "x=y")
    assert (await kubectl("delete", "-f", str(manifest), "--timeout=20s")).count("deleted") == 2
    assert (await watching).count("hello") >= 3


@pytest.mark.slow
async def test_the_python_client(start: Start) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    client = await start(pods=30)
    configuration = kubernetes.client.Configuration()
    configuration.host = client.cluster.url

    def work() -> list[str]:
        with kubernetes.client.ApiClient(configuration) as api:
            core = kubernetes.client.CoreV1Api(api)
            assert len(core.list_pod_for_all_namespaces().items) == 30
            body = kubernetes.client.V1ConfigMap(metadata={"name": "a"}, data={"x": "1"})
            made = core.create_namespaced_config_map("default", body)
            core.patch_namespaced_config_map("a", "default", {"data": {"x": "2"}})
            with pytest.raises(kubernetes.client.ApiException) as raised:
                core.replace_namespaced_config_map("a", "default", made)
            assert raised.value.status == 409
            core.delete_namespaced_config_map("a", "default")
            watch = kubernetes.watch.Watch()
            seen = [
                event["type"]
                for event in watch.stream(
                    core.list_namespaced_config_map,
                    "default",
                    resource_version=str(int(made.metadata.resource_version) - 1),
                    timeout_seconds=1,
                )
            ]
            apps = kubernetes.client.AppsV1Api(api)
            assert all(item.status.replicas for item in apps.list_deployment_for_all_namespaces().items)
            custom = kubernetes.client.CustomObjectsApi(api)
            listed = custom.list_cluster_custom_object("certs.example.io", "v1", "certificates")
            assert listed["items"]
            return seen

    assert await asyncio.to_thread(work) == ["ADDED", "MODIFIED", "DELETED"]


def test_names() -> None:
    assert [cluster_name(number) for number in (1, 2, 26, 27)] == ["alpha", "bravo", "zulu", "cluster-27"]


async def test_simulate_runs_until_cancelled(tmp_path: Path) -> None:
    config = tmp_path / "deep" / "config"
    running = asyncio.Event()
    made: list[SimulatedCluster] = []

    def ready(clusters: list[SimulatedCluster]) -> None:
        made.extend(clusters)
        running.set()

    task = asyncio.create_task(simulate(2, 5, 1.0, config, tokens=True, ready=ready))
    async with asyncio.timeout(PATIENCE):
        await running.wait()
    written = yaml.safe_load(config.read_text())
    assert [context["name"] for context in written["contexts"]] == ["alpha", "bravo"]
    assert [cluster["cluster"]["server"] for cluster in written["clusters"]] == [cluster.url for cluster in made]
    assert written["users"][0]["user"]["token"] == made[0].token != ""
    assert config.stat().st_mode & 0o777 == 0o600
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.processes
async def test_the_command_ends_on_a_signal(tmp_path: Path) -> None:
    config = tmp_path / "config"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "simulation", "--clusters", "1", "--pods", "3", "--write-kubeconfig", str(config)),
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while not (await process.stdout.readline()).startswith(b"kubeconfig:"):
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
