"""Callers: who sent an HTTP request, and in whose name: authentication, then impersonation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import replace
from urllib.parse import unquote

from aiohttp import web

from query.access.authentication.authenticator import Authentication, RequestCredentials
from query.access.authentication.impersonation import Impersonated, ImpersonationChecks, wanted_user
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Chain
from query.access.authorization.verdicts import ALLOWED, Verdict
from query.access.gate import DISCOVERY, REQUESTER, Caller
from query.http.status import ApiError
from query.http.tls import peer_chain
from query.identity import Identity


class Callers:
    """Finds out who asks. `chain`: decides who may be whom; `clusters`: the names of all that there are."""

    def __init__(self, authentication: Authentication, chain: Chain, clusters: Callable[[], Collection[str]]) -> None:
        self._authentication = authentication
        self._chain = chain
        self._clusters = clusters
        self._impersonation = ImpersonationChecks(self._may)
        self._by_root = ImpersonationChecks(chain.decide)

    async def caller(self, http: web.Request, cluster: str | None, what: Attributes) -> Caller:
        """Who sent a request; see `query.access.gate.CallerFinder`."""
        path = unquote(http.rel_url.raw_path, errors="replace")
        presented = RequestCredentials(http.headers, peer_chain(http.transport), path)
        who = await self._authentication.who(presented)
        warnings = tuple(presented.warnings)
        http[REQUESTER] = who
        wanted = wanted_user(http.headers)
        if wanted is None:
            return Caller(who, warnings=warnings)
        impersonated = await self._impersonated(who, wanted, cluster, what)
        return Caller(impersonated.who, who, impersonated.constraint, warnings)

    async def _impersonated(
        self, who: Identity, wanted: Identity, cluster: str | None, what: Attributes
    ) -> Impersonated:
        """As whom a request goes on. Raises ApiError 403."""
        if cluster is None:
            with contextlib.suppress(ApiError):
                return await self._by_root.who(who, wanted, None, what)
        found = await self._impersonation.who(who, wanted, cluster, what)
        if cluster is not None:
            return found
        # Clusters that do not let who asks know of them have not been asked whether it may be that user there.
        known = await self._chain.visible(who, DISCOVERY, self._clusters())
        return replace(found, who=replace(found.who, within=frozenset(known.clusters)))

    async def _may(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """Whether who asks may do something in a cluster; at the root, in each that tells them which APIs it has."""
        verdict = await self._chain.decide(who, cluster, what)
        if cluster is not None or verdict.allowed:
            return verdict
        names = self._clusters()
        known = await self._chain.visible(who, DISCOVERY, names)
        allowing = await self._chain.visible(who, what, names)
        # Some namespaces are not all: what a namespace's own roles allow is no answer to a request for the cluster.
        wholly = {
            name
            for name, namespaces in allowing.clusters.items()
            if namespaces is None or (what.namespace and what.namespace in namespaces)
        }
        return ALLOWED if known.clusters and known.clusters.keys() <= wholly else verdict
