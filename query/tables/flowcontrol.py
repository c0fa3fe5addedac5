"""API priority and fairness: FlowSchema and PriorityLevelConfiguration."""

from __future__ import annotations

from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged, described
from query.tables.labels import NONE
from query.tables.pods import ObjectCondition


class _LevelReference(Part, frozen=True, gc=False):
    name: str = ""


class _Method(Part, frozen=True, gc=False):
    type: str = ""


class _FlowSpec(Part, frozen=True, gc=False):
    priority_level_configuration: _LevelReference = _LevelReference()
    matching_precedence: int = 0
    distinguisher_method: _Method | None = None


class _FlowStatus(Part, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()


class _Flow(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _FlowSpec = _FlowSpec()
    status: _FlowStatus = _FlowStatus()


def _flow(each: _Flow) -> Row:
    """printers.go: printFlowSchema."""
    spec = each.spec
    cells = [
        each.metadata.name,
        spec.priority_level_configuration.name,
        spec.matching_precedence,
        NONE if spec.distinguisher_method is None else spec.distinguisher_method.type,
        None,
        next((at.status for at in each.status.conditions if at.type == "Dangling"), "?"),
    ]
    return aged(cells, (4, each.metadata.creation_timestamp))


class _Queuing(Part, frozen=True, gc=False):
    queues: int = 0
    hand_size: int = 0
    queue_length_limit: int = 0


class _Response(Part, frozen=True, gc=False):
    queuing: _Queuing | None = None


class _Limited(Part, frozen=True, gc=False):
    # The server fills in 30 where it is absent.
    nominal_concurrency_shares: int = 30
    # What v1alpha1 to v1beta2 call it (served before 1.29).
    assured_concurrency_shares: int | None = None
    limit_response: _Response = _Response()

    @property
    def shares(self) -> int:
        assured = self.assured_concurrency_shares
        return self.nominal_concurrency_shares if assured is None else assured


class _LevelSpec(Part, frozen=True, gc=False):
    type: str = ""
    limited: _Limited | None = None


class _Level(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _LevelSpec = _LevelSpec()


def _level(each: _Level) -> Row:
    """printers.go: printPriorityLevelConfiguration."""
    limited = each.spec.limited
    queuing = None if limited is None else limited.limit_response.queuing
    cells = [
        each.metadata.name,
        each.spec.type,
        NONE if limited is None else limited.shares,
        NONE if queuing is None else queuing.queues,
        NONE if queuing is None else queuing.hand_size,
        NONE if queuing is None else queuing.queue_length_limit,
        None,
    ]
    return aged(cells, (6, each.metadata.creation_timestamp))


FLOW_SCHEMAS = TypedPrinter(
    (
        NAME,
        Column("PriorityLevel", description=described("PriorityLevelConfigurationReference.name")),
        Column("MatchingPrecedence", description=described("FlowSchemaSpec.matchingPrecedence")),
        Column("DistinguisherMethod", description=described("FlowSchemaSpec.distinguisherMethod")),
        AGE,
        Column("MissingPL", description="references a broken or non-existent PriorityLevelConfiguration"),
    ),
    _Flow,
    _flow,
    # The server sorts a list's rows so (printers.go: printFlowSchemaList; apis/flowcontrol/util: FlowSchemaSequence).
    order=lambda each: (each.spec.matching_precedence, each.metadata.name),
)

PRIORITY_LEVELS = TypedPrinter(
    (
        NAME,
        Column("Type", description=described("PriorityLevelConfigurationSpec.type")),
        Column(
            "NominalConcurrencyShares",
            description=described("LimitedPriorityLevelConfiguration.nominalConcurrencyShares"),
        ),
        Column("Queues", description=described("QueuingConfiguration.queues")),
        Column("HandSize", description=described("QueuingConfiguration.handSize")),
        Column("QueueLengthLimit", description=described("QueuingConfiguration.queueLengthLimit")),
        AGE,
    ),
    _Level,
    _level,
)
