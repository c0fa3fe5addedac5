"""Pods: the status, readiness and restarts that kubectl shows for each state of their containers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from query.tables import printer_for

NOW = 1767607872.0
FIVE_MINUTES_AGO = "2026-01-05T10:06:12Z"
AN_HOUR_AGO = "2026-01-05T09:11:12Z"

RUNNING = {"state": {"running": {}}, "ready": True}
DONE = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}


def waiting(reason: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason}}}


def ended(code: int, reason: str = "", signal: int = 0) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}}


def restarted(status: dict[str, Any], count: int, at: str | None = FIVE_MINUTES_AGO) -> dict[str, Any]:
    last = {"terminated": {"exitCode": 1, "finishedAt": at}} if at else {}
    return {**status, "restartCount": count, "lastState": last}


def pod(
    phase: str = "Running",
    containers: list[dict[str, Any]] | None = None,
    inits: list[tuple[dict[str, Any], dict[str, Any]]] | None = None,
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> list[Any]:
    statuses = containers if containers is not None else [RUNNING]
    body = {
        "metadata": {"name": "web", "creationTimestamp": AN_HOUR_AGO, **(metadata or {})},
        "spec": {
            "containers": [{"name": f"c{i}"} for i in range(len(statuses))],
            "initContainers": [{"name": f"i{i}", **spec} for i, (spec, _) in enumerate(inits or [])],
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": f"c{i}", **each} for i, each in enumerate(statuses)],
            "initContainerStatuses": [{"name": f"i{i}", **each} for i, (_, each) in enumerate(inits or [])],
            **status,
        },
    }
    return printer_for("", "pods").row(json.dumps(body).encode()).cells(NOW)


READY = [{"type": "Ready", "status": "True"}]
INITIALIZED = [{"type": "Initialized", "status": "True"}]
GATED = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
DELETED = {"deletionTimestamp": FIVE_MINUTES_AGO}
INIT: dict[str, Any] = {}
SIDECAR = {"restartPolicy": "Always"}
WAITS = waiting("PodInitializing")


@pytest.mark.parametrize(
    ("cells", "ready", "status", "restarts"),
    [
        (pod(), "1/1", "Running", "0"),
        (pod("Pending", [waiting("ContainerCreating")]), "0/1", "ContainerCreating", "0"),
        (pod("Pending", []), "0/0", "Pending", "0"),
        (pod("Pending", [], conditions=GATED), "0/0", "SchedulingGated", "0"),
        (pod("Failed", [], reason="Evicted"), "0/0", "Evicted", "0"),
        (pod(containers=[restarted(RUNNING, 3)]), "1/1", "Running", "3 (5m ago)"),
        (
            pod(containers=[restarted(RUNNING, 3), restarted(RUNNING, 1, AN_HOUR_AGO)]),
            "2/2",
            "Running",
            "4 (5m ago)",
        ),
        (pod(containers=[restarted(RUNNING, 3, None)]), "1/1", "Running", "3"),
        (
            pod(containers=[restarted(waiting("CrashLoopBackOff"), 6)]),
            "0/1",
            "CrashLoopBackOff",
            "6 (5m ago)",
        ),
        (pod("Succeeded", [DONE]), "0/1", "Completed", "0"),
        (pod(containers=[DONE, RUNNING], conditions=READY), "1/2", "Running", "0"),
        (pod(containers=[DONE, RUNNING]), "1/2", "NotReady", "0"),
        (pod("Failed", [ended(1, "Error")]), "0/1", "Error", "0"),
        (pod("Failed", [ended(137, signal=9)]), "0/1", "Signal:9", "0"),
        (pod("Failed", [ended(3)]), "0/1", "ExitCode:3", "0"),
        (pod("Failed", [ended(137, "OOMKilled"), waiting("Other")]), "0/2", "OOMKilled", "0"),
        (pod(metadata=DELETED), "1/1", "Terminating", "0"),
        (pod("Succeeded", [DONE], metadata=DELETED), "0/1", "Completed", "0"),
        (pod(metadata=DELETED, reason="NodeLost"), "1/1", "Unknown", "0"),
        (pod("Pending", [WAITS], [(INIT, RUNNING), (INIT, WAITS)]), "0/1", "Init:0/2", "0"),
        (pod("Pending", [WAITS], [(INIT, DONE), (INIT, WAITS)]), "0/1", "Init:1/2", "0"),
        (pod("Pending", [WAITS], [(INIT, DONE), (INIT, DONE)]), "0/1", "PodInitializing", "0"),
        (
            pod("Pending", [WAITS], [(INIT, restarted(waiting("CrashLoopBackOff"), 2))]),
            "0/1",
            "Init:CrashLoopBackOff",
            "2 (5m ago)",
        ),
        (pod("Pending", [WAITS], [(INIT, ended(1, "Error"))]), "0/1", "Init:Error", "0"),
        (pod("Pending", [WAITS], [(INIT, ended(2))]), "0/1", "Init:ExitCode:2", "0"),
        (pod("Pending", [WAITS], [(INIT, ended(2, signal=15))]), "0/1", "Init:Signal:15", "0"),
        # Restarts of finished init containers are forgotten, those of sidecars are not.
        (pod(inits=[(INIT, restarted(DONE, 4))]), "1/1", "Running", "0"),
        (pod(inits=[(SIDECAR, {**restarted(RUNNING, 2), "started": True})]), "2/2", "Running", "2 (5m ago)"),
        (
            pod("Pending", [WAITS], [(SIDECAR, {**RUNNING, "ready": False, "started": True}), (INIT, WAITS)]),
            "0/2",
            "Init:1/2",
            "0",
        ),
        (pod("Pending", [WAITS], [(SIDECAR, {**WAITS, "started": False})]), "0/2", "Init:0/1", "0"),
        # Once initialized, the main containers count though a sidecar is down, whose state stays the status.
        (
            pod(inits=[(SIDECAR, {**waiting("CrashLoopBackOff"), "started": False})], conditions=INITIALIZED),
            "1/2",
            "Init:CrashLoopBackOff",
            "0",
        ),
    ],
)
def test_status(cells: list[Any], ready: str, status: str, restarts: str) -> None:
    assert cells[:5] == ["web", ready, status, restarts, "60m"]


def test_wide_cells() -> None:
    assert pod()[5:] == ["<none>"] * 4
    assert pod(podIPs=[{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], nominatedNodeName="n2")[5:] == [
        "10.0.0.1",
        "<none>",
        "n2",
        "<none>",
    ]
    body = {
        "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
        "status": {"podIP": "10.0.0.2", "conditions": [{"type": "a", "status": "True"}]},
    }
    cells = printer_for("", "pods").row(json.dumps(body).encode()).cells(NOW)
    assert cells[4:] == ["<unknown>", "10.0.0.2", "n1", "<none>", "1/2"]


def test_columns() -> None:
    columns = printer_for("", "pods").columns
    assert [(c.name, c.type, c.format, c.priority) for c in columns] == [
        ("Name", "string", "name", 0),
        ("Ready", "string", "", 0),
        ("Status", "string", "", 0),
        ("Restarts", "string", "", 0),
        ("Age", "string", "", 0),
        ("IP", "string", "", 1),
        ("Node", "string", "", 1),
        ("Nominated Node", "string", "", 1),
        ("Readiness Gates", "string", "", 1),
    ]
    assert columns[4].description.startswith("CreationTimestamp is a timestamp representing the server time")


def test_ages_follow_the_time_and_rows_can_be_shared() -> None:
    row = printer_for("", "pods").row(json.dumps({"metadata": {"creationTimestamp": AN_HOUR_AGO}}).encode())
    first = row.cells(NOW)
    first[0] = "changed"
    assert (row.cells(NOW)[4], row.cells(NOW + 3600)[4], row.cells(NOW)[0]) == ("60m", "120m", "")
