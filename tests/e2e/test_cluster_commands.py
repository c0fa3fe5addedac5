"""`kubebraid clusters`: clusters come, go and are cleaned out of the log, while everything runs on."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
import yaml

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Comparison, Members, Service, Starter, StartProcess, View
from tests.patience import PATIENCE, eventually_awaited


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def command(process: StartProcess) -> Command:
    """Runs a `kubebraid clusters` command to its end: its code and output."""

    async def run(*arguments: str) -> tuple[int, str]:
        one = await process("clusters", *arguments)
        async with asyncio.timeout(PATIENCE):
            assert one.process is not None
            code = await one.process.wait()
        # The log file is appended to by its position: each run has its own.
        return code, one.output()

    return run


async def listed(service: Service) -> list[str]:
    return [one["name"] for one in (await service.get("/clusters"))["clusters"]]


async def test_added_and_removed_while_running(
    members: Members, start: Starter, command: Command, compare: Comparison, view: type[View], tmp_path: Path
) -> None:
    directory = tmp_path / "clusters"
    directory.mkdir()
    place = ("--directory", str(directory))
    service = await start(*place, "--data", str(tmp_path / "data"))
    assert await listed(service) == []
    kubeconfig = ("--kubeconfig", str(members.kubeconfig))
    code, out = await command("add", "one", *place, *kubeconfig, "--context", "alpha")
    assert code == 0, out
    file = directory / "one.kubeconfig"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [context["name"] for context in yaml.safe_load(file.read_text())["contexts"]] == ["one"]
    code, out = await command("add", "two", *place, *kubeconfig, "--context", "bravo")
    assert code == 0, out

    async def both() -> bool:
        return await listed(service) == ["one", "two"]

    await eventually_awaited(both)
    await service.ready()

    async def same() -> bool:
        found = await asyncio.gather(
            *(
                compare.differences(service.url, name, members[of].url)
                for name, of in (("one", "alpha"), ("two", "bravo"))
            )
        )
        return not any(found)

    await eventually_awaited(same)
    code, out = await command("list", "--server", service.url, "-o", "name")
    assert (code, out.split()) == (0, ["one", "two"])
    code, out = await command("list", "--server", service.url)
    assert [line.split()[:2] for line in out.splitlines()] == [["CLUSTER", "STATE"], ["one", "ready"], ["two", "ready"]]

    pods = view(service.url, "/api/v1/pods")
    await pods.list()
    following = asyncio.create_task(pods.follow_for_ever())
    code, out = await command("remove", "two", *place)
    assert code == 0, out
    assert not (directory / "two.kubeconfig").exists()

    async def shown_as_gone() -> bool:
        return {key[0] for key in pods.objects} == {"one"}

    # Each object of it is deleted in every watch.
    await eventually_awaited(shown_as_gone)
    await pods.equals(service)
    assert await listed(service) == ["one"]
    following.cancel()


async def test_clean_takes_out_what_nobody_follows(
    members: Members, nats: str, process: StartProcess, start: Starter, command: Command, view: type[View]
) -> None:
    arguments = ("--nats", nats, "--kubeconfig", str(members.kubeconfig))
    producing = await process("produce", *arguments)
    service = await start("--nats", nats, command="serve")

    async def both() -> bool:
        return await listed(service) == ["alpha", "bravo"]

    await eventually_awaited(both)
    await service.ready()
    code, out = await command("clean", "alpha", "--nats", nats)
    assert code == 1
    assert "alpha is followed by producer" in out
    code, out = await command("clean", "--nats", nats)
    assert (code, out.strip()) == (0, "nothing to clean: producers follow all clusters of the log")
    # One that follows bravo alone; nobody has said that alpha is to go.
    await producing.stop()
    await process("produce", *arguments, "--context", "bravo")

    async def cleanable() -> bool:
        return (await command("clean", "--nats", nats, "--dry-run"))[1].strip() == "alpha: would be removed"

    await eventually_awaited(cleanable)
    assert (await service.get("/clusters/alpha/api/v1/configmaps"))["items"]
    for kind, said in (("nosuch", "'nosuch'"), ("nosuch.example.com", "has a type"), ("*.apps", "one type")):
        code, out = await command("clean", "alpha", "--nats", nats, "--type", kind)
        assert code in (1, 2)
        assert said in out
        assert "removed" not in out
    code, out = await command("clean", "alpha", "--nats", nats, "--type", "cm")
    assert (code, out.startswith("configmaps of alpha: removed")) == (0, True), out
    code, out = await command("clean", "alpha", "--nats", nats, "--type", "configmaps")
    assert (code, "alpha has no configmaps in the log" in out) == (1, True), out

    async def no_configmaps() -> bool:
        found = (await service.get("/api/v1/configmaps"))["items"]
        return {view.key(item)[0] for item in found} == {"bravo"}

    await eventually_awaited(no_configmaps)
    pods = view(service.url, "/api/v1/pods")
    await pods.list()
    following = asyncio.create_task(pods.follow_for_ever())
    code, out = await command("clean", "--nats", nats)
    assert code == 0, out
    assert out.startswith("alpha: removed at index ")

    async def gone() -> bool:
        return {key[0] for key in pods.objects} == {"bravo"} and await listed(service) == ["bravo"]

    await eventually_awaited(gone)
    await pods.equals(service)
    following.cancel()


async def test_files_beside_a_kubeconfig_go_with_it(command: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    source = tmp_path / "source"
    source.mkdir()
    authority.cert_pem.write_to_path(str(source / "ca.pem"))
    (source / "token").write_text("secret")
    (source / "config").write_text(
        yaml.safe_dump(
            {
                "clusters": [
                    {"name": "c", "cluster": {"server": "https://example.org", "certificate-authority": "ca.pem"}}
                ],
                "users": [{"name": "u", "user": {"tokenFile": "token"}}],
                "contexts": [
                    {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                    {"name": "w", "context": {"cluster": "c", "user": "nobody"}},
                ],
                "current-context": "x",
            }
        )
    )
    directory = tmp_path / "clusters"
    arguments = ("--directory", str(directory), "--kubeconfig", str(source / "config"))
    code, out = await command("add", "far", *arguments)
    assert code == 0, out
    found = yaml.safe_load((directory / "far.kubeconfig").read_text())
    assert found["current-context"] == "far"
    assert found["contexts"] == [{"name": "far", "context": {"cluster": "far", "user": "far", "namespace": "shop"}}]
    assert set(found["clusters"][0]["cluster"]) == {"server", "certificate-authority-data"}
    assert found["users"][0]["user"] == {"tokenFile": str(source / "token")}

    for wrong, text in (
        (("add", "far", *arguments), "replace it with --replace"),
        (("add", "a/b", *arguments), "is no name for a cluster"),
        (("add", "other", *arguments, "--context", "z"), "no context 'z'"),
        (("add", "other", *arguments, "--context", "w"), "no user 'nobody'"),
        (("add", "other", *arguments[:2], "--kubeconfig", str(tmp_path / "none")), "no kubeconfig at"),
        (("remove", "other", *arguments[:2]), "there are: far"),
        (("remove", "other", "--directory", str(tmp_path / "none")), "No such file or directory"),
        (("clean", "--nats", "nats://127.0.0.1:9"), "does not answer"),
        (("list", "--server", "http://127.0.0.1:9"), "no kubebraid answers"),
    ):
        code, out = await command(*wrong)
        assert code in (1, 2)
        assert len(out.strip().splitlines()) == 1, out
        assert text in out
    code, out = await command("add", "far", *arguments, "--replace")
    assert code == 0, out


async def test_clean_makes_no_log(nats: str, command: Command) -> None:
    code, out = await command("clean", "--nats", nats)
    assert code == 1
    assert "there is no stream KUBEBRAID" in out
