"""Entry: one object of one cluster as the store holds it, its body ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deltalog.wire.delta import Delta, Replaced
from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, ObjectName

METADATA = b'"metadata":{'
"""How the content of every entry begins (docs/log.md: `object`); its version stands right behind."""

VERSION_OFFSET = len(METADATA)

# Every text of `Entry.type_meta`, once. There are as many as there are kinds in versions.
_type_metas: dict[bytes, bytes] = {}
_MOST_TYPE_METAS = 1 << 14


class Past(msgspec.Struct, gc=False, eq=False):
    """What selectors look at, as it was in an earlier state: from `selectable_since` on, up to that of the next state.

    Shared by all later entries of the object, so that forgetting it once frees it everywhere.
    """

    selectable_since: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    controller_uid: str
    before: Past | None = None
    forgotten: bool = False

    def forget(self) -> None:
        """Frees this state and all before it; from here on what they were counts as unknown. O(1)."""
        self.forgotten = True
        self.labels = self.fields = {}
        self.before = None


class Entry(msgspec.Struct, gc=False, eq=False, kw_only=True):
    """One state of one object. Never changed once it is in the store, except for what it remembers of the past.

    - `index`: sequence of this state's message in the log; `uid_index`: of the uid's first message.
    - `observed_from`: index at which this process first saw the uid. Later than `uid_index` where what came before was
      superseded in the log unread.
    - `first_known_version`: the cluster's resourceVersion of the uid's first state; "" if this process has not seen it.
    - `selectable_since`: index from which on labels, fields and owner are as they are now; what they were before is in
      `past`, as far as this process knows.
    - `member_version`: the object's resourceVersion in its cluster; `version`: the API version that `body` is in.
    - `type_meta`: the beginning of its JSON, `{"kind":"Pod","apiVersion":"v1",`, one bytes object for all of a type;
      `content`: the rest, with its served resourceVersion, `"metadata":{"resourceVersion":"...",...},...}`. They are
      apart since lists are joins of stored bytes, and items of built-in types have no `type_meta` there.
      `content[VERSION_OFFSET:version_end]` is `"resourceVersion":"...",`, and metadata's value is
      `content[VERSION_OFFSET - 1:metadata_end]`.
    - `created`: creationTimestamp, in seconds since 1970; `time`: when the log stored it, in nanoseconds since 1970.
    - `deleted`: this is a tombstone: the body is the last known one, with the version of the deletion. `final`: that is
      the object's last state, as the cluster sent it with the deletion.
    - `replaced`: the tombstone, or last state, of the uid that had the name before; kept as long as a watcher may hold
      it. `oldest_uid_index`: where the oldest uid of the name began that such a watcher may hold, as far as known.

    Example: an object created at 5, relabelled at 8 and changed again at 9 has `index` 9, `uid_index` 5,
    `selectable_since` 8, and a `past` with the labels from 5 on.
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
    type_meta: bytes
    content: bytes
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
        """The name within the cluster and the type. O(1)."""
        return (self.namespace, self.name)  # type: ignore[return-value]  # hot: no call

    @property
    def body(self) -> bytes:
        """The object as JSON, with its served resourceVersion. O(size)."""
        return self.type_meta + self.content

    def content_at(self, prefix: str, index: int, member_version: str | None = None) -> bytes:
        """`content` with the version it has at another index than its own (see `ShownChange`). O(size)."""
        version = version_member(prefix, index, self.member_version if member_version is None else member_version)
        return METADATA + version + self.content[self.version_end :]

    def metadata(self) -> bytes:
        """The JSON of metadata, with the served version. O(its size)."""
        return self.content[VERSION_OFFSET - 1 : self.metadata_end]


def of_version(entry: Entry, group: str, version: str) -> Entry:
    """An object that is in another API version now, as a deletion from this one: its metadata, and no more is known.

    Example: the Ship of `sea.example.io/v2` as `{"kind":"Ship","apiVersion":"sea.example.io/v1","metadata":{...}}`.
    """
    kind = entry.type_meta.partition(b',"apiVersion":')[0]
    api_version = msgspec.json.encode(f"{group}/{version}" if group else version)
    return msgspec.structs.replace(
        entry,
        version=version,
        type_meta=shared_type_meta(kind + b',"apiVersion":' + api_version + b","),
        content=entry.content[: entry.metadata_end] + b"}",
        final=False,
    )


def version_member(prefix: str, index: int, member_version: str) -> bytes:
    """`"resourceVersion":"<prefix>.<index>.<member_version>",` as it stands in metadata.

    A cluster's own version may be any text (Kubernetes API Concepts: opaque), so it is escaped where it has to be.
    """
    if member_version.isalnum() and member_version.isascii():
        return f'"resourceVersion":"{prefix}.{index}.{member_version}",'.encode()
    return b'"resourceVersion":%b,' % msgspec.json.encode(f"{prefix}.{index}.{member_version}")


def shared_type_meta(text: bytes) -> bytes:
    """The same text, as the one object that all entries have. O(its length)."""
    if len(_type_metas) > _MOST_TYPE_METAS:
        _type_metas.clear()
    return _type_metas.setdefault(text, text)


def entry_of(delta: Delta, index: int, time: int, prefix: str) -> Entry:
    """The entry for a delta that the log stored at `index` and `time` (ns); O(size of the object).

    `uid_index`, `selectable_since` and the like are known from the log alone; the store adds what it remembers.
    """
    behind = delta.version_offset - VERSION_OFFSET
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
        type_meta=shared_type_meta(delta.object[:behind]),
        content=b"".join((METADATA, version, delta.object[delta.version_offset :])),
        version_end=VERSION_OFFSET + len(version),
        metadata_end=delta.metadata_end - behind + len(version),
        final=delta.final,
        replaced=replaced,
        oldest_uid_index=oldest,
    )


def _entry_of_replaced(delta: Delta, replaced: Replaced, prefix: str, first: int) -> Entry:
    """What is known of a predecessor from the log alone: its metadata's identity and labels.

    Its index is that of its deletion, or `first`, at which the uid began that took its place.
    """
    index = replaced.deletion_index or first
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
        controller_uid=replaced.controller_uid,
        created=replaced.created,
        time=replaced.time * 1_000_000,
        type_meta=shared_type_meta(delta.object[: delta.version_offset - VERSION_OFFSET]),
        content=METADATA + version + rest + b"}",
        version_end=VERSION_OFFSET + len(version),
        metadata_end=VERSION_OFFSET + len(version) + len(rest),
        final=False,
        oldest_uid_index=replaced.oldest_uid_index,
    )


# The log keeps only the last labels of a predecessor: what a selector saw at any index before is unknown.
NEVER = 2**63
