"""Which proxy counts: golang.org/x/net/http/httpproxy's rules, with client-go's for CIDR."""

from __future__ import annotations

import pytest

from producers.kubeconfig.model import BadKubeconfig
from producers.upstream.proxies import EnvironmentProxies, proxy_of_cluster
from producers.upstream.server_url import parse_server


def through(environment: dict[str, str], server: str) -> str:
    proxy = EnvironmentProxies(environment).of(parse_server(server))
    return proxy.shown if proxy is not None else ""


@pytest.mark.parametrize(
    ("environment", "server", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:3128"}, "https://h", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://h", ""),
        ({"HTTP_PROXY": "http://p"}, "http://h", "http://p"),
        ({"HTTP_PROXY": "http://p"}, "https://h", ""),
        ({"https_proxy": "http://lower"}, "https://h", "http://lower"),
        ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, "https://h", "http://upper"),
        ({"HTTPS_PROXY": "", "https_proxy": "http://lower"}, "https://h", "http://lower"),
        ({"ALL_PROXY": "http://p"}, "https://h", ""),
        ({"HTTPS_PROXY": "p:3128"}, "https://h", "http://p:3128"),
        ({"HTTPS_PROXY": "p"}, "https://h", "http://p"),
        ({"HTTPS_PROXY": "socks5h://p"}, "https://h", "socks5://p"),
        ({"HTTPS_PROXY": "SOCKS5://p"}, "https://h", "socks5://p"),
        ({"HTTPS_PROXY": "gopher://p"}, "https://h", "http://p"),
        ({"HTTPS_PROXY": "p:x"}, "https://h", ""),
        ({"HTTPS_PROXY": "http://u:pw@p"}, "https://h", "http://p"),
    ],
)
def test_variables(environment: dict[str, str], server: str, proxy: str) -> None:
    assert through(environment, server) == proxy


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_this_machine_is_never_asked_through_a_proxy(host: str) -> None:
    assert through({"HTTPS_PROXY": "http://p"}, f"https://{host}:6443") == ""


@pytest.mark.parametrize(
    ("no_proxy", "server", "direct"),
    [
        ("x.y", "https://x.y", True),
        ("x.y", "https://a.x.y", True),
        ("x.y", "https://ax.y", False),
        (".x.y", "https://x.y", False),
        (".x.y", "https://a.x.y", True),
        ("*.x.y", "https://a.x.y", True),
        ("*.x.y", "https://x.y", False),
        ("*x.y", "https://a.x.y", False),
        ("X.Y", "https://x.y", True),
        ("x.y", "https://X.y", True),
        ("x.y:6443", "https://x.y:6443", True),
        ("x.y:6443", "https://x.y", False),
        ("x.y:443", "https://x.y", True),
        ("x.y.", "https://x.y", False),
        ("a.b x.y", "https://x.y", False),
        (" a.b , x.y ", "https://x.y", True),
        ("a.b,*", "https://h", True),
        ("10.0.0.1", "https://10.0.0.1:6443", True),
        ("10.0.0.1:6443", "https://10.0.0.1:6443", True),
        ("10.0.0.1:6443", "https://10.0.0.1", False),
        ("10.0.0.0/8", "https://10.2.3.4", True),
        ("010.0.0.0/8", "https://10.2.3.4", True),
        ("10.0.0.0/8", "https://11.2.3.4", False),
        ("10.0.0.0/8", "https://ten.example.test", False),
        ("10.", "https://10.2.3.4", False),
        ("10.*", "https://10.2.3.4", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("fd00::1", "https://[fd00::1]", True),
        ("[fd00::1]", "https://[fd00::1]", False),
        ("::ffff:10.0.0.1", "https://10.0.0.1", True),
    ],
)
def test_no_proxy(no_proxy: str, server: str, direct: bool) -> None:
    assert (through({"HTTPS_PROXY": "http://p", "NO_PROXY": no_proxy}, server) == "") is direct


def test_a_proxy_that_a_client_could_name_is_refused() -> None:
    proxies = EnvironmentProxies({"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"})
    with pytest.raises(BadKubeconfig, match="REQUEST_METHOD"):
        proxies.of(parse_server("http://h"))


@pytest.mark.parametrize(
    ("url", "shown", "port"),
    [
        ("http://p", "http://p", 80),
        ("HTTPS://p/path?x", "https://p", 443),
        ("socks5://p:1234", "socks5://p:1234", 1234),
        ("socks5://p", "socks5://p", 1080),
        ("http://u:SECRET@p", "http://p", 80),
    ],
)
def test_a_clusters_own(url: str, shown: str, port: int) -> None:
    proxy = proxy_of_cluster(url)
    assert (proxy.shown, proxy.port) == (shown, port)
    assert "SECRET" not in repr(proxy)


@pytest.mark.parametrize("url", ["p:3128", "socks5h://p", "socks4://p", "p", "http://", "http://u:SECRET@p:x", "//p"])
def test_a_clusters_own_that_kubectl_refuses(url: str) -> None:
    with pytest.raises(BadKubeconfig) as refused:
        proxy_of_cluster(url)
    assert "SECRET" not in str(refused.value)
