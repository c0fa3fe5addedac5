"""Memory: what a store of plain bodies holds, against compressed ones, and what that costs at replay and LIST.

Each reading has a fresh process. Compressed bodies are this benchmark's own: the store has plain ones, and the
figures here say whether that is still right. With the package `zstandard` installed, zstd is compared too.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
import zlib
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

from benchmarks import bare, rig
from benchmarks.content import PODS, Filled, fill
from benchmarks.report import Report, median
from deltalog import Reader, Record, connect, decode_control, open_log
from deltalog.wire.delta import SharingDecoder
from deltalog.wire.subjects import CONTROL
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.record import BODY_AT, body_in, length_at
from materializer.store import Store

_SLICE = 64
_DICTIONARY_BYTES = 112 * 1024
_TRAINING = 2000
_TYPE = PODS.group_resource
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class _Form(NamedTuple):
    """How bodies are held. `joinable`: they are deflate blocks, of which a gzip stream can be joined."""

    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    joinable: bool = False


def _blocks(body: bytes, level: int) -> bytes:
    """Raw deflate blocks that end at a byte and refer to nothing before them."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9)
    return packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH)


def _inflated(blocks: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(blocks)


def _form(name: str, dictionary: bytes) -> _Form:
    if name == "plain":
        return _Form(lambda body: body, lambda body: body)
    kind, level, *alone = name.split(" ")
    if kind == "deflate":
        return _Form(lambda body: _blocks(body, int(level)), _inflated, True)
    zstandard = importlib.import_module("zstandard")
    shared: Any = None if alone else zstandard.ZstdCompressionDict(dictionary)
    packer = zstandard.ZstdCompressor(level=int(level), dict_data=shared, write_checksum=False)
    # Copied: what zstandard returns was allocated for the worst case, and shrunk leaves a hole that is of no use.
    return _Form(
        lambda body: bytes(memoryview(packer.compress(body))),
        zstandard.ZstdDecompressor(dict_data=shared).decompress,
    )


def _forms() -> list[str]:
    try:
        importlib.import_module("zstandard")
    except ImportError:
        return ["plain", "deflate 1", "deflate 6"]
    return ["plain", "deflate 1", "deflate 6", "zstd 1 alone", "zstd 1", "zstd 3"]


def _dictionary(filled: Filled) -> bytes:
    samples = [pod.content.object for pod in filled.pods[:: max(len(filled.pods) // _TRAINING, 1)]]
    trained: bytes = importlib.import_module("zstandard").train_dictionary(_DICTIONARY_BYTES, samples).as_bytes()
    return trained


def _slices(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    return [entries[begin : begin + _SLICE] for begin in range(0, len(entries), _SLICE)]


def _list(entries: Sequence[Entry], form: _Form) -> int:
    """Makes a JSON list of all entries, in slices as the service does. The size."""
    unpack = form.unpack
    size = 0
    for part in _slices(entries):
        size += len(b",".join([unpack(body_in(entry.record)) for entry in part]))
    return size + len(entries) // _SLICE


def _gzip_list(entries: Sequence[Entry], form: _Form) -> list[bytes]:
    """The same as gzip: made on the fly, at the level of a kube-apiserver."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = []
    for at, part in enumerate(_slices(entries)):
        text = b",".join([form.unpack(body_in(entry.record)) for entry in part])
        parts.append(packer.compress(b"," + text if at else text))
    return [*parts, packer.flush()]


class _Joiner:
    """Makes the gzip list of blocks as they are held.

    The checksum of a join is that of the first part moved on by as many zero bytes as the second has, and the
    second's: what the second contributes is known when it is stored.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        bodies = [_inflated(body_in(entry.record)) for entry in entries]
        self._zeros = bytes(max(map(len, bodies)) + 1)
        self._comma = _blocks(b",", 1)
        self._known = {entry.index: self._share(b"," + body) for entry, body in zip(entries, bodies, strict=True)}
        self._first = self._share(bodies[0])

    def _share(self, text: bytes) -> tuple[int, int]:
        return len(text), zlib.crc32(text) ^ zlib.crc32(self._zeros[: len(text)])

    def list(self, entries: Sequence[Entry]) -> list[bytes]:
        zeros, known, crc32 = memoryview(self._zeros), self._known, zlib.crc32
        size, share = self._first
        total, crc = size, crc32(zeros[:size]) ^ share
        for entry in entries[1:]:
            size, share = known[entry.index]
            crc = crc32(zeros[:size], crc) ^ share
            total += size
        comma = self._comma
        parts = [comma.join([body_in(entry.record) for entry in part]) for part in _slices(entries)]
        joined = [piece for part in parts for piece in (comma, part)][1:]
        tail = b"\x03\x00" + crc.to_bytes(4, "little") + (total & 0xFFFFFFFF).to_bytes(4, "little")
        return [_GZIP_HEAD, *joined, tail]


class _Found(NamedTuple):
    messages: int
    seconds: float
    cpu: float
    held: float
    body: float
    listed: float
    zipped: float
    zipped_size: int
    right: bool


def _timed(made: Callable[[], Any]) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(3):
        result = None
        started = time.perf_counter()
        result = made()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


async def _hold(pipe: Pipe, url: str, name: str, dictionary: bytes) -> None:
    """Replays the log into a store with bodies in this form; sends what that took, and what lists take."""
    form = _form(name, dictionary)
    connection = await connect(url, name="kubebraid-bench")
    log = await open_log(connection)
    store, decoder = Store(log.prefix, log.tombstone_ttl), SharingDecoder()
    messages = 0
    pack = form.pack

    def apply(record: Record) -> None:
        nonlocal messages
        messages += 1
        if record.subject.startswith(CONTROL + "."):
            store.apply_control(decode_control(record.data), record.sequence, record.time)
            return
        store.apply_delta(decoder.decode(record.data), record.sequence, record.time)
        entry = store.types[_TYPE].order.items[-1]
        assert isinstance(entry, Entry)
        entry.record = entry.record[: length_at(entry.record, BODY_AT)] + pack(entry.content)

    gc.collect()
    before = rig.resident_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    await Reader(log, apply, stop_when_caught_up=True).run()
    store.finish_loading(log.now())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    decoder.forget()
    await asyncio.sleep(0.2)
    gc.collect()
    held = rig.resident_bytes() - before
    entries = store.types[_TYPE].select(Filter())
    body = sum(len(body_in(entry.record)) for entry in entries)
    listed, size = _timed(lambda: _list(entries, form))
    if form.joinable:
        joiner = _Joiner(entries)
        zipped, parts = _timed(lambda: joiner.list(entries))
    else:
        zipped, parts = _timed(lambda: _gzip_list(entries, form))
    right = size == len(_ungzipped(parts)) + 1 - bool(len(entries) % _SLICE)
    count = len(entries)
    zipped_size = sum(map(len, parts))
    pipe.send(
        _Found(messages, seconds, cpu, held / count, body / count, listed / count, zipped / count, zipped_size, right)
    )
    await connection.close()


def _ungzipped(parts: list[bytes]) -> bytes:
    """Raises zlib.error if the checksum or the length is wrong."""
    return zlib.decompress(b"".join(parts), 31)


async def run(*, pods: int, rounds: int) -> Report:
    report = Report(
        "memory",
        f"bodies of {pods:,} pods plain and compressed, {rounds} rounds in turn",
        (
            *("bodies", "resident bytes an object", "body bytes", "replay CPU us", "speed of bare reader"),
            *("LIST us an object", "gzip LIST us an object", "gzip bytes an object"),
        ),
    )
    found: dict[str, list[_Found]] = {name: [] for name in _forms()}
    read: list[float] = []
    async with rig.broker() as broker:
        async with rig.connection(broker.url) as connection:
            log = await open_log(connection)
            filled = await fill(log, pods)
            messages = (await log.state()).messages
        dictionary = _dictionary(filled) if any(name.startswith("zstd") for name in found) else b""
        json = filled.size / pods
        filled.pods.clear()
        for _ in range(rounds):
            read.append((await rig.fresh(bare.read_ordered, broker.url, log.name, messages))[1])
            for name, all_found in found.items():
                all_found.append(await rig.fresh(_hold, broker.url, name, dictionary))
    for name, all_found in found.items():
        middle = [median([float(one[at]) for one in all_found]) for at in range(8)]
        report.row(
            name,
            middle[3],
            middle[4],
            middle[2] / messages * 1e6,
            median(read) / middle[1],
            middle[5] * 1e6,
            middle[6] * 1e6,
            middle[7] / pods,
        )
        report.ratio(name.replace(" ", "-"), middle[3] / json, "resident bytes for each byte of JSON")
        if not all(one.right for one in all_found):
            report.failures.append(f"{name}: the gzip list is not the list")
        if any(one.messages != messages for one in all_found):
            report.failures.append(f"{name}: {all_found[0].messages} messages read, not {messages}")
    report.notes.append("LIST: making the bytes alone; gzip of deflate blocks: a join of what is held, else on the fly")
    if any(name.startswith("zstd") for name in found):
        report.notes.append(
            "zstd has a dictionary trained on the pods, or is alone: simulated pods are more alike than"
        )
        report.notes.append("real ones, so that what real ones take lies between the two")
    else:
        report.notes.append("zstd is left out: pip install zstandard")
    return report
