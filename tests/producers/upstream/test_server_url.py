"""`server` as client-go reads it: what kubectl 1.33 does with each of these was seen with the real one."""

from __future__ import annotations

import pytest

from producers.kubeconfig.model import BadKubeconfig
from producers.upstream.server_url import parse_server


@pytest.mark.parametrize(
    ("server", "shown", "secure"),
    [
        ("https://10.0.0.1:6443", "https://10.0.0.1:6443", True),
        ("HTTPS://api.example.test", "https://api.example.test", True),
        ("http://h", "http://h", False),
        ("10.0.0.1:6443", "http://10.0.0.1:6443", False),
        ("localhost:8080", "http://localhost:8080", False),
        ("api.example.test", "http://api.example.test", False),
        ("https://h/k8s/clusters/c-1/", "https://h/k8s/clusters/c-1", True),
        ("https://h//a//b/../c", "https://h/a/c", True),
        ("https://h/a%2Fb", "https://h/a/b", True),
        ("https://h/a b", "https://h/a%20b", True),
        ("https://h/é", "https://h/%C3%A9", True),
        ("https://h/a?x=y#z", "https://h/a", True),
        ("https://h/a#z", "https://h/a%23z", True),
        ("https://bücher.example.test", "https://xn--bcher-kva.example.test", True),
        ("https://b%C3%BCcher.example.test", "https://xn--bcher-kva.example.test", True),
        ("https://[::1]:6443", "https://[::1]:6443", True),
        ("https://[fe80::1%25eth0]:6443/", "https://[fe80::1%eth0]:6443", True),
        ("https://h:", "https://h", True),
        ("https://user:pw@h/x", "https://h/x", True),
        ("https://a..b.example.test", "https://a..b.example.test", True),
    ],
)
def test_what_a_server_means(server: str, shown: str, secure: bool) -> None:
    parsed = parse_server(server)
    assert (parsed.shown, parsed.secure) == (shown, secure)


@pytest.mark.parametrize(
    "server",
    [
        "",
        "https://",
        "https:///path",
        "ftp://h",
        "h/path",
        "h:6443/path",
        "https://h:port",
        "https://h:64x",
        "https://h:99999",
        "https://h:6443 ",
        "https://h h",
        "https://h/%zz",
        "https://fe80::1:6443",
        "https://h\n",
        "https://us er:pw@h",
        "https://h\x00",
        "://h",
        # Other notations of addresses are names to Go's resolver, which finds none.
        "https://127.1",
        "https://2130706433",
        "https://0x7f.0.0.1",
        "https://127.0.0.01",
        "https://%31.example.test",
        "https://localhost%2e",
    ],
)
def test_what_kubectl_refuses_is_refused(server: str) -> None:
    with pytest.raises(BadKubeconfig) as refused:
        parse_server(server)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "server",
    ["https://u:SECRET@h:x", "https://u:SECRET@h/%zz", "u:SECRET@h/path", "ftp://u:SECRET@h", "https://u:SE CRET@h"],
)
def test_no_message_has_the_password(server: str) -> None:
    with pytest.raises(BadKubeconfig) as refused:
        parse_server(server)
    assert "CRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("server", "basic"),
    [
        ("https://u:p@h", "Basic dTpw"),
        ("https://u@h", "Basic dTo="),
        ("https://u%40x:p%3A@h", "Basic dUB4OnA6"),
        ("u:p@h", "Basic dTpw"),
        ("https://h", ""),
    ],
)
def test_userinfo_is_basic_authentication(server: str, basic: str) -> None:
    parsed = parse_server(server)
    assert parsed.address.basic == basic
    assert "p@" not in repr(parsed)


def test_a_line_says_that_credentials_are_not_sent_over_http() -> None:
    assert "names no scheme" in parse_server("10.0.0.1:6443").unprotected
    assert "plain http" in parse_server("http://h").unprotected
    assert parse_server("https://h").unprotected == ""
