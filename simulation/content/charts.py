"""Charts: the pod templates of a mixed cluster, where each team writes and installs its applications its own way.

A template follows what a real one depends on: the language of the program (its probes, variables and options), the
chart or tool that it was installed with (labels and annotations), and how much of the platform the team makes use of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.content.builder import DAY, ContentBuilder
from simulation.content.names import SERVICES
from simulation.content.settings import arguments, environment, tracing

__all__ = ["MESH", "image", "mixed_template"]

# The annotation by which pods ask for a proxy beside them (see `injection`).
MESH = "mesh.example.io/inject"

_REGISTRIES = ("registry.example.io", "registry.example.io", "images.example.io/prod", "eu.mirror.example.io/apps")
# Third parties' images, which many applications share.
_SIDECARS = (
    ("exporter", "images.example.io/mirror/statsd-exporter", ("v0.26.1", "v0.27.2", "v0.28.0")),
    ("log-shipper", "images.example.io/mirror/fluent-bit", ("3.1.9", "3.2.4", "4.0.1")),
    ("auth-proxy", "images.example.io/mirror/oauth2-proxy", ("v7.6.0", "v7.8.1")),
    ("pgbouncer", "images.example.io/mirror/pgbouncer", ("1.22.1", "1.23.1")),
    ("nginx", "images.example.io/mirror/nginx-unprivileged", ("1.27.4-alpine", "1.28.0-alpine")),
)
_TOOLS = ("Helm", "Helm", "Helm", "argocd", "kustomize", "")
_CPU = ("10m", "25m", "50m", "100m", "100m", "200m", "250m", "500m", "1", "1500m", "2")
_MEMORY = ("32Mi", "64Mi", "128Mi", "192Mi", "256Mi", "384Mi", "512Mi", "768Mi", "1Gi", "1536Mi", "2Gi", "4Gi", "6Gi")


class _Runtime(NamedTuple):
    """What a program's language means for its container. `probes`: paths of liveness and readiness."""

    name: str
    port: int
    probes: tuple[str, str]
    variables: Callable[[ContentBuilder], dict[str, str]]
    command: tuple[str, ...] = ()


_RUNTIMES = (
    _Runtime(
        "java",
        8080,
        ("/actuator/health/liveness", "/actuator/health/readiness"),
        lambda builder: {
            "JAVA_TOOL_OPTIONS": (
                f"-XX:MaxRAMPercentage={builder.number(50, 85)}.0 -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "
                f"-XX:MaxMetaspaceSize={builder.number(8, 32) * 16}m -Djava.security.egd=file:/dev/./urandom"
            ),
            "SPRING_PROFILES_ACTIVE": builder.pick(("prod", "production,k8s", "prod,kafka", "prod,postgres,redis")),
            "SERVER_TOMCAT_THREADS_MAX": str(builder.number(20, 400)),
            "MANAGEMENT_SERVER_PORT": "8081",
        },
    ),
    _Runtime(
        "node",
        3000,
        ("/healthz", "/ready"),
        lambda builder: {
            "NODE_ENV": "production",
            "NODE_OPTIONS": f"--max-old-space-size={builder.number(4, 64) * 64} --enable-source-maps",
            "UV_THREADPOOL_SIZE": str(builder.number(4, 32)),
        },
        ("node", "--require", "./tracing.js", "dist/main.js"),
    ),
    _Runtime(
        "python",
        8000,
        ("/health/live", "/health/ready"),
        lambda builder: {
            "PYTHONUNBUFFERED": "1",
            "GUNICORN_CMD_ARGS": (
                f"--workers={builder.number(2, 9)} --threads={builder.number(1, 8)} "
                f"--timeout={builder.number(3, 24) * 10} --max-requests={builder.number(5, 50) * 100}"
            ),
            "DJANGO_SETTINGS_MODULE": builder.pick(("config.settings.production", "app.settings", "core.settings.k8s")),
        },
        ("gunicorn", "config.wsgi:application", "--bind=0.0.0.0:8000"),
    ),
    _Runtime(
        "go",
        8080,
        ("/healthz", "/readyz"),
        lambda builder: {"GOMEMLIMIT": f"{builder.number(4, 60) * 32}MiB", "GOGC": str(builder.number(5, 20) * 10)},
    ),
    _Runtime(
        "php",
        9000,
        ("/ping", "/status"),
        lambda builder: {
            "PHP_FPM_PM_MAX_CHILDREN": str(builder.number(5, 80)),
            "PHP_MEMORY_LIMIT": f"{builder.number(4, 32) * 32}M",
            "APP_ENV": "prod",
        },
    ),
    _Runtime(
        "dotnet",
        5000,
        ("/health", "/health/ready"),
        lambda builder: {
            "ASPNETCORE_ENVIRONMENT": "Production",
            "ASPNETCORE_URLS": "http://+:5000",
            "DOTNET_GCHeapHardLimitPercent": f"{builder.number(40, 80):x}",
            "Serilog__MinimumLevel__Default": builder.pick(("Information", "Warning", "Debug")),
        },
        ("dotnet", "Service.dll"),
    ),
)


def image(builder: ContentBuilder, team: str, app: str) -> tuple[str, str]:
    """An application's image and its version: by release, date or commit, and here and there by digest."""
    draw = builder.random.random()
    if draw < 0.5:
        version = f"v{builder.number(0, 9)}.{builder.number(0, 60)}.{builder.number(0, 12)}"
    elif draw < 0.8:
        version = builder.hexadecimal(8 if draw < 0.65 else 40)
    else:
        version = f"2025{builder.number(1, 12):02d}{builder.number(1, 28):02d}.{builder.number(1, 4000)}"
    made = f"{builder.pick(_REGISTRIES)}/{team}/{app}:{version}"
    if builder.random.random() < 0.25:
        made += f"@sha256:{builder.hexadecimal(64)}"
    return made, version


def mixed_template(builder: ContentBuilder, app: str, team: str, tier: str) -> dict[str, Any]:
    """A PodTemplateSpec of an application; none is like another. The ConfigMap `<app>-config` may be mounted."""
    return _Application(builder, app, team).template(tier)


class _Application:
    """What the parts of one application's template share. Most applications are small, a few are large."""

    def __init__(self, builder: ContentBuilder, app: str, team: str) -> None:
        self._builder = builder
        self._app = app
        self._team = team
        self._image, self._version = image(builder, team, app)
        self._runtime = builder.pick(_RUNTIMES)
        # From 0 to 1: how much of what the platform offers the team makes use of.
        self._effort: float = builder.random.random() ** 1.4

    def _has(self, share: float) -> bool:
        """Whether it has what `share` of all applications have."""
        return self._builder.random.random() < share * 2 * self._effort

    def template(self, tier: str) -> dict[str, Any]:
        builder, draw = self._builder, self._builder.random.random
        volumes: list[dict[str, Any]] = []
        containers = [self._main(volumes)]
        for _ in range(int(draw() * 0.3 + self._effort**6 * 1.5)):
            one = _sidecar(builder, self._team)
            if all(one["name"] != other["name"] for other in containers):
                containers.append(one)
        spec: dict[str, Any] = {"volumes": volumes} if volumes else {}
        if self._has(0.07):
            spec["initContainers"] = [_init(builder, self._app, self._team, self._image)]
        spec |= {
            "containers": containers,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": builder.pick((10, 30, 30, 30, 30, 45, 60, 90, 120, 300)),
            "dnsPolicy": "ClusterFirst",
        }
        account = self._app if draw() < 0.5 else "default"
        spec |= {"serviceAccountName": account, "serviceAccount": account}
        if draw() < 0.6:
            spec["automountServiceAccountToken"] = False
        spec |= {"securityContext": _security(builder), "schedulerName": "default-scheduler", **self._placement()}
        return {"metadata": {"labels": self._labels(tier), "annotations": self._annotations()}, "spec": spec}

    def _main(self, volumes: list[dict[str, Any]]) -> dict[str, Any]:
        """The container with the application itself. Adds what it mounts to `volumes`."""
        builder, app, team, runtime = self._builder, self._app, self._team, self._runtime
        draw, has = builder.random.random, self._has
        mounts: list[dict[str, Any]] = []

        def mount(volume: dict[str, Any], path: str, **options: Any) -> None:
            volumes.append(volume)
            mounts.append({"name": volume["name"], **options, "mountPath": path})

        if has(0.4):
            mount(
                {"name": "config", "configMap": {"name": f"{app}-config", "defaultMode": 420}},
                builder.pick(("/etc/app", "/config", f"/opt/{team}/conf", "/app/config")),
                readOnly=True,
            )
        if has(0.25):
            mount({"name": "tmp", "emptyDir": {"sizeLimit": f"{builder.number(1, 16) * 64}Mi"}}, "/tmp")
        if has(0.2):
            secret = f"{app}-{builder.pick(('credentials', 'tls', 'keystore'))}"
            volume = {"name": "secrets", "secret": {"secretName": secret, "defaultMode": 256}}
            mount(volume, "/var/secrets", readOnly=True)
        name = builder.pick(("app", app, team, "main", "server", runtime.name))
        container: dict[str, Any] = {"name": name, "image": self._image}
        if runtime.command and draw() < 0.4:
            container["command"] = list(runtime.command)
        if has(0.4):
            container["args"] = arguments(builder, team, 1 + int(self._effort**6 * 14))
        ports = [{"name": "http", "containerPort": runtime.port, "protocol": "TCP"}]
        if has(0.2):
            ports.append({"name": "metrics", "containerPort": builder.pick((9090, 9102, 8081)), "protocol": "TCP"})
        container["ports"] = ports
        if has(0.2):
            container["envFrom"] = [{"configMapRef": {"name": f"{team}-common"}}, {"secretRef": {"name": f"{app}-env"}}]
        if variables := self._variables():
            container["env"] = variables
        container["resources"] = _resources(builder)
        if mounts:
            container["volumeMounts"] = mounts
        if has(0.35):
            container["livenessProbe"] = _probe(builder, runtime.probes[0])
        if has(0.4):
            container["readinessProbe"] = _probe(builder, runtime.probes[1])
        if has(0.1):
            patience = {"failureThreshold": builder.number(10, 60)}
            container["startupProbe"] = _probe(builder, runtime.probes[0]) | patience
        if has(0.15):
            wait = ["sh", "-c", f"sleep {builder.number(3, 30)}"]
            container["lifecycle"] = {"preStop": {"exec": {"command": wait}}}
        container |= _defaults(builder)
        if has(0.3):
            container["securityContext"] = {
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": draw() < 0.5,
                "allowPrivilegeEscalation": False,
            }
        return container

    def _variables(self) -> list[dict[str, Any]]:
        builder = self._builder
        found: list[dict[str, Any]] = []
        if self._has(0.25):
            found += [{"name": name, "value": value} for name, value in self._runtime.variables(builder).items()]
        if self._has(0.25):
            found += [
                {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
                for name, path in (("POD_NAME", "metadata.name"), ("POD_IP", "status.podIP"))
            ]
        if self._has(0.3):
            found.append({"name": "GIT_COMMIT", "value": builder.hexadecimal(40)})
            found.append({"name": "BUILD_NUMBER", "value": str(builder.number(100, 99_999))})
        if self._has(0.15):
            found += tracing(builder, self._app, self._team, self._version)
        return found + environment(builder, self._team, int(3 + self._effort * 5 + self._effort**6 * 34))

    def _placement(self) -> dict[str, Any]:
        """Where pods may run: selectors, affinities, tolerations, spread and priority."""
        builder, team, has = self._builder, self._team, self._has
        found: dict[str, Any] = {}
        selector = {"matchLabels": {"app": self._app}}
        if has(0.15):
            pool = builder.pick(("general", "memory", "spot"))
            found["nodeSelector"] = {"kubernetes.io/os": "linux", "node.example.io/pool": pool}
        if has(0.3):
            found["imagePullSecrets"] = [{"name": f"{team}-registry"}]
        if has(0.2):
            term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
            found["affinity"] = {
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": builder.pick((1, 50, 100)), "podAffinityTerm": term}
                    ]
                }
            }
        if has(0.12):
            found["tolerations"] = [
                {"key": f"{team}.example.io/dedicated", "operator": "Equal", "value": self._app, "effect": "NoSchedule"}
            ]
        if has(0.1):
            found["priorityClassName"] = builder.pick(("business-critical", "batch-low", f"{team}-high"))
        if has(0.2):
            found["topologySpreadConstraints"] = [
                {
                    "maxSkew": builder.number(1, 3),
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": builder.pick(("ScheduleAnyway", "DoNotSchedule")),
                    "labelSelector": selector,
                }
            ]
        return found

    def _labels(self, tier: str) -> dict[str, str]:
        builder, app, team = self._builder, self._app, self._team
        labels = {"app": app}
        tool = builder.pick(_TOOLS)
        if tool:
            labels |= {
                "app.kubernetes.io/instance": app,
                "app.kubernetes.io/managed-by": tool,
                "app.kubernetes.io/name": app.rpartition("-")[0] or app,
                # A label's value has at most 63 characters: charts cut it.
                "app.kubernetes.io/version": self._version[:12],
            }
        if tool == "Helm":
            release = f"{builder.number(0, 4)}.{builder.number(0, 30)}.{builder.number(0, 9)}"
            labels["helm.sh/chart"] = f"{team}-service-{release}"
        if self._has(0.25):
            labels["cost-center"] = str(builder.number(1000, 9999))
        return {**labels, "team": team, "tier": tier}

    def _annotations(self) -> dict[str, str]:
        builder, app, team, version, has = self._builder, self._app, self._team, self._version, self._has
        found: dict[str, str] = {}
        if has(0.1):
            tags = f'["team:{team}","version:{version}"]'
            found["ad.example.io/logs"] = f'[{{"source":"{self._runtime.name}","service":"{app}","tags":{tags}}}]'
        for name, share in (("checksum/config", 0.7), ("checksum/secret", 0.35)):
            if has(share):
                found[name] = builder.hexadecimal(64)
        if has(0.06):
            found["cluster-autoscaler.kubernetes.io/safe-to-evict"] = "false"
        if has(0.25):
            found["kubectl.kubernetes.io/restartedAt"] = builder.time(builder.random.uniform(60, 90 * DAY))
        if has(0.03):
            found[MESH] = "true"
        if has(0.3):
            found |= {
                "prometheus.io/path": builder.pick(("/metrics", "/actuator/prometheus", "/internal/metrics")),
                "prometheus.io/port": builder.pick((str(self._runtime.port), "9090", "9102")),
                "prometheus.io/scrape": "true",
            }
        if has(0.04):
            path = f"secret/data/{team}/{app}"
            found |= {
                "vault.example.io/agent-inject": "true",
                "vault.example.io/agent-inject-secret-config": path,
                "vault.example.io/agent-inject-template-config": (
                    f'{{{{- with secret "{path}" -}}}}\nexport DB_USER="{{{{ .Data.data.user }}}}"\n'
                    f'export DB_PASSWORD="{{{{ .Data.data.password }}}}"\n{{{{- end -}}}}'
                ),
                "vault.example.io/role": f"{team}-{builder.cluster}",
            }
        return found


def _sidecar(builder: ContentBuilder, team: str) -> dict[str, Any]:
    """A container of a third party beside the application's."""
    name, repository, tags = builder.pick(_SIDECARS)
    return {
        "name": name,
        "image": f"{repository}:{builder.pick(tags)}",
        "args": arguments(builder, team, 2),
        "ports": [{"name": name, "containerPort": builder.number(9000, 9999), "protocol": "TCP"}],
        "resources": _resources(builder),
        **_defaults(builder),
    }


def _init(builder: ContentBuilder, app: str, team: str, made: str) -> dict[str, Any]:
    """An init container: it migrates with the application's own image, or waits for what that needs."""
    if builder.random.random() < 0.5:
        return {
            "name": "migrate",
            "image": made,
            "command": ["/bin/sh", "-c", f"./bin/migrate up --database={team}_{app.replace('-', '_')}"],
            "env": environment(builder, team, 3),
            "resources": _resources(builder),
            **_defaults(builder),
        }
    other = f"{team}-{builder.pick(SERVICES)}"
    return {
        "name": f"wait-for-{other}",
        "image": "images.example.io/mirror/busybox:1.37.0",
        "command": ["sh", "-c", f"until nc -z {other} {builder.number(3000, 9999)}; do echo waiting; sleep 2; done"],
        "resources": {},
        **_defaults(builder),
    }


def _defaults(builder: ContentBuilder) -> dict[str, Any]:
    return {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": builder.pick(("File", "File", "File", "FallbackToLogsOnError")),
        "imagePullPolicy": builder.pick(("IfNotPresent", "IfNotPresent", "Always")),
    }


def _resources(builder: ContentBuilder) -> dict[str, Any]:
    draw = builder.random.random()
    if draw < 0.1:
        return {}
    at = builder.number(0, len(_MEMORY) - 1)
    requests = {"cpu": builder.pick(_CPU), "memory": _MEMORY[at]}
    if draw < 0.2:
        return {"limits": requests, "requests": requests}
    limits: dict[str, str] = {"memory": _MEMORY[min(at + builder.number(0, 3), len(_MEMORY) - 1)]}
    return {"limits": {"cpu": builder.pick(_CPU[6:]), **limits} if draw < 0.5 else limits, "requests": requests}


def _probe(builder: ContentBuilder, path: str) -> dict[str, Any]:
    draw = builder.random.random()
    if draw < 0.8:
        probe: dict[str, Any] = {"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}}
    elif draw < 0.9:
        probe = {"tcpSocket": {"port": "http"}}
    else:
        probe = {"exec": {"command": ["/bin/sh", "-c", f"/usr/local/bin/probe {path}"]}}
    if delay := builder.pick((0, 0, 5, 10, 15, 20, 30, 60, 90)):
        probe["initialDelaySeconds"] = delay
    return probe | {
        "timeoutSeconds": builder.pick((1, 1, 1, 2, 3, 5, 10)),
        "periodSeconds": builder.pick((5, 10, 10, 10, 15, 20, 30)),
        "successThreshold": 1,
        "failureThreshold": builder.pick((3, 3, 3, 5, 6, 10)),
    }


def _security(builder: ContentBuilder) -> dict[str, Any]:
    draw = builder.random.random()
    if draw < 0.35:
        return {}
    user = builder.pick((1000, 1001, 65532, 65534, builder.number(1, 2000) * 10_000 + 1_000_000_000))
    context: dict[str, Any] = {"runAsUser": user, "runAsNonRoot": True}
    if draw < 0.65:
        context["fsGroup"] = user
    if draw < 0.8:
        context["seccompProfile"] = {"type": "RuntimeDefault"}
    return context
