"""Forgetting deletions for the sake of room: up to where is decided once for all, then the log lets them go.

A deletion is remembered for the tombstone time, unless there are more of them than may be. Then somebody who knows them
decides up to which sequence they are forgotten, and says so in the log (`deltalog.wire.forgotten`). All who serve obey
that record when they come to it in their reading, so that a resume is refused or answered in full, wherever it goes;
then the messages are taken out of the state. In this order nothing can be lost on the way: who died between the record
and the messages leaves some of them, which others, or the tombstone time, take out.

Docs: docs/decisions/0020-forgotten-deletions-are-a-record.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from deltalog.append import Appender, Conflict
from deltalog.history import History
from deltalog.jetstream.acknowledgement import Expect
from deltalog.jetstream.backoff import Once
from deltalog.jetstream.stream import Log, Stream
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import LogUnavailable
from deltalog.wire.forgotten import FORGOTTEN_SUBJECT, forgotten_headers

log = structlog.get_logger("deltalog.forgetting")

# What of the limit is left after a decision: each is a message, and watches that come from before it list anew.
LEFT = 0.95
# How many messages are looked for before all that should have gone are taken out once more.
_PROBED = 16
# Messages taken out at once; and what part of the time at most goes into that, as it is nobody's hurry.
_AT_ONCE = 8
_SLICE = 64
_SHARE = 0.2
# So many seconds after they were due there may be more deletions than that keeps up with: then another part.
_LATE, _LATE_SHARE = 60.0, 0.7


async def decide(log_: Log, history: History, through: int) -> bool:
    """Has the log say that deletions up to the sequence `through` are forgotten; False: it said as much before.

    Of several who decide at the same time one does; what it decided, all read in the log. The mark says so, too, for
    instances of releases that do not know the record.

    Raises AppendError, BrokerUnavailable, JetStreamRefused: nothing was decided, or that is not known.
    """
    async with Appender.to(log_) as appender:
        while True:
            last = await log_.last(FORGOTTEN_SUBJECT)
            if through <= await log_.forgotten_through():
                return False
            # That of the state may have gone from the events, which know of none then.
            for expected in dict.fromkeys((0 if last is None else last[0], 0)):
                headers = {**forgotten_headers(through), **Expect(expected).headers()}
                try:
                    sequence = await appender.append_wait(FORGOTTEN_SUBJECT, b"", headers)
                except Conflict:
                    continue
                log.info("deletions are forgotten", stream=log_.name, through=through, record=sequence)
                await history.raise_floor(through)
                return True


class _Due(NamedTuple):
    at: float
    sequences: array[int]


class Purging:
    """Takes the messages of forgotten deletions out of the state, some time after that was decided.

    Any number of processes may do so at once: the one that decided begins, the others look some time later whether
    there is anything left to do. Before, releases that do not know the record have learned of the floor from the mark.
    """

    def __init__(self, log_: Log, timing: LogTiming = DEFAULT_TIMING) -> None:
        self.log = log_
        self.purged = 0
        self._timing = timing
        self._due: deque[_Due] = deque()
        self._mine = 0
        self._added = asyncio.Event()

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(len(one.sequences) for one in self._due)

    def decided(self, through: int) -> None:
        """Notes that this process has decided: it is the one to begin."""
        self._mine = max(self._mine, through)

    def add(self, sequences: array[int], through: int) -> None:
        """Takes in what was forgotten because of the record that says `through`."""
        if not sequences:
            return
        delay = self._timing.purge_after
        if through > self._mine:
            delay += self._timing.purge_others * random.uniform(1.0, 2.0)
        self._due.append(_Due(time.monotonic() + delay, sequences))
        self._added.set()

    async def run(self) -> None:
        """Purges what is due until cancelled."""
        say = Once(
            lambda reason: log.warning("forgotten deletions stay in the log", stream=self.log.name, reason=reason)
        )
        while True:
            while not self._due:
                self._added.clear()
                await self._added.wait()
            due = self._due[0]
            await asyncio.sleep(max(0.0, due.at - time.monotonic()))
            try:
                await self._purge(due.sequences, due.at)
                say.clear()
            except LogUnavailable as cause:
                say(cause)
                await asyncio.sleep(self._timing.purge_others)
                if len(self._due) > 1:
                    # What cannot be taken out goes by the tombstone time; not all of it need be known until then.
                    self._due.popleft()
                continue
            if self._due and self._due[0] is due:
                self._due.popleft()

    async def _purge(self, sequences: Sequence[int], due_at: float) -> None:
        state = await self.log.find_state() if self.log.window else self.log
        if state is None or not await self._any_left(state, sequences):
            return
        purged = 0
        for begin in range(0, len(sequences), _SLICE):
            started = time.monotonic()
            some = iter(sequences[begin : begin + _SLICE])

            async def take_out(some: Iterator[int] = some) -> int:
                return sum([await state.delete_message(sequence) for sequence in some])

            purged += sum(await asyncio.gather(*(take_out() for _ in range(_AT_ONCE))))
            share = _SHARE if time.monotonic() - due_at < _LATE else _LATE_SHARE
            await asyncio.sleep((time.monotonic() - started) * (1 / share - 1))
        self.purged += purged
        log.info("forgotten deletions are out of the log", stream=state.name, messages=purged)

    @staticmethod
    async def _any_left(state: Stream, sequences: Sequence[int]) -> bool:
        """Whether some of the messages are still there, as far as a few of them tell; the newest were to go last."""
        probed = {*sequences[-_PROBED // 2 :], *random.sample(sequences, min(len(sequences), _PROBED // 2))}
        for sequence in sorted(probed, reverse=True):
            if await state.message_time(sequence) is not None:
                return True
        return False
