"""nats-py's client with a short way out for appends and a short way in for their acknowledgements.

`publish` of nats-py checks and formats each header with regular expressions and its subscriptions make a Msg of each
acknowledgement and hand it from task to task: both cost more than all else that an append does. The short ways use
what nats-py 2.16 keeps to itself, and only where it is there (`_SHORT`): with a version that has it otherwise
everything goes the public way, which does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from nats import errors
from nats.aio.client import Client as PublicClient
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

# Told of a message: the last token of its subject, and its data.
Taker = Callable[[bytes, bytes], None]

_VERSION_LINE = b"NATS/1.0\r\n"
# What the short way out uses of nats-py's client.
_SHORT = ("_pending", "_pending_data_size", "_max_pending_size", "_flush_queue", "_flush_pending", "_ps", "stats")
_MESSAGE = re.compile(rb"MSG ([^ \r\n]+)\.([^ .\r\n]+) \d+ (\d+)\r\n")
_ODD_KEY = re.compile(r"[^!-9;-~]|^$")


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """For calls of nats-py: a cancellation that arrived inside and was swallowed there is raised behind them.

    Its `_flush_pending` drops one, and so does `asyncio.wait_for` before Python 3.12 when the answer comes at the
    same moment (cpython issue 81839). A task that is told once to end must end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    yield
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


class _Parser(Parser):
    """Gives a taker's messages to it without a detour, as long as nothing else comes between them."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._takers = client.takers

    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE or not self._takers:
            await super().parse(data)
            return
        if self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        at, limit, match = 0, len(data), _MESSAGE.match
        while (found := match(data, at)) is not None:
            inbox, token, size = found.groups()
            taker = self._takers.get(inbox)
            if taker is None:
                break
            begin = found.end()
            end = begin + int(size)
            if end + 2 > limit:
                # The rest of this one comes with the next bytes.
                self.buf.extend(data[at:])
                return
            at = end + 2
            taker(token, data[begin:end])
        if at < limit:
            await super().parse(data[at:])


class Client(PublicClient):
    """A NATS client; `takers` are told of messages to their inbox at once, by the inbox without its last token.

    They are called while the socket is read, and must not raise. The inbox needs a subscription all the same, whose
    own callback gets the messages where there is no short way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[bytes, Taker] = {}
        self.short = all(hasattr(self, name) for name in _SHORT)
        if self.short:
            self._ps = _Parser(self)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        # Here are those that came in pieces or with others; with headers: "no responders".
        if self.takers:
            inbox, _, token = subject.rpartition(b".")
            if (taker := self.takers.get(inbox)) is not None:
                taker(token, data)
                return
        await super()._process_msg(sid, subject, reply, data, headers)

    async def send(self, subject: str, reply: str, lines: bytes, payload: bytes) -> None:
        """Publishes a message whose header lines are made already (`header_lines`); raises what `publish` does.

        `subject` is not checked: those of `deltalog.subjects` cannot hold what would break the protocol. Suspends
        only when more waits to be sent than the connection's `pending_size`.
        """
        size = len(payload)
        if not self.short or not self.is_connected or self._pending_data_size + size > self._max_pending_size:
            with cancellable():
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
            with cancellable():
                await self._flush_pending()
