"""The options that guard a listening address: TLS, authentication, authorization, limits, audit.

Where a kube-apiserver has an option for the same, it has its name here, too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kubebraid.command.doors import AuditLog, Doors, FrontProxy, TokenReviewer
from kubebraid.command.options.sizes import size
from kubebraid.command.settings import BadSetting
from query.http.connections import ConnectionLimits
from query.http.cors import BadOrigin, check_origin
from query.http.limits import RequestLimits

_TLS, _WHO, _WHAT, _LIMITS, _AUDIT = "TLS", "Authentication", "Authorization", "Limits", "Audit"

_File = Path | None
_Texts = list[str] | None


def _option(name: str, panel: str, metavar: str | None, help: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=help, rich_help_panel=panel, **more)


def _file(name: str, panel: str, help: str) -> tuple[Any, Any]:
    return Annotated[_File, _option(name, panel, "FILE", help)], None


def _texts(name: str, panel: str, metavar: str, help: str) -> tuple[Any, Any]:
    return Annotated[_Texts, _option(name, panel, metavar, help)], None


def _number(name: str, default: int, help: str) -> tuple[Any, Any]:
    return Annotated[int, _option(name, _LIMITS, "N", help, min=0)], default


def _size(name: str, help: str) -> tuple[Any, Any]:
    return Annotated[str, _option(name, _LIMITS, "SIZE", help)], "0"


_REQUESTS, _CONNECTIONS = RequestLimits(), ConnectionLimits()
# By the names of the arguments that the options become: annotation and default.
_TLS_OPTIONS: dict[str, tuple[Any, Any]] = {
    "tls_cert_file": _file("tls-cert-file", _TLS, "Certificate to serve https with, PEM; read anew when it changes."),
    "tls_private_key_file": _file("tls-private-key-file", _TLS, "Its key, PEM, unless that is in the same file."),
    "max_connections": (
        Annotated[
            int | None,
            _option("max-connections", _LIMITS, "N", "Connections open at once. [20000, or what ulimit gives]", min=1),
        ],
        None,
    ),
}
_DOOR_OPTIONS: dict[str, tuple[Any, Any]] = {
    "tls_cert_file": _TLS_OPTIONS["tls_cert_file"],
    "tls_private_key_file": _TLS_OPTIONS["tls_private_key_file"],
    "tls_san": _texts(
        "tls-san", _TLS, "NAME", "Host names and addresses beside its own, of the certificate that `up` makes itself."
    ),
    "client_ca_file": _file("client-ca-file", _WHO, "Authorities of clients' certificates, PEM."),
    "requestheader_client_ca_file": _file(
        "requestheader-client-ca-file", _WHO, "Authorities of a front proxy that says by headers who asks, PEM."
    ),
    "requestheader_allowed_names": _texts(
        "requestheader-allowed-names", _WHO, "NAME", "Common names that the front proxy may have. [any]"
    ),
    "requestheader_username_headers": _texts(
        "requestheader-username-headers", _WHO, "HEADER", "Headers of the user's name. [X-Remote-User]"
    ),
    "requestheader_uid_headers": _texts(
        "requestheader-uid-headers", _WHO, "HEADER", "Headers of the user's uid. [X-Remote-Uid]"
    ),
    "requestheader_group_headers": _texts(
        "requestheader-group-headers", _WHO, "HEADER", "Headers of the user's groups. [X-Remote-Group]"
    ),
    "requestheader_extra_headers_prefix": _texts(
        "requestheader-extra-headers-prefix", _WHO, "PREFIX", "What others of the user begin with. [X-Remote-Extra-]"
    ),
    "token_auth_file": _file("token-auth-file", _WHO, "Hashes of tokens, each with its user; read anew."),
    "authentication_config": _file("authentication-config", _WHO, "An AuthenticationConfiguration: OIDC, anonymous."),
    "token_review_cluster": (
        Annotated[
            str | None,
            _option("token-review-cluster", _WHO, "NAME", "Member cluster that is asked about tokens."),
        ],
        None,
    ),
    "authentication_token_webhook_config_file": _file(
        "authentication-token-webhook-config-file", _WHO, "Kubeconfig of a server that is asked about tokens."
    ),
    "api_audiences": _texts("api-audiences", _WHO, "NAME", "Audiences that reviewed tokens are asked to be for."),
    "anonymous_auth": (
        Annotated[
            bool | None,
            _option("anonymous-auth/--no-anonymous-auth", _WHO, None, "Let in who shows nothing, as system:anonymous."),
        ],
        None,
    ),
    "authorization_config": _file("authorization-config", _WHAT, "An AuthorizationConfiguration."),
    "authorization_mode": _texts(
        "authorization-mode", _WHAT, "NAME", "Members, Policy, AlwaysAllow, AlwaysDeny, in order. [Members]"
    ),
    "authorization_policy_file": _file("authorization-policy-file", _WHAT, "Who may see what; read anew."),
    "allow_origin": _texts(
        "allow-origin", _WHAT, "REGEX", "Origins whose pages may use the API (CORS), as ^https://console\\.example$."
    ),
    "max_requests_inflight": _number(
        "max-requests-inflight", _REQUESTS.reading, "Requests that read, at once; 0: any number."
    ),
    "max_mutating_requests_inflight": _number(
        "max-mutating-requests-inflight", _REQUESTS.mutating, "Requests that change something, at once; 0: any number."
    ),
    "max_requests_per_user": _number(
        "max-requests-per-user", _REQUESTS.per_user, "Requests of one user at once; 0: any number."
    ),
    "max_watches": _number("max-watches", _REQUESTS.watches, "Watches and other streams; 0: any number."),
    "max_watches_per_user": _number(
        "max-watches-per-user", _REQUESTS.watches_per_user, "Watches and other streams of one user; 0: any number."
    ),
    "max_bytes_inflight": _size("max-bytes-inflight", "Bytes of lists under way to their clients; 0: any number."),
    "max_bytes_per_user": _size("max-bytes-per-user", "Bytes of lists under way to one user; 0: any number."),
    "max_connections": _TLS_OPTIONS["max_connections"],
    "max_request_body": (
        Annotated[str, _option("max-request-body", _LIMITS, "SIZE", "The largest body of a request.")],
        "3Mi",
    ),
    "audit_policy_file": _file("audit-policy-file", _AUDIT, "An audit Policy; without it there are no events."),
    "audit_log_path": (
        Annotated[str, _option("audit-log-path", _AUDIT, "FILE", "Where events go; -: standard output.")],
        "-",
    ),
    "audit_log_maxsize": (
        Annotated[int, _option("audit-log-maxsize", _AUDIT, "MB", "Largest file before it is rotated.", min=1)],
        100,
    ),
    "audit_log_maxbackup": (
        Annotated[int, _option("audit-log-maxbackup", _AUDIT, "N", "Rotated files kept; 0: all.", min=0)],
        100,
    ),
    "audit_log_maxage": (
        Annotated[int, _option("audit-log-maxage", _AUDIT, "DAYS", "How long rotated files are kept; 0: ever.", min=0)],
        366,
    ),
}


# Of who passes requests on: who asks is known by certificates alone, and the rest is for those who answer.
_ROUTER_OPTIONS = {
    name: option
    for name, option in _DOOR_OPTIONS.items()
    if name in (*_TLS_OPTIONS, "client_ca_file", "allow_origin") or name.startswith("requestheader_")
}


def with_doors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command whose argument `doors` is a `Doors`: it gets all options above, and they fill that.

    The decorated command raises BadSetting where they contradict each other.
    """
    return _taking(command, _DOOR_OPTIONS, _doors)


def with_tls(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_doors`, for a command that serves https but knows nobody: a certificate and its key."""
    return _taking(command, _TLS_OPTIONS, _only_tls)


def with_router_doors(command: Callable[..., None]) -> Callable[..., None]:
    """As `with_doors`, for a command that passes requests on: TLS, clients' certificates, origins.

    The headers of a front proxy are also those by which it says itself who asks.
    """
    return _taking(command, _ROUTER_OPTIONS, _router_doors)


def _taking(
    command: Callable[..., None], options: Mapping[str, tuple[Any, Any]], make: Callable[[Mapping[str, Any]], Doors]
) -> Callable[..., None]:
    @functools.wraps(command)
    def taking(**given: Any) -> None:
        doors = make({name: given.pop(name) for name in options})
        command(**given, doors=doors)

    signature = inspect.signature(command, eval_str=True)
    kept = [one for one in signature.parameters.values() if one.name != "doors"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    # Of an argument that takes what is left over, options may only stand behind.
    taking.__signature__ = signature.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in (*kept, *more)}
    return taking


def _only_tls(given: Mapping[str, Any]) -> Doors:
    certificate, key = _certificate(given)
    return Doors(certificate=certificate, key=key, connections=_connections(given))


def _doors(given: Mapping[str, Any]) -> Doors:
    certificate, key = _certificate(given)
    if given["authorization_config"] is not None:
        for name in ("authorization_mode", "authorization_policy_file"):
            if given[name]:
                raise BadSetting(
                    f"--{name.replace('_', '-')} is said in the file where --authorization-config is given"
                )
    client = given["client_ca_file"]
    return Doors(
        certificate=certificate,
        key=key,
        names=_listed(given["tls_san"]),
        client_authorities=() if client is None else (client,),
        front_proxy=_front_proxy(given),
        tokens=given["token_auth_file"],
        authentication=given["authentication_config"],
        token_reviewer=_token_reviewer(given),
        anonymous=given["anonymous_auth"],
        authorization=given["authorization_config"],
        authorizers=_listed(given["authorization_mode"]),
        policy=given["authorization_policy_file"],
        origins=_origins(given),
        connections=_connections(given),
        requests=RequestLimits(
            reading=given["max_requests_inflight"],
            mutating=given["max_mutating_requests_inflight"],
            per_user=given["max_requests_per_user"],
            watches=given["max_watches"],
            watches_per_user=given["max_watches_per_user"],
            bytes=size("--max-bytes-inflight", given["max_bytes_inflight"]),
            bytes_per_user=size("--max-bytes-per-user", given["max_bytes_per_user"]),
        ),
        audit=_audit(given),
    )


def _router_doors(given: Mapping[str, Any]) -> Doors:
    certificate, key = _certificate(given)
    client, proxy = given["client_ca_file"], _front_proxy(given)
    if certificate is None and (client is not None or proxy is not None):
        raise BadSetting("clients show their certificates over https only; add --tls-cert-file")
    return Doors(
        certificate=certificate,
        key=key,
        client_authorities=() if client is None else (client,),
        front_proxy=proxy,
        origins=_origins(given),
        connections=_connections(given),
    )


def _origins(given: Mapping[str, Any]) -> tuple[str, ...]:
    for text in given["allow_origin"] or ():
        try:
            check_origin(text)
        except BadOrigin as problem:
            raise BadSetting(f"--allow-origin {text!r}: {problem}") from None
    return tuple(given["allow_origin"] or ())


def _certificate(given: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    certificate, key = given["tls_cert_file"], given["tls_private_key_file"]
    if key is not None and certificate is None:
        raise BadSetting("--tls-private-key-file is the key of --tls-cert-file; give that, too")
    return certificate, key


def _connections(given: Mapping[str, Any]) -> ConnectionLimits:
    body = given.get("max_request_body")
    return ConnectionLimits(
        most=given["max_connections"],
        body=_CONNECTIONS.body if body is None else size("--max-request-body", body),
    )


def _front_proxy(given: Mapping[str, Any]) -> FrontProxy | None:
    authorities = given["requestheader_client_ca_file"]
    said: dict[str, Any] = {
        "names": _listed(given["requestheader_allowed_names"]),
        "user_headers": _listed(given["requestheader_username_headers"]),
        "uid_headers": _listed(given["requestheader_uid_headers"]),
        "group_headers": _listed(given["requestheader_group_headers"]),
        "extra_prefixes": _listed(given["requestheader_extra_headers_prefix"]),
    }
    said = {name: texts for name, texts in said.items() if texts}
    if authorities is None:
        if said:
            raise BadSetting("headers of a front proxy count only with --requestheader-client-ca-file; give that, too")
        return None
    return FrontProxy(authorities, **said)


def _token_reviewer(given: Mapping[str, Any]) -> TokenReviewer | None:
    cluster, kubeconfig = (
        given["token_review_cluster"],
        given["authentication_token_webhook_config_file"],
    )
    audiences = _listed(given["api_audiences"])
    if cluster and kubeconfig:
        raise BadSetting(
            "--token-review-cluster and --authentication-token-webhook-config-file both say who is "
            "asked about tokens; give one of them"
        )
    if not cluster and not kubeconfig:
        if audiences:
            raise BadSetting("--api-audiences are of reviewed tokens; say who reviews them, too")
        return None
    return TokenReviewer(cluster or "", kubeconfig, audiences)


def _audit(given: Mapping[str, Any]) -> AuditLog | None:
    policy, path = given["audit_policy_file"], given["audit_log_path"]
    if policy is None:
        if path != "-":
            raise BadSetting("--audit-log-path has nothing without --audit-policy-file; give that, too")
        return None
    return AuditLog(
        policy,
        None if path == "-" else Path(path),
        given["audit_log_maxsize"] * 1024 * 1024,
        given["audit_log_maxbackup"],
        given["audit_log_maxage"],
    )


def _listed(texts: list[str] | None) -> tuple[str, ...]:
    """`--x a --x b` and `--x a,b` are the same, as a kube-apiserver has it."""
    return tuple(part.strip() for text in texts or () for part in text.split(",") if part.strip())
