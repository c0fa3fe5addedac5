"""Warnings of stale clusters: with each verb and form, of the clusters that a request is about, and never many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from deltalog import Appender, Log, encode_delta
from deltalog.wire.records import encode_control
from deltalog.wire.subjects import CLUSTER, HEALTH, SYNCED, TYPE, control_subject, object_subject, type_prefix
from materializer.materializer import Materializer
from query.http.warnings import of_other_versions, of_stale, warning_headers
from query.service import QueryService
from tests.materializer.conftest import made_control, made_delta
from tests.patience import PATIENCE

PODS = "/api/v1/pods"
POD = "/api/v1/namespaces/x/pods/{}"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
REFUSED = 'connect to "10.0.0.1": refused\nby \\ the peer'


class Served:
    """A service of a log that the test writes itself."""

    def __init__(self, log: Log, materializer: Materializer, url: str, session: aiohttp.ClientSession) -> None:
        self._log = log
        self._materializer = materializer
        self._url = url
        self._session = session

    async def clusters(self, names: Sequence[str], *, stale: bool, version: str = "v1") -> None:
        """Clusters with pods of a version, one named as the cluster."""
        data = {"kind": "Pod", "version": version, "namespaced": True}
        messages = []
        for name in names:
            for record, of_type, content in (
                (TYPE, True, data),
                (CLUSTER, False, {"version": {"major": "1"}}),
                (SYNCED, True, {"version": "1"}),
                (HEALTH, False, {"healthy": not stale, "reason": REFUSED if stale else ""}),
            ):
                of = ("", "pods") if of_type else ("", "")
                control = made_control(record, name, *of, data=content)
                messages.append((control_subject(name, record, *of), encode_control(control)))
            delta = made_delta(name, uid=name, cluster=name, version=version)
            messages.append((object_subject(type_prefix(name, "", version, "pods"), "x", name), encode_delta(delta)))
        async with Appender(self._log.connection) as appender:
            for subject, payload in messages:
                last = await appender.append_wait(subject, payload, {})
        await self._materializer.wait_applied(last, PATIENCE)

    async def warnings(
        self, path: str, accept: str = "application/json", query: Mapping[str, str] | None = None, code: int = 200
    ) -> list[str]:
        """The Warning headers of an answer, whose first bytes come at once."""
        async with (
            asyncio.timeout(PATIENCE),
            self._session.get(self._url + path, params=query, headers={"Accept": accept}) as answer,
        ):
            assert answer.status == code, await answer.text()
            await answer.content.readany()
            return answer.headers.getall("Warning", [])


@pytest.fixture
async def served(log: Log) -> AsyncIterator[Served]:
    materializer = Materializer(log)
    running = asyncio.create_task(materializer.run())
    service = QueryService(materializer, "test")
    async with asyncio.timeout(PATIENCE):
        await materializer.ready.wait()
    async with TestServer(service.application()) as server, aiohttp.ClientSession() as session:
        yield Served(log, materializer, str(server.make_url("/")).rstrip("/"), session)
        service.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


REQUESTS = [
    (PODS, "application/json", {}),
    (PODS, "application/yaml", {}),
    (PODS, TABLE, {}),
    (PODS, METADATA, {}),
    (PODS, "application/json", {"resourceVersion": "0"}),
    (PODS, "application/json", {"limit": "1"}),
    (PODS, "application/json", {"fieldSelector": "metadata.name=bravo"}),
    (PODS, "application/json", {"watch": "1", "timeoutSeconds": "1"}),
    (PODS, TABLE, {"watch": "1", "timeoutSeconds": "1"}),
    ("/api/v1/namespaces/x/pods", "application/json", {}),
    ("/api/v1/watch/pods", "application/json", {"timeoutSeconds": "1"}),
]


@pytest.mark.parametrize(("path", "accept", "query"), REQUESTS)
async def test_lists_and_watches_in_every_form(served: Served, path: str, accept: str, query: dict[str, str]) -> None:
    await served.clusters(["alpha"], stale=False)
    await served.clusters(["bravo"], stale=True)
    [told] = await served.warnings(path, accept, query)
    # What client-go takes apart: code, agent, quoted text (apimachinery pkg/util/net: ParseWarningHeader).
    assert told.startswith('299 kubebraid "bravo is not ready')
    assert told.endswith(': connect to \\"10.0.0.1\\": refused by \\\\ the peer"')
    assert await served.warnings(f"/clusters/bravo{path}", accept, query) == [told]
    assert await served.warnings(f"/int{path}", accept, query) == [told]
    assert await served.warnings(f"/clusters/alpha{path}", accept, query) == []


async def test_one_object(served: Served) -> None:
    """At the root all clusters are asked for it, so that a stale one may be why it is not found, or found once."""
    await served.clusters(["alpha"], stale=False)
    await served.clusters(["bravo"], stale=True)
    single = METADATA.replace("List", "")
    for accept in ("application/json", TABLE, single):
        for name in ("alpha", "bravo"):
            assert len(await served.warnings(POD.format(name), accept)) == 1
            assert len(await served.warnings(f"/clusters/{name}{POD.format(name)}", accept)) == (name == "bravo")
    assert len(await served.warnings(POD.format("nobody"), code=404)) == 1
    assert len(await served.warnings("/clusters/bravo" + POD.format("nobody"), code=404)) == 1
    assert await served.warnings("/clusters/alpha" + POD.format("nobody"), code=404) == []


async def test_only_of_clusters_that_were_chosen(served: Served) -> None:
    await served.clusters(["alpha", "charlie"], stale=False)
    await served.clusters(["bravo"], stale=True)
    assert await served.warnings(PODS, query={"clusters": "alpha,charlie"}) == []
    assert await served.warnings(PODS, query={"clusters": "charlie", "watch": "1", "timeoutSeconds": "1"}) == []
    assert len(await served.warnings(PODS, query={"clusters": "alpha,bravo"})) == 1
    await served.clusters(["bravo"], stale=False)
    assert await served.warnings(PODS) == []


async def test_documents_are_not_about_clusters(served: Served) -> None:
    await served.clusters(["bravo"], stale=True)
    for path in ("/api", "/apis", "/api/v1", "/version", "/clusters", "/clusters/bravo/api/v1", "/livez"):
        assert await served.warnings(path) == []


async def test_five_hundred_stale_clusters_are_a_few_lines(served: Served) -> None:
    names = [f"cluster-{number:03}" for number in range(500)]
    await served.clusters(names, stale=True)
    queries: tuple[dict[str, str], ...] = ({}, {"watch": "1", "timeoutSeconds": "1"})
    for query in queries:
        told = await served.warnings(PODS, query=query)
        assert len(told) == 9
        assert sum(map(len, told)) < 4096
        assert [text.split('"')[1].split()[0] for text in told[:-1]] == names[:8]
        assert told[-1] == '299 kubebraid "492 more clusters are not ready, /readyz?verbose tells which and why"'
    assert len(await served.warnings(PODS, query={"clusters": ",".join(names[:20])})) == 9
    assert len(await served.warnings(PODS, query={"clusters": "cluster-499"})) == 1


async def test_clusters_that_are_left_out(served: Served) -> None:
    """Those that store another version than the one asked for: their objects are not in the answer."""
    await served.clusters(["alpha", "bravo"], stale=False)
    await served.clusters([f"old-{number:02}" for number in range(20)], stale=False, version="v1beta1")
    [told] = await served.warnings("/api/v1beta1/pods", query={"clusters": "alpha,old-01"})
    assert told == '299 kubebraid "left out, as they serve another version than v1beta1: alpha (v1)"'
    [told] = await served.warnings(PODS)
    assert told.endswith('old-07 (v1beta1) and 12 more"')
    assert await served.warnings(PODS, query={"clusters": "alpha"}) == []


def test_texts_are_short_and_never_break_a_header() -> None:
    [(name, value)] = warning_headers(["a" * 1000])
    assert (name, len(value)) == ("Warning", len('299 kubebraid ""') + 256)
    assert warning_headers(["line\nfeed \x00 “quoted” é"]) == [("Warning", '299 kubebraid "line feed    quoted   "')]
    assert len(warning_headers(["the same"] * 5)) == 1
    many = warning_headers(f"{number}: {'a' * 300}" for number in range(100))
    assert sum(len(value) for _, value in many) < 4096 + 20 * len(many)
    assert len(many) == 16
    assert of_stale([]) == []
    assert of_other_versions("v1", [("a", "v2")]) == "left out, as they serve another version than v1: a (v2)"
