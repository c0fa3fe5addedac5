"""Summary: what the headers of an object's message say of it, for readers that take no payloads.

A producer that takes a cluster over reads the log's state of it back by headers only (the option headers_only of a
JetStream consumer): objects themselves are not sent.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote, unquote

import msgspec

from deltalog.wire.delta import Delta, Replaced, Selectables, UnreadableRecord

# Of every object's message; see `summary_line`.
SUMMARY_HEADER = "Kb"
# Beside it where the delta carries a `Replaced`, which it is as JSON.
REPLACED_HEADER = "Kb-Replaced"
# Of a message whose object is in parts: how many.
PARTS_HEADER = "Kb-Parts"
# Of what selectors look at: see `selectables_digest`. Messages of older releases have none.
DIGEST_HEADER = "Kb-Digest"
# How the object was pruned, where that is not the usual way: 8 hexadecimal digits.
PRUNED_HEADER = "Kb-Pruned"


class Summary(msgspec.Struct, frozen=True, gc=False):
    """The last state of an object, as the headers of its message tell it.

    Fields are those of `Delta` but for these:

    - `oldest_uid_index`: that of its `replaced`, or `uid_index` where there is none.
    - `parts`: how many parts the object is in.
    - `pruned`: how the object was pruned, 8 hexadecimal digits; empty: the usual way.
    - `digest`: 8 bytes by which a change of its labels, fields or controller is noticed; empty: not known.
    """

    type: str
    uid: str
    member_version: str
    uid_index: int
    oldest_uid_index: int
    replaced: Replaced | None = None
    parts: int = 0
    pruned: str = ""
    digest: bytes = b""


_encode_selectables = msgspec.msgpack.Encoder(order="deterministic").encode
DIGEST_BYTES = 8
"""Of a digest: by 2^-64 two are equal by chance."""


def encode_selectables(labels: dict[str, str], fields: dict[str, str], controller_uid: str) -> bytes:
    """What selectors look at as bytes, equal for equal ones: as `Delta.was` is on the wire, with sorted keys."""
    return _encode_selectables(Selectables(labels, fields, controller_uid))


def selectables_digest(encoded: bytes) -> bytes:
    """8 bytes that name what `encode_selectables` encoded (BLAKE2b)."""
    return blake2b(encoded, digest_size=DIGEST_BYTES).digest()


_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*").fullmatch
_PLAIN_PAIR = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]* [0-9A-Za-z][0-9A-Za-z-]*").fullmatch


def _word(text: str) -> str:
    """A word of the summary: what a cluster gives as uid or version is seldom more than that, but may be anything."""
    if _PLAIN(text):
        return text
    if text == "-":
        return "%2D"
    return quote(text, safe="-:._/+=") or "-"


def _unword(word: str) -> str:
    if word == "-":
        return ""
    return unquote(word) if "%" in word else word


def summary_line(delta: Delta) -> str:
    """The value of the header `Kb`: change, uid, resourceVersion, `uid_index` and `oldest_uid_index`.

    `MODIFIED 4f1c 5000071 812 640`: the uid 4f1c entered the log at sequence 812, in the place of another uid, and the
    name has been in use since sequence 640. Words are percent-encoded where the header needs it and an empty one is
    `-`: nothing that a cluster sends breaks out of the line.
    """
    oldest = delta.replaced.oldest_uid_index if delta.replaced else delta.uid_index
    words = f"{delta.uid} {delta.member_version}"
    if not _PLAIN_PAIR(words):
        words = f"{_word(delta.uid)} {_word(delta.member_version)}"
    return f"{delta.type} {words} {delta.uid_index} {oldest}"


def summary_headers(delta: Delta, pruned: str = "", digest: bytes = b"") -> dict[str, str]:
    """The headers of an object's message beside those of NATS, by which a producer reads back what it appended.

    `pruned` and `digest` as in `Summary`.
    """
    headers = {SUMMARY_HEADER: summary_line(delta)}
    if digest:
        headers[DIGEST_HEADER] = digest.hex()
    if pruned:
        headers[PRUNED_HEADER] = pruned
    if delta.replaced is not None:
        headers[REPLACED_HEADER] = msgspec.json.encode(delta.replaced).decode()
    if delta.parts:
        headers[PARTS_HEADER] = str(len(delta.parts))
    return headers


def _digest(text: str) -> bytes:
    """Raises ValueError."""
    found = bytes.fromhex(text)
    if len(found) not in (0, DIGEST_BYTES):
        raise ValueError(f"a digest of {len(found)} bytes")
    return found


def parse_summary(headers: dict[str, str]) -> Summary | None:
    """The summary in a message's headers; None if they have none (a server's marker, somebody else's message).

    Raises:
        UnreadableRecord: there is one, and it is malformed.
    """
    line = headers.get(SUMMARY_HEADER)
    if line is None:
        return None
    try:
        change, uid, version, first, oldest = line.split(" ")
        replaced = None
        if (text := headers.get(REPLACED_HEADER)) is not None:
            replaced = msgspec.json.decode(text, type=Replaced)
        return Summary(
            change,
            _unword(uid),
            _unword(version),
            int(first),
            int(oldest),
            replaced,
            int(headers.get(PARTS_HEADER, "0")),
            headers.get(PRUNED_HEADER, ""),
            _digest(headers.get(DIGEST_HEADER, "")),
        )
    except (ValueError, msgspec.MsgspecError) as cause:
        raise UnreadableRecord(f"header {SUMMARY_HEADER}: {line!r}: {cause}") from cause
