"""The log: deltas and control records of member clusters in one ordered NATS JetStream stream.

Vocabulary. A *delta* is one change of one object, a *control record* says something about a cluster or a
type; both are messages of the stream, and the *sequence* of a message is the index of its change everywhere
in kubebraid. `docs/log.md` documents the wire format for readers in other languages.
"""

from deltalog.append import Appender, AppendError, AppendTimeout, Conflict
from deltalog.durable import BadDurable, Durable, TakenOver
from deltalog.events import Bookmark, Change, Event, Removed
from deltalog.jetstream.access import Access, BadAccess
from deltalog.jetstream.acknowledgement import Expect
from deltalog.jetstream.connection import BrokerRefuses, BrokerUnavailable, Connection, JetStreamRefused, connect
from deltalog.jetstream.opening import LogSettings, open_log
from deltalog.jetstream.stream import Log, LogError
from deltalog.place import BadPlace, Forgotten, Place
from deltalog.reader import HistoryChanged, Reader, Record
from deltalog.subscription import StreamGone, Subscription, subscribe
from deltalog.timing import LogTiming
from deltalog.wire.delta import (
    ADDED,
    DELETED,
    MODIFIED,
    UNCHANGED,
    Delta,
    Replaced,
    Selectables,
    UnreadableRecord,
    decode_delta,
    encode_delta,
)
from deltalog.wire.errors import BadInput, DeltalogError, HistoryEnded, LogUnavailable
from deltalog.wire.records import (
    ClusterRegistered,
    ControlRecord,
    DiscoveryDocument,
    HealthChanged,
    ObjectsRemoved,
    OpenApiDocument,
    OwnerChanged,
    StatusReport,
    TypeSynced,
    UnknownFact,
    decode_control,
    encode_control,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selection import BadSelection, Selection, select

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "UNCHANGED",
    "Access",
    "AppendError",
    "AppendTimeout",
    "Appender",
    "BadAccess",
    "BadDurable",
    "BadInput",
    "BadPlace",
    "BadSelection",
    "Bookmark",
    "BrokerRefuses",
    "BrokerUnavailable",
    "Change",
    "ClusterRegistered",
    "Conflict",
    "Connection",
    "ControlRecord",
    "Delta",
    "DeltalogError",
    "DiscoveryDocument",
    "Durable",
    "Event",
    "Expect",
    "Forgotten",
    "HealthChanged",
    "HistoryChanged",
    "HistoryEnded",
    "JetStreamRefused",
    "Log",
    "LogError",
    "LogSettings",
    "LogTiming",
    "LogUnavailable",
    "ObjectsRemoved",
    "OpenApiDocument",
    "OwnerChanged",
    "Place",
    "Reader",
    "Record",
    "Removed",
    "Replaced",
    "ResourceType",
    "Selectables",
    "Selection",
    "StatusReport",
    "StreamGone",
    "Subscription",
    "TakenOver",
    "TypeSynced",
    "UnknownFact",
    "UnreadableRecord",
    "connect",
    "decode_control",
    "decode_delta",
    "encode_control",
    "encode_delta",
    "open_log",
    "select",
    "subscribe",
]
