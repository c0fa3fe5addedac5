"""`kr8s`: its async and its sync API with selectors, types it makes up itself, forms, waits and watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import kr8s
import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import Deployment, Table, object_from_spec

from tests.clients.conftest import Braid

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL, ALPHA, BRAVO = "kubebraid", "kubebraid-alpha", "kubebraid-bravo"


ApiOf = Callable[[str], Awaitable[Any]]


@pytest.fixture
def api(kubeconfig: Path) -> ApiOf:
    """Makes the asynchronous API of a context."""

    async def made(context: str) -> Any:
        return await kr8s.asyncio.api(kubeconfig=str(kubeconfig), context=context)

    return made


async def uids(found: AsyncIterator[Any]) -> set[str]:
    return {one.metadata.uid async for one in found}


def wanted(objects: list[dict[str, Any]], **labels: str) -> set[str]:
    return {one["metadata"]["uid"] for one in objects if labels.items() <= one["metadata"].get("labels", {}).items()}


async def test_gets_with_selectors(braid: Braid, api: ApiOf) -> None:
    everywhere, alpha = await api(ALL), await api(ALPHA)
    objects, of_alpha = await braid.objects(), await braid.objects(cluster="alpha")
    # It asks for pages of a hundred.
    assert len(objects) > 100
    assert await uids(everywhere.get("pods", namespace=kr8s.ALL)) == wanted(objects)
    one = next(one for one in of_alpha if "app" in one["metadata"].get("labels", {}))
    app, namespace = one["metadata"]["labels"]["app"], one["metadata"]["namespace"]
    found = await uids(everywhere.get("pods", namespace=kr8s.ALL, label_selector={"app": app}))
    assert found == wanted(objects, app=app)
    assert 0 < len(found) < len(objects)
    running = await uids(alpha.get("po", namespace=namespace, field_selector={"status.phase": "Running"}))
    assert running == {
        one["metadata"]["uid"]
        for one in of_alpha
        if one["metadata"]["namespace"] == namespace and one["status"]["phase"] == "Running"
    }
    # By name: a selector of fields that ends with a comma.
    [pod] = [pod async for pod in alpha.get("pods", one["metadata"]["name"], namespace=namespace)]
    assert pod.metadata.resourceVersion == one["metadata"]["resourceVersion"]
    assert await pod.exists()
    await pod.refresh()
    assert pod.metadata.uid == one["metadata"]["uid"]
    assert [pod async for pod in alpha.get("pods", "nobody", namespace=namespace)] == []


async def test_types_it_learns_from_discovery(braid: Braid, api: ApiOf) -> None:
    bravo = await api(BRAVO)
    listed = await braid.objects("/apis/certs.example.io/v1/certificates", "bravo")
    for title in ("certificates", "cert", "certificates.certs.example.io"):
        found = [one async for one in bravo.get(title, namespace=kr8s.ALL)]
        assert {one.metadata.uid for one in found} == wanted(listed)
        assert found[0].spec.secretName
    names = {(one["name"], one["version"]) for one in await bravo.api_resources()}
    assert {("pods", "v1"), ("deployments", "apps/v1"), ("certificates", "certs.example.io/v1")} <= names
    made = await object_from_spec(listed[0], api=bravo)
    assert await made.exists()
    assert (await bravo.version())["gitVersion"].startswith("v1.")


async def test_tables_waits_and_scales(braid: Braid, api: ApiOf) -> None:
    alpha = await api(ALPHA)
    [table] = [one async for one in alpha.get("pods", namespace=kr8s.ALL, as_object=Table)]
    assert [column["name"] for column in table.column_definitions][:3] == ["Name", "Ready", "Status"]
    assert len(table.rows) == len(await braid.objects(cluster="alpha"))
    deployments = [one async for one in alpha.get("deployments", namespace=kr8s.ALL)]
    one = next(one for one in deployments if one.spec.replicas and one.spec.replicas == one.status.get("readyReplicas"))
    assert isinstance(one, Deployment)
    await one.wait([f"jsonpath='{{.status.readyReplicas}}'={one.spec.replicas}"], timeout=60)
    pods = await one.pods()
    assert {pod.metadata.uid for pod in pods} == wanted(
        await braid.objects(cluster="alpha"), **dict(one.spec.selector.matchLabels)
    )


async def test_the_sync_api(braid: Braid, kubeconfig: Path) -> None:
    objects = await braid.objects()

    def work() -> None:
        everywhere: Any = kr8s.api(kubeconfig=str(kubeconfig), context=ALL)
        assert {pod.metadata.uid for pod in everywhere.get("pods", namespace=kr8s.ALL)} == wanted(objects)
        seen = {}
        pod: Any
        for kind, pod in everywhere.watch("pods", namespace=kr8s.ALL):
            assert kind == "ADDED"
            seen[pod.metadata.uid] = pod.metadata.resourceVersion
            if len(seen) == len(objects):
                break
        assert seen == {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in objects}

    await asyncio.to_thread(work)


async def test_watches_live_through_a_kill_and_a_lost_history(braid: Braid, api: ApiOf) -> None:
    """Its watch ends with the connection; it goes on from the last version, or else begins anew.

    On 410 it asks again and again from the same version (on any API server), so its user has to begin anew where
    the service may have been replaced.
    """
    everywhere = await api(ALL)
    held: dict[str, str] = {}
    since: str | None = None
    watches = 0

    async def follow() -> None:
        nonlocal since, watches
        while True:
            if since is None:
                held.clear()
            watches += 1
            with contextlib.suppress(httpx.TransportError, kr8s.ServerError):
                async for kind, pod in everywhere.watch("pods", namespace=kr8s.ALL, since=since):
                    uid, version = pod.metadata.uid, pod.metadata.resourceVersion
                    assert held.get(uid) != version, "twice"
                    since = version if since is not None or len(held) > 100 else None
                    if kind == "DELETED":
                        del held[uid]
                    else:
                        assert (kind == "ADDED") is (uid not in held)
                        held[uid] = version
            await asyncio.sleep(0.05)

    following = asyncio.create_task(follow())
    try:
        await braid.converges(lambda: held, running=following)
        braid.change()
        await braid.converges(lambda: held, running=following)
        await braid.killed_and_started()
        await braid.converges(lambda: held, running=following)
        assert watches > 1
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    since = None
    await braid.history_lost()
    following = asyncio.create_task(follow())
    try:
        await braid.converges(lambda: held, running=following)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
