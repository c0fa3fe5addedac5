"""The fast paths out and in: the same as with the public client, however the bytes come."""

from __future__ import annotations

import ast
import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from nats.aio.client import Client as PublicClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError, UnexpectedEOF
from nats.protocol.parser import Parser

import deltalog
from deltalog import Appender, Conflict, Connection, Expect, Log, Reader, Record, connect, open_log
from deltalog.jetstream.client import Client
from deltalog.jetstream.fast_client import FastClient, missing_names, usable
from deltalog.jetstream.headers import header_lines, parse_headers
from deltalog.jetstream.incoming import SIZE, Incoming
from deltalog.wire.subjects import object_subject, type_prefix
from tests.patience import PATIENCE

PODS = type_prefix("alpha", "", "v1", "pods")


class Socket(asyncio.Transport):
    """A transport without a socket: what comes is given to `bring`."""

    def __init__(self) -> None:
        super().__init__()
        self._protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self.reading = True

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    async def bring(self, data: bytes) -> None:
        """Hands bytes over as asyncio does: as many as there is room for, and none while reading is paused."""
        assert isinstance(self._protocol, asyncio.BufferedProtocol)
        while data:
            while not self.reading:
                await asyncio.sleep(0)
            room = self._protocol.get_buffer(-1)
            assert isinstance(room, memoryview)
            count = min(len(room), len(data))
            assert count, "asyncio would end the connection"
            room[:count] = data[:count]
            self._protocol.buffer_updated(count)
            data = data[count:]


async def taken_in(client: FastClient, pieces: list[bytes]) -> None:
    """Has the client take in what comes from its socket in these pieces, up to the end. Raises what that raises."""
    socket = Socket()
    incoming = Incoming(socket)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(until_end(incoming, client))
        for number, piece in enumerate(pieces):
            await socket.bring(piece)
            if number % 3:
                # Else the next piece comes before this one was looked at.
                await asyncio.sleep(0)
        while not socket.reading:
            await asyncio.sleep(0)
        incoming.eof_received()
    assert incoming.held == 0


async def parsed(pieces: list[bytes], *inboxes: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], list[bytes]]:
    """What handlers of acknowledgements and nats-py's own subscription 7 get of a server's bytes."""
    client = FastClient()
    taken: list[tuple[bytes, bytes, bytes]] = []
    for inbox in inboxes:

        def acknowledged(token: bytes, data: bytes, inbox: bytes = inbox) -> None:
            taken.append((inbox, token, data))

        client.ack_handlers[inbox] = acknowledged
    others: list[bytes] = []
    publicly = super(FastClient, client)._process_msg

    async def received(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if subject.rpartition(b".")[0] in inboxes:
            await FastClient._process_msg(client, sid, subject, reply, data, headers)
        else:
            assert publicly is not None
            others.append(data)

    client._process_msg = received  # type: ignore[method-assign]
    await taken_in(client, pieces)
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


@pytest.mark.parametrize("fast", [True, False])
async def test_both_clients_store_the_same(log: Log, fast: bool) -> None:
    assert log.connection.client.fast == fast
    lines = header_lines({"Kb": "ADDED u 1 0 0", "Nats-TTL": "3600s"})
    async with asyncio.timeout(PATIENCE), Appender(log.connection) as appender:
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
    assert all(record.headers["Kb"] == "ADDED u 1 0 0" for record in found)


def names_of_nats_py() -> set[str]:
    """What nats-py's client, its subscriptions, messages and parser keep to themselves."""
    client = PublicClient()
    parts = (client, Subscription(client), Msg(client), Parser(client))
    return {name for part in parts for name in dir(part) if name.startswith("_") and not name.startswith("__")}


def private_uses(source: str, names: set[str], *, inherits: bool) -> set[str]:
    """Which of these names a module uses of another object than `self`; with `inherits`, of that, too."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and (inherits or not (isinstance(node.value, ast.Name) and node.value.id == "self"))
    }


def test_the_public_client_and_all_that_use_it_know_no_private_name_of_nats_py() -> None:
    names = names_of_nats_py()
    assert {"_ps", "_id", "_process_err", "_flush_pending", "_process_connect_init"} <= names
    root = Path(deltalog.__file__).parent
    fast = root / "jetstream" / "fast_client.py"
    found = {
        str(file.relative_to(root)): used
        for file in root.rglob("*.py")
        if (used := private_uses(file.read_text(), names, inherits=file.name == "client.py")) and file != fast
    }
    assert found == {}
    assert private_uses(fast.read_text(), names, inherits=True) >= {"_ps", "_id", "_process_err"}
    for name in vars(Client):
        assert not name.startswith("_") or name.startswith("__"), "the public client defines none either"


def test_a_name_that_is_missing_is_noticed() -> None:
    client = PublicClient()
    subscription, parser = Subscription(client), Parser(client)
    assert usable()
    assert missing_names(client, subscription, parser, TcpTransport()) == []
    del client._pending
    del parser.needed
    missing = ["Client._pending", "Parser.needed", "object._id", "object._io_reader", "object._io_writer"]
    assert missing_names(client, object(), parser, object()) == missing


@pytest.mark.processes
@pytest.mark.parametrize(
    ("change", "fast"),
    [
        ("pass", True),
        ("sys.modules['nats.protocol.parser'] = None", False),
        ("del client.Client._process_err", False),
    ],
)
def test_with_another_nats_py_connections_take_the_public_client(change: str, fast: bool) -> None:
    program = (
        "import sys\nfrom nats.aio import client\n"
        f"{change}\n"
        "from deltalog import Connection\nprint(Connection('nats://127.0.0.1:4222').client.fast)\n"
    )
    ran = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(fast)


def test_a_header_stays_in_its_line() -> None:
    assert header_lines({"A": "b c", "D": ""}) == b"A: b c\r\nD: \r\n"
    for odd in ({"A": "b\r\nC: d"}, {"A": "b\n"}, {"A: b": "c"}, {"": "c"}, {"A\n": "c"}, {"Ä": "c"}):
        with pytest.raises(ValueError):
            header_lines(odd)


Received = tuple[bytes, bytes, bytes, bytes, bytes]


async def received(pieces: list[bytes], *sids: bytes) -> tuple[list[Received], list[tuple[int, bytes, bytes]]]:
    """What receivers (in order with what they had to await) and nats-py's own subscriptions get of a server's bytes."""
    client = FastClient()
    found: list[Received] = []
    for sid in sids:

        def receiver(
            subject: bytes, reply: bytes, headers: bytes, data: bytes, sid: bytes = sid
        ) -> Awaitable[None] | None:
            async def later() -> None:
                await asyncio.sleep(0)
                found.append((sid, subject, reply, headers, data))

            if data.startswith(b"later"):
                return later()
            found.append((sid, subject, reply, headers, data))
            return None

        client.receivers[sid] = receiver
    others: list[tuple[int, bytes, bytes]] = []

    async def process(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if b"%d" % sid in sids:
            await FastClient._process_msg(client, sid, subject, reply, data, headers)
        else:
            others.append((sid, headers or b"", data))

    client._process_msg = process  # type: ignore[method-assign]
    await taken_in(client, pieces)
    return found, others


@pytest.mark.parametrize("seed", range(30))
async def test_messages_of_all_kinds_in_pieces(seed: int) -> None:
    """Large and empty ones, without headers, without reply, with bytes that look like the protocol, among others'."""
    chance = random.Random(seed)
    stream: list[bytes] = []
    expected: list[Received] = []
    plain: list[tuple[int, bytes, bytes]] = []
    for number in range(60):
        what = chance.random()
        if what < 0.1:
            stream.append(chance.choice((b"+OK\r\n", b"PONG\r\n", b"+OK \r\n")))
            continue
        sid = chance.choice((b"3", b"7", b"12"))
        data = chance.choice((b"", b"later", b"\r\nHMSG kb.a 3 _R 4 4\r\n", b"x" * 300_000, chance.randbytes(5000)))
        block = chance.choice(
            (b"", b"NATS/1.0\r\nKb: a b\r\n\r\n", b"NATS/1.0 100 Idle Heartbeat\r\nA: 1\r\n\r\n", b"odd")
        )
        reply = chance.choice((b"", b"$JS.ACK.S.c.1.2.3.4.5", b"17"))
        subject = b"kb.%d" % number
        gap = chance.choice((b" ", b" ", b" ", b"  ", b"\t")) if number % 4 == 0 else b" "
        words = [subject, sid, *([reply] if reply else []), *([b"%d" % len(block)] if block else [])]
        kind = b"HMSG" if block else b"MSG"
        line = gap.join([kind, *words, b"%d" % (len(block) + len(data))])
        stream.append(line + b"\r\n" + block + data + b"\r\n")
        if sid == b"12":
            plain.append((12, block, data))
        else:
            expected.append((sid, subject, reply, block, data))
    whole = b"".join(stream)
    if len(stream) % 2:
        step = chance.choice((1000, 32768, 262144))
        pieces = [whole[begin : begin + step] for begin in range(0, len(whole), step)]
    else:
        cuts = sorted(chance.sample(range(len(whole)), chance.choice((0, 1, 5, 300))))
        pieces = [whole[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(whole)])]
    found, others = await received(pieces, b"3", b"7")
    assert found == expected
    assert others == plain


async def test_receivers_may_come_and_go_in_the_middle_of_a_message() -> None:
    message = b"HMSG kb.a 3 _R 12 17\r\nNATS/1.0\r\n\r\nhello\r\n"
    for cut in range(1, len(message)):
        client = FastClient()
        found: list[bytes] = []
        client._subs[3] = Subscription(client, 3)
        socket = Socket()
        incoming = Incoming(socket)
        reading = asyncio.create_task(until_end(incoming, client))
        await socket.bring(message + message[:cut])
        await settle()
        client.receivers[b"3"] = lambda *received, found=found: found.append(received[3])
        await socket.bring(message[cut:] + message[:cut])
        await settle()
        assert found == [b"hello"]
        del client.receivers[b"3"]
        await socket.bring(message[cut:])
        incoming.eof_received()
        await reading
        assert found == [b"hello"]
        assert incoming.held == 0


async def until_end(incoming: Incoming, client: FastClient) -> None:
    while await incoming.read(client._frames.take):
        pass


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_no_protocol_ends_the_connection_as_it_does_without_us() -> None:
    message = b"HMSG kb.a 3 _R 12 17\r\nNATS/1.0\r\n\r\nhello\r\n"
    for odd in (b"HELLO\r\n", b"MSG kb.a\r\n", b"HMSG kb.a 3 _R x 17\r\n", b"MSG  \r\n", b"x" * (1 << 21)):
        client = FastClient()
        found: list[bytes] = []
        client.receivers[b"3"] = lambda *received, found=found: found.append(received[3])
        incoming = Incoming(socket := Socket())
        reading = asyncio.create_task(until_end(incoming, client))
        bringing = asyncio.create_task(socket.bring(message + odd + message))
        with pytest.raises(ProtocolError):
            await reading
        bringing.cancel()
        assert found == [b"hello"]
        client._ps.reset()
        await taken_in(client, [message])
        assert found == [b"hello", b"hello"]


async def test_what_comes_while_a_receiver_takes_its_time_is_handed_out_too() -> None:
    def message(data: bytes) -> bytes:
        return b"MSG kb.a 3 %d\r\n%b\r\n" % (len(data), data)

    for ends in (False, True):
        client = FastClient()
        found: list[bytes] = []
        go_on = asyncio.Event()

        def receive(*received: bytes, found: list[bytes] = found, go_on: asyncio.Event = go_on) -> Any:
            found.append(received[3])
            return go_on.wait() if received[3] == b"one" else None

        client.receivers[b"3"] = receive
        incoming = Incoming(socket := Socket())
        reading = asyncio.create_task(until_end(incoming, client))
        await socket.bring(message(b"one"))
        await settle()
        await socket.bring(message(b"two") + message(b"three")[:-3])
        await settle()
        if ends:
            incoming.eof_received()
        go_on.set()
        await settle()
        assert found == [b"one", b"two"]
        assert reading.done() == ends
        incoming.eof_received()
        await reading


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
async def test_an_end_right_behind_the_greeting_is_noticed_at_once(run: Callable[..., bool]) -> None:
    """As of a server that stops, or a proxy without one."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"headers":true}\r\n')
        while b"PING" not in await reader.readline():
            pass
        writer.write(b"PONG\r\n")
        writer.close()

    async def noticed() -> bool:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        ended = asyncio.Event()

        async def told(problem: Exception) -> None:
            if isinstance(problem, UnexpectedEOF | ConnectionResetError | BrokenPipeError):
                ended.set()

        async def gone() -> None:
            ended.set()

        client = FastClient()
        port = server.sockets[0].getsockname()[1]
        await client.connect(
            f"nats://127.0.0.1:{port}",
            allow_reconnect=False,
            ping_interval=1000,
            error_cb=told,
            disconnected_cb=gone,
        )
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        server.close()
        return True

    assert await asyncio.to_thread(run, noticed())


async def test_a_buffer_grows_for_one_message_and_shrinks_behind_it() -> None:
    large = b"HMSG kb.a 3 12 %d\r\nNATS/1.0\r\n\r\n" % (12 + 5 * SIZE) + bytes(5 * SIZE) + b"\r\n"
    client = FastClient()
    sizes: list[int] = []
    client.receivers[b"3"] = lambda *received: sizes.append(len(received[3]))
    incoming = Incoming(socket := Socket())
    reading = asyncio.create_task(until_end(incoming, client))
    for _ in range(3):
        await socket.bring(large[:-1])
        await settle()
        assert len(incoming.get_buffer(-1)) >= 1
        await socket.bring(large[-1:])
        await settle()
        assert (incoming.held, len(incoming.get_buffer(-1))) == (0, SIZE)
    incoming.eof_received()
    await reading
    assert sizes == [5 * SIZE] * 3


async def test_a_connection_that_breaks_is_told_to_who_writes_and_who_reads() -> None:
    client = FastClient()
    socket = Socket()
    told: list[object] = []

    class Behind(asyncio.Protocol):
        def pause_writing(self) -> None:
            told.append("pause")

        def resume_writing(self) -> None:
            told.append("resume")

        def connection_lost(self, exc: Exception | None) -> None:
            told.append(exc)

    socket.set_protocol(Behind())
    incoming = Incoming(socket)
    incoming.feed(b"PI")
    reading = asyncio.create_task(until_end(incoming, client))
    await settle()
    incoming.pause_writing()
    incoming.resume_writing()
    broken = ConnectionResetError("gone")
    incoming.connection_lost(broken)
    with pytest.raises(ConnectionResetError):
        await reading
    assert told == ["pause", "resume", broken]


def test_headers_are_read_as_leniently_as_by_nats_py() -> None:
    lines = b"Kb: a b\r\nNone:\r\nTight:x\r\nOdd name: x\r\nN\xc3\xa4me: x\r\nno colon\r\nBytes: \xff\xc3"
    lines += b"\r\nTwice: 1\r\nTwice: 2"
    read = parse_headers(b"NATS/1.0\r\n" + lines + b"\r\n\r\n")
    assert read == FastClient._parse_header_lines(lines)
    assert read["Bytes"] == "\ufffd\ufffd"
    heartbeat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 10\r\n\r\n"
    assert parse_headers(heartbeat) == {"Nats-Last-Consumer": "10"}
    assert parse_headers(b"NATS/1.0 503\r\n\r\n") == {}
    assert parse_headers(b"\x00") == {}


@pytest.mark.parametrize("fast", [True, False])
async def test_both_clients_read_the_same(log: Log, connecting: Callable[[], Awaitable[Connection]]) -> None:
    """More than the window of the server's flow control, so that it has to be answered; a message without headers."""
    connection = await connecting()
    async with asyncio.timeout(PATIENCE), Appender(connection) as appender:
        for number in range(1500):
            await appender.append(
                object_subject(PODS, "x", str(number)), bytes(30_000), lambda *_: None, {"Kb": "\u00e4"}
            )
        await appender.drain()
    await connection.client.publish("kb.bare", b"no headers")
    await connection.client.publish("kb.large", bytes(900_000))
    await connection.client.flush()
    found: list[tuple[int, str, int, dict[str, str]]] = []
    reader = Reader(
        log,
        lambda record: found.append((record.sequence, record.subject, len(record.data), record.headers)),
        stop_when_caught_up=True,
    )
    async with asyncio.timeout(PATIENCE):
        await reader.run()
    assert reader.restarts == 0
    if isinstance(log.connection.client, FastClient):
        assert not log.connection.client.receivers
    subjects = [object_subject(PODS, "x", str(number)) for number in range(1500)]
    assert found[:-2] == [(at + 1, subject, 30_000, {"Kb": "\u00e4"}) for at, subject in enumerate(subjects)]
    assert found[-2:] == [(1501, "kb.bare", 10, {}), (1502, "kb.large", 900_000, {})]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
async def test_either_event_loop_reads_into_the_one_buffer(log: Log, run: Callable[..., list[int]]) -> None:
    """uvloop, which `serve` and `produce` run on, has transports of its own classes."""
    async with asyncio.timeout(PATIENCE), Appender(log.connection) as appender:
        for number in range(300):
            await appender.append(object_subject(PODS, "x", str(number)), bytes(5000), lambda *_: None, {"Kb": "a"})
        await appender.drain()

    async def read() -> list[int]:
        connection = await connect(log.connection.url, name="either")
        found: list[Record] = []
        await Reader(await open_log(connection), found.append, stop_when_caught_up=True).run()
        client = connection.client
        assert isinstance(client._transport, TcpTransport)
        assert client._transport._io_writer is not None
        assert isinstance(client._transport._io_writer.transport.get_protocol(), Incoming)
        await connection.close()
        return [len(record.data) for record in found]

    assert await asyncio.to_thread(run, read()) == [5000] * 300
