"""Control records: facts about a member cluster and its resource types, in the log among the objects' messages.

One message is one `ControlRecord`: who states it and when, and a fact, which is one of the classes below. On the wire
(format 1, docs/log.md) it is a msgpack map

    {"v": 1, "record": "synced", "cluster": "alpha", "group": "apps", "resource": "deployments",
     "time": 1767323045000, "producer": "p-1", "epoch": 3, "data": {"version": "5000064", "objects": 2}}

whose `record` names the fact's class, and whose subject is that of its cluster, record, group and resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from deltalog.wire import subjects
from deltalog.wire.delta import UNDECODABLE, WIRE_VERSION, refused
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import control_subject


class OwnerChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The producer of this record owns the cluster from here on, in its `epoch` (record `owner`).

    All appends of an owner expect the sequence of its record (Nats-Expected-Last-Subject-Sequence), so that the server
    refuses those of an owner before it. `removed`: the cluster has left the log and has no owner; the record stays, so
    that epochs go on growing.
    """

    removed: bool = False


class ClusterRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """All types that the first discovery found have been recorded (record `cluster`).

    `version`: what the cluster answers at /version (k8s.io/apimachinery version.Info): `gitVersion`, `major`, ...
    """

    version: dict[str, Any] = {}


class ClusterDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, weakref=True):
    """A text that a cluster serves whole: an OpenAPI document, or all of its discovery.

    - `hash`: SHA-256 of the text, in upper-case hexadecimal digits. `size`: the text's bytes.
    - `body`: the text, compressed by gzip; never empty.
    - `paths`: how many paths it describes; of OpenAPI version 2 as JSON only, else 0.
    """

    paths: int = 0
    hash: str
    size: int = 0
    body: bytes


class DiscoveryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All that the cluster serves, in the log or not (record `discovery`).

    `document`: JSON of the items of an APIGroupDiscoveryList, the core group first and nameless; None: there is none.
    What the cluster cannot tell now stands in it as it last was.
    """

    document: ClusterDocument | None


class DocumentName(NamedTuple):
    """Names an OpenAPI document of a cluster.

    `version`: `v2` or `v3`. `name`: of version 2 `json` or `protobuf`; of version 3 as in the index at /openapi/v3,
    `api/v1`, `apis/apps/v1`.
    """

    version: str
    name: str


class OpenApiDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenAPI document of the cluster (record `openapi`).

    `document`: None: the cluster serves it no longer. `tag`: what the cluster calls this state of it: the `hash` of its
    URL in the index at /openapi/v3, or the ETag of the answer; empty where it gives neither.
    """

    name: DocumentName
    document: ClusterDocument | None
    tag: str = ""


class TypeSynced(msgspec.Struct, frozen=True, kw_only=True):
    """The first complete list of a type is in the log (record `synced`).

    `version`: the list's resourceVersion, `"5000064"`. `objects`: how many objects it had.
    """

    resource: GroupResource
    version: str = ""
    objects: int = 0


class HealthChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a cluster, or one type of it, can be read now (record `health`).

    `resource`: None for the cluster. `reason`: why not, as a person reads it; empty where it is healthy.
    """

    resource: GroupResource | None = None
    healthy: bool = False
    reason: str = ""


class TypeStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a producer's informer of one type is.

    - `objects`: how many objects of the type it knows of. `synced`: its first complete list is in the log.
    - `version`: resourceVersion up to which the log has all changes of the type.
    - `listed`, `event`: when it last read a complete list, and when the watch last brought anything. `stale`: since
      when it cannot be read, 0: it can. All in milliseconds since 1970, by the producer's clock; 0: never.
    - `error`: why it cannot be read.
    - `odd`: how many of its objects the log has not as they are: left out, or mended. `odd_lines`: what is the matter
      with a few of them, e.g. `shop/cart: left out: nested too deeply`.
    """

    objects: int = 0
    synced: bool = False
    version: str = ""
    listed: int = 0
    event: int = 0
    stale: int = 0
    error: str = ""
    odd: int = 0
    odd_lines: tuple[str, ...] = ()


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a producer's informers are, from time to time; also that there is a producer at all (record `status`).

    `every`: milliseconds until the next report at the latest, 30000; a cluster whose reports stay away for three and a
    half times as long has no producer. 0: not known.
    """

    types: dict[GroupResource, TypeStatus] = {}
    every: int = 0


class ObjectsRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """All objects of a type, or of the whole cluster, with a lower sequence than this record's have gone (`removed`).

    They are purged from the log next. `resource`: None for the cluster. `types`: those of which the log had objects or
    tombstones; None: whoever removed them did not say (releases before 0.1 had no such list).
    """

    resource: GroupResource | None = None
    types: tuple[GroupResource, ...] | None = None


class UnknownFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of a record that this release does not know; readers pass it over. `address`: its group and resource."""

    record: str
    address: GroupResource
    data: msgspec.Raw = msgspec.Raw(b"\x80")


Fact = (
    OwnerChanged
    | ClusterRegistered
    | DiscoveryDocument
    | OpenApiDocument
    | ResourceType
    | TypeSynced
    | HealthChanged
    | StatusReport
    | ObjectsRemoved
    | UnknownFact
)
"""What a control record states. A `ResourceType` is that of the record `type`: a type that the log has objects of."""


class ControlRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fact about a cluster, as one owner of the cluster stated it.

    `time`: when, in milliseconds since 1970 by the producer's clock. `producer`, `epoch`: the owner's name and the
    epoch of its ownership; readers pass over records of an older epoch than the newest owner's.
    """

    cluster: str
    time: int
    producer: str
    epoch: int
    fact: Fact

    @property
    def record(self) -> str:
        """The name on the wire of what it states: `owner`, `cluster`, ..."""
        return _form(self.fact).record

    @property
    def resource(self) -> GroupResource | None:
        """The type that it is about; None for a record of the whole cluster."""
        fact = self.fact
        if isinstance(fact, OpenApiDocument):
            return None
        address = _form(fact).address(fact)
        return address if address.resource else None

    @property
    def subject(self) -> str:
        """The subject of its message, `kbc.alpha.synced.core.pods`; the log keeps the last record of each."""
        form = _form(self.fact)
        return control_subject(self.cluster, form.record, *form.address(self.fact))


# -- the wire ----------------------------------------------------------------------------------------------------------


class _Message(msgspec.Struct, kw_only=True):
    """The map of format 1, its keys in their order."""

    v: int = WIRE_VERSION
    record: str
    cluster: str
    group: str = ""
    resource: str = ""
    time: int
    producer: str
    epoch: int
    data: Any = {}


class _RawMessage(_Message, kw_only=True):
    data: msgspec.Raw = msgspec.Raw(b"\x80")


class _Form(NamedTuple):
    """How facts of one class are written: `address` is `group` and `resource` of the message, `data` its data."""

    record: str
    address: Callable[[Any], GroupResource]
    data: Callable[[Any], object]
    read: Callable[[GroupResource, msgspec.Raw], Fact]


_OF_CLUSTER = GroupResource("", "")


class _OwnerData(msgspec.Struct):
    removed: Any = False


class _DocumentData(msgspec.Struct):
    paths: int = 0
    hash: str = ""
    size: int = 0
    body: bytes | None = None
    tag: str = ""

    def document(self) -> ClusterDocument | None:
        if not self.body:
            return None
        return ClusterDocument(paths=self.paths, hash=self.hash, size=self.size, body=self.body)


class _SyncedData(msgspec.Struct):
    version: str = ""
    objects: int = 0


class _HealthData(msgspec.Struct):
    healthy: bool = False
    reason: str = ""


class _StatusData(msgspec.Struct):
    types: dict[str, TypeStatus] = {}
    every: int = 0


class _RemovedData(msgspec.Struct, omit_defaults=True):
    types: list[str] | None = None


def _reader(data_type: type[Any]) -> Callable[[msgspec.Raw], Any]:
    # Numbers as texts and the like are taken for what they mean.
    return msgspec.msgpack.Decoder(data_type, strict=False).decode


_read_owner = _reader(_OwnerData)
_read_cluster = _reader(ClusterRegistered)
_read_document = _reader(_DocumentData)
_read_type = _reader(dict[str, Any])
_read_synced = _reader(_SyncedData)
_read_health = _reader(_HealthData)
_read_status = _reader(_StatusData)
_read_removed = _reader(_RemovedData)

# Of a type's data, what is there only where it says something; the rest is always there.
_OPTIONAL = ("namespaces", "selector", "pruned", "custom")


def _type_data(fact: ResourceType) -> dict[str, Any]:
    data = msgspec.structs.asdict(fact)
    # The message itself has group and resource.
    for name in ("group", "resource", *(one for one in _OPTIONAL if not data[one])):
        del data[name]
    return data


def _type_fact(address: GroupResource, data: msgspec.Raw) -> ResourceType:
    told: Mapping[str, Any] = _read_type(data)
    named = {"group": address.group, "resource": address.resource}
    return msgspec.convert({**told, **named}, ResourceType, strict=False)


def _openapi_data(fact: OpenApiDocument) -> dict[str, Any]:
    if fact.document is None:
        return {}
    found: dict[str, Any] = msgspec.to_builtins(fact.document, builtin_types=(bytes,))
    return {**found, "tag": fact.tag}


def _openapi_fact(address: GroupResource, data: msgspec.Raw) -> OpenApiDocument:
    told = _read_document(data)
    return OpenApiDocument(name=DocumentName(*address), document=told.document(), tag=told.tag)


def _synced_fact(address: GroupResource, data: msgspec.Raw) -> TypeSynced:
    told = _read_synced(data)
    return TypeSynced(resource=address, version=told.version, objects=told.objects)


def _health_fact(address: GroupResource, data: msgspec.Raw) -> HealthChanged:
    told = _read_health(data)
    return HealthChanged(resource=address if address.resource else None, healthy=told.healthy, reason=told.reason)


def _status_fact(address: GroupResource, data: msgspec.Raw) -> StatusReport:
    told = _read_status(data)
    return StatusReport(types={GroupResource.parse(text): one for text, one in told.types.items()}, every=told.every)


def _removed_fact(address: GroupResource, data: msgspec.Raw) -> ObjectsRemoved:
    types = _read_removed(data).types
    return ObjectsRemoved(
        resource=address if address.resource else None,
        types=None if types is None else tuple(GroupResource.parse(text) for text in types),
    )


_FORMS: dict[type[Any], _Form] = {
    OwnerChanged: _Form(
        subjects.OWNER,
        lambda fact: _OF_CLUSTER,
        lambda fact: fact,
        # Whatever stands there: an epoch that could not be read would be given twice.
        lambda address, data: OwnerChanged(removed=bool(_read_owner(data).removed)),
    ),
    ClusterRegistered: _Form(
        subjects.CLUSTER, lambda fact: _OF_CLUSTER, lambda fact: fact, lambda address, data: _read_cluster(data)
    ),
    DiscoveryDocument: _Form(
        subjects.DISCOVERY,
        lambda fact: _OF_CLUSTER,
        lambda fact: {} if fact.document is None else fact.document,
        lambda address, data: DiscoveryDocument(document=_read_document(data).document()),
    ),
    OpenApiDocument: _Form(subjects.OPENAPI, lambda fact: GroupResource(*fact.name), _openapi_data, _openapi_fact),
    ResourceType: _Form(subjects.TYPE, lambda fact: fact.group_resource, _type_data, _type_fact),
    TypeSynced: _Form(
        subjects.SYNCED,
        lambda fact: fact.resource,
        lambda fact: _SyncedData(fact.version, fact.objects),
        _synced_fact,
    ),
    HealthChanged: _Form(
        subjects.HEALTH,
        lambda fact: fact.resource or _OF_CLUSTER,
        lambda fact: _HealthData(fact.healthy, fact.reason),
        _health_fact,
    ),
    StatusReport: _Form(
        subjects.STATUS,
        lambda fact: _OF_CLUSTER,
        lambda fact: _StatusData({str(resource): one for resource, one in fact.types.items()}, fact.every),
        _status_fact,
    ),
    ObjectsRemoved: _Form(
        subjects.REMOVED,
        lambda fact: fact.resource or _OF_CLUSTER,
        lambda fact: _RemovedData(None if fact.types is None else [str(one) for one in fact.types]),
        _removed_fact,
    ),
}
FACTS: tuple[type[Any], ...] = tuple(_FORMS)
"""The classes of facts that this release knows; `UnknownFact` stands for all others."""

_READERS = {form.record: form.read for form in _FORMS.values()}


def _form(fact: Fact) -> _Form:
    if isinstance(fact, UnknownFact):
        return _Form(fact.record, lambda fact: fact.address, lambda fact: fact.data, _READERS[subjects.OWNER])
    return _FORMS[type(fact)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_RawMessage)


def encode_control(control: ControlRecord) -> bytes:
    """The payload of a control record's message."""
    form = _form(control.fact)
    address = form.address(control.fact)
    return _encoder.encode(
        _Message(
            record=form.record,
            cluster=control.cluster,
            group=address.group,
            resource=address.resource,
            time=control.time,
            producer=control.producer,
            epoch=control.epoch,
            data=form.data(control.fact),
        )
    )


def decode_control(payload: bytes) -> ControlRecord:
    """The control record of a `kbc.` message. Keys that are not known are ignored.

    Raises:
        UnreadableRecord: it is no control record, one of a later format, or a value has another type than docs/log.md
            says.
    """
    try:
        message = _decoder.decode(payload)
        if message.v > WIRE_VERSION:
            raise refused(payload, ValueError("newer version"))
        address = GroupResource.of(message.group, message.resource)
        read = _READERS.get(message.record)
        fact: Fact
        if read is None:
            fact = UnknownFact(record=message.record, address=address, data=message.data)
        else:
            fact = read(address, message.data)
    except UNDECODABLE as cause:
        raise refused(payload, cause) from cause
    return ControlRecord(
        cluster=message.cluster, time=message.time, producer=message.producer, epoch=message.epoch, fact=fact
    )
