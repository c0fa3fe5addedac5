"""Served: the store of this moment, and what is replaced together with it when the history changes."""

from __future__ import annotations

import asyncio

from deltalog.jetstream.stream import Log
from deltalog.wire.parts import Assembler
from materializer.bodies import Packing
from materializer.integrity import Integrity
from materializer.snapshot import Restored
from materializer.store import Store
from materializer.window import CLOSED, WINDOW_BYTES


class Served:
    """What is served now.

    - `log`: where it comes from; `identity`: of which history the store is. `window`: bytes for its newest events
      at most; `fits_window`: only as many as is in proportion to its live objects.
    - `store`, `integrity`, `assembler`: fed with the same messages, in order.
    - `latest`: of a store from a snapshot, the latest time of any message it has, in nanoseconds since 1970.
    - `lacks_to`: of a store that was read while the log lacked some messages: up to which sequence; 0: it lacked none.
    - `generation`: counts the stores; whoever keeps something of one store compares it.
    - `unconfirmed`: of a store from a snapshot, that snapshot, until the log was found to hold what it says.
    - `snapshot_only`: NATS has been away since the start, so what is served is not known to be the log's.
    - `ready`: set once the log was replayed to the head that it had at the start.
    """

    def __init__(self, log: Log, window: int | None = 0) -> None:
        self.log = log
        self.fits_window = window is None
        self.window = WINDOW_BYTES if window is None else window
        self.generation = -1
        self.ready = asyncio.Event()
        self.begin_anew()

    def begin_anew(self) -> None:
        """An empty store of what the log is now."""
        self.ready.clear()
        self.store = Store(
            self.log.prefix, self.log.tombstone_ttl, self.window, Packing(), fits_window=self.fits_window
        )
        # It is opened where the log is read event by event.
        self.store.window.close()
        self.integrity = Integrity(self.store)
        self.assembler = Assembler()
        self.identity = self.log.identity
        self.lacks_to = 0
        self.latest = 0
        self.unconfirmed: Restored | None = None
        self.snapshot_only = False
        self.generation += 1

    def go_on_from(self, restored: Restored) -> None:
        """The store of a snapshot, unconfirmed."""
        self.store = restored.store
        self.store.fits_window = self.fits_window
        self.store.window.resize(self.window)
        self.store.fit()
        if self.window and self.store.window.start == CLOSED:
            self.store.window.open(self.store.applied)
        self.integrity = Integrity(self.store, restored.counts)
        self.assembler = restored.parts
        self.latest = restored.latest
        self.unconfirmed = restored
        self.generation += 1
