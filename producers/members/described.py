"""What objects of a host cluster say of member clusters: Secrets with a kubeconfig, Clusterpedia's PediaClusters.

PediaCluster: cluster.clusterpedia.io/v1alpha2, with ClusterSyncResources that it may refer to. Whoever writes one
object describes one cluster: what is wrong with it is that cluster's, and nothing else's.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from producers.errors import UnusableInput
from producers.kubeconfig.files import inline_access
from producers.kubeconfig.model import ClusterAccess
from producers.rules.rules import Rule, Rules
from producers.supervision import reason_of
from producers.upstream.watching import WholeObject

# Labels that name a Secret's cluster: ours, and Cluster API's.
_NAME_LABELS = ("kubebraid.io/cluster-name", "cluster.x-k8s.io/cluster-name")
_KUBECONFIG_KEYS = ("kubeconfig", "value", "config")

Objects = Mapping[str, dict[str, Any]]
"""Objects by name, or by namespace and name."""


class BadCluster(UnusableInput):
    """An object that describes no cluster that could be followed; one line."""


class Described(NamedTuple):
    """Clusters by name, rules of those that bring their own, and what is wrong with objects beside them, by cluster."""

    clusters: dict[str, ClusterAccess]
    rules: dict[str, Rules]
    problems: dict[str, str]


class Descriptions:
    """Turns objects into clusters; a text that was read is not read again. Its methods block, one at a time."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, bytes, str], ClusterAccess] = {}
        # The Secret, by its key among the objects, that has a cluster's name.
        self._claimed: dict[str, str] = {}

    def of_secrets(self, secrets: Objects, key: str = "") -> Described:
        """The clusters of Secrets; `key`: the kubeconfig's, if it is none of the usual ones.

        Of several Secrets for one cluster that one counts which had its name first, and of those that were there at the
        first reading the oldest (the host cluster says when each was made): who may write one takes nothing away.
        """
        found = Described({}, {}, {})
        before, self._read = self._read, {}
        named: dict[str, str] = {}
        for key_, secret in secrets.items():
            try:
                named[key_] = secret_cluster(secret)
            except Exception as problem:  # noqa: BLE001 - supervised
                # Whatever one object leads to, the others are read.
                found.problems[key_] = f"secret {secret['metadata']['name']}: {reason_of(problem)}"
        self._claimed = {name: claimer for name, claimer in self._claimed.items() if named.get(claimer) == name}
        for key_ in sorted(named, key=lambda one: _age(secrets[one])):
            secret, name = secrets[key_], named[key_]
            where = f"secret {secret['metadata']['name']}"
            if (claimer := self._claimed.setdefault(name, key_)) != key_:
                first = secrets[claimer]["metadata"]["name"]
                found.problems[f"{name}/{key_}"] = (
                    f"{where} names a cluster {name!r} that secret {first} names already: it is left out"
                )
                continue
            try:
                _check_whole(secret, where)
                found.clusters[name] = self._access(name, secret_kubeconfig(secret, key), where, before)
            except Exception as problem:  # noqa: BLE001 - supervised
                # Whatever one object leads to, the others are read.
                reason = str(problem) if isinstance(problem, UnusableInput) else f"{where}: {reason_of(problem)}"
                found.clusters[name] = ClusterAccess(name, problem=reason, where=where)
        return found

    def of_pedia(self, clusters: Objects, shared: Objects) -> Described:
        """The clusters of PediaClusters; `shared`: the ClusterSyncResources."""
        found = Described({}, {}, {})
        before, self._read = self._read, {}
        for pedia in clusters.values():
            name = str(pedia["metadata"]["name"])
            where = f"PediaCluster {name}"
            try:
                _check_whole(pedia, "cannot be read")
                spec = _spec(pedia)
                found.clusters[name] = self._access(name, pedia_kubeconfig(name, spec), where, before)
                found.rules[name] = pedia_rules(spec, shared)
            except Exception as problem:  # noqa: BLE001 - supervised
                found.clusters[name] = ClusterAccess(name, problem=f"{where}: {reason_of(problem)}", where=where)
        return found

    def _access(
        self, name: str, text: bytes, where: str, before: Mapping[tuple[str, bytes, str], ClusterAccess]
    ) -> ClusterAccess:
        key = (name, text, where)
        access = before[key] if key in before else inline_access(name, text, where)
        self._read[key] = access
        return access


def _check_whole(found: dict[str, Any], where: str) -> None:
    """Raises BadCluster for an object of which something could not be read."""
    if isinstance(found, WholeObject) and found.problem:
        raise BadCluster(f"{where}: {found.problem}")


def _age(secret: dict[str, Any]) -> tuple[str, str]:
    metadata = secret["metadata"]
    return (str(metadata.get("creationTimestamp") or ""), str(metadata["name"]))


# -- Secrets -----------------------------------------------------------------------------------------------------------


def secret_cluster(secret: dict[str, Any]) -> str:
    """The name of the cluster that a Secret is of: by label, else its own without `-kubeconfig`."""
    metadata = secret["metadata"]
    labels = metadata.get("labels") or {}
    named = next((labels[label] for label in _NAME_LABELS if labels.get(label)), "")
    return str(named or metadata["name"].removesuffix("-kubeconfig"))


def secret_kubeconfig(secret: dict[str, Any], key: str = "") -> bytes:
    """The kubeconfig in a Secret. Raises BadCluster."""
    where = f"secret {secret['metadata']['name']}"
    data = secret.get("data") or {}
    for one in (key,) if key else _KUBECONFIG_KEYS:
        if data.get(one):
            return _decoded(data[one], f"{where}: {one}")
    raise BadCluster(f"{where} has no {key or ' or '.join(_KUBECONFIG_KEYS)}")


def _decoded(encoded: str, where: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise BadCluster(f"{where} is no base64") from cause


# -- PediaClusters -----------------------------------------------------------------------------------------------------


class _SyncResource(msgspec.Struct, rename="camel"):
    group: str | None = None
    resources: list[str] | None = None
    versions: list[str] | None = None
    events_involved_resources: Any = None


class _Spec(msgspec.Struct, rename="camel"):
    kubeconfig: str | None = None
    apiserver: str | None = None
    ca_data: str | None = None
    token_data: str | None = None
    cert_data: str | None = None
    key_data: str | None = None
    sync_resources: list[_SyncResource] | None = None
    sync_resources_ref_name: str | None = None
    sync_all_custom_resources: bool | None = None


def _spec(pedia: dict[str, Any]) -> _Spec:
    """What a PediaCluster, or ClusterSyncResources, asks for. Raises BadCluster."""
    try:
        return msgspec.convert(pedia.get("spec") or {}, _Spec)
    except msgspec.ValidationError as cause:
        # It names a path and types, no value.
        raise BadCluster(f"spec: {cause}") from None


def pedia_kubeconfig(name: str, spec: _Spec) -> bytes:
    """A kubeconfig made of a PediaCluster's spec. Raises BadCluster."""
    if spec.kubeconfig:
        return _decoded(spec.kubeconfig, "spec.kubeconfig")
    if not spec.apiserver:
        raise BadCluster("neither spec.kubeconfig nor spec.apiserver is given")
    server = spec.apiserver
    if "://" not in server:
        server = f"https://{server}"
    cluster: dict[str, Any] = {"server": server}
    if spec.ca_data:
        cluster["certificate-authority-data"] = spec.ca_data
    elif server.startswith("https://"):
        # As Clusterpedia does without an authority.
        cluster["insecure-skip-tls-verify"] = True
    user: dict[str, Any] = {}
    if spec.token_data:
        user["token"] = _decoded(spec.token_data, "spec.tokenData").decode(errors="replace").strip()
    if spec.cert_data and spec.key_data:
        user |= {"client-certificate-data": spec.cert_data, "client-key-data": spec.key_data}
    document = {
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(document, ensure_ascii=False).encode(errors="replace")


def pedia_rules(spec: _Spec, shared: Objects) -> Rules:
    """Rules made of what a PediaCluster asks to be synced. Raises BadCluster, BadRule."""
    wanted: Iterable[_SyncResource] = spec.sync_resources or ()
    if reference := spec.sync_resources_ref_name:
        if reference not in shared:
            raise BadCluster(f"there is no ClusterSyncResources {reference!r}")
        wanted = (*wanted, *(_spec(shared[reference]).sync_resources or ()))
    types: list[str] = []
    for item in wanted:
        group = item.group or ""
        resources = [one.partition("/")[0] for one in item.resources or ()]
        for resource in dict.fromkeys(resources):
            # `group: ""` is the core group, `group: "*"` any.
            patterns = [f"{resource}.{group}"]
            if group == "*":
                patterns = ["*"] if resource == "*" else [f"{resource}.", f"{resource}.*"]
            for pattern in patterns:
                types += [f"{pattern}/{version}" for version in item.versions or ()] or [pattern]
        if item.events_involved_resources:
            types.append("events.")
    if spec.sync_all_custom_resources:
        types.append("custom")
    return Rules((Rule(tuple(dict.fromkeys(types))),))
