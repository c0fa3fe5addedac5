"""Records in a mapped file: whichever stand there, a store answers as one that holds all of them itself."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from deltalog import Log
from deltalog.wire.delta import DELETED, Delta
from deltalog.wire.parts import Assembler
from materializer import reading
from materializer import snapshot as module
from materializer.bodies import Packing
from materializer.filter import Filter
from materializer.image import Image
from materializer.integrity import Integrity
from materializer.mapped import MappedEntry
from materializer.snapshot import Snapshots
from materializer.store import Store
from materializer.window import WINDOW_BYTES
from tests.materializer.test_image import plain
from tests.materializer.test_model import World, feed, warm_store
from tests.materializer.test_plain import PODS, bodies, pod, states, store

__all__ = ["store"]

Make = Callable[..., Any]


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What was logged."""
    capture = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.configure(processors=before)


def sharing(directory: Path) -> Snapshots:
    return Snapshots(directory, 600.0, shares=True)


def log_of(store: Store, created: str = "then") -> Log:
    ttl = store.tombstone_ttl
    return Log.unreached("nats://127.0.0.1:1", "S", created=created, prefix=store.prefix, tombstone_ttl=ttl)


async def write(store: Store, snapshots: Snapshots) -> Path:
    log = log_of(store)
    image = Image(store, Integrity(store), Assembler())
    assert await snapshots.write(log, image, created="then", latest=0, current=log.now())
    return snapshots.file("S")


async def save(store: Store, snapshots: Snapshots) -> None:
    """Writes one, and has the store's records be read from there."""
    await write(store, snapshots)
    await snapshots.share(log_of(store), store)


def mapped(store: Store) -> list[MappedEntry]:
    return [entry for entry in states(store) if isinstance(entry, MappedEntry)]


def pods(store: Store) -> dict[str, Any]:
    return {entry.name: entry for entry in store.types[PODS].select(Filter())}


def filled(store: Store, delta: Make, number: int = 400) -> Store:
    for at in range(number):
        store.apply_delta(pod(delta, at), at + 1, at)
    store.pack()
    return store


async def test_all_of_it_is_as_before(store: Store, delta: Make, tmp_path: Path) -> None:
    filled(store, delta)
    held = [plain(entry) for entry in store.types[PODS].select(Filter())]
    size = store.types[PODS].held
    await save(store, sharing(tmp_path))
    entries = store.types[PODS].select(Filter())
    assert all(isinstance(entry, MappedEntry) for entry in entries)
    assert [plain(entry) for entry in entries] == held
    assert store.types[PODS].held == size
    assert reading.contents(entries) == [entry.content for entry in entries]
    assert reading.size(entries) == sum(entry.size for entry in entries) == sum(len(one.content) for one in entries)
    assert len({entry.dictionary for entry in entries}) == 1
    assert entries[0].dictionary is (store.packing and store.packing.present(PODS))
    store.check()


async def test_what_cannot_be_looked_at_is_one_line(
    store: Store, delta: Make, tmp_path: Path, logged: list[Any]
) -> None:
    """It is looked for every 15 seconds."""
    filled(store, delta)
    (tmp_path / "file").write_bytes(b"")
    snapshots = sharing(tmp_path / "file" / "below")
    for _ in range(3):
        await snapshots.share(log_of(store), store)
    assert [one["event"] for one in logged] == ["a snapshot's records are not shared"]
    assert not mapped(store)


async def test_only_its_owner_reads_it_whatever_was_in_its_place(store: Store, delta: Make, tmp_path: Path) -> None:
    filled(store, delta)
    (tmp_path / "S.snapshot.new").write_bytes(b"")
    (tmp_path / "S.snapshot.new").chmod(0o644)
    file = await write(store, sharing(tmp_path))
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_start_from_it(store: Store, delta: Make, tmp_path: Path) -> None:
    filled(store, delta)
    file = await write(store, sharing(tmp_path))
    log = log_of(store)
    ways = []
    for shares in (False, True):
        restored = await Snapshots(tmp_path, 600.0, shares=shares).read_alone("nats://127.0.0.1:1", "S")
        assert restored is not None
        made = restored[1].store
        made.check()
        assert len(pods(made)) == 400
        assert all(isinstance(one, MappedEntry) is shares for one in pods(made).values())
        ways.append([plain(one) for one in pods(made).values()])
        # It has this one already.
        before = {id(one.shelf) for one in mapped(made)}
        again = sharing(tmp_path)
        again._shared = module._identity(file.stat())
        await again.share(log, made)
        assert {id(one.shelf) for one in mapped(made)} == before
    assert ways[0] == ways[1] == [plain(one) for one in pods(store).values()]


async def test_what_changes_is_held_until_the_next(store: Store, delta: Make, tmp_path: Path) -> None:
    filled(store, delta)
    snapshots = sharing(tmp_path)
    await save(store, snapshots)
    files = {one.shelf.file for one in mapped(store)}
    for at in range(100):
        store.apply_delta(pod(delta, at, 1), 401 + at, at)
    store.apply_delta(delta("web-200", type=DELETED, uid="u200", uid_index=201, member_version="9000"), 501, 501)
    store.check()
    store.pack()
    expected = bodies(store)
    assert sum(isinstance(one, MappedEntry) for one in pods(store).values()) == 299
    await save(store, snapshots)
    assert sum(isinstance(one, MappedEntry) for one in pods(store).values()) == 399
    # States of before, too, that only the window has.
    assert len({one.shelf.file for one in mapped(store)}) == 1
    assert not files & {one.shelf.file for one in mapped(store)}
    assert bodies(store) == expected
    store.check()
    assert [path.name for path in tmp_path.iterdir()] == ["S.snapshot"]


async def test_who_knows_other_things_keeps_them(delta: Make, tmp_path: Path) -> None:
    first, second = (Store("h", 1000, WINDOW_BYTES, Packing()) for _ in range(2))
    first.finish_loading(0)
    second.finish_loading(0)
    for at in range(400):
        first.apply_delta(pod(delta, at), at + 1, at)
    # The second one has not seen the first states of some.
    for at in range(50, 400):
        second.apply_delta(pod(delta, at), at + 1, at)
    for made in (first, second):
        for at in range(50):
            made.apply_delta(pod(delta, at, 1), 401 + at, at)
        made.pack()
    await write(first, sharing(tmp_path))
    held = [plain(entry) for entry in pods(second).values()]
    await sharing(tmp_path).share(log_of(second), second)
    assert {name for name, one in pods(second).items() if not isinstance(one, MappedEntry)} == {
        f"web-{at}" for at in range(50)
    }
    assert [plain(entry) for entry in pods(second).values()] == held
    second.check()


@pytest.mark.parametrize("seed", range(4))
async def test_any_history(seed: int, delta: Make, control: Make, tmp_path: Path) -> None:
    world = World(seed, delta, control)
    store, other = warm_store(20_000), warm_store(20_000)
    snapshots, others = sharing(tmp_path), sharing(tmp_path)
    chance = random.Random(seed)
    seen = 0
    for _ in range(600):
        message = world.step()
        feed(store, message)
        feed(other, message)
        if chance.random() < 0.03:
            store.pack(chance.choice([0, 1 << 20]))
            other.pack()
            await save(store, snapshots)
            await others.share(log_of(other), other)
            assert len({one.shelf.file for one in mapped(other)}) <= 1
            seen += len(mapped(store)) * len(mapped(other))
    assert seen > 100
    written = {message.index: message.record for message in world.sent if isinstance(message.record, Delta)}
    for made in (store, other):
        made.check()
        for entry in states(made):
            one = written.get(entry.index)
            if one is not None and one.final:
                assert entry.rest == one.object[one.version_offset :]


async def test_flipped_bits_are_found(store: Store, delta: Make, tmp_path: Path, logged: list[Any]) -> None:
    filled(store, delta)
    expected = bodies(store)
    file = await write(store, sharing(tmp_path))
    good = file.read_bytes()
    for part in (0.1, 0.4, 0.7, 0.99):
        bad = bytearray(good)
        bad[int(len(good) * part)] ^= 4
        file.write_bytes(bad)
        await sharing(tmp_path).share(log_of(store), store)
        assert bodies(store) == expected
        assert logged[-1]["event"] == "a snapshot's records are not shared"
        store.check()
        file.unlink()


async def test_what_cannot_be_shared_is_said_once(store: Store, delta: Make, tmp_path: Path, logged: list[Any]) -> None:
    filled(store, delta)
    snapshots = sharing(tmp_path)
    await snapshots.share(log_of(store), store)
    assert not logged
    snapshots.file("S").write_text("dear diary")
    for _ in range(3):
        await snapshots.share(log_of(store), store)
    assert [one["reason"] for one in logged] == ["it is no snapshot"]
    await save(store, snapshots)
    assert len(mapped(store)) >= 400


async def test_where_nothing_can_be_mapped(
    store: Store, delta: Make, tmp_path: Path, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, delta)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(mmap, "mmap", refused)
    snapshots = sharing(tmp_path)
    await save(store, snapshots)
    await save(store, snapshots)
    restored = await sharing(tmp_path).read_alone("nats://127.0.0.1:1", "S")
    assert restored is not None
    assert not mapped(store)
    assert not mapped(restored[1].store)
    assert bodies(restored[1].store) == bodies(store)
    # Once for each that tried.
    assert [one["event"] for one in logged].count("a snapshot's records are not shared: it cannot be mapped") == 2


async def test_of_another_log(store: Store, delta: Make, tmp_path: Path, logged: list[Any]) -> None:
    filled(store, delta)
    await write(store, sharing(tmp_path))
    await sharing(tmp_path).share(log_of(store, "now"), store)
    assert not mapped(store)
    assert "it is of a stream S made at then" in logged[-1]["reason"]
