"""Callers: who sent a request and as whom it goes on, by the rules of the clusters that it is for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from query.access.authentication.authenticator import Authentication
from query.access.authentication.bearer import BearerAuthenticator
from query.access.authentication.token_file import HashedTokens
from query.access.authorization.attributes import Attributes, attributes_of
from query.access.authorization.chain import ALWAYS_ALLOW, Chain
from query.access.callers import Callers
from query.access.gate import Caller, Gate
from query.http.status import ApiError
from query.identity import MASTERS, Identity
from tests.query.access.guarded import DISCOVERY, World, rule

TOKEN = "a-token-of-janes"


@pytest.fixture(name="world")
async def world_fixture() -> World:
    """Two clusters that tell everyone which APIs they have."""
    world = World("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        world.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
    return world


async def caller(
    world: World, directory: Path, path: str, cluster: str | None, chain: Chain | None = None, **headers: str
) -> Caller:
    """Who asks for a path below a cluster, or at the root, with jane's token."""
    (directory / "tokens").write_text(f"{hashlib.sha256(TOKEN.encode()).hexdigest()},jane,\n")
    chain = chain or Chain((world.members(),))
    authentication = Authentication([BearerAuthenticator(HashedTokens(directory / "tokens"))])
    callers = Callers(authentication, chain, lambda: world.store.clusters.keys())
    sent = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    http = make_mocked_request("GET", path if cluster is None else f"/clusters/{cluster}{path}", headers=sent)
    what = attributes_of("GET", path.partition("?")[0].strip("/").split("/"), http.query)
    return await callers.caller(http, cluster, what)


async def refused(world: World, directory: Path, path: str, cluster: str | None, **headers: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await caller(world, directory, path, cluster, None, **headers)
    return caught.value


PODS = "/api/v1/pods"
MONITORING = "system:monitoring"
MAY_BE_JOE = rule("users", verbs=["impersonate"], resourceNames=["joe"])
FOR_LISTS = rule("pods", verbs=["impersonate-on:user-info:list"])
IN_MODE = rule("users", verbs=["impersonate:user-info"], groups=("authentication.k8s.io",), resourceNames=["joe"])


async def test_who_asks_is_who_has_the_token(world: World, tmp_path: Path) -> None:
    found = await caller(world, tmp_path, PODS, None)
    assert found.who == Identity("jane", groups=("system:authenticated",))
    assert found.impersonator is None
    assert (await refused(world, tmp_path, PODS, None, Authorization="Bearer another")).code == 401
    assert (await refused(world, tmp_path, PODS, None, Authorization="")).code == 401
    assert (await refused(world, tmp_path, PODS, None, Authorization=f"Bearer  {TOKEN}")).code == 401


async def test_a_cluster_decides_who_may_be_whom_there(world: World, tmp_path: Path) -> None:
    world.cluster_role("alpha", "joe", MAY_BE_JOE, to="user:jane")
    found = await caller(world, tmp_path, PODS, "alpha", Impersonate_User="joe")
    assert found.who == Identity("joe", groups=("system:authenticated",))
    assert found.impersonator == Identity("jane", groups=("system:authenticated",))
    for path, cluster in ((PODS, "bravo"), (PODS, None), (PODS, "none")):
        error = await refused(world, tmp_path, path, cluster, Impersonate_User="joe")
        assert error.code == 403
        assert 'User "jane" cannot impersonate-on:user-info:list resource "pods"' in error.message


async def test_at_the_root_all_clusters_decide(world: World, tmp_path: Path) -> None:
    for cluster in ("alpha", "bravo"):
        assert (await refused(world, tmp_path, PODS, None, Impersonate_User="joe")).code == 403
        world.cluster_role(cluster, "joe", MAY_BE_JOE, to="user:jane")
    assert (await caller(world, tmp_path, PODS, None, Impersonate_User="joe")).who.name == "joe"


async def test_what_some_namespaces_allow_is_not_allowed_in_all(world: World, tmp_path: Path) -> None:
    """Whoever may list pods in another's name within one namespace does not see all namespaces so."""
    for cluster in ("alpha", "bravo"):
        world.cluster_role(cluster, "joe", IN_MODE, to="user:jane")
        world.cluster_role(cluster, "lists", FOR_LISTS)
        world.bind(cluster, "web", "lists", "user:jane")
    within = "/api/v1/namespaces/web/pods"
    scopes: tuple[str | None, ...] = ("alpha", None)
    for scope in scopes:
        found = await caller(world, tmp_path, within, scope, Impersonate_User="joe")
        assert (found.who.name, found.constraint) == ("joe", "impersonate:user-info")
        assert (await refused(world, tmp_path, PODS, scope, Impersonate_User="joe")).code == 403
        other = within.replace("web", "db")
        assert (await refused(world, tmp_path, other, scope, Impersonate_User="joe")).code == 403


async def test_service_accounts_are_those_of_the_cluster(world: World, tmp_path: Path) -> None:
    world.cluster_role("alpha", "bot", rule("serviceaccounts", verbs=["impersonate"]))
    world.bind("alpha", "web", "bot", "user:jane")
    bot, other = ("system:serviceaccount:web:bot", "system:serviceaccount:db:bot")
    found = await caller(world, tmp_path, PODS, "alpha", Impersonate_User=bot)
    assert found.who.groups[:2] == ("system:serviceaccounts", "system:serviceaccounts:web")
    assert found.who.extra == (("authentication.kubebraid.io/cluster", ("alpha",)),)
    assert (await refused(world, tmp_path, PODS, "alpha", Impersonate_User=other)).code == 403
    assert (await refused(world, tmp_path, PODS, None, Impersonate_User=bot)).code == 403


async def test_who_may_be_another_in_one_cluster_sees_nothing_of_those_it_does_not_know(
    world: World, tmp_path: Path
) -> None:
    """The administrator of one cluster is none of another that does not even tell them that it is there."""
    for cluster in ("closed", "alpha"):
        if cluster == "closed":
            world.add(cluster)
        world.cluster_role(cluster, "joe", rule("*", groups=("*",)), to="user:joe")
        world.cluster_role(cluster, "masters", rule("*", groups=("*",)), to="group:system:masters")
    anyone = rule("users", "groups", verbs=["impersonate"])
    for cluster in ("alpha", "bravo"):
        world.cluster_role(cluster, "anyone", anyone, to="user:jane")
    gate = Gate(lambda: world.store.clusters.keys(), None, Chain((world.members(),)))
    what = Attributes("list", resource="pods", version="v1")
    joe = (await caller(world, tmp_path, PODS, None, Impersonate_User="joe")).who
    admin = (await caller(world, tmp_path, PODS, None, Impersonate_User="a", Impersonate_Group="system:masters")).who
    monitor = (await caller(world, tmp_path, PODS, None, Impersonate_User="a", Impersonate_Group=MONITORING)).who
    assert not admin.masters
    for who in (joe, admin):
        assert (await gate.visible(who, what)).clusters == {"alpha": None}
        assert not (await gate.discoverable(who)).clusters.keys() - {"alpha", "bravo"}
    for who in (admin, monitor):
        assert (await gate.refusal(who, None, Attributes("get", path="/metrics"))) is not None
    # As joe itself.
    assert (await gate.visible(Identity("joe"), what)).clusters == {"alpha": None, "closed": None}
    assert joe.within == frozenset({"alpha", "bravo"})
    # Whom the root lets be another is not confined.
    chain = Chain((ALWAYS_ALLOW,))
    free = await caller(world, tmp_path, PODS, None, chain, Impersonate_User="a", Impersonate_Group=MASTERS)
    assert free.who.masters
    rules = gate.rules(joe, None, "web").rules
    assert rules == Chain((world.members(),)).rules(joe, "alpha", "web").rules
