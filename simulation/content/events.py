"""Events: what the scheduler and the kubelet report about pods (core/v1 Event)."""

from __future__ import annotations

from typing import Any

from simulation.content.builder import ContentBuilder
from simulation.resources import PODS
from simulation.storage import StoredObject

__all__ = ["add_event", "add_events"]

# Type, reason, component and message, of a container `name`.
_EVENTS = (
    ("Normal", "Scheduled", "default-scheduler", "Successfully assigned {ns}/{pod} to {node}"),
    ("Normal", "Pulled", "kubelet", 'Container image "{image}" already present on machine'),
    ("Normal", "Created", "kubelet", "Created container: {name}"),
    ("Normal", "Started", "kubelet", "Started container {name}"),
    ("Normal", "Killing", "kubelet", "Stopping container {name}"),
    ("Warning", "Unhealthy", "kubelet", "Readiness probe failed: HTTP probe failed with statuscode: {code}"),
    ("Warning", "BackOff", "kubelet", "Back-off restarting failed container {name} in pod {pod}_{ns}({uid})"),
    (
        "Warning",
        "FailedScheduling",
        "default-scheduler",
        "0/{nodes} nodes are available: Insufficient memory.",
    ),
)


def add_events(builder: ContentBuilder, count: int) -> None:
    """Add `count` Events of the last hour, each about a random pod."""
    paths = builder.storage.collections[PODS].paths
    for _ in range(count if paths else 0):
        namespace, _, name = builder.random.choice(paths).partition("/")
        add_event(builder, namespace, name, age=builder.random.uniform(1, 3500))


def add_event(builder: ContentBuilder, namespace: str, pod: str, *, age: float = 0.0) -> StoredObject | None:
    """Add an Event about a pod, of `age` seconds. None if there is no such pod."""
    stored = builder.storage.get(PODS, namespace, pod)
    if stored is None:
        return None
    type, reason, source, message = builder.random.choice(_EVENTS)
    node = stored.fields.get("spec.nodeName") or builder.nodes[0]
    when = builder.time(age)
    container = {"name": "app", "image": f"registry.example.io/{namespace}/app:v1"}
    code, count = 503, 1
    if builder.variety == "mixed":
        container = builder.pick(stored.body()["spec"]["containers"])
        code, count = builder.pick((500, 502, 503, 503, 504)), builder.pick((1, 1, 1, builder.number(2, 900)))
    text = message.format(
        ns=namespace,
        pod=pod,
        uid=stored.uid,
        node=node,
        nodes=len(builder.nodes),
        name=container["name"],
        image=container["image"],
        code=code,
    )
    reference: dict[str, Any] = {
        "kind": "Pod",
        "namespace": namespace,
        "name": pod,
        "uid": stored.uid,
        "apiVersion": "v1",
        "resourceVersion": str(stored.version),
    }
    if source == "kubelet":
        reference["fieldPath"] = f"spec.containers{{{container['name']}}}"
    return builder.put(
        "",
        "events",
        {
            "metadata": {"name": f"{pod}.{builder.random.getrandbits(64):016x}", "namespace": namespace},
            "involvedObject": reference,
            "reason": reason,
            "message": text,
            "source": {"component": source, **({"host": node} if source == "kubelet" else {})},
            "firstTimestamp": builder.time(age + 7 * count - 7) if count > 1 else when,
            "lastTimestamp": when,
            "count": count,
            "type": type,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": node if source == "kubelet" else "",
        },
        manager=source,
        age=age,
    )
