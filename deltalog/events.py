"""What a subscription hands out: changes of objects, removals of clusters and types, bookmarks."""

from __future__ import annotations

from typing import Any

import msgspec

from deltalog.place import Place
from deltalog.wire.delta import DELETED, Delta
from deltalog.wire.kubernetes import newer


class Change(msgspec.Struct, frozen=True):
    """One change of one object.

    - `type`: ADDED, MODIFIED or DELETED as this subscription shows it: ADDED for an object that it has not shown
      before and that was not there at its beginning, whatever the log's message was.
    - `left`: a DELETED of an object that lives on, but has left what is selected by labels.
    - `sequence`: the change's position in the log, the same for everyone; `time`: when it was stored there, in
      nanoseconds since 1970.
    - `delta`: what the log says, its object uncompressed and whole. `delta.replaced`, if not None, is what the
      consumer may still hold under this name with another uid; storing by name, it is overwritten.
    """

    type: str
    sequence: int
    time: int
    prefix: str
    delta: Delta
    left: bool = False

    @property
    def place(self) -> Place:
        """Everything up to this change: to be stored as text, and to start from."""
        return Place(self.prefix, self.sequence, self.time)

    @property
    def version(self) -> str:
        """The resourceVersion under which kubebraid serves this state.

        Example: `5f0c9a12.4711.89`, change 4711 of the history 5f0c9a12, with the member cluster's own version 89.
        """
        return f"{self.prefix}.{self.sequence}.{self.delta.member_version}"

    @property
    def body(self) -> bytes:
        """The object as JSON with that resourceVersion. A DELETED without `delta.final` has its last metadata."""
        delta = self.delta
        version = b'"resourceVersion":%b,' % msgspec.json.encode(self.version)
        return delta.object[: delta.version_offset] + version + delta.object[delta.version_offset :]

    @property
    def object(self) -> dict[str, Any]:
        """`body`, parsed at each call."""
        parsed: dict[str, Any] = msgspec.json.decode(self.body)
        return parsed

    def supersedes(self, uid: str, member_version: str) -> bool:
        """Whether this says something new to who holds this name with a uid and a member cluster's own version.

        False only for a repetition: a producer may append a state again that it cannot know to be in the log.
        """
        delta = self.delta
        fresh = delta.type == DELETED or delta.restored or uid != delta.uid
        return fresh or newer(delta.member_version, member_version)


class Removed(msgspec.Struct, frozen=True):
    """All objects of a cluster, or of a type of it, with a lower sequence have gone: there is no DELETED for each.

    `resource` empty: all of the cluster. Objects that come later, come as ADDED.
    """

    sequence: int
    time: int
    prefix: str
    cluster: str
    group: str = ""
    resource: str = ""

    @property
    def place(self) -> Place:
        """As of a Change."""
        return Place(self.prefix, self.sequence, self.time)


class Bookmark(msgspec.Struct, frozen=True):
    """Nothing else happened up to this sequence. `caught_up`: the first one, when all that was there has come."""

    sequence: int
    time: int
    prefix: str
    caught_up: bool = False

    @property
    def place(self) -> Place:
        """As of a Change."""
        return Place(self.prefix, self.sequence, self.time)


Event = Change | Removed | Bookmark
