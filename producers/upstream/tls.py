"""How a server is known, and who we are in a TLS handshake: authorities, the name that is checked, a certificate.

Rules: k8s.io/client-go transport/transport.go, Go's crypto/x509 (AppendCertsFromPEM, SystemCertPool).
"""

from __future__ import annotations

import base64
import functools
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from producers.credentials.credential import ClientCertificate
from producers.kubeconfig.model import BadKubeconfig

# A block of PEM as Go's encoding/pem finds it: both lines from their beginnings, white space anywhere in between.
_CERTIFICATE = re.compile(
    rb"^-----BEGIN CERTIFICATE-----[ \t\r]*$([^-]*)^-----END CERTIFICATE-----[ \t\r]*$", re.MULTILINE
)
# Where systems keep the authorities that they trust; the first that is there counts (Go's crypto/x509 root_linux.go).
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS towards one server. Connections are shared by equal settings only.

    `authorities`: PEM, trusted instead of the system's, empty: the system's. `server_name`: sent as SNI and checked,
    empty: the URL's host. `insecure`: nothing is checked.
    """

    authorities: bytes = b""
    insecure: bool = False
    server_name: str = ""
    certificate: ClientCertificate | None = None


def authorities_in(pem: bytes, where: str) -> bytes:
    """The certificates of a bundle that can be used; what else is in it is passed over, as Go does.

    Raises:
        BadKubeconfig: there is none. client-go before 1.36 took the system's for an empty file; we trust none.
    """
    if not (usable := _certificates(pem)):
        raise BadKubeconfig(f"{where} has no certificate in PEM that could be trusted")
    return usable


@functools.cache
def system_authorities() -> tuple[str, bytes]:
    """The system's authorities as this process found them first: a file, or the certificates themselves."""
    return _system_authorities(os.environ)


def _system_authorities(environment: Mapping[str, str]) -> tuple[str, bytes]:
    named, directories = environment.get("SSL_CERT_FILE", ""), environment.get("SSL_CERT_DIR", "")
    file = next((path for path in ((named,) if named else _SYSTEM_FILES) if Path(path).is_file()), "")
    if not directories:
        return file, b""
    found = [_contents(Path(file))] if file else []
    for directory in directories.split(os.pathsep):
        if Path(directory).is_dir():
            found += [_contents(path) for path in sorted(Path(directory).iterdir()) if path.is_file()]
    return "", b"".join(map(_certificates, found))


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _certificates(text: bytes) -> bytes:
    """The certificates of a text that can be parsed, in PEM as OpenSSL reads it."""
    return b"".join(pem for body in _CERTIFICATE.findall(text) if (pem := _certificate(body)))


def _certificate(body: bytes) -> bytes:
    try:
        # Also what is no base64, as the headers of a block: a block with headers is none that Go trusts.
        der = base64.b64decode(b"".join(body.split()), validate=True)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return b""
    return ssl.DER_cert_to_PEM_cert(der).encode()
