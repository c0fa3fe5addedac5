"""A watch of several types: one stream in the order of the log, with one index to resume at."""

from __future__ import annotations

from collections.abc import Callable

from materializer.cursor import ShownChange
from materializer.resume import Expired
from query.objects.turns import in_slices
from query.objects.watch import WatchStream


class CollectionStream(WatchStream):
    """One watcher of the types of its start's `parts`.

    Every event bears an index up to which all types were shown, so that a client goes on at any of them.
    """

    def _listen(self) -> Callable[[], None]:
        stops = [self._materializer.listen(part.key, self.wake) for part in self._start.parts or ()]
        # Of types that come it is told through any one that is listened to.
        stops.append(super()._listen())

        def stop() -> None:
            for one in stops:
                one()

        return stop

    async def _send_initial(self) -> None:
        """Sends the present state of all types, which is that of one index, and the bookmark that marks its end."""
        store = self._materializer.store
        index = store.applied
        states = [
            (self._shared.initial(self._generation, type_store, part.selection), part.selection.where)
            for part in self._start.parts or ()
            if (type_store := store.types.get(part.key)) is not None
        ]
        for at, (state, where) in enumerate(states):
            if at:
                await self._yield()
            await in_slices(self._turns, state.steps())
            await self._send_added(state, where)
        if self._start.bookmarks:
            await self._send_bookmark(self._start.encoder.versions.of_list(index), initial_events_end=True)

    def _read(self) -> tuple[bytes | list[ShownChange], int | None] | None:
        cursor, store = self._cursor, self._materializer.store
        if self._materializer.generation != self._generation or store.applied <= cursor.read_to:
            return None
        unread = []
        for part in self._start.parts or ():
            type_store = store.types.get(part.key)
            if type_store is None:
                continue
            if cursor.read_to < type_store.forgotten:
                raise Expired(f"too old resource version: {cursor.read_to} ({type_store.forgotten})")
            if type_store.last() > cursor.read_to:
                unread.append((type_store, cursor.position(type_store), part.selection))
        if not unread:
            cursor.advance(store, None)
            return None
        return self._shared.read_several(
            (self._generation, store.applied), unread, self._start.encoder, self._key, self._definitions
        )
