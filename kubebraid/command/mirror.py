"""`kubebraid mirror`: a mirror of the log for instances elsewhere."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from deltalog import Access
from deltalog.mirror import Mirror, MirrorSettings
from kubebraid.command import reporting
from kubebraid.command.opening import connected
from kubebraid.command.options.access import with_access
from kubebraid.command.options.log import LogCompression, NatsUrl
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.parts import together
from kubebraid.command.settings import BadSetting


@with_access
def command(
    access: Access,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Annotated[str, typer.Option(metavar="NAME", help="What the mirror is to be called.")] = "KUBEBRAID",
    origin: Annotated[str, typer.Option("--from", metavar="NAME", help="The stream that holds the log.")] = "KUBEBRAID",
    domain: Annotated[
        str, typer.Option("--from-domain", metavar="NAME", help="The JetStream domain it is in. [the mirror's]")
    ] = "",
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, max=5, help="NATS servers that each hold the mirror.")
    ] = 1,
    log_compression: LogCompression = None,
    once: Annotated[bool, typer.Option("--once", help="Make it if need be, and end.")] = False,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Make a mirror of the log for instances elsewhere, and keep it; they have the same versions as those here."""
    settings = MirrorSettings(origin=origin, domain=domain, name=stream, replicas=replicas, compression=log_compression)
    reporting.run(run_mirror(nats, access, settings, once=once), log_level, log_json)


async def run_mirror(url: str, access: Access, settings: MirrorSettings, *, once: bool) -> None:
    """Makes a mirror of a log and, unless `once`, keeps it. Raises LogError, BrokerUnavailable."""
    for option, name in (("--stream", settings.name), ("--from", settings.origin), ("--from-domain", settings.domain)):
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", name):
            raise BadSetting(f"{option} {name!r}: 1 to 64 letters, digits, - and _")
    async with connected(url, "kubebraid-mirror", access) as connection:
        made = Mirror(connection, settings)
        await made.make()
        if not once:
            await together(made.run)
