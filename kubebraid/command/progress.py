"""Progress of the first lists: bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable

import structlog
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn

from kubebraid.command.tables import printable
from producers.follow.cluster_producer import ClusterProducer
from producers.follow.type_informer import TypeInformer
from producers.producer import Producer

log = structlog.get_logger("kubebraid")

# Seconds between two pictures.
_FRAME = 0.1
# A bar per type is shown for the largest lists under way; the rest is in the cluster's own bar.
_BARS = 12


async def show(producer: Producer, finished: Awaitable[None]) -> None:
    """Shows progress until `finished` is."""
    waiting = asyncio.ensure_future(finished)
    try:
        if sys.stderr.isatty():
            await _bars(producer, waiting)
        else:
            for cluster in producer.clusters.values():
                cluster.on_synced = _line
            await waiting
    finally:
        waiting.cancel()
        for cluster in producer.clusters.values():
            cluster.on_synced = None


def _synced(cluster: ClusterProducer) -> int:
    return sum(informer.synced.is_set() for informer in cluster.informers.values())


def _line(cluster: ClusterProducer, informer: TypeInformer) -> None:
    log.info(
        "list is in the log",
        cluster=cluster.name,
        type=str(informer.resource.group_resource),
        objects=informer.objects,
        types=f"{_synced(cluster)}/{len(cluster.informers)}",
    )


async def _bars(producer: Producer, finished: asyncio.Future[None]) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        whole: dict[str, TaskID] = {}
        single: dict[tuple[str, str], TaskID] = {}
        while not finished.done():
            for cluster in producer.held:
                if cluster.name not in whole:
                    whole[cluster.name] = progress.add_task(f"[bold]{_plain(cluster.name)}", total=None, what="")
                progress.update(
                    whole[cluster.name],
                    total=len(cluster.informers) or None,
                    completed=_synced(cluster),
                    what=_status(cluster),
                )
            _update_types(producer, progress, single)
            await asyncio.wait((finished,), timeout=_FRAME)


def _plain(text: str) -> str:
    return escape(printable(text))


def _status(cluster: ClusterProducer) -> str:
    if cluster.unreachable is not None:
        return f"[red]{_plain(cluster.unreachable)}"
    return "types" if cluster.discovered else "discovering types"


def _update_types(producer: Producer, progress: Progress, shown: dict[tuple[str, str], TaskID]) -> None:
    under_way = {
        (cluster.name, str(informer.resource.group_resource)): informer
        for cluster in producer.held
        for informer in cluster.informers.values()
        if not informer.synced.is_set() and informer.expected
    }
    for key in [key for key in shown if key not in under_way]:
        progress.remove_task(shown.pop(key))
    largest = sorted(under_way, key=lambda key: -(under_way[key].expected or 0))[:_BARS]
    for key in largest:
        if key not in shown:
            shown[key] = progress.add_task(f"  {_plain(key[0])} {_plain(key[1])}", total=None, what="objects")
        progress.update(shown[key], completed=under_way[key].listed, total=under_way[key].expected)
