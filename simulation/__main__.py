"""The command `python -m simulation`: run simulated clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from simulation.cluster import SimulatedCluster
from simulation.run import simulate


def main(
    clusters: Annotated[int, typer.Option(min=1, help="How many clusters.")] = 3,
    pods: Annotated[int, typer.Option(min=0, help="Pods per cluster.")] = 100,
    churn: Annotated[float, typer.Option(min=0, help="Writes per second and cluster.")] = 1.0,
    write_kubeconfig: Annotated[Path, typer.Option(help="The kubeconfig to write.")] = Path("simulation.kubeconfig"),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    base_port: Annotated[int, typer.Option(min=0, max=65535, help="The first port; 0: free ones.")] = 0,
    seed: Annotated[int, typer.Option(help="Decides the content.")] = 0,
    tokens: Annotated[bool, typer.Option(help="Ask for a bearer token.")] = False,
    token_auth_file: Annotated[
        Path | None, typer.Option(help='Users, as lines token,user,uid,"groups"; the clusters\' RBAC decides then.')
    ] = None,
    tls_cert_file: Annotated[Path | None, typer.Option(help="Certificate to serve https with, PEM.")] = None,
    tls_private_key_file: Annotated[Path | None, typer.Option(help="Its key, PEM, unless in the same file.")] = None,
    first: Annotated[int, typer.Option(min=1, help="The number of the first: 1 is alpha, 2 bravo.")] = 1,
    state: Annotated[Path | None, typer.Option(help="A directory that keeps the clusters across restarts.")] = None,
) -> None:
    """Run simulated Kubernetes clusters until interrupted."""

    def ready(made: list[SimulatedCluster]) -> None:
        for cluster in made:
            typer.echo(f"{cluster.name}\t{cluster.url}")
        typer.echo(f"kubeconfig: {write_kubeconfig}")

    run = simulate(
        clusters,
        pods,
        churn,
        write_kubeconfig,
        host=host,
        base_port=base_port,
        seed=seed,
        tokens=tokens,
        first=first,
        state=state,
        token_auth_file=token_auth_file,
        tls_cert_file=tls_cert_file,
        tls_private_key_file=tls_private_key_file,
        ready=ready,
    )
    uvloop.run(run)


if __name__ == "__main__":
    typer.run(main)
