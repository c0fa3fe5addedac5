"""Rows of workloads and of what scales them: group, resource, content, and the cells behind the name."""

from __future__ import annotations

import json
from typing import Any

from tests.tables.row_times import AGE, AGO

Row = tuple[str, str, dict[str, Any], list[Any]]

TEMPLATE = {"spec": {"containers": [{"name": "a", "image": "ia"}, {"name": "b", "image": "ib"}]}}
SELECTOR = {
    "matchLabels": {"z": "1"},
    "matchExpressions": [
        {"key": "e", "operator": "In", "values": ["y", "x"]},
        {"key": "f", "operator": "DoesNotExist"},
        {"key": "g", "operator": "NotIn", "values": ["x"]},
    ],
}
SELECTED = "e in (x,y),!f,g notin (x),z=1"
WORKLOAD = {"selector": SELECTOR, "template": TEMPLATE}
WIDE = ["a,b", "ia,ib", SELECTED]


OF_SPEC, OF_STATUS = (f"autoscaling.alpha.kubernetes.io/{name}" for name in ("metrics", "current-metrics"))


def before(metrics: list[Any], current: list[Any], target: int | None = None) -> dict[str, Any]:
    """One of autoscaling/v1."""
    spec = {} if target is None else {"targetCPUUtilizationPercentage": target}
    return {
        "metadata": {"annotations": {OF_SPEC: json.dumps(metrics), OF_STATUS: json.dumps(current)}},
        "spec": spec,
        "status": {"currentCPUUtilizationPercentage": 9},
    }


def autoscaler(metrics: list[Any], found: list[Any]) -> dict[str, Any]:
    return {
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 9,
            "metrics": metrics,
        },
        "status": {"currentReplicas": 2, "currentMetrics": found},
    }


def metric(kind: str, field: str, **content: Any) -> dict[str, Any]:
    return {"type": kind, field: content}


WORKLOADS: list[Row] = [
    (
        "apps",
        "deployments",
        {
            "spec": {"replicas": 3, **WORKLOAD},
            "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
        },
        ["2/3", 1, 2, AGE, *WIDE],
    ),
    (
        "apps",
        "deployments",
        {"spec": {"selector": {"matchExpressions": [{"key": "a"}]}}},
        ["0/1", 0, 0, AGE, "", "", "<invalid>"],
    ),
    ("apps", "deployments", {}, ["0/1", 0, 0, AGE, "", "", ""]),
    (
        "apps",
        "replicasets",
        {"spec": {"replicas": 3, **WORKLOAD}, "status": {"replicas": 2, "readyReplicas": 1}},
        [3, 2, 1, AGE, *WIDE],
    ),
    ("apps", "replicasets", {"spec": {"replicas": 0}}, [0, 0, 0, AGE, "", "", "<none>"]),
    (
        "apps",
        "replicasets",
        {"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
        [1, 0, 0, AGE, "", "", "<error>"],
    ),
    (
        "",
        "replicationcontrollers",
        {
            "spec": {"replicas": 3, "selector": {"b": "2", "a": "1"}, "template": TEMPLATE},
            "status": {"replicas": 3},
        },
        [3, 3, 0, AGE, "a,b", "ia,ib", "a=1,b=2"],
    ),
    (
        "apps",
        "statefulsets",
        {"spec": {"replicas": 3, **WORKLOAD}, "status": {"readyReplicas": 2}},
        ["2/3", AGE, "a,b", "ia,ib"],
    ),
    (
        "apps",
        "daemonsets",
        {
            "spec": WORKLOAD,
            "status": {
                "desiredNumberScheduled": 5,
                "currentNumberScheduled": 4,
                "numberReady": 3,
                "updatedNumberScheduled": 2,
                "numberAvailable": 1,
            },
        },
        [5, 4, 3, 2, 1, "<none>", AGE, *WIDE],
    ),
    (
        "apps",
        "daemonsets",
        {"spec": {"template": {"spec": {"nodeSelector": {"gpu": "yes"}}}}},
        [0, 0, 0, 0, 0, "gpu=yes", AGE, "", "", "<none>"],
    ),
    (
        "batch",
        "jobs",
        {
            "spec": {"completions": 3, **WORKLOAD},
            "status": {
                "succeeded": 3,
                "startTime": "2026-01-05T09:11:12Z",
                "completionTime": "2026-01-05T09:12:22Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        },
        ["Complete", "3/3", "70s", AGE, *WIDE],
    ),
    (
        "batch",
        "jobs",
        {"spec": {"parallelism": 30}, "status": {"startTime": AGO}},
        ["Running", "0/1 of 30", AGE, AGE, "", "", "<none>"],
    ),
    (
        "batch",
        "jobs",
        {"spec": {"parallelism": 1}, "status": {"conditions": [{"type": "Suspended", "status": "True"}]}},
        ["Suspended", "0/1", "", AGE, "", "", "<none>"],
    ),
    (
        "batch",
        "jobs",
        {
            "status": {
                "conditions": [
                    {"type": "FailureTarget", "status": "True"},
                    {"type": "Failed", "status": "True"},
                ]
            }
        },
        ["Failed", "0/1", "", AGE, "", "", "<none>"],
    ),
    (
        "batch",
        "cronjobs",
        {
            "spec": {
                "schedule": "* * * * *",
                "timeZone": "Etc/UTC",
                "suspend": False,
                "jobTemplate": {"spec": WORKLOAD},
            },
            "status": {"active": [{"name": "x"}], "lastScheduleTime": "2026-01-05T10:11:00Z"},
        },
        ["* * * * *", "Etc/UTC", "False", 1, "12s", AGE, *WIDE],
    ),
    ("batch", "cronjobs", {}, ["", "<none>", "<unset>", 0, "<none>", AGE, "", "", "<none>"]),
    (
        "apps",
        "controllerrevisions",
        {
            "revision": 7,
            "metadata": {
                "ownerReferences": [
                    {"kind": "X", "name": "x"},
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True},
                ]
            },
        },
        ["statefulset.apps/web", 7, AGE],
    ),
    ("apps", "controllerrevisions", {}, ["<none>", 0, AGE]),
    (
        "",
        "podtemplates",
        {"template": {"metadata": {"labels": {"b": "2", "a": "1"}}, **TEMPLATE}},
        ["a,b", "ia,ib", "a=1,b=2"],
    ),
]

AUTOSCALERS: list[Row] = [
    (
        "autoscaling",
        "horizontalpodautoscalers",
        autoscaler([], []),
        ["Deployment/web", "<none>", "<unset>", 9, 2, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        autoscaler(
            [metric("Resource", "resource", name="cpu", target={"averageUtilization": 80})],
            [metric("Resource", "resource", name="cpu", current={"averageUtilization": 35})],
        ),
        ["Deployment/web", "cpu: 35%/80%", "<unset>", 9, 2, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        autoscaler(
            [
                metric("Resource", "resource", name="memory", target={"averageValue": "1Gi"}),
                metric("External", "external", target={"averageValue": "5"}),
                metric("Pods", "pods", target={"averageValue": "2"}),
            ],
            [],
        ),
        ["Deployment/web", "memory: <unknown>/1Gi, <unknown>/5 (avg) + 1 more...", "<unset>", 9, 2, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        autoscaler(
            [
                metric("Object", "object", target={"value": "7"}),
                metric("Pods", "pods", target={"averageValue": "2"}),
            ],
            [
                metric("Object", "object", current={"value": "3"}),
                metric("Pods", "pods", current={"averageValue": "1"}),
            ],
        ),
        ["Deployment/web", "3/7, 1/2", "<unset>", 9, 2, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        autoscaler([metric("ContainerResource", "containerResource", name="cpu", target={}), {"type": "New"}], [None]),
        ["Deployment/web", "cpu: <unknown>/<auto>, <unknown type>", "<unset>", 9, 2, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        {
            "spec": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
            "status": {"currentCPUUtilizationPercentage": 20},
        },
        ["/", "cpu: 20%/50%", "1", 3, 0, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        before(
            [
                {"type": "Pods", "pods": {"metricName": "packets", "targetAverageValue": "1k"}},
                {"type": "Object", "object": {"target": {"kind": "I"}, "metricName": "hits", "targetValue": "2k"}},
            ],
            [{"type": "Pods", "pods": {"metricName": "packets", "currentAverageValue": "800"}}],
            target=70,
        ),
        ["/", "800/1k, <unknown>/2k + 1 more...", "<unset>", 0, 0, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        before(
            [{"type": "Pods", "pods": {"metricName": "packets", "targetAverageValue": "1k"}}],
            [
                {"type": "Pods", "pods": {"metricName": "packets", "currentAverageValue": "800"}},
                {"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 41}},
            ],
            target=70,
        ),
        ["/", "800/1k, cpu: 41%/70%", "<unset>", 0, 0, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        before(
            [
                {"type": "Object", "object": {"metricName": "hits", "targetValue": "0", "averageValue": "5"}},
                {"type": "External", "external": {"metricName": "queue", "targetValue": "30"}},
            ],
            [
                {"type": "Object", "object": {"metricName": "hits", "currentValue": "0", "averageValue": "3"}},
                {"type": "External", "external": {"metricName": "queue", "currentValue": "12"}},
            ],
        ),
        ["/", "3/5 (avg), 12/30", "<unset>", 0, 0, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        before(
            [
                {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "targetAverageUtilization": 30}},
            ],
            [{"type": "Resource", "resource": {"name": "memory", "currentAverageValue": "512Mi"}}],
        ),
        ["/", "memory: 512Mi/1Gi, cpu: <unknown>/30%", "<unset>", 0, 0, AGE],
    ),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        {
            "metadata": {"annotations": {OF_SPEC: "{", OF_STATUS: '[{"type":5}]', "other": "x"}},
            "spec": {"targetCPUUtilizationPercentage": 50},
            "status": {"currentCPUUtilizationPercentage": 20},
        },
        ["/", "cpu: 20%/50%", "<unset>", 0, 0, AGE],
    ),
]
