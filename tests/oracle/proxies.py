"""Proxies that record what they are asked, and lead every name to the port that was asked for on this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import ssl
import struct
import urllib.parse

from tests.oracle.recorded import Arrival, Notes
from tests.oracle.servers import VERSION, Asked, Listening, asked_for, common_name, read_request, response


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _both(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> None:
    try:
        await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
    finally:
        up_writer.close()


class HttpProxy(Listening):
    """An HTTP proxy: CONNECT, and requests in absolute form, which it answers as the server would.

    `login`: `user:password` without which it answers 407.
    """

    def __init__(self, name: str, notes: Notes, tls: ssl.SSLContext | None = None, login: str = "") -> None:
        super().__init__(name, notes, tls)
        self._login = login

    def _way(self, asked: Asked, target: str, writer: asyncio.StreamWriter) -> str:
        shown = (
            ("shown", asked.header("proxy-authorization")),
            ("certificate", common_name(writer)),
            ("name", asked_for(writer)),
        )
        words = [f"{word}={value}" for word, value in shown if value]
        return self.notes.named(" ".join((self.name, target, *words)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await read_request(reader)) is not None:
            way = self._way(asked, asked.target if asked.method == "CONNECT" else "absolute", writer)
            if self._login:
                expected = f"Basic {base64.b64encode(self._login.encode()).decode()}"
                if asked.header("proxy-authorization") != expected:
                    self.notes.arrivals.append(Arrival("proxy", asked.method, "", "", way=way))
                    writer.write(response(407, b"", "text/plain", 'Proxy-Authenticate: Basic realm="x"'))
                    await writer.drain()
                    continue
            if asked.method == "CONNECT":
                port = int(asked.target.rpartition(":")[2])
                try:
                    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    writer.write(response(502, b""))
                    return
                self.notes.ways[up_writer.get_extra_info("sockname")[1]] = way
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _both(reader, writer, up_reader, up_writer)
                return
            target = urllib.parse.urlsplit(asked.target)
            self.notes.arrivals.append(
                Arrival(
                    server=self.notes.named(target.netloc),
                    method=asked.method,
                    path=target.path,
                    host=self.notes.named(asked.header("host")),
                    headers=asked.identity,
                    way=way,
                )
            )
            writer.write(response(200, VERSION))
            await writer.drain()


class SocksProxy(Listening):
    """A SOCKS5 proxy (RFC 1928), with a login (RFC 1929) if the client offers one, or `login` demands it."""

    def __init__(self, name: str, notes: Notes, login: str = "") -> None:
        super().__init__(name, notes)
        self._login = login

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        if version != 5:
            self.notes.arrivals.append(Arrival("proxy", "", "", "", way=f"{self.name} not SOCKS5"))
            return
        methods = await reader.readexactly(count)
        login = ""
        if 2 in methods:
            writer.write(b"\x05\x02")
            _, length = await reader.readexactly(2)
            user = (await reader.readexactly(length)).decode()
            (length,) = await reader.readexactly(1)
            login = f"{user}:{(await reader.readexactly(length)).decode()}"
            taken = not self._login or login == self._login
            writer.write(b"\x01\x00" if taken else b"\x01\x01")
        else:
            taken = not self._login
            writer.write(b"\x05\x00" if taken else b"\x05\xff")
        await writer.drain()
        if not taken:
            self.notes.arrivals.append(Arrival("proxy", "", "", "", way=f"{self.name} refused {login}"))
            return
        _, command, _, kind = await reader.readexactly(4)
        if kind == 3:
            (length,) = await reader.readexactly(1)
            name = (await reader.readexactly(length)).decode()
        else:
            name = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        try:
            if command != 1:
                raise OSError
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.write(b"\x05\x01\x00\x01" + bytes(6))
            return
        words = (self.name, f"{name}:{port}", *((f"shown={login}",) if login else ()))
        self.notes.ways[up_writer.get_extra_info("sockname")[1]] = self.notes.named(" ".join(words))
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await _both(reader, writer, up_reader, up_writer)
