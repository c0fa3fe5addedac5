"""Which files are read, how they are merged, and where relative paths lead."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.oracle.cases.draft import ROOT, Draft, Family

FILES = Family("files")


def _named(name: str, value: Any, kind: str) -> dict[str, Any]:
    return {"name": name, kind: value}


def _part(clusters: Any = (), users: Any = (), contexts: Any = (), **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    for key, value in (("clusters", clusters), ("users", users), ("contexts", contexts)):
        if value:
            found[key] = list(value)
    return found | more


_X = _named("x", {"cluster": "c", "user": "u"}, "context")


@FILES
def _one_file(d: Draft) -> None:
    d.any_cluster()
    d.any_user()


@FILES
def _current_context(d: Draft) -> None:
    d.any_cluster()
    d.any_user()
    d.context = None


@FILES
def _the_default_file(d: Draft) -> None:
    d.any_cluster()
    d.with_token()
    d.trusting(how="data") if d.cluster["server"].startswith("https") else None
    d.cluster.pop("certificate-authority", None)
    d.cluster.pop("insecure-skip-tls-verify", None)
    d.kubeconfig = d.random.choice((None, ""))
    d.write("home/.kube/config", d.whole())


@FILES
def _by_option(d: Draft) -> None:
    d.any_cluster()
    d.any_user()
    d.write("config", d.whole())
    d.write("other", _part([_named("c", {"server": "http://127.0.0.1:1"}, "cluster")], [], [_X]))
    d.kubeconfig = f"{ROOT}/other"
    d.flag = f"{ROOT}/config"


@FILES
def _by_option_missing(d: Draft) -> None:
    d.any_cluster()
    d.flag = f"{ROOT}/missing"


@FILES
def _parts_in_folders(d: Draft) -> None:
    d.at("tls-strict")
    d.with_pair(d.client(), "file", "file")
    d.files = {f"users/{name}": content for name, content in d.files.items()}
    d.files["clusters/pki/ca.pem"] = d.certificates.pem(d.certificates.authority)
    d.cluster["certificate-authority"] = "pki/ca.pem"
    d.write("users/b", _part(users=[_named("u", d.user, "user")]))
    d.write("clusters/a", _part([_named("c", d.cluster, "cluster")]))
    d.write("config", _part(contexts=[_X]))
    names = ["users/b", "clusters/a", "config"]
    d.random.shuffle(names)
    d.kubeconfig = ":".join(f"{ROOT}/{name}" for name in names)


@FILES
def _paths_beside_the_wrong_file(d: Draft) -> None:
    d.at("tls-strict")
    d.trusting()
    d.with_pair(d.client(), "file", "file")
    d.write("config", _part([_named("c", d.cluster, "cluster")], [], [_X]))
    d.write("users/b", _part(users=[_named("u", d.user, "user")]))
    d.kubeconfig = f"{ROOT}/config:{ROOT}/users/b"


@FILES
def _token_file_in_folder(d: Draft) -> None:
    d.secured()
    d.user["tokenFile"] = d.random.choice(("t/token", "../users/t/token", "./t/token", f"{ROOT}/users/t/token"))
    d.files["users/t/token"] = f"{d.mark()}\n".encode()
    d.write("config", _part([_named("c", d.cluster, "cluster")], [], [_X]))
    d.write("users/b", _part(users=[_named("u", d.user, "user")]))
    d.kubeconfig = f"{ROOT}/config:{ROOT}/users/b"


@FILES
def _plugin_in_folder(d: Draft) -> None:
    d.secured()
    d.with_plugin()
    d.files["users/bin/plugin"] = d.files.pop("bin/plugin")
    d.programs = {"users/bin/plugin"}
    d.write("config", _part([_named("c", d.cluster, "cluster")], [], [_X]))
    d.write("users/b", _part(users=[_named("u", d.user, "user")]))
    d.kubeconfig = f"{ROOT}/config:{ROOT}/users/b"


@FILES
def _symlinked_file(d: Draft) -> None:
    d.at("tls")
    d.with_token()
    d.cluster["certificate-authority"] = "ca.pem"
    here, there = d.random.choice((("config", "real/it"), ("links/it", "real/it")))
    d.write("real/it", d.whole())
    beside = d.random.choice((here, there))
    d.files[f"{beside.rpartition('/')[0] or '.'}/ca.pem"] = d.certificates.pem(d.certificates.authority)
    d.links[here] = f"{ROOT}/{there}"
    d.kubeconfig = f"{ROOT}/{here}"
    d.files.setdefault("config", b"") if here != "config" else None


def _list(value: str, d: Draft) -> None:
    d.any_cluster()
    d.any_user()
    d.kubeconfig = value
    d.files["empty"] = b""
    d.files["folder/.keep"] = b""
    d.files["work/relative"] = b"current-context: elsewhere\n"


for _value in (
    f"{ROOT}/missing:{ROOT}/config",
    f"{ROOT}/config:{ROOT}/missing",
    f"{ROOT}/config:{ROOT}/config",
    f":{ROOT}/config::",
    f"{ROOT}/empty:{ROOT}/config",
    f"{ROOT}/missing",
    f"{ROOT}/folder:{ROOT}/config",
    f"{ROOT}/config:{ROOT}/folder",
    f"{ROOT}/config/below:{ROOT}/config",
    "../config",
    "relative:../config",
    "~/config",
    f'"{ROOT}/config"',
    f" {ROOT}/config",
    f"{ROOT}/config ",
    f"{ROOT}/./config",
    f"{ROOT}//config",
    f"{ROOT}/work/../config",
    f"file://{ROOT}/config",
    "$HOME/config",
):
    FILES.add(f"list {_value}", partial(_list, _value))


@FILES
def _broken_link(d: Draft) -> None:
    d.any_cluster()
    d.links["link"] = f"{ROOT}/nowhere"
    d.kubeconfig = f"{ROOT}/link:{ROOT}/config"


def _another(content: bytes, d: Draft) -> None:
    d.any_cluster()
    d.any_user()
    d.files["other"] = content
    names = ["other", "config"]
    d.random.shuffle(names)
    d.kubeconfig = ":".join(f"{ROOT}/{name}" for name in names)


for _title, _content in (
    ("nothing", b""),
    ("blanks", b"  \n \n"),
    ("a comment", b"# nothing\n"),
    ("null", b"null\n"),
    ("an empty map", b"{}"),
    ("a list", b"- a\n"),
    ("a text", b"hello\n"),
    ("a broken map", b"clusters: [\n"),
    ("another kind", b"kind: Pod\napiVersion: v1\n"),
    ("another version", b"kind: Config\napiVersion: v2\n"),
    ("tabs", b"clusters:\n\t- name: c\n"),
    ("binary", bytes(range(256))),
    ("a bad entry", b"clusters: [{name: z, cluster: {server: 12}}]\n"),
    ("entries twice", b"clusters: [{name: z, cluster: {server: a}}, {name: z, cluster: {server: b}}]\n"),
):
    FILES.add(f"beside {_title}", partial(_another, _content))


@FILES
def _first_entry_wins_whole(d: Draft) -> None:
    d.secured()
    d.with_token()
    d.write("config", d.whole())
    other = Draft(d.rig, d.random)
    other.at("plain", path="/second")
    other.with_basic()
    d.marks += other.marks
    document = other.whole()
    document["clusters"][0]["cluster"]["tls-server-name"] = "mixed.example.test"
    document["users"][0]["user"]["as"] = "mixed"
    d.write("second", document)
    names = ["second", "config"]
    d.random.shuffle(names)
    d.kubeconfig = ":".join(f"{ROOT}/{name}" for name in names)


@FILES
def _first_current_context_wins(d: Draft) -> None:
    d.at("plain", path="/first")
    d.with_token()
    one = d.whole()
    one["current-context"] = d.random.choice(("", "x", "z"))
    d.write("config", one)
    two = _part(
        [_named("d", {"server": f"http://127.0.0.1:{d.rig.port('plain')}/second"}, "cluster")],
        [],
        [_named("z", {"cluster": "d", "user": "u"}, "context")],
    )
    two["current-context"] = d.random.choice(("z", "x", ""))
    d.write("second", two)
    d.kubeconfig = f"{ROOT}/config:{ROOT}/second"
    d.context = None if one["current-context"] or two["current-context"] else "z"


def _any_merge(d: Draft) -> None:
    """Entries of three names each, at random in three files, some of them several times."""
    count = 3
    parts = [_part() for _ in range(count)]
    for number in range(3):
        for file in d.random.sample(range(count), d.random.randrange(1, count)):
            entry = Draft(d.rig, d.random)
            entry.at("plain", path=f"/{number}-{file}")
            if d.random.random() < 0.4:
                entry.secured(path=f"/{number}-{file}")
            entry.random.choice((entry.with_token, entry.with_basic, entry.with_certificate))()
            if d.random.random() < 0.3:
                entry.user["as"] = f"as-{number}-{file}"
            d.marks += entry.marks
            d.files |= {f"{file}/{name}": content for name, content in entry.files.items()}
            if d.random.random() < 0.8:
                parts[file].setdefault("clusters", []).append(_named(f"c{number}", entry.cluster, "cluster"))
            if d.random.random() < 0.8:
                parts[file].setdefault("users", []).append(_named(f"u{number}", entry.user, "user"))
            context = {"cluster": f"c{number}", "user": f"u{d.random.randrange(3)}"}
            parts[file].setdefault("contexts", []).append(_named(f"x{number}", context, "context"))
    for number, part in enumerate(parts):
        if d.random.random() < 0.5:
            part["current-context"] = f"x{d.random.randrange(3)}"
        d.write(f"{number}/config", part)
    d.kubeconfig = ":".join(f"{ROOT}/{number}/config" for number in range(count))
    d.context = f"x{d.random.randrange(3)}"
    d.files["config"] = b""


for _number in range(16):
    FILES.add(f"any merge {_number}", _any_merge)


def _contexts(document: dict[str, Any], context: str | None, reason: str, d: Draft) -> None:
    d.any_cluster()
    d.with_token()
    d.document = document
    d.context = context
    d.reason = reason


for _title, _document, _context, _reason in (
    ("unknown context", {}, "nope", ""),
    ("unknown current context", {"current-context": "nope"}, None, ""),
    ("no current context", {"current-context": ""}, None, "no context"),
    ("no contexts", {"contexts": [], "current-context": ""}, None, "no context"),
    ("unknown cluster", {"contexts": [_named("x", {"cluster": "nope", "user": "u"}, "context")]}, "x", "no server"),
    ("unknown user", {"contexts": [_named("x", {"cluster": "c", "user": "nope"}, "context")]}, "x", ""),
    ("no user", {"contexts": [_named("x", {"cluster": "c"}, "context")]}, "x", ""),
    ("no cluster", {"contexts": [_named("x", {"user": "u"}, "context")]}, "x", "no server"),
    ("empty context", {"contexts": [_named("x", {}, "context")]}, "x", "no server"),
    ("null context", {"contexts": [_named("x", None, "context")]}, "x", "no server"),
    ("namespace", {"contexts": [_named("x", {"cluster": "c", "user": "u", "namespace": "ns"}, "context")]}, "x", ""),
    ("context named with a slash", {"contexts": [_named("a/b:c@d", {"cluster": "c", "user": "u"}, "context")]},
     "a/b:c@d", ""),
    ("context with blanks", {"contexts": [_named(" a b ", {"cluster": "c", "user": "u"}, "context")]}, " a b ", ""),
    ("nameless context", {"contexts": [_named("", {"cluster": "c", "user": "u"}, "context")]}, None, "no context"),
):  # fmt: skip
    FILES.add(_title, partial(_contexts, _document, _context, _reason))
