"""`kubebraid route`: one address in front of groups of serving instances."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import structlog
import typer

from kubebraid.command import reporting
from kubebraid.command.doors import Doors
from kubebraid.command.listening import LOOPBACK_NAMES, bind, served_at
from kubebraid.command.options.doors import with_tls
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.options.serving import (
    InsecureListen,
    Listen,
)
from kubebraid.command.parts import together
from kubebraid.command.settings import Address, BadSetting, parse_listen
from kubebraid.route.groups import parse_groups
from kubebraid.route.router import Router

_log = structlog.get_logger("kubebraid")


@with_tls
def command(
    doors: Doors,
    group: Annotated[
        list[str],
        typer.Option("--group", metavar="NAME=URL[,URL...]", help="Instances that serve the same log; once for each."),
    ],
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """One address for several groups of serving instances: requests go to the group that has the type or cluster."""
    try:
        groups = parse_groups(group)
    except ValueError as cause:
        raise BadSetting(f"--group {cause}") from None
    reporting.run(run_router(groups, parse_listen(listen, insecure=insecure_listen), doors), log_level, log_json)


async def run_router(groups: Mapping[str, Sequence[str]], listen: Address, doors: Doors) -> None:
    """The router alone, in front of groups of serving instances."""
    router = Router(groups, hosts=LOOPBACK_NAMES if listen.loopback else None)
    with contextlib.closing(bind(listen)) as bound:
        async with router.connected():

            async def serve() -> None:
                await router.first_looks()
                async with served_at(router.application(), bound, doors=doors) as served:
                    _log.info("routing", groups=list(groups), listen=served.address.url)
                    await asyncio.Event().wait()

            await together(router.run, serve)
