"""Entries that no log made."""

from __future__ import annotations

from collections.abc import Mapping

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry, Life, envelope_of, object_key, record_of
from materializer.record import encode_texts, uid_bytes

_NOTHING: Mapping[str, str] = {}
_PODS = GroupResource("", "pods")


def made_entry(
    name: str,
    index: int,
    *,
    prefix: str = "h",
    key: GroupResource = _PODS,
    cluster: str = "alpha",
    namespace: str = "x",
    version: str = "v1",
    uid: str = "u",
    member_version: str = "1",
    labels: Mapping[str, str] = _NOTHING,
    fields: Mapping[str, str] = _NOTHING,
    controller_uid: str = "",
    created: int = 0,
    type_meta: bytes = b"{",
    rest: bytes = b'"name":"a"}}',
    behind_metadata: int = 1,
) -> Entry:
    """The only state of an object."""
    life = Life(
        index,
        index,
        index,
        index,
        "",
        labels,
        tuple(fields),
        encode_texts([*fields.values()]),
        controller_uid,
        None,
        None,
    )
    record = record_of(
        life,
        prefix=prefix,
        index=index,
        time=0,
        created=created,
        uid=uid,
        uid_packed=uid_bytes(uid),
        member_version=member_version,
        behind_metadata=behind_metadata,
        final=True,
        rest=rest,
    )
    envelope = envelope_of(key, prefix, type_meta, tuple(fields))
    at = object_key(namespace, name)
    return Entry(index, False, cluster, namespace, at, version, labels, controller_uid, envelope, None, record)
