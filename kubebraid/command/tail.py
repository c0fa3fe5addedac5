"""`kubebraid tail`: the changes of all clusters as they happen, for people to read, or as JSON lines."""

from __future__ import annotations

import sys
import zlib
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import msgspec
import typer
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from deltalog import Access, Bookmark, Change, Event, Removed, UnreadableRecord, select, subscribe
from deltalog.place import Start
from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selection import Selection
from kubebraid.command import locate, reporting
from kubebraid.command.options.access import with_access
from kubebraid.command.options.log import DataRunning, NatsRunning, Stream
from kubebraid.command.options.process import LogLevel
from kubebraid.command.options.selecting import WHEN, OfClusters, OfLabels, OfNames, OfNamespaces, OfTypes
from kubebraid.command.settings import BadSetting
from kubebraid.command.tables import printable

# Of clusters; those of changes are not among them.
_COLOURS = ("cyan", "magenta", "blue", "bright_cyan", "bright_magenta", "bright_blue", "bright_white", "bright_black")
_TYPES = {
    ADDED: Style(color="green"),
    MODIFIED: Style(color="yellow"),
    DELETED: Style(color="red"),
    "LEFT": Style(color="red", dim=True),
    "REMOVED": Style(color="red", bold=True),
}
_DIM = Style(dim=True)


class Lines:
    """Events as lines of text, in colour where `colours` says so. Columns grow with what was shown."""

    def __init__(self, colours: ColorSystem | None) -> None:
        self._colours = colours
        self._cluster = 0
        self._type = 0

    def __call__(self, event: Change | Removed) -> str:
        """The line of one event, without its end."""
        if isinstance(event, Change):
            delta = event.delta
            type_ = "LEFT" if event.left else event.type
            cluster, resource = delta.cluster, str(GroupResource(delta.group, delta.resource))
            what = f"{delta.namespace}/{delta.name}" if delta.namespace else delta.name
        else:
            type_, cluster = "REMOVED", event.cluster
            resource, what = str(GroupResource(event.group, event.resource)) or "*", "all of them"
        cluster, resource, what = printable(cluster), printable(resource), printable(what)
        self._cluster = max(self._cluster, len(cluster))
        self._type = max(self._type, len(resource))
        colour = Style(color=_COLOURS[zlib.crc32(cluster.encode()) % len(_COLOURS)])
        return "  ".join(
            (
                self._paint(_clock(event.time), _DIM),
                self._paint(f"{type_:8}", _TYPES[type_]),
                self._paint(cluster.ljust(self._cluster), colour),
                resource.ljust(self._type),
                what,
                self._paint(str(event.sequence), _DIM),
            )
        )

    def _paint(self, text: str, style: Style) -> str:
        return style.render(text, color_system=self._colours)


def _clock(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1e9).astimezone()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def as_json(event: Change | Removed) -> bytes:
    """One event as a JSON object: a watch event's `type` and `object`, and beside them where it is from."""
    fields: dict[str, Any] = {
        "type": event.type if isinstance(event, Change) else "REMOVED",
        "index": event.sequence,
        "place": str(event.place),
        "time": datetime.fromtimestamp(event.time / 1e9, UTC).isoformat().replace("+00:00", "Z"),
    }
    if isinstance(event, Change):
        delta = event.delta
        fields |= {
            "left": event.left,
            "cluster": delta.cluster,
            "group": delta.group,
            "version": delta.version,
            "resource": delta.resource,
            "namespace": delta.namespace,
            "name": delta.name,
            "object": msgspec.Raw(event.body),
        }
    else:
        fields |= {"cluster": event.cluster, "group": event.group, "resource": event.resource}
    return msgspec.json.encode(fields)


async def tail(url: str, access: Access, stream: str, selection: Selection, start: Start, *, json: bool) -> None:
    """Prints what happens, for ever. Raises as `deltalog.subscribe` does, and BadSetting."""
    output: TextIO = sys.stdout
    lines = Lines(_colour_system(output))
    async with locate.opened(url, access, stream) as log:
        types = await locate.resolve(log, selection.types)
        subscription = subscribe(
            log,
            cluster=selection.clusters,
            type=types,
            namespace=selection.namespaces,
            name=selection.names,
            labels=selection.labels,
            start=start,
            fresh=True,
            # Told when nothing else waits: then is the time to show what was written.
            bookmarks=True,
        )
        async with subscription:
            compacted = 0
            while True:
                event: Event
                try:
                    event = await anext(subscription)
                except UnreadableRecord as problem:
                    print(f"kubebraid: {problem}", file=sys.stderr)  # noqa: T201
                    continue
                if subscription.compacted_through != compacted and subscription.start.sequence:
                    compacted = subscription.compacted_through
                    note = f"up to {compacted} the last change of each object, as the log has no older ones; then all"
                    print(f"kubebraid: {note}", file=sys.stderr)  # noqa: T201
                if not isinstance(event, Bookmark):
                    output.write((as_json(event).decode() if json else lines(event)) + "\n")
                if not subscription.waiting:
                    output.flush()


def _colour_system(output: TextIO) -> ColorSystem | None:
    name = Console(file=output).color_system
    return {
        "standard": ColorSystem.STANDARD,
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
        "windows": ColorSystem.WINDOWS,
    }.get(name or "")


@with_access
def command(
    access: Access,
    nats: NatsRunning = None,
    data: DataRunning = None,
    stream: Stream = "KUBEBRAID",
    cluster: OfClusters = None,
    resources: OfTypes = None,
    namespace: OfNamespaces = None,
    name: OfNames = None,
    selector: OfLabels = "",
    since: Annotated[
        str, typer.Option(metavar="WHEN", help=f"{WHEN} Without: what happens from now on.", show_default=False)
    ] = "now",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FORM", help="text, or json: one to a line.")
    ] = "text",
    log_level: LogLevel = "warning",
) -> None:
    """Show changes of all clusters as they happen."""
    if output not in ("text", "json"):
        raise BadSetting(f"--output {output!r}: text or json")
    selection = select(cluster=cluster, type=resources, namespace=namespace, name=name, labels=selector)
    start = locate.moment("--since", since, datetime.now(UTC))
    url = locate.nats_url(nats, data)
    work = tail(url, access, stream, selection, start, json=output == "json")
    reporting.run(reporting.while_read(sys.stdout, work), log_level, False)
