"""Appending to the log: pipelined, over one acknowledgement inbox, with a bounded window and deadlines.

nats-py's `publish_async` never resolves when the server answers with an error and leaks its permits over a
server restart (nats.py issue 985); so the inbox, the window and the deadlines are ours.

A stream with replicas takes one message at a time that expects something of the same subject, as all messages of an
owner do, and refuses others meanwhile (error 10164, which says nothing about what they expect). There what gathers
while one is on its way is sent as an atomic batch (ADR-50), which counts as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from deltalog.jetstream.acknowledgement import IN_PROCESS, TOO_LARGE, Ack, Expect, decode_ack
from deltalog.jetstream.client import End
from deltalog.jetstream.connection import TRANSPORT_ERRORS, Connection
from deltalog.jetstream.headers import header_lines
from deltalog.jetstream.stream import Log
from deltalog.wire.errors import LogUnavailable

# Seconds until what met another one on its way is sent again.
_PAUSE_WHILE_IN_PROCESS = 0.01
# What a batch may hold; the server's own limit is 1,000 messages.
_BATCH_BYTES = 2 * 1024 * 1024
# Bytes after which an append lets the rest of the process run.
_SLICE = 128 * 1024


class AppendError(LogUnavailable):
    """The log did not take a message; whether it is stored is known only to the log."""


class AppendTimeout(AppendError):
    """No acknowledgement came before the deadline: the message may or may not be stored."""


class MessageTooLarge(AppendError):
    """The message has more bytes than the stream, or the server, takes: it was not stored, and never will be."""


class Conflict(AppendError):
    """The expected last sequence of the named subject did not hold: the message was not stored."""


class Fence:
    """What all messages of one owner expect: that the last message of `subject`, its record, is the one at `sequence`.

    An appender writes it into a message in the moment in which it sends it, so that it can be renewed
    (`Appender.renew`). Several writers share one.
    """

    def __init__(self, subject: str, sequence: int) -> None:
        self.subject = subject
        # Set but while the record is being renewed: until then nobody knows what to expect.
        self.settled = asyncio.Event()
        self.move(sequence)

    def move(self, sequence: int) -> None:
        """The record is at another sequence from now on."""
        self.sequence = sequence
        self.lines = header_lines(self.headers())
        self.settled.set()

    def headers(self) -> dict[str, str]:
        """The headers that make the server refuse a message once the record has a successor."""
        return Expect(self.sequence, self.subject).headers()


# Called once for each message, with its sequence, or 0 and why it has none.
OnAck = Callable[[int, AppendError | None], None]


# An append under way: its callback, its deadline (of the loop's clock), its size in bytes.
_Pending = tuple[OnAck, float, int]


class _Queued(NamedTuple):
    """A message that waits for its batch."""

    token: int
    subject: str
    lines: bytes
    payload: bytes


class Appender:
    """The writing end of the log on one connection. Messages are stored in the order they were appended.

    At most `window` messages and `window_bytes` bytes are unacknowledged at a time; `append` waits for room.
    `ingest`: what stands before a subject where it is sent (`Log.ingest`), not where it is stored.
    `batch`: how many messages are sent together at most, while nothing else is on its way; 0: each at once.
    When a message isn't acknowledged within `deadline` seconds, it and all that were appended with it end in
    AppendTimeout: what was in flight together is unknown together.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        ingest: str = "",
        batch: int = 0,
        window: int = 1024,
        window_bytes: int = 8 * 1024 * 1024,
        deadline: float = 10.0,
    ) -> None:
        self.connection = connection
        self.window = window
        self._ingest = ingest
        # The highest sequence that a message got, by stream; and whether a later one got a lower one.
        self.highest: dict[str, int] = {}
        self.set_back: set[str] = set()
        self._window_bytes = window_bytes
        self._deadline = deadline
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._next = 0
        self._inbox = ""
        self._end: End | None = None
        # The stream that took in what was sent last.
        self._stream = ""
        self._unsent = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._batch = batch
        self._queue: deque[_Queued] = deque()
        self._queued = asyncio.Event()
        # The batch on its way, and whether it is to be sent again.
        self._flying: list[_Queued] = []
        self._landed: asyncio.Future[bool] | None = None
        self._batching: asyncio.Task[None] | None = None

    @classmethod
    def to(cls, log: Log, **options: Any) -> Self:
        """One for a log, which sends as that wants it."""
        return cls(log.connection, ingest=log.ingest, batch=log.batch, **options)

    async def __aenter__(self) -> Self:
        client = self.connection.client
        inbox = client.new_inbox()
        self._inbox = inbox + "."
        self._end = await client.receive_acks(inbox, self._acknowledged)
        if self._batch:
            self._batching = asyncio.create_task(self._send_batches(), name="appender: batches")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._batching is not None:
            self._batching.cancel()
            await asyncio.wait((self._batching,))
        self._fail_all(AppendTimeout("the appender was closed"))
        if self._end is not None:
            with contextlib.suppress(*TRANSPORT_ERRORS):
                await self._end()

    @property
    def outstanding(self) -> int:
        """Messages appended and not yet acknowledged."""
        return len(self._pending)

    async def append(
        self,
        subject: str,
        payload: bytes,
        on_ack: OnAck,
        headers: dict[str, str] | bytes | None = None,
        fence: Fence | None = None,
    ) -> None:
        """Sends one message and returns when it is on its way; `on_ack` hears of its fate, and must not raise.

        `headers` as bytes are lines of a header block (`header_lines`), which is the quick way. `fence`: what it
        expects, too.
        Raises AppendError if it cannot even be sent.
        """
        while True:
            if len(self._pending) >= self.window or self._pending_bytes >= self._window_bytes:
                self._room.clear()
                await self._room.wait()
            elif fence is not None and not fence.settled.is_set():
                await fence.settled.wait()
            else:
                break
        if fence is not None:
            headers = fence.lines + (headers if isinstance(headers, bytes) else header_lines(headers or {}))
        self._next += 1
        token = self._next
        loop = asyncio.get_running_loop()
        size = len(payload)
        self._pending[token] = (on_ack, loop.time() + self._deadline, size)
        self._pending_bytes += size
        self._idle.clear()
        if self._timer is None:
            self._timer = loop.call_later(self._deadline, self._expire)
        client, reply = self.connection.client, f"{self._inbox}{token}"
        if self._batch:
            if size > client.max_payload:
                self._settle(token)
                raise AppendError(f"append to {subject}: nats: maximum payload exceeded")
            lines = headers if isinstance(headers, bytes) else header_lines(headers or {})
            self._queue.append(_Queued(token, self._ingest + subject, lines, payload))
            self._queued.set()
            return
        try:
            if isinstance(headers, bytes):
                await client.send(self._ingest + subject, reply, headers, payload)
            else:
                await client.publish(self._ingest + subject, payload, reply=reply, headers=headers)
        except TRANSPORT_ERRORS as cause:
            self._settle(token)
            raise AppendError(f"append to {subject}: {cause or type(cause).__name__}") from cause
        self._unsent += size
        if self._unsent >= _SLICE:
            # What is sent leaves the process, and what has come is read, only while we wait: a window filled in one
            # go would have the server idle while we work, and us while it does.
            self._unsent = 0
            await asyncio.sleep(0)

    async def append_wait(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, fence: Fence | None = None
    ) -> int:
        """Appends one message and returns its sequence. Raises AppendError, Conflict, AppendTimeout."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def acknowledged(sequence: int, error: AppendError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(sequence)
            else:
                future.set_exception(error)

        await self.append(subject, payload, acknowledged, headers, fence)
        return await future

    async def renew(self, fence: Fence, payload: bytes, headers: dict[str, str]) -> int:
        """Appends the record of a fence again, so that it stands at the end of the stream; returns its sequence.

        What is on its way is acknowledged before, and what is to be appended meanwhile waits, so that each message
        expects the record that is there when it comes.
        Raises as `append_wait`; then the fence is as it was, and what expects it may be refused.
        """
        fence.settled.clear()
        try:
            await self.drain()
            expected = Expect(fence.sequence).headers()
            fence.move(await self.append_wait(fence.subject, payload, {**expected, **headers}))
        finally:
            fence.settled.set()
        return fence.sequence

    async def drain(self) -> None:
        """Waits until nothing is unacknowledged."""
        await self._idle.wait()

    async def _send_batches(self) -> None:
        while True:
            await self._queued.wait()
            batch: list[_Queued] = []
            size = 0
            while self._queue and len(batch) < self._batch and size < _BATCH_BYTES:
                batch.append(self._queue.popleft())
                size += len(batch[-1].payload)
            if not batch:
                self._queued.clear()
                continue
            while await self._send_batch(batch):
                await asyncio.sleep(_PAUSE_WHILE_IN_PROCESS)
                if batch[0].token not in self._pending:
                    # Its deadline is over.
                    break

    async def _send_batch(self, batch: list[_Queued]) -> bool:
        """Sends messages and waits for their fate, of which they are told; True if they are to be sent again."""
        self._landed = asyncio.get_running_loop().create_future()
        self._flying = batch
        identity = secrets.token_hex(8)
        try:
            for number, one in enumerate(batch, 1):
                lines, reply = one.lines, ""
                if len(batch) > 1:
                    lines += f"Nats-Batch-Id: {identity}\r\nNats-Batch-Sequence: {number}\r\n".encode()
                if number == len(batch):
                    lines += b"Nats-Batch-Commit: 1\r\n" if number > 1 else b""
                    reply = f"{self._inbox}{one.token}"
                await self.connection.client.send(one.subject, reply, lines, one.payload)
        except TRANSPORT_ERRORS as cause:
            self._flying = []
            error = AppendError(f"append to {batch[0].subject}: {cause or type(cause).__name__}")
            for one in batch:
                if (pending := self._settle(one.token)) is not None:
                    pending[0](0, error)
            return False
        return await self._landed

    def _land(self, token: int, ack: Ack) -> None:
        """The answer to a batch, named by its last message."""
        batch = self._flying
        if not batch or batch[-1].token != token or self._landed is None or self._landed.done():
            return
        self._flying = []
        again = ack.error is not None and ack.error.err_code == IN_PROCESS
        self._landed.set_result(again)
        if again:
            return
        # A batch is stored as a whole, without anything between.
        for behind, one in zip(range(len(batch) - 1, -1, -1), batch, strict=True):
            if (pending := self._settle(one.token)) is not None:
                self._tell(pending[0], msgspec.structs.replace(ack, seq=ack.seq - behind))

    def _settle(self, token: int) -> _Pending | None:
        pending = self._pending.pop(token, None)
        if pending is None:
            return None
        self._pending_bytes -= pending[2]
        if not self._room.is_set():
            self._room.set()
        if not self._pending:
            self._idle.set()
        return pending

    def _acknowledged(self, token: bytes, data: bytes) -> None:
        if not token.isdigit():
            return
        number = int(token)
        ack = decode_ack(data)
        if self._batch:
            self._land(number, ack)
        elif (pending := self._settle(number)) is not None:
            self._tell(pending[0], ack)

    def _tell(self, on_ack: OnAck, ack: Ack) -> None:
        health = self.connection.append_health
        if ack.error is None:
            if health.refusals:
                health.accepted(ack.stream)
            self._stream = ack.stream
            if ack.seq > self.highest.get(ack.stream, 0):
                self.highest[ack.stream] = ack.seq
            else:
                self.set_back.add(ack.stream)
            on_ack(ack.seq, None)
        elif ack.conflict:
            on_ack(0, Conflict(ack.error.description))
        else:
            reason = ack.error.description
            if ack.error.err_code:
                reason += f" ({ack.error.err_code})"
            if ack.error.err_code == TOO_LARGE:
                on_ack(0, MessageTooLarge(reason))
                return
            health.refused(ack.stream or self._stream, reason)
            on_ack(0, AppendError(reason))

    def _expire(self) -> None:
        self._timer = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        oldest = next(iter(self._pending.values()))
        if oldest[1] <= loop.time():
            late = AppendTimeout(f"no acknowledgement within {self._deadline:g} s")
            if self.connection.connected:
                # So it is with a disk that is full, until the server is started again.
                self.connection.append_health.refused(self._stream, str(late))
            self._fail_all(late)
        else:
            self._timer = loop.call_at(oldest[1], self._expire)

    def _fail_all(self, error: AppendError) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        self._flying = []
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(False)
        for token in list(self._pending):
            if (pending := self._settle(token)) is not None:
                pending[0](0, error)
