"""Webhook: SubjectAccessReviews of a server that is chosen for it, remembered for a while.

k8s.io/apiserver plugin/pkg/authorizer/webhook. The cluster that a request is for goes along as an extra of the user.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from query.access.authorization.attributes import Attributes, SelectionRequirement
from query.access.authorization.chain import Opinion
from query.access.authorization.rules import SubjectRules
from query.access.authorization.verdicts import NO_OPINION, Decision, Verdict, Visible
from query.access.errors import AccessUnavailable
from query.access.expressions import ANY, BOOL, Expression, ExpressionFailed, Language
from query.access.single_flight import SingleFlight
from query.identity import Identity

log = structlog.get_logger("query.access.webhook")

CLUSTER_EXTRA: Final = "kubebraid.io/cluster"
"""Extra of the user in a review: the name of the cluster that the request is for; not there for one at the root."""

Ask = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]
"""Sends a SubjectAccessReview and returns it with its status. Raises AccessUnavailable, after which it may be tried
again."""

# Reviews at the same time: a list at the root is one for each cluster.
_AT_ONCE = 64
# Bytes of what a review says from which on it is not remembered (webhook.go: maxControlledAttrCacheSize).
_LARGEST = 10_000
# webhook.go: DefaultRetryBackoff.
_TRIES = 5
_FACTOR = 1.5
_JITTER = 0.2

CONDITIONS = Language({"request": ANY})
"""What `matchConditions` may say: `request` is the spec of the review."""


def condition(text: str) -> Expression:
    """A match condition. Raises BadAccessFile, without the file's name and the field's path."""
    return CONDITIONS.read(text, BOOL)


@dataclass(frozen=True)
class WebhookSettings:
    """A webhook of an AuthorizationConfiguration; times in seconds, 0 for a TTL: not remembered.

    `deny_on_failure`: `failurePolicy: Deny`, else NoOpinion. `conditions`: all must hold for it to be asked.
    """

    name: str
    timeout: float
    authorized_ttl: float = 300.0
    unauthorized_ttl: float = 30.0
    deny_on_failure: bool = False
    conditions: tuple[Expression, ...] = ()


class Webhook:
    """Asks for SubjectAccessReviews.

    `most`: decisions that are remembered; a kube-apiserver has 8192 for one cluster. `pause`: seconds before a failed
    review is tried again, half as much more each time.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        ask: Ask,
        *,
        most: int = 65536,
        pause: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._most = most
        self._pause = pause
        self._clock = clock
        # By a hash of the review's spec: the verdict, and when it ends.
        self._answers: OrderedDict[bytes, tuple[Verdict, float]] = OrderedDict()
        self._flights: SingleFlight[Verdict] = SingleFlight()
        self._places = asyncio.Semaphore(_AT_ONCE)

    # -- Authorizer --------------------------------------------------------------------------------------------------

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict | None:
        """What is remembered, or no opinion about what it is not asked for. None: it has to be asked."""
        spec = review_spec(who, cluster, what)
        verdict = self._unasked(spec, what)
        return self._remembered(_key(spec)) if verdict is None else verdict

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """What the server says. A failure is one of `failurePolicy`, with an error."""
        spec = review_spec(who, cluster, what)
        if (verdict := self._unasked(spec, what)) is not None:
            return verdict
        key = _key(spec)
        if (verdict := self._remembered(key)) is not None:
            return verdict
        return await self._flights.run(key, lambda: self._review(key, spec))

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion | None:
        """What is remembered of all these clusters; None: some have to be asked about."""
        verdicts: dict[str, Verdict] = {}
        for cluster in clusters:
            if (verdict := self.decide_now(who, cluster, what)) is None:
                return None
            verdicts[cluster] = verdict
        return _opinion(verdicts, what)

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """A review for each cluster; a cluster is shown as a whole, or only the request's namespace of it."""
        names = list(clusters)
        verdicts = await asyncio.gather(*(self.decide(who, cluster, what) for cluster in names))
        return _opinion(dict(zip(names, verdicts, strict=True)), what)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """None that it could tell (webhook.go: RulesFor)."""
        return SubjectRules(incomplete=True, error="webhook authorizer does not support user rules resolution")

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Nothing: the server does not say when it would answer another way."""
        return _nothing

    async def run(self) -> None:
        """Until cancelled; ends what it asks then."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._flights.close()

    # -- one review --------------------------------------------------------------------------------------------------

    def _unasked(self, spec: dict[str, Any], what: Attributes) -> Verdict | None:
        """The verdict on what it is not asked for, as a condition does not hold, or cannot be evaluated."""
        if not self._settings.conditions:
            return None
        data = {"request": _with_all_texts(spec, what)}
        failure = ""
        for one in self._settings.conditions:
            try:
                if one.evaluate(data) is not True:
                    return NO_OPINION
            except ExpressionFailed as cause:
                failure = failure or str(cause)
        return self._failed(failure) if failure else None

    def _failed(self, error: str) -> Verdict:
        decision = Decision.DENY if self._settings.deny_on_failure else Decision.NO_OPINION
        return Verdict(decision, error=f"authorizer {self._settings.name}: {error}")

    def _remembered(self, key: bytes) -> Verdict | None:
        found = self._answers.get(key)
        if found is None:
            return None
        if found[1] <= self._clock():
            del self._answers[key]
            return None
        self._answers.move_to_end(key)
        return found[0]

    async def _review(self, key: bytes, spec: dict[str, Any]) -> Verdict:
        try:
            async with self._places, asyncio.timeout(self._settings.timeout):
                verdict = await self._asked(spec)
        except TimeoutError:
            return self._say(f"no answer within {self._settings.timeout:g} s")
        except AccessUnavailable as cause:
            return self._say(str(cause))
        if verdict.error:
            log.warning("an authorizer's answer is odd", authorizer=self._settings.name, reason=verdict.error)
            return verdict
        lasts = self._settings.authorized_ttl if verdict.allowed else self._settings.unauthorized_ttl
        if lasts and len(msgspec.json.encode(spec)) < _LARGEST:
            self._answers[key] = (verdict, self._clock() + lasts)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return verdict

    def _say(self, error: str) -> Verdict:
        log.warning("an authorizer does not answer", authorizer=self._settings.name, reason=error)
        return self._failed(error)

    async def _asked(self, spec: dict[str, Any]) -> Verdict:
        pause = self._pause
        review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec}
        for left in range(_TRIES - 1, -1, -1):
            try:
                return _verdict(await self._ask(review))
            except AccessUnavailable:
                if not left:
                    raise
            await asyncio.sleep(pause * (1 + _JITTER * random.random()))
            pause *= _FACTOR
        raise AssertionError("unreachable")


def _key(spec: dict[str, Any]) -> bytes:
    """What a review is remembered by: short, as users decide how long it is."""
    return hashlib.blake2b(msgspec.json.encode(spec), digest_size=32).digest()


def _nothing() -> None:
    pass


def _opinion(verdicts: Mapping[str, Verdict], what: Attributes) -> Opinion:
    within = frozenset({what.namespace}) if what.namespace else None
    undecided = frozenset(cluster for cluster, one in verdicts.items() if one.error)
    return Opinion(
        Visible(
            clusters={cluster: within for cluster, one in verdicts.items() if one.allowed}, undecided=bool(undecided)
        ),
        denied=frozenset(cluster for cluster, one in verdicts.items() if one.decision is Decision.DENY),
        undecided=undecided,
    )


def _verdict(review: Mapping[str, Any]) -> Verdict:
    """What a review's status says. Raises AccessUnavailable: it has none."""
    status = review.get("status")
    if not isinstance(status, Mapping):
        raise AccessUnavailable("the answer is no SubjectAccessReview")
    allowed, denied, reason = status.get("allowed"), status.get("denied"), status.get("reason")
    reason = reason if isinstance(reason, str) else ""
    if denied is True:
        both = "webhook subject access review returned both allow and deny response" if allowed is True else ""
        return Verdict(Decision.DENY, reason, both)
    return Verdict(Decision.ALLOW if allowed is True else Decision.NO_OPINION, reason)


def review_spec(who: Identity, cluster: str | None, what: Attributes) -> dict[str, Any]:
    """The spec of a SubjectAccessReview v1; empty fields are left out, as Go does."""
    extra = {key: list(values) for key, values in who.extra if key != CLUSTER_EXTRA}
    if cluster is not None:
        extra[CLUSTER_EXTRA] = [cluster]
    spec: dict[str, Any] = {}
    if what.path:
        spec["nonResourceAttributes"] = {"path": what.path, "verb": what.verb}
    else:
        attributes: dict[str, Any] = {key: value for key in _TEXTS if (value := getattr(what, key))}
        for key, requirements in (("fieldSelector", what.fields), ("labelSelector", what.labels)):
            if requirements:
                attributes[key] = {"requirements": [_requirement(one) for one in requirements]}
        spec["resourceAttributes"] = attributes
    spec["user"] = who.name
    if who.groups:
        spec["groups"] = list(who.groups)
    if extra:
        spec["extra"] = extra
    if who.uid:
        spec["uid"] = who.uid
    return spec


_TEXTS = ("namespace", "verb", "group", "version", "resource", "subresource", "name")


def _requirement(one: SelectionRequirement) -> dict[str, Any]:
    requirement: dict[str, Any] = {"key": one.key, "operator": one.operator}
    if one.values:
        requirement["values"] = list(one.values)
    return requirement


def _with_all_texts(spec: Mapping[str, Any], what: Attributes) -> dict[str, Any]:
    """The spec as conditions see it: texts are always there (apiserver pkg/authorization/cel: convertObjectToMap)."""
    seen = {"user": "", "uid": "", "groups": [], "extra": {}, **spec}
    if what.is_resource:
        seen["resourceAttributes"] = {**dict.fromkeys(_TEXTS, ""), **spec["resourceAttributes"]}
    return seen
