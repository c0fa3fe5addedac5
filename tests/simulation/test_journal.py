"""A cluster with a state directory: a killed process goes on as the same cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from simulation import SimulatedCluster
from simulation.registry import DeleteOptions

CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")


def everything(cluster: SimulatedCluster) -> dict[tuple[object, ...], tuple[object, ...]]:
    return {
        (key, *one.key): (one.uid, one.version, one.tail, one.fields)
        for key, collection in cluster.storage.collections.items()
        for one in collection.in_order()
    }


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    first = SimulatedCluster("alpha", seed=1, pods=20, state=tmp_path)
    first.churn.step(300)
    key = ("certs.example.io", "certificates")
    crds = first.storage.collections[CRDS]
    [definition] = crds.in_order()
    second = SimulatedCluster("alpha", seed=1, pods=99, state=tmp_path)
    second.storage.check()
    assert everything(second) == everything(first)
    assert second.storage.version == first.storage.version
    assert second.storage.collections[key].type.columns == first.storage.collections[key].type.columns
    second.registry.delete(crds.type, *definition.key, DeleteOptions())
    second.churn.step(300)
    third = SimulatedCluster("alpha", seed=1, pods=99, state=tmp_path)
    third.storage.check()
    assert everything(third) == everything(second)
    assert third.storage.version == second.storage.version
    assert key not in third.storage.collections


def test_a_line_cut_off_was_never_acknowledged(tmp_path: Path) -> None:
    first = SimulatedCluster("alpha", seed=1, pods=5, state=tmp_path)
    before = everything(first)
    version = first.storage.version
    [path] = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    first.churn.step(1)
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:50])
    second = SimulatedCluster("alpha", seed=1, pods=5, state=tmp_path)
    assert everything(second) == before
    assert second.storage.version == version


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_killed_and_started_again(tmp_path: Path) -> None:
    async def get(path: str, body: object = None) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            data = None if body is None else json.dumps(body).encode()
            with urllib.request.urlopen(url + path, data=data, timeout=10) as answer:
                return dict(json.load(answer))

        return await asyncio.to_thread(ask)

    async def begin(port: int) -> tuple[asyncio.subprocess.Process, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "simulation", "--clusters", "1", "--first", "2", "--pods", "10", "--churn", "0"),
            *("--state", str(tmp_path), "--base-port", str(port), "--write-kubeconfig", str(tmp_path / "k")),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        while not (line := (await process.stdout.readline()).decode()).startswith("bravo\t"):
            assert line, "it ended"
        return process, line.split()[1]

    process, url = await begin(0)
    try:
        await get("/_simulation/churn", {"now": 50})
        before = await get("/api/v1/pods")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process, again = await begin(int(url.rpartition(":")[2]))
        assert again == url
        assert await get("/api/v1/pods") == before
    finally:
        process.kill()
        await process.wait()
