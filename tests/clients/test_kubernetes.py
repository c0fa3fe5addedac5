"""`kubernetes`, the official Python client: its SharedInformer, its dynamic client, selectors, pages.

Plain lists, gets, watches and 410 of it are in tests/e2e/test_python_client.py.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from kubernetes import client, dynamic, watch
from kubernetes.informer import ADDED, DELETED, SharedInformer

from tests.clients.conftest import Braid

pytestmark = pytest.mark.asyncio(loop_scope="module")


def api(url: str) -> client.ApiClient:
    configuration = client.Configuration()
    configuration.host = url
    return client.ApiClient(configuration)


async def test_selectors_pages_and_forms(braid: Braid) -> None:
    core = client.CoreV1Api(api(braid.url))
    # Every attribute of the client's models may be None, it says.
    pods: Any = await asyncio.to_thread(core.list_pod_for_all_namespaces)
    labelled = next(pod for pod in pods.items if pod.metadata.labels and "app" in pod.metadata.labels)
    app, node = labelled.metadata.labels["app"], labelled.spec.node_name
    found: Any = await asyncio.to_thread(
        core.list_pod_for_all_namespaces, label_selector=f"app={app}", field_selector=f"spec.nodeName={node}"
    )
    wanted = {
        pod.metadata.uid
        for pod in pods.items
        if (pod.metadata.labels or {}).get("app") == app and pod.spec.node_name == node
    }
    assert {pod.metadata.uid for pod in found.items} == wanted
    assert 0 < len(wanted) < len(pods.items)
    in_namespace: Any = await asyncio.to_thread(core.list_namespaced_pod, labelled.metadata.namespace)
    assert {pod.metadata.namespace for pod in in_namespace.items} == {labelled.metadata.namespace}
    # An old list: the same objects at the same versions, by the list's own version.
    exact: Any = await asyncio.to_thread(
        core.list_pod_for_all_namespaces,
        resource_version=pods.metadata.resource_version,
        resource_version_match="Exact",
    )
    assert [pod.metadata.resource_version for pod in exact.items] == [
        pod.metadata.resource_version for pod in pods.items
    ]
    machine: Any = await asyncio.to_thread(
        client.CoreV1Api(api(braid.below("alpha"))).read_node, pods.items[0].spec.node_name
    )
    assert machine.status.node_info.kubelet_version
    version: Any = await asyncio.to_thread(client.VersionApi(api(braid.below("alpha"))).get_code)
    assert version.git_version.startswith("v1.")


async def test_the_dynamic_client_discovers_and_watches(braid: Braid) -> None:
    def work() -> None:
        found = dynamic.DynamicClient(api(braid.below("bravo")))
        certificates = found.resources.get(api_version="certs.example.io/v1", kind="Certificate")
        listed = certificates.get()
        assert listed.items
        one = listed.items[0]
        assert certificates.get(name=one.metadata.name, namespace=one.metadata.namespace).metadata.uid == (
            one.metadata.uid
        )
        deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
        selected = deployments.get(label_selector=f"app={deployments.get().items[0].metadata.labels.app}")
        assert selected.items
        events = list(certificates.watch(timeout=1))
        assert {event["object"].metadata.uid for event in events} == {one.metadata.uid for one in listed.items}
        assert {event["type"] for event in events} == {"ADDED"}

    await asyncio.to_thread(work)


async def test_custom_objects_are_watched(braid: Braid) -> None:
    custom = client.CustomObjectsApi(api(braid.url))
    listed: Any = await asyncio.to_thread(custom.list_cluster_custom_object, "certs.example.io", "v1", "certificates")

    def follow() -> dict[str, str]:
        stream = watch.Watch().stream(
            custom.list_cluster_custom_object, "certs.example.io", "v1", "certificates", timeout_seconds=1
        )
        return {event["object"]["metadata"]["uid"]: event["object"]["metadata"]["resourceVersion"] for event in stream}

    assert await asyncio.to_thread(follow) == {
        one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in listed["items"]
    }


async def test_informers_live_through_a_kill_and_a_lost_history(braid: Braid) -> None:
    """At the root keyed by uid, since its own key (namespace/name) confuses clusters; below one cluster as it is."""
    of_all = SharedInformer(
        client.CoreV1Api(api(braid.url)).list_pod_for_all_namespaces, key_func=lambda pod: pod.metadata.uid
    )
    of_one = SharedInformer(client.CoreV1Api(api(braid.below("alpha"))).list_pod_for_all_namespaces)
    told: dict[str, str] = {}
    lock = threading.Lock()

    def added(pod: Any) -> None:
        with lock:
            told[pod.metadata.uid] = pod.metadata.name

    def deleted(pod: Any) -> None:
        with lock:
            del told[pod.metadata.uid]

    of_all.add_event_handler(ADDED, added)
    of_all.add_event_handler(DELETED, deleted)

    def held(informer: SharedInformer) -> dict[str, str]:
        return {pod.metadata.uid: pod.metadata.resource_version for pod in informer.cache.list()}

    async def converge() -> None:
        await braid.converges(lambda: held(of_all))
        await braid.converges(lambda: held(of_one), cluster="alpha")
        with lock:
            assert set(told) == set(held(of_all))

    of_all.start()
    of_one.start()
    try:
        await converge()
        braid.change()
        await converge()
        await braid.killed_and_started()
        await converge()
        await braid.history_lost()
        await converge()
    finally:
        # A quiet watch is only left when something comes.
        stopping = asyncio.gather(*(asyncio.to_thread(one.stop) for one in (of_all, of_one)))
        while not stopping.done():
            braid.change()
            await asyncio.wait([stopping], timeout=0.2)
