"""Reading the log in order: from any sequence, for ever, over reconnects, without a silent gap.

In two phases. As far as the events reach back, every message is read, in order, none left out. What is older, or is not
wanted one by one (`state_to`), is read from the state: the last message of each subject, under the same sequences.

Each is read with one push consumer, ephemeral and without acknowledgements, whose own sequence is checked on every
message and heartbeat (as ADR-17's ordered consumer does). The position moves when a record was applied, never when it
was received: whenever it can't be proved that nothing was missed, reading starts again behind the last applied
sequence. nats-py's own ordered consumer advances before it may drop a message, and is silent for ever when the stream
was recreated; hence this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import TRANSPORT_ERRORS, BrokerUnavailable
from deltalog.jetstream.headers import parse_headers
from deltalog.jetstream.same_history import Progress, why_another, why_not_continued
from deltalog.jetstream.stream import Log, Stream
from deltalog.jetstream.stream_info import StreamState
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import HistoryEnded, LogUnavailable

log = structlog.get_logger("deltalog.reader")


class HistoryChanged(HistoryEnded):
    """What was applied so far is not the beginning of what the stream holds now.

    The stream was recreated, restored from an older copy, or cut: sequences mean other changes than before.
    """


class StateIncomplete(HistoryChanged):
    """The history is the same, but what the state lacks lies between what was applied and what the events have.

    Deletions may be among it: read from the beginning, and drop what does not come.
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


# How long the state stream is waited for before that is said, in seconds.
_STATE_WITHIN = 2.0
WHOLE_STATE = 2**63 - 1
"""As `state_to`: what is, as far as the state has it, then the events past that."""


class _Broken(Exception):
    """This consumer may have missed something; the reader makes another behind the last applied sequence."""


class _ConsumerInfo(msgspec.Struct):
    name: str
    num_pending: int = 0


class _Source(NamedTuple):
    """What to read now: the events, for ever; or the state up to sequence `until`, stored at `time` (0: not known).

    `ends`: nothing lay behind `until` when the log was asked.
    """

    stream: Stream
    until: int = 0
    time: int = 0
    ends: bool = False


class Reader:
    """Reads a log in order into a callback.

    `position` is the last sequence applied and is owned here; `pending` is how many messages the log had behind the
    one being applied; `caught_up` is set once all that the log held when the reader looked is applied, and stays set;
    where the stream has replicas, all that its leader held. `after`: where to begin; with a `Progress` it is checked
    that the log is still what was read up to there. `fresh`: nobody remembers what was before, so that it does not
    matter which deletions past it are forgotten.

    `state_to`: up to there the state is read, even where there are events. `compacted_through`: states up to that
    sequence may have been superseded before they were read here; it is set before the first record that this concerns
    is applied. Past it every event was, or will be, applied. `lacks_to`: up to where the state may have lacked messages
    when it was read from its beginning; they are appended again later. `resumed_from`: what had been applied when the
    state was gone on with from there; 0: it was not, or all of the log was applied since. Deletions past it that are
    forgotten meanwhile may not have come.

    Example: the log has events past 500, and `Reader(log, apply, state_to=800)` applies what was last said of each
    object by message 800, with `compacted_through` 800, then 801, 802, 803 and so on. `Reader(log, apply, after=600)`
    applies 601, 602, 603; `after=300` what the state has past 300, then all that comes after its end.
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
        state_to: int = 0,
        fresh: bool = False,
        timing: LogTiming = DEFAULT_TIMING,
    ) -> None:
        self.log = log
        begin = after if isinstance(after, Progress) else Progress(after, 0, 0)
        self.position = begin.sequence
        self.position_time = begin.time
        self.caught_up = asyncio.Event()
        self.restarts = 0
        self.pending = 0
        self.compacted_through = 0
        # When the youngest of all messages applied was stored.
        self.latest = begin.latest
        # When the log was last heard of (time.monotonic): a message, or that there is none.
        self.heard = time.monotonic()
        self._apply = apply
        self._subjects = tuple(subjects)
        self._headers_only = headers_only
        self._stop_when_caught_up = stop_when_caught_up
        self._state_to = state_to
        self._timing = timing
        self._identity = log.identity
        self._beginning = not begin.sequence
        self._fresh = fresh
        self.lacks_to = 0
        # Up to where deletions were forgotten when reading began; None: not asked yet.
        self._forgotten: int | None = None
        self.resumed_from = 0
        # The sequence up to which the events have nothing more of these subjects; and until when, by the server's
        # clock, nothing behind it can have aged away unread.
        self._looked_to = 0
        self._safe_until = 0
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
        self._beginning = not progress.sequence

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
        HistoryChanged, StateIncomplete, and what `apply` raises, which must not be LogUnavailable.
        """
        backoff = Backoff(*self._timing.read_again)
        out = False
        while True:
            # A new consumer would begin by sending a whole window: not while it cannot be held.
            await self._going.wait()
            try:
                try:
                    state = await self._check_history()
                except HistoryChanged:
                    # It can be read, though it is another history.
                    if out and on_outage is not None:
                        on_outage(False)
                    raise
                source = await self._source(state)
                if out and on_outage is not None:
                    on_outage(False)
                out = False
                before = self.position
                await self._read(source)
                if not source.until:
                    return
                backoff.reset()
                continue
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

    async def _check_history(self) -> StreamState:
        state = await self.log.state_read_to(self.position)
        if (reason := why_another(self.log.name, state, self._identity)) is None and self.position:
            reason = await why_not_continued(self.log, self.progress, state)
        if reason is not None:
            raise HistoryChanged(reason)
        return state

    async def _source(self, state: StreamState) -> _Source:
        """What to read next, where the events are in `state`. Raises LogUnavailable: nothing that would do, for now."""
        log_ = self.log
        events = _Source(log_)
        if not isinstance(log_, Log) or not log_.window:
            return events
        read_to = self._read_to
        kept_until = await log_.kept_until(read_to, state)
        self._safe_until = kept_until - log_.margin // 2
        if kept_until and self.position >= self._state_to:
            return events
        until = 0
        if read_to < self._state_to <= state.last_sequence and await log_.kept_until(self._state_to, state):
            until = self._state_to
        wanted = until or (state.last_sequence if self._state_to == WHOLE_STATE else read_to + 1)
        backoff = Backoff(*self._timing.read_again)
        patient_until = time.monotonic() + _STATE_WITHIN
        while True:
            # After `state`: what that had the state stream has soon.
            kept = await self._kept(log_, state)
            impatient = time.monotonic() > patient_until
            if kept is not None and kept.last_sequence >= (read_to + 1 if impatient and not until else wanted):
                break
            if kept_until and (wanted <= read_to or kept is None or impatient):
                # There is nothing more, or the state is lost, or lags: the events have it all.
                return events
            if impatient:
                has = "is not there" if kept is None else f"has come to {kept.last_sequence}"
                raise BrokerUnavailable(f"the state stream of {log_.name} {has}, and the events begin past {read_to}")
            await backoff.wait()
        if kept.lacks_to > max(self.position, self.lacks_to):
            if not self._beginning or self.caught_up.is_set():
                raise StateIncomplete(f"the state may lack messages up to {kept.lacks_to}, {self.position} was applied")
            # Who begins has nothing but what the state has, too, or a later message of.
            self.lacks_to = kept.lacks_to
        until = until or min(kept.last_sequence, state.last_sequence)
        if until <= read_to or log_.state_stream is None:
            return events
        await self._check_forgotten(log_)
        if self._state_to == WHOLE_STATE:
            self._state_to = until
        stored = kept.last_time if kept.last_sequence == until else await log_.message_time(until)
        self.compacted_through = max(self.compacted_through, until)
        return _Source(log_.state_stream, until, stored or 0, until == state.last_sequence)

    async def _check_forgotten(self, log_: Log) -> None:
        """Raises StateIncomplete if deletions past what was applied may have been taken out of the state."""
        forgotten = await log_.forgotten_through()
        if self._forgotten is None:
            # Who begins is not told of what was deleted by then, nor that it ever was.
            self._forgotten = forgotten if self._beginning or self._fresh else 0
        beginning = (self._beginning or self._fresh) and not self.caught_up.is_set()
        if self.position and forgotten > max(self.position, self._forgotten if beginning else 0):
            raise StateIncomplete(f"deletions up to {forgotten} were forgotten, {self.position} was applied")
        self.resumed_from = 0 if beginning else self.position

    @staticmethod
    async def _kept(log_: Log, state: StreamState) -> StreamState | None:
        """The extent of the state stream; None if there is none, or it is not of the same past as the events.

        Events that lost their end in a crash go on with other messages under the same sequences.
        """
        kept = await log_.kept()
        if kept is None or log_.state_stream is None or not kept.last_sequence:
            return kept
        if kept.last_sequence > state.last_sequence:
            state = await log_.state_past(kept.last_sequence)
            return kept if state.last_sequence >= kept.last_sequence else None
        here = await log_.state_stream.message_time(kept.last_sequence)
        there = await log_.events.message_time(kept.last_sequence)
        return None if here is not None and there is not None and here != there else kept

    @property
    def _read_to(self) -> int:
        """Up to where nothing more of these subjects is to come."""
        return max(self.position, self._looked_to)

    async def _read(self, source: _Source) -> None:
        """Reads a source until it ends, which the events do only where that is asked for."""
        stream, until = source.stream, source.until
        connection = stream.connection
        client = connection.client
        inbox = client.new_inbox()
        name = f"kubebraid-{secrets.token_hex(6)}"
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[None] = loop.create_future()
        expected = 1
        # Of all subjects, a gap in the sequences shows what was lost; of some, that what came last was recent enough.
        events = not until and isinstance(self.log, Log)
        whole, some = events and not self._subjects, events and bool(self._subjects)
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
            if not until:
                self.resumed_from = 0
            if not until and self.caught_up.is_set() and not self._stop_when_caught_up:
                return
            if until and self.position >= until:
                self._end_of(source, outcome)
            elif confirming is None:
                confirming = asyncio.create_task(self._reach_end(source, outcome), name="reader-end")

        self._asked, self._answer = "", answer_later

        def control(reply: str, block: bytes) -> Awaitable[None] | None:
            # Flow control and heartbeats: in order with the data, so that answering here is back-pressure.
            headers = parse_headers(block) if block else {}
            asked = reply or headers.get("Nats-Consumer-Stalled")
            last = headers.get("Nats-Last-Consumer")
            if last is not None and int(last) != expected - 1:
                fail(_Broken(f"the server sent {last} messages, {expected - 1} arrived"))
            elif last is not None and not asked:
                if some:
                    self._looked_to = max(self._looked_to, int(headers.get("Nats-Last-Stream", 0)))
                    self._all_read()
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
            more = pending
            if until:
                if sequence > until:
                    self._end_of(source, outcome)
                    return None
                if not source.ends or sequence < until:
                    # The events past it are still to come.
                    more += 1
            if sequence > self.position:
                if whole and sequence != self.position + 1 and not self._may_lack_up_to(sequence):
                    fail(_Broken(f"the events have nothing between {self.position} and {sequence}"))
                    return None
                if some and not self._was_kept(stored):
                    fail(_Broken("what lies before this message may be older than the events are"))
                    return None
                self.pending = more
                try:
                    self._apply(Record(sequence, stored, name, data, block))
                except Exception as error:  # noqa: BLE001 - the reader's owner gets it from run()
                    fail(error)
                    return None
                self.position = sequence
                self.position_time = stored
                if stored > self.latest:
                    self.latest = stored
            if sequence == until:
                self._end_of(source, outcome)
            elif not pending:
                if some:
                    self._all_read()
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
                "opt_start_seq": self._read_to + 1,
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
            request = {"stream_name": stream.name, "config": config}
            creating = asyncio.ensure_future(connection.api(f"CONSUMER.CREATE.{stream.name}.{name}", request))
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
            read_to = self._read_to
            while not outcome.done():
                await asyncio.wait((outcome,), timeout=silence / 2)
                if not outcome.done() and time.monotonic() - self.heard > silence:
                    fail(_Broken(f"nothing heard for {silence:g} s"))
                if some and not outcome.done():
                    now_read_to = self._read_to
                    if await self._discarded(read_to):
                        fail(_Broken(f"events past {read_to} were discarded to make room"))
                    read_to = now_read_to
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
                    await client.publish(f"{connection.js}.CONSUMER.DELETE.{stream.name}.{name}")

    def _may_lack_up_to(self, sequence: int) -> bool:
        """Whether all before `sequence` that was not read was superseded: so it is where a log keeps no events."""
        assert isinstance(self.log, Log)
        if self.log.window and sequence - 1 > self.log.events_from:
            return False
        self.compacted_through = sequence - 1
        return True

    def _was_kept(self, stored: int) -> bool:
        """Whether nothing between the last message and this one, stored at `stored`, has aged away unread."""
        assert isinstance(self.log, Log)
        window = self.log.window * 1_000_000_000
        if not window:
            return True
        if self.log.now() > self._safe_until:
            return False
        self._safe_until = max(self._safe_until, stored + window - self.log.margin // 2)
        return True

    def _all_read(self) -> None:
        """Nothing is pending: what comes from now on is kept for a window."""
        assert isinstance(self.log, Log)
        self._safe_until = self.log.now() + self.log.window * 1_000_000_000 - self.log.margin // 2

    async def _discarded(self, read_to: int) -> bool:
        """Whether the events lack something past `read_to`, which was read some time ago, because of their size."""
        assert isinstance(self.log, Log)
        try:
            state = await self.log.state()
        except LogUnavailable:
            # Then what is read fails, too.
            return False
        return self.log.window > 0 and state.first_sequence > read_to + 1

    async def _reach_end(self, source: _Source, outcome: asyncio.Future[None]) -> None:
        """The source has come to its end once all that its stream's leader has now was applied.

        That a consumer has nothing pending does not say so. Where messages are deleted while it is read, its count is
        0 before the last one was sent (seen with 2.15.1, in half of the reads). And it has one replica, which may be at
        a server that has just started and lacks messages still.
        """
        backoff = Backoff(*self._timing.read_again)
        stream, head = source.stream, source.until
        at, patient_until = self.position, time.monotonic() + self._timing.silence
        while True:
            if self.position > at:
                at, patient_until = self.position, time.monotonic() + self._timing.silence
            try:
                # Asked once: a log that is written to all the time always has something more.
                head = head or await stream.head()
                missing = None if self.position >= head else await stream.next_after(self.position, self._subjects)
                if missing is None or missing > head:
                    break
            except LogUnavailable as cause:
                log.debug("the log's leader cannot be asked", reason=str(cause))
            else:
                if time.monotonic() > patient_until and not outcome.done():
                    outcome.set_exception(_Broken(f"message {missing} is there and does not come"))
                    return
            await backoff.wait()
        self._end_of(source, outcome)

    def _end_of(self, source: _Source, outcome: asyncio.Future[None]) -> None:
        """A source was read to its end: of the state this is the end, the events go on unless that is not wanted."""
        if outcome.done():
            return
        if source.until:
            if source.until > self.position:
                self.position, self.position_time = source.until, source.time
                self.latest = max(self.latest, source.time)
            outcome.set_result(None)
            return
        self.pending = 0
        self.caught_up.set()
        if self._stop_when_caught_up:
            outcome.set_result(None)


async def read_to_end(
    log: Log,
    apply: Callable[[Record], None],
    *,
    subjects: Sequence[str] = (),
    headers_only: bool = False,
    after: int = 0,
) -> int:
    """Applies what the log holds now (of `subjects`) and returns up to which sequence that is, or `after`.

    The last message of each subject, from the state, and then every one that the state did not have yet: what was
    acknowledged before the call is among it.
    """
    reader = Reader(
        log,
        apply,
        after=after,
        subjects=subjects,
        headers_only=headers_only,
        stop_when_caught_up=True,
        state_to=WHOLE_STATE,
    )
    await reader.run()
    return reader.position
