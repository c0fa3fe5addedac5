"""Before: what selectors saw of an object in its last state, for deltas to tell beside what they see now (`Delta.was`).

A producer keeps no copy of objects: of each it has a digest (`Known.digest`), which says whether anything selectors
look at has changed. Only where it has, the state before is asked for: of the latest appends here, else of the log.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import structlog

from deltalog import UNCHANGED, LogUnavailable, Selectables, UnreadableRecord
from deltalog.wire.kubernetes import ObjectName
from deltalog.wire.summary import encode_selectables, selectables_digest
from producers.follow.known import Known
from producers.follow.logged_type import LoggedType
from producers.follow.normalize import Normalized, Normalizer

log = structlog.get_logger("producers.follow.before")

_decode = msgspec.msgpack.Decoder(Selectables).decode


class Look(msgspec.Struct, frozen=True, gc=False):
    """What selectors look at of one state: `encoded` as in `encode_selectables`, and its digest."""

    encoded: bytes
    digest: bytes


def look_at(state: Normalized) -> Look:
    """What selectors look at of an object's state."""
    encoded = encode_selectables(state.labels, state.fields, state.controller_uid)
    return Look(encoded, selectables_digest(encoded))


class Before:
    """The states before, of one writer's objects. `latest`: how many appends are remembered.

    That has to be more than may be on its way at a time: what is not remembered is in the log then, where it is looked
    for. About 0.5 KB each; objects that change several times within seconds, as a Pod that starts, need no look-up.
    """

    def __init__(self, logged: LoggedType, normalizer: Normalizer, latest: int) -> None:
        self._logged = logged
        self._normalizer = normalizer
        self._most = latest
        self._latest: OrderedDict[ObjectName, bytes] = OrderedDict()

    def note(self, key: ObjectName, look: Look) -> None:
        """A state is appended."""
        latest = self._latest
        latest[key] = look.encoded
        latest.move_to_end(key)
        if len(latest) > self._most:
            latest.popitem(last=False)

    def clear(self) -> None:
        """What the log holds is about to be read again."""
        self._latest.clear()

    async def was(self, key: ObjectName, known: Known, look: Look, other_versions: set[str]) -> Selectables | None:
        """`Delta.was` of a state that follows the `known` one. None where the log does not tell."""
        if known.digest == look.digest:
            return UNCHANGED
        encoded = self._latest.get(key)
        if encoded is None:
            encoded = await self._logged_look(key, known, other_versions)
        if encoded is None:
            return None
        return UNCHANGED if encoded == look.encoded else _decode(encoded)

    async def _logged_look(self, key: ObjectName, known: Known, other_versions: set[str]) -> bytes | None:
        try:
            last = await self._logged.last_look(key, other_versions)
        except (LogUnavailable, UnreadableRecord) as cause:
            log.debug("the state before cannot be read", object="/".join(key), reason=str(cause))
            return None
        if last is None or last.uid != known.uid:
            return None
        # Of a state that was pruned in another way, the log must not keep what is hidden now.
        return encode_selectables(last.labels, self._normalizer.visible(last.fields), last.controller_uid)
