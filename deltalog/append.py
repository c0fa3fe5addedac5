"""Appending to the log: pipelined, over one acknowledgement inbox, with a bounded window and deadlines.

nats-py's `publish_async` never resolves when the server answers with an error and leaks its permits over a
server restart (nats.py issue 985); so the inbox, the window and the deadlines are ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from deltalog.connection import TRANSPORT_ERRORS, Connection, cancellable

_WRONG_LAST_SEQUENCE = (10071, 10164)
# Bytes after which an append lets the rest of the process run.
_SLICE = 128 * 1024


class AppendError(Exception):
    """The log did not take a message; whether it is stored is known only to the log."""


class AppendTimeout(AppendError):
    """No acknowledgement came before the deadline: the message may or may not be stored."""


class Conflict(AppendError):
    """The expected last sequence of the named subject did not hold: the message was not stored."""


class Expect(NamedTuple):
    """What must hold for the server to store a message: `subject`'s last sequence is `sequence` (0: none).

    `subject` None means the message's own. Headers Nats-Expected-Last-Subject-Sequence[-Subject].
    """

    sequence: int
    subject: str | None = None

    def headers(self) -> dict[str, str]:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self.sequence)}
        if self.subject is not None:
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self.subject
        return headers


# Told once about each message: its sequence, or why it has none.
OnAck = Callable[[int, AppendError | None], None]


# An append under way: who is told, its deadline, its size.
_Pending = tuple[OnAck, float, int]


class _Problem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    stream: str = ""
    error: _Problem | None = None


_ack_decoder = msgspec.json.Decoder(_Ack)


class Appender:
    """The writing end of the log on one connection. Messages are stored in the order they were appended.

    At most `window` messages and `window_bytes` bytes are unacknowledged at a time; `append` waits for room.
    `ingest`: what stands before a subject where it is sent (`Log.ingest`), not where it is stored.
    When a message isn't acknowledged within `deadline` seconds, it and all that were appended with it end in
    AppendTimeout: what was in flight together is unknown together.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        ingest: str = "",
        window: int = 1024,
        window_bytes: int = 8 * 1024 * 1024,
        deadline: float = 10.0,
    ) -> None:
        self.connection = connection
        self._ingest = ingest
        # The highest sequence that a message got, by stream; and whether a later one got a lower one.
        self.highest: dict[str, int] = {}
        self.set_back: set[str] = set()
        self._window = window
        self._window_bytes = window_bytes
        self._deadline = deadline
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._next = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        # The stream that took in what was sent last.
        self._stream = ""
        self._unsent = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        client = self.connection.client
        inbox = client.new_inbox()
        self._inbox = inbox + "."
        self._subscription = await client.subscribe(
            self._inbox + "*", cb=self._arrived, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        client.takers[inbox.encode()] = self._acknowledged
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fail_all(AppendTimeout("the appender was closed"))
        self.connection.client.takers.pop(self._inbox[:-1].encode(), None)
        if self._subscription is not None and not self.connection.client.is_closed:
            try:
                await self._subscription.unsubscribe()
            except TRANSPORT_ERRORS:
                pass

    @property
    def outstanding(self) -> int:
        """Messages appended and not yet acknowledged."""
        return len(self._pending)

    async def append(
        self, subject: str, payload: bytes, on_ack: OnAck, headers: dict[str, str] | bytes | None = None
    ) -> None:
        """Sends one message and returns when it is on its way; `on_ack` hears of its fate, and must not raise.

        `headers` as bytes are lines of a header block (`deltalog.client.header_lines`), which is the quick way.
        Raises AppendError if it cannot even be sent.
        """
        while len(self._pending) >= self._window or self._pending_bytes >= self._window_bytes:
            self._room.clear()
            await self._room.wait()
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
        try:
            if isinstance(headers, bytes):
                await client.send(self._ingest + subject, reply, headers, payload)
            else:
                with cancellable():
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

    async def append_wait(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> int:
        """Appends one message and returns its sequence. Raises AppendError, Conflict, AppendTimeout."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def acknowledged(sequence: int, error: AppendError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(sequence)
            else:
                future.set_exception(error)

        await self.append(subject, payload, acknowledged, headers)
        return await future

    async def drain(self) -> None:
        """Waits until nothing is unacknowledged."""
        await self._idle.wait()

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

    async def _arrived(self, message: Msg) -> None:
        """The way of acknowledgements where the client has no short one."""
        self._acknowledged(message.subject.rpartition(".")[2].encode(), message.data)

    def _acknowledged(self, token: bytes, data: bytes) -> None:
        if not token.isdigit() or (pending := self._settle(int(token))) is None:
            return
        on_ack = pending[0]
        try:
            ack = _ack_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Without data: "no responders", so no stream takes this subject.
            reason = "no stream takes this subject; JetStream is off or the log is gone"
            self.connection.intake.refused(self._stream, reason)
            on_ack(0, AppendError(reason))
            return
        if ack.error is None:
            if self.connection.intake.refusals:
                self.connection.intake.accepted(ack.stream)
            self._stream = ack.stream
            if ack.seq > self.highest.get(ack.stream, 0):
                self.highest[ack.stream] = ack.seq
            else:
                self.set_back.add(ack.stream)
            on_ack(ack.seq, None)
        elif ack.error.err_code in _WRONG_LAST_SEQUENCE:
            on_ack(0, Conflict(ack.error.description))
        else:
            reason = f"{ack.error.description} ({ack.error.err_code})"
            self.connection.intake.refused(ack.stream, reason)
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
                self.connection.intake.refused(self._stream, str(late))
            self._fail_all(late)
        else:
            self._timer = loop.call_at(oldest[1], self._expire)

    def _fail_all(self, error: AppendError) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for token in list(self._pending):
            if (pending := self._settle(token)) is not None:
                pending[0](0, error)
