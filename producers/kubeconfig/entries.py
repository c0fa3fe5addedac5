"""The entries of a kubeconfig: a cluster, a user, a context, as values that are equal when they say the same.

Format: k8s.io/client-go tools/clientcmd/api/v1. Paths are absolute here, `*-data` decoded, absent texts empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster is, and how its server is known (`clusters[].cluster`).

    `server` as it stands in the file. `exec_config`: the extension `client.authentication.k8s.io/exec` as JSON, `null`
    if there is none.
    """

    server: str = ""
    tls_server_name: str = ""
    insecure: bool = False
    authority_file: str = ""
    authority_data: bytes = b""
    proxy_url: str = ""
    disable_compression: bool = False
    exec_config: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Impersonation:
    """As whom a user acts; all empty: as themselves."""

    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Exec:
    """A credential plugin (`users[].user.exec`). `command`: joined with the file's folder where it has a slash.

    `arguments` and `environment` are never shown: they may hold secrets.
    """

    api_version: str
    command: str
    arguments: tuple[str, ...] = field(default=(), repr=False)
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    interactive_mode: str = "IfAvailable"
    provide_cluster_info: bool = False
    install_hint: str = ""


@dataclass(frozen=True, slots=True)
class AuthProvider:
    """`users[].user.auth-provider`. `file` and `entry`: where it stands, for writing renewed tokens back.

    `files`: all files of the kubeconfig, each of which is locked while one is written.
    """

    name: str
    config: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    file: str = ""
    entry: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """As whom a cluster is asked (`users[].user`); all empty: anonymous."""

    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    certificate_file: str = ""
    certificate_data: bytes = b""
    key_file: str = ""
    key_data: bytes = field(default=b"", repr=False)
    impersonation: Impersonation = Impersonation()
    exec: Exec | None = None
    auth_provider: AuthProvider | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Which cluster, and as which user (`contexts[].context`)."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""
