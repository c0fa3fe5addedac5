"""Options that say where the log is, and how it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
