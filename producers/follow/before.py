"""Before: what selectors saw of an object in its last state, for deltas to tell beside what they see now (`Delta.was`).

A producer keeps no copy of objects: of each it has a digest (`Known.digest`), which says whether anything selectors
look at has changed. Only where it has, the state before is asked for: of the latest appends here, else of the log.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from deltalog import UNCHANGED, LogUnavailable, Selectables, UnreadableRecord
from deltalog.wire.kubernetes import ObjectKey, object_name
from deltalog.wire.summary import encode_selectables, selectables_digest
from producers.follow.known import Known
from producers.follow.logged_type import LoggedType
from producers.follow.normalize import Normalized, Normalizer
from producers.follow.nothing import NOTHING

log = structlog.get_logger("producers.follow.before")

_decode = msgspec.msgpack.Decoder(Selectables).decode


class Look(msgspec.Struct, frozen=True, gc=False):
    """What selectors look at of one state: `encoded` as in `encode_selectables`, and its digest."""

    encoded: bytes
    digest: bytes


class Before:
    """The states before, of one writer's objects. `latest`: how many of the latest appends are remembered at least.

    That has to be as many as may be on their way at a time: what is not remembered is in the log then, where it is
    looked for. About 0.4 KB each, and twice as many at most; objects that change several times within seconds, as a Pod
    that starts, need no look-up.
    """

    __slots__ = ("_latest", "_least", "_logged", "_normalizer", "_older")

    def __init__(self, logged: LoggedType, normalizer: Normalizer, latest: int) -> None:
        self._logged = logged
        self._normalizer = normalizer
        self._least = latest
        # The older half is dropped as a whole: that costs an append less than to drop the oldest each time.
        self._latest: dict[ObjectKey, bytes] = {}
        self._older: dict[ObjectKey, bytes] = NOTHING

    def look_at(self, key: ObjectKey, state: Normalized, known: Known | None) -> Look:
        """What selectors look at of an object's state, which is appended next. `known`: what the log has of its uid."""
        encoded = encode_selectables(state.labels, state.fields, state.controller_uid)
        if known is not None and encoded == self._latest.get(key):
            return Look(encoded, known.digest)
        return Look(encoded, selectables_digest(encoded))

    def note(self, key: ObjectKey, look: Look) -> None:
        """A state is appended."""
        self._latest[key] = look.encoded
        if len(self._latest) >= self._least:
            self._older, self._latest = self._latest, {}

    def clear(self) -> None:
        """What the log holds is about to be read again."""
        self._latest.clear()
        self._older.clear()

    async def was(self, key: ObjectKey, known: Known, look: Look, other_versions: Iterable[str]) -> Selectables | None:
        """`Delta.was` of a state whose digest is not that of the `known` one before. None: the log does not tell."""
        encoded = self._latest.get(key) or self._older.get(key)
        if encoded is None:
            encoded = await self._logged_look(key, known, other_versions)
        if encoded is None:
            return None
        return UNCHANGED if encoded == look.encoded else _decode(encoded)

    async def _logged_look(self, key: ObjectKey, known: Known, other_versions: Iterable[str]) -> bytes | None:
        try:
            last = await self._logged.last_look(key, other_versions)
        except (LogUnavailable, UnreadableRecord) as cause:
            log.debug("the state before cannot be read", object="/".join(object_name(key)), reason=str(cause))
            return None
        if last is None or last.uid != known.uid:
            return None
        # Of a state that was pruned in another way, the log must not keep what is hidden now.
        return encode_selectables(last.labels, self._normalizer.visible(last.fields), last.controller_uid)
