"""Kubeconfig: which clusters it names, and a client configuration for one of them.

Authentication (tokens, client certificates, exec plugins, OIDC) is kubernetes_asyncio's.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import load_kube_config

log = structlog.get_logger("producers.kubeconfig")


class BadKubeconfig(Exception):
    """The kubeconfig, or a context of it, cannot be used; one line that says why and the mend."""


@dataclass(frozen=True, slots=True)
class Context:
    """A member cluster as a kubeconfig's context names it. `kubeconfig`: one or more paths, as in $KUBECONFIG."""

    name: str
    kubeconfig: str

    async def client(self) -> ApiClient:
        """A client for it, with credentials as they are now (an exec plugin is run). Raises BadKubeconfig."""
        configuration = Configuration()
        try:
            await load_kube_config(
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
            return ApiClient(configuration)
        except (OSError, ValueError) as cause:
            raise BadKubeconfig(f"context {self.name}: its certificates cannot be used: {_one_line(cause)}") from cause


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
