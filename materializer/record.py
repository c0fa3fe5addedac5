"""Record: what an entry knows and is seldom asked for, packed into bytes in front of its body.

A record is a head of fixed length, the member version's text, the values of the selectable fields, further texts, and
the body: either plain or packed under a dictionary. So an object is two things in memory, its entry and its record.
"""

from __future__ import annotations

import struct
from binascii import unhexlify
from mmap import mmap
from typing import NamedTuple

import msgspec


class Head(NamedTuple):
    """The fixed part of a record; what the values mean is said at `Entry`.

    - `size`: bytes of the entry's content; `rest_size`: those behind its version, which are the body when it is plain;
      `behind_metadata`: those behind metadata's closing brace.
    - `values_at`, `more_at`, `body_at`: where in the record the fields' values, further texts and the body begin.
    - `flags`: FINAL and so on. `uid`: its 16 bytes, if it is a UUID in Kubernetes' way of writing.
    """

    time: int
    created: int
    uid_index: int
    selectable_since: int
    observed_from: int
    oldest_uid_index: int
    size: int
    rest_size: int
    behind_metadata: int
    values_at: int
    more_at: int
    body_at: int
    flags: int
    uid: bytes


_HEAD = struct.Struct("<qqQQQQIIIIIIB16s")
HEAD_BYTES = _HEAD.size
FINAL = 1
UUID = 2
"""`uid` is all of the uid; else its text is the first of the further texts."""
FIRST_IS_OWN = 4
"""The first known version is the member version."""
FIRST_KNOWN = 8
"""The first known version is another one, the last of the further texts."""

_unsigned = struct.Struct("<Q").unpack_from
_signed = struct.Struct("<q").unpack_from
_length = struct.Struct("<I").unpack_from
TIME, CREATED, UID_INDEX, SELECTABLE_SINCE, OBSERVED_FROM, OLDEST_UID_INDEX = range(0, 48, 8)
SIZE, REST_SIZE, BEHIND_METADATA, VALUES_AT, MORE_AT, BODY_AT = range(48, 72, 4)
FLAGS, UID = 72, 73
UID_END = UID + 16

head_of = _HEAD.unpack_from
"""The values of a record's `Head`, as a plain tuple."""
encode_texts = msgspec.msgpack.Encoder().encode
"""A list of texts as it stands in a record."""
_decode_texts = msgspec.msgpack.Decoder(list[str]).decode
NO_TEXTS = encode_texts([])


pack_head = _HEAD.pack
"""The bytes of a head; the arguments are those of `Head`. Raises OutOfRange."""
OutOfRange = struct.error
"""A number is out of the range that the log's numbers have."""


def signed_at(record: bytes | memoryview | mmap, at: int) -> int:
    """A number that may be negative: TIME or CREATED. O(1)."""
    found: int = _signed(record, at)[0]
    return found


def index_at(record: bytes | memoryview | mmap, at: int) -> int:
    """One of the indexes: UID_INDEX and so on. O(1)."""
    found: int = _unsigned(record, at)[0]
    return found


lengths_from = struct.Struct("<I").unpack_from
"""As `length_at`, in a tuple of one: for loops over many records."""


ends_of_values = struct.Struct("<II").unpack_from
"""At VALUES_AT: where the fields' values begin and end."""


def length_at(record: bytes | memoryview | mmap, at: int) -> int:
    """One of the lengths and places: SIZE and so on. O(1)."""
    found: int = _length(record, at)[0]
    return found


def member_version_in(record: bytes) -> str:
    """The member version. O(its length)."""
    return record[HEAD_BYTES : _length(record, VALUES_AT)[0]].decode()


def is_newer(version: str, record: bytes) -> bool:
    """`newer(version, member_version_in(record))`, with less to be done. O(their length)."""
    one, other = version.encode(), record[HEAD_BYTES : _length(record, VALUES_AT)[0]]
    if one.isdigit() and other.isdigit():
        return (len(one), one) > (len(other), other)
    return one != other


def values_in(record: bytes) -> bytes:
    """The fields' values as they are packed: equal ones are equal bytes. O(their length)."""
    return record[_length(record, VALUES_AT)[0] : _length(record, MORE_AT)[0]]


def texts_of(values: bytes) -> list[str]:
    """The inverse of `encode_texts`."""
    return _decode_texts(values)


_body_and_rest = struct.Struct(f"<I{BODY_AT - REST_SIZE - 4}xI").unpack_from


def plain_size(record: bytes | memoryview, begins: int = 0) -> int:
    """How many bytes the record has when its body is plain; `begins`: where it stands in what is given. O(1)."""
    rest, body_at = _body_and_rest(record, begins + REST_SIZE)
    found: int = rest + body_at
    return found


def with_body(record: bytes, body: bytes | memoryview) -> bytes:
    """The same record with its body held in another way. O(its length)."""
    return record[: _length(record, BODY_AT)[0]] + body


def body_in(record: bytes) -> bytes:
    """The body as it is held. O(its length)."""
    return record[_length(record, BODY_AT)[0] :]


def body_view(record: bytes) -> memoryview:
    """The body as it is held, where it stands in the record. O(1)."""
    return memoryview(record)[_length(record, BODY_AT)[0] :]


def uid_in(record: bytes) -> str:
    """The uid's text. O(its length)."""
    if record[FLAGS] & UUID:
        text = record[UID:UID_END].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return _more(record)[0]


def first_known_in(record: bytes) -> str:
    """The first known version, "" if none is."""
    flags = record[FLAGS]
    if flags & FIRST_IS_OWN:
        return member_version_in(record)
    return _more(record)[-1] if flags & FIRST_KNOWN else ""


def _more(record: bytes) -> list[str]:
    return _decode_texts(record[_length(record, MORE_AT)[0] : _length(record, BODY_AT)[0]])


def uid_bytes(uid: str) -> bytes:
    """The 16 bytes of a UUID as Kubernetes writes it; b"" of another text, and of one without any letter.

    Example: `00010203-0405-0607-0809-0a0b0c0d0e0f` is `bytes(range(16))`.
    """
    if len(uid) == 36 and uid[8:24:5] == "----" and uid.islower():
        try:
            found = unhexlify(uid.replace("-", ""))
        except ValueError:
            return b""
        if len(found) == 16:
            return found
    return b""


def is_of(record: bytes, packed: bytes, uid: str) -> bool:
    """Whether a record is of the object with a uid, given as `uid_bytes` and as text. O(1) for UUIDs."""
    if packed:
        # Where a record has no UUID there are zeros, and a UUID has a letter.
        return record[UID:UID_END] == packed
    return not record[FLAGS] & UUID and uid_in(record) == uid


def identity_in(record: bytes) -> bytes:
    """What is equal for records of one uid, and for no others: the UUID's bytes, or the text of another uid."""
    return record[UID:UID_END] if record[FLAGS] & UUID else uid_in(record).encode()
