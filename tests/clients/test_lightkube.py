"""`lightkube`: lists in chunks, gets, watches with its error handler, resources made from definitions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import ALL_NS, ApiError, AsyncClient, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource, load_in_cluster_generic_resources
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace, Node, Pod
from lightkube.types import OnErrorAction, OnErrorResult

from tests.clients.conftest import Braid
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


ALL, ALPHA, BRAVO = "kubebraid", "kubebraid-alpha", "kubebraid-bravo"


# Every attribute of the client's models may be None, it says.
ClientOf = Callable[[str], Any]


@pytest.fixture
def client(kubeconfig: Path) -> ClientOf:
    """Makes a client of a context."""
    return lambda context: Client(config=KubeConfig.from_file(kubeconfig).get(context), trust_env=False)


@pytest.fixture
def asynchronous(kubeconfig: Path) -> ClientOf:
    return lambda context: AsyncClient(config=KubeConfig.from_file(kubeconfig).get(context), trust_env=False)


def uids(found: Iterable[Any]) -> set[str]:
    return {one.metadata.uid for one in found}


async def test_lists_gets_and_selectors(braid: Braid, client: ClientOf) -> None:
    objects = await braid.objects()

    def work() -> None:
        everywhere, alpha = client(ALL), client(ALPHA)
        assert uids(everywhere.list(Pod, namespace=ALL_NS)) == {one["metadata"]["uid"] for one in objects}
        chunked = everywhere.list(Pod, namespace=ALL_NS, chunk_size=11)
        assert [pod.metadata.uid for pod in chunked] == [one["metadata"]["uid"] for one in objects]
        assert chunked.resourceVersion
        app = next(one["metadata"]["labels"]["app"] for one in objects if "app" in one["metadata"].get("labels", {}))
        found = everywhere.list(
            Pod, namespace=ALL_NS, labels={"app": [app, "nobody"], "team": None}, fields={"status.phase": "Running"}
        )
        wanted = {
            one["metadata"]["uid"]
            for one in objects
            if one["metadata"].get("labels", {}).get("app") == app
            and "team" in one["metadata"]["labels"]
            and one["status"]["phase"] == "Running"
        }
        assert uids(found) == wanted
        node = next(iter(alpha.list(Node)))
        assert alpha.get(Node, node.metadata.name).metadata.resourceVersion == node.metadata.resourceVersion
        deployment = next(iter(alpha.list(Deployment, namespace=ALL_NS)))
        found = alpha.get(Deployment, deployment.metadata.name, namespace=deployment.metadata.namespace)
        assert found.spec.replicas == deployment.spec.replicas
        with pytest.raises(ApiError) as told:
            alpha.get(Namespace, "nobody")
        assert (told.value.status.code, told.value.status.reason) == (404, "NotFound")

    await asyncio.to_thread(work)


async def test_generic_resources(braid: Braid, client: ClientOf) -> None:
    listed = await braid.objects("/apis/certs.example.io/v1/certificates")
    wanted = {one["metadata"]["uid"] for one in listed}

    def work() -> None:
        everywhere, bravo = client(ALL), client(BRAVO)
        certificate = create_namespaced_resource("certs.example.io", "v1", "Certificate", "certificates")
        found = list(everywhere.list(certificate, namespace=ALL_NS))
        assert uids(found) == wanted
        assert found[0].spec["secretName"]
        # The types that the cluster itself tells of by its definitions.
        load_in_cluster_generic_resources(bravo)
        names = {one.metadata.name for one in bravo.list(CustomResourceDefinition)}
        assert "certificates.certs.example.io" in names
        assert uids(bravo.list(certificate, namespace=ALL_NS)) < wanted

    await asyncio.to_thread(work)


async def test_waits_for_a_condition(braid: Braid, asynchronous: ClientOf) -> None:
    """`wait` is a watch on one name that ends when its condition is there."""
    ready = next(
        one
        for one in await braid.objects(cluster="alpha")
        if any(
            condition["type"] == "Ready" and condition["status"] == "True" for condition in one["status"]["conditions"]
        )
    )
    metadata = ready["metadata"]
    alpha = asynchronous(ALPHA)
    try:
        async with asyncio.timeout(PATIENCE):
            found = await alpha.wait(Pod, metadata["name"], for_conditions=["Ready"], namespace=metadata["namespace"])
    finally:
        await alpha.close()
    assert found.metadata.uid == metadata["uid"]


async def test_watches_live_through_a_kill_and_a_lost_history(braid: Braid, asynchronous: ClientOf) -> None:
    """Its watch goes on by itself from the last version, and after 410 from nothing; not when nobody listens."""
    everywhere = asynchronous(ALL)
    held: dict[str, str] = {}
    version = None
    expired = 0

    def on_error(problem: Exception, count: int) -> OnErrorResult:
        nonlocal expired
        if isinstance(problem, ApiError) and problem.status.code == 410:
            expired += 1
            # It begins with all that there is, and says nothing of what is gone.
            held.clear()
        return OnErrorResult(OnErrorAction.RETRY, sleep=0.05)

    def take_in(kind: str, metadata: ObjectMeta) -> None:
        assert metadata.uid is not None
        assert metadata.resourceVersion is not None
        assert held.get(metadata.uid) != metadata.resourceVersion, "twice"
        if kind == "DELETED":
            del held[metadata.uid]
        else:
            assert (kind == "ADDED") is (metadata.uid not in held)
            held[metadata.uid] = metadata.resourceVersion

    async def follow() -> None:
        nonlocal version
        listed = everywhere.list(Pod, namespace=ALL_NS)
        held.update({pod.metadata.uid: pod.metadata.resourceVersion async for pod in listed})
        version = listed.resourceVersion
        while True:
            with contextlib.suppress(httpx2.TransportError):
                watched = everywhere.watch(
                    Pod, namespace=ALL_NS, resource_version=version, server_timeout=2, on_error=on_error
                )
                async for kind, pod in watched:
                    take_in(kind, pod.metadata)
                    version = pod.metadata.resourceVersion
            await asyncio.sleep(0.05)

    following = asyncio.create_task(follow())
    try:
        await braid.converges(lambda: held, running=following)
        braid.change()
        await braid.converges(lambda: held, running=following)
        await braid.killed_and_started()
        await braid.converges(lambda: held, running=following)
        assert expired == 0
        await braid.history_lost()
        await braid.converges(lambda: held, running=following)
        assert expired == 1
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await everywhere.close()
