"""Collections of a file: a list of them in YAML or JSON, or manifests of Clusterpedia's CollectionResource.

Clusterpedia's form is github.com/clusterpedia-io/api, clusterpedia/v1beta1/types.go.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from query.access.documents import Strict, all_parsed, shaped
from query.access.errors import BadAccessFile
from query.access.files import read_file
from query.discovery.clusterpedia import GROUP, VERSION
from query.errors import UnusableSetting
from query.search.collections import COLLECTIONS, CollectedTypes, ResourceCollection, group_named

_KIND = "CollectionResource"
_LISTS = ("List", f"{_KIND}List")
# A DNS label and a DNS subdomain (RFC 1123), as Kubernetes has them in names of resources and of groups.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_EXAMPLE = "write a list, as `- name: edge`, `resourceTypes: [{group: networking.k8s.io, resource: ingresses}]`"


class BadCollections(UnusableSetting):
    """A file of collections cannot be used; one line with the file, the entry, what is wrong and what to write."""


# -- as it stands in the file ------------------------------------------------------------------------------------------


class _Type(Strict, frozen=True):
    resource: str = ""
    group: str = ""
    version: str = ""
    # What clusters say counts.
    kind: str = ""


class _Entry(Strict, frozen=True):
    name: str
    resource_types: tuple[_Type, ...] = ()


class _Metadata(msgspec.Struct, frozen=True):
    name: str


class _Manifest(Strict, frozen=True):
    """As it is written, or as `kubectl get -o yaml` shows it, with what it had."""

    metadata: _Metadata
    resource_types: tuple[_Type, ...] = ()
    items: Any = None
    continue_: Any = msgspec.field(default=None, name="continue")
    remaining_item_count: Any = None


# -- as it is used -----------------------------------------------------------------------------------------------------


def load_collections(path: Path) -> tuple[ResourceCollection, ...]:
    """The collections of a file. Blocking.

    Raises:
        BadCollections: it cannot be read, or not be used.
    """
    try:
        content = read_file(path)
    except BadAccessFile as cause:
        raise BadCollections(str(cause)) from None
    try:
        return read_collections(content)
    except BadCollections as cause:
        raise BadCollections(f"{path}: {cause}") from None


def read_collections(content: bytes) -> tuple[ResourceCollection, ...]:
    """The collections of a file's bytes, in their order.

    `[{"name": "edge", "resourceTypes": [{"group": "networking.k8s.io", "resource": "ingresses"}]}]` is one of one type.
    A resource `*`, or none, is all of its group; a version is only objects in this one.

    Raises:
        BadCollections: without the file's name.
    """
    found: dict[str, ResourceCollection] = {}
    try:
        documents = all_parsed(content)
    except BadAccessFile as cause:
        raise BadCollections(str(cause)) from None
    for number, document in enumerate(documents, 1):
        try:
            for field, entry in _entries(document):
                try:
                    one = _collection(entry, found)
                except BadAccessFile as cause:
                    raise (cause.below(field) if field else cause) from None
                found[one.name] = one
        except BadAccessFile as cause:
            raise BadCollections(f"document {number}: {cause}" if len(documents) > 1 else str(cause)) from None
    if not found:
        raise BadCollections(f"no collection stands there; {_EXAMPLE}")
    return tuple(found.values())


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    """What stands for a collection each, with its place in the document. Raises BadAccessFile."""
    if document is None:
        return
    if isinstance(document, list):
        yield from ((f"[{at}]", one) for at, one in enumerate(document))
    elif not isinstance(document, dict) or "kind" not in document:
        raise BadAccessFile(f"no list; {_EXAMPLE}")
    elif document["kind"] in _LISTS:
        if not isinstance(items := document.get("items"), list):
            raise BadAccessFile("a list of manifests is needed", "items")
        kind = {"kind": _KIND, "apiVersion": f"{GROUP}/{VERSION}"}
        # Of a typed list the items do not say what they are.
        typed = document["kind"] != "List"
        yield from (
            (f"items[{at}]", {**kind, **one} if typed and isinstance(one, dict) else one)
            for at, one in enumerate(items)
        )
    else:
        yield "", document


def _collection(entry: Any, known: Container[str]) -> ResourceCollection:
    """What an entry says; `known`: names of those before it. Raises BadAccessFile."""
    if not isinstance(entry, dict):
        raise BadAccessFile("no collection; write a name and resourceTypes")
    name, types, field = _named(entry)
    if not _SUBDOMAIN.fullmatch(name):
        raise BadAccessFile(f"{name[:64]!r} is no name; write lower-case letters, digits, - and .", field)
    if name in COLLECTIONS:
        raise BadAccessFile(f"{name} is always there; leave this one out, or name it otherwise", field)
    if name in known:
        raise BadAccessFile(f"{name} stands twice; put its types into one", field)
    if not types:
        raise BadAccessFile(f"{name} has no types; write {{group: apps, resource: deployments}}", "resourceTypes")
    patterns = [_pattern(one, f"resourceTypes[{at}]") for at, one in enumerate(types)]
    return ResourceCollection(name, tuple(dict.fromkeys(patterns)))


def _named(entry: Mapping[str, Any]) -> tuple[str, Sequence[_Type], str]:
    """A collection's name and types, and where its name stands."""
    if "kind" not in entry and "apiVersion" not in entry:
        own = shaped(entry, _Entry)
        return own.name, own.resource_types, "name"
    entry = dict(entry)
    for field, wanted in (("kind", _KIND), ("apiVersion", f"{GROUP}/{VERSION}")):
        if (said := entry.pop(field, None)) != wanted:
            raise BadAccessFile(f"{str(said)[:64]!r}; write {wanted}", field)
    manifest = shaped(entry, _Manifest)
    return manifest.metadata.name, manifest.resource_types, "metadata.name"


def _pattern(one: _Type, field: str) -> CollectedTypes:
    """Raises BadAccessFile."""
    resource, slash, _ = one.resource.partition("/")
    if slash:
        raise BadAccessFile(f"{one.resource[:64]!r} is a subresource; write {resource}", f"{field}.resource")
    if resource not in ("", "*") and not _LABEL.fullmatch(resource):
        raise BadAccessFile(
            f"{resource[:64]!r} is no resource; write its plural, as deployments, or * for all of the group",
            f"{field}.resource",
        )
    if not one.resource and not one.group:
        raise BadAccessFile("no type; write a resource, as pods, or resource: '*' for all of the core group", field)
    if "/" in one.group:
        group, _, version = one.group.partition("/")
        raise BadAccessFile(
            f"{one.group[:64]!r} has a version; write group: {group}, version: {version}", f"{field}.group"
        )
    if one.group not in ("", "*") and not _SUBDOMAIN.fullmatch(one.group):
        raise BadAccessFile(f'{one.group[:64]!r} is no group; write apps, "" for core, or * for all', f"{field}.group")
    if one.version and not _LABEL.fullmatch(one.version):
        raise BadAccessFile(f"{one.version[:64]!r} is no version; write v1, or leave it out", f"{field}.version")
    group_ = None if one.group == "*" else group_named(one.group)
    return CollectedTypes(group_, None if resource in ("", "*") else resource, one.version or None)
