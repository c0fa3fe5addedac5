"""Parts: how an object goes into the log that is larger than a message may be.

It is compressed, and if it is still too large it is cut up. A part is a message `kbp.<the object's tokens>.<the state's
resourceVersion>.<n>`, its payload a piece of the compressed object. The object's own message comes after its parts and
names their sequences, so that the object changes at that message's sequence. Parts of a superseded state are purged
once the new one is in the log.

A ConfigMap with 2.5 MB after compression, at a limit of 1 MB: three parts at sequences 901, 902 and 903, then the delta
with `parts=(901, 902, 903)` and an empty `object` at 904. A reader that has come to 904 has it whole.
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
    """How many bytes a payload may have where the server's max_payload is so many bytes: headers count against it."""
    return max(max_payload - _HEADER_ROOM, max_payload // 2)


def part_subject(object_subject: str, member_version: str, number: int) -> str:
    """The subject of part `number`, from 0 on, of an object's state at a resourceVersion of its cluster."""
    return f"{PARTS}{object_subject.removeprefix(OBJECTS)}.{encode_token(member_version or '0')}.{number}"


def parts_filter(object_subject: str) -> str:
    """The wildcard subject of all parts of one object, or of all objects that a wildcard subject names."""
    return f"{PARTS}{object_subject.removeprefix(OBJECTS)}.>"


def fit(delta: Delta, limit: int) -> tuple[Delta, bytes, list[bytes]]:
    """The delta in a form whose payload has at most `limit` bytes; that payload; the parts to append before it.

    Without parts the payload is ready. With parts it is empty: the caller appends them, puts their sequences into the
    delta's `parts` and encodes it. A deletion that is too large is reduced to metadata, with `final` False.
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
    """The delta with its object uncompressed.

    Raises:
        UnreadableRecord: the compression is unknown, or the object is broken.
    """
    if not delta.compression:
        return delta
    if delta.compression != "zlib":
        raise UnreadableRecord(f"compression {delta.compression!r} is unknown")
    try:
        body = zlib.decompress(delta.object)
    except zlib.error as cause:
        raise UnreadableRecord(f"a compressed object is broken: {cause}") from cause
    return msgspec.structs.replace(delta, object=body, compression="", parts=())


def complete(delta: Delta, pieces: list[bytes]) -> Delta:
    """The delta with its object complete: made of its parts, if it has any, and uncompressed.

    `pieces` are the payloads of `delta.parts`, in that order. Raises UnreadableRecord.
    """
    if delta.parts:
        delta = msgspec.structs.replace(delta, object=b"".join(pieces))
    return unpacked(delta)


class Assembler:
    """Puts parts together while the log is read in order. Owned by the reader.

    It keeps at most 256 MiB of parts whose object's message has not come, and drops the oldest beyond that.
    """

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
        """The delta with its object whole and uncompressed; its parts are kept no longer.

        Raises:
            UnreadableRecord: parts are missing. A newer message of the object is in the log then, as parts are purged
                only after that.
        """
        if not delta.parts and not delta.compression:
            return delta
        pieces = []
        for sequence in delta.parts:
            piece = self._parts.pop(sequence, None)
            if piece is None:
                raise UnreadableRecord(f"part {sequence} of {delta.namespace}/{delta.name} is not in the log")
            self._size -= len(piece)
            pieces.append(piece)
        return complete(delta, pieces)
