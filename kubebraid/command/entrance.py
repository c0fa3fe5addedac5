"""The entrance of a serving process, made of what the command line says: who is let in, and who decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from kubebraid.command.doors import AuditLog, Doors, FrontProxy
from kubebraid.command.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS, Ask, ReviewServers
from kubebraid.command.settings import BadSetting
from materializer.materializer import Materializer
from query.access.audit.events import Audit
from query.access.audit.log_file import LogFile, StandardOutput
from query.access.audit.policy import load
from query.access.authentication.authenticator import (
    Anonymous,
    Authentication,
    Authenticator,
    TokenAuthenticator,
    TokenUnion,
)
from query.access.authentication.bearer import BearerAuthenticator, WebSocketAuthenticator
from query.access.authentication.front_proxy import FrontProxyAuthenticator, FrontProxyHeaders
from query.access.authentication.oidc import IssuedTokens
from query.access.authentication.token_cache import TokenCache
from query.access.authentication.token_file import HashedTokens
from query.access.authentication.token_review import TokenReviewAuthenticator
from query.access.authentication.x509 import CertificateAuthenticator, ClientAuthorities
from query.access.authorization.configuration import (
    MEMBERS_ALONE,
    AlwaysSettings,
    AuthorizerSettings,
    MembersSettings,
    PolicySettings,
    ReviewConnection,
    WebhookAuthorizer,
    chain_of,
    read_authorization,
)
from query.access.authorization.names import Names
from query.access.callers import Callers
from query.access.gate import Gate, namespaced
from query.entrance import Entrance
from query.http.cors import Cors
from query.http.limits import RequestCounts
from query.http.passthrough import HeaderNames
from query.identity import Identity


@dataclass(frozen=True)
class ServingEntrance:
    """An entrance, what has to run beside it, and as whom a cluster knows a user."""

    entrance: Entrance
    parts: tuple[Callable[[], Awaitable[None]], ...] = ()
    known_as: Callable[[str, Identity], Identity] = lambda _, who: who


def authorizers_of(doors: Doors) -> tuple[AuthorizerSettings, ...]:
    """Who decides, in order. Blocking. Raises BadSetting, BadAccessFile."""
    if doors.authorization is not None:
        if doors.authorizers or doors.policy:
            raise BadSetting(
                "--authorization-config says all of who decides; leave out --authorization-mode and "
                "--authorization-policy-file"
            )
        return read_authorization(doors.authorization)
    if not doors.authorizers:
        policy = () if doors.policy is None else (PolicySettings(doors.policy),)
        return (*policy, *MEMBERS_ALONE)
    found: list[AuthorizerSettings] = []
    for name in doors.authorizers:
        match name:
            case "Members":
                found.append(MembersSettings())
            case "Policy":
                if doors.policy is None:
                    raise BadSetting("--authorization-mode Policy: say which with --authorization-policy-file")
                found.append(PolicySettings(doors.policy))
            case "AlwaysAllow" | "AlwaysDeny":
                found.append(AlwaysSettings(name == "AlwaysAllow"))
            case _:
                raise BadSetting(f"--authorization-mode {name}: write Members, Policy, AlwaysAllow or AlwaysDeny")
    return tuple(found)


def asks_members(doors: Doors) -> bool:
    """Whether member clusters are asked about tokens or access. Blocking. Raises BadSetting, BadAccessFile."""
    if doors.token_reviewer is not None and doors.token_reviewer.cluster:
        return True
    return doors.authorization is not None and any(
        isinstance(one, WebhookAuthorizer) and one.connection.cluster for one in read_authorization(doors.authorization)
    )


@contextlib.asynccontextmanager
async def made_entrance(
    doors: Doors, materializer: Materializer, reviews: ReviewServers
) -> AsyncIterator[ServingEntrance]:
    """The entrance, as long as the block lasts. Raises BadSetting, BadAccessFile, BadOrigin."""
    cors, limits = Cors(doors.origins), RequestCounts(doors.requests)
    async with contextlib.AsyncExitStack() as stack:
        audit = None
        if doors.audit is not None:
            audit = await asyncio.to_thread(_audit, doors.audit)
            stack.callback(audit.close)
        if not doors.guarded:
            yield ServingEntrance(Entrance(cors=cors, limits=limits, audit=audit))
            return
        consumed = HeaderNames() if doors.front_proxy is None else _headers_of(doors.front_proxy).consumed
        entrance = Entrance(cors=cors, limits=limits, audit=audit, consumed=consumed)
        yield await _guarded(doors, materializer, reviews, stack, entrance)


def _audit(settings: AuditLog) -> Audit:
    """Raises BadAccessFile."""
    policy = load(settings.policy)
    if settings.path is None:
        return Audit(policy, StandardOutput())
    kept = LogFile(settings.path, largest=settings.largest, files=settings.files, days=settings.days)
    return Audit(policy, kept)


async def _guarded(
    doors: Doors,
    materializer: Materializer,
    reviews: ReviewServers,
    stack: contextlib.AsyncExitStack,
    entrance: Entrance,
) -> ServingEntrance:
    authorizers = await asyncio.to_thread(authorizers_of, doors)

    def clusters() -> Collection[str]:
        return materializer.store.clusters.keys()

    def ask(connection: ReviewConnection) -> Ask:
        if connection.cluster:
            return reviews.of_cluster(connection.cluster, ACCESS_REVIEWS)
        if connection.kubeconfig:
            return reviews.of_kubeconfig(connection.kubeconfig)
        return reviews.of_own_cluster(ACCESS_REVIEWS)

    chain = chain_of(authorizers, materializer, ask)
    authentication = await _authentication(doors, reviews, stack)
    members = next((one for one in authorizers if isinstance(one, MembersSettings)), None)
    gate = Gate(
        clusters,
        Callers(authentication, chain, clusters),
        chain,
        namespaced=partial(namespaced, materializer),
        members_decide=members is not None,
    )
    names = Names(() if members is None else members.names)
    return ServingEntrance(replace(entrance, gate=gate), (chain.run, gate.run), names.within)


async def _authentication(doors: Doors, reviews: ReviewServers, stack: contextlib.AsyncExitStack) -> Authentication:
    """Who is known, in a kube-apiserver's order (k8s.io/kubernetes pkg/kubeapiserver/authenticator)."""
    found: list[Authenticator] = []
    if (proxy := doors.front_proxy) is not None:
        authorities = await asyncio.to_thread(ClientAuthorities, proxy.authorities)
        found.append(FrontProxyAuthenticator(authorities, proxy.names, _headers_of(proxy)))
    files = [await asyncio.to_thread(ClientAuthorities, path) for path in doors.client_authorities]
    found += map(CertificateAuthenticator, files)
    anonymous = Anonymous(bool(doors.anonymous))
    tokens: list[TokenAuthenticator] = []
    bearers: list[TokenAuthenticator] = []
    if doors.tokens is not None:
        # Known at once, and not a moment longer than they stand there: nothing of them is remembered.
        bearers.append(await asyncio.to_thread(HashedTokens, doors.tokens))
    if doors.authentication is not None:
        issued = await asyncio.to_thread(IssuedTokens, doors.authentication)
        stack.push_async_callback(issued.close)
        tokens.append(issued)
        if issued.anonymous is not None:
            if doors.anonymous is not None:
                raise BadSetting(f"--anonymous-auth: {doors.authentication} says that already; leave one of them out")
            anonymous = issued.anonymous
    if (reviewer := doors.token_reviewer) is not None:
        if reviewer.kubeconfig is not None:
            ask, cluster = reviews.of_kubeconfig(str(reviewer.kubeconfig)), ""
        else:
            ask, cluster = reviews.of_cluster(reviewer.cluster, TOKEN_REVIEWS), reviewer.cluster
        reviewed = TokenReviewAuthenticator(ask, cluster=cluster, audiences=reviewer.audiences)
        stack.push_async_callback(reviewed.close)
        tokens.append(reviewed)
    if tokens:
        cached = TokenCache(TokenUnion(tokens))
        stack.push_async_callback(cached.close)
        bearers.append(cached)
    if bearers:
        union = TokenUnion(bearers)
        found += [BearerAuthenticator(union), WebSocketAuthenticator(union)]
    return Authentication(found, anonymous)


def _headers_of(proxy: FrontProxy) -> FrontProxyHeaders:
    """The headers by which a front proxy says who asks."""
    return FrontProxyHeaders(proxy.user_headers, proxy.uid_headers, proxy.group_headers, proxy.extra_prefixes)
