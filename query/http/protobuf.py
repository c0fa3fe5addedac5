"""Protobuf as Go clients send it: Kubernetes' envelope and the fields of a message, read and changed without schema.

kubernetes.io "Kubernetes Protobuf encoding"; protobuf.dev "Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def read_object(body: bytes) -> tuple[dict[str, str], bytes]:
    """`kind` and `apiVersion` of an object in its envelope, and the message that it is.

    Raises:
        ValueError: it is no such envelope.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("it does not begin as Kubernetes' protobuf does")
    unknown = read_fields(body[len(_MAGIC) :])
    about = read_fields(b"".join(unknown.get(1, ())))
    return {"apiVersion": text_of(about, 1), "kind": text_of(about, 2)}, b"".join(unknown.get(2, ()))


def read_fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a message that have a length (texts and messages), by number, each with all its values.

    Raises:
        ValueError: it is no message.
    """
    found: dict[int, list[bytes]] = {}
    for number, _, content in _fields(message):
        if content is not None:
            found.setdefault(number, []).append(content)
    return found


def rewritten(message: bytes, number: int, change: Callable[[bytes], bytes | None]) -> bytes:
    """A message in which each field of a number (a text or message) is what `change` returns; None removes it.

    Raises:
        ValueError: it is no message.
    """
    parts = []
    for at, whole, content in _fields(message):
        if at != number or content is None:
            parts.append(whole)
        elif (made := change(content)) is not None:
            parts.append(field(number, made))
    return b"".join(parts)


def rewritten_object(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An object in its envelope, whose message is what `change` returns.

    Raises:
        ValueError: it is no such envelope.
    """
    return _MAGIC + rewritten(body[len(_MAGIC) :], 2, change)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Number, whole field and, of one that has a length, the content. Raises ValueError."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _number(message, at)
        content = None
        match tag & 7:
            case 0:
                _, at = _number(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _number(message, at)
                content = message[at : at + length]
                at += length
            case 5:
                at += 4
            case other:
                raise ValueError(f"wire type {other} is none")
        if at > len(message):
            raise ValueError("it is cut off")
        yield tag >> 3, message[begin:at], content


def field(number: int, content: bytes) -> bytes:
    """A field that has a length (a text or message), as it is written."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def text_of(fields: dict[int, list[bytes]], number: int) -> str:
    """A text field, "" if it is absent; of several the last one, as the standard says.

    Raises:
        ValueError: it is no UTF-8.
    """
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
