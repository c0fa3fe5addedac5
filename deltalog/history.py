"""What is kept of a log's history beside the log: how far it came once, and how it was renamed.

Both are keys of a JetStream key-value bucket (ADR-8), written by compare-and-set. The *mark* tells an instance that
starts, and so has read nothing yet, what others have already served. The *rotation* makes all who find the history
changed agree on one new name: JetStream can update a stream's metadata, but not compare before.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from deltalog.jetstream.bucket import Bucket, decoded
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.jetstream.opening import next_prefix
from deltalog.jetstream.same_history import Progress, why_not_continued
from deltalog.jetstream.stream import ASKED_AFTER, Log, LogError
from deltalog.wire.subjects import encode_token

log = structlog.get_logger("deltalog.history")

BUCKET = "kubebraid-history"


class Probe(msgspec.Struct, frozen=True):
    """A message that the log held: it is there still, or a newer one that `subject` (a filter) matches.

    Unless what it speaks of was removed: then `removals` says where the records of that are.
    """

    sequence: int
    subject: str
    removals: tuple[str, ...] = ()


class Mark(msgspec.Struct, frozen=True, rename={"probes": "witnesses"}):
    """How far a history had come: `index` was applied by an instance that served it, and `probes` were in the log.

    `time`, `latest`: as in `Progress`. `floor`: deletions up to there were lost, so no watch can resume below.
    """

    created: str
    prefix: str
    index: int
    time: int
    latest: int
    floor: int = 0
    probes: tuple[Probe, ...] = ()


class _Rotation(msgspec.Struct, frozen=True):
    """The history `prefix` of the stream made at `created` is, or (`done`) was renamed."""

    created: str
    prefix: str
    to: str
    done: bool = False


class History:
    """The history of one log. `file`: where to keep the mark, too, for a bucket that is set back with the log."""

    def __init__(self, log_: Log, file: Path | None = None) -> None:
        self.log = log_
        self._file = file
        self._bucket: Bucket | None = None

    def _key(self, key: str) -> str:
        return f"{encode_token(self.log.name)}.{key}"

    async def _last(self, key: str) -> tuple[int, bytes]:
        """Sequence and value of a key; 0 and nothing where there is none."""
        for again in (False, True):
            if self._bucket is None:
                self._bucket = await Bucket.open(
                    self.log.connection, BUCKET, "what logs were, and are called now", replicas=self.log.replicas
                )
            try:
                return await self._bucket.get(self._key(key))
            except JetStreamRefused:
                # The bucket was deleted.
                self._bucket = None
                if again:
                    raise
        raise AssertionError

    async def _put(self, key: str, value: msgspec.Struct, expected: int) -> bool:
        """Sets a key whose last sequence is `expected`; False if it is not. Raises BrokerUnavailable."""
        assert self._bucket is not None, "read it first"
        return await self._bucket.put(self._key(key), msgspec.json.encode(value), expected) is not None

    # -- the name --------------------------------------------------------------------------------------------------

    async def rotate(self, served: str) -> None:
        """Sees to it that the log bears another name than `served`, and opens it anew; all who call get the same.

        Raises BrokerUnavailable, JetStreamRefused, LogError. A mirror is not renamed here, but made anew elsewhere
        (`deltalog.mirror`): LogError until it is.
        """
        if self.log.mirror:
            await self.log.reopen()
            if self.log.prefix == served:
                raise LogError(f"mirror {self.log.name} is of another history; `kubebraid mirror` makes it anew")
            return
        while True:
            await self.log.reopen()
            created, prefix = self.log.created, self.log.prefix
            at, rotation = await self._rotation()
            mine = rotation is not None and (rotation.created, rotation.prefix) == (created, prefix)
            # A name that was given up before and is there again came with an older copy of the stream.
            if prefix != served and not (mine and rotation is not None and rotation.done):
                return
            if mine and rotation is not None and not rotation.done:
                # Another process is about to rename it, or has died doing so.
                to = rotation.to
            else:
                to = next_prefix(prefix)
                begun = _Rotation(created, prefix, to)
                if not await self._put("rotation", begun, at):
                    continue
            await self.log.reopen()
            if (self.log.created, self.log.prefix) == (created, prefix):
                await self.log.rename(to)
                at, rotation = await self._rotation()
                if rotation == _Rotation(created, prefix, to):
                    await self._put("rotation", _Rotation(created, prefix, to, done=True), at)
                log.info("history renamed", before=prefix, prefix=to)
                return

    async def _rotation(self) -> tuple[int, _Rotation | None]:
        at, value = await self._last("rotation")
        return at, decoded(value, _Rotation)

    # -- the mark --------------------------------------------------------------------------------------------------

    async def mark(self, mark: Mark) -> None:
        """Keeps a mark, unless one further on of the same history is kept. Raises BrokerUnavailable."""
        if self.log.mirror:
            return
        at, value = await self._last("mark")
        before = decoded(value, Mark)
        if before is None or not _same(before, mark) or (before.index, before.floor) < (mark.index, mark.floor):
            if before is not None and _same(before, mark):
                mark = msgspec.structs.replace(mark, floor=max(mark.floor, before.floor))
            # Who was faster is not far away.
            await self._put("mark", mark, at)
        if self._file is not None:
            await asyncio.to_thread(_write, self._file, msgspec.json.encode(mark))

    async def raise_floor(self, floor: int) -> None:
        """Notes in the mark that no watch can resume below `floor`; without a mark nobody has served the history.

        Instances that start take it from there. Raises BrokerUnavailable, JetStreamRefused.
        """
        if self.log.mirror:
            return
        while True:
            at, value = await self._last("mark")
            mark = decoded(value, Mark)
            if mark is None or (mark.created, mark.prefix) != self.log.identity or mark.floor >= floor:
                return
            if await self._put("mark", msgspec.structs.replace(mark, floor=floor), at):
                return

    async def marks(self) -> list[Mark]:
        """What was kept, in the bucket and in the file. Of a mirror nothing is: its origin's instances do that."""
        if self.log.mirror:
            return []
        values = [(await self._last("mark"))[1]]
        if self._file is not None:
            values.append(await asyncio.to_thread(_read, self._file))
        return [mark for value in values if (mark := decoded(value, Mark)) is not None]

    async def why_not_served(self) -> str | None:
        """Why the log is not the history that others have served under its name; None if nothing says so.

        Raises BrokerUnavailable, JetStreamRefused.
        """
        if self.log.mirror:
            return None
        created, prefix = self.log.created, self.log.prefix
        _, rotation = await self._rotation()
        if rotation is not None and rotation.done and (rotation.created, rotation.prefix) == (created, prefix):
            return f"the history {prefix} was given up before"
        for mark in await self.marks():
            if mark.prefix != prefix:
                continue
            if mark.created != created:
                return f"the stream was made anew at {created} under the name {prefix}"
            progress = Progress(mark.index, mark.time, mark.latest)
            reason = await why_not_continued(self.log, progress) or await self._cut(mark)
            if reason is not None:
                return reason
        return None

    async def _cut(self, mark: Mark) -> str | None:
        if mark.time < self.log.now() - self.log.tombstone_ttl * 1_000_000_000:
            # Records of removals are forgotten too; no watch can resume from so long ago in any case.
            return None
        kept = await self.log.kept()
        lacks_to = 0 if kept is None else kept.lacks_to
        for probe in mark.probes:
            if probe.sequence <= lacks_to:
                # It may have gone with the state, and was not cut out of the history.
                continue
            if await self._lacks(probe):
                return f"message {probe.sequence} ({probe.subject}) was cut out"
        return None

    async def _lacks(self, probe: Probe) -> bool:
        """Whether the log has neither a message nor what would have superseded or removed it, asked again and again.

        Producers append again what was cut out, so what is found later on counts only if it was stored before.
        """
        begun = self.log.now()
        for pause in ASKED_AFTER:
            await asyncio.sleep(pause)
            if await self.log.holds(probe.sequence):
                return False
            for subject in (probe.subject, *probe.removals):
                last = await self.log.last(subject)
                if last is None or last[0] <= probe.sequence:
                    continue
                stored = await self.log.message_time(last[0]) if pause else begun
                if stored is not None and stored <= begun:
                    return False
        return True


def _same(one: Mark, other: Mark) -> bool:
    return (one.created, one.prefix) == (other.created, other.prefix)


def _write(file: Path, value: bytes) -> None:
    """Replaces a file as a whole."""
    beside = file.with_suffix(".new")
    try:
        beside.write_bytes(value)
        os.replace(beside, file)
    except OSError as cause:
        log.warning("the mark of the history cannot be kept", file=str(file), reason=str(cause))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
