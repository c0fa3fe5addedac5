"""Horizontal pod autoscalers, of autoscaling/v2 and v1."""

from __future__ import annotations

import contextlib
from typing import Generic, TypeVar

import msgspec

from query.tables.ages import UNKNOWN
from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged, described
from query.tables.labels import NONE

Quantity = str | int | None


class _Value(Part, frozen=True, gc=False):
    """A MetricTarget of the spec, or a MetricValueStatus of the status."""

    value: Quantity = None
    average_value: Quantity = None
    average_utilization: int | None = None


class _Metric(Part, frozen=True, gc=False):
    """What a metric is measured by, wanted in the spec and found in the status."""

    name: str = ""
    target: _Value = _Value()
    current: _Value = _Value()


class _AnyMetric(Part, frozen=True, gc=False):
    type: str = ""
    external: _Metric | None = None
    pods: _Metric | None = None
    object: _Metric | None = None
    resource: _Metric | None = None
    container_resource: _Metric | None = None


class _WantedBefore(Part, frozen=True, gc=False):
    """A metric of the spec as autoscaling/v1 has it in an annotation, of any kind."""

    name: str = ""
    target_value: Quantity = None
    target_average_value: Quantity = None
    target_average_utilization: int | None = None
    # Of an object.
    average_value: Quantity = None

    def known(self) -> _Metric:
        average = self.average_value if self.target_average_value is None else self.target_average_value
        return _Metric(self.name, target=_Value(self.target_value, average, self.target_average_utilization))


class _FoundBefore(Part, frozen=True, gc=False):
    """As above, of the status."""

    name: str = ""
    current_value: Quantity = None
    current_average_value: Quantity = None
    current_average_utilization: int | None = None
    average_value: Quantity = None

    def known(self) -> _Metric:
        average = self.average_value if self.current_average_value is None else self.current_average_value
        return _Metric(self.name, current=_Value(self.current_value, average, self.current_average_utilization))


B = TypeVar("B", _WantedBefore, _FoundBefore)


class _AnyBefore(Part, Generic[B], frozen=True, gc=False):
    type: str = ""
    external: B | None = None
    pods: B | None = None
    object: B | None = None
    resource: B | None = None
    container_resource: B | None = None

    def known(self) -> _AnyMetric:
        kinds = (self.external, self.pods, self.object, self.resource, self.container_resource)
        return _AnyMetric(self.type, *(None if one is None else one.known() for one in kinds))


_wanted_before = msgspec.json.Decoder(tuple[_AnyBefore[_WantedBefore], ...]).decode
_found_before = msgspec.json.Decoder(tuple[_AnyBefore[_FoundBefore], ...]).decode


class _Annotations(Part, frozen=True, gc=False):
    """pkg/apis/autoscaling/annotations.go: what autoscaling/v1 has no fields for."""

    metrics: str = msgspec.field(name="autoscaling.alpha.kubernetes.io/metrics", default="")
    current: str = msgspec.field(name="autoscaling.alpha.kubernetes.io/current-metrics", default="")


class _Metadata(Metadata, frozen=True, gc=False):
    annotations: _Annotations = _Annotations()


class _Reference(Part, frozen=True, gc=False):
    kind: str = ""
    name: str = ""


class _Spec(Part, frozen=True, gc=False):
    scale_target_ref: _Reference = _Reference()
    min_replicas: int | None = None
    max_replicas: int = 0
    metrics: tuple[_AnyMetric, ...] = ()
    # v1 knows but the use of CPU, others are in annotations; the server prints them as the v2 metrics that they are.
    target_cpu: int | None = msgspec.field(name="targetCPUUtilizationPercentage", default=None)


class _Status(Part, frozen=True, gc=False):
    current_replicas: int = 0
    current_metrics: tuple[_AnyMetric | None, ...] | None = None
    current_cpu: int | None = msgspec.field(name="currentCPUUtilizationPercentage", default=None)


class _Autoscaler(Part, frozen=True, gc=False):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()
    status: _Status = _Status()


def _quantity(value: Quantity) -> str:
    return "<nil>" if value is None else str(value)


def _percent(value: int | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value}%"


def _metric_value(target: _Value, current: _Value | None) -> str:
    """Of an external or object metric: by average if the target is one, else by value."""
    if target.average_value is not None:
        found = UNKNOWN if current is None or current.average_value is None else str(current.average_value)
        return f"{found}/{target.average_value} (avg)"
    found = UNKNOWN if current is None else _quantity(current.value)
    return f"{found}/{_quantity(target.value)}"


def _resource(metric: _Metric, current: _Value | None) -> str:
    """Of a resource: by amount if the target is one, else by share of what the pods request."""
    target = metric.target
    if target.average_value is not None:
        found = UNKNOWN if current is None else _quantity(current.average_value)
        return f"{metric.name}: {found}/{target.average_value}"
    found = UNKNOWN if current is None else _percent(current.average_utilization, UNKNOWN)
    return f"{metric.name}: {found}/{_percent(target.average_utilization, '<auto>')}"


def _metric(wanted: _AnyMetric, status: _AnyMetric | None) -> str:
    kind = wanted.type
    if kind == "External":
        metric, found = wanted.external, status and status.external
    elif kind == "Pods":
        metric, found = wanted.pods, status and status.pods
    elif kind == "Object":
        metric, found = wanted.object, status and status.object
    elif kind == "Resource":
        metric, found = wanted.resource, status and status.resource
    elif kind == "ContainerResource":
        metric, found = wanted.container_resource, status and status.container_resource
    else:
        return "<unknown type>"
    if metric is None:
        return UNKNOWN
    current = found.current if found else None
    if kind == "Pods":
        amount = UNKNOWN if current is None else _quantity(current.average_value)
        return f"{amount}/{_quantity(metric.target.average_value)}"
    if kind in ("External", "Object"):
        return _metric_value(metric.target, current)
    return _resource(metric, current)


def _metrics(wanted: tuple[_AnyMetric, ...], found: tuple[_AnyMetric | None, ...]) -> str:
    """printers.go: formatHPAMetrics."""
    if not wanted:
        return NONE
    text = ", ".join([_metric(each, found[i] if i < len(found) else None) for i, each in enumerate(wanted[:2])])
    return f"{text} + {len(wanted) - 2} more..." if len(wanted) > 2 else text


def _cpu(target: int | None, current: int | None) -> _AnyMetric:
    return _AnyMetric(
        type="Resource",
        resource=_Metric(
            name="cpu", target=_Value(average_utilization=target), current=_Value(average_utilization=current)
        ),
    )


def _before(each: _Autoscaler) -> tuple[tuple[_AnyMetric, ...], tuple[_AnyMetric, ...]]:
    """The metrics of autoscaling/v1 (pkg/apis/autoscaling/v1/conversion.go)."""
    annotations, cpu = each.metadata.annotations, each.spec.target_cpu
    wanted: list[_AnyMetric] = []
    found: tuple[_AnyMetric, ...] = (_cpu(None, each.status.current_cpu),)
    # What cannot be read counts as absent.
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        if annotations.metrics:
            wanted = [one.known() for one in _wanted_before(annotations.metrics)]
    if cpu is not None:
        wanted.append(_cpu(cpu, None))
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        if annotations.current:
            # It has what the field has, too.
            found = tuple(one.known() for one in _found_before(annotations.current))
    return tuple(wanted), found


def _autoscaler(each: _Autoscaler) -> Row:
    """printers.go: printHorizontalPodAutoscaler."""
    spec, status = each.spec, each.status
    wanted, found = spec.metrics, status.current_metrics or ()
    if not wanted:
        wanted, found = _before(each)
    cells = [
        each.metadata.name,
        f"{spec.scale_target_ref.kind}/{spec.scale_target_ref.name}",
        _metrics(wanted, found),
        "<unset>" if spec.min_replicas is None else str(spec.min_replicas),
        spec.max_replicas,
        status.current_replicas,
        None,
    ]
    return aged(cells, (6, each.metadata.creation_timestamp))


HORIZONTAL_POD_AUTOSCALERS = TypedPrinter(
    (
        NAME,
        Column("Reference", description=described("HorizontalPodAutoscalerSpec.scaleTargetRef")),
        Column("Targets", description=described("HorizontalPodAutoscalerSpec.metrics")),
        Column("MinPods", description=described("HorizontalPodAutoscalerSpec.minReplicas")),
        Column("MaxPods", description=described("HorizontalPodAutoscalerSpec.maxReplicas")),
        Column("Replicas", description=described("HorizontalPodAutoscalerStatus.currentReplicas")),
        AGE,
    ),
    _Autoscaler,
    _autoscaler,
)
