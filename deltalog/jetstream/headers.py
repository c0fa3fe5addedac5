"""Header blocks of NATS messages: made as bytes once, parsed only where they are asked for (ADR-4)."""

from __future__ import annotations

import re

VERSION_LINE = b"NATS/1.0\r\n"
_ODD_KEY = re.compile(r"[^!-9;-~]|^$")


def header_lines(headers: dict[str, str]) -> bytes:
    """Headers as the lines of a header block, without its first and last line.

    Example: `{"Kb-Type": "ADDED"}` is `b"Kb-Type: ADDED\\r\\n"`. Raises ValueError if one would break out of its line.
    """
    for key, value in headers.items():
        if _ODD_KEY.search(key) or "\n" in value or "\r" in value:
            raise ValueError(f"header {key!r}: {value!r}")
    return b"".join(f"{key}: {value}\r\n".encode() for key, value in headers.items())


def headers_of_lines(lines: bytes) -> dict[str, str]:
    """The headers whose lines `header_lines` has made: its inverse."""
    return {key: value for key, _, value in (line.partition(": ") for line in lines.decode().split("\r\n") if line)}


def header_block(headers: dict[str, str] | None) -> bytes:
    """A whole header block; empty where there are no headers."""
    if not headers:
        return b""
    lines = (f"{key}: {value}\r\n" for key, value in headers.items())
    return b"".join((VERSION_LINE, "".join(lines).encode(), b"\r\n"))


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a message's header block, read as leniently as nats-py does; the status line is left out."""
    found = {}
    # Never empty, but a block that is no block at all is no reason to end a connection.
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        name = name.strip()
        if colon and name.isascii() and len(name.split()) <= 1:
            found[name] = value.strip(" \t\r\n\v\f")
    return found
