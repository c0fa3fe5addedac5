"""All data of three NATS servers lost while everything else runs on; a leader lost under watchers."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Comparison, Members, Starter, View
from tests.nats_cluster import NatsCluster
from tests.patience import PATIENCE

PODS = "/api/v1/pods"
pytestmark = pytest.mark.usefixtures("limited")

# A watch loop with the `kubernetes` client, as its documents have it: lists again at 410 only. For each line that it is
# given it prints what it has seen and holds.
LOOP = """
import json, sys, threading
import kubernetes

api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(kubernetes.client.Configuration(host=sys.argv[1])))
held, told = {}, {"lists": 0, "expired": 0, "other": [], "prefixes": []}

def follow():
    version = ""
    while True:
        try:
            if not version:
                found = api.list_pod_for_all_namespaces(_request_timeout=20)
                version = found.metadata.resource_version
                told["lists"] += 1
                told["prefixes"].append(version.split(".")[0])
                held.clear()
                for item in found.items:
                    held[item.metadata.uid] = item.metadata.resource_version
            watch = kubernetes.watch.Watch()
            given = {"resource_version": version, "_request_timeout": (5, 60)}
            for event in watch.stream(api.list_pod_for_all_namespaces, **given):
                one = event["object"].metadata
                version = one.resource_version
                if event["type"] == "DELETED":
                    held.pop(one.uid, None)
                else:
                    held[one.uid] = version
        except kubernetes.client.ApiException as problem:
            if problem.status == 410:
                told["expired"] += 1
                version = ""
            elif problem.status in (429, 503):
                threading.Event().wait(1)
            else:
                told["other"].append(problem.status)
        except Exception as problem:
            told["other"].append(repr(problem))
            threading.Event().wait(1)

threading.Thread(target=follow, daemon=True).start()
for _ in sys.stdin:
    print(json.dumps({"held": held, **told}), flush=True)
"""


async def told_by(loop: asyncio.subprocess.Process) -> dict[str, Any]:
    """What the loop holds and has met with."""
    assert loop.stdin is not None
    assert loop.stdout is not None
    loop.stdin.write(b"\n")
    found: dict[str, Any] = json.loads(await loop.stdout.readline())
    return found


async def loop_of(url: str) -> asyncio.subprocess.Process:
    """A process that lists and watches; it has its first list: loading the client takes long on a busy machine."""
    pipe = asyncio.subprocess.PIPE
    loop = await asyncio.create_subprocess_exec(sys.executable, "-c", LOOP, url, stdin=pipe, stdout=pipe, limit=2**20)
    async with asyncio.timeout(PATIENCE):
        while not (await told_by(loop))["lists"]:
            await asyncio.sleep(0.1)
    return loop


async def prefix(service: Any) -> str:
    """The name of the history that is served; waits while one is being read."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{service.url}/clusters") as answer:
                if answer.status == 200:
                    return str((await answer.json())["prefix"])
                assert answer.status == 429, await answer.text()
            await asyncio.sleep(0.1)


async def touch(cluster: Any, value: str) -> None:
    """Changes each pod of a cluster."""
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + PODS) as answer:
            pods = (await answer.json())["items"]
        for pod in pods:
            path = f"{cluster.url}/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            headers = {"Content-Type": "application/merge-patch+json"}
            patch = {"metadata": {"annotations": {"example.com/turn": value}}}
            async with session.patch(path, json=patch, headers=headers) as answer:
                assert answer.status == 200


async def test_all_data_lost(
    tmp_path: Path, members: Members, start: Starter, compare: Comparison, view: type[View]
) -> None:
    async with NatsCluster(tmp_path) as nats:
        serving = []
        given = ("--nats", nats.url, "--replicas", "3")
        await start(*given, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
        for _ in range(2):
            serving.append(await start(*given, command="serve"))
        await asyncio.gather(*(compare.settle(one.url, members.clusters, PATIENCE) for one in serving))
        before = await prefix(serving[0])
        following = await loop_of(serving[0].url)
        raw = view(serving[1].url, PODS)
        await raw.list()
        watching = asyncio.create_task(raw.follow())
        await touch(members["alpha"], "before")
        await compare.settle(serving[1].url, members.clusters, PATIENCE)
        await raw.equals(serving[1])

        for server in nats.servers:
            await server.kill()
            shutil.rmtree(server.directory / "js")
        assert len((await serving[0].get(PODS))["items"]) == 120, "what it has is served"
        for server in nats.servers:
            await server.start()
        async with asyncio.timeout(PATIENCE):
            while before in [await prefix(one) for one in serving]:
                await asyncio.sleep(0.2)
        await asyncio.gather(*(compare.settle(one.url, members.clusters, PATIENCE) for one in serving))
        assert await prefix(serving[0]) == await prefix(serving[1])
        # And that is all there is to say of it.
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            for one in serving:
                while True:
                    async with session.get(f"{one.url}/metrics") as answer:
                        if "kubebraid_log_reachable 1.0" in await answer.text():
                            break
                    await asyncio.sleep(0.2)
        info = await nats.ask("$JS.API.STREAM.INFO.KUBEBRAID")
        assert info["config"]["num_replicas"] == 3

        # The raw watch ended with 410, and no version of before is good any more.
        with pytest.raises(AssertionError, match="'type': 'ERROR'"):
            await asyncio.wait_for(watching, PATIENCE)
        async with aiohttp.ClientSession() as session:
            async with session.get(serving[0].url + PODS, params={"resourceVersion": raw.version}) as answer:
                assert answer.status == 410

        await touch(members["bravo"], "after")
        await asyncio.gather(*(compare.settle(one.url, members.clusters, PATIENCE) for one in serving))
        expected = {
            one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in (await serving[0].get(PODS))["items"]
        }
        told: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE):
            while told.get("held") != expected:
                told = await told_by(following)
        following.kill()
        await following.wait()
        assert told["expired"] == 1
        assert told["lists"] == 2
        assert told["prefixes"] == [before, await prefix(serving[0])]
        assert not told["other"]


@pytest.mark.parametrize("how", ["kill", "stop", "stepdown"])
async def test_a_leader_lost(
    how: str, tmp_path: Path, members: Members, start: Starter, compare: Comparison, view: type[View]
) -> None:
    """Producing goes on, and a watcher sees each change once, in order."""
    async with NatsCluster(tmp_path) as nats:
        given = ("--nats", nats.url, "--replicas", "3")
        await start(*given, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
        serving = await start(*given, command="serve")
        await compare.settle(serving.url, members.clusters, PATIENCE)
        await nats.healthy(("KUBEBRAID", "KV_kubebraid-leases"))
        before = await prefix(serving)
        watcher = view(serving.url, PODS)
        await watcher.list()
        following = asyncio.create_task(watcher.follow())
        changing = asyncio.create_task(touch(members["alpha"], "during"))
        leader = await nats.leader("KUBEBRAID")
        if how == "kill":
            await leader.kill()
        elif how == "stop":
            leader.stop()
        else:
            await nats.ask("$JS.API.STREAM.LEADER.STEPDOWN.KUBEBRAID")
        await changing
        await compare.settle(serving.url, members.clusters, PATIENCE)
        await touch(members["bravo"], "without")
        await compare.settle(serving.url, members.clusters, PATIENCE)
        await watcher.equals(serving)
        if how == "kill":
            await leader.start()
        elif how == "stop":
            leader.go_on()
        await touch(members["alpha"], "again")
        await compare.settle(serving.url, members.clusters, PATIENCE)
        await watcher.equals(serving)
        assert not following.done(), "one watch saw it all"
        assert watcher.events == 180
        assert await prefix(serving) == before
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
