"""Normalisation: an object's JSON as a member cluster sent it, in the form the log keeps (docs/log.md).

Once per change, here, so that no reader ever parses an object in order to serve it. Only the metadata is
decoded; spec, status and the rest pass through as the bytes they are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, MEMBER_VERSION_ANNOTATION
from producers.errors import InvalidInput
from producers.rules.pruning import LAST_APPLIED, BadPointer, Pruning, prune_members
from producers.upstream.discovery import ResourceType

__all__ = [
    "BadPointer",
    "Identity",
    "Members",
    "Normalized",
    "Normalizer",
    "Pruning",
    "Unusable",
    "changed_at",
    "identify",
    "members",
    "selectable_fields",
]

_OURS = (CLUSTER_ANNOTATION.encode(), MEMBER_VERSION_ANNOTATION.encode())

Fields = dict[str, str]
# An object's top-level members as the bytes they are, without line feeds.
Members = dict[str, msgspec.Raw]


class Unusable(InvalidInput):
    """An object without a name, or no JSON object at all."""


class Normalized(msgspec.Struct, frozen=True, gc=False):
    """The parts of a delta that come from the object itself; see `deltalog.Delta` for their meaning."""

    namespace: str
    name: str
    uid: str
    member_version: str
    created: int
    controller_uid: str
    labels: dict[str, str]
    fields: dict[str, str]
    object: bytes
    version_offset: int
    metadata_end: int


class _Owner(msgspec.Struct):
    uid: str = ""
    controller: bool | None = None


class Identity(msgspec.Struct, rename="camel"):
    """The little of metadata that tells whether an object is the one already known."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None


class _Manager(msgspec.Struct):
    time: str | None = None


class _Managers(msgspec.Struct, rename="camel"):
    managed_fields: list[_Manager] | None = None


_managers = msgspec.json.Decoder(_Managers)
_raw_map = msgspec.json.Decoder(dict[str, msgspec.Raw])
_identity = msgspec.json.Decoder(Identity)
_string = msgspec.json.Decoder(str | None)
_owners = msgspec.json.Decoder(list[_Owner] | None)
_labels = msgspec.json.Decoder(dict[str, str] | None)
_strings = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder()

# What msgspec raises for an object: text that isn't UTF-8 and nesting without end have no msgspec error of their own.
_UNDECODABLE = (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def without_line_feeds(text: bytes) -> bytes:
    """JSON as it is, or without the line feeds between its parts. (Within strings JSON has them escaped.)

    They would break the lines of a watch. Raises msgspec.MsgspecError.
    """
    return msgspec.json.format(text, indent=-1) if b"\n" in text else text


def members(raw: bytes | msgspec.Raw) -> Members:
    """An object's members, to be normalised. Raises Unusable."""
    try:
        return _raw_map.decode(without_line_feeds(bytes(raw)))
    except _UNDECODABLE as cause:
        raise Unusable(f"not a Kubernetes object: {cause}") from cause


def identify(found: Members) -> Identity:
    """Name, namespace, uid and version of an object. Raises Unusable."""
    try:
        return _identity.decode(found["metadata"])
    except _UNDECODABLE as cause:
        raise Unusable(f"not a Kubernetes object: {cause}") from cause


def _seconds(timestamp: str | None) -> int:
    if not timestamp:
        return 0
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0


def changed_at(found: Members) -> int:
    """When an object was last changed, by its cluster's clock in whole seconds since 1970; 0: it does not say.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management: `time` of managedFields.
    """
    try:
        managers = _managers.decode(found["metadata"]).managed_fields or ()
    except _UNDECODABLE:
        return 0
    return max((_seconds(manager.time) for manager in managers), default=0)


_NOTHING = msgspec.Raw(b"null")


class Normalizer:
    """Normalises the objects of one type of one cluster, and leaves out what `pruning` says.

    `mark` is the header that tells how objects were pruned, empty for the usual way (docs/log.md).
    """

    def __init__(self, cluster: str, kind: ResourceType, pruning: Pruning | None = None) -> None:
        self._cluster = cluster
        self._pruned = (pruning or Pruning()).of(kind)
        self.mark = self._pruned.mark
        self._dropped = ("resourceVersion", "selfLink", *(("managedFields",) if self._pruned.managed_fields else ()))
        self._annotation = _encoder.encode(CLUSTER_ANNOTATION) + b":" + _encoder.encode(cluster)
        self._only_annotation = msgspec.Raw(b"{" + self._annotation + b"}")
        self._head = b'{"kind":%b,"apiVersion":%b,"metadata":{' % (
            _encoder.encode(kind.kind),
            _encoder.encode(kind.api_version),
        )
        self._fields = selectable_fields(kind)
        self._hidden = {label for label, path in selectable_paths(kind).items() if self._pruned.covers(path)}

    def __call__(self, raw: bytes | msgspec.Raw | Members) -> Normalized:
        """Uses members up. Raises Unusable."""
        top = raw if isinstance(raw, dict) else members(raw)
        try:
            return self._normalized(top)
        except _UNDECODABLE as cause:
            raise Unusable(f"not a Kubernetes object: {cause}") from cause

    def _normalized(self, top: Members) -> Normalized:
        entries = _raw_map.decode(top.pop("metadata"))
        get = entries.get
        name = _string.decode(get("name", _NOTHING))
        if not name:
            raise Unusable("an object without a name")
        original = _string.decode(get("resourceVersion", _NOTHING)) or ""
        labels = _labels.decode(entries["labels"]) if "labels" in entries else None
        owners = _owners.decode(entries["ownerReferences"]) if "ownerReferences" in entries else None
        for key in self._dropped:
            entries.pop(key, None)
        # A field that is empty is as one that is not there, so what was pruned is left out.
        fields = self.visible(self._fields(top))
        if self._pruned.tree:
            self._prune(top, entries)
        entries["annotations"] = self._annotated(get("annotations"))
        top.pop("kind", None)
        top.pop("apiVersion", None)
        head = self._head
        middle = memoryview(_encoder.encode(entries))[1:]
        rest = (b",", memoryview(_encoder.encode(top))[1:]) if top else (b"}",)
        return Normalized(
            namespace=_string.decode(get("namespace", _NOTHING)) or "",
            name=name,
            uid=_string.decode(get("uid", _NOTHING)) or "",
            member_version=original,
            created=_seconds(_string.decode(get("creationTimestamp", _NOTHING))),
            controller_uid=next((owner.uid for owner in owners or () if owner.controller), ""),
            labels=labels or {},
            fields=fields,
            object=b"".join((head, middle, *rest)),
            version_offset=len(head),
            metadata_end=len(head) + len(middle),
        )

    def visible(self, fields: Fields) -> Fields:
        """Selectable fields without those whose values are pruned."""
        if not self._hidden:
            return fields
        return {label: text for label, text in fields.items() if label not in self._hidden}

    def _prune(self, top: Members, entries: Members) -> None:
        tree = self._pruned.tree
        for below in (tree.get("metadata"), tree.get("*")):
            if below:
                prune_members(entries, below)
        prune_members(top, tree)

    def _annotated(self, raw: msgspec.Raw | None) -> msgspec.Raw:
        text = b"" if raw is None else bytes(raw)
        if text in (b"", b"{}", b"null"):
            return self._only_annotation
        if self._pruned.last_applied or any(name in text for name in _OURS):
            annotations = _strings.decode(text)
            annotations.pop(MEMBER_VERSION_ANNOTATION, None)
            if self._pruned.last_applied:
                annotations.pop(LAST_APPLIED, None)
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


def _pod_fields(top: Members) -> Fields:
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


_POD_PATHS = _dotted(
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)

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
    ("certificates.k8s.io", "certificatesigningrequests"): _dotted("spec.signerName"),
    ("certificates.k8s.io", "clustertrustbundles"): _dotted("spec.signerName"),
    ("certificates.k8s.io", "podcertificaterequests"): _dotted("spec.signerName", "spec.podName", "spec.nodeName"),
    ("resource.k8s.io", "resourceslices"): _dotted("spec.driver", "spec.nodeName"),
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


def selectable_paths(kind: ResourceType) -> dict[str, tuple[str, ...]]:
    """Where the values of a type's selectable fields stand in its objects."""
    if (kind.group, kind.resource) == ("", "pods"):
        return _POD_PATHS
    paths = dict(_FIELDS.get((kind.group, kind.resource), {}))
    for path in kind.selectable:
        steps = tuple(path.strip(".").split("."))
        paths[".".join(steps)] = steps
    return paths


def selectable_fields(kind: ResourceType) -> Callable[[Members], Fields]:
    """The function that reads a type's selectable fields from an object's top-level members."""
    if (kind.group, kind.resource) == ("", "pods"):
        return _pod_fields
    paths = selectable_paths(kind)
    if not paths:
        return lambda top: {}

    def read(top: Members) -> Fields:
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
