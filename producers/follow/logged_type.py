"""What the log holds of one type of one cluster, read back from the log itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from deltalog import Delta, Record, decode_delta
from deltalog.jetstream.stream import Log
from deltalog.reader import read_to_end
from deltalog.wire.delta import UNDECODABLE, refused
from deltalog.wire.kubernetes import GroupResource, ObjectKey, object_name
from deltalog.wire.parts import parts_filter, unpacked
from deltalog.wire.subjects import REMOVED, control_subject, object_filter, object_subject, type_prefix
from producers.follow.known import KnownObjects


class LoggedLook(msgspec.Struct, rename={"controller_uid": "owner"}):
    """What selectors look at, of an object's message, and which object that is; names as in `Delta`."""

    uid: str
    controller_uid: str = ""
    labels: dict[str, str] = {}
    fields: dict[str, str] = {}


_decode_look = msgspec.msgpack.Decoder(LoggedLook).decode


class LoggedType:
    """One type's messages in the log, in the version that is synced; `namespace`: one namespace's only."""

    __slots__ = ("_cluster", "_log", "_namespace", "_resource", "_version")

    def __init__(
        self, log: Log, cluster: str, resource: GroupResource, version: str, namespace: str | None = None
    ) -> None:
        self._log = log
        self._cluster = cluster
        self._resource = resource
        self._version = version
        self._namespace = namespace

    async def read(self, known: KnownObjects) -> None:
        """Notes all of them, by their headers only. O(messages). Raises HistoryChanged; waits for a log in trouble."""
        pattern = object_filter(self._cluster, *self._resource, self._namespace)
        removals = [control_subject(self._cluster, REMOVED, *which) for which in (("", ""), self._resource)]

        def note(record: Record) -> None:
            if record.subject in removals:
                # What stands before it is purged next, from the state; the events keep it for a while.
                known.clear()
            else:
                known.note(record)

        async with self._log.turns:
            await read_to_end(self._log, note, subjects=(pattern, *removals), headers_only=True)

    async def last_delta(self, key: ObjectKey, other_versions: Iterable[str]) -> Delta | None:
        """The last message of one object, whole, in whatever version; None if there is none.

        A message that is not acknowledged yet is not found.
        """
        found = await self._last(key, other_versions, self._log.last)
        if found is None:
            return None
        delta = decode_delta(found)
        pieces = [await self._log.message(sequence) for sequence in delta.parts]
        if None in pieces:
            return None
        if pieces:
            delta = msgspec.structs.replace(delta, object=b"".join(piece for piece in pieces if piece))
        return unpacked(delta)

    async def last_look(self, key: ObjectKey, other_versions: Iterable[str]) -> LoggedLook | None:
        """What selectors look at of the last message of an object that exists; one question to the log, mostly.

        Raises LogUnavailable, UnreadableRecord.
        """
        # The last event is what is, of an object that was not removed; without one, the state has it.
        found = await self._last(key, other_versions, self._log.events.last)
        if found is None:
            found = await self._last(key, other_versions, self._log.last)
        if found is None:
            return None
        try:
            return _decode_look(found)
        except UNDECODABLE as cause:
            raise refused(found, cause) from cause

    async def _last(
        self, key: ObjectKey, other_versions: Iterable[str], last: Callable[[str], Awaitable[tuple[int, bytes] | None]]
    ) -> bytes | None:
        name = object_name(key)
        for version in (self._version, *other_versions):
            prefix = type_prefix(self._cluster, self._resource.group, version, self._resource.resource)
            if (found := await last(object_subject(prefix, *name))) is not None:
                return found[1]
        return None

    async def purge_versions(self, versions: Iterable[str]) -> None:
        """Removes the messages in other versions from the state, parts too. Raises LogUnavailable."""
        head = await self._log.head()
        for version in sorted(versions):
            pattern = object_filter(self._cluster, *self._resource, self._namespace, version=version)
            for one in (pattern, parts_filter(pattern)):
                await self._log.purge_state(one, head + 1)
