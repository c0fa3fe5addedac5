"""Returned objects: what was read here and is sent back to its cluster, in the cluster's own words again.

A client reads an object here, changes it and writes it: it bears our version and our annotations, of which its cluster
knows nothing. The version would be a conflict there, for ever. Only metadata (and preconditions of deletions) are
touched; all else stays as it was sent, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, MEMBER_VERSION_ANNOTATION
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
_MARKS = (b"resourceVersion", CLUSTER_ANNOTATION.encode(), MEMBER_VERSION_ANNOTATION.encode())

Members = dict[str, msgspec.Raw]


def in_its_own_words(content_type: str, body: bytes, known: Entry | None, *, numbered: bool) -> bytes:
    """A body as the cluster knows the object. `known`: the object as it is here; `numbered`: versions are numbers.

    What cannot be read is for the cluster to refuse. Raises ApiError 409 for a number that says nothing of the cluster.
    """
    words = _Words(known, numbered=numbered)
    try:
        if content_type == PROTOBUF:
            return _protobuf(body, words)
        if not any(mark in body for mark in _MARKS):
            return body
        if "yaml" in content_type and not body.lstrip().startswith(b"{"):
            # JSON is YAML, too.
            body = msgspec.json.encode(from_yaml(body))
        if content_type == _JSON_PATCH:
            return _operations(body, words)
        return _object(body, words)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError, RecursionError):
        return body


def in_our_words(body: bytes, known: Entry | None, versions: Named, cluster: str) -> bytes:
    """An object as a cluster has answered with it, with the version and annotation that it has when it is read here.

    Only if it is the state that is known here.
    """
    try:
        members: Members = msgspec.json.decode(body, type=Members)
        metadata: Members = msgspec.json.decode(members["metadata"], type=Members)
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


class _Words:
    """Translates one request's versions."""

    def __init__(self, known: Entry | None, *, numbered: bool) -> None:
        self._known = known
        self._numbered = numbered

    def version(self, text: str, annotations: Mapping[str, Any]) -> str:
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


def _object(body: bytes, words: _Words) -> bytes:
    members: Members = msgspec.json.decode(body, type=Members)
    changed = _metadata(members, words)
    changed |= _preconditions(members, words)
    if "deleteOptions" in members:
        # Of an eviction.
        options = _decoded_members(members["deleteOptions"])
        if _preconditions(options, words):
            members["deleteOptions"] = _encoded(options)
            changed = True
    return msgspec.json.encode(members) if changed else body


def _metadata(members: Members, words: _Words) -> bool:
    metadata = _decoded_members(members.get("metadata"))
    annotations = _decoded(metadata.get("annotations"))
    annotations = annotations if isinstance(annotations, dict) else {}
    changed = _version(metadata, words, annotations)
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


def _preconditions(members: Members, words: _Words) -> bool:
    preconditions = _decoded_members(members.get("preconditions"))
    if not _version(preconditions, words, {}):
        return False
    members["preconditions"] = _encoded(preconditions)
    return True


def _version(members: Members, words: _Words, annotations: Mapping[str, Any]) -> bool:
    text = _decoded(members.get("resourceVersion"))
    if not isinstance(text, str) or (own := words.version(text, annotations)) == text:
        return False
    members["resourceVersion"] = _encoded(own)
    return True


def _operations(body: bytes, words: _Words) -> bytes:
    """A JSON patch (RFC 6902): of operations on the version, the value."""
    operations = msgspec.json.decode(body, type=list[Members])
    for operation in operations:
        value = _decoded(operation.get("value"))
        if _decoded(operation.get("path")) == "/metadata/resourceVersion" and isinstance(value, str):
            operation["value"] = _encoded(words.version(value, {}))
    return msgspec.json.encode(operations)


def _decoded(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def _decoded_members(raw: msgspec.Raw | None) -> Members:
    """An object's members; none of what is no object."""
    if raw is None or not bytes(raw).lstrip().startswith(b"{"):
        return {}
    members: Members = msgspec.json.decode(raw, type=Members)
    return members


def _encoded(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# -- protobuf ----------------------------------------------------------------------------------------------------------


def _protobuf(body: bytes, words: _Words) -> bytes:
    """The same by the numbers of the fields (k8s.io/apimachinery meta/v1 and k8s.io/api policy/v1: generated.proto)."""
    about, _ = read_object(body)

    def own(version: bytes, annotations: Mapping[str, str]) -> bytes:
        return words.version(version.decode(), annotations).encode()

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
