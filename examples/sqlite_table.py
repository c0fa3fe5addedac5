"""Keeps a table of all objects of all clusters current: python sqlite_table.py nats://127.0.0.1:4222 objects.db

Each change and the place up to which the log was taken in are written in one transaction, so whenever this program is
killed and started again, each change counts exactly once. Ask the file anything meanwhile:

    sqlite3 objects.db "SELECT cluster, resource, count(*) FROM objects GROUP BY 1, 2"
    sqlite3 objects.db "SELECT cluster, namespace, name FROM objects WHERE body ->> '$.status.phase' = 'Pending'"
"""

import asyncio
import sqlite3
import sys

from deltalog import (
    DELETED,
    BadPlace,
    Bookmark,
    Change,
    Event,
    HistoryEnded,
    LogUnavailable,
    Removed,
    subscribe,
)
from kubebraid.command import logs

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    cluster TEXT, api_group TEXT, resource TEXT, namespace TEXT, name TEXT,
    uid TEXT, sequence INTEGER, reading INTEGER, body TEXT,
    PRIMARY KEY (cluster, api_group, resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    one INTEGER PRIMARY KEY CHECK (one = 1), place TEXT, reading INTEGER, whole INTEGER
);
INSERT OR IGNORE INTO progress VALUES (1, '', 0, 0);
"""
# Changes written in one transaction at the most.
BATCH = 500
# Seconds between two looks for a log that is away.
PAUSE = 2.0


class Table:
    """The file. A `reading` is one pass from the beginning; what an older one left is dropped when it is `whole`."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.executescript(SCHEMA)
        self.place, self.reading, self.whole = self.db.execute("SELECT place, reading, whole FROM progress").fetchone()

    def begin_anew(self) -> None:
        """Another history, or deletions were missed: what is here stays until all has been read again."""
        self.place, self.reading, self.whole = "", self.reading + 1, 0
        self.db.execute("UPDATE progress SET place = '', reading = ?, whole = 0", (self.reading,))

    def apply(self, events: list[Event]) -> None:
        """Takes in events, and where the log is then, in one transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        for event in events:
            if isinstance(event, Change):
                self.change(event)
            elif isinstance(event, Removed):
                self.remove(event)
            elif isinstance(event, Bookmark) and event.caught_up and not self.whole:
                self.db.execute("DELETE FROM objects WHERE reading < ?", (self.reading,))
                self.whole = 1
        self.place = str(events[-1].place)
        self.db.execute("UPDATE progress SET place = ?, whole = ?", (self.place, self.whole))
        self.db.execute("COMMIT")

    def change(self, change: Change) -> None:
        delta = change.delta
        key = (delta.cluster, delta.group, delta.resource, delta.namespace, delta.name)
        # A row never goes back: the place alone sees to that already, but one who repairs a table by hand may forget.
        older = "(reading < ? OR sequence < ?)"
        if change.type == DELETED:
            where = "cluster = ? AND api_group = ? AND resource = ? AND namespace = ? AND name = ?"
            self.db.execute(f"DELETE FROM objects WHERE {where} AND {older}", (*key, self.reading, change.sequence))
        else:
            self.db.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET uid = excluded.uid, "
                f"sequence = excluded.sequence, reading = excluded.reading, body = excluded.body WHERE {older}",
                (*key, delta.uid, change.sequence, self.reading, change.body.decode(), self.reading, change.sequence),
            )

    def remove(self, removed: Removed) -> None:
        """A whole cluster, or a type of it."""
        self.db.execute(
            "DELETE FROM objects WHERE cluster = ? AND (? = '' OR (api_group = ? AND resource = ?)) "
            "AND (reading < ? OR sequence < ?)",
            (removed.cluster, removed.resource, removed.group, removed.resource, self.reading, removed.sequence),
        )


async def keep(url: str, table: Table) -> None:
    """Follows the log for ever. Raises HistoryEnded where the table has to be read anew."""
    async with subscribe(url, start=table.place or "beginning", bookmarks=True) as subscription:
        events: list[Event] = []
        async for event in subscription:
            events.append(event)
            if not subscription.waiting or len(events) >= BATCH:
                table.apply(events)
                events.clear()


async def main(url: str, path: str) -> None:
    table = Table(path)
    while True:
        try:
            await keep(url, table)
        except LogUnavailable as reason:
            # Producers make a stream that was lost anew; until then there is nothing to read.
            print(f"waiting: {reason}", file=sys.stderr, flush=True)
            await asyncio.sleep(PAUSE)
        except (HistoryEnded, BadPlace) as reason:
            print(f"reading from the beginning: {reason}", file=sys.stderr, flush=True)
            table.begin_anew()


if __name__ == "__main__":
    logs.configure("warning")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
