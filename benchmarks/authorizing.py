"""Authorizing: decisions by the RBAC of many clusters, in memory, and by looking at every binding of a cluster.

Times are of the processor: nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec

from benchmarks import rig, roles
from benchmarks.report import Report, median
from deltalog import ADDED, Delta, Log
from deltalog.wire.records import ClusterRegistered, ControlRecord, TypeSynced
from materializer.materializer import Materializer
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Chain
from query.access.authorization.members import MembersRbac
from query.access.authorization.rbac import GROUP, TYPES, Binding, ClusterRbac
from query.identity import Identity

_ROUNDS = 9
_DECISIONS = 20_000
# Of the cluster with many bindings.
_BINDINGS = 5_000
_NAMESPACES = 500
_PODS = Attributes("list", "", "v1", "pods")


class _Fleet:
    """A store of clusters' roles and bindings, without a log."""

    def __init__(self) -> None:
        log = Log.unreached("nats://127.0.0.1:1", "log", created="2026", prefix="abcdefgh", tombstone_ttl=3600)
        self.materializer = Materializer(log)
        self.store = self.materializer.store
        self.index = 0

    def ready(self) -> None:
        self.store.finish_loading(self.materializer.log.now())
        self.materializer.ready.set()

    def join(self, cluster: str) -> None:
        self._control(cluster, ClusterRegistered(version={}))
        for key in TYPES:
            self._control(cluster, roles.type_of(key.resource))
            self._control(cluster, TypeSynced(resource=key, version="1"))

    def _control(self, cluster: str, fact: Any) -> None:
        self.index += 1
        record = ControlRecord(cluster=cluster, time=0, producer="p", epoch=0, fact=fact)
        self.store.apply_control(record, self.index, self.materializer.log.now())

    def put(self, cluster: str, resource: str, namespace: str, name: str, content: dict[str, Any]) -> None:
        self.index += 1
        kind = roles.type_of(resource).kind
        head = b'{"kind":"%s","apiVersion":"%s/v1","metadata":{' % (kind.encode(), GROUP.encode())
        metadata = msgspec.json.encode({"name": name, "namespace": namespace})[1:]
        delta = Delta(
            type=ADDED,
            cluster=cluster,
            group=GROUP,
            version="v1",
            resource=resource,
            namespace=namespace,
            name=name,
            uid=f"{cluster}{resource}{namespace}{name}",
            member_version=str(self.index),
            time=0,
            producer="p",
            epoch=0,
            labels={},
            version_offset=len(head),
            metadata_end=len(head) + len(metadata),
            object=head + metadata + b"," + msgspec.json.encode(content)[1:],
        )
        self.store.apply_delta(delta, self.index, self.materializer.log.now())

    def usual(self, cluster: str, number: int) -> None:
        """Roles as every cluster has them, bindings of a few teams."""
        self.join(cluster)
        for rule in roles.usual(number):
            self.put(cluster, *rule)


def _timed(work: Callable[[], object], times: int = 1) -> float:
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def _looking_at_all(rbac: ClusterRbac, who: Identity, what: Attributes) -> bool:
    """What kube-apiserver does: each binding of the cluster and of the namespace, in turn."""
    bindings: list[Binding] = list(rbac._bindings.values())
    names = {(False, who.name), *((True, group) for group in who.groups)}
    for binding in bindings:
        if binding.namespace not in ("", what.namespace) or binding.rules is None:
            continue
        if any((one.kind == "Group", one.name) in names for one in binding.subjects) and any(
            rule.allows(what.verb, what.group, what.resource, what.subresource) for rule in binding.rules.rules
        ):
            return True
    return False


async def _measure(pipe: Pipe, clusters: int) -> None:
    fleet = _Fleet()
    for number in range(clusters):
        fleet.usual(f"c{number:04}", number)
    fleet.join("large")
    fleet.put("large", "clusterroles", "", "view", roles.reading([""], ["pods"]))
    for number in range(_BINDINGS):
        namespace = f"n{number % _NAMESPACES}"
        fleet.put(
            "large", "rolebindings", namespace, f"b{number}", roles.bound("view", f"group{number % 997}", "Group")
        )
    fleet.ready()
    members = MembersRbac(fleet.materializer)
    chain = Chain([members])
    compiling = _timed(lambda: members.decide_now(Identity("jane"), "large", _PODS))
    groups = (*(f"group{number}" for number in range(8)), "system:authenticated")
    jane = Identity("jane", groups=groups)
    within = Attributes("list", "", "v1", "pods", namespace="n7")
    without = Attributes("list", "", "v1", "secrets", namespace="n7")
    assert members.decide_now(jane, "large", within).allowed
    assert not members.decide_now(jane, "large", without).allowed
    allowed = median([_timed(lambda: chain.decide_now(jane, "large", within), _DECISIONS) for _ in range(_ROUNDS)])
    refused = median([_timed(lambda: chain.decide_now(jane, "large", without), _DECISIONS) for _ in range(_ROUNDS)])
    strangers = iter([Identity(f"user{number}", groups=groups) for number in range(_DECISIONS)])
    new = _timed(lambda: chain.decide_now(next(strangers), "large", within), _DECISIONS)
    plain = median([_timed(lambda: _looking_at_all(members._compiled("large"), jane, without), 20) for _ in range(5)])

    started = time.process_time()
    await chain.visible(jane, _PODS, fleet.store.clusters)
    first = time.process_time() - started
    others = [Identity(f"user{number}", groups=groups[number % 3 :]) for number in range(_ROUNDS)]
    another = median([_timed(lambda: chain.visible_now(one, _PODS, fleet.store.clusters)) for one in others])  # noqa: B023
    again = median([_timed(lambda: chain.visible_now(jane, _PODS, fleet.store.clusters), 20) for _ in range(_ROUNDS)])

    def changed(number: int) -> float:
        fleet.put("c0001", "rolebindings", f"team-{number}", "view", roles.bound("view", "group1", "Group"))
        return _timed(lambda: chain.visible_now(jane, _PODS, fleet.store.clusters))

    after_change = median([changed(number) for number in range(_ROUNDS)])
    visible = chain.visible_now(jane, _PODS, fleet.store.clusters)
    assert visible is not None
    pipe.send((allowed, refused, new, plain, compiling, first, another, again, after_change, len(visible.clusters)))


async def run(*, clusters: int) -> Report:
    found = await rig.fresh(_measure, clusters)
    allowed, refused, new, plain, compiling, first, another, again, after_change, shown = found
    report = Report(
        "access",
        f"{_BINDINGS:,} bindings in a cluster; {clusters:,} of {roles.USUAL + 1} roles and "
        f"{roles.USUAL + roles.TEAMS} bindings",
        ("what", "us"),
    )
    report.row("allowed", allowed * 1e6)
    report.row("refused", refused * 1e6)
    report.row("allowed, of a user who never came before", new * 1e6)
    report.row("refused by looking at every binding", plain * 1e6)
    report.row("a list over all clusters, nothing changed", again * 1e6)
    report.row("the same after a change in one cluster", after_change * 1e6)
    report.row("the same of another user", another * 1e6)
    report.row("the same of the first user, clusters compiled", first * 1e6)
    report.row("the cluster with many bindings compiled", compiling * 1e6)
    report.notes.append(f"{shown:,} of {clusters + 1:,} clusters show something")
    report.ratio("decision", 20e-6 / max(allowed, refused), "times as fast as 20 us", 1.0)
    report.ratio("list", 2e-3 / again, "times as fast as 2 ms", 1.0)
    report.ratio("bindings", plain / refused, "times as fast as looking at every binding")
    return report
