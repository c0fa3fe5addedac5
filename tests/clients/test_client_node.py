"""`@kubernetes/client-node`: lists, its Watch and its informer (ListWatch), in the program informer.mjs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Braid
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent.parent
ENTRY = ROOT / ".node" / "node_modules" / "@kubernetes" / "client-node" / "dist" / "index.js"


class Program:
    """informer.mjs, and what it has told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        # uid -> version, of the changes that it told.
        self.told: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    async def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        assert line, "the program has ended"
        told: dict[str, Any] = json.loads(line)
        return told

    async def read(self) -> None:
        """Takes in what the program tells, until it ends."""
        while True:
            told = await self.next()
            verb = told["verb"]
            self.counts[verb] = self.counts.get(verb, 0) + 1
            if verb == "held":
                self.held = told["held"]
            elif verb == "add":
                assert told["uid"] not in self.told
                self.told[told["uid"]] = told["version"]
            elif verb == "update":
                assert self.told[told["uid"]] != told["version"], "the same again"
                self.told[told["uid"]] = told["version"]
            elif verb == "delete":
                del self.told[told["uid"]]

    def ask(self) -> None:
        """Has it tell what it holds."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@contextlib.asynccontextmanager
async def running(kubeconfig: Path, context: str, mode: str) -> AsyncIterator[Program]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on this machine")
    if not ENTRY.exists():
        pytest.skip("@kubernetes/client-node is not installed: `make install` where npm is")
    process = await asyncio.create_subprocess_exec(
        *(node, str(Path(__file__).with_name("informer.mjs")), str(ENTRY), str(kubeconfig), context, mode),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_lists_and_a_watch(braid: Braid, kubeconfig: Path) -> None:
    objects = await braid.objects()
    async with running(kubeconfig, "kubebraid", "watch") as program:
        lists = await program.next()
        assert lists["pages"] == [one["metadata"]["uid"] for one in objects][:20]
        assert set(lists["selected"]) == {
            one["metadata"]["uid"]
            for one in objects
            if "app" in one["metadata"].get("labels", {}) and one["status"]["phase"] == "Running"
        }
        assert (await program.next())["verb"] == "watching"
        before = await braid.versions()
        braid.change()
        view = dict(before)
        bookmarks = 0
        # The watch begins with a bookmark, and ends by itself with another one.
        while bookmarks < 2:
            event = await program.next()
            if event["verb"] == "BOOKMARK":
                bookmarks += 1
            elif event["verb"] == "DELETED":
                del view[event["uid"]]
            else:
                assert (event["verb"] == "ADDED") is (event["uid"] not in view)
                view[event["uid"]] = event["version"]
        assert view != before
        assert view == await braid.versions()
        async with asyncio.timeout(PATIENCE):
            assert await program.process.wait() == 0


async def test_an_informer_lives_through_a_kill_and_a_lost_history(braid: Braid, kubeconfig: Path) -> None:
    """Below one cluster: at the root it confuses objects of one name in two clusters, as all informers do."""
    async with running(kubeconfig, "kubebraid-alpha", "informer") as program:
        reading = asyncio.create_task(program.read())

        def held() -> dict[str, str]:
            program.ask()
            return program.held

        async def converge() -> None:
            await braid.converges(held, cluster="alpha", running=reading)
            assert program.told == program.held

        try:
            await converge()
            braid.change()
            await converge()
            assert program.counts["connect"] == 1
            await braid.killed_and_started()
            await converge()
            assert program.counts["connect"] > 1
            await braid.history_lost()
            await converge()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
