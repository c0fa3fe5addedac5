"""The short way out and in of appends: the same as nats-py's own way, however the bytes come."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from deltalog import Appender, Conflict, Expect, Log, Reader, Record
from deltalog.client import Client, header_lines
from deltalog.subjects import object_subject, type_prefix

PODS = type_prefix("alpha", "", "v1", "pods")
PATIENCE = 30.0


async def parsed(pieces: list[bytes], *takers: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], list[bytes]]:
    """What takers and nats-py's own subscription 7 get of a server's bytes."""
    client = Client()
    taken: list[tuple[bytes, bytes, bytes]] = []
    for inbox in takers:
        client.takers[inbox] = lambda token, data, inbox=inbox: taken.append((inbox, token, data))
    others: list[bytes] = []
    publicly = super(Client, client)._process_msg

    async def received(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if subject.rpartition(b".")[0] in takers:
            await Client._process_msg(client, sid, subject, reply, data, headers)
        else:
            assert publicly is not None
            others.append(data)

    client._process_msg = received
    for piece in pieces:
        await client._ps.parse(piece)
    assert not client._ps.buf
    return taken, others


def acknowledgement(inbox: bytes, number: int) -> bytes:
    data = b'{"seq":%d,"note":"MSG %b.1 1 1\\r\\n"}' % (number, inbox)
    return b"MSG %b.%d 1 %d\r\n%b\r\n" % (inbox, number, len(data), data)


@pytest.mark.parametrize("seed", range(20))
async def test_acknowledgements_in_pieces_and_among_others(seed: int) -> None:
    chance = random.Random(seed)
    stream, expected, plain = b"", [], []
    for number in range(60):
        what = chance.random()
        if what < 0.7:
            inbox = chance.choice((b"_INBOX.a", b"_INBOX.b"))
            stream += acknowledgement(inbox, number)
            expected.append((inbox, b"%d" % number))
        elif what < 0.8:
            stream += b"+OK\r\n"
        elif what < 0.9:
            headers = b"NATS/1.0 503\r\n\r\n"
            stream += b"HMSG _INBOX.a.%d 1 %d %d\r\n%b\r\n" % (number, len(headers), len(headers), headers)
            expected.append((b"_INBOX.a", b"%d" % number))
        else:
            data = chance.randbytes(chance.randrange(200))
            stream += b"MSG other.%d 7 _R.1 %d\r\n%b\r\n" % (number, len(data), data)
            plain.append(data)
    cuts = sorted(chance.sample(range(len(stream)), chance.choice((0, 1, 5, 60))))
    pieces = [stream[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(stream)])]
    taken, others = await parsed(pieces, b"_INBOX.a", b"_INBOX.b")
    assert [(inbox, token) for inbox, token, _ in taken] == expected
    assert others == plain


@pytest.mark.parametrize("short", [True, False])
async def test_both_ways_store_the_same(log: Log, short: bool) -> None:
    log.connection.client.short = short
    lines = header_lines({"Kb": "ADDED u 1 0 0", "Nats-TTL": "3600s"})
    async with asyncio.timeout(PATIENCE), Appender(log.connection) as appender:
        if not short:
            log.connection.client.takers.clear()
        heard: list[int] = []
        for number in range(300):
            subject = object_subject(PODS, "x", str(number))
            await appender.append(subject, bytes(number), lambda sequence, _: heard.append(sequence), lines)
        await appender.drain()
        assert heard == list(range(1, 301))
        with pytest.raises(Conflict):
            await appender.append_wait(subject, b"", Expect(1).headers())
    found: list[Record] = []
    await Reader(log, found.append, stop_when_caught_up=True).run()
    assert [(record.subject, len(record.data)) for record in found] == [
        (object_subject(PODS, "x", str(number)), number) for number in range(300)
    ]
    assert all((record.headers or {})["Kb"] == "ADDED u 1 0 0" for record in found)


def test_a_header_stays_in_its_line() -> None:
    assert header_lines({"A": "b c", "D": ""}) == b"A: b c\r\nD: \r\n"
    for odd in ({"A": "b\r\nC: d"}, {"A": "b\n"}, {"A: b": "c"}, {"": "c"}, {"A\n": "c"}, {"Ä": "c"}):
        with pytest.raises(ValueError):
            header_lines(odd)
