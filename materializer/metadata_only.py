"""Metadata only: an entry without its body, as a grave and back. What it shows is then DELETED with metadata alone."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, GroupResource
from materializer.entry import Entry, Life, Past, Remembered, changed_entry, envelope_of, object_key, record_of
from materializer.graves import Earlier, Grave
from materializer.record import encode_texts, uid_bytes

# So many earlier states of a deleted object are remembered; what it was before counts as unknown.
_MOST_PASTS = 8
# Of the year 9999: later ones have no such text.
_LAST_SECOND = 253_402_300_800


def grave_of(entry: Entry, size: int, *, removal: bool = False) -> Grave:
    """What is remembered of a tombstone once its body is not. `size`: bytes that the log has for it. O(its pasts)."""
    replaced: list[Grave] = []
    before = entry.replaced
    while before is not None:
        replaced.append(_bare(before, 0, removal=False))
        before = before.replaced
    grave = _bare(entry, size, removal=removal)
    grave.replaced = replaced
    return grave


def _bare(entry: Entry, size: int, *, removal: bool) -> Grave:
    pasts: list[Earlier] = []
    past = entry.past
    while past is not None and not past.forgotten and len(pasts) < _MOST_PASTS:
        pasts.append(Earlier(past.selectable_since, past.labels, past.fields, past.controller_uid))
        past = past.before
    return Grave(
        index=entry.index,
        time=entry.time,
        cluster=entry.cluster,
        namespace=entry.namespace,
        name=entry.name,
        version=entry.version,
        uid=entry.uid,
        uid_index=entry.uid_index,
        member_version=entry.member_version,
        labels=entry.labels,
        fields=entry.fields,
        controller_uid=entry.controller_uid,
        created=entry.created,
        type_meta=entry.type_meta,
        selectable_since=entry.selectable_since,
        observed_from=entry.observed_from,
        oldest_uid_index=entry.oldest_uid_index,
        first_known_version=entry.first_known_version,
        deleted=entry.deleted,
        final=entry.final,
        removal=removal,
        size=size,
        pasts=pasts,
    )


def entry_of_grave(grave: Grave, key: GroupResource, prefix: str) -> Entry:
    """The tombstone again, with metadata for a body. O(its labels, some 10 us)."""
    entry = _entry(grave, key, prefix)
    last = entry
    for one in grave.replaced:
        before = _entry(one, key, prefix)
        last.remember(last.past, before)
        last = before
    return entry


def _entry(grave: Grave, key: GroupResource, prefix: str) -> Entry:
    past: Past | None = None
    for one in reversed(grave.pasts):
        past = Past(*one, past)
    life = Life(
        grave.uid_index,
        grave.selectable_since,
        grave.observed_from,
        grave.oldest_uid_index,
        grave.first_known_version,
        grave.labels,
        tuple(grave.fields),
        encode_texts(list(grave.fields.values())),
        grave.controller_uid,
        past,
        None,
    )
    record = record_of(
        life,
        prefix=prefix,
        index=grave.index,
        time=grave.time,
        created=grave.created,
        uid=grave.uid,
        uid_packed=uid_bytes(grave.uid),
        member_version=grave.member_version,
        behind_metadata=1,
        final=grave.final,
        rest=_rest(grave.name, grave.namespace, grave.uid, grave.created, grave.labels, grave.cluster),
    )
    return Entry(
        grave.index,
        grave.deleted,
        grave.cluster,
        grave.namespace,
        object_key(grave.namespace, grave.name),
        grave.version,
        grave.labels,
        grave.controller_uid,
        envelope_of(key, prefix, grave.type_meta, life.field_names),
        None,
        record,
        None if past is None else Remembered(past, None),
    )


def stripped(entry: Entry) -> Entry:
    """The same with metadata for a body, and without those that it replaced in turn unless they are so, too."""
    rest = _rest(entry.name, entry.namespace, entry.uid, entry.created, entry.labels, entry.cluster)
    found = changed_entry(entry, rest=rest, behind_metadata=1)
    if entry.replaced is not None:
        found.remember(found.past, stripped(entry.replaced))
    return found


def _rest(name: str, namespace: str, uid: str, created: int, labels: Mapping[str, str], cluster: str) -> bytes:
    """Behind the version in an object's content, where metadata is all of it."""
    metadata: dict[str, object] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["uid"] = uid
    if 0 < created < _LAST_SECOND:
        metadata["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    if labels:
        metadata["labels"] = labels
    metadata["annotations"] = {CLUSTER_ANNOTATION: cluster}
    return msgspec.json.encode(metadata)[1:] + b"}"
