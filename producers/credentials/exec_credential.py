"""The ExecCredential that plugins are given and that they answer with.

Format: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/ (v1beta1 has the same fields); how it
is read: k8s.io/client-go plugin/pkg/client/auth/exec/exec.go.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from producers.credentials.credential import BadCredentials, Presented
from producers.credentials.key_pairs import key_pair
from producers.credentials.static import bearer
from producers.kubeconfig.entries import Cluster
from producers.kubeconfig.yaml_values import BadYaml, Bounds, parse

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")

# RFC 3339 as Go's time.Parse takes it.
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d?):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
# An answer is small; one that is not is made to hurt.
_BOUNDS = Bounds(depth=100, nodes=10_000)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plugin gave. `expires`: seconds since 1970 after which it is no longer shown; None: never."""

    shown: Presented = field(repr=False)
    expires: float | None = None


def exec_info(version: str, cluster: Cluster | None, authority: bytes) -> str:
    """The value of KUBERNETES_EXEC_INFO. `cluster`: only where the plugin wants it, `authority`: its CA's content.

    Example: `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}`.
    """
    spec: dict[str, object] = {}
    if cluster is not None:
        described: dict[str, object] = {"server": _host(cluster.server)}
        if cluster.tls_server_name:
            described["tls-server-name"] = cluster.tls_server_name
        if cluster.insecure:
            described["insecure-skip-tls-verify"] = True
        if authority:
            described["certificate-authority-data"] = base64.b64encode(authority).decode()
        if cluster.proxy_url:
            described["proxy-url"] = cluster.proxy_url
        if cluster.disable_compression:
            described["disable-compression"] = True
        described["config"] = json.loads(cluster.exec_config)
        spec["cluster"] = described
    # There is no terminal to ask somebody at.
    spec["interactive"] = False
    document = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def _host(server: str) -> str:
    """The server as client-go has it: without query and fragment where there is a path."""
    rest = server.partition("://")[2]
    plain = re.split(r"[?#]", server, maxsplit=1)[0]
    return plain if len(re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2]) > 0 else server


def read_answer(stdout: bytes, version: str, what: str) -> Answer:
    """What a plugin's output says, one document in JSON or YAML. Blocking, under a millisecond for usual ones.

    Raises:
        BadCredentials: kubectl refuses it, too; the message says `what` plugin it was, and nothing of the output.
    """
    document = _document(stdout, what)
    if not isinstance(document, dict):
        raise BadCredentials(f"{what} answered with no ExecCredential")
    kind, said = document.get("kind"), document.get("apiVersion")
    if kind not in (None, "", "ExecCredential"):
        raise BadCredentials(f"{what} answered with another kind of object than ExecCredential")
    if said != version:
        shown = said if said in VERSIONS else "another version"
        raise BadCredentials(f"{what} is configured to use apiVersion {version}, and answered in {shown}")
    if not isinstance(document.get("spec"), dict | None):
        raise BadCredentials(f"{what} answered with a spec that is no object")
    status = document.get("status")
    if status is None:
        raise BadCredentials(f"{what} answered without a status")
    if not isinstance(status, dict):
        raise BadCredentials(f"{what} answered with a status that is no object")
    token, certificate, key = (
        _text(status, name, what) for name in ("token", "clientCertificateData", "clientKeyData")
    )
    expires = _expiry(status.get("expirationTimestamp"), what)
    if not token and not certificate and not key:
        raise BadCredentials(f"{what} answered with neither a token nor a certificate and its key")
    if bool(certificate) != bool(key):
        raise BadCredentials(f"{what} answered with only a certificate or a key, not both")
    headers = bearer(token, f"the token of {what}").headers if token else ()
    pair = None
    if certificate:
        pair = key_pair(
            certificate.encode(errors="replace"), key.encode(errors="replace"), f"the certificate of {what}"
        )
    return Answer(Presented(headers, pair), expires)


def _document(stdout: bytes, what: str) -> Any:
    if stdout.lstrip()[:1] == b"{":
        try:
            # Bytes that are no text become U+FFFD, as in Go.
            return json.loads(stdout.decode(errors="replace"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise BadCredentials(f"{what} answered with what begins as JSON and is none") from None
    try:
        return parse(stdout, _BOUNDS)
    except BadYaml:
        raise BadCredentials(f"{what} answered with what is neither JSON nor YAML") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _text(status: dict[str, Any], name: str, what: str) -> str:
    value = status.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadCredentials(f"{what} answered with a {name} that is no text")
    return _SURROGATE.sub("\ufffd", value)


def _expiry(value: object, what: str) -> float | None:
    if value is None:
        return None
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadCredentials(f"{what} answered with an expirationTimestamp that is no RFC 3339 time with a zone")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if year == 0:
        # Go has that year, Python has not.
        return float("-inf")
    zone = UTC
    try:
        if found[8]:
            ahead = timedelta(hours=int(found[9]), minutes=int(found[10]))
            zone = timezone(ahead if found[8] == "+" else -ahead)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        # Year 1 is Go's zero time, which means none; east of Greenwich it may lie before what Python can say.
        return None if year == 1 and moment.timestamp() == _ZERO else moment.timestamp() + float(f"0.{found[7] or 0}")
    except (ValueError, OverflowError):
        raise BadCredentials(f"{what} answered with an expirationTimestamp that is no time") from None


_ZERO = datetime(1, 1, 1, tzinfo=UTC).timestamp()
