"""The many things that people write as `server`, and what TLS then asks of it."""

from __future__ import annotations

import base64
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.oracle.cases.draft import ROOT, Draft, Family, b64

SERVERS = Family("servers")
TLS = Family("tls")

# PLAIN and TLS stand for ports.
_SERVERS = (
    "http://127.0.0.1:PLAIN", "http://127.0.0.1:PLAIN/", "http://127.0.0.1:PLAIN/a/b", "http://127.0.0.1:PLAIN/a/b/",
    "http://127.0.0.1:PLAIN//a//b", "http://127.0.0.1:PLAIN/a/../b", "http://127.0.0.1:PLAIN/a/./b", "http://127.0.0.1:PLAIN/../b",
    "http://127.0.0.1:PLAIN/a%2Fb", "http://127.0.0.1:PLAIN/a%20b", "http://127.0.0.1:PLAIN/a b", "http://127.0.0.1:PLAIN/é",
    "http://127.0.0.1:PLAIN/%C3%A9", "http://127.0.0.1:PLAIN/a;b=c", "http://127.0.0.1:PLAIN/a:b@c", "http://127.0.0.1:PLAIN/%zz",
    "http://127.0.0.1:PLAIN/a?b=c", "http://127.0.0.1:PLAIN/a#b", "http://127.0.0.1:PLAIN?x", "http://127.0.0.1:PLAIN/%3F",
    "http://127.0.0.1:PLAIN/a+b", "http://127.0.0.1:PLAIN/[a]", "http://127.0.0.1:PLAIN/a'b(c)!*", "http://127.0.0.1:PLAIN/a\"b",
    "http://127.0.0.1:PLAIN/a|b", "http://127.0.0.1:PLAIN/a^b`{}", "http://127.0.0.1:PLAIN/a\\b", "http://127.0.0.1:PLAIN/%25",
    "HTTP://127.0.0.1:PLAIN", "Http://localhost:PLAIN", "http://LOCALHOST:PLAIN", "http://localhost:PLAIN",
    "127.0.0.1:PLAIN", "localhost:PLAIN", "localhost:PLAIN/", "127.0.0.1:PLAIN/a", "localhost:PLAIN/a", "127.0.0.1:PLAIN/",
    "127.0.0.1:TLS", "//127.0.0.1:PLAIN", "/a", ":PLAIN", "http:127.0.0.1:PLAIN", "http:/127.0.0.1:PLAIN", "http:///a",
    "http://127.0.0.1:TLS", "https://127.0.0.1:PLAIN", "https://127.0.0.1:TLS", "HTTPS://127.0.0.1:TLS", "hTTps://localhost:TLS/a",
    "http://", "https://", "http", "http://:PLAIN", "https://:TLS", "ftp://127.0.0.1:PLAIN", "unix:///a", "tcp://127.0.0.1:PLAIN",
    "ws://127.0.0.1:PLAIN", " http://127.0.0.1:PLAIN", "http://127.0.0.1:PLAIN ", "http://127.0.0.1: PLAIN",
    "http://127.0.0.1:PLAIN\n", "http://127.0.0.1:PLAIN/\t", "http://127.0.0.1:99999", "http://127.0.0.1:abc", "http://127.0.0.1:-1",
    "http://127.0.0.1:0", "http://127.0.0.1:", "http://127.0.0.1:PLAIN:1", "https://127.0.0.1:0TLS", "http://127.0.0.1:+PLAIN",
    "http://user:PASS@127.0.0.1:PLAIN", "http://user@127.0.0.1:PLAIN", "http://:PASS@127.0.0.1:PLAIN/a", "user:PASS@127.0.0.1:PLAIN",
    "https://user:PASS@127.0.0.1:TLS", "https://us%40er:PASS@127.0.0.1:TLS", "https://user:PASS@localhost:TLS/a", "https://@127.0.0.1:TLS",
    "http://user:PASS@nowhere.example.test:1", "http://us er:PASS@127.0.0.1:PLAIN", "http://user:PASS%zz@127.0.0.1:PLAIN",
    "http://a..b.example.test:PLAIN", "http://LABEL.example.test:PLAIN", "http://a_b.example.test:PLAIN", "http://-a.example.test:PLAIN",
    "http://[::1]:PLAIN6", "https://[::1]:TLS6", "http://[::1]:PLAIN6/a", "http://[0:0::1]:PLAIN6", "http://[::1", "http://::1]",
    "[::1]:PLAIN6", "http://[::ffff:127.0.0.1]:PLAIN", "http://[::1%25lo]:PLAIN6", "http://[::1%lo]:PLAIN6", "http://[x]:1",
    "http://[127.0.0.1]:PLAIN", "http://%31%32%37.0.0.1:PLAIN", "http://localhost%2e:PLAIN", "http://localhost.:PLAIN",
    "http://127.1:PLAIN", "http://2130706433:PLAIN", "http://0x7f.0.0.1:PLAIN", "http://127.0.0.01:PLAIN", "http://0177.0.0.1:PLAIN",
    "http://127.0.0.1:PLAIN/\x7f", "http://127.0.0.1\t:PLAIN", "http://loc alhost:PLAIN", "http://bücher.example.test:PLAIN",
    "http://１２７.0.0.1:PLAIN", "http://localhost:PLAIN\u200b", "http://nowhere.example.test", "nowhere.example.test",
    "http://127.0.0.1:1", "https://127.0.0.1:1", "http://<host>:PLAIN", "http://127.0.0.1;x:PLAIN", "''", "http://127.0.0.1:PLAIN/a/%2e%2e/b",
    "http://127.0.0.1:PLAIN/a%2F%2E%2E%2Fb", "http://127.0.0.1:PLAIN/api", "http://127.0.0.1:PLAIN/version",
)  # fmt: skip


def _server(text: str, d: Draft) -> None:
    if "PASS" in text:
        text = text.replace("PASS", d.mark())
    text = text.replace("LABEL", "a" * 70)
    for name in ("plain6", "tls6"):
        # Where a machine has no IPv6, both find nobody there.
        text = text.replace(name.upper(), str(d.rig.port(name)) if d.rig.ipv6 else "1")
    text = text.replace("PLAIN", str(d.rig.port("plain"))).replace("TLS", str(d.rig.port("tls")))
    d.cluster["server"] = "" if text == "''" else text
    if d.cluster["server"] == "":
        d.reason = "no server"
    if "https" in text.lower() or d.random.random() < 0.3:
        d.trusting()
    kind = d.random.randrange(4)
    if kind == 0:
        d.with_token()
    elif kind == 1:
        d.with_token()
        d.user |= {"as": "jane", "as-groups": ["a", "b"]}
    elif kind == 2:
        d.with_basic()
    else:
        d.any_user()


for _text in _SERVERS:
    SERVERS.add(f"server {_text!r}", partial(_server, _text))


@SERVERS
def _http_uses_no_credentials(d: Draft) -> None:
    d.at("plain")
    d.random.choice((d.with_token, d.with_basic, d.with_certificate, d.with_plugin, d.with_provider))()
    d.user["as"] = "jane"


for _number in range(4):
    SERVERS.add(f"http uses no credentials {_number}", _http_uses_no_credentials)


@SERVERS
def _no_scheme_with_tls_fields(d: Draft) -> None:
    d.cluster["server"] = f"127.0.0.1:{d.rig.port('tls')}"
    d.random.choice((d.trusting, lambda: d.cluster.update({"insecure-skip-tls-verify": True}), d.with_certificate))()
    d.with_token()


# -- TLS -------------------------------------------------------------------------------------------------------------


def _user(d: Draft) -> None:
    d.random.choice((d.with_token, d.with_certificate, d.with_basic))()


@TLS
def _authority_as_data(d: Draft) -> None:
    d.at("tls")
    d.trusting()
    _user(d)


@TLS
def _authority_as_file(d: Draft) -> None:
    d.at("tls")
    d.trusting(how="file")
    _user(d)


@TLS
def _authority_as_both(d: Draft) -> None:
    d.at("tls")
    d.trusting(how="file")
    d.trusting()
    _user(d)


@TLS
def _authority_data_empty(d: Draft) -> None:
    d.at("tls")
    d.trusting(how="file")
    d.cluster["certificate-authority-data"] = d.random.choice(("", None))
    _user(d)


@TLS
def _no_authority(d: Draft) -> None:
    d.at("tls")
    _user(d)


@TLS
def _roots_of_the_environment(d: Draft) -> None:
    d.at("tls", d.random.choice(("127.0.0.1", "localhost")))
    d.files["roots.pem"] = d.certificates.pem(d.certificates.authority)
    d.environment["SSL_CERT_FILE"] = f"{ROOT}/roots.pem"
    _user(d)


@TLS
def _roots_of_the_environment_beside_an_authority(d: Draft) -> None:
    d.at("tls")
    d.trusting(d.certificates.other_authority)
    d.files["roots.pem"] = d.certificates.pem(d.certificates.authority)
    d.environment["SSL_CERT_FILE"] = f"{ROOT}/roots.pem"
    _user(d)


@TLS
def _insecure(d: Draft) -> None:
    d.at(d.random.choice(("tls", "tls-other", "tls-expired", "tls-nameless", "tls-self")))
    d.cluster["insecure-skip-tls-verify"] = True
    _user(d)


for _how in ("file", "data"):
    for _scheme in ("http", "https", "HTTPS"):

        def _insecure_with_authority(d: Draft, how: str = _how, scheme: str = _scheme) -> None:
            d.at("tls" if scheme != "http" else "plain")
            d.cluster["server"] = d.cluster["server"].replace("https", scheme)
            d.trusting(how=how)
            d.cluster["insecure-skip-tls-verify"] = True
            _user(d)

        TLS.add(f"insecure with an authority, {_how}, {_scheme}", _insecure_with_authority)


def _trusting(server: str, host: str, pem: str, name: str | None, d: Draft) -> None:
    certificates = d.certificates
    pems = {
        "authority": certificates.pem(certificates.authority),
        "other authority": certificates.pem(certificates.other_authority),
        "intermediate": certificates.pem(certificates.intermediate),
        "leaf": certificates.server.certificate.split(b"-----END CERTIFICATE-----")[0] + b"-----END CERTIFICATE-----\n",
        "self-signed": certificates.self_signed.certificate,
        "nameless": certificates.nameless.certificate,
        "chained": certificates.chained.certificate,
        "clients": certificates.pem(certificates.clients),
    }
    d.at(server, host)
    d.trusting(pems[pem], how=d.random.choice(("data", "file")))
    if name is not None:
        d.cluster["tls-server-name"] = name
    _user(d)


for _case in (
    ("tls", "127.0.0.1", "authority", None),
    ("tls", "localhost", "authority", None),
    ("tls", "127.0.0.1", "leaf", None),
    ("tls", "127.0.0.1", "other authority", None),
    ("tls", "127.0.0.1", "clients", None),
    ("tls-self", "localhost", "self-signed", None),
    ("tls-self", "127.0.0.1", "self-signed", None),
    ("tls-self", "127.0.0.1", "self-signed", "self.example.test"),
    ("tls-chain", "127.0.0.1", "authority", None),
    ("tls-chain", "127.0.0.1", "intermediate", None),
    ("tls-chain", "localhost", "chained", None),
    ("tls-other", "127.0.0.1", "other authority", None),
    ("tls-other", "127.0.0.1", "other authority", "other.test"),
    ("tls-other", "127.0.0.1", "other authority", "OTHER.test"),
    ("tls-other", "127.0.0.1", "other authority", "nope.test"),
    ("tls-other", "127.0.0.1", "authority", "other.test"),
    ("tls-expired", "127.0.0.1", "authority", None),
    ("tls-nameless", "localhost", "nameless", None),
    ("tls-nameless", "localhost", "nameless", "localhost"),
    ("tls", "127.0.0.1", "authority", "api.example.test"),
    ("tls", "127.0.0.1", "authority", "a.b.example.test"),
    ("tls", "127.0.0.1", "authority", "example.test"),
    ("tls", "127.0.0.1", "authority", "api.example.test."),
    ("tls", "localhost", "authority", "127.0.0.1"),
    ("tls", "localhost", "authority", "10.0.0.1"),
    ("tls", "localhost", "authority", "[::1]"),
    ("tls", "localhost", "authority", ""),
    ("tls", "localhost", "authority", " "),
    ("tls", "localhost", "authority", "a b"),
    ("tls", "127.0.0.1", "authority", "api.example.test:6443"),
    ("tls-strict", "127.0.0.1", "authority", None),
    ("plain", "127.0.0.1", "authority", "api.example.test"),
):
    TLS.add(f"{_case[0]} at {_case[1]}, trusting {_case[2]}, named {_case[3]}", partial(_trusting, *_case))


@TLS
def _named_without_verification(d: Draft) -> None:
    d.at("tls", d.random.choice(("127.0.0.1", "localhost")))
    d.cluster |= {"tls-server-name": "any.example.org", "insecure-skip-tls-verify": True}
    _user(d)


def _bundle(content: str, d: Draft) -> None:
    certificates = d.certificates
    good = certificates.pem(certificates.authority)
    other = certificates.pem(certificates.other_authority)
    der = x509.load_pem_x509_certificate(good).public_bytes(serialization.Encoding.DER)
    bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    key = certificates.server.key
    contents = {
        "two": other + good,
        "text around": b"# mine\nsubject=/CN=x\n" + good + b"\nthe end\n",
        "a key too": key + good,
        "a bad one first": bad + good,
        "a bad one last": good + bad,
        "cut off": good[:-40],
        "cut off after a good one": good + other[:-40],
        "all bad": bad,
        "DER": der,
        "no certificate": b"hello\n",
        "key alone": key,
        "CRLF": good.replace(b"\n", b"\r\n"),
        "BOM": b"\xef\xbb\xbf" + good,
        "indented": b"".join(b"  " + line + b"\n" for line in good.splitlines()),
        "blank lines within": good.replace(b"\n", b"\n\n"),
        "one line": good.replace(b"\n", b""),
        "empty": b"",
        "blanks": b" \n ",
        "trusted certificate": good.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE"),
        "x509 certificate": good.replace(b" CERTIFICATE", b" X509 CERTIFICATE"),
        "no final line feed": good.rstrip(),
        "headers": good.replace(b"-----\n", b"-----\nX-Comment: a\n\n", 1),
        "long lines": b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n",
        "utf-16": good.decode().encode("utf-16"),
    }
    d.at("tls")
    how = d.random.choice(("data", "file"))
    d.trusting(contents[content], how="file" if content == "empty" else how)
    _user(d)


for _content in (
    "two", "text around", "a key too", "a bad one first", "a bad one last", "cut off", "cut off after a good one", "all bad",
    "DER", "no certificate", "key alone", "CRLF", "BOM", "indented", "blank lines within", "one line", "empty", "blanks",
    "trusted certificate", "x509 certificate", "no final line feed", "headers", "long lines", "utf-16",
):  # fmt: skip
    TLS.add(f"bundle: {_content}", partial(_bundle, _content))


def _authority_path(path: str, server: str, d: Draft) -> None:
    d.at(server)
    d.cluster["certificate-authority"] = path
    d.files["folder/.keep"] = b""
    d.files["home/ca.pem"] = d.files["work/ca.pem"] = d.certificates.pem(d.certificates.authority)
    _user(d)


for _path in ("missing.pem", "folder", "~/ca.pem", "$HOME/ca.pem", "ca.pem", "file:home/ca.pem", "home/ca.pem", " home/ca.pem",
              "home/ca.pem ", f"{ROOT}/home/ca.pem", "./home/../home/ca.pem", "home//ca.pem", "home/ca.pem/"):  # fmt: skip
    for _to in ("tls", "plain"):
        TLS.add(f"authority in {_path} for {_to}", partial(_authority_path, _path, _to))


def _data(text: str, d: Draft) -> None:
    d.at("tls")
    good = d.certificates.pem(d.certificates.authority)
    encoded = b64(good)
    urlsafe = base64.urlsafe_b64encode(good + b"\xfb\xff").decode()
    contents = {
        "line feeds": "\n".join(encoded[i : i + 64] for i in range(0, len(encoded), 64)),
        "CRLF": "\r\n".join(encoded[i : i + 64] for i in range(0, len(encoded), 64)) + "\r\n",
        "a blank": encoded[:20] + " " + encoded[20:],
        "a tab": encoded[:20] + "\t" + encoded[20:],
        "no padding": b64(good + b"\n" * (3 - (len(good) + 1) % 3)).rstrip("="),
        "too much padding": encoded + "==",
        "url-safe": urlsafe,
        "PEM itself": good.decode(),
        "encoded twice": b64(encoded.encode()),
        "no base64": "*",
        "data after padding": b64(b"x") + encoded,
        "bits after the end": "aGVsbG9=",
        "one letter": "a",
    }
    d.cluster["certificate-authority-data"] = contents[text]
    _user(d)


for _text in ("line feeds", "CRLF", "a blank", "a tab", "no padding", "too much padding", "url-safe", "PEM itself",
              "encoded twice", "no base64", "data after padding", "bits after the end", "one letter"):  # fmt: skip
    TLS.add(f"authority data: {_text}", partial(_data, _text))
