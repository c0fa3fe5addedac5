"""Reading the log in order: from any sequence, for ever, over reconnects, without a silent gap.

One push consumer, ephemeral and without acknowledgements, whose own sequence is checked on every message and
heartbeat (as ADR-17's ordered consumer does). The position moves when a record was applied, never when it
was received: whenever it can't be proved that nothing was missed, reading starts again behind the last
applied sequence. nats-py's own ordered consumer advances before it may drop a message, and is silent for ever
when the stream was recreated; hence this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import TRANSPORT_ERRORS, BrokerUnavailable
from deltalog.jetstream.headers import parse_headers
from deltalog.jetstream.same_history import Progress, why_another, why_not_continued
from deltalog.jetstream.stream import Log, Stream
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import HistoryEnded, LogUnavailable

log = structlog.get_logger("deltalog.reader")


class HistoryChanged(HistoryEnded):
    """What was applied so far is not the beginning of what the stream holds now.

    The stream was recreated, restored from an older copy, or cut: sequences mean other changes than before.
    """


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log. `time`: when the server stored it, nanoseconds since 1970.

    A headers-only reader gets empty `data`. `block` are the headers as they came: few readers want them parsed.
    """

    sequence: int
    time: int
    subject: str
    data: bytes
    block: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """Parsed at each call."""
        return parse_headers(self.block) if self.block else {}


class _Broken(Exception):
    """This consumer may have missed something; the reader makes another behind the last applied sequence."""


class _ConsumerInfo(msgspec.Struct):
    name: str
    num_pending: int = 0


class Reader:
    """Reads a log in order into a callback.

    `position` is the last sequence applied and is owned here; `pending` is how many messages the log had behind the
    one being applied; `caught_up` is set once all that the log held when the reader looked is applied, and stays set;
    where the stream has replicas, all that its leader held. `after`: where to begin; with a `Progress` it is checked
    that the log is still what was read up to there.
    """

    def __init__(
        self,
        log: Stream,
        apply: Callable[[Record], None],
        *,
        after: int | Progress = 0,
        subjects: Sequence[str] = (),
        headers_only: bool = False,
        stop_when_caught_up: bool = False,
        timing: LogTiming = DEFAULT_TIMING,
    ) -> None:
        self.log = log
        begin = after if isinstance(after, Progress) else Progress(after, 0, 0)
        self.position = begin.sequence
        self.position_time = begin.time
        self.caught_up = asyncio.Event()
        self.restarts = 0
        self.pending = 0
        # When the youngest of all messages applied was stored.
        self.latest = begin.latest
        # When the log was last heard of (time.monotonic): a message, or that there is none.
        self.heard = time.monotonic()
        self._apply = apply
        self._subjects = tuple(subjects)
        self._headers_only = headers_only
        self._stop_when_caught_up = stop_when_caught_up
        self._timing = timing
        self._identity = log.identity
        self._going = asyncio.Event()
        self._going.set()
        # The server's question whether to send more, and who answers it, while paused.
        self._asked = ""
        self._answer: Callable[[], None] | None = None

    @property
    def progress(self) -> Progress:
        """How far the log was read and applied."""
        return Progress(self.position, self.position_time, self.latest)

    def begin_at(self, progress: Progress) -> None:
        """Sets the position before `run`: what was applied elsewhere, with its time, so that it can be checked."""
        self.position, self.position_time, self.latest = progress

    def pause(self) -> None:
        """Has the server stop sending, where no more can be held; what is under way still comes.

        The server's questions whether to go on (flow control) are left open until `resume`. It has up to 32 MiB on
        the way then, so what comes behind `pause` is bounded by that.
        """
        self._going.clear()

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._going.set()
        if self._answer is not None:
            self._answer()

    async def run(self, on_outage: Callable[[bool], None] | None = None) -> None:
        """Reads until cancelled (or caught up, if asked to stop there).

        `on_outage(True)` is called when the log cannot be read, `on_outage(False)` when it can again. Raises
        HistoryChanged, and what `apply` raises, which must not be LogUnavailable.
        """
        backoff = Backoff(*self._timing.read_again)
        out = False
        while True:
            # A new consumer would begin by sending a whole window: not while it cannot be held.
            await self._going.wait()
            try:
                try:
                    await self._check_history()
                except HistoryChanged:
                    # It can be read, though it is another history.
                    if out and on_outage is not None:
                        on_outage(False)
                    raise
                if out and on_outage is not None:
                    on_outage(False)
                out = False
                before = self.position
                await self._read()
                return
            except _Broken as reason:
                self.restarts += 1
                log.info("reading the log anew", after=self.position, reason=str(reason))
                if self.position > before:
                    backoff.reset()
            except LogUnavailable as cause:
                if not out:
                    log.warning("the log cannot be read", url=self.log.connection.url, reason=str(cause))
                    if on_outage is not None:
                        on_outage(True)
                out = True
            await backoff.wait()

    async def _check_history(self) -> None:
        state = await self.log.state()
        if (reason := why_another(self.log.name, state, self._identity)) is None and self.position:
            reason = await why_not_continued(self.log, self.progress, state)
        if reason is not None:
            raise HistoryChanged(reason)

    async def _read(self) -> None:
        connection = self.log.connection
        client = connection.client
        inbox = client.new_inbox()
        name = f"kubebraid-{secrets.token_hex(6)}"
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[None] = loop.create_future()
        expected = 1
        self.heard = time.monotonic()

        def fail(reason: BaseException) -> None:
            if not outcome.done():
                outcome.set_exception(reason)

        async def answer(subject: str) -> None:
            try:
                await client.publish(subject)
            except TRANSPORT_ERRORS as cause:
                fail(_Broken(f"the server's flow control cannot be answered: {cause}"))

        def answer_later() -> None:
            asked, self._asked = self._asked, ""
            if asked and not outcome.done():
                answering = asyncio.ensure_future(answer(asked))
                answers.add(answering)
                answering.add_done_callback(answers.discard)

        answers: set[asyncio.Future[None]] = set()
        confirming: asyncio.Task[None] | None = None

        def nothing_pending() -> None:
            nonlocal confirming
            if self.caught_up.is_set() and not self._stop_when_caught_up:
                return
            if self.log.replicas == 1:
                self._now_caught_up(outcome)
            elif confirming is None:
                confirming = asyncio.create_task(self._reach_leader(outcome), name="reader-leader")

        self._asked, self._answer = "", answer_later

        def control(reply: str, block: bytes) -> Awaitable[None] | None:
            # Flow control and heartbeats: in order with the data, so that answering here is back-pressure.
            headers = parse_headers(block) if block else {}
            asked = reply or headers.get("Nats-Consumer-Stalled")
            last = headers.get("Nats-Last-Consumer")
            if last is not None and int(last) != expected - 1:
                fail(_Broken(f"the server sent {last} messages, {expected - 1} arrived"))
            elif last is not None and not asked:
                # Idle with nothing missing: what was pending at the start was purged meanwhile.
                nothing_pending()
            if asked and not self._going.is_set():
                self._asked = asked
                return None
            return answer(asked) if asked else None

        def received(subject: bytes, reply: bytes, block: bytes, data: bytes) -> Awaitable[None] | None:
            nonlocal expected
            if outcome.done():
                return None
            self.heard = time.monotonic()
            try:
                if not reply.startswith(b"$JS.ACK."):
                    return control(reply.decode(), block)
                tokens = reply.split(b".")
                # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>, or with
                # <domain>.<account> before <stream> and a random token at the end (ADR-15).
                at = 5 if len(tokens) < 11 else 7
                sequence, count, stored, pending = map(int, tokens[at : at + 4])
                name = subject.decode()
            except ValueError as cause:
                fail(_Broken(f"a message that is not JetStream's: {cause}"))
                return None
            if count != expected:
                fail(_Broken(f"consumer sequence {count}, {expected} was due"))
                return None
            expected += 1
            if sequence > self.position:
                self.pending = pending
                try:
                    self._apply(Record(sequence, stored, name, data, block))
                except Exception as error:  # noqa: BLE001 - the reader's owner gets it from run()
                    fail(error)
                    return None
                self.position = sequence
                self.position_time = stored
                if stored > self.latest:
                    self.latest = stored
            if not pending:
                nothing_pending()
            return None

        trouble = connection.watch_trouble(lambda: fail(_Broken("connection lost or message dropped")))
        try:
            end = await client.receive(inbox, received)
        except TRANSPORT_ERRORS as cause:
            trouble()
            raise BrokerUnavailable(f"NATS at {connection.url} cannot be asked: {cause}") from cause
        try:
            config: dict[str, object] = {
                "name": name,
                "deliver_subject": inbox,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.position + 1,
                "ack_policy": "none",
                "max_deliver": 1,
                "replay_policy": "instant",
                "flow_control": True,
                "idle_heartbeat": int(self._timing.heartbeat * 1e9),
                "inactive_threshold": 30_000_000_000,
                "mem_storage": True,
                "num_replicas": 1,
                "headers_only": self._headers_only,
            }
            if self._subjects:
                config["filter_subjects"] = list(self._subjects)
            request = {"stream_name": self.log.name, "config": config}
            creating = asyncio.ensure_future(connection.api(f"CONSUMER.CREATE.{self.log.name}.{name}", request))
            try:
                # What is read may come before the answer; and over a connection that was lost no answer comes.
                await asyncio.wait((creating, outcome), return_when=asyncio.FIRST_COMPLETED)
                if not outcome.done():
                    made = msgspec.json.decode(creating.result(), type=_ConsumerInfo)
                    if made.num_pending == 0 and expected == 1:
                        nothing_pending()
            finally:
                creating.cancel()
                await asyncio.gather(creating, return_exceptions=True)
            silence = self._timing.silence
            while not outcome.done():
                await asyncio.wait((outcome,), timeout=silence / 2)
                if not outcome.done() and time.monotonic() - self.heard > silence:
                    fail(_Broken(f"nothing heard for {silence:g} s"))
            outcome.result()
        finally:
            trouble()
            self._answer = None
            if confirming is not None:
                confirming.cancel()
                await asyncio.gather(confirming, return_exceptions=True)
            if outcome.done() and not outcome.cancelled():
                outcome.exception()
            with contextlib.suppress(*TRANSPORT_ERRORS):
                await end()
            if connection.connected:
                with contextlib.suppress(*TRANSPORT_ERRORS):
                    # Not awaited: the consumer ends by itself after its inactivity threshold.
                    await client.publish(f"{connection.js}.CONSUMER.DELETE.{self.log.name}.{name}")

    async def _reach_leader(self, outcome: asyncio.Future[None]) -> None:
        """Caught up once all that the stream's leader has now was applied.

        A consumer has one replica, and that may be at a server that has just started and lacks messages still: it has
        nothing more to send then, and what was read is not what the log holds.
        """
        backoff = Backoff(*self._timing.read_again)
        head: int | None = None
        while True:
            try:
                # Asked once: a log that is written to all the time always has something more.
                head = await self.log.head() if head is None else head
                missing = None if self.position >= head else await self.log.next_after(self.position, self._subjects)
                if missing is None or missing > head:
                    break
            except LogUnavailable as cause:
                log.debug("the log's leader cannot be asked", reason=str(cause))
            await backoff.wait()
        self._now_caught_up(outcome)

    def _now_caught_up(self, outcome: asyncio.Future[None]) -> None:
        self.caught_up.set()
        if self._stop_when_caught_up and not outcome.done():
            outcome.set_result(None)


async def read_to_end(
    log: Log,
    apply: Callable[[Record], None],
    *,
    subjects: Sequence[str] = (),
    headers_only: bool = False,
    after: int = 0,
) -> int:
    """Applies all that the log holds now (of `subjects`) and returns the last sequence seen there."""
    reader = Reader(log, apply, after=after, subjects=subjects, headers_only=headers_only, stop_when_caught_up=True)
    await reader.run()
    return reader.position
