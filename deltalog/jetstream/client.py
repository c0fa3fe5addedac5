"""nats-py's client as the log uses it, by public names of nats-py alone.

Its calls end when their task is cancelled, and messages are handed to handlers of three arguments or four. What is
faster, and what only private names can do, is `deltalog.jetstream.fast_client`, which is used where it can be. Without
it, everything works as well, but:

- an error of the server other than a refused permission, such as a JWT that expires, ends the connection for good;
  it is said in the log and by /readyz, and the process has to be started again;
- TLS is used only where the server insists on it (`tls_required`): one that merely offers it is refused where TLS is
  asked for;
- the first attempt to connect is cut by its patience while a server without TLS answers;
- another server that has taken the port of the one that is meant (`Client.server`) is not told apart from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

from nats import errors
from nats.aio.client import Client as PublicClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from deltalog.jetstream.headers import header_block, headers_of_lines
from deltalog.wire.errors import LogUnavailable

# Gets the last token of a message's subject, and its data.
AckHandler = Callable[[bytes, bytes], None]
# Gets a message's subject, reply subject, header block and data. What it returns is awaited before anything else of the
# subscription is handed out.
Receiver = Callable[[bytes, bytes, bytes, bytes], Awaitable[None] | None]
# Ends a subscription.
End = Callable[[], Awaitable[None]]


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """For calls of nats-py: a cancellation that arrived inside and was swallowed there is raised behind them.

    Its flushing and closing drop one, and so does `asyncio.wait_for` before Python 3.12 when the answer comes at the
    same moment (cpython issue 81839). A task that is told once to end must end, also when what it called went on
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


class AnotherServer(errors.Error, LogUnavailable):
    """Not the server that is meant answers, but one that has taken its port. It may pass by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another server, {name[:64]!r}, has its port")


class Client(PublicClient):
    """A NATS client whose calls end when their task is cancelled, see `cancellable`."""

    # Whether it uses what nats-py keeps to itself.
    fast: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        # Called when a server that is connected to has said who it is.
        self.greeted: Callable[[], None] | None = None
        # Whether to connect over TLS or not at all.
        self.needs_tls = False
        # What the only server is called that is meant; empty: whoever answers.
        self.server = ""

    async def connect(self, *given: Any, **options: Any) -> None:
        """As nats-py's, but cancellable."""
        with cancellable():
            await super().connect(*given, **options)

    async def close(self) -> None:
        """As nats-py's, but cancellable."""
        with cancellable():
            await super().close()

    async def request(self, *given: Any, **options: Any) -> Msg:
        """As nats-py's, but cancellable. Raises nats.errors.TimeoutError, NoRespondersError and others of nats-py."""
        with cancellable():
            return await super().request(*given, **options)

    async def publish(self, *given: Any, **options: Any) -> None:
        """As nats-py's, but cancellable."""
        with cancellable():
            await super().publish(*given, **options)

    async def subscribe(self, *given: Any, **options: Any) -> Subscription:
        """As nats-py's, but cancellable."""
        with cancellable():
            return await super().subscribe(*given, **options)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription. Raises nats-py's errors, as where the connection is closed."""
        with cancellable():
            await subscription.unsubscribe()

    async def receive_acks(self, inbox: str, handler: AckHandler) -> End:
        """Subscribes to `<inbox>.*` for acknowledgements; returns what ends that.

        The handler may be called while the socket is read, and must not raise.
        """

        async def publicly(message: Msg) -> None:
            handler(message.subject.rpartition(".")[2].encode(), message.data)

        subscription = await self.subscribe(f"{inbox}.*", cb=publicly, pending_msgs_limit=-1, pending_bytes_limit=-1)
        return lambda: self.unsubscribe(subscription)

    async def receive(self, subject: str, receiver: Receiver) -> End:
        """Subscribes to a subject; returns what ends that.

        The receiver is called in order, message by message; neither it nor what it returns may raise. Here messages
        wait in an unbounded queue: how many there can be, the server's flow control bounds (ADR-17).
        """
        subscription = await self.subscribe_receiver(subject, receiver)
        return lambda: self.unsubscribe(subscription)

    async def subscribe_receiver(self, subject: str, receiver: Receiver) -> Subscription:
        """Subscribes as `receive` does, and returns nats-py's subscription, for `unsubscribe`."""

        async def publicly(message: Msg) -> None:
            block = header_block(message.headers)
            doing = receiver(message.subject.encode(), message.reply.encode(), block, message.data)
            if doing is not None:
                await doing

        return await self.subscribe(subject, cb=publicly, pending_msgs_limit=-1, pending_bytes_limit=-1)

    async def send(self, subject: str, reply: str, lines: bytes, payload: bytes) -> None:
        """Publishes a message whose header lines are made already (`header_lines`); raises what `publish` does."""
        await self.publish(subject, payload, reply=reply, headers=headers_of_lines(lines))
