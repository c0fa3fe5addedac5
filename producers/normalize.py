"""Normalisation: an object's JSON as a member cluster sent it, in the form the log keeps (docs/log.md).

Once per change, here, so that no reader ever parses an object in order to serve it. Only the metadata is
decoded; spec, status and the rest pass through as the bytes they are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from producers.discovery import ResourceType

CLUSTER_ANNOTATION = "shadow.clusterpedia.io/cluster-name"

Fields = dict[str, str]


class Unusable(Exception):
    """An object without a name, or no JSON object at all."""


class Normalized(msgspec.Struct, frozen=True, gc=False):
    """The parts of a delta that come from the object itself; see `deltalog.Delta` for their meaning."""

    namespace: str
    name: str
    uid: str
    original: str
    created: int
    owner: str
    labels: dict[str, str]
    fields: dict[str, str]
    object: bytes
    gap: int
    meta_end: int


class _Owner(msgspec.Struct):
    uid: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class Identity(msgspec.Struct, rename="camel"):
    """The little of metadata that tells whether an object is the one already known."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None


class _Identified(msgspec.Struct):
    metadata: Identity = msgspec.field(default_factory=Identity)


_raw_map = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta_decoder = msgspec.json.Decoder(_Meta)
_identified = msgspec.json.Decoder(_Identified)
_strings = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder()


def identify(raw: bytes | msgspec.Raw) -> Identity:
    """Name, namespace, uid and version of an object. Raises Unusable."""
    try:
        return _identified.decode(raw).metadata
    except msgspec.MsgspecError as cause:
        raise Unusable(f"not a Kubernetes object: {cause}") from cause


def _seconds(timestamp: str | None) -> int:
    if not timestamp:
        return 0
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0


class Normalizer:
    """Normalises the objects of one type of one cluster.

    `prune`: top-level metadata keys to drop; managedFields by default.
    """

    def __init__(self, cluster: str, kind: ResourceType, *, prune: tuple[str, ...] = ("managedFields",)) -> None:
        self._cluster = cluster
        self._prune = (*prune, "resourceVersion", "selfLink")
        self._annotation = _encoder.encode(CLUSTER_ANNOTATION) + b":" + _encoder.encode(cluster)
        self._only_annotation = msgspec.Raw(b"{" + self._annotation + b"}")
        self._head = b'{"kind":%b,"apiVersion":%b,"metadata":{' % (
            _encoder.encode(kind.kind),
            _encoder.encode(kind.api_version),
        )
        self._fields = selectable_fields(kind)

    def __call__(self, raw: bytes | msgspec.Raw) -> Normalized:
        """Raises Unusable."""
        if b"\n" in bytes(raw):
            # A line feed would break the lines of a watch. (Within strings JSON has it escaped.)
            raw = msgspec.json.format(bytes(raw), indent=-1)
        try:
            top = _raw_map.decode(raw)
            raw_meta = top.pop("metadata")
            meta = _meta_decoder.decode(raw_meta)
            entries = _raw_map.decode(raw_meta)
        except (KeyError, msgspec.MsgspecError) as cause:
            raise Unusable(f"not a Kubernetes object: {cause}") from cause
        if not meta.name:
            raise Unusable("an object without a name")
        for key in self._prune:
            entries.pop(key, None)
        entries["annotations"] = self._annotated(entries.get("annotations"))
        top.pop("kind", None)
        top.pop("apiVersion", None)
        head = self._head
        middle = _encoder.encode(entries)[1:]
        rest = b"," + _encoder.encode(top)[1:] if top else b"}"
        return Normalized(
            namespace=meta.namespace or "",
            name=meta.name,
            uid=meta.uid or "",
            original=meta.resource_version or "",
            created=_seconds(meta.creation_timestamp),
            owner=next((owner.uid for owner in meta.owner_references or () if owner.controller), ""),
            labels=meta.labels or {},
            fields=self._fields(top),
            object=b"".join((head, middle, rest)),
            gap=len(head),
            meta_end=len(head) + len(middle),
        )

    def _annotated(self, raw: msgspec.Raw | None) -> msgspec.Raw:
        text = b"" if raw is None else bytes(raw)
        if text in (b"", b"{}", b"null"):
            return self._only_annotation
        if CLUSTER_ANNOTATION.encode() in text:
            annotations = _strings.decode(text)
            annotations[CLUSTER_ANNOTATION] = self._cluster
            return msgspec.Raw(_encoder.encode(annotations))
        return msgspec.Raw(b"{" + self._annotation + b"," + text[1:])


# -- fields that may stand in a fieldSelector ----------------------------------------------------------------------
# Which, and how they read: pkg/registry/*/strategy.go (SelectableFields). Empty ones are left out: an absent field
# reads as empty.


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    restart_policy: str = ""
    scheduler_name: str = ""
    service_account_name: str = ""
    host_network: bool = False


class _PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_i_p: str = msgspec.field(default="", name="podIP")
    nominated_node_name: str = ""


_pod_spec = msgspec.json.Decoder(_PodSpec)
_pod_status = msgspec.json.Decoder(_PodStatus)
_EMPTY = msgspec.Raw(b"{}")


def _pod_fields(top: dict[str, msgspec.Raw]) -> Fields:
    try:
        spec = _pod_spec.decode(top.get("spec", _EMPTY))
        status = _pod_status.decode(top.get("status", _EMPTY))
    except msgspec.MsgspecError:
        return {}
    found = {
        "spec.nodeName": spec.node_name,
        "spec.restartPolicy": spec.restart_policy,
        "spec.schedulerName": spec.scheduler_name,
        "spec.serviceAccountName": spec.service_account_name,
        "spec.hostNetwork": "true" if spec.host_network else "false",
        "status.phase": status.phase,
        "status.podIP": status.pod_i_p,
        "status.nominatedNodeName": status.nominated_node_name,
    }
    return {key: value for key, value in found.items() if value}


def _dotted(*paths: str) -> dict[str, tuple[str, ...]]:
    return {path: tuple(path.split(".")) for path in paths}


_EVENT_FIELDS = {
    **_dotted(
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ),
    "source": ("source", "component"),
}

_FIELDS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("", "events"): _EVENT_FIELDS,
    ("events.k8s.io", "events"): _dotted("reason", "type")
    | {"reportingController": ("reportingController",)}
    | {
        f"regarding.{name}": ("regarding", name)
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    ("", "namespaces"): _dotted("status.phase"),
    ("", "nodes"): _dotted("spec.unschedulable"),
    ("", "replicationcontrollers"): _dotted("status.replicas"),
    ("", "secrets"): _dotted("type"),
    ("", "services"): _dotted("spec.clusterIP", "spec.type"),
    ("apps", "replicasets"): _dotted("status.replicas"),
    ("batch", "jobs"): {"status.successful": ("status", "succeeded")},
}

# How the zero value of a field reads, where that is not the empty string.
_ZERO = {"spec.unschedulable": "false", "status.replicas": "0", "status.successful": "0"}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def selectable_fields(kind: ResourceType) -> Callable[[dict[str, msgspec.Raw]], Fields]:
    """The function that reads a type's selectable fields from an object's top-level members."""
    if (kind.group, kind.resource) == ("", "pods"):
        return _pod_fields
    paths = dict(_FIELDS.get((kind.group, kind.resource), {}))
    for path in kind.selectable:
        steps = tuple(path.strip(".").split("."))
        paths[".".join(steps)] = steps
    if not paths:
        return lambda top: {}

    def read(top: dict[str, msgspec.Raw]) -> Fields:
        decoded: dict[str, object] = {}
        found: Fields = {}
        for label, (head, *rest) in paths.items():
            if head not in decoded:
                decoded[head] = msgspec.json.decode(top[head]) if head in top else None
            value = decoded[head]
            for step in rest:
                value = value.get(step) if isinstance(value, dict) else None
            text = _text(value) or _ZERO.get(label, "")
            if text:
                found[label] = text
        return found

    return read
