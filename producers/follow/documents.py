"""Documents: texts that a cluster serves whole, as the log has them: compressed, known by their hash."""

from __future__ import annotations

import gzip
import hashlib
from typing import NamedTuple

import structlog

from deltalog.wire.records import ClusterDocument, ControlRecord, DocumentName, OpenApiDocument, encode_control

log = structlog.get_logger("producers.follow.documents")

_LEVEL = 6


def packed(text: bytes, known: str, paths: int = 0) -> ClusterDocument | None:
    """A document as a control record has it; None if it is the one with the hash that is known."""
    digest = hashlib.sha256(text).hexdigest().upper()
    if digest == known:
        return None
    # Without a time in it, so that equal documents of two clusters are equal here, too.
    return ClusterDocument(paths=paths, hash=digest, size=len(text), body=gzip.compress(text, _LEVEL, mtime=0))


def fits(control: ControlRecord, limit: int, document: str, *, logged: bool) -> bool:
    """Whether a document's record goes into a message of `limit` bytes. Logs if not, unless `logged` before."""
    size = len(encode_control(control))
    if size > limit and not logged:
        log.warning(
            "document left out: too large for a message",
            cluster=control.cluster,
            document=document,
            bytes=size,
            limit=limit,
        )
    return size <= limit


class KnownDocument(NamedTuple):
    """What the log has of a document. `tag`: its hash or ETag, by which the cluster answers that it is unchanged."""

    hash: str
    tag: str


class RecordedDocuments:
    """What the log holds of one cluster's OpenAPI documents, by name."""

    def __init__(self) -> None:
        self.known: dict[DocumentName, KnownDocument] = {}

    def take_in(self, stated: OpenApiDocument) -> None:
        """What a record of the log states."""
        if stated.document is not None:
            self.known[stated.name] = KnownDocument(stated.document.hash, stated.tag)
        else:
            self.known.pop(stated.name, None)
