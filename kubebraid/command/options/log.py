"""Options that say where the log is, and how it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deltalog.jetstream.compression import Compression
from kubebraid.command.options.sizes import size
from kubebraid.command.settings import BadSetting
from materializer.forgetting import DeletionLimits
from producers.rules.configuration import duration

# A message may have 8 MiB.
FEWEST_BYTES = 16 * 1024**2
FEWEST_DELETIONS = 1000

Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the embedded NATS keeps the log. [~/.local/share/kubebraid]")
]
Nats = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A running NATS with JetStream instead of the embedded; several URLs with commas."
    ),
]
NatsUrl = Annotated[str, typer.Option(metavar="URL", help="NATS with JetStream; several URLs with commas.")]
NatsPort = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=65535, help="Port of the embedded NATS on loopback. [4222, or a free one]"),
]
Stream = Annotated[str, typer.Option(metavar="NAME", help="JetStream stream that holds the log.")]
Replicas = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=5, help="NATS servers that each hold the log; 3 outlive the loss of one. [1]"),
]
Events = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long the log keeps every change; before that it has the latest state. [1h, or as the log is]",
    ),
]
EventsBytes = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="In how much of the disk it does so at most; the oldest go first. [2Gi, or as the log is]",
    ),
]
LogCompression = Annotated[
    Compression | None,
    typer.Option(help="How NATS keeps the events on its disk, from its next start on. [s2, or as was last said]"),
]
Deletions = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=FEWEST_DELETIONS,
        help="How many deletions are remembered, so that watches can be resumed; of more, the oldest are forgotten.",
    ),
]
DeletionsBytes = Annotated[
    str,
    typer.Option(metavar="SIZE", help="In how much of the log's disk at most; in memory they take a tenth or less."),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="MEMORY_STORAGE_RESOURCE_VERSION_PREFIX",
        help="Name of the history for a stream made now. [8 random characters]",
    ),
]
NatsRunning = Annotated[str | None, typer.Option(metavar="URL", help="The NATS that has the log. [as --data]")]
DataRunning = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where a running `kubebraid up` keeps its log. [~/.local/share/kubebraid, else NATS at port 4222]",
    ),
]


def seconds_of_events(text: str | None) -> int | None:
    """Seconds of an `--events`. Raises BadSetting, BadConfiguration."""
    if text is None:
        return None
    seconds = duration(text)
    if seconds < 1:
        raise BadSetting(f"--events {text}: 1s is the least; without events readers cannot go on where they were")
    return int(seconds)


def bytes_of_events(text: str | None) -> int | None:
    """Bytes of an `--events-bytes`. Raises BadSetting."""
    if text is None:
        return None
    found = size("--events-bytes", text)
    if found < FEWEST_BYTES:
        raise BadSetting(f"--events-bytes {text}: 16Mi is the least, so that the largest messages fit in")
    return found


def deletion_limits(number: int, bytes_: str) -> DeletionLimits:
    """What `--deletions` and `--deletions-bytes` say. Raises BadSetting."""
    found = size("--deletions-bytes", bytes_)
    if found < FEWEST_BYTES:
        raise BadSetting(f"--deletions-bytes {bytes_}: 16Mi is the least, so that the largest messages fit in")
    return DeletionLimits(number, found)
