"""What keeps a cluster's entries from being used: what kubectl refuses before it asks the server anything.

Rules: client-go tools/clientcmd/validation.go, rest/transport.go, transport/transport.go, plugin/pkg/client/auth. Files
are opened, as there; messages say names and keys, never a value of a user.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from producers.kubeconfig.entries import Cluster, User

_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_INTERACTIVE = ("Never", "IfAvailable", "Always")
_PROXIES = ("http", "https", "socks5")
# What a header's value must not have (httpguts.ValidHeaderFieldValue).
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REMOVED = {
    "gcp": "the gcp provider was removed from kubectl; use the exec plugin gke-gcloud-auth-plugin",
    "azure": "the azure provider was removed from kubectl; use the exec plugin kubelogin",
}


def speaks_tls(server: str) -> bool:
    """Whether a server is asked over TLS: its URL says https, in any case; without a scheme it is plain http."""
    return server[:8].lower() == "https://"


def missing_files(cluster: Cluster, user: User) -> list[str]:
    """The files of certificates that cannot be opened now, of those that have to be there."""
    named = [cluster.authority_file]
    if user.certificate_file or user.certificate_data:
        named += [user.certificate_file, user.key_file]
    return [path for path in named if path and _unreadable(path)]


def problems(cluster: Cluster, user: User, where_cluster: str, where_user: str) -> list[str]:
    """Why these two cannot be used, one line each; none if they can. `where_...` names an entry in messages. Blocking.

    Example: a user with `client-certificate` alone: ["user 'ann' of /a/config: client-certificate without client-key"].
    """
    tls = speaks_tls(cluster.server)
    return [
        *(f"{where_cluster}: {problem}" for problem in _cluster(cluster, tls)),
        *(f"{where_user}: {problem}" for problem in _user(user, tls)),
    ]


def _cluster(cluster: Cluster, tls: bool) -> Iterator[str]:
    if not cluster.server:
        yield "no server is given"
    if cluster.proxy_url:
        scheme, colon, _ = cluster.proxy_url.partition("://")
        if not colon or scheme.lower() not in _PROXIES:
            yield "proxy-url: a URL that begins with http://, https:// or socks5:// is expected"
    if cluster.authority_file and cluster.authority_data:
        yield "certificate-authority and certificate-authority-data are both given; leave one out"
    if cluster.authority_file and (reason := _unreadable(cluster.authority_file, tls)):
        yield f"certificate-authority {cluster.authority_file}: {reason}"
    if tls and cluster.insecure and (cluster.authority_file or cluster.authority_data):
        yield "insecure-skip-tls-verify and a certificate-authority are both given; leave one out"


def _user(user: User, tls: bool) -> Iterator[str]:
    basic = bool(user.username or user.password)
    if user.token and basic:
        yield "token and username or password are both given; leave one out"
    elif tls and user.token_file and user.username:
        yield "tokenFile and username are both given; leave one out"
    yield from _certificate(user, tls)
    yield from _exec(user, tls)
    acts = user.impersonation
    if (acts.uid or acts.groups or acts.extra) and not acts.user:
        yield "as-uid, as-groups or as-user-extra without anybody to act as: give `as`"
    if any(
        _CONTROL.search(value)
        for value in (acts.user, acts.uid, *acts.groups, *(v for _, vs in acts.extra for v in vs))
    ):
        yield "as, as-uid, as-groups or as-user-extra: there are control characters in it"
    if tls:
        if user.token and not user.token_file and _CONTROL.search(user.token):
            yield "token: there are control characters in it, such as a line break at its end"
        yield from _auth_provider(user)


def _certificate(user: User, tls: bool) -> Iterator[str]:
    if not user.certificate_file and not user.certificate_data:
        # A key alone is not looked at.
        return
    if user.certificate_file and user.certificate_data:
        yield "client-certificate and client-certificate-data are both given; leave one out"
    if user.key_file and user.key_data:
        yield "client-key and client-key-data are both given; leave one out"
    if not user.key_file and not user.key_data:
        yield "client-certificate without client-key: give client-key or client-key-data"
    for key, path in (("client-certificate", user.certificate_file), ("client-key", user.key_file)):
        if path and (reason := _unreadable(path, tls)):
            yield f"{key} {path}: {reason}"


def _exec(user: User, tls: bool) -> Iterator[str]:
    plugin = user.exec
    if plugin is None:
        return
    if user.auth_provider is not None:
        yield "exec and auth-provider are both given; leave auth-provider out"
    if not plugin.command:
        yield "exec: command is missing"
    if not plugin.api_version:
        yield "exec: apiVersion is missing"
    elif tls and plugin.api_version not in _EXEC_VERSIONS:
        yield f"exec: apiVersion is none of {' and '.join(_EXEC_VERSIONS)}"
    if any(not name for name, _ in plugin.environment):
        yield "exec: env has an item without name"
    if not plugin.interactive_mode:
        yield "exec: interactiveMode is missing: Never, IfAvailable or Always"
    elif plugin.interactive_mode not in _INTERACTIVE:
        yield "exec: interactiveMode is none of Never, IfAvailable and Always"


def _auth_provider(user: User) -> Iterator[str]:
    provider = user.auth_provider
    if provider is None or user.exec is not None:
        return
    if provider.name != "oidc":
        yield f"auth-provider: {_REMOVED.get(provider.name, 'none but oidc is known')}"
        return
    given = dict(provider.config)
    for key in ("idp-issuer-url", "client-id"):
        if not given.get(key):
            yield f"auth-provider: {key} is missing"


def _unreadable(path: str, tls: bool = True) -> str:
    """Why a file cannot be opened, or over TLS read; empty if it can: a directory can be opened."""
    try:
        # Opening a pipe would wait for its writer, and all clusters of the file with it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
        if not tls or stat.S_ISREG(mode):
            return ""
        return "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
    except OSError as cause:
        return cause.strerror or type(cause).__name__
    except ValueError:
        return "no path"
