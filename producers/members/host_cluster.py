"""Clusters described by objects of a host cluster: read, and followed as the objects change.

The objects are few: they are listed and watched, and all are looked at again after each change.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

import structlog

from deltalog.jetstream.backoff import Backoff, Once
from producers.errors import ClusterUnavailable, ProducersError
from producers.kubeconfig.files import Files, default_kubeconfig
from producers.kubeconfig.in_cluster import in_cluster
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.members.described import Described, Descriptions, Objects
from producers.rules.configuration import Host, PediaClusters, Secrets
from producers.threads import reading
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.watching import Target, current_objects

log = structlog.get_logger("producers.members.host_cluster")

Report = Callable[[Described], None]
# Why the host cluster cannot be read; None: it can.
Complain = Callable[[str | None], None]

_PEDIA = "/apis/cluster.clusterpedia.io/v1alpha2"


class HostUnavailable(ClusterUnavailable):
    """The host cluster cannot be read now."""


async def follow(origin: Secrets | PediaClusters, report: Report, complain: Complain, timing: ProducerTiming) -> None:
    """Reports the clusters that objects of the host cluster describe, again at each change, until cancelled."""
    backoff = Backoff(*timing.host_backoff)
    descriptions = Descriptions()
    while True:
        started = time.monotonic()
        try:
            await _follow(origin, descriptions, report, complain, timing)
        except ProducersError as cause:
            complain(f"{name_of(origin)}: {cause}")
        except ExceptionGroup as group:
            expected, rest = group.split(ProducersError)
            if rest is not None:
                raise rest from None
            complain(f"{name_of(origin)}: {_first(expected)}")
        if time.monotonic() - started > timing.host_stable:
            backoff.reset()
        await backoff.wait()


async def described_now(origin: Secrets | PediaClusters, timing: ProducerTiming) -> Described:
    """The clusters that objects of the host cluster describe now. Raises HostUnavailable."""
    found: asyncio.Future[Described] = asyncio.get_running_loop().create_future()

    def report(described: Described) -> None:
        if not found.done():
            found.set_result(described)

    def complain(problem: str | None) -> None:
        if problem is not None and not found.done():
            found.set_exception(HostUnavailable(problem))

    following = asyncio.create_task(follow(origin, report, complain, timing))
    try:
        await asyncio.wait((found, following), return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            # It never ends by itself: this raises.
            following.result()
        return await found
    finally:
        following.cancel()
        await asyncio.wait((following,))


async def _follow(
    origin: Secrets | PediaClusters,
    descriptions: Descriptions,
    report: Report,
    complain: Complain,
    timing: ProducerTiming,
) -> None:
    files = Files()
    server = ApiServer(await _read_access(origin.host, files), timing)
    try:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(_keep_access(server, origin.host, files, timing))
            if isinstance(origin, Secrets):
                await _follow_secrets(server, origin, descriptions, report, complain)
            else:
                await _follow_pedia(server, origin, descriptions, report, complain)
            keeping.cancel()
    finally:
        await server.close()


def name_of(origin: Secrets | PediaClusters) -> str:
    """A source in words."""
    if isinstance(origin, Secrets):
        return f"secrets of namespace {origin.namespace} in the host cluster"
    return "PediaClusters of the host cluster"


def _first(group: BaseExceptionGroup[Exception] | None) -> str:
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


# -- access to the host ------------------------------------------------------------------------------------------------


def host_access(host: Host, files: Files) -> ClusterAccess:
    """Access to the cluster with objects that describe clusters: the one named, or as clientcmd's libraries choose.

    These take the default kubeconfig's current context; without one, the cluster that they run in. Blocking. Raises
    BadKubeconfig.
    """
    where = host.kubeconfig or default_kubeconfig()
    found = files.kubeconfig(host.kubeconfig)
    if not host.kubeconfig and not host.context and not found.current_context:
        inside = in_cluster("host cluster")
        if inside is not None:
            return inside
    if found.empty:
        raise BadKubeconfig(f"no kubeconfig at {where}, and this is no pod with a service account")
    return found.access(host.context or found.one_context(where), "host cluster")


async def _read_access(host: Host, files: Files) -> ClusterAccess:
    return await reading(host.kubeconfig or default_kubeconfig(), host_access, host, files)


async def _keep_access(server: ApiServer, host: Host, files: Files, timing: ProducerTiming) -> None:
    """Raises HostUnavailable for another server: its objects are to be read from the beginning."""
    complain = Once(lambda reason: log.warning("the host cluster's kubeconfig cannot be read anew", reason=reason))
    while True:
        await asyncio.sleep(timing.look_at_files_every)
        try:
            access = await _read_access(host, files)
        except BadKubeconfig as problem:
            # It may be half written.
            complain(problem)
            continue
        complain.clear()
        if access != server.access:
            if access.cluster.server != server.access.cluster.server:
                raise HostUnavailable("its kubeconfig names another server now")
            await server.change(access)


# -- its objects -------------------------------------------------------------------------------------------------------


async def _follow_secrets(
    server: ApiServer, origin: Secrets, descriptions: Descriptions, report: Report, complain: Complain
) -> None:
    target = Target(f"/api/v1/namespaces/{origin.namespace}/secrets", origin.selector)
    async with contextlib.aclosing(current_objects(server, target)) as states:
        async for secrets in states:
            described = await asyncio.to_thread(descriptions.of_secrets, dict(secrets), origin.key)
            complain(None)
            report(described)


async def _follow_pedia(
    server: ApiServer, origin: PediaClusters, descriptions: Descriptions, report: Report, complain: Complain
) -> None:
    state: dict[str, Objects | None] = {"clusters": None, "shared": None}
    one_at_a_time = asyncio.Lock()

    async def merge() -> None:
        async with one_at_a_time:
            found, shared = state["clusters"], state["shared"]
            if found is None or shared is None:
                return
            described = await asyncio.to_thread(partial(descriptions.of_pedia, dict(found), dict(shared)))
            complain(None)
            report(described)

    async def take(what: str, target: Target) -> None:
        try:
            async with contextlib.aclosing(current_objects(server, target)) as states:
                async for objects in states:
                    state[what] = objects
                    await merge()
        except RequestRefused as refused:
            # Older Clusterpedias have no such type; nothing is shared then.
            if what != "shared" or refused.code != 404:
                raise
            state[what] = {}
            await merge()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take("clusters", Target(f"{_PEDIA}/pediaclusters", origin.selector)))
        tasks.create_task(take("shared", Target(f"{_PEDIA}/clustersyncresources")))
