"""Presentation: an object in the form that a request asks for: itself, its metadata, or a row of a Table."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from simulation.api import tables
from simulation.api.options import AnswerForm, accepted_form
from simulation.api.paths import ResourcePath
from simulation.resources import SimulatedType
from simulation.storage import EventType, StoredEvent, StoredObject, encode_event, go_json

__all__ = ["Presentation", "presentation_for"]


@dataclass(slots=True)
class Presentation:
    """How one request shows objects of a type in an API version.

    `form_version` is that of meta.k8s.io; `include_object` is what rows have of their object: None, Metadata or Object.
    `columns_sent`: later events of a watch leave the column definitions out. The plain form shares the stored and
    encoded bytes; the others are made anew each time.
    """

    type: SimulatedType
    version: str
    form: AnswerForm = "json"
    form_version: str = "v1"
    include_object: str = "Metadata"
    columns_sent: bool = False

    @property
    def plain(self) -> bool:
        """Whether objects are shown as they are stored."""
        return self.form in ("json", "discovery")

    def single(self, stored: StoredObject) -> bytes:
        """An object that is not in a list."""
        if self.plain:
            return self.type.head(self.version) + stored.tail + b"\n"
        if self.form == "table":
            return (
                go_json(
                    {
                        "kind": "Table",
                        "apiVersion": f"meta.k8s.io/{self.form_version}",
                        "metadata": {"resourceVersion": str(stored.version)},
                        "columnDefinitions": self._columns(),
                        "rows": [tables.row(self.type, self.version, stored, self.include_object)],
                    }
                )
                + b"\n"
            )
        return go_json(tables.partial_metadata(stored.body(), enveloped=True)) + b"\n"

    def event(self, type: EventType, event: StoredEvent) -> bytes:
        """A watch event of the history."""
        if self.plain:
            return event.encoded(type, self.type.head(self.version))
        shown = event.current
        if type == "DELETED" and event.type != "DELETED" and event.previous is not None:
            shown = event.previous.with_version(event.version)
        return self._framed(type, shown)

    def initial(self, stored: StoredObject) -> bytes:
        """The ADDED event of an object that existed before the watch."""
        if self.plain:
            return encode_event("ADDED", self.type.head(self.version), stored)
        return self._framed("ADDED", stored)

    def _framed(self, type: EventType, stored: StoredObject) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (type.encode(), self.single(stored).rstrip(b"\n"))

    def bookmark(self, version: int, *, initial_events_end: bool = False) -> bytes:
        """A BOOKMARK as of a version."""
        metadata: dict[str, object] = {"resourceVersion": str(version)}
        if initial_events_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self.form == "table":
            shown: dict[str, object] = {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self.form_version}",
                "metadata": {"resourceVersion": str(version)},
                "columnDefinitions": self._columns(),
                "rows": [
                    {
                        "cells": [],
                        "object": {
                            "kind": "PartialObjectMetadata",
                            "apiVersion": "meta.k8s.io/v1",
                            "metadata": metadata,
                        },
                    }
                ],
            }
        elif self.plain:
            shown = {
                "kind": self.type.kind,
                "apiVersion": self.type.api_version(self.version),
                "metadata": metadata,
            }
        else:
            shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return go_json({"type": "BOOKMARK", "object": shown}) + b"\n"

    def _columns(self) -> list[dict[str, object]] | None:
        if self.columns_sent:
            return None
        self.columns_sent = True
        return tables.column_definitions(self.type, self.version)

    def list_frame(self, metadata: dict[str, object]) -> tuple[bytes, bytes, bytes]:
        """What a list begins with, what separates its items, and what ends it."""
        if self.plain:
            if self.type.custom:
                # Unstructured: sorted, and an empty token is written, too.
                metadata = dict(sorted({"continue": "", **metadata}.items()))
            opening, closing = self.type.list_frame(self.version, go_json(metadata))
            return opening, b"," + self.type.item_head(self.version), closing
        meta = b'"metadata":' + go_json(metadata)
        if self.form == "table":
            head = f'{{"kind":"Table","apiVersion":"meta.k8s.io/{self.form_version}",'.encode()
            columns = b',"columnDefinitions":' + go_json(tables.column_definitions(self.type, self.version))
            return head + meta + columns + b',"rows":[', b",", b"]}\n"
        head = f'{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/{self.form_version}",'.encode()
        return head + meta + b',"items":[', b",", b"]}\n"

    def item(self, stored: StoredObject) -> bytes:
        """An item of a list, without the separator that `list_frame` gives."""
        if self.plain:
            return stored.tail
        if self.form == "table":
            return go_json(tables.row(self.type, self.version, stored, self.include_object))
        return go_json(tables.partial_metadata(stored.body(), enveloped=self.type.custom))


def presentation_for(request: web.BaseRequest, path: ResourcePath, *, tables: bool = True) -> Presentation:
    """How a request wants to see objects, by its Accept header and `includeObject`. `tables`: whether there are any.

    Raises:
        StatusError: 406 if no form is acceptable that can be served.
    """
    form, version = accepted_form(request.headers.get("Accept", ""), tables=tables)
    include = request.query.get("includeObject", "Metadata")
    return Presentation(path.type, path.version, form, version or "v1", include)
