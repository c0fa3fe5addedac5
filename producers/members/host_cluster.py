"""Clusters described by objects of a host cluster: Secrets with a kubeconfig, or Clusterpedia's PediaClusters.

The objects are few: they are listed and watched, and all are looked at again after each change.
PediaCluster: cluster.clusterpedia.io/v1alpha2, with ClusterSyncResources that it may refer to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import structlog

from deltalog.jetstream.backoff import Backoff
from producers.errors import ProducersError, UnusableInput
from producers.rules.configuration import PediaClusters, Secrets
from producers.rules.rules import Rule, Rules
from producers.supervision import reason_of
from producers.timing import ProducerTiming
from producers.upstream.access import ClusterAccess, Inline, host_access
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.watching import Target, current_objects

log = structlog.get_logger("producers.members.host_cluster")

# Clusters by name, rules of those that bring their own, and what is wrong with others, by name.
Report = Callable[[dict[str, ClusterAccess], dict[str, Rules], dict[str, str]], None]
# Why the host cluster cannot be read; None: it can.
Complain = Callable[[str | None], None]

_PEDIA = "/apis/cluster.clusterpedia.io/v1alpha2"
# Labels that name a Secret's cluster: ours, and Cluster API's.
_NAME_LABELS = ("kubebraid.io/cluster-name", "cluster.x-k8s.io/cluster-name")
_KUBECONFIG_KEYS = ("kubeconfig", "value", "config")

_Objects = dict[str, dict[str, Any]]


class BadCluster(UnusableInput):
    """An object that describes no cluster that could be followed; one line."""


# -- watching the host ---------------------------------------------------------------------------------------------


async def follow(origin: Secrets | PediaClusters, report: Report, complain: Complain, timing: ProducerTiming) -> None:
    """Reports the clusters that objects of the host cluster describe, again at each change, until cancelled."""
    backoff = Backoff(*timing.host_backoff)
    claims = Claims()
    while True:
        server = None
        started = time.monotonic()
        try:
            server = ApiServer(host_access(origin.host.kubeconfig, origin.host.context), timing)
            if isinstance(origin, Secrets):
                await _follow_secrets(server, origin, claims, report, complain)
            else:
                await _follow_pedia(server, origin, report, complain)
        except ProducersError as cause:
            complain(f"{_name_of(origin)}: {cause}")
        except ExceptionGroup as group:
            expected, rest = group.split(ProducersError)
            if rest is not None:
                raise rest from None
            complain(f"{_name_of(origin)}: {_first(expected)}")
        finally:
            if server is not None:
                await server.close()
        if time.monotonic() - started > timing.host_stable:
            backoff.reset()
        await backoff.wait()


def _name_of(origin: Secrets | PediaClusters) -> str:
    if isinstance(origin, Secrets):
        return f"secrets of namespace {origin.namespace} in the host cluster"
    return "PediaClusters of the host cluster"


def _first(group: BaseExceptionGroup[Exception] | None) -> str:
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


# -- Secrets -------------------------------------------------------------------------------------------------------


async def _follow_secrets(
    server: ApiServer, origin: Secrets, claims: Claims, report: Report, complain: Complain
) -> None:
    target = Target(f"/api/v1/namespaces/{origin.namespace}/secrets", origin.selector)
    async with contextlib.aclosing(current_objects(server, target)) as states:
        async for secrets in states:
            clusters: dict[str, ClusterAccess] = {}
            problems: dict[str, str] = {}
            for object_name, secret in claims.sorted(secrets):
                name = object_name
                try:
                    name = secret_cluster(secret)
                    if (first := claims.claim(name, object_name)) != object_name:
                        problems[f"{name}/{object_name}"] = (
                            f"secret {object_name} names a cluster {name!r} that secret {first} names already"
                        )
                        continue
                    clusters[name] = Inline(name, secret_kubeconfig(secret, origin.key))
                except Exception as problem:  # noqa: BLE001 - supervised
                    # Whatever one object leads to, the others are read.
                    problems[name] = _problem(f"secret {object_name}", problem)
            complain(None)
            report(clusters, {}, problems)


class Claims:
    """Which Secret has a cluster's name, of several that bear it: whoever may write one takes no other's cluster away.

    The one that had it keeps it; where none had, it is the oldest one's (its cluster says when it was made).
    """

    def __init__(self) -> None:
        self._claimed: dict[str, str] = {}

    def sorted(self, secrets: _Objects) -> list[tuple[str, dict[str, Any]]]:
        """Secrets by name, in the order in which they get names; what does not bear one any more loses it."""
        found = {}
        for name, secret in secrets.items():
            with contextlib.suppress(Exception):
                found[name] = secret_cluster(secret)
        self._claimed = {cluster: name for cluster, name in self._claimed.items() if found.get(name) == cluster}
        return sorted(secrets.items(), key=lambda one: (str(one[1]["metadata"].get("creationTimestamp")), one[0]))

    def claim(self, cluster: str, secret: str) -> str:
        """The Secret that has a cluster's name: this one, if no other has it."""
        return self._claimed.setdefault(cluster, secret)


def _problem(what: str, error: Exception) -> str:
    return str(error) if isinstance(error, UnusableInput) else f"{what}: {reason_of(error)}"


def secret_cluster(secret: dict[str, Any]) -> str:
    """The name of the cluster that a Secret is of: by label, else its own without `-kubeconfig`."""
    metadata = secret["metadata"]
    labels = metadata.get("labels") or {}
    named = next((labels[label] for label in _NAME_LABELS if labels.get(label)), "")
    return str(named or metadata["name"].removesuffix("-kubeconfig"))


def secret_kubeconfig(secret: dict[str, Any], key: str = "") -> str:
    """The kubeconfig in a Secret. Raises BadCluster."""
    where = f"secret {secret['metadata']['name']}"
    data = secret.get("data") or {}
    for one in (key,) if key else _KUBECONFIG_KEYS:
        if data.get(one):
            return _text(data[one], f"{where}: {one}")
    raise BadCluster(f"{where} has no {key or ' or '.join(_KUBECONFIG_KEYS)}")


def _text(encoded: str, where: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError) as cause:
        raise BadCluster(f"{where} is no text in base64") from cause


# -- PediaClusters -------------------------------------------------------------------------------------------------


async def _follow_pedia(server: ApiServer, origin: PediaClusters, report: Report, complain: Complain) -> None:
    state: dict[str, _Objects | None] = {"clusters": None, "shared": None}

    def merge() -> None:
        found, shared = state["clusters"], state["shared"]
        if found is None or shared is None:
            return
        clusters: dict[str, ClusterAccess] = {}
        rules: dict[str, Rules] = {}
        problems: dict[str, str] = {}
        for name, pedia in found.items():
            try:
                access, own = Inline(name, pedia_kubeconfig(pedia)), pedia_rules(pedia, shared)
            except Exception as problem:  # noqa: BLE001 - supervised
                # Whatever one object leads to, the others are read.
                problems[name] = f"PediaCluster {name}: {reason_of(problem)}"
                continue
            clusters[name], rules[name] = access, own
        complain(None)
        report(clusters, rules, problems)

    async def take(what: str, target: Target) -> None:
        try:
            async with contextlib.aclosing(current_objects(server, target)) as states:
                async for objects in states:
                    state[what] = objects
                    merge()
        except RequestRefused as refused:
            # Older Clusterpedias have no such type; nothing is shared then.
            if what != "shared" or refused.code != 404:
                raise
            state[what] = {}
            merge()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take("clusters", Target(f"{_PEDIA}/pediaclusters", origin.selector)))
        tasks.create_task(take("shared", Target(f"{_PEDIA}/clustersyncresources")))


def pedia_kubeconfig(pedia: dict[str, Any]) -> str:
    """A kubeconfig made of a PediaCluster's spec. Raises BadCluster."""
    spec = pedia.get("spec") or {}
    if spec.get("kubeconfig"):
        return _text(spec["kubeconfig"], "spec.kubeconfig")
    if not spec.get("apiserver"):
        raise BadCluster("neither spec.kubeconfig nor spec.apiserver is given")
    server = str(spec["apiserver"])
    if "://" not in server:
        server = f"https://{server}"
    cluster: dict[str, Any] = {"server": server}
    if spec.get("caData"):
        cluster["certificate-authority-data"] = spec["caData"]
    elif server.startswith("https://"):
        # As Clusterpedia does without an authority.
        cluster["insecure-skip-tls-verify"] = True
    user: dict[str, Any] = {}
    if spec.get("tokenData"):
        user["token"] = _text(spec["tokenData"], "spec.tokenData").strip()
    if spec.get("certData") and spec.get("keyData"):
        user |= {"client-certificate-data": spec["certData"], "client-key-data": spec["keyData"]}
    name = pedia["metadata"]["name"]
    return json.dumps(
        {
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def pedia_rules(pedia: dict[str, Any], shared: _Objects) -> Rules:
    """Rules made of what a PediaCluster asks to be synced. Raises BadCluster, BadRule."""
    spec = pedia.get("spec") or {}
    wanted = list(spec.get("syncResources") or [])
    if reference := spec.get("syncResourcesRefName"):
        if reference not in shared:
            raise BadCluster(f"there is no ClusterSyncResources {reference!r}")
        wanted += (shared[reference].get("spec") or {}).get("syncResources") or []
    types: list[str] = []
    for item in wanted:
        group = str(item.get("group") or "")
        resources = [str(one).partition("/")[0] for one in item.get("resources") or []]
        for resource in dict.fromkeys(resources):
            # `group: ""` is the core group, `group: "*"` any.
            patterns = [f"{resource}.{group}"]
            if group == "*":
                patterns = ["*"] if resource == "*" else [f"{resource}.", f"{resource}.*"]
            for pattern in patterns:
                types += [f"{pattern}/{version}" for version in item.get("versions") or ()] or [pattern]
        if item.get("eventsInvolvedResources"):
            types.append("events.")
    if spec.get("syncAllCustomResources"):
        types.append("custom")
    return Rules((Rule(tuple(dict.fromkeys(types))),))
