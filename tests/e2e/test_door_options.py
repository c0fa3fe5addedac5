"""Options that guard a listening address: what they make, and what is said where they contradict each other."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kubebraid.command.doors import AuditLog, Doors, FrontProxy, TokenReviewer
from kubebraid.command.options.doors import with_doors, with_tls
from kubebraid.command.settings import BadSetting
from query.http.connections import ConnectionLimits
from query.http.limits import RequestLimits


def made(*arguments: str, tls: bool = False) -> Doors:
    """What a command gets that is given these arguments. Raises BadSetting."""
    found: list[Doors] = []

    def command(doors: Doors, more: str = "") -> None:
        found.append(doors)

    app = typer.Typer(add_completion=False)
    app.command()((with_tls if tls else with_doors)(command))
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, BadSetting):
        raise result.exception
    assert result.exit_code == 0, result.output
    return found[0]


def test_nothing_said_is_what_loopback_has() -> None:
    doors = made()
    assert doors == Doors()
    assert not doors.secure
    assert not doors.guarded
    assert doors.serving_context() is None
    assert (doors.requests.reading, doors.requests.mutating) == (400, 200)
    assert doors.connections.body == 3 * 1024 * 1024
    assert made(tls=True) == Doors()


def test_everything_said() -> None:
    given = {
        "--tls-cert-file": "tls.crt",
        "--tls-private-key-file": "tls.key",
        "--tls-san": "a.example,10.0.0.1",
        "--client-ca-file": "clients.crt",
        "--requestheader-client-ca-file": "proxies.crt",
        "--requestheader-allowed-names": "front-proxy-client,other",
        "--requestheader-username-headers": "X-User",
        "--token-auth-file": "tokens",
        "--authentication-config": "authentication.yaml",
        "--token-review-cluster": "alpha",
        "--api-audiences": "kubebraid",
        "--authorization-mode": "Members,Policy",
        "--authorization-policy-file": "policy.yaml",
        "--allow-origin": r"^https://console\.example$",
        "--max-requests-inflight": "1",
        "--max-mutating-requests-inflight": "2",
        "--max-requests-per-user": "3",
        "--max-watches": "4",
        "--max-watches-per-user": "5",
        "--max-connections": "6",
        "--max-request-body": "1Mi",
        "--audit-policy-file": "audit.yaml",
        "--audit-log-path": "audit.log",
        "--audit-log-maxsize": "7",
        "--audit-log-maxbackup": "8",
        "--audit-log-maxage": "9",
    }
    doors = made(*(part for pair in given.items() for part in pair), "--tls-san", "b.example", "--no-anonymous-auth")
    assert doors == Doors(
        certificate=Path("tls.crt"),
        key=Path("tls.key"),
        names=("a.example", "10.0.0.1", "b.example"),
        client_authorities=(Path("clients.crt"),),
        front_proxy=FrontProxy(Path("proxies.crt"), names=("front-proxy-client", "other"), user_headers=("X-User",)),
        tokens=Path("tokens"),
        authentication=Path("authentication.yaml"),
        token_reviewer=TokenReviewer("alpha", audiences=("kubebraid",)),
        anonymous=False,
        authorizers=("Members", "Policy"),
        policy=Path("policy.yaml"),
        origins=(r"^https://console\.example$",),
        requests=RequestLimits(1, 2, 3, 4, 5),
        connections=ConnectionLimits(most=6, body=1024 * 1024),
        audit=AuditLog(Path("audit.yaml"), Path("audit.log"), 7 * 1024 * 1024, 8, 9),
    )
    assert doors.secure
    assert doors.guarded
    files = doors.serving_files()
    assert files is not None
    # Both of whom a certificate may be asked for.
    assert files.client_authorities == (Path("clients.crt"), Path("proxies.crt"))
    # It goes along to workers.
    assert pickle.loads(pickle.dumps(doors)) == doors


def test_a_key_in_the_same_file() -> None:
    files = made("--tls-cert-file", "both.pem", tls=True).serving_files()
    assert files is not None
    assert (files.certificate, files.key, files.client_authorities) == (Path("both.pem"), Path("both.pem"), ())


@pytest.mark.parametrize(
    "option",
    ["--client-ca-file", "--requestheader-client-ca-file", "--token-auth-file", "--authentication-config"],
)
def test_each_of_them_guards(option: str) -> None:
    doors = made(option, "file")
    assert doors.guarded
    assert doors.authenticates
    assert not doors.secure
    # With a certificate that is made here it is https.
    assert dataclasses.replace(doors, own=True).secure


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tls-private-key-file", "k"), "--tls-cert-file"),
        (("--requestheader-allowed-names", "a"), "--requestheader-client-ca-file"),
        (("--requestheader-group-headers", "a"), "--requestheader-client-ca-file"),
        (("--api-audiences", "a"), "say who reviews them"),
        (
            ("--token-review-cluster", "a", "--authentication-token-webhook-config-file", "b"),
            "both say who is asked about tokens",
        ),
        (
            ("--authorization-config", "a", "--authorization-mode", "Members"),
            "--authorization-mode is said in the file",
        ),
        (("--authorization-config", "a", "--authorization-policy-file", "b"), "--authorization-policy-file is said"),
        (("--allow-origin", "https://console"), "--allow-origin 'https://console': it says not where"),
        (("--max-request-body", "much"), "--max-request-body much"),
        (("--audit-log-path", "a"), "--audit-policy-file"),
    ],
)
def test_what_contradicts_itself(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadSetting) as found:
        made(*arguments)
    assert said in str(found.value)
    assert "\n" not in str(found.value)
