"""examples/sqlite_table.py, killed again and again while clusters change, and their log is lost: equal to the state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from deltalog import Log
from deltalog.wire.kubernetes import GroupResource
from kubebraid.command.broker import EmbeddedBroker, running
from producers.follow.removal import remove_cluster, remove_type
from tests.e2e.conftest import Comparison, Members, Service, Starter, StartProcess
from tests.patience import PATIENCE
from tests.ports import free_port

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "sqlite_table.py"

Key = tuple[str, str, str, str, str]


class Running:
    """The example as a process of its own."""

    def __init__(self, url: str, file: Path) -> None:
        self.arguments = (str(PROGRAM), url, str(file))

    async def __aenter__(self) -> Running:
        self.process = await asyncio.create_subprocess_exec(sys.executable, *self.arguments)
        return self

    async def __aexit__(self, *_: object) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def table(file: Path) -> dict[Key, str]:
    """Each object's version; empty while there is no table."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        try:
            rows = db.execute("SELECT cluster, api_group, resource, namespace, name, body FROM objects").fetchall()
        except sqlite3.OperationalError:
            return {}
    return {tuple(key): json.loads(body)["metadata"]["resourceVersion"] for *key, body in rows}


def place(file: Path) -> str:
    """Up to where the log was taken in; empty while nothing was."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        try:
            return str(db.execute("SELECT place FROM progress").fetchone()[0])
        except (sqlite3.OperationalError, TypeError):
            return ""


async def served(service: Service, compare: Comparison) -> dict[Key, str]:
    found = {}
    for path in await compare.types(service.url):
        _, root, *middle, resource = path.split("/")
        group = middle[0] if root == "apis" else ""
        for item in (await service.get(path))["items"] or []:
            metadata = item["metadata"]
            cluster = metadata["annotations"]["shadow.clusterpedia.io/cluster-name"]
            key = (cluster, group, resource, metadata.get("namespace", ""), metadata["name"])
            found[key] = metadata["resourceVersion"]
    return found


async def equal(file: Path, service: Service, compare: Comparison) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            wanted, held = await served(service, compare), await asyncio.to_thread(table, file)
            if wanted == held and wanted:
                return
            await asyncio.sleep(0.2)


async def test_killed_at_random_it_ends_as_the_state(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", tmp_path / "objects.db"
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(data), "--nats-port", str(free_port()))
    service = await start(*arguments)
    chance = random.Random(11)
    for cluster in members.clusters:
        cluster.churn.rate = 40

    async def killed_often() -> None:
        url = running(data)
        assert url is not None
        for turn in range(5):
            begun = await asyncio.to_thread(place, file)
            async with Running(url, file):
                if turn % 2:
                    # In the middle of its work, however long it takes to begin; the others are killed at any moment.
                    async with asyncio.timeout(PATIENCE):
                        while await asyncio.to_thread(place, file) == begun:
                            await asyncio.sleep(0.05)
                await asyncio.sleep(chance.uniform(0.0, 1.3))
            await asyncio.sleep(chance.uniform(0.0, 0.3))

    await killed_often()
    assert await asyncio.to_thread(table, file)
    # The log is lost: another history, in which no place that was kept means anything.
    await service.stop()
    shutil.rmtree(data)
    await service.start()
    await service.ready()
    await killed_often()
    for cluster in members.clusters:
        cluster.churn.rate = 0
    url = running(data)
    assert url is not None
    async with Running(url, file):
        await compare.settle(service.url, members.clusters)
        await equal(file, service, compare)


async def test_it_waits_for_a_log_that_is_not_there_yet_or_was_lost(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    data, file, port = tmp_path / "data", tmp_path / "objects.db", free_port()
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(data), "--nats-port", str(port))
    async with Running(f"nats://127.0.0.1:{port}", file) as example:
        service = await start(*arguments)
        await compare.settle(service.url, members.clusters)
        await equal(file, service, compare)
        await service.stop()
        shutil.rmtree(data)
        members["alpha"].churn.step(20)
        await service.start()
        await service.ready()
        await compare.settle(service.url, members.clusters)
        await equal(file, service, compare)
        assert example.process.returncode is None


async def test_what_is_removed_as_a_whole_leaves_the_table(
    members: Members, process: StartProcess, broker: EmbeddedBroker, log: Log, tmp_path: Path
) -> None:
    """One record removes a type, or a cluster: no object has a DELETED of its own."""
    file = tmp_path / "objects.db"
    producing = await process("produce", "--nats", broker.url, "--kubeconfig", str(members.kubeconfig))

    async def until(holds: Callable[[dict[Key, str]], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds(await asyncio.to_thread(table, file)):
                await asyncio.sleep(0.1)

    deployments = ("alpha", "apps", "deployments")
    async with Running(broker.url, file):
        await until(
            lambda held: {key[0] for key in held} == {"alpha", "bravo"} and deployments in {k[:3] for k in held}
        )
        await producing.stop()
        await remove_type(log, "test", "alpha", GroupResource("apps", "deployments"))
        await until(lambda held: deployments not in {key[:3] for key in held})
        assert await asyncio.to_thread(table, file)
    # While nobody reads.
    await remove_cluster(log, "test", "bravo")
    async with Running(broker.url, file):
        await until(lambda held: {key[0] for key in held} == {"alpha"})
