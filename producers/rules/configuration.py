"""The configuration file: which clusters, which of their objects, and what is cut from them (docs/configuration.md)."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

from producers.errors import UnusableInput
from producers.rules.pruning import Pruning
from producers.rules.rules import Rule, Rules, check_selector

# Seconds between two comparisons of a type's whole list with the log.
RELIST_EVERY = 30 * 60.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")


class BadConfiguration(UnusableInput):
    """The configuration cannot be used; one line that says where and why."""


# -- as it stands in the file --------------------------------------------------------------------------------------


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _Sync(_Strict):
    types: list[str]
    namespaces: list[str] = []
    label_selector: str = ""


class _Host(_Strict):
    kubeconfig: str = ""
    context: str = ""


class _Secrets(_Strict):
    namespace: str
    label_selector: str = ""
    key: str = ""


class _PediaClusters(_Strict):
    label_selector: str = ""


class _Clusters(_Strict):
    kubeconfig: str = ""
    contexts: list[str] = []
    directory: str = ""
    secrets: _Secrets | None = None
    pedia_clusters: _PediaClusters | None = None
    host: _Host | None = None
    sync: list[str | _Sync] | None = None
    exclude: list[str] | None = None


class _PruneField(_Strict):
    types: list[str]
    pointers: list[str]


class _Prune(_Strict):
    managed_fields: bool = True
    last_applied: bool = False
    fields: list[_PruneField] = []


class _File(_Strict):
    clusters: list[_Clusters] = []
    sync: list[str | _Sync] = msgspec.field(default_factory=lambda: ["*"])
    exclude: list[str] = []
    prune: _Prune = msgspec.field(default_factory=_Prune)
    relist_every: str = "30m"
    when_removed: str = "remove"


# -- as it is used -------------------------------------------------------------------------------------------------


class Kubeconfig(msgspec.Struct, frozen=True):
    """The contexts of a kubeconfig that `contexts` names (wildcards; empty: all). `path` empty: the default one."""

    path: str = ""
    contexts: tuple[str, ...] = ()


class Directory(msgspec.Struct, frozen=True):
    """A cluster for each kubeconfig file in a directory, named as the file."""

    path: str


class Host(msgspec.Struct, frozen=True):
    """The cluster that holds objects which describe clusters. Both empty: the one we run in, or the default one."""

    kubeconfig: str = ""
    context: str = ""


class Secrets(msgspec.Struct, frozen=True):
    """A cluster for each Secret with a kubeconfig. `key` empty: `kubeconfig`, `value` or `config`."""

    host: Host
    namespace: str
    selector: str = ""
    key: str = ""


class PediaClusters(msgspec.Struct, frozen=True):
    """A cluster for each PediaCluster object, with the types that the object names."""

    host: Host
    selector: str = ""


Origin = Kubeconfig | Directory | Secrets | PediaClusters


class Source(msgspec.Struct, frozen=True):
    """Where clusters come from, and what is synced of them."""

    origin: Origin
    rules: Rules


class Configuration(msgspec.Struct, frozen=True):
    """What producers follow. `relist_every` in seconds, 0: never; `remove`: with a cluster its objects are removed."""

    sources: tuple[Source, ...]
    pruning: Pruning = Pruning()
    relist_every: float = RELIST_EVERY
    remove: bool = True


def duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `1h30m` or `0`. Raises BadConfiguration."""
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadConfiguration(f"{text!r} is no duration; write 90s, 30m, 1h30m, or 0 for never")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def load(path: Path) -> Configuration:
    """Reads a configuration file. Raises BadConfiguration."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as cause:
        raise BadConfiguration(f"{path}: {cause.strerror}") from cause
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise BadConfiguration(f"{path} is no YAML: {' '.join(str(cause).split())[:200]}") from cause
    try:
        return _configuration(msgspec.convert({} if document is None else document, _File), path.parent)
    except (msgspec.ValidationError, UnusableInput) as cause:
        raise BadConfiguration(f"{path}: {cause}") from cause


def _configuration(file: _File, base: Path) -> Configuration:
    if file.when_removed not in ("remove", "keep"):
        raise BadConfiguration(f"whenRemoved: {file.when_removed!r}; write remove or keep")
    relist = duration(file.relist_every)
    if 0 < relist < 10:
        raise BadConfiguration(f"relistEvery: {file.relist_every!r} is too often; 10s is the least, 0 is never")
    pruning = Pruning(
        file.prune.managed_fields,
        file.prune.last_applied,
        tuple((pattern, tuple(one.pointers)) for one in file.prune.fields for pattern in one.types),
    )
    rules = Rules(_rules(file.sync), tuple(file.exclude))
    sources = []
    for number, clusters in enumerate(file.clusters):
        own = rules
        if clusters.sync is not None or clusters.exclude is not None:
            own = Rules(
                rules.include if clusters.sync is None else _rules(clusters.sync),
                rules.exclude if clusters.exclude is None else tuple(clusters.exclude),
            )
        try:
            sources.append(Source(_origin(clusters, base), own))
        except BadConfiguration as cause:
            raise BadConfiguration(f"clusters[{number}]: {cause}") from None
    return Configuration(
        tuple(sources) or (Source(Kubeconfig(), rules),), pruning, relist, file.when_removed == "remove"
    )


def _rules(items: list[str | _Sync]) -> tuple[Rule, ...]:
    return tuple(
        Rule((item,)) if isinstance(item, str) else Rule(tuple(item.types), tuple(item.namespaces), item.label_selector)
        for item in items
    )


def _origin(clusters: _Clusters, base: Path) -> Origin:
    given = {
        "kubeconfig": bool(clusters.kubeconfig),
        "directory": bool(clusters.directory),
        "secrets": clusters.secrets is not None,
        "pediaClusters": clusters.pedia_clusters is not None,
    }
    named = [name for name, is_given in given.items() if is_given]
    if len(named) != 1:
        raise BadConfiguration(f"one of {', '.join(given)} is needed, {' and '.join(named) or 'none'} given")
    if clusters.contexts and not clusters.kubeconfig:
        raise BadConfiguration("contexts belong to a kubeconfig")
    host = Host()
    if clusters.host is not None:
        if clusters.kubeconfig or clusters.directory:
            raise BadConfiguration("host belongs to secrets and pediaClusters")
        host = Host(_path(clusters.host.kubeconfig, base), clusters.host.context)
    if clusters.kubeconfig:
        return Kubeconfig(_path(clusters.kubeconfig, base), tuple(clusters.contexts))
    if clusters.directory:
        return Directory(_path(clusters.directory, base))
    if clusters.secrets is not None:
        check_selector(clusters.secrets.label_selector)
        return Secrets(host, clusters.secrets.namespace, clusters.secrets.label_selector, clusters.secrets.key)
    assert clusters.pedia_clusters is not None
    check_selector(clusters.pedia_clusters.label_selector)
    return PediaClusters(host, clusters.pedia_clusters.label_selector)


def _path(text: str, base: Path) -> str:
    """A path in the file is relative to the file."""
    return str(base / Path(text).expanduser()) if text else ""
