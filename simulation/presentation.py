"""Presentation: an object as a request wants to see it - itself, its metadata, or a row of a Table."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from simulation import tables
from simulation.options import Form
from simulation.resources import ResourceType
from simulation.storage import Event, EventType, Stored, encode_event

__all__ = ["Presentation"]

_encode = msgspec.json.encode


@dataclass(slots=True)
class Presentation:
    """How one request shows objects. `form_version` is that of meta.k8s.io; `include_object` is for rows.

    The plain form shares the stored and encoded bytes; the others are made anew each time.
    """

    type: ResourceType
    version: str
    form: Form = "json"
    form_version: str = "v1"
    include_object: str = "Metadata"
    columns_sent: bool = False

    @property
    def plain(self) -> bool:
        """Whether objects are shown as they are."""
        return self.form in ("json", "discovery")

    def single(self, stored: Stored) -> bytes:
        """The object alone."""
        if self.plain:
            return self.type.head(self.version) + stored.tail
        if self.form == "table":
            return _encode(
                {
                    "kind": "Table",
                    "apiVersion": f"meta.k8s.io/{self.form_version}",
                    "metadata": {"resourceVersion": str(stored.version)},
                    "columnDefinitions": self._columns(),
                    "rows": [tables.row(self.type, self.version, stored, self.include_object)],
                }
            )
        return _encode(tables.partial_metadata(stored.body(), enveloped=True))

    def event(self, type: EventType, event: Event) -> bytes:
        """A watch event of the history."""
        if self.plain:
            return event.encoded(type, self.type.head(self.version))
        shown = event.current
        if type == "DELETED" and event.type != "DELETED" and event.previous is not None:
            shown = event.previous.with_version(event.version)
        return self._framed(type, shown)

    def initial(self, stored: Stored) -> bytes:
        """The ADDED of an object that was there before the watch."""
        if self.plain:
            return encode_event("ADDED", self.type.head(self.version), stored)
        return self._framed("ADDED", stored)

    def _framed(self, type: EventType, stored: Stored) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (type.encode(), self.single(stored))

    def bookmark(self, version: int, *, initial_events_end: bool = False) -> bytes:
        """A BOOKMARK as of a version."""
        metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
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
        return _encode({"type": "BOOKMARK", "object": shown}) + b"\n"

    def _columns(self) -> list[dict[str, object]] | None:
        if self.columns_sent:
            return None
        self.columns_sent = True
        return tables.column_definitions(self.type, self.version)

    def list_frame(self, metadata: dict[str, object]) -> tuple[bytes, bytes, bytes]:
        """What a list begins with, what stands between its items, and what ends it."""
        meta = b'"metadata":' + _encode(metadata)
        if self.plain:
            item = self.type.item_head(self.version)
            return self.type.list_head(self.version) + meta + b',"items":[', b"," + item, b"]}\n"
        if self.form == "table":
            head = f'{{"kind":"Table","apiVersion":"meta.k8s.io/{self.form_version}",'.encode()
            columns = b',"columnDefinitions":' + _encode(tables.column_definitions(self.type, self.version))
            return head + meta + columns + b',"rows":[', b",", b"]}\n"
        head = f'{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/{self.form_version}",'.encode()
        return head + meta + b',"items":[', b",", b"]}\n"

    def item(self, stored: Stored) -> bytes:
        """An item of a list, without what `list_frame` puts between."""
        if self.plain:
            return stored.tail
        if self.form == "table":
            return _encode(tables.row(self.type, self.version, stored, self.include_object))
        return _encode(tables.partial_metadata(stored.body(), enveloped=self.type.custom))
