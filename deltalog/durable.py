"""Durable consumers: how far each one has come, by name, in a key-value bucket beside the log.

Not JetStream's own durable consumers. Those hand out what came later before what was not acknowledged (explicit
acknowledgements), acknowledge it unseen (cumulative ones), or wait for each message's acknowledgement and, after a
crash, until its time is over (one at a time); and they end with their stream without a word. Here a consumer is the
place up to which all is acknowledged, and reading goes on behind it: in order, at once, and only in the same history.
"""

from __future__ import annotations

import asyncio
import secrets

import msgspec

from deltalog.jetstream.bucket import Bucket
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log
from deltalog.place import Place
from deltalog.wire.errors import BadInput, DeltalogError
from deltalog.wire.subjects import encode_token

BUCKET = "kubebraid-consumers"


class BadDurable(BadInput):
    """A durable consumer cannot be this one; one line with the remedy."""


class TakenOver(DeltalogError):
    """Another process goes on with this durable consumer: nothing more can be acknowledged here."""


class _Kept(msgspec.Struct, frozen=True):
    """What is kept of a consumer. `holder`: who goes on with it now, so that only one does."""

    prefix: str
    sequence: int
    time: int
    selection: str
    holder: str


class Durable:
    """One named consumer of one log, held by this process from `open` until another one opens it."""

    def __init__(self, log: Log, name: str, selection: str) -> None:
        if not name:
            raise BadDurable("a durable consumer needs a name")
        self.name = name
        self.place: Place | None = None
        self._log = log
        self._selection = selection
        self._holder = secrets.token_hex(8)
        self._key = f"{encode_token(log.name)}.{encode_token(name)}"
        self._bucket: Bucket | None = None
        self._revision = 0
        self._lock = asyncio.Lock()

    async def open(self, *, reset: bool = False) -> Place | None:
        """Takes the consumer over from the process that has it; its place, or None if there is none of that name.

        `reset`: begins anew. Raises BadDurable if it was made for another selection, BrokerUnavailable, LogError.
        """
        self._bucket = await self._open_bucket()
        while True:
            kept = await self._read()
            if kept is None or reset:
                return None
            if kept.selection != self._selection:
                raise BadDurable(
                    f"durable consumer {self.name!r} selects {kept.selection}, not {self._selection}: "
                    "take another name, or reset it"
                )
            place = Place(kept.prefix, kept.sequence, kept.time)
            if await self._put(place):
                self.place = place
                return place

    async def begin(self, place: Place) -> None:
        """Makes the consumer, or begins it anew, at a place. Raises BrokerUnavailable."""
        while not await self._put(place):
            await self._read()
        self.place = place

    async def acknowledge(self, place: Place) -> None:
        """Keeps that everything up to `place` is done with. Never goes back. Raises TakenOver, BrokerUnavailable."""
        async with self._lock:
            assert self.place is not None, "open it first"
            if place.sequence <= self.place.sequence:
                return
            while not await self._put(place):
                # Ours after all, if it was stored and the answer was lost.
                await self.still_ours()
            self.place = place

    async def still_ours(self) -> None:
        """Raises TakenOver if another process goes on with the consumer, or it was deleted; BrokerUnavailable."""
        kept = await self._read()
        if kept is None:
            raise TakenOver(f"durable consumer {self.name!r} was deleted")
        if kept.holder != self._holder:
            raise TakenOver(f"another process goes on with durable consumer {self.name!r}")

    async def forget(self) -> bool:
        """Deletes the consumer; whether there was one. Raises BrokerUnavailable."""
        self._bucket = await self._open_bucket()
        there = await self._read() is not None
        await self._bucket.purge(self._key)
        return there

    async def _open_bucket(self) -> Bucket:
        what = "how far consumers have come"
        return await Bucket.open(self._log.connection, BUCKET, what, replicas=self._log.replicas)

    async def _read(self) -> _Kept | None:
        assert self._bucket is not None
        try:
            self._revision, value = await self._bucket.get(self._key)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise
            raise TakenOver(f"durable consumer {self.name!r} was deleted with all of bucket {BUCKET}") from None
        try:
            return msgspec.json.decode(value, type=_Kept) if value else None
        except msgspec.MsgspecError as cause:
            raise BadDurable(f"what is kept of durable consumer {self.name!r} is unreadable: {cause}") from None

    async def _put(self, place: Place) -> bool:
        assert self._bucket is not None
        kept = _Kept(place.prefix, place.sequence, place.time, self._selection, self._holder)
        revision = await self._bucket.put(self._key, msgspec.json.encode(kept), self._revision)
        if revision is None:
            return False
        self._revision = revision
        return True
