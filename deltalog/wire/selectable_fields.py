"""Fields that may stand in a fieldSelector: their labels, and where their values stand in an object.

Both sides of the log go by this one table: producers copy the values out of objects into `Delta.fields`, the query
service accepts the labels and matches those values. A field added here is copied out of states that come from then on;
states that the log already has lack it until their objects change or their list is read anew.

Labels are those of the kube-apiserver's conversion functions (k8s.io/kubernetes pkg/apis/*/*/conversion.go:
AddFieldLabelConversionsFor...), values those of its strategies (pkg/registry/*/*/strategy.go: SelectableFields).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from deltalog.wire.kubernetes import GroupResource

METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
"""Labels that every type has. They are no part of `Delta.fields`: a delta names its object anyway."""


class SelectableField(NamedTuple):
    """One field of one type.

    - `path`: names of members from the object's root to the value. Empty: a kube-apiserver accepts the label and never
      sets a value, so that it reads as empty in all objects (`status.podIPs`).
    - `zero`: how it reads in an object without the value. The empty string is not stored: a selector takes a field
      that is absent for empty (fields.Set.Get). "false" says that the value is a boolean.
    """

    path: tuple[str, ...]
    zero: str = ""


def _dotted(*labels: str, zero: str = "") -> dict[str, SelectableField]:
    """Fields whose labels are their paths."""
    return {label: SelectableField(tuple(label.split(".")), zero) for label in labels}


def _reference(member: str) -> dict[str, SelectableField]:
    """The fields of an ObjectReference."""
    names = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    return _dotted(*(f"{member}.{name}" for name in names))


BUILT_IN: Mapping[GroupResource, Mapping[str, SelectableField]] = {
    GroupResource("", "events"): _reference("involvedObject")
    | _dotted("reason", "reportingComponent", "type")
    | {"source": SelectableField(("source", "component"))},
    GroupResource("", "namespaces"): _dotted("status.phase"),
    GroupResource("", "nodes"): _dotted("spec.unschedulable", zero="false"),
    GroupResource("", "pods"): _dotted(
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"
    )
    | _dotted("spec.hostNetwork", zero="false")
    | _dotted("status.phase", "status.podIP", "status.nominatedNodeName")
    | {"status.podIPs": SelectableField(())},
    GroupResource("", "replicationcontrollers"): _dotted("status.replicas", zero="0"),
    GroupResource("", "secrets"): _dotted("type"),
    GroupResource("", "services"): _dotted("spec.clusterIP", "spec.type"),
    GroupResource("apps", "replicasets"): _dotted("status.replicas", zero="0"),
    GroupResource("batch", "jobs"): {"status.successful": SelectableField(("status", "succeeded"), "0")},
    GroupResource("certificates.k8s.io", "certificatesigningrequests"): _dotted("spec.signerName"),
    GroupResource("certificates.k8s.io", "clustertrustbundles"): _dotted("spec.signerName"),
    GroupResource("certificates.k8s.io", "podcertificaterequests"): _dotted(
        "spec.signerName", "spec.podName", "spec.nodeName"
    ),
    GroupResource("events.k8s.io", "events"): _dotted("reason", "type", "reportingController")
    | _reference("regarding"),
    GroupResource("resource.k8s.io", "resourceslices"): _dotted("spec.driver", "spec.nodeName"),
}
"""The fields of the types that are Kubernetes' own, by their labels; types without any are not in it."""


def selectable_fields(resource: GroupResource, custom: Iterable[str] = ()) -> Mapping[str, SelectableField]:
    """The fields of a type by their labels, in the order in which they are stored; without those of METADATA_FIELDS.

    `custom`: JSON paths of a CustomResourceDefinition's selectableFields (KEP-4358). `.spec.color` has the label
    `spec.color` and the path `("spec", "color")`. An unknown type has just those.
    """
    built_in = BUILT_IN.get(resource, {})
    of_crd = _dotted(*(path.strip(".") for path in custom))
    return {**built_in, **of_crd} if of_crd else built_in
