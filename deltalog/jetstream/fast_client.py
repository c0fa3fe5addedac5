"""The client with a fast path out for appends and a fast path in for their acknowledgements and for reading.

`publish` of nats-py checks and formats each header with regular expressions, and its subscriptions parse all headers,
make a Msg of each message and hand it from task to task: that costs more than all else that an append does, and about
as much as all else that a reader does. The fast paths, and what cannot be done without private names (see
`deltalog.jetstream.client`), use what nats-py 2.16 keeps to itself. With a version of nats-py that lacks one of these
names (`missing_names`), connections take the public client, with which the tests of the log run, too.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar, cast

import structlog
from nats import errors
from nats.aio.client import Client as PublicClient
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from deltalog.jetstream.client import AckHandler, AnotherServer, Client, End, Receiver, cancellable
from deltalog.jetstream.headers import VERSION_LINE
from deltalog.jetstream.incoming import SIZE, Buffered, Incoming

log = structlog.get_logger("deltalog.connection")

# What is used of nats-py's client, of its parser and of its subscriptions.
_CLIENT = (
    *("_flush_pending", "_read_loop", "_transport", "_process_info", "_process_err", "_process_op_err", "_process_msg"),
    *("_pending", "_pending_data_size", "_max_pending_size", "_flush_queue", "_ps", "_error_cb", "stats"),
)
_PARSER = ("state", "needed", "buf", "parse", "reset")
_SUBSCRIPTION = ("_id",)
_TRANSPORT = ("_io_reader", "_io_writer")
# Subject, subscription, reply, size; with headers, their size comes before that of all.
_PLAIN = re.compile(rb"MSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+)\r\n").match
_HEADED = re.compile(rb"HMSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+) (\d+)\r\n").match
_LINE_END = b"\r\n"
# Bytes of a line: servers that know many others name them all in one.
_LONGEST_LINE = 1 << 20


def missing_names(client: object, subscription: object, parser: object, transport: object) -> list[str]:
    """Which names, that the fast paths use of nats-py, these have not."""
    used = ((client, _CLIENT), (parser, _PARSER), (subscription, _SUBSCRIPTION), (transport, _TRANSPORT))
    return [f"{type(one).__name__}.{name}" for one, names in used for name in names if not hasattr(one, name)]


def usable() -> bool:
    """Whether nats-py, as it is installed, has all that the fast paths use."""
    client = PublicClient()
    return not missing_names(client, Subscription(client), Parser(client), TcpTransport())


class _Frames:
    """Gives handlers' and receivers' messages to them without a detour, and nats-py all else, frame by frame.

    nats-py's parser never sees a part of a message, unless its text is one that cannot be read here: so it is in the
    middle of none when the next bytes come.
    """

    def __init__(self, client: FastClient, parser: Parser) -> None:
        self._parser = parser
        self._ack_handlers = client.ack_handlers
        self._receivers = client.receivers

    async def take(self, data: bytearray, view: memoryview, limit: int) -> tuple[int, int]:
        """Takes in the whole messages of a buffer that is filled up to `limit`, see `incoming.Take`.

        Raises:
            ProtocolError: it is not what a NATS server sends.
        """
        parser = self._parser
        handlers, receivers = self._ack_handlers, self._receivers
        at = 0
        while at < limit:
            if parser.state != AWAITING_CONTROL_LINE:
                missing = parser.needed + 2 - len(parser.buf)
                await parser.parse(bytes(view[at : min(at + missing, limit)]))
                at = min(at + missing, limit)
                continue
            if (found := _HEADED(data, at, limit)) is not None:
                subject, sid, reply, head, size = found.groups(b"")
                begin = found.end()
                middle, end = begin + int(head), begin + int(size)
            elif (found := _PLAIN(data, at, limit)) is not None:
                subject, sid, reply, size = found.groups(b"")
                begin = middle = found.end()
                end = begin + int(size)
            else:
                line_end = data.find(_LINE_END, at, limit) + 2
                if line_end < 2:
                    if limit - at > _LONGEST_LINE:
                        raise errors.ProtocolError("nats: a line without end")
                    return at, 0
                # Also a message's line that is none of ours to read.
                await parser.parse(bytes(view[at:line_end]))
                if parser.buf and parser.state == AWAITING_CONTROL_LINE:
                    raise errors.ProtocolError("nats: unknown protocol")
                at = line_end
                continue
            if end + 2 > limit:
                return at, end + 2 - at
            if (receiver := receivers.get(sid)) is not None:
                doing = receiver(subject, reply, bytes(view[begin:middle]), bytes(view[middle:end]))
                at = end + 2
                if doing is not None:
                    await doing
                continue
            if handlers:
                inbox, _, token = subject.rpartition(b".")
                if (handler := handlers.get(inbox)) is not None:
                    handler(token, bytes(view[middle:end]))
                    at = end + 2
                    continue
            at, begun = end + 2, at
            await parser.parse(bytes(view[begun:at]))
        return at, 0


class FastClient(Client):
    """A client that hands messages to handlers while the socket is read, and puts appends into its buffer itself.

    `ack_handlers`: by inbox, without the last token of a subject; `receivers`: by the number of a subscription. Nothing
    more is read before a receiver is done, so that there is no queue that could grow.
    """

    fast: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.ack_handlers: dict[bytes, AckHandler] = {}
        self.receivers: dict[bytes, Receiver] = {}
        self._frames = _Frames(self, self._ps)

    async def _flush_pending(self, *given: Any, **options: Any) -> Any:
        # What publishing, subscribing and ending a subscription may wait for.
        with cancellable():
            return await super()._flush_pending(*given, **options)

    async def _read_loop(self) -> None:
        try:
            if not await self._take_all() and not (self.is_closed or self.is_reconnecting):
                ended = errors.UnexpectedEOF()
                await self._error_cb(ended)
                await self._process_op_err(ended)
        except errors.ProtocolError:
            await self._process_op_err(errors.ProtocolError())
        except OSError as cause:
            await self._process_op_err(cause)
        except asyncio.CancelledError:
            # As in nats-py, which does not look at how it ended.
            return
        except Exception as problem:
            # nats-py would leave the connection open and read nothing more.
            log.exception("what NATS sent cannot be taken in: connecting anew")
            await self._process_op_err(problem)

    async def _take_all(self) -> bool:
        """Takes in what the connection brings; False at its end, True where it is given up here."""
        transport = self._transport
        if not isinstance(transport, TcpTransport):
            # WebSockets bring messages of their own.
            came = Buffered()
            while transport is not None and not transport.at_eof():
                came.feed(await transport.read(SIZE))
                await came.hand_out(self._frames.take)
                if self.is_closed or self.is_reconnecting:
                    return True
            return False
        reader, writer = transport._io_reader, transport._io_writer
        if reader is None or writer is None:
            return False
        # That it had ended is not to be seen any more once it was told so below.
        incoming = Incoming(cast(asyncio.Transport, writer.transport), ended=getattr(reader, "_eof", False))
        # What came behind the server's greeting.
        reader.feed_eof()
        incoming.feed(await reader.read())
        while await incoming.read(self._frames.take):
            if self.is_closed or self.is_reconnecting:
                return True
        return False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        name = str(info.get("server_name", ""))
        if initial_connection and self.server and name != self.server:
            # Before it is told who we are, and sent what waits to be sent.
            if self._transport is not None:
                self._transport.close()
            raise AnotherServer(name)
        if initial_connection and self.greeted is not None:
            self.greeted()
        if self.needs_tls and info.get("tls_available"):
            # nats-py takes TLS only where the server insists on it.
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

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
        if self.ack_handlers:
            inbox, _, token = subject.rpartition(b".")
            if (handler := self.ack_handlers.get(inbox)) is not None:
                handler(token, data)
                return
        await super()._process_msg(sid, subject, reply, data, headers)

    async def receive_acks(self, inbox: str, handler: AckHandler) -> End:
        """As `Client.receive_acks`; the handler is called while the socket is read."""
        unsubscribe = await super().receive_acks(inbox, handler)
        self.ack_handlers[inbox.encode()] = handler

        async def end() -> None:
            self.ack_handlers.pop(inbox.encode(), None)
            await unsubscribe()

        return end

    async def receive(self, subject: str, receiver: Receiver) -> End:
        """As `Client.receive`; the receiver is called while the socket is read, and there is no queue."""
        subscription = await self.subscribe_receiver(subject, receiver)
        sid = b"%d" % subscription._id
        self.receivers[sid] = receiver

        async def end() -> None:
            self.receivers.pop(sid, None)
            await self.unsubscribe(subscription)

        return end

    async def send(self, subject: str, reply: str, lines: bytes, payload: bytes) -> None:
        """As `Client.send`; suspends only when more waits to be sent than the connection's `pending_size`.

        `subject` is not checked: those of `deltalog.wire.subjects` cannot hold what would break the protocol.
        """
        size = len(payload)
        if not self.is_connected or self._pending_data_size + size > self._max_pending_size:
            await super().send(subject, reply, lines, payload)
            return
        if size > self.max_payload:
            raise errors.MaxPayloadError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        block = len(VERSION_LINE) + len(lines) + 2
        command = f"HPUB {subject} {reply} {block} {block + size}\r\n".encode()
        frame = b"".join((command, VERSION_LINE, lines, b"\r\n", payload, b"\r\n"))
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += size
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()
