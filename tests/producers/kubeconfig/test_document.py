"""One kubeconfig document: which types its keys have, what counts as absent, what is refused, and in which words."""

from __future__ import annotations

import base64
import json

import pytest

from producers.kubeconfig.document import Document, read
from producers.kubeconfig.entries import AuthProvider, Cluster, Context, Exec, Impersonation, User
from producers.kubeconfig.model import BadKubeconfig

PEM = base64.b64encode(b"pem").decode()
WHOLE = f"""
apiVersion: v1
kind: Config
preferences: {{colors: true}}
current-context: dev
unknown: [anything]
clusters:
- name: c
  cluster:
    server: https://a.example.com/prefix
    tls-server-name: b.example.com
    insecure-skip-tls-verify: yes
    certificate-authority: ../ca.pem
    certificate-authority-data: {PEM}
    proxy-url: socks5://p:1
    disable-compression: true
    extensions:
    - name: client.authentication.k8s.io/exec
      extension: {{z: 1e3, m: [1, 2.5], text: <a&b>}}
    - name: other
      extension: 5
users:
- name: u
  user:
    token: t
    tokenFile: tokens/t
    username: me
    password: p
    client-certificate: /abs/c.pem
    client-certificate-data: {PEM}
    client-key: k.pem
    client-key-data: {PEM}
    as: jane
    as-uid: "5"
    as-groups: [a, null]
    as-user-extra: {{b: [x], a: [v, z]}}
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: bin/plugin
      args: [a, ""]
      env: [{{name: ONE, value: v}}, {{name: TWO}}]
      provideClusterInfo: true
      installHint: get it
    auth-provider: {{name: oidc, config: {{client-id: i, id-token: null}}}}
contexts:
- name: dev
  context: {{cluster: c, user: u, namespace: shop}}
"""


def test_the_whole_of_it() -> None:
    found = read(WHOLE.encode(), "/home/f", "/home/kube")
    assert found == Document(
        "/home/f",
        {
            "c": Cluster(
                server="https://a.example.com/prefix",
                tls_server_name="b.example.com",
                insecure=True,
                authority_file="/home/ca.pem",
                authority_data=b"pem",
                proxy_url="socks5://p:1",
                disable_compression=True,
                exec_config=b'{"m":[1,2.5],"text":"\\u003ca\\u0026b\\u003e","z":1000}',
            )
        },
        {
            "u": User(
                token="t",
                token_file="/home/kube/tokens/t",
                username="me",
                password="p",
                certificate_file="/abs/c.pem",
                certificate_data=b"pem",
                key_file="/home/kube/k.pem",
                key_data=b"pem",
                impersonation=Impersonation("jane", "5", ("a", ""), (("a", ("v", "z")), ("b", ("x",)))),
                exec=Exec(
                    "client.authentication.k8s.io/v1beta1",
                    "/home/kube/bin/plugin",
                    ("a", ""),
                    (("ONE", "v"), ("TWO", "")),
                    "IfAvailable",
                    True,
                    "get it",
                ),
                auth_provider=AuthProvider("oidc", (("client-id", "i"), ("id-token", ""))),
            )
        },
        {"dev": Context("c", "u", "shop")},
        "dev",
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "null", "kind: Config", "clusters: null", "apiVersion: ''"])
def test_empty_ones(text: str) -> None:
    assert read(text.encode(), "f", "/") == Document("f")


def test_null_is_absent() -> None:
    text = "{clusters: [null, {name: c, cluster: null}], users: [{name: u, user: null}], contexts: [{name: x}]}"
    found = read(text.encode(), "f", "/")
    assert (found.clusters, found.users) == ({"": Cluster(), "c": Cluster()}, {"u": User()})
    assert found.contexts == {"x": Context()}
    text = "{users: [{name: u, user: {exec: null, auth-provider: null, client-key-data: null, token: ~}}]}"
    assert read(text.encode(), "f", "/").users == {"u": User()}


def test_what_json_says_is_the_same() -> None:
    text = json.dumps({"clusters": [{"name": "c", "cluster": {"server": "x"}}]}, indent="\t")
    assert read(text.encode(), "f", "/").clusters == {"c": Cluster("x")}


def test_paths_and_commands() -> None:
    text = """users:
- name: u
  user: {tokenFile: ~/t, exec: {command: plugin}}
- name: v
  user: {tokenFile: $HOME/t, exec: {command: ./plugin}}
- name: w
  user: {tokenFile: 'a/../t ', exec: {command: /bin/../plugin}}
"""
    users = read(text.encode(), "f", "/base").users
    assert [user.token_file for user in users.values()] == ["/base/~/t", "/base/$HOME/t", "/base/t "]
    commands = [user.exec.command for user in users.values() if user.exec is not None]
    assert commands == ["plugin", "/base/plugin", "/bin/../plugin"]


def user(text: str) -> str:
    return f"users: [{{name: ann, user: {{{text}}}}}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just SECRET words", "not a text"),
        ("[SECRET]", "not a list"),
        ("kind: Pod", "kind is 'Pod', not Config"),
        ("apiVersion: v2", "apiVersion is 'v2', not v1"),
        ("clusters: {a: SECRET}", "clusters: a list is expected, not a mapping"),
        ("clusters: [SECRET]", r"clusters\[0\]: a mapping is expected"),
        ("clusters: [{name: a}, {name: a}]", r"clusters\[a\]: the name is there twice"),
        ("users: [{name: a}, {name: a}]", r"users\[a\]: the name is there twice"),
        ("contexts: [{name: a}, {name: a}]", r"contexts\[a\]: the name is there twice"),
        ("users: [{name: no}]", r"users\[0\].name: a text \(quote it\) is expected, not a boolean"),
        ("users: [{name: 0123}]", r"users\[0\].name: a text \(quote it\) is expected, not a number"),
        ("preferences: []", "preferences: a mapping is expected"),
        (
            "clusters: [{name: c, cluster: {insecure-skip-tls-verify: 'true'}}]",
            r"clusters\[c\].*-verify: true or false",
        ),
        ("clusters: [{name: c, cluster: {certificate-authority-data: a-_=}}]", r"clusters\[c\].*-data: no base64"),
        (user("token: 12345"), r"users\[ann\].user.token: a text \(quote it\) is expected, not a number"),
        (user("token: [SECRET]"), r"users\[ann\].user.token: a text is expected, not a list"),
        (user("client-key-data: SECRET"), r"users\[ann\].user.client-key-data: "),
        (user("exec: SECRET"), r"users\[ann\].user.exec: a mapping"),
        (user("exec: {args: [5]}"), r"users\[ann\].user.exec.args: a list of texts"),
        (user("exec: {env: [{name: ONE, value: 5}]}"), r"users\[ann\].user.exec.env\[ONE\].value: a text"),
        (user("as-groups: SECRET"), r"users\[ann\].user.as-groups: a list of texts"),
        (user("as-user-extra: {a: SECRET}"), r"users\[ann\].user.as-user-extra.a: a list of texts"),
        (user("auth-provider: {name: oidc, config: {id-token: [SECRET]}}"), "config.id-token: a text"),
        ("users: [{name: ann, user: {token: SECRET, token2: [}}]", "is no YAML: line 1, column"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadKubeconfig, match=said) as caught:
        read(text.encode(), "/a/config", "/a")
    assert str(caught.value).startswith("/a/config is no ")
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
