"""Watchers: many watches of pods in one process, which note of each event only its index and when it came."""

from __future__ import annotations

import asyncio
import time
from array import array
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import cast

import msgspec

# What stands before an event's version, and nowhere else: within a string its quotes would be escaped. An event is
# written in one piece, so that the framing of chunks never stands in it.
_MARK = b'"object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"'
# A version in which the index is complete has been read this far behind the mark.
_ENOUGH = 96


class Seen(msgspec.Struct):
    """What one watcher saw: the events' indexes, in order, and the monotonic times of their arrival."""

    indexes: array[int]
    times: array[float]


class _Watcher(asyncio.Protocol):
    def __init__(self, request: bytes, group: _Group) -> None:
        self.indexes = array("q")
        self.times = array("d")
        self.transport: asyncio.Transport | None = None
        self._request = request
        self._group = group
        self._begun = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
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


async def watch(pipe: Pipe, port: int, path: str, count: int, patience: float) -> None:
    """Opens watches and sends None; is told the last index there will be; sends what each watcher saw.

    It waits for that index for `patience` seconds at most.
    """
    group = _Group(count)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    watchers = [_Watcher(request, group) for _ in range(count)]
    for watcher in watchers:
        await loop.create_connection(partial(_itself, watcher), "127.0.0.1", port)
    await asyncio.wait_for(group.all_open.wait(), 30)
    if group.failed:
        raise RuntimeError(f"a watch was refused: {group.failed[0]!r}")
    pipe.send(None)
    group.last = await asyncio.to_thread(pipe.recv)
    for watcher in watchers:
        if watcher.indexes:
            group.reached(watcher, watcher.indexes[-1])
    try:
        await asyncio.wait_for(group.all_done.wait(), patience)
    except TimeoutError:
        # Who reads the result sees what is missing.
        pass
    pipe.send([Seen(watcher.indexes, watcher.times) for watcher in watchers])
    for watcher in watchers:
        if watcher.transport is not None:
            watcher.transport.abort()
