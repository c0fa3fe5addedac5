"""Watchers: many watches of pods in one process, which note of each event only its index and when it came.

Some go on at a second server when the first one goes.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from array import array
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import cast

import msgspec

# What stands before an event's version, and nowhere else: within a string its quotes would be escaped. An event is
# written in one piece, so that the framing of chunks never stands in it.
_MARK = b'"object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"'
# The end of an event and of its chunk.
_EVENT_END = b"}\n\r\n"
# The end of a stream that was ended, not cut off.
_LAST_CHUNK = b"\r\n0\r\n\r\n"
# A version in which the index is complete has been read this far behind the mark.
_ENOUGH = 96


class Seen(msgspec.Struct):
    """What one watcher saw: the events' indexes, in order, and the monotonic times of their arrival."""

    indexes: array[int]
    times: array[float]


class Moved(msgspec.Struct):
    """As Seen; `moved`: how many events came before the connection to the second server."""

    indexes: array[int]
    times: array[float]
    moved: int


class _Watcher(asyncio.Protocol):
    def __init__(self, request: bytes, group: _Group) -> None:
        self.indexes = array("q")
        self.times = array("d")
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()
        self.request = request
        self._group = group
        self._begun = b""
        self._end = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._begun, self._open = b"", False
        if self.indexes and not self._end.endswith((_EVENT_END, _LAST_CHUNK)):
            # It may have come in part only, and is to come again.
            self.indexes.pop()
            self.times.pop()
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._end = (self._end + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        if not self._open:
            self._begun += data
            if b"\r\n\r\n" not in self._begun:
                return
            if b" 200 " not in self._begun.split(b"\r\n", 1)[0]:
                self._group.failed.append(self._begun[:300])
            self._open, data, self._begun = True, self._begun, b""
            self._group.opened()
        elif self._begun:
            data = self._begun + data
        at = data.find(_MARK)
        end = 0
        last = len(data) - len(_MARK) - _ENOUGH
        while 0 <= at <= last:
            begin = data.index(b".", at + len(_MARK)) + 1
            end = data.index(b".", begin)
            self.indexes.append(int(data[begin:end]))
            self.times.append(now)
            at = data.find(_MARK, end)
        if at >= 0:
            # An event whose beginning is cut off here.
            self._begun = data[at:]
        else:
            self._begun = data[max(end, len(data) - len(_MARK)) :]
        if self.indexes:
            self._group.reached(self, self.indexes[-1])
        if self._end == _LAST_CHUNK and self.transport is not None:
            self.transport.close()


class _Group:
    """All watchers of the process: how many are open, and how many have seen the last index."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.open = 0
        self.failed: list[bytes] = []
        self.all_open = asyncio.Event()
        self.all_done = asyncio.Event()
        self.last: int | None = None
        self.done: set[_Watcher] = set()

    def opened(self) -> None:
        self.open += 1
        if self.open == self.count:
            self.all_open.set()

    def reached(self, watcher: _Watcher, index: int) -> None:
        if self.last is not None and index >= self.last:
            self.done.add(watcher)
            if len(self.done) == self.count:
                self.all_done.set()


def _itself(watcher: _Watcher) -> _Watcher:
    return watcher


def _request(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n".encode()


async def watch(pipe: Pipe, port: int, path: str, count: int, patience: float, authority: Path | None = None) -> None:
    """Opens watches and sends None; is told the last index there will be; sends what each watcher saw.

    It waits for that index for `patience` seconds at most. `authority`: of the server's certificate, for https.
    """
    group = _Group(count)
    context = None if authority is None else ssl.create_default_context(cafile=authority)
    watchers = await _open(group, port, path, context)
    pipe.send(None)
    await _finish(pipe, group, watchers, patience)
    pipe.send([Seen(watcher.indexes, watcher.times) for watcher in watchers])
    _close(watchers)


async def watch_and_move(
    pipe: Pipe, ports: tuple[int, int], path: str, prefix: str, index: int, count: int, patience: float
) -> None:
    """As `watch` at the first port; a watcher whose connection ends connects to the second port at once.

    Watches begin behind `index` of the history `prefix`, and go on there behind the last event they have. Without a
    prefix the path is taken as it is.
    """
    group = _Group(count)
    began = f"{path}?watch=1&resourceVersion={prefix}."
    old, new = ports
    watchers = await _open(group, old, f"{began}{index}" if prefix else path)
    moved: dict[_Watcher, int] = {}

    async def move(watcher: _Watcher) -> None:
        await watcher.gone.wait()
        moved[watcher] = len(watcher.indexes)
        watcher.request = _request(new, f"{began}{watcher.indexes[-1]}" if prefix else path)
        await asyncio.get_running_loop().create_connection(partial(_itself, watcher), "127.0.0.1", new)

    moving = [asyncio.create_task(move(watcher)) for watcher in watchers]
    pipe.send(None)
    await _finish(pipe, group, watchers, patience)
    for task in moving:
        task.cancel()
    await asyncio.gather(*moving, return_exceptions=True)
    pipe.send([Moved(watcher.indexes, watcher.times, moved.get(watcher, len(watcher.indexes))) for watcher in watchers])
    _close(watchers)


async def _open(group: _Group, port: int, path: str, context: ssl.SSLContext | None = None) -> list[_Watcher]:
    watchers = [_Watcher(_request(port, path), group) for _ in range(group.count)]
    loop = asyncio.get_running_loop()
    for watcher in watchers:
        await loop.create_connection(partial(_itself, watcher), "127.0.0.1", port, ssl=context)
    await asyncio.wait_for(group.all_open.wait(), 30)
    if group.failed:
        raise RuntimeError(f"a watch was refused: {group.failed[0]!r}")
    return watchers


async def _finish(pipe: Pipe, group: _Group, watchers: Sequence[_Watcher], patience: float) -> None:
    """Waits until all have seen the last index, which the pipe tells."""
    group.last = await asyncio.to_thread(pipe.recv)
    for watcher in watchers:
        if watcher.indexes:
            group.reached(watcher, watcher.indexes[-1])
    try:
        await asyncio.wait_for(group.all_done.wait(), patience)
    except TimeoutError:
        # Who reads the result sees what is missing.
        pass


def _close(watchers: Sequence[_Watcher]) -> None:
    for watcher in watchers:
        if watcher.transport is not None:
            watcher.transport.abort()
