"""A client with the credentials of the moment for a member cluster, by kubernetes_asyncio."""

from __future__ import annotations

import asyncio
import base64
import importlib
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import yaml

from producers.kubeconfig.entries import Impersonation
from producers.kubeconfig.files import file_state
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess

# Seconds before its expiry at which a new credential is asked of an exec plugin.
_EXPIRY_MARGIN = 60.0
# What a header's name may hold beside letters and digits (RFC 9110, 5.6.2), without what is an escape itself.
_TOKEN = "!#$&'*+-.^_`|~"


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


async def credentials(access: ClusterAccess) -> Credentials:
    """A client for it with credentials as they are now (an exec plugin is run). Raises BadKubeconfig."""
    if access.problem:
        raise BadKubeconfig(access.problem)
    library = await client_library()
    configuration = library.client.Configuration()
    errors: tuple[type[Exception], ...] = (
        library.config.ConfigException,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        yaml.YAMLError,
    )
    try:
        from_dict = library.config.kube_config.load_kube_config_from_dict
        loader = await from_dict(_document(access), client_configuration=configuration)
        # A watch per resource type holds a connection each; its default of 100 would leave the last ones waiting.
        configuration.connection_pool_maxsize = 0
        # Certificates that kubectl takes (Go does not insist on every RFC 5280 extension) must do here too.
        configuration.disable_strict_ssl_verification = True
        client = library.client.ApiClient(configuration)
    except errors as cause:
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise BadKubeconfig(f"{access.where or access.name}: {reason}") from cause
    expires = getattr(loader, "exec_plugin_expiry", None)
    named = (
        access.cluster.authority_file,
        access.user.certificate_file,
        access.user.key_file,
        access.user.token_file,
    )
    return Credentials(
        client,
        tuple(path for path in named if path),
        expires if isinstance(expires, datetime) else None,
        impersonation_headers(access.user.impersonation),
    )


def impersonation_headers(acts_as: Impersonation) -> list[tuple[str, str]]:
    """As whom a user acts, as headers (client-go transport/round_trippers.go)."""
    headers = [("Impersonate-User", acts_as.user)] if acts_as.user else []
    headers += [("Impersonate-Uid", acts_as.uid)] if acts_as.uid else []
    headers += [("Impersonate-Group", group) for group in acts_as.groups]
    for key, values in acts_as.extra:
        name = f"Impersonate-Extra-{quote(key.lower(), safe=_TOKEN)}"
        headers += [(name, value) for value in values]
    return headers


def _document(access: ClusterAccess) -> dict[str, Any]:
    """A kubeconfig that says it in the library's own way."""
    cluster, user = access.cluster, access.user
    plugin, provider = user.exec, user.auth_provider
    entry: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure,
        "certificate-authority": cluster.authority_file,
        "certificate-authority-data": base64.b64encode(cluster.authority_data).decode(),
        "proxy-url": cluster.proxy_url,
    }
    shown: dict[str, Any] = {
        "token": user.token,
        "tokenFile": user.token_file,
        "username": user.username,
        "password": user.password,
        "client-certificate": user.certificate_file,
        "client-certificate-data": base64.b64encode(user.certificate_data).decode(),
        "client-key": user.key_file,
        "client-key-data": base64.b64encode(user.key_data).decode(),
    }
    if plugin is not None:
        shown["exec"] = {
            "apiVersion": plugin.api_version,
            "command": plugin.command,
            "args": list(plugin.arguments),
            "env": [{"name": name, "value": value} for name, value in plugin.environment],
        }
    if provider is not None:
        shown["auth-provider"] = {"name": provider.name, "config": dict(provider.config)}
    return {
        "current-context": "one",
        "clusters": [{"name": "one", "cluster": {key: value for key, value in entry.items() if value}}],
        "users": [{"name": "one", "user": {key: value for key, value in shown.items() if value}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
    }
