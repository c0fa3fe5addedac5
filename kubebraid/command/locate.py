"""Where a consumer's command finds the log, where in it to begin, and which types its words mean."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deltalog import (
    Access,
    Log,
    LogError,
    LogSettings,
    Record,
    UnreadableRecord,
    connect,
    open_log,
)
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.place import BEGINNING, NOW, BadPlace, Start, parse_place
from deltalog.reader import read_to_end
from deltalog.wire.records import decode_control
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import CONTROL, TYPE
from kubebraid.command.broker import running
from kubebraid.command.settings import BadSetting, default_data
from producers.rules.configuration import BadConfiguration, duration

_DEFAULT = "nats://127.0.0.1:4222"
_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ].*)?", re.ASCII)
_DURATION = re.compile(r"[0-9.]+[a-z].*", re.ASCII)


def nats_url(nats: str | None, data: Path | None) -> str:
    """The NATS given, or the embedded one that runs on `data` (or where `up` keeps it), or the usual port.

    Raises BadSetting.
    """
    if nats is not None:
        if data is not None:
            raise BadSetting("--nats and --data both say where the log is; give one of them")
        return nats
    found = running(data or default_data())
    if found is None and data is not None:
        raise BadSetting(f"no kubebraid runs on --data {data}; start `kubebraid up --data {data}`, or give --nats URL")
    return found or _DEFAULT


@contextlib.asynccontextmanager
async def opened(url: str, access: Access, stream: str) -> AsyncIterator[Log]:
    """The log at a NATS URL. Raises BadAccess, BrokerUnavailable, LogError."""
    connection = await connect(url, name="kubebraid-consumer", access=access)
    try:
        yield await open_log(connection, LogSettings(name=stream), make=False)
    except JetStreamRefused as refused:
        raise LogError(f"stream {stream} at {connection.url}: {refused.description}") from refused
    finally:
        await connection.close()


def moment(option: str, text: str, now: datetime) -> Start:
    """A place in the log as people say it: `now`, `beginning`, an index, a version, `10m`, a date or time (RFC 3339).

    Raises BadSetting.
    """
    if text in (NOW, BEGINNING):
        return text
    if _TIME.fullmatch(text):
        try:
            found = datetime.fromisoformat(text.upper())
        except ValueError:
            raise BadSetting(f"{option} {text!r} is no time; write 2026-01-31T12:00:00Z") from None
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    try:
        if _DURATION.fullmatch(text) and "@" not in text:
            with contextlib.suppress(BadConfiguration):
                return now - timedelta(seconds=duration(text))
        return parse_place(text)
    except (BadPlace, OverflowError):
        raise BadSetting(
            f"{option} {text!r}: write an index, a resourceVersion, a duration as in 10m, a time as in "
            "2026-01-31T12:00:00Z, beginning or now"
        ) from None


async def known_types(log: Log) -> dict[str, ResourceType]:
    """The types of the log by their names (`deployments.apps`), each as one of the clusters serves it."""
    return {str(one.group_resource): one for _, one in await _types(log)}


async def types_of_clusters(log: Log) -> dict[str, set[str]]:
    """The names of the types that each cluster has in the log."""
    found: dict[str, set[str]] = {}
    for cluster, one in await _types(log):
        found.setdefault(cluster, set()).add(str(one.group_resource))
    return found


async def _types(log: Log) -> list[tuple[str, ResourceType]]:
    """What the `type` records of the log state, with their clusters."""
    found: list[tuple[str, ResourceType]] = []

    def note(record: Record) -> None:
        with contextlib.suppress(UnreadableRecord):
            control = decode_control(record.data)
            if isinstance(control.fact, ResourceType):
                found.append((control.cluster, control.fact))

    await read_to_end(log, note, subjects=(f"{CONTROL}.*.{TYPE}.*.*",))
    return found


async def resolve(log: Log, words: Sequence[str]) -> list[str]:
    """Types as kubectl takes them (`po`, `pod`, `Deployment`, `deployments`) as names. Raises BadSetting.

    What has a group in it may be a type that is yet to come, and stays as it is; so does anything while the log knows
    no types.
    """
    known = await known_types(log)
    names = []
    for word in words:
        if not known or word in known or "*" in word or "." in word:
            names.append(word)
            continue
        matches = [name for name, one in known.items() if word.lower() in _words(one)]
        if not matches:
            spoken = {spelt: name for name, one in known.items() for spelt in (name, *_words(one))}
            close = difflib.get_close_matches(word.lower(), spoken, n=1)
            mend = f"did you mean {spoken[close[0]]}?" if close else "`kubebraid status --types` lists them"
            raise BadSetting(f"no cluster in the log has a type {word!r}; {mend}")
        names.extend(matches)
    return names


def _words(known: ResourceType) -> set[str]:
    return {known.resource, known.singular, known.kind.lower(), *known.short_names} - {""}
