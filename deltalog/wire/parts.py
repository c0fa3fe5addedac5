"""Objects larger than a message may be: compressed, and if that does not do, in parts.

A part is a message `kbp.<the object's tokens>.<original>.<n>`; the object's own message comes after its parts and
names their sequences, so that it is that message's sequence at which the object changed. Parts of a superseded
state are purged once the new one is in the log.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict

import msgspec

from deltalog.wire.delta import DELETED, Delta, UnreadableRecord, encode_delta
from deltalog.wire.subjects import OBJECTS, PARTS, encode_token

# What a reader holds of parts whose object's message has not come, in bytes; beyond it the oldest go.
_HELD = 256 * 1024 * 1024
# Room in a message beside the payload: headers count against the server's max_payload too.
_HEADER_ROOM = 16 * 1024


def payload_limit(max_payload: int) -> int:
    """How large a payload may be at a server's max_payload, both in bytes."""
    return max(max_payload - _HEADER_ROOM, max_payload // 2)


def part_subject(object_subject: str, original: str, number: int) -> str:
    return f"{PARTS}{object_subject.removeprefix(OBJECTS)}.{encode_token(original or '0')}.{number}"


def parts_filter(object_subject: str) -> str:
    """The wildcard subject of all parts of one object."""
    return f"{PARTS}{object_subject.removeprefix(OBJECTS)}.>"


def fit(delta: Delta, limit: int) -> tuple[Delta, bytes, list[bytes]]:
    """The delta in a form whose payload has at most `limit` bytes, that payload, and the parts to store before it.

    With parts, the caller puts their sequences into the delta's `parts`, and there is no payload before that.
    """
    if len(delta.object) < limit:
        payload = encode_delta(delta)
        if len(payload) <= limit:
            return delta, payload, []
    packed = msgspec.structs.replace(delta, object=zlib.compress(delta.object, 6), compression="zlib")
    payload = encode_delta(packed)
    if len(payload) <= limit:
        return packed, payload, []
    if delta.type == DELETED:
        # Nobody needs more of a tombstone than its metadata.
        slim = delta.object[: delta.metadata_end] + b"}"
        if len(slim) < len(delta.object):
            return fit(msgspec.structs.replace(delta, object=slim, final=False), limit)
    body = packed.object
    pieces = [body[begin : begin + limit] for begin in range(0, len(body), limit)]
    return msgspec.structs.replace(packed, object=b""), b"", pieces


def unpacked(delta: Delta) -> Delta:
    """The delta with its object uncompressed. Raises UnreadableRecord."""
    if not delta.compression:
        return delta
    if delta.compression != "zlib":
        raise UnreadableRecord(f"compression {delta.compression!r} is unknown")
    try:
        body = zlib.decompress(delta.object)
    except zlib.error as cause:
        raise UnreadableRecord(f"a compressed object is broken: {cause}") from cause
    return msgspec.structs.replace(delta, object=body, compression="", parts=())


class Assembler:
    """Puts parts together while the log is read in order. Owned by the reader."""

    def __init__(self) -> None:
        self._parts: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0

    def hold(self, sequence: int, data: bytes) -> None:
        """Keeps a part until its object's message comes."""
        self._parts[sequence] = data
        self._size += len(data)
        while self._size > _HELD:
            _, dropped = self._parts.popitem(last=False)
            self._size -= len(dropped)

    def held(self) -> list[tuple[int, bytes]]:
        """The parts that are kept, with their sequences, oldest first."""
        return list(self._parts.items())

    def whole(self, delta: Delta) -> Delta:
        """The delta with its object complete.

        Raises UnreadableRecord if parts are missing: then a newer message of the object is in the log, as parts
        are purged only after that.
        """
        if delta.parts:
            pieces = []
            for sequence in delta.parts:
                piece = self._parts.pop(sequence, None)
                if piece is None:
                    raise UnreadableRecord(f"part {sequence} of {delta.namespace}/{delta.name} is not in the log")
                self._size -= len(piece)
                pieces.append(piece)
            delta = msgspec.structs.replace(delta, object=b"".join(pieces))
        return unpacked(delta) if delta.compression else delta
