"""Rules: types by wildcard, version and word; namespaces; selectors; and what cannot be said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalog.wire.resource_type import ResourceType, Scope
from producers.rules.configuration import BadConfiguration, Configuration, load
from producers.rules.rules import BadRule, Rule, Rules, check_selector


def kind(title: str, version: str = "v1", *, namespaced: bool = True, custom: bool = False) -> ResourceType:
    resource, _, group = title.partition(".")
    return ResourceType(
        group=group, resource=resource, version=version, kind=resource.title(), namespaced=namespaced, custom=custom
    )


TYPES = (
    (kind("pods"),),
    (kind("nodes", namespaced=False),),
    (kind("secrets"),),
    (kind("events"),),
    (kind("deployments.apps"),),
    (kind("statefulsets.apps"),),
    (kind("leases.coordination.k8s.io"),),
    (kind("events.events.k8s.io"),),
    (kind("widgets.example.io", "v1", custom=True), kind("widgets.example.io", "v1beta1", custom=True)),
)


def titles(rules: Rules) -> list[str]:
    return [str(one.resource.group_resource) for one in rules.chosen(TYPES)]


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
def test_types(include: list[str], exclude: list[str], wanted: str) -> None:
    assert sorted(titles(Rules.of(include, exclude))) == sorted(wanted.split())


def test_all_but_secrets_and_events_by_default() -> None:
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
def test_versions(include: list[str], exclude: list[str], version: str | None) -> None:
    chosen = [one.resource for one in Rules.of(include, exclude).chosen(TYPES) if one.resource.group == "example.io"]
    assert [one.version for one in chosen] == ([] if version is None else [version])


def test_the_first_rule_that_names_a_type_decides_on_its_objects() -> None:
    rules = Rules((Rule(("pods",), ("shop", "team-*"), "tier=web"), Rule(("*",), ("!kube-system",))))
    scopes = {str(one.resource.group_resource): one.scope for one in rules.chosen(TYPES)}
    assert scopes["pods"] == Scope(("shop", "team-*"), "tier=web")
    assert scopes["deployments.apps"] == Scope(("!kube-system",))
    assert scopes["nodes"] == Scope(), "a type without namespaces is in none of them"


def test_namespaces() -> None:
    assert Scope(("shop", "web")).only == ("shop", "web")
    assert Scope(("shop", "team-*")).only == ()
    assert Scope(("!shop",)).only == ()
    some = Scope(("team-*", "!team-x"))
    assert [name for name in ("team-a", "team-x", "shop") if some.covers(name)] == ["team-a"]
    assert [name for name in ("kube-system", "shop") if Scope(("!kube-*",)).covers(name)] == ["shop"]


# What a kube-apiserver takes and refuses: k8s.io/apimachinery/pkg/labels/selector_test.go, and lengths and forms of
# keys and values as pkg/util/validation has them. `curl '.../pods?labelSelector=...'` tells.
TAKEN = (
    *("", "tier", "!tier", "tier=web", "a.b/c==d,x!=y", "a in (b, c),d notin (e)", "n>3"),
    *("x=a,y=b,z=c", "x!=a,y=b", "x=", "x= ", "x=,z= ", "x= ,z= ", "x>1,z<5", "x in (),y", "x in (1,,2,)"),
    *("in in (in)", "notin", "a\tin\n(b)", " a = b ", f"{'p' * 253}/{'n' * 63}={'v' * 63}"),
)
REFUSED = (
    *("=web", "tier in web", "a,,b", "a=b c", "in (", "a=b,", "\u00e9=1", "x=a||y=b", "x==a==b", "!x=a", "x<a"),
    *("x in (a", "a=-b", "-a=b", "a/b/c=d", "/a=b", "a/=b", "a.b-/c=d", "A.b/c=d", "a..b/c=d", "n>1.5", "n>-1"),
    *(f"{'n' * 64}=v", f"n={'v' * 64}", f"{'p' * 254}/n=v", "n>9223372036854775808"),
)


@pytest.mark.parametrize("text", TAKEN)
def test_selectors_that_an_api_server_takes(tmp_path: Path, text: str) -> None:
    assert check_selector(text) == text
    assert configured(tmp_path, text).sources[0].rules.include[0].selector == text


@pytest.mark.parametrize("text", REFUSED)
def test_selectors_that_an_api_server_refuses(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRule, match="no label selector: "):
        check_selector(text)
    with pytest.raises(BadConfiguration, match="no label selector: ") as caught:
        configured(tmp_path, text)
    assert "\n" not in str(caught.value)


def configured(directory: Path, selector: str) -> Configuration:
    file = directory / "kubebraid.yaml"
    file.write_text(json.dumps({"sync": [{"types": ["pods"], "labelSelector": selector}]}))
    return load(file)


@pytest.mark.parametrize("text", ["", "Pods", "apps/v1/deployments", "pods ", "pods/", "p?ds", "[a]"])
def test_patterns_that_are_none(text: str) -> None:
    with pytest.raises(BadRule, match=r"names no resource type; write pods"):
        Rules.of([text])
    with pytest.raises(BadRule):
        Rules.of(["*"], [text])


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a/b", "!"])
def test_namespaces_that_are_none(name: str) -> None:
    with pytest.raises(BadRule, match="names no namespace"):
        Rules.of(["*"], namespaces=[name])
