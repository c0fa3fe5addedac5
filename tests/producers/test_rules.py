"""Rules: types by wildcard, version and word; namespaces; selectors; and what cannot be said."""

from __future__ import annotations

import pytest

from producers.rules.rules import BadRule, Rule, Rules, Scope, check_selector
from producers.upstream.discovery import Discovered, ResourceType


def kind(title: str, version: str = "v1", *, namespaced: bool = True, custom: bool = False) -> ResourceType:
    resource, _, group = title.partition(".")
    return ResourceType(
        group=group, resource=resource, version=version, kind=resource.title(), namespaced=namespaced, custom=custom
    )


TYPES = Discovered(
    (
        (kind("pods"),),
        (kind("nodes", namespaced=False),),
        (kind("secrets"),),
        (kind("events"),),
        (kind("deployments.apps"),),
        (kind("statefulsets.apps"),),
        (kind("leases.coordination.k8s.io"),),
        (kind("events.events.k8s.io"),),
        (kind("widgets.example.io", "v1", custom=True), kind("widgets.example.io", "v1beta1", custom=True)),
    ),
    frozenset(),
)


def titles(rules: Rules) -> list[str]:
    return [one.kind.title for one in rules.chosen(TYPES)]


@pytest.mark.parametrize(
    ("include", "exclude", "wanted"),
    [
        (["pods"], [], "pods"),
        (["*.apps"], [], "deployments.apps statefulsets.apps"),
        (["*.apps"], ["stateful*.apps"], "deployments.apps"),
        (["*."], [], "pods nodes"),
        (["*"], ["noise", "custom"], "pods nodes deployments.apps statefulsets.apps"),
        (["custom"], [], "widgets.example.io"),
        (["noise"], [], "leases.coordination.k8s.io"),
        (["pods", "secrets"], [], "pods secrets"),
        (["secret*"], [], ""),
        (["events.events.k8s.io"], ["events"], "events.events.k8s.io"),
        (["nothing"], [], ""),
    ],
)
def test_types(include, exclude, wanted):
    assert sorted(titles(Rules.of(include, exclude))) == sorted(wanted.split())


def test_all_but_secrets_and_events_by_default():
    assert set(titles(Rules())) == {
        *("pods", "nodes", "deployments.apps", "statefulsets.apps", "leases.coordination.k8s.io", "widgets.example.io")
    }


@pytest.mark.parametrize(
    ("include", "exclude", "version"),
    [
        (["widgets.example.io"], [], "v1"),
        (["widgets.example.io/v1beta1"], [], "v1beta1"),
        (["widgets.example.io/v1beta*"], [], "v1beta1"),
        (["widgets.example.io/v2"], [], None),
        (["*"], ["widgets.example.io/v1"], "v1beta1"),
        (["*.example.io/v2", "widgets.example.io/v1"], [], "v1"),
    ],
)
def test_versions(include, exclude, version):
    chosen = [one.kind for one in Rules.of(include, exclude).chosen(TYPES) if one.kind.group == "example.io"]
    assert [one.version for one in chosen] == ([] if version is None else [version])


def test_the_first_rule_that_names_a_type_decides_on_its_objects():
    rules = Rules((Rule(("pods",), ("shop", "team-*"), "tier=web"), Rule(("*",), ("!kube-system",))))
    scopes = {one.kind.title: one.scope for one in rules.chosen(TYPES)}
    assert scopes["pods"] == Scope(("shop", "team-*"), "tier=web")
    assert scopes["deployments.apps"] == Scope(("!kube-system",))
    assert scopes["nodes"] == Scope(), "a type without namespaces is in none of them"


def test_namespaces():
    assert Scope(("shop", "web")).only == ("shop", "web")
    assert Scope(("shop", "team-*")).only == ()
    assert Scope(("!shop",)).only == ()
    some = Scope(("team-*", "!team-x"))
    assert [name for name in ("team-a", "team-x", "shop") if some.accepts(name)] == ["team-a"]
    assert [name for name in ("kube-system", "shop") if Scope(("!kube-*",)).accepts(name)] == ["shop"]


@pytest.mark.parametrize("text", ["", "tier", "!tier", "tier=web", "a.b/c==d,x!=y", "a in (b, c),d notin (e)", "n>3"])
def test_selectors(text):
    assert check_selector(text) == text


@pytest.mark.parametrize("text", ["=web", "tier in web", "a,,b", "a=b c", "in (", "a=b,", "é=1"])
def test_selectors_that_are_none(text):
    with pytest.raises(BadRule, match="no label selector"):
        check_selector(text)


@pytest.mark.parametrize("text", ["", "Pods", "apps/v1/deployments", "pods ", "pods/", "p?ds", "[a]"])
def test_patterns_that_are_none(text):
    with pytest.raises(BadRule, match=r"names no resource type; write pods"):
        Rules.of([text])
    with pytest.raises(BadRule):
        Rules.of(["*"], [text])


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a/b", "!"])
def test_namespaces_that_are_none(name):
    with pytest.raises(BadRule, match="names no namespace"):
        Rules.of(["*"], namespaces=[name])
