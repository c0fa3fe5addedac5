"""Entry: one object of one cluster as the store holds it, its body ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deltalog.wire.delta import Delta, Replaced
from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, ObjectName


class Past(msgspec.Struct, gc=False, eq=False):
    """An earlier state of an object that selectors saw differently: what a selector matched at an index.

    Shared by all later entries of the object, so that forgetting it once frees it everywhere.
    """

    selectable_since: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    controller_uid: str
    before: Past | None = None
    forgotten: bool = False

    def forget(self) -> None:
        self.forgotten = True
        self.labels = self.fields = {}
        self.before = None


class Entry(msgspec.Struct, gc=False, eq=False, kw_only=True):
    """One state of one object. Never changed once it is in the store, but for what it remembers of before.

    - `index`: position of this state's message in the log; `first`: of this uid's first one.
    - `since`: index from which on labels and fields are as they are now; what they were before is in `past`,
      as far as this process knows.
    - `body`: the object as JSON with its served version. `gap:gap_end` is `"resourceVersion":"...",` in it;
      metadata's value is `body[gap - 1:meta_end]`.
    - `time`: when the log stored it, nanoseconds since 1970.
    - `replaced`: the last holder of the name before this uid; only as long as a watcher may still hold it.
    - `seen`: index at which this process first knew of the uid, where that is later than `first`: what came before
      was superseded in the log unread.
    - `entered`: the cluster's version of the uid's first state, if this process has seen it.
    - `deleted`: this is a tombstone; the body is the last known one, with the version of the deletion.
    """

    index: int
    uid_index: int
    selectable_since: int
    deleted: bool
    cluster: str
    namespace: str
    name: str
    version: str
    uid: str
    member_version: str
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    controller_uid: str
    created: int
    time: int
    body: bytes
    version_offset: int
    version_end: int
    metadata_end: int
    final: bool = True
    past: Past | None = None
    replaced: Entry | None = None
    oldest_uid_index: int = 0
    observed_from: int = 0
    first_known_version: str = ""

    @property
    def key(self) -> ObjectName:
        return (self.namespace, self.name)  # type: ignore[return-value]  # hot: no call

    def as_of(self, prefix: str, index: int) -> bytes:
        """The body with the version it has at another index than its own."""
        version = version_member(prefix, index, self.member_version)
        return self.body[: self.version_offset] + version + self.body[self.version_end :]

    def metadata(self) -> bytes:
        """metadata's JSON, with the served version."""
        return self.body[self.version_offset - 1 : self.metadata_end]


def version_member(prefix: str, index: int, original: str) -> bytes:
    """`"resourceVersion":"...",` as it stands in metadata. What a cluster takes for a version may be any text."""
    if original.isalnum() and original.isascii():
        return f'"resourceVersion":"{prefix}.{index}.{original}",'.encode()
    return b'"resourceVersion":%b,' % msgspec.json.encode(f"{prefix}.{index}.{original}")


def entry_of(delta: Delta, index: int, time: int, prefix: str) -> Entry:
    """The entry for a delta stored at `index`; `first`, `since` and the like as the log alone knows them."""
    head = delta.object[: delta.version_offset]
    version = version_member(prefix, index, delta.member_version)
    first = delta.uid_index or index
    replaced = None
    oldest = first
    if delta.replaced is not None:
        replaced = _entry_of_replaced(delta, delta.replaced, prefix, first)
        oldest = delta.replaced.oldest_uid_index
    return Entry(
        index=index,
        uid_index=first,
        selectable_since=index,
        deleted=delta.type == "DELETED",
        cluster=delta.cluster,
        namespace=delta.namespace,
        name=delta.name,
        version=delta.version,
        uid=delta.uid,
        member_version=delta.member_version,
        labels=delta.labels,
        fields=delta.fields,
        controller_uid=delta.controller_uid,
        created=delta.created,
        time=time,
        body=b"".join((head, version, delta.object[delta.version_offset :])),
        version_offset=delta.version_offset,
        version_end=delta.version_offset + len(version),
        metadata_end=delta.metadata_end + len(version),
        final=delta.final,
        replaced=replaced,
        oldest_uid_index=oldest,
    )


def _entry_of_replaced(delta: Delta, replaced: Replaced, prefix: str, first: int) -> Entry:
    """What is known of a predecessor from the log alone: its metadata's identity and labels.

    Its index is that of its deletion, or `first`, at which the uid came that took its place.
    """
    index = replaced.deletion_index or first
    kind = msgspec.json.decode(delta.object, type=_TypeMeta)
    head = b'{"kind":%b,"apiVersion":%b,"metadata":{' % (
        msgspec.json.encode(kind.kind),
        msgspec.json.encode(kind.api_version),
    )
    version = version_member(prefix, index, replaced.member_version)
    metadata: dict[str, object] = {"name": delta.name}
    if delta.namespace:
        metadata["namespace"] = delta.namespace
    metadata["uid"] = replaced.uid
    if replaced.labels:
        metadata["labels"] = replaced.labels
    metadata["annotations"] = {CLUSTER_ANNOTATION: delta.cluster}
    rest = msgspec.json.encode(metadata)[1:]
    return Entry(
        index=index,
        uid_index=replaced.uid_index,
        selectable_since=NEVER,
        deleted=True,
        cluster=delta.cluster,
        namespace=delta.namespace,
        name=delta.name,
        version=delta.version,
        uid=replaced.uid,
        member_version=replaced.member_version,
        labels=replaced.labels,
        fields=replaced.fields,
        controller_uid="",
        created=0,
        time=replaced.time * 1_000_000,
        body=head + version + rest + b"}",
        version_offset=len(head),
        version_end=len(head) + len(version),
        metadata_end=len(head) + len(version) + len(rest),
        final=False,
        oldest_uid_index=replaced.oldest_uid_index,
    )


# The log keeps only the last labels of a predecessor: what a selector saw at any index before is unknown.
NEVER = 2**63


class _TypeMeta(msgspec.Struct, rename={"api_version": "apiVersion"}):
    kind: str = ""
    api_version: str = ""
