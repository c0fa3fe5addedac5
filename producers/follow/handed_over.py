"""Handed over: states that came before the cluster's lists and watches had them, and outrank older ones for a while."""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet

from deltalog.wire.kubernetes import ObjectName, newer


class HandedOver:
    """The versions that were handed over lately, by object; each counts for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._versions: dict[ObjectName, tuple[str, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._versions)

    def note(self, key: ObjectName, version: str) -> None:
        """A state of this version was taken in."""
        self._versions[key] = (version, time.monotonic() + self._seconds)

    def outranks(self, key: ObjectName, version: str) -> bool:
        """Whether a list or watch that has this version is behind what was handed over."""
        known = self._versions.get(key)
        if known is None:
            return False
        if newer(version, known[0]) or version == known[0] or known[1] < time.monotonic():
            # The watch has come to it.
            del self._versions[key]
            return False
        return True

    def names(self) -> AbstractSet[ObjectName]:
        """Objects of which it still counts."""
        now = time.monotonic()
        for key in [key for key, (_, until) in self._versions.items() if until < now]:
            del self._versions[key]
        return self._versions.keys()

    def clear(self) -> None:
        """The log is about to be read again."""
        self._versions.clear()
