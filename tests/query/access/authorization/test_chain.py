"""The chain of authorizers, and the answers to who may not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pytest

from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import ALWAYS_ALLOW, ALWAYS_DENY, Authorizer, Chain, Opinion
from query.access.authorization.denied import forbidden, unauthorized
from query.access.authorization.rules import PolicyRule, SubjectRules
from query.access.authorization.verdicts import NO_OPINION, Decision, Verdict, Visible
from query.identity import Identity

JANE = Identity("jane", groups=("dev",))
MASTER = Identity("admin", groups=("system:masters",))
PODS = Attributes("list", resource="pods", version="v1")
CLUSTERS = ("alpha", "bravo", "charlie")
ALLOW = Verdict(Decision.ALLOW, "a reason")
DENY = Verdict(Decision.DENY, "no")


@dataclass
class Said:
    """An authorizer that says what a test tells it to; `waits`: it cannot say it at once."""

    verdict: Verdict = NO_OPINION
    shows: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    whole: bool = False
    denied: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()
    waits: bool = False
    found: SubjectRules = field(default_factory=SubjectRules)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    woken: list[Callable[[], None]] = field(default_factory=list)

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict | None:
        return None if self.waits else self.verdict

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        await asyncio.sleep(0)
        return self.verdict

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion | None:
        return None if self.waits else self._opinion(clusters)

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        await asyncio.sleep(0)
        return self._opinion(clusters)

    def _opinion(self, clusters: Collection[str]) -> Opinion:
        self.asked.append(tuple(clusters))
        if self.whole:
            return Opinion(Visible(whole=True), self.denied)
        shown = {one: within for one, within in self.shows.items() if one in clusters}
        undecided = self.undecided & frozenset(clusters)
        return Opinion(Visible(clusters=shown, undecided=bool(undecided)), self.denied & frozenset(clusters), undecided)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        return self.found

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.woken.append(wake)
        return lambda: self.woken.remove(wake)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def both(chain: Chain, who: Identity = JANE) -> Verdict:
    verdict = await chain.decide(who, "alpha", PODS)
    now = chain.decide_now(who, "alpha", PODS)
    assert now is None or now == verdict
    return verdict


async def shown(*authorizers: Authorizer, who: Identity = JANE) -> Visible:
    """The same whether or not the authorizers can say it at once."""
    chain = Chain(authorizers)
    visible = await chain.visible(who, PODS, CLUSTERS)
    assert chain.visible_now(who, PODS, CLUSTERS) in (None, visible)
    for one in authorizers:
        if isinstance(one, Said):
            one.waits = True
    assert await chain.visible(who, PODS, CLUSTERS) == visible
    return visible


async def test_the_first_that_has_an_opinion_decides() -> None:
    assert await both(Chain([Said(), Said(ALLOW), Said(DENY)])) == ALLOW
    assert await both(Chain([Said(), Said(DENY), Said(ALLOW)])) == DENY
    assert await both(Chain([Said(waits=True), Said(DENY), Said(ALLOW)])) == DENY
    assert Chain([Said(waits=True), Said(DENY)]).decide_now(JANE, "alpha", PODS) is None
    assert Chain([Said(ALLOW), Said(waits=True)]).decide_now(JANE, "alpha", PODS) == ALLOW


async def test_without_an_opinion_all_reasons_and_errors_are_told() -> None:
    authorizers = [
        Said(Verdict(Decision.NO_OPINION, "one", "broken")),
        Said(),
        Said(Verdict(Decision.NO_OPINION, "two", "broken")),
        Said(Verdict(Decision.NO_OPINION, "", "away")),
    ]
    assert await both(Chain(authorizers)) == Verdict(Decision.NO_OPINION, "one\ntwo", "[broken, away]")
    assert await both(Chain([*authorizers, Said(ALLOW)])) == ALLOW
    assert await both(Chain([])) == NO_OPINION


async def test_masters_are_allowed_before_anyone_is_asked() -> None:
    refusing = Said(DENY, waits=True)
    chain = Chain([refusing])
    assert chain.decide_now(MASTER, "alpha", PODS) == Verdict(Decision.ALLOW)
    visible = chain.visible_now(MASTER, PODS, CLUSTERS)
    assert visible is not None
    assert visible.whole
    assert not refusing.asked


async def test_always() -> None:
    assert await both(Chain([ALWAYS_ALLOW])) == Verdict(Decision.ALLOW)
    assert (await shown(ALWAYS_ALLOW)).whole
    assert await both(Chain([ALWAYS_DENY])) == Verdict(Decision.NO_OPINION, "Everything is forbidden.")
    assert (await shown(ALWAYS_DENY)).empty
    assert await both(Chain([ALWAYS_DENY, Said(ALLOW)])) == ALLOW


WEB, DB = frozenset({"web"}), frozenset({"db"})


async def test_the_union_of_what_is_shown() -> None:
    first = Said(shows={"alpha": None, "bravo": WEB})
    second = Said(shows={"alpha": DB, "bravo": DB, "charlie": WEB})
    assert (await shown(first, second)).clusters == {"alpha": None, "bravo": WEB | DB, "charlie": WEB}
    # Of what is shown as a whole the next one is not asked.
    assert second.asked[0] == ("bravo", "charlie")
    assert (await shown(Said(), first)).clusters == {"alpha": None, "bravo": WEB}
    assert (await shown(first, Said(whole=True))).whole


async def test_what_is_denied_ends_there() -> None:
    first = Said(shows={"alpha": WEB}, denied=frozenset({"alpha", "bravo"}))
    second = Said(shows={"alpha": DB, "bravo": None, "charlie": None})
    assert (await shown(first, second)).clusters == {"alpha": WEB, "charlie": None}
    assert second.asked[0] == ("charlie",)
    assert (await shown(first, Said(whole=True))).clusters == {"alpha": WEB, "charlie": None}
    assert (await shown(first, ALWAYS_ALLOW)).clusters == {"alpha": WEB, "charlie": None}


async def test_undecided_is_what_no_one_shows_as_a_whole() -> None:
    unsure = Said(undecided=frozenset({"alpha"}))
    assert (await shown(unsure)).undecided
    assert (await shown(unsure, Said(shows={"alpha": WEB}))).undecided
    assert not (await shown(unsure, Said(shows={"alpha": None}))).undecided
    assert not (await shown(Said(shows={"alpha": None}), unsure)).undecided
    assert not (await shown(unsure, ALWAYS_ALLOW)).undecided


async def test_what_one_alone_shows_is_handed_on_as_it_is() -> None:
    visible = Visible(clusters={"alpha": WEB})

    class Kept(Said):
        def _opinion(self, clusters: Collection[str]) -> Opinion:
            return Opinion(visible)

    for chain in (Chain([Kept()]), Chain([Kept(), Said()]), Chain([Said(), Kept()])):
        assert chain.visible_now(JANE, PODS, CLUSTERS) is visible


async def test_a_union_of_the_same_is_the_same_object() -> None:
    first, second = Said(shows={"alpha": WEB}), Said(shows={"alpha": DB, "bravo": None})
    chain = Chain([first, second])
    visible = chain.visible_now(JANE, PODS, CLUSTERS)
    assert chain.visible_now(JANE, PODS, CLUSTERS) is visible
    assert await chain.visible(JANE, PODS, CLUSTERS) is visible
    second.shows = {"alpha": DB}
    changed = chain.visible_now(JANE, PODS, CLUSTERS)
    assert changed is not None
    assert changed.clusters == {"alpha": WEB | DB}
    first.denied = frozenset({"alpha"})
    denied = chain.visible_now(JANE, PODS, CLUSTERS)
    assert denied is not None
    assert denied.clusters == {"alpha": WEB}
    second.whole = True
    assert chain.visible_now(JANE, PODS, ("alpha", "bravo")) == Visible(clusters={"alpha": WEB, "bravo": None})
    more = chain.visible_now(JANE, PODS, ("alpha", "bravo", "new"))
    assert more == Visible(clusters={"alpha": WEB, "bravo": None, "new": None})
    for number in range(1000):
        chain.visible_now(Identity(f"user{number}"), PODS, CLUSTERS)
    assert len(chain._unions) <= 128


async def test_rules_are_those_of_all() -> None:
    one, other = PolicyRule(("get",), ("",), ("pods",)), PolicyRule(("list",), ("",), ("pods",))
    chain = Chain([Said(found=SubjectRules((one,))), Said(found=SubjectRules((other,), True, "why"))])
    assert chain.rules(JANE, "alpha", "web") == SubjectRules((one, other), True, "why")


async def test_listening_and_running() -> None:
    authorizers = [Said(), Said()]
    chain = Chain(authorizers)
    woken: list[int] = []
    stop = chain.listen(lambda: woken.append(1))
    authorizers[1].woken[0]()
    assert woken == [1]
    stop()
    assert not authorizers[0].woken
    assert not authorizers[1].woken
    running = asyncio.create_task(chain.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("what", "reason", "message", "details"),
    [
        (
            Attributes("list", resource="pods", namespace="web"), "",
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "web"',
            {"kind": "pods"},
        ),
        (
            Attributes("get", "apps", "v1", "deployments", "scale", "web", "d"), "because",
            'deployments.apps "d" is forbidden: User "jane" cannot get resource "deployments/scale" in API group '
            '"apps" in the namespace "web": because',
            {"name": "d", "group": "apps", "kind": "deployments"},
        ),
        (
            Attributes("list", resource="nodes"), "",
            'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope',
            {"kind": "nodes"},
        ),
        (Attributes("get", path="/metrics"), "", 'forbidden: User "jane" cannot get path "/metrics"', {}),
        (
            Attributes("get", path="/a<b&c>"), "<x>",
            'forbidden: User "jane" cannot get path "/a&lt;b&amp;c&gt;": <x>', {},
        ),
    ],
)  # fmt: skip
def test_403(what: Attributes, reason: str, message: str, details: dict[str, str]) -> None:
    assert forbidden(JANE, what, reason).status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Forbidden",
        "details": details,
        "code": 403,
    }


def test_403_quotes_as_go_does() -> None:
    message = forbidden(Identity('a"b\n'), Attributes("get", path="/x")).message
    assert message == 'forbidden: User "a\\"b\\n" cannot get path "/x"'


def test_401() -> None:
    assert unauthorized().status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


async def test_a_chain_runs_until_it_is_cancelled() -> None:
    """Also one whose authorizers have nothing to do."""
    running = asyncio.create_task(Chain([ALWAYS_ALLOW]).run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
