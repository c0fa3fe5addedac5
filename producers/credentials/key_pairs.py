"""A client certificate and its key in PEM, taken as Go's tls.X509KeyPair takes them.

What comes out is PEM of the plainest form: Go reads blocks that OpenSSL does not (long lines, keys with another label).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from producers.credentials.credential import BadCredentials, ClientCertificate

_BLOCK = re.compile(
    rb"^-----BEGIN ([^\r\n]*?)-----[ \t]*\r?\n(.*?)^-----END \1-----[ \t]*\r?$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class _Block:
    """A PEM block: what it says it is, its headers, and what is in it."""

    label: str
    headers: bytes
    content: bytes

    def pem(self, label: str) -> bytes:
        text = base64.b64encode(self.content)
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        return b"\n".join((b"-----BEGIN %s-----" % label.encode(), *lines, b"-----END %s-----" % label.encode(), b""))


def key_pair(certificate: bytes, key: bytes, what: str) -> ClientCertificate:
    """The certificates of one text and the key of another, which may be the same text, if they belong together.

    Blocking, under a millisecond. Raises:
        BadCredentials: there is none, the key is encrypted or another certificate's; it says `what` and shows neither.
    """
    chain = [block for block in _blocks(certificate) if block.label == "CERTIFICATE"]
    if not chain:
        raise BadCredentials(f"{what}: no certificate in PEM in it")
    private = next((block for block in _blocks(key) if block.label.endswith("PRIVATE KEY")), None)
    if private is None:
        raise BadCredentials(f"{what}: no private key in PEM in it")
    if private.label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in private.headers or b"DEK-Info" in private.headers:
        raise BadCredentials(
            f"{what}: its private key is encrypted; write it without a password, as kubectl needs it too"
        )
    pair = ClientCertificate(
        b"".join(block.pem("CERTIFICATE") for block in chain), private.pem(_label(private.content))
    )
    _check(pair, what)
    return pair


def _blocks(text: bytes) -> Iterator[_Block]:
    """The PEM blocks of a text; what is none, or no base64, is passed over (Go's encoding/pem)."""
    for label, body in _BLOCK.findall(text):
        headers, content = [], b""
        for line in body.splitlines():
            if b":" in line and not content:
                headers.append(line)
            else:
                content += b"".join(line.split())
        with contextlib.suppress(binascii.Error):
            yield _Block(
                label.decode("ascii", "replace"), b"\n".join(headers), base64.b64decode(content, validate=True)
            )


def _label(key: bytes) -> str:
    """What a private key is by its DER (RFC 5208, 8017, 5915), whatever its block is called."""
    # A SEQUENCE, its length, the INTEGER of the version; what follows tells them apart.
    at = 2 + (key[1] & 0x7F if key[1:2] >= b"\x80" else 0)
    following = key[at + 3 : at + 4]
    return {b"\x30": "PRIVATE KEY", b"\x02": "RSA PRIVATE KEY", b"\x04": "EC PRIVATE KEY"}.get(following, "PRIVATE KEY")


def _check(pair: ClientCertificate, what: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whether a short key will do is the server's to say, as with kubectl.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        with _as_file(pair.chain + pair.key) as path:
            context.load_cert_chain(path, password="")
    except ssl.SSLError as cause:
        if cause.reason == "KEY_VALUES_MISMATCH":
            raise BadCredentials(f"{what}: the private key is another certificate's") from None
        raise BadCredentials(f"{what} cannot be used: {(cause.reason or 'no certificate').lower()}") from None
    except (OSError, ValueError) as cause:
        raise BadCredentials(f"{what} cannot be looked at: {type(cause).__name__}") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path under which the content can be read in the block: in memory where the system has that."""
    if hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd"):
        with os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(content)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(content)
            named.flush()
            yield named.name
