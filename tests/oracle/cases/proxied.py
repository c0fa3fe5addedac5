"""Proxies: those that a cluster's entry names, and those of the environment."""

from __future__ import annotations

from functools import partial

from tests.oracle.cases.draft import Draft, Family
from tests.oracle.rig import LOGIN

PROXIES = Family("proxies")
ENVIRONMENTS = Family("environments")


def _ports(d: Draft, text: str) -> str:
    for name in ("proxy-login", "proxy-tls-other", "proxy-tls", "socks-login", "proxy", "socks"):
        text = text.replace(f"<{name}>", f"127.0.0.1:{d.rig.port(name)}")
    return text.replace("LOGIN", LOGIN)


def _proxied(proxy: str, server: str, host: str, d: Draft) -> None:
    if server == "plain":
        d.at("plain", host)
    else:
        d.secured(server, host)
    d.random.choice((d.with_token, d.with_certificate, d.with_basic))()
    if d.random.random() < 0.3:
        d.user["as"] = "jane"
    d.cluster["proxy-url"] = _ports(d, proxy)
    d.marks.append(LOGIN.partition(":")[2])


_TARGETS = (("tls", "api.example.test"), ("plain", "api.example.test"), ("tls", "127.0.0.1"), ("plain", "localhost"))
for _proxy in (
    "http://<proxy>", "https://<proxy-tls>", "socks5://<socks>", "http://LOGIN@<proxy>", "http://LOGIN@<proxy-login>",
    "http://<proxy-login>", "socks5://LOGIN@<socks>", "socks5://LOGIN@<socks-login>", "socks5://<socks-login>",
    "https://LOGIN@<proxy-tls>",
):  # fmt: skip
    for _target in _TARGETS:
        PROXIES.add(f"{_proxy} to {_target}", partial(_proxied, _proxy, *_target))

for _proxy in (
    "HTTP://<proxy>", "SOCKS5://<socks>", "Https://<proxy-tls>", "socks5h://<socks>", "socks4://<socks>", "socks://<socks>",
    "<proxy>", "localhost:1", "http://<proxy>/path?x#y", "socks5://<socks>/path", "ftp://<proxy>", "", "http://", "http://:1",
    "http://127.0.0.1:1", "socks5://127.0.0.1:1", "http://nowhere.example.test:1", "http:// <proxy>", " http://<proxy>",
    "http://<proxy> ", "http://<proxy>\n", "http://[::1", "http://a:b:c", "http://user@<proxy>", "http://user:@<proxy>",
    "http://:pass@<proxy>", "http://us%40er:p%3Aw@<proxy>", "http://%zz@<proxy>", "socks5://user@<socks>", "socks5://user:@<socks>",
    "socks5://us%40er:p%3Aw@<socks>", "https://<proxy-tls-other>", "https://<proxy>", "http://<proxy-tls>", "/path", "//<proxy>",
    "http:<proxy>", "://<proxy>", "http://<socks>", "socks5://<proxy>", "direct", "http://127.0.0.1:99999",
):  # fmt: skip
    PROXIES.add(f"{_proxy!r}, TLS", partial(_proxied, _proxy, "tls", "api.example.test"))
    if len(_proxy) % 2:
        PROXIES.add(f"{_proxy!r}, plain", partial(_proxied, _proxy, "plain", "api.example.test"))


@PROXIES
def _null(d: Draft) -> None:
    d.any_cluster()
    d.with_token()
    d.cluster["proxy-url"] = None


@PROXIES
def _no_proxy_is_ignored(d: Draft) -> None:
    _proxied(d.random.choice(("http://<proxy>", "socks5://<socks>")), "tls", "127.0.0.1", d)
    d.environment["NO_PROXY"] = d.random.choice(("*", "127.0.0.1", "127.0.0.0/8"))


@PROXIES
def _environment_is_overridden(d: Draft) -> None:
    _proxied(d.random.choice(("http://<proxy>", "socks5://<socks>")), "tls", "api.example.test", d)
    d.environment["HTTPS_PROXY"] = _ports(d, "http://LOGIN@<proxy-login>")


@PROXIES
def _proxy_with_the_clusters_options(d: Draft) -> None:
    """A proxy with TLS is verified as the cluster is."""
    d.at(d.random.choice(("tls", "plain")), "api.example.test")
    kind = d.random.randrange(5)
    if kind == 0:
        d.cluster["insecure-skip-tls-verify"] = True
        d.cluster["proxy-url"] = _ports(d, "https://<proxy-tls-other>")
    elif kind == 1:
        d.trusting(d.certificates.other_authority)
        d.cluster["proxy-url"] = _ports(d, "https://<proxy-tls>")
    elif kind == 2:
        d.trusting()
        d.cluster["tls-server-name"] = "x.example.test"
        d.cluster["proxy-url"] = _ports(d, "https://<proxy-tls>")
    elif kind == 3:
        d.trusting()
        d.cluster["tls-server-name"] = "nope.test"
        d.cluster["proxy-url"] = _ports(d, "https://<proxy-tls>")
    else:
        d.cluster["proxy-url"] = _ports(d, "https://<proxy-tls>")
    d.with_certificate()


for _number in range(10):
    PROXIES.add(f"proxy with the cluster's options {_number}", _proxy_with_the_clusters_options)


@PROXIES
def _plugins_are_told(d: Draft) -> None:
    d.secured("tls", "api.example.test")
    d.with_plugin(provideClusterInfo=True)
    d.cluster["proxy-url"] = _ports(d, "http://<proxy>")


# -- the environment's -----------------------------------------------------------------------------------------------


def _environment(variables: dict[str, str], server: str, host: str, d: Draft) -> None:
    if host == "OWN":
        if not d.rig.address:
            host = "127.0.0.1"
        else:
            host, server = d.rig.address, "open" if server == "plain" else "open-tls"
    if "tls" in server:
        d.secured(server, host)
    else:
        d.at(server, host)
    d.random.choice((d.with_token, d.with_certificate))()
    port = d.cluster["server"].rpartition(":")[2]
    address = d.rig.address or "127.0.0.1"
    for name, value in variables.items():
        value = _ports(d, value).replace("OWN", address).replace("PORT", port)
        d.environment[name] = value.replace("NET", f"{address.rpartition('.')[0]}.0")
    d.marks.append(LOGIN.partition(":")[2])


_P, _S = "http://<proxy>", "socks5://<socks>"
for _variables, _server, _host in (
    ({"HTTPS_PROXY": _P}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": _P}, "plain", "api.example.test"),
    ({"HTTP_PROXY": _P}, "plain", "api.example.test"),
    ({"HTTP_PROXY": _P}, "tls", "api.example.test"),
    ({"https_proxy": _P}, "tls", "api.example.test"),
    ({"http_proxy": _P}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": _P, "https_proxy": _S}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "", "https_proxy": _S}, "tls", "api.example.test"),
    ({"HTTP_PROXY": _S, "http_proxy": _P}, "plain", "api.example.test"),
    ({"ALL_PROXY": _P, "all_proxy": _P}, "tls", "api.example.test"),
    ({"ALL_PROXY": _P}, "plain", "OWN"),
    ({"HTTPS_PROXY": "<proxy>"}, "tls", "api.example.test"),
    ({"HTTP_PROXY": "<proxy>"}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": _S}, "tls", "api.example.test"),
    ({"HTTP_PROXY": _S}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": "socks5h://<socks>"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "SOCKS5://<socks>"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "https://<proxy-tls>"}, "tls", "api.example.test"),
    ({"HTTP_PROXY": "https://<proxy-tls>"}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": "ftp://<proxy>"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "socks4://<proxy>"}, "tls", "api.example.test"),
    ({"HTTP_PROXY": "gopher://<proxy>"}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": "http://[::1"}, "tls", "OWN"),
    ({"HTTPS_PROXY": "%zz"}, "tls", "OWN"),
    ({"HTTPS_PROXY": "http://LOGIN@<proxy-login>"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "LOGIN@<proxy-login>"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": "http://<proxy-login>"}, "tls", "api.example.test"),
    ({"HTTP_PROXY": "http://LOGIN@<proxy-login>"}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": "socks5://LOGIN@<socks-login>"}, "tls", "api.example.test"),
    ({"HTTP_PROXY": _P, "REQUEST_METHOD": "GET"}, "plain", "api.example.test"),
    ({"HTTPS_PROXY": _P, "REQUEST_METHOD": "GET"}, "tls", "api.example.test"),
    ({"HTTPS_PROXY": _P, "HTTP_PROXY": _P}, "tls", "127.0.0.1"),
    ({"HTTPS_PROXY": _P, "HTTP_PROXY": _P}, "plain", "localhost"),
    ({"HTTPS_PROXY": _P, "HTTP_PROXY": _P}, "tls", "localhost"),
    ({"HTTP_PROXY": _P}, "plain", "127.0.0.2"),
    ({"HTTP_PROXY": _P}, "plain6", "[::1]"),
    ({"HTTP_PROXY": _P}, "plain", "localhost."),
    ({"HTTP_PROXY": _P}, "plain", "LOCALHOST"),
    ({"HTTPS_PROXY": _P}, "tls", "OWN"),
    ({"HTTP_PROXY": _P}, "plain", "OWN"),
):  # fmt: skip
    ENVIRONMENTS.add(f"{_variables} to {_host}, {_server}", partial(_environment, _variables, _server, _host))

for _no_proxy, _host in (
    ("*", "OWN"), ("a,*", "OWN"), ("a, * ,b", "OWN"), ("OWN", "OWN"), ("OWN:PORT", "OWN"), ("OWN:1", "OWN"), ("x, OWN ,y", "OWN"),
    ("OWN/32", "OWN"), ("NET/24", "OWN"), ("0.0.0.0/0", "OWN"), ("10.99.0.0/16", "OWN"), ("OWN/33", "OWN"), ("NET", "OWN"),
    ("x OWN y", "OWN"), (".OWN", "OWN"), ("*.OWN", "OWN"), ("OWN.", "OWN"), ("192.", "OWN"), ("192.*", "OWN"), ("::ffff:OWN", "OWN"),
    ("[OWN]", "OWN"), ("http://OWN", "OWN"), ("", "OWN"), (",", "OWN"), ("OWN/8", "OWN"), ("OWN:PORT/32", "OWN"),
    ("example.test", "api.example.test"), (".example.test", "api.example.test"), ("*.example.test", "api.example.test"),
    ("api.example.test", "api.example.test"), (".api.example.test", "api.example.test"), ("*.api.example.test", "api.example.test"),
    ("API.Example.TEST", "api.example.test"), ("api.example.test:PORT", "api.example.test"), ("api.example.test:1", "api.example.test"),
    ("example.test.", "api.example.test"), ("*example.test", "api.example.test"), ("ample.test", "api.example.test"),
    ("test", "api.example.test"), (".test", "api.example.test"), ("a example.test", "api.example.test"),
    ("example.test:PORT", "api.example.test"), (".example.test:PORT", "api.example.test"), ("example.test", "API.EXAMPLE.TEST"),
    ("https://api.example.test", "api.example.test"), ("*:PORT", "api.example.test"), ("bücher.example.test", "api.example.test"),
):  # fmt: skip

    def _no_proxy_case(d: Draft, no_proxy: str = _no_proxy, host: str = _host) -> None:
        tls = d.random.random() < 0.6
        name = d.random.choice(("NO_PROXY", "no_proxy"))
        proxies = {"HTTPS_PROXY": _P, "HTTP_PROXY": _P, name: no_proxy}
        _environment(proxies, "tls" if tls else "plain", host, d)

    ENVIRONMENTS.add(f"NO_PROXY={_no_proxy} to {_host}", _no_proxy_case)


@ENVIRONMENTS
def _upper_case_no_proxy_first(d: Draft) -> None:
    lower, upper = d.random.choice((("*", "x"), ("x", "*"), ("*", "")))
    _environment({"HTTP_PROXY": _P, "no_proxy": lower, "NO_PROXY": upper}, "plain", "OWN", d)
