"""A connection that is made as one for requests, and then carries whatever both sides send: exec, port-forward.

libcurl makes it, through the proxy and with the TLS of the server's settings (CURLOPT_CONNECT_ONLY); here it is a
transport of asyncio, so that what is written for those can use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pycurl

from producers.upstream.multi import Multi

# Bytes that are read at once, and that wait to be sent until the writer is asked to rest.
_PIECE = 64 * 1024
_HIGH, _LOW = 256 * 1024, 64 * 1024


class RawConnection(asyncio.Transport):
    """Bytes in both directions. `ended` is called once it is closed."""

    def __init__(
        self, multi: Multi, curl: pycurl.Curl, protocol: asyncio.Protocol, ended: Callable[[RawConnection], None]
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._multi = multi
        self._curl = curl
        self._protocol = protocol
        self._ended = ended
        self._fd = int(curl.getinfo(pycurl.ACTIVESOCKET))
        self._to_send = bytearray()
        self._reading = False
        self._writing = False
        self._closing = False
        self._gone = False
        self._full = False
        protocol.connection_made(self)
        self.resume_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    # -- reading -------------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._fd, self._receive)
            # What TLS has taken from the socket already makes that ready no more.
            self._loop.call_soon(self._receive)

    def _receive(self) -> None:
        while self._reading and not self._gone:
            try:
                data = self._curl.recv(_PIECE)
            except BlockingIOError:
                return
            except (pycurl.error, OSError) as cause:
                self._end(OSError(f"the connection broke off: {cause}"))
                return
            if not data:
                self._end(None)
                return
            self._protocol.data_received(data)

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._gone or not data:
            return
        self._to_send += data
        if not self._writing:
            self._send()
        if len(self._to_send) > _HIGH and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def _send(self) -> None:
        while self._to_send:
            try:
                sent = self._curl.send(bytes(self._to_send[:_PIECE]))
            except BlockingIOError:
                self._wait_for_room()
                return
            except (pycurl.error, OSError) as cause:
                self._end(OSError(f"the connection broke off: {cause}"))
                return
            del self._to_send[:sent]
            if self._full and len(self._to_send) < _LOW:
                self._full = False
                self._protocol.resume_writing()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        if self._closing:
            self._end(None)

    def _wait_for_room(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._send)

    # -- its end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._to_send:
            self._end(None)

    def abort(self) -> None:
        self._end(None)

    def _end(self, cause: Exception | None) -> None:
        if self._gone:
            return
        self.pause_reading()
        self._gone = self._closing = True
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._to_send.clear()
        self._multi.remove(self._curl)
        self._ended(self)
        self._loop.call_soon(self._protocol.connection_lost, cause)
