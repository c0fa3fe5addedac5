"""Searching: what searches of many objects of many types cost, and how long they keep others waiting."""

from __future__ import annotations

import asyncio
import gc
import time
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from benchmarks import rig
from benchmarks.report import Report, percentile
from deltalog import ADDED, Delta, Log
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


_Query = dict[str, str]


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


def _fill(materializer: Materializer, objects: int) -> dict[str, str]:
    """Brings objects of all types of simulated clusters into the store; values that searches ask for."""
    store, index, found = materializer.store, 0, 0
    values: dict[str, str] = {}
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
            for tail in kept:
                one = normalize(b"{" + tail)
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
    return {**values, "image": "registry.example.io/agent:2.7.1", "objects": str(found)}


def _record(cluster: str, fact: Any) -> ControlRecord:
    return ControlRecord(cluster=cluster, time=0, producer="", epoch=0, fact=fact)


def _delta(cluster: str, info: ResourceType, one: Any) -> Delta:
    return Delta(
        type=ADDED,
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
    values = _fill(materializer, objects)
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
        while await asyncio.to_thread(pipe.recv) is not None:
            pipe.send((stalls.take(), time.process_time()))
    except EOFError:
        pass
    task.cancel()
    await runner.cleanup()


async def run(*, objects: int, rounds: int = _ROUNDS) -> Report:
    async with (
        rig.process(_serve, objects) as server,
        aiohttp.ClientSession(headers={"Accept-Encoding": "identity"}) as session,
    ):
        port, values, pods, types = await server.receive()
        title = f"{int(values['objects']):,} objects of {types} types, {pods:,} of them pods"
        columns = ("search", "found", "first ms", "p50 ms", "p99 ms", "first byte ms", "cpu ms", "stall ms", "busy ms")
        report = Report("search", title, columns)
        for name, query in SEARCHES:
            times, firsts, found = [], [], 0
            server.send("begin")
            _, before = await server.receive()
            for number in range(rounds + 1):
                asked = urlencode(query)
                for key, value in {**values, "round": str(number)}.items():
                    asked = asked.replace(quote(f"{{{key}}}"), quote(value))
                url = f"http://127.0.0.1:{port}{_PODS}?{asked}"
                begun = time.perf_counter()
                async with session.get(URL(url, encoded=True)) as answer:
                    firsts.append(time.perf_counter() - begun)
                    body = await answer.read()
                    times.append(time.perf_counter() - begun)
                assert answer.status == 200, body[:300]
                found = body.count(b'"metadata":{"resourceVersion":"abcdefgh.') - 1
            server.send("end")
            (stall, busy), used = await server.receive()
            ordered = sorted(times[1:])
            report.row(
                name,
                found,
                times[0] * 1e3,
                percentile(ordered, 0.5) * 1e3,
                percentile(ordered, 0.99) * 1e3,
                percentile(sorted(firsts), 0.5) * 1e3,
                (used - before) / (rounds + 1) * 1e3,
                stall * 1e3,
                busy * 1e3,
            )
        server.send(None)
    return report
