"""How to get into a NATS: as whom, over what TLS, to which JetStream domain; and what to say when that fails."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import nkeys
from nats import errors

from deltalog.wire.errors import BadInput

T = TypeVar("T")

_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INBOX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# What stands in a file of credentials (`nsc generate creds`), each between lines of its own.
_JWT = re.compile(r"BEGIN NATS USER JWT-*\s+(\S+)")
_SEED = re.compile(r"BEGIN USER NKEY SEED-*\s+(\S+)")


class BadAccess(BadInput):
    """A way in that cannot be: a file that is missing or none of its kind, two ways at once. One line with the remedy.

    `fields`: the fields of `Access` that are wrong. Messages, here and where NATS refuses, name fields in backquotes,
    as in "`creds` /etc/creds: No such file or directory", which a command line can
    replace by its options.
    """

    def __init__(self, fields: str | tuple[str, ...], problem: str) -> None:
        self.fields = (fields,) if isinstance(fields, str) else fields
        named = " and ".join(f"`{one}`" for one in self.fields)
        super().__init__(f"{named}{'' if problem.startswith(':') else ' '}{problem}")


class TlsContext(ssl.SSLContext):
    """What TLS trusts and shows, read from its files again at each handshake; and whether it carries what is sent.

    Made by `Access.tls_context`. nats-py makes each connection anew with the same context, and has no other public
    place that is passed on the way to a connection: a handshake begins when a server has been connected to and has
    said who it is, and before anything is said to it.
    """

    # Called when a handshake begins.
    begin: Callable[[], None] | None = None
    # Reads the files again. Raises BadAccess.
    load: Callable[[], None] | None = None
    # That of the attempt under way.
    connection: ssl.SSLObject | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Where asyncio, and uvloop, begin a handshake."""
        self.connection = None
        if self.begin is not None:
            self.begin()
        if self.load is not None:
            try:
                self.load()
            except BadAccess as cause:
                raise errors.Error(str(cause)) from cause
        self.connection = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        return self.connection

    def failed(self) -> None:
        """An attempt to connect has failed: the next one needs a handshake of its own."""
        self.connection = None

    def take(self) -> None:
        """Raises nats-py's error unless a handshake has succeeded in this attempt; to be called once in each.

        To be called before credentials are sent, and before anything else is where there are none.
        """
        connection, self.connection = self.connection, None
        if connection is None:
            raise errors.Error("the server has no TLS, which is asked for; credentials were not sent")
        if connection.version() is None:
            # It refuses us with an alert behind its handshake (TLS 1.3: for want of a client certificate); what that
            # says is heard of next.
            raise ConnectionResetError("the server has ended the TLS connection")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """As whom and how to connect; what is None or empty is not used.

    `creds`: file with a JWT and its seed; `nkey`: file with a seed; `user` with `password` or `password_file`; `token`
    or `token_file`. Files are read again at each connection, so that they may be replaced, but that of `nkey`. `ca`,
    `cert`, `key`: PEM files of TLS, `key` only if `cert` has it not; any of them forbids a connection without TLS.
    `domain`: the JetStream domain to use; `inbox`: what subjects of answers begin with, `_INBOX` if not given.
    """

    creds: str | None = None
    nkey: str | None = None
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    token: str | None = None
    token_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    domain: str = ""
    inbox: str = ""

    @property
    def tls(self) -> bool:
        """Whether files of TLS are given, so that there is no connection without."""
        return self.ca is not None or self.cert is not None

    @property
    def identified(self) -> bool:
        """Whether it says who connects."""
        return bool(self.creds or self.nkey or self.user or self.token or self.token_file)

    def without_identity(self) -> Access:
        """The same TLS and inboxes without credentials and domain: for a server whose URL has credentials."""
        none = dict.fromkeys(("creds", "nkey", "user", "password", "password_file", "token", "token_file"))
        return msgspec.structs.replace(self, domain="", **none)

    def check(self) -> None:
        """Raises BadAccess for what can be known without a server."""
        ways = {
            "creds": self.creds,
            "nkey": self.nkey,
            "user": self.user,
            "token": self.token or self.token_file,
        }
        given = tuple(name for name, value in ways.items() if value)
        if len(given) > 1:
            raise BadAccess(given, ": choose one of them")
        if self.user and self.password is None and self.password_file is None:
            raise BadAccess("user", "needs `password_file`, or `password`")
        if self.key is not None and self.cert is None:
            raise BadAccess("key", "is the key of `cert`: give that, too")
        if self.domain and not _DOMAIN.fullmatch(self.domain):
            raise BadAccess("domain", f"{self.domain!r}: letters, digits, - and _")
        if self.inbox and not _INBOX.fullmatch(self.inbox):
            raise BadAccess("inbox", f"{self.inbox!r}: words of letters, digits, - and _, with dots between")
        for name, file in (("password_file", self.password_file), ("token_file", self.token_file)):
            if file is not None:
                read_secret(name, file)
        if self.creds is not None and "BEGIN NATS USER JWT" not in read_secret("creds", self.creds):
            raise BadAccess("creds", f"{self.creds}: it has no user JWT (nsc generate creds writes such files)")
        if self.nkey is not None:
            seed = read_secret("nkey", self.nkey)
            try:
                nkeys.from_seed(bytearray(seed.encode())).wipe()
            except (nkeys.NkeysError, ValueError) as cause:
                raise BadAccess("nkey", f"{self.nkey}: it holds no nkey seed, which begins with SU") from cause
        if self.tls:
            self.tls_context()

    def tls_context(self) -> TlsContext:
        """What TLS trusts and shows, with what the system trusts. Raises BadAccess."""
        # As `ssl.create_default_context`: certificates and names are checked.
        context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        self._load(context)
        context.load = lambda: self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except OSError as cause:
            raise BadAccess("ca", f"{self.ca}: {_reason(cause)}") from cause
        try:
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as cause:
            with_key = "" if self.key is None else f" with `key` {self.key}"
            raise BadAccess("cert", f"{self.cert}{with_key}: {_reason(cause)}") from cause

    def options(self, context: TlsContext | None = None) -> dict[str, Any]:
        """The keyword arguments of nats-py's `connect` for it.

        Credentials are callables that read their files at each connection; where that fails, they raise nats-py's
        errors, at which it tries again. With `context`, they raise, too, where the connection is not over TLS, so
        that nothing is sent. Raises BadAccess.
        """

        def safely(read: Callable[[], T], *, last: bool = True) -> Callable[[], T]:
            """Anything but its own errors ends nats-py's reconnecting, for ever and in silence."""

            def answer() -> T:
                if last and context is not None:
                    context.take()
                try:
                    return read()
                except (BadAccess, nkeys.NkeysError, OSError, ValueError, TypeError, AttributeError) as cause:
                    raise errors.Error(f"the credentials cannot be read: {cause}") from cause

            return answer

        found: dict[str, Any] = {}
        if self.creds is not None:
            file = self.creds
            found["user_jwt_cb"] = safely(lambda: _credential(file, _JWT), last=False)
            found["signature_cb"] = lambda nonce: safely(lambda: _signature(file, nonce), last=False)()
        if self.nkey is not None:
            found["nkeys_seed_str"] = read_secret("nkey", self.nkey)
        if self.user is not None:
            found["user"] = self.user
            found["password"] = safely(lambda: _secret("password_file", self.password, self.password_file))
        elif self.token is not None or self.token_file is not None:
            found["token"] = safely(lambda: _secret("token_file", self.token, self.token_file))
        elif self.creds is not None or context is not None:
            # None, but asked for at last, whatever else is sent; and without it nats-py signs nothing for a server that
            # would have others, too, who do not say who they are.
            found["token"] = safely(lambda: None)
        if self.inbox:
            found["inbox_prefix"] = self.inbox.encode()
        return found


def without_user(urls: list[str]) -> tuple[list[str], dict[str, str]]:
    """URLs without what stands before @, and that of the first that has it, as fields of `Access`."""
    inside: dict[str, str] = {}
    bare = []
    for url in urls:
        scheme, slashes, rest = url.rpartition("//")
        before, at, host = rest.rpartition("@")
        bare.append(f"{scheme}{slashes}{host}")
        if at and not inside:
            user, colon, password = before.partition(":")
            inside = {"user": unquote(user), "password": unquote(password)} if colon else {"token": unquote(user)}
    return bare, inside


# What nats-py connects to; a server without a scheme is one of `nats://`.
_SCHEMES = frozenset({"nats", "tls", "ws", "wss"})


def check_servers(urls: list[str]) -> None:
    """Raises BadAccess for a URL, without user and password, that can be no NATS server's.

    Examples of what can: `nats://host:4222`, `tls://host`, `host:4222`, `nats://[::1]:4222`.
    """
    for url in urls:
        scheme, slashes, rest = url.partition("://")
        if slashes and scheme not in _SCHEMES:
            raise BadAccess("url", f"{url}: a NATS URL begins with nats://, tls://, ws:// or wss://")
        try:
            parts = urlsplit(f"nats://{rest if slashes else url}")
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise BadAccess("url", f"{url or repr(url)}: write it as nats://host:port")


def read_secret(field: str, file: str) -> str:
    """What the file that a field names says, without white space around it. Raises BadAccess."""
    try:
        return Path(file).read_text().strip()
    except OSError as cause:
        raise BadAccess(field, f"{file}: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise BadAccess(field, f"{file}: it is no text") from cause


def _credential(file: str, part: re.Pattern[str]) -> bytes:
    found = part.search(read_secret("creds", file))
    if found is None:
        raise BadAccess("creds", f"{file}: it is no file of credentials, or half of one")
    return found[1].encode()


def _signature(file: str, nonce: str) -> bytes:
    pair = nkeys.from_seed(bytearray(_credential(file, _SEED)))
    try:
        return base64.b64encode(pair.sign(nonce.encode()))
    finally:
        pair.wipe()


def _secret(field: str, value: str | None, file: str | None) -> str:
    return read_secret(field, file) if file is not None else value or ""


def _reason(cause: OSError) -> str:
    if isinstance(cause, ssl.SSLError):
        if "KEY_VALUES_MISMATCH" in str(cause):
            return "the key is not that of the certificate"
        return "it is no PEM file with what is needed"
    return cause.strerror or str(cause)


def explained(problem: Exception) -> str:
    """Why a connection failed, in one line, with the remedy where there is one."""
    text = str(problem).removeprefix("nats: ").strip().strip("'")
    lower = text.lower()
    if isinstance(problem, ssl.SSLCertVerificationError):
        if "hostname mismatch" in lower or "ip address mismatch" in lower:
            return f"its certificate is for another name: {problem.verify_message}; connect by a name that it has"
        return f"its certificate is not trusted: {problem.verify_message}; give its authority with `ca`"
    if "certificate required" in lower or "certificate_required" in lower:
        return "it asks for a client certificate; give `cert` and `key`"
    if isinstance(problem, ssl.SSLError) and "alert" in lower:
        return f"it refuses the client certificate of `cert` ({problem.reason or text})"
    if isinstance(problem, errors.AuthorizationError) or "authorization violation" in lower:
        return (
            "it refuses who we are (Authorization Violation); check `creds`, `nkey`, `user`, the token, "
            "or user and password in the URL"
        )
    if "authentication expired" in lower:
        return "the credentials have expired; give new ones in the file of `creds`"
    if "account authentication" in lower or "authentication timeout" in lower:
        return f"it refuses who we are ({text})"
    return text
