"""How much of everything a cluster of a size has, and in which order it is made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from simulation.content.access import add_roles
from simulation.content.builder import ContentBuilder, Variety
from simulation.content.certificates import add_certificate, add_definition
from simulation.content.events import add_events
from simulation.content.names import TEAMS
from simulation.content.namespaces import add_namespace
from simulation.content.nodes import add_control_plane_leases, add_node
from simulation.content.pods import PodBuilder
from simulation.content.volumes import add_storage_class
from simulation.content.workloads import Workloads
from simulation.registry import Registry
from simulation.times import utc_now

__all__ = ["populate"]

_SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
# Pods of an application; one of these, by chance.
_SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 8, 12)


def populate(
    registry: Registry,
    *,
    name: str,
    pods: int,
    seed: int | str,
    clock: Callable[[], datetime] = utc_now,
    variety: Variety = "mixed",
) -> None:
    """Fill a new cluster: exactly `pods` pods, and around them what a cluster of that size has.

    With 100 pods, say, these are 6 nodes, 7 namespaces, 20 events and 5 certificates. The content follows `seed`, see
    `ContentBuilder`; all times lie before `clock`.
    """
    builder = ContentBuilder(registry, name, seed, clock=clock, variety=variety)
    workloads = Workloads(builder, PodBuilder(builder))
    teams = TEAMS[: max(3, min(len(TEAMS), 3 + pods // 150))]
    for namespace in (*_SYSTEM_NAMESPACES, *teams):
        add_namespace(builder, namespace)
    for number in range(pods // 30 + 3):
        add_node(builder, number)
    add_roles(builder)
    add_storage_class(builder)
    add_control_plane_leases(builder)
    _add_workloads(builder, workloads, teams, pods)
    add_events(builder, pods // 5)
    add_definition(builder)
    for number in range(pods // 40 + 3):
        add_certificate(builder, teams[number % len(teams)], number)


def _add_workloads(builder: ContentBuilder, workloads: Workloads, teams: tuple[str, ...], pods: int) -> None:
    """Workloads with exactly `pods` pods: one of each kind where there is room, and applications for the rest."""
    left = pods
    agents = len(builder.nodes) if left >= 4 * len(builder.nodes) else 0
    workloads.add_daemon_set(agents)
    left -= agents
    if left >= 10:
        workloads.add_stateful_set(teams[0], 3)
        left -= 3
    jobs = min(left // 8, pods // 50 + 1)
    for number in range(jobs):
        workloads.add_job(teams[number % len(teams)], number)
    left -= jobs
    workloads.add_cron_job(teams[0])
    number = 0
    while left > 0:
        size = min(left, builder.random.choice(_SIZES))
        workloads.add_application(teams[number % len(teams)], number, size)
        left -= size
        number += 1
