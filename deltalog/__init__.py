"""The log: deltas and control records of member clusters in one ordered NATS JetStream stream.

Vocabulary. A *delta* is one change of one object, a *control record* says something about a cluster or a
type; both are messages of the stream, and the *sequence* of a message is the index of its change everywhere
in kubebraid. `docs/log.md` documents the wire format for readers in other languages.
"""

from deltalog.access import Access, BadAccess
from deltalog.append import Appender, AppendError, AppendTimeout, Conflict, Expect
from deltalog.connection import BrokerUnavailable, Connection, connect
from deltalog.delta import (
    ADDED,
    DELETED,
    MODIFIED,
    Control,
    Delta,
    Replaced,
    UnreadableRecord,
    decode_control,
    decode_delta,
    encode_control,
    encode_delta,
)
from deltalog.replay import HistoryChanged, Reader, Record
from deltalog.stream import Log, LogError, LogSettings, open_log

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Access",
    "AppendError",
    "AppendTimeout",
    "Appender",
    "BadAccess",
    "BrokerUnavailable",
    "Conflict",
    "Connection",
    "Control",
    "Delta",
    "Expect",
    "HistoryChanged",
    "Log",
    "LogError",
    "LogSettings",
    "Reader",
    "Record",
    "Replaced",
    "UnreadableRecord",
    "connect",
    "decode_control",
    "decode_delta",
    "encode_control",
    "encode_delta",
    "open_log",
]
