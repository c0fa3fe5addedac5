"""The manifests' arguments with real processes: three NATS servers, two producers, three serving instances."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.deploy.test_files import container, named
from tests.e2e.conftest import Comparison, Members, Starter, View, compare, members, process, start, view
from tests.nats_cluster import NatsCluster
from tests.patience import PATIENCE
from tests.ports import free_port

__all__ = ["compare", "members", "process", "start", "view"]

pytestmark = pytest.mark.usefixtures("limited")


class Manifested(NatsCluster):
    """The servers of the manifests, with their configuration but for addresses and directories."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, named("StatefulSet", "nats")["spec"]["replicas"])
        text = named("ConfigMap", "nats")["data"]["nats.conf"]
        routes = [free_port() for _ in self.servers]
        urls = json.dumps([f"nats://127.0.0.1:{port}" for port in routes])
        text = re.sub(r"routes: \[.*?\]", f"routes: {urls}", text, flags=re.DOTALL)
        for server, route in zip(self.servers, routes, strict=True):
            mine = {
                "0.0.0.0:4222": f"127.0.0.1:{server.port}",
                "0.0.0.0:8222": f"127.0.0.1:{free_port()}",
                "0.0.0.0:6222": f"127.0.0.1:{route}",
                "$SERVER_NAME": f"n{server.number}",
                "store_dir: /data": f'store_dir: "{server.directory}/js"',
                "/run/nats/nats.pid": f'"{server.directory}/nats.pid"',
            }
            own = text
            for theirs, ours in mine.items():
                assert theirs in own
                own = own.replace(theirs, ours)
            (server.directory / "nats.conf").write_text(own)


def arguments(name: str, nats: str, config: Path | None = None) -> list[str]:
    """A container's, with our addresses, without --listen and what guards that."""
    changed = []
    for one in container("Deployment", name)["args"][1:]:
        option, _, _ = one.partition("=")
        if option == "--nats":
            one = f"--nats={nats}"
        elif option == "--config":
            one = f"--config={config}"
        elif option in ("--listen", "--insecure-listen") or option.startswith(
            ("--tls-", "--client-", "--requestheader-")
        ):
            continue
        changed.append(one)
    return changed


async def test_three_two_three(
    tmp_path: Path, members: Members, start: Starter, compare: Comparison, view: type[View]
) -> None:
    config = tmp_path / "config.yaml"
    content = yaml.safe_load(named("ConfigMap", "kubebraid-produce")["data"]["config.yaml"])
    content["clusters"] = [{"kubeconfig": str(members.kubeconfig)}]
    del content["exclude"]
    config.write_text(yaml.safe_dump(content))
    async with Manifested(tmp_path) as nats:
        producing = [
            await start(*arguments("kubebraid-produce", nats.url, config), command="produce", ready=False)
            for _ in range(2)
        ]
        serving = await asyncio.gather(
            *(start(*arguments("kubebraid-serve", nats.url), command="serve") for _ in range(3))
        )
        await asyncio.gather(*(compare.settle(one.url, members.clusters, PATIENCE) for one in serving))
        for one in producing:
            await one.ready()
        await nats.healthy(("KUBEBRAID", "KV_kubebraid-leases", "KV_kubebraid-history"))
        lists = [(await one.get("/api/v1/pods"))["items"] for one in serving]
        assert len(lists[0]) == 120
        assert lists[0] == lists[1] == lists[2]

        # One of each is gone: the others do it all, and a client that had its watch at the one goes on at another.
        watcher = view(serving[0].url, "/api/v1/pods")
        await watcher.list()
        following = asyncio.create_task(watcher.follow_for_ever())
        await (await nats.leader("KUBEBRAID")).kill()
        await producing[0].kill()
        await serving[0].kill()
        watcher.url = serving[1].url
        async with aiohttp.ClientSession() as session:
            for cluster in members.clusters:
                await remove_a_pod(session, cluster)
        await asyncio.gather(*(compare.settle(one.url, members.clusters, PATIENCE) for one in serving[1:]))
        await watcher.equals(serving[2])
        assert len(watcher.objects) == 118
        assert not following.done(), following.exception()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def remove_a_pod(session: aiohttp.ClientSession, cluster: Any) -> None:
    async with session.get(f"{cluster.url}/api/v1/pods") as answer:
        metadata = (await answer.json())["items"][0]["metadata"]
    path = f"{cluster.url}/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    async with session.delete(path) as answer:
        assert answer.status == 200
