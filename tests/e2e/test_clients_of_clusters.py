"""Each client on any member clusters: simulated ones, or those of $KUBECONFIG (`make test-clusters`).

It writes ConfigMaps into the namespace `default` of each cluster, and removes them. What clients do beyond reading,
and through restarts, is tested on simulated clusters in tests/clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import kr8s
import kr8s.asyncio
import kubernetes
import kubernetes_asyncio
import lightkube
import pytest
import pytest_asyncio
import yaml
from lightkube.resources.core_v1 import ConfigMap, Namespace

from tests import processes
from tests.clients.test_client_node import running
from tests.e2e.conftest import Kubectl, Service, _members
from tests.patience import PATIENCE

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

NAME = f"kubebraid-test-{secrets.token_hex(4)}"
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": "default"}, "data": {"a": "b"}}
MAPS = "/api/v1/namespaces/default/configmaps"
REAL = os.environ.get("KUBEBRAID_TEST_KUBECONFIG")
SELECTOR = f"metadata.name={NAME}"


class Given:
    """A service of the clusters, each with a ConfigMap `NAME`; `kubeconfig` is that of the service."""

    def __init__(self, service: Service, kubeconfig: Path, clusters: list[str]) -> None:
        self.service = service
        self.kubeconfig = str(kubeconfig)
        self.clusters = clusters

    async def ask(self, method: str, path: str, body: Any = None, *, cluster: str) -> dict[str, Any]:
        url = f"{self.service.url}/clusters/{cluster}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as answer:
            found = dict(await answer.json())
            assert answer.status < 300 or (method, answer.status) == ("DELETE", 404), found
            return found

    async def namespaces(self, cluster: str | None) -> dict[str, str]:
        """uid -> version, asked for without any of the clients."""
        scope = "" if cluster is None else f"/clusters/{cluster}"
        items = (await self.service.get(f"{scope}/api/v1/namespaces"))["items"]
        return {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in items}

    async def described(self, cluster: str | None) -> None:
        """Returns when the OpenAPI documents are here: they come after the first lists."""
        scope = "" if cluster is None else f"/clusters/{cluster}"
        headers = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(headers=headers) as session:
            for version in ("v2", "v3") if not REAL else ("v2",):
                while True:
                    accept = {} if version == "v2" else {"Accept": "application/json"}
                    async with session.get(f"{self.service.url}{scope}/openapi/{version}", headers=accept) as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.1)

    def scopes(self) -> list[tuple[str, str | None]]:
        """Contexts of the service's kubeconfig, with the cluster that each is about."""
        return [("kubebraid", None), *((f"kubebraid-{cluster}", cluster) for cluster in self.clusters)]


@contextlib.asynccontextmanager
async def serving(directory: Path, kubeconfig: str) -> AsyncIterator[Given]:
    arguments = ("--kubeconfig", kubeconfig, "--data", str(directory / "data"), "--forward", "configured")
    service = Service("up", *arguments, log=directory / "up.log")
    await service.start()
    try:
        await service.ready()
        clusters = [one["name"] for one in (await service.get("/clusters"))["clusters"]]
        assert clusters
        path = directory / "kubebraid.kubeconfig"
        code, printed, err = await processes.run("kubeconfig", "--server", service.url)
        assert code == 0, err
        path.write_text(printed)
        made = Given(service, path, clusters)
        try:
            for cluster in clusters:
                await made.ask("POST", MAPS, MAP, cluster=cluster)
            yield made
        finally:
            for cluster in clusters:
                await made.ask("DELETE", f"{MAPS}/{NAME}", cluster=cluster)
    finally:
        await service.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def given(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Given]:
    directory = tmp_path_factory.mktemp("given")
    async with contextlib.AsyncExitStack() as stack:
        kubeconfig = REAL or str((await stack.enter_async_context(_members(directory))).kubeconfig)
        yield await stack.enter_async_context(serving(directory, kubeconfig))


async def test_kubectl(given: Given, kubectl: Kubectl) -> None:
    for context, cluster in given.scopes():

        async def run(*arguments: str, context: str = context, code: int = 0, **more: Any) -> str:
            options = ("--kubeconfig", given.kubeconfig, "--context", context)
            found, out, err = await kubectl(*options, *arguments, **more)
            assert found == code, (context, arguments, err)
            return str(out)

        uids = set(await given.namespaces(cluster))
        for output in ("json", "yaml"):
            items = yaml.safe_load(await run("get", "namespaces", "-o", output))["items"]
            assert {one["metadata"]["uid"] for one in items} == uids
        head, *rows = (await run("get", "namespaces", "-o", "wide", "--show-labels", "--chunk-size=1")).splitlines()
        assert head.split() == ([] if cluster else ["CLUSTER"]) + ["NAME", "STATUS", "AGE", "LABELS"]
        assert len(rows) == len(uids)
        assert len((await run("get", "configmaps", "-A", "--field-selector", SELECTOR, "-o", "name")).split()) == (
            1 if cluster else len(given.clusters)
        )
        assert "configmaps" in await run("api-resources", "--cached=false")
        assert "apps/v1" in (await run("api-versions")).split()
        assert json.loads(await run("version", "-o", "json"))["serverVersion"]["gitVersion"]
        assert "service/" in await run("get", "all", "-A", "-o", "name")
        assert "yes" in await run("auth", "can-i", "list", "configmaps")
        await run("cluster-info")
        await given.described(cluster)
        # By version 2 where the cluster has no other.
        assert "map[string]string" in await run("explain", "configmap.data")
        if cluster is None:
            continue
        at = (f"configmap/{NAME}", "-n", "default")
        assert f"Name:         {NAME}" in await run("describe", *at)
        await run("wait", *at, "--for=jsonpath={.data.a}=b", "--timeout=30s")
        assert NAME in await run("get", *at, "-w", "--output-watch-events", "--request-timeout=2s")
        other = f"{NAME}-by-kubectl"
        try:
            if REAL:
                # In protobuf, as kubectl writes what it makes itself; simulated clusters don't read that.
                await run("create", "configmap", other, "-n", "default", "--from-literal=a=b")
            else:
                metadata = {"name": other, "namespace": "default"}
                await run("create", "-f", "-", input=json.dumps({**MAP, "metadata": metadata}))
            found = json.loads(await run("get", "configmap", other, "-n", "default", "-o", "json"))
            found["data"] = {"a": "c"}
            await run("replace", "-f", "-", input=json.dumps(found))
            assert await run("get", "configmap", other, "-n", "default", "-o", "jsonpath={.data.a}") == "c"
            # Another version of it would be a conflict, and rightly.
            metadata = {"name": other, "namespace": "default"}
            text = json.dumps({**MAP, "metadata": metadata, "data": {"a": "d"}})
            await run("diff", "--server-side", "--force-conflicts", "-f", "-", input=text, code=1)
            await run("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)
            patch = '{"data":{"e":"f"}}'
            await run("patch", "configmap", other, "-n", "default", "-p", patch)
            assert (
                await run("get", "configmap", other, "-n", "default", "-o", "jsonpath={.data}") == '{"a":"d","e":"f"}'
            )
        finally:
            await run("delete", "configmap", other, "-n", "default")
        assert await run("get", "configmap", other, "-n", "default", "--ignore-not-found") == ""


async def test_kubernetes(given: Given) -> None:
    for context, cluster in given.scopes():
        wanted = await given.namespaces(cluster)
        count = 1 if cluster else len(given.clusters)

        def work(context: str = context, wanted: dict[str, str] = wanted, count: int = count) -> None:
            core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(given.kubeconfig, context))
            # Every attribute of the client's models may be None, it says.
            listed: Any = core.list_namespace()
            found = {one.metadata.uid: one.metadata.resource_version for one in listed.items}
            assert found == wanted
            seen = []
            for event in kubernetes.watch.Watch().stream(
                core.list_config_map_for_all_namespaces, field_selector=SELECTOR, timeout_seconds=20
            ):
                seen.append((event["type"], event["object"].data))
                if len(seen) == count:
                    break
            assert seen == [("ADDED", {"a": "b"})] * count

        await asyncio.to_thread(work)


async def test_an_update_by_kubernetes(given: Given) -> None:
    """Read, changed, written: as controllers do it."""
    for cluster in given.clusters:

        def work(cluster: str = cluster) -> None:
            configured = kubernetes.config.new_client_from_config(given.kubeconfig, f"kubebraid-{cluster}")
            # Every attribute of the client's models may be None, it says.
            core: Any = kubernetes.client.CoreV1Api(configured)
            for number in ("1", "2"):
                found = core.read_namespaced_config_map(NAME, "default")
                found.metadata.labels = {"number": number}
                written = core.replace_namespaced_config_map(NAME, "default", found)
                version = core.read_namespaced_config_map(NAME, "default").metadata.resource_version
                assert written.metadata.resource_version == version
                with pytest.raises(kubernetes.client.ApiException) as told:
                    core.replace_namespaced_config_map(NAME, "default", found)
                assert told.value.status == 409

        await asyncio.to_thread(work)


async def test_kubernetes_asyncio(given: Given) -> None:
    for context, cluster in given.scopes():
        configuration = kubernetes_asyncio.client.Configuration()
        await kubernetes_asyncio.config.load_kube_config(given.kubeconfig, context, configuration)
        async with kubernetes_asyncio.client.ApiClient(configuration) as api:
            core = kubernetes_asyncio.client.CoreV1Api(api)
            found = (await core.list_namespace(limit=500)).items
            assert {one.metadata.uid: one.metadata.resource_version for one in found} == await given.namespaces(cluster)
            async with asyncio.timeout(PATIENCE):
                async with kubernetes_asyncio.watch.Watch().stream(
                    core.list_namespaced_config_map, "default", field_selector=SELECTOR
                ) as stream:
                    async for event in stream:
                        assert (event["type"], event["object"].data) == ("ADDED", {"a": "b"})
                        break


async def test_lightkube(given: Given) -> None:
    for context, cluster in given.scopes():
        wanted = await given.namespaces(cluster)

        def work(context: str = context, wanted: dict[str, str] = wanted) -> None:
            configured = lightkube.KubeConfig.from_file(given.kubeconfig).get(context)
            client = lightkube.Client(config=configured, trust_env=False)
            found = {}
            for each in client.list(Namespace, chunk_size=1):
                assert each.metadata is not None
                found[each.metadata.uid] = each.metadata.resourceVersion
            assert found == wanted
            for kind, one in client.watch(ConfigMap, namespace="default", fields={"metadata.name": NAME}):
                assert (kind, one.data) == ("ADDED", {"a": "b"})
                break

        await asyncio.to_thread(work)


async def test_kr8s(given: Given) -> None:
    for context, cluster in given.scopes():
        api = await kr8s.asyncio.api(kubeconfig=given.kubeconfig, context=context)
        namespaces: Any = api.get("namespaces")
        found = {one.metadata.uid: one.metadata.resourceVersion async for one in namespaces}
        assert found == await given.namespaces(cluster)
        async with asyncio.timeout(PATIENCE):
            async for kind, one in api.watch("configmaps", namespace="default", field_selector=SELECTOR):
                assert (kind, one.raw["data"]) == ("ADDED", {"a": "b"})
                break


async def test_kopf(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    for context, cluster in given.scopes():
        registry, settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
        settings.posting.enabled = False
        wanted, done, stop = await given.namespaces(cluster), threading.Event(), threading.Event()
        found: dict[str, str] = {}

        def told(
            uid: str,
            meta: Any,
            found: dict[str, str] = found,
            done: threading.Event = done,
            wanted: dict[str, str] = wanted,
            **_: Any,
        ) -> None:
            found[uid] = meta["resourceVersion"]
            if len(found) == len(wanted):
                done.set()

        kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
        kopf.on.event("namespaces", registry=registry)(told)
        alone = Path(given.kubeconfig).with_name("operator.kubeconfig")
        document = yaml.safe_load(Path(given.kubeconfig).read_text())
        alone.write_text(yaml.safe_dump({**document, "current-context": context}))
        monkeypatch.setenv("KUBECONFIG", str(alone))

        def operate(
            registry: kopf.OperatorRegistry = registry,
            settings: kopf.OperatorSettings = settings,
            stop: threading.Event = stop,
        ) -> None:
            asyncio.run(
                kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True, stop_flag=stop)
            )

        operator = threading.Thread(target=operate)
        operator.start()
        try:
            assert await asyncio.to_thread(done.wait, 30)
        finally:
            stop.set()
            await asyncio.to_thread(operator.join, 20)
        assert found == wanted


async def test_client_node(given: Given) -> None:
    """Its informer of pods, of each cluster alone."""
    for cluster in given.clusters:
        async with running(Path(given.kubeconfig), f"kubebraid-{cluster}", "informer") as program:
            while (await program.next())["verb"] != "connect":
                pass
            items = (await given.service.get(f"/clusters/{cluster}/api/v1/pods"))["items"]
            wanted = {one["metadata"]["uid"] for one in items}
            async with asyncio.timeout(PATIENCE):
                while True:
                    program.ask()
                    while (told := await program.next())["verb"] != "held":
                        pass
                    if set(told["held"]) == wanted:
                        break
                    items = (await given.service.get(f"/clusters/{cluster}/api/v1/pods"))["items"]
                    wanted = {one["metadata"]["uid"] for one in items}
