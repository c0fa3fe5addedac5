"""Subjects: the address of every object and control record in the log, and how it is read back.

    kb.<cluster>.<group>.<version>.<resource>.<namespace>.<name>      one object
    kbc.<cluster>.<record>[.<group>.<resource>]                       one control record
    kbc.<cluster>.openapi.<v2 or v3>.<document>                       one OpenAPI document of the cluster
    kbc.<cluster>.discovery                                           all that the cluster serves
    kbp.<as an object's>.<resourceVersion>.<n>                        a part of an object too large for a message

The core group is `core`, the namespace of cluster-scoped objects is `_`: `kb.alpha.core.v1.pods.shop.web-0`,
`kb.alpha.core.v1.nodes._.node-1`. A token is percent-encoded (UTF-8) where NATS, the dot or one of these two words
needs it, so that a plain NATS wildcard filters by cluster, type, namespace or name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

OBJECTS = "kb"
CONTROL = "kbc"
PARTS = "kbp"
STREAM_SUBJECTS = (f"{OBJECTS}.>", f"{CONTROL}.>", f"{PARTS}.>")

# Control records, by the token of their subjects.
OWNER = "owner"
CLUSTER = "cluster"
TYPE = "type"
SYNCED = "synced"
HEALTH = "health"
REMOVED = "removed"
STATUS = "status"
OPENAPI = "openapi"
DISCOVERY = "discovery"

# Which of them end with a removal: those of a cluster, of a type of it, and of its documents. The record of the
# removal and the owner's stay, since epochs go on growing.
CLUSTER_RECORDS = (CLUSTER, DISCOVERY, HEALTH, STATUS)
TYPE_RECORDS = (TYPE, SYNCED, HEALTH)
DOCUMENT_RECORDS = (OPENAPI,)

# What a NATS token cannot hold (white space, control characters, `.`, `*`, `>`), what percent-encoding itself
# uses, and what isn't ASCII (the server does not require that, other languages' clients are thankful for it).
_UNSAFE = re.compile(r"[^!-)+,\-/-=?-~]|[%]")


class ObjectAddress(NamedTuple):
    """What an object's subject names; `group` is empty for the core group, `namespace` for cluster-scoped objects."""

    cluster: str
    group: str
    version: str
    resource: str
    namespace: str
    name: str


class ControlAddress(NamedTuple):
    """What a control record's subject names; `group` and `resource` are empty for a record of the whole cluster.

    Of an OpenAPI document `group` is `v2` or `v3` and `resource` the document's name.
    """

    cluster: str
    record: str
    group: str
    resource: str


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def encode_token(text: str) -> str:
    """One token of a subject: `web-0` stays as it is, `a.b` becomes `a%2Eb`.

    Raises:
        ValueError: the text is empty, which a token cannot be.
    """
    if not text:
        raise ValueError("a subject token cannot be empty")
    return _UNSAFE.sub(_percent, text) if _UNSAFE.search(text) else text


def decode_token(token: str) -> str:
    """The text of a token.

    Raises:
        ValueError: what is percent-encoded is not UTF-8.
    """
    return unquote(token, errors="strict") if "%" in token else token


def _encode_group(group: str) -> str:
    if not group:
        return "core"
    return "%63ore" if group == "core" else encode_token(group)


def _decode_group(token: str) -> str:
    return "" if token == "core" else decode_token(token)


@lru_cache(4096)
def _encode_namespace(namespace: str) -> str:
    if not namespace:
        return "_"
    return "%5F" if namespace == "_" else encode_token(namespace)


def _decode_namespace(token: str) -> str:
    return "" if token == "_" else decode_token(token)


def type_prefix(cluster: str, group: str, version: str, resource: str) -> str:
    """What the subjects of all objects of a type in a cluster begin with: `kb.alpha.apps.v1.deployments.`."""
    return f"{OBJECTS}.{encode_token(cluster)}.{_encode_group(group)}.{encode_token(version)}.{encode_token(resource)}."


def object_subject(prefix: str, namespace: str, name: str) -> str:
    """The subject of one object, whose type has this `type_prefix`."""
    return f"{prefix}{_encode_namespace(namespace)}.{encode_token(name)}"


def parse_object(subject: str) -> ObjectAddress:
    """The address that an object's subject names.

    Raises:
        ValueError: it is no object's subject.
    """
    tokens = subject.split(".")
    if len(tokens) != 7 or tokens[0] != OBJECTS:
        raise ValueError(f"{subject!r} is no object's subject")
    _, cluster, group, version, resource, namespace, name = tokens
    return ObjectAddress(
        decode_token(cluster),
        _decode_group(group),
        decode_token(version),
        decode_token(resource),
        _decode_namespace(namespace),
        decode_token(name),
    )


def object_filter(
    cluster: str | None = None,
    group: str | None = None,
    resource: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    version: str | None = None,
) -> str:
    """The wildcard subject of the objects named; None stands for any, the empty string for core and cluster-scoped.

    `object_filter("alpha", "", "pods")` is `kb.alpha.core.*.pods.*.*`.
    """
    return ".".join(
        (
            OBJECTS,
            "*" if cluster is None else encode_token(cluster),
            "*" if group is None else _encode_group(group),
            "*" if version is None else encode_token(version),
            "*" if resource is None else encode_token(resource),
            "*" if namespace is None else _encode_namespace(namespace),
            "*" if name is None else encode_token(name),
        )
    )


def control_subject(cluster: str, record: str, group: str = "", resource: str = "") -> str:
    """The subject of a control record; of a type where `resource` is given, else of the cluster.

    `control_subject("alpha", "synced", "apps", "deployments")` is `kbc.alpha.synced.apps.deployments`. `record` is one
    of the constants above.
    """
    subject = f"{CONTROL}.{encode_token(cluster)}.{record}"
    return f"{subject}.{_encode_group(group)}.{encode_token(resource)}" if resource else subject


def parse_control(subject: str) -> ControlAddress:
    """The address that a control record's subject names.

    Raises:
        ValueError: it is no control record's subject.
    """
    tokens = subject.split(".")
    if tokens[0] != CONTROL or len(tokens) not in (3, 5):
        raise ValueError(f"{subject!r} is no control record's subject")
    if len(tokens) == 3:
        return ControlAddress(decode_token(tokens[1]), tokens[2], "", "")
    return ControlAddress(decode_token(tokens[1]), tokens[2], _decode_group(tokens[3]), decode_token(tokens[4]))
