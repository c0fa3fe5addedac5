"""`kubebraid tail` and `kubebraid replay` as processes: what they print, copy and refuse, and how they end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deltalog import Connection, connect, decode_delta
from kubebraid.command.broker import EmbeddedBroker, running
from tests import processes
from tests.e2e.conftest import Members, Service, shared_members, shared_service
from tests.patience import PATIENCE
from tests.processes import Piped

__all__ = ["shared_members", "shared_service"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3}  (ADDED|MODIFIED|DELETED|LEFT|REMOVED) +(\S+) +(\S+) +(.+?)  (\d+)\n")

SOON = timedelta(seconds=1)


def command(*arguments: str, in_the_background: bool = False, **environment: str) -> AbstractAsyncContextManager[Piped]:
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return processes.piped(*arguments, environment=environment, in_the_background=in_the_background)


async def asked(connection: Connection, verb: str, request: object, member: str) -> Any:
    return json.loads(bytes(await connection.api(verb, request)))[member]


async def finished(*arguments: str) -> tuple[int, str, str]:
    async with command(*arguments) as process:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def line(process: Piped) -> str:
    async with asyncio.timeout(PATIENCE):
        found = (await process.stdout.readline()).decode()
    if not found:
        raise AssertionError((await process.stderr.read()).decode())
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def data(shared_service: Service, shared_members: Members) -> Path:
    return shared_members.kubeconfig.parent / "data"


async def churned(members: Members, process: Piped) -> str:
    """The first line, which changes bring; again and again, as nobody says when the command has begun."""
    waiting = asyncio.ensure_future(line(process))
    async with asyncio.timeout(PATIENCE):
        while not (await asyncio.wait((waiting,), timeout=0.2))[0]:
            for cluster in members.clusters:
                cluster.churn.step(10)
    return await waiting


async def test_live_lines_and_ctrl_c(shared_members: Members, data: Path) -> None:
    async with command("tail", "--data", str(data), "--cluster", "alpha") as process:
        found = LINE.fullmatch(await churned(shared_members, process))
        assert found is not None
        assert found[2] == "alpha"
        process.child.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 130
        assert err == b""


async def test_in_the_background_it_goes_on_at_ctrl_c(shared_members: Members, data: Path) -> None:
    """A shell's `&` or nohup has a command ignore SIGINT, which is for what runs in the foreground."""
    arguments = ("tail", "--data", str(data), "--cluster", "alpha", "-o", "json")
    async with command(*arguments, in_the_background=True) as process:
        await churned(shared_members, process)
        process.child.send_signal(signal.SIGINT)
        # Changes that happened when the signal had long come.
        sent = datetime.now(UTC)
        while datetime.fromisoformat(json.loads(await churned(shared_members, process))["time"]) < sent + SOON:
            pass
        process.child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == -signal.SIGTERM


async def test_colours_only_where_they_are_wanted(data: Path) -> None:
    arguments = ("tail", "--data", str(data), "--since", "beginning")
    async with command(*arguments) as process:
        assert "\x1b" not in await line(process)
    async with command(*arguments, FORCE_COLOR="1", TERM="xterm-256color") as process:
        assert "\x1b[32mADDED" in await line(process)


async def test_filters_and_json(shared_service: Service, data: Path) -> None:
    pods = (await shared_service.get("/api/v1/pods", labelSelector="app"))["items"]
    one = pods[0]
    metadata = one["metadata"]
    arguments = (
        *("--cluster", metadata["annotations"]["shadow.clusterpedia.io/cluster-name"], "--type", "po"),
        *("-n", metadata["namespace"], "--name", metadata["name"], "-l", f"app={metadata['labels']['app']}"),
    )
    async with command("tail", "--data", str(data), "--since", "beginning", "-o", "json", *arguments) as process:
        # What it was before comes first, as long as the log has that.
        while (found := json.loads(await line(process)))["index"] < int(metadata["resourceVersion"].split(".")[1]):
            assert found["object"]["metadata"]["uid"] == metadata["uid"]
    assert found["type"] in ("ADDED", "MODIFIED")
    assert found["object"] == {**one, "kind": "Pod", "apiVersion": "v1"}
    assert found["index"] == int(metadata["resourceVersion"].split(".")[1])
    assert found["resource"] == "pods"


async def test_since(shared_service: Service, data: Path) -> None:
    listed = await shared_service.get("/api/v1/pods")
    version = max((one["metadata"]["resourceVersion"] for one in listed["items"]), key=lambda v: int(v.split(".")[1]))
    index = int(version.split(".")[1])
    for since in (str(index - 1), f"{version.split('.')[0]}.{index - 1}", "1h", "2020-01-01T00:00:00Z", "beginning"):
        async with command("tail", "--data", str(data), "--type", "pods", "--since", since, "-o", "json") as process:
            found = json.loads(await line(process))
            assert found["cluster"] in ("alpha", "bravo")
            if str(index - 1) in since:
                assert found["index"] == index


@pytest.mark.parametrize("since", ["beginning", "now"])
async def test_a_reader_that_goes_away_is_no_error(data: Path, since: str) -> None:
    """It ends then, also where nothing is written that could find it."""
    async with command("tail", "--data", str(data), "--since", since) as process:
        if since == "beginning":
            await line(process)
        process.close_stdout()
        err = await asyncio.wait_for(process.stderr.read(), PATIENCE)
        await asyncio.wait_for(process.child.wait(), PATIENCE)
        assert err == b""


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("write an index", ("--since", "yesterday")),
        ("write an index", ("--since", "9.9.9.9@")),
        ("is no time", ("--since", "2026-13-01")),
        ("read from the beginning", ("--since", "deadbeef.5")),
        ("was applied", ("--since", "999999999")),
        ("deployments.apps?", ("--type", "deploymnts")),
        ("names no type", ("--type", "Po ds")),
        ("label selector", ("-l", "a b")),
        ("text or json", ("-o", "yaml")),
        ("no stream OTHER", ("--stream", "OTHER")),
        ("give one of them", ("--nats", "nats://127.0.0.1:1")),
    ],
)
async def test_bad_input_is_one_line(data: Path, said: str, arguments: tuple[str, str]) -> None:
    code, out, err = await finished("tail", "--data", str(data), *arguments)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("kubebraid: ")
    assert len(err.splitlines()) == 1, err
    assert said in err


async def test_no_log(tmp_path: Path) -> None:
    for arguments, said in (
        (("tail", "--data", str(tmp_path)), "no kubebraid runs on"),
        (("tail", "--nats", "nats://127.0.0.1:1"), "does not answer"),
        (("replay", "--to", "-", "--nats", "nats://127.0.0.1:1"), "does not answer"),
    ):
        code, out, err = await finished(*arguments)
        assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 1), err
        assert said in err


async def test_replay_to_a_file(shared_service: Service, shared_members: Members, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "pods.jsonl"
    arguments = ("replay", "--data", str(data), "--type", "pods", "--cluster", "bravo")
    code, out, err = await finished(*arguments, "--to", str(file))
    assert (code, err) == (0, "")
    copied = [json.loads(text) for text in file.read_text().splitlines()]
    assert out.startswith(f"copied {len(copied)} messages")
    assert len(out.splitlines()) == 1
    deltas = {one["sequence"]: decode_delta(base64.b64decode(one["payload"])) for one in copied}
    assert {delta.resource for delta in deltas.values()} == {"pods"}
    living = {
        int(item["metadata"]["resourceVersion"].split(".")[1])
        for item in (await shared_service.get("/clusters/bravo/api/v1/pods"))["items"]
    }
    assert living <= deltas.keys()
    assert all(one["headers"]["Kb"].startswith(deltas[one["sequence"]].type) for one in copied)
    # Not over what is there already.
    code, out, err = await finished(*arguments, "--to", str(file))
    assert code == 2
    assert "choose another name" in err
    some = sorted(deltas)
    some_of_it = (*arguments, "--since", str(some[0]), "--until", str(some[2]), "--to", "-")
    code, out, err = await finished(*some_of_it)
    assert [json.loads(text)["sequence"] for text in out.splitlines()] == some[1:3]
    assert err == f"copied 2 messages ({err.split('(')[1].split(' ')[0]} MB) of {some[1]} to {some[2]} to -\n"


def copied_messages(out: str) -> int:
    found = re.match(r"copied (\d+) messages", out)
    assert found is not None, out
    return int(found[1])


async def test_replay_to_a_stream(shared_members: Members, data: Path, tmp_path: Path) -> None:
    url = running(data)
    assert url is not None
    async with EmbeddedBroker(tmp_path / "other") as other:
        arguments = ("replay", "--nats", url, "--to", f"{other.url}/COPY")
        code, out, err = await finished(*arguments)
        assert (code, err) == (0, "")
        first = copied_messages(out)
        assert first > 100
        # Again: only what is new.
        for cluster in shared_members.clusters:
            cluster.churn.step(20)
        code, out, err = await finished(*arguments)
        assert (code, err) == (0, "")
        assert "were there already" in out
        assert copied_messages(out) < first
        ours, theirs = await connect(url, name="test"), await connect(other.url, name="test")
        try:
            config = await asked(theirs, "STREAM.INFO.COPY", None, "config")
            assert config["max_msgs_per_subject"] == 1
            assert set(config["subjects"]) == {"COPY.kb.>", "COPY.kbc.>", "COPY.kbp.>"}
            last = {"last_by_subj": "kb.*.core.*.pods.>"}
            copy = await asked(theirs, "STREAM.MSG.GET.COPY", last, "message")
            source = await asked(ours, "STREAM.MSG.GET.KUBEBRAID", {"last_by_subj": copy["subject"]}, "message")
            assert base64.b64decode(copy["hdrs"]).decode().count("Nats-Msg-Id: ") == 1
            if f".{source['seq']}\r\n" in base64.b64decode(copy["hdrs"]).decode():
                assert copy["data"] == source["data"]
        finally:
            await ours.close()
            await theirs.close()
        # Beside the log, too, which takes nothing of it in.
        code, out, err = await finished("replay", "--nats", url, "--to", f"{url}/BESIDE", "--type", "nodes")
        assert (code, err) == (0, "")
        assert copied_messages(out) > 0
        code, out, err = await finished("replay", "--nats", url, "--to", f"{url}/BESIDE", "--type", "nodes")
        assert out.startswith("copied 0 messages")
        # A copy is no log, and a log takes no copies.
        code, _, err = await finished("tail", "--nats", other.url, "--stream", "COPY")
        assert (code, len(err.splitlines())) == (1, 1)
        for to in (f"{url}/KUBEBRAID", f"{other.url}/", "nats://x y/z", str(tmp_path), "/none/file", "/dev/full"):
            code, out, err = await finished("replay", "--nats", url, "--to", to)
            assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 1), (to, err)
