"""The discovery document: all that a member cluster serves, synced or not, kept in the log.

The query service tells clients by it what they may ask of a cluster, also while that is down.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.records import ClusterDocument
from producers.follow.documents import packed
from producers.upstream.discovery import Discovered

_GZIP_FORMAT = 31

Group = dict[str, Any]


class RecordedDiscovery:
    """The document that the log has of one cluster. `groups`: names of those that are in it."""

    def __init__(self) -> None:
        self.groups: frozenset[str] = frozenset()
        self._hash = ""
        self._body = b""
        # Of the one that was too large for the log.
        self._left_out = ""

    def take_in(self, document: ClusterDocument | None) -> None:
        """The document that a record of the log has."""
        self._hash, self._body = ("", b"") if document is None else (document.hash, document.body)
        self.groups = frozenset(_name(group) for group in self._read())

    def _read(self) -> list[Group]:
        """The document; nothing if it is none that can be read: then it is as if there had been none."""
        try:
            return msgspec.json.decode(zlib.decompress(self._body, _GZIP_FORMAT), type=list[Group])
        except (zlib.error, *UNDECODABLE):
            return []

    def news(self, found: Discovered) -> ClusterDocument | None:
        """What discovery found, as a document to append; None if the log has an equal one.

        What is in doubt stays as it was.
        """
        text = found.document
        if not found.whole:
            text = msgspec.json.encode(kept(self._read(), msgspec.json.decode(text, type=list[Group]), found))
        return packed(text, self._hash)

    def lost(self) -> None:
        """The log has the document no longer: the next one is appended, whatever it is."""
        self._hash = ""

    @property
    def hash(self) -> str:
        """Of the document that the log has; empty: none."""
        return self._hash

    def leave_out(self, document: ClusterDocument) -> None:
        """A document that is too large for the log, which keeps the one it has."""
        self._left_out = document.hash

    def left_out(self, document: ClusterDocument) -> bool:
        """Whether it was found to be too large before."""
        return self._left_out == document.hash


def kept(before: list[Group], now: list[Group], found: Discovered) -> list[Group]:
    """What a cluster serves now, with what it served before of all that is in doubt, in the order that it has."""
    old, new = ({_name(group): group for group in groups} for groups in (before, now))
    awaited = {group for group, _ in found.missing}
    result = []
    for name in _in_order(old, new, lambda name: name in found.doubtful or name in awaited):
        if name not in new and name in found.doubtful:
            result.append(old[name])
            continue
        versions = _kept_versions(name, old.get(name, {}), new.get(name, {}), found)
        if versions:
            result.append({**new.get(name, old.get(name, {})), "versions": versions})
    return result


def _kept_versions(name: str, before: Group, now: Group, found: Discovered) -> list[dict[str, Any]]:
    old, new = ({one["version"]: one for one in group.get("versions", ())} for group in (before, now))
    awaited = {
        version: [one for one in served["resources"] if GroupResource(name, one["resource"]) in found.missing]
        for version, served in old.items()
    }
    versions = []
    for version in _in_order(old, new, lambda version: bool(awaited[version])):
        served = new.get(version)
        if served is None:
            versions.append({**old[version], "resources": awaited[version]})
        elif GroupVersion(name, version) in found.stale and old.get(version, {}).get("resources"):
            versions.append(old[version])
        else:
            versions.append({**served, "resources": [*served["resources"], *awaited.get(version, ())]})
    return versions


def _in_order(old: Iterable[str], new: Iterable[str], stays: Callable[[str], bool]) -> list[str]:
    """The new names, and of the old ones those that stay, each behind the one that it was behind."""
    names = list(new)
    at = 0
    for name in old:
        if name in names:
            at = names.index(name) + 1
        elif stays(name):
            names.insert(at, name)
            at += 1
    return names


def _name(group: Group) -> str:
    return str(group["metadata"].get("name", ""))
