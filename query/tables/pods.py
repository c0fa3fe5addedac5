"""Pods and what holds pod templates alone: the cells of PodTemplate, and of a Pod with the status kubectl shows."""

from __future__ import annotations

import msgspec

from query.tables.ages import UNKNOWN, seconds_since_epoch
from query.tables.columns import (
    AGE,
    NAME,
    Age,
    Column,
    DeletableMetadata,
    Metadata,
    Part,
    Row,
    RowCondition,
    TypedPrinter,
    described,
    wide,
)
from query.tables.labels import NONE, format_labels


class ObjectCondition(Part, frozen=True, gc=False):
    """A condition of any type of object."""

    type: str = ""
    status: str = ""
    reason: str = ""


class Container(Part, frozen=True, gc=False):
    """A container of a pod template."""

    name: str = ""
    image: str = ""


class TemplateSpec(Part, frozen=True, gc=False):
    """The spec of a pod template."""

    containers: tuple[Container, ...] = ()
    node_selector: dict[str, str] | None = None


class TemplateMetadata(Part, frozen=True, gc=False):
    """The metadata of a pod template."""

    labels: dict[str, str] | None = None


class Template(Part, frozen=True, gc=False):
    """A pod template, as deployments and the like carry it."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: TemplateSpec = TemplateSpec()


def container_cells(template: Template) -> tuple[str, str]:
    """The names and the images of a template's containers (printers.go: layoutContainerCells)."""
    containers = template.spec.containers
    return ",".join([each.name for each in containers]), ",".join([each.image for each in containers])


class _InitContainer(Part, frozen=True, gc=False):
    name: str = ""
    restart_policy: str | None = None


class _ReadinessGate(Part, frozen=True, gc=False):
    condition_type: str = ""


class _PodSpec(Part, frozen=True, gc=False):
    containers: tuple[msgspec.Raw, ...] = ()
    init_containers: tuple[_InitContainer, ...] = ()
    node_name: str = ""
    readiness_gates: tuple[_ReadinessGate, ...] = ()


class _Waiting(Part, frozen=True, gc=False):
    reason: str = ""


class _Running(Part, frozen=True, gc=False):
    pass


class _Terminated(Part, frozen=True, gc=False):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    finished_at: str | None = None


class _State(Part, frozen=True, gc=False):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None


class _LastState(Part, frozen=True, gc=False):
    terminated: _Terminated | None = None


class _ContainerStatus(Part, frozen=True, gc=False):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    started: bool | None = None
    state: _State = _State()
    last_state: _LastState = _LastState()


class _PodIP(Part, frozen=True, gc=False):
    ip: str = ""


class _PodStatus(Part, frozen=True, gc=False):
    phase: str = ""
    reason: str = ""
    conditions: tuple[ObjectCondition, ...] = ()
    init_container_statuses: tuple[_ContainerStatus, ...] = ()
    container_statuses: tuple[_ContainerStatus, ...] = ()
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[_PodIP, ...] = msgspec.field(name="podIPs", default=())
    nominated_node_name: str = ""


class _Pod(Part, frozen=True, gc=False):
    metadata: DeletableMetadata = DeletableMetadata()
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


def _later(one: float | None, status: _ContainerStatus) -> float | None:
    """The later of `one` and the end of the container's last run."""
    ended = status.last_state.terminated
    if ended is None:
        return one
    other = seconds_since_epoch(ended.finished_at)
    return other if one is None or (other is not None and other > one) else one


def _ended(ended: _Terminated) -> str:
    """Why a container ended, for want of a reason (fmt: Signal:9, ExitCode:1)."""
    return ended.reason or (f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}")


class _Containers:
    """What the containers of one pod add up to while its row is made."""

    __slots__ = ("last_restart", "ready", "reason", "restarts")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.ready = 0
        self.restarts = 0
        self.last_restart: float | None = None

    def count_init(self, pod: _Pod, sidecars: set[str]) -> None:
        """Counts the init containers; the first that has not ended, or failed, decides the status.

        Once they are through, only the restarts of sidecars (init containers that restart always) remain.
        """
        restarts = sidecar_restarts = 0
        last: float | None = None
        sidecar_last: float | None = None
        initializing = False
        for position, status in enumerate(pod.status.init_container_statuses):
            sidecar = status.name in sidecars
            restarts += status.restart_count
            last = _later(last, status)
            if sidecar:
                sidecar_restarts += status.restart_count
                sidecar_last = _later(sidecar_last, status)
            ended = status.state.terminated
            if ended is not None and ended.exit_code == 0:
                continue
            if sidecar and status.started:
                self.ready += status.ready
                continue
            waiting = status.state.waiting
            if ended is not None:
                self.reason = "Init:" + _ended(ended)
            elif waiting is not None and waiting.reason and waiting.reason != "PodInitializing":
                self.reason = "Init:" + waiting.reason
            else:
                self.reason = f"Init:{position}/{len(pod.spec.init_containers)}"
            initializing = True
            break
        if initializing and not _initialized(pod.status.conditions):
            self.restarts, self.last_restart = restarts, last
        else:
            self.restarts, self.last_restart = sidecar_restarts, sidecar_last
            self.count_main(pod.status)

    def count_main(self, status: _PodStatus) -> None:
        """Counts the main containers; the first that waits or has ended decides the status."""
        running = False
        for each in reversed(status.container_statuses):
            self.restarts += each.restart_count
            self.last_restart = _later(self.last_restart, each)
            state = each.state
            if state.waiting is not None and state.waiting.reason:
                self.reason = state.waiting.reason
            elif state.terminated is not None:
                self.reason = _ended(state.terminated)
            elif each.ready and state.running is not None:
                running = True
                self.ready += 1
        if running and self.reason == "Completed":
            # Some containers still run: the pod is not complete.
            ready = any(each.type == "Ready" and each.status == "True" for each in status.conditions)
            self.reason = "Running" if ready else "NotReady"


def _initialized(conditions: tuple[ObjectCondition, ...]) -> bool:
    for each in conditions:
        if each.type == "Initialized":
            return each.status == "True"
    return False


def _readiness_gates(pod: _Pod) -> str:
    gates = pod.spec.readiness_gates
    if not gates:
        return NONE
    passed = 0
    for gate in gates:
        for each in pod.status.conditions:
            if each.type == gate.condition_type:
                passed += each.status == "True"
                break
    return f"{passed}/{len(gates)}"


_SUCCEEDED = (RowCondition("Completed", "True", "Succeeded", "The pod has completed successfully."),)
_FAILED = (RowCondition("Completed", "True", "Failed", "The pod failed."),)
_CONDITIONS: dict[str, tuple[RowCondition, ...]] = {"Succeeded": _SUCCEEDED, "Failed": _FAILED}


def _pod(pod: _Pod) -> Row:
    """kubernetes pkg/printers/internalversion/printers.go: printPod."""
    metadata, spec, status = pod.metadata, pod.spec, pod.status
    reason = status.reason or status.phase
    for each in status.conditions:
        if each.reason == "SchedulingGated" and each.type == "PodScheduled":
            reason = "SchedulingGated"
    containers = _Containers(reason)
    total = len(spec.containers)
    if spec.init_containers or status.init_container_statuses:
        always = [each.name for each in spec.init_containers if each.restart_policy == "Always"]
        total += len(always)
        containers.count_init(pod, set(always))
    else:
        containers.count_main(status)
    reason = containers.reason
    if metadata.deletion_timestamp is not None:
        if status.reason == "NodeLost":
            reason = "Unknown"
        elif status.phase not in ("Failed", "Succeeded"):
            reason = "Terminating"
    restarts = containers.restarts
    cells = [
        metadata.name,
        f"{containers.ready}/{total}",
        reason,
        str(restarts),
        UNKNOWN,
        status.pod_ip or (status.pod_ips[0].ip if status.pod_ips else "") or NONE,
        spec.node_name or NONE,
        status.nominated_node_name or NONE,
        _readiness_gates(pod),
    ]
    ages: tuple[Age, ...] = ()
    created = seconds_since_epoch(metadata.creation_timestamp)
    if created is not None:
        ages = ((4, created, "%s"),)
    if restarts and containers.last_restart is not None:
        ages = (*ages, (3, containers.last_restart, f"{restarts} (%s ago)"))
    return Row(cells, ages, _CONDITIONS.get(status.phase, ()))


class _PodTemplate(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    template: Template = Template()


def _pod_template(each: _PodTemplate) -> Row:
    """printers.go: printPodTemplate."""
    return Row([each.metadata.name, *container_cells(each.template), format_labels(each.template.metadata.labels)])


CONTAINERS = wide("Containers", "Names of each container in the template.")
IMAGES = wide("Images", "Images referenced by each container in the template.")

PODS = TypedPrinter(
    (
        NAME,
        Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", description="The aggregate status of the containers in this pod."),
        Column(
            "Restarts",
            description="The number of times the containers in this pod have been restarted and when the last "
            "container in this pod has restarted.",
        ),
        AGE,
        wide("IP", described("PodStatus.podIP")),
        wide("Node", described("PodSpec.nodeName")),
        wide("Nominated Node", described("PodStatus.nominatedNodeName")),
        wide("Readiness Gates", described("PodSpec.readinessGates")),
    ),
    _Pod,
    _pod,
)

POD_TEMPLATES = TypedPrinter(
    (
        NAME,
        Column("Containers", description=CONTAINERS.description),
        Column("Images", description=IMAGES.description),
        Column("Pod Labels", description="The labels for the pod template."),
    ),
    _PodTemplate,
    _pod_template,
)
