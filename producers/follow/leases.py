"""Leases: which of several producers has which cluster, in a JetStream key-value bucket with TTLs.

Leases are for liveness only: a lost one makes its holder stop and another one begin. That nothing stale reaches the
log is the owner record's business (`ownership.py`), so that a holder which was asleep when its lease ran out does
no harm.

A key `member.<producer>` stands for a running producer, a key `cluster.<cluster>` names the cluster's holder. Both
expire when they are not renewed. All is decided by compare-and-set on the key's last sequence.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec
import structlog

from deltalog import (
    Connection,
    HistoryEnded,
    LogUnavailable,
    Reader,
    Record,
)
from deltalog.jetstream.backoff import Once
from deltalog.jetstream.bucket import Bucket
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND
from deltalog.wire.subjects import decode_token, encode_token

log = structlog.get_logger("producers.follow.leases")

# Leases that are written at once.
_AT_ONCE = 64


class _Holder(msgspec.Struct):
    holder: str


class Held(msgspec.Struct, frozen=True):
    """A key's last message: its sequence, and whom it names; empty once it expired or was given back."""

    sequence: int
    holder: str


async def holders(connection: Connection, bucket: str) -> dict[str, str]:
    """The holder of each cluster that has one, without taking part. Raises BrokerUnavailable, JetStreamRefused."""
    found: dict[str, str] = {}
    try:
        opened = await Bucket.existing(connection, bucket)
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise
        return found

    def note(record: Record) -> None:
        key = opened.key(record.subject)
        if not key.startswith("cluster."):
            return
        name = decode_token(key.removeprefix("cluster."))
        holder = _holder(record)
        if holder:
            found[name] = holder
        else:
            found.pop(name, None)

    await Reader(opened.stream, note, stop_when_caught_up=True).run()
    return found


def _holder(record: Record) -> str:
    """The holder that a lease's record names; empty for one that was given back or cannot be read."""
    headers = record.headers or {}
    if "Nats-Marker-Reason" in headers or "KV-Operation" in headers or not record.data:
        return ""
    return _named(record.data)


def _named(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=_Holder).holder if data else ""
    except msgspec.MsgspecError:
        log.error("a lease nobody can read", payload=data[:64])
        return ""


async def _each(clusters: Iterable[str], act: Callable[[str], Awaitable[None]]) -> None:
    """Acts on all of them, many at once: one after the other, leases of hundreds would run out before their turn.

    Raises the first exception, when all have ended.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(cluster: str) -> None:
        async with places:
            await act(cluster)

    outcomes = await asyncio.gather(*map(one, clusters), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


class Leases:
    """The leases of one producer. Owned by the producer; one task runs `run`.

    `ttl`, in seconds, is how long a silent producer keeps its clusters. `take` is called for a cluster whose lease
    was taken, `drop` for one to be given up: it returns when nothing more is produced for it, and only then is the
    lease given back.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: str,
        identity: str,
        clusters: list[str],
        *,
        take: Callable[[str], None],
        drop: Callable[[str], Awaitable[None]],
        ttl: float,
        replicas: int = 1,
    ) -> None:
        self.identity = identity
        self.mine: dict[str, float] = {}
        self._connection = connection
        self._name = bucket
        self._clusters = list(clusters)
        self._take = take
        self._drop = drop
        self._ttl = ttl
        # NATS servers that hold the bucket, as many as hold the log; may be set before `run`.
        self.replicas = replicas
        self._keys: dict[str, Held] = {}
        self._releasing: set[str] = set()
        self._changed = asyncio.Event()
        self._free_since: float | None = None
        # Set once every cluster had a holder.
        self.settled = asyncio.Event()

    def follow(self, clusters: Iterable[str]) -> None:
        """Replaces the clusters to share. What is held of others stays held until it is released."""
        self._clusters = list(clusters)
        self._changed.set()

    def release(self, cluster: str) -> None:
        """Gives the lease of a cluster back that is no longer followed."""
        self._releasing.add(cluster)
        self._changed.set()

    # -- what the bucket has ---------------------------------------------------------------------------------------

    def _apply(self, record: Record) -> None:
        key = record.subject.removeprefix(f"$KV.{self._name}.")
        known, held = self._keys.get(key), Held(record.sequence, _holder(record))
        if known is not None and known.sequence > held.sequence:
            # Read after we have written a newer one.
            return
        self._keys[key] = held
        if known is None or known.holder != held.holder:
            # A renewal changes nothing: least of all our own, at which we would renew again.
            self._changed.set()

    def members(self) -> set[str]:
        """The producers that are there, ourselves among them."""
        found = {held.holder for key, held in self._keys.items() if key.startswith("member.") and held.holder}
        return found | {self.identity}

    def holders(self) -> dict[str, str]:
        """Who has which cluster; empty for one that is free."""
        found = dict.fromkeys(self._clusters, "")
        for key, held in self._keys.items():
            if key.startswith("cluster."):
                found[decode_token(key.removeprefix("cluster."))] = held.holder
        return found

    def orphans(self) -> list[str]:
        """Clusters without a holder for so long that something must be wrong."""
        if self._free_since is None or time.monotonic() - self._free_since < 4 * self._ttl:
            return []
        return sorted(name for name, holder in self.holders().items() if not holder)

    # -- deciding --------------------------------------------------------------------------------------------------

    def wanted(self) -> tuple[list[str], list[str]]:
        """Clusters to try to take, and clusters to give back, so that each member has its even share."""
        holders, members = self.holders(), self.members()
        counts = dict.fromkeys(members, 0)
        for holder in holders.values():
            if holder in counts:
                counts[holder] += 1
        low, high = divmod(len(holders), len(members))
        high = low + (1 if high else 0)
        mine = [cluster for cluster, holder in holders.items() if holder == self.identity]
        # What a process of the same name left behind when it was killed is held already.
        left = [cluster for cluster in mine if cluster in self._clusters and cluster not in self.mine]
        free = [cluster for cluster in self._clusters if not holders[cluster]]
        if not free:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = time.monotonic()
        if free or left:
            random.shuffle(free)
            return left + free[: max(high - len(mine), 0)], []
        self.settled.set()
        someone_short = any(count < low for count in counts.values())
        most = max(counts.values())
        # One at a time, and only the fullest: shares get even without everybody moving at once.
        fullest = min(member for member, count in counts.items() if count == most)
        if fullest == self.identity and (len(mine) > high or (someone_short and len(mine) > low)):
            return [], [min(mine)]
        return [], []

    # -- acting ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Takes, renews and gives back until cancelled; then gives everything back."""
        complain = Once(lambda reason: log.warning("leases cannot be kept", reason=reason))
        while True:
            try:
                bucket = await Bucket.open(
                    self._connection,
                    self._name,
                    "who produces which cluster",
                    marker_ttl=max(int(self._ttl), 1),
                    replicas=self.replicas,
                )
                bucket.reports = True
                self._keys.clear()
                reader = Reader(bucket.stream, self._apply)
                reading = asyncio.create_task(reader.run(), name="leases: reading")
                try:
                    await self._hold(bucket, reader, reading)
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                await asyncio.sleep(random.uniform(0.1, 0.5))
            except (LogUnavailable, HistoryEnded) as cause:
                complain(cause)
                await self._drop_expired()
                await asyncio.sleep(random.uniform(0.5, 1.5))

    async def _hold(self, bucket: Bucket, reader: Reader, reading: asyncio.Task[None]) -> None:
        """Takes part until what was read may have a gap: leases and their expiry markers may have been missed."""
        loop = asyncio.get_running_loop()
        await asyncio.wait(
            (reading, caught := asyncio.ensure_future(reader.caught_up.wait())), return_when="FIRST_COMPLETED"
        )
        caught.cancel()
        try:
            while not reading.done():
                if reader.restarts:
                    return
                self._changed.clear()
                await self._renew(bucket)
                await self._balance(bucket)
                # One that is not answered takes half of the lease's time (`_write`): the next one has to fit in, too.
                until = loop.time() + self._ttl / 4 * random.uniform(0.8, 1.2)
                try:
                    async with asyncio.timeout_at(until):
                        await self._changed.wait()
                        # Changes come in bursts: one decision for all of them.
                        await asyncio.sleep(0.05)
                except TimeoutError:
                    pass
            reading.result()
        except asyncio.CancelledError:
            await self._give_all_back(bucket)
            raise

    async def _write(self, bucket: Bucket, key: str, holder: str) -> bool:
        """Compare-and-set of one key; False if another producer was faster."""
        payload = msgspec.json.encode(_Holder(holder)) if holder else b""
        expected, ttl = self._sequence(key), max(int(self._ttl), 1)
        sequence = await bucket.put(key, payload, expected, ttl=ttl, within=self._ttl / 2)
        if sequence is None:
            await self._look(bucket, key)
            return False
        self._keys[key] = Held(sequence, holder)
        return True

    async def _look(self, bucket: Bucket, key: str) -> None:
        """Asks the leader what a key is now, as it is not what the reader has read so far."""
        sequence, value = await bucket.get(key)
        if not sequence:
            # It ran out, and the mark of that, too.
            self._keys.pop(key, None)
            self._changed.set()
        elif sequence > self._sequence(key):
            self._keys[key] = Held(sequence, _named(value))
            self._changed.set()

    def _sequence(self, key: str) -> int:
        known = self._keys.get(key)
        return known.sequence if known is not None else 0

    async def _renew(self, bucket: Bucket) -> None:
        """Renews the leases held; what cannot be renewed is dropped."""
        await self._drop_expired()
        await self._write(bucket, f"member.{encode_token(self.identity)}", self.identity)
        await _each(list(self.mine), partial(self._renew_one, bucket))

    async def _renew_one(self, bucket: Bucket, cluster: str) -> None:
        key = f"cluster.{encode_token(cluster)}"
        held = self._keys.get(key)
        if held is not None and held.holder not in ("", self.identity):
            await self._lose(cluster, held.holder)
            return
        started = asyncio.get_running_loop().time()
        if await self._write(bucket, key, self.identity):
            self.mine[cluster] = started + self._ttl
        elif (now := self._keys.get(key)) is not None and now.holder not in ("", self.identity):
            await self._lose(cluster, now.holder)

    async def _drop_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        for cluster in [cluster for cluster, until in self.mine.items() if until < now]:
            await self._lose(cluster, "")

    async def _lose(self, cluster: str, holder: str) -> None:
        log.warning("cluster lost", cluster=cluster, holder=holder or None)
        self.mine.pop(cluster, None)
        await self._drop(cluster)

    async def _balance(self, bucket: Bucket) -> None:
        taking, giving = self.wanted()
        await _each([cluster for cluster in taking if cluster not in self.mine], partial(self._take_one, bucket))
        for cluster in [cluster for cluster in self._releasing if cluster in self.mine]:
            del self.mine[cluster]
            await self._drop(cluster)
            await self._write(bucket, f"cluster.{encode_token(cluster)}", "")
        self._releasing.clear()
        for cluster in giving:
            if cluster in self.mine:
                log.info("cluster given to another producer", cluster=cluster)
                del self.mine[cluster]
                await self._drop(cluster)
                await self._write(bucket, f"cluster.{encode_token(cluster)}", "")

    async def _take_one(self, bucket: Bucket, cluster: str) -> None:
        started = asyncio.get_running_loop().time()
        if await self._write(bucket, f"cluster.{encode_token(cluster)}", self.identity):
            self.mine[cluster] = started + self._ttl
            self._take(cluster)

    async def _give_all_back(self, bucket: Bucket) -> None:
        """At the end, so that other producers need not wait for these leases to run out."""
        try:
            async with asyncio.timeout(5):
                for cluster in list(self.mine):
                    del self.mine[cluster]
                    await self._drop(cluster)
                    await self._write(bucket, f"cluster.{encode_token(cluster)}", "")
                await self._write(bucket, f"member.{encode_token(self.identity)}", "")
        except (LogUnavailable, TimeoutError):
            log.info("leases could not be given back: they run out by themselves", seconds=self._ttl)
