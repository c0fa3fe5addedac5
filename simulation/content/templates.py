"""Pod templates: what the workloads make pods from."""

from __future__ import annotations

from typing import Any

__all__ = ["pod_template"]


def pod_template(app: str, team: str, tier: str, image: str, *, sidecar: bool) -> dict[str, Any]:
    """A PodTemplateSpec: one container `app` with probes, and with `sidecar` a second one, `proxy`.

    The ConfigMap `<app>-config` is mounted at /etc/app.
    """
    container: dict[str, Any] = {
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


def _probe(path: str, period: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "initialDelaySeconds": 5,
        "timeoutSeconds": 1,
        "periodSeconds": period,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
