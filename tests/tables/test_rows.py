"""One row or more of every built-in type."""

from __future__ import annotations

import json
from typing import Any

import pytest

from query.tables.printers import BUILT_IN
from tests.tables.cluster_rows import NET, RBAC, STORAGE
from tests.tables.row_times import AGO, NOW
from tests.tables.shown_rows import EVENT_ROWS, ROWS, shown


@pytest.mark.parametrize(("group", "resource", "content", "cells"), ROWS)
def test_rows(group: str, resource: str, content: dict[str, Any], cells: list[Any]) -> None:
    metadata = {"name": "n", "creationTimestamp": AGO, **content.get("metadata", {})}
    assert shown(BUILT_IN[group, resource], json.dumps({**content, "metadata": metadata}).encode()) == ["n", *cells]


@pytest.mark.parametrize(("group", "content", "cells"), EVENT_ROWS)
def test_events(group: str, content: dict[str, Any], cells: list[Any]) -> None:
    assert shown(BUILT_IN[group, "events"], json.dumps(content).encode()) == cells


@pytest.mark.parametrize(
    ("group", "resource", "mark"),
    [
        (STORAGE, "storageclasses", "storageclass.kubernetes.io/is-default-class"),
        (STORAGE, "volumeattributesclasses", "volumeattributesclass.alpha.kubernetes.io/is-default-class"),
    ],
)
def test_default_classes(group: str, resource: str, mark: str) -> None:
    body = json.dumps({"metadata": {"name": "n", "annotations": {mark: "true"}}}).encode()
    assert BUILT_IN[group, resource].row(body).cells(NOW)[0] == "n (default)"


def test_every_type_has_a_row_here() -> None:
    tested = {(group, resource) for group, resource, *_ in ROWS} | {("", "pods")}
    assert tested | {(group, "events") for group, *_ in EVENT_ROWS} == set(BUILT_IN)


@pytest.mark.parametrize(
    ("group", "resource", "names"),
    [
        ("apps", "deployments", "Name Ready Up-to-date Available Age | Containers Images Selector"),
        ("apps", "replicasets", "Name Desired Current Ready Age | Containers Images Selector"),
        ("", "replicationcontrollers", "Name Desired Current Ready Age | Containers Images Selector"),
        ("apps", "statefulsets", "Name Ready Age | Containers Images"),
        (
            "apps",
            "daemonsets",
            "Name Desired Current Ready Up-to-date Available Node-Selector Age | Containers Images Selector",
        ),
        ("batch", "jobs", "Name Status Completions Duration Age | Containers Images Selector"),
        (
            "batch",
            "cronjobs",
            "Name Schedule Timezone Suspend Active Last-Schedule Age | Containers Images Selector",
        ),
        ("", "services", "Name Type Cluster-IP External-IP Port(s) Age | Selector"),
        (NET, "ingresses", "Name Class Hosts Address Ports Age |"),
        (
            "",
            "nodes",
            "Name Status Roles Age Version | Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
        ),
        ("", "events", "Last-Seen Type Reason Object Message | Subobject Source First-Seen Count Name"),
        (
            "",
            "persistentvolumes",
            "Name Capacity Access-Modes Reclaim-Policy Status Claim StorageClass VolumeAttributesClass Reason Age "
            "| VolumeMode",
        ),
        (
            "",
            "persistentvolumeclaims",
            "Name Status Volume Capacity Access-Modes StorageClass VolumeAttributesClass Age | VolumeMode",
        ),
        ("autoscaling", "horizontalpodautoscalers", "Name Reference Targets MinPods MaxPods Replicas Age |"),
        ("policy", "poddisruptionbudgets", "Name Min-Available Max-Unavailable Allowed-Disruptions Age |"),
        (RBAC, "rolebindings", "Name Role Age | Users Groups ServiceAccounts"),
        ("", "resourcequotas", "Name Request Limit Age |"),
    ],
)
def test_column_names(group: str, resource: str, names: str) -> None:
    columns = BUILT_IN[group, resource].columns
    narrow = [column.name.replace(" ", "-") for column in columns if column.priority == 0]
    wide = [column.name.replace(" ", "-") for column in columns if column.priority == 1]
    assert (narrow, wide) == tuple(part.split() for part in names.split("|"))
