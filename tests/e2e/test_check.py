"""`kubebraid check`: each cluster as it would be followed, what is wrong with it, and what to do then."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from producers.kubeconfig.yaml_values import dump
from simulation import SimulatedCluster
from tests import processes
from tests.e2e.conftest import Members, TlsFront


async def run(*arguments: str) -> tuple[int, str, str]:
    """A `kubebraid check` to its end: code, standard output, standard error."""
    return await processes.run("check", *arguments)


async def test_all_is_well(members: Members) -> None:
    code, out, err = await run("--kubeconfig", str(members.kubeconfig))
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["CLUSTER", "STATE", "VERSION", "TYPES", "SERVER", "IDENTITY", "RBAC", "FORWARD"]
    assert [row.split()[:2] for row in rows] == [["alpha", "good"], ["bravo", "good"]]
    assert all("anonymous" in row for row in rows)
    code, out, err = await run(
        "-o", "json", "--kubeconfig", str(members.kubeconfig), "--context", "alpha", "--include", "pods"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["problems"] == []
    (alpha,) = found["clusters"]
    assert alpha["version"].startswith("v1.")
    assert alpha == {
        "name": "alpha",
        "state": "good",
        "server": members["alpha"].url,
        "identity": "anonymous",
        "reachable": True,
        "version": alpha["version"],
        "types": 1,
        "unreadable": {},
        "problem": "",
        "mend": "",
        # Of its roles and bindings none would come.
        "decides": False,
        "forward": alpha["forward"],
    }


class Kubeconfig:
    """A kubeconfig that grows by clusters, each with its own user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = {"clusters": [], "users": [], "contexts": []}

    def add(self, name: str, cluster: dict[str, Any], **user: Any) -> None:
        self.document["clusters"].append({"name": name, "cluster": cluster})
        self.document["users"].append({"name": name, "user": user})
        self.document["contexts"].append({"name": name, "context": {"cluster": name, "user": name}})
        self.path.write_text(dump(self.document))


@pytest.fixture
def config(tmp_path: Path) -> Kubeconfig:
    return Kubeconfig(tmp_path / "config")


async def test_names_and_reasons_are_shown_as_they_are(config: Kubeconfig) -> None:
    """Brackets are no markup, colons no emoji, and nothing moves a cursor or begins a line."""
    names = ("[/red]", "[bold]x", ":smile:", "a\x1b[2Jb", "c\nd", "ü/ö")
    for name in names:
        config.add(name, {"server": "https://[::1]:1/[/x]"})
    code, out, err = await run("--kubeconfig", str(config.path))
    assert (code, err) == (1, "")
    shown = {"[/red]", "[bold]x", ":smile:", "a\\x1b[2Jb", "c\\nd", "ü/ö"}
    assert {line.split()[0] for line in out.splitlines()[1 : len(names) + 1]} == shown
    assert {line.partition(": https")[0] for line in out.splitlines() if ": https" in line} == shown
    assert out.replace("\n", "").isprintable()
    code, out, err = await run("-o", "json", "--kubeconfig", str(config.path))
    assert {one["name"] for one in json.loads(out)["clusters"]} == set(names)


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An error that is nested more deeply than any decoder goes."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
        writer.write(b"HTTP/1.1 500 Odd\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
    writer.close()


async def test_one_that_answers_nonsense_and_a_plugin_that_hangs_keep_no_other_from_being_tried(
    tmp_path: Path, config: Kubeconfig, members: Members
) -> None:
    plugin = tmp_path / "asks"
    plugin.write_text("#!/bin/sh\nsleep 600 &\nsleep 600\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    odd = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with odd:
        config.add("good", {"server": members["alpha"].url})
        config.add("odd", {"server": f"http://127.0.0.1:{odd.sockets[0].getsockname()[1]}"})
        config.add(
            "asks",
            {"server": "https://127.0.0.1:1"},
            exec={"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"},
        )
        code, out, err = await run("-o", "json", "--kubeconfig", str(config.path), "--timeout", "10s")
    assert (code, err) == (1, "")
    found = {one["name"]: one for one in json.loads(out)["clusters"]}
    assert found["good"]["state"] == "good", found["good"]
    assert found["odd"]["problem"].startswith("500 ")
    assert found["asks"]["problem"] == "plugin asks has not answered yet, after 10 s"
    assert "by hand" in found["asks"]["mend"]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_each_failure_has_its_mend(tmp_path: Path, config: Kubeconfig, tls_front: type[TlsFront]) -> None:
    authority, other = trustme.CA(), trustme.CA()
    trusted = {"certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode()}
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!{sys.executable}\nraise SystemExit('MARK')\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    hanging = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with SimulatedCluster("inner", pods=5, token="MARK-right") as cluster:
        async with (
            hanging,
            tls_front(cluster.port, authority.issue_cert("127.0.0.1"), None) as front,
            tls_front(cluster.port, other.issue_cert("127.0.0.1"), None) as stranger,
        ):
            there = {"server": f"https://127.0.0.1:{front.port}", **trusted}
            config.add("good", there, token="MARK-right")
            config.add("token", there, token="MARK-wrong")
            config.add("nobody", there)
            config.add("plugin", there, exec={"command": "./plugin", "apiVersion": version, "interactiveMode": "Never"})
            config.add("acts", there, **{"token": "MARK-right", "as-groups": ["MARK"]})
            config.add("stranger", {"server": f"https://127.0.0.1:{stranger.port}", **trusted}, token="MARK-right")
            config.add("closed", {"server": "http://127.0.0.1:1"})
            config.add("hangs", {"server": f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"})
            config.add("unknown", {"server": "https://u:MARK@does-not-exist.invalid/prefix"})
            code, out, err = await run("--kubeconfig", str(config.path), "--timeout", "5s", "-o", "json")
            assert (code, err) == (1, "")
            found = {one["name"]: one for one in json.loads(out)["clusters"]}
            code, text, err = await run("--kubeconfig", str(config.path), "--timeout", "5s")
            assert (code, err) == (1, "")
    assert set(found) == {context["name"] for context in config.document["contexts"]}
    assert {name for name, one in found.items() if one["state"] == "good"} == {"good"}
    assert {name for name, one in found.items() if one["reachable"]} == {"good", "token", "nobody"}
    assert {name: one["identity"] for name, one in found.items()} == {
        "good": "token",
        "token": "token",
        "nobody": "anonymous",
        "plugin": "exec plugin",
        "acts": "token",
        "stranger": "token",
        "closed": "anonymous",
        "hangs": "anonymous",
        "unknown": "user name in the URL",
    }
    said = {
        "token": ("401", "put the new token"),
        "nobody": ("401", "credentials"),
        "plugin": ("plugin", "run it by hand"),
        "acts": ("give `as`", "leave acts out"),
        "stranger": ("certificate", "certificate-authority"),
        "closed": ("", "listen at that address"),
        "hangs": ("no answer within 5 s", "reachable from here"),
        "unknown": ("", "the server's name right"),
    }
    for name, (problem, mend) in said.items():
        assert problem in found[name]["problem"], found[name]
        assert mend in found[name]["mend"], found[name]
        # For people the same words stand below the table.
        assert f"{name}: {found[name]['problem']}" in text
        assert f"  {found[name]['mend']}" in text
    assert found["unknown"]["server"] == "https://does-not-exist.invalid/prefix"
    assert "MARK" not in out + text


async def test_types_that_may_not_be_read(config: Kubeconfig) -> None:
    async with SimulatedCluster("inner", pods=5) as cluster:
        cluster.faults.forbid("pods")
        config.add("inner", {"server": cluster.url})
        code, out, err = await run("--kubeconfig", str(config.path), "-o", "json")
        assert (code, err) == (1, "")
        (found,) = json.loads(out)["clusters"]
    assert (found["state"], found["unreadable"]) == ("partly", {"pods": "may not list"})
    assert found["types"] > 5
    assert "1 of" in found["problem"]
    assert "--resource=pods" in found["mend"]


async def test_places_that_cannot_be_read(members: Members, tmp_path: Path) -> None:
    code, out, _ = await run("--kubeconfig", str(tmp_path / "none"))
    assert code == 1
    assert out.splitlines()[0] == "no clusters"
    assert "no kubeconfig at" in out
    (tmp_path / "kubebraid.yaml").write_text(
        yaml.safe_dump(
            {
                "clusters": [
                    {"kubeconfig": str(members.kubeconfig), "contexts": ["alpha"]},
                    {"secrets": {"namespace": "default"}, "host": {"kubeconfig": "none"}},
                    {
                        "secrets": {"namespace": "default"},
                        "host": {"kubeconfig": str(members.kubeconfig), "context": "bravo"},
                    },
                ],
                "sync": ["pods"],
            }
        )
    )
    code, out, _ = await run("--config", str(tmp_path / "kubebraid.yaml"), "-o", "json")
    assert code == 1
    found = json.loads(out)
    assert {one["name"]: one["state"] for one in found["clusters"]}["alpha"] == "good"
    assert len(found["problems"]) == 1
    assert "no kubeconfig at" in found["problems"][0]


async def test_usage() -> None:
    for arguments, said in (
        (("-o", "xml"), "text or json"),
        (("--timeout", "0"), "--timeout"),
        (("--bogus",), "--bogus"),
    ):
        code, out, err = await run(*arguments)
        assert (code, out) == (2, "")
        assert said in err
