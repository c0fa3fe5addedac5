"""The cluster itself: nodes, namespaces, leases, component health, runtime classes and API services."""

from __future__ import annotations

import msgspec

from query.tables.columns import AGE, NAME, Column, Metadata, Part, Row, TypedPrinter, aged, described, wide
from query.tables.labels import NONE, list_with_more
from query.tables.pods import ObjectCondition

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


class _LabelledMetadata(Metadata, frozen=True, gc=False):
    labels: dict[str, str] | None = None


class _NodeSpec(Part, frozen=True, gc=False):
    unschedulable: bool = False


class _NodeAddress(Part, frozen=True, gc=False):
    type: str = ""
    address: str = ""


class _NodeInfo(Part, frozen=True, gc=False):
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""


class _NodeStatus(Part, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()
    addresses: tuple[_NodeAddress, ...] = ()
    node_info: _NodeInfo = _NodeInfo()


class _Node(Part, frozen=True, gc=False):
    metadata: _LabelledMetadata = _LabelledMetadata()
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


def _roles(labels: dict[str, str] | None) -> str:
    """printers.go: findNodeRoles."""
    roles: set[str] = set()
    for key, value in (labels or {}).items():
        if key.startswith(_ROLE_PREFIX):
            roles.add(key[len(_ROLE_PREFIX) :])
        elif key == _ROLE_LABEL:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _node_address(node: _Node, kind: str) -> str:
    for each in node.status.addresses:
        if each.type == kind:
            return each.address
    return NONE


def _node(each: _Node) -> Row:
    """printers.go: printNode."""
    status = "Unknown"
    for condition in each.status.conditions:
        if condition.type == "Ready":
            status = "Ready" if condition.status == "True" else "NotReady"
    info = each.status.node_info
    cells = [
        each.metadata.name,
        f"{status},SchedulingDisabled" if each.spec.unschedulable else status,
        _roles(each.metadata.labels),
        None,
        info.kubelet_version,
        _node_address(each, "InternalIP"),
        _node_address(each, "ExternalIP"),
        info.os_image or "<unknown>",
        info.kernel_version or "<unknown>",
        info.container_runtime_version or "<unknown>",
    ]
    return aged(cells, (3, each.metadata.creation_timestamp))


class _Phase(Part, frozen=True, gc=False):
    phase: str = ""


class _Namespace(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    status: _Phase = _Phase()


def _namespace(each: _Namespace) -> Row:
    """printers.go: printNamespace."""
    return aged([each.metadata.name, each.status.phase, None], (2, each.metadata.creation_timestamp))


class _LeaseSpec(Part, frozen=True, gc=False):
    holder_identity: str | None = None


class _Lease(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _LeaseSpec = _LeaseSpec()


def _lease(each: _Lease) -> Row:
    """printers.go: printLease."""
    return aged([each.metadata.name, each.spec.holder_identity or "", None], (2, each.metadata.creation_timestamp))


class _CandidateSpec(Part, frozen=True, gc=False):
    lease_name: str = ""
    binary_version: str = ""
    emulation_version: str = ""


class _Candidate(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _CandidateSpec = _CandidateSpec()


def _lease_candidate(each: _Candidate) -> Row:
    """printers.go: printLeaseCandidate."""
    spec = each.spec
    cells = [each.metadata.name, spec.lease_name, spec.binary_version, spec.emulation_version, None]
    return aged(cells, (4, each.metadata.creation_timestamp))


class _ComponentCondition(Part, frozen=True, gc=False):
    type: str = ""
    status: str = ""
    message: str = ""
    error: str = ""


class _ComponentStatus(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    conditions: tuple[_ComponentCondition, ...] = ()


def _component_status(each: _ComponentStatus) -> Row:
    """printers.go: printComponentStatus."""
    for condition in each.conditions:
        if condition.type == "Healthy":
            status = "Healthy" if condition.status == "True" else "Unhealthy"
            return Row([each.metadata.name, status, condition.message, condition.error])
    return Row([each.metadata.name, "Unknown", "", ""])


class _RuntimeClass(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    handler: str = ""


def _runtime_class(each: _RuntimeClass) -> Row:
    """printers.go: printRuntimeClass."""
    return aged([each.metadata.name, each.handler, None], (2, each.metadata.creation_timestamp))


class _ServerVersion(Part, frozen=True, gc=False):
    api_server_id: str = msgspec.field(name="apiServerID", default="")
    encoding_version: str = ""


class _StorageVersionStatus(Part, frozen=True, gc=False):
    common_encoding_version: str | None = None
    storage_versions: tuple[_ServerVersion, ...] = ()


class _StorageVersion(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    status: _StorageVersionStatus = _StorageVersionStatus()


def _storage_version(each: _StorageVersion) -> Row:
    """printers.go: printStorageVersion."""
    common = each.status.common_encoding_version
    versions = [f"{at.api_server_id}={at.encoding_version}" for at in each.status.storage_versions]
    cells = [each.metadata.name, "<unset>" if common is None else common, list_with_more(versions), None]
    return aged(cells, (3, each.metadata.creation_timestamp))


class _MigratedResource(Part, frozen=True, gc=False):
    group: str = ""
    version: str = ""
    resource: str = ""


class _MigrationSpec(Part, frozen=True, gc=False):
    resource: _MigratedResource = _MigratedResource()


class _Migration(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _MigrationSpec = _MigrationSpec()


def _storage_version_migration(each: _Migration) -> Row:
    """printers.go: printStorageVersionMigration. From v1beta1 on no version is named; core's group is empty."""
    at = each.spec.resource
    parts = [at.resource, at.version, at.group] if at.version else [at.resource, at.group]
    return Row([each.metadata.name, ".".join(parts)])


class _ServiceReference(Part, frozen=True, gc=False):
    namespace: str = ""
    name: str = ""


class _APIServiceSpec(Part, frozen=True, gc=False):
    service: _ServiceReference | None = None


class _APIServiceStatus(Part, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()


class _APIService(Part, frozen=True, gc=False):
    metadata: Metadata = Metadata()
    spec: _APIServiceSpec = _APIServiceSpec()
    status: _APIServiceStatus = _APIServiceStatus()


def _api_service(each: _APIService) -> Row:
    """kube-aggregator pkg/registry/apiservice/etcd: ConvertToTable."""
    at = each.spec.service
    available = "Unknown"
    for condition in each.status.conditions:
        if condition.type == "Available":
            available = condition.status
            if available != "True" and condition.reason:
                available = f"{available} ({condition.reason})"
            break
    cells = [each.metadata.name, "Local" if at is None else f"{at.namespace}/{at.name}", available, None]
    return aged(cells, (3, each.metadata.creation_timestamp))


NODES = TypedPrinter(
    (
        NAME,
        Column("Status", description="The status of the node"),
        Column("Roles", description="The roles of the node"),
        AGE,
        Column("Version", description=described("NodeSystemInfo.kubeletVersion")),
        wide("Internal-IP", described("NodeStatus.addresses")),
        wide("External-IP", described("NodeStatus.addresses")),
        wide("OS-Image", described("NodeSystemInfo.osImage")),
        wide("Kernel-Version", described("NodeSystemInfo.kernelVersion")),
        wide("Container-Runtime", described("NodeSystemInfo.containerRuntimeVersion")),
    ),
    _Node,
    _node,
)

NAMESPACES = TypedPrinter(
    (NAME, Column("Status", description="The status of the namespace"), AGE), _Namespace, _namespace
)

LEASES = TypedPrinter((NAME, Column("Holder", description=described("LeaseSpec.holderIdentity")), AGE), _Lease, _lease)

LEASE_CANDIDATES = TypedPrinter(
    (
        NAME,
        Column("LeaseName", description=described("LeaseCandidateSpec.leaseName")),
        # The server looks these two up in ObjectMeta, where they are not: no description.
        Column("BinaryVersion"),
        Column("EmulationVersion"),
        AGE,
    ),
    _Candidate,
    _lease_candidate,
)

COMPONENT_STATUSES = TypedPrinter(
    (
        NAME,
        Column("Status", description="Status of the component conditions"),
        Column("Message", description="Message of the component conditions"),
        Column("Error", description="Error of the component conditions"),
    ),
    _ComponentStatus,
    _component_status,
)

RUNTIME_CLASSES = TypedPrinter((NAME, Column("Handler"), AGE), _RuntimeClass, _runtime_class)

STORAGE_VERSIONS = TypedPrinter(
    (
        NAME,
        Column("CommonEncodingVersion", description=described("StorageVersionStatus.commonEncodingVersion")),
        Column("StorageVersions", description=described("StorageVersionStatus.storageVersions")),
        AGE,
    ),
    _StorageVersion,
    _storage_version,
)

STORAGE_VERSION_MIGRATIONS = TypedPrinter(
    (
        # The server does not mark this one as the name.
        Column("Name", description=NAME.description),
        Column("Resource", description="Fully qualified resource to migrate"),
    ),
    _Migration,
    _storage_version_migration,
)

API_SERVICES = TypedPrinter(
    (
        NAME,
        Column("Service", description="The reference to the service that hosts this API endpoint."),
        Column("Available", description="Whether this service is available."),
        AGE,
    ),
    _APIService,
    _api_service,
)
