"""What keeps pods running: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob and such."""

from __future__ import annotations

from query.tables.ages import human_duration, seconds_since_epoch
from query.tables.columns import (
    AGE,
    NAME,
    Column,
    DeletableMetadata,
    Metadata,
    Part,
    Row,
    TypedPrinter,
    aged,
    described,
    wide,
)
from query.tables.labels import NONE, LabelSelector, format_labels, format_selector, selector_text
from query.tables.pods import CONTAINERS, IMAGES, ObjectCondition, Template, container_cells


class _Spec(Part, frozen=True, gc=False):
    # The server fills in 1 where replicas is absent.
    replicas: int = 1
    selector: LabelSelector | None = None
    template: Template = Template()


class _Status(Part, frozen=True, gc=False):
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0


class _Replicated(Part, frozen=True, gc=False):
    """A Deployment, ReplicaSet or StatefulSet."""

    metadata: Metadata = Metadata()
    spec: _Spec = _Spec()
    status: _Status = _Status()


def _deployment(each: _Replicated) -> Row:
    """printers.go: printDeployment."""
    spec, status = each.spec, each.status
    selector = selector_text(spec.selector)
    cells = [
        each.metadata.name,
        f"{status.ready_replicas}/{spec.replicas}",
        status.updated_replicas,
        status.available_replicas,
        None,
        *container_cells(spec.template),
        "<invalid>" if selector is None else selector,
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


def _replica_set(each: _Replicated) -> Row:
    """printers.go: printReplicaSet."""
    spec, status = each.spec, each.status
    cells = [
        each.metadata.name,
        spec.replicas,
        status.replicas,
        status.ready_replicas,
        None,
        *container_cells(spec.template),
        format_selector(spec.selector),
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


def _stateful_set(each: _Replicated) -> Row:
    """printers.go: printStatefulSet."""
    ready = f"{each.status.ready_replicas}/{each.spec.replicas}"
    cells = [each.metadata.name, ready, None, *container_cells(each.spec.template)]
    return aged(cells, (2, each.metadata.creation_timestamp))


class _ControllerSpec(Part, frozen=True, gc=False):
    replicas: int = 1
    selector: dict[str, str] | None = None
    template: Template | None = None


class _ReplicationController(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _ControllerSpec = _ControllerSpec()
    status: _Status = _Status()


def _replication_controller(each: _ReplicationController) -> Row:
    """printers.go: printReplicationController."""
    spec, status = each.spec, each.status
    cells = [
        each.metadata.name,
        spec.replicas,
        status.replicas,
        status.ready_replicas,
        None,
        *container_cells(spec.template or Template()),
        format_labels(spec.selector),
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


class _DaemonStatus(Part, frozen=True, gc=False):
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0


class _DaemonSet(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _Spec = _Spec()
    status: _DaemonStatus = _DaemonStatus()


def _daemon_set(each: _DaemonSet) -> Row:
    """printers.go: printDaemonSet."""
    spec, status = each.spec, each.status
    cells = [
        each.metadata.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        format_labels(spec.template.spec.node_selector),
        None,
        *container_cells(spec.template),
        format_selector(spec.selector),
    ]
    return aged(cells, (7, each.metadata.creation_timestamp))


class _JobSpec(Part, frozen=True, gc=False):
    completions: int | None = None
    parallelism: int | None = None
    selector: LabelSelector | None = None
    template: Template = Template()


class _JobStatus(Part, frozen=True, gc=False):
    succeeded: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    conditions: tuple[ObjectCondition, ...] = ()


class _Job(Part, frozen=True, gc=False):
    metadata: DeletableMetadata = DeletableMetadata()
    spec: _JobSpec = _JobSpec()
    status: _JobStatus = _JobStatus()


def _job_status(job: _Job) -> str:
    # Only the first condition of each type counts.
    conditions: dict[str, str] = {}
    for each in job.status.conditions:
        conditions.setdefault(each.type, each.status)
    if conditions.get("Complete") == "True":
        return "Complete"
    if conditions.get("Failed") == "True":
        return "Failed"
    if job.metadata.deletion_timestamp is not None:
        return "Terminating"
    for kind in ("Suspended", "FailureTarget"):
        if conditions.get(kind) == "True":
            return kind
    return "Running"


def _job(each: _Job) -> Row:
    """printers.go: printJob. The duration of a job that runs grows like an age."""
    spec, status = each.spec, each.status
    if spec.completions is not None:
        completions = f"{status.succeeded}/{spec.completions}"
    elif (spec.parallelism or 0) > 1:
        completions = f"{status.succeeded}/1 of {spec.parallelism}"
    else:
        completions = f"{status.succeeded}/1"
    cells = [
        each.metadata.name,
        _job_status(each),
        completions,
        "",
        None,
        *container_cells(spec.template),
        format_selector(spec.selector),
    ]
    started = seconds_since_epoch(status.start_time)
    completed = seconds_since_epoch(status.completion_time)
    if started is None:
        return aged(cells, (4, each.metadata.creation_timestamp))
    if completed is None:
        return aged(cells, (3, status.start_time), (4, each.metadata.creation_timestamp))
    cells[3] = human_duration(completed - started)
    return aged(cells, (4, each.metadata.creation_timestamp))


class _JobTemplate(Part, frozen=True, gc=False):
    spec: _JobSpec = _JobSpec()


class _CronJobSpec(Part, frozen=True, gc=False):
    schedule: str = ""
    time_zone: str | None = None
    suspend: bool | None = None
    job_template: _JobTemplate = _JobTemplate()


class _Active(Part, frozen=True, gc=False):
    pass


class _CronJobStatus(Part, frozen=True, gc=False):
    active: tuple[_Active, ...] = ()
    last_schedule_time: str | None = None


class _CronJob(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _CronJobSpec = _CronJobSpec()
    status: _CronJobStatus = _CronJobStatus()


def _cron_job(each: _CronJob) -> Row:
    """printers.go: printCronJob."""
    spec, status = each.spec, each.status
    job = spec.job_template.spec
    cells = [
        each.metadata.name,
        spec.schedule,
        NONE if spec.time_zone is None else spec.time_zone,
        "<unset>" if spec.suspend is None else str(spec.suspend),
        len(status.active),
        NONE,
        None,
        *container_cells(job.template),
        format_selector(job.selector),
    ]
    created = (6, each.metadata.creation_timestamp)
    if status.last_schedule_time is None:
        return aged(cells, created)
    return aged(cells, (5, status.last_schedule_time), created)


class _Owner(Part, frozen=True, gc=False):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class _OwnedMetadata(Metadata, frozen=True, gc=False):
    owner_references: tuple[_Owner, ...] = ()


class _ControllerRevision(Part, frozen=True, gc=False):
    metadata: _OwnedMetadata = _OwnedMetadata()
    revision: int = 0


def _controller_revision(each: _ControllerRevision) -> Row:
    """printers.go: printControllerRevision, e.g. `statefulset.apps/web`."""
    controller = NONE
    for owner in each.metadata.owner_references:
        if owner.controller:
            group = owner.api_version.rpartition("/")[0]
            kind = f"{owner.kind}.{group}" if group else owner.kind
            controller = f"{kind.lower()}/{owner.name}" if kind else owner.name
            break
    return aged([each.metadata.name, controller, each.revision, None], (3, each.metadata.creation_timestamp))


READY = Column("Ready", description="Number of the pod with ready state")

DEPLOYMENTS = TypedPrinter(
    (
        NAME,
        READY,
        Column("Up-to-date", description=described("DeploymentStatus.updatedReplicas")),
        Column("Available", description=described("DeploymentStatus.availableReplicas")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", described("DeploymentSpec.selector")),
    ),
    _Replicated,
    _deployment,
)


def _replica_columns(kind: str) -> tuple[Column, ...]:
    return (
        NAME,
        Column("Desired", "integer", description=described(f"{kind}Spec.replicas")),
        Column("Current", "integer", description=described(f"{kind}Status.replicas")),
        Column("Ready", "integer", description=described(f"{kind}Status.readyReplicas")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", described(f"{kind}Spec.selector")),
    )


REPLICA_SETS = TypedPrinter(_replica_columns("ReplicaSet"), _Replicated, _replica_set)
REPLICATION_CONTROLLERS = TypedPrinter(
    _replica_columns("ReplicationController"), _ReplicationController, _replication_controller
)
STATEFUL_SETS = TypedPrinter((NAME, READY, AGE, CONTAINERS, IMAGES), _Replicated, _stateful_set)

DAEMON_SETS = TypedPrinter(
    (
        NAME,
        Column("Desired", "integer", description=described("DaemonSetStatus.desiredNumberScheduled")),
        Column("Current", "integer", description=described("DaemonSetStatus.currentNumberScheduled")),
        Column("Ready", "integer", description=described("DaemonSetStatus.numberReady")),
        Column("Up-to-date", "integer", description=described("DaemonSetStatus.updatedNumberScheduled")),
        Column("Available", "integer", description=described("DaemonSetStatus.numberAvailable")),
        Column("Node Selector", description=described("PodSpec.nodeSelector")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", described("DaemonSetSpec.selector")),
    ),
    _DaemonSet,
    _daemon_set,
)

JOBS = TypedPrinter(
    (
        NAME,
        Column("Status", description="Status of the job."),
        Column("Completions", description=described("JobStatus.succeeded")),
        Column("Duration", description="Time required to complete the job."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", described("JobSpec.selector")),
    ),
    _Job,
    _job,
)

CRON_JOBS = TypedPrinter(
    (
        NAME,
        Column("Schedule", description=described("CronJobSpec.schedule")),
        Column("Timezone", description=described("CronJobSpec.timeZone")),
        Column("Suspend", "boolean", description=described("CronJobSpec.suspend")),
        Column("Active", "integer", description=described("CronJobStatus.active")),
        Column("Last Schedule", description=described("CronJobStatus.lastScheduleTime")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", described("JobSpec.selector")),
    ),
    _CronJob,
    _cron_job,
)

CONTROLLER_REVISIONS = TypedPrinter(
    (
        NAME,
        Column("Controller", description="Controller of the object"),
        Column("Revision", description=described("ControllerRevision.revision")),
        AGE,
    ),
    _ControllerRevision,
    _controller_revision,
)
