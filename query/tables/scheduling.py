"""Scheduling and disruption: PodDisruptionBudget, PriorityClass, and the devices of resource.k8s.io."""

from __future__ import annotations

import msgspec

from query.tables.columns import (
    AGE,
    NAME,
    Column,
    DeletableMetadata,
    Metadata,
    MetadataOnly,
    Part,
    Row,
    TypedPrinter,
    aged,
    described,
)
from query.tables.configuration import name_and_age


class _BudgetSpec(Part, frozen=True, gc=False):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class _BudgetStatus(Part, frozen=True, gc=False):
    disruptions_allowed: int = 0


class _Budget(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _BudgetSpec = _BudgetSpec()
    status: _BudgetStatus = _BudgetStatus()


def _budget(each: _Budget) -> Row:
    """printers.go: printPodDisruptionBudget."""
    spec = each.spec
    cells = [
        each.metadata.name,
        "N/A" if spec.min_available is None else str(spec.min_available),
        "N/A" if spec.max_unavailable is None else str(spec.max_unavailable),
        each.status.disruptions_allowed,
        None,
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


class _PriorityClass(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    value: int = 0
    global_default: bool = False
    preemption_policy: str | None = None


def _priority_class(each: _PriorityClass) -> Row:
    """printers.go: printPriorityClass."""
    cells = [each.metadata.name, each.value, each.global_default, None, each.preemption_policy or ""]
    return aged(cells, (3, each.metadata.creation_timestamp))


class _Allocation(Part, frozen=True, gc=False):
    pass


class _ClaimStatus(Part, frozen=True, gc=False):
    allocation: _Allocation | None = None
    reserved_for: tuple[msgspec.Raw, ...] = ()


class _Claim(Part, frozen=True, gc=False):
    metadata: DeletableMetadata = DeletableMetadata()
    status: _ClaimStatus = _ClaimStatus()


def _claim(each: _Claim) -> Row:
    """printers.go: printResourceClaim, resourceClaimState."""
    states: list[str] = []
    if each.metadata.deletion_timestamp is not None:
        states.append("deleted")
    if each.status.allocation is not None:
        states.append("allocated")
        if each.status.reserved_for:
            states.append("reserved")
    return aged([each.metadata.name, ",".join(states) or "pending", None], (2, each.metadata.creation_timestamp))


class _Pool(Part, frozen=True, gc=False):
    name: str = ""


class _SliceSpec(Part, frozen=True, gc=False):
    node_name: str | None = None
    driver: str = ""
    pool: _Pool = _Pool()


class _Slice(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _SliceSpec = _SliceSpec()


def _slice(each: _Slice) -> Row:
    """printers.go: printResourceSlice."""
    spec = each.spec
    cells = [each.metadata.name, spec.node_name or "", spec.driver, spec.pool.name, None]
    return aged(cells, (4, each.metadata.creation_timestamp))


POD_DISRUPTION_BUDGETS = TypedPrinter(
    (
        NAME,
        Column("Min Available", description="The minimum number of pods that must be available."),
        Column("Max Unavailable", description="The maximum number of pods that may be unavailable."),
        Column(
            "Allowed Disruptions",
            "integer",
            description="Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ),
    _Budget,
    _budget,
)

PRIORITY_CLASSES = TypedPrinter(
    (
        NAME,
        Column("Value", "integer", description=described("PriorityClass.value")),
        Column("Global-Default", "boolean", description=described("PriorityClass.globalDefault")),
        AGE,
        Column("PreemptionPolicy", description=described("PriorityClass.preemptionPolicy")),
    ),
    _PriorityClass,
    _priority_class,
)

DEVICE_CLASSES = TypedPrinter((NAME, AGE), MetadataOnly, name_and_age)
RESOURCE_CLAIM_TEMPLATES = TypedPrinter((NAME, AGE), MetadataOnly, name_and_age)

RESOURCE_CLAIMS = TypedPrinter(
    (
        NAME,
        Column("State", description="A summary of the current state (allocated, pending, reserved, etc.)."),
        AGE,
    ),
    _Claim,
    _claim,
)

RESOURCE_SLICES = TypedPrinter(
    (
        NAME,
        Column("Node", description=described("ResourceSliceSpec.nodeName")),
        Column("Driver", description=described("ResourceSliceSpec.driver")),
        Column("Pool", description=described("ResourcePool.name")),
        AGE,
    ),
    _Slice,
    _slice,
)
