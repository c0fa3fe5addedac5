"""`kubebraid replay`: messages of the log as they are, into a file of JSON lines or into another stream."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import urlsplit, urlunsplit

import msgspec
import typer

from deltalog import (
    Access,
    Appender,
    AppendError,
    HistoryChanged,
    Log,
    LogUnavailable,
    Reader,
    Record,
    connect,
    place,
    select,
)
from deltalog.bounded_queue import BoundedQueue
from deltalog.jetstream.opening import open_copy
from deltalog.jetstream.stream import Stream
from deltalog.jetstream.stream_info import timestamp
from deltalog.place import Start
from deltalog.wire.selection import Selection
from deltalog.wire.subjects import CONTROL, OBJECTS, PARTS, REMOVED, parse_control
from kubebraid.command import locate, reporting
from kubebraid.command.options.access import with_access
from kubebraid.command.options.log import DataRunning, NatsRunning
from kubebraid.command.options.log import Stream as StreamName
from kubebraid.command.options.process import LogLevel
from kubebraid.command.options.selecting import WHEN, OfClusters, OfNames, OfNamespaces, OfTypes
from kubebraid.command.settings import BadSetting
from kubebraid.errors import KubebraidError, Unavailable

_MARKER_HEADER = "Nats-Marker-Reason"
# Speaks of the source's sequences: in the copy it would be refused.
_EXPECTED = "Nats-Expected-"
# Which message of which history a copy is of; the server takes it for the id that it recognises repetitions by.
_ID = "Nats-Msg-Id"

Write = Callable[[Record], Awaitable[bool]]


class CopyFailed(Unavailable):
    """The copy could not be finished; one line."""


class CopySummary(msgspec.Struct):
    """What was copied. `repeated`: there already; `first` and `last`: sequences in the log."""

    target: str
    messages: int = 0
    repeated: int = 0
    size: int = 0
    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        if not self.messages + self.repeated:
            return f"nothing to copy to {self.target}"
        there = f", {self.repeated} were there already" if self.repeated else ""
        return (
            f"copied {self.messages} messages ({self.size / 1e6:.1f} MB) of {self.first} to {self.last} "
            f"to {self.target}{there}"
        )


async def copy(
    url: str, access: Access, stream: str, selection: Selection, since: Start, until: Start | None, to: str
) -> CopySummary:
    """Copies what the log holds behind `since`, up to `until` or its end.

    Another stream is reached with the same access, or as the user in its URL. Raises BadSetting, CopyFailed, LogError.
    """
    async with locate.opened(url, access, stream) as log:
        types = tuple(await locate.resolve(log, selection.types))
        selection = msgspec.structs.replace(selection, types=types)
        state = await log.state()
        begin = (await place.locate(log, since, state, fresh=True)).place
        end = state.last_sequence
        if until is not None:
            end = min(end, (await place.locate(log, until, state, fresh=True)).place.sequence)
        summary = CopySummary(to)
        if begin.sequence < end:
            async with _target(access, log, to) as write:
                await _copy(log, selection, begin.sequence, end, write, summary)
    return summary


class _Behind(KubebraidError):
    """All up to the end was read."""


async def _copy(log: Log, selection: Selection, begin: int, end: int, write: Write, summary: CopySummary) -> None:
    queue: BoundedQueue[Record]

    def take(record: Record) -> None:
        if record.sequence > end:
            raise _Behind
        queue.put(record, len(record.data))

    subjects = _subjects(selection)
    reader = Reader(log, take, after=begin, subjects=subjects, stop_when_caught_up=True)
    queue = BoundedQueue(reader.pause, reader.resume)

    async def read() -> None:
        try:
            await reader.run()
        except _Behind:
            pass
        finally:
            queue.wake()

    reading = asyncio.create_task(read(), name="replay-reading")
    try:
        while True:
            if not len(queue):
                if reading.done():
                    break
                await queue.wait()
                continue
            record = queue.take()
            if not _wanted(selection, record):
                continue
            if await write(record):
                summary.messages += 1
                summary.size += len(record.data)
            else:
                summary.repeated += 1
            summary.first = summary.first or record.sequence
            summary.last = record.sequence
        reading.result()
    except HistoryChanged as change:
        raise CopyFailed(f"the log changed while it was copied: {change}") from None
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


def _subjects(selection: Selection) -> list[str]:
    """Everything; or what is selected with its parts, and the records of what was removed as a whole."""
    if selection == Selection():
        return []
    objects = selection.subjects()
    parts = [f"{PARTS}{one.removeprefix(OBJECTS)}.*.*" for one in objects]
    return [*objects, *parts, f"{CONTROL}.*.{REMOVED}", f"{CONTROL}.*.{REMOVED}.*.*"]


def _wanted(selection: Selection, record: Record) -> bool:
    if not record.data and _MARKER_HEADER in record.headers:
        return False
    if selection == Selection():
        return True
    root, *tokens = record.subject.split(".")
    try:
        if root == CONTROL:
            cluster, _, group, resource = parse_control(record.subject)
            return selection.takes_removal(cluster, group, resource)
        return selection.takes(".".join((OBJECTS, *tokens[:6])))
    except ValueError:
        return False


# -- targets -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _target(access: Access, log: Log, to: str) -> AsyncIterator[Write]:
    if "://" in to:
        async with _stream(access, log, to) as write:
            yield write
    else:
        with _file(to) as file:

            async def line(record: Record) -> bool:
                file.write(_line(record))
                return True

            try:
                yield line
                file.flush()
            except BrokenPipeError:
                raise
            except OSError as cause:
                raise CopyFailed(f"cannot write to {to}: {cause.strerror}") from None


@contextlib.contextmanager
def _file(to: str) -> Iterator[BinaryIO]:
    if to == "-":
        yield sys.stdout.buffer
        return
    path = Path(to)
    try:
        status = path.stat() if path.exists() else None
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            raise BadSetting(f"--to {to}: there is such a file; choose another name, or remove it")
        file = path.open("wb")
    except OSError as cause:
        raise BadSetting(f"--to {to}: {cause.strerror}; choose another file, or - for standard output") from None
    try:
        yield file
    finally:
        # What is left in its buffer may not fit, either; whoever wrote has been told by flushing it.
        with contextlib.suppress(OSError):
            file.close()


def _line(record: Record) -> bytes:
    """A message as a line: its payload in base64, as it is bytes that no JSON can hold."""
    return (
        msgspec.json.encode(
            {
                "sequence": record.sequence,
                "time": timestamp(record.time),
                "subject": record.subject,
                "headers": record.headers,
                "payload": base64.b64encode(record.data).decode(),
            }
        )
        + b"\n"
    )


@contextlib.asynccontextmanager
async def _stream(access: Access, log: Log, to: str) -> AsyncIterator[Write]:
    """Another stream, at nats://host:port/NAME."""
    parts = urlsplit(to)
    name = parts.path.strip("/")
    if not parts.netloc or not name or not name.replace("-", "").replace("_", "").isalnum():
        raise BadSetting(f"--to {to!r}: write nats://HOST:PORT/STREAM, a file, or - for standard output")
    url = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    if "@" in parts.netloc:
        access = access.without_identity()
    connection = await connect(url, name="kubebraid-replay", access=access)
    try:
        copied = await open_copy(connection, name, log)
        known = await _known(copied, log.prefix)
        failures: list[AppendError] = []

        def acknowledged(_sequence: int, error: AppendError | None) -> None:
            if error is not None:
                failures.append(error)

        async with Appender(connection) as appender:

            async def append(record: Record) -> bool:
                if failures:
                    raise failures[0]
                if known.get(record.subject, 0) >= record.sequence:
                    return False
                headers = {key: value for key, value in record.headers.items() if not key.startswith(_EXPECTED)}
                headers[_ID] = f"{log.prefix}.{record.sequence}"
                await appender.append(f"{name}.{record.subject}", record.data, acknowledged, headers)
                return True

            yield append
            await appender.drain()
            if failures:
                raise failures[0]
    except LogUnavailable as cause:
        raise CopyFailed(f"cannot write to {to}: {cause}; repeat it, what is there is not copied again") from None
    finally:
        await connection.close()


async def _known(copied: Stream, prefix: str) -> dict[str, int]:
    """What of a history the copy has: the last sequence by subject. O(subjects), their headers only."""
    known: dict[str, int] = {}

    def note(record: Record) -> None:
        history, _, sequence = record.headers.get(_ID, "").partition(".")
        if history == prefix and sequence.isdigit():
            known[record.subject] = int(sequence)

    reader = Reader(copied, note, headers_only=True, stop_when_caught_up=True)
    await reader.run()
    return known


@with_access
def command(
    access: Access,
    to: Annotated[
        str,
        typer.Option(metavar="WHERE", help="A file of JSON lines, - for standard output, or nats://HOST:PORT/STREAM."),
    ],
    since: Annotated[str, typer.Option(metavar="WHEN", help=WHEN)] = "beginning",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The same, for the last one. [what the log holds now]")
    ] = None,
    nats: NatsRunning = None,
    data: DataRunning = None,
    stream: StreamName = "KUBEBRAID",
    cluster: OfClusters = None,
    resources: OfTypes = None,
    namespace: OfNamespaces = None,
    name: OfNames = None,
    log_level: LogLevel = "warning",
) -> None:
    """Copy messages of the log, as they are, to a file or to another stream."""
    now = datetime.now(UTC)
    selection = select(cluster=cluster, type=resources, namespace=namespace, name=name)
    start = locate.moment("--since", since, now)
    end = None if until is None else locate.moment("--until", until, now)
    url = locate.nats_url(nats, data)
    summaries: list[CopySummary] = []

    async def run_copy() -> None:
        summaries.append(await copy(url, access, stream, selection, start, end, to))

    reporting.run(run_copy(), log_level, False)
    typer.echo(str(summaries[0]), err=to == "-")
