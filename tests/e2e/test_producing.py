"""`kubebraid produce` and `relist` as an operator uses them: metrics, lists asked for, a configuration that changes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Members, Starter, StartProcess
from tests.patience import PATIENCE, eventually_awaited

PODS = "/api/v1/pods"


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


async def samples(url: str, **labels: str) -> dict[str, float]:
    """The metrics that have these labels; what else tells them apart stands in braces."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        text = await answer.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                rest = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k not in labels)
                found[f"{sample.name}{{{rest}}}" if rest else sample.name] = sample.value
    return found


async def test_metrics_by_cluster_and_type(members: Members, nats: str, start: Starter) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--nats", nats, command="produce")
    alpha = members["alpha"]

    async def synced() -> Any:
        found = await samples(service.url, cluster="alpha", type="pods")
        return found.get("kubebraid_producer_synced") and found

    found = await eventually_awaited(synced)
    assert found["kubebraid_producer_objects"] == 60
    assert found["kubebraid_producer_deltas_total{outcome=added}"] == 60
    assert found["kubebraid_producer_lists_total{reason=first}"] == 1
    assert found["kubebraid_producer_list_duration_seconds_count"] == 1

    pod = (await _request("GET", f"{alpha.url}{PODS}"))["items"][0]["metadata"]
    path = f"{alpha.url}/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}"
    await _request("PATCH", path, {"metadata": {"labels": {"touched": "yes"}}})

    async def followed() -> Any:
        found = await samples(service.url, cluster="alpha", type="pods")
        return found["kubebraid_producer_append_seconds_count"] and found

    found = await eventually_awaited(followed)
    assert found["kubebraid_producer_deltas_total{outcome=modified}"] == 1
    assert found["kubebraid_producer_lag_seconds_count"] == 1
    assert 0 <= found["kubebraid_producer_lag_seconds_sum"] < 30
    assert found["kubebraid_producer_last_event_timestamp_seconds"] > 0

    alpha.faults.hang_watches()
    await _request("PATCH", path, {"metadata": {"labels": {"touched": "again"}}})
    alpha.faults.compact()
    alpha.faults.cut_watches()
    alpha.faults.clear()

    async def relisted() -> Any:
        found = await samples(service.url, cluster="alpha", type="pods")
        return found.get("kubebraid_producer_lists_total{reason=expired}") and found

    found = await eventually_awaited(relisted)
    assert found["kubebraid_producer_watch_restarts_total{reason=broken}"] >= 1
    assert found["kubebraid_producer_watch_duration_seconds_count"] >= 1
    await eventually_awaited(synced)
    found = await samples(service.url, cluster="alpha", type="pods")
    assert found["kubebraid_producer_deltas_total{outcome=suppressed}"] >= 59
    assert found["kubebraid_producer_deltas_total{outcome=added}"] == 60
    found = await samples(service.url, cluster="alpha")
    assert found["kubebraid_producer_cluster_held"] == 1
    assert found["kubebraid_producer_cluster_up"] == 1
    assert abs(found["kubebraid_cluster_clock_offset_seconds"]) < 5
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{service.url}/readyz") as answer:
            assert "[+]cluster alpha ok" in await answer.text()


async def _request(method: str, url: str, body: object = None) -> dict[str, Any]:
    headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url, data=None if body is None else json.dumps(body)) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return dict(await answer.json())


async def test_one_process_shows_both_halves(members: Members, start: Starter, tmp_path: Path) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    found = await samples(service.url, cluster="bravo", type="pods")
    assert found["kubebraid_producer_objects"] == 60


async def test_lists_are_compared_on_request(
    members: Members, nats: str, start: Starter, process: StartProcess
) -> None:
    code, out = await _command(process, "relist", "--nats", nats)
    assert (code, "no producer" in out, out.count("\n")) == (1, True, 1), out
    service = await start("--kubeconfig", str(members.kubeconfig), "--nats", nats, command="produce")

    async def lists(cluster: str) -> float:
        found = await samples(service.url, cluster=cluster, type="pods")
        return found.get("kubebraid_producer_lists_total{reason=request}", 0)

    async def ready() -> bool:
        found = await samples(service.url, type="pods")
        return sum(value for name, value in found.items() if name.startswith("kubebraid_producer_synced")) == 2

    await eventually_awaited(ready)
    code, out = await _command(process, "relist", "--nats", nats, "--cluster", "al*", "--type", "pods")
    assert code == 0
    assert re.search(r"comparing 1 lists of 1 clusters", out), out

    async def done() -> bool:
        return await lists("alpha") == 1

    await eventually_awaited(done)
    assert await lists("bravo") == 0


async def _command(process: StartProcess, *arguments: str) -> tuple[int, str]:
    one = await process(*arguments)
    assert one.process is not None
    code = await asyncio.wait_for(one.process.wait(), PATIENCE)
    return code, one.output()


async def test_a_configuration_file_that_changes(members: Members, nats: str, start: Starter, tmp_path: Path) -> None:
    config = tmp_path / "kubebraid.yaml"
    config.write_text(
        f"clusters:\n- kubeconfig: {members.kubeconfig}\n  contexts: [alpha]\nsync: [pods, nodes]\nrelistEvery: '0'\n"
    )
    service = await start("--config", str(config), "--nats", nats)
    assert {one["name"] for one in (await service.get("/clusters"))["clusters"]} == {"alpha"}
    assert len((await service.get(PODS))["items"]) == 60

    config.write_text(
        f"clusters:\n- kubeconfig: {members.kubeconfig}\nsync: [pods, configmaps]\nexclude: [nodes]\n"
        "prune: {fields: [{types: [configmaps], pointers: [/data]}]}\n"
    )

    async def changed() -> Any:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{service.url}/api/v1/configmaps") as answer:
                items = (await answer.json())["items"] if answer.status == 200 else []
            async with session.get(f"{service.url}/api/v1/nodes") as answer:
                nodes = answer.status
        clusters = {item["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"] for item in items}
        return clusters == {"alpha", "bravo"} and nodes == 404 and items

    items = await eventually_awaited(changed)
    assert all(not any((item.get("data") or {}).values()) for item in items)
    assert any(item.get("data") for item in items), "keys stay"
    assert len((await service.get(PODS))["items"]) == 120

    config.write_text("clusters: nonsense\n")

    async def told() -> bool:
        return "clusters" in service.output().rpartition("kubebraid.yaml")[2] and "nonsense" not in service.output()

    await eventually_awaited(told)
    assert "Traceback" not in service.output()
    assert len((await service.get(PODS))["items"]) == 120, "what was is kept"

    config.write_text(f"clusters:\n- kubeconfig: {members.kubeconfig}\n  contexts: [bravo]\nsync: [pods]\n")

    async def alpha_gone() -> bool:
        return {one["name"] for one in (await service.get("/clusters"))["clusters"]} == {"bravo"}

    await eventually_awaited(alpha_gone)
    assert len((await service.get(PODS))["items"]) == 60
