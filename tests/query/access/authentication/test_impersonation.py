"""Impersonation: whom headers name, which checks that takes in which mode, and the words of a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multidict import CIMultiDict

from query.access.authentication.impersonation import (
    Impersonated,
    ImpersonationChecks,
    account_of,
    node_of,
    wanted_user,
)
from query.access.authorization.attributes import Attributes
from query.access.authorization.names import ACCOUNT_OF
from query.access.authorization.verdicts import ALLOWED, Decision, Verdict
from query.http.status import ApiError
from query.identity import Identity

LIST = Attributes("list", version="v1", resource="pods", namespace="web")
JANE = Identity("jane", groups=("dev",))
AGENT = Identity(
    "system:serviceaccount:kube-system:agent",
    groups=("system:serviceaccounts",),
    extra=(
        ("authentication.kubernetes.io/node-name", ("node-1",)),
        ("authentication.kubernetes.io/pod-name", ("agent-x",)),
    ),
)


def shown(what: Attributes) -> str:
    """Attributes as one text, to name them in tests."""
    resource = f"{what.resource}/{what.subresource}" if what.subresource else what.resource
    parts = [what.verb, what.path or f"{what.group}:{resource}", what.namespace, what.name]
    return " ".join(part for part in parts if part)


class Rules:
    """Decides by a set of what is allowed; remembers what was asked."""

    def __init__(self, *allowed: str, reason: str = "", error: str = "") -> None:
        self.allowed = frozenset(allowed)
        self.no = Verdict(Decision.NO_OPINION, reason, error)
        self.asked: list[str] = []
        self.askers: list[tuple[Identity, str | None]] = []

    async def __call__(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        self.asked.append(shown(what))
        self.askers.append((who, cluster))
        return ALLOWED if shown(what) in self.allowed else self.no


async def impersonate(
    rules: Rules, wanted: Identity, requester: Identity = JANE, cluster: str | None = "alpha"
) -> Impersonated:
    return await ImpersonationChecks(rules).who(requester, wanted, cluster, LIST)


async def refusal(rules: Rules, wanted: Identity, requester: Identity = JANE) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await impersonate(rules, wanted, requester)
    assert caught.value.code == 403
    return caught.value


# -- headers -------------------------------------------------------------------------------------------------------


def test_headers_name_a_user() -> None:
    headers = CIMultiDict(
        [
            ("impersonate-user", "joe"),
            ("Impersonate-User", "another"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", ""),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Acme.io%2FProject", "x"),
            ("Impersonate-Extra-acme.io%2fproject", "y"),
            ("Impersonate-Extra-Scopes", "view"),
        ]
    )
    extra = (("acme.io/project", ("x", "y")), ("scopes", ("view",)))
    assert wanted_user(headers) == Identity("joe", "7", ("a", ""), extra)
    assert wanted_user(CIMultiDict({"Accept": "*/*"})) is None


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"Impersonate-Group": "a"}, 'UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)'),
        ({"Impersonate-Uid": "1"}, 'UID:"1", Groups:[]string(nil), Extra:map[string][]string(nil)'),
        (
            {"Impersonate-Extra-A": "1"},
            'UID:"", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"1"}}',
        ),
        ({"Impersonate-User": "", "Impersonate-Uid": "1"}, 'UID:"1"'),
    ],
)
def test_headers_without_a_user_are_a_bad_request(header: dict[str, str], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        wanted_user(CIMultiDict(header))
    assert caught.value.code == 400
    assert said in caught.value.message
    assert caught.value.message.startswith("requested &user.DefaultInfo{")
    assert caught.value.message.endswith("without impersonating a user name")


# -- the legacy verb -----------------------------------------------------------------------------------------------


async def test_each_part_of_a_user_is_checked() -> None:
    wanted = Identity("joe", "7", ("a", "b"), (("scopes", ("view", "edit")),))
    rules = Rules(
        "impersonate :users joe",
        "impersonate :groups a",
        "impersonate :groups b",
        "impersonate authentication.k8s.io:uids 7",
        "impersonate authentication.k8s.io:userextras/scopes view",
        "impersonate authentication.k8s.io:userextras/scopes edit",
    )
    found = await impersonate(rules, wanted)
    assert found == Impersonated(replace(wanted, groups=("a", "b", "system:authenticated")), "")
    assert {who for who, _ in rules.askers} == {JANE}
    assert {cluster for _, cluster in rules.askers} == {"alpha"}
    for missing in rules.allowed:
        with pytest.raises(ApiError):
            await impersonate(Rules(*(rules.allowed - {missing})), wanted)


@pytest.mark.parametrize(
    ("name", "groups", "result"),
    [
        ("joe", (), ("system:authenticated",)),
        ("joe", ("system:authenticated",), ("system:authenticated",)),
        ("joe", ("system:unauthenticated",), ("system:unauthenticated",)),
        ("system:anonymous", (), ("system:unauthenticated",)),
        ("system:anonymous", ("a",), ("a", "system:unauthenticated")),
    ],
)
async def test_groups_that_are_implied(name: str, groups: tuple[str, ...], result: tuple[str, ...]) -> None:
    rules = Rules(f"impersonate :users {name}", *(f"impersonate :groups {group}" for group in groups))
    assert (await impersonate(rules, Identity(name, groups=groups))).who.groups == result


async def test_a_service_account_is_checked_as_one_and_has_its_groups() -> None:
    wanted = Identity("system:serviceaccount:web:robot")
    rules = Rules("impersonate :serviceaccounts web robot")
    found = (await impersonate(rules, wanted)).who
    assert found.groups == ("system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated")
    # It is the account of the cluster whose rules have let it be one.
    assert found.extra == ((ACCOUNT_OF, ("alpha",)),)
    assert (await impersonate(rules, wanted, cluster=None)).who.extra == ()
    grouped = Rules("impersonate :serviceaccounts web robot", "impersonate :groups a")
    assert (await impersonate(grouped, replace(wanted, groups=("a",)))).who.groups == ("a", "system:authenticated")


async def test_a_name_that_is_no_service_accounts_is_a_user() -> None:
    for name in ("system:serviceaccount:web", "system:serviceaccount:Web:robot", "system:serviceaccount:a:b:c"):
        assert account_of(name) is None
        assert (await impersonate(Rules(f"impersonate :users {name}"), Identity(name))).who.name == name
    assert account_of("system:serviceaccount:web:robot.x") == ("web", "robot.x")
    assert node_of("system:node:node-1.example.com") == "node-1.example.com"
    for name in ("system:node:", "system:node:Node", "node-1", "system:nodes:a"):
        assert node_of(name) == ""


# -- constrained modes ---------------------------------------------------------------------------------------------


async def test_a_user_may_be_impersonated_for_some_requests_alone() -> None:
    wanted = Identity("joe", "7", ("a",), (("acme.io/scopes", ("view",)),))
    rules = Rules(
        "impersonate-on:user-info:list :pods web",
        "impersonate:user-info authentication.k8s.io:users joe",
        "impersonate:user-info authentication.k8s.io:uids 7",
        "impersonate:user-info authentication.k8s.io:groups a",
        "impersonate:user-info authentication.k8s.io:userextras/acme.io/scopes view",
    )
    found = await impersonate(rules, wanted)
    assert found == Impersonated(replace(wanted, groups=("a", "system:authenticated")), "impersonate:user-info")
    assert set(rules.asked) == rules.allowed
    for missing in rules.allowed:
        with pytest.raises(ApiError):
            await impersonate(Rules(*(rules.allowed - {missing})), wanted)


async def test_a_service_account_may_be_the_node_on_which_it_is() -> None:
    rules = Rules(
        "impersonate-on:associated-node:list :pods web", "impersonate:associated-node authentication.k8s.io:nodes *"
    )
    found = await impersonate(rules, Identity("system:node:node-1"), AGENT)
    assert found == Impersonated(
        Identity("system:node:node-1", groups=("system:nodes", "system:authenticated")), "impersonate:associated-node"
    )
    keys = ("authentication.kubernetes.io/node-name", "authentication.kubernetes.io/pod-name")
    asked = replace(AGENT, extra=(("authentication.kubernetes.io/associated-node-keys", keys),))
    assert {who for who, _ in rules.askers} == {asked}
    for wanted, requester in (
        (Identity("system:node:node-2"), AGENT),
        (Identity("system:node:node-1"), replace(AGENT, name="jane")),
        (Identity("system:node:node-1", uid="1"), AGENT),
        (Identity("system:node:node-1"), replace(AGENT, extra=())),
    ):
        await refusal(rules, wanted, requester)


async def test_nodes_and_service_accounts_have_modes_of_their_own() -> None:
    node = Rules(
        "impersonate-on:arbitrary-node:list :pods web", "impersonate:arbitrary-node authentication.k8s.io:nodes node-1"
    )
    found = await impersonate(node, Identity("system:node:node-1"))
    assert (found.who.groups, found.constraint) == (
        ("system:nodes", "system:authenticated"),
        "impersonate:arbitrary-node",
    )
    account = Rules(
        "impersonate-on:serviceaccount:list :pods web",
        "impersonate:serviceaccount authentication.k8s.io:serviceaccounts web robot",
    )
    found = await impersonate(account, Identity("system:serviceaccount:web:robot"))
    assert found.who.groups == ("system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated")
    assert found.constraint == "impersonate:serviceaccount"
    everything = Rules(
        "impersonate-on:user-info:list :pods web",
        "impersonate:user-info authentication.k8s.io:nodes node-1",
        "impersonate:user-info authentication.k8s.io:users system:node:node-1",
    )
    await refusal(everything, Identity("system:node:node-1"))


async def test_many_groups_or_values_are_checked_at_once_first() -> None:
    groups, values = tuple("abcd"), tuple("1234")
    wanted = Identity("joe", groups=groups, extra=(("acme.io/x", values),))
    named = ("impersonate-on:user-info:list :pods web", "impersonate:user-info authentication.k8s.io:users joe")
    stars = (
        "impersonate:user-info authentication.k8s.io:groups *",
        "impersonate:user-info authentication.k8s.io:userextras/* *",
    )
    rules = Rules(*named, *stars)
    await impersonate(rules, wanted)
    assert rules.asked == [*named, *stars]
    each = Rules(
        *named,
        *(f"impersonate:user-info authentication.k8s.io:groups {group}" for group in groups),
        *(f"impersonate:user-info authentication.k8s.io:userextras/acme.io/x {value}" for value in values),
    )
    assert (await impersonate(each, wanted)).constraint == "impersonate:user-info"
    # The star is the name of a group otherwise.
    with pytest.raises(ApiError):
        await impersonate(Rules(*named, *stars), replace(wanted, groups=("a", "b"), extra=()))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Identity("joe", groups=("system:masters",)), "impersonating the system:masters group is not allowed"),
        (Identity("joe", groups=("",)), "impersonating the empty string group is not allowed"),
        (Identity("joe", extra=(("", ("a",)),)), "impersonating the empty string key in extra is not allowed"),
        (Identity("joe", extra=(("scopes", ("a",)),)), "impersonating an invalid key in extra is not allowed"),
        (
            Identity("joe", extra=(("acme.io/a", ("",)),)),
            "impersonating the empty string value in extra is not allowed",
        ),
    ],
)
async def test_what_the_legacy_verb_alone_allows(wanted: Identity, said: str) -> None:
    named = ("impersonate-on:user-info:list :pods web", "impersonate:user-info authentication.k8s.io:users joe")
    assert said in (await refusal(Rules(*named), wanted)).message
    legacy = (
        "impersonate :users joe",
        *(f"impersonate :groups {group}".rstrip() for group in wanted.groups),
        *(
            f"impersonate authentication.k8s.io:userextras{'/' if key else ''}{key} {value}".rstrip()
            for key, values in wanted.extra
            for value in values
        ),
    )
    assert (await impersonate(Rules(*named, *legacy), wanted)).constraint == ""


async def test_a_refusal_is_in_the_words_of_the_first_mode() -> None:
    error = await refusal(Rules(reason="RBAC: no", error="a rule is broken"), Identity("joe"))
    assert error.message == (
        'pods is forbidden: User "jane" cannot impersonate-on:user-info:list resource "pods" in API group "" '
        'in the namespace "web": a rule is broken: RBAC: no'
    )
    error = await refusal(Rules("impersonate-on:user-info:list :pods web"), Identity("joe"))
    assert error.message == (
        'users.authentication.k8s.io "joe" is forbidden: User "jane" cannot impersonate:user-info resource "users" '
        'in API group "authentication.k8s.io" at the cluster scope'
    )


async def test_the_mode_that_worked_last_is_tried_first() -> None:
    rules = Rules("impersonate :users joe")
    impersonation = ImpersonationChecks(rules)
    await impersonation.who(JANE, Identity("joe"), "alpha", LIST)
    assert rules.asked == ["impersonate-on:user-info:list :pods web", "impersonate :users joe"]
    rules.asked.clear()
    await impersonation.who(JANE, Identity("joe"), "alpha", LIST)
    assert rules.asked == ["impersonate :users joe"]
    rules.asked.clear()
    with pytest.raises(ApiError, match='cannot impersonate resource "users"'):
        await impersonation.who(JANE, Identity("jim"), "alpha", LIST)
    assert rules.asked == ["impersonate :users jim", "impersonate-on:user-info:list :pods web"]
