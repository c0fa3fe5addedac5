"""Events, of the core group and of events.k8s.io."""

from __future__ import annotations

import msgspec

from query.tables.columns import Column, Metadata, Part, Row, TypedPrinter, aged, described, wide


class _Object(Part, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    field_path: str = ""


class _Source(Part, frozen=True, gc=False):
    component: str = ""
    host: str = ""


class _Series(Part, frozen=True, gc=False):
    count: int = 0
    last_observed_time: str | None = None


class _Event(Part, frozen=True, gc=False):
    """A core/v1 Event."""

    metadata: Metadata = Metadata()
    type: str = ""
    reason: str = ""
    involved_object: _Object = _Object()
    message: str = ""
    source: _Source = _Source()
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    count: int = 0
    series: _Series | None = None
    reporting_controller: str = msgspec.field(name="reportingComponent", default="")
    reporting_instance: str = ""


class _NewEvent(Part, frozen=True, gc=False):
    """An events.k8s.io/v1 Event: the same under other names."""

    metadata: Metadata = Metadata()
    type: str = ""
    reason: str = ""
    involved_object: _Object = msgspec.field(name="regarding", default=_Object())
    message: str = msgspec.field(name="note", default="")
    source: _Source = msgspec.field(name="deprecatedSource", default=_Source())
    first_timestamp: str | None = msgspec.field(name="deprecatedFirstTimestamp", default=None)
    last_timestamp: str | None = msgspec.field(name="deprecatedLastTimestamp", default=None)
    event_time: str | None = None
    count: int = msgspec.field(name="deprecatedCount", default=0)
    series: _Series | None = None
    reporting_controller: str = ""
    reporting_instance: str = ""


def _event(each: _Event | _NewEvent) -> Row:
    """printers.go: printEvent, formatEventSource."""
    first = each.first_timestamp or each.event_time
    if each.series is not None:
        last, count = each.series.last_observed_time, each.series.count
    else:
        # Events of the new API that happened once have no count.
        last, count = each.last_timestamp or first, each.count or 1
    at = each.involved_object
    kind = at.kind.lower()
    component = each.source.component or each.reporting_controller
    host = each.source.host or each.reporting_instance
    cells = [
        None,
        each.type,
        each.reason,
        f"{kind}/{at.name}" if at.name else kind,
        at.field_path,
        f"{component}, {host}" if host else component,
        each.message.strip(),
        None,
        count,
        each.metadata.name,
    ]
    return aged(cells, (0, last), (7, first))


_COLUMNS = (
    Column("Last Seen", description=described("Event.lastTimestamp")),
    Column("Type", description=described("Event.type")),
    Column("Reason", description=described("Event.reason")),
    Column("Object", description=described("Event.involvedObject")),
    wide("Subobject", described("ObjectReference.fieldPath")),
    wide("Source", described("Event.source")),
    Column("Message", description=described("Event.message")),
    wide("First Seen", described("Event.firstTimestamp")),
    wide("Count", described("Event.count")),
    Column("Name", format="name", description=described("ObjectMeta.name"), priority=1),
)

EVENTS = TypedPrinter(_COLUMNS, _Event, _event)
NEW_EVENTS = TypedPrinter(_COLUMNS, _NewEvent, _event)
