"""Kubeconfig files: which ones, merged, each parsed once; what of them cannot be used, and what objects may not say."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from producers.kubeconfig.document import Document, read
from producers.kubeconfig.files import Files, access_of, directory_files, file_state, inline_access, paths_of
from producers.kubeconfig.identity import identity_kind, server_shown
from producers.kubeconfig.in_cluster import in_cluster
from producers.kubeconfig.merged import LeftOut
from producers.kubeconfig.model import BadKubeconfig
from producers.kubeconfig.single import alone
from producers.kubeconfig.yaml_values import dump
from tests.producers.kubeconfig.test_document import WHOLE

PEM = base64.b64encode(b"pem").decode()


def entries(
    *, cluster: object = None, user: object = None, name: str = "dev", current: str | None = None, **more: object
) -> dict[str, object]:
    """A document with one context, of a cluster and a user with the same name."""
    return {
        "clusters": [
            {"name": name, "cluster": cluster if cluster is not None else {"server": "https://a.example.com"}}
        ],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        **({"current-context": current} if current else {}),
        **more,
    }


def write(path: Path, document: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(document))
    return str(path)


# -- which files -------------------------------------------------------------------------------------------------------


def test_which_files_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    assert paths_of("") == [str(tmp_path / ".kube" / "config")]
    monkeypatch.setenv("KUBECONFIG", "/a::/b:/a:~/c: d")
    assert paths_of("") == ["/a", "/b", "~/c", " d"], "nothing is expanded, and each is read once"
    odd = write(tmp_path / "one:two", {})
    assert paths_of(odd) == [odd], "one file's name may have a colon"
    assert paths_of("/a:~/c") == ["/a", str(tmp_path / "c")]


def test_files_are_merged(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "config", entries(user={"client-certificate": "c.pem", "client-key-data": PEM}))
    other = entries(name="prod", user={"client-certificate": "c.pem", "client-key": "k.pem"}, current="prod")
    # Of the same name in another file nothing is taken, not even what the first does not say.
    other["users"] = [*list(other["users"]), {"name": "dev", "user": {"username": "x"}}]  # type: ignore[call-overload]
    two = write(tmp_path / "b" / "config", other)
    for file in ("a/c.pem", "b/c.pem", "b/k.pem"):
        (tmp_path / file).write_text("pem")
    found = Files().kubeconfig(f"{one}:{tmp_path / 'none'}:{two}")
    assert list(found.contexts) == ["dev", "prod"]
    assert found.current_context == "prod"
    dev, prod = found.access("dev"), found.access("prod")
    assert (dev.problem, prod.problem) == ("", "")
    # Relative to the file that names them.
    assert dev.user.certificate_file == str(tmp_path / "a" / "c.pem")
    assert (prod.user.certificate_file, prod.user.key_file) == (str(tmp_path / "b/c.pem"), str(tmp_path / "b/k.pem"))
    assert dev.user.username == ""
    assert found.left_out == (LeftOut(two, users=("dev",)),)
    assert found.one_context("x") == "prod"


def test_the_same_names_in_two_files(tmp_path: Path) -> None:
    """As kubeadm names them all: the contexts say the same words, and mean two clusters."""
    one = write(tmp_path / "a", entries(name="kubernetes"))
    two = write(tmp_path / "b", entries(name="kubernetes", cluster={"server": "https://b.example.com"}))
    found = Files().kubeconfig(f"{one}:{two}")
    assert found.access("kubernetes").cluster.server == "https://a.example.com"
    assert found.left_out == (LeftOut(two, ("kubernetes",), (), ("kubernetes",)),)
    same = write(tmp_path / "c", entries(name="kubernetes"))
    assert Files().kubeconfig(f"{one}:{same}").left_out == (), "a copy says nothing else"


def test_a_file_that_cannot_be_read_fails_all(tmp_path: Path) -> None:
    good = write(tmp_path / "good", entries())
    broken = tmp_path / "broken"
    broken.write_text("clusters: [")
    for other in (broken, tmp_path, tmp_path / "good" / "below"):
        with pytest.raises(BadKubeconfig, match=str(other)):
            Files().kubeconfig(f"{good}:{other}")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadKubeconfig, match="loop"):
        Files().kubeconfig(f"{good}:{tmp_path / 'loop'}")


def test_a_file_is_parsed_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def counting(text: bytes, where: str, folder: str, *more: Any) -> Document:
        parsed.append(where)
        return read(text, where, folder, *more)

    monkeypatch.setattr("producers.kubeconfig.files.read", counting)
    path = Path(write(tmp_path / "config", entries()))
    files = Files()
    first = files.kubeconfig(str(path)).access("dev")
    before = file_state(str(path))
    os.utime(path, ns=(5, 5))
    assert file_state(str(path)) != before
    assert files.kubeconfig(str(path)).access("dev") == first
    assert parsed == [str(path)]
    write(path, entries(cluster={"server": "https://c.example.com"}))
    assert files.kubeconfig(str(path)).access("dev") != first
    path.write_text("clusters: [")
    for _ in range(3):
        with pytest.raises(BadKubeconfig):
            files.kubeconfig(str(path))
    assert len(parsed) == 3
    path.unlink()
    assert files.kubeconfig(str(path)).empty
    write(path, entries())
    assert files.kubeconfig(str(path)).access("dev") == first


def test_equal_entries_are_equal_access(tmp_path: Path) -> None:
    path = tmp_path / "config"
    document = entries(user={"exec": {"command": "./p", "apiVersion": "client.authentication.k8s.io/v1beta1"}})
    write(path, document)
    before = access_of(str(path), "dev")
    assert before.problem == ""
    # Another order, another entry, comments: this one is as it was.
    write(path, {"current-context": "dev", **document, "users": [*list(document["users"]), {"name": "z"}]})  # type: ignore[call-overload]
    path.write_text(f"# edited\n{path.read_text()}")
    assert access_of(str(path)) == before
    assert hash(access_of(str(path))) == hash(before)


# -- what cannot be used -----------------------------------------------------------------------------------------------

HTTPS, HTTP = "https://a.example.com", "http://a.example.com"
EXEC = {"command": "p", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ({}, {}, "cluster 'dev' of FILE: no server"),
        ({"server": ""}, {}, "no server"),
        ({"certificate-authority": "none.pem"}, {}, "certificate-authority .*none.pem: No such file"),
        ({"server": HTTP, "certificate-authority": "none.pem"}, {}, "No such file"),
        ({"certificate-authority": "ca.pem", "certificate-authority-data": PEM}, {}, "both given"),
        ({"insecure-skip-tls-verify": True, "certificate-authority-data": PEM}, {}, "insecure-skip-tls-verify and"),
        ({"insecure-skip-tls-verify": True, "certificate-authority": "ca.pem"}, {}, "insecure-skip-tls-verify and"),
        ({"proxy-url": "socks5h://SECRET@p"}, {}, "proxy-url"),
        ({"proxy-url": "SECRET:8080"}, {}, "proxy-url"),
        (None, {"token": "SECRET", "username": "u"}, "user 'dev' of FILE: token and username"),
        (None, {"token": "SECRET", "password": "SECRET"}, "token and username or password"),
        (None, {"tokenFile": "t", "username": "u"}, "tokenFile and username"),
        (None, {"token": "SECRET\n"}, "token: .*control characters"),
        (None, {"client-certificate-data": PEM}, "without client-key"),
        (None, {"client-certificate": "ca.pem", "client-certificate-data": PEM, "client-key-data": PEM}, "both given"),
        (None, {"client-certificate-data": PEM, "client-key": "ca.pem", "client-key-data": PEM}, "both given"),
        (None, {"client-certificate": "no.pem", "client-key-data": PEM}, "client-certificate .*no.pem: No such"),
        (None, {"client-certificate-data": PEM, "client-key": "no.pem"}, "client-key .*no.pem: No such"),
        (None, {"exec": EXEC, "auth-provider": {"name": "oidc"}}, "exec and auth-provider"),
        (None, {"exec": {}}, "command is missing.*apiVersion is missing.*interactiveMode is missing"),
        (None, {"exec": {**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}}, "apiVersion is none of"),
        (None, {"exec": {**EXEC, "interactiveMode": "never"}}, "interactiveMode is none of"),
        (None, {"exec": {**EXEC, "interactiveMode": ""}}, "interactiveMode is missing"),
        (None, {"exec": {**EXEC, "env": [{"value": "SECRET"}]}}, "env has an item without name"),
        (None, {"auth-provider": {"name": "gcp"}}, "gke-gcloud-auth-plugin"),
        (None, {"token": "SECRET", "auth-provider": {"name": "azure"}}, "kubelogin"),
        (None, {"auth-provider": {"name": "other"}}, "none but oidc"),
        (None, {"auth-provider": {"name": "oidc", "config": {"client-id": "i"}}}, "idp-issuer-url is missing"),
        (None, {"as-groups": ["g"]}, "give `as`"),
        (None, {"as-uid": "5"}, "give `as`"),
        (None, {"as-user-extra": {"a": ["b"]}}, "give `as`"),
        ({"server": HTTP}, {"as": "SECRET\n"}, "control characters"),
        # Taken by kubectl.
        ({"server": HTTP, "insecure-skip-tls-verify": True, "certificate-authority-data": PEM}, {}, None),
        ({"server": HTTP}, {"tokenFile": "t", "username": "u"}, None),
        ({"server": HTTP}, {"auth-provider": {"name": "gcp"}}, None),
        ({"server": "a.example.com:6443"}, {"token": "t\n"}, None),
        ({"server": "HTTPS://a.example.com", "proxy-url": "SOCKS5://u:p@p:1"}, {"token": "t"}, None),
        ({"certificate-authority": "ca.pem"}, {"client-certificate-data": PEM, "client-key": "ca.pem"}, None),
        (None, {"client-key": "none.pem"}, None),
        (None, {"token": "t", "exec": EXEC}, None),
        (None, {"token": "t\n", "tokenFile": "t"}, None),
        (None, {"tokenFile": "none"}, None),
        (None, {"as": "jane", "as-groups": ["g"], "as-user-extra": {"a": []}}, None),
        (None, {"exec": {**EXEC, "apiVersion": "client.authentication.k8s.io/v1beta1", "interactiveMode": None}}, None),
    ],
)
def test_what_kubectl_refuses_is_that_clusters_problem(
    tmp_path: Path, cluster: dict[str, Any] | None, user: dict[str, Any], said: str | None
) -> None:
    (tmp_path / "ca.pem").write_text("pem")
    if cluster:
        cluster = {"server": HTTPS, **cluster}
    path = write(tmp_path / "config", entries(cluster=cluster, user=user))
    access = access_of(path)
    assert access.name == "dev"
    if said is None:
        assert access.problem == ""
        return
    assert re.search(said.replace("FILE", re.escape(path)), access.problem), access.problem
    assert "\n" not in access.problem
    assert "SECRET" not in access.problem
    assert "SECRET" not in repr(access) or (cluster or {}).get("proxy-url") or user.get("as")


def test_contexts_that_lead_nowhere(tmp_path: Path) -> None:
    document = entries()
    document["contexts"] = [
        {"name": "lost", "context": {"cluster": "none", "user": "dev"}},
        {"name": "empty", "context": None},
        {"name": "anyone", "context": {"cluster": "dev", "user": "none"}},
    ]
    path = write(tmp_path / "config", document)
    found = Files().kubeconfig(path)
    assert "there is no cluster 'none'" in found.access("lost").problem
    assert "names no cluster" in found.access("empty").problem
    assert found.access("anyone").problem == "", "as kubectl: an unknown user is nobody"
    with pytest.raises(BadKubeconfig, match=r"no context 'other' in .*; it has anyone, empty, lost"):
        found.access("other")
    with pytest.raises(BadKubeconfig, match="3 contexts and no current-context"):
        access_of(path)
    with pytest.raises(BadKubeconfig, match="'gone' is not among"):
        access_of(write(tmp_path / "other", entries(current="gone")))


# -- objects of a host cluster -----------------------------------------------------------------------------------------


def test_inline() -> None:
    found = inline_access("east", yaml.safe_dump(entries(user={"token": "t"})).encode(), "secret east")
    assert (found.name, found.problem, found.where) == ("east", "", "secret east")
    assert (found.cluster.server, found.user.token) == (HTTPS, "t")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entries(user={"exec": EXEC}), r"users\[dev\].exec is not allowed"),
        (entries(user={"auth-provider": {"name": "gcp"}}), r"users\[dev\].auth-provider is not allowed"),
        (entries(user={"tokenFile": "/etc/shadow"}), "tokenFile is not allowed"),
        (entries(user={"client-certificate": "/c"}), "client-certificate is not allowed"),
        (entries(user={"client-key": "/c"}), "client-key is not allowed"),
        (entries(cluster={"server": HTTPS, "certificate-authority": "/c"}), "certificate-authority is not allowed"),
        (entries(user={"token": "SECRET\n"}), "control characters"),
        (entries(user={"client-certificate-data": PEM}), "without client-key"),
        (entries(current="none"), "current-context"),
        ({}, "0 contexts"),
        (b"SECRET: [", "secret east is no YAML"),
        (b"[" * 200, "levels"),
        (b"- " * 300_000, "levels|nesting"),
        (b"x: " + b"a" * 3_000_000, "are allowed"),
        (b"\xff\xfe\x00", "secret east is no YAML"),
        (b"just words", "is no kubeconfig"),
    ],
)
def test_what_an_object_may_not_say(text: object, said: str) -> None:
    written = text if isinstance(text, bytes) else dump(text).encode()
    found = inline_access("east", written, "secret east")
    assert re.search(said, found.problem), found.problem
    assert "SECRET" not in found.problem
    assert "\n" not in found.problem
    # Nothing of it is left that somebody could use.
    assert found.user.exec is None


BROKEN = [
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"[",
        b"]",
        b"{",
        b"}",
        b": ",
        b"- ",
        b"\n",
        b"\t",
        b"!!binary ",
        b"!!int ",
        b"\xff",
        b"\x00",
    ),
    *(
        b"'",
        b'"',
        b"|",
        b">",
        b"? ",
        b"\\/",
        b"null",
        b"5",
        b"yes",
        b"---\n",
        b"...\n",
        b"\xef\xbb\xbf",
        b"#",
        b",",
        b"@",
        b"~",
    ),
]


def test_whatever_stands_there_is_taken_or_refused_in_one_line() -> None:
    chance = random.Random(1)
    whole = WHOLE.encode()
    taken = 0
    for _ in range(1_500):
        text = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(text))
            if chance.random() < 0.3:
                del text[at : at + chance.randint(1, 20)]
            else:
                text[at:at] = chance.choice(BROKEN)
        found = inline_access("east", bytes(text), "secret east")
        assert "\n" not in found.problem
        assert server_shown(found.cluster.server) or found.problem
        with contextlib.suppress(BadKubeconfig):
            read(bytes(text), "/f", "/")
            taken += 1
    assert 50 < taken < 1_000


@pytest.mark.parametrize(
    ("cluster", "user", "kind"),
    [
        (HTTPS, {}, "anonymous"),
        (HTTPS, {"token": "t", "exec": EXEC}, "token"),
        (HTTPS, {"token": "t", "tokenFile": "f"}, "token file"),
        (HTTPS, {"client-certificate-data": PEM, "client-key-data": PEM, "exec": EXEC}, "client certificate"),
        (
            HTTPS,
            {"client-certificate-data": PEM, "client-key-data": PEM, "username": "u"},
            "client certificate, user name and password",
        ),
        (HTTPS, {"exec": EXEC, "as": "jane"}, "exec plugin, acting as another"),
        (HTTPS, {"auth-provider": {"name": "oidc"}}, "oidc"),
        (HTTP, {"token": "t", "as": "jane"}, "anonymous, acting as another"),
        ("a.example.com:80", {"token": "t"}, "anonymous"),
        ("http://u:p@a.example.com", {"token": "t"}, "user name in the URL"),
    ],
)
def test_kinds_of_identity(tmp_path: Path, cluster: str, user: dict[str, Any], kind: str) -> None:
    assert identity_kind(access_of(write(tmp_path / "c", entries(cluster={"server": cluster}, user=user)))) == kind


def test_servers_are_shown_without_a_password() -> None:
    shown = {
        "https://u:SECRET@a:1/p@q?SECRET#SECRET": "https://a:1/p@q",
        "u:SECRET@a:1": "a:1",
        "https://[::1]:5": "https://[::1]:5",
        "https://u@[oops": "https://[oops",
        "10.0.0.1:6443": "10.0.0.1:6443",
    }
    assert {server: server_shown(server) for server in shown} == shown


# -- directories, one context by itself, the cluster we are in ---------------------------------------------------------


def test_files_of_a_directory(tmp_path: Path) -> None:
    for name in ("east.yaml", "west.kubeconfig", "north", ".hidden", "south.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "below").mkdir()
    assert list(directory_files(str(tmp_path))) == ["east", "north", "south", "west"]
    with pytest.raises(BadKubeconfig, match="No such file"):
        directory_files(str(tmp_path / "none"))


def test_one_context_by_itself_says_the_same(tmp_path: Path) -> None:
    cluster = {
        "server": HTTPS,
        "tls-server-name": "n",
        "certificate-authority": "ca.pem",
        "proxy-url": "http://p",
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": [1, "y"]}}],
    }
    user = {
        "client-certificate": "ca.pem",
        "client-key-data": PEM,
        "token": "1e3",
        "as": "y",
        "as-groups": ["no"],
        "as-user-extra": {"k": ["v"]},
        "exec": {**EXEC, "command": "bin/p", "args": ["0x1f"], "env": [{"name": "A", "value": "~"}]},
    }
    (tmp_path / "ca.pem").write_text("pem")
    path = write(tmp_path / "config", entries(cluster=cluster, user=user))
    was = access_of(path, "dev")
    made = write(tmp_path / "other" / "made", alone(Files().kubeconfig(path), "dev", "mine"))
    now = access_of(made)
    (tmp_path / "ca.pem").unlink()
    assert access_of(made) == now, "it stands by itself"
    assert now.problem == ""
    assert now.name == "mine"
    assert now.cluster.authority_data == b"pem"
    assert now.user.certificate_data == b"pem"
    assert now.user.exec == was.user.exec
    assert now.user.exec is not None
    assert now.user.exec.command == str(tmp_path / "bin/p")
    assert (now.user.token, now.user.impersonation) == (was.user.token, was.user.impersonation)
    assert now.cluster.exec_config == was.cluster.exec_config == b'{"a":[1,"y"]}'
    with pytest.raises(BadKubeconfig, match="No such file"):
        alone(Files().kubeconfig(path), "dev", "mine")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def make(host: str, port: str, *names: str) -> str:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        for name in names:
            (tmp_path / name).write_text("x")
        return str(tmp_path)

    return make


def test_in_cluster(tmp_path: Path, pod: Callable[..., str]) -> None:
    assert in_cluster("host", pod("10.0.0.1", "443")) is None, "no token"
    assert in_cluster("host", pod("", "443", "token")) is None
    assert in_cluster("host", pod("10.0.0.1", "", "token")) is None
    found = in_cluster("host", pod("10.0.0.1", "443", "token"))
    assert found is not None
    assert (found.cluster.server, found.cluster.authority_file) == ("https://10.0.0.1:443", "")
    found = in_cluster("host", pod("fd00::1", "443", "ca.crt"))
    assert found is not None
    assert (found.cluster.server, found.cluster.authority_file) == ("https://[fd00::1]:443", str(tmp_path / "ca.crt"))
    assert found.user.token_file == str(tmp_path / "token")
