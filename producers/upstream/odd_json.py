"""Odd JSON: what a server may send although no decoder takes it, object by object, so that the others are read.

Half of a surrogate pair (RFC 8259, 8.2) and bytes that are no UTF-8 become U+FFFD, as a Go client reads them; nesting
deeper than a decoder goes is an object that cannot be kept. Used only where decoding has failed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from deltalog.wire.delta import UNDECODABLE
from producers.upstream.objects import RawObject, without_line_feeds

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
# A quotation mark alone begins a text that has no end: what is behind it is not looked at again and again.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}",]', re.DOTALL)
_OPEN, _CLOSED = (b"[", b"{"), (b"]", b"}")

# Of metadata, what names an object and its state, and what may name the cluster that it describes.
_NAMING = ("name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp")


class OddObject(dict[str, msgspec.Raw]):
    """An object, as `RawObject`, whose JSON was mended, or that cannot be kept: it has but the metadata that names it.

    `problem`: why it cannot be kept; empty: it can, mended.
    """

    problem: str = ""


def mended(text: bytes) -> bytes:
    """JSON with U+FFFD for each half of a surrogate pair and for what is no UTF-8; the same text if it has none."""

    def replace(found: re.Match[bytes]) -> bytes:
        return b"\\ufffd" if found[1] else found[0]

    text = _ESCAPE.sub(replace, text)
    return text if text.isascii() else text.decode(errors="replace").encode()


def elements(text: bytes) -> Iterator[bytes]:
    """The elements of a JSON array, each as it stands, or of an object its members with their keys, however deep.

    Example: `b'[{"a":[1]},2]'` has `b'{"a":[1]}'` and `b'2'`. Raises ValueError where brackets do not match.
    """
    text = text.strip()
    if text[:1] not in _OPEN or text[-1:] not in _CLOSED:
        raise ValueError("neither an array nor an object")
    depth, begin = 0, 1
    for token in _TOKEN.finditer(text):
        found = token[0]
        if found == b'"':
            raise ValueError("a text without an end")
        if found in _OPEN:
            depth += 1
        elif found in _CLOSED:
            depth -= 1
            if depth < 0 or (not depth and token.end() != len(text)):
                raise ValueError("brackets do not match")
        elif found == b"," and depth == 1:
            yield text[begin : token.start()].strip()
            begin = token.end()
    if depth:
        raise ValueError("brackets do not match")
    if last := text[begin:-1].strip():
        yield last


def members(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value as it stands, however deep; of one key the last one counts.

    Raises ValueError, and msgspec.MsgspecError for a key that is none.
    """
    found: dict[str, bytes] = {}
    for member in elements(text):
        key = _TOKEN.match(member)
        if key is None or not key[0].startswith(b'"'):
            raise ValueError("a member without a key")
        rest = member[key.end() :].lstrip()
        if not rest.startswith(b":"):
            raise ValueError("a member without a value")
        found[msgspec.json.decode(key[0], type=str)] = rest[1:].strip()
    return found


_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def odd_object(text: bytes) -> RawObject:
    """An object whose JSON may be odd; an `OddObject` if it is.

    Raises ValueError, KeyError or what is in UNDECODABLE, if not even what names it can be read.
    """
    better = mended(text)
    try:
        found = _raw_object.decode(without_line_feeds(better))
    except UNDECODABLE as cause:
        problem = "nested too deeply" if isinstance(cause, RecursionError) else str(cause)
    else:
        return found if better == text else OddObject(found)
    # Annotations and the like may be what is wrong.
    return _unkept(members(better)["metadata"], problem)


def naming(metadata: bytes) -> dict[str, Any]:
    """Of metadata that cannot be decoded what names an object, as far as that can be. Raises ValueError."""
    found: dict[str, Any] = {}
    for name, value in members(metadata).items():
        if name in _NAMING:
            with contextlib.suppress(*UNDECODABLE):
                found[name] = msgspec.json.decode(value)
    return found


def _unkept(metadata: bytes, problem: str) -> OddObject:
    """An object that cannot be kept. Raises as `odd_object`."""
    odd = OddObject(metadata=msgspec.Raw(msgspec.json.encode(naming(metadata))))
    odd.problem = problem
    return odd


# -- what is larger than can be held -----------------------------------------------------------------------------------


def begun_object(beginning: bytes, problem: str) -> OddObject:
    """An object of which only the beginning is there, by the metadata in it. Raises as `odd_object`, without them."""
    metadata = begun_value(beginning, "metadata")
    if metadata is None:
        raise KeyError("metadata")
    return _unkept(mended(metadata), problem)


def begun_value(beginning: bytes, key: str) -> bytes | None:
    """A value of an object of which only the beginning is there, if it is whole in there; what is behind is not read.

    Example: `b'{"a":{"b":1},"c":[2'` has at `a` `b'{"b":1}'`, at `c` none.
    """
    start, end = _place(beginning, key)
    return beginning[start:end].strip() if end >= 0 else None


def begun_rest(beginning: bytes, key: str) -> bytes | None:
    """From the first byte of a value on all that is there, whole or not. None if it has not begun.

    Example: `b'{"a":1,"c":[2'` has at `c` `b'[2'`.
    """
    start, _ = _place(beginning, key, whole=False)
    return beginning[start:].strip() if start >= 0 else None


def has_several(beginning: bytes) -> bool:
    """Whether an array of which only the beginning is there has more than one element; the others are not read.

    Example: `b'[{"a":[1,2]},{"b"'` has, `b'[{"a":[1,2]'` has not as far as it is there.
    """
    depth = 0
    for token in _TOKEN.finditer(beginning):
        found = token[0]
        depth += (found in _OPEN) - (found in _CLOSED)
        if not depth or found == b'"':
            return False
        if depth == 1 and found == b",":
            return True
    return False


def _place(text: bytes, wanted: str, *, whole: bool = True) -> tuple[int, int]:
    """Where a member's value begins and ends; -1 for each that is not there. `whole` False: no end is looked for."""
    depth, start, at_key = 0, -1, False
    for token in _TOKEN.finditer(text):
        found = token[0]
        if found == b'"' or (not depth and found != b"{"):
            break
        if found in _OPEN:
            depth += 1
            at_key = depth == 1
        elif found in _CLOSED or found == b",":
            depth -= found in _CLOSED
            if start >= 0 and depth <= (0 if found in _CLOSED else 1):
                return start, token.start()
            if not depth:
                break
            at_key = depth == 1
        elif depth == 1 and at_key:
            at_key = False
            if msgspec.json.decode(mended(found), type=str) == wanted:
                colon = text.find(b":", token.end())
                start = colon + 1 if colon >= 0 else -1
                if not whole or start < 0:
                    break
    return start, -1
