"""What a process that has started says: progress until it is ready, then what to try next."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from urllib.parse import quote

import structlog

from kubebraid.command import progress
from kubebraid.command.settings import Address
from kubebraid.command.tables import printable
from producers.producer import Producer
from query.service import QueryService

log = structlog.get_logger("kubebraid")


async def announce(
    producer: Producer | None,
    service: QueryService | None,
    address: Address | None,
    url: str,
    data: Path | None = None,
) -> None:
    """Shows progress until ready, then says what to try next, once.

    `data`: where the certificates of an own authority are, if it is not where commands look for them.
    """
    assert producer is not None or service is not None
    if producer is not None:
        await producer.begun.wait()
        await progress.show(producer, service.wait_ready() if service is not None else producer.first_lists())
    elif service is not None:
        await service.wait_ready()
    if service is not None and address is not None:
        clusters = service.readiness.clusters()
        stale = [cluster.name for cluster in clusters if cluster.stale is not None]
        log.info("ready", clusters=len(clusters), stale=stale or None, listen=address.url)
        print(next_steps(address, [cluster.name for cluster in clusters], stale, data), flush=True)  # noqa: T201
    else:
        log.info("all first lists are in the log", nats=url, listen=None if address is None else address.url)
    await asyncio.Event().wait()


def next_steps(address: Address, clusters: list[str], stale: list[str], data: Path | None = None) -> str:
    """What a newcomer can type now; `data` as of `announce`."""
    lines = [f"\nkubebraid serves {len(clusters)} cluster{'' if len(clusters) == 1 else 's'} at {address.url}"]
    if stale:
        lines.append(f"  stale (taken in as soon as they answer): {', '.join(map(printable, stale))}")
    lines.append("  try:")
    if address.secure:
        # kubectl has to know by what authority, and as whom.
        certificates = "" if data is None else f" --data {shlex.quote(str(data))}"
        lines.append(f"    kubebraid kubeconfig --server {address.url}{certificates} > kubebraid.kubeconfig")
        lines.append("    kubectl --kubeconfig kubebraid.kubeconfig get pods -A")
        if clusters:
            context = shlex.quote(f"kubebraid-{clusters[0]}")
            lines.append(f"    kubectl --kubeconfig kubebraid.kubeconfig --context {context} get deployments -A")
        return "\n".join(lines) + "\n"
    lines.append(f"    kubectl --server {address.url} get pods -A")
    if clusters:
        server = f"{address.url}/clusters/{quote(clusters[0], safe=':')}"
        lines.append(f"    kubectl --server {shlex.quote(server)} get deployments -A")
    lines.append(f"    kubebraid kubeconfig --server {address.url} > kubebraid.kubeconfig")
    return "\n".join(lines) + "\n"
