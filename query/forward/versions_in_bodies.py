"""Versions in bodies: objects that were read here are written to their cluster with the cluster's own versions.

A client reads an object here, changes it and writes it: it has our version and our annotations, which its cluster does
not know. Our version would be a conflict there, for ever. Only metadata (and preconditions of deletions) are changed;
everything else stays as it was sent, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, CONTENT_VERSION, MEMBER_VERSION_ANNOTATION
from materializer.entry import Entry
from materializer.versions import Named, Numbered
from query.http.protobuf import PROTOBUF, read_fields, read_object, rewritten, rewritten_object, text_of
from query.http.status import ApiError
from query.http.yaml_bodies import from_yaml

_OURS = (CLUSTER_ANNOTATION, MEMBER_VERSION_ANNOTATION)
# <prefix>.<index>.<original>; the prefix may be that of a history that is over.
_VERSION = re.compile(r"[^.]{1,64}\.[0-9]{1,19}\.(.+)", re.DOTALL)
_JSON_PATCH = "application/json-patch+json"
# What may hold ours, for most bodies do not.
_TRACES = (b"resourceVersion", CLUSTER_ANNOTATION.encode(), MEMBER_VERSION_ANNOTATION.encode())

RawObject = dict[str, msgspec.Raw]


def to_cluster_versions(content_type: str, body: bytes, known: Entry | None, *, numbered: bool) -> bytes:
    """A request's body with the cluster's versions instead of ours, and without our annotations.

    `known`: the object as it is here; `numbered`: whether the client reads versions as numbers. With the version
    `3f9a.57.8112` the cluster gets `8112`. A body that cannot be read is for the cluster to refuse.

    Raises:
        ApiError: 409, a number that may be ours or the cluster's.
    """
    translation = _Translation(known, numbered=numbered)
    try:
        if content_type == PROTOBUF:
            return _protobuf(body, translation)
        if not any(trace in body for trace in _TRACES):
            return body
        if "yaml" in content_type and not body.lstrip().startswith(b"{"):
            # JSON is YAML, too.
            body = msgspec.json.encode(from_yaml(body))
        if content_type == _JSON_PATCH:
            return _operations(body, translation)
        return _object(body, translation)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError, RecursionError):
        return body


def to_our_versions(body: bytes, known: Entry | None, versions: Named, cluster: str) -> bytes:
    """A cluster's answer, an object, with the version and annotations that the object has when it is read here.

    Only if that is the state which is known here; else as it is.
    """
    try:
        members: RawObject = msgspec.json.decode(body, type=RawObject)
        metadata: RawObject = msgspec.json.decode(members["metadata"], type=RawObject)
        version = msgspec.json.decode(metadata["resourceVersion"], type=str)
        if known is None or known.member_version != version:
            return body
        annotations = _decoded(metadata.get("annotations")) or {}
        annotations[CLUSTER_ANNOTATION] = cluster
        if isinstance(versions, Numbered):
            annotations[MEMBER_VERSION_ANNOTATION] = version
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, RecursionError):
        return body
    metadata["resourceVersion"] = _encoded(versions.of_object(known.index, version))
    metadata["annotations"] = _encoded(annotations)
    members["metadata"] = _encoded(metadata)
    return msgspec.json.encode(members) + b"\n"


class _Translation:
    """Translates the versions in one request's body."""

    def __init__(self, known: Entry | None, *, numbered: bool) -> None:
        self._known = known
        self._numbered = numbered

    def version(self, text: str, annotations: Mapping[str, Any]) -> str:
        """The cluster's own version; empty for what has none there (`content_version`)."""
        version = self._member_version(text, annotations)
        return "" if version.startswith(CONTENT_VERSION) else version

    def _member_version(self, text: str, annotations: Mapping[str, Any]) -> str:
        found = _VERSION.fullmatch(text)
        if found is not None:
            return found[1]
        if not self._numbered or not text.isdecimal() or text == "0":
            return text
        if original := annotations.get(MEMBER_VERSION_ANNOTATION):
            return str(original)
        known = self._known
        if known is not None and text in (str(known.index), known.member_version):
            return known.member_version
        # Whether it is one of ours or the cluster's cannot be seen: it must not be taken for the other.
        raise ApiError(
            409,
            f"Operation cannot be fulfilled: {text[:64]} is not the object's version; please apply your changes to the "
            "latest version and try again",
        )


def _object(body: bytes, translation: _Translation) -> bytes:
    members: RawObject = msgspec.json.decode(body, type=RawObject)
    changed = _metadata(members, translation)
    changed |= _preconditions(members, translation)
    if "deleteOptions" in members:
        # Of an eviction.
        options = _parse_object(members["deleteOptions"])
        if _preconditions(options, translation):
            members["deleteOptions"] = _encoded(options)
            changed = True
    return msgspec.json.encode(members) if changed else body


def _metadata(members: RawObject, translation: _Translation) -> bool:
    metadata = _parse_object(members.get("metadata"))
    annotations = _decoded(metadata.get("annotations"))
    annotations = annotations if isinstance(annotations, dict) else {}
    changed = _version(metadata, translation, annotations)
    kept = {name: value for name, value in annotations.items() if name not in _OURS}
    if len(kept) < len(annotations):
        changed = True
        if kept:
            metadata["annotations"] = _encoded(kept)
        else:
            del metadata["annotations"]
    if changed:
        members["metadata"] = _encoded(metadata)
    return changed


def _preconditions(members: RawObject, translation: _Translation) -> bool:
    preconditions = _parse_object(members.get("preconditions"))
    if not _version(preconditions, translation, {}):
        return False
    members["preconditions"] = _encoded(preconditions)
    return True


def _version(members: RawObject, translation: _Translation, annotations: Mapping[str, Any]) -> bool:
    text = _decoded(members.get("resourceVersion"))
    if not isinstance(text, str) or (own := translation.version(text, annotations)) == text:
        return False
    members["resourceVersion"] = _encoded(own)
    return True


def _operations(body: bytes, translation: _Translation) -> bytes:
    """A JSON patch (RFC 6902): of operations on the version, the value."""
    operations = msgspec.json.decode(body, type=list[RawObject])
    for operation in operations:
        value = _decoded(operation.get("value"))
        if _decoded(operation.get("path")) == "/metadata/resourceVersion" and isinstance(value, str):
            operation["value"] = _encoded(translation.version(value, {}))
    return msgspec.json.encode(operations)


def _decoded(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def _parse_object(raw: msgspec.Raw | None) -> RawObject:
    """An object's members; none of what is no object."""
    if raw is None or not bytes(raw).lstrip().startswith(b"{"):
        return {}
    members: RawObject = msgspec.json.decode(raw, type=RawObject)
    return members


def _encoded(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# -- protobuf ----------------------------------------------------------------------------------------------------------


def _protobuf(body: bytes, translation: _Translation) -> bytes:
    """The same by the numbers of the fields (k8s.io/apimachinery meta/v1 and k8s.io/api policy/v1: generated.proto)."""
    about, _ = read_object(body)

    def own(version: bytes, annotations: Mapping[str, str]) -> bytes:
        return translation.version(version.decode(), annotations).encode()

    def metadata(message: bytes) -> bytes:
        annotations = {}
        for entry in read_fields(message).get(12, ()):
            fields = read_fields(entry)
            annotations[text_of(fields, 1)] = text_of(fields, 2)
        message = rewritten(message, 6, lambda version: own(version, annotations))
        return rewritten(message, 12, lambda entry: None if text_of(read_fields(entry), 1) in _OURS else entry)

    def options(message: bytes) -> bytes:
        return rewritten(message, 2, lambda preconditions: rewritten(preconditions, 2, lambda one: own(one, {})))

    def whole(message: bytes) -> bytes:
        if about["kind"] == "DeleteOptions":
            return options(message)
        message = rewritten(message, 1, metadata)
        return rewritten(message, 2, options) if about["kind"] == "Eviction" else message

    return rewritten_object(body, whole)
