"""The guard of a cluster: authentication, impersonation and authorization, in the order of a kube-apiserver."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multidict import MultiMapping

from simulation.access.actions import Action, action_of
from simulation.access.impersonation import impersonated
from simulation.access.rbac import Rbac
from simulation.access.refusals import denied, unauthorized
from simulation.access.users import ANONYMOUS, ClusterUser, with_implicit_group
from simulation.storage import ClusterStorage

__all__ = ["Guard"]

# What is asked for by GET, as a WebSocket is, and needs the right to create as well
# (k8s.io/kubernetes pkg/registry/core/pod/rest: AuthorizePodWebsocketUpgradeCreatePermission).
_STREAMS = frozenset({"exec", "attach", "portforward"})
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."


class Guard:
    """Knows users by their certificates and bearer tokens (`tokens`), and everyone else as system:anonymous."""

    def __init__(self, storage: ClusterStorage, tokens: Mapping[str, ClusterUser]) -> None:
        self.rbac = Rbac(storage)
        self._tokens = dict(tokens)

    def user_of(self, token: str) -> ClusterUser | None:
        """Whose a token is."""
        found = self._tokens.get(token)
        return None if found is None else with_implicit_group(found)

    def admit(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: MultiMapping[str],
        certificate: Mapping[str, Any] | None = None,
    ) -> ClusterUser:
        """In whose name a request may be answered. `path` is decoded; `certificate` is what the ssl module has of the
        client's, which it has verified.

        Raises:
            StatusError: 400, 401, 403 (who asks may not be whom it names, or that user may not do this).
        """
        user = _user_of_certificate(certificate) or self._authenticated(headers)
        action = action_of(method, path, query)
        user = impersonated(self.rbac.decide, user, headers, action) or user
        self._authorize(user, action)
        if action.verb == "get" and action.resource == "pods" and not action.group and action.subresource in _STREAMS:
            self._authorize(user, replace(action, verb="create"))
        return user

    def _authenticated(self, headers: MultiMapping[str]) -> ClusterUser:
        """By the Authorization header, or a WebSocket's subprotocol (k8s.io/apiserver pkg/authentication/request)."""
        parts = headers.get("Authorization", "").strip().split(" ")
        token = parts[1] if len(parts) > 1 and parts[0].lower() == "bearer" else ""
        token = token or _token_of_socket(headers)
        if not token:
            return ANONYMOUS
        user = self.user_of(token)
        if user is None:
            raise unauthorized()
        return user

    def _authorize(self, user: ClusterUser, action: Action) -> None:
        allowed, reason = self.rbac.decide(user, action)
        if not allowed:
            raise denied(user, action, reason)


def _token_of_socket(headers: MultiMapping[str]) -> str:
    if headers.get("Upgrade", "").lower() != "websocket":
        return ""
    offered = [one.strip() for one in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    encoded = [one.removeprefix(_BEARER_PROTOCOL) for one in offered if one.startswith(_BEARER_PROTOCOL)]
    if len(encoded) != 1 or len(offered) < 2:
        return ""
    try:
        return base64.urlsafe_b64decode(encoded[0] + "=" * (-len(encoded[0]) % 4)).decode()
    except ValueError:
        return ""


def _user_of_certificate(certificate: Mapping[str, Any] | None) -> ClusterUser | None:
    """CN is the name, each O a group (k8s.io/apiserver pkg/authentication/request/x509)."""
    if not certificate:
        return None
    parts = [part for names in certificate.get("subject", ()) for part in names]
    name = next((value for key, value in parts if key == "commonName"), "")
    if not name:
        return None
    return with_implicit_group(ClusterUser(name, tuple(value for key, value in parts if key == "organizationName")))
