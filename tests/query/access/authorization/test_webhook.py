"""SubjectAccessReviews: what is sent, what is remembered, what a failure is, and conditions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from query.access.authorization.attributes import Attributes, SelectionRequirement
from query.access.authorization.chain import Chain
from query.access.authorization.verdicts import NO_OPINION, Decision, Verdict
from query.access.authorization.webhook import CLUSTER_EXTRA, Webhook, WebhookSettings, condition, review_spec
from query.access.errors import AccessUnavailable, BadAccessFile
from query.identity import Identity

JANE = Identity("jane", "7", ("dev",), (("scopes", ("a", "b")),))
PODS = Attributes("list", "", "v1", "pods", namespace="web")


class Server:
    """A server that answers reviews as a test says: a status, an exception to raise, or nothing."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.reviews: list[dict[str, Any]] = []
        self.time = 0.0
        self.silent = asyncio.Event()

    async def ask(self, review: dict[str, Any]) -> dict[str, Any]:
        self.reviews.append(review)
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await self.silent.wait()
        if isinstance(answer, Exception):
            raise answer
        return {**review, "status": answer}

    def webhook(self, most: int = 1000, **given: Any) -> Webhook:
        settings = WebhookSettings(**{"name": "hook", "timeout": 20.0, **given})
        return Webhook(settings, self.ask, most=most, pause=0.001, clock=lambda: self.time)


def test_what_is_sent() -> None:
    what = Attributes(
        "list",
        "apps",
        "v1",
        "deployments",
        "scale",
        "web",
        "d",
        fields=(SelectionRequirement("spec.nodeName", "In", ("n",)),),
        labels=(SelectionRequirement("app", "Exists"),),
    )
    assert review_spec(JANE, "alpha", what) == {
        "resourceAttributes": {
            "namespace": "web",
            "verb": "list",
            "group": "apps",
            "version": "v1",
            "resource": "deployments",
            "subresource": "scale",
            "name": "d",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]},
            "labelSelector": {"requirements": [{"key": "app", "operator": "Exists"}]},
        },
        "user": "jane",
        "groups": ["dev"],
        "extra": {"scopes": ["a", "b"], "kubebraid.io/cluster": ["alpha"]},
        "uid": "7",
    }
    assert review_spec(Identity("x"), None, Attributes("get", path="/metrics")) == {
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        "user": "x",
    }


def test_nobody_can_say_another_cluster_than_is_asked_for() -> None:
    liar = Identity("x", extra=((CLUSTER_EXTRA, ("bravo",)),))
    assert review_spec(liar, "alpha", PODS)["extra"] == {CLUSTER_EXTRA: ["alpha"]}
    assert "extra" not in review_spec(liar, None, PODS)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ({"allowed": True, "reason": "r"}, Verdict(Decision.ALLOW, "r")),
        ({"allowed": False, "denied": True, "reason": "r"}, Verdict(Decision.DENY, "r")),
        ({"allowed": False, "reason": "r"}, Verdict(Decision.NO_OPINION, "r")),
        ({"allowed": "yes"}, NO_OPINION),
        ({}, NO_OPINION),
        (
            {"allowed": True, "denied": True},
            Verdict(Decision.DENY, "", "webhook subject access review returned both allow and deny response"),
        ),
    ],
)
async def test_answers(status: dict[str, Any], verdict: Verdict) -> None:
    server = Server(status)
    assert await server.webhook().decide(JANE, "alpha", PODS) == verdict
    assert server.reviews[0]["kind"] == "SubjectAccessReview"
    assert server.reviews[0]["apiVersion"] == "authorization.k8s.io/v1"


async def test_answers_are_remembered_for_their_time() -> None:
    server = Server({"allowed": True})
    webhook = server.webhook(authorized_ttl=300.0, unauthorized_ttl=30.0)
    assert webhook.decide_now(JANE, "alpha", PODS) is None
    await webhook.decide(JANE, "alpha", PODS)
    assert webhook.decide_now(JANE, "alpha", PODS) == Verdict(Decision.ALLOW)
    assert webhook.decide_now(JANE, "bravo", PODS) is None
    assert webhook.decide_now(Identity("jane"), "alpha", PODS) is None
    server.time = 299.0
    await webhook.decide(JANE, "alpha", PODS)
    assert len(server.reviews) == 1
    server.time = 300.0
    server.answers = [{"allowed": False}]
    assert not (await webhook.decide(JANE, "alpha", PODS)).allowed
    assert len(server.reviews) == 2
    server.time = 330.0
    assert webhook.decide_now(JANE, "alpha", PODS) is None


async def test_what_is_not_to_be_remembered() -> None:
    server = Server({"allowed": True})
    webhook = server.webhook(authorized_ttl=0.0)
    await webhook.decide(JANE, "alpha", PODS)
    assert webhook.decide_now(JANE, "alpha", PODS) is None
    large = Attributes("get", resource="pods", name="x" * 10_000)
    webhook = server.webhook()
    await webhook.decide(JANE, "alpha", large)
    assert webhook.decide_now(JANE, "alpha", large) is None


async def test_what_is_remembered_is_bounded() -> None:
    webhook = Server({"allowed": True}).webhook(most=3)
    for cluster in ("a", "b", "c"):
        await webhook.decide(JANE, cluster, PODS)
    assert webhook.decide_now(JANE, "a", PODS) is not None
    await webhook.decide(JANE, "d", PODS)
    assert webhook.decide_now(JANE, "a", PODS) is not None
    assert webhook.decide_now(JANE, "b", PODS) is None


async def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    server = Server({"allowed": True})
    webhook = server.webhook()
    verdicts = await asyncio.gather(*(webhook.decide(JANE, "alpha", PODS) for _ in range(20)))
    assert all(one.allowed for one in verdicts)
    assert len(server.reviews) == 1


@pytest.mark.parametrize(("deny", "decision"), [(True, Decision.DENY), (False, Decision.NO_OPINION)])
async def test_a_failure_is_tried_again_and_then_what_the_policy_says(deny: bool, decision: Decision) -> None:
    away = AccessUnavailable("connection refused")
    server = Server(away, away, {"allowed": True})
    assert (await server.webhook().decide(JANE, "alpha", PODS)).allowed
    assert len(server.reviews) == 3
    server = Server(away)
    webhook = server.webhook(deny_on_failure=deny)
    assert await webhook.decide(JANE, "alpha", PODS) == Verdict(decision, error="authorizer hook: connection refused")
    assert len(server.reviews) == 5
    server.answers = [{"allowed": True}]
    # Failures are not remembered.
    assert (await webhook.decide(JANE, "alpha", PODS)).allowed


async def test_a_server_that_is_silent() -> None:
    webhook = Server(None).webhook(timeout=0.01, deny_on_failure=True)
    verdict = await webhook.decide(JANE, "alpha", PODS)
    assert verdict == Verdict(Decision.DENY, error="authorizer hook: no answer within 0.01 s")


async def test_an_answer_that_is_none() -> None:
    server = Server("nonsense")
    verdict = await server.webhook().decide(JANE, "alpha", PODS)
    assert verdict.error == "authorizer hook: the answer is no SubjectAccessReview"


async def test_each_cluster_is_asked_about_for_a_list_at_the_root() -> None:
    class ByCluster(Server):
        async def ask(self, review: dict[str, Any]) -> dict[str, Any]:
            cluster = review["spec"]["extra"][CLUSTER_EXTRA][0]
            if cluster == "away":
                raise AccessUnavailable("away")
            statuses: dict[str, dict[str, bool]] = {"alpha": {"allowed": True}, "bravo": {"denied": True}}
            return {"status": statuses.get(cluster, {})}

    webhook = ByCluster().webhook()
    clusters = ("alpha", "bravo", "charlie", "away")
    assert webhook.visible_now(JANE, PODS, clusters) is None
    opinion = await webhook.visible(JANE, PODS, clusters)
    assert opinion.visible.clusters == {"alpha": frozenset({"web"})}
    assert opinion.denied == {"bravo"}
    assert opinion.undecided == {"away"}
    everywhere = await webhook.visible(JANE, Attributes("list", resource="pods"), clusters)
    assert everywhere.visible.clusters == {"alpha": None}
    now = webhook.visible_now(JANE, PODS, clusters[:3])
    assert now is not None
    assert now.visible.clusters == {"alpha": frozenset({"web"})}
    visible = await Chain([webhook]).visible(JANE, PODS, clusters)
    assert visible.clusters == {"alpha": frozenset({"web"})}
    assert visible.undecided


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (["request.user == 'jane'"], True),
        (["request.user != 'jane'"], False),
        (["'dev' in request.groups", "request.resourceAttributes.namespace == 'web'"], True),
        (["has(request.resourceAttributes) && request.resourceAttributes.subresource == ''"], True),
        (["has(request.nonResourceAttributes)"], False),
        (["request.extra['kubebraid.io/cluster'][0] == 'alpha'"], True),
        # One that does not hold counts more than one without a value.
        (["request.nonResourceAttributes.path == '/'", "false"], False),
    ],
)
async def test_conditions(texts: list[str], asked: bool) -> None:
    server = Server({"allowed": True})
    webhook = server.webhook(conditions=tuple(condition(text) for text in texts))
    assert await webhook.decide(JANE, "alpha", PODS) == (Verdict(Decision.ALLOW) if asked else NO_OPINION)
    assert bool(server.reviews) == asked
    if not asked:
        assert webhook.decide_now(JANE, "alpha", PODS) == NO_OPINION


@pytest.mark.parametrize(("deny", "decision"), [(True, Decision.DENY), (False, Decision.NO_OPINION)])
async def test_a_condition_without_a_value_is_a_failure(deny: bool, decision: Decision) -> None:
    server = Server({"allowed": True})
    conditions = (condition("request.nonResourceAttributes.path == '/'"),)
    verdict = await server.webhook(conditions=conditions, deny_on_failure=deny).decide(JANE, "alpha", PODS)
    assert verdict.decision is decision
    assert "nonResourceAttributes" in verdict.error
    assert not server.reviews


@pytest.mark.parametrize("text", ["", "request.user", "user == 'x'", "1 +"])
def test_conditions_that_are_none(text: str) -> None:
    with pytest.raises(BadAccessFile):
        condition(text)


async def test_rules_listeners_and_the_end() -> None:
    webhook = Server(None).webhook()
    found = webhook.rules(JANE, "alpha", "web")
    assert found.incomplete
    assert found.error == "webhook authorizer does not support user rules resolution"
    webhook.listen(lambda: None)()
    running = asyncio.create_task(webhook.run())
    asking = asyncio.create_task(webhook.decide(JANE, "alpha", PODS))
    while not len(webhook._flights):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not len(webhook._flights)
