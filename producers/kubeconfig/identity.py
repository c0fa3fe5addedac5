"""Which kind of identity a cluster is shown, in words; never whose, and nothing that would be a secret."""

from __future__ import annotations

from urllib.parse import urlsplit

from producers.kubeconfig.model import ClusterAccess
from producers.kubeconfig.validation import speaks_tls


def identity_kind(access: ClusterAccess) -> str:
    """What is shown, in client-go's order of precedence.

    Example: a user with a certificate and a token is `client certificate, token`; one with a token and a plugin is
    `token`; over plain http all of them are `anonymous`.
    """
    user = access.user
    shown = []
    if "@" in access.cluster.server.partition("//")[2].partition("/")[0]:
        shown.append("user name in the URL")
    if speaks_tls(access.cluster.server):
        certificate = bool(user.certificate_file or user.certificate_data)
        if certificate:
            shown.append("client certificate")
        if user.token_file:
            shown.append("token file")
        elif user.token:
            shown.append("token")
        elif user.username:
            shown.append("user name and password")
        elif user.exec is not None and not certificate:
            shown.append("exec plugin")
        elif user.auth_provider is not None:
            shown.append(user.auth_provider.name if user.auth_provider.name == "oidc" else "auth-provider")
    text = ", ".join(shown) or "anonymous"
    return f"{text}, acting as another" if user.impersonation.user else text


def server_shown(server: str) -> str:
    """A server's URL without a user's name and password."""
    scheme, slashes, rest = server.partition("://")
    if not slashes:
        scheme, rest = "", server
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    shown = f"{scheme}{slashes}{authority}{slash}{path}"
    try:
        # A query may hold anything.
        return urlsplit(shown)._replace(query="", fragment="").geturl() if slashes else shown.partition("?")[0]
    except ValueError:
        return shown.partition("?")[0]
