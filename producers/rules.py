"""Rules: which of a cluster's resource types are synced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from producers.discovery import ResourceType

# Synced only when named: one is confidential, the other is mostly noise and the bulk of all writes.
OPT_IN = ("secrets", "events", "events.events.k8s.io")


class BadRule(Exception):
    """A pattern that cannot name a type; one line."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns of types: `pods`, `deployments.apps`, `*.apps`, `*`. A core type has no group part.

    A type is synced if an include names it and no exclude does. `*` and `*.group` don't name the opt-in types.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            if not pattern or any(char.isspace() or char in "/?[]" for char in pattern):
                raise BadRule(f"{pattern!r} names no resource type; write pods, deployments.apps, *.apps or *")

    def selects(self, kind: ResourceType) -> bool:
        title = kind.title
        if any(_names(pattern, title) for pattern in self.exclude):
            return False
        return any(_names(pattern, title) and (title not in OPT_IN or "*" not in pattern) for pattern in self.include)

    def chosen(self, types: Iterable[ResourceType]) -> list[ResourceType]:
        return [kind for kind in types if self.selects(kind)]


def _names(pattern: str, title: str) -> bool:
    return fnmatchcase(title, pattern)
