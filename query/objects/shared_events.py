"""Shared events: what several watchers are to get next is read and encoded once.

Watchers with the same filter and form that stand at the same place get the same bytes (as in apiserver storage/cacher:
cachingObject), and those that begin at the same time read one initial state.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Sequence

from materializer.cursor import Position, ShownChange, changes, changes_of
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.type_store import TypeStore, matching
from query.objects.representations import Encoder

# Changes that are read at one go, and the bytes of their bodies: bounds what is held for a slow watcher, and how long
# others wait.
READ_LIMIT = 512
READ_BYTES = 128 * 1024
# Bytes of encoded changes that are kept for others that may be at the same place.
_KEPT_BYTES = 32 * 1024 * 1024


class InitialState:
    """The state that watchers begin with: one for all that begin at the same time, however long each reads it.

    `entries` are known once `steps` have been gone through, by whichever of the watchers. A condition on bodies has not
    been asked then.
    """

    __slots__ = ("__weakref__", "_done", "_matching", "entries")

    def __init__(self, type_store: TypeStore, selection: Filter) -> None:
        cheap = dataclasses.replace(selection, where=None) if selection.where is not None else selection
        self.entries: list[Entry] = []
        self._matching = matching(type_store.scan(cheap), cheap)
        self._done = False

    def steps(self) -> Iterator[None]:
        """Goes on in steps of some milliseconds, also where another watcher does so."""
        while not self._done:
            found = next(self._matching, None)
            if found is None:
                self._done = True
            else:
                self.entries = found
            yield


class WatchKey:
    """Stands for a type, filter and form, which would cost more to compare for each change and watcher."""

    __slots__ = ("__weakref__",)


class SharedEvents:
    """Encoded changes by watch key and position, of the newest state of the store only; and initial states.

    `hits` and `misses` count reads that were shared and those that were not.
    """

    def __init__(self) -> None:
        self._at: tuple[int, int] = (-1, -1)
        self._made: dict[tuple[WatchKey, object, bool], tuple[bytes, int | None]] = {}
        self._keys: weakref.WeakValueDictionary[tuple[object, ...], WatchKey] = weakref.WeakValueDictionary()
        self._initial: weakref.WeakValueDictionary[tuple[object, ...], InitialState] = weakref.WeakValueDictionary()
        self.size = 0
        self.hits = 0
        self.misses = 0

    def key(self, watched: object, encoder: Encoder) -> WatchKey:
        """One and the same key for all watches of the same changes in the same form, as long as one of them has it.

        `watched`: the type and what of it is selected; of a collection, those of all its types.
        """
        of = (watched, encoder.key)
        found = self._keys.get(of)
        if found is None:
            found = self._keys[of] = WatchKey()
        return found

    def read(
        self,
        state: tuple[int, int],
        type_store: TypeStore,
        at: Position,
        selection: Filter,
        encoder: Encoder,
        key: WatchKey,
        definitions: bool,
    ) -> tuple[bytes | list[ShownChange], int | None]:
        """Changes past a position as lines, and the index to go on at if there are more.

        `state`: generation and applied index of the store. `definitions`: whether the first table tells its columns.
        Very many changes of one index, as those of a cluster that was removed, are returned as they are. O(log n +
        changes read).
        """
        if state != self._at:
            self.clear()
            self._at = state
        at_key = (key, at, definitions)
        made = self._made.get(at_key)
        if made is None:
            return self._make(at_key, encoder, *changes(type_store, at, selection, READ_LIMIT, READ_BYTES))
        self.hits += 1
        return made

    def read_several(
        self,
        state: tuple[int, int],
        parts: Sequence[tuple[TypeStore, Position, Filter]],
        encoder: Encoder,
        key: WatchKey,
        definitions: bool,
    ) -> tuple[bytes | list[ShownChange], int | None]:
        """As `read`, of several types, each with the same position. O(types + changes read * log types)."""
        if state != self._at:
            self.clear()
            self._at = state
        at_key = (key, tuple([(type_store.key, at) for type_store, at, _ in parts]), definitions)
        made = self._made.get(at_key)
        if made is None:
            return self._make(at_key, encoder, *changes_of(parts, READ_LIMIT, READ_BYTES))
        self.hits += 1
        return made

    def _make(
        self, at_key: tuple[WatchKey, object, bool], encoder: Encoder, found: list[ShownChange], upto: int | None
    ) -> tuple[bytes | list[ShownChange], int | None]:
        self.misses += 1
        if len(found) > 2 * READ_LIMIT:
            return found, upto
        made = (encoder.events(found, definitions=at_key[2]), upto)
        self.size += len(made[0])
        if self.size > _KEPT_BYTES:
            # Those that can share it ask at the same time: it is made again at most once.
            self.clear()
            self.size = len(made[0])
        self._made[at_key] = made
        return made

    def initial(self, generation: int, type_store: TypeStore, selection: Filter) -> InitialState:
        """The present state of a type. One that is still being read by a watcher is used again if nothing changed."""
        # A deletion that is forgotten leaves the order with the last index of an older state.
        key = (generation, type_store.key, selection, type_store.last(), type_store.forgotten)
        found = self._initial.get(key)
        if found is None:
            found = self._initial[key] = InitialState(type_store, selection)
        return found

    def clear(self) -> None:
        """Forgets encoded changes."""
        self._made.clear()
        self.size = 0
