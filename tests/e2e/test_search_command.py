"""`kubebraid search` against a running service."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from kubebraid.command import search as command
from kubebraid.command.asking import Service as RunningService
from kubebraid.command.search import expressions_of
from kubebraid.command.settings import BadSetting
from query.search.expression import parse_expression
from query.service import QueryService
from tests import processes
from tests.e2e.conftest import Members, Service
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.query.scene import QUICK
from tests.query.test_collections import fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def search(service: Service, *arguments: str) -> tuple[int, str, str]:
    return await processes.run("search", *arguments, "--server", service.url)


async def test_by_words(shared_service: Service) -> None:
    code, out, err = await search(shared_service, "node-agent", "--kind", "pods", "--cluster", "alpha")
    assert code == 0, err
    head, *rows = out.splitlines()
    assert head.split() == ["CLUSTER", "NAMESPACE", "KIND", "NAME", "AGE"]
    assert rows
    assert all(line.split()[0] == "alpha" and line.split()[2] == "Pod" for line in rows)
    code, out, _ = await search(shared_service, "image=registry.example.io/agent:2.7.1", "-o", "json")
    items = json.loads(out)["items"]
    assert code == 0
    assert {"Pod", "DaemonSet"} <= {item["kind"] for item in items}
    assert all("registry.example.io/agent:2.7.1" in json.dumps(item["spec"]) for item in items)
    code, out, _ = await search(shared_service, "label=app=node-agent", "--kind", "DaemonSet", "-o", "wide")
    assert code == 0
    assert "app=node-agent" in out


async def test_what_an_owner_controls(shared_service: Service) -> None:
    deployment = (await shared_service.get("/apis/apps/v1/deployments"))["items"][0]["metadata"]["name"]
    code, out, err = await search(shared_service, f"owner={deployment}", "-o", "name")
    assert code == 0, err
    kinds = {line.split("/")[-2] for line in out.splitlines()}
    assert {"replicaset.apps", "pod"} <= kinds


async def test_nothing_is_found_and_nothing_can_be(shared_service: Service) -> None:
    assert (await search(shared_service, "there-is-nothing-called-so"))[:2] == (1, "")
    code, _, err = await search(shared_service, "x", "--kind", "nothings")
    assert (code, "--kind nothings" in err) == (2, True)
    code, _, err = await search(shared_service, "x", "-o", "xml")
    assert (code, "table, wide, name or json" in err) == (2, True)
    assert (await search(shared_service, "owner=x", "-w"))[0] == 2


async def test_a_watch_goes_on_until_it_is_interrupted(shared_service: Service, shared_members: Members) -> None:
    wanted = ("search", "name=-", "--kind", "pods", "-w", "-o", "name", "--cluster", "alpha")
    async with asyncio.timeout(PATIENCE), processes.piped(*wanted, "--server", shared_service.url) as process:
        assert (await process.stdout.readline()).startswith(b"alpha/")
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{shared_service.url}/metrics") as answer:
                    if "kubebraid_watches 1.0" in await answer.text():
                        break
                await asyncio.sleep(0.05)
        shared_members["alpha"].churn.step(50)
        while not (line := await process.stdout.readline()).startswith((b"ADDED", b"MODIFIED", b"DELETED")):
            assert line
        process.child.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("way", ["url", "kubeconfig"])
async def test_a_watch_goes_on_at_a_service_that_is_started_anew(tmp_path: Path, way: str) -> None:
    made = fleet()
    seen: list[str] = []
    come = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Enough(Exception):
        pass

    def show(event: dict[str, Any]) -> None:
        seen.append(event["object"]["metadata"]["name"])
        loop.call_soon_threadsafe(come.set)
        if len(seen) == 2:
            raise Enough

    port = free_port()

    async def written(name: str) -> None:
        """Written to a service that then ends."""
        service = QueryService(made.materializer, "test", timing=QUICK)
        async with TestServer(service.application(), port=port):
            while not service.watches.open:
                await asyncio.sleep(0.01)
            made.one("ships", name, namespace="web")
            made.tell()
            await come.wait()
            come.clear()
            service.close()

    url = f"http://127.0.0.1:{port}"
    running = RunningService(url)
    if way == "kubeconfig":
        cluster, context = {"server": url}, {"cluster": "all", "user": "me"}
        document = {
            "clusters": [{"name": "all", "cluster": cluster}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "all", "context": context}],
            "current-context": "all",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps({"kind": "Config", "apiVersion": "v1", **document}))
        running = RunningService(kubeconfig=str(tmp_path / "kubeconfig"))
    asking = command._Asking(running, {"groups": "*"}, pauses=(0.01, 0.05))
    async with asyncio.timeout(PATIENCE):
        watching = asyncio.create_task(asyncio.to_thread(asking.watch, f"abcdefgh.{made.index}", show))
        await written("third")
        await written("fourth")
        with pytest.raises(Enough):
            await watching
    assert seen == ["third", "fourth"]


async def test_a_watch_shows_what_is_there_first(shared_service: Service) -> None:
    wanted = ("search", "name=node-agent", "--kind", "pods", "-w", "-o", "json")
    async with asyncio.timeout(PATIENCE), processes.piped(*wanted, "--server", shared_service.url) as process:
        event = json.loads(await process.stdout.readline())
    assert (event["type"], event["object"]["kind"]) == ("ADDED", "Pod")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["web"], 1),
        (["image=nginx:1.25", 'a"b\\c'], 1),
        (["a=b"], 1),
        (["host=x", "label=a=b", "é", "name=y"], 2),
        (["one", "two", "image=z", "three"], 3),
    ],
)
async def test_every_word_makes_an_expression(words: list[str], number: int) -> None:
    filters, owners = expressions_of(words)
    assert all(parse_expression(one) for one in filters)
    assert (len(filters), owners) == (number, ())


async def test_words_that_are_none() -> None:
    assert expressions_of(["owner=web"]) == ([], ("web",))
    for word in ("", "image=", "owner="):
        with pytest.raises(BadSetting):
            expressions_of([word])


async def test_all_words_have_to_be_there(shared_service: Service) -> None:
    words = ("node-agent", "registry.example.io")
    _, one, _ = await search(shared_service, "node-agent", "--kind", "pods", "-o", "name")
    code, both, err = await search(shared_service, *words, "--kind", "pods", "-o", "name")
    assert code == 0, err
    assert set(both.splitlines()) <= set(one.splitlines())
    assert (await search(shared_service, "node-agent", "there-is-nothing-called-so", "--kind", "pods"))[0] == 1
    code, _, err = await search(shared_service, "one", "two", "three", "-w")
    assert (code, "too many words" in err) == (2, True)
