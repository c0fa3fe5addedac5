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
    Control,
    Log,
    LogError,
    LogSettings,
    Record,
    UnreadableRecord,
    connect,
    decode_control,
    open_log,
)
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.place import BEGINNING, NOW, BadPlace, Start, parse_place
from deltalog.reader import read_to_end
from deltalog.wire.delta import TYPE
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import CONTROL
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


async def known_types(log: Log) -> dict[str, Control]:
    """The `type` records of the log by title (`deployments.apps`), of one cluster each."""
    found: dict[str, Control] = {}

    def note(record: Record) -> None:
        with contextlib.suppress(UnreadableRecord):
            control = decode_control(record.data)
            found[str(GroupResource(control.group, control.resource))] = control

    await read_to_end(log, note, subjects=(f"{CONTROL}.*.{TYPE}.*.*",))
    return found


async def types_of_clusters(log: Log) -> dict[str, set[str]]:
    """The titles of the types that each cluster has in the log."""
    found: dict[str, set[str]] = {}

    def note(record: Record) -> None:
        with contextlib.suppress(UnreadableRecord):
            control = decode_control(record.data)
            found.setdefault(control.cluster, set()).add(str(GroupResource(control.group, control.resource)))

    await read_to_end(log, note, subjects=(f"{CONTROL}.*.{TYPE}.*.*",))
    return found


async def resolve(log: Log, words: Sequence[str]) -> list[str]:
    """Types as kubectl takes them (`po`, `pod`, `Deployment`, `deployments`) as titles. Raises BadSetting.

    What has a group in it may be a type that is yet to come, and stays as it is; so does anything while the log knows
    no types.
    """
    known = await known_types(log)
    titles = []
    for word in words:
        if not known or word in known or "*" in word or "." in word:
            titles.append(word)
            continue
        matches = [title for title, control in known.items() if word.lower() in _words(control)]
        if not matches:
            spoken = {one: title for title, control in known.items() for one in (title, *_words(control))}
            close = difflib.get_close_matches(word.lower(), spoken, n=1)
            mend = f"did you mean {spoken[close[0]]}?" if close else "`kubebraid status --types` lists them"
            raise BadSetting(f"no cluster in the log has a type {word!r}; {mend}")
        titles.extend(matches)
    return titles


def _words(control: Control) -> set[str]:
    data = control.data
    words = {control.resource, str(data.get("singular") or ""), str(data.get("kind") or "").lower()}
    words.update(str(one) for one in data.get("short_names") or ())
    return words - {""}
