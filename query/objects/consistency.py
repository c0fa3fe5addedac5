"""Consistency: what a read waits for before it looks at the store, and the warnings where that may be out of date.

Kubernetes API Concepts, "Semantics for get and list"; KEP-2340 (consistent reads from cache).
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalog.wire.kubernetes import GroupResource, newer, numeric
from materializer.cluster_facts import ClusterFacts
from materializer.freshness import LogUnreachable
from materializer.materializer import Materializer
from materializer.originals import seen
from materializer.waiting import NotThereYet
from query.discovery.catalogue import ServedType
from query.http.request import Request
from query.http.status import ApiError, expired, too_large_version
from query.http.warnings import of_other_scopes, of_other_versions, of_stale
from query.objects.versions import version_of, versions_for
from query.timing import QueryTiming


class Consistency:
    """Waits until the store is as new as a request asks for."""

    def __init__(self, materializer: Materializer, timing: QueryTiming) -> None:
        self._materializer = materializer
        self._patience = timing.version_wait

    def check_ready(self) -> None:
        """Refuses requests while the log is being replayed, which may begin again while a request waits.

        What is missing then may only not have been read yet, so nothing may be said of it.

        Raises:
            ApiError: 429.
        """
        if not self._materializer.ready.is_set():
            raise ApiError(429, "the log is being replayed: not ready yet", retry_after=1)

    async def current(self, request: Request) -> None:
        """Waits for all that the log holds now; while the log cannot be asked, adds a warning instead.

        Raises:
            ApiError: 429, the log is being replayed.
        """
        try:
            await self._materializer.wait_current()
        except LogUnreachable as problem:
            self.check_ready()
            self._warn_of_age(request, problem)
        self.check_ready()

    async def at_least(self, request: Request, text: str) -> int:
        """Waits until the index of one of our own versions is applied; returns that index.

        Raises:
            ApiError: 410, the version is malformed or of another history; 504, the index is ahead for too long; 429.
        """
        index = version_of(text, versions_for(self._materializer, request)).index
        try:
            await self._materializer.wait_applied(index, self._patience)
        except NotThereYet:
            self.check_ready()
            raise too_large_version(index, self._materializer.store.applied) from None
        self.check_ready()
        # The history may have been replaced meanwhile.
        return version_of(text, versions_for(self._materializer, request)).index

    async def at_member_versions(self, request: Request, key: GroupResource, versions: Mapping[str, str]) -> None:
        """Waits until all that clusters had of a type at versions of their own is applied.

        `versions`: by cluster; "" for one of which nothing is asked.

        Raises:
            ApiError: 410, one is no version of a cluster; 504, one is ahead for too long; 429.
        """
        store = self._materializer.store

        def behind() -> list[str]:
            return [
                cluster
                for cluster, version in versions.items()
                if version and cluster in store.clusters and newer(version, seen(store, key, cluster) or "0")
            ]

        for cluster, version in versions.items():
            if version and not numeric(version):
                raise expired(f"{version[:64]!r} is no resourceVersion of cluster {cluster[:64]}")
        await self.current(request)
        try:
            await self._materializer.wait_until(key, lambda: not behind(), self._patience)
            self.check_ready()
        except NotThereYet:
            self.check_ready()
            for cluster in behind():
                known = seen(store, key, cluster) or "0"
                raise too_large_version(f"{versions[cluster]} of {cluster}", known) from None

    def warn(self, request: Request, served: ServedType, version: str | None, chosen: frozenset[str] | None) -> None:
        """Adds warnings of the clusters that a request for a version of a type is about.

        Of those whose objects may be out of date, of those in which the type has no namespaces though it has them in
        others, and of those that the answer leaves out as they store another version.

        `version` None: it is for whichever they store. `chosen`: names of clusters, None for all in scope.
        """
        if (outage := self._materializer.outage_seconds()) is not None:
            self._warn_of_age(request, LogUnreachable(outage))
        clusters, now = self._materializer.store.clusters, self._materializer.silence_clock()
        stale = []
        for name in served.stored if request.cluster is None else (request.cluster,):
            if chosen is None or name in chosen:
                cluster = clusters.get(name)
                if cluster is not None and (reason := _stale(cluster, served, now)) is not None:
                    stale.append((name, reason))
        if stale:
            request.warnings += of_stale(stale)
        without = [name for name in served.without_namespaces if chosen is None or name in chosen]
        if without and (chosen is None or len(without) < len(chosen & served.stored.keys())):
            request.warnings.append(of_other_scopes(served.title, without))
        if version is not None and len(served.versions) > 1:
            left_out = sorted(
                (name, stored)
                for name, stored in served.stored.items()
                if stored != version and (chosen is None or name in chosen)
            )
            if left_out:
                request.warnings.append(of_other_versions(version, left_out))

    @staticmethod
    def _warn_of_age(request: Request, problem: LogUnreachable) -> None:
        if not request.warned_of_age:
            request.warned_of_age = True
            request.warnings.append(str(problem))


def _stale(cluster: ClusterFacts, served: ServedType, now: int) -> str | None:
    """Why what is served of a type may be out of date in a cluster; None if it is current."""
    if (reason := cluster.stale_reason(now)) is not None:
        return reason
    health = cluster.type_health.get(served.resource)
    return None if health is None or health.healthy else health.reason
