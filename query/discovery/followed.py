"""Followed: whether what a watch follows is still served as it was when the watch began.

A kube-apiserver ends the watches of a custom type whose definition changes or goes, about a second later, by closing
the stream without an error (k8s.io/apiextensions-apiserver pkg/apiserver/customresource_handler.go: tearDown,
storage/cacher: terminateAllWatchers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto

from deltalog.wire.kubernetes import GroupResource
from query.discovery.catalogue import ServedType


class TypeChange(Enum):
    """What has become of a type in one version.

    - NONE: it is served as it was. GONE: no cluster in scope has it.
    - OTHER: another set of versions is served. What the log has past that may be in a version that the watch is not of.
    """

    NONE = auto()
    GONE = auto()
    OTHER = auto()


class Followed:
    """One type in one version, as a scope serves it now. `look` finds the type; None: it is not served."""

    def __init__(self, look: Callable[[], ServedType | None], version: str) -> None:
        self._look = look
        self._version = version
        self._began = self._versions()

    def change(self) -> TypeChange:
        """What has become of it since this was made. O(1) unless types have changed since the last look."""
        now = self._versions()
        if now == self._began:
            return TypeChange.NONE
        return TypeChange.GONE if now is None else TypeChange.OTHER

    def _versions(self) -> tuple[bool, bool] | None:
        """Whether its version is served, and whether others are: what the filter of a watch depends on."""
        served = self._look()
        if served is None:
            return None
        return self._version in served.versions, len(served.versions) > 1


class SeveralFollowed:
    """Several types, as a scope serves them now. `look` finds them with their versions."""

    def __init__(self, look: Callable[[], Mapping[GroupResource, tuple[str, ...]]]) -> None:
        self._look = look
        self._began = look()

    def change(self) -> TypeChange:
        """What has become of them since this was made: GONE where some have gone and nothing else. O(types)."""
        now = self._look()
        if now == self._began:
            return TypeChange.NONE
        return TypeChange.GONE if now.items() < self._began.items() else TypeChange.OTHER
