"""Handed over: states that came before the cluster's lists and watches had them, and outrank older ones for a while."""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet

from deltalog.wire.kubernetes import ObjectKey, newer
from producers.follow.nothing import NOTHING


class HandedOver:
    """The versions that were handed over lately, by object, and until when each counts (time.monotonic).

    `versions` is nearly always empty, which the writer asks for each object without a call.
    """

    __slots__ = ("_seconds", "versions")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.versions: dict[ObjectKey, tuple[str, float]] = NOTHING

    def note(self, key: ObjectKey, version: str) -> None:
        """A state of this version was taken in."""
        self.versions = self.versions or {}
        self.versions[key] = (version, time.monotonic() + self._seconds)

    def outranks(self, key: ObjectKey, version: str) -> bool:
        """Whether a list or watch that has this version is behind what was handed over."""
        known = self.versions.get(key)
        if known is None:
            return False
        if newer(version, known[0]) or version == known[0] or known[1] < time.monotonic():
            # The watch has come to it.
            del self.versions[key]
            return False
        return True

    def names(self) -> AbstractSet[ObjectKey]:
        """Objects of which it still counts."""
        now = time.monotonic()
        for key in [key for key, (_, until) in self.versions.items() if until < now]:
            del self.versions[key]
        return self.versions.keys()

    def clear(self) -> None:
        """The log is about to be read again."""
        self.versions.clear()
