"""What configures pods: ConfigMap, Secret, ServiceAccount and ResourceQuota."""

from __future__ import annotations

import msgspec

from query.tables.columns import AGE, NAME, Column, Metadata, MetadataOnly, Part, Row, TypedPrinter, aged, described


class _ConfigMap(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    data: dict[str, msgspec.Raw] | None = None
    binary_data: dict[str, msgspec.Raw] | None = None


def _config_map(each: _ConfigMap) -> Row:
    """printers.go: printConfigMap."""
    count = len(each.data or ()) + len(each.binary_data or ())
    return aged([each.metadata.name, count, None], (2, each.metadata.creation_timestamp))


class _Secret(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    type: str = ""
    data: dict[str, msgspec.Raw] | None = None


def _secret(each: _Secret) -> Row:
    """printers.go: printSecret."""
    return aged([each.metadata.name, each.type, len(each.data or ()), None], (3, each.metadata.creation_timestamp))


def name_and_age(each: MetadataOnly) -> Row:
    """printers.go: printServiceAccount, printDeviceClass and others that have nothing more to say."""
    return aged([each.metadata.name, None], (1, each.metadata.creation_timestamp))


class _QuotaStatus(Part, frozen=True, gc=False):
    hard: dict[str, str | int] | None = None
    used: dict[str, str | int] | None = None


class _Quota(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    status: _QuotaStatus = _QuotaStatus()


def _quota(each: _Quota) -> Row:
    """printers.go: printResourceQuota. `limits.cpu` and the like go into a column of their own."""
    hard, used = each.status.hard or {}, each.status.used or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        (limits if name.startswith("limits.") else requests).append(f"{name}: {used.get(name, '0')}/{hard[name]}")
    cells = [each.metadata.name, ", ".join(requests), ", ".join(limits), None]
    return aged(cells, (3, each.metadata.creation_timestamp))


CONFIG_MAPS = TypedPrinter(
    (NAME, Column("Data", description=described("ConfigMap.data")), AGE), _ConfigMap, _config_map
)

SECRETS = TypedPrinter(
    (
        NAME,
        Column("Type", description=described("Secret.type")),
        Column("Data", description=described("Secret.data")),
        AGE,
    ),
    _Secret,
    _secret,
)

SERVICE_ACCOUNTS = TypedPrinter((NAME, AGE), MetadataOnly, name_and_age)

RESOURCE_QUOTAS = TypedPrinter(
    (
        NAME,
        Column(
            "Request",
            description="Request represents a minimum amount of cpu/memory that a container may consume.",
        ),
        Column(
            "Limit",
            description="Limits control the maximum amount of cpu/memory that a container may use independent of "
            "contention on the node.",
        ),
        AGE,
    ),
    _Quota,
    _quota,
)
