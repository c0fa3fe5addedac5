"""Normalisation: an object's JSON as a member cluster sent it, in the form the log keeps (docs/log.md).

Once per change, here, so that no reader ever parses an object in order to serve it. Only the metadata is
decoded; spec, status and the rest pass through as the bytes they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, MEMBER_VERSION_ANNOTATION, GroupResource
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selectable_fields import SelectableField, selectable_fields
from producers.rules.pruning import LAST_APPLIED, Pruning, prune_members
from producers.upstream.objects import RawObject, Unusable, raw_object, seconds, unreadable

_OURS = (CLUSTER_ANNOTATION.encode(), MEMBER_VERSION_ANNOTATION.encode())

Fields = dict[str, str]
_PODS = GroupResource("", "pods")


class Normalized(msgspec.Struct, frozen=True, gc=False):
    """The parts of a delta that come from the object itself; see `deltalog.Delta` for their meaning."""

    namespace: str
    name: str
    uid: str
    member_version: str
    created: int
    controller_uid: str
    labels: dict[str, str]
    fields: dict[str, str]
    object: bytes
    version_offset: int
    metadata_end: int


class _Owner(msgspec.Struct):
    uid: str = ""
    controller: bool | None = None


_raw_map = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str | None)
_owners = msgspec.json.Decoder(list[_Owner] | None)
_labels = msgspec.json.Decoder(dict[str, str] | None)
_strings = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder()

_NOTHING = msgspec.Raw(b"null")
_NOTHING_HIDDEN: frozenset[str] = frozenset()
_DROPPED = ("resourceVersion", "selfLink")
_DROPPED_MORE = (*_DROPPED, "managedFields")


# Once for all types of a cluster, and for all clusters.
@functools.lru_cache(maxsize=4096)
def _annotation_of(cluster: str) -> tuple[bytes, msgspec.Raw]:
    """The annotation that all objects of a cluster get, as a member and as the only annotation of an object."""
    annotation = _encoder.encode(CLUSTER_ANNOTATION) + b":" + _encoder.encode(cluster)
    return annotation, msgspec.Raw(b"{" + annotation + b"}")


@functools.lru_cache(maxsize=4096)
def _head_of(kind: str, api_version: str) -> bytes:
    return b'{"kind":%b,"apiVersion":%b,"metadata":{' % (_encoder.encode(kind), _encoder.encode(api_version))


class Normalizer:
    """Normalises the objects of one type of one cluster, and leaves out what `pruning` names.

    `mark` is the header that identifies how objects were pruned, empty for the usual way (docs/log.md).
    """

    __slots__ = (
        "_annotation", "_cluster", "_dropped", "_fields", "_head", "_hidden", "_only_annotation", "_pruned",
        "mark",
    )  # fmt: skip

    def __init__(self, cluster: str, resource: ResourceType, pruning: Pruning | None = None) -> None:
        self._cluster = cluster
        self._pruned = (pruning or Pruning()).of(resource)
        self.mark = self._pruned.mark
        self._dropped = _DROPPED_MORE if self._pruned.managed_fields else _DROPPED
        self._annotation, self._only_annotation = _annotation_of(cluster)
        self._head = _head_of(resource.kind, resource.api_version)
        self._fields = reader_of(resource)
        fields = selectable_fields(resource.group_resource, resource.selectable)
        self._hidden = (
            frozenset(label for label, field in fields.items() if field.path and self._pruned.covers(field.path))
            or _NOTHING_HIDDEN
        )

    def __call__(self, raw: bytes | msgspec.Raw | RawObject) -> Normalized:
        """Uses members up. Raises Unusable."""
        top = raw if isinstance(raw, dict) else raw_object(raw)
        metadata = top.get("metadata")
        try:
            return self._normalized(top)
        except (KeyError, *UNDECODABLE) as cause:
            raise unreadable(metadata, cause) from cause

    def _normalized(self, top: RawObject) -> Normalized:
        entries = _raw_map.decode(top.pop("metadata"))
        get = entries.get
        name = _string.decode(get("name", _NOTHING))
        if not name:
            raise Unusable("an object without a name")
        original = _string.decode(get("resourceVersion", _NOTHING)) or ""
        labels = _labels.decode(entries["labels"]) if "labels" in entries else None
        owners = _owners.decode(entries["ownerReferences"]) if "ownerReferences" in entries else None
        for key in self._dropped:
            entries.pop(key, None)
        # A field that is empty is as one that is not there, so what was pruned is left out.
        fields = self.visible(self._fields(top))
        if self._pruned.tree:
            self._prune(top, entries)
        entries["annotations"] = self._annotated(get("annotations"))
        top.pop("kind", None)
        top.pop("apiVersion", None)
        head = self._head
        middle = memoryview(_encoder.encode(entries))[1:]
        rest = (b",", memoryview(_encoder.encode(top))[1:]) if top else (b"}",)
        return Normalized(
            namespace=_string.decode(get("namespace", _NOTHING)) or "",
            name=name,
            uid=_string.decode(get("uid", _NOTHING)) or "",
            member_version=original,
            created=seconds(_string.decode(get("creationTimestamp", _NOTHING))),
            controller_uid=next((owner.uid for owner in owners or () if owner.controller), ""),
            labels=labels or {},
            fields=fields,
            object=b"".join((head, middle, *rest)),
            version_offset=len(head),
            metadata_end=len(head) + len(middle),
        )

    def visible(self, fields: Fields) -> Fields:
        """Selectable fields without those whose values are pruned."""
        if not self._hidden:
            return fields
        return {label: text for label, text in fields.items() if label not in self._hidden}

    def _prune(self, top: RawObject, entries: RawObject) -> None:
        tree = self._pruned.tree
        for below in (tree.get("metadata"), tree.get("*")):
            if below:
                prune_members(entries, below)
        prune_members(top, tree)

    def _annotated(self, raw: msgspec.Raw | None) -> msgspec.Raw:
        text = b"" if raw is None else bytes(raw)
        if text in (b"", b"{}", b"null"):
            return self._only_annotation
        # Written out: a generator costs as much as all the rest here.
        if self._pruned.last_applied or _OURS[0] in text or _OURS[1] in text:
            annotations = _strings.decode(text)
            annotations.pop(MEMBER_VERSION_ANNOTATION, None)
            if self._pruned.last_applied:
                annotations.pop(LAST_APPLIED, None)
            annotations[CLUSTER_ANNOTATION] = self._cluster
            return msgspec.Raw(_encoder.encode(annotations))
        return msgspec.Raw(b"{" + self._annotation + b"," + text[1:])


# -- selectable fields ---------------------------------------------------------------------------------------------

_EMPTY = msgspec.Raw(b"{}")
_BOOLEAN = {True: "true", False: "false"}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return _BOOLEAN[value]
    return value if isinstance(value, str) else str(value)


def field_reader(fields: Mapping[str, SelectableField]) -> Callable[[RawObject], Fields]:
    """The function that reads a type's selectable fields from an object's top-level members; empty ones are left out.

    It raises what decoding raises.
    """
    read_from = {label: field for label, field in fields.items() if field.path}
    if not read_from:
        return lambda top: {}

    def read(top: RawObject) -> Fields:
        decoded: dict[str, object] = {}
        found: Fields = {}
        for label, ((head, *rest), zero) in read_from.items():
            if head not in decoded:
                decoded[head] = msgspec.json.decode(top[head]) if head in top else None
            value = decoded[head]
            for step in rest:
                value = value.get(step) if isinstance(value, dict) else None
            text = _text(value) or zero
            if text:
                found[label] = text
        return found

    return read


def typed_field_reader(fields: Mapping[str, SelectableField]) -> Callable[[RawObject], Fields]:
    """As `field_reader`, for fields two members deep that are texts or booleans: decodes no more than these.

    It is for Pods, which are most of what changes. An object with a value of another type has no fields.
    """
    below: dict[str, list[tuple[str, SelectableField]]] = {}
    for label, field in fields.items():
        if field.path:
            head, _ = field.path
            below.setdefault(head, []).append((label, field))
    labels = [label for some in below.values() for label, _ in some]
    readers: list[tuple[str, Callable[[msgspec.Raw], object], Callable[[object], tuple[str | bool, ...]]]] = []
    for head, some in below.items():
        leaves = [(field.path[1], bool, False) if field.zero else (field.path[1], str, "") for _, field in some]
        values = attrgetter(*(name for name, _, _ in leaves))
        readers.append((head, msgspec.json.Decoder(msgspec.defstruct(head, leaves)).decode, values))

    def read(top: RawObject) -> Fields:
        values: list[str | bool] = []
        try:
            for head, decode, leaves in readers:
                values += leaves(decode(top.get(head, _EMPTY)))
        except msgspec.MsgspecError:
            return {}
        found: Fields = {}
        for label, value in zip(labels, values, strict=True):
            if value:
                found[label] = "true" if value is True else value
            elif value is False:
                found[label] = "false"
        return found

    return read


def reader_of(resource: ResourceType) -> Callable[[RawObject], Fields]:
    """The function that reads a type's selectable fields."""
    return _reader_of(resource.group_resource, resource.selectable)


@lru_cache(maxsize=4096)
def _reader_of(resource: GroupResource, selectable: tuple[str, ...]) -> Callable[[RawObject], Fields]:
    """One for all clusters that have the type."""
    fields = selectable_fields(resource, selectable)
    return (typed_field_reader if resource == _PODS else field_reader)(fields)
