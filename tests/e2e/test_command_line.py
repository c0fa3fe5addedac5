"""Bad input on the command line: one clear line, never a traceback."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.e2e.conftest import Members, StartProcess
from tests.patience import PATIENCE


async def started_by_a_user(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kubebraid", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def refused(said: str, *arguments: str) -> None:
    refusal(said, *await processes.run(*arguments))


def refusal(said: str, code: int, out: str, err: str) -> None:
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("kubebraid: "), err
    assert len(err.strip().splitlines()) == 1, err
    assert said in err


async def test_unknown_context(members: Members, tmp_path: Path) -> None:
    kubeconfig = str(members.kubeconfig)
    await refused("alpha, bravo", "up", "--kubeconfig", kubeconfig, "--context", "nope", "--data", str(tmp_path))
    await refused("'nope'", "up", "--kubeconfig", kubeconfig, "--context", "alpha", "nope", "--data", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is no YAML"),
        ("\x00", "is no YAML"),
        ("just words", "is no kubeconfig"),
        ("contexts: 5", "is no kubeconfig"),
        ("contexts: [5]", "contexts[0]: a mapping is expected"),
        ("kind: Config", "names no contexts"),
        ("", "names no contexts"),
    ],
)
async def test_kubeconfig_that_is_none(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    await refused(said, "up", "--kubeconfig", str(path), "--data", str(tmp_path / "data"))


async def test_no_kubeconfig(tmp_path: Path) -> None:
    await refused("--kubeconfig", "up", "--kubeconfig", str(tmp_path / "none"), "--data", str(tmp_path / "data"))


async def test_ports_in_use(members: Members, tmp_path: Path, taken_port: int) -> None:
    common = ("up", "--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    await refused("--listen", *common, "--listen", f"127.0.0.1:{taken_port}")
    await refused("--nats-port", *common, "--listen", "127.0.0.1:0", "--nats-port", str(taken_port))


async def test_listen_addresses(members: Members, tmp_path: Path) -> None:
    common = ("up", "--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    # `up` makes a certificate there, and lets in whom that is for; other commands are told whom.
    serve = ("serve", "--nats", "nats://127.0.0.1:1")
    await refused("--insecure-listen", *serve, "--listen", "0.0.0.0:0")
    await refused("HOST:PORT", *common, "--listen", "8001")
    await refused("HOST:PORT", *common, "--listen", "127.0.0.1:99999")


async def test_usage(tmp_path: Path) -> None:
    refusal("--bogus", *await started_by_a_user("up", "--bogus"))
    await refused("--nats", "serve")
    await refused("'surprise'", "up", "surprise")
    await refused("--pods", "demo", "--pods", "many")
    await refused("log-level", "demo", "--log-level", "loud")
    collections = tmp_path / "collections.yaml"
    collections.write_text("- {name: any, resourceTypes: [{resource: pods}]}")
    for command in (("up",), ("serve", "--nats", "nats://127.0.0.1:1"), ("demo",)):
        said = f"{collections}: [0].name: any is always there; leave this one out"
        await refused(said, *command, "--collections", str(collections))
    await refused("no kubebraid answers", "kubeconfig", "--server", "http://127.0.0.1:1")


async def test_help_names_every_command() -> None:
    code, out, _ = await started_by_a_user("--help")
    assert code == 0
    for command in ("up", "demo", "simulate", "produce", "serve", "kubeconfig"):
        assert command in out


async def test_two_at_once_on_one_data_directory(members: Members, tmp_path: Path, process: StartProcess) -> None:
    """Started in the same moment, exactly one gets it: two servers on the same files would destroy them."""
    data = str(tmp_path / "data")
    common = ("up", "--kubeconfig", str(members.kubeconfig), "--listen", "127.0.0.1:0", "--data", data)
    both = [await process(*common), await process(*common)]
    await asyncio.wait(
        [asyncio.ensure_future(one.child.wait()) for one in both],
        timeout=PATIENCE,
        return_when=asyncio.FIRST_COMPLETED,
    )
    ended = [one for one in both if one.child.returncode is not None]
    assert len(ended) == 1, [one.output() for one in both]
    assert "is in use by another kubebraid" in ended[0].output()
