"""Watch frames: where in the bytes of a watch that is passed through one event ends and the next begins.

In JSON an event is a line, in protobuf it stands behind its length (k8s.io/apimachinery pkg/runtime/serializer/json
and pkg/util/framer: NewLengthDelimitedFrameWriter).
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


def frames_of(content_type: str) -> LineFrames | LengthFrames | None:
    """What finds the events in a stream of a media type; None: nothing does."""
    match content_type:
        case "application/json":
            return LineFrames()
        case "application/vnd.kubernetes.protobuf":
            return LengthFrames()
    return None
