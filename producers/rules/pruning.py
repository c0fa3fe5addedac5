"""Pruning: what of a cluster's objects stays out of the log, as an operator asks for it.

Values are emptied, keys stay: a reader sees that there was something. A pointer is a JSON pointer (RFC 6901) into
the object; `*` as a segment means every member of an object or array. `/data/*` of secrets leaves each key of data
with an empty value of the same JSON type; `/data` leaves the same.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from deltalog.wire.resource_type import ResourceType
from producers.errors import UnusableInput

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

# What identifies an object, orders its states and selects it; without it neither the log nor a client can do.
_KEPT = ("apiVersion", "kind")
_KEPT_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
    "labels",
)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode

_EMPTY = {
    ord('"'): msgspec.Raw(b'""'),
    ord("["): msgspec.Raw(b"[]"),
    ord("t"): msgspec.Raw(b"false"),
    ord("f"): msgspec.Raw(b"false"),
    ord("n"): msgspec.Raw(b"null"),
}
_ZERO = msgspec.Raw(b"0")

# Segments to what follows them; nothing follows where a pointer ends.
Tree = dict[str, "Tree"]


class BadPointer(UnusableInput):
    """A pointer that is none, or would prune what must stay; one line."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What to leave out: managedFields unless asked otherwise, the last-applied annotation on request, and values.

    `pointers`: patterns of types as in rules (`secrets`, `*.apps`), each with JSON pointers whose values are emptied;
    all patterns that name a type count. An object of such a type always loses its last-applied annotation and
    managedFields, as the one repeats the whole object and the other some of its values. Raises BadPointer.
    """

    managed_fields: bool = True
    last_applied: bool = False
    pointers: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        for _, pointers in self.pointers:
            for pointer in pointers:
                segments(pointer)

    def of(self, resource: ResourceType) -> Pruned:
        """What this means for one type."""
        chosen = sorted(
            {
                pointer
                for pattern, pointers in self.pointers
                if fnmatchcase(str(resource.group_resource), pattern)
                for pointer in pointers
            }
        )
        return _pruned(self.managed_fields or bool(chosen), self.last_applied or bool(chosen), tuple(chosen))


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is left out of the objects of one type. `mark` identifies it; empty for the usual way."""

    managed_fields: bool
    last_applied: bool
    tree: Tree
    mark: str
    pointers: tuple[str, ...] = ()

    def covers(self, steps: tuple[str, ...]) -> bool:
        """Whether a value at this path is left out."""
        return bool(self.tree) and _covers(self.tree, steps)


# Most types of most clusters are pruned alike.
@functools.lru_cache(maxsize=1024)
def _pruned(managed_fields: bool, last_applied: bool, chosen: tuple[str, ...]) -> Pruned:
    mark = ""
    if chosen or not managed_fields or last_applied:
        # Marks are compared between runs, so the same pruning must be written the same in each.
        content = _encode([managed_fields, last_applied, chosen])
        mark = hashlib.blake2s(content, digest_size=4).hexdigest()
    tree: Tree = {}
    for steps in sorted(map(segments, chosen), key=len):
        _plant(tree, steps)
    return Pruned(managed_fields, last_applied, tree, mark, chosen)


def segments(pointer: str) -> tuple[str, ...]:
    """The segments of a pointer. Raises BadPointer."""
    if not pointer.startswith("/"):
        raise BadPointer(f"{pointer!r} is no JSON pointer: it begins with a slash, as /data/* or /spec/token does")
    found = []
    for text in pointer[1:].split("/"):
        if "~" in text.replace("~0", "").replace("~1", ""):
            raise BadPointer(f"{pointer!r} is no JSON pointer: write ~0 for a tilde and ~1 for a slash in a key")
        found.append(text.replace("~1", "/").replace("~0", "~"))
    head, *rest = found
    if head in (*_KEPT, "*") and not (head == "*" and rest and rest[0] not in (*_KEPT_METADATA, "*")):
        raise BadPointer(f"{pointer!r} would prune apiVersion, kind or metadata, which stay: begin with another key")
    if head == "metadata" and (not rest or rest[0] in (*_KEPT_METADATA, "*")):
        raise BadPointer(f"{pointer!r} would prune what identifies objects: write /metadata/annotations/<key>")
    return tuple(found)


def _plant(tree: Tree, steps: tuple[str, ...]) -> None:
    """Adds a pointer, unless a shorter one in the tree has it already."""
    for at, step in enumerate(steps):
        if step in tree and not tree[step]:
            return
        if at == len(steps) - 1:
            tree[step] = {}
            return
        tree = tree.setdefault(step, {})


def _covers(tree: Tree, steps: tuple[str, ...]) -> bool:
    if not steps:
        return False
    for key in (steps[0], "*"):
        if (below := tree.get(key)) is not None and (not below or _covers(below, steps[1:])):
            return True
    return False


def blank(raw: msgspec.Raw) -> msgspec.Raw:
    """An empty value of the same type; an object keeps its keys, with blank values. Raises msgspec.MsgspecError."""
    text = memoryview(raw)
    if text[0] != ord("{"):
        return _EMPTY.get(text[0], _ZERO)
    return msgspec.Raw(_encode({key: blank(value) for key, value in _members.decode(raw).items()}))


def prune(raw: msgspec.Raw, tree: Tree) -> msgspec.Raw:
    """The value without the values that the tree points at. Raises msgspec.MsgspecError.

    Only what a pointer leads through is decoded; all else stays the bytes it was.
    """
    first = memoryview(raw)[0]
    every = tree.get("*")
    if first == ord("{"):
        members = _members.decode(raw)
        prune_members(members, tree)
        return msgspec.Raw(_encode(members))
    if first == ord("["):
        elements = _elements.decode(raw)
        for at, element in enumerate(elements):
            for below in (every, tree.get(str(at))):
                if below is not None:
                    element = prune(element, below) if below else blank(element)
            elements[at] = element
        return msgspec.Raw(_encode(elements))
    return raw


def prune_members(members: dict[str, msgspec.Raw], tree: Tree) -> None:
    """`prune` for an object whose members are decoded already, in place."""
    every = tree.get("*")
    for key in tree if every is None else list(members):
        if (value := members.get(key)) is None:
            continue
        for below in (every, tree.get(key) if key != "*" else None):
            if below is not None:
                value = prune(value, below) if below else blank(value)
        members[key] = value
