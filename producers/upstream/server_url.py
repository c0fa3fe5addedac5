"""A kubeconfig's `server` as client-go reads it: scheme, host, port, path prefix, and what its userinfo says.

Rules: k8s.io/client-go rest/url_utils.go (DefaultServerURL), tools/clientcmd/client_config.go, Go's net/url.
"""

from __future__ import annotations

import base64
import ipaddress
import posixpath
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from producers.kubeconfig.model import BadKubeconfig

DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# Behind a slash clientcmd takes a fragment for a part of the path (url.ParseRequestURI).
_FRAGMENT_IN_PATH = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+/[^?]*")
# What getaddrinfo or libcurl would take for an address in a notation of old, and Go's resolver for a name.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What Go's net/url has unescaped in a path beside letters and digits.
_IN_PATHS = "-_.~$&+,/:;=@"
# What it takes as a host: names in any script, but none of what delimits; and in brackets an IPv6 address with a zone.
_HOST = re.compile(r"[^\x00-\x20\x7f\"#%/<>?@\[\\\]^`{|}:]*")
_ASCII_ESCAPE = re.compile(r"%(?![89A-Fa-f][0-9A-Fa-f])")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%25[^\x00-\x20\x7f\[\]/?#]+)?\]")
_USERINFO = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")


@dataclass(frozen=True, slots=True)
class UrlAddress:
    """Scheme, host and port of a URL with what its userinfo says. `host` without brackets, `port` 0: the scheme's."""

    scheme: str
    host: str
    port: int
    path: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    has_userinfo: bool = False

    @property
    def netloc(self) -> str:
        """Host and port as a URL has them, without userinfo."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def basic(self) -> str:
        """The value of an Authorization header that says what the userinfo does; empty without one."""
        if not self.has_userinfo:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """An API server's URL. `prefix`: its path, encoded, without a slash at its end.

    `assumed`: the scheme was not said, so it is http, over which no credentials are sent.
    """

    address: UrlAddress
    prefix: str
    assumed: bool = False

    @property
    def secure(self) -> bool:
        """Whether it is asked over TLS; without that no credentials are sent."""
        return self.address.scheme == "https"

    @property
    def port(self) -> int:
        """The port that is connected to."""
        return self.address.port or DEFAULT_PORTS[self.address.scheme]

    @property
    def shown(self) -> str:
        """The URL for messages: without userinfo."""
        return f"{self.address.scheme}://{self.address.netloc}{self.prefix}"

    @property
    def unprotected(self) -> str:
        """Why credentials are not sent, in one line; empty where they are."""
        if self.secure:
            return ""
        if self.assumed:
            return f"server {self.address.netloc} names no scheme, so it is asked over plain http without credentials"
        return f"{self.shown} is plain http: credentials are not sent"


def parse_server(server: str) -> ServerUrl:
    """What a kubeconfig's `server` means to kubectl.

    Example: `10.0.0.1:6443` is `http://10.0.0.1:6443`, `HTTPS://api.example.test//a/../b/` has the prefix `/b`.

    Raises:
        BadKubeconfig: kubectl would refuse it, too; the message has no password.
    """
    if not server:
        raise BadKubeconfig("no server: a URL or host:port is expected")
    assumed = False
    server = _FRAGMENT_IN_PATH.sub(lambda found: found[0].replace("#", "%23"), server)
    try:
        address = parse_address(server, "server")
    except BadKubeconfig:
        if "://" in server:
            raise
        address = UrlAddress("", "", 0)
    if not address.scheme or not address.netloc:
        assumed = True
        address = parse_address(f"http://{server}", "server")
        if address.path not in ("", "/"):
            raise BadKubeconfig(f"server must be a URL or a host:port pair: it has a path ({_shown(server)})")
    if address.scheme not in DEFAULT_PORTS:
        raise BadKubeconfig(f"server has scheme {address.scheme[:20]!r}: https or http is expected")
    if not address.host:
        raise BadKubeconfig("server names no host: a URL or a host:port pair is expected")
    if address.port > 65535:
        raise BadKubeconfig(f"server has port {address.port}, the highest is 65535")
    return ServerUrl(address, _prefix(address.path), assumed)


def parse_address(url: str, what: str) -> UrlAddress:
    """A URL with an authority, by Go's net/url. Raises BadKubeconfig, which calls it `what` and has no userinfo."""
    if any(character < " " or character == "\x7f" for character in url):
        raise BadKubeconfig(f"{what} has control characters")
    found = _SCHEME.match(url)
    scheme, rest = (found[1].lower(), url[found.end() :]) if found else ("", url)
    rest = rest.partition("#")[0].partition("?")[0]
    if not rest.startswith("//"):
        if not found and ":" in rest.partition("/")[0]:
            raise BadKubeconfig(f"{what} is no URL")
        return UrlAddress(scheme, "", 0, rest)
    authority, slash, path = rest[2:].partition("/")
    path = slash + path
    if _BAD_ESCAPE.search(path):
        raise BadKubeconfig(f"{what} has a % in its path that begins no escape")
    userinfo, at, place = authority.rpartition("@")
    if not _USERINFO.fullmatch(userinfo) or _BAD_ESCAPE.search(userinfo):
        raise BadKubeconfig(f"{what}: what stands before @ is no user name and password")
    username, _, password = userinfo.partition(":")
    host, port = _host_and_port(place, what)
    return UrlAddress(scheme, host, port, path, _unquoted(username), _unquoted(password), bool(at))


def _host_and_port(place: str, what: str) -> tuple[str, int]:
    if place.startswith("["):
        bracketed = _BRACKETED.match(place)
        if bracketed is None:
            raise BadKubeconfig(f"{what}: {place[:80]!r} is no address in brackets")
        host, rest = bracketed[0][1:-1].replace("%25", "%"), place[bracketed.end() :]
    else:
        host, colon, port = place.rpartition(":") if ":" in place else (place, "", "")
        rest = colon + port
        if _ASCII_ESCAPE.search(host):
            raise BadKubeconfig(f"{what}: {host[:80]!r} is no host: only letters beyond ASCII can be escaped there")
        host = _ascii(_unquoted(host), what)
        if not _HOST.fullmatch(host):
            raise BadKubeconfig(f"{what}: {host[:80]!r} is no host: a URL or a host:port pair is expected")
    if rest and not re.fullmatch(r":[0-9]*", rest):
        raise BadKubeconfig(f"{what}: {rest[:20]!r} behind the host is no port")
    return host, int(rest[1:12] or 0)


def _ascii(host: str, what: str) -> str:
    """A host as DNS has it, names in any script in Punycode; a number is an IPv4 address of four parts or nothing."""
    try:
        host = host if host.isascii() else host.encode("idna").decode()
        if _NUMERIC.fullmatch(host):
            ipaddress.IPv4Address(host)
    except ValueError:
        raise BadKubeconfig(f"{what}: {host[:80]!r} is no host: a name or an address is expected") from None
    return host


def _unquoted(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace")


def _prefix(path: str) -> str:
    """A path as client-go joins it with what is asked: decoded, cleaned, encoded anew."""
    decoded = unquote_to_bytes(path)
    cleaned = posixpath.normpath(b"/" + decoded.lstrip(b"/"))
    return "" if cleaned == b"/" else quote(cleaned, safe=_IN_PATHS)


def _shown(server: str) -> str:
    return server.rpartition("@")[2].partition("?")[0][:80]
