"""LIST: the whole path from the stored log to an HTTP client, against a bare join of the same bytes.

Subject and baseline are processes of their own on uvloop and aiohttp; they are asked in turn. With `before`, so is the
service of another release, on the same log.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from benchmarks import bare, rig
from benchmarks.client import TABLE, Client
from benchmarks.content import Filled, fill
from benchmarks.report import Report, median
from deltalog import open_log
from simulation.content import Variety

_PODS = "/api/v1/pods"
_PAGE = 500


class _ListMeta(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] = []


class _Request(NamedTuple):
    """What is measured: a path of a server, and the request whose time it is compared with."""

    title: str
    port: int
    pid: int
    path: str
    accept: str
    baseline: str | None
    encoding: str = "identity"


class _Paths(NamedTuple):
    """What is asked for beside all pods: some by label, those of a node, of an owner, and one."""

    some: str
    node: str
    owner: str
    one: str


class _Measured:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.size = 0
        # Of the round that warms up.
        self.first = 0.0


def _selector(filled: Filled) -> tuple[str, int]:
    """A selector of about one pod in a hundred, by as many values of a label as it takes, and how many have them."""
    counts = Counter(pod.content.labels.get("app", "none") for pod in filled.pods)
    values: list[str] = []
    selected = 0
    for value, count in counts.most_common():
        if selected + count <= max(len(filled.pods) / 100, min(counts.values())):
            values.append(value)
            selected += count
    return f"app in ({','.join(values)})", selected


def _pieces(body: bytes) -> list[bytes]:
    """What a list's bytes are the join of: all up to its items, items and commas in turn, and the rest."""
    items = [bytes(item) for item in msgspec.json.decode(body, type=_List).items]
    begin = body.index(b'"items":[') + len(b'"items":[')
    end = begin + len(b",".join(items))
    separated = [piece for item in items for piece in (item, b",")]
    return [body[:begin], *separated[:-1], body[end:]]


def _walk(client: Client, path: str, accept: str) -> tuple[float, int]:
    """Time and bytes of a whole list in pages."""
    seconds, size, token = 0.0, 0, ""
    while True:
        answer = client.get(f"{path}?limit={_PAGE}" + (f"&continue={quote(token)}" if token else ""), accept)
        seconds += answer.seconds
        size += answer.size
        # The list's metadata stands before its items: the rest of the body is not needed to go on.
        begin = answer.body.index(b'"metadata":') + len(b'"metadata":')
        metadata = answer.body[begin : answer.body.index(b"}", begin) + 1]
        token = msgspec.json.decode(metadata, type=_ListMeta).token
        if not token:
            return seconds, size


def _measure(requests: list[_Request], rounds: int) -> dict[str, _Measured]:
    measured = {request.title: _Measured() for request in requests}
    with contextlib.ExitStack() as stack:
        clients = {port: stack.enter_context(Client(port)) for port in {request.port for request in requests}}
        # The first round warms up and is not counted.
        for number, request in itertools.product(range(rounds + 1), requests):
            client, found = clients[request.port], measured[request.title]
            cpu = rig.cpu_seconds(request.pid)
            if request.title.startswith(f"JSON, {_PAGE} a page"):
                seconds, found.size = _walk(client, request.path, request.accept)
            else:
                answer = client.get(request.path, request.accept, encoding=request.encoding)
                if answer.status != 200:
                    raise RuntimeError(f"{request.path}: {answer.status} {answer.body!r}")
                seconds, found.size = answer.seconds, answer.size
            if not number:
                found.first = seconds
            else:
                found.seconds.append(seconds)
                found.cpu.append(rig.cpu_seconds(request.pid) - cpu)
    return measured


def _requests(served: rig.Service, paths: _Paths, suffix: str = "") -> list[_Request]:
    """What is asked of a service; `suffix`: of the titles."""
    json, gzip, of = "application/json", "gzip", (served.port, served.pid)
    return [
        _Request(f"JSON{suffix}", *of, _PODS, json, "bare join, all"),
        _Request(f"gzip{suffix}", *of, _PODS, json, "bare join, all", gzip),
        _Request(f"Table{suffix}", *of, _PODS, TABLE, "bare join, all"),
        _Request(f"JSON, {_PAGE} a page{suffix}", *of, _PODS, json, "bare join, all"),
        _Request(f"JSON, labels of 1 %{suffix}", *of, paths.some, json, "bare join, 1 %"),
        _Request(f"JSON, of one node{suffix}", *of, paths.node, json, "bare join, 1 %"),
        _Request(f"JSON, of one owner{suffix}", *of, paths.owner, json, "bare join, 1 %"),
        _Request(f"GET of one{suffix}", *of, paths.one, json, "bare GET"),
    ]


def _paths(filled: Filled, selector: str) -> _Paths:
    one = filled.pods[len(filled.pods) // 2]
    node = one.content.fields["spec.nodeName"]
    return _Paths(
        some=f"{_PODS}?labelSelector={quote(selector)}",
        node=f"{_PODS}?fieldSelector={quote(f'spec.nodeName={node}')}",
        owner=f"{_PODS}?ownerUID={one.content.controller_uid}",
        one=f"/clusters/{one.cluster}/api/v1/namespaces/{one.content.namespace}/pods/{one.content.name}",
    )


async def run(*, pods: int, rounds: int, variety: Variety = "mixed", before: Path | None = None) -> Report:
    report = Report(
        "list",
        f"LIST of {pods:,} {variety} pods over HTTP, {rounds} rounds in turn",
        ("request", "MB", "median ms", "min ms", "server CPU ms", "speed of baseline"),
    )
    async with rig.broker() as broker:
        async with rig.connection(broker.url) as connection:
            filled = await fill(await open_log(connection), pods, variety)
        selector, selected = _selector(filled)
        paths = _paths(filled, selector)
        async with contextlib.AsyncExitStack() as stack:
            service = await stack.enter_async_context(rig.service(broker.url))
            former = [await stack.enter_async_context(rig.service(broker.url, tree=before))] if before else []
            with Client(service.port) as client:
                whole = client.get(_PODS, whole=True).body
                documents = {
                    "all": _pieces(whole),
                    "some": _pieces(client.get(paths.some, whole=True).body),
                    "one": [client.get(paths.one, whole=True).body],
                }
            if (found := len(documents["all"]) // 2) != pods:
                report.failures.append(f"the list has {found} items, not {pods}")
            if b"".join(documents["all"]) != whole:
                report.failures.append("the baseline's bytes are not those of the list")
            with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
                path = Path(directory) / "documents"
                path.write_bytes(msgspec.msgpack.encode(documents))
                async with rig.process(bare.serve_joins, path) as joins:
                    port = await joins.receive()
                    json, joined = "application/json", (port, joins.pid)
                    requests = [
                        _Request("bare join, all", *joined, "/all", json, None),
                        _Request("bare join, 1 %", *joined, "/some", json, None),
                        _Request("bare GET", *joined, "/one", json, None),
                    ]
                    ours = _requests(service, paths)
                    theirs = [_requests(other, paths, ", before") for other in former]
                    requests += [request for pair in zip(ours, *theirs, strict=True) for request in pair]
                    measured = await asyncio.to_thread(_measure, requests, rounds)
    ratios = {}
    for request in requests:
        found_ = measured[request.title]
        ratio = None
        if request.baseline is not None:
            ratio = median(measured[request.baseline].seconds) / median(found_.seconds)
            ratios[request.title] = ratio
        times = (median(found_.seconds) * 1e3, min(found_.seconds) * 1e3, median(found_.cpu) * 1e3)
        report.row(request.title, found_.size / 1e6, *times, ratio)
    report.notes.append(f"the selector names {selected} pods; every list is consistent (it asks the log for its head)")
    first = measured["Table"].first * 1e3
    report.notes.append(f"rows of tables are kept: the first, for which all pods had to be read, took {first:.0f} ms")
    for request in ours if before else ():
        # What else runs only adds to it.
        cost = min(measured[request.title].cpu) / min(measured[f"{request.title}, before"].cpu)
        key = "before/" + request.title.lower().replace(",", "").replace(" ", "-")
        report.ratio(key, cost, "of the server CPU time of before, at the least")
    report.ratio("json", ratios["JSON"], "of a bare join of the same bytes")
    report.ratio("table", ratios["Table"], "of a bare join of the JSON list")
    report.ratio("paged", ratios[f"JSON, {_PAGE} a page"], "of a bare join at one go")
    report.ratio("selector", ratios["JSON, labels of 1 %"], "of a bare join of the same bytes")
    report.ratio("get", ratios["GET of one"], "of a bare answer of the same bytes")
    return report
