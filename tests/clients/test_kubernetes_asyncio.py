"""`kubernetes_asyncio`: lists, pages, its Watch, and list-then-watch as its users write it, with 410 and restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kubernetes_asyncio import client, watch
from kubernetes_asyncio.dynamic import DynamicClient

from tests.clients.conftest import Braid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def api(url: str) -> AsyncIterator[client.ApiClient]:
    configuration = client.Configuration()
    configuration.host = url
    async with client.ApiClient(configuration) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def everywhere(braid: Braid) -> AsyncIterator[client.ApiClient]:
    async with api(braid.url) as made:
        yield made


class Informer:
    """What users of this client write: a list, watches from its version on, a new list when that is told too old."""

    def __init__(self, core: client.CoreV1Api) -> None:
        self.core = core
        self.held: dict[str, str] = {}
        self.lists = 0
        self.expired = 0
        self.repeated: list[str] = []

    async def run(self) -> None:
        version = None
        while True:
            try:
                if version is None:
                    listed = await self.core.list_pod_for_all_namespaces()
                    self.held = {pod.metadata.uid: pod.metadata.resource_version for pod in listed.items}
                    self.lists += 1
                    version = listed.metadata.resource_version
                async with watch.Watch().stream(
                    self.core.list_pod_for_all_namespaces,
                    resource_version=version,
                    allow_watch_bookmarks=True,
                    timeout_seconds=1,
                ) as stream:
                    async for event in stream:
                        version = event["raw_object"]["metadata"]["resourceVersion"]
                        self.take_in(event["type"], event["raw_object"]["metadata"])
            except client.ApiException as problem:
                if problem.status == 410:
                    self.expired += 1
                    version = None
                elif problem.status in (429, 503):
                    # It has been started again, and is reading its log or the clusters' discovery.
                    await asyncio.sleep(0.05)
                else:
                    raise
            except aiohttp.ClientError:
                # The service is being started again.
                await asyncio.sleep(0.05)

    def take_in(self, type: str, metadata: dict[str, Any]) -> None:
        if type == "BOOKMARK":
            return
        uid, version = metadata["uid"], metadata["resourceVersion"]
        if type == "DELETED":
            del self.held[uid]
            return
        if self.held.get(uid) == version or (type == "ADDED") is (uid in self.held):
            self.repeated.append(f"{type} {uid} {version}")
        self.held[uid] = version


async def test_lists_pages_and_gets(braid: Braid, everywhere: client.ApiClient) -> None:
    core = client.CoreV1Api(everywhere)
    pods = await core.list_pod_for_all_namespaces()
    seen: list[str] = []
    token = None
    versions = set()
    while token != "":
        following: dict[str, Any] = {"_continue": token} if token else {}
        page = await core.list_pod_for_all_namespaces(limit=25, **following)
        assert len(page.items) <= 25
        seen += [pod.metadata.uid for pod in page.items]
        versions.add(page.metadata.resource_version)
        token = page.metadata._continue or ""
    assert seen == [pod.metadata.uid for pod in pods.items]
    assert len(versions) == 1
    async with api(braid.below("alpha")) as alpha:
        services = await client.CoreV1Api(alpha).list_service_for_all_namespaces()
        one = services.items[0].metadata
        found = await client.CoreV1Api(alpha).read_namespaced_service(one.name, one.namespace)
        assert found.metadata.resource_version == one.resource_version
        with pytest.raises(client.ApiException) as told:
            await client.CoreV1Api(alpha).read_namespaced_service("nobody", "default")
        assert (told.value.status, told.value.reason) == (404, "Not Found")


async def test_selectors(braid: Braid, everywhere: client.ApiClient) -> None:
    core = client.CoreV1Api(everywhere)
    running = await core.list_pod_for_all_namespaces(field_selector="status.phase=Running", label_selector="app,team")
    objects = await braid.objects()
    wanted = {
        one["metadata"]["uid"]
        for one in objects
        if one["status"]["phase"] == "Running" and {"app", "team"} <= one["metadata"].get("labels", {}).keys()
    }
    assert {pod.metadata.uid for pod in running.items} == wanted
    assert 0 < len(wanted) < len(objects)
    with pytest.raises(client.ApiException) as told:
        await core.list_pod_for_all_namespaces(field_selector="spec..colour=red")
    assert told.value.status == 400
    assert "field label not supported: spec..colour" in str(told.value.body)


async def test_the_dynamic_client(braid: Braid) -> None:
    async with api(braid.below("alpha")) as alpha:
        found = await DynamicClient(alpha)
        certificates = await found.resources.get(api_version="certs.example.io/v1", kind="Certificate")
        listed = await certificates.get()
        assert {one.metadata.uid for one in listed.items} == set(
            await braid.versions("/apis/certs.example.io/v1/certificates", "alpha")
        )


async def test_initial_events_come_as_a_stream(braid: Braid, everywhere: client.ApiClient) -> None:
    """What newer clients ask for in place of a list; this one passes the parameters on."""
    core = client.CoreV1Api(everywhere)
    seen, done = {}, False
    async with watch.Watch().stream(
        core.list_pod_for_all_namespaces,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True,
        timeout_seconds=10,
    ) as stream:
        async for event in stream:
            metadata = event["raw_object"]["metadata"]
            if event["type"] == "BOOKMARK":
                done = metadata["annotations"]["k8s.io/initial-events-end"] == "true"
                break
            assert event["type"] == "ADDED"
            seen[metadata["uid"]] = metadata["resourceVersion"]
    assert done
    assert seen == await braid.versions()


async def test_list_then_watch_lives_through_a_kill_and_a_lost_history(
    braid: Braid, everywhere: client.ApiClient
) -> None:
    async with api(braid.below("bravo")) as bravo:
        informers = {None: Informer(client.CoreV1Api(everywhere)), "bravo": Informer(client.CoreV1Api(bravo))}
        running = [asyncio.create_task(informer.run()) for informer in informers.values()]

        async def converge(lists: int) -> None:
            for (cluster, informer), task in zip(informers.items(), running, strict=True):

                def held(informer: Informer = informer) -> dict[str, str]:
                    return informer.held

                await braid.converges(held, cluster=cluster, running=task)
                assert (informer.lists, informer.repeated) == (lists, [])

        try:
            await converge(1)
            braid.change()
            await converge(1)
            await braid.killed_and_started()
            await converge(1)
            await braid.history_lost()
            await converge(2)
            assert [informer.expired for informer in informers.values()] == [1, 1]
        finally:
            for task in running:
                task.cancel()
            for result in await asyncio.gather(*running, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), result
