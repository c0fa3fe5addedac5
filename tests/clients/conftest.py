"""Fixtures of the tests with clients that others wrote: those of the end-to-end tests, and upheavals of a service."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import processes
from tests.e2e.conftest import (
    Comparison,
    Members,
    Service,
    compare,
    kubectl,
    process,
    shared_members,
    shared_service,
)
from tests.patience import PATIENCE

__all__ = ["compare", "kubectl", "process", "shared_members", "shared_service"]

PODS = "/api/v1/pods"

# What a client holds: uid -> version.
Held = Mapping[str, str]


class Braid:
    """A running service with its members: what a client should hold, and what it should live through.

    All members change only when a test says so, so what a client has to end with is known.
    """

    def __init__(self, service: Service, members: Members) -> None:
        self.service = service
        self.members = members
        self.url = service.url

    def below(self, cluster: str) -> str:
        """The server URL that has one cluster alone."""
        return f"{self.url}/clusters/{cluster}"

    def change(self, writes: int = 40) -> None:
        """Pods and what belongs to them come, change and go in both clusters."""
        for cluster in self.members.clusters:
            assert cluster.churn.step(writes) >= writes

    async def settled(self, path: str = PODS) -> None:
        """Returns when the service has what the members have at `path`."""
        comparison = Comparison()
        async with asyncio.timeout(PATIENCE):
            for cluster in self.members.clusters:
                while True:
                    _, theirs = await comparison.items(cluster.url + path)
                    _, ours = await comparison.items(self.below(cluster.name) + path)
                    if {key: version.split(".", 2)[2] for key, version in ours.items()} == theirs:
                        break
                    await asyncio.sleep(0.02)

    async def objects(self, path: str = PODS, cluster: str | None = None, **query: str) -> list[dict[str, Any]]:
        """A plain list, asked for without any of the clients."""
        scope = "" if cluster is None else f"/clusters/{cluster}"
        return list((await self.service.get(scope + path, **query))["items"])

    async def versions(self, path: str = PODS, cluster: str | None = None, **query: str) -> dict[str, str]:
        """uid -> version of what a client should hold."""
        found = await self.objects(path, cluster, **query)
        return {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in found}

    async def converges(
        self,
        held: Callable[[], Held],
        path: str = PODS,
        cluster: str | None = None,
        running: asyncio.Task[None] | None = None,
    ) -> None:
        """Once the service has settled, the client must come to hold what a list says; fails with the difference.

        `running`: the client, where it is a task; what ends it is raised here.
        """
        await self.settled(path)
        wanted = await self.versions(path, cluster)
        assert wanted
        loop = asyncio.get_running_loop()
        limit = loop.time() + PATIENCE
        while (found := held()) != wanted and loop.time() < limit:
            if running is not None and running.done():
                await running
                raise AssertionError("the client has ended")
            await asyncio.sleep(0.02)
        wrong = {key: (found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys()}
        assert found == wanted, {key: pair for key, pair in wrong.items() if pair[0] != pair[1]}

    async def killed_and_started(self) -> None:
        """SIGKILL; the clusters go on meanwhile; the same history after that."""
        before = await self._prefix()
        await self.service.kill()
        self.change()
        await self.service.start()
        await self.service.ready()
        assert await self._prefix() == before

    async def history_lost(self) -> None:
        """Stopped, and started with an empty log: another history, in which no older version means anything."""
        before = await self._prefix()
        await self.service.stop()
        shutil.rmtree(self.members.kubeconfig.parent / "data")
        self.change()
        await self.service.start()
        await self.service.ready()
        assert await self._prefix() != before

    async def _prefix(self) -> str:
        listed = await self.service.get("/api/v1/namespaces", limit="1")
        return str(listed["metadata"]["resourceVersion"]).split(".")[0]


@pytest.fixture
def braid(shared_service: Service, shared_members: Members) -> Braid:
    """The module's service with its members."""
    return Braid(shared_service, shared_members)


@pytest_asyncio.fixture(loop_scope="module")
async def kubeconfig(braid: Braid, tmp_path: Path) -> Path:
    """What `kubebraid kubeconfig` prints for the service: contexts `kubebraid`, `kubebraid-alpha` and `-bravo`."""
    code, printed, err = await processes.run("kubeconfig", "--server", braid.url)
    assert code == 0, err
    path = tmp_path / "kubebraid.kubeconfig"
    path.write_text(printed)
    return path
