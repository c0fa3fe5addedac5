"""Member clusters that are down, come back, change their types; and two producers on one cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from simulation import SimulatedCluster
from tests.e2e.conftest import Comparison, Members, Starter
from tests.patience import eventually_awaited
from tests.ports import free_port


async def text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def warnings(url: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers.getall("Warning", [])


async def test_a_cluster_that_is_down_at_the_start_comes_in_later(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    late = SimulatedCluster("charlie", seed=3, pods=10)
    await late.start()
    port = late.port
    document = yaml.safe_load(members.kubeconfig.read_text())
    document["clusters"].append({"name": "charlie", "cluster": {"server": late.url}})
    document["contexts"].append({"name": "charlie", "context": {"cluster": "charlie", "user": ""}})
    members.kubeconfig.write_text(yaml.safe_dump(document))
    await late.stop()

    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    assert "cluster charlie is stale" in await text(f"{service.url}/readyz?verbose")
    assert len((await service.get("/api/v1/pods"))["items"]) == 120

    late = SimulatedCluster("charlie", seed=3, pods=10, port=port)
    await late.start()
    try:

        async def there() -> bool:
            return len((await service.get("/api/v1/pods"))["items"]) == 130

        await eventually_awaited(there)
        await compare.settle(service.url, [*members.clusters, late])

        async def fine() -> bool:
            return "cluster charlie ok" in await text(f"{service.url}/readyz?verbose")

        await eventually_awaited(fine)
    finally:
        await late.stop()


async def test_a_cluster_that_goes_away_stays_readable_with_a_warning(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    bravo = members["bravo"]
    await bravo.faults.refuse_connections()

    async def warned() -> bool:
        return any("bravo is not ready" in one for one in await warnings(f"{service.url}/api/v1/pods"))

    await eventually_awaited(warned)
    assert len((await service.get("/api/v1/pods"))["items"]) == 120
    assert not await warnings(f"{service.url}/clusters/alpha/api/v1/pods")
    bravo.churn.step(20)
    await bravo.faults.accept_connections()

    async def fine() -> bool:
        return not await warnings(f"{service.url}/api/v1/pods")

    await eventually_awaited(fine)
    await compare.settle(service.url, members.clusters)


async def test_broken_watches_and_compaction_lose_nothing(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    for cluster in members.clusters:
        cluster.churn.rate = 30
    for _ in range(3):
        await asyncio.sleep(0.7)
        members["alpha"].faults.cut_watches()
        members["bravo"].faults.compact()
        members["bravo"].faults.cut_watches()
        members["alpha"].faults.fail_next(3, 500)
        members["bravo"].faults.fail_next(3, 429)
    for cluster in members.clusters:
        cluster.churn.rate = 0
        cluster.faults.clear()
    await compare.settle(service.url, members.clusters)


async def test_a_custom_type_comes_and_goes(
    members: Members, start: Starter, tmp_path: Path, compare: Comparison
) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    alpha = members["alpha"]
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.io"},
        "spec": {
            "group": "sea.example.io",
            "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    "additionalPrinterColumns": [{"name": "Sails", "type": "integer", "jsonPath": ".spec.sails"}],
                }
            ],
        },
    }
    crds = alpha.url + "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    boats = "/apis/sea.example.io/v1/namespaces/default/boats"
    async with aiohttp.ClientSession() as session:
        async with session.post(crds, json=crd) as answer:
            assert answer.status == 201, await answer.text()
        boat = {"apiVersion": "sea.example.io/v1", "kind": "Boat", "metadata": {"name": "gull"}, "spec": {"sails": 3}}
        async with session.post(alpha.url + boats, json=boat) as answer:
            assert answer.status == 201, await answer.text()

        async def served() -> Any:
            async with session.get(service.url + boats) as answer:
                return answer.status == 200 and await answer.json()

        found = await eventually_awaited(served)
        found = await eventually_awaited(lambda: _items(session, service.url + boats))
        assert [item["metadata"]["name"] for item in found] == ["gull"]
        table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        async with session.get(service.url + boats, headers=table) as answer:
            assert (await answer.json())["rows"][0]["cells"] == ["alpha", "gull", 3]
        query = {"watch": "1", "resourceVersion": "0", "timeoutSeconds": "20"}
        async with session.get(service.url + boats, params=query) as watching:
            assert json.loads(await watching.content.readline())["type"] == "ADDED"
            async with session.delete(f"{crds}/boats.sea.example.io") as answer:
                assert answer.status == 200
            assert json.loads(await watching.content.readline())["type"] == "DELETED"

        async def gone() -> bool:
            async with session.get(service.url + boats) as answer:
                return answer.status == 404

        await eventually_awaited(gone)
    await compare.settle(service.url, members.clusters)


async def _items(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(url) as answer:
        return list((await answer.json())["items"])


async def test_parts_alone(members: Members, start: Starter, compare: Comparison, tmp_path: Path) -> None:
    """`produce` and `serve` against a NATS, in either order."""
    holder = await start(
        "--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"), "--nats-port", str(free_port())
    )
    nats = next(word for word in holder.output().split() if word.startswith("url=nats://"))[4:]
    serving = await start("--nats", nats, "--stream", "KUBEBRAID", command="serve")
    await compare.settle(serving.url, members.clusters)
    one = await holder.get("/api/v1/nodes")
    other = await serving.get("/api/v1/nodes")
    assert one == other, "instances on one log serve the same versions"


@pytest.mark.parametrize("aggregated", [True, False])
async def test_older_servers_without_aggregated_discovery(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path, aggregated: bool
) -> None:
    for cluster in members.clusters:
        cluster.faults.aggregated_discovery = aggregated
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    await compare.settle(service.url, members.clusters)
