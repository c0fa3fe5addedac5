"""Burying: what was deleted some minutes ago is stripped of its body; and what is more than may be is forgotten.

Whole last bodies are for live watchers, and for those that were cut off a moment ago. After that a tombstone becomes a
grave (`materializer.graves`), and of what a live object replaced identity, labels, fields and owner are kept as well.
How far back all that goes is bounded by the tombstone time (`Store.forget`), and by number and bytes: then somebody
decides what is forgotten, and all obey (`deltalog.forgetting`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from materializer.entry import Entry
from materializer.graves import BLOCK, BlockSize, Grave
from materializer.metadata_only import grave_of, stripped
from materializer.order import Removal
from materializer.store import Faded, Store
from materializer.type_store import TypeStore

# So many graves are looked at one by one; of more, some hundreds too many forgotten do not matter.
_MOST_SINGLE = 20_000
SLICE = 2 * BLOCK
"""So many are buried at one go, in some 4 ms."""


class RememberedDeletions(NamedTuple):
    """What a store remembers of deletions.

    - `number`: how many objects of which it is known that they were deleted, or replaced by another of their name.
    - `log_bytes`: bytes that the log holds for their deletions. `bytes`: bytes of memory that they take here, about.
    - `since`: when the log stored the oldest of them that a watch can come back from before, in nanoseconds since 1970;
      None: there are none.
    """

    number: int
    log_bytes: int
    bytes: int
    since: int | None


def remembered(store: Store) -> RememberedDeletions:
    """What the store remembers of deletions now. O(types, clusters, whole tombstones)."""
    number, log_bytes, held = len(store.faded), 0, 0
    times = [one[0] for one in (store.fading[0] if store.fading else None, store.first_faded()) if one is not None]
    for type_store in store.types.values():
        graves = type_store.graves
        number += len(graves) + sum(map(len, type_store.tombstones.values()))
        log_bytes += graves.size
        held += graves.bytes
        if (oldest := graves.oldest_time) is not None:
            times.append(oldest)
    for _, _, _, item in store.fading:
        held += _weight(item)
    log_bytes += sum(store.deletion_sizes.values())
    held += _FADED * len(store.faded)
    since = min(times, default=None)
    if since is not None and store.floor:
        # Of names that were used before there may be older ones than a watch could come back from.
        since = max(since, _time_past(store, store.floor))
    return RememberedDeletions(number, log_bytes, held, since)


def _time_past(store: Store, index: int) -> int:
    """When the log stored the first change past an index that is remembered; 0: there is none. O(types), log n each."""
    found: list[tuple[int, int]] = []
    for type_store in store.types.values():
        standing = next((one for one in type_store.order.after(index) if isinstance(one, Entry)), None)
        grave = next(type_store.graves.after(index), None)
        found += [(one.index, one.time) for one in (standing, grave) if one is not None]
    return min(found, default=(0, 0))[1]


# What an entry of `Store.faded` takes, with the stripped predecessor.
_FADED = 700
# What a whole tombstone takes beside its record: its entry, key, places in maps and orders.
_ENTRY = 450


def _weight(item: Entry | Removal) -> int:
    if isinstance(item, Removal):
        return sum(_ENTRY + len(entry.record) for entry in item.entries.values())
    if item.deleted:
        return _ENTRY + len(item.record)
    # What was deleted before it was replaced is counted where it was deleted.
    before = item.replaced
    return 0 if before is None or before.deleted else _ENTRY + len(before.record)


def due(store: Store, before: int, most_bytes: int) -> int:
    """The time before which what was deleted is to be buried: `before`, or later where bodies take too much memory.

    `most_bytes`: what whole tombstones may take. O(whole tombstones).
    """
    held = 0
    for newer, (_, _, _, item) in enumerate(reversed(store.fading)):
        held += _weight(item)
        if held > most_bytes:
            # Not the time of this one alone: one from before may be of a server whose clock was ahead.
            older = islice(store.fading, len(store.fading) - newer)
            return max(before, 1 + max(time for time, _, _, _ in older))
    return before


def bury(store: Store, before: int) -> bool:
    """Buries what was deleted before a time (ns since 1970), up to SLICE; whether there is more. Some 10 us each."""
    waiting: dict[int, tuple[TypeStore, list[Grave]]] = {}
    left = SLICE
    fading = store.fading
    while fading and fading[0][0] < before and left > 0:
        time, index, type_key, item = fading[0]
        type_store = store.types[type_key]
        _, graves = waiting.setdefault(id(type_store), (type_store, []))
        if isinstance(item, Removal):
            some = [entry for _, entry in zip(range(left), item.entries.values(), strict=False)]
            for entry in some:
                graves.append(grave_of(entry, 0, removal=True))
                type_store.drop_tombstone(entry.cluster, entry.key)
                del item.entries[entry.cluster, entry.key]
            left -= len(some) + 1
            if item.entries:
                continue
            store.removals.remove(item)
            type_store.order.discard(item.index)
        elif item.deleted:
            left -= 1
            tombstones = type_store.tombstones.get(item.cluster, {})
            size = store.deletion_sizes.pop(index, 0)
            if tombstones.get(item.key) is item:
                graves.append(grave_of(item, size))
                type_store.drop_tombstone(item.cluster, item.key)
                type_store.order.discard(item.index)
                # What it had replaced is not remembered beside its grave.
                store.faded.pop((type_key, item.cluster, item.key), None)
        else:
            left -= 1
            live = type_store.get(item.cluster, item.key)
            if live is not None and live.uid_index == item.uid_index and live.replaced is not None:
                live.remember(live.past, stripped(live.replaced))
                store.add_faded(Faded(time, index, type_key, item.cluster, item.key, item.uid_index))
        fading.popleft()
    for type_store, graves in waiting.values():
        type_store.graves.bury(graves)
    return bool(fading) and fading[0][0] < before


def forgettable(store: Store, number: int, log_bytes: int) -> int:
    """The lowest index through which to forget, so that not more than these are remembered; 0: no more are.

    `number`, `log_bytes`: as in `RememberedDeletions`. Where there are many it may be somewhat higher than the lowest,
    as graves count by blocks then. O(n log n) in blocks, and in what is not buried.
    """
    now = remembered(store)
    too_many, too_large = now.number - number, now.log_bytes - log_bytes
    if too_many <= 0 and too_large <= 0:
        return 0
    through = 0
    for last, count, size in sorted(_sizes(store, each=now.number <= _MOST_SINGLE)):
        if too_many <= 0 and too_large <= 0:
            break
        through = last
        too_many -= count
        too_large -= size
    return through


def _sizes(store: Store, *, each: bool) -> Iterator[BlockSize]:
    for type_store in store.types.values():
        yield from type_store.graves.sizes(each=each)
    for one in store.faded.values():
        yield BlockSize(one.index, 1, 0)
    for _, index, _, item in store.fading:
        if isinstance(item, Removal):
            yield BlockSize(index, len(item.entries), 0)
        elif item.deleted:
            yield BlockSize(index, 1, store.deletion_sizes.get(index, 0))


def forget_through(store: Store, through: int) -> array[int]:
    """Forgets all deletions with an index up to `through`, and raises the floor to that.

    Returns the sequences of the messages that said so, as far as they were remembered, ascending. Amortised O(1) each.
    """
    messages = array("Q")
    store.floor = max(store.floor, through)
    for type_store in store.types.values():
        found = type_store.graves.forget(through=through)
        type_store.forgotten = max(type_store.forgotten, found.through)
        messages.extend(found.messages)
    while store.fading and store.fading[0][1] <= through:
        index = store.forget_first()
        if index:
            messages.append(index)
    while (first := store.first_faded()) is not None and first.index <= through:
        store.forget_first_faded()
    return array("Q", sorted(messages))
