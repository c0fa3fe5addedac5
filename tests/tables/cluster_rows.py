"""Rows of networks, nodes, configuration, storage and policy: group, resource, content, the cells behind the name."""

from __future__ import annotations

from typing import Any

from tests.tables.row_times import AGE, AGO
from tests.tables.workload_rows import SELECTED, SELECTOR, Row

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


CLUSTER_ROWS: list[Row] = [
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
]
