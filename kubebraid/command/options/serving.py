"""Options of what serves the API: where, from what snapshot, and as whom requests are passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubebraid.command.doors import Doors
from kubebraid.command.settings import BadSetting, Forward, parse_listen
from producers.rules.configuration import duration
from query.search.collection_file import load_collections
from query.search.collections import ResourceCollection

Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the API is served.")]
InsecureListen = Annotated[bool, typer.Option(help="Allow another address than loopback, without authentication.")]
Snapshot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where what is served is kept for the next start. [up: snapshot, below --data]"),
]
SnapshotEvery = Annotated[
    str, typer.Option(metavar="TIME", help="How often that is written, beside at the end; 0: no snapshots.")
]
WindowMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for the newest events, all of which watches are shown; of older ones, the latest states; 0: none. "
        "By default in proportion to the objects, 8Mi to 64Mi.",
    ),
]
ForwardAs = Annotated[
    Forward,
    typer.Option(
        "--forward",
        help="As whom writes, logs and exec below /clusters/<cluster> are passed on: the caller, the kubeconfig's "
        "user in the caller's name (impersonate) or in its own (configured), or not at all.",
    ),
]
NotReadyAfter = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="Without word of the log for so long, /readyz is 503: others are to be asked; 0: never.",
    ),
]

Collections = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Collections beside any, workloads and kuberesources: YAML, a list of them with their types, or "
        "Clusterpedia's CollectionResources.",
    ),
]


def checked_forward(forward: Forward, listen: str, doors: Doors) -> Forward:
    """Raises BadSetting where strangers would act as us, or nobody is known in whose name we could ask."""
    if forward is Forward.CONFIGURED and not doors.guarded and not parse_listen(listen, insecure=True).loopback:
        raise BadSetting(
            f"--forward configured with --listen {listen}: everybody there could act as the kubeconfig's user; "
            "listen on loopback, say who is let in, or use --forward caller"
        )
    if forward is Forward.IMPERSONATE and not doors.authenticates:
        raise BadSetting(
            "--forward impersonate: clusters are asked in the name of who asks here, and nothing says who that is; add "
            "--client-ca-file, --token-auth-file or --authentication-config"
        )
    return forward


def configured_collections(path: Path | None) -> tuple[ResourceCollection, ...]:
    """The collections of a `--collections`. Blocking. Raises BadCollections."""
    return () if path is None else load_collections(path)


def seconds_between_snapshots(text: str) -> float:
    """Seconds of a `--snapshot-every`; 0: never. Raises BadSetting, BadConfiguration."""
    seconds = duration(text)
    if 0 < seconds < 1:
        raise BadSetting(f"--snapshot-every {text}: 1s is the least, 0 is never")
    return seconds
