"""Bytes of an object as a member cluster sends it and as kubebraid does: what has to be equal, and what may differ.

Ours differ in `metadata.resourceVersion`, which is another one and stands elsewhere, and in the annotation with the
cluster's name. Custom resources are maps to a kube-apiserver, which writes members by name: ours begin with kind and
apiVersion, so the order of the top-level members is not compared of these; the bytes of each are.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

__all__ = ["Shown", "bare_list", "bare_object", "shown"]

CLUSTER_ANNOTATION = "shadow.clusterpedia.io/cluster-name"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


@dataclass(frozen=True)
class Shown:
    """An event of a watch: its type, its object's bytes without what may differ, and the version that it had."""

    type: str
    object: bytes
    version: str


def bare_object(raw: bytes, cluster: str | None, *, custom: bool) -> tuple[bytes, str]:
    """An object without version and, of a `cluster` through kubebraid, without our annotation; and the version."""
    members = _members(raw)
    metadata = _members(members["metadata"])
    version = msgspec.json.decode(metadata.pop("resourceVersion"), type=str)
    if cluster is not None:
        annotations = _members(metadata["annotations"])
        assert msgspec.json.decode(annotations.pop(CLUSTER_ANNOTATION)) == cluster
        if annotations:
            metadata["annotations"] = msgspec.Raw(_encode(annotations))
        else:
            del metadata["annotations"]
    members["metadata"] = msgspec.Raw(_encode(metadata))
    if custom:
        members = dict(sorted(members.items()))
    return _encode(members), version


def shown(line: bytes, cluster: str | None, *, custom: bool) -> Shown:
    """An event from a line of a watch."""
    event = _members(line)
    assert list(event) == ["type", "object"]
    bare, version = bare_object(bytes(event["object"]), cluster, custom=custom)
    return Shown(msgspec.json.decode(event["type"]), bare, version)


def bare_list(body: bytes, cluster: str | None, *, custom: bool) -> tuple[bytes, list[bytes]]:
    """A list without its version and its token, and its items as `bare_object` has them."""
    members = _members(body)
    items = [bare_object(bytes(item), cluster, custom=custom)[0] for item in _items(members.pop("items"))]
    metadata = _members(members["metadata"])
    for name in ("resourceVersion", "continue"):
        metadata.pop(name, None)
    members["metadata"] = msgspec.Raw(_encode(metadata))
    if custom:
        members = dict(sorted(members.items()))
    return _encode(members), items
