"""Watch frames: where in the bytes of a watch that is passed through one event ends and the next begins.

In JSON an event is a line, in protobuf it stands behind its length (k8s.io/apimachinery pkg/runtime/serializer/json
and pkg/util/framer: NewLengthDelimitedFrameWriter), over a WebSocket it is a message.
"""

from __future__ import annotations

_LENGTH = 4


class LineFrames:
    """Events that are lines. `between`: whether all that was taken in ends with a whole event."""

    def __init__(self) -> None:
        self.between = True

    def take(self, chunk: bytes) -> None:
        """Takes in the next bytes. O(1)."""
        if chunk:
            self.between = chunk.endswith(b"\n")


class LengthFrames:
    """Events behind their lengths, of 4 bytes, big-endian. `between` as in `LineFrames`."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0

    @property
    def between(self) -> bool:
        """Whether all that was taken in ends with a whole event."""
        return not self._head and not self._missing

    def take(self, chunk: bytes) -> None:
        """Takes in the next bytes. O(events in them)."""
        at = 0
        while at < len(chunk):
            if self._missing:
                step = min(self._missing, len(chunk) - at)
                self._missing -= step
                at += step
                continue
            more = chunk[at : at + _LENGTH - len(self._head)]
            self._head += more
            at += len(more)
            if len(self._head) == _LENGTH:
                self._missing = int.from_bytes(self._head, "big")
                self._head = b""


class SocketFrames:
    """Frames of a WebSocket as a server sends them, unmasked (RFC 6455, 5.2). `between` as in `LineFrames`."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._whole = True

    @property
    def between(self) -> bool:
        """Whether all that was taken in ends with a whole message."""
        return not self._head and not self._missing and self._whole

    def take(self, chunk: bytes) -> None:
        """Takes in the next bytes. O(frames in them)."""
        at = 0
        while at < len(chunk):
            if self._missing:
                step = min(self._missing, len(chunk) - at)
                self._missing -= step
                at += step
                continue
            head, length = self._head, 2
            if len(head) > 1:
                length += {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
            more = chunk[at : at + length - len(head)]
            self._head += more
            at += len(more)
            self._begin()

    def _begin(self) -> None:
        """Begins a frame whose head is complete."""
        head = self._head
        if len(head) < 2:
            return
        size = head[1] & 0x7F
        behind = {126: 2, 127: 8}.get(size, 0)
        if len(head) < 2 + behind:
            return
        self._missing = int.from_bytes(head[2:], "big") if behind else size
        if not head[0] & 0x08:
            # Control frames may stand between those of one message.
            self._whole = bool(head[0] & 0x80)
        self._head = b""


def frames_of(content_type: str) -> LineFrames | LengthFrames | None:
    """What finds the events in a stream of a media type; None: nothing does."""
    match content_type:
        case "application/json":
            return LineFrames()
        case "application/vnd.kubernetes.protobuf":
            return LengthFrames()
    return None
