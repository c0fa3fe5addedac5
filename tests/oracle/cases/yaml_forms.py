"""What is a kubeconfig: encodings, YAML and how it types values, JSON, and what structure is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import yaml

from tests.oracle.cases.draft import Draft, Family, b64

ENCODINGS = Family("encodings")
SCALARS = Family("scalars")
STRUCTURES = Family("structures")


def _dump(d: Draft) -> str:
    return str(yaml.safe_dump(d.whole(), allow_unicode=True))


def _as_json(d: Draft) -> str:
    return json.dumps(d.whole(), indent=1, ensure_ascii=False)


def _encoded(change: Callable[[Draft], bytes], d: Draft) -> None:
    d.any_cluster()
    d.with_token()
    d.files["config"] = change(d)


_FORMS: tuple[tuple[str, Callable[[Draft], bytes]], ...] = (
    ("utf-8", lambda d: _dump(d).encode()),
    ("utf-8 with BOM", lambda d: _dump(d).encode("utf-8-sig")),
    ("utf-16 LE with BOM", lambda d: b"\xff\xfe" + _dump(d).encode("utf-16-le")),
    ("utf-16 BE with BOM", lambda d: b"\xfe\xff" + _dump(d).encode("utf-16-be")),
    ("utf-16 LE without BOM", lambda d: _dump(d).encode("utf-16-le")),
    ("utf-16 BE without BOM", lambda d: _dump(d).encode("utf-16-be")),
    ("utf-32", lambda d: _dump(d).encode("utf-32")),
    ("latin-1", lambda d: _dump(d).encode() + b"# \xe9\n"),
    ("latin-1 in a value", lambda d: _dump(d).encode() + b"preferences: {x: \xe9}\n"),
    ("NUL", lambda d: _dump(d).encode() + b"\0\n"),
    ("control character", lambda d: _dump(d).encode() + b"# \x07\n"),
    ("DEL", lambda d: _dump(d).encode() + b"# \x7f\n"),
    ("C1 control", lambda d: _dump(d).encode() + "# \u0081\n".encode()),
    ("NEL", lambda d: _dump(d).encode() + "# \u0085x\n".encode()),
    ("line separator", lambda d: _dump(d).encode() + "# \u2028\n".encode()),
    ("noncharacter", lambda d: _dump(d).encode() + "# \ufffe\n".encode()),
    ("astral", lambda d: _dump(d).encode() + "# \U0001f600\n".encode()),
    ("encoded surrogate", lambda d: _dump(d).encode() + b"# \xed\xa0\x80\n"),
    ("CRLF", lambda d: _dump(d).replace("\n", "\r\n").encode()),
    ("CR", lambda d: _dump(d).replace("\n", "\r").encode()),
    ("BOM within", lambda d: _dump(d).encode() + b"\xef\xbb\xbfpreferences: {}\n"),
    ("JSON", lambda d: _as_json(d).encode()),
    ("JSON with tabs", lambda d: json.dumps(d.whole(), indent="\t").encode()),
    ("JSON with BOM", lambda d: _as_json(d).encode("utf-8-sig")),
    ("JSON with escaped slash", lambda d: _as_json(d).replace("http://", "http:\\/\\/").replace("s://", "s:\\/\\/").encode()),
    ("JSON with escapes", lambda d: _as_json(d).replace('"Config"', '"\\u0043onfig"').encode()),
    ("JSON with a surrogate pair", lambda d: _as_json(d).replace('"kind"', '"k": "\\ud83d\\ude00", "kind"').encode()),
    ("JSON with a lone surrogate", lambda d: _as_json(d).replace('"kind"', '"k": "\\ud83d", "kind"').encode()),
    ("JSON with a trailing comma", lambda d: re.sub(r"\}\s*$", ",}", _as_json(d)).encode()),
    ("JSON and more", lambda d: (_as_json(d) + "\nx").encode()),
    ("two JSON documents", lambda d: (_as_json(d) + "\n---\n{}").encode()),
    ("flow", lambda d: str(yaml.safe_dump(d.whole(), default_flow_style=True)).encode()),
    ("document start", lambda d: ("---\n" + _dump(d)).encode()),
    ("%YAML 1.1", lambda d: ("%YAML 1.1\n---\n" + _dump(d)).encode()),
    ("%YAML 1.2", lambda d: ("%YAML 1.2\n---\n" + _dump(d)).encode()),
    ("%TAG", lambda d: ("%TAG !e! tag:example.test:\n---\n" + _dump(d).replace("kind: ", "kind: !e!x ")).encode()),
    ("second document", lambda d: (_dump(d) + "---\nkind: Other\n").encode()),
    ("broken second document", lambda d: (_dump(d) + "---\n[\n").encode()),
    ("empty first document", lambda d: ("---\n---\n" + _dump(d)).encode()),
    ("text after the end", lambda d: (_dump(d) + "...\n[ }\n").encode()),
    ("indented by a tab", lambda d: (_dump(d) + "preferences:\n\tx: 1\n").encode()),
    ("tab after colon", lambda d: _dump(d).replace("kind: ", "kind:\t").encode()),
    ("no line feed at the end", lambda d: _dump(d).rstrip().encode()),
    ("anchors", lambda d: (_dump(d).replace("server: ", "server: &s ") + "more: *s\n").encode()),
    ("unknown alias", lambda d: (_dump(d) + "more: *nope\n").encode()),
    ("merge key", lambda d: f"base: &b {json.dumps(d.cluster)}\n{_merged(d)}".encode()),
    ("merge of a list", lambda d: f"base: &b {json.dumps(d.cluster)}\nnone: &n {{}}\n{_merged(d, '[*n, *b]')}".encode()),
    ("merge overridden", lambda d: f"base: &b {{server: wrong}}\n{_merged(d, '*b', json.dumps(d.cluster)[1:-1])}".encode()),
    ("merge of a text", lambda d: f"base: &b hello\n{_merged(d)}".encode()),
    ("tagged string", lambda d: _dump(d).replace("kind: ", "kind: !!str ").encode()),
    ("unknown tag", lambda d: _dump(d).replace("kind: ", "kind: !mine ").encode()),
    ("unknown tag on a map", lambda d: _dump(d).replace("cluster:\n", "cluster: !mine\n").encode()),
    ("python tag", lambda d: _dump(d).replace("kind: ", "kind: !!python/name:os.system ").encode()),
    ("python object", lambda d: (_dump(d) + "more: !!python/object/apply:os.system ['true']\n").encode()),
    ("binary token", lambda d: _dump(d).replace(f"token: {d.user['token']}", f"token: !!binary {b64(d.user['token'].encode())}").encode()),
    ("bad binary", lambda d: _dump(d).replace("kind: ", "more: !!binary '*'\nkind: ").encode()),
    ("set", lambda d: (_dump(d) + "more: !!set {a, b}\n").encode()),
    ("ordered map", lambda d: (_dump(d) + "more: !!omap [a: 1]\n").encode()),
    ("complex key", lambda d: (_dump(d) + "more: {[1, 2]: 3}\n").encode()),
    ("map as key", lambda d: (_dump(d) + "more:\n  ? {a: 1}\n  : 3\n").encode()),
    ("null key", lambda d: (_dump(d) + "more: {~: 3}\n").encode()),
    ("number as key", lambda d: (_dump(d) + "more: {1: 3, 1.5: 4, true: 5}\n").encode()),
    ("alias bomb", lambda d: (_dump(d) + _bomb()).encode()),
    ("aliases within reason", lambda d: (_dump(d) + "a: &a [1, 2]\nb: [*a, *a, *a]\n").encode()),
    ("recursive alias", lambda d: (_dump(d) + "a: &a [*a]\n").encode()),
    ("deep flow", lambda d: (_dump(d) + "a: " + "[" * 500 + "]" * 500 + "\n").encode()),
    ("too deep flow", lambda d: (_dump(d) + "a: " + "[" * 11000 + "]" * 11000 + "\n").encode()),
    ("long text", lambda d: (_dump(d) + f"a: {'x' * 200_000}\n").encode()),
    ("folded token", lambda d: _dump(d).replace(f"token: {d.user['token']}", f"token: >-\n      {d.user['token']}").encode()),
    ("literal token ends in a line feed", lambda d: _dump(d).replace(f"token: {d.user['token']}", f"token: |\n      {d.user['token']}").encode()),
    ("quoted token", lambda d: _dump(d).replace(f"token: {d.user['token']}", f"'token': \"{d.user['token']}\"").encode()),
    ("comment after token", lambda d: _dump(d).replace(d.user["token"], f"{d.user['token']} # mine").encode()),
    ("hash in token", lambda d: _dump(d).replace(d.user["token"], f"{d.user['token']}#x").encode()),
    ("escape in token", lambda d: _dump(d).replace(d.user["token"], f'"\\x41{d.user["token"]}\\e"').encode()),
)  # fmt: skip


def _merged(d: Draft, of: str = "*b", more: str = "") -> str:
    rest = dict(d.whole())
    rest.pop("clusters")
    return f"clusters: [{{name: c, cluster: {{<<: {of}{', ' + more if more else ''}}}}}]\n{yaml.safe_dump(rest)}"


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    return "\n".join(lines) + "\n"


for _title, _form in _FORMS:
    ENCODINGS.add(_title, partial(_encoded, _form))

# -- values and their types ------------------------------------------------------------------------------------------

_VALUES = (
    "12345", "yes", "No", "y", "n", "on", "true", "TRUE", "tRue", "1e3", "1.5", "0123", "08", "0o17", "0x1F", "0b11", "1_000",
    "+1", "-", "1:20", "190:20:30", "2020-01-01", "2020-01-01T10:00:00Z", "=", ".inf", ".nan", "~", "null", "Null", '""', "''",
    "'12345'", "!!str 12345", "!!int '12'", "!!float 3", "!!bool yes", "!!null ''", "<<", "[a]", "{a: b}", "a b", "a: b", "@x",
    "1e", "e3", "0x", "0.", ".5", "1.", "-.inf", "12e03", "00", "-0", "1__0", "99999999999999999999", "!!timestamp 2020-01-01",
    "!!binary eA==", "''''", '"\\u00e9"', "é", "a#b", "|-\n        t\n        u",
)  # fmt: skip


def _value_at(place: str, value: str, d: Draft) -> None:
    d.at("tls")
    d.trusting()
    d.with_token()
    text = _dump(d)
    if place == "token":
        text = text.replace(f"token: {d.user['token']}", f"token: {value}")
    elif place == "username":
        text = text.replace(f"token: {d.user['token']}", f"username: {value}\n    password: x")
    elif place == "as":
        text = text.replace("token: ", f"as: {value}\n    token: ")
    elif place == "name of the cluster":
        text = text.replace("name: c\n", f"name: {value}\n").replace("cluster: c\n", f"cluster: {value}\n")
    elif place == "name of the user, quoted once":
        text = text.replace("name: u\n", f"name: {value}\n").replace("user: u\n", f"user: '{value}'\n")
    d.files["config"] = text.encode()


for _value in _VALUES:
    SCALARS.add(f"token: {_value}", partial(_value_at, "token", _value))
for _value in _VALUES[::3]:
    for _place in ("username", "as", "name of the cluster", "name of the user, quoted once"):
        SCALARS.add(f"{_place}: {_value}", partial(_value_at, _place, _value))


def _insecure(value: str, d: Draft) -> None:
    d.at("tls")
    d.with_token()
    d.files["config"] = _dump(d).replace("server: ", f"insecure-skip-tls-verify: {value}\n    server: ").encode()


for _value in ("true", "yes", "on", "y", "Y", "True", "TRUE", "tRUE", '"true"', "1", "no", "off", "~", "!!bool yes",
               "!!bool 'yes'", "!!str true", "''", "[]", "false", '"false"'):  # fmt: skip
    SCALARS.add(f"insecure: {_value}", partial(_insecure, _value))


def _extension(value: str, d: Draft) -> None:
    """What a plugin is given of the cluster's extension shows how YAML was typed."""
    d.secured()
    d.with_plugin(provideClusterInfo=True)
    d.cluster["extensions"] = [{"name": "client.authentication.k8s.io/exec", "extension": "HERE"}]
    d.files["config"] = _dump(d).replace("HERE", value).encode()


for _value in ("text", "12", "1.50", "1e3", "0x10", "0o17", "08", "1:20", "2020-01-01", "2001-12-14t21:59:43.10-05:00", "yes",
               "~", "[1, 'a', ~, y]", "{n: 1, y: 2, 1: 3, 1.5: 4}", "{a: {b: [c, {d: 1e2}]}}", "1_000", "9007199254740993",
               "18446744073709551615", "99999999999999999999", "1.0", "0.1", "1e21", "1e-7", "-0.0", "-0", ".inf", ".nan",
               "'é\U0001f600 <&>'", "!!binary aGVsbG8=", "!mine 12", "=", "<", "{b: 1, a: 2, B: 3}", "\"\\u2028\"", "+12",
               "0b101", "[]", "{}", "''", "!!float 3", "!!str 3", "{~: 1}"):  # fmt: skip
    SCALARS.add(f"extension: {_value}", partial(_extension, _value))

# -- structure -------------------------------------------------------------------------------------------------------


def _structured(change: Callable[[str, Draft], str], d: Draft) -> None:
    d.any_cluster()
    d.with_token()
    d.files["config"] = change(_dump(d), d).encode()


_CHANGES: tuple[tuple[str, Callable[[str, Draft], str]], ...] = (
    ("no kind, no version", lambda text, d: text.replace("kind: Config\n", "").replace("apiVersion: v1\n", "")),
    ("no kind", lambda text, d: text.replace("kind: Config\n", "")),
    ("another kind", lambda text, d: text.replace("kind: Config", "kind: config")),
    ("another version", lambda text, d: text.replace("apiVersion: v1", "apiVersion: v1beta1")),
    ("kind null", lambda text, d: text.replace("kind: Config", "kind: ~")),
    ("kind a number", lambda text, d: text.replace("kind: Config", "kind: 1")),
    ("key in another case", lambda text, d: text.replace("clusters:", "Clusters:")),
    ("server in another case", lambda text, d: text.replace("server:", "Server:")),
    ("unknown keys", lambda text, d: text.replace("token:", "unknown: {a: [1]}\n    token:") + "more: 1\n"),
    ("a key twice, last", lambda text, d: text.replace("server: ", f"server: 'http://127.0.0.1:{d.rig.port('plain')}/wrong'\n    server: ")),
    ("users twice", lambda text, d: "users: []\n" + text),
    ("contexts null", lambda text, d: re.sub(r"contexts:\n(- .*\n|  .*\n)+", "contexts: ~\n", text)),
    ("users null", lambda text, d: re.sub(r"users:\n(- .*\n|  .*\n)+", "users: ~\n", text)),
    ("users a map", lambda text, d: re.sub(r"users:\n(- .*\n|  .*\n)+", "users: {}\n", text)),
    ("users a text", lambda text, d: re.sub(r"users:\n(- .*\n|  .*\n)+", "users: ''\n", text)),
    ("clusters a map", lambda text, d: text + "clusters: {c: {server: x}}\n"),
    ("a null user", lambda text, d: text.replace("users:\n", "users:\n- ~\n")),
    ("a user a text", lambda text, d: text.replace("users:\n", "users:\n- hello\n")),
    ("a nameless user", lambda text, d: text.replace("users:\n", "users:\n- user: {}\n")),
    ("two nameless users", lambda text, d: text.replace("users:\n", "users:\n- user: {}\n- user: {}\n")),
    ("user null", lambda text, d: text.replace("users:\n", "users:\n- {name: z, user: ~}\n")),
    ("user a list", lambda text, d: text.replace("users:\n", "users:\n- {name: z, user: []}\n")),
    ("user a text", lambda text, d: text.replace("users:\n", "users:\n- {name: z, user: t}\n")),
    ("same name, users", lambda text, d: text.replace("users:\n", "users:\n- {name: u, user: {}}\n")),
    ("same name, clusters", lambda text, d: text.replace("clusters:\n", "clusters:\n- {name: c, cluster: {server: a}}\n")),
    ("same name, contexts", lambda text, d: text.replace("contexts:\n", "contexts:\n- {name: x, context: {}}\n")),
    ("bad entry of others", lambda text, d: text.replace("users:\n", "users:\n- {name: z, user: {token: 1}}\n")),
    ("bad data of others", lambda text, d: text.replace("users:\n", "users:\n- {name: z, user: {client-key-data: '*'}}\n")),
    ("bad name of others", lambda text, d: text.replace("users:\n", "users:\n- {name: 1, user: {}}\n")),
    ("preferences a map", lambda text, d: text + "preferences: {colors: true}\n"),
    ("preferences null", lambda text, d: text + "preferences: ~\n"),
    ("preferences a list", lambda text, d: text + "preferences: []\n"),
    ("preferences with a bad value", lambda text, d: text + "preferences: {colors: 'yes'}\n"),
    ("extensions", lambda text, d: text + "extensions: [{name: a, extension: {b: [1]}}]\n"),
    ("extensions a map", lambda text, d: text + "extensions: {}\n"),
    ("extensions twice", lambda text, d: text + "extensions: [{name: a, extension: 1}, {name: a, extension: 2}]\n"),
    ("extension null", lambda text, d: text + "extensions: [{name: a, extension: ~}, ~]\n"),
    ("token empty", lambda text, d: text.replace(f"token: {d.user['token']}", "token: ''")),
    ("token null", lambda text, d: text.replace(f"token: {d.user['token']}", "token: ~")),
    ("token a list", lambda text, d: text.replace(f"token: {d.user['token']}", "token: []")),
    ("as-groups a text", lambda text, d: text.replace("token:", "as: a\n    as-groups: b\n    token:")),
    ("as-groups with a number", lambda text, d: text.replace("token:", "as: a\n    as-groups: [b, 1]\n    token:")),
    ("as-groups with null", lambda text, d: text.replace("token:", "as: a\n    as-groups: [b, ~]\n    token:")),
    ("as-groups null", lambda text, d: text.replace("token:", "as: a\n    as-groups: ~\n    token:")),
    ("extra a list", lambda text, d: text.replace("token:", "as: a\n    as-user-extra: [b]\n    token:")),
    ("extra with a text", lambda text, d: text.replace("token:", "as: a\n    as-user-extra: {b: c}\n    token:")),
    ("extra with null", lambda text, d: text.replace("token:", "as: a\n    as-user-extra: {b: ~}\n    token:")),
    ("extra with a bool key", lambda text, d: text.replace("token:", "as: a\n    as-user-extra: {n: [c]}\n    token:")),
    ("exec null", lambda text, d: text.replace("token:", "exec: ~\n    token:")),
    ("exec empty", lambda text, d: text.replace("token:", "exec: {}\n    token:")),
    ("exec a list", lambda text, d: text.replace("token:", "exec: []\n    token:")),
    ("auth-provider null", lambda text, d: text.replace("token:", "auth-provider: ~\n    token:")),
    ("auth-provider empty", lambda text, d: text.replace("token:", "auth-provider: {}\n    token:")),
    ("server a number", lambda text, d: re.sub("server: .*", "server: 12", text)),
    ("server null", lambda text, d: re.sub("server: .*", "server: ~", text)),
    ("disable-compression a text", lambda text, d: text.replace("server:", "disable-compression: 'x'\n    server:")),
    ("disable-compression", lambda text, d: text.replace("server:", "disable-compression: true\n    server:")),
    ("proxy-url null", lambda text, d: text.replace("server:", "proxy-url: ~\n    server:")),
    ("namespace a number", lambda text, d: text.replace("cluster: c\n", "cluster: c\n    namespace: 1\n")),
    ("context a text", lambda text, d: text.replace("contexts:\n", "contexts:\n- {name: z, context: t}\n")),
)  # fmt: skip

for _title, _change in _CHANGES:
    STRUCTURES.add(_title, partial(_structured, _change))
