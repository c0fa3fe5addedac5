"""Access to member clusters: which ones a kubeconfig gives, and a client with the credentials of the moment for each.

Authentication (tokens, client certificates, exec plugins, OIDC) is kubernetes_asyncio's.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import structlog
import yaml

from producers.upstream.kubeconfig import (
    BadKubeconfig,
    current_context,
    default_kubeconfig,
    file_state,
    files_of,
    impersonation_headers,
    impersonation_in_files,
    load,
    one_line,
    parse,
    refuse_foreign,
)

log = structlog.get_logger("producers.upstream.access")

# Seconds before its expiry at which a new credential is asked of an exec plugin.
_EXPIRY_MARGIN = 60.0
_SERVICE_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class Credentials:
    """A client with the credentials of one moment; `outdated` when there may be newer ones."""

    def __init__(
        self,
        client: Any,
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
        self._files = {path: file_state(path) for path in files}
        self._expires = expires

    def outdated(self) -> bool:
        """Whether a file they came from has changed, or an exec plugin's credential is about to expire."""
        if self._expires is not None and self._expires.timestamp() - time.time() < _EXPIRY_MARGIN:
            return True
        return any(file_state(path) != modified for path, modified in self._files.items())


class ClusterAccess(Protocol):
    """How a cluster is reached. Equal ones use the same credentials, or look them up each time."""

    @property
    def name(self) -> str:
        """The cluster's name."""
        ...

    async def credentials(self) -> Credentials:
        """A client for it with credentials as they are now. Raises BadKubeconfig."""
        ...


async def client_library() -> Any:
    """kubernetes_asyncio, loaded with its first use: it takes longer than a whole command that needs none.

    In a thread: leases have to be renewed and watches to be fed meanwhile. Who will hold leases has it loaded before.
    """
    return _loaded[0] if _loaded else await asyncio.to_thread(_load)


# kubernetes_asyncio, once it is whole.
_loaded: list[Any] = []


def _load() -> Any:
    library = importlib.import_module("kubernetes_asyncio")
    _loaded.append(library)
    return library


def _config_errors(library: Any) -> tuple[type[Exception], ...]:
    """What kubernetes_asyncio raises, whatever the file or the plugin led it to."""
    return (
        library.config.ConfigException,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        yaml.YAMLError,
    )


def _client(library: Any, name: str, configuration: Any) -> Any:
    """kubernetes_asyncio's ApiClient. Raises BadKubeconfig."""
    # A watch per resource type holds a connection each; its default of 100 would leave the last ones waiting.
    configuration.connection_pool_maxsize = 0
    # Certificates that kubectl takes (Go does not insist on every RFC 5280 extension) must do here too.
    configuration.disable_strict_ssl_verification = True
    try:
        return library.client.ApiClient(configuration)
    except (OSError, ValueError) as cause:
        raise BadKubeconfig(f"{name}: its certificates cannot be used: {one_line(cause)}") from cause


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
        library = await client_library()
        configuration = library.client.Configuration()
        context = self.context or self.name
        acts_as = await asyncio.to_thread(impersonation_in_files, self.kubeconfig, context)
        try:
            loader = await library.config.kube_config.load_kube_config(
                config_file=self.kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        except _config_errors(library) as cause:
            raise BadKubeconfig(f"context {context}: {one_line(cause)}") from cause
        client = _client(library, f"context {context}", configuration)
        expires = getattr(loader, "exec_plugin_expiry", None)
        files = await asyncio.to_thread(files_of, self.kubeconfig, context)
        return Credentials(client, files, expires if isinstance(expires, datetime) else None, acts_as)


@dataclass(frozen=True, slots=True)
class Inline:
    """A member cluster by the text of a kubeconfig, as objects of a host cluster hold it.

    Whoever may write such an object must not gain more than access to a cluster: no commands, no files of ours.
    """

    name: str
    text: str

    async def credentials(self) -> Credentials:
        """A client for its current context. Raises BadKubeconfig."""
        library = await client_library()
        document = parse(self.text, self.name)
        refuse_foreign(document, self.name)
        context = current_context(document, self.name)
        configuration = library.client.Configuration()
        acts_as = impersonation_headers([document], context, self.name)
        try:
            from_dict = library.config.kube_config.load_kube_config_from_dict
            await from_dict(document, context=context, client_configuration=configuration)
        except _config_errors(library) as cause:
            raise BadKubeconfig(f"{self.name}: {one_line(cause)}") from cause
        return Credentials(_client(library, self.name, configuration), (), None, acts_as)


@dataclass(frozen=True, slots=True)
class InCluster:
    """The cluster that we run in, by the service account of our pod."""

    name: str

    async def credentials(self) -> Credentials:
        """A client by the service account's token. Raises BadKubeconfig."""
        library = await client_library()
        configuration = library.client.Configuration()
        try:
            library.config.load_incluster_config(client_configuration=configuration)
        except _config_errors(library) as cause:
            raise BadKubeconfig(f"{self.name}: {one_line(cause)}") from cause
        # The kubelet writes a new token there before the old one expires.
        return Credentials(_client(library, self.name, configuration), (_SERVICE_TOKEN,), None)


def host_access(kubeconfig: str, context: str) -> ClusterAccess:
    """Access to the cluster with objects that describe clusters: the one named, the one we run in, or the default."""
    if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
        return InCluster("host cluster")
    path = kubeconfig or default_kubeconfig()
    if not context:
        document = load(Path(path.split(os.pathsep)[0]).expanduser())
        context = current_context(document, path)
    return Context("host cluster", path, context)


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
        document = load(path)
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
            found.append(Context(name, str(file), current_context(load(file), str(file))))
        except BadKubeconfig as problem:
            problems[name] = str(problem)
    return found, problems
