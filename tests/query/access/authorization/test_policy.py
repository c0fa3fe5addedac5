"""The policy file: what its rules allow, which files are refused, and that it is read anew."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from deltalog.wire.subjects import TYPE
from query.access.authorization.attributes import Attributes
from query.access.authorization.policy import PolicyFile, read_policy
from query.access.errors import BadAccessFile
from query.identity import NOBODY, Identity
from tests.materializer.conftest import made_control, made_delta
from tests.query.access.authorization.fleet import Fleet

POLICY = """
rules:
  - groups: [sre]
    clusters: ["prod-*"]
    namespaces: ["*"]
    verbs: [get, list]
    apiGroups: ["", apps]
    resources: [pods, pods/log, deployments]
  - users: [jane]
    clusters: [alpha, bravo]
    namespaces: [web, "team-*"]
    verbs: ["*"]
    apiGroups: ["*"]
    resources: ["*"]
  - users: [prometheus]
    clusters: [""]
    verbs: [get]
    nonResourceURLs: [/metrics]
  - users: ["*"]
    clusters: ["*"]
    verbs: [get]
    nonResourceURLs: [/version, "/openapi/*"]
  - users: [auditor]
    clusters: ["*"]
    namespaces: ["*"]
    verbs: [list, watch]
    apiGroups: ["*"]
    resources: [secrets]
  - users: [one]
    clusters: ["*"]
    namespaces: [web]
    verbs: [get, list]
    apiGroups: [""]
    resources: [configmaps]
    resourceNames: [shown]
"""
JANE, SRE = Identity("jane"), Identity("sam", groups=("x", "sre"))
CLUSTERS = ("alpha", "bravo", "prod-1", "prod-2")


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(*CLUSTERS)
    for cluster in CLUSTERS:
        fleet.index += 1
        data = {"kind": "Namespace", "version": "v1", "namespaced": False}
        fleet.store.apply_control(made_control(TYPE, cluster, "", "namespaces", data=data), fleet.index, 0)
    namespace(fleet, "alpha", "team-a")
    namespace(fleet, "alpha", "shop")
    namespace(fleet, "bravo", "team-b")
    return fleet


def namespace(fleet: Fleet, cluster: str, name: str) -> None:
    fleet.index += 1
    delta = made_delta(name, cluster=cluster, resource="namespaces", namespace="", kind="Namespace", uid=name)
    fleet.store.apply_delta(delta, fleet.index, 0)


@pytest.fixture
def policy(fleet: Fleet, tmp_path: Path) -> PolicyFile:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return PolicyFile(path, fleet.materializer)


def pods(verb: str = "list", namespace: str = "", name: str = "", subresource: str = "") -> Attributes:
    return Attributes(verb, "", "v1", "pods", subresource, namespace, name)


@pytest.mark.parametrize(
    ("who", "cluster", "what", "allowed"),
    [
        (SRE, "prod-1", pods(), True),
        (SRE, "prod-1", pods("get", "web", name="p"), True),
        (SRE, "prod-1", pods("get", "web", name="p", subresource="log"), True),
        (SRE, "prod-1", pods("get", "web", name="p", subresource="exec"), False),
        (SRE, "prod-1", pods("delete", "web", name="p"), False),
        (SRE, "prod-1", Attributes("list", "apps", "v1", "deployments"), True),
        (SRE, "prod-1", Attributes("list", "batch", "v1", "deployments"), False),
        (SRE, "alpha", pods(), False),
        (SRE, None, pods(), False),
        (JANE, "alpha", pods("delete", "web", name="p"), True),
        (JANE, "alpha", pods("list", "team-x"), True),
        (JANE, "alpha", pods("list", "team"), False),
        (JANE, "alpha", pods(), False),
        (JANE, "alpha", Attributes("list", resource="nodes"), False),
        (JANE, "prod-1", pods("list", "web"), False),
        (Identity("prometheus"), None, Attributes("get", path="/metrics"), True),
        (Identity("prometheus"), "alpha", Attributes("get", path="/metrics"), False),
        (JANE, None, Attributes("get", path="/metrics"), False),
        (NOBODY, None, Attributes("get", path="/version"), True),
        (NOBODY, "alpha", Attributes("get", path="/openapi/v2"), True),
        (NOBODY, "alpha", Attributes("get", path="/openapi"), False),
        (NOBODY, "alpha", pods("list", "web"), False),
        (Identity("auditor"), "anything", Attributes("list", resource="secrets"), True),
        (Identity("one"), "alpha", Attributes("get", resource="configmaps", namespace="web", name="shown"), True),
        (Identity("one"), "alpha", Attributes("get", resource="configmaps", namespace="web", name="other"), False),
        (Identity("one"), "alpha", Attributes("list", resource="configmaps", namespace="web"), False),
    ],
)
async def test_decisions(
    policy: PolicyFile, who: Identity, cluster: str | None, what: Attributes, allowed: bool
) -> None:
    assert policy.decide_now(who, cluster, what).allowed == allowed
    assert (await policy.decide(who, cluster, what)).allowed == allowed


async def test_what_is_shown(policy: PolicyFile, fleet: Fleet) -> None:
    assert policy.visible_now(SRE, pods(), CLUSTERS).visible.clusters == {"prod-1": None, "prod-2": None}
    assert policy.visible_now(SRE, pods("watch"), CLUSTERS).visible.empty
    assert policy.visible_now(JANE, pods(), CLUSTERS).visible.clusters == {
        "alpha": frozenset({"web", "team-a"}),
        "bravo": frozenset({"web", "team-b"}),
    }
    assert policy.visible_now(JANE, pods(namespace="team-x"), CLUSTERS).visible.clusters == {
        "alpha": frozenset({"team-x"}),
        "bravo": frozenset({"team-x"}),
    }
    assert policy.visible_now(JANE, pods(namespace="shop"), CLUSTERS).visible.empty
    assert policy.visible_now(Identity("auditor"), Attributes("list", resource="secrets"), CLUSTERS).visible.whole
    assert policy.visible_now(NOBODY, Attributes("get", path="/version"), CLUSTERS).visible.whole
    first = policy.visible_now(JANE, pods(), CLUSTERS)
    assert policy.visible_now(JANE, pods(), CLUSTERS).visible is first.visible
    namespace(fleet, "alpha", "team-new")
    assert "team-new" in (policy.visible_now(JANE, pods(), CLUSTERS).visible.clusters["alpha"] or ())
    named = Attributes("list", resource="configmaps", name="shown")
    assert policy.visible_now(Identity("one"), named, ["alpha"]).visible.clusters == {"alpha": frozenset({"web"})}


def test_rules(policy: PolicyFile) -> None:
    assert [one.verbs for one in policy.rules(JANE, "alpha", "web").rules] == [("*",), ("get",)]
    assert [one.verbs for one in policy.rules(JANE, "alpha", "shop").rules] == [("get",)]
    assert len(policy.rules(SRE, None, "web").rules) == 2
    assert len(policy.rules(SRE, "alpha", "web").rules) == 1


async def test_it_is_read_anew_and_a_bad_one_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    policy = PolicyFile(path, fleet.materializer, look_every=0.01)
    woken = asyncio.Event()
    stop = policy.listen(woken.set)
    running = asyncio.create_task(policy.run())
    everybody = f"rules: [{{{RULE}}}]"
    for one in ("[a]", "[b]", "[c]"):
        everybody = everybody.replace(one, "['*']")
    assert not policy.decide_now(NOBODY, "alpha", pods("get")).allowed
    async with asyncio.timeout(20):
        replace(path, everybody)
        await woken.wait()
        assert policy.decide_now(NOBODY, "alpha", pods("get")).allowed
        replace(path, "rules: [{}]")
        while not policy._file._problem:
            await asyncio.sleep(0.01)
        assert policy.decide_now(NOBODY, "alpha", pods("get")).allowed
        woken.clear()
        replace(path, "rules: []")
        await woken.wait()
        assert not policy.decide_now(NOBODY, "alpha", pods("get")).allowed
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stop()


def replace(path: Path, content: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(content)
    os.replace(other, path)


RULE = "users: [a], clusters: [b], namespaces: [c], verbs: [get], apiGroups: [''], resources: [pods]"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "rules is needed"),
        ("rules: 7", "rules: Expected `array`, got `int`"),
        ("rules: [{}]", "rules[0]: verbs is needed"),
        ("rule: []", "unknown field rule"),
        (f"rules: [{{{RULE}, more: 1}}]", "rules[0]: unknown field more"),
        (f"rules: [{{{RULE}, verbs: [list]}}]", "no YAML that can be used: 'verbs' stands twice in line 1, column 104"),
        ("rules: [{clusters: [b], verbs: [get], nonResourceURLs: [/a]}]", "rules[0]: users or groups is needed"),
        (
            "rules: [{users: [a], clusters: [b], verbs: [], nonResourceURLs: [/a]}]",
            "rules[0]: verbs: name one at least",
        ),
        (
            "rules: [{users: [a], clusters: [], verbs: [get], nonResourceURLs: [/a]}]",
            'rules[0]: clusters: name one at least, "*" for all, "" for the root itself',
        ),
        (
            f"rules: [{{{RULE}, nonResourceURLs: [/a]}}]",
            "rules[0]: nonResourceURLs stand in a rule of their own, without resources and namespaces",
        ),
        ("rules: [{users: [a], clusters: [b], verbs: [get]}]", "rules[0]: resources or nonResourceURLs is needed"),
        (
            "rules: [{users: [a], clusters: [b], verbs: [get], resources: [pods]}]",
            'rules[0]: apiGroups: name one at least, "" for pods and what else is in core, "*" for all',
        ),
        (
            "rules: [{users: [a], clusters: [b], verbs: [get], apiGroups: [''], resources: [pods]}]",
            'rules[0]: namespaces: name one at least, "*" for all, and for what is in none',
        ),
        (
            f"rules: [{{{RULE.replace('[b]', '[a*b]')}}}]",
            "rules[0]: clusters: 'a*b' is no name, nor the beginning of one with a * behind it",
        ),
        (
            f"rules: [{{{RULE.replace('[c]', '[a, ' + chr(39) * 2 + ']')}}}]",
            "rules[0]: namespaces: '' is no name, nor the beginning of one with a * behind it",
        ),
    ],
)
def test_files_that_cannot_be_used(content: str, problem: str) -> None:
    with pytest.raises(BadAccessFile) as refused:
        read_policy(content.encode())
    assert str(refused.value) == problem
