"""Workloads: Deployments, DaemonSets, StatefulSets, Jobs and CronJobs, with the pods and whatever else they have."""

from __future__ import annotations

from typing import Any

from simulation.content.builder import DAY, ContentBuilder, owner_reference
from simulation.content.charts import mixed_template
from simulation.content.configuration import add_config_map, add_secret
from simulation.content.names import SERVICES, TIERS
from simulation.content.network import add_ingress, add_service
from simulation.content.pods import PodBuilder, PodState
from simulation.content.templates import pod_template
from simulation.content.volumes import add_volume
from simulation.storage import go_json
from simulation.times import timestamp

__all__ = ["Workloads", "deployment_status", "replica_set_status"]

# The priority of the class system-node-critical.
_CRITICAL = 2_000_001_000


class Workloads:
    """Makes the workloads of one cluster, each with its pods and the objects around it."""

    def __init__(self, builder: ContentBuilder, pods: PodBuilder) -> None:
        self._builder = builder
        self._pods = pods

    def add_application(self, team: str, number: int, replicas: int) -> None:
        """Add a Deployment of `replicas` pods with ReplicaSet, ConfigMap and Service; by `number` some have more.

        It is named by team, service and number, as `payments-api-0`. Of its pods about 92 % run and are ready.
        """
        app = f"{team}-{SERVICES[number // 3 % len(SERVICES)]}-{number}"
        tier = TIERS[number % len(TIERS)]
        template = self._template(app, team, tier, number)
        age = self._builder.age()
        labels = dict(template["metadata"]["labels"])
        add_config_map(self._builder, team, app, labels, age)
        if number % 5 == 0:
            add_secret(self._builder, team, app, labels, age)
        states = [self._state() for _ in range(replicas)]
        ready = sum(state == "Running" for state in states)
        spec: dict[str, Any] = {
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
        annotations = {"deployment.kubernetes.io/revision": "1", **self._installed(team, app, labels, spec)}
        deployment = self._builder.put(
            "apps",
            "deployments",
            {
                "metadata": {
                    "name": app,
                    "namespace": team,
                    "labels": labels,
                    "annotations": annotations,
                },
                "spec": spec,
                "status": deployment_status(replicas, ready, 1, timestamp(self._builder.start)),
            },
            manager="kubectl-client-side-apply",
            age=age,
        )
        digest = self._builder.suffix(10)
        labelled = {**labels, "pod-template-hash": digest}
        own = {**template, "metadata": {**template["metadata"], "labels": labelled}}
        replica_set = self._builder.put(
            "apps",
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
                    "ownerReferences": [owner_reference("apps/v1", "Deployment", app, deployment.uid)],
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
        owner = owner_reference("apps/v1", "ReplicaSet", replica_set.name, replica_set.uid)
        pods = [self._pods.add(team, f"{replica_set.name}-", own, owner, state, age=age) for state in states]
        add_service(self._builder, team, app, labels, pods, age)
        if number % 6 == 0:
            add_ingress(self._builder, team, app, labels, age)

    def _template(self, app: str, team: str, tier: str, number: int) -> dict[str, Any]:
        if self._builder.variety == "mixed":
            return mixed_template(self._builder, app, team, tier)
        draw = self._builder.random.randint
        image = f"registry.example.io/{team}/{app}:v1.{draw(0, 40)}.{draw(0, 9)}"
        return pod_template(app, team, tier, image, sidecar=number % 8 == 0)

    def _installed(self, team: str, app: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, str]:
        """The annotations by which the tool that a Deployment was installed with knows it again."""
        tool = labels.get("app.kubernetes.io/managed-by", "kubectl")
        if tool == "Helm":
            return {"meta.helm.sh/release-name": app, "meta.helm.sh/release-namespace": team}
        if tool == "argocd":
            return {"argocd.argoproj.io/tracking-id": f"{app}:apps/Deployment:{team}/{app}"}
        # kubectl has what it applied there: the whole manifest, but for defaults, which the server sets.
        template = spec["template"]
        containers = template["spec"]["containers"]
        if self._builder.variety == "uniform":
            containers = [{"image": containers[0]["image"], "name": "app"}]
        applied = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"annotations": {}, "labels": labels, "name": app, "namespace": team},
            "spec": {
                "replicas": spec["replicas"],
                "selector": spec["selector"],
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        }
        return {"kubectl.kubernetes.io/last-applied-configuration": f"{go_json(applied).decode()}\n"}

    def _state(self) -> PodState:
        drawn = self._builder.random.random()
        if drawn < 0.92:
            return "Running"
        if drawn < 0.95:
            return "NotReady"
        return "CrashLoopBackOff" if drawn < 0.97 else "Pending"

    def add_daemon_set(self, size: int) -> None:
        """Add the DaemonSet `node-agent`, with a pod on each of the first `size` nodes; with 0 it selects no node."""
        app = "node-agent"
        template = pod_template(app, "kube-system", "backend", "registry.example.io/agent:2.7.1", sidecar=False)
        age = 50 * DAY
        if size == 0:
            template["spec"]["nodeSelector"] = {"example.io/agent": "enabled"}
        stored = self._builder.put(
            "apps",
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
        owner = owner_reference("apps/v1", "DaemonSet", app, stored.uid)
        for node in self._builder.nodes[:size]:
            self._pods.add("kube-system", f"{app}-", template, owner, "Running", age=age, node=node, priority=_CRITICAL)

    def add_stateful_set(self, namespace: str, size: int) -> None:
        """Add the StatefulSet `<namespace>-db` of `size` pods, each with a volume of its own."""
        app = f"{namespace}-db"
        template = pod_template(app, namespace, "data", "registry.example.io/postgres:17.5", sidecar=False)
        age = self._builder.age()
        labels = {"app": app, "team": namespace, "tier": "data"}
        add_config_map(self._builder, namespace, app, labels, age)
        stored = self._builder.put(
            "apps",
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
        owner = owner_reference("apps/v1", "StatefulSet", app, stored.uid)
        for number in range(size):
            name = f"{app}-{number}"
            labelled = {
                **labels,
                "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": str(number),
            }
            own = {**template, "metadata": {**template["metadata"], "labels": labelled}}
            self._pods.add(namespace, f"{app}-", own, owner, "Running", age=age, name=name)
            add_volume(self._builder, namespace, f"data-{name}", labels, age)

    def add_job(self, namespace: str, number: int) -> None:
        """Add the Job `<namespace>-migrate-<number>`, which completed after 90 seconds, with its one pod."""
        name = f"{namespace}-migrate-{number}"
        template = pod_template(
            name, namespace, "batch", f"registry.example.io/{namespace}/migrate:v{number + 1}", sidecar=False
        )
        template["spec"]["restartPolicy"] = "Never"
        age = self._builder.age()
        ended = self._builder.time(age - 90)
        started = self._builder.time(age)
        stored = self._builder.put(
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
        owner = owner_reference("batch/v1", "Job", name, stored.uid)
        self._pods.add(namespace, f"{name}-", own, owner, "Completed", age=age)

    def add_cron_job(self, namespace: str) -> None:
        """Add the CronJob `<namespace>-report`, which last ran 7 hours ago and left no Job."""
        name = f"{namespace}-report"
        template = pod_template(name, namespace, "batch", f"registry.example.io/{namespace}/report:v3", sidecar=False)
        template["spec"]["restartPolicy"] = "OnFailure"
        self._builder.put(
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
                "status": {"lastScheduleTime": self._builder.time(7 * 3600)},
            },
            manager="helm",
            age=self._builder.age(),
        )


def deployment_status(replicas: int, ready: int, generation: int, since: str) -> dict[str, Any]:
    """The status of a Deployment with `ready` of `replicas` pods ready, its conditions since `since`.

    It is available while at most a quarter of them is not ready: with 8 replicas from 6 ready ones on.
    """
    available = ready >= replicas - replicas // 4
    status: dict[str, Any] = {
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


def replica_set_status(replicas: int, ready: int, generation: int) -> dict[str, Any]:
    """The status of a ReplicaSet with `ready` of `replicas` pods ready."""
    status: dict[str, Any] = {
        "fullyLabeledReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": generation,
    }
    return {"replicas": replicas, **{key: value for key, value in status.items() if value != 0}}
