"""Settings of a run, checked where they enter."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deltalog import Access, LogSettings
from deltalog.jetstream.compression import Compression
from kubebraid.command.doors import Doors
from kubebraid.errors import InvalidInput
from materializer.forgetting import DeletionLimits
from materializer.versions import check_prefix
from producers.rules.configuration import RELIST_EVERY
from producers.rules.pruning import Pruning
from producers.rules.rules import Rules
from query.search.collections import ResourceCollection

NOT_READY_AFTER = 300.0
SNAPSHOT_EVERY = 600.0


class BadSetting(InvalidInput):
    """An option's value that cannot be; one line that says the remedy."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `secure`: whether it is https."""

    host: str
    port: int
    secure: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.host in ("0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http{'s' if self.secure else ''}://{host}:{self.port}"


def parse_listen(text: str, *, insecure: bool, doors: Doors | None = None) -> Address:
    """HOST:PORT. Raises BadSetting; also for what others could reach, unless it is guarded, or that is wanted."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise BadSetting(f"--listen {text!r}: write HOST:PORT, as in 127.0.0.1:8001")
    address = Address(host, int(port))
    if address.loopback or insecure:
        return address
    if doors is None or not doors.guarded:
        raise BadSetting(
            f"--listen {text}: others could read all clusters there, as nothing says who may: say whom to let in, with "
            "--client-ca-file, --token-auth-file or --authentication-config, and --tls-cert-file; or listen on "
            "127.0.0.1; or add --insecure-listen if you mean it"
        )
    if not doors.secure:
        raise BadSetting(
            f"--listen {text}: credentials could be read on their way there, as it is no https: add --tls-cert-file, "
            "or --insecure-listen if something in front of it has the certificate"
        )
    return address


def default_data() -> Path:
    """Where the embedded log is kept: $XDG_DATA_HOME/kubebraid."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "kubebraid"


class Forward(StrEnum):
    """As whom requests below /clusters/<cluster> are passed on.

    Not at all; as the caller, by what the caller shows; or as the kubeconfig's user, in the caller's name or its own.
    """

    OFF = "off"
    CALLER = "caller"
    IMPERSONATE = "impersonate"
    CONFIGURED = "configured"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `up`, `produce` and `serve` run with. `nats` None: embedded, with its files under `data`.

    `access`: how to get into a NATS that is not embedded. `snapshot`: the directory of snapshots (None: below the
    embedded NATS's files, else none); `snapshot_every`: how often one is written, in seconds; 0: none are written or
    read. `config`: the configuration file, which then says all of what is followed and how. `doors`: who may come in
    where it listens. `forward`: as whom requests are passed on to clusters. `collections`: those beside
    the ones that there always are. `events`, `events_bytes`: for how many seconds and in how many bytes the log keeps
    every change; None: as it does. `compression`: how NATS keeps the log. `window_memory`: bytes for the newest events;
    None: in proportion to the objects. `deletions`: how many are remembered. `not_ready_after`: seconds without word of
    the log that a service counts as ready; 0: for ever.
    """

    nats: str | None = None
    access: Access = field(default_factory=Access)
    nats_port: int | None = None
    data: Path | None = None
    snapshot: Path | None = None
    snapshot_every: float = SNAPSHOT_EVERY
    stream: str = "KUBEBRAID"
    replicas: int | None = None
    events: int | None = None
    events_bytes: int | None = None
    compression: Compression | None = None
    prefix: str | None = None
    kubeconfig: str | None = None
    contexts: tuple[str, ...] = ()
    directory: Path | None = None
    config: Path | None = None
    rules: Rules = field(default_factory=Rules)
    pruning: Pruning = field(default_factory=Pruning)
    relist_every: float = RELIST_EVERY
    identity: str | None = None
    listen: Address | None = None
    doors: Doors = field(default_factory=Doors)
    forward: Forward = Forward.OFF
    collections: tuple[ResourceCollection, ...] = ()
    window_memory: int | None = None
    deletions: DeletionLimits = field(default_factory=DeletionLimits)
    not_ready_after: float = NOT_READY_AFTER


def log_settings(settings: Settings) -> LogSettings:
    """How the log is opened. Raises BadSetting."""
    if settings.prefix is not None:
        try:
            check_prefix(settings.prefix)
        except ValueError as cause:
            raise BadSetting(f"--prefix: {cause}") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.stream):
        raise BadSetting(f"--stream {settings.stream!r}: 1 to 64 letters, digits, - and _")
    return LogSettings(
        name=settings.stream,
        prefix=settings.prefix,
        replicas=settings.replicas,
        events=settings.events,
        events_bytes=settings.events_bytes,
        compression=settings.compression,
    )
