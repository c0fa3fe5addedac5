"""The snapshot's file: it is read as it was written, or found to be damaged, whatever byte is."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from materializer.image_records import PieceType
from materializer.snapshot_file import BATCH, BadFile, FileReader, FileWriter, Frame


async def frames_of(file: Path) -> list[Frame]:
    """Those behind the header."""
    found: list[Frame] = []
    with file.open("rb") as source:
        async with FileReader(source) as reader:
            await reader.header()
            while (frame := await reader.frame()) is not None:
                found.append(frame)
    return found


def written(file: Path, *headers: bytes) -> None:
    made = FileWriter.open(file)
    assert made is not None
    for header in headers:
        made.header(header)
    made.finish([])
    made.close()


async def test_every_byte_counts(tmp_path: Path) -> None:
    file = tmp_path / "s"
    made = FileWriter.open(file)
    assert made is not None
    made.header(b"header")
    made.write([(1, b"one"), (2, b"two")])
    made.finish([(3, b"three")])
    made.close()
    good = file.read_bytes()
    pieces = [piece for frame in await frames_of(file) for piece in frame.pieces()]
    assert [(kind, bytes(text)) for kind, text, _ in pieces] == [(1, b"one"), (2, b"two"), (3, b"three")]
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
            file.write_bytes(bad)
            with pytest.raises(BadFile):
                await frames_of(file)


async def test_frames_of_all_sizes_come_as_they_were_written(tmp_path: Path) -> None:
    """Also those that are cut by what is read at one go, and larger than that."""
    chance = random.Random(7)
    sizes = [0, 1, BATCH, 3 * BATCH + 1, *(chance.randrange(200_000) for _ in range(40))]
    pieces = [(chance.choice((PieceType.PACKED, PieceType.STATE)).value, chance.randbytes(size)) for size in sizes]
    file = tmp_path / "s"
    made = FileWriter.open(file)
    assert made is not None
    made.header(b"header")
    made.write(pieces[:20])
    made.finish(pieces[20:])
    made.close()
    text = file.read_bytes()
    found = []
    for frame in await frames_of(file):
        assert text[frame.at : frame.at + len(frame.stored)] == frame.stored
        found += [(kind, bytes(data)) for kind, data, _ in frame.pieces()]
    assert found == pieces


async def test_a_file_is_not_closed_under_the_thread_that_reads_it(tmp_path: Path) -> None:
    written(tmp_path / "s", b"header")
    with (tmp_path / "s").open("rb") as source:

        def slowly(size: int) -> bytes:
            time.sleep(0.05)
            return source.read(size)

        class Slow:
            read, fileno = staticmethod(slowly), source.fileno

        async def ask() -> None:
            async with FileReader(Slow()) as reader:  # type: ignore[arg-type]
                await reader.header()

        for impatient in (1, 3):
            source.seek(0)
            asking = asyncio.create_task(ask())
            for _ in range(impatient):
                await asyncio.sleep(0.005)
                asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert source.tell() > 0, "it was waited for"


async def test_one_at_a_time_writes_and_a_crash_leaves_no_lock(tmp_path: Path) -> None:
    file = tmp_path / "s.snapshot"
    one = FileWriter.open(file)
    assert one is not None
    assert FileWriter.open(file) is None
    one.header(b"h")
    one.finish([])
    one.close()
    # As a crash leaves it.
    (tmp_path / "s.snapshot.new").write_bytes(b"half of one" * 1000)
    other = FileWriter.open(file)
    assert other is not None
    other.close()
    assert [one.name for one in tmp_path.iterdir()] == ["s.snapshot"]
