"""Credentials by plugins (exec) and by providers (OIDC)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from tests.oracle.cases.draft import ROOT, Draft, Family, b64
from tests.oracle.servers import id_token

PLUGINS = Family("plugins")
PROVIDERS = Family("providers")

_LATER = "2099-01-01T00:00:00Z"


def _plugin(change: Callable[[Draft, dict[str, Any]], None], d: Draft) -> None:
    d.secured(path=d.random.choice(("", "/a/b")))
    change(d, d.with_plugin())


def _to_status(status: Callable[[Draft], Any], d: Draft) -> None:
    d.at("tls-strict" if d.random.random() < 0.2 else "tls")
    d.trusting()
    made = status(d)
    if made is None:
        d.with_plugin({})
        d.plugin(d.credential(None))
    else:
        d.with_plugin(made)


def _pair(d: Draft, **more: Any) -> dict[str, Any]:
    pair = d.client()
    return {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()} | more


_STATUSES: tuple[tuple[str, Callable[[Draft], Any]], ...] = (
    ("token", lambda d: {"token": d.mark()}),
    ("token ending in a line feed", lambda d: {"token": d.mark("\n")}),
    ("token with blanks", lambda d: {"token": f" {d.mark()} "}),
    ("pair", _pair),
    ("token and pair", lambda d: _pair(d, token=d.mark())),
    ("certificate alone", lambda d: {"clientCertificateData": _pair(d)["clientCertificateData"]}),
    ("key alone", lambda d: {"clientKeyData": _pair(d)["clientKeyData"]}),
    ("token and certificate", lambda d: {"token": d.mark(), "clientCertificateData": _pair(d)["clientCertificateData"]}),
    ("bad pair", lambda d: {"clientCertificateData": "a", "clientKeyData": "b"}),
    ("pair as base64", lambda d: {key: b64(value.encode()) for key, value in _pair(d).items()}),
    ("nothing", lambda d: {}),
    ("no status", lambda d: None),
    ("empty token", lambda d: {"token": ""}),
    ("token a number", lambda d: {"token": 12}),
    ("token null", lambda d: {"token": None}),
    ("expires later", lambda d: {"token": d.mark(), "expirationTimestamp": _LATER}),
    ("expires later, fraction", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T00:00:00.123456789Z"}),
    ("expires later, zone", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T00:00:00+02:00"}),
    ("expires later, lower case", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01t00:00:00z"}),
    ("expires later, no zone", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T00:00:00"}),
    ("expires later, a blank", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01 00:00:00Z"}),
    ("expires later, comma", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T00:00:00,5Z"}),
    ("expires on no day", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-02-30T00:00:00Z"}),
    ("expires at hour 24", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T24:00:00Z"}),
    ("expires at second 60", lambda d: {"token": d.mark(), "expirationTimestamp": "2099-01-01T00:00:60Z"}),
    ("expires null", lambda d: {"token": d.mark(), "expirationTimestamp": None}),
    ("expires empty", lambda d: {"token": d.mark(), "expirationTimestamp": ""}),
    ("expires a number", lambda d: {"token": d.mark(), "expirationTimestamp": 4070908800}),
    ("expired", lambda d: {"token": d.mark(), "expirationTimestamp": "2020-01-01T00:00:00Z"}),
    ("unknown keys", lambda d: {"token": d.mark(), "more": {"a": [1]}}),
    ("another case", lambda d: {"Token": d.mark()}),
    ("token with a control character", lambda d: {"token": "\x01" + d.mark()}),
)  # fmt: skip
for _title, _status in _STATUSES:
    PLUGINS.add(f"status: {_title}", partial(_to_status, _status))


def _entry(**more: Any) -> Callable[[Draft, dict[str, Any]], None]:
    def change(d: Draft, entry: dict[str, Any]) -> None:
        for key, value in more.items():
            if value == "REMOVED":
                entry.pop(key)
            else:
                entry[key] = value
        if "v1beta1" in str(more.get("apiVersion")):
            d.plugin(d.credential({"token": d.mark()}, "v1beta1"))

    return change


_CHANGES: tuple[tuple[str, Callable[[Draft, dict[str, Any]], None]], ...] = (
    ("v1beta1", _entry(apiVersion="client.authentication.k8s.io/v1beta1")),
    ("v1beta1 without mode", _entry(apiVersion="client.authentication.k8s.io/v1beta1", interactiveMode="REMOVED")),
    ("v1alpha1", _entry(apiVersion="client.authentication.k8s.io/v1alpha1")),
    ("v2", _entry(apiVersion="client.authentication.k8s.io/v2")),
    ("no version", _entry(apiVersion="REMOVED")),
    ("no mode", _entry(interactiveMode="REMOVED")),
    ("mode Never", _entry(interactiveMode="Never")),
    ("mode Always", _entry(interactiveMode="Always")),
    ("mode never", _entry(interactiveMode="never")),
    ("mode empty", _entry(interactiveMode="")),
    ("no command", _entry(command="REMOVED")),
    ("command empty", _entry(command="")),
    ("args null", _entry(args=None)),
    ("args", _entry(args=["", "a b", "$HOME", "*", "'", "é"])),
    ("args a text", _entry(args="a")),
    ("args with a number", _entry(args=[1])),
    ("args with null", _entry(args=[None])),
    ("env", _entry(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "x y"}])),
    ("env twice", _entry(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
    ("env without value", _entry(env=[{"name": "A"}])),
    ("env without name", _entry(env=[{"value": "1"}])),
    ("env empty name", _entry(env=[{"name": "", "value": "1"}])),
    ("env null value", _entry(env=[{"name": "A", "value": None}])),
    ("env number", _entry(env=[{"name": "A", "value": 1}])),
    ("env a map", _entry(env={"A": "1"})),
    ("env null", _entry(env=None)),
    ("env with null", _entry(env=[None])),
    ("env with an equals sign", _entry(env=[{"name": "A=B", "value": "1"}])),
    ("env overrides", _entry(env=[{"name": "C", "value": "config"}])),
    ("env EXEC_INFO", _entry(env=[{"name": "KUBERNETES_EXEC_INFO", "value": "mine"}])),
    ("env with NUL", _entry(env=[{"name": "A", "value": "a\0b"}])),
    ("args with NUL", _entry(args=["a\0b"])),
    ("unknown keys", _entry(more=1, InstallHint="x")),
    ("install hint", _entry(command="not-there-at-all", installHint="install it\n\x1b[1m")),
    ("not there", _entry(command="not-there-at-all")),
    ("not there, path", _entry(command="./not-there")),
    ("a folder", _entry(command="./bin")),
    ("absolute", _entry(command=f"{ROOT}/bin/plugin")),
    ("home", _entry(command="~/bin/plugin")),
    ("blank after", _entry(command="./bin/plugin ")),
    ("dots", _entry(command="./bin/../bin/plugin")),
    ("provide info null", _entry(provideClusterInfo=None)),
    ("provide info text", _entry(provideClusterInfo="true")),
)  # fmt: skip
for _title, _change in _CHANGES:
    PLUGINS.add(f"entry: {_title}", partial(_plugin, _change))


def _secretive(change: dict[str, Any], d: Draft) -> None:
    """Arguments and environment may be credentials, too."""
    d.secured()
    d.with_plugin(args=["--password", d.mark()], env=[{"name": "A", "value": d.mark()}], **change)
    if change:
        d.plugin({"kind": "ExecCredential", "password": d.mark()}, code=1, more=f"echo 'using {d.marks[-3]}' >&2")


PLUGINS.add("secrets as arguments", partial(_secretive, {}))
PLUGINS.add("secrets as arguments, fails", partial(_secretive, {"interactiveMode": "Never"}))
PLUGINS.add("secrets as arguments, not there", partial(_secretive, {"command": "not-there"}))


@PLUGINS
def _environment_is_inherited(d: Draft) -> None:
    d.secured()
    d.with_plugin(env=[{"name": "B", "value": "config"}])
    d.environment |= {"A": "parent", "B": "parent"}


@PLUGINS
def _in_path(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.user["exec"]["command"] = "plugin"
    d.environment["PATH"] = f"{ROOT}/bin:/usr/bin:/bin"


@PLUGINS
def _not_in_the_entrys_path(d: Draft) -> None:
    d.secured()
    d.with_plugin(env=[{"name": "PATH", "value": f"{ROOT}/bin:/usr/bin:/bin"}])
    d.user["exec"]["command"] = "plugin"


@PLUGINS
def _in_path_by_dot(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.user["exec"]["command"] = "plugin"
    d.files["work/plugin"] = d.files["bin/plugin"]
    d.programs.add("work/plugin")
    d.environment["PATH"] = d.random.choice((".", "", "./", "../work")) + ":/usr/bin:/bin"


@PLUGINS
def _two_in_path(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.user["exec"]["command"] = "plugin"
    d.files["first/plugin"] = b"no program\n"
    d.environment["PATH"] = f"{ROOT}/first:{ROOT}/bin:/usr/bin:/bin"


@PLUGINS
def _not_executable(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.programs.clear()


@PLUGINS
def _no_interpreter(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.files["bin/plugin"] = d.files["bin/plugin"].removeprefix(b"#!/bin/sh\n")


@PLUGINS
def _missing_interpreter(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.files["bin/plugin"] = d.files["bin/plugin"].replace(b"#!/bin/sh", b"#!/no/such/shell")


def _fails(code: int, d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.plugin(d.credential({"token": d.mark()}), code=code, more="echo 'somebody has to log in' >&2")


PLUGINS.add("fails", partial(_fails, 3))
PLUGINS.add("speaks on stderr", partial(_fails, 0))


def _output(change: Callable[[str], str], d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.plugin(change(json.dumps(d.credential({"token": d.mark()}))))


for _title, _text in (
    ("as YAML", lambda text: str(yaml.safe_dump(json.loads(text)))),
    ("with BOM", lambda text: f"\ufeff{text}"),
    ("text before", lambda text: f"hello\n{text}"),
    ("text after", lambda text: f"{text}\nbye"),
    ("two documents", lambda text: f"{text}\n---\n{text}"),
    ("two JSON", lambda text: f"{text}{text}"),
    ("blank lines", lambda text: f"\n\n  {text}\n\n"),
    ("no kind", lambda text: text.replace('"kind": "ExecCredential", ', "")),
    ("another kind", lambda text: text.replace('"ExecCredential"', '"Pod"')),
    ("no version", lambda text: text.replace('"apiVersion": "client.authentication.k8s.io/v1", ', "")),
    ("another version", lambda text: text.replace("k8s.io/v1", "k8s.io/v1beta1")),
    ("keys twice", lambda text: text.replace('"status"', '"status": {"token": "first"}, "status"')),
    ("a list", lambda text: f"[{text}]"),
    ("nothing", lambda text: ""),
    ("null", lambda text: "null"),
    ("binary", lambda text: "\x01\x02"),
    ("with metadata", lambda text: text.replace('"status"', '"metadata": {"name": "x"}, "spec": {"interactive": true}, "status"')),
    ("spec of another type", lambda text: text.replace('"status"', '"spec": "x", "status"')),
    ("with tabs", lambda text: json.dumps(json.loads(text), indent="\t")),
    ("status a text", lambda text: text.replace('"status": {', '"status": "x", "more": {')),
):  # fmt: skip
    PLUGINS.add(f"output: {_title}", partial(_output, _text))


def _info(d: Draft) -> None:
    """What spec.cluster says."""
    d.at("tls", d.random.choice(("127.0.0.1", "localhost")), d.random.choice(("", "/a//b/", "/c")))
    if d.random.random() < 0.3:
        d.cluster["insecure-skip-tls-verify"] = True
    else:
        d.trusting(how=d.random.choice(("data", "file")))
        if d.random.random() < 0.4:
            d.cluster["tls-server-name"] = "x.example.test"
    if d.random.random() < 0.3:
        d.cluster["disable-compression"] = True
    extension = d.random.choice(({"a": [1, "b"]}, "text", None, ["x"], 3, {"n": None}))
    name = d.random.choice(("client.authentication.k8s.io/exec", "other"))
    if d.random.random() < 0.7:
        d.cluster["extensions"] = [{"name": name, "extension": extension}]
    version = d.random.choice(("v1", "v1beta1"))
    d.with_plugin(version=version, provideClusterInfo=d.random.random() < 0.8)
    if d.random.random() < 0.3:
        d.environment["HTTPS_PROXY"] = f"http://127.0.0.1:{d.rig.port('proxy')}"


for _number in range(16):
    PLUGINS.add(f"cluster info {_number}", _info)


def _beside(field: str, d: Draft) -> None:
    d.secured()
    d.with_plugin()
    getattr(d, field)()


for _field in ("token", "basic", "certificate", "provider"):
    PLUGINS.add(f"beside {_field}", partial(_beside, f"with_{_field}"))


@PLUGINS
def _acting(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.user |= {"as": "jane", "as-groups": ["a"]}


@PLUGINS
def _beside_a_key_alone(d: Draft) -> None:
    d.secured()
    d.with_pair(d.client(), "none", "data")
    d.with_plugin()


@PLUGINS
def _beside_a_certificate_alone(d: Draft) -> None:
    d.secured()
    d.with_pair(d.client(), "data", "none")
    d.with_plugin()


@PLUGINS
def _beside_a_blank_token(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.user["token"] = ""


# -- OIDC and its kind -----------------------------------------------------------------------------------------------


def _provider(name: Any, config: Any, d: Draft) -> None:
    d.secured()
    d.user["auth-provider"] = {"name": name, "config": config}
    if d.random.random() < 0.3:
        d.with_token()


for _name, _config in (
    ("gcp", None), ("azure", {}), ("openstack", None), ("unknown", {}), ("", None), (None, None), ("OIDC", {}), ("oidc", None),
    ("oidc", {}), ("oidc", {"idp-issuer-url": "http://127.0.0.1:1"}), ("oidc", {"client-id": "a"}), ("oidc", {"client-id": 1}),
    ("oidc", []), (1, None),
):  # fmt: skip
    PROVIDERS.add(f"{_name!r} with {_config}", partial(_provider, _name, _config))


def _oidc(tls: bool, change: Callable[[Draft, dict[str, str]], None], d: Draft) -> None:
    d.secured(path=d.random.choice(("", "/a")))
    config = d.with_provider(tls=tls, expires=time.time() + 3600)
    change(d, config)


def _expired(d: Draft, config: dict[str, str]) -> None:
    config["id-token"] = id_token(d.mark(), time.time() - 100)


def _and(*changes: Callable[[Draft, dict[str, str]], None]) -> Callable[[Draft, dict[str, str]], None]:
    def change(d: Draft, config: dict[str, str]) -> None:
        for one in changes:
            one(d, config)

    return change


def _without(*names: str) -> Callable[[Draft, dict[str, str]], None]:
    def change(d: Draft, config: dict[str, str]) -> None:
        for name in names:
            config.pop(name)

    return change


def _with(**values: str) -> Callable[[Draft, dict[str, str]], None]:
    def change(d: Draft, config: dict[str, str]) -> None:
        for name, value in values.items():
            config[name.replace("_", "-")] = value.replace("MARK", d.mark())

    return change


def _trusted(d: Draft, config: dict[str, str]) -> None:
    config["idp-certificate-authority-data"] = b64(d.certificates.pem(d.certificates.authority))


def _trusted_file(d: Draft, config: dict[str, str]) -> None:
    path = d.random.choice(("idp.pem", f"{ROOT}/work/idp.pem"))
    d.files["work/idp.pem"] = d.certificates.pem(d.certificates.authority)
    config["idp-certificate-authority"] = path


def _raw_token(text: str) -> Callable[[Draft, dict[str, str]], None]:
    def change(d: Draft, config: dict[str, str]) -> None:
        config["id-token"] = text

    return change


def _slash(d: Draft, config: dict[str, str]) -> None:
    config["idp-issuer-url"] += "/"


def _claims(claims: str) -> Callable[[Draft, dict[str, str]], None]:
    def change(d: Draft, config: dict[str, str]) -> None:
        payload = b64(claims.encode()).rstrip("=").replace("+", "-").replace("/", "_")
        config["id-token"] = f"e30.{payload}.{d.mark()}"

    return change


_OIDC: tuple[tuple[str, bool, Callable[[Draft, dict[str, str]], None]], ...] = (
    ("valid", False, lambda d, config: None),
    ("valid, nothing else", False, _without("client-secret", "refresh-token")),
    ("valid, url-safe letters", False, _claims('{"exp": 4070908800, "sub": "??>>??>>~~~"}')),
    ("valid, exp as a text", False, _claims('{"exp": "4070908800"}')),
    ("valid, exp a fraction", False, _claims('{"exp": 4070908800.5}')),
    ("valid, exp with exponent", False, _claims('{"exp": 4.0709088e9}')),
    ("no exp", False, _claims('{"sub": "a"}')),
    ("exp null", False, _claims('{"exp": null}')),
    ("exp a word", False, _claims('{"exp": "tomorrow"}')),
    ("claims no JSON", False, _claims("hello")),
    ("claims a list", False, _claims("[]")),
    ("two parts", False, _raw_token("e30.e30")),
    ("four parts", False, _raw_token("e30.eyJleHAiOjQwNzA5MDg4MDB9.x.y")),
    ("padded", False, _raw_token("e30.eyJleHAiOjQwNzA5MDg4MDAwMH0=.x")),
    ("no base64", False, _raw_token("e30.***.x")),
    ("expired", False, _expired),
    ("no id-token", False, _without("id-token")),
    ("id-token empty", False, _with(id_token="")),
    ("expired, no refresh token", False, _and(_expired, _without("refresh-token"))),
    ("no tokens", False, _without("refresh-token", "id-token")),
    ("expired, no secret", False, _and(_expired, _without("client-secret"))),
    ("expired, secret with odd letters", False, _and(_expired, _with(client_secret="a:b/c+d MARK"))),
    ("expired, client in the form", False, _and(_expired, _with(refresh_token="plain-MARK"))),
    ("expired, refresh token stays", False, _and(_expired, _with(refresh_token="kept-MARK"))),
    ("expired, refused", False, _and(_expired, _with(refresh_token="bad-MARK"))),
    ("expired, scopes", False, _and(_expired, _with(extra_scopes="a,b"))),
    ("expired, no issuer there", False, _and(_expired, _with(idp_issuer_url="http://127.0.0.1:1"))),
    ("expired, bad issuer", False, _and(_expired, _with(idp_issuer_url="nonsense"))),
    ("expired, TLS", True, _and(_expired, _trusted)),
    ("expired, TLS, authority in a file", True, _and(_expired, _trusted_file)),
    ("expired, TLS, no authority", True, _expired),
    ("expired, TLS, bad data", True, _and(_expired, _with(idp_certificate_authority_data="*"))),
    ("valid, TLS, bad data", True, _with(idp_certificate_authority_data="*")),
    ("valid, authority not there", False, _with(idp_certificate_authority="missing.pem")),
    ("data and file", True, _and(_expired, _trusted, _with(idp_certificate_authority="missing.pem"))),
    ("issuer with a slash", False, _and(_expired, _slash)),
    ("no issuer", False, _without("idp-issuer-url")),
    ("no client", False, _without("client-id")),
    ("unknown keys", False, _with(more="x")),
    ("a blank in the client", False, _and(_expired, _with(client_id="a b%c MARK"))),
)  # fmt: skip
for _title, _tls, _changed in _OIDC:
    PROVIDERS.add(f"oidc: {_title}", partial(_oidc, _tls, _changed))


@PROVIDERS
def _provider_beside_a_token(d: Draft) -> None:
    d.secured()
    d.with_token()
    d.with_provider(expires=d.random.choice((None, time.time() + 3600)))


@PROVIDERS
def _provider_beside_a_pair(d: Draft) -> None:
    d.secured()
    d.with_certificate()
    d.with_provider(expires=time.time() + 3600)


@PROVIDERS
def _provider_acting(d: Draft) -> None:
    d.secured()
    d.with_provider(expires=time.time() + 3600)
    d.user["as"] = "jane"


@PROVIDERS
def _written_to_the_file_that_has_it(d: Draft) -> None:
    """Renewed tokens go to the entry's own file."""
    d.secured()
    d.with_provider()
    whole = d.whole()
    users = whole.pop("users")
    d.write("config", whole)
    d.write("users/b", {"users": users, "preferences": {"colors": True}})
    d.kubeconfig = f"{ROOT}/config:{ROOT}/users/b"


@PROVIDERS
def _written_through_a_link(d: Draft) -> None:
    d.secured()
    d.with_provider()
    d.write("real/it", d.whole())
    d.files |= {f"real/{name}": content for name, content in d.files.items() if name.endswith("ca.pem")}
    d.links["config"] = "real/it"


@PROVIDERS
def _locked(d: Draft) -> None:
    d.secured()
    d.with_provider()
    d.files["config.lock"] = b""
