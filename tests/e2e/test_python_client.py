"""The `kubernetes` Python client, which nobody here wrote: lists, pages, gets, watches and resumes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from kubernetes import client, watch

from tests.e2e.conftest import Members, Service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def service(shared_service: Service) -> Service:
    return shared_service


@pytest.fixture
def members(shared_members: Members) -> Members:
    return shared_members


def core(url: str) -> client.CoreV1Api:
    configuration = client.Configuration()
    configuration.host = url
    return client.CoreV1Api(client.ApiClient(configuration))


async def test_lists_and_gets(service: Service) -> None:
    api = core(service.url)
    # Every attribute of the client's models may be None, it says.
    pods: Any = await asyncio.to_thread(api.list_pod_for_all_namespaces)
    assert len(pods.items) > 100
    paged: Any = await asyncio.to_thread(api.list_pod_for_all_namespaces, limit=100)
    rest: Any = await asyncio.to_thread(api.list_pod_for_all_namespaces, limit=100, _continue=paged.metadata._continue)
    assert {pod.metadata.uid for pod in [*paged.items, *rest.items]} == {pod.metadata.uid for pod in pods.items}
    one = core(f"{service.url}/clusters/alpha")
    pod = next(pod for pod in pods.items if pod.metadata.annotations["shadow.clusterpedia.io/cluster-name"] == "alpha")
    found: Any = await asyncio.to_thread(one.read_namespaced_pod, pod.metadata.name, pod.metadata.namespace)
    assert found.metadata.resource_version == pod.metadata.resource_version
    apps = client.AppsV1Api(one.api_client)
    assert (await asyncio.to_thread(apps.list_deployment_for_all_namespaces)).items
    certificates = client.CustomObjectsApi(one.api_client)
    found = await asyncio.to_thread(certificates.list_cluster_custom_object, "certs.example.io", "v1", "certificates")
    assert found["items"]


async def test_watches_and_resumes_from_a_version(service: Service, members: Members) -> None:
    api = core(f"{service.url}/clusters/alpha")
    listed: Any = await asyncio.to_thread(api.list_pod_for_all_namespaces)
    view = {pod.metadata.uid: pod.metadata.resource_version for pod in listed.items}
    version = listed.metadata.resource_version
    stop = threading.Event()
    seen: list[tuple[str, str]] = []

    def follow() -> str:
        nonlocal version
        stream = watch.Watch()
        while not stop.is_set():
            # Short watches, so that it goes on from a version many times.
            for event in stream.stream(api.list_pod_for_all_namespaces, resource_version=version, timeout_seconds=1):
                pod = event["object"]
                version = pod.metadata.resource_version
                assert (pod.metadata.uid, version) not in seen
                seen.append((pod.metadata.uid, version))
                if event["type"] == "DELETED":
                    del view[pod.metadata.uid]
                else:
                    assert (event["type"] == "ADDED") is (pod.metadata.uid not in view)
                    view[pod.metadata.uid] = version
        return str(version)

    following = asyncio.create_task(asyncio.to_thread(follow))
    members["alpha"].churn.rate = 30
    await asyncio.sleep(5)
    members["alpha"].churn.rate = 0
    await asyncio.sleep(2.5)
    stop.set()
    await following
    listed = await asyncio.to_thread(api.list_pod_for_all_namespaces)
    assert view == {pod.metadata.uid: pod.metadata.resource_version for pod in listed.items}
    assert len(seen) > 10


async def test_an_old_version_is_told_as_410(service: Service) -> None:
    api = core(service.url)
    for version in ("12345", "elsewhere.17"):
        with pytest.raises(client.ApiException) as told:
            await asyncio.to_thread(
                list, watch.Watch().stream(api.list_namespace, resource_version=version, timeout_seconds=2)
            )
        assert told.value.status == 410
