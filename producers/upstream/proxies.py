"""Which proxy a request goes through: a cluster's `proxy-url`, else the environment's, by Go's rules, read once.

Rules: golang.org/x/net/http/httpproxy, net/http (ProxyFromEnvironment), k8s.io/apimachinery pkg/util/net/http.go.
"""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from producers.kubeconfig.model import BadKubeconfig
from producers.upstream.server_url import ServerUrl, UrlAddress, parse_address

_PORTS = {"http": 80, "https": 443, "socks5": 1080}
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy on the way to servers. Scheme http, https or socks5; a SOCKS proxy is given names, not addresses."""

    address: UrlAddress

    @property
    def port(self) -> int:
        """The port that is connected to."""
        return self.address.port or _PORTS[self.address.scheme]

    @property
    def shown(self) -> str:
        """Its URL for messages: without userinfo."""
        return f"{self.address.scheme}://{self.address.netloc}"


def proxy_of_cluster(url: str) -> Proxy:
    """The proxy that a cluster's `proxy-url` names, which counts for all hosts. Raises BadKubeconfig."""
    address = parse_address(url, "proxy-url")
    if address.scheme not in _PORTS:
        raise BadKubeconfig(f"proxy-url has scheme {address.scheme[:20]!r}: http, https or socks5 is expected")
    if not address.host or address.port > 65535:
        raise BadKubeconfig("proxy-url names no host and port that can be connected to")
    return Proxy(address)


class EnvironmentProxies:
    """The proxies that HTTPS_PROXY and HTTP_PROXY name, and for which hosts NO_PROXY turns them off.

    Upper case counts before lower case, ALL_PROXY not at all; a value that is no URL is none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._proxies = {
            "https": _of_variable(environment, "HTTPS_PROXY"),
            "http": _of_variable(environment, "HTTP_PROXY"),
        }
        # Of a CGI script HTTP_PROXY would be what a client sent as its Proxy header.
        self._cgi = bool(environment.get("REQUEST_METHOD"))
        self._bypass = _Bypass(environment.get("NO_PROXY") or environment.get("no_proxy") or "")

    def of(self, server: ServerUrl) -> Proxy | None:
        """The proxy for a server. Raises BadKubeconfig where Go refuses: HTTP_PROXY with REQUEST_METHOD beside it."""
        scheme = server.address.scheme
        proxy = self._proxies[scheme]
        if proxy is None:
            return None
        if scheme == "http" and self._cgi:
            raise BadKubeconfig("HTTP_PROXY is not used while REQUEST_METHOD is set; unset one of them")
        return None if self._bypass.covers(server.address.host, server.port) else proxy


@functools.cache
def environment_proxies() -> EnvironmentProxies:
    """The proxies of this process's environment, as it was when they were first asked for."""
    return EnvironmentProxies(os.environ)


def proxy_for(server: ServerUrl, proxy_url: str) -> Proxy | None:
    """The proxy on the way to a cluster's server. Raises BadKubeconfig."""
    return proxy_of_cluster(proxy_url) if proxy_url else environment_proxies().of(server)


def _of_variable(environment: Mapping[str, str], name: str) -> Proxy | None:
    value = environment.get(name) or environment.get(name.lower()) or ""
    if not value:
        return None
    for url in (value, f"http://{value}"):
        try:
            address = parse_address(url, name)
        except BadKubeconfig:
            continue
        if address.scheme and address.host:
            # socks5h says what socks5 does here anyway; of others Go makes an HTTP proxy.
            known = {"socks5h": "socks5"}.get(address.scheme, address.scheme)
            scheme = known if known in _PORTS else "http"
            return Proxy(
                UrlAddress(
                    scheme, address.host, address.port, "", address.username, address.password, address.has_userinfo
                )
            )
    return None


class _Bypass:
    """NO_PROXY: hosts that are reached without a proxy, beside those of this machine."""

    def __init__(self, value: str) -> None:
        self._all = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._addresses: list[tuple[_IP, str]] = []
        # The end of a name with its dot, whether the name itself counts too, and the port.
        self._domains: list[tuple[str, bool, str]] = []
        for item in value.split(","):
            self._take(item.strip().lower())

    def _take(self, item: str) -> None:
        if item == "*":
            self._all = True
        if not item or self._all:
            return
        network = _network(item)
        if network is not None:
            self._networks.append(network)
            return
        host, port = _split_port(item)
        if not host:
            return
        address = _address(host)
        if address is not None:
            self._addresses.append((address, port))
            return
        host = host[1:] if host.startswith("*.") else host
        exact = not host.startswith(".")
        self._domains.append((f".{host}" if exact else host, exact, port))

    def covers(self, host: str, port: int) -> bool:
        """Whether a host is reached directly."""
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback) or self._all:
            return True
        if address is not None:
            mapped = getattr(address, "ipv4_mapped", None) or address
            if any(mapped in network for network in self._networks):
                return True
            if any(
                mapped == (getattr(one, "ipv4_mapped", None) or one) and on in ("", str(port))
                for one, on in self._addresses
            ):
                return True
        name = host.strip().lower()
        return any(
            (name.endswith(ending) or (exact and name == ending[1:])) and on in ("", str(port))
            for ending, exact, on in self._domains
        )


def _split_port(item: str) -> tuple[str, str]:
    if item.startswith("["):
        # Brackets without a port are no address (net.SplitHostPort).
        host, bracket, port = item[1:].partition("]:")
        return (host, port) if bracket else (item, "")
    if item.count(":") == 1:
        host, _, port = item.partition(":")
        return host, port
    return item, ""


def _address(host: str) -> _IP | None:
    try:
        return ipaddress.ip_address(_without_leading_zeros(host))
    except ValueError:
        return None


def _network(item: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    address, slash, length = item.partition("/")
    if not slash or not length.isdecimal():
        return None
    try:
        return ipaddress.ip_network(f"{_without_leading_zeros(address)}/{length}", strict=False)
    except ValueError:
        return None


def _without_leading_zeros(address: str) -> str:
    """An IPv4 address whose numbers may begin with zeros (k8s.io/utils/net ParseIPSloppy), as Python takes it."""
    parts = address.split(".")
    if len(parts) == 4 and all(part.isdecimal() and part.isascii() for part in parts):
        return ".".join(str(int(part)) for part in parts)
    return address
