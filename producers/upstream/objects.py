"""Objects as a member cluster sends them: JSON whose parts are read only where they are needed."""

from __future__ import annotations

from datetime import datetime

import msgspec

from deltalog.wire.delta import UNDECODABLE
from producers.errors import UnusableInput

RawObject = dict[str, msgspec.Raw]
"""An object's top-level members (`metadata`, `spec` and so on), each the bytes it came as, without line feeds."""


class Unusable(UnusableInput):
    """No Kubernetes object, or one without a name."""


class ObjectIdentity(msgspec.Struct, rename="camel"):
    """The part of metadata by which an object is recognised as the one already known."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None


class _Manager(msgspec.Struct):
    time: str | None = None


class _Managers(msgspec.Struct, rename="camel"):
    managed_fields: list[_Manager] | None = None


# What of an object's metadata is a string, or not there: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
_IDENTITY = ("name", "namespace", "uid", "resourceVersion")
_STRINGS = (*_IDENTITY, "creationTimestamp")
_STRING, _NULL = "a string", "null"
_KINDS = {
    b'"': _STRING,
    b"n": _NULL,
    b"{": "an object",
    b"[": "an array",
    b"t": "a boolean",
    b"f": "a boolean",
}
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_identity = msgspec.json.Decoder(ObjectIdentity)
_managers = msgspec.json.Decoder(_Managers)


def without_line_feeds(text: bytes) -> bytes:
    """JSON as it is, or without the line feeds between its parts. (Within strings JSON has them escaped.)

    They would break the lines of a watch. Raises:
        msgspec.MsgspecError: for text that is no JSON.
    """
    return msgspec.json.format(text, indent=-1) if b"\n" in text else text


def raw_object(raw: bytes | msgspec.Raw) -> RawObject:
    """An object's members, e.g. `{"metadata": Raw(b'{"name":"a"}')}` of `b'{"metadata":{"name":"a"}}'`.

    Raises:
        Unusable: if it is no JSON object.
    """
    try:
        return _raw_object.decode(without_line_feeds(bytes(raw)))
    except UNDECODABLE as cause:
        raise Unusable(f"not a Kubernetes object: {cause}") from cause


def identify(found: RawObject) -> ObjectIdentity:
    """Name, namespace, uid and version of an object; only its metadata is read.

    Raises:
        Unusable: if it has no metadata, or none that can be read.
    """
    try:
        return _identity.decode(found["metadata"])
    except (KeyError, *UNDECODABLE) as cause:
        raise unreadable(found.get("metadata"), cause) from cause


def readable_identity(found: RawObject) -> ObjectIdentity:
    """As `identify`, for an object that cannot be kept: what of its identity is no string is left out.

    Raises:
        Unusable: if it has no metadata that are a JSON object.
    """
    try:
        return _identity.decode(found["metadata"])
    except (KeyError, *UNDECODABLE):
        pass
    try:
        entries = _raw_object.decode(found["metadata"])
        strings = {name: value for name in _IDENTITY if (value := entries.get(name, b"")) and _kind(value) == _STRING}
        return _identity.decode(msgspec.json.encode(strings))
    except (KeyError, *UNDECODABLE) as cause:
        raise Unusable(f"not a Kubernetes object: {cause}") from cause


def unreadable(metadata: msgspec.Raw | None, cause: Exception) -> Unusable:
    """Why an object's metadata cannot be read: `its resourceVersion is a number, not a string`, else the `cause`.

    Without the value: that may be another one in each event, and one fault is said once.
    """
    try:
        entries = _raw_object.decode(metadata or b"")
    except UNDECODABLE:
        entries = {}
    odd = {name: _kind(entries[name]) for name in _STRINGS if name in entries}
    wrong = [f"its {name} is {kind}, not a string" for name, kind in odd.items() if kind not in (_STRING, _NULL)]
    return Unusable(", ".join(wrong) or f"not a Kubernetes object: {cause}")


def _kind(value: msgspec.Raw | bytes) -> str:
    """What a JSON value is, as its first byte says."""
    return _KINDS.get(bytes(value)[:1], "a number")


def seconds(timestamp: str | None) -> int:
    """Whole seconds since 1970 of an RFC 3339 time, as Kubernetes writes it; 0 if it is none."""
    if not timestamp:
        return 0
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0


def changed_at(found: RawObject) -> int:
    """When an object was last changed, by its cluster's clock in whole seconds since 1970; 0 if it has no such time.

    The latest `time` in managedFields:
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    try:
        managers = _managers.decode(found["metadata"]).managed_fields or ()
    except (KeyError, *UNDECODABLE):
        return 0
    return max((seconds(manager.time) for manager in managers), default=0)
