"""What would happen if a member cluster were followed: whether it answers, to whom, and which types may be read.

Types are tried, one LIST of one object and one WATCH each: what a SelfSubjectRulesReview says is known to be incomplete
where a webhook decides.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource
from producers.credentials.credential import BadCredentials
from producers.errors import ClusterUnavailable
from producers.kubeconfig.identity import identity_kind, server_shown
from producers.members.membership import Member
from producers.rules.rules import Chosen
from producers.supervision import reason_of
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.custom_resources import CustomDefinition, custom_definitions
from producers.upstream.discovery import discover, server_version

# Requests at once to one cluster.
_AT_ONCE = 8
# What a failure's text says of its reason, and what to do then.
_MENDS = (
    (r"proxy", "check proxy-url, HTTPS_PROXY and NO_PROXY"),
    (r"certificate|self.signed|x509|issuer", "give its CA as certificate-authority(-data), or renew what has expired"),
    (r"resolve|name or service|getaddrinfo|nodename|dns", "is the server's name right, and known here: VPN, DNS?"),
    (r"refused|connect call failed", "does an API server listen at that address and port?"),
    (r"timed? ?out|no answer|nothing came|unreachable|no route", "is it reachable from here: VPN, firewall, a proxy?"),
    (r"failed to connect|could not connect", "does an API server listen at that address and port?"),
)
# The same for an identity that the server does not accept.
_LOG_IN = {
    "anonymous": "give its user credentials: it has none, or none that go over plain http",
    "exec plugin": "log in with the plugin's own command, then run it by hand",
    "oidc": "log in anew: the tokens may have expired",
    "client certificate": "renew the client certificate: it may have expired",
}


_RBAC = tuple(
    GroupResource("rbac.authorization.k8s.io", resource)
    for resource in ("clusterrolebindings", "clusterroles", "rolebindings", "roles")
)
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
# What has to be impersonated so that a cluster decides about users and their groups.
_IMPERSONATED = (("", "users"), ("", "groups"))


class _ReviewStatus(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _ReviewStatus = msgspec.field(default_factory=_ReviewStatus)


class Trial(msgspec.Struct, frozen=True):
    """One cluster as it was found.

    `state`: `good`, `partly` (some types cannot be read) or `failed`. `identity`: its kind, never whose. `types`: how
    many would be followed; `unreadable`: those of them that would not come, each with the reason. `problem` and `mend`:
    one line each, empty where all is well.

    - `decides`: whether its own RBAC can decide about it where it is served (`--authorization-mode Members`): all of
      its roles and bindings would come.
    - `forward`: the values of `--forward` that can work: `impersonate` needs the right to do that. None: not known.
    """

    name: str
    state: str
    server: str
    identity: str
    reachable: bool = False
    version: str = ""
    types: int = 0
    unreadable: dict[str, str] = {}
    problem: str = ""
    mend: str = ""
    decides: bool = False
    forward: tuple[str, ...] | None = None


async def tried(name: str, member: Member, patience: float, timing: ProducerTiming) -> Trial:
    """Asks a cluster as its producer would, for `patience` seconds at most; nothing is written anywhere."""
    access = member.access
    trial = Trial(name, "failed", server_shown(access.cluster.server), identity_kind(access))
    if access.problem:
        mend = f"correct that, or leave {name} out"
        return msgspec.structs.replace(trial, problem=access.problem, mend=mend)
    server = ApiServer(access, timing)
    under_way = _UnderWay(trial)
    try:
        async with asyncio.timeout(patience):
            await _ask(server, member, under_way)
    except TimeoutError:
        if waits_for := server.waits_for:
            under_way.fail(f"{waits_for}, after {patience:g} s", mend="run it by hand: does it wait for somebody?")
        else:
            under_way.fail(f"no answer within {patience:g} s")
    except ClusterUnavailable as cause:
        under_way.fail(str(cause), cause)
    except Exception as cause:  # noqa: BLE001 - supervised
        # Whatever one cluster leads to, the others are tried.
        under_way.fail(reason_of(cause))
    finally:
        await server.close()
    return under_way.trial


class _UnderWay:
    """A trial, as far as it has come."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def found(self, **facts: object) -> None:
        self.trial = msgspec.structs.replace(self.trial, **facts)

    def fail(self, problem: str, cause: ClusterUnavailable | None = None, mend: str = "") -> None:
        # What was refused was answered.
        answered = isinstance(cause, RequestRefused)
        self.found(
            state="failed",
            problem=problem,
            mend=mend or _mend(problem, cause, self.trial.identity),
            reachable=self.trial.reachable or answered,
        )


async def _ask(server: ApiServer, member: Member, under_way: _UnderWay) -> None:
    try:
        version = await server_version(server)
        under_way.found(reachable=True, version=str(version.get("gitVersion", "")))
    except RequestRefused as refused:
        if refused.code not in (403, 404):
            raise
        # Not for everybody; discovery will tell.
        under_way.found(reachable=True)

    async def definitions() -> dict[GroupResource, CustomDefinition]:
        return dict((await custom_definitions(server)).found.values())

    discovered = await discover(server, definitions)
    chosen = member.rules.chosen(discovered.types)
    places = asyncio.Semaphore(_AT_ONCE)
    under_way.found(types=len(chosen), forward=await _forwarding(server))
    answers = await asyncio.gather(*(_readable(server, one, places) for one in chosen))
    names = [one.resource.group_resource for one in chosen]
    unreadable = {str(name): reason for name, reason in zip(names, answers, strict=True) if reason}
    whole = {one.resource.group_resource for one in chosen if not one.scope.only and not one.scope.selector}
    under_way.found(decides=all(one in whole and str(one) not in unreadable for one in _RBAC))
    unreadable |= {f"*.{group}": "its API server does not answer" for group in sorted(discovered.doubtful)}
    if not chosen:
        under_way.found(state="partly", problem="none of its types is chosen", mend="check --include and --exclude")
    elif unreadable:
        under_way.found(
            state="partly",
            unreadable=dict(sorted(unreadable.items())),
            problem=f"{len(unreadable)} of {len(chosen)} types cannot be read: {', '.join(sorted(unreadable)[:5])}"
            + (" and more" if len(unreadable) > 5 else ""),
            mend=_mend_types(names, unreadable),
        )
    else:
        under_way.found(state="good")


async def _forwarding(server: ApiServer) -> tuple[str, ...] | None:
    """As whom requests can be passed on. Whether callers are let in is theirs; to ask in their name is ours."""
    for group, resource in _IMPERSONATED:
        asked = {"verb": "impersonate", "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            answer = msgspec.json.decode(await server.post(_ACCESS_REVIEWS, msgspec.json.encode(review)), type=_Review)
        except (ClusterUnavailable, *UNDECODABLE):
            return None
        if not answer.status.allowed:
            return ("caller", "configured")
    return ("caller", "impersonate", "configured")


async def _readable(server: ApiServer, chosen: Chosen, places: asyncio.Semaphore) -> str:
    """Why a type cannot be listed or watched; empty if it can."""
    for namespace in chosen.scope.only or (None,):
        path = chosen.resource.path_within(namespace)
        labels = {"labelSelector": chosen.scope.selector} if chosen.scope.selector else {}
        where = "" if namespace is None else f" in namespace {namespace}"
        for verb, query in (
            ("list", {"limit": "1"}),
            ("watch", {"watch": "true", "timeoutSeconds": "1", "resourceVersion": "0"}),
        ):
            try:
                async with places, server.open(path, {**labels, **query}):
                    pass
            except RequestRefused as refused:
                if refused.code == 403:
                    return f"may not {verb}{where}"
                # A version that has expired was not refused for who asks.
                if not refused.expired:
                    return f"{verb}{where}: {refused}"
            except ClusterUnavailable as cause:
                return f"{verb}{where}: {cause}"
    return ""


def _mend(problem: str, cause: ClusterUnavailable | None, identity: str) -> str:
    if isinstance(cause, RequestRefused) and cause.code == 401:
        for kind, mend in _LOG_IN.items():
            if kind in identity:
                return mend
        return "log in anew, and put the new token or password there"
    if isinstance(cause, RequestRefused) and cause.code == 403:
        return "bind the ClusterRole system:discovery to who asks (kubectl auth whoami)"
    if cause is not None and isinstance(cause.__cause__, BadCredentials):
        for kind, mend in _LOG_IN.items():
            if kind in identity:
                return mend
    for pattern, mend in _MENDS:
        if re.search(pattern, problem, re.IGNORECASE):
            return mend
    return "try `kubectl get --raw /version` with the same context"


def _mend_types(names: list[GroupResource], unreadable: dict[str, str]) -> str:
    refused = [name for name in names if unreadable.get(str(name), "").startswith("may not")]
    if not refused:
        return "are the API servers of these groups up? (kubectl get apiservices)"
    resources = ",".join(str(name) for name in refused[:5])
    return (
        f"kubectl create clusterrole kubebraid --verb=list,watch --resource={resources}, and bind it; or --exclude them"
    )
