"""nats-py's client with a short way out for appends and a short way in for their acknowledgements and for reading.

`publish` of nats-py checks and formats each header with regular expressions, and its subscriptions parse all headers,
make a Msg of each message and hand it from task to task: that costs more than all else that an append does, and
about as much as all else that a reader does. The short ways use
what nats-py 2.16 keeps to itself, and only where it is there (`_SHORT`): with a version that has it otherwise
everything goes the public way, which does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from nats import errors
from nats.aio.client import Client as PublicClient
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from nkeys import NkeysError

from deltalog.jetstream.access import BadAccess

# Told of a message: the last token of its subject, and its data.
Taker = Callable[[bytes, bytes], None]
# Told of a message: its subject, reply subject, header block and data. What it returns is awaited before anything else
# is read.
Receiver = Callable[[bytes, bytes, bytes, bytes], Awaitable[None] | None]

_VERSION_LINE = b"NATS/1.0\r\n"
# What the short way out uses of nats-py's client.
_SHORT = ("_pending", "_pending_data_size", "_max_pending_size", "_flush_queue", "_ps", "stats")
# Subject, subscription, reply, size; with headers, their size comes before that of all.
_PLAIN = re.compile(rb"MSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+)\r\n").match
_HEADED = re.compile(rb"HMSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+) (\d+)\r\n").match
_LINE_END = b"\r\n"
_ODD_KEY = re.compile(r"[^!-9;-~]|^$")


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """For calls of nats-py: a cancellation that arrived inside and was swallowed there is raised behind them.

    Its `_flush_pending` and `close` drop one, and so does `asyncio.wait_for` before Python 3.12 when the answer comes
    at the same moment (cpython issue 81839). A task that is told once to end must end, also when what it called went on
    without regard and then failed.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def header_lines(headers: dict[str, str]) -> bytes:
    """Headers as the lines of a header block. ValueError if one would break out of its line."""
    for key, value in headers.items():
        if _ODD_KEY.search(key) or "\n" in value or "\r" in value:
            raise ValueError(f"header {key!r}: {value!r}")
    return b"".join(f"{key}: {value}\r\n".encode() for key, value in headers.items())


def _headers(lines: bytes) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition(": ") for line in lines.decode().split("\r\n") if line)}


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a message's header block, read as leniently as nats-py does; the status line is left out."""
    found = {}
    # Never empty, but a block that is no block at all is no reason to end a connection.
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        name = name.strip()
        if colon and name.isascii() and len(name.split()) <= 1:
            found[name] = value.strip(" \t\r\n\v\f")
    return found


class _Parser(Parser):
    """Gives takers' and receivers' messages to them without a detour, and nats-py all else, frame by frame.

    nats-py's parser never sees a part of a message, unless its text is one that this parser cannot read: so it is
    in the middle of none when the next bytes come.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._takers = client.takers
        self._receivers = client.receivers

    def reset(self) -> None:
        super().reset()
        # How many bytes there have to be before it is worth looking again: large messages come in many reads.
        self._due = 0

    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE:
            missing = self.needed + 2 - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
            if self.state != AWAITING_CONTROL_LINE:
                return
        if self.buf:
            self.buf += data
            if len(self.buf) < self._due:
                return
            data = bytes(self.buf)
            self.buf.clear()
        at, limit = 0, len(data)
        takers, receivers = self._takers, self._receivers
        while at < limit:
            if (found := _HEADED(data, at)) is not None:
                subject, sid, reply, head, size = found.groups(b"")
                begin = found.end()
                middle, end = begin + int(head), begin + int(size)
            elif (found := _PLAIN(data, at)) is not None:
                subject, sid, reply, size = found.groups(b"")
                begin = middle = found.end()
                end = begin + int(size)
            else:
                end = data.find(_LINE_END, at)
                if end < 0 or data.startswith((b"MSG", b"HMSG"), at):
                    # Part of a line, or a message's line that is none of ours to read.
                    break
                await super().parse(data[at : end + 2])
                at = end + 2
                continue
            if end + 2 > limit:
                self._due = end + 2 - at
                self.buf += memoryview(data)[at:]
                return
            at, begun = end + 2, at
            if (receiver := receivers.get(sid)) is not None:
                if (doing := receiver(subject, reply, data[begin:middle], data[middle:end])) is not None:
                    await doing
                continue
            if takers:
                inbox, _, token = subject.rpartition(b".")
                if (taker := takers.get(inbox)) is not None:
                    taker(token, data[middle:end])
                    continue
            await super().parse(data[begun:at])
        self._due = 0
        if at < limit:
            await super().parse(data[at:])


class Client(PublicClient):
    """A NATS client; `takers` are told of messages to their inbox at once, by the inbox without its last token.

    They are called while the socket is read, and must not raise. The inbox needs a subscription all the same, whose
    own callback gets the messages where there is no short way. `receivers` are the same by subscription, see `receive`.
    Its calls end when their task is cancelled, see `cancellable`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Called before each attempt to connect: files of TLS may have been replaced. Raises BadAccess.
        self.prepare: Callable[[], None] | None = None
        # Called when a server that is connected to has said who it is, before TLS and before it is told who we are.
        self.greeted: Callable[[], None] | None = None
        # Whether to connect over TLS or not at all.
        self.needs_tls = False
        self.takers: dict[bytes, Taker] = {}
        self.receivers: dict[bytes, Receiver] = {}
        self.short = hasattr(PublicClient, "_flush_pending") and all(hasattr(self, name) for name in _SHORT)
        if self.short:
            self._ps = _Parser(self)

    async def connect(self, *given: Any, **options: Any) -> None:
        with cancellable():
            await super().connect(*given, **options)

    async def close(self) -> None:
        with cancellable():
            await super().close()

    async def request(self, *given: Any, **options: Any) -> Msg:
        with cancellable():
            return await super().request(*given, **options)

    async def _flush_pending(self, *given: Any, **options: Any) -> Any:
        # What publishing, subscribing and ending a subscription may wait for.
        with cancellable():
            return await super()._flush_pending(*given, **options)

    async def _connect_to_server(self, s: Any) -> None:
        if self.prepare is not None:
            self.prepare()
        await super()._connect_to_server(s)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self.greeted is not None:
            self.greeted()
        if self.needs_tls and info.get("tls_available"):
            # nats-py takes TLS only where the server insists on it.
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        if self.needs_tls and not self._server_info.get("tls_required"):
            raise errors.Error("the server has no TLS, which is asked for; credentials were not sent")
        try:
            return super()._connect_command()
        except (BadAccess, NkeysError, OSError, ValueError, TypeError, AttributeError) as cause:
            # Anything but its own errors ends nats-py's reconnecting, for ever and in silence; and it runs into all
            # of these with a file of credentials that is being replaced.
            raise errors.Error(f"the credentials cannot be read: {cause}") from cause

    async def _process_err(self, err_msg: str) -> None:
        """nats-py closes a connection for good at most errors, as when a JWT expires; it shall be made anew."""
        if "permissions violation" in err_msg.lower():
            await super()._process_err(err_msg)
            return
        problem = errors.Error(f"nats: {err_msg.strip().strip(chr(39))}")
        await self._error_cb(problem)
        await self._process_op_err(problem)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        # Here are those that nats-py's own parser had to read.
        if (receiver := self.receivers.get(b"%d" % sid)) is not None:
            if (doing := receiver(subject, reply, headers or b"", data)) is not None:
                await doing
            return
        if self.takers:
            inbox, _, token = subject.rpartition(b".")
            if (taker := self.takers.get(inbox)) is not None:
                taker(token, data)
                return
        await super()._process_msg(sid, subject, reply, data, headers)

    async def receive(self, subject: str, receiver: Receiver) -> Callable[[], Awaitable[None]]:
        """Subscribes to a subject; returns what ends that.

        The receiver is called while the socket is read: nothing more is read before it is done, so that there is no
        queue that could grow. It must not raise, nor may what it returns.
        """

        async def publicly(message: Msg) -> None:
            block = b""
            if message.headers:
                lines = (f"{key}: {value}\r\n" for key, value in message.headers.items())
                block = b"".join((_VERSION_LINE, "".join(lines).encode(), _LINE_END))
            doing = receiver(message.subject.encode(), message.reply.encode(), block, message.data)
            if doing is not None:
                await doing

        subscription = await self.subscribe(subject, cb=publicly, pending_msgs_limit=-1, pending_bytes_limit=-1)
        sid = b"%d" % subscription._id
        if self.short:
            self.receivers[sid] = receiver

        async def end() -> None:
            self.receivers.pop(sid, None)
            await subscription.unsubscribe()

        return end

    async def send(self, subject: str, reply: str, lines: bytes, payload: bytes) -> None:
        """Publishes a message whose header lines are made already (`header_lines`); raises what `publish` does.

        `subject` is not checked: those of `deltalog.wire.subjects` cannot hold what would break the protocol. Suspends
        only when more waits to be sent than the connection's `pending_size`.
        """
        size = len(payload)
        if not self.short or not self.is_connected or self._pending_data_size + size > self._max_pending_size:
            await self.publish(subject, payload, reply=reply, headers=_headers(lines))
            return
        if size > self.max_payload:
            raise errors.MaxPayloadError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        block = len(_VERSION_LINE) + len(lines) + 2
        command = f"HPUB {subject} {reply} {block} {block + size}\r\n".encode()
        frame = b"".join((command, _VERSION_LINE, lines, b"\r\n", payload, b"\r\n"))
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += size
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()
