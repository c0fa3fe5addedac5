"""Readiness: whether the first lists of all clusters are served here, and if not, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import TypeStatus
from materializer.cluster_facts import ClusterFacts
from materializer.materializer import Materializer
from materializer.streams import LogStreams
from materializer.visible import EVERYTHING, Visible
from query.http.health import Check, failed, passed, ready, report, warning


class ClusterReadiness(msgspec.Struct, frozen=True):
    """One cluster. `known`: its types were discovered; `missing`: those whose first lists are not in the log yet.

    `stale`: why its objects may be out of date, None if they are current. `producer` and `epoch`: who appends its
    deltas now; `types`: the producer's last status of each (docs/log.md, `status`), with `objects` as they are here
    now.
    """

    name: str
    known: bool
    missing: tuple[str, ...]
    stale: str | None
    producer: str = ""
    epoch: int = 0
    types: dict[str, dict[str, Any]] = {}

    @property
    def ready(self) -> bool:
        """A cluster that is down does not delay readiness: what is known of it is served, marked as stale."""
        return self.stale is not None or (self.known and not self.missing)

    @property
    def undiscovered(self) -> bool:
        """Whether its types are about to be known; one that is down is not waited for."""
        return not self.known and self.stale is None


SeenObjects = Mapping[GroupResource, Visible]
"""By type, what may be seen of its objects."""


def _whole(objects: SeenObjects | None, key: GroupResource, cluster: str) -> bool:
    """Whether all objects of a type in a cluster may be seen."""
    if objects is None:
        return True
    seen = objects.get(key)
    return seen is not None and (seen.whole or seen.clusters.get(cluster, ()) is None)


class Readiness:
    """Answers /readyz from the store. `expected`: clusters that must be there, beside those in the log.

    `not_ready_after`: seconds without contact to the log after which it is not ready; 0: it stays ready. `others`:
    what is said of other parts of the process, for which it is not ready where one failed.
    """

    def __init__(
        self,
        materializer: Materializer,
        expected: Callable[[], Iterable[str]] = tuple,
        not_ready_after: float = 0.0,
        others: Callable[[], Iterable[Check]] = tuple,
    ) -> None:
        self._materializer = materializer
        self._expected = expected
        self._not_ready_after = not_ready_after
        self._others = others
        # A cluster that was not ready when last looked at: the others are not looked at before it is.
        self._unready = ""

    def names(self) -> set[str]:
        """The names of all clusters in the log or expected; also of those that it had before all of it was lost."""
        return {*self._materializer.store.clusters, *self._expected(), *self._materializer.former_clusters}

    def clusters(
        self, *, types: bool = False, seen: Visible = EVERYTHING, objects: SeenObjects | None = None
    ) -> list[ClusterReadiness]:
        """All that are seen, by name; with what is known of their types, which is most of the work, if asked for.

        `objects`: what may be seen of each type; None: all of it.
        """
        names = self.names() if seen.whole else self.names() & seen.clusters.keys()
        return [self._of(name, types=types, objects=objects) for name in sorted(names)]

    def document(self, seen: Visible = EVERYTHING, objects: SeenObjects | None = None) -> dict[str, Any]:
        """All of it, as `/clusters` answers. `outage`: seconds since the log could be read, if it cannot now.

        `streams`: see `LogStreams.document`; None before they were looked at. Who does not see everything gets nothing
        that is about other clusters too.
        """
        materializer = self._materializer
        clusters = self.clusters(types=True, seen=seen, objects=objects)
        streams = materializer.streams if seen.whole else None
        replayed = materializer.ready.is_set() and not self._cut_off()
        return {
            "ready": self.ready() if seen.whole else replayed and all(one.ready for one in clusters),
            "outage": materializer.outage_seconds(),
            "notes": [check.line for check in self._others()] if seen.whole else [],
            "index": materializer.store.applied,
            "prefix": materializer.store.prefix,
            "streams": None if streams is None else streams.document(self._trouble(streams)),
            "clusters": [msgspec.to_builtins(one) for one in clusters],
        }

    def ready(self) -> bool:
        """Whether /readyz is 200. Asked at each control record until it is: most times one cluster is looked at."""
        replayed = self._materializer.ready.is_set() and not self._cut_off()
        return replayed and ready(self._others()) and not self._any_unready()

    def _any_unready(self) -> bool:
        names = self.names()
        if self._unready in names and not self._of(self._unready).ready:
            return True
        self._unready = next((name for name in names if not self._of(name).ready), "")
        return bool(self._unready)

    def _cut_off(self) -> bool:
        """Whether so much may have been missed that clients should ask other instances."""
        outage = self._materializer.outage_seconds()
        return bool(self._not_ready_after) and outage is not None and outage > self._not_ready_after

    def unsettled(self, cluster: str | None, seen: Visible = EVERYTHING) -> str:
        """Why a path that is unknown now may be known soon in a scope (None: that of all seen); empty if it won't.

        Types are not known yet of clusters that are being discovered (those that are down are not waited for), nor
        where no cluster is in the log so far.
        """
        if undiscovered := [one.name for one in self._scope(cluster, seen) if one.undiscovered]:
            return f"the types of {', '.join(undiscovered)} are being discovered"
        if cluster is None and seen.undecided:
            return "the access rules of some clusters are not known"
        return "" if self.names() else "no cluster is in the log yet"

    def blank(self, cluster: str | None, seen: Visible = EVERYTHING) -> bool:
        """Whether no cluster in scope has been discovered yet, and one is about to be."""
        scope = self._scope(cluster, seen)
        return any(one.undiscovered for one in scope) and not any(one.known for one in scope)

    def _scope(self, cluster: str | None, seen: Visible) -> list[ClusterReadiness]:
        if cluster is None:
            return self.clusters(seen=seen)
        return [self._of(cluster)] if cluster in self.names() else []

    def checks(self, seen: Visible = EVERYTHING, objects: SeenObjects | None = None) -> list[Check]:
        """What /readyz?verbose tells: of the log, of other parts of the process, of each cluster that is seen."""
        materializer = self._materializer
        index = materializer.store.applied
        replayed = materializer.ready.is_set()
        checks = [
            passed(f"log replayed to index {index}") if replayed else failed(f"log being replayed, at index {index}")
        ]
        if (outage := materializer.outage_seconds()) is not None:
            limit = f" (not ready after {self._not_ready_after:g} s)" if self._not_ready_after else ""
            meanwhile = ": serving what was known then" if replayed else ""
            text = f"log unreachable for {outage:.0f} s{meanwhile}{limit}"
            checks.append(failed(text) if self._cut_off() else warning(text))
        if seen.whole and (streams := materializer.streams) is not None:
            checks.append(passed(streams.text))
            if (trouble := self._trouble(streams)) is not None:
                checks.append(warning(trouble))
        if seen.whole:
            checks.extend(self._others())
        clusters = self.clusters(seen=seen)
        if (lacks_to := materializer.lacks_to) and any(one.missing and one.stale is None for one in clusters):
            checks.append(warning(f"the log had lost some of what is older than index {lacks_to}: it is listed again"))
        for cluster in clusters:
            checks.append(_check(cluster))
            checks.extend(self._odd(cluster.name, objects))
        return checks

    def _odd(self, name: str, objects: SeenObjects | None) -> Iterable[Check]:
        """What is said of objects that are not served as they are."""
        cluster = self._materializer.store.clusters.get(name)
        said = [one for one in cluster.status.items() if one[1].odd_lines] if cluster is not None else []
        for resource, status in sorted(said, key=lambda one: one[0]):
            if not _whole(objects, resource, name):
                continue
            more = status.odd - len(status.odd_lines)
            text = "; ".join(status.odd_lines) + (f"; and {more} more" if more > 0 else "")
            yield warning(f"cluster {name}: {resource}: {text}")

    def _trouble(self, streams: LogStreams) -> str | None:
        lacks_to = streams.lacks_to
        clusters = sorted(self._materializer.store.clusters.items()) if lacks_to else ()
        return streams.trouble([name for name, cluster in clusters if cluster.missing_past(lacks_to)])

    def probe(
        self, name: str, *, verbose: bool, seen: Visible = EVERYTHING, objects: SeenObjects | None = None
    ) -> tuple[int, str]:
        """Status and text of `healthz`, `livez` or `readyz`. Only the last one may fail, and then says why."""
        if name != "readyz":
            return 200, report([passed("ping ok")], name) if verbose else "ok"
        is_ready = self.ready()
        checks = self.checks(seen, objects) if verbose or not is_ready else []
        if not is_ready and ready(checks):
            checks.append(failed("what is not shown here is not ready"))
        return (200 if is_ready else 503), report(checks) if checks else "ok"

    def _of(self, name: str, *, types: bool = False, objects: SeenObjects | None = None) -> ClusterReadiness:
        cluster = self._materializer.store.clusters.get(name)
        if cluster is None:
            return ClusterReadiness(name, False, (), None)
        # What the log had lost is complete again with each type's next list.
        missing = tuple(map(str, sorted(cluster.missing_past(self._materializer.lacks_to))))
        stale = self._materializer.stale_reason(cluster)
        known = self._types(name, cluster, objects) if types else {}
        return ClusterReadiness(name, cluster.registered, missing, stale, cluster.producer, cluster.epoch, known)

    def _types(self, name: str, cluster: ClusterFacts, objects: SeenObjects | None) -> dict[str, dict[str, Any]]:
        types: dict[str, dict[str, Any]] = {}
        for key in sorted(cluster.types):
            if not _whole(objects, key, name):
                # How many objects there are, and how often they change, is about those that may not be seen, too.
                types[str(key)] = {"synced": key in cluster.synced}
                continue
            type_store = self._materializer.store.types.get(key)
            number = 0 if type_store is None else len(type_store.clusters.get(name, ()))
            status = {"synced": key in cluster.synced, **msgspec.to_builtins(cluster.status.get(key, TypeStatus()))}
            health = cluster.type_health.get(key)
            if health is not None and not health.healthy:
                status["error"] = health.reason
            types[str(key)] = {**status, "objects": number}
        return types


def _check(cluster: ClusterReadiness) -> Check:
    if cluster.stale is not None:
        return warning(f"cluster {cluster.name} is stale: {cluster.stale}")
    if not cluster.known:
        return failed(f"cluster {cluster.name}: its types are being discovered")
    if cluster.missing:
        shown = ", ".join(cluster.missing[:5]) + (", ..." if len(cluster.missing) > 5 else "")
        return failed(f"cluster {cluster.name}: first lists missing: {shown}")
    return passed(f"cluster {cluster.name} ok")
