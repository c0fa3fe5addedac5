"""Files of audit events: rotated, kept in bounds, written by several processes, and never in the way of requests."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog.testing

from query.access.audit.log_file import LogFile, StandardOutput
from query.access.errors import BadAccessFile

LINE = b"x" * 99 + b"\n"


def opened(path: Path, largest: int = 1000, files: int = 3, days: int = 0) -> LogFile:
    return LogFile(path, largest=largest, files=files, days=days)


def rotated(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.iterdir() if one != path)


def test_lines_and_whose_they_are(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    os.umask(before := os.umask(0))
    for _ in range(2):
        # What was there stays.
        lines = opened(path)
        lines.write(LINE)
        lines.close()
    assert path.read_bytes() == LINE * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.umask(before)


def test_a_full_file_is_renamed_and_few_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    other = tmp_path / "audit-notes.log"
    other.write_text("not ours")
    lines = opened(path)
    for at in range(95):
        lines.write(b"%04d" % at + LINE[4:])
    kept = [one for one in rotated(path) if one != other]
    assert len(kept) == 3
    assert all(one.stat().st_size == 1000 for one in kept)
    # The newest of them, in order.
    text = b"".join(one.read_bytes() for one in [*kept, path])
    assert [int(line[:4]) for line in text.splitlines()] == list(range(60, 95))
    assert other.read_text() == "not ours"


def test_old_files_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for days in (1, 6, 8, 400):
        at = datetime.now(UTC) - timedelta(days=days)
        (tmp_path / f"audit-{at:%Y-%m-%dT%H-%M-%S}.000.log").write_text(str(days))
    lines = opened(path, files=0, days=7)
    for _ in range(11):
        lines.write(LINE)
    assert sorted(one.read_text() for one in rotated(path) if one.stat().st_size < 10) == ["1", "6"]


def test_a_file_that_others_renamed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    now = 0.0
    lines = LogFile(path, largest=0, files=0, days=0, clock=lambda: now)
    lines.write(b"one\n")
    path.rename(tmp_path / "taken.log")
    lines.write(b"two\n")
    now = 1.0
    lines.write(b"three\n")
    assert (tmp_path / "taken.log").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"


def test_what_cannot_be_written_is_said_and_hurts_nobody(tmp_path: Path) -> None:
    with pytest.raises(BadAccessFile, match="No such file or directory"):
        opened(tmp_path / "no" / "audit.log")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full")
    lines = opened(full, largest=0)
    with structlog.testing.capture_logs() as logged:
        for _ in range(10):
            lines.write(LINE)
    # Once, not for each event.
    assert [line["reason"] for line in logged] == ["No space left on device"]


WRITER = """
import sys
from pathlib import Path
from query.access.audit.log_file import LogFile
lines = LogFile(Path(sys.argv[1]), largest=20_000, files=0, days=0)
for at in range(2000):
    lines.write(f"{sys.argv[2]} {at} ".encode() + b"x" * 80 + b"\\n")
"""


@pytest.mark.processes
def test_processes_that_write_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name)]) for name in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    files = [*rotated(path), path]
    assert len(files) > 20
    found: Counter[tuple[bytes, bytes]] = Counter()
    for one in files:
        for line in one.read_bytes().splitlines():
            name, at, rest = line.split()
            assert rest == b"x" * 80
            found[name, at] += 1
    assert len(found) == 4 * 2000
    assert set(found.values()) == {1}


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = StandardOutput()
    lines.write(b"one\n")
    lines.close()
    lines.write(b"two\n")
    assert capfdbinary.readouterr().out == b"one\ntwo\n"
