"""Selectable fields: every label of the table is read out of an object as its cluster sends it, and selects it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deltalog import ADDED, Delta
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selectable_fields import BUILT_IN, METADATA_FIELDS, selectable_fields
from deltalog.wire.selectors import BadSelector, parse_fields
from materializer.entry import Entry, entry_of
from materializer.filter import Filter
from producers.follow.normalize import Normalizer

REFERENCE = {
    "kind": "Pod",
    "namespace": "x",
    "name": "web",
    "uid": "8f2c",
    "apiVersion": "v1",
    "resourceVersion": "71",
    "fieldPath": "spec.containers{web}",
}


def of_reference(member: str) -> dict[str, str]:
    return {f"{member}.{name}": value for name, value in REFERENCE.items()}


# An object of each type as a kube-apiserver answers with it, but for members that matter to no selector; and how its
# fields read by the type's strategy (pkg/registry/*/*/strategy.go).
EXAMPLES: dict[GroupResource, tuple[dict[str, Any], dict[str, str]]] = {
    GroupResource("", "events"): (
        {
            "involvedObject": REFERENCE,
            "reason": "Pulled",
            "source": {"component": "kubelet", "host": "node-1"},
            "type": "Normal",
            "reportingComponent": "kubelet",
        },
        of_reference("involvedObject")
        | {"reason": "Pulled", "source": "kubelet", "type": "Normal", "reportingComponent": "kubelet"},
    ),
    GroupResource("events.k8s.io", "events"): (
        {"regarding": REFERENCE, "reason": "Pulled", "type": "Normal", "reportingController": "kubelet"},
        of_reference("regarding") | {"reason": "Pulled", "type": "Normal", "reportingController": "kubelet"},
    ),
    GroupResource("", "namespaces"): ({"status": {"phase": "Active"}}, {"status.phase": "Active"}),
    GroupResource("", "nodes"): ({"spec": {"unschedulable": True}}, {"spec.unschedulable": "true"}),
    GroupResource("", "pods"): (
        {
            "spec": {
                "nodeName": "node-1",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "serviceAccountName": "default",
                "hostNetwork": True,
                "containers": [{"name": "web", "image": "nginx"}],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.1.2.3",
                "podIPs": [{"ip": "10.1.2.3"}],
                "nominatedNodeName": "node-2",
            },
        },
        {
            "spec.nodeName": "node-1",
            "spec.restartPolicy": "Always",
            "spec.schedulerName": "default-scheduler",
            "spec.serviceAccountName": "default",
            "spec.hostNetwork": "true",
            "status.phase": "Running",
            "status.podIP": "10.1.2.3",
            "status.podIPs": "",
            "status.nominatedNodeName": "node-2",
        },
    ),
    GroupResource("", "replicationcontrollers"): ({"status": {"replicas": 3}}, {"status.replicas": "3"}),
    GroupResource("", "secrets"): ({"type": "Opaque", "data": {}}, {"type": "Opaque"}),
    GroupResource("", "services"): (
        {"spec": {"clusterIP": "10.96.0.1", "type": "ClusterIP"}},
        {"spec.clusterIP": "10.96.0.1", "spec.type": "ClusterIP"},
    ),
    GroupResource("apps", "replicasets"): ({"status": {"replicas": 2}}, {"status.replicas": "2"}),
    GroupResource("batch", "jobs"): ({"status": {"succeeded": 4}}, {"status.successful": "4"}),
    GroupResource("certificates.k8s.io", "certificatesigningrequests"): (
        {"spec": {"signerName": "kubernetes.io/kube-apiserver-client"}},
        {"spec.signerName": "kubernetes.io/kube-apiserver-client"},
    ),
    GroupResource("certificates.k8s.io", "clustertrustbundles"): (
        {"spec": {"signerName": "example.com/signer", "trustBundle": ""}},
        {"spec.signerName": "example.com/signer"},
    ),
    GroupResource("certificates.k8s.io", "podcertificaterequests"): (
        {"spec": {"signerName": "example.com/signer", "podName": "web", "nodeName": "node-1"}},
        {"spec.signerName": "example.com/signer", "spec.podName": "web", "spec.nodeName": "node-1"},
    ),
    GroupResource("resource.k8s.io", "resourceslices"): (
        {"spec": {"driver": "gpu.example.com", "nodeName": "node-1"}},
        {"spec.driver": "gpu.example.com", "spec.nodeName": "node-1"},
    ),
}
# How the fields of an object without any of their members read, where that is not empty.
ZEROS = {
    GroupResource("", "nodes"): {"spec.unschedulable": "false"},
    GroupResource("", "pods"): {"spec.hostNetwork": "false"},
    GroupResource("", "replicationcontrollers"): {"status.replicas": "0"},
    GroupResource("apps", "replicasets"): {"status.replicas": "0"},
    GroupResource("batch", "jobs"): {"status.successful": "0"},
}
WIDGETS = GroupResource("example.org", "widgets")
PATHS = (".spec.color", ".status.replicas", ".spec.deep.on")


def stored(named: GroupResource, content: dict[str, Any], selectable: tuple[str, ...] = ()) -> Entry:
    """The entry of an object as it is once it has gone through a producer and the log."""
    kind = ResourceType(group=named.group, resource=named.resource, version="v1", kind="Thing", selectable=selectable)
    whole = {"metadata": {"name": "one", "namespace": "x", "uid": "u", "resourceVersion": "7"}, **content}
    found = Normalizer("alpha", kind)(json.dumps(whole).encode())
    delta = Delta(
        type=ADDED,
        cluster="alpha",
        group=named.group,
        version="v1",
        resource=named.resource,
        namespace=found.namespace,
        name=found.name,
        uid=found.uid,
        member_version=found.member_version,
        time=0,
        producer="p",
        epoch=1,
        fields=found.fields,
        version_offset=found.version_offset,
        metadata_end=found.metadata_end,
        object=found.object,
    )
    return entry_of(delta, 1, 0, "pre")


def selects(entry: Entry, named: GroupResource, selector: str, selectable: tuple[str, ...] = ()) -> bool:
    known = selectable_fields(named, selectable)
    return Filter(fields=parse_fields(selector, lambda label: label in known)).matches(entry)


def test_there_is_an_example_of_each_field() -> None:
    assert {named: set(fields) for named, (_, fields) in EXAMPLES.items()} == {
        named: set(fields) for named, fields in BUILT_IN.items()
    }


@pytest.mark.parametrize("named", BUILT_IN, ids=str)
def test_every_label_is_read_and_selects(named: GroupResource) -> None:
    content, fields = EXAMPLES[named]
    entry = stored(named, content)
    assert dict(entry.fields) == {label: text for label, text in fields.items() if text}
    for label, text in fields.items():
        assert selects(entry, named, f"{label}={text}"), label
        assert not selects(entry, named, f"{label}!={text}"), label
        assert not selects(entry, named, f"{label}={text}x"), label


@pytest.mark.parametrize("named", BUILT_IN, ids=str)
def test_what_an_object_lacks_reads_as_its_zero(named: GroupResource) -> None:
    entry = stored(named, {})
    assert dict(entry.fields) == ZEROS.get(named, {})
    for label in BUILT_IN[named]:
        assert selects(entry, named, f"{label}={ZEROS.get(named, {}).get(label, '')}"), label


def test_fields_of_a_definition() -> None:
    content = {"spec": {"color": "red", "deep": {"on": False}}}
    entry = stored(WIDGETS, content, PATHS)
    # Of a custom type nothing has a zero: what is absent reads as empty (apiextensions-apiserver, selectable fields).
    assert dict(entry.fields) == {"spec.color": "red", "spec.deep.on": "false"}
    for selector in ("spec.color=red", "spec.deep.on=false", "status.replicas="):
        assert selects(entry, WIDGETS, selector, PATHS)
    assert not selects(entry, WIDGETS, "status.replicas=0", PATHS)


def test_other_labels_are_none() -> None:
    assert not METADATA_FIELDS & {label for fields in BUILT_IN.values() for label in fields}
    assert selectable_fields(GroupResource("apps", "deployments")) == {}
    with pytest.raises(BadSelector, match=r"field label not supported: spec\.color"):
        selects(stored(WIDGETS, {}), GroupResource("", "secrets"), "spec.color=red")
