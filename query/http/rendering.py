"""Rendering: the text that an answer is sent as: JSON as stored, indented JSON or YAML, with gzip where asked for.

Everything in memory is compact JSON; other forms are made from it while it is sent.
k8s.io/apiserver pkg/endpoints/handlers/responsewriters, pkg/endpoints/handlers/negotiation.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web
from isal import isal_zlib

from query.http.block_yaml import block_yaml

JSON = "application/json"
YAML = "application/yaml"

# Bytes of JSON that are made into YAML at one go: some 2 ms; and from which on one document is left to a thread, which
# gives way to the event loop, as the writer is Python.
_YAML_PIECE = 64 * 1024
LARGE_YAML = 256 * 1024
# Bytes from which on gzip is worth it (responsewriters/writers.go: defaultGzipThresholdBytes).
_GZIP_FROM = 128 * 1024
# igzip's level 1: a sixth of the time of zlib's, and smaller; the format is gzip's.
_GZIP_LEVEL = 1
_GZIP_FORMAT = 31
# User agents of people (negotiation/negotiate.go: isPrettyPrint).
_FOR_PEOPLE = ("curl", "Wget", "Mozilla/5.0")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})


class Pieces(list[bytes]):
    """Items in pieces, for compact JSON: their join is the items, each with its opening, and a comma before it."""


async def _at_once() -> None:
    """Nothing has to be waited for."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How one request wants its answer. `gzip`: whether the client accepts that."""

    yaml: bool = False
    pretty: bool = False
    gzip: bool = False

    @property
    def content_type(self) -> str:
        """The media type of the answer."""
        return YAML if self.yaml else JSON

    @property
    def compact(self) -> bool:
        """Whether bytes are sent as they are stored, apart from gzip."""
        return not (self.yaml or self.pretty)

    def whole(self, body: bytes) -> bytes:
        """The text of one document, given as compact JSON."""
        if self.yaml:
            return block_yaml(msgspec.json.decode(body))
        return msgspec.json.format(body, indent=2).rstrip(b"\n") + b"\n" if self.pretty else body

    def head(self, head: bytes) -> bytes:
        """The beginning of a list: `head` is the compact one, up to the bracket before its first item."""
        if self.compact:
            return head
        if self.pretty:
            return msgspec.json.format(head + b"]}", indent=2).rstrip(b"}\n ").removesuffix(b"]")
        content = msgspec.json.decode(head + b"]}")
        name, _ = content.popitem()
        return block_yaml(content) + f"{name}:".encode()

    def items(self, items: list[bytes], *, first: bool, opening: bytes = b"") -> bytes:
        """Items of a list, `first` ones or further ones. `opening`: the beginning of each of them, which they lack."""
        if isinstance(items, Pieces):
            return b"".join([items[0].removeprefix(b","), *items[1:]] if first else items)
        if self.compact:
            # None but the first item is copied, except into the text that is sent.
            return (b"," + opening).join([opening + items[0], *items[1:]] if first else [b"", *items])
        if self.pretty:
            indented = b",".join(
                [b"\n    " + msgspec.json.format(opening + item, indent=2).replace(b"\n", b"\n    ") for item in items]
            )
            return indented if first else b"," + indented
        text = block_yaml([msgspec.json.decode(opening + item) for item in items])
        return b"\n" + text if first else text

    def tail(self, *, empty: bool) -> bytes:
        """The end of a list."""
        if self.yaml:
            return b" []\n" if empty else b""
        if self.pretty:
            return b"]\n}\n" if empty else b"\n  ]\n}\n"
        return b"]}\n"


def rendering(headers: Mapping[str, str], query: Mapping[str, str], *, in_yaml: bool) -> Rendering:
    """What a request's headers and parameters ask for. `in_yaml`: whether YAML was negotiated."""
    if "pretty" in query:
        pretty = query["pretty"] in _TRUE
    else:
        pretty = headers.get("User-Agent", "").startswith(_FOR_PEOPLE)
    return Rendering(in_yaml, pretty and not in_yaml, takes_gzip(headers.get("Accept-Encoding", "")))


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    for part in accepted.split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip", "*"):
            weight = re.fullmatch(r"\s*q=(0|1|0?\.[0-9]+|[01]\.[0-9]*)\s*", parameters.strip())
            return weight is None or float(weight.group(1)) > 0
    return False


def answer(
    body: bytes, render: Rendering, headers: Iterable[tuple[str, str]] = (), *, status: int = 200
) -> web.Response:
    """An answer of one document, given as compact JSON."""
    text = render.whole(body)
    response = web.Response(status=status, content_type=render.content_type)
    for name, value in headers:
        response.headers.add(name, value)
    if len(text) >= _GZIP_FROM:
        response.headers.add("Vary", "Accept-Encoding")
        if render.gzip:
            response.headers["Content-Encoding"] = "gzip"
            text = isal_zlib.compress(text, _GZIP_LEVEL, _GZIP_FORMAT)
    response.body = text
    return response


async def send_list(
    http: web.BaseRequest,
    render: Rendering,
    headers: Iterable[tuple[str, str]],
    head: bytes,
    slices: Iterable[list[bytes]],
    opening: bytes,
    size: int | None,
    begun: Callable[[], None],
    turns: asyncio.Lock,
    ready: Callable[[], Awaitable[None]] = _at_once,
) -> web.StreamResponse:
    """Sends a list piece by piece; others get their turn between two, also when the client takes all at once.

    `opening`: the beginning of each item, which `slices` lack. `size`: the bytes of the items together, with that and
    the commas between them, if known. `begun` is called before the first
    byte is sent. `turns`: the lock that all lists of a service share, so that one piece of one of them is made between
    two turns of the loop, however many lists there are. It is not held while a client is waited for. `ready`: is
    awaited before each of the slices.
    """
    response = web.StreamResponse()
    response.content_type = render.content_type
    for name, value in headers:
        response.headers.add(name, value)
    total = None if size is None or not render.compact else len(head) + size + len(render.tail(empty=not size))
    remaining = _texts(render, slices, opening, turns, ready)
    waiting: list[bytes] = [render.head(head)]
    held, over = len(waiting[0]), False
    # What is small enough is not compressed; a list of unknown size is held back until that is known.
    while held < _GZIP_FROM and (total is None or total < _GZIP_FROM):
        text = await anext(remaining, None)
        if text is None:
            over = True
            break
        waiting.append(text)
        held += len(text)
    large = total >= _GZIP_FROM if total is not None else held >= _GZIP_FROM
    compress = None
    if large:
        response.headers.add("Vary", "Accept-Encoding")
        if render.gzip:
            response.headers["Content-Encoding"] = "gzip"
            compress = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_FORMAT)
    if compress is None and (total is not None or over):
        response.content_length = total if total is not None else sum(map(len, waiting))
    begun()
    await response.prepare(http)

    async def send(text: bytes) -> None:
        if compress is not None:
            async with turns:
                text = compress.compress(text)
                await asyncio.sleep(0)
        if text:
            await response.write(text)

    text = b"".join(waiting)
    # It may be waited for long.
    waiting.clear()
    await send(text)
    # The next piece is made in its memory, which is warm.
    text = b""
    if not over:
        async for text in remaining:
            await send(text)
            text = b""
    if compress is not None:
        await response.write(compress.flush())
    await response.write_eof()
    return response


async def _texts(
    render: Rendering,
    slices: Iterable[list[bytes]],
    opening: bytes,
    turns: asyncio.Lock,
    ready: Callable[[], Awaitable[None]],
) -> AsyncIterator[bytes]:
    """A list from its first item to its end."""
    remaining = iter(slices)
    first = True
    while True:
        text: bytes | None = None
        await ready()
        async with turns:
            # Making a slice may take its time, too: rows of a table are small, what they are made of need not be.
            items = next(remaining, None)
            if items is not None and not render.yaml:
                text, first = render.items(items, first=first, opening=opening), False
            await asyncio.sleep(0)
        if items is None:
            break
        if text is not None:
            yield text
            continue
        for piece in _pieces(items):
            async with turns:
                if len(piece) == 1 and len(piece[0]) > LARGE_YAML:
                    text = await asyncio.to_thread(render.items, piece, first=first, opening=opening)
                else:
                    text = render.items(piece, first=first, opening=opening)
                first = False
                await asyncio.sleep(0)
            yield text
    yield render.tail(empty=first)


def _pieces(items: list[bytes]) -> Iterator[list[bytes]]:
    """Runs of items that are made into YAML within some milliseconds, and each that is larger alone."""
    begin, size = 0, 0
    for at, item in enumerate(items):
        if begin < at and size + len(item) > _YAML_PIECE:
            yield items[begin:at]
            begin, size = at, 0
        size += len(item)
    if begin < len(items):
        yield items[begin:]
