"""TLS of what is served: certificate and key from files that may change, and clients' certificates as they came.

A server of Kubernetes asks for a client's certificate and refuses none in the handshake: whether it is expired or of
an authority that is not known is for authentication to say, with 401, and a token beside it still counts
(k8s.io/apiserver pkg/server/secure_serving.go: tls.RequestClientCert). Python's `ssl` can only ask for what it then
verifies, so connections of servers that ask are made with pyOpenSSL, whose verify callback may pass everything; all
others are `ssl`'s, which costs less for each event of a watch (docs/access/tls.md has the figures).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from query.errors import UnusableSetting

log = structlog.get_logger("query.http.tls")

# Seconds between two looks at the files, which are only looked at when a connection is made.
_LOOK_EVERY = 1.0
# More than any chain, key or bundle of authorities has.
_LARGEST = 4 * 1024 * 1024
_PROTOCOL = b"http/1.1"
# Of TLS 1.2; those of 1.3 are all in order. Without RSA's key exchange and CBC, as Go's.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# A record has at most 16 KiB and so many bytes of its own.
_RECORD, _RECORD_HEAD = 16 * 1024, 64


class BadTlsFile(UnusableSetting):
    """A certificate, a key or a bundle of authorities cannot be used; one line with the file's path."""


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """What a server shows and asks for, as paths of PEM files.

    `certificate`: its own, the leaf first, with what is between that and the authority; `key`: in a file of its own or
    in the same. `client_authorities`: bundles whose names clients are sent, so that they know which of their
    certificates to show; () where they are not asked for one.
    """

    certificate: Path
    key: Path
    client_authorities: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file of it."""
        return (self.certificate, self.key, *self.client_authorities)


class _Made(Protocol):
    """Makes the TLS of one connection."""

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> Any: ...


class ServingContext(ssl.SSLContext):
    """What asyncio and uvloop make connections' TLS of: TLS 1.2 or newer, HTTP/1.1.

    Each new connection gets what the files have by then; they are looked at once a second at most. Files that cannot
    be used leave what was read before, and are logged once. Connections that are open stay as they are.

    Raises:
        BadTlsFile: the files cannot be used at the start.
    """

    # ssl.SSLContext is made in __new__, which asks for a protocol.
    def __new__(cls, files: ServingFiles, clock: Callable[[], float] = time.monotonic) -> Self:
        """As `__init__`."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: ServingFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._seen = file_identities(files.all)
        self._made: _Made = _make(files)
        self._look_at = clock() + _LOOK_EVERY

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Any:
        """The TLS of a new connection, as ssl.SSLContext.wrap_bio."""
        if not server_side:
            raise ValueError("this context is a server's")
        if (now := self._clock()) >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            self._look()
        return self._made.wrap(incoming, outgoing)

    def _look(self) -> None:
        if (found := file_identities(self._files.all)) == self._seen:
            return
        self._seen = found
        try:
            self._made = _make(self._files)
        except BadTlsFile as problem:
            log.error("what TLS is served with was changed and cannot be used: the former stays", reason=str(problem))
        else:
            log.info("what TLS is served with was read anew", certificate=str(self._files.certificate))


def peer_chain(transport: asyncio.BaseTransport | None) -> tuple[bytes, ...]:
    """The certificates that a connection's client showed, in DER, its own first; nothing of them was verified.

    () without TLS, where the client was not asked, or has none. That it has the key of the first, the handshake made
    sure of.
    """
    found = None if transport is None else transport.get_extra_info("ssl_object")
    return found.peer_chain if isinstance(found, _AskedConnection) else ()


# -- reading the files -------------------------------------------------------------------------------------------------


def file_identities(paths: Iterable[Path]) -> tuple[object, ...]:
    """Another value when one of the files was changed or replaced. Blocking."""
    found: list[object] = []
    for path in paths:
        try:
            seen = os.stat(path)
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append((seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_size))
    return tuple(found)


def _read(path: Path) -> bytes:
    """Raises BadTlsFile."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as cause:
        raise BadTlsFile(f"{path}: {getattr(cause, 'strerror', None) or 'no path'}") from None
    if len(content) > _LARGEST:
        raise BadTlsFile(f"{path} has more than {_LARGEST // 1024 // 1024} MiB")
    return content


def certificates_in(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, in its order, at least one. Raises BadTlsFile."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise BadTlsFile(f"{path} has no certificate in PEM that can be read") from None


def _make(files: ServingFiles) -> _Made:
    """Raises BadTlsFile."""
    chain, key = certificates_in(files.certificate), _read(files.key)
    try:
        private = serialization.load_pem_private_key(key, None)
    except TypeError:
        raise BadTlsFile(f"{files.key} is encrypted; write the key without a password") from None
    except ValueError:
        raise BadTlsFile(f"{files.key} has no private key in PEM that can be read") from None
    if _public(private.public_key()) != _public(chain[0].public_key()):
        raise BadTlsFile(f"{files.key} is not the key of the first certificate in {files.certificate}")
    try:
        if not files.client_authorities:
            return _Plain(files)
        authorities = [one for path in files.client_authorities for one in certificates_in(path)]
        return _Asking(chain, private, authorities)
    except (ssl.SSLError, SSL.Error, crypto.Error, OSError, TypeError, ValueError) as cause:
        raise BadTlsFile(f"{files.certificate} cannot be served with: {_said(cause)}") from None


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _said(cause: Exception) -> str:
    if isinstance(cause, ssl.SSLError):
        return cause.reason or "TLS fails"
    return "; ".join(str(part[-1]) for part in _queue(cause)) or str(cause) or type(cause).__name__


def _queue(cause: Exception) -> Sequence[Sequence[str]]:
    """What OpenSSL noted: for each error its library, its function, and the reason."""
    noted = cause.args[0] if cause.args and isinstance(cause, SSL.Error | crypto.Error) else ()
    return noted if isinstance(noted, list) else ()


# -- connections whose clients are not asked: Python's ssl -------------------------------------------------------------


class _Plain:
    def __init__(self, files: ServingFiles) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_ciphers(_CIPHERS)
        self._context.options |= ssl.OP_NO_RENEGOTIATION
        self._context.set_alpn_protocols([_PROTOCOL.decode()])
        # It asks nobody for a password: the key was read before.
        self._context.load_cert_chain(files.certificate, files.key, password="")

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        return self._context.wrap_bio(incoming, outgoing, server_side=True)


# -- connections whose clients are asked: pyOpenSSL --------------------------------------------------------------------


def _accepted(*_: object) -> bool:
    """Of every certificate: whether it counts is for authentication to say."""
    return True


def _chosen(_: SSL.Connection, offered: list[bytes]) -> Any:
    return _PROTOCOL if _PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


class _Asking:
    def __init__(self, chain: list[x509.Certificate], key: Any, authorities: list[x509.Certificate]) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_cipher_list(_CIPHERS.encode())
        # What is resumed would have the client's own certificate without those between it and its authority.
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        self._context.set_alpn_select_callback(_chosen)
        self._context.use_certificate(chain[0])
        for one in chain[1:]:
            self._context.add_extra_chain_cert(one)
        self._context.use_privatekey(key)
        self._context.check_privatekey()
        # Each name once, in order: the list goes along with every handshake.
        names = {one.subject.public_bytes(): one for one in authorities}
        for one in names.values():
            self._context.add_client_ca(one)
        self._context.set_verify(SSL.VERIFY_PEER, _accepted)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> _AskedConnection:
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return _AskedConnection(connection, incoming, outgoing)


class _AskedConnection:
    """What asyncio and uvloop use of an ssl.SSLObject, over pyOpenSSL's connection and its own two buffers."""

    __slots__ = ("_chain", "_connection", "_incoming", "_outgoing", "_unread")

    def __init__(self, connection: SSL.Connection, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._chain: tuple[bytes, ...] | None = None
        # Whether what was given to OpenSSL may hold more than was read of it.
        self._unread = False

    @property
    def peer_chain(self) -> tuple[bytes, ...]:
        """See the function of this name."""
        if self._chain is None:
            leaf = self._connection.get_peer_certificate()
            # A server's has all but the client's own.
            shown = [*([] if leaf is None else [leaf]), *(self._connection.get_peer_cert_chain() or [])]
            # As they came: what cannot be parsed is for authentication to refuse.
            self._chain = tuple(dict.fromkeys(crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in shown))
        return self._chain

    def do_handshake(self) -> None:
        self._take()
        try:
            self._connection.do_handshake()
        except SSL.Error as cause:
            raise _as_ssl(cause) from None
        finally:
            self._give(_RECORD)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        self._take()
        try:
            if buffer is None:
                got: Any = self._connection.recv(size)
            else:
                got = self._connection.recv_into(buffer, size)
        except SSL.ZeroReturnError:
            self._unread = False
            return b"" if buffer is None else 0
        except SSL.Error as cause:
            self._unread = False
            self._give(_RECORD)
            raise _as_ssl(cause) from None
        self._unread = True
        return got

    def write(self, data: Any) -> int:
        try:
            taken = self._connection.send(data)
        except SSL.Error as cause:
            raise _as_ssl(cause) from None
        self._give(taken + (taken // _RECORD + 1) * _RECORD_HEAD)
        return taken

    def pending(self) -> int:
        """Bytes that can be read; at least 1 while that is not known, so that it is tried."""
        return self._connection.pending() or (1 if self._unread else 0)

    def unwrap(self) -> None:
        self._take()
        try:
            # The first sends our end, the second takes the client's.
            if not self._connection.shutdown() and not self._connection.shutdown():
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the client has not said its end")
        except SSL.Error as cause:
            raise _as_ssl(cause) from None
        finally:
            self._give(_RECORD)

    def getpeercert(self, binary_form: bool = False) -> None:
        """What is verified of the client's certificate: nothing."""

    def cipher(self) -> tuple[str, str, int] | None:
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_cipher_version() or "", self._connection.get_cipher_bits() or 0

    def compression(self) -> None:
        return None

    def version(self) -> str:
        return self._connection.get_protocol_version_name()

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode() or None

    def _take(self) -> None:
        """Gives OpenSSL what has arrived."""
        if self._incoming.pending:
            self._connection.bio_write(self._incoming.read())
            self._unread = True

    def _give(self, most: int) -> None:
        """Takes from OpenSSL what is to be sent, which is `most` bytes or a little more or less."""
        try:
            while True:
                made = self._connection.bio_read(most)
                self._outgoing.write(made)
                if len(made) < most:
                    return
        except SSL.Error:
            # It has no more.
            return


def _as_ssl(cause: SSL.Error) -> ssl.SSLError:
    """The exception that asyncio and uvloop know it by."""
    if isinstance(cause, SSL.WantReadError):
        return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the operation did not complete (read)")
    if isinstance(cause, SSL.WantWriteError):
        return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the operation did not complete (write)")
    if isinstance(cause, SSL.ZeroReturnError):
        return ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS was closed")
    if isinstance(cause, SSL.SysCallError):
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without TLS's end")
    return ssl.SSLError(ssl.SSL_ERROR_SSL, _said(cause))
