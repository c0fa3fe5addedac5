"""RBAC of one cluster: compared with a plain transcription of Kubernetes', over random worlds and requests."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from query.access.authorization.attributes import Attributes
from query.access.authorization.rbac import ClusterRbac
from query.access.authorization.rules import PolicyRule
from query.access.authorization.verdicts import Decision
from query.identity import Identity
from tests.query.access.authorization import plain_rbac, worlds
from tests.query.access.authorization.plain_rbac import World

JANE = b'{"roleRef":{"kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"User","name":"jane"}]}'
READER = b'{"rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}]}'


def aggregate(errors: set[str]) -> set[str]:
    """What may be said of errors, in any order."""
    if not errors:
        return {""}
    if len(errors) == 1:
        return {f"RBAC: {next(iter(errors))}"}
    return set()


def compare(rbac: ClusterRbac, world: World, random: Random, requests: int) -> int:
    """Fails on a difference; returns how many requests were allowed."""
    allowed_count = 0
    for _ in range(requests):
        asked = worlds.request(random, world)
        allowed, reasons, errors = plain_rbac.authorize(world, asked)
        verdict = rbac.decide(worlds.identity(asked), worlds.attributes(asked))
        context = (asked, world)
        assert verdict.allowed == allowed, context
        assert verdict.error == "", context
        if allowed:
            allowed_count += 1
            assert verdict.reason in reasons, context
        else:
            assert verdict.decision is Decision.NO_OPINION
            if len(errors) < 2:
                assert verdict.reason in aggregate(errors), context
            else:
                assert verdict.reason.startswith("RBAC: ["), context
                assert set(verdict.reason[7:-1].split(", ")) == errors, context
        everywhere = replace(asked, namespace="")
        spaces = frozenset(
            space
            for space in (*worlds.NAMESPACES, "other")
            if plain_rbac.authorize(world, replace(asked, namespace=space))[0]
        )
        within = rbac.namespaces(worlds.identity(asked), worlds.attributes(asked))
        if plain_rbac.authorize(world, everywhere)[0]:
            assert within is None, context
        elif asked.resource_request:
            assert within == spaces, context
        else:
            assert within == frozenset(), context
        rules, _ = rbac.rules(worlds.identity(asked), asked.namespace)
        visited = plain_rbac.visit_rules(world, asked.user, asked.groups, asked.namespace)
        wanted = [one for _, one, _ in visited if one is not None]
        assert sorted(map(text_of, rules)) == sorted(text_of(read(one)) for one in wanted), context
    return allowed_count


def read(rule: plain_rbac.Object) -> PolicyRule:
    def texts(key: str) -> tuple[str, ...] | None:
        found = rule.get(key)
        return None if found is None else tuple(found)

    return PolicyRule(
        texts("verbs"), texts("apiGroups"), texts("resources"), texts("resourceNames"), texts("nonResourceURLs")
    )


def text_of(rule: PolicyRule) -> str:
    return repr(rule)


@pytest.mark.parametrize("seed", range(150))
def test_decides_as_kubernetes_does(seed: int) -> None:
    random = Random(seed)
    world = worlds.world(random, wild=seed % 2 == 1)
    allowed = compare(worlds.compiled(world), world, random, 60)
    # A world that allows all or nothing shows little.
    assert allowed < 60


def test_random_worlds_allow_and_refuse() -> None:
    allowed = 0
    for seed in range(40):
        random = Random(f"{seed}")
        world = worlds.world(random)
        allowed += sum(plain_rbac.authorize(world, worlds.request(random, world))[0] for _ in range(50))
    assert 500 < allowed < 1500


@pytest.mark.parametrize("seed", range(25))
def test_changes_one_by_one_leave_what_a_new_one_has(seed: int) -> None:
    random = Random(seed)
    world = worlds.world(random, wild=True)
    rbac = worlds.compiled(world)
    for step in range(30):
        change(random, rbac, world, step)
        compare(rbac, world, random, 6)
    # Nothing is left of what has gone.
    for objects in (world.cluster_role_bindings, world.role_bindings):
        for one in list(objects):
            rbac.drop_binding(*worlds.place(one))
    assert not rbac._users
    assert not rbac._groups
    assert not rbac._of_role


def change(random: Random, rbac: ClusterRbac, world: World, step: int) -> None:
    kind = random.choice(("cluster_roles", "roles", "cluster_role_bindings", "role_bindings"))
    objects: list[plain_rbac.Object] = getattr(world, kind)
    namespace = random.choice(worlds.NAMESPACES) if kind in ("roles", "role_bindings") else ""
    if objects and random.random() < 0.5:
        gone = objects.pop(random.randrange(len(objects)))
        if kind.endswith("bindings"):
            rbac.drop_binding(*worlds.place(gone))
        else:
            rbac.drop_role(*worlds.place(gone))
        return
    if kind.endswith("bindings"):
        name = random.choice((f"new{step}", *(one["metadata"]["name"] for one in objects[:1])))
        made = worlds.binding(random, name, namespace, wild=True)
        rbac.put_binding(*worlds.place(made), worlds.encoded(made))
    else:
        made = worlds.role(random, random.choice(worlds.ROLE_NAMES), namespace)
        rbac.put_role(*worlds.place(made), worlds.encoded(made))
    objects[:] = [one for one in objects if worlds.place(one) != worlds.place(made)] + [made]


def test_reasons_are_those_of_a_kube_apiserver() -> None:
    rbac = ClusterRbac.of([("", "reader", READER)])
    rbac.put_binding("", "g", worlds.encoded(_binding("ClusterRole", "reader", kind="Group", name='d"v')))
    rbac.put_binding(
        "web", "s", worlds.encoded(_binding("ClusterRole", "reader", kind="ServiceAccount", name="bot", namespace=""))
    )
    pods = Attributes("list", resource="pods", namespace="web")
    by_group = rbac.decide(Identity("jane", groups=('d"v',)), pods)
    assert by_group.reason == 'RBAC: allowed by ClusterRoleBinding "g" of ClusterRole "reader" to Group "d\\"v"'
    account = rbac.decide(Identity("system:serviceaccount:web:bot"), pods)
    assert account.reason == 'RBAC: allowed by RoleBinding "s/web" of ClusterRole "reader" to ServiceAccount "bot/web"'
    rbac.drop_role("", "reader")
    refused = rbac.decide(Identity("jane", groups=('d"v',)), pods)
    assert refused.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found'


def _binding(ref_kind: str, role: str, **subject: str) -> plain_rbac.Object:
    return {"roleRef": {"kind": ref_kind, "name": role}, "subjects": [subject]}


def test_masters_need_no_rule() -> None:
    rbac = ClusterRbac()
    masters = Identity("admin", groups=("system:masters",))
    assert rbac.decide(masters, Attributes("delete", resource="nodes")).allowed
    assert rbac.namespaces(masters, Attributes("list", resource="pods")) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"rules":{}}', b'{"rules":[{"verbs":"get"}]}', b'{"rules":[7]}'])
def test_a_malformed_role_gives_nothing(content: bytes) -> None:
    rbac = ClusterRbac.of(
        [("", "reader", content)],
        [("", "b", JANE)],
    )
    assert not rbac.decide(Identity("jane"), Attributes("get", resource="pods")).allowed


@pytest.mark.parametrize("content", [b"", b"[]", b'{"subjects":{}}', b'{"subjects":[{"kind":1}]}', b'{"roleRef":[]}'])
def test_a_malformed_binding_gives_nothing_and_takes_back_what_it_gave(content: bytes) -> None:
    rbac = ClusterRbac.of(
        [("", "reader", READER)],
        [("", "b", JANE)],
    )
    pods = Attributes("get", resource="pods", name="a")
    assert rbac.decide(Identity("jane"), pods).allowed
    rbac.put_binding("", "b", content)
    assert not rbac.decide(Identity("jane"), pods).allowed


def test_answers_to_any_number_of_words_are_bounded() -> None:
    rbac = ClusterRbac.of(
        [("", "reader", READER)],
        [("", "b", JANE)],
    )
    for number in range(5000):
        assert not rbac.decide(Identity("jane"), Attributes("get", resource=f"word{number}")).allowed
    rules = next(iter(rbac._bindings.values())).rules
    assert rules is not None
    assert len(rules._answers) <= 256
    assert rbac.decide(Identity("jane"), Attributes("get", resource="pods")).allowed


def test_roles_with_equal_rules_share_them() -> None:
    one, other = ClusterRbac(), ClusterRbac()
    one.put_role("", "reader", READER)
    other.put_role("web", "viewer", READER)
    assert one._roles["", "reader"] is other._roles["web", "viewer"]
