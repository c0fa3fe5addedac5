"""Fixtures of the conformance tests: a member cluster, kubebraid in front of it, and both as endpoints.

The member is the simulated cluster alpha (bravo is beside it), or with `make test-clusters` the first of $KUBECONFIG.
Scenarios write into namespaces of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from kubebraid.command.broker import EmbeddedBroker
from tests.conformance.ages import AGES, minor_of
from tests.conformance.endpoint import Access, Endpoint, access_of_context, opened
from tests.conformance.scenarios import REAL
from tests.e2e.conftest import Members, Service, _members

__all__ = ["Ground", "expect_of"]


class Ground:
    """A service that follows the member `cluster`, and the endpoints of both by name.

    managedFields are kept (`prune.managedFields: false`), so that what is read here can be the cluster's bytes.
    """

    def __init__(
        self, directory: Path, broker: EmbeddedBroker, cluster: str, endpoints: dict[str, Endpoint], minor: int
    ) -> None:
        self.cluster = cluster
        self.endpoints = endpoints
        self.minor = minor
        self._directory = directory
        self._broker = broker

    @property
    def member(self) -> Endpoint:
        return self.endpoints["member"]

    @property
    def ours(self) -> Endpoint:
        return self.endpoints["cluster"]

    @contextlib.asynccontextmanager
    async def another(self, *options: str, scope: str = "cluster") -> AsyncIterator[Endpoint]:
        """Another instance as an endpoint, which starts now, with more options, and has seen nothing yet."""
        service = Service("serve", "--nats", self._broker.url, *options, log=self._directory / "another.log")
        await service.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(service.stop)
            await service.ready()
            session = await stack.enter_async_context(opened(Access(service.url, {})))
            reads = service.url if scope == "root" else f"{service.url}/clusters/{self.cluster}"
            writes, simulated = self.ours.writes, self.member.simulated
            yield Endpoint("another", session, reads, writes, simulated=simulated, minor=self.minor)


@contextlib.asynccontextmanager
async def _ground(directory: Path, kubeconfig: str, members: Members | None) -> AsyncIterator[Ground]:
    document: dict[str, Any] = {
        "clusters": [{"kubeconfig": kubeconfig}],
        "prune": {"managedFields": False},
    }
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "broker"))
        arguments = ("--config", str(config), "--nats", broker.url, "--forward", "configured")
        service = Service("up", *arguments, "--data", str(directory / "data"), log=directory / "up.log")
        await service.start()
        stack.push_async_callback(service.stop)
        await service.ready()
        cluster = (await service.get("/clusters"))["clusters"][0]["name"]
        access = await access_of_context(kubeconfig, cluster)
        direct = await stack.enter_async_context(opened(access))
        through = await stack.enter_async_context(opened(Access(service.url, {})))
        minor = await minor_of(direct, access.url)
        below = f"{service.url}/clusters/{cluster}"

        def endpoint(name: str, session: aiohttp.ClientSession, reads: str, writes: str) -> Endpoint:
            return Endpoint(name, session, reads, writes, simulated=members is not None, minor=minor)

        endpoints = {
            "member": endpoint("member", direct, access.url, access.url),
            "cluster": endpoint("cluster", through, below, below),
            "root": endpoint("root", through, service.url, below),
        }
        yield Ground(directory, broker, cluster, endpoints, minor)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    directory = tmp_path_factory.mktemp("ground")
    async with contextlib.AsyncExitStack() as stack:
        members = None if REAL else await stack.enter_async_context(_members(directory))
        kubeconfig = REAL or str(members.kubeconfig if members else "")
        yield await stack.enter_async_context(_ground(directory, kubeconfig, members))


@pytest.fixture
def endpoint(ground: Ground, request: pytest.FixtureRequest) -> Endpoint:
    """The endpoint that a scenario is run at; skips where a real member is too old for it."""
    name, age = request.param
    found = ground.endpoints[name]
    if age is not None:
        expect_of(found, age)
    return found


def expect_of(endpoint: Endpoint, age: str) -> None:
    """Skips where a real member is too old for what a row of `AGES` is about."""
    if not endpoint.does(age):
        since = AGES[age]
        pytest.skip(f"the member is 1.{endpoint.minor}, and since 1.{since.minor}: {age}; before: {since.before}")
