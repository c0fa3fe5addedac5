"""How collections are written: objects of several types in one list, table or watch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from deltalog.wire.resource_type import ResourceType
from materializer import reading
from materializer.cursor import ShownChange
from materializer.entry import Entry
from materializer.versions import Named
from query.discovery.clusterpedia import COLLECTIONS, GROUP, VERSION
from query.http.accept import Form, Representation
from query.objects.representations import Encoder, metadata_in
from query.tables.ages import UNKNOWN, age_text

_COLLECTION = ResourceType(
    group=GROUP, resource=COLLECTIONS, version=VERSION, kind="CollectionResource", namespaced=False
)
_COLUMNS = [
    {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": text, "priority": 0}
    for name, text in (
        ("Cluster", "The member cluster the object is of."),
        ("Group", "Its type's API group."),
        ("Version", "The version that it is in."),
        ("Kind", "Its kind."),
        ("Namespace", "Its namespace, if it has one."),
        ("Name", "Its name."),
        ("Age", "The time since it was created."),
    )
]


class CollectionEncoder(Encoder):
    """An encoder for objects of any type, each with its own kind and apiVersion.

    `name`: the collection's; `types`: as the answer tells of them, with group, version, kind and resource. `own_kinds`:
    whether metadata alone bears the kinds of the objects, as Clusterpedia's clients expect it, not those of metadata.
    """

    def __init__(
        self,
        name: str,
        types: Sequence[dict[str, str]],
        wanted: Representation,
        versions: Named,
        *,
        include: str,
        own_kinds: bool,
    ) -> None:
        super().__init__(_COLLECTION, VERSION, wanted, versions, across=True, include=include)
        self.key = (*self.key, own_kinds)
        self.opening = b""
        self._name = name
        self._types = types
        self._own_kinds = own_kinds and wanted.form is Form.METADATA

    def list_head(self, version: str, token: str, remaining: int | None) -> bytes:
        """The list up to its first item: of a collection, `continue` and `remainingItemCount` are its own fields."""
        if self.form is not Form.OBJECT and not self._own_kinds:
            return super().list_head(version, token, remaining)
        head: dict[str, Any] = {
            "kind": _COLLECTION.kind,
            "apiVersion": _COLLECTION.api_version,
            "metadata": {"name": self._name, "resourceVersion": version},
            "resourceTypes": self._types,
        }
        if token:
            head["continue"] = token
        if remaining is not None:
            head["remainingItemCount"] = remaining
        return msgspec.json.encode(head)[:-1] + b',"items":['

    @property
    def as_stored(self) -> bool:
        """No: each item begins with the kind of its own type."""
        return False

    def items(self, entries: Sequence[Entry], rests: Sequence[bytes] | None = None) -> list[bytes]:
        """Each entry as an item of the list, see `Encoder.items`."""
        contents = self._contents(entries, rests)
        if self.form is Form.TABLE:
            return self._rows(entries, contents, own=self._stored)
        both = zip(entries, contents, strict=True)
        if self.form is Form.OBJECT:
            return [entry.type_meta + content for entry, content in both]
        return [self._metadata_of(entry, content) for entry, content in both]

    def size(self, entries: Sequence[Entry]) -> int | None:
        """The bytes of these entries' items together, where that is known without writing them."""
        if not self._stored or self._events is not None or self.form is not Form.OBJECT:
            return None
        return reading.size(entries) + sum([len(entry.type_meta) for entry in entries])

    def events(self, changes: Sequence[ShownChange], *, definitions: bool = False) -> bytes:
        """The changes as lines of a watch, see `Encoder.events`."""
        if not self._own_kinds:
            return super().events(changes, definitions=definitions)
        rests = reading.rests([change.entry for change in changes])
        lines = []
        for change, rest in zip(changes, rests, strict=True):
            content = self.versions.content(change.entry, rest, change.at, change.member_version)
            shown = self._metadata_of(change.entry, content)
            lines.append(b'{"type":"%b","object":%b}\n' % (change.type.encode(), shown))
        return b"".join(lines)

    def _metadata_of(self, entry: Entry, content: bytes) -> bytes:
        metadata = metadata_in(entry, content)
        if self._own_kinds:
            return b'%b"metadata":%b}' % (entry.type_meta, metadata)
        return self._metadata(metadata)

    def _columns(self) -> list[dict[str, Any]]:
        return _COLUMNS

    def _rows(self, entries: Sequence[Entry], contents: Sequence[bytes], *, own: bool) -> list[bytes]:
        now = time.time()
        rows = []
        for entry, content in zip(entries, contents, strict=True):
            age = age_text(int(now - entry.created)) if entry.created else UNKNOWN.encode()
            group, version, kind = _kind_of(entry.type_meta)
            texts = [entry.cluster, group, version, kind, entry.namespace, entry.name, age.decode()]
            shown = b"null"
            if self._include == "Metadata":
                shown = self._metadata(metadata_in(entry, content))
            elif self._include == "Object":
                shown = entry.type_meta + content
            rows.append(b'{"cells":%b,"object":%b}' % (msgspec.json.encode(texts), shown))
        return rows

    def _cells_of_nothing(self) -> list[Any]:
        return ["", "", "", "", "", "", UNKNOWN]


@lru_cache(4096)
def _kind_of(type_meta: bytes) -> tuple[str, str, str]:
    """Group, version and kind, of how an object begins: `{"kind":"Deployment","apiVersion":"apps/v1",`."""
    found = msgspec.json.decode(type_meta.rstrip(b",") + b"}")
    group, _, version = found["apiVersion"].rpartition("/")
    return group, version, found["kind"]
