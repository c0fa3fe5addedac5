"""Searching: what searches of many objects of many types cost, and how long they keep others waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from benchmarks import rig
from benchmarks.report import Report, percentile
from deltalog import ADDED, MODIFIED, Delta, Log
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import ClusterRegistered, ControlRecord, TypeSynced
from deltalog.wire.resource_type import ResourceType
from materializer.materializer import Materializer
from producers.follow.normalize import Normalizer
from query.service import QueryService
from simulation import SimulatedCluster

_CLUSTERS = 10
# Objects of all types that a simulated cluster has for each pod, about.
_PER_POD = 2.67
_ROUNDS = 40
_PODS = "/api/v1/pods"
_COLLECTIONS = "/apis/clusterpedia.io/v1beta1/collectionresources"
_ANY, _WORKLOADS = f"{_COLLECTIONS}/any", f"{_COLLECTIONS}/workloads"
# Watchers of one collection, and changes that each is shown, one after the other.
_WATCHERS = 100
_CHANGES = 200
# Of how many objects of each type.
_CHANGED = 20
# What each object of an answer has once.
_OBJECT = b'"metadata":{"resourceVersion":"abcdefgh.'

_Query = dict[str, str]
# A type and an object of it, to be changed.
_Known = tuple[ResourceType, Any]


def _field(selector: str) -> _Query:
    return {"fieldSelector": selector, "limit": "50"}


def _filter(expression: str) -> _Query:
    return {"filter": expression, "limit": "50"}


# What is searched, by how; `{...}` stand for values that the objects have, `{round}` for another one each time: what is
# asked again is known.
SEARCHES: tuple[tuple[str, _Query], ...] = (
    ("a label", {"labelSelector": "team=payments", "limit": "500"}),
    ("owner by name, 1 hop", {"ownerName": "{app}", "ownerGR": "deployments.apps", "ownerSeniority": "1"}),
    ("owner by uid, 1 hop", {"ownerUID": "{uid}", "ownerSeniority": "1"}),
    ("fuzzy name", {"fuzzyName": "gateway-", "limit": "500"}),
    ("orderby created_at desc, limit 50", {"orderby": "created_at desc", "limit": "50"}),
    ("orderby namespace,name desc, limit 50", {"orderby": "namespace,name desc", "limit": "50"}),
    ("any field, a text few have", _field("spec.containers[].image={image},metadata.name!={round}")),
    ("any field, a number", _field("spec.terminationGracePeriodSeconds>30,metadata.name!={round}")),
    ("... asked again", _field("spec.terminationGracePeriodSeconds>30")),
    ("filter", _filter("object.spec.containers.size() > 2 && object.spec.nodeName != '{round}'")),
    ("... asked again", _filter("object.spec.containers.size() > 2 && object.spec.nodeName != ''")),
    ("... of all of spec", _filter("object.spec.containers.size() > 2 && object.spec != {round}")),
    ("... of one cluster", _filter('object.spec.containers.size() > 2 && cluster == "bench-3" && {round} >= 0')),
    ("... of one label", _filter('object.metadata.labels.team == "payments" && object.spec.priority != {round}')),
    ("... by names alone", _filter('object.metadata.name.startsWith("a{round}")')),
)

# The same of several types: by what name, path, how, and how often at most.
COLLECTED: tuple[tuple[str, str, _Query, int], ...] = (
    ("collection any, limit 50", _ANY, {"groups": "*", "limit": "50"}, _ROUNDS),
    ("collection workloads, limit 50", _WORKLOADS, {"limit": "50"}, _ROUNDS),
    ("... orderby created_at desc", _WORKLOADS, {"orderby": "created_at desc", "limit": "50"}, _ROUNDS),
    ("any, orderby created_at desc, limit 50", _ANY, {"groups": "*", "orderby": "created_at desc", "limit": "50"}, 10),
    ("any, a label, limit 50", _ANY, {"groups": "*", "labelSelector": "team=payments", "limit": "50"}, _ROUNDS),
    ("any, any field, limit 50", _ANY, {"groups": "*", "fieldSelector": "spec.replicas>{round}", "limit": "50"}, 5),
    ("collection workloads, whole", _WORKLOADS, {}, 10),
    ("collection any, whole", _ANY, {"groups": "*"}, 3),
)


def _fill(materializer: Materializer, objects: int) -> tuple[dict[str, str], list[_Known]]:
    """Brings objects of all types of simulated clusters into the store.

    Returns values that searches ask for, and objects of all types, the first one of each type first.
    """
    store, index, found = materializer.store, 0, 0
    values: dict[str, str] = {}
    known: dict[GroupResource, list[_Known]] = {}
    for number in range(_CLUSTERS):
        name = f"bench-{number + 1}"
        simulated = SimulatedCluster(name, seed=number, pods=int(objects / _CLUSTERS / _PER_POD))
        index += 1
        store.apply_control(_record(name, ClusterRegistered(version={"major": "1"})), index, 0)
        for (group, resource), collection in simulated.storage.collections.items():
            kept = [stored.tail for stored in collection.in_order()]
            if not kept:
                continue
            kind = resource.capitalize().removesuffix("s")
            info = ResourceType(
                group=group,
                resource=resource,
                version="v1",
                kind=kind,
                namespaced=resource not in ("nodes", "namespaces"),
            )
            index += 1
            store.apply_control(_record(name, info), index, 0)
            normalize = Normalizer(name, info)
            for at, tail in enumerate(kept):
                one = normalize(b"{" + tail)
                if not number and at < _CHANGED:
                    known.setdefault(info.group_resource, []).append((info, one))
                if (group, resource) == ("apps", "deployments"):
                    values |= {"app": one.name, "uid": one.uid}
                index += 1
                store.apply_delta(_delta(name, info, one), index, time.time_ns())
                found += 1
            index += 1
            store.apply_control(_record(name, TypeSynced(resource=info.group_resource, version="1")), index, 0)
    store.pack()
    store.finish_loading(0)
    store.window.open(index)
    materializer.ready.set()
    chosen = [some[at] for at in range(_CHANGED) for some in known.values() if at < len(some)]
    return {**values, "image": "registry.example.io/agent:2.7.1", "objects": str(found)}, chosen


def _record(cluster: str, fact: Any) -> ControlRecord:
    return ControlRecord(cluster=cluster, time=0, producer="", epoch=0, fact=fact)


def _delta(cluster: str, info: ResourceType, one: Any, type_: str = ADDED) -> Delta:
    return Delta(
        type=type_,
        cluster=cluster,
        group=info.group,
        version=info.version,
        resource=info.resource,
        namespace=one.namespace,
        name=one.name,
        uid=one.uid,
        member_version=one.member_version,
        time=0,
        producer="",
        epoch=0,
        labels=one.labels,
        fields=one.fields,
        controller_uid=one.controller_uid,
        created=one.created,
        version_offset=one.version_offset,
        metadata_end=one.metadata_end,
        object=one.object,
    )


class _Stalls:
    """How long the loop let a task wait that is due each millisecond, and how much it worked meanwhile.

    On a machine that others use too, only the latter is the program's own.
    """

    def __init__(self) -> None:
        self.longest = self.busiest = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due, worked = loop.time() + 0.001, time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now, work = loop.time(), time.thread_time()
            self.longest, self.busiest = max(self.longest, now - due), max(self.busiest, work - worked)
            due, worked = now + 0.001, work

    def take(self) -> tuple[float, float]:
        found = self.longest, self.busiest
        self.longest = self.busiest = 0.0
        return found


async def _serve(pipe: Pipe, objects: int) -> None:
    log = Log.unreached("nats://127.0.0.1:1", "bench", created="2026", prefix="abcdefgh", tombstone_ttl=60)
    materializer = Materializer(log)
    values, known = _fill(materializer, objects)
    gc.collect()
    gc.freeze()
    service = QueryService(materializer, "bench")
    runner = web.AppRunner(service.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stalls = _Stalls()
    task = asyncio.create_task(stalls.run())
    pods = materializer.store.types[GroupResource("", "pods")]
    pipe.send((runner.addresses[0][1], values, len(pods), len(materializer.store.types)))
    try:
        while (asked := await asyncio.to_thread(pipe.recv)) is not None:
            if asked == "change":
                info, one = known[materializer.store.applied % len(known)]
                index = materializer.store.applied + 1
                materializer.store.apply_delta(_delta("bench-1", info, one, MODIFIED), index, time.time_ns())
                # As behind messages of a log.
                materializer._waiting.schedule_flush()
            else:
                pipe.send((stalls.take(), time.process_time()))
    except EOFError:
        pass
    task.cancel()
    await runner.cleanup()


class _Searcher:
    """Asks a server that is measured, and reports what that took."""

    def __init__(self, server: rig.Process, session: aiohttp.ClientSession, port: int, report: Report) -> None:
        self._server = server
        self._session = session
        self._root = f"http://127.0.0.1:{port}"
        self._report = report

    async def search(self, name: str, path: str, query: _Query, values: dict[str, str], rounds: int) -> None:
        """A row of a search that is asked for so often, and once before."""
        times, firsts, found = [], [], 0
        before = await self._usage()
        for number in range(rounds + 1):
            asked = urlencode(query)
            for key, value in {**values, "round": str(number)}.items():
                asked = asked.replace(quote(f"{{{key}}}"), quote(value))
            begun = time.perf_counter()
            async with self._session.get(URL(f"{self._root}{path}?{asked}", encoded=True)) as answer:
                firsts.append(time.perf_counter() - begun)
                assert answer.status == 200, await answer.text()
                found, end = 0, b""
                async for chunk in answer.content.iter_any():
                    found += (end + chunk).count(_OBJECT)
                    end = (end + chunk)[1 - len(_OBJECT) :]
                times.append(time.perf_counter() - begun)
        # A list of one type has a version beside those of its objects.
        found -= path == _PODS
        await self._row(name, found, times[0], times[1:], firsts, before, rounds + 1)

    async def watch(self, name: str, path: str, query: _Query) -> None:
        """Rows of a watch: until the state of all types was sent to one, and each change to many."""
        initial = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        asked = urlencode({**query, **initial, "allowWatchBookmarks": "true"})
        found, before = 0, await self._usage()
        begun = time.perf_counter()
        async with self._session.get(f"{self._root}{path}?{asked}") as answer:
            firsts = [time.perf_counter() - begun]
            async for line in answer.content:
                if line.startswith(b'{"type":"BOOKMARK"'):
                    break
                found += 1
            whole = time.perf_counter() - begun
        await self._row(f"{name}: the state, to one", found, whole, [], firsts, before, 1)
        asked = urlencode({**query, "watch": "1", "resourceVersion": "0", "timeoutSeconds": "3600"})
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for _ in range(_WATCHERS):
                answer = await stack.enter_async_context(self._session.get(f"{self._root}{path}?{asked}"))
                assert answer.status == 200
                streams.append(answer.content)
            # Whoever is asked for no state is sent a head, and then nothing.
            await asyncio.sleep(0.5)
            before, times = await self._usage(), []
            for _ in range(_CHANGES):
                begun = time.perf_counter()
                self._server.send("change")
                shown = await asyncio.gather(*(stream.readline() for stream in streams))
                times.append(time.perf_counter() - begun)
                if len(set(shown)) != 1:
                    self._report.failures.append(f"{name}: watchers were shown different changes")
            await self._row(f"{name}: a change, to {_WATCHERS}", _CHANGES, times[0], times[1:], times, before, _CHANGES)

    async def _usage(self) -> float:
        """CPU seconds of the server so far; how long its loop was held before is forgotten."""
        self._server.send("begin")
        return float((await self._server.receive())[1])

    async def _row(
        self,
        name: str,
        found: int,
        first: float,
        times: Sequence[float],
        firsts: Sequence[float],
        before: float,
        asked: int,
    ) -> None:
        self._server.send("end")
        (stall, busy), used = await self._server.receive()
        ordered = sorted(times)
        self._report.row(
            name,
            found,
            first * 1e3,
            percentile(ordered, 0.5) * 1e3 if ordered else None,
            percentile(ordered, 0.99) * 1e3 if ordered else None,
            percentile(sorted(firsts), 0.5) * 1e3,
            (used - before) / asked * 1e3,
            stall * 1e3,
            busy * 1e3,
        )


async def run(*, objects: int, rounds: int = _ROUNDS) -> Report:
    async with (
        rig.process(_serve, objects) as server,
        aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        ) as session,
    ):
        port, values, pods, types = await server.receive()
        title = f"{int(values['objects']):,} objects of {types} types, {pods:,} of them pods"
        columns = ("search", "found", "first ms", "p50 ms", "p99 ms", "first byte ms", "cpu ms", "stall ms", "busy ms")
        report = Report("search", title, columns)
        searcher = _Searcher(server, session, port, report)
        for name, query in SEARCHES:
            await searcher.search(name, _PODS, query, values, rounds)
        for name, path, query, most in COLLECTED:
            await searcher.search(name, path, query, values, min(rounds, most))
        await searcher.watch("watch of any", _ANY, {"groups": "*"})
        name, longest = max(((str(row[0]), float(row[-1] or 0)) for row in report.rows), key=lambda one: one[1])
        report.notes.append(f"the loop worked for {longest:.0f} ms at one go at most, of {name} (goal: below 50 ms)")
        server.send(None)
    return report
