"""One row or more of every built-in type, and objects too odd for a server to send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.tables import Printer, row_of
from query.tables.printers import BUILT_IN

NOW = 1767607872.0
AGO = "2026-01-05T09:11:12Z"
AGE = "60m"
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
ADMISSION = "admissionregistration.k8s.io"
STORAGE = "storage.k8s.io"
NET = "networking.k8s.io"
CERTIFICATES = "certificates.k8s.io"
FLOW = "flowcontrol.apiserver.k8s.io"
RBAC = "rbac.authorization.k8s.io"

SUBJECTS = [
    {"kind": "User", "name": "u"},
    {"kind": "User", "name": "v"},
    {"kind": "Group", "name": "g"},
    {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"},
]


def service(spec: dict[str, Any], *addresses: dict[str, str]) -> dict[str, Any]:
    return {"spec": spec, "status": {"loadBalancer": {"ingress": list(addresses)}}}


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


ROWS: list[tuple[str, str, dict[str, Any], list[Any]]] = [
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
    (
        "",
        "services",
        service(
            {
                "type": "ClusterIP",
                "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ports": [{"port": 80, "protocol": "TCP"}],
            }
        ),
        ["ClusterIP", "10.0.0.1", "<none>", "80/TCP", AGE, "<none>"],
    ),
    (
        "",
        "services",
        service(
            {
                "type": "NodePort",
                "clusterIP": "10.0.0.1",
                "externalIPs": ["1.1.1.1", "2.2.2.2"],
                "ports": [
                    {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                    {"port": 53, "protocol": "UDP"},
                ],
                "selector": {"app": "web"},
            }
        ),
        ["NodePort", "10.0.0.1", "1.1.1.1,2.2.2.2", "80:30080/TCP,53/UDP", AGE, "app=web"],
    ),
    (
        "",
        "services",
        service({"type": "LoadBalancer"}),
        ["LoadBalancer", "<none>", "<pending>", "<none>", AGE, "<none>"],
    ),
    (
        "",
        "services",
        service(
            {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]},
            {"hostname": "a-long-name.lb.example.com"},
            {"ip": "5.5.5.5", "hostname": "x"},
            {"ip": "5.5.5.5"},
        ),
        ["LoadBalancer", "<none>", "5.5.5.5,a-long-name.lb.example.com,9.9.9.9", "<none>", AGE, "<none>"],
    ),
    (
        "",
        "services",
        service({"type": "ExternalName", "externalName": "db.example.com"}),
        ["ExternalName", "<none>", "db.example.com", "<none>", AGE, "<none>"],
    ),
    ("", "services", service({"type": "New"}), ["New", "<none>", "<unknown>", "<none>", AGE, "<none>"]),
    (
        NET,
        "ingresses",
        {
            "spec": {"ingressClassName": "nginx", "rules": [{"host": "a"}, {}, {"host": "b"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"ip": "1.1.1.1"}]}},
        },
        ["nginx", "a,b", "1.1.1.1,2.2.2.2", "80, 443", AGE],
    ),
    (
        NET,
        "ingresses",
        {"spec": {"rules": [{"host": h} for h in "abcde"]}},
        ["<none>", "a,b,c + 2 more...", "", "80", AGE],
    ),
    (NET, "ingresses", {"spec": {"rules": [{}]}}, ["<none>", "*", "", "80", AGE]),
    (
        NET,
        "ingressclasses",
        {"spec": {"controller": "c", "parameters": {"apiGroup": "k.io", "kind": "P", "name": "n"}}},
        ["c", "P.k.io/n", AGE],
    ),
    (NET, "ingressclasses", {"spec": {"parameters": {"kind": "P", "name": "n"}}}, ["", "P/n", AGE]),
    (NET, "ingressclasses", {}, ["", "<none>", AGE]),
    ("", "endpoints", {}, ["<none>", AGE]),
    (
        "",
        "endpoints",
        {"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}]},
        ["1.1.1.1:80,[fd00::1]:80,1.1.1.1:81 + 1 more...", AGE],
    ),
    ("", "endpoints", {"subsets": [{"addresses": [{"ip": i} for i in "abcde"]}]}, ["a,b,c + 2 more...", AGE]),
    (
        "",
        "endpoints",
        {"subsets": [{"notReadyAddresses": [{"ip": "a"}], "ports": [{"port": 80}]}]},
        ["", AGE],
    ),
    (
        "discovery.k8s.io",
        "endpointslices",
        {
            "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "x"}, {}, {"port": 81}],
            "endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}],
        },
        ["IPv4", "80,x,* + 1 more...", "a,b", AGE],
    ),
    ("discovery.k8s.io", "endpointslices", {"ports": None}, ["", "<unset>", "<unset>", AGE]),
    (NET, "networkpolicies", {"spec": {"podSelector": {}}}, ["<none>", AGE]),
    (NET, "networkpolicies", {"spec": {"podSelector": SELECTOR}}, [SELECTED, AGE]),
    (NET, "servicecidrs", {"spec": {"cidrs": ["10.0.0.0/8", "fd00::/64"]}}, ["10.0.0.0/8,fd00::/64", AGE]),
    (
        NET,
        "ipaddresses",
        {"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}},
        ["services/default/kubernetes"],
    ),
    (
        NET,
        "ipaddresses",
        {"spec": {"parentRef": {"group": "g.io", "resource": "X", "name": "n"}}},
        ["x.g.io/n"],
    ),
    (NET, "ipaddresses", {}, ["<none>"]),
    (
        "",
        "nodes",
        {
            "metadata": {
                "labels": {
                    "node-role.kubernetes.io/worker": "",
                    "node-role.kubernetes.io/control-plane": "",
                    "kubernetes.io/role": "edge",
                }
            },
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "InternalIP", "address": "x"},
                ],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Linux"},
            },
        },
        [
            "Ready,SchedulingDisabled",
            "control-plane,edge,worker",
            AGE,
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "Linux",
        ]
        + ["<unknown>"] * 2,
    ),
    (
        "",
        "nodes",
        {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
        ["NotReady", "<none>", AGE, "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"],
    ),
    (
        "",
        "nodes",
        {},
        ["Unknown", "<none>", AGE, "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"],
    ),
    ("", "namespaces", {"status": {"phase": "Active"}}, ["Active", AGE]),
    ("coordination.k8s.io", "leases", {"spec": {"holderIdentity": "me"}}, ["me", AGE]),
    ("coordination.k8s.io", "leases", {}, ["", AGE]),
    (
        "coordination.k8s.io",
        "leasecandidates",
        {"spec": {"leaseName": "l", "binaryVersion": "1.36", "emulationVersion": "1.35"}},
        ["l", "1.36", "1.35", AGE],
    ),
    (
        "",
        "componentstatuses",
        {"conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]},
        ["Healthy", "ok", ""],
    ),
    ("", "componentstatuses", {"conditions": [{"type": "Healthy", "error": "e"}]}, ["Unhealthy", "", "e"]),
    ("", "componentstatuses", {}, ["Unknown", "", ""]),
    ("node.k8s.io", "runtimeclasses", {"handler": "runc"}, ["runc", AGE]),
    (
        "internal.apiserver.k8s.io",
        "storageversions",
        {"status": {"storageVersions": [{"apiServerID": "a", "encodingVersion": "v1"}]}},
        ["<unset>", "a=v1", AGE],
    ),
    (
        "apiregistration.k8s.io",
        "apiservices",
        {"status": {"conditions": [{"type": "Available", "status": "True"}]}},
        ["Local", "True", AGE],
    ),
    (
        "apiregistration.k8s.io",
        "apiservices",
        {
            "spec": {"service": {"namespace": "ns", "name": "n"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "Missing"}]},
        },
        ["ns/n", "False (Missing)", AGE],
    ),
    ("", "configmaps", {"data": {"a": "1", "b": "2"}, "binaryData": {"c": "eA=="}}, [3, AGE]),
    ("", "configmaps", {"data": None}, [0, AGE]),
    ("", "secrets", {"type": "Opaque", "data": {"a": "eA=="}}, ["Opaque", 1, AGE]),
    ("", "serviceaccounts", {"secrets": [{"name": "x"}]}, [AGE]),
    (
        "",
        "resourcequotas",
        {
            "status": {
                "hard": {"requests.cpu": "4", "limits.cpu": "8", "pods": "10", "limits.memory": "1Gi"},
                "used": {"requests.cpu": "500m", "pods": "3"},
            }
        },
        ["pods: 3/10, requests.cpu: 500m/4", "limits.cpu: 0/8, limits.memory: 0/1Gi", AGE],
    ),
    ("", "resourcequotas", {}, ["", "", AGE]),
    (
        "",
        "persistentvolumes",
        {
            "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
            "spec": {
                "capacity": {"storage": "5Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "ns", "name": "claim"},
                "storageClassName": "fast",
                "volumeMode": "Block",
            },
            "status": {"phase": "Bound", "reason": "why"},
        },
        ["5Gi", "RWO,RWX", "Delete", "Bound", "ns/claim", "old", "<unset>", "why", AGE, "Block"],
    ),
    (
        "",
        "persistentvolumes",
        {"metadata": {"deletionTimestamp": AGO}, "spec": {"volumeAttributesClassName": "gold"}},
        ["0", "", "", "Terminating", "", "", "gold", "", AGE, "<unset>"],
    ),
    (
        "",
        "persistentvolumeclaims",
        {
            "spec": {"volumeName": "pv1", "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOncePod"], "capacity": {"storage": "5Gi"}},
        },
        ["Bound", "pv1", "5Gi", "RWOP", "fast", "<unset>", AGE, "Filesystem"],
    ),
    (
        "",
        "persistentvolumeclaims",
        {"status": {"phase": "Pending", "accessModes": ["ReadWriteOnce"]}},
        ["Pending", "", "", "", "", "<unset>", AGE, "<unset>"],
    ),
    (
        STORAGE,
        "storageclasses",
        {
            "provisioner": "p",
            "reclaimPolicy": "Retain",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
        ["p", "Retain", "WaitForFirstConsumer", True, AGE],
    ),
    (STORAGE, "storageclasses", {}, ["", "Delete", "Immediate", False, AGE]),
    (STORAGE, "volumeattributesclasses", {"driverName": "d"}, ["d", AGE]),
    (
        STORAGE,
        "volumeattachments",
        {
            "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
            "status": {"attached": True},
        },
        ["a", "pv", "n", True, AGE],
    ),
    (STORAGE, "csinodes", {"spec": {"drivers": [{}, {}]}}, [2, AGE]),
    (STORAGE, "csidrivers", {}, [True, False, False, "<unset>", False, "<none>", AGE]),
    (
        STORAGE,
        "csidrivers",
        {
            "spec": {
                "attachRequired": False,
                "tokenRequests": [{"audience": "a"}, {"audience": "b"}],
                "volumeLifecycleModes": ["Persistent", "Ephemeral"],
            }
        },
        [False, False, False, "a,b", False, "Persistent,Ephemeral", AGE],
    ),
    (STORAGE, "csistoragecapacities", {}, [AGO]),
    ("", "limitranges", {}, [AGO]),
    (RBAC, "roles", {}, [AGO]),
    (RBAC, "clusterroles", {}, [AGO]),
    ("apiextensions.k8s.io", "customresourcedefinitions", {}, [AGO]),
    (
        RBAC,
        "rolebindings",
        {"roleRef": {"kind": "Role", "name": "r"}, "subjects": SUBJECTS},
        ["Role/r", AGE, "u, v", "g", "ns/sa"],
    ),
    (
        RBAC,
        "clusterrolebindings",
        {"roleRef": {"kind": "ClusterRole", "name": "r"}},
        ["ClusterRole/r", AGE, "", "", ""],
    ),
    (
        CERTIFICATES,
        "certificatesigningrequests",
        {
            "spec": {"signerName": "s", "username": "u", "expirationSeconds": 3600},
            "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="},
        },
        [AGE, "s", "u", "60m", "Approved,Issued"],
    ),
    (
        CERTIFICATES,
        "certificatesigningrequests",
        {"status": {"conditions": [{"type": "Approved"}, {"type": "Denied"}, {"type": "Failed"}]}},
        [AGE, "<none>", "", "<none>", "Denied,Failed"],
    ),
    (CERTIFICATES, "certificatesigningrequests", {}, [AGE, "<none>", "", "<none>", "Pending"]),
    (CERTIFICATES, "clustertrustbundles", {"spec": {"signerName": "s"}}, ["s"]),
    (
        CERTIFICATES,
        "podcertificaterequests",
        {"spec": {"podName": "p", "serviceAccountName": "sa", "nodeName": "n1", "signerName": "s"}},
        ["p", "sa", "n1", "s", "Pending"],
    ),
    (
        CERTIFICATES,
        "podcertificaterequests",
        {"status": {"conditions": [{"type": "SuggestedKeyType"}, {"type": "Denied", "status": "True"}]}},
        ["", "", "", "", "Denied"],
    ),
    (
        "storagemigration.k8s.io",
        "storageversionmigrations",
        {"spec": {"resource": {"group": "apps", "version": "v1", "resource": "deployments"}}},
        ["deployments.v1.apps"],
    ),
    (
        "storagemigration.k8s.io",
        "storageversionmigrations",
        {"spec": {"resource": {"group": "apps", "resource": "deployments"}}},
        ["deployments.apps"],
    ),
    (ADMISSION, "mutatingwebhookconfigurations", {"webhooks": [{}, {}]}, [2, AGE]),
    (ADMISSION, "validatingwebhookconfigurations", {}, [0, AGE]),
    (
        ADMISSION,
        "validatingadmissionpolicies",
        {"spec": {"validations": [{}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}},
        [1, "v1/ConfigMap", AGE],
    ),
    (ADMISSION, "mutatingadmissionpolicies", {"spec": {"mutations": [{}, {}]}}, [2, "<unset>", AGE]),
    (
        ADMISSION,
        "validatingadmissionpolicybindings",
        {"spec": {"policyName": "p", "paramRef": {"name": "n"}}},
        ["p", "*/n", AGE],
    ),
    (ADMISSION, "validatingadmissionpolicybindings", {"spec": {"policyName": "p"}}, ["p", "<unset>", AGE]),
    (
        ADMISSION,
        "mutatingadmissionpolicybindings",
        {
            "spec": {
                "policyName": "p",
                "paramRef": {
                    "selector": {
                        "matchLabels": {"a": "b"},
                        "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}],
                    }
                },
            }
        },
        [
            "p",
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{"
            "LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}",
            AGE,
        ],
    ),
    (
        "policy",
        "poddisruptionbudgets",
        {"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}},
        ["50%", "N/A", 2, AGE],
    ),
    ("policy", "poddisruptionbudgets", {"spec": {"maxUnavailable": 1}}, ["N/A", "1", 0, AGE]),
    (
        "scheduling.k8s.io",
        "priorityclasses",
        {"value": 1000, "globalDefault": True, "preemptionPolicy": "Never"},
        [1000, True, AGE, "Never"],
    ),
    ("resource.k8s.io", "deviceclasses", {}, [AGE]),
    ("resource.k8s.io", "resourceclaimtemplates", {}, [AGE]),
    ("resource.k8s.io", "resourceclaims", {}, ["pending", AGE]),
    (
        "resource.k8s.io",
        "resourceclaims",
        {"metadata": {"deletionTimestamp": AGO}, "status": {"allocation": {}, "reservedFor": [{}]}},
        ["deleted,allocated,reserved", AGE],
    ),
    (
        "resource.k8s.io",
        "resourceslices",
        {"spec": {"nodeName": "n", "driver": "d", "pool": {"name": "p"}}},
        ["n", "d", "p", AGE],
    ),
    (
        FLOW,
        "flowschemas",
        {
            "spec": {
                "priorityLevelConfiguration": {"name": "pl"},
                "matchingPrecedence": 9,
                "distinguisherMethod": {"type": "ByUser"},
            },
            "status": {"conditions": [{"type": "Dangling", "status": "False"}]},
        },
        ["pl", 9, "ByUser", AGE, "False"],
    ),
    (FLOW, "flowschemas", {}, ["", 0, "<none>", AGE, "?"]),
    (
        FLOW,
        "prioritylevelconfigurations",
        {
            "spec": {
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 5,
                    "limitResponse": {"queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}},
                },
            }
        },
        ["Limited", 5, 64, 6, 50, AGE],
    ),
    (
        FLOW,
        "prioritylevelconfigurations",
        # Of a v1beta1 or v1beta2.
        {"spec": {"type": "Limited", "limited": {"assuredConcurrencyShares": 40}}},
        ["Limited", 40, "<none>", "<none>", "<none>", AGE],
    ),
    (FLOW, "prioritylevelconfigurations", {"spec": {"type": "Exempt"}}, ["Exempt", *["<none>"] * 4, AGE]),
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


def test_a_null_or_an_odd_field_counts_as_absent_and_the_others_stay() -> None:
    body = {
        "metadata": {"name": "n", "creationTimestamp": AGO, "labels": 5},
        "spec": {
            "replicas": "three",
            "selector": None,
            "template": {"spec": {"containers": [7, {"name": "b"}]}},
        },
        "status": {"readyReplicas": True, "availableReplicas": 2, "updatedReplicas": None},
    }
    cells = BUILT_IN["apps", "deployments"].row(json.dumps(body).encode()).cells(NOW)
    assert cells == ["n", "0/1", 0, 2, AGE, ",b", ",", ""]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
SAMPLES = [(group, resource, content) for group, resource, content, _ in ROWS if content]
SAMPLES += [(group, "events", content) for group, content, _ in EVENT_ROWS if content]


def mutated(value: Any, draw: Any) -> Any:
    """The value with a part here and there replaced by something of any type."""
    if draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        return {key: mutated(item, draw) for key, item in value.items()}
    if isinstance(value, list):
        return [mutated(item, draw) for item in value]
    return value


@settings(max_examples=150)
@given(st.data())
def test_no_object_is_too_odd(data: Any) -> None:
    group, resource, content = data.draw(st.sampled_from(SAMPLES))
    printer = BUILT_IN[group, resource]
    body = {
        "metadata": {"name": "n", "creationTimestamp": AGO, "labels": {}, "ownerReferences": [{}]},
        **content,
    }
    assert len(shown(printer, json.dumps(mutated(body, data.draw)).encode())) == len(printer.columns)


@pytest.mark.parametrize("key", sorted(BUILT_IN))
@pytest.mark.parametrize("body", [b"{}", b"null", b"[]", b"1", b'"x"', b'{"metadata":1,"spec":[],"status":"x"}'])
def test_no_shape_is_too_odd(key: tuple[str, str], body: bytes) -> None:
    printer = BUILT_IN[key]
    assert len(printer.row(body).cells(NOW)) == len(printer.columns)


def test_an_object_nested_deep() -> None:
    deep = b'{"spec":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for printer in BUILT_IN.values():
        assert len(printer.row(deep).cells(NOW)) == len(printer.columns)
