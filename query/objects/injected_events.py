"""Injected events: the Events of objects, put into their annotations where a request asks for it.

Clusterpedia's annotation `shadow.clusterpedia.io/events`: a JSON array of Events, the newest last. Nothing is stored
for it: the store has the Events, and finds them by the uid of what they are about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import Requirement
from materializer.entry import VERSION_OFFSET, Entry
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.type_store import matching
from query.objects.turns import in_slices
from query.search.order import version_order
from query.search.owners import Seen

ANNOTATION = "shadow.clusterpedia.io/events"
EVENTS = GroupResource("", "events")
MOST = 50
"""So many of one object, its newest ones."""
_UID = "involvedObject.uid"
# So many uids are looked for at one go.
_AT_ONCE = 512

Key = tuple[str, str]
"""Cluster and uid of what Events are about."""


async def events_of(
    materializer: Materializer, turns: asyncio.Lock, entries: Sequence[Entry], seen: Seen | None
) -> Mapping[Key, Sequence[Entry]]:
    """The Events of objects that there are now, by cluster and uid, oldest first. `seen`: which may be seen; None: all.

    O(objects + their Events), in slices.
    """
    found: dict[Key, list[Entry]] = {}
    for begin in range(0, len(entries), _AT_ONCE):
        some = entries[begin : begin + _AT_ONCE]
        type_store = materializer.store.types.get(EVENTS)
        if type_store is None:
            break
        uids = tuple(sorted({uid for one in some if (uid := one.uid)}))
        wanted = Filter(clusters=frozenset(one.cluster for one in some), fields=(Requirement(_UID, "in", uids),))
        await in_slices(turns, type_store.prepare(wanted))
        for event in await in_slices(turns, matching(type_store.scan(wanted), wanted)) or []:
            if seen is None or seen(EVENTS, event):
                found.setdefault((event.cluster, event.field(_UID)), []).append(event)
    for key, events in found.items():
        # By their cluster's versions: a first list brings them in the order of their names.
        events.sort(key=version_order)
        found[key] = events[-MOST:]
    return found


def injected(entry: Entry, content: bytes, events: Collection[bytes]) -> bytes:
    """An entry's content with Events, given as JSON, in its annotations. O(size)."""
    end = len(content) - entry.behind_metadata
    metadata = msgspec.json.decode(content[VERSION_OFFSET - 1 : end], type=dict[str, msgspec.Raw])
    own = bytes(metadata.get("annotations", b"{}"))
    text = msgspec.json.encode((b"[%b]" % b",".join(events)).decode())
    annotation = b"%b:%b" % (msgspec.json.encode(ANNOTATION), text)
    rest = own[1:] if own.startswith(b"{") else b"}"
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    metadata["annotations"] = msgspec.Raw(b"{" + annotation + comma + rest)
    return content[: VERSION_OFFSET - 1] + msgspec.json.encode(metadata) + content[end:]
