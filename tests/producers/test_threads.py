"""Threads for work that may hang: few in all, fewer for each share, and none that a process waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from producers import threads
from producers.threads import Threads, share_of
from tests.patience import PATIENCE, eventually


class Hanging:
    """Work that hangs until `release`; how much of it runs, and did at most."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def work(self) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.release.wait(PATIENCE)
        with self._lock:
            self.now -= 1
        return "done"


async def test_a_share_that_hangs_holds_up_no_other() -> None:
    made, hanging, loop = Threads("test", at_once=6, each=2), Hanging(), asyncio.get_running_loop()
    dead = [loop.run_in_executor(made.of("dead"), hanging.work) for _ in range(50)]
    await eventually(lambda: hanging.now == 2)
    async with asyncio.timeout(PATIENCE):
        for number in range(30):
            assert await loop.run_in_executor(made.of("well"), int, str(number)) == number
    # Others that hang: all threads but for those are still used by turns.
    more = [loop.run_in_executor(made.of("dead too"), hanging.work) for _ in range(50)]
    await eventually(lambda: hanging.now == 4)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(loop.run_in_executor(made.of("well"), int, "7") for _ in range(100))) == [7] * 100
    assert hanging.most == 4
    hanging.release.set()
    async with asyncio.timeout(PATIENCE):
        assert set(await asyncio.gather(*dead, *more)) == {"done"}
    # Threads end when there is nothing to do.
    await eventually(lambda: not made._threads)
    assert (made._running, made._waiting, made._ready) == ({}, {}, {})


async def test_no_more_threads_than_were_said() -> None:
    made, hanging, loop = Threads("test", at_once=3, each=2), Hanging(), asyncio.get_running_loop()
    works = [loop.run_in_executor(made.of(f"share-{number}"), hanging.work) for number in range(9)]
    await eventually(lambda: hanging.now == 3)
    hanging.release.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*works)
    assert hanging.most == 3


async def test_what_was_given_up_is_not_begun() -> None:
    made, hanging, loop = Threads("test", at_once=2, each=1), Hanging(), asyncio.get_running_loop()
    begun: list[int] = []
    first = loop.run_in_executor(made.of("dead"), hanging.work)
    waiting = [loop.run_in_executor(made.of("dead"), begun.append, number) for number in range(5)]
    for one in waiting[:4]:
        one.cancel()
    await asyncio.wait(waiting[:4])
    hanging.release.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(first, waiting[4])
    assert begun == [4]


async def test_an_error_is_its_callers() -> None:
    made, loop = Threads("test"), asyncio.get_running_loop()
    with pytest.raises(ValueError, match="invalid literal"):
        await loop.run_in_executor(made.of("one"), int, "x")
    assert await loop.run_in_executor(made.of("one"), int, "1") == 1


async def test_closed() -> None:
    made, hanging, loop = Threads("test", each=1), Hanging(), asyncio.get_running_loop()
    first = loop.run_in_executor(made.of("one"), hanging.work)
    second = loop.run_in_executor(made.of("one"), hanging.work)
    await eventually(lambda: hanging.now == 1)
    made.close()
    await asyncio.wait((second,))
    assert second.cancelled()
    with pytest.raises(RuntimeError):
        made.of("one").submit(int)
    assert not made.wait(0.01)
    hanging.release.set()
    assert await first == "done"
    assert await asyncio.to_thread(made.wait, PATIENCE)


@pytest.mark.processes
def test_a_process_does_not_wait_for_what_hangs() -> None:
    code = (
        "import threading; from producers.threads import Threads\n"
        "begun = threading.Event()\n"
        "Threads('t').of('dead').submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False).returncode == 0


def test_a_file_belongs_to_what_is_mounted_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 21 0:40 / /home rw,relatime shared:5 - nfs4 files:/home rw\n"
        "31 30 0:41 / /home/a\\040b rw - fuse.sshfs x rw\n"
        "odd\n"
    )
    monkeypatch.setattr(threads, "_MOUNTS", mounts)
    assert share_of("/home/jane/.kube/config") == share_of("/home/joe/token") == "/home"
    assert share_of("/home/a b/c/token") == "/home/a b"
    assert share_of("/homes/x") == "/homes"
    assert share_of("/etc/a/token") == "/etc/a"
    assert share_of("/etc/a/../b/token") == "/etc/b"
    assert share_of("/token") == "/"
    monkeypatch.setattr(threads, "_MOUNTS", tmp_path / "none")
    assert share_of("/home/jane/token") == "/home/jane"
