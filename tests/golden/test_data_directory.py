"""The data directory of an earlier version (README.md) is taken up: the same prefix, and watches from before go on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Service, View, start  # noqa: F401 - a fixture
from tests.golden.lines import DIRECTORY
from tests.patience import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.processes

FROM_SNAPSHOT = "going on from a snapshot"
IGNORED = "the snapshot is ignored"
ANOTHER_VERSION = "another version of kubebraid wrote it"
SERVED = json.loads((DIRECTORY / "data-a5030ca.json").read_text())
BEFORE, AFTER = SERVED["before"], SERVED["after"]

Key = tuple[str, str, str]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory, unpacked; the snapshot of another shape lies beside it."""
    with tarfile.open(DIRECTORY / "data-a5030ca.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "data"


def stub(cluster: str, namespace: str, name: str, uid: str, version: str, *_: str) -> dict[str, Any]:
    """An object as far as it was written down."""
    annotations = {"shadow.clusterpedia.io/cluster-name": cluster}
    metadata = {"name": name, "uid": uid, "resourceVersion": version, "annotations": annotations}
    return {"metadata": metadata | ({"namespace": namespace} if namespace else {})}


def stubs(told: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    return {View.key(item): item for item in (stub(*one) for one in told["objects"])}


def identities(objects: dict[Key, dict[str, Any]]) -> dict[Key, tuple[str, str]]:
    return {key: (one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for key, one in objects.items()}


def index_of(version: str) -> int:
    return int(version.split(".")[1])


def watcher(service: Service, path: str, version: str, objects: dict[Key, dict[str, Any]]) -> View:
    """A client that holds these objects at a version."""
    view = View(service.url, path)
    view.objects, view.version, view.index = dict(objects), version, index_of(version)
    return view


async def comes_to(view: View, expected: dict[Key, tuple[str, str]]) -> None:
    """The watch goes on from the client's version, and brings it to these objects, each event checked by the view."""
    following = asyncio.create_task(view.follow())
    try:
        async with asyncio.timeout(PATIENCE):
            while identities(view.objects) != expected:
                assert not following.done(), (following.exception(), identities(view.objects))
                await asyncio.sleep(0.02)
    finally:
        following.cancel()
        await asyncio.wait((following,))


async def lists_are_as_they_were(service: Service, told: dict[str, Any]) -> None:
    """To the byte of each object, but for white space."""
    for one in told.values():
        document = await service.get(one["path"])
        prefix, index = document["metadata"]["resourceVersion"].split(".")
        assert prefix == SERVED["prefix"]
        assert int(index) >= index_of(one["resourceVersion"])
        found = []
        for item in document["items"]:
            metadata = item["metadata"]
            # The items of a list said of what kind they are, as they now do not.
            of_kind = {"kind": document["kind"].removesuffix("List"), "apiVersion": document["apiVersion"]}
            item = of_kind | item
            digest = hashlib.sha256(json.dumps(item, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
            version = metadata["resourceVersion"]
            found.append([*View.key(item), metadata["uid"], version, digest])
        assert sorted(found) == one["objects"]


async def watches_go_on(service: Service) -> None:
    """From the lists of before, and from each event that a watch told."""
    for title, one in BEFORE.items():
        view = watcher(service, one["path"], one["resourceVersion"], stubs(one))
        await comes_to(view, identities(stubs(AFTER[title])))
    pods = BEFORE["pods"]
    held = stubs(pods)
    expected = identities(stubs(AFTER["pods"]))
    assert {event[0] for event in SERVED["pod_events"]} == {"ADDED", "MODIFIED", "DELETED"}
    for kind, *told in SERVED["pod_events"]:
        item = stub(*told)
        held.pop(View.key(item), None)
        if kind != "DELETED":
            held[View.key(item)] = item
        await comes_to(watcher(service, pods["path"], item["metadata"]["resourceVersion"], held), expected)


@pytest.mark.parametrize("snapshot", ["as it was left", "of another shape", "none"])
async def test_served_as_before(directory: Path, start: Any, snapshot: str) -> None:  # noqa: F811
    """`serve` on it: the same lists, and watches from before go on without a 410, whatever becomes of the snapshot."""
    file = directory / "snapshot" / "KUBEBRAID.snapshot"
    if snapshot == "of another shape":
        shutil.copy(directory.parent / "of-another-shape.snapshot", file)
    elif snapshot == "none":
        file.unlink()
    async with EmbeddedBroker(directory) as broker:
        service = await start("--nats", broker.url, "--snapshot", str(file.parent), command="serve", ready=False)
        # Without producers all clusters stay stale.
        await service.ready(stale=0)
        await lists_are_as_they_were(service, AFTER)
        await watches_go_on(service)
        assert sorted(one["name"] for one in (await service.get("/clusters"))["clusters"]) == SERVED["clusters"]
        output = service.output()
        if snapshot == "as it was left":
            # Which of the two, the version says that runs: the shape of what it keeps may be another one.
            assert output.count(FROM_SNAPSHOT) + output.count(IGNORED) == 1
            assert output.count(IGNORED) == output.count(ANOTHER_VERSION)
        else:
            assert FROM_SNAPSHOT not in output
            assert output.count(IGNORED) == output.count(ANOTHER_VERSION) == (snapshot == "of another shape")
        # What it leaves behind is its own snapshot, from which it goes on.
        await service.stop()
        before = service.output().count(FROM_SNAPSHOT)
        await service.start()
        await service.ready(stale=0)
        assert service.output().count(FROM_SNAPSHOT) == before + 1
        await lists_are_as_they_were(service, AFTER)
        await watches_go_on(service)


# -- produced ----------------------------------------------------------------------------------------------------------


class Member:
    """A member cluster that has pods, those that it is given, and nothing else."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items
        self.port = free_port()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
        runner.app.router.add_get("/{path:.*}", self._answer)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        found = {
            "/readyz": {},
            "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {
                "kind": "APIResourceList",
                "groupVersion": "v1",
                "resources": [
                    {
                        "name": "pods",
                        "singularName": "pod",
                        "namespaced": True,
                        "kind": "Pod",
                        "verbs": ["get", "list", "watch"],
                    }
                ],
            },
        }.get(request.path)
        if found is not None:
            return web.json_response(found)
        if request.path != "/api/v1/pods":
            return web.json_response({"kind": "Status", "status": "Failure", "code": 404}, status=404)
        if "watch" in request.query:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await asyncio.Event().wait()
        version = str(max(int(item["metadata"]["resourceVersion"]) for item in self.items) + 10)
        listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}}
        return web.json_response({**listed, "items": self.items})


def at_home(item: dict[str, Any]) -> dict[str, Any]:
    """An object as its cluster serves it."""
    item = json.loads(json.dumps(item))
    metadata = item["metadata"]
    metadata["resourceVersion"] = metadata["resourceVersion"].split(".", 2)[2]
    del metadata["annotations"]["shadow.clusterpedia.io/cluster-name"]
    return item


def write_kubeconfig(file: Path, members: dict[str, Member]) -> None:
    named = members.items()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": f"http://127.0.0.1:{member.port}"}} for name, member in named
        ],
        "users": [{"name": "reader", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "reader"}} for name in members],
    }
    file.write_text(yaml.safe_dump(document))


async def test_produced_on_as_before(directory: Path, start: Any, tmp_path: Path) -> None:  # noqa: F811
    """`up` on it: of what the clusters have now, only that is appended which is another state than the log has."""
    path = BEFORE["pods"]["path"]

    def key(item: dict[str, Any]) -> Key:
        return "alpha", item["metadata"]["namespace"], item["metadata"]["name"]

    members = {name: Member([]) for name in SERVED["clusters"]}
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, members)
    producer = (directory / "producer-id").read_text()
    # Nothing answers there: what is served is what was.
    service = await start("--kubeconfig", str(kubeconfig), "--data", str(directory), ready=False)
    await service.ready(stale=0)
    await lists_are_as_they_were(service, AFTER)
    await watches_go_on(service)
    items = (await service.get(path))["items"]
    for name, member in members.items():
        member.items = [at_home(item) for item in items if View.key(item)[0] == name]
    mine = members["alpha"].items
    newest = max(int(item["metadata"]["resourceVersion"]) for item in mine)
    # One that clients of before knew already, and that had changed since.
    first, last = identities(stubs(BEFORE["pods"])), identities(stubs(AFTER["pods"]))
    changed = next(item for item in mine if key(item) in first and first[key(item)][1] != last[key(item)][1])
    assert first[key(changed)][0] == last[key(changed)][0]
    gone = next(item for item in reversed(mine) if item is not changed)
    mine.remove(gone)
    changed["metadata"]["resourceVersion"] = str(newest + 1)
    changed["metadata"]["labels"]["changed"] = "since"
    added = json.loads(json.dumps(changed))
    added["metadata"] |= {"name": "added-since", "uid": "added-since", "resourceVersion": str(newest + 2)}
    mine.append(added)

    told: list[tuple[str, Key]] = []
    view = watcher(service, path, AFTER["pods"]["resourceVersion"], stubs(AFTER["pods"]))
    take_in = view.take_in

    def noted(event: dict[str, Any]) -> None:
        take_in(event)
        if event["type"] != "BOOKMARK":
            told.append((event["type"], View.key(event["object"])))

    view.take_in = noted  # type: ignore[method-assign]
    following = asyncio.create_task(view.follow())
    counts = {
        name: {"added": 0, "modified": 0, "deleted": 0, "suppressed": len(member.items)}
        for name, member in members.items()
    }
    counts["alpha"] = {"added": 1, "modified": 1, "deleted": 1, "suppressed": len(mine) - 2}
    async with contextlib.AsyncExitStack() as stack:
        for member in members.values():
            await stack.enter_async_context(member.up())
        async with asyncio.timeout(PATIENCE):
            while await appended(service) != counts or len(told) < 3:
                assert not following.done(), following.exception()
                await asyncio.sleep(0.05)

    assert sorted(told) == sorted([("MODIFIED", key(changed)), ("DELETED", key(gone)), ("ADDED", key(added))])
    fresh = View(service.url, path)
    await fresh.list()
    assert fresh.version.startswith(SERVED["prefix"] + ".")
    now = identities(fresh.objects)
    assert now.keys() - last.keys() == {key(added)}
    assert {one for one in last if now.get(one) != last[one]} == {key(changed), key(gone)}
    assert (directory / "producer-id").read_text() == producer
    following.cancel()
    await asyncio.wait((following,))
    # Who reads old and new messages from the log alone can tell clients of before what happened.
    await service.stop()
    (directory / "snapshot" / "KUBEBRAID.snapshot").unlink()
    await service.start()
    await service.ready()
    await comes_to(watcher(service, path, BEFORE["pods"]["resourceVersion"], stubs(BEFORE["pods"])), now)


async def appended(service: Service) -> dict[str, dict[str, int]]:
    """What became of the pods that the producer was told of, by cluster."""
    found: dict[str, dict[str, int]] = {}
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as answer:
        text = await answer.text()
    pattern = r'kubebraid_producer_deltas_total{cluster="(\w+)",outcome="(\w+)",type="pods"} (\d+)'
    for cluster, outcome, count in re.findall(pattern, text):
        if outcome in ("added", "modified", "deleted", "suppressed"):
            found.setdefault(cluster, {})[outcome] = int(count)
    return found
