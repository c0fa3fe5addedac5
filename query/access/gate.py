"""The gate: who asks, and what they may see and do here, for whatever answers requests.

Without authentication everyone is anonymous, without authorization everything is allowed: on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import structlog
from aiohttp import web

from deltalog.wire.kubernetes import GroupResource
from materializer.materializer import Materializer
from materializer.visible import EVERYTHING, Visible
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Chain
from query.access.authorization.denied import forbidden
from query.access.authorization.rules import PolicyRule, SubjectRules
from query.access.authorization.verdicts import ALLOWED, NO_OPINION, Decision, Verdict
from query.http.status import ApiError
from query.identity import AUTHENTICATED, NOBODY, Identity

log = structlog.get_logger("query.access.gate")

DISCOVERY = Attributes("get", path="/api")
"""What makes a cluster one that a user may know of: that it tells them which APIs it has."""
# At the root, of what is about no cluster, or only tells what may be seen of each: who may get it.
_FOR_ALL = ("/healthz", "/healthz/ping", "/livez", "/livez/ping", "/readyz", "/readyz/ping", "/version")
_FOR_AUTHENTICATED = ("/api", "/apis", "/openapi", "/clusters")
_MONITORING = "system:monitoring"
_FOR_MONITORING = ("/metrics",)
# What every authenticated user may create at the root: reviews of themselves (the ClusterRole system:basic-user).
_OF_THEMSELVES = frozenset(
    {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
    }
)


_STREAMS = frozenset({("", "pods", "exec"), ("", "pods", "attach"), ("", "pods", "portforward")})

# Watches that are looked at before others have their turn.
_LOOKED_AT_ONCE = 16

REQUESTER = web.RequestKey("REQUESTER", Identity)
"""Who was authenticated, of a request that is refused before it is known in whose name it is answered."""

LEFT_OUT = "clusters are left out whose access rules are not synced, or too old"
"""What is said where clusters decide nothing, as it is not known what they would decide."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `warnings`: for the answer's headers.

    `impersonator`: who was authenticated, where that is another; `constraint`: the verb by which they may do that, ""
    for plain `impersonate`.
    """

    who: Identity
    impersonator: Identity | None = None
    constraint: str = ""
    warnings: tuple[str, ...] = ()


class Denial(NamedTuple):
    """Why a request may not be answered. `final`: also the cluster's own API server is not to be asked."""

    error: ApiError
    final: bool


class CallerFinder(Protocol):
    """Finds out who asks."""

    async def caller(self, http: web.Request, cluster: str | None, what: Attributes) -> Caller:
        """Who sent a request; `cluster`: the one that it names, None for all; `what` it does there.

        Raises:
            ApiError: 400, headers that cannot be; 401, nobody that is known; 403, may not impersonate whom it names.
        """
        ...


class Permit:
    """That one watch may go on. `ended`: what may be seen has changed; `on_end` is called once, then."""

    __slots__ = ("cluster", "ended", "on_end", "visible", "what", "who")

    def __init__(self, who: Identity, cluster: str | None, what: Attributes, visible: Visible) -> None:
        self.who = who
        self.cluster = cluster
        self.what = what
        self.visible = visible
        self.ended = False
        self.on_end: Callable[[], None] = _nothing

    def end(self) -> None:
        """Ends it."""
        self.ended = True
        self.on_end()


class Gate:
    """Decides about requests. `authentication` None: all are anonymous; `chain` None: all is allowed.

    - `clusters`: the names of all that there are. `namespaced`: in which of some clusters a request's type is in
      namespaces.
    - `members_decide`: whether what a cluster's own RBAC decides is asked for, so that the cluster itself may be asked
      as well.
    - `settle`: seconds between a change of rules and a look at the open watches, which sees all changes of that time;
      `again`: between two looks at what changes without notice.
    """

    def __init__(
        self,
        clusters: Callable[[], Collection[str]] = tuple,
        authentication: CallerFinder | None = None,
        chain: Chain | None = None,
        *,
        namespaced: Callable[[Collection[str], Attributes], Collection[str]] = lambda clusters, _: clusters,
        members_decide: bool = False,
        settle: float = 0.1,
        again: float = 10.0,
    ) -> None:
        self._clusters = clusters
        self._authentication = authentication
        self._chain = chain
        self._namespaced = namespaced
        self._members_decide = members_decide
        self._settle = settle
        self._again = again
        self._permits: set[Permit] = set()
        # Those not looked at since they began; whether all are to be looked at; whether there is anything to look at.
        self._begun: set[Permit] = set()
        self._all_due = False
        self._due = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether everything is allowed to everyone."""
        return self._chain is None

    async def caller(self, http: web.Request, cluster: str | None, what: Attributes) -> Caller:
        """Who sent a request. Raises ApiError 400, 401, 403, see `CallerFinder`."""
        if self._authentication is None:
            return Caller(NOBODY)
        return await self._authentication.caller(http, cluster, what)

    async def refusal(self, who: Identity, cluster: str | None, what: Attributes) -> Denial | None:
        """Why a request may not be answered, 403; None: it may. `cluster` None: one at the root, of no type's objects.

        What every instance tells of itself needs no rule at the root; what it tells of clusters is what may be seen of
        them.
        """
        if self._chain is None:
            return None
        verdict = await self.verdict(who, cluster, what)
        if verdict.allowed and what.verb == "get" and (what.group, what.resource, what.subresource) in _STREAMS:
            # Since 1.35 what is asked for by GET, as a WebSocket is, needs the right to create as well
            # (k8s.io/kubernetes pkg/registry/core/pod/rest: AuthorizePodWebsocketUpgradeCreatePermission).
            what = replace(what, verb="create")
            verdict = await self._chain.decide(who, cluster, what)
        if verdict.allowed:
            return None
        if verdict.error:
            # Who should have decided could not (k8s.io/apiserver pkg/endpoints/filters/authorization.go).
            return Denial(ApiError(500, f"it could not be decided whether this is allowed: {verdict.error}"), True)
        final = verdict.decision is Decision.DENY or not self._members_decide
        return Denial(forbidden(who, what, verdict.reason), final)

    async def verdict(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """What is decided about anyone, as access reviews tell; `cluster` None: about a request at the root."""
        if self._chain is None or (cluster is None and _open_at_root(who, what)):
            return ALLOWED
        if cluster is None and who.within is not None:
            return NO_OPINION
        return await self._chain.decide(who, cluster, what)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """Which rules a user has in a namespace, as far as they can be told; `cluster` None: in any cluster."""
        if self._chain is None:
            return SubjectRules()
        if cluster is not None or who.within is None:
            return self._chain.rules(who, cluster, namespace)
        found = [self._chain.rules(who, one, namespace) for one in sorted(who.within)]
        rules = dict.fromkeys(rule for one in found for rule in one.rules)
        return SubjectRules(tuple(rules), any(one.incomplete for one in found))

    @staticmethod
    def rules_at_root(who: Identity) -> tuple[PolicyRule, ...]:
        """What every instance lets a user do at the root, whatever the rules say."""
        paths = (*_FOR_ALL, *(_FOR_MONITORING if _MONITORING in who.groups else ()))
        if AUTHENTICATED not in who.groups:
            return (PolicyRule(("get",), non_resource_urls=paths),)
        below = tuple(pattern for path in _FOR_AUTHENTICATED for pattern in (path, f"{path}/*"))
        reviews = (
            PolicyRule(("create",), (group,), tuple(sorted(name for of, name in _OF_THEMSELVES if of == group)))
            for group in sorted({group for group, _ in _OF_THEMSELVES})
        )
        return (*reviews, PolicyRule(("get",), non_resource_urls=(*paths, *below)))

    async def visible(self, who: Identity, what: Attributes) -> Visible:
        """What a request at the root, for one type or path, may see of each cluster.

        Rights within namespaces show nothing of a type that has none there.
        """
        if self._chain is None:
            return EVERYTHING
        visible = await self._chain.visible(who, what, self._clusters())
        if who.within is not None:
            shown = dict.fromkeys(self._clusters()) if visible.whole else visible.clusters
            shown = {cluster: within for cluster, within in shown.items() if cluster in who.within}
            visible = Visible(clusters=shown, undecided=visible.undecided)
        if visible.whole or not what.is_resource:
            return visible
        if what.namespace:
            # What was decided is about this namespace, of which the object may be the name, and not in it.
            return Visible(clusters=dict.fromkeys(visible.clusters), undecided=visible.undecided)
        partly = [cluster for cluster, within in visible.clusters.items() if within is not None]
        if len(inside := self._namespaced(partly, what)) < len(partly):
            outside = set(partly).difference(inside)
            clusters = {name: within for name, within in visible.clusters.items() if name not in outside}
            return Visible(clusters=clusters, undecided=visible.undecided)
        return visible

    async def discoverable(self, who: Identity) -> Visible:
        """The clusters that may be known to be there: those that tell which APIs they have."""
        return await self.visible(who, DISCOVERY)

    @contextlib.contextmanager
    def watching(self, who: Identity, cluster: str | None, what: Attributes, visible: Visible) -> Iterator[Permit]:
        """Has a watch looked after while the block lasts.

        What it may see was `visible` when it began; of one cluster (`cluster`) it is all or nothing.
        """
        permit = Permit(who, cluster, what, visible if cluster is None else EVERYTHING)
        if self._chain is None:
            yield permit
            return
        self._permits.add(permit)
        # Rules may have changed since they were asked.
        self._begun.add(permit)
        self._due.set()
        try:
            yield permit
        finally:
            self._permits.discard(permit)
            self._begun.discard(permit)

    async def run(self) -> None:
        """Ends the watches whose users come to see more or less, until cancelled."""
        if self._chain is None:
            return
        stop = self._chain.listen(self._all_at_once)
        loop = asyncio.get_running_loop()
        look_at = loop.time() + self._again
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(look_at):
                        await self._due.wait()
                await asyncio.sleep(self._settle)
                self._due.clear()
                permits = list(self._begun)
                if self._all_due or loop.time() >= look_at:
                    permits, self._all_due, look_at = list(self._permits), False, loop.time() + self._again
                self._begun.clear()
                try:
                    await self._look(permits)
                except Exception:
                    # Supervised: one look that fails must not be the last one.
                    log.exception("open watches could not be looked at")
        finally:
            stop()

    def _all_at_once(self) -> None:
        self._all_due = True
        self._due.set()

    async def _look(self, permits: Sequence[Permit]) -> None:
        """Ends those of these permits whose watches would see something else now. O(permits)."""
        now: dict[tuple[Identity, str | None, Attributes], Visible] = {}
        for at, permit in enumerate(permits):
            key = (permit.who, permit.cluster, permit.what)
            if (seen := now.get(key)) is None:
                seen = now[key] = await self._now(*key)
            if (seen.whole, seen.clusters) != (permit.visible.whole, permit.visible.clusters) and not permit.ended:
                permit.end()
            # What ends writes its last event at the next turn: not all of them at once.
            if at % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)

    async def _now(self, who: Identity, cluster: str | None, what: Attributes) -> Visible:
        if cluster is None:
            return await self.visible(who, what)
        return EVERYTHING if await self.refusal(who, cluster, what) is None else Visible()


def namespaced(materializer: Materializer, clusters: Collection[str], what: Attributes) -> list[str]:
    """Those of some clusters that have a request's type, and in namespaces. O(clusters)."""
    known, key = materializer.store.clusters, GroupResource(what.group, what.resource)
    found = []
    for cluster in clusters:
        facts = known.get(cluster)
        if facts is not None and (info := facts.types.get(key)) is not None and info.namespaced:
            found.append(cluster)
    return found


def _nothing() -> None:
    pass


def _open_at_root(who: Identity, what: Attributes) -> bool:
    """Whether a request at the root needs no rule."""
    if who.masters:
        return True
    if what.is_resource:
        return AUTHENTICATED in who.groups and what.verb == "create" and (what.group, what.resource) in _OF_THEMSELVES
    if what.verb not in ("get", "head"):
        return False
    path = what.path.rstrip("/")
    return (
        path in _FOR_ALL
        or (AUTHENTICATED in who.groups and (not path or _below(path, _FOR_AUTHENTICATED)))
        or (_MONITORING in who.groups and who.within is None and path in _FOR_MONITORING)
    )


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
