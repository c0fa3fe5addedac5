"""Kubeconfig: which clusters it names, and a client configuration for one of them.

Authentication (tokens, client certificates, exec plugins, OIDC) is kubernetes_asyncio's.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import load_kube_config

log = structlog.get_logger("producers.kubeconfig")

# Seconds before its expiry at which an exec plugin's credential is asked for anew.
_EXPIRY_MARGIN = 60.0


class BadKubeconfig(Exception):
    """The kubeconfig, or a context of it, cannot be used; one line that says why and the mend."""


class Credentials:
    """A client with the credentials of one moment, and how to tell that there may be newer ones."""

    def __init__(self, client: ApiClient, files: tuple[str, ...], expires: datetime | None) -> None:
        self.client = client
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


@dataclass(frozen=True, slots=True)
class Context:
    """A member cluster as a kubeconfig's context names it. `kubeconfig`: one or more paths, as in $KUBECONFIG."""

    name: str
    kubeconfig: str

    async def credentials(self) -> Credentials:
        """A client for it with credentials as they are now (an exec plugin is run). Raises BadKubeconfig."""
        configuration = Configuration()
        try:
            loader = await load_kube_config(
                config_file=self.kubeconfig,
                context=self.name,
                client_configuration=configuration,
                persist_config=False,
            )
        # kubernetes_asyncio raises whatever the file or the plugin led it to.
        except (ConfigException, OSError, ValueError, KeyError, TypeError, AssertionError, yaml.YAMLError) as cause:
            raise BadKubeconfig(f"context {self.name}: {_one_line(cause)}") from cause
        # A watch per resource type holds a connection each; its default of 100 would leave the last ones waiting.
        configuration.connection_pool_maxsize = 0
        # Certificates that kubectl takes (Go does not insist on every RFC 5280 extension) must do here too.
        configuration.disable_strict_ssl_verification = True
        try:
            client = ApiClient(configuration)
        except (OSError, ValueError) as cause:
            raise BadKubeconfig(f"context {self.name}: its certificates cannot be used: {_one_line(cause)}") from cause
        expires = getattr(loader, "exec_plugin_expiry", None)
        files = await asyncio.to_thread(_files_of, self.kubeconfig, self.name)
        return Credentials(client, files, expires if isinstance(expires, datetime) else None)


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
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise BadKubeconfig(
            f"no context {unknown[0]!r} in {kubeconfig}; it has {', '.join(sorted(found)[:20]) or 'none'}"
        )
    if wanted:
        return [Context(name, kubeconfig) for name in dict.fromkeys(wanted)]
    chosen: dict[str, str] = {}
    for name in sorted(found, key=lambda name: name != current):
        first = chosen.setdefault(found[name] or name, name)
        if first != name:
            log.warning("context left out: same cluster entry", context=name, taken=first, mend="name it by --context")
    kept = set(chosen.values())
    return [Context(name, kubeconfig) for name in found if name in kept]


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as cause:
        raise BadKubeconfig(f"{path}: {cause.strerror}") from cause
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise BadKubeconfig(f"{path} is no YAML: {_one_line(cause)[:160]}") from cause
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{path} is no kubeconfig: a mapping with clusters, users and contexts is expected")
    for part in ("clusters", "users", "contexts"):
        if not isinstance(document.get(part) or [], list):
            raise BadKubeconfig(f"{path} is no kubeconfig: {part} is no list")
    return document
