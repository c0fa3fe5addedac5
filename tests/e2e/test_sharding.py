"""Shards: several logs of one NATS by type and by cluster, a serving group for each, and a router before them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from deltalog import connect
from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Comparison, Kubectl, Members, Service, Starter, StartProcess, View
from tests.halting import halt
from tests.patience import PATIENCE

PODS = "/api/v1/pods"
DEPLOYMENTS = "/apis/apps/v1/deployments"


class Shards:
    def __init__(self, nats: str, router: Service, groups: dict[str, list[Service]]) -> None:
        self.nats = nats
        self.router = router
        self.groups = groups


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


@pytest.fixture
async def shards(nats: str, members: Members, process: StartProcess, start: Starter) -> Shards:
    """Pods in a log of their own with two instances, all other types in another with one."""
    kubeconfig = ("--nats", nats, "--kubeconfig", str(members.kubeconfig))
    await process("produce", *kubeconfig, "--stream", "PODS", "--include", "pods")
    await process("produce", *kubeconfig, "--include", "*", "--exclude", "pods")
    groups: dict[str, list[Service]] = {"pods": [], "rest": []}
    for name, stream in (("pods", "PODS"), ("pods", "PODS"), ("rest", "KUBEBRAID")):
        groups[name].append(await start("--nats", nats, "--stream", stream, command="serve"))
    arguments = [
        part
        for name, services in groups.items()
        for part in ("--group", f"{name}={','.join(service.url for service in services)}")
    ]
    return Shards(nats, await start(*arguments, command="route"), groups)


async def test_all_types_at_one_address(
    shards: Shards, members: Members, compare: Comparison, view: type[View], kubectl: Kubectl
) -> None:
    router = shards.router
    await compare.settle(router.url, members.clusters)
    # Each log has its types, none has all.
    async with contextlib.AsyncExitStack() as stack:
        connection = await connect(shards.nats, name="test")
        stack.push_async_callback(connection.close)
        for stream, there, elsewhere in (
            ("PODS", "kb.*.core.*.pods.>", "kb.*.apps.>"),
            ("KUBEBRAID", "kb.*.apps.>", "kb.*.core.*.pods.>"),
        ):
            for pattern, some in ((there, True), (elsewhere, False)):
                raw = await connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern})
                assert bool(json.loads(bytes(raw))["state"].get("subjects")) is some
    # The union is what one instance with everything would have.
    resources = {one["name"] for one in (await router.get("/api/v1"))["resources"]}
    assert {"pods", "nodes", "configmaps"} <= resources
    of_alpha = {one["name"] for one in (await router.get("/clusters/alpha/api/v1"))["resources"]}
    assert of_alpha == resources
    groups = [one["name"] for one in (await router.get("/apis"))["groups"]]
    assert len(groups) == len(set(groups))
    assert "apps" in groups
    assert set((await router.get("/openapi/v3"))["paths"]) >= {"api/v1", "apis/apps/v1"}
    found = {one["name"]: set(one["types"]) for one in (await router.get("/clusters"))["clusters"]}
    assert set(found) == {"alpha", "bravo"}
    assert {"pods", "deployments.apps", "nodes"} <= found["alpha"]

    code, out, err = await kubectl("--server", router.url, "get", "pods,deployments,nodes", "-A", "-o", "name")
    assert code == 0, err
    lines = out.split()
    for kind, path in (("pod", PODS), ("deployment.apps", DEPLOYMENTS), ("node", "/api/v1/nodes")):
        items = (await router.get(path))["items"]
        assert sorted(one for one in lines if one.startswith(f"{kind}/")) == sorted(
            f"{kind}/{item['metadata']['name']}" for item in items
        )
    code, out, err = await kubectl("--server", router.url, "api-resources", "--no-headers", "-o", "name")
    assert code == 0, err
    assert {"pods", "deployments.apps"} <= set(out.split())
    code, out, err = await kubectl("--server", router.url, "auth", "can-i", "list", "deployments.apps")
    assert (code, out.strip()) == (0, "yes"), err
    code, out, err = await kubectl("--server", router.url, "auth", "can-i", "list", "pods")
    assert (code, out.strip()) == (0, "yes"), err
    code, out, err = await kubectl("--server", f"{router.url}/clusters/alpha", "explain", "deployment.spec.replicas")
    assert code == 0, err
    assert "replicas" in out
    code, _, err = await kubectl("--server", router.url, "get", "namespace", "default")
    assert code == 1
    # The command that works goes by the router as well.
    assert f"for example kubectl --server {router.url}/clusters/alpha get namespaces default" in err
    code, out, err = await kubectl("--server", router.url, "get", "nobodies")
    assert code == 1
    assert "the server doesn't have a resource type" in err


async def test_watches_go_on_when_instances_die(
    shards: Shards, members: Members, compare: Comparison, view: type[View]
) -> None:
    router = shards.router
    views = [view(router.url, path) for path in (PODS, PODS, PODS, PODS, DEPLOYMENTS, f"/clusters/bravo{PODS}")]
    for each in views:
        await each.list()
    followers = [asyncio.create_task(each.follow_for_ever()) for each in views]
    for cluster in members.clusters:
        cluster.churn.rate = 30
    one, other = shards.groups["pods"]
    for dead in (one, other):
        await asyncio.sleep(0.7)
        await dead.kill()
        # The other one answers, the one that is gone is never seen.
        for _ in range(10):
            assert (await router.get(PODS, limit="1"))["items"]
            assert (await router.get("/api/v1"))["resources"]
        await dead.start()
        await dead.ready()
        await ready_at_router(router, dead)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(router.url, members.clusters)
    for each in views:
        await each.equals(router)
        assert each.events > 0
    for follower in followers:
        follower.cancel()
    for result in await asyncio.gather(*followers, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


async def ready_at_router(router: Service, service: Service) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{router.url}/readyz?verbose") as answer:
                if f"[!]{service.url} " not in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def test_a_group_that_is_down(shards: Shards, members: Members) -> None:
    """Its types are not forgotten: 503, and discovery as it was, not an API without them."""
    router = shards.router
    before = await router.get("/apis")
    (rest,) = shards.groups["rest"]
    await rest.kill()
    async with aiohttp.ClientSession() as session:
        async with session.get(router.url + DEPLOYMENTS) as answer:
            assert answer.status == 503
            status = await answer.json()
            assert (status["kind"], status["reason"]) == ("Status", "ServiceUnavailable")
            assert "rest" in status["message"]
            assert answer.headers["Retry-After"]
        assert await router.get("/apis") == before
        assert (await router.get(PODS))["items"]
        async with asyncio.timeout(PATIENCE):
            while True:
                async with session.get(f"{router.url}/readyz") as answer:
                    if answer.status == 503:
                        assert "[-]group rest: 0 of 1 ready" in await answer.text()
                        break
                await asyncio.sleep(0.1)
        # A router that has never seen it does not know what it has.
    await rest.start()
    await rest.ready()
    await ready_at_router(router, rest)
    assert (await router.get(DEPLOYMENTS))["items"]


async def test_an_instance_that_hangs(shards: Shards) -> None:
    """As one whose host lost its power: nobody waits for it for ever, and what can be asked elsewhere is."""
    router, (stopped, other) = shards.router, shards.groups["pods"]
    version = (await router.get(PODS, limit="1"))["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": version}

    async def watch(number: int, open_: asyncio.Semaphore) -> int:
        async with aiohttp.ClientSession() as session, session.get(router.url + PODS, params=query) as answer:
            assert answer.status == 200
            open_.release()
            with contextlib.suppress(aiohttp.ClientPayloadError):
                await answer.read()
            return number

    async def listed() -> int:
        async with aiohttp.ClientSession() as session, session.get(router.url + PODS) as answer:
            await answer.read()
            return answer.status

    open_ = asyncio.Semaphore(0)
    watching = [asyncio.create_task(watch(number, open_)) for number in range(12)]
    for _ in watching:
        await open_.acquire()
    halt(stopped.child.pid)
    try:
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*(listed() for _ in range(12))) == [200] * 12
            # Those that were at it go on elsewhere; the others never heard of it.
            ended, pending = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        assert ended
        assert pending
        halt(other.child.pid)
        try:
            async with asyncio.timeout(PATIENCE):
                assert await listed() == 503
        finally:
            other.child.send_signal(signal.SIGCONT)
    finally:
        stopped.child.send_signal(signal.SIGCONT)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def test_the_version_is_any_groups(shards: Shards) -> None:
    for one in shards.groups["pods"]:
        await one.kill()
    assert (await shards.router.get("/version"))["gitVersion"]
    assert (await shards.router.get("/clusters/alpha/version"))["gitVersion"]


async def test_clusters_in_logs_of_their_own(
    nats: str, members: Members, process: StartProcess, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    """By cluster: each is served whole below its name; what is of all clusters has to be asked there, and says so."""
    content = yaml.safe_load(members.kubeconfig.read_text())
    arguments = []
    for context in content["contexts"]:
        name = context["name"]
        await process(
            "produce", "--nats", nats, "--stream", f"LOG-{name}", "--kubeconfig", str(members.kubeconfig),
            "--context", name,
        )  # fmt: skip
        service = await start("--nats", nats, "--stream", f"LOG-{name}", command="serve")
        arguments += ["--group", f"{name}={service.url}"]
    router = await start(*arguments, command="route")
    await compare.settle(router.url, members.clusters)
    async with aiohttp.ClientSession() as session:
        async with session.get(router.url + PODS) as answer:
            status = await answer.json()
            assert (answer.status, status["reason"]) == (400, "BadRequest")
            assert "ask /clusters/<cluster>" in status["message"]
        async with session.get(f"{router.url}/clusters/nobody{PODS}") as answer:
            assert answer.status == 404
            assert "alpha, bravo" in (await answer.json())["message"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "--group"),
        (("--group", "pods"), "write NAME=URL"),
        (("--group", "pods=ftp://x"), "is no URL of an instance"),
        (("--group", "a=http://h:1", "--group", "a=http://h:2"), "is there twice"),
    ],
)
async def test_bad_groups_are_one_line(
    process: StartProcess, arguments: tuple[()] | tuple[str, str, str, str] | tuple[str, str], text: str
) -> None:
    failed = await process("route", *arguments)
    async with asyncio.timeout(PATIENCE):
        assert await failed.child.wait() == 2
    lines = failed.output().strip().splitlines()
    assert len(lines) == 1
    assert text in lines[0]
