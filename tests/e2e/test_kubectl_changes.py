"""kubectl that changes something or streams, through /clusters/<cluster>; and what it is told at the root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.e2e.conftest import AskMember, Follow, Kubectl, Run, Service, below, objects
from tests.patience import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


def deployment(name: str, image: str = "registry.example/web:1") -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


@pytest.fixture
def service(shared_service: Service) -> Service:
    return shared_service


Here = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def here(service: Service) -> Here:
    """An object of alpha as this instance has it in memory now, without asking the log for its head."""

    async def get(name: str, resource: str = "deployments", group: str = "apis/apps/v1") -> dict[str, Any]:
        path = f"/clusters/alpha/{group}/namespaces/default/{resource}/{name}"
        return await service.get(path, resourceVersion="0")

    return get


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., str]:
    """Writes objects into one file; its path."""

    def write(*made: dict[str, Any]) -> str:
        path = tmp_path / "manifest.yaml"
        path.write_text(yaml.safe_dump_all(made))
        return str(path)

    return write


@pytest_asyncio.fixture(loop_scope="module")
async def running(service: Service) -> tuple[str, str]:
    """Namespace and name of a pod of alpha that runs and has never been restarted."""
    for one in await objects(service, "alpha", "/api/v1/pods"):
        status = one["status"]
        if status["phase"] == "Running" and not any(each["restartCount"] for each in status["containerStatuses"]):
            return one["metadata"]["namespace"], one["metadata"]["name"]
    raise AssertionError("no such pod")


async def test_apply_diff_and_delete(
    kubectl: Kubectl, run: Run, here: Here, manifest: Callable[..., str], service: Service
) -> None:
    certificate = {
        "apiVersion": "certs.example.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "applied", "namespace": "default"},
        "spec": {"secretName": "applied", "issuerRef": {"name": "ours"}},
    }
    file = manifest(deployment("applied"), certificate)
    assert (await run("alpha", "apply", "-f", file)).count("created") == 2
    assert (await run("alpha", "apply", "-f", file)).count("unchanged") == 2
    if shutil.which("diff"):
        assert await run("alpha", "diff", "-f", file) == ""
    file = manifest(deployment("applied", "registry.example/web:2"), certificate)
    if shutil.which("diff"):
        code, out, err = await kubectl("--server", below(service, "alpha"), "diff", "-f", file)
        assert code == 1, err
        # Nothing but what is another in the file: neither versions nor annotations of ours.
        changed = [line.strip(" +-") for line in out.splitlines() if line.startswith(("+ ", "- "))]
        assert changed == [
            "generation: 1",
            "generation: 2",
            "image: registry.example/web:1",
            "image: registry.example/web:2",
        ]
    # It only asked what would happen.
    assert (await here("applied"))["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/web:1"
    out = await run("alpha", "apply", "-f", file)
    assert "deployment.apps/applied configured" in out
    assert (await here("applied"))["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/web:2"
    assert "serverside-applied" in await run("alpha", "apply", "--server-side", "--force-conflicts", "-f", file)
    assert "dry run" in await run("alpha", "apply", "--dry-run=server", "-f", file)
    assert "applied" in await run("alpha", "apply", "view-last-applied", "deployment/applied", "-n", "default")
    # It waits until they are gone, by a watch here.
    assert (await run("alpha", "delete", "-f", file)).count("deleted") == 2
    for kind in ("deployment", "cert"):
        code, _, err = await kubectl("--server", below(service, "alpha"), "get", kind, "applied")
        assert code == 1
        assert "NotFound" in err


async def test_create_edit_patch_and_replace(
    run: Run, here: Here, manifest: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "created" in await run("alpha", "create", "-f", manifest(deployment("edited")))
    editor = tmp_path / "editor"
    editor.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nfile = pathlib.Path(sys.argv[-1])\n"
        "file.write_text(file.read_text().replace('replicas: 1', 'replicas: 5'))\n"
    )
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("KUBE_EDITOR", str(editor))
    assert "edited" in await run("alpha", "edit", "deployment", "edited")
    assert (await here("edited"))["spec"]["replicas"] == 5
    for kind, patch, replicas in (
        ("strategic", {"spec": {"replicas": 6}}, 6),
        ("merge", {"spec": {"replicas": 7}}, 7),
        ("json", [{"op": "replace", "path": "/spec/replicas", "value": 8}], 8),
    ):
        out = await run("alpha", "patch", "deployment", "edited", "--type", kind, "-p", json.dumps(patch))
        assert "patched" in out
        assert (await here("edited"))["spec"]["replicas"] == replicas
    assert "replaced" in await run("alpha", "replace", "-f", manifest(deployment("edited", "registry.example/web:3")))
    assert (await here("edited"))["spec"]["replicas"] == 1
    # Back and forth: what is read here can be sent as it is.
    found = yaml.safe_load(await run("alpha", "get", "deployment", "edited", "-o", "yaml"))
    found["spec"]["replicas"] = 2
    assert "replaced" in await run("alpha", "replace", "-f", "-", input=json.dumps(found))
    assert (await here("edited"))["spec"]["replicas"] == 2
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}, "data": {"a": "b"}}
    name = (await run("alpha", "create", "-f", "-", "-o", "name", input=json.dumps(made))).strip().partition("/")[2]
    assert (await here(name, "configmaps", "api/v1"))["data"] == {"a": "b"}
    assert "deleted" in await run("alpha", "delete", "configmap", name)
    assert "deleted" in await run("alpha", "delete", "deployment", "edited", "--now")


async def test_scale_set_label_and_rollout(
    run: Run, here: Here, manifest: Callable[..., str], service: Service
) -> None:
    await run("alpha", "apply", "-f", manifest(deployment("rolled")))
    assert "scaled" in await run("alpha", "scale", "deployment", "rolled", "--replicas=3", "--current-replicas=1")
    assert (await here("rolled"))["spec"]["replicas"] == 3
    assert "image updated" in await run("alpha", "set", "image", "deployment/rolled", "main=registry.example/web:9")
    assert "env updated" in await run("alpha", "set", "env", "deployment/rolled", "COLOR=red")
    template = (await here("rolled"))["spec"]["template"]["spec"]["containers"][0]
    assert (template["image"], template["env"]) == ("registry.example/web:9", [{"name": "COLOR", "value": "red"}])
    assert "labeled" in await run("alpha", "label", "deployment", "rolled", "a=b")
    assert "annotated" in await run("alpha", "annotate", "deployment", "rolled", "c=d")
    metadata = (await here("rolled"))["metadata"]
    assert (metadata["labels"]["a"], metadata["annotations"]["c"]) == ("b", "d")
    assert "restarted" in await run("alpha", "rollout", "restart", "deployment/rolled")
    annotations = (await here("rolled"))["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in annotations
    assert "paused" in await run("alpha", "rollout", "pause", "deployment/rolled")
    assert (await here("rolled"))["spec"]["paused"] is True
    assert "resumed" in await run("alpha", "rollout", "resume", "deployment/rolled")
    assert "exposed" in await run("alpha", "expose", "deployment", "rolled", "--port=80")
    assert (await here("rolled", "services", "api/v1"))["spec"]["selector"] == {"app": "rolled"}
    assert (await run("alpha", "delete", "service,deployment", "rolled")).count("deleted") == 2
    node = (await objects(service, "alpha", "/api/v1/nodes"))[0]["metadata"]["name"]
    assert "cordoned" in await run("alpha", "cordon", node)
    assert (await service.get(f"/clusters/alpha/api/v1/nodes/{node}", resourceVersion="0"))["spec"]["unschedulable"]
    assert "uncordoned" in await run("alpha", "uncordon", node)
    assert "tainted" in await run("alpha", "taint", "node", node, "a=b:NoSchedule")
    assert "untainted" in await run("alpha", "taint", "node", node, "a-")


async def test_all_of_a_selector_are_deleted(run: Run, manifest: Callable[..., str], service: Service) -> None:
    made = [deployment(f"crowd-{number}") for number in range(4)]
    for one in made:
        one["metadata"]["labels"] = {"crowd": "yes"}
    await run("alpha", "apply", "-f", manifest(*made))
    assert (await run("alpha", "delete", "deployments", "-l", "crowd=yes")).count("deleted") == 4
    assert await run("alpha", "get", "deployments", "-l", "crowd=yes", "-o", "name") == ""
    await run("alpha", "apply", "-f", manifest(*made))
    # In one request: DELETE of the collection.
    path = "/apis/apps/v1/namespaces/default/deployments?labelSelector=crowd%3Dyes"
    deleted = json.loads(await run("alpha", "delete", "--raw", f"/clusters/alpha{path}"))
    assert len(deleted["items"]) == 4
    assert (await service.get(path.partition("?")[0], resourceVersion="0", labelSelector="crowd=yes"))["items"] == []


async def test_logs(kubectl: Kubectl, following: Follow, run: Run, running: tuple[str, str], service: Service) -> None:
    namespace, name = running
    whole = await run("alpha", "logs", name, "-n", namespace)
    assert whole.count("\n") > 1
    assert await run("alpha", "logs", name, "-n", namespace, "--tail=1") == whole.splitlines(keepends=True)[-1]
    assert await run("alpha", "logs", f"pod/{name}", "-n", namespace, "--all-containers", "--tail=1")
    async with following("alpha", "logs", "-f", name, "-n", namespace, "--tail=0") as shown:
        await shown.until("number=2")
    logs = ("--server", below(service, "alpha"), "logs", "-n", namespace)
    code, _, err = await kubectl(*logs, name, "--previous")
    assert code == 1
    assert f'in pod "{name}" not found' in err
    code, _, err = await kubectl(*logs, name, "-c", "unheard")
    assert code == 1
    assert "container unheard is not valid for pod" in err
    code, _, err = await kubectl(*logs, "nobody")
    assert (code, err) == (
        1,
        f'error: error from server (NotFound): pods "nobody" not found in namespace "{namespace}"\n',
    )


async def test_exec_and_attach(kubectl: Kubectl, run: Run, running: tuple[str, str], service: Service) -> None:
    namespace, name = running
    assert await run("alpha", "exec", name, "-n", namespace, "--", "echo", "a", "b") == "a b\n"
    assert await run("alpha", "exec", "-i", name, "-n", namespace, "--", "cat", input="in and out") == "in and out"
    code, _, err = await kubectl("--server", below(service, "alpha"), "exec", name, "-n", namespace, "--", "unheard")
    assert (code, "unheard: not found" in err) == (127, True)
    code, out, err = await kubectl(
        "--server", below(service, "alpha"), "attach", "-i", name, "-n", namespace, input="attached"
    )
    assert (code, "attached" in out) == (0, True), err


async def test_a_proxy_in_front(service: Service, tmp_path: Path, kubectl: Kubectl) -> None:
    """`kubectl proxy` passes on to us what it is asked, and whoever asks it does so as before."""
    port = free_port()
    program = shutil.which("kubectl")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        *(program, "--server", service.url, "proxy", "--port", str(port)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stdout is not None
            assert b"Starting to serve" in await process.stdout.readline()
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/api/v1/pods") as answer:
                    assert answer.status == 200
                    assert len((await answer.json())["items"]) == len(await objects(service, None, "/api/v1/pods"))
                query = {"watch": "1", "timeoutSeconds": "1"}
                async with session.get(f"http://127.0.0.1:{port}/clusters/alpha/api/v1/nodes", params=query) as answer:
                    events = [json.loads(line)["type"] async for line in answer.content]
                    assert len(events) == len(await objects(service, "alpha", "/api/v1/nodes"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_at_the_root_each_is_told_the_way(
    kubectl: Kubectl, manifest: Callable[..., str], service: Service, running: tuple[str, str]
) -> None:
    """405, and where to send it instead; nothing has happened."""
    namespace, name = running
    file = manifest(deployment("at-the-root"))
    one = (await objects(service, "alpha", "/apis/apps/v1/deployments"))[0]["metadata"]
    there = ("deployment", one["name"], "-n", one["namespace"])
    for arguments in (
        ("create", "-f", file),
        ("apply", "-f", file),
        ("apply", "--server-side", "-f", file),
        ("delete", *there, "--wait=false"),
        ("delete", "--raw", "/api/v1/namespaces/default/pods"),
        ("logs", name, "-n", namespace),
        ("exec", name, "-n", namespace, "--", "true"),
        ("port-forward", f"pod/{name}", "-n", namespace, f"{free_port()}:80"),
        ("create", "namespace", "at-the-root"),
        ("create", "--raw", "/api/v1/namespaces", "-f", file),
        ("patch", "pod", name, "-n", namespace, "-p", '{"metadata":{"labels":{"a":"b"}}}'),
        ("label", "pod", name, "-n", namespace, "a=b"),
        ("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}/proxy/"),
        ("get", "pod", name, "-n", namespace, "--subresource=status"),
    ):
        code, out, err = await kubectl("--server", service.url, *arguments)
        assert code != 0, (arguments, out)
        assert "/clusters/<cluster>" in err, (arguments, err)
    code, _, err = await kubectl("--server", service.url, "get", "pod", name, "-n", namespace, "-o", "name")
    assert code == 0, err
    assert await objects(service, None, "/apis/apps/v1/deployments?labelSelector=app%3Dat-the-root") == []


async def test_metrics_are_passed_on(
    kubectl: Kubectl, member: AskMember, service: Service, running: tuple[str, str]
) -> None:
    """metrics.k8s.io can be listed and not watched, so the root lacks it; below a cluster it is the cluster's."""
    spec = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": "kube-system", "name": "metrics"},
    }
    await member(
        "POST",
        "/apis/apiregistration.k8s.io/v1/apiservices",
        {"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": spec},
    )
    for what in ("nodes", "pods"):
        code, _, err = await kubectl("--server", service.url, "top", what)
        assert (code, err) == (1, "error: Metrics API not available\n")
    async with asyncio.timeout(PATIENCE):
        while "metrics.k8s.io" not in {
            group["name"] for group in (await service.get("/clusters/alpha/apis"))["groups"]
        }:
            await asyncio.sleep(0.05)
    for words in (("nodes",), ("pods", "-A")):
        code, out, err = await kubectl("--server", below(service, "alpha"), "top", *words)
        assert code == 0, err
        assert "CPU" in out
    found = await service.get("/clusters/alpha/apis/metrics.k8s.io/v1beta1/nodes")
    assert found["items"][0]["usage"]["cpu"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{service.url}/apis/metrics.k8s.io/v1beta1/nodes") as answer:
            assert answer.status == 404


async def test_paths_behind_a_proxy_are_passed_on_as_they_are(service: Service, running: tuple[str, str]) -> None:
    """What is behind `proxy` is another server's path: empty segments and encoded characters mean something there."""
    namespace, name = running
    proxy = f"{service.url}/clusters/alpha/api/v1/namespaces/{namespace}/pods/{name}/proxy"
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/a", "/a/", "/a//b", "//a", "/a//b/", "/http://other/x", "/proxy//c"):
            async with session.get(proxy + path) as answer:
                assert answer.status == 200, path
                assert (await answer.json())["path"] == path
