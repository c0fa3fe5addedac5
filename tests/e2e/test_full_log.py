"""A log that is full: by its own limit, the server's, or the disk's. Nothing is forgotten, and it goes on with room."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from deltalog import connect
from tests.e2e.conftest import Comparison, Members, Starter
from tests.nats_cluster import Lone
from tests.patience import PATIENCE

REFUSED = "the log takes nothing in; what is refused"
pytestmark = pytest.mark.usefixtures("limited")


async def text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():
            await asyncio.sleep(0.1)


async def make(cluster: Any, names: list[str], size: int) -> None:
    """Namespaces of a size."""
    async with aiohttp.ClientSession() as session:
        for name in names:
            metadata = {"name": name, "annotations": {"example.com/filler": "x" * size}}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            async with session.post(f"{cluster.url}/api/v1/namespaces", json=body) as answer:
                assert answer.status == 201


async def limit(url: str, stream: str = "KUBEBRAID", **changes: int | str) -> dict[str, Any]:
    """Changes a stream as an administrator would; what it held before."""
    connection = await connect(url, name="administrator")
    try:
        info = msgspec.json.decode(await connection.api(f"STREAM.INFO.{stream}"))
        await connection.api(f"STREAM.UPDATE.{stream}", {**info["config"], **changes})
        return dict(info["state"])
    finally:
        await connection.close()


@pytest.mark.parametrize("whose", ["stream", "server"])
async def test_limits(whose: str, members: Members, start: Starter, compare: Comparison, tmp_path: Path) -> None:
    async with Lone(tmp_path, jetstream="max_file_store: 64MB") as nats:
        producing = await start(
            *("--nats", nats.url, "--kubeconfig", str(members.kubeconfig)), command="produce", ready=False
        )
        serving = await start("--nats", nats.url, command="serve")
        await compare.settle(serving.url, members.clusters)
        used = await limit(nats.url)
        if whose == "stream":
            # Nothing more, be it ever so small.
            await limit(nats.url, max_bytes=used["bytes"], discard="new")
        else:
            # What is set aside for events counts as used.
            state = await limit(nats.url, "KUBEBRAID_STATE")
            await limit(nats.url, max_bytes=-1)
            nats.jetstream = f"max_file_store: {used['bytes'] + state['bytes'] + 100_000}"
            nats.configure("")
            await nats.kill()
            await nats.start()
            await serving.ready()

        names = [f"filler-{number}" for number in range(10)]
        await make(members["alpha"], names, 60_000)

        async def says() -> bool:
            # A small message may still go in.
            refusing = "kubebraid_producer_log_refusing 0.0" not in await text(f"{producing.url}/metrics")
            return refusing and "has taken nothing in for" in await text(f"{producing.url}/readyz")

        await until(says)
        assert producing.output().count(REFUSED) <= 4
        # What was there is there still, and is served.
        served = {item["metadata"]["name"] for item in (await serving.get("/api/v1/pods"))["items"]}
        for cluster in members.clusters:
            async with aiohttp.ClientSession() as session, session.get(f"{cluster.url}/api/v1/pods") as answer:
                assert {item["metadata"]["name"] for item in (await answer.json())["items"]} <= served

        if whose == "stream":
            await limit(nats.url, max_bytes=-1, discard="old")
        else:
            nats.jetstream = "max_file_store: 64MB"
            nats.configure("")
            await nats.kill()
            await nats.start()
        await compare.settle(serving.url, members.clusters, patience=PATIENCE)

        async def says_no_more() -> bool:
            return "nothing in" not in await text(f"{producing.url}/readyz")

        await until(says_no_more)
        assert "kubebraid_producer_log_refusing 0.0" in await text(f"{producing.url}/metrics")
        assert "the log takes in again" in producing.output()


async def test_a_state_that_would_forget_is_mended(members: Members, start: Starter, tmp_path: Path) -> None:
    async with Lone(tmp_path) as nats:
        producing = await start(
            *("--nats", nats.url, "--kubeconfig", str(members.kubeconfig)), command="produce", ready=False
        )
        await producing.ready()
        await producing.stop()
        await limit(nats.url, "KUBEBRAID_STATE", discard="old", max_age=3_600_000_000_000)
        again = await start(
            *("--nats", nats.url, "--kubeconfig", str(members.kubeconfig)), command="produce", ready=False
        )
        await again.ready()
        connection = await connect(nats.url, name="test")
        try:
            raw = bytes(await connection.api("STREAM.INFO.KUBEBRAID_STATE"))
        finally:
            await connection.close()
        assert b'"discard":"new"' in raw
        assert b'"max_age":0' in raw


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB, where we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk(small_disk: Path, members: Members, start: Starter, compare: Comparison) -> None:
    up = await start("--kubeconfig", str(members.kubeconfig), "--data", str(small_disk))
    await compare.settle(up.url, members.clusters)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"\0" * 4096)
            file.flush()
    await make(members["bravo"], [f"filler-{number}" for number in range(10)], 60_000)

    async def says() -> bool:
        return "has taken nothing in for" in await text(f"{up.url}/readyz?verbose")

    await until(says)
    # Nothing that was acknowledged is lost, and reading goes on.
    version = (await up.get("/api/v1/pods", limit="1"))["metadata"]["resourceVersion"]
    assert REFUSED in up.output()
    filler.unlink()
    await compare.settle(up.url, members.clusters, patience=PATIENCE)
    after = (await up.get("/api/v1/pods", limit="1"))["metadata"]["resourceVersion"]
    assert version.split(".")[0] == after.split(".")[0], "the same history"
    assert int(after.split(".")[1]) > int(version.split(".")[1])
