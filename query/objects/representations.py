"""Representations: entries and changes of one type as whole objects, metadata or table rows.

Nothing here parses an object but the rows of a table; everything else is a join of stored bytes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec

from deltalog.wire.kubernetes import GroupVersion
from deltalog.wire.resource_type import ResourceType
from materializer import reading
from materializer.cursor import ShownChange
from materializer.entry import VERSION_OFFSET, Entry
from materializer.versions import Named
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.http.accept import Form, Representation
from query.http.rendering import Pieces
from query.http.request import Request
from query.http.status import ApiError
from query.objects.injected_events import injected
from query.tables import Column, KeptRows, PrinterColumn, printer_for, row_of
from query.tables.ages import age_text

_CLUSTER_COLUMN = Column(
    name="Cluster", type="string", format="", description="The member cluster the object is of.", priority=0
)

_INCLUDED = ("None", "Metadata", "Object")

_KEPT_ROWS = KeptRows(64 * 1024 * 1024)
"""The rows of all tables that this process serves: those of some 60,000 objects."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Encoder:
    """How the objects of one type are written in one representation.

    `versions`: how resourceVersions are written. `across`: whether the scope is all clusters, so that a table begins
    with the cluster. `include`: a table row's object: Metadata (default), Object, None. Raises ApiError 400 if it is
    another one; what is no table does not look at it (apiserver pkg/endpoints/handlers: optionsForTransform).

    `ordered`: whether the list is in an order that was asked for. `opening`: what stands before each of `items` in a
    list, see there.
    """

    def __init__(
        self,
        info: ResourceType,
        version: str,
        wanted: Representation,
        versions: Named,
        *,
        across: bool,
        include: str = "Metadata",
        ordered: bool = False,
    ) -> None:
        self.form = wanted.form
        # Clusters may define the columns of one type differently, and users see different ones of them.
        defined = msgspec.json.encode(info.columns) if self.form is Form.TABLE else b""
        shown = (wanted.form, wanted.api_version, across, include)
        self.key: tuple[object, ...] = (versions, *shown, info.kind, version, defined)
        self._info = info
        self._api_version = str(GroupVersion(info.group, version))
        self._wanted = wanted
        self.versions = versions
        # Whether the bodies are sent as they are stored.
        self._stored = type(versions) is Named
        self._across = across
        self._include = include
        self._ordered = ordered
        self._events: Mapping[tuple[str, str], Sequence[Entry]] | None = None
        self.opening = b""
        if self.form is Form.OBJECT:
            # An item of a Go type's list has the TypeMeta that it was decoded with, which is none; those of custom
            # resources are kept as they are (apimachinery runtime: WithVersionEncoder, unstructured).
            self.opening = _type_meta(info.kind, self._api_version) if _is_custom(info) else b"{"
        self._meta_head = b'{"kind":"PartialObjectMetadata","apiVersion":%b,"metadata":' % msgspec.json.encode(
            wanted.api_version
        )
        if self.form is Form.TABLE:
            columns = None
            if info.columns is not None:
                columns = tuple(_printer_column(column) for column in info.columns)
            self._printer = printer_for(info.group, info.resource, columns)
            if include not in _INCLUDED:
                raise ApiError(
                    400,
                    f'Unable to convert to Table as requested: includeObject: Invalid value: "{include[:64]}": '
                    "must be 'Metadata', 'Object', 'None', or empty",
                )
            # A row up to its cells, by cluster.
            self._row_heads: dict[str, bytes] = {}
            # A row from behind its conditions up to what it includes of the object.
            self._row_object = b',"object":' + (self._meta_head if include == "Metadata" else b"")

    # -- lists -----------------------------------------------------------------------------------------------------

    def list_head(self, version: str, token: str, remaining: int | None) -> bytes:
        """The list up to its first item."""
        metadata: dict[str, Any] = {"resourceVersion": version}
        if token:
            metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
        if self.form is Form.TABLE:
            head = {"kind": "Table", "apiVersion": self._wanted.api_version, "metadata": metadata}
            columns = msgspec.json.encode(self._columns())
            return msgspec.json.encode(head)[:-1] + b',"columnDefinitions":' + columns + b',"rows":['
        if self.form is Form.METADATA:
            kind, api_version = "PartialObjectMetadataList", self._wanted.api_version
        else:
            kind, api_version = f"{self._info.kind}List", self._api_version
        return msgspec.json.encode({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1] + b',"items":['

    def with_events(self, events: Mapping[tuple[str, str], Sequence[Entry]]) -> Self:
        """The same, with Events in objects' annotations, by cluster and uid of what they are about.

        Not in tables that have no whole objects.
        """
        made = copy.copy(self)
        made._events = events
        return made

    @property
    def as_stored(self) -> bool:
        """Whether items are stored bodies, which `pieces` gives."""
        return self._stored and self._events is None and self.form is Form.OBJECT

    def pieces(self, entries: Sequence[Entry], rests: Sequence[bytes | memoryview] | None = None) -> Pieces:
        """As `items`, of those that are `as_stored`, without a copy of any. `rests`: theirs, if they have been read."""
        made = Pieces()
        openings = reading.openings(entries, b"," + self.opening)
        for both in zip(openings, reading.rests(entries) if rests is None else rests, strict=True):
            made += both  # type: ignore[arg-type]  # join takes any buffer
        return made

    def items(self, entries: Sequence[Entry], rests: Sequence[bytes] | None = None) -> list[bytes]:
        """Each entry as an item of the list, all of them of one slice, each without `opening`.

        So a join of stored bytes, with `opening` in its separator, is the list; only tables cost more. Of the few types
        whose rows the server sorts, a slice is sorted, cluster by cluster, unless the list is in an order of its own.
        `rests`: theirs, if they have been read.
        """
        if self.form is Form.TABLE and self._stored and self._include != "Object" and self._printer.order is None:
            return self._kept_rows(entries)
        contents = self._contents(entries, rests)
        if self.form is Form.OBJECT:
            return contents
        if self.form is Form.METADATA:
            return [
                self._metadata(metadata_in(entry, content)) for entry, content in zip(entries, contents, strict=True)
            ]
        order = self._printer.order
        if order is not None and not self._ordered:
            both = sorted(
                zip(entries, contents, strict=True),
                key=lambda one: (one[0].cluster, order(one[0].type_meta + one[1])),
            )
            entries, contents = [entry for entry, _ in both], [content for _, content in both]
        return self._rows(entries, contents, own=self._stored)

    def size(self, entries: Sequence[Entry]) -> int | None:
        """The bytes of these entries' items together, where that is known without writing them."""
        if not self.as_stored:
            return None
        return reading.size(entries) + len(self.opening) * len(entries)

    def _contents(self, entries: Sequence[Entry], rests: Sequence[bytes] | None = None) -> list[bytes]:
        contents = self._plain(entries, rests)
        if self._events is None:
            return contents
        found = []
        for entry, content in zip(entries, contents, strict=True):
            about = self._events.get((entry.cluster, entry.uid), ())
            events = [one.type_meta + body for one, body in zip(about, self._plain(about), strict=True)]
            found.append(injected(entry, content, events))
        return found

    def _plain(self, entries: Sequence[Entry], rests: Sequence[bytes] | None = None) -> list[bytes]:
        if rests is None:
            rests = reading.rests(entries)
        if self._stored:
            return [opening + rest for opening, rest in zip(reading.openings(entries), rests, strict=True)]
        return [self.versions.content(entry, rest, entry.index) for entry, rest in zip(entries, rests, strict=True)]

    # -- one object ------------------------------------------------------------------------------------------------

    def one(self, entry: Entry) -> bytes:
        """A single object, as GET answers it."""
        [content] = self._contents([entry])
        if self.form is Form.OBJECT:
            return b"%b%b\n" % (entry.type_meta, content)
        if self.form is Form.METADATA:
            return self._metadata(metadata_in(entry, content)) + b"\n"
        rows = self._rows([entry], [content], own=self._stored)
        return self._table(rows, entry.index, entry.member_version) + b"\n"

    # -- watches ---------------------------------------------------------------------------------------------------

    def events(self, changes: Sequence[ShownChange], *, definitions: bool = False) -> bytes:
        """The changes as lines of a watch. `definitions`: the first table is to tell its columns."""
        lines = []
        rests = reading.rests([change.entry for change in changes])
        for change, rest in zip(changes, rests, strict=True):
            entry = change.entry
            # A tombstone's content has its own version; what left a selector, or stands for a predecessor, gets the
            # version of the event.
            content = self.versions.content(entry, rest, change.at, change.member_version)
            if self.form is Form.OBJECT:
                lines.append(b'{"type":"%b","object":%b%b}\n' % (change.type.encode(), entry.type_meta, content))
                continue
            if self.form is Form.METADATA:
                shown = self._metadata(metadata_in(entry, content))
            else:
                version = entry.member_version if change.member_version is None else change.member_version
                rows = self._rows([entry], [content], own=self._stored and change.at == entry.index)
                shown = self._table(rows, change.at, version, definitions=definitions)
                definitions = False
            lines.append(b'{"type":"%b","object":%b}\n' % (change.type.encode(), shown))
        return b"".join(lines)

    def bookmark(self, version: str, *, initial_events_end: bool = False, definitions: bool = False) -> bytes:
        """A BOOKMARK event: nothing but a version, in the form of the watch.

        In a table it is the row of an object that has nothing else. `definitions`: the first table, as in `events`.
        """
        metadata: dict[str, Any] = {"resourceVersion": version, "creationTimestamp": None}
        if initial_events_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        shown: dict[str, Any]
        if self.form is Form.OBJECT:
            shown = {"kind": self._info.kind, "apiVersion": self._api_version, "metadata": metadata}
        else:
            partial = {
                "kind": "PartialObjectMetadata",
                "apiVersion": self._wanted.api_version,
                "metadata": metadata,
            }
            shown = partial
            if self.form is Form.TABLE:
                shown = {
                    "kind": "Table",
                    "apiVersion": self._wanted.api_version,
                    "metadata": {"resourceVersion": version},
                    "columnDefinitions": self._columns() if definitions else None,
                    "rows": [{"cells": self._cells_of_nothing(), "object": partial}],
                }
        return b'{"type":"BOOKMARK","object":%b}\n' % msgspec.json.encode(shown)

    # -- forms -----------------------------------------------------------------------------------------------------

    def _metadata(self, metadata: bytes) -> bytes:
        return self._meta_head + metadata + b"}"

    def _columns(self) -> list[dict[str, Any]]:
        columns = (_CLUSTER_COLUMN, *self._printer.columns) if self._across else self._printer.columns
        return [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns
        ]

    def _rows(self, entries: Sequence[Entry], contents: Sequence[bytes], *, own: bool) -> list[bytes]:
        """Each entry as a row, with the version it has in its content here; ages are those of this moment.

        `own`: whether these are the entries' contents with their own versions.
        """
        now = time.time()
        printer, heads, behind, join = self._printer, self._row_heads, self._row_object, b"".join
        metadata, whole = self._include == "Metadata", self._include == "Object"
        end = b"}}" if metadata else b"}"
        rows = []
        for entry, content in zip(entries, contents, strict=True):
            if own or printer.unversioned:
                row = _KEPT_ROWS.find(printer, entry, content if own else None)
            else:
                row = row_of(printer, entry.type_meta + content)
            head = heads.get(entry.cluster) or self._row_head(entry.cluster)
            if metadata:
                shown = metadata_in(entry, content)
            else:
                # Unlike an item, it was converted to its version on its own (endpoints/handlers/response.go: asTable).
                shown = entry.type_meta + content if whole else b"null"
            if row.others is None:
                rows.append(join((head, row.before, age_text(int(now - row.since)), row.after, behind, shown, end)))
            else:
                rows.append(join((head, row.at(now), behind, shown, end)))
        return rows

    def _kept_rows(self, entries: Sequence[Entry]) -> list[bytes]:
        """As `_rows`, of entries with their own versions; those that are kept are not read."""
        printer, heads, behind, join = self._printer, self._row_heads, self._row_object, b"".join
        found = _KEPT_ROWS.kept(printer, entries)
        missing = [at for at, kept in enumerate(found) if kept is None]
        unread = [entries[at] for at in missing]
        for at, entry, content in zip(missing, unread, reading.contents(unread), strict=True):
            found[at] = _KEPT_ROWS.find(printer, entry, content)
        now = time.time()
        metadata = self._include == "Metadata"
        end = b"}}" if metadata else b"}"
        rows = []
        for entry, opening, row in zip(entries, reading.openings(entries), found, strict=True):
            assert row is not None
            head = heads.get(entry.cluster) or self._row_head(entry.cluster)
            shown = (opening[VERSION_OFFSET - 1 :], row.metadata) if metadata else (b"null", b"")
            if row.others is None:
                rows.append(join((head, row.before, age_text(int(now - row.since)), row.after, behind, *shown, end)))
            else:
                rows.append(join((head, row.at(now), behind, *shown, end)))
        return rows

    def _cells_of_nothing(self) -> list[Any]:
        cells = self._printer.row(b"{}").cells(time.time())
        return ["", *cells] if self._across else cells

    def _row_head(self, cluster: str) -> bytes:
        head = b'{"cells":['
        if self._across:
            head += msgspec.json.encode(cluster) + b","
        self._row_heads[cluster] = head
        return head

    def _table(self, rows: list[bytes], at: int, original: str, *, definitions: bool = True) -> bytes:
        version = self.versions.of_object(at, original)
        return b'{"kind":"Table","apiVersion":%b,"metadata":%b,"columnDefinitions":%b,"rows":[%b]}' % (
            msgspec.json.encode(self._wanted.api_version),
            msgspec.json.encode({"resourceVersion": version}),
            msgspec.json.encode(self._columns()) if definitions else b"null",
            b",".join(rows),
        )


def metadata_in(entry: Entry, content: bytes) -> bytes:
    """metadata's value in a content, whatever version it has."""
    return content[VERSION_OFFSET - 1 : -entry.behind_metadata]


def _type_meta(kind: str, api_version: str) -> bytes:
    return b'{"kind":%b,"apiVersion":%b,' % (msgspec.json.encode(kind), msgspec.json.encode(api_version))


def _is_custom(info: ResourceType) -> bool:
    """Whether a CustomResourceDefinition defines a type; records of release 0.1 only show what it says of it."""
    return info.custom or info.columns is not None or bool(info.selectable)


def _printer_column(column: Any) -> PrinterColumn:
    return PrinterColumn(
        name=str(column.get("name", "")),
        type=str(column.get("type", "string")),
        json_path=str(column.get("jsonPath", "")),
        format=str(column.get("format", "") or ""),
        description=str(column.get("description", "") or ""),
        priority=int(column.get("priority", 0) or 0),
    )


def encoder_for(
    request: Request,
    target: RequestTarget,
    served: ServedType,
    representation: Representation,
    versions: Named,
    *,
    ordered: bool = False,
) -> Encoder:
    """The encoder for the objects of a request, in the form that was negotiated for it.

    `ordered`: whether the request says by what they are sorted.

    Raises:
        ApiError: 400, the includeObject parameter of a table is none.
    """
    return Encoder(
        served.info,
        target.version,
        representation,
        versions,
        across=request.cluster is None,
        include=request.http.query.get("includeObject") or "Metadata",
        ordered=ordered,
    )
