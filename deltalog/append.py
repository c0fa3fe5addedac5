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


class _Pending(NamedTuple):
    on_ack: OnAck
    deadline: float
    size: int


class _Problem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Problem | None = None


_ack_decoder = msgspec.json.Decoder(_Ack)


class Appender:
    """The writing end of the log on one connection. Messages are stored in the order they were appended.

    At most `window` messages and `window_bytes` bytes are unacknowledged at a time; `append` waits for room.
    When a message isn't acknowledged within `deadline` seconds, it and all that were appended with it end in
    AppendTimeout: what was in flight together is unknown together.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        window: int = 1024,
        window_bytes: int = 8 * 1024 * 1024,
        deadline: float = 10.0,
    ) -> None:
        self.connection = connection
        self._window = window
        self._window_bytes = window_bytes
        self._deadline = deadline
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._next = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        client = self.connection.client
        self._inbox = client.new_inbox() + "."
        self._subscription = await client.subscribe(
            self._inbox + "*", cb=self._acknowledged, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fail_all(AppendTimeout("the appender was closed"))
        if self._subscription is not None and not self.connection.client.is_closed:
            try:
                await self._subscription.unsubscribe()
            except TRANSPORT_ERRORS:
                pass

    @property
    def outstanding(self) -> int:
        """Messages appended and not yet acknowledged."""
        return len(self._pending)

    async def append(self, subject: str, payload: bytes, on_ack: OnAck, headers: dict[str, str] | None = None) -> None:
        """Sends one message and returns when it is on its way; `on_ack` hears of its fate.

        Raises AppendError if it cannot even be sent.
        """
        while len(self._pending) >= self._window or self._pending_bytes >= self._window_bytes:
            self._room.clear()
            await self._room.wait()
        self._next += 1
        token = self._next
        loop = asyncio.get_running_loop()
        size = len(payload)
        self._pending[token] = _Pending(on_ack, loop.time() + self._deadline, size)
        self._pending_bytes += size
        self._idle.clear()
        if self._timer is None:
            self._timer = loop.call_later(self._deadline, self._expire)
        try:
            with cancellable():
                await self.connection.client.publish(subject, payload, reply=f"{self._inbox}{token}", headers=headers)
        except TRANSPORT_ERRORS as cause:
            self._settle(token)
            raise AppendError(f"append to {subject}: {cause or type(cause).__name__}") from cause

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
        self._pending_bytes -= pending.size
        if not self._room.is_set():
            self._room.set()
        if not self._pending:
            self._idle.set()
        return pending

    async def _acknowledged(self, message: Msg) -> None:
        pending = self._settle(int(message.subject.rpartition(".")[2]))
        if pending is None:
            return
        try:
            ack = _ack_decoder.decode(message.data)
        except msgspec.MsgspecError:
            # Without data: "no responders", so no stream takes this subject.
            pending.on_ack(0, AppendError("no stream takes this subject; JetStream is off or the log is gone"))
            return
        if ack.error is None:
            pending.on_ack(ack.seq, None)
        elif ack.error.err_code in _WRONG_LAST_SEQUENCE:
            pending.on_ack(0, Conflict(ack.error.description))
        else:
            pending.on_ack(0, AppendError(f"{ack.error.description} ({ack.error.err_code})"))

    def _expire(self) -> None:
        self._timer = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        oldest = next(iter(self._pending.values()))
        if oldest.deadline <= loop.time():
            self._fail_all(AppendTimeout(f"no acknowledgement within {self._deadline:g} s"))
        else:
            self._timer = loop.call_at(oldest.deadline, self._expire)

    def _fail_all(self, error: AppendError) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for token in list(self._pending):
            if (pending := self._settle(token)) is not None:
                pending.on_ack(0, error)
