"""RBAC of all clusters, kept equal to the store: what changes, what is not known, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import HEALTH, REMOVED, STATUS, TYPE
from materializer.burying import bury
from query.access.authorization.attributes import Attributes
from query.access.authorization.members import MembersRbac
from query.access.authorization.names import ACCOUNT_OF, Names, Renaming
from query.access.authorization.rbac import TYPES
from query.identity import Identity
from tests.query.access.authorization import plain_rbac, worlds
from tests.query.access.authorization.fleet import KINDS, READER, Fleet
from tests.query.scene import away

PODS = Attributes("list", resource="pods", version="v1")
JANE = Identity("jane", groups=("dev", "system:authenticated"))


USER = {"kind": "User", "name": "jane"}
DEV = {"kind": "Group", "name": "dev"}


def seen(rbac: MembersRbac, who: Identity = JANE, what: Attributes = PODS) -> dict[str, frozenset[str] | None]:
    opinion = rbac.visible_now(who, what, rbac._materializer.store.clusters)
    assert opinion is not None
    assert not opinion.visible.whole
    assert opinion.visible.undecided == bool(opinion.undecided)
    assert not opinion.denied
    return dict(opinion.visible.clusters)


def test_each_cluster_decides_about_itself() -> None:
    fleet = Fleet("alpha", "bravo", "charlie")
    fleet.grant("alpha", "b", USER)
    fleet.grant("bravo", "b", DEV, "web")
    fleet.grant("bravo", "b", USER, "db")
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None, "bravo": frozenset({"web", "db"})}
    assert rbac.decide_now(JANE, "alpha", PODS).reason.startswith('RBAC: allowed by ClusterRoleBinding "b"')
    assert not rbac.decide_now(JANE, "bravo", PODS).allowed
    assert rbac.decide_now(JANE, "bravo", Attributes("list", resource="pods", namespace="web")).allowed
    assert not rbac.decide_now(JANE, "charlie", PODS).allowed
    assert not rbac.decide_now(JANE, None, PODS).allowed
    assert seen(rbac, Identity("joe")) == {}


def test_a_list_in_one_namespace_is_restricted_to_it() -> None:
    fleet = Fleet("alpha", "bravo", "charlie")
    fleet.grant("alpha", "b", USER)
    fleet.grant("bravo", "b", USER, "web")
    fleet.grant("charlie", "b", USER, "db")
    rbac = fleet.rbac()
    web = Attributes("list", resource="pods", namespace="web")
    assert seen(rbac, JANE, web) == {"alpha": None, "bravo": frozenset({"web"})}
    first = rbac.visible_now(JANE, web, fleet.store.clusters)
    second = rbac.visible_now(JANE, web, fleet.store.clusters)
    assert first is not None
    assert second is not None
    assert first.visible is second.visible


def test_paths_are_seen_where_they_may_be_read() -> None:
    fleet = Fleet("alpha", "bravo")
    rules = {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/api*"]}]}
    fleet.put("alpha", "clusterroles", "discovery", rules)
    binding = {"roleRef": {"kind": "ClusterRole", "name": "discovery"}, "subjects": [DEV]}
    fleet.put("alpha", "clusterrolebindings", "d", binding)
    fleet.put("bravo", "clusterroles", "discovery", rules)
    fleet.put("bravo", "rolebindings", "d", binding, "web")
    assert seen(fleet.rbac(), JANE, Attributes("get", path="/api/v1")) == {"alpha": None}


def test_only_the_clusters_that_are_asked_about() -> None:
    fleet = Fleet("alpha", "bravo", "charlie")
    for cluster in ("alpha", "bravo"):
        fleet.grant(cluster, "b", USER)
    fleet.join("delta", selector="a=b")
    rbac = fleet.rbac()
    opinion = rbac.visible_now(JANE, PODS, ["bravo", "charlie", "zulu"])
    assert opinion is not None
    assert opinion.visible.clusters == {"bravo": None}
    assert not opinion.visible.undecided
    opinion = rbac.visible_now(JANE, PODS, ["bravo", "delta"])
    assert opinion is not None
    assert opinion.undecided == {"delta"}
    assert opinion.visible.undecided


def test_what_changes_is_seen_at_once_and_what_does_not_is_the_same_object() -> None:
    fleet = Fleet("alpha", "bravo")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    first = rbac.visible_now(JANE, PODS, fleet.store.clusters)
    fleet.grant("bravo", "other", {"kind": "User", "name": "joe"})
    second = rbac.visible_now(JANE, PODS, fleet.store.clusters)
    assert first is not None
    assert second is not None
    assert first.visible is second.visible
    fleet.grant("bravo", "b", USER, "web")
    assert seen(rbac) == {"alpha": None, "bravo": frozenset({"web"})}
    fleet.drop("alpha", "clusterrolebindings", "b")
    assert seen(rbac) == {"bravo": frozenset({"web"})}
    fleet.put("bravo", "clusterroles", "reader", {"rules": []})
    assert seen(rbac) == {}
    fleet.put("bravo", "clusterroles", "reader", READER)
    assert seen(rbac) == {"bravo": frozenset({"web"})}
    fleet.drop("bravo", "clusterroles", "reader")
    assert seen(rbac) == {}
    assert "not found" in rbac.decide_now(JANE, "bravo", Attributes("list", resource="pods", namespace="web")).reason


def test_a_binding_that_was_deleted_long_before_the_next_request() -> None:
    """The tombstone may be buried by then, and takes away what the binding gave all the same."""
    fleet = Fleet("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        fleet.grant(cluster, "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None, "bravo": None}
    fleet.drop("alpha", "clusterrolebindings", "b")
    while bury(fleet.store, 2**62):
        pass
    assert not any(
        map(
            len,
            fleet.store.types[GroupResource("rbac.authorization.k8s.io", "clusterrolebindings")].tombstones.values(),
        )
    )
    assert seen(rbac) == {"bravo": None}


def test_a_cluster_that_goes_and_comes_again() -> None:
    fleet = Fleet("alpha", "bravo")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None}
    fleet.control(REMOVED, "alpha")
    assert seen(rbac) == {}
    assert rbac.undecided("alpha") == "no such cluster is followed"
    fleet.join("alpha")
    assert seen(rbac) == {}
    fleet.grant("alpha", "b", USER, "web")
    assert seen(rbac) == {"alpha": frozenset({"web"})}


def test_a_type_that_is_no_longer_synced() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None}
    fleet.control(REMOVED, "alpha", "roles")
    assert seen(rbac) == {}
    assert rbac.undecided("alpha") == "its roles.rbac.authorization.k8s.io are not synced"
    verdict = rbac.decide_now(JANE, "alpha", PODS)
    assert not verdict.allowed
    assert verdict.reason == (
        "the RBAC of this cluster is not known here: its roles.rbac.authorization.k8s.io are not synced"
    )


def test_another_history_is_read_anew() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None}
    served = fleet.materializer._served
    served.log = away("ijklmnop")
    served.begin_anew()
    assert seen(rbac) == {}
    fleet.index = 0
    fleet.join("alpha")
    fleet.grant("alpha", "b", USER, "web")
    assert seen(rbac) == {}
    assert rbac.undecided("alpha") == "the log is being replayed"
    fleet.store.finish_loading(0)
    served.ready.set()
    assert seen(rbac) == {"alpha": frozenset({"web"})}


def test_a_deletion_that_was_forgotten_unread() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {"alpha": None}
    fleet.drop("alpha", "clusterrolebindings", "b")
    fleet.store.forget(fleet.materializer.log.now() + 3_600_000_000_000)
    fleet.grant("alpha", "other", {"kind": "User", "name": "joe"})
    assert seen(rbac) == {}


@pytest.mark.parametrize("missing", KINDS)
def test_a_cluster_whose_rules_are_not_all_there_decides_nothing(missing: str) -> None:
    fleet = Fleet()
    for resource, kind in KINDS.items():
        data = {"kind": kind, "version": "v1", "namespaced": not resource.startswith("cluster")}
        fleet.control(TYPE, "alpha", resource, data=data)
    fleet.sync("alpha", *(one for one in KINDS if one != missing))
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert seen(rbac) == {}
    assert rbac.undecided("alpha") == f"its {missing}.rbac.authorization.k8s.io are not synced yet"
    fleet.sync("alpha", missing)
    assert seen(rbac) == {"alpha": None}
    assert rbac.undecided("alpha") == ""


@pytest.mark.parametrize(
    ("of_type", "reason"),
    [
        ({"namespaces": ["web"]}, "only some of its clusterroles.rbac.authorization.k8s.io are synced"),
        ({"selector": "a=b"}, "only some of its clusterroles.rbac.authorization.k8s.io are synced"),
        ({"pruned": ["/rules"]}, "its clusterroles.rbac.authorization.k8s.io are pruned"),
        ({"pruned": ["/rules/*/verbs"]}, "its clusterroles.rbac.authorization.k8s.io are pruned"),
        ({"pruned": ["/*/x"]}, "its clusterroles.rbac.authorization.k8s.io are pruned"),
        ({"pruned": ["/subjects/0"]}, "its clusterroles.rbac.authorization.k8s.io are pruned"),
        ({"pruned": ["/metadata/annotations/rules"]}, ""),
    ],
)
def test_a_cluster_that_is_synced_in_part_decides_nothing(of_type: dict[str, Any], reason: str) -> None:
    fleet = Fleet()
    fleet.join("alpha", **of_type)
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac()
    assert rbac.undecided("alpha") == reason
    assert seen(rbac) == ({} if reason else {"alpha": None})


def test_rules_that_are_too_old_decide_nothing() -> None:
    fleet = Fleet("alpha", "bravo")
    fleet.grant("alpha", "b", USER)
    fleet.grant("bravo", "b", USER)
    rbac = fleet.rbac(stale_after=60.0)
    now = fleet.materializer.log.now()
    fleet.control(HEALTH, "alpha", time=now // 1_000_000 - 30_000, data={"healthy": False, "reason": "away"})
    fleet.now += 2
    assert seen(rbac) == {"alpha": None, "bravo": None}
    fleet.control(HEALTH, "alpha", time=now // 1_000_000 - 90_000, data={"healthy": False, "reason": "away"})
    fleet.now += 2
    assert seen(rbac) == {"bravo": None}
    assert rbac.undecided("alpha") == "it is older than 60 s"
    fleet.control(HEALTH, "alpha", time=now // 1_000_000, data={"healthy": True, "reason": ""})
    assert seen(rbac) == {"alpha": None, "bravo": None}


def test_one_type_that_is_too_old_is_enough() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac(stale_after=60.0)
    long_ago = fleet.materializer.log.now() // 1_000_000 - 90_000
    fleet.control(HEALTH, "alpha", "rolebindings", time=long_ago, data={"healthy": False, "reason": "forbidden"})
    fleet.now += 2
    assert seen(rbac) == {}
    fleet.sync("alpha", "rolebindings")
    assert seen(rbac) == {"alpha": None}


def test_a_producer_that_is_silent_makes_rules_old() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac(stale_after=60.0)
    ago = fleet.materializer.log.now() - 50_000_000_000
    fleet.control(STATUS, "alpha", at=ago, data={"types": {}, "every": 1000})
    fleet.now += 2
    assert fleet.materializer.stale_reason(fleet.store.clusters["alpha"]) is not None
    assert seen(rbac) == {"alpha": None}
    fleet.control(STATUS, "alpha", at=ago - 50_000_000_000, data={"types": {}, "every": 1000})
    fleet.now += 2
    assert seen(rbac) == {}


def test_a_log_that_cannot_be_read_makes_all_rules_old() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    rbac = fleet.rbac(stale_after=60.0)
    assert seen(rbac) == {"alpha": None}
    freshness = fleet.materializer._freshness
    freshness.unreadable_since = 1.0
    fleet.now += 2
    assert seen(rbac) == {"alpha": None}
    freshness.current_at -= 90
    fleet.now += 2
    assert seen(rbac) == {}
    freshness.unreadable_since = None
    fleet.now += 2
    assert seen(rbac) == {"alpha": None}


async def test_listeners_are_woken_by_changes_of_rules_alone() -> None:
    fleet = Fleet("alpha")
    rbac = fleet.rbac()
    assert seen(rbac) == {}
    woken = asyncio.Event()
    stop = rbac.listen(woken.set)
    fleet.grant("alpha", "b", USER)
    fleet.tell()
    async with asyncio.timeout(10):
        await woken.wait()
    assert seen(rbac) == {"alpha": None}
    # A request that came before it was woken has taken the change in; it must be woken all the same.
    woken.clear()
    fleet.drop("alpha", "clusterrolebindings", "b")
    assert seen(rbac) == {}
    fleet.tell()
    async with asyncio.timeout(10):
        await woken.wait()
    woken.clear()
    stop()
    assert not fleet.materializer._waiting._listeners


async def test_running_has_listeners_woken_when_rules_become_known_or_too_old() -> None:
    fleet = Fleet("alpha")
    fleet.grant("alpha", "b", USER)
    fleet.join("bravo", selector="x=y")
    rbac = fleet.rbac(stale_after=60.0)
    woken = asyncio.Event()
    stop = rbac.listen(woken.set)
    running = asyncio.create_task(rbac.run())
    async with asyncio.timeout(20):
        await woken.wait()
        woken.clear()
        long_ago = fleet.materializer.log.now() // 1_000_000 - 90_000
        fleet.control(HEALTH, "alpha", time=long_ago, data={"healthy": False, "reason": "away"})
        fleet.now += 2
        fleet.tell()
        await woken.wait()
    assert seen(rbac) == {}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stop()


async def test_many_clusters_are_compiled_in_turns() -> None:
    fleet = Fleet(*(f"c{number:03}" for number in range(100)))
    for number in range(0, 100, 2):
        fleet.grant(f"c{number:03}", "b", USER)
    rbac = fleet.rbac()
    assert rbac.visible_now(JANE, PODS, fleet.store.clusters) is None
    opinion = await rbac.visible(JANE, PODS, fleet.store.clusters)
    assert len(opinion.visible.clusters) == 50
    assert rbac.visible_now(JANE, PODS, fleet.store.clusters) is not None


def test_what_is_remembered_is_bounded() -> None:
    fleet = Fleet("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        for space in ("web", "db"):
            fleet.grant(cluster, "b", DEV, space)
    rbac = fleet.rbac(most=100)
    for number in range(40):
        who = Identity(f"user{number}", groups=("dev",))
        assert len(seen(rbac, who)) == 2
        assert rbac._weight <= 100
        assert sum(one.weight for one in rbac._answers.values()) == rbac._weight
    fleet.grant("alpha", "c", DEV, "more")
    assert len(seen(rbac, Identity("user39", groups=("dev",)))["alpha"] or ()) == 3
    assert sum(one.weight for one in rbac._answers.values()) == rbac._weight


def test_rules_of_one_cluster_and_of_any() -> None:
    fleet = Fleet("alpha", "bravo")
    fleet.grant("alpha", "b", USER)
    fleet.grant("bravo", "b", USER)
    rbac = fleet.rbac()
    rule = READER["rules"][0]
    assert [one.verbs for one in rbac.rules(JANE, "alpha", "web").rules] == [tuple(rule["verbs"])]
    everywhere = rbac.rules(JANE, None, "web")
    assert len(everywhere.rules) == 1
    assert not everywhere.incomplete
    fleet.join("charlie", selector="a=b")
    assert rbac.rules(JANE, None, "web").incomplete
    assert rbac.rules(JANE, "charlie", "web").incomplete
    assert not rbac.rules(JANE, "charlie", "web").rules


# -- who somebody is in a cluster ----------------------------------------------------------------------------------


def test_names_may_be_others_in_a_cluster() -> None:
    fleet = Fleet("alpha", "prod-1")
    fleet.grant("alpha", "b", USER)
    fleet.grant("prod-1", "b", {"kind": "Group", "name": "corp:dev"}, "web")
    names = Names([Renaming(("prod-*",), user_prefix="corp:", group_prefix="corp:")])
    assert seen(fleet.rbac(names=names)) == {"alpha": None, "prod-1": frozenset({"web"})}


@pytest.mark.parametrize(
    ("renaming", "who", "expected"),
    [
        (Renaming(user_prefix="o:"), Identity("jane"), Identity("o:jane")),
        (Renaming(user_prefix="o:", group_prefix="g:"), Identity("system:node:a", groups=("system:nodes", "dev")),
         Identity("system:node:a", groups=("system:nodes", "g:dev"))),
        (Renaming(users={"jane": "j"}, user_prefix="o:"), Identity("jane"), Identity("j")),
        (Renaming(groups={"dev": "", "ops": "x"}), Identity("jane", groups=("dev", "ops", "qa")),
         Identity("jane", groups=("x", "qa"))),
        (Renaming(strip_user_prefix="a:", user_prefix="b:"), Identity("a:jane"), Identity("b:jane")),
        (Renaming(strip_user_prefix="a:", user_prefix="b:"), Identity("jane"), Identity("jane")),
        # No prefix makes a name that Kubernetes keeps for itself.
        (Renaming(strip_group_prefix="a:"), Identity("x", groups=("a:system:masters",)),
         Identity("x", groups=("a:system:masters",))),
        (Renaming(group_prefix="system:"), Identity("x", groups=("masters",)), Identity("x", groups=("masters",))),
        (Renaming(strip_user_prefix="a:"), Identity("a:"), Identity("a:")),
    ],
)  # fmt: skip
def test_renaming(renaming: Renaming, who: Identity, expected: Identity) -> None:
    assert Names([renaming]).within("alpha", who) == expected


def test_a_service_account_is_one_of_its_own_cluster_alone() -> None:
    fleet = Fleet("alpha", "bravo", "prod-1")
    for cluster in fleet.store.clusters:
        fleet.grant(cluster, "b", {"kind": "ServiceAccount", "name": "bot", "namespace": "web"})
        fleet.grant(cluster, "g", {"kind": "Group", "name": "system:serviceaccounts:web"}, "db")
    bot = Identity(
        "system:serviceaccount:web:bot",
        groups=("system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated"),
        extra=((ACCOUNT_OF, ("bravo",)),),
    )
    assert seen(fleet.rbac(), bot) == {"bravo": None}
    names = Names([Renaming(("prod-*",), service_accounts=True)])
    assert seen(fleet.rbac(names=names), bot) == {"bravo": None, "prod-1": None}
    assert seen(fleet.rbac(), Identity(bot.name, groups=bot.groups)) == {}
    authenticated = {"kind": "Group", "name": "system:authenticated"}
    fleet.grant("alpha", "all", authenticated, "public")
    assert seen(fleet.rbac(), bot) == {"bravo": None, "alpha": frozenset({"public"})}


def test_masters_by_a_table_are_masters_of_that_cluster() -> None:
    fleet = Fleet("alpha", "bravo")
    names = Names([Renaming(("alpha",), groups={"dev": "system:masters"})])
    assert seen(fleet.rbac(names=names)) == {"alpha": None}


# -- random changes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_changes_leave_what_a_plain_evaluation_says(seed: int) -> None:
    random = Random(seed)
    clusters = ("alpha", "bravo", "charlie")
    fleet = Fleet(*clusters)
    there = {cluster: worlds.world(random, wild=True) for cluster in clusters}
    for cluster, world in there.items():
        for resource, made in objects_of(world):
            write(fleet, cluster, resource, made)
    rbac = fleet.rbac()
    for step in range(60):
        cluster = random.choice(clusters)
        resource = random.choice(tuple(KINDS))
        objects = list_of(there[cluster], resource)
        if objects and random.random() < 0.5:
            gone = objects.pop(random.randrange(len(objects)))
            namespace, name = worlds.place(gone)
            fleet.drop(cluster, resource, name, namespace)
        else:
            space = "" if resource.startswith("cluster") else random.choice(worlds.NAMESPACES)
            if resource.endswith("bindings"):
                made = worlds.binding(random, random.choice(("b0", f"n{step}")), space, wild=True)
            else:
                made = worlds.role(random, random.choice(worlds.ROLE_NAMES), space)
            objects[:] = [one for one in objects if worlds.place(one) != worlds.place(made)] + [made]
            write(fleet, cluster, resource, made)
        if random.random() < 0.05:
            fleet.control(REMOVED, cluster)
            fleet.join(cluster)
            for kind in KINDS:
                list_of(there[cluster], kind).clear()
        if random.random() < 0.3:
            continue
        for _ in range(5):
            asked = worlds.request(random, there[random.choice(clusters)])
            who = worlds.identity(asked)
            if who.name.startswith("system:serviceaccount:"):
                continue
            what = worlds.attributes(asked)
            for one in clusters:
                allowed, _, _ = plain_rbac.authorize(there[one], asked)
                assert rbac.decide_now(who, one, what).allowed == allowed
            assert seen(rbac, who, what) == seen(fleet.rbac(), who, what)


def objects_of(world: plain_rbac.World) -> Iterator[tuple[str, plain_rbac.Object]]:
    for resource in KINDS:
        for one in list_of(world, resource):
            yield resource, one


def list_of(world: plain_rbac.World, resource: str) -> list[plain_rbac.Object]:
    return {
        "clusterroles": world.cluster_roles,
        "roles": world.roles,
        "clusterrolebindings": world.cluster_role_bindings,
        "rolebindings": world.role_bindings,
    }[resource]


def write(fleet: Fleet, cluster: str, resource: str, made: plain_rbac.Object) -> None:
    namespace, name = worlds.place(made)
    fleet.put(cluster, resource, name, made, namespace)


def test_the_types_that_decide_are_those_of_the_fleet() -> None:
    assert {one.resource for one in TYPES} == set(KINDS)


def test_all_who_are_authenticated_may_be_nobody_in_a_cluster() -> None:
    fleet = Fleet("alpha", "bravo")
    for cluster in fleet.store.clusters:
        fleet.grant(cluster, "all", {"kind": "Group", "name": "system:authenticated"})
    names = Names([Renaming(("alpha",), groups={"system:authenticated": ""})])
    assert seen(fleet.rbac(names=names)) == {"bravo": None}
