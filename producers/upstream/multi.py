"""libcurl's multi handle on the running event loop: transfers side by side, without threads and without polling.

Contract: https://curl.se/libcurl/c/libcurl-multi.html, "multi_socket": libcurl says which sockets and which time it
waits for, the loop says when one has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pycurl

Ended = Callable[[int, str], None]
# Streams on one connection, if the server's limit is not below: what Go takes when a server names none.
_STREAMS = 1000


class Multi:
    """Transfers of one owner, and the connections that they share; belongs to one event loop.

    Callbacks of transfers run inside libcurl: they may not add, remove or unpause one; tasks that they wake may.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: dict[pycurl.Curl, Ended] = {}
        # Connections that were made for their own sake: libcurl closes them when they are removed.
        self._held: set[pycurl.Curl] = set()
        self._watched: dict[int, int] = {}
        self._timer: asyncio.Handle | None = None
        self._closed = False
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, _STREAMS)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def __len__(self) -> int:
        return len(self._ended)

    def __contains__(self, transfer: object) -> bool:
        return transfer in self._ended or transfer in self._held

    @property
    def sockets(self) -> int:
        """How many file descriptors are waited for."""
        return len(self._watched)

    def add(self, transfer: pycurl.Curl, ended: Ended, *, hold: bool = False) -> None:
        """Starts a transfer; `ended` is called once with libcurl's code and text, unless it is removed before.

        `hold`: one that only connects; if it does, it stays until it is removed.
        """
        self._ended[transfer] = ended
        if hold:
            self._held.add(transfer)
        self._multi.add_handle(transfer)

    def remove(self, transfer: pycurl.Curl) -> None:
        """Ends a transfer if it is under way; its stream is reset, its connection goes on where it has others."""
        if transfer in self:
            self._ended.pop(transfer, None)
            self._held.discard(transfer)
            self._multi.remove_handle(transfer)

    def pause(self, transfer: pycurl.Curl, directions: int) -> None:
        """Which directions of a transfer rest (PAUSE_RECV, PAUSE_SEND); what was held back may come at once."""
        transfer.pause(directions)
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_soon(self._timed_out)

    def close(self) -> None:
        """Ends all transfers and closes all connections."""
        if self._closed:
            return
        self._closed = True
        for transfer in (*self._ended, *self._held):
            self.remove(transfer)
        self._multi.close()
        for fd in list(self._watched):
            self._unwatch(fd)
        if self._timer is not None:
            self._timer.cancel()

    # -- what libcurl asks for -----------------------------------------------------------------------------------------

    def _watch(self, what: int, fd: int, multi: object, data: object) -> None:
        if what == pycurl.POLL_REMOVE or self._closed:
            self._unwatch(fd)
            return
        before = self._watched.get(fd, 0)
        self._watched[fd] = what
        for direction, begin, end, ready in (
            (pycurl.POLL_IN, self._loop.add_reader, self._loop.remove_reader, pycurl.CSELECT_IN),
            (pycurl.POLL_OUT, self._loop.add_writer, self._loop.remove_writer, pycurl.CSELECT_OUT),
        ):
            if what & direction and not before & direction:
                begin(fd, self._act, fd, ready)
            elif before & direction and not what & direction:
                end(fd)

    def _unwatch(self, fd: int) -> None:
        before = self._watched.pop(fd, 0)
        if before & pycurl.POLL_IN:
            self._loop.remove_reader(fd)
        if before & pycurl.POLL_OUT:
            self._loop.remove_writer(fd)

    def _set_timer(self, milliseconds: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or milliseconds < 0:
            return
        if milliseconds == 0:
            self._timer = self._loop.call_soon(self._timed_out)
        else:
            self._timer = self._loop.call_later(milliseconds / 1000, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, fd: int, ready: int) -> None:
        if self._closed:
            return
        _, running = self._multi.socket_action(fd, ready)
        if running < len(self._ended):
            self._collect()

    def _collect(self) -> None:
        left = 1
        while left:
            left, succeeded, failed = self._multi.info_read()
            for transfer in succeeded:
                self._end(transfer, 0, "")
            for transfer, code, text in failed:
                self._end(transfer, code, text)

    def _end(self, transfer: pycurl.Curl, code: int, text: str) -> None:
        ended = self._ended.pop(transfer, None)
        if ended is not None:
            if code or transfer not in self._held:
                self._held.discard(transfer)
                self._multi.remove_handle(transfer)
            ended(code, text)
