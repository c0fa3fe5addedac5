"""`kubebraid status`: the status of a running instance's clusters and types, for people and for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
import typer

from kubebraid.command.asking import ServerRefused, Service, unanswered
from kubebraid.command.options.service import with_service
from kubebraid.command.settings import BadSetting
from kubebraid.command.tables import rendered, row, table
from kubebraid.errors import Unavailable
from query.http.health import Check

# Seconds to wait for the instance's answer.
_PATIENCE = 10.0


class Unanswered(Unavailable):
    """No instance answers there; one line that says the remedy."""

    code = 2


class TypeSummary(msgspec.Struct, frozen=True):
    """One type of one cluster. `lag`: seconds since its producer last heard of it; None if never."""

    type: str
    objects: int
    synced: bool
    version: str
    lag: float | None
    error: str


class ClusterSummary(msgspec.Struct, frozen=True):
    """One cluster. `state`: `ready`, `stale` (`reason` says why) or `listing` (first lists are missing)."""

    name: str
    state: str
    reason: str
    producer: str
    objects: int
    types: tuple[TypeSummary, ...]


class StreamSummary(msgspec.Struct, frozen=True):
    """One stream of the log: its extent; `first` and `last` are sequences."""

    messages: int
    bytes: int
    first: int
    last: int


class EventsSummary(StreamSummary, frozen=True):
    """The events. `since`: when the oldest change that they have was stored, RFC 3339; None: they have none."""

    since: str | None = None


class StateSummary(StreamSummary, frozen=True, rename="camel"):
    """The state. `lag`: messages it has still to copy; `lacks_to`: up to which index it may lack objects, 0: none."""

    lag: int = 0
    lacks_to: int = 0


class StreamsSummary(msgspec.Struct, frozen=True):
    """The log's streams; `window`: for how many seconds events are kept; `trouble`: what is wrong, None: nothing."""

    events: EventsSummary
    state: StateSummary | None
    window: int
    trouble: str | None


class InstanceStatus(msgspec.Struct, frozen=True):
    """An instance: whether /readyz is 200; `outage`: for how many seconds it could not read the log, None if it can.

    `notes`: what else is wrong, as when the log takes nothing in. `streams`: of the log; None: not known (yet).
    """

    server: str
    ready: bool
    outage: float | None
    index: int
    clusters: tuple[ClusterSummary, ...]
    notes: tuple[str, ...] = ()
    streams: StreamsSummary | None = None

    @property
    def good(self) -> bool:
        """Whether nothing is wrong: ready, reads the log, which lacks nothing, and all clusters are current."""
        trouble = self.outage is not None or self.notes or (self.streams is not None and self.streams.trouble)
        return self.ready and not trouble and all(one.state == "ready" for one in self.clusters)


def ask(service: Service) -> InstanceStatus:
    """The status of an instance. Raises Unanswered, BadSetting."""
    try:
        body, server, _ = service.get("/clusters", _PATIENCE)
    except ServerRefused as refused:
        if refused.code == 429:
            return InstanceStatus(refused.url, ready=False, outage=None, index=0, clusters=())
        raise Unanswered(str(refused)) from None
    except OSError as cause:
        raise Unanswered(unanswered(cause)) from None
    try:
        return _status(server, json.loads(body))
    except (ValueError, KeyError, TypeError) as cause:
        raise Unanswered(f"what answers at {server} is no kubebraid ({cause}); give --server URL") from None


def _status(server: str, found: dict[str, Any]) -> InstanceStatus:
    now = time.time()
    return InstanceStatus(
        server,
        ready=bool(found["ready"]),
        outage=found["outage"],
        index=int(found["index"]),
        clusters=tuple(_cluster(one, now) for one in found["clusters"]),
        notes=tuple(Check.of(str(note)).text for note in found.get("notes", ())),
        streams=msgspec.convert(found.get("streams"), StreamsSummary | None),
    )


def _cluster(found: dict[str, Any], now: float) -> ClusterSummary:
    types = []
    for resource, told in sorted(found["types"].items()):
        # What a watch last said, or the list before it.
        heard = max(told.get("event", 0), told.get("listed", 0))
        lag = max(now - heard / 1000, 0.0) if heard else None
        types.append(
            TypeSummary(
                resource,
                int(told.get("objects", 0)),
                bool(told.get("synced")),
                str(told.get("version", "")),
                lag,
                str(told.get("error", "")),
            )
        )
    state, reason = "ready", ""
    if found["stale"] is not None:
        state, reason = "stale", str(found["stale"])
    elif not found["known"]:
        state, reason = "listing", "its types are being discovered"
    elif found["missing"]:
        state, reason = "listing", "first lists missing: " + ", ".join(found["missing"][:5])
    return ClusterSummary(
        found["name"], state, reason, str(found["producer"]), sum(one.objects for one in types), tuple(types)
    )


def lines(status: InstanceStatus, *, types: bool) -> Iterator[str]:
    """For people; `types`: also one line for each type of each cluster."""
    state = "ready" if status.ready else "not ready"
    yield f"{status.server}: {state}, at index {status.index}, {len(status.clusters)} clusters"
    if status.outage is not None:
        yield f"  the log has been unreachable for {status.outage:.0f} s: what was known then is served"
    if status.streams is not None:
        yield from _stream_lines(status.streams)
    for note in status.notes:
        yield f"  {note}"
    yield from cluster_lines(status.clusters)
    if not types:
        return
    rows = table("cluster", "type", "objects", "heard", "version", "error")
    for one in status.clusters:
        for resource in one.types:
            heard = "never" if resource.lag is None else f"{resource.lag:.0f} s ago"
            state = resource.error or ("" if resource.synced else "being listed")
            row(rows, one.name, resource.type, f"{resource.objects:,}", heard, resource.version, state)
    yield ""
    yield from rendered(rows)


def _stream_lines(streams: StreamsSummary) -> Iterator[str]:
    events, state = streams.events, streams.state
    since = "" if events.since is None else f" since {events.since[:19]}Z"
    yield f"  events{since}: {_size(events)}; state: {'none' if state is None else _size(state)}"
    if streams.trouble is not None:
        yield f"  {streams.trouble}"


def _size(stream: StreamSummary) -> str:
    return f"{stream.messages:,} messages, {stream.bytes:,} bytes"


def cluster_lines(clusters: Iterable[ClusterSummary]) -> list[str]:
    """A table of clusters."""
    rows = table("cluster", "state", "types", "objects", "producer", "reason")
    for one in clusters:
        failing = [resource for resource in one.types if resource.error]
        reason = one.reason or "; ".join(f"{resource.type}: {resource.error}" for resource in failing[:3])
        row(rows, one.name, one.state, str(len(one.types)), f"{one.objects:,}", one.producer, reason)
    return rendered(rows)


@with_service
def command(
    service: Service,
    types: Annotated[bool, typer.Option("--types", help="Also each type of each cluster.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Show the clusters of a running service, and how current they are. Code 1: something is not as it should be."""
    if output not in ("text", "json"):
        raise BadSetting(f"--output {output!r}: text or json")
    found = ask(service)
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for line in lines(found, types=types):
            typer.echo(line)
    if not found.good:
        raise typer.Exit(1)
