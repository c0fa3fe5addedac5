"""Content: what a believable cluster holds, from a seed and a number of pods.

`populate` fills a registry's storage; `Builder` also makes the objects that churn adds later, so that they look
like those that were there.
"""

from __future__ import annotations

import base64
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from simulation.registry import Registry, WriteOptions, managed_fields, timestamp
from simulation.storage import Stored

__all__ = ["Builder", "populate"]

Body = dict[str, Any]
PodState = Literal["Running", "NotReady", "CrashLoopBackOff", "Pending", "Starting", "Completed"]

APPS = "apps"
CERTIFICATES = ("certs.example.io", "certificates")

TEAMS = (
    "payments",
    "checkout",
    "catalog",
    "search",
    "identity",
    "billing",
    "shipping",
    "analytics",
    "media",
    "platform",
    "messaging",
    "pricing",
    "inventory",
    "fraud",
    "loyalty",
    "reports",
    "support",
    "web",
    "mobile",
    "data",
)
SERVICES = (
    "api",
    "gateway",
    "worker",
    "scheduler",
    "frontend",
    "backend",
    "consumer",
    "indexer",
    "cache",
    "mailer",
    "exporter",
    "sync",
    "ingest",
    "renderer",
    "auth",
    "ledger",
    "notifier",
    "router",
    "importer",
    "planner",
)
TIERS = ("frontend", "backend", "data", "batch")
EVENTS = (
    ("Normal", "Scheduled", "default-scheduler", "Successfully assigned {ns}/{pod} to {node}"),
    ("Normal", "Pulled", "kubelet", 'Container image "{image}" already present on machine'),
    ("Normal", "Created", "kubelet", "Created container: app"),
    ("Normal", "Started", "kubelet", "Started container app"),
    ("Normal", "Killing", "kubelet", "Stopping container app"),
    ("Warning", "Unhealthy", "kubelet", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ("Warning", "BackOff", "kubelet", "Back-off restarting failed container app in pod {pod}_{ns}"),
    (
        "Warning",
        "FailedScheduling",
        "default-scheduler",
        "0/{nodes} nodes are available: Insufficient memory.",
    ),
)
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"

CERTIFICATE_CRD: Body = {
    "metadata": {"name": "certificates.certs.example.io"},
    "spec": {
        "group": "certs.example.io",
        "scope": "Namespaced",
        "names": {
            "plural": "certificates",
            "singular": "certificate",
            "kind": "Certificate",
            "listKind": "CertificateList",
            "shortNames": ["cert", "certs"],
            "categories": ["all"],
        },
        "conversion": {"strategy": "None"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {
                        "name": "Ready",
                        "type": "string",
                        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
                    },
                    {"name": "Secret", "type": "string", "jsonPath": ".spec.secretName"},
                    {"name": "Issuer", "type": "string", "jsonPath": ".spec.issuerRef.name", "priority": 1},
                    {
                        "name": "Age",
                        "type": "date",
                        "jsonPath": ".metadata.creationTimestamp",
                        "description": "Time since the certificate was asked for.",
                    },
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["secretName", "issuerRef"],
                                "properties": {
                                    "secretName": {"type": "string"},
                                    "duration": {"type": "string"},
                                    "dnsNames": {"type": "array", "items": {"type": "string"}},
                                    "issuerRef": {
                                        "type": "object",
                                        "properties": {
                                            "name": {"type": "string"},
                                            "kind": {"type": "string"},
                                        },
                                    },
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def populate(registry: Registry, *, name: str, pods: int, seed: int | str) -> None:
    """Fill a cluster: exactly `pods` pods, and around them what a cluster of that size has."""
    Builder(registry, name, seed).everything(pods)


class Builder:
    """Makes objects for one cluster. The shape of the content follows the seed; uids are the storage's."""

    def __init__(self, registry: Registry, cluster: str, seed: int | str) -> None:
        self.registry = registry
        self.storage = registry.storage
        self.cluster = cluster
        self.random = random.Random(f"content/{seed}")
        self.now = datetime.now(UTC)
        self.nodes: list[str] = []
        self._fields: dict[str, Body] = {}
        self._addresses: dict[str, str] = {}

    # Storing

    def put(self, group: str, resource: str, body: Body, *, manager: str = "", age: float = 0.0) -> Stored:
        """Store an object as if `manager` had made it `age` seconds ago."""
        collection = self.storage.collections[(group, resource)]
        type = collection.type
        created = timestamp(self.now - timedelta(seconds=age)) if age else timestamp()
        metadata = body["metadata"]
        metadata["uid"] = self.storage.new_uid()
        metadata["creationTimestamp"] = created
        if type.generation:
            metadata.setdefault("generation", 1)
        manager = manager or "kube-controller-manager"
        fields = managed_fields({key: value for key, value in body.items() if key not in ("status", "metadata")})
        own = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata}
        if own:
            fields["f:metadata"] = managed_fields(own)
        metadata["managedFields"] = [_entry(manager, type.api_version(), created, fields)] if fields else []
        if body.get("status") and type.has_status:
            status = {"f:status": managed_fields(body["status"])}
            metadata["managedFields"].append(
                _entry("kube-controller-manager", type.api_version(), created, status, "status")
            )
        if not metadata["managedFields"]:
            # As the default service accounts of a real cluster.
            del metadata["managedFields"]
        return self.storage.put(collection, body)

    def _suffix(self, length: int) -> str:
        return "".join(self.random.choices(_SUFFIX, k=length))

    def _age(self) -> float:
        return self.random.uniform(3600, 40 * 86400)

    # The whole

    def everything(self, pods: int) -> None:
        """See `populate`."""
        teams = list(TEAMS[: max(3, min(len(TEAMS), 3 + pods // 150))])
        for namespace in ("default", "kube-system", "kube-public", "kube-node-lease", *teams):
            self._namespace(namespace)
        for number in range(pods // 30 + 3):
            self._node(number)
        self._rbac()
        self._control_plane_leases()
        left = pods
        if left >= 4 * len(self.nodes):
            self._daemon_set(len(self.nodes))
            left -= len(self.nodes)
        else:
            self._daemon_set(0)
        if left >= 10:
            self._stateful_set(teams[0], 3)
            left -= 3
        jobs = min(left // 8, pods // 50 + 1)
        for number in range(jobs):
            self._job(teams[number % len(teams)], number)
        left -= jobs
        self._cron_job(teams[0])
        number = 0
        while left > 0:
            size = min(left, self.random.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 12)))
            self._application(teams[number % len(teams)], number, size)
            left -= size
            number += 1
        self._events(pods // 5)
        self.registry.create(
            self.storage.collections[("apiextensions.k8s.io", "customresourcedefinitions")].type,
            "",
            {**CERTIFICATE_CRD, "metadata": {"name": "certificates.certs.example.io"}},
            WriteOptions("helm"),
        )
        for number in range(pods // 40 + 3):
            self._certificate(teams[number % len(teams)], number)

    # The cluster

    def _namespace(self, name: str) -> None:
        age = 60 * 86400.0
        labels = {"kubernetes.io/metadata.name": name}
        if name in TEAMS:
            labels["team"] = name
        self.put(
            "",
            "namespaces",
            {
                "metadata": {"name": name, "labels": labels},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            },
            manager="kubectl-create",
            age=age,
        )
        self.put("", "serviceaccounts", {"metadata": {"name": "default", "namespace": name}}, age=age)
        certificate = base64.b64encode(hashlib.sha512(self.cluster.encode()).digest() * 12).decode()
        lines = "\n".join(certificate[start : start + 64] for start in range(0, len(certificate), 64))
        self.put(
            "",
            "configmaps",
            {
                "metadata": {
                    "name": "kube-root-ca.crt",
                    "namespace": name,
                    "annotations": {"kubernetes.io/description": "Contains a CA bundle for the API server."},
                },
                "data": {"ca.crt": f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"},
            },
            age=age,
        )

    def _node(self, number: int) -> None:
        name = f"{self.cluster}-node-{number:03d}"
        self.nodes.append(name)
        zone = "abc"[number % 3]
        address = f"10.{20 + number // 250}.{number % 250}.10"
        seconds = 50 * 86400.0
        since = timestamp(self.now - timedelta(seconds=seconds))
        beat = timestamp(self.now)
        conditions = [
            (
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]
        labels = {
            "beta.kubernetes.io/arch": "amd64",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": "m6i.2xlarge",
            "topology.kubernetes.io/region": "eu-central-1",
            "topology.kubernetes.io/zone": f"eu-central-1{zone}",
        }
        spec: Body = {
            "podCIDR": f"10.{100 + number // 250}.{number % 250}.0/24",
            "providerID": f"simulation:///{zone}/{name}",
        }
        if number == 0:
            labels["node-role.kubernetes.io/control-plane"] = ""
            spec["taints"] = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
        stored = self.put(
            "",
            "nodes",
            {
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {
                        "node.alpha.kubernetes.io/ttl": "0",
                        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                    },
                },
                "spec": spec,
                "status": {
                    "capacity": _capacity("8", "32466308Ki"),
                    "allocatable": _capacity("7910m", "31417732Ki"),
                    "conditions": [
                        {
                            "type": type,
                            "status": status,
                            "lastHeartbeatTime": beat,
                            "lastTransitionTime": since,
                            "reason": reason,
                            "message": message,
                        }
                        for type, status, reason, message in conditions
                    ],
                    "addresses": [
                        {"type": "InternalIP", "address": address},
                        {"type": "Hostname", "address": name},
                    ],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                    "nodeInfo": {
                        "machineID": hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
                        "systemUUID": self.storage.new_uid(),
                        "bootID": self.storage.new_uid(),
                        "kernelVersion": "6.12.30-cloud-amd64",
                        "osImage": "Debian GNU/Linux 13 (trixie)",
                        "containerRuntimeVersion": "containerd://2.1.4",
                        "kubeletVersion": "v1.36.0",
                        "kubeProxyVersion": "",
                        "operatingSystem": "linux",
                        "architecture": "amd64",
                    },
                    "images": [
                        {
                            "names": [f"registry.example.io/platform/base-{index}:1.{index}"],
                            "sizeBytes": 41_000_000 + index * 1_234_567,
                        }
                        for index in range(8)
                    ],
                },
            },
            manager="kubelet",
            age=seconds,
        )
        self.put(
            "coordination.k8s.io",
            "leases",
            {
                "metadata": {
                    "name": name,
                    "namespace": "kube-node-lease",
                    "ownerReferences": [_owner("v1", "Node", name, stored.uid, controller=False)],
                },
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _micro(self.now)},
            },
            manager="kubelet",
            age=seconds,
        )

    def _control_plane_leases(self) -> None:
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.put(
                "coordination.k8s.io",
                "leases",
                {
                    "metadata": {"name": name, "namespace": "kube-system"},
                    "spec": {
                        "holderIdentity": f"{self.nodes[0]}_{self.storage.new_uid()}",
                        "leaseDurationSeconds": 15,
                        "acquireTime": _micro(self.now - timedelta(days=3)),
                        "renewTime": _micro(self.now),
                        "leaseTransitions": 4,
                    },
                },
                manager=name,
                age=50 * 86400.0,
            )

    def _rbac(self) -> None:
        group = "rbac.authorization.k8s.io"
        age = 60 * 86400.0
        rules = {
            "cluster-admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
            "view": [
                {"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
            ],
            "system:node": [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}],
        }
        bootstrap = {"kubernetes.io/bootstrapping": "rbac-defaults"}
        for name, allowed in rules.items():
            body = {"metadata": {"name": name, "labels": dict(bootstrap)}, "rules": allowed}
            self.put(group, "clusterroles", body, manager="kube-apiserver", age=age)
        reference = {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}
        self.put(
            group,
            "clusterrolebindings",
            {
                "metadata": {"name": "cluster-admin", "labels": dict(bootstrap)},
                "roleRef": reference,
                "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:masters"}],
            },
            manager="kube-apiserver",
            age=age,
        )
        self.put(
            group,
            "roles",
            {
                "metadata": {"name": "leader-election", "namespace": "kube-system"},
                "rules": [
                    {
                        "apiGroups": ["coordination.k8s.io"],
                        "resources": ["leases"],
                        "verbs": ["get", "create", "update"],
                    }
                ],
            },
            age=age,
        )
        self.put(
            group,
            "rolebindings",
            {
                "metadata": {"name": "leader-election", "namespace": "kube-system"},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "leader-election"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "kube-system"}],
            },
            age=age,
        )
        self.put(
            "storage.k8s.io",
            "storageclasses",
            {
                "metadata": {
                    "name": "standard",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "csi.example.io",
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "WaitForFirstConsumer",
                "allowVolumeExpansion": True,
            },
            manager="kubectl-client-side-apply",
            age=age,
        )

    # Workloads

    def _template(self, app: str, team: str, tier: str, image: str, *, sidecar: bool) -> Body:
        container: Body = {
            "name": "app",
            "image": image,
            "args": ["--config=/etc/app/config.yaml", f"--service={app}", "--log-format=json"],
            "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
            ],
            "env": [
                {"name": "SERVICE_NAME", "value": app},
                {"name": "LOG_LEVEL", "value": "info"},
                {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel-collector.kube-system:4317"},
                {
                    "name": "POD_NAME",
                    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
                },
            ],
            "resources": {
                "limits": {"memory": "512Mi"},
                "requests": {"cpu": "100m", "memory": "256Mi"},
            },
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/app", "readOnly": True},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
            "livenessProbe": _probe("/healthz", 10),
            "readinessProbe": _probe("/readyz", 5),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
            },
        }
        containers = [container]
        if sidecar:
            containers.append(
                {
                    "name": "proxy",
                    "image": "registry.example.io/mesh/proxy:1.24.2",
                    "args": ["--upstream=127.0.0.1:8080"],
                    "ports": [{"name": "proxy", "containerPort": 15001, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }
            )
        return {
            "metadata": {
                "labels": {"app": app, "team": team, "tier": tier},
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            },
            "spec": {
                "volumes": [
                    {"name": "config", "configMap": {"name": f"{app}-config", "defaultMode": 420}},
                    {"name": "tmp", "emptyDir": {}},
                ],
                "containers": containers,
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "serviceAccount": "default",
                "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
                "schedulerName": "default-scheduler",
            },
        }

    def _application(self, team: str, number: int, replicas: int) -> None:
        app = f"{team}-{SERVICES[number // 3 % len(SERVICES)]}-{number}"
        tier = TIERS[number % len(TIERS)]
        image = f"registry.example.io/{team}/{app}:v1.{self.random.randint(0, 40)}.{self.random.randint(0, 9)}"
        template = self._template(app, team, tier, image, sidecar=number % 8 == 0)
        age = self._age()
        labels = dict(template["metadata"]["labels"])
        self._config_map(team, app, labels, age)
        if number % 5 == 0:
            self._secret(team, app, labels, age)
        states = [self._state() for _ in range(replicas)]
        ready = sum(state == "Running" for state in states)
        spec: Body = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": template,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        }
        applied = (
            f'{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"annotations":{{}},"name":"{app}",'
            f'"namespace":"{team}"}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app":"{app}"}}}},'
            f'"template":{{"metadata":{{"labels":{{"app":"{app}","team":"{team}","tier":"{tier}"}}}},'
            f'"spec":{{"containers":[{{"image":"{image}","name":"app"}}]}}}}}}}}\n'
        )
        deployment = self.put(
            APPS,
            "deployments",
            {
                "metadata": {
                    "name": app,
                    "namespace": team,
                    "labels": labels,
                    "annotations": {
                        "deployment.kubernetes.io/revision": "1",
                        "kubectl.kubernetes.io/last-applied-configuration": applied,
                    },
                },
                "spec": spec,
                "status": deployment_status(replicas, ready, 1, timestamp(self.now)),
            },
            manager="kubectl-client-side-apply",
            age=age,
        )
        digest = self._suffix(10)
        labelled = {**labels, "pod-template-hash": digest}
        own = {**template, "metadata": {**template["metadata"], "labels": labelled}}
        replica_set = self.put(
            APPS,
            "replicasets",
            {
                "metadata": {
                    "name": f"{app}-{digest}",
                    "namespace": team,
                    "labels": labelled,
                    "annotations": {
                        "deployment.kubernetes.io/desired-replicas": str(replicas),
                        "deployment.kubernetes.io/revision": "1",
                    },
                    "ownerReferences": [_owner("apps/v1", "Deployment", app, deployment.uid)],
                },
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": app, "pod-template-hash": digest}},
                    "template": own,
                },
                "status": replica_set_status(replicas, ready, 1),
            },
            age=age,
        )
        owner = _owner("apps/v1", "ReplicaSet", replica_set.name, replica_set.uid)
        pods = [self.pod(team, f"{replica_set.name}-", own, owner, state, age=age) for state in states]
        self._service(team, app, labels, pods, age)
        if number % 6 == 0:
            self._ingress(team, app, labels, age)

    def _state(self) -> PodState:
        drawn = self.random.random()
        if drawn < 0.92:
            return "Running"
        if drawn < 0.95:
            return "NotReady"
        return "CrashLoopBackOff" if drawn < 0.97 else "Pending"

    def pod(
        self,
        namespace: str,
        prefix: str,
        template: Body,
        owner: Body,
        state: PodState,
        *,
        age: float = 0.0,
        name: str = "",
        node: str = "",
        priority: int = 0,
    ) -> Stored:
        """Store a pod made from a template; the name is `prefix` and a random suffix unless given."""
        name = name or f"{prefix}{self._suffix(5)}"
        node = node or self.random.choice(self.nodes[1:] or self.nodes)
        token = f"kube-api-access-{self._suffix(5)}"
        spec = dict(template["spec"])
        mount = {
            "name": token,
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
        spec["containers"] = [
            {**container, "volumeMounts": [*container.get("volumeMounts", ()), mount]}
            for container in spec["containers"]
        ]
        spec["volumes"] = [*spec.get("volumes", ()), _token_volume(token)]
        spec |= {
            "nodeName": node,
            "priority": priority,
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{key}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for key in ("not-ready", "unreachable")
            ],
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        }
        if state == "Pending":
            del spec["nodeName"]
        created = timestamp(self.now - timedelta(seconds=age)) if age else timestamp()
        body: Body = {
            "metadata": {
                "name": name,
                "generateName": prefix,
                "namespace": namespace,
                "uid": self.storage.new_uid(),
                "generation": 1,
                "creationTimestamp": created,
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"].get("annotations", {}),
                "ownerReferences": [owner],
                "managedFields": self._pod_fields(owner, template, created, state),
            },
            "spec": spec,
            "status": self.pod_status(spec, state, created),
        }
        return self.storage.put(self.storage.collections[("", "pods")], body)

    def _pod_fields(self, owner: Body, template: Body, created: str, state: PodState) -> list[Body]:
        """Who wrote what of a pod; the trees are the same for all pods of an owner and made once."""
        known = self._fields.get(owner["uid"])
        if known is None:
            spec = {key: value for key, value in template["spec"].items() if key != "volumes"}
            own = {"labels": template["metadata"]["labels"], "ownerReferences": [owner]}
            known = {"f:metadata": managed_fields(own), "f:spec": managed_fields(spec)}
            if len(self._fields) > 20_000:
                self._fields.clear()
            self._fields[owner["uid"]] = known
        entries = [_entry("kube-controller-manager", "v1", created, known)]
        if state != "Pending":
            entries.append(_entry("kubelet", "v1", created, _KUBELET_FIELDS, "status"))
        return entries

    def pod_status(self, spec: Body, state: PodState, since: str, restarts: int = 0) -> Body:
        """The status of a pod in a state that it reached at `since`."""
        if state == "Pending":
            message = f"0/{len(self.nodes)} nodes are available: {len(self.nodes)} Insufficient memory."
            return {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "lastProbeTime": None,
                        "lastTransitionTime": since,
                        "reason": "Unschedulable",
                        "message": message,
                    }
                ],
                "qosClass": "Burstable",
            }
        ready = state == "Running"
        done = state == "Completed"
        crashed = state == "CrashLoopBackOff"
        address = self._address(spec["nodeName"])
        pod_ip = f"10.{self.random.randint(100, 119)}.{self.random.randint(0, 249)}.{self.random.randint(2, 250)}"
        reason = "" if ready else ("PodCompleted" if done else "ContainersNotReady")
        unready = [container["name"] for container in spec["containers"]]
        conditions: list[Body] = []
        for type in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
            holds = ready or type not in ("Ready", "ContainersReady")
            condition: Body = {
                "type": type,
                "status": "True" if holds else "False",
                "lastProbeTime": None,
                "lastTransitionTime": since,
            }
            if not holds and reason:
                condition["reason"] = reason
                if not done:
                    condition["message"] = f"containers with unready status: [{' '.join(unready)}]"
            conditions.append(condition)
        statuses = []
        for container in spec["containers"]:
            digest = hashlib.sha256(container["image"].encode()).hexdigest()
            status: Body = {
                "name": container["name"],
                "state": {"running": {"startedAt": since}},
                "lastState": {},
                "ready": ready,
                "restartCount": restarts,
                "image": container["image"],
                "imageID": f"{container['image'].rpartition(':')[0]}@sha256:{digest}",
                "containerID": f"containerd://{self.random.getrandbits(256):064x}",
                "started": not done and not crashed,
            }
            if state == "Starting":
                status |= {
                    "state": {"waiting": {"reason": "ContainerCreating"}},
                    "started": False,
                    "imageID": "",
                }
                del status["containerID"]
            elif done:
                status["state"] = {"terminated": _terminated(0, "Completed", since)}
            elif crashed:
                message = f"back-off 5m0s restarting failed container={container['name']}"
                status |= {
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
                    "lastState": {"terminated": _terminated(1, "Error", since)},
                    "restartCount": restarts or self.random.randint(3, 400),
                }
            statuses.append(status)
        made: Body = {
            "phase": {"Starting": "Pending", "Completed": "Succeeded"}.get(state, "Running"),
            "conditions": conditions,
            "hostIP": address,
            "hostIPs": [{"ip": address}],
            "startTime": since,
            "containerStatuses": statuses,
            "qosClass": "Burstable",
        }
        if state != "Starting":
            made |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
        return made

    def _address(self, node: str) -> str:
        """The internal address of a node; read once."""
        found = self._addresses.get(node)
        if found is None:
            stored = self.storage.get(("", "nodes"), "", node)
            addresses = (stored.body().get("status") or {}).get("addresses") if stored is not None else None
            found = self._addresses[node] = addresses[0]["address"] if addresses else "10.0.0.10"
        return found

    def _config_map(self, namespace: str, app: str, labels: Body, age: float) -> None:
        settings = "\n".join(
            f"{key}: {value}"
            for key, value in (
                ("service", app),
                ("listen", "0.0.0.0:8080"),
                ("timeout", f"{self.random.randint(1, 30)}s"),
                ("pool", self.random.randint(5, 50)),
                ("feature_flags", "[fast-path, new-ledger]"),
            )
        )
        self.put(
            "",
            "configmaps",
            {
                "metadata": {"name": f"{app}-config", "namespace": namespace, "labels": labels},
                "data": {"config.yaml": f"{settings}\n", "revision": "1"},
            },
            manager="kubectl-client-side-apply",
            age=age,
        )

    def _secret(self, namespace: str, app: str, labels: Body, age: float) -> None:
        password = base64.b64encode(self._suffix(24).encode()).decode()
        self.put(
            "",
            "secrets",
            {
                "metadata": {"name": f"{app}-credentials", "namespace": namespace, "labels": labels},
                "data": {"username": base64.b64encode(app.encode()).decode(), "password": password},
                "type": "Opaque",
            },
            manager="helm",
            age=age,
        )

    def _service(self, namespace: str, app: str, labels: Body, pods: list[Stored], age: float) -> None:
        address = f"10.96.{self.random.randint(0, 255)}.{self.random.randint(1, 254)}"
        service = self.put(
            "",
            "services",
            {
                "metadata": {"name": app, "namespace": namespace, "labels": labels},
                "spec": {
                    "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
                    "selector": {"app": app},
                    "clusterIP": address,
                    "clusterIPs": [address],
                    "type": "ClusterIP",
                    "sessionAffinity": "None",
                    "ipFamilies": ["IPv4"],
                    "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster",
                },
                "status": {"loadBalancer": {}},
            },
            manager="kubectl-client-side-apply",
            age=age,
        )
        endpoints = []
        for stored in pods:
            body = stored.body()
            pod_ip = body["status"].get("podIP")
            if pod_ip is None:
                continue
            ready = any(
                entry["type"] == "Ready" and entry["status"] == "True" for entry in body["status"]["conditions"]
            )
            endpoints.append(
                {
                    "addresses": [pod_ip],
                    "conditions": {"ready": ready, "serving": ready, "terminating": False},
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": namespace,
                        "name": stored.name,
                        "uid": stored.uid,
                    },
                    "nodeName": body["spec"]["nodeName"],
                    "zone": "eu-central-1a",
                }
            )
        self.put(
            "discovery.k8s.io",
            "endpointslices",
            {
                "metadata": {
                    "name": f"{app}-{self._suffix(5)}",
                    "generateName": f"{app}-",
                    "namespace": namespace,
                    "labels": {
                        **labels,
                        "kubernetes.io/service-name": app,
                        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    },
                    "ownerReferences": [_owner("v1", "Service", app, service.uid)],
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            },
            age=age,
        )
        ready_addresses = [
            {"ip": entry["addresses"][0], "nodeName": entry["nodeName"], "targetRef": entry["targetRef"]}
            for entry in endpoints
        ]
        subsets = [{"addresses": ready_addresses, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}]
        self.put(
            "",
            "endpoints",
            {
                "metadata": {"name": app, "namespace": namespace, "labels": labels},
                **({"subsets": subsets} if ready_addresses else {}),
            },
            age=age,
        )

    def _ingress(self, namespace: str, app: str, labels: Body, age: float) -> None:
        backend = {"service": {"name": app, "port": {"name": "http"}}}
        host = f"{app}.{self.cluster}.example.io"
        self.put(
            "networking.k8s.io",
            "ingresses",
            {
                "metadata": {"name": app, "namespace": namespace, "labels": labels},
                "spec": {
                    "ingressClassName": "nginx",
                    "rules": [
                        {
                            "host": host,
                            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                        }
                    ],
                    "tls": [{"hosts": [host], "secretName": f"{app}-tls"}],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}},
            },
            manager="kubectl-client-side-apply",
            age=age,
        )

    def _daemon_set(self, size: int) -> None:
        app = "node-agent"
        template = self._template(app, "kube-system", "backend", "registry.example.io/agent:2.7.1", sidecar=False)
        age = 50 * 86400.0
        if size == 0:
            template["spec"]["nodeSelector"] = {"example.io/agent": "enabled"}
        stored = self.put(
            APPS,
            "daemonsets",
            {
                "metadata": {"name": app, "namespace": "kube-system", "labels": {"app": app}},
                "spec": {
                    "selector": {"matchLabels": {"app": app}},
                    "template": template,
                    "updateStrategy": {
                        "type": "RollingUpdate",
                        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
                    },
                    "revisionHistoryLimit": 10,
                },
                "status": {
                    "currentNumberScheduled": size,
                    "numberMisscheduled": 0,
                    "desiredNumberScheduled": size,
                    "numberReady": size,
                    "observedGeneration": 1,
                    "updatedNumberScheduled": size,
                    "numberAvailable": size,
                },
            },
            manager="helm",
            age=age,
        )
        owner = _owner("apps/v1", "DaemonSet", app, stored.uid)
        for node in self.nodes[:size]:
            self.pod("kube-system", f"{app}-", template, owner, "Running", age=age, node=node, priority=2000001000)

    def _stateful_set(self, namespace: str, size: int) -> None:
        app = f"{namespace}-db"
        template = self._template(app, namespace, "data", "registry.example.io/postgres:17.5", sidecar=False)
        age = self._age()
        labels = {"app": app, "team": namespace, "tier": "data"}
        self._config_map(namespace, app, labels, age)
        stored = self.put(
            APPS,
            "statefulsets",
            {
                "metadata": {"name": app, "namespace": namespace, "labels": labels},
                "spec": {
                    "replicas": size,
                    "selector": {"matchLabels": {"app": app}},
                    "template": template,
                    "serviceName": app,
                    "podManagementPolicy": "OrderedReady",
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                },
                "status": {
                    "observedGeneration": 1,
                    "replicas": size,
                    "readyReplicas": size,
                    "currentReplicas": size,
                    "updatedReplicas": size,
                    "availableReplicas": size,
                    "currentRevision": f"{app}-6c5f8d9b7",
                    "updateRevision": f"{app}-6c5f8d9b7",
                    "collisionCount": 0,
                },
            },
            manager="helm",
            age=age,
        )
        owner = _owner("apps/v1", "StatefulSet", app, stored.uid)
        for number in range(size):
            name = f"{app}-{number}"
            labelled = {
                **labels,
                "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": str(number),
            }
            own = {**template, "metadata": {**template["metadata"], "labels": labelled}}
            self.pod(namespace, f"{app}-", own, owner, "Running", age=age, name=name)
            self._volume(namespace, f"data-{name}", labels, age)

    def _volume(self, namespace: str, name: str, labels: Body, age: float) -> None:
        capacity = {"storage": "20Gi"}
        volume = f"pvc-{self.storage.new_uid()}"
        claim = self.put(
            "",
            "persistentvolumeclaims",
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "finalizers": ["kubernetes.io/pvc-protection"],
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": capacity},
                    "volumeName": volume,
                    "storageClassName": "standard",
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": capacity},
            },
            age=age,
        )
        self.put(
            "",
            "persistentvolumes",
            {
                "metadata": {"name": volume, "finalizers": ["kubernetes.io/pv-protection"]},
                "spec": {
                    "capacity": capacity,
                    "csi": {"driver": "csi.example.io", "volumeHandle": f"vol-{self._suffix(12)}"},
                    "accessModes": ["ReadWriteOnce"],
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "namespace": namespace,
                        "name": name,
                        "uid": claim.uid,
                        "apiVersion": "v1",
                    },
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": "standard",
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Bound"},
            },
            age=age,
        )

    def _job(self, namespace: str, number: int) -> None:
        name = f"{namespace}-migrate-{number}"
        template = self._template(
            name, namespace, "batch", f"registry.example.io/{namespace}/migrate:v{number + 1}", sidecar=False
        )
        template["spec"]["restartPolicy"] = "Never"
        age = self._age()
        ended = timestamp(self.now - timedelta(seconds=age - 90))
        started = timestamp(self.now - timedelta(seconds=age))
        stored = self.put(
            "batch",
            "jobs",
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {"app": name, "team": namespace},
                },
                "spec": {
                    "parallelism": 1,
                    "completions": 1,
                    "backoffLimit": 6,
                    "template": template,
                    "completionMode": "NonIndexed",
                    "suspend": False,
                },
                "status": {
                    "conditions": [
                        {
                            "type": "Complete",
                            "status": "True",
                            "lastProbeTime": ended,
                            "lastTransitionTime": ended,
                            "reason": "CompletionsReached",
                            "message": "Reached expected number of succeeded pods",
                        }
                    ],
                    "startTime": started,
                    "completionTime": ended,
                    "succeeded": 1,
                    "ready": 0,
                    "terminating": 0,
                    "uncountedTerminatedPods": {},
                },
            },
            manager="helm",
            age=age,
        )
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name, "job-name": name}
        own = {**template, "metadata": {**template["metadata"], "labels": labels}}
        self.pod(namespace, f"{name}-", own, _owner("batch/v1", "Job", name, stored.uid), "Completed", age=age)

    def _cron_job(self, namespace: str) -> None:
        name = f"{namespace}-report"
        template = self._template(name, namespace, "batch", f"registry.example.io/{namespace}/report:v3", sidecar=False)
        template["spec"]["restartPolicy"] = "OnFailure"
        self.put(
            "batch",
            "cronjobs",
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {"app": name, "team": namespace},
                },
                "spec": {
                    "schedule": "15 3 * * *",
                    "concurrencyPolicy": "Forbid",
                    "suspend": False,
                    "jobTemplate": {"metadata": {}, "spec": {"template": template}},
                    "successfulJobsHistoryLimit": 3,
                    "failedJobsHistoryLimit": 1,
                },
                "status": {"lastScheduleTime": timestamp(self.now - timedelta(hours=7))},
            },
            manager="helm",
            age=self._age(),
        )

    # Events and certificates

    def _events(self, count: int) -> None:
        paths = self.storage.collections[("", "pods")].paths
        for _ in range(count if paths else 0):
            namespace, _, name = self.random.choice(paths).partition("/")
            self.event(namespace, name, age=self.random.uniform(1, 3500))

    def event(self, namespace: str, pod: str, *, age: float = 0.0) -> Stored | None:
        """Store an event about a pod; None where the pod is gone."""
        stored = self.storage.get(("", "pods"), namespace, pod)
        if stored is None:
            return None
        type, reason, source, message = self.random.choice(EVENTS)
        node = stored.fields.get("spec.nodeName") or self.nodes[0]
        when = timestamp(self.now - timedelta(seconds=age)) if age else timestamp()
        text = message.format(
            ns=namespace,
            pod=pod,
            node=node,
            nodes=len(self.nodes),
            image=f"registry.example.io/{namespace}/app:v1",
        )
        reference: Body = {
            "kind": "Pod",
            "namespace": namespace,
            "name": pod,
            "uid": stored.uid,
            "apiVersion": "v1",
            "resourceVersion": str(stored.version),
        }
        if source == "kubelet":
            reference["fieldPath"] = "spec.containers{app}"
        return self.put(
            "",
            "events",
            {
                "metadata": {"name": f"{pod}.{self.random.getrandbits(64):016x}", "namespace": namespace},
                "involvedObject": reference,
                "reason": reason,
                "message": text,
                "source": {"component": source, **({"host": node} if source == "kubelet" else {})},
                "firstTimestamp": when,
                "lastTimestamp": when,
                "count": 1,
                "type": type,
                "eventTime": None,
                "reportingComponent": source,
                "reportingInstance": node if source == "kubelet" else "",
            },
            manager=source,
            age=age,
        )

    def _certificate(self, namespace: str, number: int) -> None:
        name = f"{namespace}-{number}-tls"
        age = self._age()
        ready = number % 7 != 6
        self.put(
            *CERTIFICATES,
            {
                "metadata": {"name": name, "namespace": namespace, "labels": {"team": namespace}},
                "spec": {
                    "secretName": name,
                    "duration": "2160h",
                    "dnsNames": [f"{namespace}-{number}.{self.cluster}.example.io"],
                    "issuerRef": {"name": "example-ca", "kind": "ClusterIssuer"},
                },
                "status": certificate_status(ready, 1, self.now - timedelta(seconds=age)),
            },
            manager="helm",
            age=age,
        )


def certificate_status(ready: bool, revision: int, since: datetime) -> Body:
    """The status of a certificate that was issued (or refused) at `since`."""
    return {
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": timestamp(since),
                "reason": "Ready" if ready else "Issuing",
                "message": "Certificate is up to date" if ready else "Waiting for the issuer",
                "observedGeneration": 1,
            }
        ],
        "notAfter": timestamp(since + timedelta(days=90)),
        "renewalTime": timestamp(since + timedelta(days=60)),
        "revision": revision,
    }


def deployment_status(replicas: int, ready: int, generation: int, since: str) -> Body:
    """The status of a deployment with `ready` of `replicas` pods ready."""
    available = ready >= replicas - replicas // 4
    status: Body = {
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": replicas - ready,
        "conditions": [
            {
                "type": "Available",
                "status": "True" if available else "False",
                "lastUpdateTime": since,
                "lastTransitionTime": since,
                "reason": "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
                "message": f"Deployment {'has' if available else 'does not have'} minimum availability.",
            },
            {
                "type": "Progressing",
                "status": "True",
                "lastUpdateTime": since,
                "lastTransitionTime": since,
                "reason": "NewReplicaSetAvailable",
                "message": "ReplicaSet has successfully progressed.",
            },
        ],
    }
    # Counts of zero are left out, as Go's omitempty does.
    return {key: value for key, value in status.items() if value != 0}


def replica_set_status(replicas: int, ready: int, generation: int) -> Body:
    """The status of a replicaset with `ready` of `replicas` pods ready."""
    status: Body = {
        "fullyLabeledReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": generation,
    }
    return {"replicas": replicas, **{key: value for key, value in status.items() if value != 0}}


def _entry(manager: str, api_version: str, time: str, fields: Body, subresource: str = "") -> Body:
    entry: Body = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": api_version,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if subresource:
        entry["subresource"] = subresource
    return entry


def _owner(api_version: str, kind: str, name: str, uid: str, *, controller: bool = True) -> Body:
    owner: Body = {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}
    if controller:
        owner |= {"controller": True, "blockOwnerDeletion": True}
    return owner


def _probe(path: str, period: int) -> Body:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "initialDelaySeconds": 5,
        "timeoutSeconds": 1,
        "periodSeconds": period,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def _capacity(cpu: str, memory: str) -> Body:
    return {
        "cpu": cpu,
        "ephemeral-storage": "101430960Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": memory,
        "pods": "110",
    }


def _token_volume(name: str) -> Body:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": 420,
        },
    }


def _terminated(code: int, reason: str, when: str) -> Body:
    return {"exitCode": code, "reason": reason, "startedAt": when, "finishedAt": when}


def _micro(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_CONDITION_FIELDS: Body = {
    ".": {},
    "f:lastProbeTime": {},
    "f:lastTransitionTime": {},
    "f:status": {},
    "f:type": {},
}
_KUBELET_FIELDS: Body = {
    "f:status": {
        "f:conditions": {
            f'k:{{"type":"{type}"}}': _CONDITION_FIELDS
            for type in ("ContainersReady", "Initialized", "PodReadyToStartContainers", "Ready")
        },
        "f:containerStatuses": {},
        "f:hostIP": {},
        "f:hostIPs": {},
        "f:phase": {},
        "f:podIP": {},
        "f:podIPs": {".": {}},
        "f:startTime": {},
    }
}
