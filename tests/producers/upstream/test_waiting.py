"""Waiting for more of a watch: whatever has come is taken in without a further byte, however it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from producers.kubeconfig.entries import Cluster, User
from producers.kubeconfig.model import ClusterAccess
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused, Unreachable
from producers.upstream.watching import NotStreamed, Target, Watch
from tests.patience import PATIENCE, eventually

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
# Far longer than a test waits.
PATIENT = ProducerTiming(watch=(900, 900))
CUT = b""

Reader = Callable[[Watch, list[int]], Coroutine[Any, Any, None]]


def event(number: int, size: int = 0, kind: str = "ADDED") -> bytes:
    metadata = {"name": f"p{number}", "resourceVersion": str(number), "annotations": {"a": "x" * size}}
    return json.dumps({"type": kind, "object": {"metadata": metadata}}).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def answering(
    *segments: bytes | asyncio.Event | float, timing: ProducerTiming = PATIENT, head: bytes = HEAD
) -> AsyncIterator[ApiServer]:
    """A server whose answer has these segments, each written at one go.

    It waits for events, and so many seconds; an empty segment cuts the connection.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                await writer.drain()
                # What comes now comes by itself.
                await asyncio.sleep(0.01)
                for segment in segments:
                    if isinstance(segment, asyncio.Event):
                        await segment.wait()
                    elif isinstance(segment, float):
                        await asyncio.sleep(segment)
                    elif segment:
                        writer.write(segment)
                        await writer.drain()
                    else:
                        writer.close()
                        return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    server = ApiServer(ClusterAccess("alpha", Cluster(f"http://127.0.0.1:{port}"), User(), where="c"), timing)
    try:
        yield server
    finally:
        await server.close()
        listening.close()


async def as_events(watch: Watch, sizes: list[int]) -> None:
    async for found in watch.events():
        sizes.append(len(found.object["metadata"]))


async def by_turns(watch: Watch, sizes: list[int]) -> None:
    """As a reflector does."""
    async with watch:
        while (lines := watch.arrived()) is not None:
            sizes += [len(watch.event(line).object["metadata"]) for line in lines]
            if not lines:
                await watch.more()


@pytest.mark.parametrize("read", [as_events, by_turns])
@pytest.mark.parametrize(
    ("segments", "count"),
    [
        ([chunk(event(1)) + END], 1),
        ([chunk(event(1)), CUT], 1),
        ([chunk(event(1)[:20]) + END], 0),
        ([chunk(event(1)[:20]), CUT], 0),
        ([chunk(event(1)) + chunk(event(2)[:20]) + END], 1),
        ([chunk(event(1)[:20]), chunk(event(1)[20:]) + chunk(event(2)) + END], 2),
        ([END], 0),
    ],
    ids=["event-end", "event-cut", "half-end", "half-cut", "event-half-end", "halves", "nothing"],
)
async def test_an_end_is_noticed_with_whatever_comes_before_it(
    segments: Sequence[bytes], count: int, read: Reader
) -> None:
    sizes: list[int] = []
    async with answering(*segments) as server, asyncio.timeout(PATIENCE):
        # Half a line is no event, and only a connection that is cut is a failure.
        with pytest.raises(Unreachable) if CUT in segments else nullcontext():
            await read(Watch(server, Target("/api/v1/pods"), "1"), sizes)
        assert len(sizes) == count


@pytest.mark.parametrize("read", [as_events, by_turns])
@pytest.mark.parametrize("kib", [1, 250, 264, 280, 528, 3000])
async def test_a_large_event_is_taken_in_without_a_further_byte(kib: int, read: Reader) -> None:
    """Some of it is held back until what came before is taken, and comes at once then."""
    sizes: list[int] = []
    over = asyncio.Event()
    async with answering(chunk(event(1, kib * 1024)), over, END) as server:
        reading = asyncio.create_task(read(Watch(server, Target("/api/v1/pods"), "1"), sizes))
        await eventually(lambda: sizes)
        assert sizes[0] > kib * 1024
        over.set()
        async with asyncio.timeout(PATIENCE):
            await reading


@pytest.mark.parametrize("read", [as_events, by_turns])
async def test_ended_while_it_waits_and_nothing_is_left_to_look_at(read: Reader) -> None:
    over = asyncio.Event()
    sizes: list[int] = []
    async with answering(chunk(event(1)), over) as server:
        for _ in range(150):
            watch = Watch(server, Target("/api/v1/pods"), "1")
            reading = asyncio.create_task(read(watch, sizes))
            seen = len(sizes)
            async with asyncio.timeout(PATIENCE):
                while len(sizes) == seen:
                    await asyncio.sleep(0.001)
            watch.end()
            async with asyncio.timeout(PATIENCE):
                await reading
        # A deadline is minutes away, and is not kept until then of all that have ended.
        assert len(server.deadlines) < 140
        over.set()


def slowly(data: bytes, pieces: int, pause: float) -> list[bytes | float]:
    size = -(-len(data) // pieces)
    return [part for at in range(0, len(data), size) for part in (chunk(data[at : at + size]), pause)]


@pytest.mark.parametrize("version", ["1", None])
async def test_a_line_that_comes_slowly_is_no_silence(version: str | None) -> None:
    """Every byte is a sign of life, also of a line that takes longer than silence may."""
    timing = ProducerTiming(watch=(900, 900), initial_silence=0.6, bookmark_silence=0.6)
    first = event(1, kind="ADDED" if version is None else "BOOKMARK")
    async with answering(chunk(first), *slowly(event(2), 20, 0.1), END, timing=timing) as server:
        async with asyncio.timeout(PATIENCE):
            types = [one.type async for one in Watch(server, Target("/api/v1/pods"), version).events()]
        assert len(types) == 2


@pytest.mark.parametrize("version", ["1", None])
async def test_a_line_that_never_ends_is_given_up(version: str | None) -> None:
    timing = ProducerTiming(watch=(1, 1), watch_grace=0.2, initial_silence=0.6)
    pieces = [chunk(b'{"type":"ADDED",'), *slowly(b" " * 600, 600, 0.1)]
    async with answering(*pieces, timing=timing) as server:
        with pytest.raises(Unreachable if version else NotStreamed, match="a line without end"):
            await asyncio.wait_for(as_events(Watch(server, Target("/api/v1/pods"), version), []), PATIENCE)


async def test_initial_events_that_become_changes_are_no_list() -> None:
    """Of a server that does not know what it was asked for: it goes on with changes, and no end comes."""
    timing = ProducerTiming(watch=(900, 900), initial_silence=0.5)
    changes = [part for number in range(2, 600) for part in (chunk(event(number, kind="MODIFIED")), 0.1)]
    async with answering(chunk(event(1)), *changes, timing=timing) as server:
        with pytest.raises(NotStreamed, match="changes come"):
            await asyncio.wait_for(as_events(Watch(server, Target("/api/v1/pods"), None), []), PATIENCE)


async def test_initial_events_without_a_head_are_no_list() -> None:
    timing = ProducerTiming(watch=(900, 900), initial_silence=0.5)
    async with answering(asyncio.Event(), timing=timing, head=b"") as server, asyncio.timeout(PATIENCE):
        with pytest.raises(NotStreamed, match="nothing came"):
            async with Watch(server, Target("/api/v1/pods"), None):
                pass


@pytest.mark.parametrize("body", [(asyncio.Event(),), (b" ", 0.2) * 300], ids=["none", "drops"])
async def test_a_refusal_whose_text_does_not_end_is_one(body: tuple[asyncio.Event | bytes | float, ...]) -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n"
    async with answering(*body, timing=ProducerTiming(refusal=0.5), head=head) as server:
        with pytest.raises(RequestRefused) as refused:
            async with asyncio.timeout(PATIENCE):
                await server.get("/api/v1/pods")
        assert refused.value.code == 503
