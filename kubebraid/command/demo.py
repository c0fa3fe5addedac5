"""The demo: everything of `up`, on simulated clusters that run in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from kubebraid.command import assembly, reporting
from kubebraid.command.broker import child_set_up
from kubebraid.command.options.log import Data, Nats, NatsPort
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.options.serving import Collections, InsecureListen, Listen, configured_collections
from kubebraid.command.parts import Stopped
from kubebraid.command.settings import BadSetting, Forward, Settings, parse_listen

# The entry point (group and name) by which the distribution kubebraid-simulation offers its clusters: an installation
# for production does not have it.
_GROUP, _NAME = "kubebraid.demo", "simulate"

Simulate = Callable[..., Coroutine[Any, Any, None]]


def simulated_clusters() -> Simulate:
    """What runs simulated clusters until it is cancelled: takes how many, pods and writes per second of each, and the
    kubeconfig that it writes once they answer.

    Raises:
        BadSetting: kubebraid is installed without its extra `demo`.
    """
    for found in entry_points(group=_GROUP, name=_NAME):
        simulate: Simulate = found.load()
        return simulate
    raise BadSetting(
        "the simulated clusters are not installed; pip install 'kubebraid[demo]', or in a checkout: make install"
    )


async def demo(settings: Settings, *, clusters: int, pods: int, churn: float) -> None:
    """`up` on simulated clusters. Without `settings.data`, what it keeps is removed at its end.

    Raises:
        BadSetting: as `simulated_clusters` does.
        Stopped: the simulated clusters did not start.
    """
    # Said here, and not by the process that would need them.
    simulated_clusters()
    with contextlib.ExitStack() as stack:
        data = settings.data
        if data is None:
            # Simulated clusters are new ones at every start: there is nothing to keep.
            settings = dataclasses.replace(settings, snapshot_every=0.0)
            data = Path(tempfile.mkdtemp(prefix="kubebraid-demo-"))
            stack.callback(shutil.rmtree, data, ignore_errors=True)
        data.mkdir(parents=True, exist_ok=True)
        kubeconfig = data / "kubeconfig"
        kubeconfig.unlink(missing_ok=True)
        command = (
            *(sys.executable, "-m", "kubebraid", "simulate", "--clusters", str(clusters), "--pods", str(pods)),
            *("--churn", str(churn), "--write-kubeconfig", str(kubeconfig)),
        )
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, preexec_fn=child_set_up(), start_new_session=True
        )
        try:
            while not kubeconfig.exists():
                if process.returncode is not None:
                    raise Stopped(f"the simulated clusters did not start (code {process.returncode})")
                await asyncio.sleep(0.05)
            await assembly.run(
                dataclasses.replace(settings, data=data, kubeconfig=str(kubeconfig)), produce=True, serve=True
            )
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def command(
    clusters: Annotated[int, typer.Option(min=1, max=200, help="Simulated clusters.")] = 3,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each cluster.")] = 200,
    churn: Annotated[float, typer.Option(min=0, help="Changes a second in each cluster.")] = 2.0,
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    collections: Collections = None,
    data: Data = None,
    nats: Nats = None,
    nats_port: NatsPort = None,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """The same as `up`, on simulated clusters."""
    settings = Settings(
        nats=nats,
        nats_port=nats_port,
        data=data,
        listen=parse_listen(listen, insecure=insecure_listen),
        forward=Forward.CALLER,
        collections=configured_collections(collections),
    )
    reporting.run(demo(settings, clusters=clusters, pods=pods, churn=churn), log_level, log_json)


def simulate(
    write_kubeconfig: Annotated[Path, typer.Option(metavar="F", help="Where to write a kubeconfig for them.")],
    clusters: Annotated[int, typer.Option(min=1, max=200, help="Simulated clusters.")] = 3,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each cluster.")] = 200,
    churn: Annotated[float, typer.Option(min=0, help="Changes a second in each cluster.")] = 2.0,
    token_auth_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help='Users, as lines token,user,uid,"groups"; the clusters\' RBAC decides then.'),
    ] = None,
    tls_cert_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Certificate to serve https with, PEM."),
    ] = None,
    tls_private_key_file: Annotated[
        Path | None, typer.Option(metavar="F", help="Its key, PEM, unless that is in the same file.")
    ] = None,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Simulated member clusters alone, until stopped."""
    run = simulated_clusters()(
        clusters,
        pods,
        churn,
        write_kubeconfig,
        token_auth_file=token_auth_file,
        tls_cert_file=tls_cert_file,
        tls_private_key_file=tls_private_key_file,
    )
    reporting.run(run, log_level, log_json)
