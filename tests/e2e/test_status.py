"""`kubebraid status`, and the document behind it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests import processes
from tests.e2e.conftest import Members, Service, Starter
from tests.patience import PATIENCE, eventually_awaited


async def status(*arguments: str) -> tuple[int, str, str]:
    return await processes.run("status", *arguments)


async def text(service: Service, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(service.url + path) as answer:
        return await answer.text()


async def test_clusters_and_types_of_an_instance(tmp_path: Path, members: Members, start: Starter) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))

    async def well() -> str:
        # While the state stream is being filled it says so, and ends with 1.
        code, out, _ = await status("--server", service.url)
        assert code == 0 or "behind the events" in out, out
        return out if code == 0 else ""

    head, *lines = (await eventually_awaited(well)).splitlines()
    # A line of the log's streams comes between, once they were looked at.
    columns, *rows = [line for line in lines if not line.startswith("  ")]
    assert head.startswith(f"{service.url}: ready, at index ")
    assert columns.split() == ["CLUSTER", "STATE", "TYPES", "OBJECTS", "PRODUCER", "REASON"]
    assert [row.split()[:2] for row in rows] == [["alpha", "ready"], ["bravo", "ready"]]
    code, out, _ = await status("--server", service.url, "--types")
    pods = next(line for line in out.splitlines() if line.split()[:2] == ["alpha", "pods"])
    assert int(pods.split()[2]) == len((await service.get("/clusters/alpha/api/v1/pods"))["items"])
    found = json.loads((await status("--server", service.url, "-o", "json"))[1])
    assert (found["ready"], [one["state"] for one in found["clusters"]]) == (True, ["ready", "ready"])
    assert {one["type"] for one in found["clusters"][0]["types"]} >= {"pods", "deployments.apps"}

    async with asyncio.timeout(PATIENCE):
        # The first look may have found an empty log.
        while (streams := found["streams"]) is None or not streams["state"]["messages"]:
            await asyncio.sleep(0.2)
            found = json.loads((await status("--server", service.url, "-o", "json"))[1])
    events, state = streams["events"], streams["state"]
    assert (state["lacksTo"], streams["trouble"], streams["window"]) == (0, None, 3600)
    assert events["last"] >= state["messages"] > 0
    async with asyncio.timeout(PATIENCE):
        # Each of the two was looked at in its own moment.
        while json.loads((await status("--server", service.url, "-o", "json"))[1])["index"] < events["last"]:
            await asyncio.sleep(0.2)
    assert events["since"] is not None
    assert f"  events since {events['since'][:16]}" in (await status("--server", service.url))[1]
    assert "[+]log's events since " in await text(service, "/readyz?verbose")
    assert 'kubebraid_log_stream_last_sequence{stream="events"}' in await text(service, "/metrics")
    async with asyncio.timeout(PATIENCE):
        while "kubebraid_log_state_lag 0.0" not in await text(service, "/metrics"):
            await asyncio.sleep(0.2)

    await members["bravo"].stop()
    async with asyncio.timeout(PATIENCE):
        while (answer := await status("--server", service.url))[0] == 0:
            await asyncio.sleep(0.2)
    code, out, _ = answer
    assert code == 1
    bravo = next(line for line in out.splitlines() if line.startswith("bravo"))
    assert bravo.split()[1] == "stale"
    assert "127.0.0.1" in bravo


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", "http://127.0.0.1:1"), "start one with `kubebraid up`"),
        (("--output", "xml"), "text or json"),
    ],
)
async def test_what_cannot_be_asked_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, out, err = await status(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
