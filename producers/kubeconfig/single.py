"""A kubeconfig of one context, which stands by itself: what files beside the old one hold is put into it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec

from producers.kubeconfig.document import EXEC_EXTENSION
from producers.kubeconfig.entries import Cluster, User
from producers.kubeconfig.merged import MergedKubeconfig
from producers.kubeconfig.model import BadKubeconfig


def alone(kubeconfig: MergedKubeconfig, context: str, name: str) -> dict[str, Any]:
    """The document with what one context needs, its entries named `name`.

    A token's file stays where it is, since its content changes. Blocking. Raises BadKubeconfig, also for a user that is
    named and not there.
    """
    access = kubeconfig.access(context, name)
    chosen, file = kubeconfig.contexts[context]
    if chosen.user and chosen.user not in kubeconfig.users:
        raise BadKubeconfig(f"context {context} of {file}: there is no user {chosen.user!r}")
    if access.problem:
        raise BadKubeconfig(access.problem)
    within = {"cluster": name, **({"user": name} if chosen.user else {})}
    if chosen.namespace:
        within["namespace"] = chosen.namespace
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": _cluster(access.cluster)}],
    }
    if chosen.user:
        document["users"] = [{"name": name, "user": _user(access.user)}]
    document["contexts"] = [{"name": name, "context": within}]
    return document


def _cluster(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure,
        "certificate-authority-data": _data(cluster.authority_data, cluster.authority_file),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
    }
    if cluster.exec_config != b"null":
        extension = msgspec.json.decode(cluster.exec_config)
        found["extensions"] = [{"name": EXEC_EXTENSION, "extension": extension}]
    return _given(found)


def _user(user: User) -> dict[str, Any]:
    acts, plugin, provider = user.impersonation, user.exec, user.auth_provider
    found: dict[str, Any] = {
        "token": user.token,
        "tokenFile": user.token_file,
        "username": user.username,
        "password": user.password,
        "client-certificate-data": _data(user.certificate_data, user.certificate_file),
        "client-key-data": _data(user.key_data, user.key_file),
        "as": acts.user,
        "as-uid": acts.uid,
        "as-groups": list(acts.groups),
        "as-user-extra": {key: list(values) for key, values in acts.extra},
    }
    if plugin is not None:
        found["exec"] = _given(
            {
                "apiVersion": plugin.api_version,
                "command": plugin.command,
                "args": list(plugin.arguments),
                "env": [{"name": key, "value": value} for key, value in plugin.environment],
                "interactiveMode": plugin.interactive_mode,
                "provideClusterInfo": plugin.provide_cluster_info,
                "installHint": plugin.install_hint,
            }
        )
    if provider is not None:
        found["auth-provider"] = {"name": provider.name, "config": dict(provider.config)}
    return _given(found)


def _given(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value}


def _data(data: bytes, file: str) -> str:
    if file and not data:
        try:
            data = Path(file).read_bytes()
        except OSError as cause:
            raise BadKubeconfig(f"{file}: {cause.strerror}") from None
    return base64.b64encode(data).decode()
