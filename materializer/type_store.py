"""Type store: the objects of one resource type, by cluster and name for LIST and GET, by index for WATCH."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, MutableMapping, Sized
from typing import NamedTuple

from sortedcontainers import SortedDict

from deltalog.wire.kubernetes import GroupResource
from materializer import indexes
from materializer.bodies import AtRest
from materializer.entry import Entry, Envelope, ObjectKey, object_key
from materializer.errors import MaterializerError
from materializer.filter import Filter, Spaces
from materializer.graves import Grave, Graves
from materializer.indexes import Indexes
from materializer.metadata_only import entry_of_grave
from materializer.order import Order, Removal
from materializer.record import body_view, plain_size
from materializer.sorting import STEP, sorted_in_steps
from materializer.window import TypeWindow, Window

_ALL_SPACES = Spaces({})
# So many names can be looked at in the time in which one namespace is found in their order.
_SCANNED = 32
# So few namespaces are always looked for.
_FEW = 3
# So many are put into their places in a list that is in order; else it is sorted anew.
_INSERTED = 64


class BeforeWindow(MaterializerError):
    """What was there at an index cannot be told: it stands before the window of events that are kept."""

    def __init__(self, index: int, start: int) -> None:
        super().__init__(f"too old resource version: {index} ({start})")


class Scanned(NamedTuple):
    """Entries that may match a filter. `whole`: they all do; `ordered`: they are by cluster, namespace and name."""

    entries: list[Entry]
    whole: bool
    ordered: bool


def matching(scanned: Scanned, wanted: Filter) -> Iterator[list[Entry]]:
    """Those that match, by cluster, namespace and name, in steps of some milliseconds: what is yielded last.

    O(entries), and O(n log n) of what matches if they are not in order.
    """
    found = scanned.entries
    if not scanned.whole:
        found = []
        for begin in range(0, len(scanned.entries), STEP):
            found += wanted.chosen(scanned.entries[begin : begin + STEP])
            yield found
    if scanned.ordered:
        yield found
    else:
        yield from sorted_in_steps(found, _place)


class TypeStore:
    """All objects of one resource type, by cluster and name and by index. Changed by the store alone.

    - `prefix`: of the history.
    - `clusters`: live entries by cluster and key (`ObjectKey`), sorted by these once the first replay is over.
    - `tombstones`: of objects deleted lately, by the same; no name is in both.
    - `order`: all of them by index.
    - `graves`: of those that were deleted before, and are in neither; no name is in two of these.
    - `floors`: by cluster, the lowest index to resume at after a removal that this process did not wholly see.
    - `forgotten`: index of the newest deletion that was forgotten: a watcher that has not read up to it missed it.
    - `unread_through`: that of the store as of the type's last change.
    - `version_since`: by cluster, the index since which it has the type in its present version; of one that is not
      named this is not known.
    - `indexes`: for selections; see `materializer.indexes`.
    - `events`: every event of the type in the store's `window`.
    - `like`: the envelope of the object that came last, None before that: mostly it is that of the next one.
    - `held`: bytes of the live entries' records; `saved`: how many more they would have if no body was packed.
    """

    def __init__(self, key: GroupResource, loading: bool, window: Window, prefix: str) -> None:
        self.key = key
        self.prefix = prefix
        self.clusters: dict[str, MutableMapping[ObjectKey, Entry]] = {}
        self.tombstones: dict[str, dict[ObjectKey, Entry]] = {}
        self.order = Order()
        self.graves = Graves()
        self.floors: dict[str, int] = {}
        self.forgotten = 0
        self.unread_through = 0
        self.version_since: dict[str, int] = {}
        self.indexes = Indexes()
        self.window = window
        self.events = TypeWindow()
        self.like: Envelope | None = None
        self.held = 0
        self.saved = 0
        self._loading = loading

    def objects(self, cluster: str) -> MutableMapping[ObjectKey, Entry]:
        """The live entries of a cluster by name, to be changed by the store; made if there are none. O(1)."""
        found = self.clusters.get(cluster)
        if found is None:
            # Sorted only once the first replay is over: sorting in bulk costs half of keeping sorted.
            found = self.clusters[cluster] = {} if self._loading else SortedDict()
        return found

    def bodies(self, number: int, *, newest: bool) -> list[AtRest]:
        """So many bodies as they are held, of the newest states or of some of all ages, oldest first. O(those)."""
        items = self.order.items
        some = items[-number:] if newest else items[:: max(len(items) // number, 1)][:number]
        return [(one.dictionary, body_view(one.record)) for one in some if isinstance(one, Entry)]

    def drop_tombstone(self, cluster: str, key: ObjectKey) -> None:
        """Takes a tombstone out, and the cluster's dict with its last one: clusters come and go. O(1)."""
        tombstones = self.tombstones[cluster]
        del tombstones[key]
        if not tombstones:
            del self.tombstones[cluster]

    def leave(self, entry: Entry) -> None:
        """Takes a live entry off `held` and `saved`. O(1)."""
        self.held -= len(entry.record)
        if entry.dictionary is not None:
            self.saved -= plain_size(entry.record) - len(entry.record)

    def sort(self) -> None:
        """Sorts every cluster's names, once the first replay is over. O(n log n)."""
        self._loading = False
        for cluster, objects in self.clusters.items():
            if not isinstance(objects, SortedDict):
                self.clusters[cluster] = SortedDict(objects)

    def get(self, cluster: str, key: ObjectKey) -> Entry | None:
        """The live entry of a name; None if there is none. O(1)."""
        objects = self.clusters.get(cluster)
        return None if objects is None else objects.get(key)

    def select(self, wanted: Filter) -> list[Entry]:
        """Live entries that match, by cluster, namespace and name: the result of a LIST. As `scan` and `matching`."""
        *_, result = matching(self.scan(wanted), wanted)
        return result

    def prepare(self, wanted: Filter) -> Iterator[None]:
        """Makes the index that a selection lacks, if it would be worth while, in steps of some milliseconds.

        `scan` makes it at one go, if it was not prepared. O(entries) the first time, else O(clusters * namespaces).
        """
        clusters = sorted(self.clusters if wanted.clusters is None else wanted.clusters & self.clusters.keys())
        if wanted.names is not None and wanted.namespaces is not None:
            return
        covered = self._covered(clusters, wanted.spaces or _ALL_SPACES, wanted.namespaces)
        if indexes.may_answer(wanted) and covered > indexes.WORTHWHILE:
            yield from self.indexes.prepare(wanted, self.live)

    def scan(self, wanted: Filter) -> Scanned:
        """Live entries that may match: what `matching` makes the result of. They do not change, whatever comes later.

        O(log n) for each combination of cluster, namespace and name where all are given; O(candidates) where there are
        many entries and an index can tell; else O(entries in these clusters and namespaces).
        """
        clusters = sorted(self.clusters if wanted.clusters is None else wanted.clusters & self.clusters.keys())
        spaces = wanted.spaces or _ALL_SPACES
        if wanted.names is not None and wanted.namespaces is not None:
            keys = [object_key(space, name) for space in sorted(wanted.namespaces) for name in sorted(wanted.names)]
            named = [one for cluster in clusters for key in keys if (one := self.get(cluster, key)) is not None]
            return Scanned(named, whole=False, ordered=True)
        if (
            indexes.may_answer(wanted)
            and (covered := self._covered(clusters, spaces, wanted.namespaces)) > indexes.WORTHWHILE
        ):
            found = self.indexes.candidates(wanted, self.live, covered // 2)
            if found is not None:
                return Scanned(found, whole=False, ordered=False)
        # Namespaces are taken from the order of names, so that what they leave out costs nothing.
        whole = wanted == Filter(clusters=wanted.clusters, spaces=wanted.spaces, namespaces=wanted.namespaces)
        result: list[Entry] = []
        for cluster in clusters:
            objects = self.clusters[cluster]
            entries: list[Entry]
            within = spaces.of(cluster, wanted.namespaces)
            # By names: a SortedDict's values() takes twice as long, and what is left out need not be fetched at all.
            if within is None:
                entries = list(map(objects.__getitem__, objects))
            elif isinstance(objects, SortedDict) and not _many(within, objects):
                entries = []
                for namespace in sorted(within):
                    low, high = _span(namespace)
                    entries += [objects[key] for key in objects.irange(low, high)]
            else:
                entries = [entry for entry in objects.values() if entry.namespace in within]
            result.extend(entries)
        for part in wanted.parts[:1]:
            # A key has the name in it.
            result = [entry for entry in result if part in entry.key]
        return Scanned(result, whole=whole, ordered=True)

    def as_of(self, index: int, wanted: Filter) -> list[Entry]:
        """The result of a LIST as it was when `index` had just been applied. O(as `scan_as_of` and `matching`)."""
        *_, result = matching(self.scan_as_of(index, wanted), wanted)
        return result

    def scan_as_of(self, index: int, wanted: Filter) -> Scanned:
        """As `scan`, as it was when `index` had just been applied.

        O(entries in scope + events past `index`). Example: with a created at 4 and changed at 7, as of 5 it has a as it
        was from 4 on.

        Raises:
            BeforeWindow: a state of then is not here any more.
        """
        if index < self.window.start:
            raise BeforeWindow(index, self.window.start)
        # What is there now is what was there then, but for what events past it have changed.
        then: dict[tuple[str, ObjectKey], Entry | None] = {}
        for event in self.events.after(index):
            item = event.item
            if isinstance(item, Removal):
                for entry in event.removed:
                    then.setdefault((entry.cluster, entry.key), entry)
                continue
            place = (item.cluster, item.key)
            if place in then:
                continue
            before = event.before
            if before is not None and not before.deleted:
                then[place] = before
                continue
            # What was replaced and never read here is marked as deleted: the log says who it was, not in which state.
            began = item.uid_index if before is None else before.uid_index
            if not event.fresh and began <= index and wanted.covers(item):
                raise BeforeWindow(index, event.index)
            then[place] = None
        present = self.scan(wanted)
        found = [entry for entry in present.entries if entry.index <= index]
        earlier = [entry for entry in then.values() if entry is not None]
        if len(earlier) > _INSERTED or not present.ordered:
            return Scanned(found + earlier, whole=False, ordered=False)
        for entry in earlier:
            # What is there now need not be looked at once more for the few that have changed.
            if not present.whole or wanted.matches(entry):
                insort(found, entry, key=_place)
        return Scanned(found, whole=present.whole, ordered=True)

    def tombstone(self, cluster: str, key: ObjectKey) -> Entry | None:
        """What is remembered of the deleted object of a name, if any is; of one that is buried metadata. O(log n)."""
        found = self.tombstones.get(cluster, {}).get(key)
        if found is None and self.graves and (grave := self.graves.get(cluster, *_parts(key))) is not None:
            return self._dug_up(grave)
        return found

    def dead(self, cluster: str | None = None) -> Iterator[Entry]:
        """The tombstones of a cluster, or of all, in no particular order; of those buried metadata. O(n)."""
        for grave in self.graves.entries(cluster):
            yield self._dug_up(grave)
        of_clusters = self.tombstones.values() if cluster is None else (self.tombstones.get(cluster, {}),)
        for tombstones in of_clusters:
            yield from tombstones.values()

    def remains(self, cluster: str) -> Iterator[Entry | Grave]:
        """As `dead`, but what is buried as it is: to be looked at, and dug up (`as_entry`) where it matters. O(n)."""
        yield from self.graves.entries(cluster)
        yield from self.tombstones.get(cluster, {}).values()

    def as_entry(self, of: Entry | Grave) -> Entry:
        """One of `remains` as a tombstone. O(1), some 10 us of what is buried."""
        return of if isinstance(of, Entry) else self._dug_up(of)

    def remembered(self) -> int:
        """Of how many deleted objects there are tombstones, buried or not. O(clusters)."""
        return len(self.graves) + sum(map(len, self.tombstones.values()))

    def _dug_up(self, grave: Grave) -> Entry:
        return entry_of_grave(grave, self.key, self.prefix)

    def after(self, index: int, wanted: Filter | None = None) -> Iterator[Entry | Removal]:
        """What has a higher index, ascending, as a watch reads it. O(log n) to the first.

        Of what is buried, only what a filter may want, if one is given: it says so by clusters, namespaces and names.
        """
        standing = self.order.after(index)
        if not self.graves or self.graves.last <= index:
            yield from standing
            return
        item = next(standing, None)
        removal: Removal | None = None
        for grave in self.graves.after(index, wanted):
            if removal is not None and removal.index != grave.index:
                yield removal
                removal = None
            while item is not None and item.index < grave.index:
                yield item
                item = next(standing, None)
            entry = self._dug_up(grave)
            if not grave.removal:
                yield entry
                continue
            if removal is None:
                removal = Removal(grave.index, {})
            removal.entries[entry.cluster, entry.key] = entry
        if removal is not None and item is not None and item.index == removal.index:
            # It is being buried.
            assert isinstance(item, Removal)
            removal.entries |= item.entries
            item = next(standing, None)
        if removal is not None:
            yield removal
        if item is not None:
            yield item
        yield from standing

    def last(self) -> int:
        """An index that no change of the type has a higher one than; 0 if there are none. O(1). See `Order.last`."""
        return max(self.order.last(), self.events.last(), self.graves.last)

    def _covered(self, clusters: list[str], spaces: Spaces, namespaces: frozenset[str] | None) -> int:
        """About how many live entries these clusters and namespaces have. O(clusters * namespaces * log n)."""
        found = 0
        for cluster in clusters:
            objects = self.clusters[cluster]
            within = spaces.of(cluster, namespaces)
            if within is None or not isinstance(objects, SortedDict) or _many(within, objects):
                found += len(objects)
            else:
                for one in within:
                    low, high = _span(one)
                    found += objects.bisect_left(high) - objects.bisect_left(low)
        return found

    def live(self) -> Iterator[Entry]:
        """All live entries, in no particular order. O(n)."""
        for objects in self.clusters.values():
            yield from objects.values()

    def __len__(self) -> int:
        return sum(len(objects) for objects in self.clusters.values())


def _many(within: frozenset[str], objects: Sized) -> bool:
    """Whether it costs less to look at all objects than to find those of each of these namespaces."""
    return len(within) > _FEW and len(objects) <= _SCANNED * len(within)


def _span(namespace: str) -> tuple[str, str]:
    """Between which texts the keys of a namespace are."""
    return f"{namespace}\0", f"{namespace}\1"


def _parts(key: ObjectKey) -> tuple[str, str]:
    """Namespace and name of a key."""
    namespace, _, name = key.partition("\0")
    return namespace, name


def _place(entry: Entry) -> tuple[str, str]:
    return (entry.cluster, entry.key)
