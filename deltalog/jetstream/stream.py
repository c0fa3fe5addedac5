"""An opened stream, and the one that holds the log: the questions that one may ask it.

JetStream: ADR-8 (direct get), ADR-31 (reading single messages), ADR-43 (message TTL).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import BrokerRefuses, BrokerUnavailable, Connection, JetStreamRefused
from deltalog.jetstream.headers import parse_headers
from deltalog.jetstream.stream_info import (
    COMPRESSION_KEY,
    CREATED_KEY,
    FORMAT_KEY,
    PREFIX_KEY,
    STATE_SUFFIX,
    TOMBSTONE_TTL_KEY,
    HistoryIdentity,
    StreamConfig,
    StreamExtent,
    StreamInfo,
    StreamState,
    nanoseconds,
    timestamp,
)
from deltalog.wire.errors import LogUnavailable
from deltalog.wire.forgotten import FORGOTTEN_SUBJECT, forgotten_through
from deltalog.wire.subjects import OBJECTS, STREAM_SUBJECTS

log = structlog.get_logger("deltalog.state")

T = TypeVar("T")

STREAM_NOT_FOUND = 10059
ASKED_AFTER = (0.0, 0.2, 0.8)
"""What says that a history has ended, or lost something, is asked three times, after pauses of so many seconds.

A server that stood still answers the questions that waited for it as the leader that it was, before it hears of its
successor. So a stream that seems to lack what it had really does only if it still does a moment later.
"""
# How many parts of a log are read back at once.
_READ_BACK_AT_ONCE = 32
_MESSAGE_NOT_FOUND = 10037
# Of a message that is to be deleted: the stream does not have it, or not any longer.
_NOTHING_TO_DELETE = (_MESSAGE_NOT_FOUND, 10057, 10043)
# Messages of a batch; the fewer, the sooner each is readable.
_BATCH = 500


# Messages count as kept for a tenth of the window less, in nanoseconds a second, and for half a minute at most.
_MARGIN_PART = 100_000_000
_MARGIN_NANOSECONDS = 30_000_000_000
# How long a purge waits for the state stream to have come as far, in seconds.
_STATE_WITHIN = 30.0


class LogError(LogUnavailable):
    """The stream exists but cannot serve as this log; the message says what to change.

    It names fields of the settings in backquotes, as `BadAccess` does.
    """


class _Message(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class _MessageAnswer(msgspec.Struct):
    message: _Message


class Stream:
    """An opened stream: its identity and the questions one may ask it. `prefix` is empty if it is no log."""

    def __init__(self, connection: Connection, info: StreamInfo) -> None:
        self.connection = connection
        self.name = info.config.name
        self.created = info.made
        self.mirror = info.config.mirror is not None
        self.replicas = info.config.num_replicas
        self.prefix = info.config.metadata.get(PREFIX_KEY, "")
        # Bytes that a message of it may have, headers and payload; 0: as many as the servers take.
        self.largest_message = max(info.config.max_msg_size, 0)
        self._clock_offset = 0
        self._note_clock(info)

    @property
    def identity(self) -> HistoryIdentity:
        """Which history this is, as of when the stream was opened (or opened again)."""
        return HistoryIdentity(self.created, self.prefix)

    @property
    def created_at(self) -> int:
        """When the stream was made, nanoseconds since 1970."""
        return nanoseconds(self.created)

    def now(self) -> int:
        """The time by the server's clock, in nanoseconds since 1970: the one that messages are stored by."""
        return time.time_ns() + self._clock_offset

    def _note_clock(self, info: StreamInfo) -> None:
        if info.ts:
            self._clock_offset = nanoseconds(info.ts) - time.time_ns()

    def note(self, info: StreamInfo) -> None:
        """What each answer about the stream tells beside its extent."""
        self._note_clock(info)
        self.largest_message = max(info.config.max_msg_size, 0)

    async def state(self) -> StreamState:
        """The stream's extent and identity, asked of the stream's leader."""
        info = await _info(self.connection, self.name)
        self.note(info)
        return info.state_now()

    async def state_past(self, sequence: int) -> StreamState:
        """As `state`, of a stream that should have come to `sequence`: if not, it is asked again (`ASKED_AFTER`)."""
        for pause in ASKED_AFTER:
            await asyncio.sleep(pause)
            state = await self.state()
            if state.last_sequence >= sequence:
                break
        return state

    async def head(self) -> int:
        """The sequence of the last message."""
        return (await self.state()).last_sequence

    async def last(self, subject: str) -> tuple[int, bytes] | None:
        """Sequence and payload of a subject's last message, from the leader; None if there is none."""
        return await self._message({"last_by_subj": subject})

    async def message(self, sequence: int) -> bytes | None:
        """The payload of message `sequence`; None if the stream does not hold it any longer."""
        found = await self._message({"seq": sequence})
        return None if found is None else found[1]

    async def message_time(self, sequence: int) -> int | None:
        """When message `sequence` was stored, nanoseconds since 1970; None if it is not there any longer."""
        found = await self._found({"seq": sequence})
        return None if found is None else nanoseconds(found.time)

    async def state_read_to(self, sequence: int) -> StreamState:
        """As `state`, of a stream that was read up to `sequence`; a mirror that was made again has less, and may."""
        return await (self.state() if self.mirror else self.state_past(sequence))

    async def next_after(self, sequence: int, filters: Sequence[str] = ()) -> int | None:
        """The sequence of the first message past `sequence`, asked of the leader; None if there is none.

        `filters`: of the subjects that match one of them, as `kb.alpha.>`; none: of all.

        Raises:
            BrokerUnavailable, JetStreamRefused: as `state`.
        """
        first: int | None = None
        for subject in filters or (">",):
            found = await self._message({"seq": sequence + 1, "next_by_subj": subject})
            if found is not None and (first is None or found[0] < first):
                first = found[0]
        return first

    async def first_since(self, time: int) -> int | None:
        """The sequence of the first message stored at `time` (ns since 1970) or later; None if there is none."""
        found = await self._message({"start_time": timestamp(time)})
        return None if found is None else found[0]

    async def _message(self, query: dict[str, object]) -> tuple[int, bytes] | None:
        found = await self._found(query)
        return None if found is None else (found.seq, found.data)

    async def _found(self, query: dict[str, object]) -> _Message | None:
        try:
            raw = await self.connection.api(f"STREAM.MSG.GET.{self.name}", query)
        except JetStreamRefused as refused:
            if refused.code == _MESSAGE_NOT_FOUND:
                return None
            raise
        return msgspec.json.decode(raw, type=_MessageAnswer).message

    async def delete_message(self, sequence: int) -> bool:
        """Removes one message; False if it was not there. Raises BrokerUnavailable, JetStreamRefused."""
        try:
            await self.connection.api(f"STREAM.MSG.DELETE.{self.name}", {"seq": sequence, "no_erase": True})
        except JetStreamRefused as refused:
            if refused.code in _NOTHING_TO_DELETE:
                return False
            raise
        return True

    async def purge(self, subject_filter: str, below: int) -> None:
        """Removes the messages of the subjects in `subject_filter` with a sequence lower than `below`."""
        await self.connection.api(f"STREAM.PURGE.{self.name}", {"filter": subject_filter, "seq": below}, timeout=30.0)


class Log(Stream):
    """The log: the stream of its events, which is appended to, and beside it the state stream.

    What is asked of it is answered by the events, and by the state where those have it no longer.
    `ingest`: what stands before a subject where it is sent, not where it is stored.

    Several logs of one account cannot take in the same subjects; what they hold has the same ones all the same
    (ADR-36, subject transforms), so that only who appends needs to know.
    `origin`: the name of the stream that is appended to, another one than `name` in a mirror.

    - `events`: that stream alone.
    - `state_stream`: its mirror, with the same sequences, which keeps the last message of each subject and forgets
      nothing that lives; None: it has none yet.
    - `window`: for how many seconds the log keeps every message; 0: it keeps only the last one of each subject.
    - `events_from`: since which sequence it has done so.
    - `turns`: for those that read back a part of it, of which a process may have thousands as it begins: each asks the
      server a dozen questions, and behind those of all of them at once leases would run out.
    """

    def __init__(self, connection: Connection, info: StreamInfo) -> None:
        super().__init__(connection, info)
        self.tombstone_ttl = int(info.config.metadata[TOMBSTONE_TTL_KEY])
        self.ingest = ingest_prefix(info.config)
        self.atomic = info.config.allow_atomic
        self.events = Stream(connection, info)
        self.state_stream: Stream | None = None
        self.window = 0
        self.events_from = 0
        self.turns = asyncio.Semaphore(_READ_BACK_AT_ONCE)
        self._mirrored = info.config.mirror
        # How the servers keep it, from their next start on, and how that was wanted; empty: nothing was said.
        self.compression = info.config.compression
        self.compression_wanted = info.config.metadata.get(COMPRESSION_KEY, "")
        self.note(info)

    def note(self, info: StreamInfo) -> None:
        super().note(info)
        since = info.config.events_from
        self.window = 0 if since is None else info.config.max_age // 1_000_000_000
        self.events_from = since or 0

    @classmethod
    def unreached(cls, url: str, name: str, *, created: str = "", prefix: str = "", tombstone_ttl: int = 0) -> Log:
        """Stands for the log that was so when it was last read, or of which nothing is known, while NATS does not
        answer: all that asks the server raises BrokerUnavailable, and the time is this machine's.
        """
        metadata = {PREFIX_KEY: prefix, TOMBSTONE_TTL_KEY: str(tombstone_ttl)}
        info = StreamInfo(config=StreamConfig(name, metadata=metadata), state=StreamExtent(0, 0, 0), created=created)
        return cls(Connection(url), info)

    @property
    def message_limit(self) -> int:
        """Bytes that a message may have, headers and payload: what the servers take, and both streams."""
        limit = self.connection.client.max_payload
        if 0 < self.largest_message < limit:
            limit = self.largest_message
        state = self.state_stream
        if state is not None and 0 < state.largest_message < limit:
            limit = state.largest_message
        return limit

    async def learn_limits(self) -> None:
        """Learns what both streams take now. Raises as `state`."""
        await self.state()
        await self._of_state(lambda state: state.state())

    @property
    def batch(self) -> int:
        """How many messages to append at a time (`Appender`); 0: it takes any number that are on their way."""
        if self.replicas == 1:
            return 0
        return _BATCH if self.atomic else 1

    @property
    def origin(self) -> str:
        """The name of the stream that is appended to: of a mirror, the stream that it mirrors."""
        return self.name if self._mirrored is None else self._mirrored.name

    async def origin_state(self) -> StreamState:
        """The extent and identity of the stream that is appended to; of a mirror that is another one, maybe far away.

        Raises as `state`.
        """
        if self._mirrored is None:
            return await self.state()
        js = None if self._mirrored.external is None else self._mirrored.external.api
        return (await _info(self.connection, self._mirrored.name, js)).state_now()

    async def reopen(self) -> None:
        """Takes on the identity of the stream as it is now, after it was recreated or its prefix rotated."""
        info = checked_log(await _info(self.connection, self.name))
        self.note(info)
        if self.created != info.made:
            self.state_stream = None
        self.created = info.made
        self.prefix = info.config.metadata[PREFIX_KEY]
        self.tombstone_ttl = int(info.config.metadata[TOMBSTONE_TTL_KEY])
        self.replicas = info.config.num_replicas
        self.compression = info.config.compression
        self.compression_wanted = info.config.metadata.get(COMPRESSION_KEY, "")

    # -- single messages -------------------------------------------------------------------------------------------

    async def last(self, subject: str) -> tuple[int, bytes] | None:
        """Sequence and payload of a subject's last message, None if there is none: what is, and not what was purged.

        From the leaders of both streams, so what was acknowledged before the call is found.
        """
        found = await super().last(subject)
        if not self.window:
            return found
        kept = await self._of_state(lambda state: state.last(subject))
        if found is None or (kept is not None and kept[0] >= found[0]):
            return kept
        # It was purged from the state, or the state has not come as far: to be told apart in this order.
        head = await self._of_state(lambda state: state.head())
        if head is None or head < found[0]:
            return found
        return await self._of_state(lambda state: state.last(subject))

    async def message(self, sequence: int) -> bytes | None:
        """The payload of message `sequence`; None if the log does not hold it any longer."""
        found = await super().message(sequence)
        if found is None and self.window:
            return await self._of_state(lambda state: state.message(sequence))
        return found

    async def holds(self, sequence: int) -> bool:
        """Whether message `sequence` is still there.

        The state is asked first: where the events are compressed, a server unpacks 8 MB for one of their messages.
        """
        if self.window and await self._of_state(lambda state: state.message_time(sequence)) is not None:
            return True
        return await super().message_time(sequence) is not None

    async def message_time(self, sequence: int) -> int | None:
        """When message `sequence` was stored, nanoseconds since 1970; None if it is not there any longer."""
        found = await super().message_time(sequence)
        if found is None and self.window:
            return await self._of_state(lambda state: state.message_time(sequence))
        return found

    async def forgotten_through(self) -> int:
        """Up to which sequence deletions are forgotten, as was decided (`deltalog.forgetting`); 0: that never was.

        From the leaders of both streams, so what was acknowledged before the call is found. Raises as `state`.
        """
        found = [await self._found({"last_by_subj": FORGOTTEN_SUBJECT})]
        if self.window:
            found.append(await self._of_state(lambda state: state._found({"last_by_subj": FORGOTTEN_SUBJECT})))
        return max((forgotten_through(parse_headers(one.hdrs)) for one in found if one is not None), default=0)

    async def first_since(self, time: int) -> int | None:
        """The sequence of the first message stored at `time` (ns since 1970) or later; None if there is none."""
        found = await super().first_since(time)
        if not self.window:
            return found
        # What is older than the events may be in the state.
        kept = await self._of_state(lambda state: state.first_since(time))
        return min((one for one in (found, kept) if one is not None), default=None)

    async def _of_state(self, ask: Callable[[Stream], Awaitable[T | None]]) -> T | None:
        """What the state stream answers; None where there is none."""
        state = await self.find_state()
        try:
            return None if state is None else await ask(state)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise
            # It was deleted; those who look after it make it anew.
            self.state_stream = None
            return None

    # -- the window ------------------------------------------------------------------------------------------------

    async def kept(self) -> StreamState | None:
        """The extent of what keeps the last message of each subject: the state, or a log that has no window itself.

        None if there is none now. Raises as `state`.
        """
        if not self.window:
            return await self.state()
        kept = await self._of_state(lambda state: state.state())
        if kept is not None and kept.created != self.created:
            self.state_stream = None
            return None
        return kept

    @property
    def margin(self) -> int:
        """For how much shorter than the window, in nanoseconds, messages count as kept: the time to read them in."""
        return min(self.window * _MARGIN_PART, _MARGIN_NANOSECONDS)

    async def kept_until(self, sequence: int, state: StreamState) -> int:
        """Until when the events, in this state, have every message past `sequence`: ns since 1970, by the server.

        0: they have not, or only for less than `margin`. More is known later: what comes is kept for a window.
        The first message of the stream does not tell: owner records outlive all others. Example: 1 and 7 to 9 are
        there, so they reach back to 6 and not to 1, though message 2 is not older than the first one.
        Raises as `state`.
        """
        now, window = self.now(), self.window * 1_000_000_000
        if state.last_sequence <= sequence:
            return now + window
        if not window or sequence < self.events_from or state.first_sequence > sequence + 1:
            return 0
        stored = await self.events.message_time(sequence + 1)
        return 0 if stored is None or stored + window < now + self.margin else stored + window

    async def oldest_change(self) -> int | None:
        """When the oldest change of an object that the events still have was stored, ns since 1970; None: none.

        So far back they reach. The time of the stream's first message would not tell: owner records outlive all others.
        Raises as `state`.
        """
        found = await self.events._found({"seq": 1, "next_by_subj": f"{OBJECTS}.>"})
        return None if found is None else nanoseconds(found.time)

    async def window_start(self, most_bytes: int) -> int:
        """The sequence behind which the events are about `most_bytes` at most, and stay for a while.

        That is, not older than three quarters of the window. 0: everything, or the log is empty.
        Raises as `state`.
        """
        state = await self.state()
        last = state.last_sequence
        if not self.window:
            return last
        first = await self.events.first_since(self.now() - self.window * 750_000_000)
        start = max(last if first is None else first - 1, self.events_from)
        if state.messages and state.bytes > most_bytes:
            start = max(start, last - most_bytes * state.messages // state.bytes)
        return min(start, last)

    # -- the state -------------------------------------------------------------------------------------------------

    async def purge_state(self, subject_filter: str, below: int) -> None:
        """Removes from the state the messages of the subjects in `subject_filter` with a sequence lower than `below`.

        The events keep them for the window, so that everybody still reads them. Waits until the state has all below
        `below`: a mirror copies what comes to it after a purge.

        Raises:
            BrokerUnavailable: NATS does not answer, or the state did not come that far in time.
            JetStreamRefused: as `purge`.
        """
        if not self.window:
            # One that keeps the last of each subject is its own state; its mirror follows it as far as there is one.
            await self.purge(subject_filter, below)
        state = await self.find_state()
        if state is None:
            if self.window:
                raise BrokerUnavailable(f"stream {self.name} has no state stream yet")
            return
        until = time.monotonic() + _STATE_WITHIN
        backoff = Backoff(0.01, 1.0)
        while (last := await state.head()) < below - 1:
            if time.monotonic() > until:
                raise BrokerUnavailable(f"stream {state.name} has come to {last} of {self.name}, not yet to {below}")
            await backoff.wait()
        await state.purge(subject_filter, below)

    async def find_state(self) -> Stream | None:
        """The state stream: as it was found before, or looked up now where there was none.

        None if there is none, it may not be asked, or it is still that of a stream which was deleted.

        Raises:
            BrokerUnavailable, JetStreamRefused: as `state`.
        """
        name = self.name + STATE_SUFFIX
        if self.state_stream is None and not self.connection.refusal(f"{self.connection.js}.STREAM.INFO.{name}"):
            try:
                info = await _info(self.connection, name)
            except BrokerRefuses as refused:
                log.warning("the state stream may not be asked", stream=name, reason=str(refused))
                return None
            except JetStreamRefused as refused:
                if refused.code != STREAM_NOT_FOUND:
                    raise
                return None
            if info.config.metadata.get(CREATED_KEY) == self.created:
                self.state_stream = Stream(self.connection, info)
        return self.state_stream

    async def rename(self, prefix: str) -> None:
        """Gives the history another name. To be called by `deltalog.history` only, which has all agree on it."""
        raw = await self.connection.api(f"STREAM.INFO.{self.name}")
        config = msgspec.json.decode(raw)["config"]
        config["metadata"] = {**config["metadata"], PREFIX_KEY: prefix}
        await self.connection.api(f"STREAM.UPDATE.{self.name}", config)
        await self.reopen()


async def _info(connection: Connection, name: str, js: str | None = None) -> StreamInfo:
    raw = await connection.api(f"STREAM.INFO.{name}", js=js)
    return msgspec.json.decode(raw, type=StreamInfo)


def ingest_prefix(config: StreamConfig) -> str:
    """What stands before a subject where it is sent to this stream (`Log.ingest`); empty for the first log."""
    transform = config.subject_transform
    return transform.src.removesuffix(">") if transform is not None and transform.dest == ">" else ""


def checked_log(info: StreamInfo) -> StreamInfo:
    """The stream, if it can serve as a log or as the mirror of one. Raises LogError."""
    root = ingest_prefix(info.config)
    if info.config.mirror is not None and CREATED_KEY not in info.config.metadata:
        raise LogError(
            f"stream {info.config.name} is a mirror that does not say of which history; make it with `kubebraid mirror`"
        )
    # A mirror takes nothing in by itself.
    missing = info.config.mirror is None and any(root + s not in info.config.subjects for s in STREAM_SUBJECTS)
    if missing or PREFIX_KEY not in info.config.metadata or TOMBSTONE_TTL_KEY not in info.config.metadata:
        raise LogError(f"stream {info.config.name} was not made by kubebraid; choose another name with `name`")
    if info.config.metadata.get(FORMAT_KEY) != "1":
        raise LogError(
            f"stream {info.config.name} has format {info.config.metadata.get(FORMAT_KEY)!r}, this is format 1"
        )
    if not info.config.allow_msg_ttl:
        raise LogError(f"stream {info.config.name} does not allow message TTLs; set allow_msg_ttl on it")
    return info
