"""Kubeconfig: which clusters it names, and a client for one of them, from files or from a text at hand.

Authentication (tokens, client certificates, exec plugins, OIDC) is kubernetes_asyncio's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import structlog
import yaml

from producers.errors import InvalidInput

if TYPE_CHECKING:
    # Loaded with the first credentials: it takes a command that needs none as long as all the rest.
    from kubernetes_asyncio.client import ApiClient, Configuration

log = structlog.get_logger("producers.upstream.kubeconfig")

# Seconds before its expiry at which an exec plugin's credential is asked for anew.
_EXPIRY_MARGIN = 60.0
# What a header's name may hold beside letters and digits (RFC 9110, 5.6.2), without what is an escape itself.
_TOKEN = "!#$&'*+-.^_`|~"
_SERVICE_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class BadKubeconfig(InvalidInput):
    """The kubeconfig, or a context of it, cannot be used; one line that says why and the mend."""


class Credentials:
    """A client with the credentials of one moment, and how to tell that there may be newer ones."""

    def __init__(
        self,
        client: ApiClient,
        files: tuple[str, ...],
        expires: datetime | None,
        impersonation: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.client = client
        # Headers, some of them several times, which the library's own would be but once.
        self.impersonation = tuple(impersonation)
        for name, value in self.impersonation:
            client.rest_client.pool_manager.headers.add(name, value)
        self.host = str(client.configuration.host)
        self._files = {path: _modified(path) for path in files}
        self._expires = expires

    def outdated(self) -> bool:
        """Whether a file they came from has changed, or an exec plugin's credential is about to expire."""
        if self._expires is not None and self._expires.timestamp() - time.time() < _EXPIRY_MARGIN:
            return True
        return any(_modified(path) != modified for path, modified in self._files.items())


def _modified(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


class Access(Protocol):
    """How a cluster is reached. Equal ones reach it with the same credentials, or with ones found anew each time."""

    @property
    def name(self) -> str: ...

    async def credentials(self) -> Credentials:
        """A client for it with credentials as they are now. Raises BadKubeconfig."""
        ...


def _config_errors() -> tuple[type[Exception], ...]:
    """What kubernetes_asyncio raises, whatever the file or the plugin led it to."""
    from kubernetes_asyncio.config import ConfigException

    return (ConfigException, OSError, ValueError, KeyError, TypeError, AssertionError, yaml.YAMLError)


def _client(name: str, configuration: Configuration) -> ApiClient:
    from kubernetes_asyncio.client import ApiClient

    # A watch per resource type holds a connection each; its default of 100 would leave the last ones waiting.
    configuration.connection_pool_maxsize = 0
    # Certificates that kubectl takes (Go does not insist on every RFC 5280 extension) must do here too.
    configuration.disable_strict_ssl_verification = True
    try:
        return ApiClient(configuration)
    except (OSError, ValueError) as cause:
        raise BadKubeconfig(f"{name}: its certificates cannot be used: {_one_line(cause)}") from cause


@dataclass(frozen=True, slots=True)
class Context:
    """A member cluster as a kubeconfig's context names it. `kubeconfig`: one or more paths, as in $KUBECONFIG.

    `context`: the context's name where the cluster bears another one.
    """

    name: str
    kubeconfig: str
    context: str = ""

    async def credentials(self) -> Credentials:
        """A client for it with credentials as they are now (an exec plugin is run). Raises BadKubeconfig."""
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config.kube_config import load_kube_config

        configuration = Configuration()
        context = self.context or self.name
        impersonation = await asyncio.to_thread(_impersonation_in, self.kubeconfig, context)
        try:
            loader = await load_kube_config(
                config_file=self.kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        except _config_errors() as cause:
            raise BadKubeconfig(f"context {context}: {_one_line(cause)}") from cause
        client = _client(f"context {context}", configuration)
        expires = getattr(loader, "exec_plugin_expiry", None)
        files = await asyncio.to_thread(_files_of, self.kubeconfig, context)
        return Credentials(client, files, expires if isinstance(expires, datetime) else None, impersonation)


@dataclass(frozen=True, slots=True)
class Inline:
    """A member cluster by the text of a kubeconfig, as objects of a host cluster hold it.

    Whoever may write such an object must not gain more than access to a cluster: no commands, no files of ours.
    """

    name: str
    text: str

    async def credentials(self) -> Credentials:
        """A client for its current context. Raises BadKubeconfig."""
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config.kube_config import load_kube_config_from_dict

        document = _parsed(self.text, self.name)
        _refuse_foreign(document, self.name)
        context = _current(document, self.name)
        configuration = Configuration()
        impersonation = _impersonation([document], context, self.name)
        try:
            await load_kube_config_from_dict(document, context=context, client_configuration=configuration)
        except _config_errors() as cause:
            raise BadKubeconfig(f"{self.name}: {_one_line(cause)}") from cause
        return Credentials(_client(self.name, configuration), (), None, impersonation)


@dataclass(frozen=True, slots=True)
class InCluster:
    """The cluster that we run in, by the service account of our pod."""

    name: str

    async def credentials(self) -> Credentials:
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import load_incluster_config

        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except _config_errors() as cause:
            raise BadKubeconfig(f"{self.name}: {_one_line(cause)}") from cause
        # The kubelet writes a new token there before the old one expires.
        return Credentials(_client(self.name, configuration), (_SERVICE_TOKEN,), None)


def host_access(kubeconfig: str, context: str) -> Access:
    """Access to the cluster with objects that describe clusters: the one named, the one we run in, or the default."""
    if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
        return InCluster("host cluster")
    path = kubeconfig or default_kubeconfig()
    if not context:
        document = _load(Path(path.split(os.pathsep)[0]).expanduser())
        context = _current(document, path)
    return Context("host cluster", path, context)


def _current(document: dict[str, Any], where: str) -> str:
    """The context to take from a kubeconfig for one cluster. Raises BadKubeconfig."""
    names = [str(item.get("name") or "") for item in document.get("contexts") or [] if isinstance(item, dict)]
    current = str(document.get("current-context") or "")
    if current in names:
        return current
    if current:
        raise BadKubeconfig(f"{where}: its current-context {current!r} is not among its contexts")
    if len(names) == 1 and names[0]:
        return names[0]
    raise BadKubeconfig(f"{where}: {len(names)} contexts and no current-context that says which")


# Of a kubeconfig from an object: what would run a command of its writer's choice, or read our files.
_FOREIGN = (
    ("users", "user", ("exec", "auth-provider", "tokenFile", "client-certificate", "client-key")),
    ("clusters", "cluster", ("certificate-authority",)),
)


def _refuse_foreign(document: dict[str, Any], name: str) -> None:
    for part, kind, keys in _FOREIGN:
        for item in document.get(part) or []:
            for key in keys:
                if isinstance(item, dict) and (item.get(kind) or {}).get(key):
                    raise BadKubeconfig(
                        f"{name}: {key} is not allowed in a kubeconfig from an object; put the token or the -data there"
                    )


def _impersonation_in(kubeconfig: str, context: str) -> list[tuple[str, str]]:
    documents = []
    for path in kubeconfig.split(os.pathsep):
        # One that is missing or broken is the loader's to tell of.
        with contextlib.suppress(BadKubeconfig):
            documents.append(_load(Path(path).expanduser()))
    return _impersonation(documents, context, f"context {context}")


def _impersonation(documents: Iterable[dict[str, Any]], context: str, where: str) -> list[tuple[str, str]]:
    """The headers that say as whom a context's user acts (`as` and the like), which kubernetes_asyncio leaves out.

    Of several files the first that has an entry counts (client-go transport/round_trippers.go). Raises BadKubeconfig.
    """
    named: dict[str, dict[str, Any]] = {}
    users: dict[str, dict[str, Any]] = {}
    for document in documents:
        for found, part, kind in ((named, "contexts", "context"), (users, "users", "user")):
            for item in document.get(part) or []:
                if isinstance(item, dict) and isinstance(item.get(kind), dict):
                    found.setdefault(str(item.get("name") or ""), item[kind])
    user = users.get(str(named.get(context, {}).get("user") or ""), {})
    groups, extra = user.get("as-groups") or [], user.get("as-user-extra") or {}
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise BadKubeconfig(f"{where}: as-groups is a list, and as-user-extra a mapping of lists")
    headers = [("Impersonate-User", user["as"])] if user.get("as") else []
    headers += [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
    headers += [("Impersonate-Group", group) for group in groups]
    for key, values in extra.items():
        name = f"Impersonate-Extra-{quote(str(key).lower(), safe=_TOKEN)}"
        headers += [(name, value) for value in (values if isinstance(values, list) else [values])]
    if headers and not user.get("as"):
        raise BadKubeconfig(
            f"{where}: its user has as-uid, as-groups or as-user-extra, but nobody to act as: give `as`"
        )
    if any(character < " " for _, value in headers for character in str(value)):
        raise BadKubeconfig(f"{where}: whom its user acts as has control characters in it")
    return [(name, str(value)) for name, value in headers]


def _files_of(kubeconfig: str, context: str) -> tuple[str, ...]:
    """The kubeconfig's files, and the files of certificates and tokens that they name for a context."""
    found = [str(Path(path).expanduser()) for path in kubeconfig.split(os.pathsep) if path]
    names: dict[str, str] = {}
    for path in list(found):
        try:
            document = _load(Path(path))
        except BadKubeconfig:
            continue
        base = Path(path).parent
        for item in document.get("contexts") or []:
            if item.get("name") == context:
                names = {key: str(item["context"].get(key) or "") for key in ("cluster", "user")}
        for part, kind in (("clusters", "cluster"), ("users", "user")):
            for item in document.get(part) or []:
                if item.get("name") != names.get(kind):
                    continue
                named = item.get(kind) or {}
                keys = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
                found += [str(base / named[key]) for key in keys if named.get(key)]
    return tuple(found)


def _one_line(cause: BaseException) -> str:
    return " ".join(str(cause).split()) or type(cause).__name__


def default_kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def signature(paths: list[str]) -> tuple[tuple[int, int], ...]:
    """Changes when one of the files does."""
    return tuple(_modified(path) for path in paths)


async def contexts(kubeconfig: str | None = None, wanted: tuple[str, ...] = ()) -> list[Context]:
    """The contexts of a kubeconfig to take as member clusters.

    `wanted` empty: all, but one context for each cluster entry where several name it (the current one, else
    the first). Raises BadKubeconfig.
    """
    return await asyncio.to_thread(_contexts, kubeconfig or default_kubeconfig(), wanted)


def _contexts(kubeconfig: str, wanted: tuple[str, ...]) -> list[Context]:
    found: dict[str, str] = {}
    current = ""
    paths = [Path(path).expanduser() for path in kubeconfig.split(os.pathsep) if path]
    present = [path for path in paths if path.exists()]
    if not present:
        raise BadKubeconfig(f"no kubeconfig at {kubeconfig}; give one with --kubeconfig or $KUBECONFIG")
    for path in present:
        document = _load(path)
        current = current or str(document.get("current-context") or "")
        for item in document.get("contexts") or []:
            if not isinstance(item, dict) or not isinstance(item.get("context"), dict) or not item.get("name"):
                raise BadKubeconfig(f"{path}: contexts need a name and a context each")
            found.setdefault(str(item["name"]), str(item["context"].get("cluster") or ""))
    if not found:
        raise BadKubeconfig(f"{kubeconfig} names no contexts")
    unknown = [name for name in wanted if "*" not in name and name not in found]
    if unknown:
        raise BadKubeconfig(
            f"no context {unknown[0]!r} in {kubeconfig}; it has {', '.join(sorted(found)[:20]) or 'none'}"
        )
    exact = [name for name in dict.fromkeys(wanted) if "*" not in name]
    wild = [name for name in wanted if "*" in name]
    if exact and not wild:
        return [Context(name, kubeconfig) for name in exact]
    chosen: dict[str, str] = {found[name] or name: name for name in reversed(exact)}
    for name in sorted(found, key=lambda name: name != current):
        if name in exact or (wild and not any(fnmatchcase(name, one) for one in wild)):
            continue
        first = chosen.setdefault(found[name] or name, name)
        if first != name:
            log.warning("context left out: same cluster entry", context=name, taken=first, mend="name it by --context")
    kept = {*chosen.values(), *exact}
    return [Context(name, kubeconfig) for name in found if name in kept]


def directory_contexts(path: str) -> tuple[list[Context], dict[str, str]]:
    """A cluster for each kubeconfig file of a directory, and what is wrong with the others, by the cluster's name.

    Raises BadKubeconfig if there is no such directory.
    """
    found: list[Context] = []
    problems: dict[str, str] = {}
    try:
        files = sorted(entry for entry in Path(path).iterdir() if not entry.name.startswith(".") and entry.is_file())
    except OSError as cause:
        raise BadKubeconfig(f"{path}: {cause.strerror}") from cause
    for file in files:
        name = file.name
        for suffix in (".yaml", ".yml", ".json", ".conf", ".kubeconfig"):
            name = name.removesuffix(suffix)
        try:
            found.append(Context(name, str(file), _current(_load(file), str(file))))
        except BadKubeconfig as problem:
            problems[name] = str(problem)
    return found, problems


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as cause:
        raise BadKubeconfig(f"{path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise BadKubeconfig(f"{path} is no text: {_one_line(cause)[:160]}") from cause
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as cause:
        raise BadKubeconfig(f"{where} is no YAML: {_one_line(cause)[:160]}") from cause
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{where} is no kubeconfig: a mapping with clusters, users and contexts is expected")
    for part in ("clusters", "users", "contexts"):
        if not isinstance(document.get(part) or [], list):
            raise BadKubeconfig(f"{where} is no kubeconfig: {part} is no list")
    return document
