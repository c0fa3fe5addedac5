"""Protobuf as Go clients send it: the envelope of Kubernetes and the text fields of a message, read without a schema.

kubernetes.io "Kubernetes Protobuf encoding"; protobuf.dev "Encoding".
"""

from __future__ import annotations

PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def read_object(body: bytes) -> tuple[dict[str, str], bytes]:
    """kind and apiVersion of an object, and the message that it is. Raises ValueError."""
    if not body.startswith(_MAGIC):
        raise ValueError("it does not begin as Kubernetes' protobuf does")
    unknown = read_fields(body[len(_MAGIC) :])
    about = read_fields(b"".join(unknown.get(1, ())))
    return {"apiVersion": text_of(about, 1), "kind": text_of(about, 2)}, b"".join(unknown.get(2, ()))


def read_fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a message that have a length (texts and messages), by number. Raises ValueError."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        match tag & 7:
            case 0:
                _, at = _number(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _number(message, at)
                found.setdefault(tag >> 3, []).append(message[at : at + length])
                at += length
            case 5:
                at += 4
            case other:
                raise ValueError(f"wire type {other} is none")
    if at != len(message):
        raise ValueError("it is cut off")
    return found


def text_of(fields: dict[int, list[bytes]], number: int) -> str:
    """A text field; of several the last, as the standard says. Raises ValueError for what is no UTF-8."""
    return fields[number][-1].decode() if number in fields else ""


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A varint and the offset behind it."""
    number = 0
    for place in range(10):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at
    raise ValueError("a number is too long")
