"""Members whose servers answer nonsense: it is stale, or what can be read is taken; the two beside it lose no event."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from producers.kubeconfig.entries import Cluster
from producers.kubeconfig.model import ClusterAccess
from producers.timing import ProducerTiming
from producers.upstream import watching
from producers.upstream.apiserver import ApiServer, TooLarge, Unreachable
from producers.upstream.objects import identify
from producers.upstream.watching import Target, list_pages
from simulation import SimulatedCluster
from simulation.kubeconfig import kubeconfig
from tests.producers.odd_front import front
from tests.producers.three_clusters import WELL, Fleet, fleet

__all__ = ["fleet"]

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def pods() -> int:
    return 5


# -- no HTTP at all, or none that ends -----------------------------------------------------------------------------


async def _sends(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, random.Random(1).randbytes(100_000))


async def _huge_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 1_000_000 + b"\r\n\r\n{}")


async def _endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\n")
    while True:
        await _sends(writer, b"X-More: and more\r\n" * 100)


async def _endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    await _sends(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        await _sends(writer, b'{"items":[' * 1000)


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        await _sends(writer, b" ")
        await asyncio.sleep(0.01)


async def _short_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


async def _bad_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")


async def _bad_gzip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnone!")


@functools.cache
def _spaces() -> bytes:
    return gzip.compress(b" " * 80_000_000)


async def _bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Seldom enough that the two others need not wait for a processor.
    await asyncio.sleep(0.5)
    body = _spaces()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    await _sends(writer, head.encode(), body)


async def _redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")


async def _odd_status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _sends(writer, b"HTTP/1.1 999 \xff\xfe\r\nRetry-After: 99999999999999999999\r\nDate: never\r\n\r\n{}")


def _says(body: bytes, kind: bytes = b"application/json") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        await _sends(writer, head % (kind, len(body)), body)

    return answer


_AGGREGATED = b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
ANSWERS: dict[str, Answer] = {
    "closes": _closes,
    "silent": _silent,
    "noise": _noise,
    "huge header": _huge_header,
    "endless headers": _endless_headers,
    "endless body": _endless_body,
    "slow body": _slow_body,
    "short body": _short_body,
    "bad chunks": _bad_chunks,
    "bad gzip": _bad_gzip,
    "bomb": _bomb,
    "redirects": _redirects,
    "odd status": _odd_status,
    "no JSON": _says(b"<html>hello</html>", b"text/html"),
    "null": _says(b"null"),
    "a number": _says(b"1e999"),
    "a long number": _says(b'{"major":' + b"9" * 5000 + b"}"),
    "deep": _says(b'{"items":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "surrogates": _says(b'{"gitVersion":"\\ud800","groups":[{"name":"\\udfff"}],"items":[]}'),
    "no UTF-8": _says(b'{"items":[{"metadata":{"name":"\xff\xfe"}}]}'),
    "wrong types": _says(b'{"items":[1,"a",null,[]],"groups":{},"versions":7,"major":[],"minor":{}}'),
    "wrong discovery": _says(b'{"items":[{"metadata":[]},{"versions":[{"resources":[5]}]}]}', _AGGREGATED),
    "odd types": _says(
        json.dumps(
            {
                "items": [
                    {
                        "metadata": {"name": group},
                        "versions": [
                            {
                                "version": version,
                                "resources": [
                                    {"resource": name, "scope": scope, "verbs": ["list", "watch"]}
                                    for name in ("", "a b", "*", ">", "x" * 10_000, "a.b/c", "pods")
                                ],
                            }
                        ],
                    }
                    for group, version, scope in (
                        ("", "v1", "Namespaced"),
                        ("g" * 5_000, "v1", "Cluster"),
                        ("a*", "v" * 9_000, "?"),
                        ("b", "", ""),
                    )
                ],
                "metadata": {"resourceVersion": "1"},
                "major": "1",
                "minor": "36",
            }
        ).encode(),
        _AGGREGATED,
    ),
}


@contextlib.asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError, asyncio.CancelledError):
                await answer(reader, writer)
        finally:
            connections.discard(task)
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _goes_on(fleet: Fleet, url: str) -> None:
    """The two others are followed beside a member at this URL, which ends nothing."""
    document = kubeconfig(list(fleet.clusters.values()))
    for one in document["clusters"]:
        if one["name"] == "alpha":
            one["cluster"] = {"server": url, **({"insecure-skip-tls-verify": True} if url.startswith("https") else {})}
    fleet.kubeconfig.write_text(json.dumps(document))
    _, warm = await fleet.start()
    await fleet.flows(warm, *WELL)
    alpha = "alpha"
    await fleet.until(lambda: alpha in warm.store.clusters, "alpha is taken")
    for _ in range(5):
        await fleet.flows(warm, *WELL)
        await asyncio.sleep(0.1)
    # What is sent to NATS breaks no rule of its protocol, at which it would close the connection of all.
    assert fleet.writing.client.stats["reconnects"] == 0
    warm.store.check()


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_server_that_answers_nonsense(fleet: Fleet, name: str) -> None:
    async with server(ANSWERS[name]) as address:
        await _goes_on(fleet, f"http://{address}")


@pytest.mark.parametrize("name", ["closes", "noise", "silent"])
async def test_a_server_that_speaks_no_tls(fleet: Fleet, name: str) -> None:
    async with server(ANSWERS[name]) as address:
        await _goes_on(fleet, f"https://{address}")


# -- answers of a good server, made odd ------------------------------------------------------------------------------

_ODD: list[Any] = [
    None,
    True,
    -1,
    10**40,
    1e300,
    "",
    "\ud800",
    "x" * 3000,
    "a b\n\x00*>.",
    [],
    {},
    [[[]]],
    {"": {}},
    "2026-99-99T00:00:00Z",
]


def _mutated(value: Any, chance: random.Random, rate: float) -> Any:
    """The value with some of what is in it replaced, left out, doubled or renamed."""
    if chance.random() < rate:
        return chance.choice(_ODD)
    if isinstance(value, dict):
        changed = {}
        for key, below in value.items():
            if chance.random() < rate / 2:
                continue
            name = key.upper() if chance.random() < rate / 4 else key
            changed[name] = _mutated(below, chance, rate)
        return changed
    if isinstance(value, list):
        items = [_mutated(one, chance, rate) for one in value if chance.random() >= rate / 2]
        return items + items[:1] if chance.random() < rate else items
    return value


def _odd_bytes(text: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(text) + 1)
    return chance.choice([text[:at], text[:at] + b"\xff\xfe" + text[at:], text[:at] + b'"' + text[at:], text * 2])


def _now(chance: random.Random, well: asyncio.Event, rate: float) -> bool:
    return not well.is_set() and chance.random() < rate


def _oddly(chance: random.Random, well: asyncio.Event, text: bytes) -> bytes:
    """An answer, or the line of a watch, changed at random, until it is to be well."""
    if not _now(chance, well, 0.7):
        return text
    if chance.random() < 0.1:
        return _odd_bytes(text, chance)
    try:
        changed = _mutated(json.loads(text), chance, chance.choice([0.001, 0.01, 0.1]))
    except ValueError:
        return text
    return json.dumps(changed, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")


@pytest.mark.parametrize("seed", range(6))
async def test_odd_answers_then_good_ones(fleet: Fleet, seed: int) -> None:
    """Whatever a server says for a while, the others lose nothing; once it is well, what it has is what is shown."""
    chance, well = random.Random(seed), asyncio.Event()

    def refuse() -> int:
        return chance.choice([200, 204, 301, 404, 410, 429, 500, 503]) if _now(chance, well, 0.05) else 0

    async with front(fleet.clusters["alpha"], partial(_oddly, chance, well), refuse) as url:
        document = kubeconfig(list(fleet.clusters.values()))
        for one in document["clusters"]:
            if one["name"] == "alpha":
                one["cluster"] = {"server": url}
        fleet.kubeconfig.write_text(json.dumps(document))
        producer, warm = await fleet.start("configmaps", "pods", "customresourcedefinitions")
        for _ in range(12):
            await fleet.write("alpha")
            await fleet.flows(warm, *WELL)
            await asyncio.sleep(0.1)
        well.set()
        # What a watch left out comes with the next list.
        producer.clusters["alpha"].rediscover()
        await fleet.until(lambda: bool(producer.clusters["alpha"].informers), "alpha's types are known")
        await fleet.until(lambda: producer.clusters["alpha"].unreachable is None, "alpha is well again")
        producer.clusters["alpha"].relist(lambda _: True)
        await fleet.flows(warm, *WELL, "alpha")
        await fleet.rig.settled(warm, "/api/v1/configmaps", "", "configmaps")
        warm.store.check()


# -- answers that are too large --------------------------------------------------------------------------------------


async def test_pages_that_are_too_large_have_fewer_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SimulatedCluster("alpha", seed=1, pods=90) as cluster:
        one = _server(cluster.url)
        real = ApiServer.get
        asked: list[str] = []

        async def get(self: ApiServer, path: str, query: Any = None, **options: Any) -> Any:
            asked.append((query or {}).get("limit", ""))
            return await real(self, path, query, **options, most=100_000)

        monkeypatch.setattr(ApiServer, "get", get)
        try:
            pages = [page async for page in list_pages(one, Target("/api/v1/pods"))]
            assert sum(len(page.items or ()) for page in pages) == 90
            assert asked[0] == str(watching.PAGE)
            assert asked[-1] != asked[0]
            assert len(pages) > 1
        finally:
            await one.close()


@pytest.mark.parametrize("most", [2_000, 100_000])
async def test_a_list_that_is_too_large_and_has_no_pages_is_not_taken_for_its_first_object(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """All the others would be deleted from the log. What is one object alone is left out, whatever is behind it."""
    pods = [{"metadata": {"name": f"pod-{number}"}, "spec": {"text": "x" * 1000}} for number in range(200)]
    assert ApiServer.get.__kwdefaults__ is not None
    monkeypatch.setitem(ApiServer.get.__kwdefaults__, "most", most)
    for items, several in ((pods, True), ([{**pods[0], "status": [{"a": "y" * 200_000}, 1]}], False)):
        body = json.dumps({"metadata": {"resourceVersion": "7"}, "items": items}).encode()
        async with server(_says(body)) as address:
            one = _server(f"http://{address}")
            try:
                if several:
                    with pytest.raises(TooLarge, match=r"/api/v1/pods has more than .* one object .* has no pages"):
                        [page async for page in list_pages(one, Target("/api/v1/pods"))]
                else:
                    (page,) = [page async for page in list_pages(one, Target("/api/v1/pods"))]
                    assert [identify(item).name for item in page.items or ()] == ["pod-0"]
            finally:
                await one.close()


@pytest.mark.parametrize("name", ["endless body", "bomb"])
async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async with server(ANSWERS[name]) as address:
        one = _server(f"http://{address}")
        try:
            with pytest.raises((TooLarge, Unreachable)):
                await one.get("/version", most=1_000_000)
            monkeypatch.setattr(watching, "LARGEST_ANSWER", 1_000_000)
            with pytest.raises((TooLarge, Unreachable)):
                await _read_lines(one)
        finally:
            await one.close()


async def _read_lines(one: ApiServer) -> None:
    async with one.open("/api/v1/pods") as (response, _):
        lines = watching.LineCutter()
        async for chunk in response.chunks():
            lines.of(chunk)


async def test_an_answer_that_takes_for_ever_is_given_up() -> None:
    async with server(ANSWERS["slow body"]) as address:
        one = _server(f"http://{address}", ProducerTiming(answer=0.2))
        try:
            with pytest.raises(Unreachable, match="not whole"):
                await one.get("/version")
        finally:
            await one.close()


def _server(url: str, timing: ProducerTiming | None = None) -> ApiServer:
    return ApiServer(ClusterAccess("alpha", Cluster(server=url)), timing or ProducerTiming())
