"""As whom: tokens, passwords, certificates, and acting as somebody else."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.oracle.cases.draft import ROOT, Draft, Family, b64
from tests.oracle.rig import Pair

USERS = Family("users")


def _tokened(before: str, after: str, d: Draft) -> None:
    d.secured()
    d.user["token"] = before + d.mark() + after


for _before, _after in (
    ("", ""), ("", "\n"), ("\n", ""), ("", "\r\n"), (" ", ""), ("", " "), ("", "\t"), ("a\nb", ""), ("\x00", ""), ("\x07", ""),
    ("é", ""), ("", "\U0001f600"), ("Bearer ", ""), ("a,b;c=", ""), ('"', '"'), ("\x7f", ""), ("", "x" * 8000), ("\u2028", ""),
    ("a\r\nX-Evil: ", ""), ("%41", ""), ("\u00a0", "\u00a0"), ("\x0b", "\x0c"), ("", "\u0085"),
):  # fmt: skip
    USERS.add(f"token {_before!r} {_after[:10]!r}", partial(_tokened, _before, _after))


def _token_file(content: bytes, path: str, more: dict[str, Any], server: str, d: Draft) -> None:
    d.at(server)
    if server != "plain":
        d.trusting()
    d.user |= {"tokenFile": path} | more
    if b"TOKEN" in content:
        content = content.replace(b"TOKEN", d.mark().encode())
    d.files["token"] = content
    d.files["folder/.keep"] = b""


_TOKEN_FILES: tuple[tuple[bytes, str, dict[str, Any], str], ...] = (
    (b"TOKEN", "token", {}, "tls"),
    (b"TOKEN\n", "token", {}, "tls"),
    (b" \t TOKEN \r\n\n", "token", {}, "tls"),
    (b"\xef\xbb\xbfTOKEN", "token", {}, "tls"),
    (b"a\nTOKEN", "token", {}, "tls"),
    (b"\xff TOKEN", "token", {}, "tls"),
    (b"\xc2\xa0TOKEN\xe2\x80\x83", "token", {}, "tls"),
    (b"\x0bTOKEN\x0c", "token", {}, "tls"),
    (b"\xc2\x85TOKEN\xc2\x85", "token", {}, "tls"),
    (b"\x1cTOKEN\x1f", "token", {}, "tls"),
    (b"\0TOKEN", "token", {}, "tls"),
    (b"", "token", {}, "tls"),
    (b" \n", "token", {}, "tls"),
    (b"TOKEN", "missing", {}, "tls"),
    (b"TOKEN", "folder", {}, "tls"),
    (b"TOKEN", "token", {"token": "other"}, "tls"),
    (b"", "token", {"token": "other"}, "tls"),
    (b"TOKEN", "missing", {"token": "other"}, "tls"),
    (b"TOKEN", "folder", {"token": "other"}, "tls"),
    (b"TOKEN", "", {"token": "other"}, "tls"),
    (b"TOKEN", "token", {"token": ""}, "tls"),
    (b"TOKEN", "token", {"username": "a", "password": "b"}, "tls"),
    (b"TOKEN", "token", {"username": "a"}, "tls"),
    (b"TOKEN", "token", {"password": "b"}, "tls"),
    (b"TOKEN", "~/token", {}, "tls"),
    (b"TOKEN", "token ", {}, "tls"),
    (b"TOKEN", f"{ROOT}/token", {}, "tls"),
    (b"TOKEN", "token", {}, "plain"),
    (b"TOKEN", "missing", {}, "plain"),
)
for _number, _one in enumerate(_TOKEN_FILES):
    USERS.add(f"token file {_number}: {_one[0]!r} {_one[1]} {_one[2]} {_one[3]}", partial(_token_file, *_one))


def _plain_fields(fields: dict[str, Any], server: str, d: Draft) -> None:
    d.at(server)
    if server != "plain":
        d.trusting()
    d.user |= {key: d.mark() if value == "MARK" else value for key, value in fields.items()}


for _fields in (
    {"username": "a", "password": "MARK"},
    {"username": "a"},
    {"username": "a", "password": ""},
    {"password": "MARK"},
    {"username": "", "password": "MARK"},
    {"username": "a:b", "password": "MARK"},
    {"username": "é", "password": "ü"},
    {"username": "a\nb", "password": "MARK"},
    {"username": "a", "password": "b\n"},
    {"username": "a", "token": "MARK"},
    {"username": "a", "password": "MARK", "token": "MARK"},
    {"password": "MARK", "token": "MARK"},
    {"username": "a", "password": "MARK", "token": ""},
):
    for _server in ("tls", "plain"):
        USERS.add(f"{_fields} to {_server}", partial(_plain_fields, _fields, _server))


# -- client certificates ---------------------------------------------------------------------------------------------


def _pair(certificate: str, key: str, more: str, server: str, d: Draft) -> None:
    d.at(server)
    if server != "plain":
        d.trusting()
    d.with_pair(d.client(), certificate, key)
    if more == "token":
        d.with_token()
    elif more == "basic":
        d.with_basic()


for _held in itertools.product(("data", "file", "none"), ("data", "file", "none"), ("", "token"), ("tls", "plain")):
    USERS.add(f"certificate {_held}", partial(_pair, *_held))
USERS.add("certificate and password", partial(_pair, "data", "file", "basic", "tls-strict"))
USERS.add("certificate demanded", partial(_pair, "file", "file", "", "tls-strict"))
USERS.add("certificate demanded, none", partial(_pair, "none", "none", "token", "tls-strict"))


def _odd_pair(kind: str, how: str, d: Draft) -> None:
    d.at("tls-strict")
    d.trusting()
    pair = d.client()
    certificate, key = pair.certificate, pair.key
    other = d.certificates.client("somebody-else")
    loaded = serialization.load_pem_private_key(key, None)

    def form(format: serialization.PrivateFormat, password: bytes = b"") -> bytes:
        hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            hidden = serialization.BestAvailableEncryption(password)
        return loaded.private_bytes(serialization.Encoding.PEM, format, hidden)

    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    chain = d.certificates.pem(d.certificates.clients)
    pairs = {
        "one PEM for both": (certificate + key, certificate + key),
        "one PEM for both, key first": (key + certificate, key + certificate),
        "with its authority": (certificate + chain, key),
        "authority first": (chain + certificate, key),
        "another key": (certificate, other.key),
        "another kind of key": (
            certificate,
            rsa.generate_private_key(65537, 2048).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        ),
        "PKCS#8": (certificate, form(serialization.PrivateFormat.PKCS8)),
        "PKCS#8, encrypted": (certificate, form(serialization.PrivateFormat.PKCS8, b"pw")),
        "encrypted": (certificate, form(serialization.PrivateFormat.TraditionalOpenSSL, b"pw")),
        "junk around": (b"hello\n" + certificate + b"bye\n", b"hello\n" + key + b"bye\n"),
        "CRLF": (certificate.replace(b"\n", b"\r\n"), key.replace(b"\n", b"\r\n")),
        "DER": (der, key),
        "no PEM": (b"hello", b"hello"),
        "blank": (b" \n", b" \n"),
        "swapped": (key, certificate),
        "of another authority": (d.certificates.server.certificate, d.certificates.server.key),
        "EC parameters before the key": (
            certificate,
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + key,
        ),
        "two keys, the wrong one first": (certificate, other.key + key),
        "a bad block first": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + certificate, key),
        "cut off": (certificate[:-60], key),
        "key cut off": (certificate, key[:-60]),
    }
    made = pairs[kind]
    d.marks += [line for line in made[1].decode().splitlines()[1:2] if len(line) > 40]
    d.with_pair(Pair(*made), how, how)


for _kind in (
    "one PEM for both", "one PEM for both, key first", "with its authority", "authority first", "another key", "another kind of key",
    "PKCS#8", "PKCS#8, encrypted", "encrypted", "junk around", "CRLF", "DER", "no PEM", "blank", "swapped", "of another authority",
    "EC parameters before the key", "two keys, the wrong one first", "a bad block first", "cut off", "key cut off",
):  # fmt: skip
    for _how in ("data", "file"):
        USERS.add(f"pair as {_how}: {_kind}", partial(_odd_pair, _kind, _how))


def _both_ways(name: str, d: Draft) -> None:
    d.secured()
    d.with_pair(d.client(), "file", "file")
    content = d.files[d.user[name]]
    d.user[f"{name}-data"] = d.random.choice((b64(content), b64(content), "", None))


for _name in ("client-certificate", "client-key"):
    for _number in range(3):
        USERS.add(f"{_name} as file and data {_number}", partial(_both_ways, _name))


def _path(name: str, path: str, server: str, d: Draft) -> None:
    d.at(server)
    if server != "plain":
        d.trusting()
    d.with_pair(d.client(), "file", "file")
    d.user[name] = path


for _name in ("client-certificate", "client-key"):
    for _missing in ("missing.pem", "."):
        for _server in ("tls", "plain"):
            USERS.add(f"{_name} at {_missing} for {_server}", partial(_path, _name, _missing, _server))


# -- acting as somebody else -----------------------------------------------------------------------------------------


def _acting(fields: dict[str, Any], d: Draft) -> None:
    if d.random.random() < 0.75:
        d.secured()
    else:
        d.at("plain")
    d.random.choice((d.with_token, d.with_certificate, d.with_basic))()
    d.user |= fields


_ACTS: tuple[dict[str, Any], ...] = (
    {"as": "jane"},
    {"as": "jane", "as-groups": ["ops"]},
    {"as": "jane", "as-groups": ["ops", "dev", "ops"], "as-uid": "1"},
    {"as": "jane", "as-groups": []},
    {"as": "jane", "as-groups": [""]},
    {"as": "jane", "as-uid": "u-1"},
    {"as": "jane", "as-user-extra": {"scope": ["a", "b"]}},
    {"as": "jane", "as-user-extra": {"Acme/Scope": ["a"], "b": ["c"]}},
    {"as": "jane", "as-user-extra": {"é x%": ["ü"]}},
    {"as": "jane", "as-user-extra": {"a_b~c!d|e^f`g'h*i+j-k.l#m$n&o": ["x"]}},
    {"as": "jane", "as-user-extra": {"": ["x"]}},
    {"as": "jane", "as-user-extra": {"a": []}},
    {"as": "jane", "as-user-extra": {"a": [""]}},
    {"as": "jane", "as-user-extra": {}},
    {"as": "jane", "as-user-extra": {"a": ["x"], "A": ["y"]}},
    {"as": "system:serviceaccount:ns:n", "as-groups": ["system:masters"]},
    {"as": "jané", "as-groups": ["grüppe"]},
    {"as": "a\nb"},
    {"as": "jane", "as-groups": ["a\nb"]},
    {"as": "jane", "as-uid": "a\nb"},
    {"as": "jane", "as-user-extra": {"a": ["b\nc"]}},
    {"as": "jane", "as-user-extra": {"a\nb": ["c"]}},
    {"as": " jane "},
    {"as": "\tjane"},
    {"as": ""},
    {"as-groups": ["ops"]},
    {"as-uid": "u-1"},
    {"as-user-extra": {"a": ["b"]}},
    {"as": "", "as-groups": ["ops"]},
    {"as-groups": []},
    {"as-user-extra": {}},
    {"as-user-extra": {"a": []}},
    {"As": "jane"},
    {"impersonate": "jane"},
)
for _acts in _ACTS:
    USERS.add(f"acting {_acts}", partial(_acting, _acts))


@USERS
def _nobody(d: Draft) -> None:
    d.secured()


@USERS
def _nobody_acting(d: Draft) -> None:
    d.secured()
    d.user["as"] = "jane"


@USERS
def _nobody_on_http(d: Draft) -> None:
    d.at("plain")


@USERS
def _everything_at_once(d: Draft) -> None:
    d.secured()
    d.with_token()
    d.with_certificate()
    d.with_plugin()
    d.user["as"] = "jane"


@USERS
def _netrc_is_not_read(d: Draft) -> None:
    d.random.choice((d.secured, d.at))()
    if d.random.random() < 0.5:
        d.with_token()
    d.files["home/.netrc"] = f"default login me password {d.mark()}\n".encode()


for _number in range(3):
    USERS.add(f"netrc is not read {_number}", _netrc_is_not_read)
