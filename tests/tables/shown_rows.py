"""All rows of these tests but those of pods, and how one is shown."""

from __future__ import annotations

import json
from typing import Any

from query.tables import Printer, row_of
from tests.tables.cluster_rows import CLUSTER_ROWS
from tests.tables.row_times import NOW
from tests.tables.workload_rows import AUTOSCALERS, WORKLOADS, Row

ROWS: list[Row] = [*WORKLOADS, *CLUSTER_ROWS, *AUTOSCALERS]

EVENT = {"type": "Warning", "reason": "BackOff", "metadata": {"name": "e"}}
FIRST, LAST = "2026-01-05T09:11:12Z", "2026-01-05T10:11:02Z"
EVENT_ROWS: list[tuple[str, dict[str, Any], list[Any]]] = [
    (
        "",
        {
            **EVENT,
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
            "message": " failed\n",
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": FIRST,
            "lastTimestamp": LAST,
            "count": 12,
        },
        [
            "10s",
            "Warning",
            "BackOff",
            "pod/web",
            "spec.containers{web}",
            "kubelet, n1",
            "failed",
            "60m",
            12,
            "e",
        ],
    ),
    (
        "",
        {
            **EVENT,
            "eventTime": "2026-01-05T09:11:12.000000Z",
            "reportingComponent": "sched",
            "firstTimestamp": None,
        },
        ["60m", "Warning", "BackOff", "", "", "sched", "", "60m", 1, "e"],
    ),
    (
        "events.k8s.io",
        {
            **EVENT,
            "regarding": {"kind": "Node", "name": "n1"},
            "note": "note",
            "eventTime": FIRST,
            "series": {"count": 3, "lastObservedTime": LAST},
            "reportingController": "c",
            "reportingInstance": "i",
        },
        ["10s", "Warning", "BackOff", "node/n1", "", "c, i", "note", "60m", 3, "e"],
    ),
    ("events.k8s.io", {}, ["<unknown>", "", "", "", "", "", "", "<unknown>", 1, ""]),
]


def shown(printer: Printer, body: bytes) -> list[Any]:
    """The cells at NOW, which are the same in the row's text."""
    cells = printer.row(body).cells(NOW)
    text = json.loads(b'{"cells":[' + row_of(printer, body).at(NOW) + b"}")
    assert text.pop("cells") == cells
    assert text.keys() <= {"conditions"}
    return cells
