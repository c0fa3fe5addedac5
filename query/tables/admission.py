"""Admission: webhook configurations, admission policies and their bindings."""

from __future__ import annotations

import msgspec

from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged
from query.tables.labels import LabelSelector, go_selector

UNSET = "<unset>"


class _Webhooks(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    webhooks: tuple[msgspec.Raw, ...] = ()


def _webhooks(each: _Webhooks) -> Row:
    """printers.go: printMutatingWebhook, printValidatingWebhook."""
    return aged([each.metadata.name, len(each.webhooks), None], (2, each.metadata.creation_timestamp))


class _ParamKind(Part, frozen=True, gc=False):
    api_version: str = ""
    kind: str = ""


class _PolicySpec(Part, frozen=True, gc=False):
    param_kind: _ParamKind | None = None
    validations: tuple[msgspec.Raw, ...] = ()
    mutations: tuple[msgspec.Raw, ...] = ()


class _Policy(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _PolicySpec = _PolicySpec()


def _policy(each: _Policy, rules: int) -> Row:
    at = each.spec.param_kind
    kind = UNSET if at is None else f"{at.api_version}/{at.kind}"
    return aged([each.metadata.name, rules, kind, None], (3, each.metadata.creation_timestamp))


def _validating_policy(each: _Policy) -> Row:
    """printers.go: printValidatingAdmissionPolicy."""
    return _policy(each, len(each.spec.validations))


def _mutating_policy(each: _Policy) -> Row:
    """printers.go: printMutatingAdmissionPolicy."""
    return _policy(each, len(each.spec.mutations))


class _ParamReference(Part, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    selector: LabelSelector | None = None


class _BindingSpec(Part, frozen=True, gc=False):
    policy_name: str = ""
    param_ref: _ParamReference | None = None


class _Binding(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _BindingSpec = _BindingSpec()


def _binding(each: _Binding) -> Row:
    """printers.go: printValidatingAdmissionPolicyBinding, printMutatingAdmissionPolicyBinding."""
    at = each.spec.param_ref
    parameter = UNSET
    if at is not None and at.name:
        parameter = f"{at.namespace or '*'}/{at.name}"
    elif at is not None and at.selector is not None:
        parameter = go_selector(at.selector)
    cells = [each.metadata.name, each.spec.policy_name, parameter, None]
    return aged(cells, (3, each.metadata.creation_timestamp))


WEBHOOK_CONFIGURATIONS = TypedPrinter(
    (
        NAME,
        Column(
            "Webhooks",
            "integer",
            description="Webhooks indicates the number of webhooks registered in this configuration",
        ),
        AGE,
    ),
    _Webhooks,
    _webhooks,
)

_PARAM_KIND = Column(
    "ParamKind", description="ParamKind specifies the kind of resources used to parameterize this policy"
)

VALIDATING_POLICIES = TypedPrinter(
    (
        NAME,
        Column(
            "Validations",
            "integer",
            description="Validations indicates the number of validation rules defined in this configuration",
        ),
        _PARAM_KIND,
        AGE,
    ),
    _Policy,
    _validating_policy,
)

MUTATING_POLICIES = TypedPrinter(
    (
        NAME,
        Column(
            "Mutations",
            "integer",
            description="Mutation indicates the number of mutations rules defined in this configuration",
        ),
        _PARAM_KIND,
        AGE,
    ),
    _Policy,
    _mutating_policy,
)

POLICY_BINDINGS = TypedPrinter(
    (
        NAME,
        Column(
            "PolicyName",
            description="PolicyName indicates the policy definition which the policy binding binded to",
        ),
        # The misspelling is the server's.
        Column("ParamRef", description="ParamRef indicates the param resource which sets the configration param"),
        AGE,
    ),
    _Binding,
    _binding,
)
