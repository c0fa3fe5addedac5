"""Running several simulated clusters in one process."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

from simulation.access.users import read_tokens
from simulation.cluster import SimulatedCluster
from simulation.kubeconfig import cluster_name, write_kubeconfig

__all__ = ["simulate"]


async def simulate(
    clusters: int,
    pods: int,
    churn: float,
    kubeconfig: Path,
    *,
    host: str = "127.0.0.1",
    base_port: int = 0,
    seed: int = 0,
    tokens: bool = False,
    first: int = 1,
    state: Path | None = None,
    token_auth_file: Path | None = None,
    tls_cert_file: Path | None = None,
    tls_private_key_file: Path | None = None,
    ready: Callable[[list[SimulatedCluster]], None] | None = None,
) -> None:
    """Run clusters until cancelled, SIGTERM or SIGINT.

    `pods` and `churn` (writes per second) are per cluster. With a `base_port` the clusters have it and the ports after
    it, the same in each run: 3 clusters from 9001 on have 9001 to 9003; 0 takes free ones. `first` is the number of
    the first cluster (see `cluster_name`), `state` a directory that keeps what they have. With `tokens` every cluster
    has a bearer token. With a `token_auth_file` (see `read_tokens`) each lets in those users as well, and decides by
    its RBAC; the kubeconfig's users are administrators then. With a `tls_cert_file` they are served by https.
    `kubeconfig` is written, and `ready` called, once all ports are open.

    Raises:
        OSError: a port cannot be opened, or a file cannot be read or written.
        ValueError: the file of tokens is none.
        ssl.SSLError: the certificate and the key are none, or do not belong together.
    """
    users = None if token_auth_file is None else await asyncio.to_thread(read_tokens, token_auth_file)
    tokens = tokens or users is not None
    tls, authority = None, ""
    if tls_cert_file is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        await asyncio.to_thread(tls.load_cert_chain, tls_cert_file, tls_private_key_file)
        authority = await asyncio.to_thread(tls_cert_file.read_text)
    made: list[SimulatedCluster] = []
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals: list[signal.Signals] = []
    for caught in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(caught, stopped.set)
            signals.append(caught)
        except (NotImplementedError, RuntimeError, ValueError):
            # No signals on this platform or in this thread: only cancelling ends it.
            pass
    try:
        for number in range(first, first + clusters):
            name = cluster_name(number)
            made.append(
                SimulatedCluster(
                    name,
                    seed=seed,
                    pods=pods,
                    churn=churn,
                    host=host,
                    port=base_port + number - first if base_port else 0,
                    token=f"simulated-{name}-{seed}" if tokens else "",
                    users=users,
                    tls=tls,
                    authority=authority,
                    state=state,
                )
            )
            # Building one takes a while: let a signal or a cancellation in.
            await asyncio.sleep(0)
            if stopped.is_set():
                return
        for cluster in made:
            await cluster.start()
        write_kubeconfig(made, kubeconfig)
        if ready is not None:
            ready(made)
        await stopped.wait()
    finally:
        for caught in signals:
            loop.remove_signal_handler(caught)
        await asyncio.gather(*(cluster.stop() for cluster in made), return_exceptions=True)
