"""Publishing with an expectation: what must hold for a stream to store a message, and its acknowledgement."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

# Another message of the replicated stream that expects something of the same subject is being processed.
IN_PROCESS = 10164
WRONG_LAST_SEQUENCE = (10071, IN_PROCESS)
# The stream's max_msg_size.
TOO_LARGE = 10054
NO_STREAM = "no stream takes this subject; JetStream is off or the log is gone"


class Expect(NamedTuple):
    """What must hold for the server to store a message: `subject`'s last sequence is `sequence` (0: none).

    `subject` None means the message's own. Headers Nats-Expected-Last-Subject-Sequence[-Subject] (nats-server docs
    "JetStream headers").
    """

    sequence: int
    subject: str | None = None

    def headers(self) -> dict[str, str]:
        """The message headers that say so."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self.sequence)}
        if self.subject is not None:
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self.subject
        return headers


class Problem(msgspec.Struct):
    """JetStream's error: `err_code` as in ADR-7; 0 where the answer had none."""

    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """JetStream's answer to a published message (PubAck): where it is stored, or why it is not."""

    seq: int = 0
    stream: str = ""
    error: Problem | None = None

    @property
    def conflict(self) -> bool:
        """Whether what was expected did not hold, so that the message was not stored."""
        return self.error is not None and self.error.err_code in WRONG_LAST_SEQUENCE


_decoder = msgspec.json.Decoder(Ack)


def decode_ack(data: bytes) -> Ack:
    """The acknowledgement in an answer; an error where no stream answered (a "no responders" has no payload)."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Ack(error=Problem(description=NO_STREAM))
