"""Compression: whether the servers keep the events of a log compressed on their disks.

NATS compresses a block of messages (8 MB) when the next one is begun, and reads it as before: messages, sequences and
what consumers get are the same. The state is left as it is: each change takes one message out of some older block of
it, which would have to be unpacked for that. JetStream: ADR-35 (file store compression); docs/decisions/0023.
"""

from __future__ import annotations

from typing import Final, Literal

import structlog

from deltalog.jetstream.connection import Connection
from deltalog.jetstream.making import change_stream
from deltalog.jetstream.stream import Log, LogError
from deltalog.jetstream.stream_info import COMPRESSION_KEY

log = structlog.get_logger("deltalog.state")

Compression = Literal["s2", "none"]
"""JetStream's own words, as in a stream's configuration."""
SOUND_SINCE: Final = (2, 14, 3)
"""Servers before this one lose messages of a compressed block when they cut off its beginning (nats-server #8312)."""


def is_sound(connection: Connection) -> bool:
    """Whether the server that is connected to keeps compressed streams without losing messages."""
    version = connection.client.connected_server_version
    try:
        return (version.major, version.minor, version.patch) >= SOUND_SINCE
    except ValueError:
        # Not a version as NATS gives them.
        return False


def compression_for(connection: Connection, wanted: Compression | None) -> Compression:
    """How a new stream is to be kept: as is wanted, or else compressed, where the server can do it.

    Raises:
        LogError: it is wanted compressed, and the server cannot do it.
    """
    if is_sound(connection):
        return wanted or "s2"
    if wanted == "s2":
        least = ".".join(map(str, SOUND_SINCE))
        raise LogError(
            f"NATS at {connection.url} has version {connection.client.connected_server_version}, and servers before "
            f"{least} lose messages of compressed streams; upgrade them, or leave out `compression`"
        )
    return "none"


async def compress(opened: Log, wanted: Compression | None) -> None:
    """Has the events of a log kept as is wanted; None: as was wanted before, or else compressed.

    Servers read both kinds, and write another one from their next start on. What was wanted is in the stream's
    metadata: processes that say nothing leave it so. Without it nothing is changed where the server cannot do it, and
    not before there is a window: until then the stream is its own state.

    Raises:
        LogError: the server cannot do it.
        BrokerRefuses: it is not permitted.
        BrokerUnavailable: NATS does not answer.
    """
    metadata: dict[str, str] = {}
    if wanted is not None and wanted != opened.compression_wanted:
        compression_for(opened.connection, wanted)
        metadata[COMPRESSION_KEY] = opened.compression_wanted = wanted
    compression = opened.compression_wanted or ("s2" if is_sound(opened.connection) else opened.compression)
    if opened.window and (metadata or compression != opened.compression):
        await change_stream(opened, {"compression": compression}, metadata)
        opened.compression = compression
        log.info("compression changes when the server starts next", stream=opened.name, compression=compression)
