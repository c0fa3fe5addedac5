"""`kubebraid route`: one address in front of groups of serving instances."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import structlog
import typer

from kubebraid.command import reporting
from kubebraid.command.doors import Doors
from kubebraid.command.listening import LOOPBACK_NAMES, bind, served_at
from kubebraid.command.options.doors import with_router_doors
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.options.serving import (
    InsecureListen,
    Listen,
)
from kubebraid.command.parts import together
from kubebraid.command.settings import Address, BadSetting, parse_listen
from kubebraid.route.callers import ProxiedCallers
from kubebraid.route.groups import parse_groups
from kubebraid.route.instance_tls import InstanceTls, InstanceTlsFiles
from kubebraid.route.router import Router
from query.access.authentication.authenticator import Authenticator
from query.access.authentication.front_proxy import DEFAULT_HEADERS, FrontProxyAuthenticator, FrontProxyHeaders
from query.access.authentication.x509 import CertificateAuthenticator, ClientAuthorities
from query.http.cors import Cors

_log = structlog.get_logger("kubebraid")
_PANEL = "Instances"


@with_router_doors
def command(
    doors: Doors,
    group: Annotated[
        list[str],
        typer.Option("--group", metavar="NAME=URL[,URL...]", help="Instances that serve the same log; once for each."),
    ],
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    instance_ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Authorities of instances' certificates, PEM.", rich_help_panel=_PANEL),
    ] = None,
    proxy_client_cert_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Our certificate, PEM, by which guarded instances (--requestheader-client-ca-file) believe who asks.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    proxy_client_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key, PEM, unless that is in the same file.", rich_help_panel=_PANEL),
    ] = None,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """One address for several groups of serving instances: requests go to the group that has the type or cluster."""
    try:
        groups = parse_groups(group)
    except ValueError as cause:
        raise BadSetting(f"--group {cause}") from None
    files = InstanceTlsFiles(instance_ca_file, proxy_client_cert_file, proxy_client_key_file)
    check_guarded(groups, doors, files)
    address = listen_address(listen, doors, files, insecure=insecure_listen)
    reporting.run(run_router(groups, address, doors, files), log_level, log_json)


def check_guarded(groups: Mapping[str, Sequence[str]], doors: Doors, files: InstanceTlsFiles) -> None:
    """Whether certificates can do what they are given for. Raises BadSetting."""
    if files.key is not None and files.certificate is None:
        raise BadSetting("--proxy-client-key-file is the key of --proxy-client-cert-file; give that, too")
    if files.certificate is None:
        if doors.authenticates:
            raise BadSetting(
                "whom clients' certificates name, instances believe by a certificate of ours alone; add "
                "--proxy-client-cert-file"
            )
        return
    plain = next((url for urls in groups.values() for url in urls if not url.startswith("https:")), None)
    if plain is not None:
        raise BadSetting(f"--proxy-client-cert-file: {plain} is no https, over which it could be shown")


def listen_address(listen: str, doors: Doors, files: InstanceTlsFiles, *, insecure: bool) -> Address:
    """Where to listen; elsewhere than on loopback if that is wanted, or https in front of guarded instances.

    Raises:
        BadSetting: it may not be.
    """
    address = parse_listen(listen, insecure=True)
    if address.loopback or insecure:
        return address
    if files.certificate is None:
        raise BadSetting(
            f"--listen {listen}: others could read all clusters there, as nothing says that instances know who asks: "
            "add --proxy-client-cert-file and --tls-cert-file; or listen on 127.0.0.1; or add --insecure-listen if you "
            "mean it"
        )
    if not doors.secure:
        raise BadSetting(
            f"--listen {listen}: credentials could be read on their way there, as it is no https: add --tls-cert-file, "
            "or --insecure-listen if something in front of it has the certificate"
        )
    return address


def callers_of(doors: Doors) -> ProxiedCallers:
    """Who is known by certificates. Blocking. Raises BadAccessFile."""
    found: list[Authenticator] = []
    names = DEFAULT_HEADERS
    if (proxy := doors.front_proxy) is not None:
        names = FrontProxyHeaders(proxy.user_headers, proxy.uid_headers, proxy.group_headers, proxy.extra_prefixes)
        found.append(FrontProxyAuthenticator(ClientAuthorities(proxy.authorities), proxy.names, names))
    found += [CertificateAuthenticator(ClientAuthorities(path)) for path in doors.client_authorities]
    return ProxiedCallers(found, names)


async def run_router(
    groups: Mapping[str, Sequence[str]], listen: Address, doors: Doors, files: InstanceTlsFiles
) -> None:
    """The router alone, in front of groups of serving instances. Raises BadInstanceTls, BadAccessFile, BadTlsFile."""
    router = Router(
        groups,
        hosts=LOOPBACK_NAMES if listen.loopback else None,
        tls=await asyncio.to_thread(InstanceTls, files),
        callers=await asyncio.to_thread(callers_of, doors),
        cors=Cors(doors.origins),
    )
    with contextlib.closing(bind(listen)) as bound:
        async with router.connected():

            async def serve() -> None:
                await router.first_looks()
                async with served_at(router.application(), bound, doors=doors) as served:
                    _log.info("routing", groups=list(groups), listen=served.address.url)
                    await asyncio.Event().wait()

            await together(router.run, serve)
