"""What plugins are given and what they answer: each rule of client-go, and that no message shows an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from producers.credentials.credential import BadCredentials
from producers.credentials.exec_credential import VERSIONS, exec_info, read_answer
from producers.kubeconfig.entries import Cluster
from tests.producers.credentials.conftest import Pair

V1, V1BETA1 = VERSIONS


def answer(**status: object) -> bytes:
    return json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": status}).encode()


def test_what_a_plugin_is_told() -> None:
    assert (
        exec_info(V1, None, b"")
        == '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}\n'
    )
    plain = json.loads(exec_info(V1BETA1, Cluster("https://a.test:6443/prefix/?x=y#z"), b""))
    assert plain["apiVersion"] == V1BETA1
    assert plain["spec"]["cluster"] == {"server": "https://a.test:6443/prefix/", "config": None}
    whole = Cluster(
        server="https://a.test?x",
        tls_server_name="b.test",
        insecure=True,
        authority_file="/ca",
        proxy_url="socks5://c.test",
        disable_compression=True,
        exec_config='{"audience":"ü","n":1}'.encode(),
    )
    assert json.loads(exec_info(V1, whole, b"pem"))["spec"] == {
        "cluster": {
            "server": "https://a.test?x",
            "tls-server-name": "b.test",
            "insecure-skip-tls-verify": True,
            "certificate-authority-data": "cGVt",
            "proxy-url": "socks5://c.test",
            "disable-compression": True,
            "config": {"audience": "ü", "n": 1},
        },
        "interactive": False,
    }


YAML = f"""\
apiVersion: {V1}
kind: ExecCredential
status:
  token: s3cret  # with a comment
  other: [1, 2]
"""


@pytest.mark.parametrize(
    "stdout",
    [
        answer(token="s3cret"),
        b"\n\t " + answer(token="s3cret") + b"\n\n",
        b"\xef\xbb\xbf" + answer(token="s3cret"),
        YAML.encode(),
        b"\xef\xbb\xbf" + YAML.encode(),
        f"---\n{YAML}".encode(),
        json.dumps({"apiVersion": V1, "status": {"token": "s3cret"}, "spec": {"y": 5}, "x": {}}).encode(),
        answer(token="s3cret", clientCertificateData="", clientKeyData=None, expirationTimestamp=None),
    ],
)
def test_answers_that_are_taken(stdout: bytes) -> None:
    found = read_answer(stdout, V1, "plugin p")
    assert found.shown.headers == (("Authorization", "Bearer s3cret"),)
    assert found.shown.certificate is None
    assert found.expires is None
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [
        (b"", "no ExecCredential"),
        (b"\n \n", "no ExecCredential"),
        (b"s3cret", "no ExecCredential"),
        (b"[1]", "no ExecCredential"),
        (b"null", "no ExecCredential"),
        (b"Logging in ...\n" + answer(token="s3cret"), "neither JSON nor YAML"),
        (answer(token="s3cret") + b"bye", "begins as JSON"),
        (answer(token="s3cret") * 2, "begins as JSON"),
        (answer(token="s3cret")[:-9], "begins as JSON"),
        (b'{"status": {"token": "s3cret \xc3', "begins as JSON"),
        (b"token: s3cret \xc3", "neither JSON nor YAML"),
        (b"token: 's3cret\0'", "neither JSON nor YAML"),
        (b"{" * 100_000, "begins as JSON"),
        (b"- " * 100_000, "neither JSON nor YAML"),
        (b"a: &a [s3cret]\nb: [" + b",".join([b"*a"] * 20_000) + b"]", "neither JSON nor YAML"),
        (json.dumps({"status": {"token": "s3cret"}}).encode(), "answered in another version"),
        (json.dumps({"apiVersion": V1BETA1, "status": {"token": "s3cret"}}).encode(), f"answered in {V1BETA1}"),
        (json.dumps({"apiVersion": "s3cret", "status": {}}).encode(), "another version"),
        (json.dumps({"apiVersion": [V1], "status": {}}).encode(), "another version"),
        (json.dumps({"apiVersion": V1, "spec": 5, "status": {"token": "s3cret"}}).encode(), "spec that is no object"),
        (answer(token="s3cret").replace(b'"kind"', b'"x": NaN, "kind"'), "begins as JSON"),
        (json.dumps({"apiVersion": V1, "kind": "Secret", "status": {}}).encode(), "another kind"),
        (json.dumps({"apiVersion": V1}).encode(), "without a status"),
        (json.dumps({"apiVersion": V1, "status": None}).encode(), "without a status"),
        (json.dumps({"apiVersion": V1, "status": "s3cret"}).encode(), "status that is no object"),
        (json.dumps({"apiVersion": V1, "Status": {"token": "s3cret"}}).encode(), "without a status"),
        (answer(), "neither a token nor"),
        (answer(Token="s3cret"), "neither a token nor"),
        (answer(token=12345), "token that is no text"),
        (answer(token=["s3cret"]), "token that is no text"),
        (answer(token="s3cret\n"), "control characters, such as a line break at its end"),
        (answer(token="s3cret", clientKeyData="s3cret"), "only a certificate or a key"),
        (answer(clientCertificateData="s3cret"), "only a certificate or a key"),
        (answer(token="s3cret", clientCertificateData="s3cret", clientKeyData="s3cret"), "no certificate in PEM"),
        (answer(token="s3cret", expirationTimestamp=""), "RFC 3339"),
        (answer(token="s3cret", expirationTimestamp=1), "RFC 3339"),
        (answer(token="s3cret", expirationTimestamp="s3cret"), "RFC 3339"),
        (answer(token="s3cret", expirationTimestamp="2030-01-01T00:00:00"), "RFC 3339"),
        (answer(token="s3cret", expirationTimestamp="2030-01-01 00:00:00Z"), "RFC 3339"),
        (answer(token="s3cret", expirationTimestamp="2030-02-30T00:00:00Z"), "that is no time"),
    ],
)  # fmt: skip
def test_answers_that_are_refused(stdout: bytes, reason: str) -> None:
    with pytest.raises(BadCredentials, match=reason) as refused:
        read_answer(stdout, V1, "plugin p")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert str(refused.value).startswith(("plugin p ", "the token of plugin p ", "the certificate of plugin p"))


def test_what_is_no_text_is_replaced() -> None:
    for token in (b"t\xff", b"t\\ud800"):
        found = read_answer(answer(token="t?").replace(b"t?", token), V1, "plugin p")
        assert found.shown.headers == (("Authorization", "Bearer t\ufffd"),)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-02T03:04:05Z", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()),
        ("2030-01-02T03:04:05.25Z", datetime(2030, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC).timestamp()),
        ("2030-01-02T03:04:05.123456789012+02:00", datetime(2030, 1, 2, 1, 4, 5, 123456, tzinfo=UTC).timestamp()),
        ("2030-01-01T00:00:00-05:30", datetime(2030, 1, 1, 5, 30, tzinfo=UTC).timestamp()),
        ("0001-01-01T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", float("-inf")),
    ],
)
def test_expiry(text: str, moment: float | None) -> None:
    found = read_answer(answer(token="t", expirationTimestamp=text), V1, "plugin p").expires
    assert found == (moment if moment is None else pytest.approx(moment, abs=1e-5))


def test_a_certificate_comes_along_with_a_token_or_alone(issue: Callable[[str], Pair]) -> None:
    pair = issue("ann")
    both = {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()}
    alone = read_answer(answer(**both), V1, "plugin p").shown
    assert alone.headers == ()
    assert alone.certificate is not None
    together = read_answer(answer(token="t", **both), V1, "plugin p").shown
    assert together.headers == (("Authorization", "Bearer t"),)
    assert together.certificate == alone.certificate
    both["clientKeyData"] = issue("bob").key.decode()
    with pytest.raises(BadCredentials, match="another certificate's"):
        read_answer(answer(**both), V1, "plugin p")
