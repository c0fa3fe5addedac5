"""A key-value bucket (ADR-8) with compare-and-set: leases, marks, rotations and durable consumers are keys of buckets.

nats-py's own key-value client cannot renew a key with a TTL, so the raw protocol is spoken here, once for all.
"""

from __future__ import annotations

from typing import Self, TypeVar

import msgspec

from deltalog.jetstream.acknowledgement import Expect, decode_ack
from deltalog.jetstream.connection import TRANSPORT_ERRORS, BrokerUnavailable, Connection, JetStreamRefused
from deltalog.jetstream.making import KEEPS_LAST, change_stream, create_stream, find_stream
from deltalog.jetstream.stream import STREAM_NOT_FOUND, LogError, Stream

T = TypeVar("T")

# Seconds that a write waits for its acknowledgement.
_WITHIN = 5.0


class Bucket:
    """An opened bucket. `stream` is the stream that holds it, for readers of its keys.

    `reports`: what it refuses counts in the connection's append health, because the process cannot go on without it.
    Keys are NATS subjects below the bucket's: a name that becomes part of one has to be encoded (`encode_token`).
    """

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = name
        self.stream = stream
        self.reports = False

    @classmethod
    async def open(
        cls, connection: Connection, name: str, description: str, *, marker_ttl: int = 0, replicas: int = 1
    ) -> Self:
        """Opens a bucket, making it first where there is none.

        `replicas`: as for a log; one that has fewer gets them. `marker_ttl`: seconds that the server keeps a marker
        for a key whose TTL has passed (ADR-43), so that readers see it go; 0: none.
        Raises LogError, BrokerUnavailable.
        """
        stream = _stream_name(name)
        try:
            info = await find_stream(connection, stream)
            existing = Stream(connection, info)
            if info.config.num_replicas < replicas:
                await change_stream(existing, {"num_replicas": replicas})
            return cls(name, existing)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise LogError(f"stream {stream}: {refused.description}") from refused
        config: dict[str, object] = {
            "name": stream,
            "description": f"kubebraid: {description}",
            "subjects": [f"$KV.{name}.>"],
            **KEEPS_LAST,
            "num_replicas": replicas,
            "duplicate_window": 100_000_000,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        if marker_ttl:
            config["subject_delete_marker_ttl"] = marker_ttl * 1_000_000_000
        return cls(name, Stream(connection, await create_stream(connection, config)))

    @classmethod
    async def existing(cls, connection: Connection, name: str) -> Self:
        """Opens a bucket that has to be there. Raises JetStreamRefused if it is not, BrokerUnavailable."""
        return cls(name, Stream(connection, await find_stream(connection, _stream_name(name))))

    def key(self, subject: str) -> str:
        """The key of a message of the bucket's stream."""
        return subject.removeprefix(f"$KV.{self.name}.")

    async def get(self, key: str) -> tuple[int, bytes]:
        """Sequence and value of a key, from the leader; 0 and nothing where there is none.

        A key that was deleted has a sequence and no value. Raises JetStreamRefused, BrokerUnavailable.
        """
        return await self.stream.last(f"$KV.{self.name}.{key}") or (0, b"")

    async def put(
        self, key: str, value: bytes, expected: int, *, ttl: int | None = None, within: float = _WITHIN
    ) -> int | None:
        """Sets a key whose last sequence is `expected` (0: there is none); its new sequence, None if it is not.

        No `value` deletes the key. `ttl`: seconds until the server forgets it. `within`: seconds to wait for the
        acknowledgement. None also where the server was busy with another write of the same key: look, and try again.
        Example: `put("cluster.alpha", b"...", 17)` is stored only while message 17 is the last one of that key.
        Raises JetStreamRefused, BrokerUnavailable (then it is not known whether it was stored).
        """
        connection = self.stream.connection
        headers = Expect(expected).headers()
        if ttl is not None:
            headers["Nats-TTL"] = f"{ttl}s"
        if not value:
            headers["KV-Operation"] = "DEL"
        subject = connection.bucket_subject(self.name, key)
        try:
            answer = await connection.client.request(subject, value, timeout=within, headers=headers)
        except (*TRANSPORT_ERRORS, TimeoutError) as cause:
            if connection.connected:
                # So it is with a full disk, until the server is started again.
                self._report(f"no acknowledgement within {within:g} s")
            raise BrokerUnavailable(f"NATS at {connection.url} does not answer") from cause
        ack = decode_ack(answer.data)
        if ack.conflict:
            return None
        if ack.error is not None:
            refused = JetStreamRefused(ack.error.err_code, ack.error.description)
            self._report(str(refused))
            raise refused
        if self.reports and connection.append_health.refusals:
            connection.append_health.accepted(self.stream.name)
        return ack.seq

    def _report(self, reason: str) -> None:
        if self.reports:
            self.stream.connection.append_health.refused(self.stream.name, reason)

    async def purge(self, key: str) -> None:
        """Removes all messages of a key. Raises JetStreamRefused, BrokerUnavailable."""
        await self.stream.purge(f"$KV.{self.name}.{key}", 2**63 - 1)


def _stream_name(bucket: str) -> str:
    return f"KV_{bucket}"


def decoded(value: bytes, type: type[T]) -> T | None:
    """A key's value as JSON; None where there is none, or none of that type."""
    try:
        return msgspec.json.decode(value, type=type) if value else None
    except msgspec.MsgspecError:
        return None
